"""What the contract calls of the strong tickets: the two decompositions, and a ticket's network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from mmxx.lab.testing import Case
from mmxx.sparsity.strong_tickets import (
    GoldenTicket,
    StrongTicket,
    brute_force,
    covering_counts,
    golden_decomposition,
    subset_sum,
)


def targets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, 7), rng.uniform(-1, 1, (7, 16))


def magnitudes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, 7), rng.uniform(-1, 1, (7, 60))


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


class Constructed(nn.Module):
    """A ticket for a layer that learns, so that the contract finds a gradient."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.net = kind.construct(network(), 0.01).net
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) * self.scale


def inputs() -> tuple[torch.Tensor]:
    return (torch.rand(6, 4, generator=torch.Generator().manual_seed(0)),)


CASES = [
    Case(lambda: subset_sum, targets, name="subset_sum"),
    Case(
        lambda: lambda w, b: golden_decomposition(w, b, bins=8), magnitudes,
        name="golden_decomposition",
    ),
    Case(lambda: brute_force, lambda: (0.3, targets()[1][0, :8]), per_sample=False, name="brute"),
    Case(
        lambda: covering_counts, lambda: (targets()[1], np.array([0.3, 0.1])), per_sample=False,
        name="covering_counts",
    ),
    Case(lambda: Constructed(StrongTicket), inputs, kind="module", name="StrongTicket"),
    Case(lambda: Constructed(GoldenTicket), inputs, kind="module", name="GoldenTicket"),
]  # fmt: skip
