"""Lottery tickets for the contract."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from mmxx.lab.testing import Case
from mmxx.sparsity.lottery import (
    LotteryTicketClassifier,
    Masks,
    Replicas,
    compact,
    linear_barrier,
    one_shot,
    prune,
    to_sparse,
)


def _normal(*shape: int) -> tuple[torch.Tensor]:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)),)


def _net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    masks = Masks({"0.weight": torch.arange(72).view(12, 6) % 3 == 0})
    masks.apply(net)
    net[0].weight.data[4:7] = 0
    return net


def _pruned(weights: torch.Tensor) -> torch.Tensor:
    kept = torch.ones_like(weights, dtype=torch.bool)
    return prune({"w": weights}, Masks({"w": kept}), rate=0.3)["w"]


def _one_shot(x: torch.Tensor) -> torch.Tensor:
    masks = one_shot(_net(), 0.3)
    return x * masks["2.weight"].sum()


def _sparse(x: torch.Tensor) -> torch.Tensor:
    return to_sparse(_net().to(x.dtype), 1.0)(x)


def _barrier(x: torch.Tensor) -> torch.Tensor:
    dtype = x.dtype
    one, other = _net().to(dtype), _net().to(dtype)
    other[2].weight.data.neg_()
    height = linear_barrier(one, other, lambda net: net(x).square().mean().item()).height
    return x.new_tensor([height])


def _whole(make: Any, args: Any, kind: Any = "function", name: str = "") -> Case:
    return Case(make, args, kind, name, per_sample=False)


CASES = [
    _whole(lambda: _pruned, partial(_normal, 8, 5), name="prune"),
    _whole(lambda: _one_shot, partial(_normal, 4, 2), name="one_shot"),
    _whole(lambda: _barrier, partial(_normal, 8, 6), name="linear_barrier"),
    _whole(
        lambda: Replicas(
            lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), (0, 1)
        ),
        partial(_normal, 2, 5, 6),
        "module",
        "Replicas",
    ),
    Case(lambda: _sparse, partial(_normal, 5, 6), "function", "to_sparse"),
    Case(lambda: compact(_net()), partial(_normal, 5, 6), "module", "compact"),
    Case(
        partial(LotteryTicketClassifier, hidden=(24,), levels=1, max_iter=30, lr=1e-2),
        kind="estimator",
        name="LotteryTicketClassifier",
    ),
]
