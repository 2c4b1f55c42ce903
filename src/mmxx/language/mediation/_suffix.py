"""All mediators at once: rows that share the prompt's beginning and enter where they differ.

Three savings, none of which changes a result. What stands before the first changed token is the
same in every row: its keys and values are computed once. A mediator of block l leaves the blocks
before it alone: its row begins with the kept residual stream there, so that the batch grows from
block to block. And only the candidates' logits are computed, where they are single tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmxx.language.mediation._passes import Context, response
from mmxx.language.mediation._plan import Plan, Values
from mmxx.language.mediation.decoder import (
    DecoderParts,
    Watch,
    call_block,
    own_arguments,
    watched,
)


class _Overriding(Watch):
    """Rows (row of the plan, example) on the packed sequence, overridden as the plan says."""

    def __init__(self, plan: Plan, values: Values, places: tuple[int, ...]) -> None:
        self.plan, self.values = plan, values
        self.examples = len(values.own.log_y)
        self.places = [place - values.own.start for place in places]

    def keys(
        self, layer: int, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        own, rows = self.values.own, len(k) // self.examples

        def whole(prefix: Tensor, x: Tensor) -> Tensor:
            repeated = prefix.expand(rows, *prefix.shape).flatten(0, 1)
            return torch.cat([repeated, x], 2)

        return whole(own.keys[layer], k), whole(own.values[layer], v), own.masks[layer]

    def weights(self, layer: int, w: Tensor) -> Tensor:
        here = self.plan.here("heads", layer)
        if here is None:
            return w
        rows, units = here
        own = self.values.own
        w = w.clone()
        view = w.view(-1, self.examples, *w.shape[1:])
        now = view[rows, :, units, : own.suffix, : own.prompt]
        view[rows, :, units, : own.suffix, : own.prompt] = self.values.heads(layer, units, now)
        return w

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """Override neurons of rows that entered earlier; others enter after this block."""
        here = self.plan.here("neurons", layer + 1)
        if here is None:
            return x
        rows, units = here
        inside = rows < len(x) // self.examples
        if not inside.any():
            return x
        x = x.clone()
        self.put(x, layer + 1, rows[inside], units[inside])
        return x

    def put(self, x: Tensor, level: int, rows: Tensor, units: Tensor) -> None:
        """Override neurons in MLP outputs, [rows * E, S, d], in place."""
        view = x.view(-1, self.examples, *x.shape[1:])
        now = torch.stack([view[rows, :, place, units] for place in self.places], 2)
        new = self.values.neurons(level, units, now)
        for index, place in enumerate(self.places):
            view[rows, :, place, units] = new[:, :, index]

    def enter(self, x: Tensor, layer: int) -> None:
        """Let rows that begin at a block differ: x is [rows, E, S, d], changed in place.

        A change of an MLP's output is the same change of the residual stream after it.
        """
        own = self.values.own
        patched = self.plan.here("residual", layer)
        if patched is not None:
            rows, tokens = patched
            donor = self.values.donor.residual[layer]
            # before the first changed token both contexts are the same
            seen = (tokens >= own.start) & (tokens < own.prompt)
            rows, tokens = rows[seen], tokens[seen] - own.start
            x[rows, :, tokens] = donor[:, tokens].transpose(0, 1)
        here = self.plan.here("neurons", layer)
        if here is None:
            return
        rows, units = here
        new = self.plan.entry[rows] == layer
        rows, units = rows[new], units[new]
        if not len(rows):
            return
        now = own.neurons[layer][:, :, units].permute(2, 0, 1)
        change = self.values.neurons(layer, units, now) - now
        for index, place in enumerate(self.places):
            # rows that change several neurons here: each pair of row and unit is there once
            x[rows, :, place, units] += change[:, :, index].to(x.device)


def run_rows(
    parts: DecoderParts, plan: Plan, values: Values, places: tuple[int, ...], *, whole: bool = False
) -> Tensor:
    """The responses of all rows of a plan for all examples of a context.

    Args:
        parts: The model.
        plan: What the rows override.
        values: With what.
        places: The prompt's tokens at which neurons are.
        whole: Begin at the first block in every row: a check that blocks can be run alone.

    Returns:
        log odds in the order of the sets that the plan was made of, [sets, E].
    """
    own = values.own
    watch = _Overriding(plan, values, places)
    first = own.residual[0]
    x = first.new_empty((plan.rows, *first.shape))
    entry = torch.zeros_like(plan.entry) if whole else plan.entry
    begun = 0
    with watched(parts, watch):
        for layer in range(len(parts.blocks) + 1):
            until = int(torch.searchsorted(entry, layer, right=True))
            x[begun:until] = own.residual[layer]
            begun = until
            if not begun:
                continue
            watch.enter(x, layer)
            if layer < len(parts.blocks):
                args, kwargs = _arguments(parts, watch, own, layer)
                rows = x[:begun].flatten(0, 1).to(own.residual[layer].device)
                x[:begun] = call_block(parts, layer, rows, args, kwargs).view_as(x[:begun])
        found = response(parts, x[:, :, own.suffix - 1 :], own.first, own.second)
    ordered = torch.empty_like(found)
    ordered[plan.order] = found
    return ordered


def _arguments(
    parts: DecoderParts, watch: Watch, own: Context, layer: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if parts.own:
        return own_arguments(watch), {}
    return own.arguments[layer]
