"""Edge-popup on redundant and on wide random networks (Pensia et al., section 6).

In a redundant network every weight is several: each layer is preceded by one in which every input
has units of its own, as in the construction, so that subsets of products can add up to one. The
authors compare with and without ReLU in that layer. A wide network has as many weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.kernels.select import keep_where_largest
from mmxx.sparsity._common import Through


class Chosen(nn.Module):
    r"""Frozen random weights of which edge-popup learns which to use.

    Args:
        shape: Of the weights.
        inputs: Connections that a unit has, n: weights are normal with variance $2 / (n k)$.
        share: The share k of them that is used, in (0, 1].
        generator: Draws weights and first scores.
    """

    weight: Tensor

    def __init__(
        self, shape: tuple[int, int], inputs: int, share: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        drawn = torch.randn(shape, generator=generator) * math.sqrt(2 / (inputs * share))
        self.register_buffer("weight", drawn)
        bound = 1 / math.sqrt(inputs)
        self.scores = nn.Parameter(bound * (2 * torch.rand(shape, generator=generator) - 1))
        self.count = max(1, round(share * drawn.numel()))

    def used(self) -> Tensor:
        """The weights with the largest scores, zero elsewhere; the gradient goes to the scores."""
        (made,) = keep_where_largest(self.weight, self.scores.detach(), self.count)
        return Through.apply(self.scores, self.weight, made, 1.0)


class Linear(Chosen):
    """From [N, in] to [N, out], without biases."""

    def __init__(self, inputs: int, outputs: int, share: float, generator: torch.Generator) -> None:
        super().__init__((outputs, inputs), inputs, share, generator)

    def forward(self, x: Tensor) -> Tensor:
        """[N, out] of [N, in]."""
        return x @ self.used().T


class Copies(Chosen):
    """Several units for each input alone: from [N, in] to [N, in · copies]."""

    def __init__(
        self, inputs: int, copies: int, share: float, generator: torch.Generator, *, rectified: bool
    ) -> None:
        super().__init__((inputs, copies), 1, share, generator)
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        """[N, in · copies] of [N, in]."""
        x = (x[:, :, None] * self.used()).flatten(1)
        return torch.relu(x) if self.rectified else x


def redundant_net(
    sizes: tuple[int, int, int],
    copies: int,
    share: float,
    generator: torch.Generator,
    *,
    rectified: bool = False,
) -> nn.Sequential:
    """One hidden layer in which every weight is a sum of ``copies`` products of two.

    Example:
        >>> net = redundant_net((8, 4, 2), 3, 0.5, torch.Generator())
        >>> weights_of(net), net(torch.ones(5, 8)).shape
        (156, torch.Size([5, 2]))
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [
            nn.ReLU() if layers else nn.Flatten(),
            Copies(inputs, copies, share, generator, rectified=rectified),
            Linear(inputs * copies, outputs, share, generator),
        ]
    return nn.Sequential(*layers)


def wide_net(
    sizes: tuple[int, int, int], copies: int, share: float, generator: torch.Generator
) -> nn.Sequential:
    """One hidden layer, of such a width that it has as many weights as `redundant_net`.

    Example:
        >>> weights_of(wide_net((8, 4, 2), 3, 0.5, torch.Generator()))
        160
    """
    inputs, hidden, classes = sizes
    weights = copies * (inputs + hidden + inputs * hidden + hidden * classes)
    width = round(weights / (inputs + classes))
    return nn.Sequential(
        nn.Flatten(), Linear(inputs, width, share, generator), nn.ReLU(),
        Linear(width, classes, share, generator),
    )  # fmt: skip


def weights_of(net: nn.Module) -> int:
    """How many random weights a network has."""
    return sum(m.weight.numel() for m in net.modules() if isinstance(m, Chosen))


def popped(item: dict[str, Any]) -> dict[str, Any]:
    """Train the scores of one network as the authors do: SGD with momentum, a cosine to 0.

    Args:
        item: arm ("redundant", "rectified" or "wide"), train and test (pictures [N, C, H, W] and
            labels), hidden, copies, share, epochs and seed.

    Returns:
        ``right``, per cent of the test pictures, and ``weights``, how many there are to choose of.
    """
    data, test = item["train"], item["test"]
    generator = torch.Generator().manual_seed(item["seed"])
    sizes = (data.x[0].numel(), item["hidden"], int(data.y.max()) + 1)
    if item["arm"] == "wide":
        net = wide_net(sizes, item["copies"], item["share"], generator)
    else:
        rectified = item["arm"] == "rectified"
        net = redundant_net(sizes, item["copies"], item["share"], generator, rectified=rectified)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    steps = item["epochs"] * math.ceil(len(data.x) / 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(item["epochs"]):
        for chosen in torch.randperm(len(data.x), generator=generator).split(64):
            loss = nn.functional.cross_entropy(net(data.x[chosen]), data.y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        right = (net(test.x).argmax(1) == test.y).double().mean()
    return {"right": 100 * float(right), "weights": weights_of(net)}


_NAMES = {"redundant": "redundant", "rectified": "redundant, with ReLU", "wide": "wide"}


def items_of(
    common: dict[str, Any], copies: int, shares: Sequence[float], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Tasks for `popped`: every arm, share and seed; ``common`` has train, test, hidden, epochs."""
    same = {name: common[name] for name in ("train", "test", "hidden", "epochs")}
    return [
        same | {"kind": "popped", "arm": arm, "copies": copies, "share": share, "seed": seed}
        for arm in _NAMES
        for share in shares
        for seed in seeds
    ]


def found_in(
    results: Sequence[dict[str, Any]], shares: Sequence[float]
) -> tuple[list[dict[str, Any]], dict[str, tuple[Sequence[float], np.ndarray]], str]:
    """What came of the tasks of `items_of`: rows of a table, curves over the shares, a sentence."""
    right = np.array([result["right"] for result in results]).reshape(len(_NAMES), len(shares), -1)
    mean = right.mean(2)
    weights = [result["weights"] for result in results[:: len(results) // len(_NAMES)]]
    rows = [
        {"network": name, "weights": count}
        | {f"{share:g}": float(value) for share, value in zip(shares, line, strict=True)}
        for name, count, line in zip(_NAMES.values(), weights, mean.round(2), strict=True)
    ]
    curves = {name: (shares, line) for name, line in zip(_NAMES.values(), mean, strict=True)}
    ahead = mean[0] - mean[2]
    best, worst = int(ahead.argmax()), int(ahead.argmin())
    note = (
        f"Redundant networks beside wide ones, without a bar: {ahead[best]:+.2f} points where "
        f"{shares[best]:g} of the weights are used, {ahead[worst]:+.2f} where {shares[worst]:g} "
        f"are; each at its best share {mean[0].max() - mean[2].max():+.2f}."
    )
    return rows, curves, note
