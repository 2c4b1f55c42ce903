r"""From scores to weights and back: the step functions of hidden networks and their gradients.

Forward, a weight passes where its score is among the largest. Backward, the step function is
taken for the identity, so that with $h$ the mask, $\partial L / \partial |s|$ is
$\partial L / \partial (w h) \cdot w$, and the sign of s brings it to s.
"""

from __future__ import annotations

from typing import Any

import torch
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor
from torch.autograd.function import once_differentiable


@njit(cache=True, nogil=True, error_model="numpy")
def _pull_back(grad, weight, scores, out):
    zero = scores.dtype.type(0)
    for i in range(out.size):
        product, score = grad[i] * weight[i], scores[i]
        out[i] = product if score > zero else (-product if score < zero else zero * product)


def score_gradient(grad: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
    r"""The gradient of the scores, $g \cdot w \cdot \mathrm{sign}(s)$.

    On the CPU in one pass over memory.

    Args:
        grad: Of the loss by the weight that the layer used.
        weight: The frozen weight, of the same shape.
        scores: Of the same shape.

    Example:
        >>> score_gradient(torch.ones(3), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, -1, 0]))
        tensor([ 1., -2.,  0.])
    """
    parts = [t.detach() for t in (grad, weight, scores)]
    if any(
        t.device.type != "cpu" or t.dtype not in (torch.float32, torch.float64) for t in parts
    ) or not all(t.is_contiguous() and t.dtype == scores.dtype for t in parts):
        return _score_gradient_plain(*parts)
    out = torch.empty_like(parts[2])
    _pull_back(*(t.numpy().reshape(-1) for t in (*parts, out)))
    return out


def _score_gradient_plain(grad: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
    """As `score_gradient`, on any device."""
    return (grad * weight * scores.sgn()).to(scores.dtype)


class Through(torch.autograd.Function):
    """Hands on a weight that was made of scores, and the gradient to the scores.

    ``apply(scores, weight, made, factor)``: ``made`` is what the layer shall use and ``factor``
    its slope in the mask: 1 where weights are kept or zeroed, 2 where they change their sign.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, made: Tensor, factor: float) -> Tensor:
        """The weight that the layer uses."""
        ctx.save_for_backward(scores, weight)
        ctx.factor = factor
        return made.view_as(made)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, None, None, None]:
        """The gradient of the scores; the weight gets none."""
        scores, weight = ctx.saved_tensors
        found = score_gradient(grads[0], weight, scores)
        return found if ctx.factor == 1 else found * ctx.factor, None, None, None


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
