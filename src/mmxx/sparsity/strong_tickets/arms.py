"""Trained networks, and the tickets that are measured beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from mmxx.sparsity.strong_tickets.construct import Map
from mmxx.sparsity.strong_tickets.network import RandomNet
from mmxx.sparsity.strong_tickets.redundant import popped
from mmxx.sparsity.strong_tickets.subset import covering_counts
from mmxx.sparsity.strong_tickets.ticket import GoldenTicket, StrongTicket, Ticket

_BATCH = 500


class Split(NamedTuple):
    """Pictures, float32 [N, ...], and labels, int64 [N]; the labels may be missing."""

    x: Tensor
    y: Tensor | None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Layers draw their weights from torch's default generator, which is then given back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def mlp(inputs: int, hidden: int, classes: int) -> nn.Sequential:
    """One hidden layer with biases, for pictures."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


def conv_net(channels: int, side: int, width: int, classes: int) -> nn.Sequential:
    """Two convolutions with biases, a pooling, and a linear layer, for square pictures."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(width * (side // 2) ** 2, classes),
    )  # fmt: skip


def train(net: nn.Sequential, data: Split, *, epochs: int, seed: int) -> None:
    """Adam at 3e-3 on batches of 64, with a weight decay of 1e-4."""
    assert data.y is not None
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.x), generator=generator).split(64):
            loss = nn.functional.cross_entropy(net(data.x[chosen]), data.y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def trained(net: nn.Sequential, data: Split, epochs: int, seed: int) -> dict[str, Tensor]:
    """The state of a network after `train`."""
    train(net, data, epochs=epochs, seed=seed)
    return net.state_dict()


@torch.no_grad()
def outputs(net: nn.Module, x: Tensor) -> Tensor:
    """The network's outputs, batch by batch: [N, classes]."""
    return torch.cat([net(part) for part in x.split(_BATCH)])


def make(
    law: str,
    target: nn.Sequential,
    eps: float,
    seed: int,
    map: Map = map,
    stop: float | None = None,
) -> Ticket:
    """The ticket of a law, "product", "row" or "golden"; ``stop`` is for the first two."""
    if law == "golden":
        return GoldenTicket.construct(target, eps, seed=seed, map=map)
    share = "row" if law == "row" else "none"
    return StrongTicket.construct(target, eps, seed=seed, share=share, map=map, stop=stop)


def judge(ticket: Ticket, net: RandomNet, data: Split, expected: Tensor) -> dict[str, Any]:
    """A network of masked random weights beside the target.

    Args:
        ticket: Where it comes from.
        net: The ticket's network, or its control.
        data: Pictures to compare on.
        expected: The target's outputs, [N, classes].

    Returns:
        Of the test pictures: ``right`` and ``target_right`` (None without labels), ``moved``
        predictions; ``gap``, the largest difference of an output; ``error``, the largest error of
        a weight.
    """
    found = outputs(net, data.x)
    errors = Ticket(ticket.target, net, ticket.counts).weight_errors()
    moved = found.argmax(1) != expected.argmax(1)
    return {
        "right": _right(found, data.y),
        "target_right": _right(expected, data.y),
        "moved": int(moved.sum()),
        "gap": float((found - expected).abs().max()),
        "error": float(errors.max()),
        "outputs": found[:100].numpy(),
    }


def _right(found: Tensor, labels: Tensor | None) -> int | None:
    return None if labels is None else int((found.argmax(1) == labels).sum())


def approximate(item: dict[str, Any]) -> dict[str, Any]:
    """Train a network, and find tickets that compute it.

    Args:
        item: kind ("mlp" or "conv"), train and test (`Split` of pictures [N, C, H, W]), hidden,
            width, epochs, eps, seed, laws (of the tickets) and shuffled (whether the control
            stands in the tickets' place).

    Returns:
        For each law what `judge` finds of ``ticket`` and ``control``, what it is made of, the
        ``bound`` that is proved, and ``changed``, the weights that a saved ticket gives back
        otherwise; and under "expected" the target's outputs for the first pictures.
    """
    data, test = item["train"], item["test"]
    _, channels, side, _ = data.x.shape
    classes = int(data.y.max()) + 1
    with _seeded(item["seed"]):
        if item["kind"] == "conv":
            net = conv_net(channels, side, item["width"], classes)
        else:
            net = mlp(channels * side * side, item["hidden"], classes)
    train(net, data, epochs=item["epochs"], seed=item["seed"])
    expected = outputs(net, test.x)
    found: dict[str, Any] = {"expected": expected[:100].numpy()}
    for law in item["laws"]:
        ticket = make(law, net, item["eps"], item["seed"])
        found[law] = report(ticket, test, expected, item["seed"], shuffled=item["shuffled"])
    return found


def report(
    ticket: Ticket, data: Split, expected: Tensor, seed: int, *, shuffled: bool
) -> dict[str, Any]:
    """A ticket and its control, judged; what it is made of; what is proved of it."""
    control = ticket.net.shuffled(seed)
    net = control if shuffled else ticket.net
    own = Ticket(ticket.target, net, ticket.counts)
    return {
        "ticket": judge(ticket, net, data, expected),
        "control": judge(ticket, control, data, expected),
        "bound": own.certificate(0.0, 1.0).bound,
        "changed": changed(ticket.net),
        "kept": sum(count.kept for count in ticket.counts),
        "choices": sum(count.choices for count in ticket.counts),
        "weights": sum(count.weights for count in ticket.counts),
        "retried": sum(count.retried for count in ticket.counts),
        "bytes": len(ticket.net.to_bytes()),
    }


def changed(net: RandomNet) -> int:
    """How many weights and mask bits a network that is saved and made anew has otherwise."""
    other = RandomNet.from_bytes(net.to_bytes()).state_dict()
    return sum(int((value != other[name]).sum()) for name, value in net.state_dict().items())


# -- how many random numbers it takes ----------------------------------------------------------


def cover(item: dict[str, Any]) -> np.ndarray:
    """How many random numbers it takes to come near every target in [-1/2, 1/2].

    Args:
        item: seed, trials, most (numbers at most) and eps (tolerances).

    Returns:
        int64 [trials, eps]; ``most + 1`` where they do not suffice.
    """
    rng = np.random.default_rng(item["seed"])
    return covering_counts(rng.uniform(-1, 1, (item["trials"], item["most"])), item["eps"])


def enough(covered: np.ndarray, share: float) -> float:
    """The count at which a share of the sets is covered, linear between whole counts.

    Args:
        covered: The share of sets that 1, 2, … numbers cover, ascending.
        share: The share wanted.

    Returns:
        The count, from 1; infinite where it is never reached.

    Example:
        >>> enough(np.array([0.0, 0.5, 1.0]), 0.75)
        2.5
    """
    reached = np.flatnonzero(covered >= share)
    if not reached.size:
        return float("inf")
    place = int(reached[0])
    below = float(covered[place - 1]) if place else 0.0
    return place + (share - below) / (float(covered[place]) - below)


def work(item: dict[str, Any]) -> Any:
    """Any of the tasks: `cover` for random numbers, `popped` for scores, else `approximate`."""
    task = {"cover": cover, "popped": popped}.get(item["kind"], approximate)
    return task(item)


def log_law(eps: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    r"""The straight line through counts over $\log_2 (1/\epsilon)$: slope, offset and $R^2$.

    Example:
        >>> log_law(np.array([0.5, 0.25, 0.125]), np.array([3.0, 5.0, 7.0]))
        (2.0, 1.0, 1.0)
    """
    x = np.log2(1 / eps)
    slope, offset = np.polyfit(x, counts, 1)
    left = np.square(counts - slope * x - offset).sum()
    r2 = 1 - left / np.square(counts - counts.mean()).sum()
    return round(float(slope), 9), round(float(offset), 9), round(float(r2), 9)


# -- networks of one's own ---------------------------------------------------------------------


def read_model(path: Path) -> nn.Sequential:
    """A network of linear layers with ReLU between, from the weights in a safetensors file.

    Args:
        path: A file of two-dimensional tensors ``NAME.weight`` [out, in], in order of their names,
            each with or without ``NAME.bias`` [out].

    Raises:
        ValueError: It is no such file, or the layers do not fit one another.
    """
    accepted = "accepted: safetensors of linear layers, NAME.weight [out, in] and NAME.bias [out]"
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"model: {path} cannot be read ({error}); {accepted}") from error
    layers: list[nn.Module] = []
    for name in sorted(_names(tensors, path, accepted), key=_in_order):
        weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
        if layers and weight.shape[1] != layers[-1].out_features:
            raise ValueError(
                f"model: {name}.weight takes {weight.shape[1]} inputs, the layer before it gives "
                f"{layers[-1].out_features}; {accepted}"
            )
        linear = nn.utils.skip_init(nn.Linear, *reversed(weight.shape), bias=bias is not None)
        linear.weight.data = weight.float()
        if bias is not None:
            linear.bias.data = bias.float()
        layers += [nn.ReLU(), linear] if layers else [linear]
    return nn.Sequential(nn.Flatten(), *layers)


def _names(tensors: Mapping[str, Tensor], path: Path, accepted: str) -> list[str]:
    names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    wrong = [name for name in names if tensors[f"{name}.weight"].ndim != 2]
    wrong += [
        name
        for name in tensors
        if not name.endswith(".weight")
        and (name.removesuffix(".bias") not in names or tensors[name].ndim != 1)
    ]
    if wrong or not names:
        found = ", ".join(wrong) if wrong else "no weights"
        raise ValueError(f"model: {path} holds {found}; {accepted}")
    return names


def _in_order(name: str) -> list[Any]:
    """Sorts 2 before 10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def check_size(target: nn.Sequential, x: Tensor) -> None:
    """Raises ValueError where a network cannot take pictures [N, C, H, W] for their size."""
    inputs, values = target[1].in_features, x[0].numel()
    if inputs != values:
        raise ValueError(
            f"model: its first layer takes {inputs} values, a picture has {values} "
            f"({' × '.join(map(str, x.shape[1:]))})"
        )
