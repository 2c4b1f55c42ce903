"""Learning how important each channel is, on weights that are never trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.sparsity.from_scratch.graph import ChannelGraph
from mmxx.sparsity.from_scratch.structure import Structure, search

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Gates:
    """How important each channel is, between 0 and 1.

    Attributes:
        graph: The channels of the network.
        values: One gate for each channel, [size], on the CPU.
        history: For each epoch ``loss`` (of the task, mean), ``mean`` and ``share`` of the gates
            (how many are not 0), and ``accuracy`` on the validation data where there were any.
    """

    graph: ChannelGraph
    values: Tensor
    history: tuple[dict[str, float], ...] = ()

    @property
    def share(self) -> float:
        """The share of gates that are not 0."""
        return float((self.values != 0).double().mean())

    def per_group(self) -> dict[str, Tensor]:
        """The gates of each group of channels."""
        return {name: self.values[g.channels] for name, g in self.graph.groups.items()}

    def search(
        self,
        *,
        target_macs: float | None = None,
        ratio: float | None = None,
        input_shape: Sequence[int] | None = None,
        min_channels: int = 1,
        multiple: int = 1,
    ) -> Structure:
        """The largest structure within a budget that keeps the channels of the highest gates.

        Args:
            target_macs: The multiply-adds for one input that must not be exceeded. Where the gates
                were learnt on a widened network, the budget is a share of the plain one's.
            ratio: In place of it, the share of this network's multiply-adds to take away.
            input_shape: Shape of one input without the batch, if not that of the gates' data.
            min_channels: What stays of each group at least.
            multiple: Round widths to multiples of it.

        Raises:
            ValueError: The budget cannot be reached, and what can; not exactly one of
                ``target_macs`` and ``ratio`` is given; or an argument is out of range.
        """
        if (target_macs is None) == (ratio is None):
            raise ValueError(
                f"give target_macs or ratio, one of them, got {target_macs} and {ratio}"
            )
        graph = self.graph if input_shape is None else self.graph.at(input_shape)
        if ratio is not None:
            if not 0 <= ratio < 1:
                raise ValueError(f"ratio must be in [0, 1), got {ratio}")
            target_macs = (1 - ratio) * graph.macs()
        assert target_macs is not None
        return search(graph, self.values, target_macs, min_channels=min_channels, multiple=multiple)


@contextmanager
def gating(model: nn.Module, graph: ChannelGraph, values: Tensor) -> Iterator[None]:
    """While it lasts, the model's channels are multiplied by gates.

    They act behind the normalisation that follows a layer, before the activation. They also act
    behind depthwise convolutions, whose own normalisation would undo a gate before them.

    Args:
        model: The network of the graph.
        graph: The channels.
        values: One gate for each channel, [size]; gradients flow to it.
    """
    graph.check(model)
    handles = []
    for site, places in graph.sites().items():
        index = places.to(values.device)

        def multiply(module: nn.Module, args: Any, output: Tensor, index: Tensor = index) -> Tensor:
            return output * values[index].view(-1, *[1] * (output.ndim - 2))

        handles.append(model.get_submodule(site).register_forward_hook(multiply))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gate_penalty(values: Tensor, r: float) -> Tensor:
    """How far the mean gate is from the wanted share, squared.

    Args:
        values: Gates, [size].
        r: The wanted mean.
    """
    return (values.abs().mean() - r) ** 2


def learn_gates(
    model: nn.Module,
    data: Batches,
    *,
    r: float = 0.2,
    lam: float = 0.5,
    epochs: int = 10,
    lr: float = 0.01,
    loss: Loss = nn.functional.cross_entropy,
    validation: Batches | None = None,
    residual: bool = True,
) -> Gates:
    r"""Learn a gate for each channel while the weights stay as they are.

    Adam minimises $\mathcal{L} + \lambda (\frac{1}{N} \sum |g| - r)^2$; gates begin at 1 and are
    clipped to [0, 1] after each step. Weights need not be trained: random ones do, and that is the
    paper's point.

    Args:
        model: The network, usually as freshly drawn and some wider than the one that is wanted.
            It is copied, and left as it is; batch normalisation works in training mode.
        data: Batches of (inputs, targets) that can be gone through again, such as a DataLoader.
        r: The mean gate that is aimed for.
        lam: The weight of that aim, $\lambda$.
        epochs: Times through the data.
        lr: Learning rate.
        loss: Of the model's outputs and the targets.
        validation: Batches for class accuracies after each epoch. The gates with the best, among
            epochs with a share of at most ``r`` that are not 0, are returned; without it, or where
            there are none, the last.
        residual: Whether channels that several layers write to may go; see `ChannelGraph`.

    Returns:
        The gates.

    Raises:
        ValueError: The channels of the network cannot be followed (see `ChannelGraph`), an argument
            is out of range, there are no data, or the loss is not finite.

    Source: the authors' script/learn_gates.py.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> x = torch.randn(64, 4)
        >>> gates = learn_gates(net, [(x, (x[:, 0] > 0).long())], epochs=20, lr=0.1)
        >>> gates.values.shape, gates.search(ratio=0.5).macs <= 24
        (torch.Size([8]), True)
    """
    _check(r, lam, epochs, lr)
    first = next(iter(data), None)
    if first is None:
        raise ValueError("data must have a batch or more, got none")
    if epochs > 1 and iter(data) is data:
        raise ValueError(
            "data must be batches that can be gone through again (a list, a DataLoader), got an "
            f"iterator of type {type(data).__name__}"
        )
    graph = ChannelGraph(model, tuple(first[0].shape[1:]), residual=residual)
    net = copy.deepcopy(model).requires_grad_(False).train()
    like = next(p for p in net.parameters() if p.is_floating_point())
    values = torch.ones(graph.size, device=like.device, dtype=like.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([values], lr=lr)
    history: list[dict[str, float]] = []
    best: tuple[float, Tensor] | None = None
    with gating(net, graph, values):
        for _ in range(epochs):
            total, count = 0.0, 0
            for inputs, targets in data:
                task = loss(net(inputs), targets)
                optimizer.zero_grad()
                (task + lam * gate_penalty(values, r)).backward()
                optimizer.step()
                with torch.no_grad():
                    values.clamp_(0, 1)
                total, count = total + task.item() * len(inputs), count + len(inputs)
            if not math.isfinite(total):
                raise ValueError(f"loss became {total} in epoch {len(history) + 1}; lower lr={lr}?")
            found = Gates(graph, values.detach().cpu().clone())
            line = {
                "loss": total / max(count, 1),
                "mean": found.values.mean().item(),
                "share": found.share,
            }
            if validation is not None:
                line["accuracy"] = _accuracy(net, validation)
                if found.share <= r and (best is None or line["accuracy"] > best[0]):
                    best = line["accuracy"], found.values
            history.append(line)
    last = values.detach().cpu().clone()
    return Gates(graph, last if best is None else best[1], tuple(history))


def _check(r: float, lam: float, epochs: int, lr: float) -> None:
    if not 0 <= r <= 1:
        raise ValueError(f"r must be in [0, 1], got {r}")
    if not 0 <= lam < math.inf:
        raise ValueError(f"lam must be finite and 0 or more, got {lam}")
    if isinstance(epochs, bool) or epochs != int(epochs) or epochs < 1:
        raise ValueError(f"epochs must be a whole number of 1 or more, got {epochs!r}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be positive and finite, got {lr}")


@torch.no_grad()
def _accuracy(net: nn.Module, batches: Batches) -> float:
    """The share of inputs whose largest output is the target's."""
    net.eval()
    right = [net(inputs).argmax(1) == targets for inputs, targets in batches]
    net.train()
    if not right:
        raise ValueError("validation must have a batch or more, got none")
    return float(torch.cat(right).double().mean())
