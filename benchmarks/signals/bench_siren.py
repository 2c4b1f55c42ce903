"""Time SIREN's training step beside its peers, and weigh a large rendering.

Every arm does the same step (forward, loss, backward, Adam) on the same points from the same
weights. The arms take turns within each repetition, and the fastest turn of each counts.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from mmxx.nn.linear import outer, product
from mmxx.signals.siren import Siren, fit_step, grid, laplacian_loss, mse_loss, value_gradient
from mmxx.signals.siren.losses import Loss

SIDE, HIDDEN, LAYERS, OMEGA = 96, 256, 3, 30.0
RENDER_SIDE, RENDER_LIMIT = 4096, 1024  # pixels, MiB
_SQUARE, _SQUARES = 1024, 5  # side and number of the products that show the best case


class NotebookLayer(nn.Module):
    """A sine layer as the authors' notebook computes it: three operations, one after the other."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """Sines [N, out] of inputs [N, in]."""
        return torch.sin(OMEGA * self.linear(inputs))


def notebook_net() -> nn.Module:
    """The network of the authors' notebook in plain modules."""
    hidden = [NotebookLayer(HIDDEN, HIDDEN) for _ in range(LAYERS)]
    return nn.Sequential(NotebookLayer(2, HIDDEN), *hidden, nn.Linear(HIDDEN, 1))


def peer_net() -> nn.Module | None:
    """siren-pytorch's network of the same shape; None where it is not installed."""
    try:
        peer = importlib.import_module("siren_pytorch")
    except ModuleNotFoundError:
        return None
    return peer.SirenNet(
        dim_in=2, dim_hidden=HIDDEN, dim_out=1, num_layers=LAYERS + 1, w0=OMEGA, w0_initial=OMEGA
    )


def value_and_slope_loss(net: nn.Module, coords: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Squared errors of the values [N, 1] and of their gradients [N, 1, 2]."""
    values, slopes = value_gradient(net, coords)
    return (values - targets[0]).square().mean() + (slopes - targets[1]).square().mean()


def nested_slope_loss(net: nn.Module, coords: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """The same with autograd inside autograd."""
    coords = coords.detach().requires_grad_()
    values = net(coords)
    (slopes,) = torch.autograd.grad(values.sum(), coords, create_graph=True)
    return (values - targets[0]).square().mean() + (slopes - targets[1][:, 0]).square().mean()


def nested_laplacian_loss(net: nn.Module, coords: Tensor, targets: Tensor) -> Tensor:
    """Squared error of the Laplacian [N, 1] with autograd inside autograd, twice."""
    coords = coords.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(net(coords).sum(), coords, create_graph=True)
    bends = [
        torch.autograd.grad(slopes[:, i].sum(), coords, create_graph=True)[0][:, i]
        for i in range(coords.shape[1])
    ]
    return (torch.stack(bends).sum(0)[:, None] - targets).square().mean()


def step_of(net: nn.Module, weights: list[Tensor], loss: Loss, targets: object) -> Callable:
    """A training step of a network that begins with the given weights."""
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), weights, strict=True):
            parameter.copy_(value)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    coords = grid((SIDE, SIDE))
    return lambda: fit_step(net, optimizer, coords, targets, loss)


def products_alone(rows: int) -> Callable:
    """The matrix products of the hidden layers in one training step, and nothing else."""
    generator = torch.Generator().manual_seed(1)
    inputs, slopes = (torch.randn(rows, HIDDEN, generator=generator) for _ in range(2))
    weight = torch.randn(HIDDEN, HIDDEN, generator=generator)

    def products() -> None:
        for _ in range(LAYERS):
            product(inputs, weight)
            product(slopes, weight.t())
            outer(slopes, inputs)

    return products


def square_products() -> Callable:
    """Products of square matrices, the best case of a machine."""
    a = torch.randn(_SQUARE, _SQUARE, generator=torch.Generator().manual_seed(1))

    def products() -> None:
        for _ in range(_SQUARES):
            product(a, a)

    return products


def fastest(arms: dict[str, Callable], repeats: int, clock: Callable[[], float]) -> dict:
    """Seconds of the fastest turn of each arm; the arms take turns."""
    for arm in arms.values():  # what is compiled or allocated once
        arm()
        arm()
    best = dict.fromkeys(arms, float("inf"))
    for _ in range(repeats):
        for name, arm in arms.items():
            start = clock()
            arm()
            best[name] = min(best[name], clock() - start)
    return best


def row(what: str, seconds: float, ratio: str = "", target: str = "") -> None:
    """Print a line of the table."""
    print(f"{what:<46}{seconds * 1e3:>9.1f}{ratio:>10}   {target}".rstrip())


def train(repeats: int, threads: int) -> None:
    """Print the table of training steps."""
    clock = time.process_time if threads == 1 else time.perf_counter
    net = Siren(2, 1, hidden_features=HIDDEN, hidden_layers=LAYERS, omega_0=OMEGA)
    weights = [p.detach().clone() for p in net.parameters()]
    parameters = sum(p.numel() for p in weights)
    coords = grid((SIDE, SIDE))
    values = torch.sin(5 * coords[:, :1]) * torch.cos(3 * coords[:, 1:])
    slopes = torch.zeros(len(coords), 1, 2)
    notebook, peer = notebook_net(), peer_net()

    arms = {
        "products": products_alone(len(coords)),
        "squares": square_products(),
        "ours": step_of(net, weights, mse_loss, values),
        "notebook": step_of(notebook, weights, mse_loss, values),
        "slope": step_of(copy_of(net), weights, value_and_slope_loss, (values, slopes)),
        "nested slope": step_of(notebook_net(), weights, nested_slope_loss, (values, slopes)),
        "bend": step_of(copy_of(net), weights, laplacian_loss, values),
        "nested bend": step_of(notebook_net(), weights, nested_laplacian_loss, values),
    }
    if peer is not None:
        arms["peer"] = step_of(peer, weights, mse_loss, values)
    with torch.no_grad():
        apart = [(net(coords) - n(coords)).abs().max() for n in (notebook, peer) if n is not None]
    best = fastest(arms, repeats, clock)
    rate = 3 * 2 * parameters * len(coords) / best["ours"] / 1e9
    alone = 3 * 2 * LAYERS * HIDDEN**2 * len(coords) / best["products"] / 1e9
    square = _SQUARES * 2 * _SQUARE**3 / best["squares"] / 1e9

    clock_name = "CPU time" if threads == 1 else "wall time"
    print(
        f"{SIDE}² points, {HIDDEN} units, {LAYERS} hidden layers, {parameters} parameters, "
        f"threads: {threads}, fastest of {repeats} turns by {clock_name}"
    )
    print(f"same weights, largest difference of the values: {max(apart):.1e}")
    print(f"{'a training step':<46}{'ms':>9}{'ratio':>10}   target")
    row("values, ours", best["ours"])
    row(
        "values, the notebook's form",
        best["notebook"],
        f"{best['notebook'] / best['ours']:.2f} x",
        "1.15 x ours or more",
    )
    if peer is None:
        print("values, siren-pytorch: not installed (pip install siren-pytorch), left out")
    else:
        row(
            "values, siren-pytorch",
            best["peer"],
            f"{best['peer'] / best['ours']:.2f} x",
            "1.05 x ours or more",
        )
    row(
        "values and gradients, ours",
        best["slope"],
        f"{best['slope'] / best['ours']:.2f} x",
        "3.5 x values or less",
    )
    row(
        "values and gradients, autograd in autograd",
        best["nested slope"],
        f"{best['nested slope'] / best['slope']:.2f} x",
        "of ours",
    )
    row("Laplacian, ours", best["bend"], f"{best['bend'] / best['ours']:.2f} x", "of values")
    row(
        "Laplacian, autograd in autograd, twice",
        best["nested bend"],
        f"{best['nested bend'] / best['bend']:.2f} x",
        "of ours",
    )
    print(
        f"values, ours: {rate:.1f} GFLOP/s; {rate / alone:.0%} of the step's matrix products alone "
        f"({alone:.1f}; target 80 % or more), {rate / square:.0%} of square ones ({square:.1f})"
    )


def copy_of(net: Siren) -> Siren:
    """A network of the same shape."""
    return Siren(net.in_features, net.out_features, hidden_features=HIDDEN, hidden_layers=LAYERS)


def render(threads: int) -> None:
    """Print the peak memory of a large rendering, measured in a process of its own."""
    if not Path("/proc/self/status").exists():
        print("rendering: left out, this system does not tell the peak memory of a process")
        return
    command = [sys.executable, __file__, "--render-here", "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, after, seconds = (float(part) for part in done.stdout.split())
    print(
        f"rendering {RENDER_SIDE}²: {after:.0f} MiB at the peak, {before:.0f} of them before it "
        f"began (target below {RENDER_LIMIT}); {seconds:.0f} s"
    )


def render_here() -> None:
    """Render, and print the peak memory before and after in MiB, and the seconds."""
    from mmxx.signals.siren import SirenField

    field = SirenField(
        hidden_features=HIDDEN, hidden_layers=LAYERS, first_omega_0=OMEGA, steps=1, random_state=0
    ).fit_image(torch.eye(16).numpy())
    before, start = _peak(), time.perf_counter()
    field.render((RENDER_SIDE, RENDER_SIDE))
    print(before, _peak(), time.perf_counter() - start)


def _peak() -> float:
    """The largest resident memory of this process so far, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--repeats", type=int, default=10, help="turns of every arm (default 10)")
    parser.add_argument(
        "--render", action="store_true", help=f"also render {RENDER_SIDE}² pixels: minutes"
    )
    parser.add_argument("--render-here", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(argv)
    if parsed.threads < 1 or parsed.repeats < 1:
        parser.error("--threads and --repeats must be at least 1")
    torch.set_num_threads(parsed.threads)
    torch.manual_seed(0)
    if parsed.render_here:
        render_here()
        return
    train(parsed.repeats, parsed.threads)
    if parsed.render:
        render(parsed.threads)


if __name__ == "__main__":
    main()
