"""What is compared: three kinds of wide network, trained, and networks of one hidden layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.training.tangent import infinite
from mmxx.training.tangent.dynamics import training_outputs
from mmxx.training.tangent.hessian import hessian_norm, two_layer_hessian_norm
from mmxx.training.tangent.kernel import ntk
from mmxx.training.tangent.network import Scaled, ntk_mlp

SILU = 1.6  # keeps the size of a signal, as sqrt(2) does for ReLU
HEADS: dict[str, type[nn.Module] | None] = {"linear": None, "tanh": nn.Tanh}


def network(
    inputs: int, width: int, *, narrow: int = 0, head: str = "linear", seed: int = 0
) -> nn.Sequential:
    """Two wide hidden layers of SiLU.

    Args:
        inputs: Length of a sample.
        width: m.
        narrow: Width of a layer between the two; 0 for none.
        head: "linear", or "tanh" for a non-linear output.
        seed: Of the weights.
    """
    kind = HEADS[head]
    widths = (inputs, width, *([narrow] if narrow else []), width, 1)
    return ntk_mlp(
        widths,
        lambda: Scaled(nn.functional.silu, SILU),
        head=None if kind is None else kind(),
        generator=torch.Generator().manual_seed(seed),
    )


def moments(steps: int, count: int) -> list[int]:
    """At most so many steps from 0 to the last, closer together at the beginning."""
    places = np.geomspace(1, steps + 1, count)
    return sorted({round(place) - 1 for place in places})


def train(item: dict[str, Any]) -> dict[str, Any]:
    r"""Measure one network, train it by gradient descent, and measure how its kernel changed.

    Args:
        item: width, narrow, head and seed of the `network`; x and y, xt of test samples;
            steps; rate (the learning rate, relative to $N/\lambda_{max}$ of the kernel);
            samples (of which the Hessian is measured; 0 for none); points (moments at which
            the kernel is).

    Returns:
        hessian and residual (None where not asked for), steps and drift of each moment (the
        relative change of the kernel), loss of each moment, gap (the root mean square
        difference at test samples from the linearised network, in closed form), smallest
        (eigenvalue of the kernel), and ok (whether all stayed finite).
    """
    x, y, xt = (torch.from_numpy(item[name]) for name in ("x", "y", "xt"))
    net = network(
        x.shape[1], item["width"], narrow=item["narrow"], head=item["head"], seed=item["seed"]
    )
    found: dict[str, Any] = {"hessian": None, "residual": None}
    if item["samples"]:
        found["hessian"], found["residual"] = hessian_norm(net, x[: item["samples"]], tol=0.03)
    both = torch.cat([x, xt])
    kernel = ntk(net, both, trace=True)
    n, first = len(x), kernel[: len(x), : len(x)]
    eigenvalues = torch.linalg.eigvalsh(first.double())
    lower, upper = float(eigenvalues[0]), float(eigenvalues[-1])
    lr = item["rate"] * n / upper
    with torch.no_grad():
        start = net(both)[:, 0]
    params = list(net.parameters())
    shown = moments(item["steps"], item["points"])
    drift, losses = [], []
    for step in range(item["steps"] + 1):
        errors = net(x)[:, 0] - y
        loss = errors.square().mean() / 2
        if not math.isfinite(loss.item()):
            return {**found, "steps": shown, "drift": [], "loss": [], "gap": math.nan,
                    "smallest": lower, "ok": False}  # fmt: skip
        if step in shown:
            change = ntk(net, x, trace=True) - first if step else torch.zeros_like(first)
            drift.append(float(change.norm() / first.norm()))
            losses.append(loss.item())
        if step < item["steps"]:
            slopes = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for parameter, slope in zip(params, slopes, strict=True):
                    parameter.sub_(slope, alpha=lr)
    expected = training_outputs(
        first.double(), start[:n].double(), y.double(), [item["steps"]], lr=lr,
        cross=kernel[n:, :n].double(), cross_outputs=start[n:].double(),
    )[0]  # fmt: skip
    with torch.no_grad():
        gap = (net(xt)[:, 0].double() - expected).square().mean().sqrt()
    return {**found, "steps": shown, "drift": drift, "loss": losses, "gap": float(gap),
            "smallest": lower, "ok": math.isfinite(drift[-1])}  # fmt: skip


def draw(item: dict[str, Any]) -> dict[str, list[float]]:
    """Networks of one hidden layer, at their beginnings.

    Args:
        item: width, seed, draws (how many networks), x.

    Returns:
        For each network ``hessian`` (of SiLU, by the closed form, the largest over samples) and
        ``error`` (the relative distance of the kernel of ReLU from that of infinite width).
    """
    x = torch.from_numpy(item["x"])
    generator = torch.Generator().manual_seed(item["seed"])
    limit = infinite.ntk(1, "relu")(x.double())
    found: dict[str, list[float]] = {"hessian": [], "error": []}

    def silu(z: Tensor) -> Tensor:
        return SILU * nn.functional.silu(z)

    def relu() -> Scaled:
        return Scaled(torch.relu, math.sqrt(2))

    for _ in range(item["draws"]):
        net = ntk_mlp((x.shape[1], item["width"], 1), relu, generator=generator)
        weight, head = (parameter.detach() for parameter in net.parameters())
        found["hessian"].append(float(two_layer_hessian_norm(weight, head[0], x, silu).max()))
        error = ntk(net, x, trace=True).double() - limit
        found["error"].append(float(error.norm() / limit.norm()))
    return found


def slope(widths: list[int], values: list[float]) -> float:
    """The exponent of a power law through the points, by least squares of the logarithms.

    Example:
        >>> round(slope([1, 10, 100], [1.0, 0.1, 0.01]), 6)
        -1.0
    """
    if len(widths) < 2 or not all(value > 0 and math.isfinite(value) for value in values):
        return math.nan
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def log_mean(values: list[float]) -> float:
    """The geometric mean; infinite or NaN where a value is.

    Example:
        >>> log_mean([1.0, 4.0])
        2.0
    """
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(values))))
