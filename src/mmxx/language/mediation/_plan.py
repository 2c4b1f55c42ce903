"""Which mediators each row of a batch overrides, and with what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mmxx.language.mediation._passes import Context

Kind = Literal["heads", "neurons", "residual"]
Mode = Literal["set", "add", "zero", "mean"]
MODES = ("set", "add", "zero", "mean")
Part = tuple[Kind, int, int]
"""A mediator: its kind; the block (for neurons 0 is the embedding, and block l is l + 1); and
the head, the neuron, or the token of the prompt."""
Places = dict[int, tuple[Tensor, Tensor]]
"""For each layer the rows that override something there, and what: a head or a neuron."""


@dataclass(frozen=True)
class Plan:
    """What R rows override, in order of the block at which they enter the batch.

    Attributes:
        order: The number, among the sets that were asked for, of each row.
        entry: The block at which each row first differs from its context, [R].
        at: For each kind, `Places`.
    """

    order: Tensor
    entry: Tensor
    at: dict[Kind, Places]

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.order)

    def here(self, kind: Kind, layer: int) -> tuple[Tensor, Tensor] | None:
        """Rows and units of a kind at a layer, if there are any."""
        return self.at.get(kind, {}).get(layer)


def make_plan(sets: Sequence[Iterable[Part]], layers: int) -> Plan:
    """The plan for some sets of mediators, each overridden at once in a row of its own."""
    parts = [list(one) for one in sets]
    entry = [min((layer for _, layer, _ in one), default=layers) for one in parts]
    order = sorted(range(len(parts)), key=entry.__getitem__)
    found: dict[Kind, dict[int, tuple[list[int], list[int]]]] = {}
    for row, index in enumerate(order):
        for kind, layer, unit in parts[index]:
            rows, units = found.setdefault(kind, {}).setdefault(layer, ([], []))
            rows.append(row)
            units.append(unit)
    at: dict[Kind, Places] = {
        kind: {
            layer: (torch.tensor(rows), torch.tensor(units))
            for layer, (rows, units) in by_layer.items()
        }
        for kind, by_layer in found.items()
    }
    return Plan(torch.tensor(order), torch.tensor([entry[index] for index in order]), at)


@dataclass(frozen=True)
class Values:
    """Where overridden mediators get their values from.

    Attributes:
        own: The context that is computed.
        donor: The other one.
        mode: "set" gives the donor's value; "add" adds ``alpha`` times what the donor's differs
            by; "zero" gives 0, and "mean" the mean over examples.
        alpha: Factor of "add".
        mean: For "mean": the mean attention [H, P - start, P] of each block under "heads", and the
            mean neurons [places, d] of embedding and MLPs under "neurons".
    """

    own: Context
    donor: Context
    mode: Mode = "set"
    alpha: float = 1.0
    mean: dict[Kind, list[Tensor]] | None = None

    def only(self, example: int) -> Values:
        """The same for one of the examples."""
        own, donor = self.own.only(example), self.donor.only(example)
        return replace(self, own=own, donor=donor)

    def heads(self, layer: int, units: Tensor, now: Tensor) -> Tensor:
        """Attention of some heads, [n, E, P - start, P], given what it is now."""
        donor = self.donor.weights[layer].transpose(0, 1)[units]
        own = self.own.weights[layer].transpose(0, 1)[units]
        mean = None
        if self.mode == "mean":
            assert self.mean is not None
            mean = self.mean["heads"][layer][units, None]
        return self._changed(now, donor, own, mean)

    def neurons(self, level: int, units: Tensor, now: Tensor) -> Tensor:
        """Values of some neurons at the examples' places, [n, E, places], given those now."""
        donor, own = (
            context.neurons[level][:, :, units].permute(2, 0, 1)
            for context in (self.donor, self.own)
        )
        mean = None
        if self.mode == "mean":
            assert self.mean is not None
            mean = self.mean["neurons"][level][:, units].T[:, None]
        return self._changed(now, donor, own, mean)

    def _changed(self, now: Tensor, donor: Tensor, own: Tensor, mean: Tensor | None) -> Tensor:
        if self.mode == "set":
            return donor
        if self.mode == "add":
            return now + self.alpha * (donor - own)
        if self.mode == "zero":
            return torch.zeros_like(now)
        assert mean is not None
        return mean.expand_as(now)
