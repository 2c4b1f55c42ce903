"""Edge-popup's selection beside sorting, its step beside a frozen mask's, its ticket beside dense.

Everything takes turns in one process; the least CPU time of each counts, and the ratios. The
reference sorts the scores of each layer in every forward, as the authors' code does; torch's
kthvalue is what their notes advise.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.kernels.select import keep_largest, keep_where_largest
from mmxx.sparsity.edge_popup import EdgePopup, load_ticket

WIDTHS = (784, 1200, 1200, 10)  # 2.4 million weights
K = 0.3


def least(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU time, of the fastest round of each."""
    times = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds + 1):  # the first compiles and warms
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name] = min(times[name], 1e3 * (time.process_time() - start))
    return times


def table(title: str, times: dict[str, float], unit: str) -> None:
    """Print times and their ratio to one of them."""
    print(f"\n{title}\n{'':34}{'ms':>9}{'× ' + unit:>30}")
    for name, milliseconds in times.items():
        print(f"{name:34}{milliseconds:9.2f}{milliseconds / times[unit]:30.2f}")


def model() -> nn.Sequential:
    """A perceptron without biases."""
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(inner, outer, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# -- selection ---------------------------------------------------------------------------------


def by_sorting(scores: Tensor, k: float) -> Tensor:
    """The mask by a full sort, as the authors' code makes it."""
    out = scores.clone()
    _, order = scores.flatten().sort()
    cut = int((1 - k) * scores.numel())
    flat = out.flatten()
    flat[order[:cut]] = 0
    flat[order[cut:]] = 1
    return flat.view_as(scores)


def by_kthvalue(scores: Tensor, k: float) -> Tensor:
    """The mask by torch's selection."""
    border = scores.flatten().kthvalue(int((1 - k) * scores.numel())).values
    return (scores > border).to(scores.dtype)


def selection(rounds: int) -> None:
    """Choose among 2.4 million scores."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1200, 1994, generator=generator)
    weight = torch.randn(1200, 1994, generator=generator)
    count = scores.numel() - int((1 - K) * scores.numel())
    assert torch.equal(by_sorting(scores.abs(), K).bool(), keep_largest(scores, count)[0])
    ways = {
        "ours, a mask": lambda: keep_largest(scores, count),
        "ours, the masked weight": lambda: keep_where_largest(weight, scores, count),
        "sort, a mask": lambda: by_sorting(scores.abs(), K),
        "kthvalue, a mask": lambda: by_kthvalue(scores.abs(), K),
    }
    table(f"{scores.numel():,} scores", least(ways, rounds), "ours, a mask")


# -- a step ------------------------------------------------------------------------------------


class Masked(nn.Module):
    """Trained weights under a mask that is held: what any sparse training must pay."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.float())

    def forward(self, weight: Tensor) -> Tensor:
        """The weight under the mask."""
        return weight * self.mask


class GetSubnet(torch.autograd.Function):
    """The mask by sorting, forward; the identity, backward."""

    @staticmethod
    def forward(ctx: Any, magnitudes: Tensor, k: float) -> Tensor:
        """The mask."""
        return by_sorting(magnitudes, k)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """The gradient as it comes."""
        return grad, None


class Subnet(nn.Module):
    """The reference: scores beside a weight, chosen by sorting."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight under the mask of its scores."""
        return weight * GetSubnet.apply(self.scores.abs(), K)


def competitors() -> dict[str, nn.Module]:
    """Networks of one shape, each with its way to a sparse weight."""
    ours = EdgePopup.convert(model(), k=K)
    found: dict[str, nn.Module] = {"frozen mask": model(), "dense": model(), "edge-popup": ours}
    reference = model()
    linear = [0, 2, 4]
    for index, scores, mask in zip(linear, ours.scores(), ours.masks().values(), strict=True):
        parametrize: Any = nn.utils.parametrize.register_parametrization
        parametrize(found["frozen mask"][index], "weight", Masked(mask))  # type: ignore[index]
        reference[index].weight.requires_grad_(False)
        parametrize(reference[index], "weight", Subnet(scores.detach().clone()))
    found["edge-popup by sorting"] = reference
    return found


def training(rounds: int, batch: int) -> None:
    """A forward, a backward and an update by SGD with momentum."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, WIDTHS[0], generator=generator)
    labels = torch.randint(WIDTHS[-1], (batch,), generator=generator)

    def stepper(net: nn.Module) -> Callable[[], None]:
        trained = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, 1e-3, momentum=0.9, weight_decay=1e-4, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), labels).backward()
            optimizer.step()

        return step

    ways = {name: stepper(net) for name, net in competitors().items()}
    weights = sum(a * b for a, b in itertools.pairwise(WIDTHS))
    table(f"a step, {weights:,} weights, batch {batch}", least(ways, rounds), "frozen mask")


# -- inference ---------------------------------------------------------------------------------


def inference(rounds: int, batch: int) -> None:
    """Batches through a network from a ticket, and through a dense one."""
    hidden = EdgePopup.convert(model(), k=K).eval()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "hidden.ticket")
        hidden.save_ticket(path)
        start = time.process_time()
        found = load_ticket(path, model()).eval()
        seconds = time.process_time() - start
        size = path.stat().st_size
    dense, inputs = model().eval(), torch.randn(batch, WIDTHS[0])
    assert torch.equal(found(inputs), hidden(inputs))

    def through(net: nn.Module) -> Callable[[], None]:
        def infer() -> None:
            with torch.inference_mode():
                for _ in range(10):
                    net(inputs)

        return infer

    ways = {"dense": through(dense), "from a ticket": through(found)}
    ways["hidden, in evaluation"] = through(hidden)
    table(f"10 batches of {batch}, inference", least(ways, rounds), "dense")
    print(f"the ticket has {size:,} bytes; its network is back in {1e3 * seconds:.0f} ms")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="turns of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--batch", type=int, default=128, help="samples in a step")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    selection(options.rounds)
    training(options.rounds, options.batch)
    inference(options.rounds, options.batch)


if __name__ == "__main__":
    main()
