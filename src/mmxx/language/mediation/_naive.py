"""The plain loop: one whole pass of the model for each mediator and each candidate.

It is slow, makes no assumption about how blocks go together, and is what the fast way is
tested against.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmxx.language.mediation._passes import Context
from mmxx.language.mediation._plan import Plan, Values, make_plan
from mmxx.language.mediation.decoder import DecoderParts, Watch, hidden, watched
from mmxx.language.mediation.examples import Encoded


class _Overriding(Watch):
    """One row: the mediators of one set overridden in a whole pass."""

    def __init__(self, plan: Plan, values: Values, places: tuple[int, ...]) -> None:
        self.plan, self.values, self.places = plan, values, list(places)

    def embedding(self, x: Tensor) -> Tensor:
        return self._neurons(0, x)

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        return self._neurons(layer + 1, x)

    def _neurons(self, level: int, x: Tensor) -> Tensor:
        here = self.plan.here("neurons", level)
        if here is None:
            return x
        units = here[1]
        now = x[:, self.places][:, :, units].permute(2, 0, 1)
        new = self.values.neurons(level, units, now)
        x = x.clone()
        for index, place in enumerate(self.places):
            x[:, place, units] = new[:, :, index].T
        return x

    def weights(self, layer: int, w: Tensor) -> Tensor:
        here = self.plan.here("heads", layer)
        if here is None:
            return w
        units, own = here[1], self.values.own
        w = w.clone()
        now = w[:, units, own.start : own.prompt, : own.prompt].transpose(0, 1)
        new = self.values.heads(layer, units, now).transpose(0, 1)
        w[:, units, own.start : own.prompt, : own.prompt] = new
        return w


def run_row(
    parts: DecoderParts,
    plan: Plan,
    values: Values,
    example: Encoded,
    which: Literal["base", "alternative"],
) -> Tensor:
    """The log odds of a plan of one row for one example, a scalar."""
    prompt, places = getattr(example, which), example.places
    watch = _Overriding(plan, values, () if places is None else places[which != "base"])
    found: list[Tensor] = []
    with watched(parts, watch):
        for candidate in (example.first, example.second):
            tokens = torch.tensor([prompt + candidate[:-1]], device=parts.device)
            logits = _logits(parts, tokens, watch)[0, len(prompt) - 1 :]
            chosen = torch.tensor(candidate, device=logits.device)
            found.append(logits.log_softmax(-1).gather(-1, chosen[:, None]).mean())
    return found[1] - found[0]


def _logits(parts: DecoderParts, tokens: Tensor, watch: Watch) -> Tensor:
    """Logits of the whole sequence, [1, T, V], as the model's own head gives them."""
    if parts.own:
        logits = torch.nn.functional.linear(hidden(parts, tokens, watch), parts.head)
    else:
        logits = parts.model(tokens, use_cache=False).logits
    return logits if logits.dtype == torch.float64 else logits.float()


def run_plain(
    parts: DecoderParts, example: Encoded, context: Context, which: Literal["base", "alternative"]
) -> Tensor:
    """The log odds that the model itself gives for a prompt, a scalar."""
    plan = make_plan([[]], len(parts.blocks))
    return run_row(parts, plan, Values(context, context), example, which)
