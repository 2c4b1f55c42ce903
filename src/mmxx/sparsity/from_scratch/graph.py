"""Which channels of a network can be removed, and what the network costs for any widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mmxx.sparsity._common import Masks
from mmxx.sparsity.from_scratch.flow import TRANSPOSED, Flow, skeleton


@dataclass(frozen=True)
class Group:
    """Layers whose channels can only be removed together.

    Attributes:
        name: That of the first of the layers.
        size: The number of channels.
        start: The number of its first channel among those of all groups.
        layers: The layers that write these channels, and depthwise convolutions on them.
        residual: Whether several layers write to the channels, which then are summed.
    """

    name: str
    size: int
    start: int
    layers: tuple[str, ...]
    residual: bool

    @property
    def channels(self) -> slice:
        """The places of the group's channels among those of all groups."""
        return slice(self.start, self.start + self.size)


class ChannelGraph:
    """The channels of a network that can be removed.

    Channels are followed with torch.fx through convolutions (also depthwise and transposed),
    linear layers, normalisations per channel, activations, pooling, sums, products,
    concatenations and flattening. Inputs, outputs, and what mixes channels, stay whole.

    Args:
        model: A network; it is left as it is, and only shapes are kept.
        input_shape: Shape of one input without the batch, such as (3, 32, 32).
        residual: Whether channels may be removed that several layers write to, as on the way past
            residual blocks. The paper leaves these whole.

    Attributes:
        groups: The groups by name, in the order of the network.
        size: The number of channels of all groups.
        pinned: For every other layer why its channels stay.

    Raises:
        ValueError: The network cannot be followed, the message naming the node; or no channel can
            be removed, the message giving the reasons.

    Example:
        >>> net = nn.Sequential(
        ...     nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)
        ... )
        >>> graph = ChannelGraph(net, (1, 8, 8))
        >>> {name: group.size for name, group in graph.groups.items()}, graph.pinned
        ({'0': 4}, {'3': "it is the network's output"})
    """

    def __init__(
        self, model: nn.Module, input_shape: Sequence[int], *, residual: bool = True
    ) -> None:
        self.input_shape = tuple(input_shape)
        self.residual = residual
        self.groups: dict[str, Group] = {}
        self.pinned: dict[str, str] = {}
        self._model = skeleton(model)
        flow = Flow(self._model, self.input_shape)
        self.depthwise = frozenset(flow.depthwise)
        roots = {key: flow.roots(ids) for key, ids in flow.axes.items()}
        place = self._group(flow, roots)
        self._axes = {
            key: np.array([place.get(r, -1) for r in ids.tolist()], np.int64)
            for key, ids in roots.items()
        }
        self._sites = {
            layer: flow.site[layer] for group in self.groups.values() for layer in group.layers
        }
        self._prepare_costs(flow.calls)
        if not self.groups:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.pinned.items())
            raise ValueError(f"model: no channel can be removed ({reasons or 'it has no layer'})")

    @property
    def size(self) -> int:
        """The number of channels of all groups."""
        return sum(group.size for group in self.groups.values())

    def at(self, input_shape: Sequence[int]) -> ChannelGraph:
        """The same network on inputs of another shape.

        Args:
            input_shape: Shape of one input without the batch.
        """
        if tuple(input_shape) == self.input_shape:
            return self
        return ChannelGraph(self._model, input_shape, residual=self.residual)

    def __deepcopy__(self, memo: dict[int, object]) -> ChannelGraph:
        return self  # nothing changes it

    # -- groups --------------------------------------------------------------------------------

    def _group(self, flow: Flow, roots: Mapping[tuple[str, str], np.ndarray]) -> dict[int, int]:
        """Find the groups; returns the place of each removable channel's root."""
        writers: dict[int, list[str]] = {}
        layers = list(dict.fromkeys(name for name, _ in flow.calls))
        for name in layers:
            for root in dict.fromkeys(roots[name, "out"].tolist()):
                writers.setdefault(root, []).append(name)
        why = {flow.roots(np.array([i])).item(): reason for i, reason in flow.reasons.items()}
        place: dict[int, int] = {}
        for name in layers:
            own = list(dict.fromkeys(roots[name, "out"].tolist()))
            if name in flow.depthwise or name in self.pinned or own[0] in place:
                continue
            together = tuple(dict.fromkeys(w for root in own for w in writers[root]))
            several = sum(w not in flow.depthwise for w in together) > 1
            reason = next((why[root] for root in own if root in why), "")
            if not reason and several and not self.residual:
                reason = "several layers write to it"
            if not reason and any(not _alike(own, roots[w, "out"]) for w in together):
                reason = "another layer shares only part of its channels"
            if reason:
                self.pinned.update(dict.fromkeys(together, reason))
                continue
            self.groups[name] = Group(name, len(own), len(place), together, several)
            place.update((root, len(place)) for root in own)
        return place

    # -- costs ---------------------------------------------------------------------------------

    def _prepare_costs(self, calls: Sequence[tuple[str, float]]) -> None:
        """For each call of a layer, its inputs and outputs as sums over the groups' widths."""
        names = [name for name, _ in calls]
        self._each = np.array([each for _, each in calls])
        axes = (
            [self._axes.get((name, axis), np.zeros(0, np.int64)) for name in names]
            for axis in ("in", "out")
        )
        self._inputs, self._outputs = (self._linear(part) for part in axes)
        for row, name in enumerate(names):
            if (name, "in") not in self._axes:  # depthwise: one input for each output
                self._inputs[0][row] = 1

    def _linear(self, axes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(constants [L], factors [L, groups]): how many channels an axis has for given widths."""
        constant = np.array([float((axis < 0).sum()) for axis in axes])
        groups = list(self.groups.values())
        factors = np.array(
            [[(axis == group.start).sum() for group in groups] for axis in axes], float
        )
        return constant, factors.reshape(len(axes), len(groups))

    def widths(self, kept: np.ndarray) -> np.ndarray:
        """How many channels of each group, [groups], a mask over all channels, [size], keeps."""
        starts = [group.start for group in self.groups.values()]
        return np.add.reduceat(kept.astype(np.int64), starts)

    def macs(self, widths: np.ndarray | None = None) -> int:
        """Multiply-adds of convolutions and linear layers for one input, without biases.

        Args:
            widths: Channels of each group, [groups]; by default all.
        """
        if widths is None:
            widths = np.array([group.size for group in self.groups.values()])
        (a, by_a), (b, by_b) = self._inputs, self._outputs
        return round(float(self._each @ ((a + by_a @ widths) * (b + by_b @ widths))))

    # -- places --------------------------------------------------------------------------------

    def along(self, module: str, axis: str) -> np.ndarray | None:
        """The places of the channels along an axis ("in", "out") of a module; -1 where pinned.

        None where the channels of that axis were not followed.

        Args:
            module: Its name in the network.
            axis: "in" or "out".
        """
        return self._axes.get((module, axis))

    def sites(self) -> dict[str, torch.Tensor]:
        """The modules whose outputs are gated, each with the places of its channels."""
        return {
            site: torch.from_numpy(self._axes[layer, "out"]) for layer, site in self._sites.items()
        }

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where a model's parameters have not the names and shapes of this one's.

        Args:
            model: Any network.
        """
        ours = {name: tuple(p.shape) for name, p in self._model.named_parameters()}
        theirs = {name: tuple(p.shape) for name, p in model.named_parameters()}
        wrong = sorted(
            name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
        )
        if wrong:
            name = wrong[0]
            raise ValueError(
                f"model: it is not the network of this graph: {name} is "
                f"{theirs.get(name, 'missing')}, expected {ours.get(name, 'none')} "
                f"({len(wrong)} parameters differ)"
            )

    def masks(self, kept: Masks) -> Masks:
        """The weights that stay, one mask for each convolution and linear layer.

        Args:
            kept: The channels that stay, by group.
        """
        flat = self.flat(kept)
        found: dict[str, torch.Tensor] = {}
        for name, module in self._model.named_modules():
            outs, ins = self.along(name, "out"), self.along(name, "in")
            weight = getattr(module, "weight", None)
            if outs is None or weight is None or weight.ndim < 2:
                continue
            mask = torch.ones(weight.shape, dtype=torch.bool)
            rows, columns = (1, 0) if isinstance(module, TRANSPOSED) else (0, 1)
            if name in self.depthwise:
                rows = 0
                outs = outs[:: len(outs) // weight.shape[0]]
            mask &= _spread(flat, outs, weight.ndim, rows)
            if ins is not None:
                mask &= _spread(flat, ins, weight.ndim, columns)
            found[f"{name}.weight"] = mask
        return Masks(found)

    def flat(self, kept: Masks) -> np.ndarray:
        """A mask over all channels, bool [size], of masks by group.

        Args:
            kept: One mask for each group.

        Raises:
            ValueError: The masks are not for the groups of this network.
        """
        wanted = {name: group.size for name, group in self.groups.items()}
        given = {name: mask.numel() for name, mask in kept.items()}
        if wanted != given:
            raise ValueError(f"kept must have a mask for each of {wanted}, got {given}")
        return np.concatenate([kept[name].numpy() for name in self.groups])


def stays(flat: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which channels along an axis stay, by their places; pinned ones do."""
    return np.where(places < 0, True, flat[places])


def _spread(flat: np.ndarray, places: np.ndarray, ndim: int, axis: int) -> torch.Tensor:
    shape = [1] * ndim
    shape[axis] = -1
    return torch.from_numpy(stays(flat, places)).view(shape)


def _alike(own: Sequence[int], other: np.ndarray) -> bool:
    """Whether an axis has the same channels, each equally often."""
    found, counts = np.unique(other, return_counts=True)
    return found.tolist() == sorted(own) and len(set(counts.tolist())) == 1
