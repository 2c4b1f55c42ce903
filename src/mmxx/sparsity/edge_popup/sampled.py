"""Zhou's stochastic masks: weights that are drawn by their scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Sampled(torch.autograd.Function):
    r"""Zhou's stochastic mask: ``apply(scores, weight, mask)`` with $P(h = 1) = \sigma(s)$.

    The gradient is that of the probability: $g \cdot w \cdot \sigma'(s)$.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """The weight that the layer uses."""
        ctx.save_for_backward(scores, weight)
        return weight.masked_fill(~mask, 0.0)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, None, None]:
        """The gradient of the scores; the weight gets none."""
        scores, weight = ctx.saved_tensors
        probability = scores.sigmoid()
        return grads[0] * weight * probability * (1 - probability), None, None
