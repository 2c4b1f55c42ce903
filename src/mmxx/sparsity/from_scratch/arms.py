"""The trainings that are compared: structures from random weights, from trained ones, uniform."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.sparsity._common import Alone, Team
from mmxx.sparsity.from_scratch.cost import cost
from mmxx.sparsity.from_scratch.gates import gating, learn_gates
from mmxx.sparsity.from_scratch.graph import ChannelGraph
from mmxx.sparsity.from_scratch.networks import conv_net, depthwise_net, residual_net
from mmxx.sparsity.from_scratch.slim import prune_channels
from mmxx.sparsity.from_scratch.structure import search


@dataclass(frozen=True)
class Batches:
    """Pictures and labels in batches, in another random order each time.

    Attributes:
        pictures: [N, C, H, W].
        labels: int64 [N].
        size: Of a batch; the last may be smaller.
        generator: Where the orders come from.
        equal: Whether what does not fill a batch is left out, so that processes can share all.
    """

    pictures: Tensor
    labels: Tensor
    size: int
    generator: torch.Generator
    equal: bool = False

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.pictures), generator=self.generator)
        least = min(self.size, len(order)) if self.equal else 2  # batch normalisation needs two
        for chosen in order.split(self.size):
            if len(chosen) >= least:
                yield self.pictures[chosen], self.labels[chosen]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Layers draw their weights from torch's default generator, which is then given back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def wide(widths: Sequence[int], expansion: float) -> list[int]:
    """The widths of the network on which gates are learnt."""
    return [max(1, round(expansion * width)) for width in widths]


def wide_net(item: dict[str, Any]) -> nn.Sequential:
    """A widened network of new weights, by an item's widths, expansion, shape and classes."""
    return conv_net(item["shape"][0], wide(item["widths"], item["expansion"]), item["classes"])


def _batches(item: dict[str, Any], purpose: int) -> Batches:
    pictures, labels = (torch.from_numpy(part) for part in item["train"])
    generator = torch.Generator().manual_seed(2 * item["seed"] + purpose)
    return Batches(pictures, labels, item["batch"], generator, equal="team" in item)


def fit(net: nn.Module, item: dict[str, Any], epochs: int) -> list[float]:
    """SGD of rate 0.1, momentum 0.9 and decay 1e-4; the rate falls to a tenth at 50 and 75 %.

    Args:
        net: The network, trained in place.
        item: train, seed and batch; with a ``team``, processes share each batch, and each
            normalises by its own part.
        epochs: Times through the data.

    Returns:
        The mean loss of each epoch; it ends early where that is not finite.
    """
    team: Team = item.get("team") or Alone()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    drops = [max(1, epochs // 2), max(1, epochs * 3 // 4)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1)
    batches, curve = _batches(item, 1), []
    shared, update = team.distribute(net, optimizer)
    device = next(net.parameters()).device
    net.train()
    for _ in range(epochs):
        total, count = 0.0, 0
        for pictures, labels in batches:
            x, y = (team.part(part).to(device) for part in (pictures, labels))
            loss = nn.functional.cross_entropy(shared(x), y)
            optimizer.zero_grad()
            loss.backward()
            update.step()
            total, count = total + loss.item() * len(y), count + len(y)
        schedule.step()
        curve.append(team.mean(torch.tensor(total / max(count, 1), dtype=torch.float64)))
        if not math.isfinite(curve[-1]):
            break
    return curve


@torch.no_grad()
def accuracy(net: nn.Module, test: tuple[np.ndarray, np.ndarray]) -> float:
    """Per cent of the test pictures that are recognised."""
    device = next(net.parameters()).device
    pictures, labels = (torch.from_numpy(part).to(device) for part in test)
    net.eval()
    guesses = torch.cat([net(part).argmax(1) for part in pictures.split(256)])
    return 100 * float((guesses == labels).double().mean())


def learn(item: dict[str, Any]) -> dict[str, Any]:
    """Learn the gates of a widened network.

    Args:
        item: start ("random" or "pretrained": whether the network is trained first), seed, train,
            test, shape, classes, widths, expansion, batch, epochs (of that training), and
            gate_epochs and gate_lr.

    Returns:
        ``gates`` [size], ``history``, ``accuracy`` of the trained network (None where it is
        random), and for how many epochs it was ``trained``.
    """
    with seeded(item["seed"]):
        net = wide_net(item)
    before, trained = None, 0
    if item["start"] == "pretrained":
        trained = len(fit(net, item, item["epochs"]))
        before = accuracy(net, item["test"])
    gates = learn_gates(net, _batches(item, 0), epochs=item["gate_epochs"], lr=item["gate_lr"])
    return {
        "gates": gates.values,
        "history": list(gates.history),
        "accuracy": before,
        "trained": trained,
    }


def train(item: dict[str, Any]) -> dict[str, Any]:
    """Train a network from new random weights.

    Args:
        item: widths (of each convolution), seed, train, test, shape, classes, batch, and epochs;
            perhaps a ``team`` of processes.

    Returns:
        ``score``, per cent right on the test pictures (0 where training diverged), and ``curve``,
        the mean training loss of each epoch.
    """
    with seeded(item["seed"]):
        net = conv_net(item["shape"][0], item["widths"], item["classes"])
    curve = fit(net, item, item["epochs"])
    finite = math.isfinite(curve[-1])
    return {"score": accuracy(net, item["test"]) if finite else 0.0, "curve": curve}


SHRUNK = {
    "plain": (conv_net, (8, 8, 16, 16)),
    "residual": (residual_net, (8, 16, 32)),
    "depthwise": (depthwise_net, (8, 16, 24)),
}


def shrink(kind: str, ratio: float, seed: int) -> dict[str, Any]:
    """Take channels out of a network of a kind, and compare it with the masked one.

    Weights and statistics are random, scores too: nothing makes the comparison easy.

    Args:
        kind: Of `SHRUNK`.
        ratio: The share of multiply-adds to take away.
        seed: Of all draws.

    Returns:
        ``macs`` and ``parameters`` before and after (counted on the modules), and ``difference``,
        the largest of outputs in evaluation mode.
    """
    make, widths = SHRUNK[kind]
    shape = (3, 16, 16)
    with seeded(seed):
        net = make(shape[0], widths, 10)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for name, tensor in module.state_dict().items():
                    if name in ("weight", "running_var"):
                        tensor.uniform_(0.5, 2)
                    elif name in ("bias", "running_mean"):
                        tensor.normal_()
        graph = ChannelGraph(net, shape)
        structure = search(graph, torch.rand(graph.size), (1 - ratio) * graph.macs())
        pictures = torch.randn(8, *shape)
    small = prune_channels(net, structure).eval()
    kept = torch.from_numpy(graph.flat(structure.kept)).float()
    with torch.no_grad(), gating(net.eval(), graph, kept):
        difference = float((net(pictures) - small(pictures)).abs().max())
    before, after = cost(net, shape), cost(small, shape)
    return {
        "macs": (before.macs, after.macs),
        "parameters": (before.parameters, after.parameters),
        "difference": difference,
    }
