"""Structures: which channels stay. Found from scores for a budget, and compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmxx.sparsity._common import Masks
from mmxx.sparsity.from_scratch.graph import ChannelGraph, Group


@dataclass(frozen=True)
class Structure:
    """Which channels of a network stay.

    `kept` can be saved and loaded; ``Structure(ChannelGraph(net, shape), Masks.load(path))`` is
    the structure again.

    Attributes:
        graph: The channels of the network.
        kept: For each group of channels a bool mask.

    Raises:
        ValueError: The masks are not for the groups of the graph, or one keeps nothing.
    """

    graph: ChannelGraph
    kept: Masks

    def __post_init__(self) -> None:
        self.graph.flat(self.kept)
        empty = [name for name, mask in self.kept.items() if not mask.any()]
        if empty:
            raise ValueError(f"kept must keep a channel or more of each group, none of {empty}")

    @property
    def widths(self) -> dict[str, int]:
        """The number of channels that stay, by group."""
        return {name: int(self.kept[name].sum()) for name in self.graph.groups}

    @property
    def macs(self) -> int:
        """Multiply-adds of the smaller network for one input."""
        return self.graph.macs(np.array(list(self.widths.values())))


def search(
    graph: ChannelGraph,
    scores: torch.Tensor,
    target_macs: float,
    *,
    min_channels: int = 1,
    multiple: int = 1,
) -> Structure:
    """The largest structure within a budget that keeps the channels of the highest scores.

    One threshold holds for all layers. It is found by bisection over the number of channels that
    lie above it, with the costs by formula. Among equal scores, as at both ends of the clipped
    gates, each layer gives way in proportion to its width.

    Args:
        graph: The channels of the network.
        scores: One for each channel, [size].
        target_macs: The multiply-adds that must not be exceeded.
        min_channels: What stays of each group at least.
        multiple: Widths are rounded to multiples of it (8 suits much hardware), to ``multiple``
            at least; a group that is whole stays so.

    Returns:
        The structure.

    Raises:
        ValueError: The budget is below what ``min_channels`` and ``multiple`` allow, the message
            giving the least that can be reached; or an argument is out of range.

    Source: the authors' script/prune_model.py, which stops after 10 steps of bisection.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        >>> found = search(ChannelGraph(net, (4,)), torch.arange(6.0), target_macs=20)
        >>> found.widths, found.macs, found.kept["0"].nonzero().flatten().tolist()
        ({'0': 3}, 18, [3, 4, 5])
    """
    values = scores.detach().cpu().double().numpy()
    if values.shape != (graph.size,) or not np.isfinite(values).all():
        raise ValueError(
            f"scores must be {graph.size} finite numbers, one for each channel, got shape "
            f"{values.shape}"
        )
    for name, value in (("min_channels", min_channels), ("multiple", multiple)):
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    groups = list(graph.groups.values())
    sizes = np.array([group.size for group in groups])
    owner = np.repeat(np.arange(len(groups)), sizes)
    ranks = _ranks(values, groups)
    order = np.lexsort((ranks / sizes[owner], -values))

    def widths(count: int) -> np.ndarray:
        found = np.bincount(owner[order[:count]], minlength=len(groups))
        whole = found == sizes
        found = np.maximum((found + multiple // 2) // multiple * multiple, multiple)
        found = np.maximum(found, min_channels)
        return np.where(whole, sizes, np.minimum(found, sizes))

    low, high = 0, graph.size
    least = graph.macs(widths(0))
    if not target_macs >= least:
        raise ValueError(
            f"target_macs must be {least} or more, which is what min_channels={min_channels} and "
            f"multiple={multiple} leave, got {target_macs:g}"
        )
    while low < high:  # the costs grow with the count
        middle = (low + high + 1) // 2
        if graph.macs(widths(middle)) <= target_macs:
            low = middle
        else:
            high = middle - 1
    kept = ranks < widths(low)[owner]
    return Structure(
        graph, Masks({g.name: torch.from_numpy(kept[g.channels].copy()) for g in groups})
    )


def _ranks(values: np.ndarray, groups: Sequence[Group]) -> np.ndarray:
    """The place of each channel in its group, the highest score first, equal ones in order."""
    ranks = np.empty(len(values), np.int64)
    for group in groups:
        own = np.argsort(-values[group.channels], kind="stable")
        ranks[group.channels][own] = np.arange(group.size)
    return ranks


def uniform(graph: ChannelGraph, target_macs: float, **options: int) -> Structure:
    """The control: every layer keeps the same share of its channels.

    Args:
        graph: The channels of the network.
        target_macs: The multiply-adds that must not be exceeded.
        options: ``min_channels`` and ``multiple`` of `search`.

    Returns:
        The structure, which keeps the first channels of each group.

    Raises:
        ValueError: As `search` does.
    """
    places = [(torch.arange(g.size) + 0.5) / g.size for g in graph.groups.values()]
    return search(graph, -torch.cat(places), target_macs, **options)


def random_widths(
    graph: ChannelGraph,
    target_macs: float,
    *,
    generator: torch.Generator | None = None,
    **options: int,
) -> Structure:
    """The control: each layer keeps a share of its own, drawn at random.

    Args:
        graph: The channels of the network.
        target_macs: The multiply-adds that must not be exceeded.
        generator: Where the draw comes from; torch's default generator if None.
        options: ``min_channels`` and ``multiple`` of `search`.

    Returns:
        The structure; its shares are those drawn, uniform in [0.1, 1], times a common factor.

    Raises:
        ValueError: As `search` does.
    """
    shares = 0.1 + 0.9 * torch.rand(len(graph.groups), generator=generator)
    places = [
        (torch.arange(g.size) + 0.5) / (g.size * share)
        for g, share in zip(graph.groups.values(), shares.tolist(), strict=True)
    ]
    return search(graph, -torch.cat(places), target_macs, **options)


def spread(structures: Sequence[Structure]) -> float:
    """How much structures of one network differ: 0 where their widths are the same.

    The mean, over pairs of structures and over groups, of the difference of the widths as a share
    of the group's channels.

    Args:
        structures: Two or more, of networks of the same groups.

    Raises:
        ValueError: There are fewer than two, or their groups differ.
    """
    if len(structures) < 2:
        raise ValueError(f"structures must be two or more, got {len(structures)}")
    groups = {name: group.size for name, group in structures[0].graph.groups.items()}
    if any({n: g.size for n, g in s.graph.groups.items()} != groups for s in structures):
        raise ValueError("structures must be of networks of the same groups")
    sizes = np.array(list(groups.values()))
    widths = [np.array(list(s.widths.values())) for s in structures]
    pairs = itertools.combinations(widths, 2)
    return float(np.mean([np.abs(a - b) / sizes for a, b in pairs]))
