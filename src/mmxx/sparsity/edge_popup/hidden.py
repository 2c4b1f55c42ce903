"""Weights that show only where their scores say so: a parametrization, and the border it obeys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmxx.kernels.select import keep_largest, keep_where_largest
from mmxx.sparsity._common import Through
from mmxx.sparsity.edge_popup.sampled import Sampled

RULES = ("drop", "flip", "stochastic")


class DivergedError(ValueError):
    """Scores hold NaN."""


class Border:
    """What is kept of one layer, or of several that share a border.

    Choosing costs a pass over all scores; what was made of them is kept until a score or a
    weight changes.

    Args:
        rule: One of `RULES`.
        k: The fraction that is kept.
    """

    def __init__(self, rule: str, k: float) -> None:
        self.rule = rule
        self.k = k
        self.layers: list[Hidden] = []
        self._key: Any = None
        self._made: list[Tensor] = []

    def add(self, layer: Hidden, owner: Any) -> None:
        """Take in a layer; ``owner.original`` is its weight, also once it has moved."""
        layer.place, layer.owner = len(self.layers), (owner,)  # no sub-module: the other way round
        self.layers.append(layer)

    @property
    def count(self) -> int:
        """How many weights are kept."""
        total = sum(layer.scores.numel() for layer in self.layers)
        return total - int((1 - self.k) * total)

    def forget(self) -> None:
        """Choose anew at the next use, also where a change left no trace."""
        self._key = None

    @torch.no_grad()
    def masks(self) -> list[Tensor]:
        """What is kept of each layer now.

        Raises:
            DivergedError: Scores hold NaN.
        """
        scores = [layer.scores.detach() for layer in self.layers]
        if self.rule == "stochastic":
            self.refuse_nan(scores)
            return [s > 0 for s in scores]
        try:
            return keep_largest(scores, self.count)
        except ValueError:
            self.refuse_nan(scores)
            raise

    @torch.no_grad()
    def made(self, layer: Hidden) -> Tensor:
        """The weight of a layer as it shows, without a gradient.

        Raises:
            DivergedError: Scores hold NaN.
        """
        key = self._state()
        if key is None or key != self._key:
            self._made, self._key = _make_uncompiled(self), key
        return self._made[layer.place]

    def _state(self) -> Any:
        """Changes whenever a score or a weight does; None where torch does not count changes."""
        tensors = [t for layer in self.layers for t in (layer.scores, layer.weight)]
        if any(t.is_inference() for t in tensors):
            return None
        return self.k, [(t.data_ptr(), t._version, t.dtype) for t in tensors]

    def refuse_nan(self, scores: list[Tensor]) -> None:
        """Raise DivergedError, naming the layers whose scores hold NaN."""
        pairs = zip(self.layers, scores, strict=True)
        bad = [layer.name for layer, s in pairs if bool(s.isnan().any())]
        if bad:
            raise DivergedError(
                f"the scores of {', '.join(bad)} hold NaN: training diverged, or a gradient did"
            )


def _make(border: Border) -> list[Tensor]:
    """The weights of all layers of a border as they show."""
    weights = [layer.weight.detach() for layer in border.layers]
    if border.rule == "drop":
        scores = [layer.scores.detach() for layer in border.layers]
        try:
            return keep_where_largest(weights, scores, border.count)
        except ValueError:
            border.refuse_nan(scores)
            raise
    pairs = zip(weights, border.masks(), strict=True)
    if border.rule == "flip":
        return [torch.where(mask, weight, -weight) for weight, mask in pairs]
    return [weight.masked_fill(~mask, 0.0) for weight, mask in pairs]


_make_uncompiled: Any = torch.compiler.disable(_make)  # it hands addresses to a kernel


class Hidden(nn.Module):
    """The parametrization of one weight: holds its scores, shows what the border keeps.

    Args:
        name: Of the weight in its model.
        scores: The first scores, of the weight's shape.
        border: Decides what is kept.
        generator: Draws the masks of the rule "stochastic"; None is torch's own.
    """

    def __init__(
        self, name: str, scores: Tensor, border: Border, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.name = name
        self.scores = nn.Parameter(scores)
        self.border = border
        self.generator = generator
        self.place = 0
        self.owner: tuple[Any, ...] = ()

    @property
    def weight(self) -> Tensor:
        """The frozen weight."""
        return self.owner[0].original

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the layer uses it, of the same shape."""
        rule = self.border.rule
        if rule == "stochastic" and self.training:
            chance = self.scores.detach().sigmoid()
            mask = torch.bernoulli(chance, generator=self.generator).bool()
            return Sampled.apply(self.scores, weight, mask)  # type: ignore[no-any-return]
        factor = 2.0 if rule == "flip" else 1.0
        return Through.apply(self.scores, weight, self.border.made(self), factor)  # type: ignore
