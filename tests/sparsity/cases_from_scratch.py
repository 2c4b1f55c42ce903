"""What the contract builds of pruning from scratch: gates, a search, and a smaller network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmxx.lab.testing import Case
from mmxx.sparsity.from_scratch import (
    ChannelGraph,
    gating,
    learn_gates,
    prune_channels,
    search,
    uniform,
)
from mmxx.sparsity.from_scratch.networks import conv_net, residual_net


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def pictures(channels: int, side: int) -> Tensor:
    return torch.rand(6, channels, side, side, generator=torch.Generator().manual_seed(1))


def _learner() -> Callable[[Tensor, Tensor], Tensor]:
    net = _seeded(lambda: conv_net(1, (4, 4, 4), 3))

    def learn(x: Tensor, y: Tensor) -> Tensor:
        return learn_gates(net.to(x.dtype), [(x, y)], epochs=3, lr=0.1).values

    return learn


def _searcher() -> Callable[[Tensor], Tensor]:
    graph = ChannelGraph(_seeded(lambda: conv_net(1, (4, 6, 8), 3)), (1, 8, 8))

    def find(scores: Tensor) -> Tensor:
        return torch.tensor(list(search(graph, scores, graph.macs() / 2).widths.values()))

    return find


def _gated() -> Callable[[Tensor], Tensor]:
    net = _seeded(lambda: residual_net(3, (4, 6), 5)).eval()
    graph = ChannelGraph(net, (3, 8, 8))

    def outputs(x: Tensor) -> Tensor:
        net.to(x.dtype)
        with torch.no_grad(), gating(net, graph, torch.full((graph.size,), 0.5, dtype=x.dtype)):
            return net(x)

    return outputs


def _small() -> nn.Module:
    net = _seeded(lambda: residual_net(3, (6, 8), 5)).eval()
    graph = ChannelGraph(net, (3, 8, 8))
    return prune_channels(net, uniform(graph, graph.macs() / 2))


CASES = [
    Case(
        _learner,
        lambda: (pictures(1, 8), torch.tensor([0, 1, 2, 0, 1, 2])),
        name="learn_gates",
        per_sample=False,
    ),
    Case(
        _searcher,
        lambda: (torch.rand(18, generator=torch.Generator().manual_seed(2)),),
        name="search",
        per_sample=False,
    ),
    Case(_gated, lambda: (pictures(3, 8),), name="gating"),
    Case(_small, lambda: (pictures(3, 8),), kind="module", name="prune_channels"),
]
