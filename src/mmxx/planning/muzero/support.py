"""Scalars as distributions over bins, and the two scalings of gradients and hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DiscreteSupport:
    """A scalar as a two-hot distribution over the bins -size … size, after t.

    t(x) = sign(x)(sqrt(|x| + 1) - 1) + eps·x, so that large returns need few bins.

    Args:
        size: The outermost bin.
        eps: ε of t; None for t(x) = x.

    Raises:
        ValueError: size is not 1 or more, or eps not above 0.

    Source: Appendix F; t is that of Pohlen et al., Observe and Look Further (2018).

    Example:
        >>> support = DiscreteSupport(3)
        >>> logits = support.encode(torch.tensor([2.5])).log()
        >>> round(float(support.decode(logits)), 4)
        2.5
    """

    def __init__(self, size: int, eps: float | None = 1e-3) -> None:
        if size < 1:
            raise ValueError(f"size must be 1 or more, got {size}")
        if eps is not None and not eps > 0:
            raise ValueError(f"eps must be above 0 or None, got {eps}")
        self.size = size
        self.eps = eps

    @property
    def bins(self) -> int:
        """2·size + 1."""
        return 2 * self.size + 1

    def transform(self, x: Tensor) -> Tensor:
        """t(x), in a form that does not cancel near 0."""
        if self.eps is None:
            return x
        size = x.abs()
        return x.sign() * size / ((size + 1).sqrt() + 1) + self.eps * x

    def inverse(self, y: Tensor) -> Tensor:
        """The x of t(x) = y, in a form that does not cancel near 0."""
        if self.eps is None:
            return y
        size, start = y.abs(), 1 + 2 * self.eps
        root = (start * start + 4 * self.eps * size).sqrt()
        above = 2 * size * (1 - 2 * self.eps / (root + start)) / (root + 1)
        return y.sign() * above * (above + 2)

    def encode(self, x: Tensor) -> Tensor:
        """Probabilities on the two bins beside t(x), clamped: [...] -> [..., 2·size + 1]."""
        y = self.transform(x).clamp(-self.size, self.size)
        low = y.floor().clamp(max=self.size - 1)
        share = (y - low).unsqueeze(-1)
        place = (low + self.size).long().unsqueeze(-1)
        out = torch.zeros(*y.shape, self.bins, dtype=y.dtype, device=y.device)
        return out.scatter_(-1, place, 1 - share).scatter_(-1, place + 1, share)

    def decode(self, logits: Tensor) -> Tensor:
        """The scalar of a distribution: [..., 2·size + 1] -> [...]."""
        places = torch.arange(-self.size, self.size + 1, dtype=logits.dtype, device=logits.device)
        return self.inverse(logits.softmax(-1) @ places)

    def clipped(self, x: Tensor) -> Tensor:
        """Whether each x lies outside, bool [...]."""
        return self.transform(x).abs() > self.size


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * ctx.scale, None


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """The same tensor, whose gradient is multiplied on the way back.

    Args:
        x: Any tensor.
        scale: The factor.

    Source: Appendix G; the published pseudocode.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> scale_gradient(x, 0.5).backward()
        >>> x.grad
        tensor([0.5000])
    """
    out = _ScaleGradient.apply(x, scale)
    assert isinstance(out, Tensor)
    return out


def scale_hidden(state: Tensor) -> Tensor:
    """Each sample's hidden state brought to [0, 1] by its least and largest element.

    Args:
        state: [B, ...].

    Source: Appendix G; a range below 1e-5 is widened by 1e-5.

    Example:
        >>> scale_hidden(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[0.0000, 0.5000, 1.0000]])
    """
    if not state.shape[0]:
        return state
    flat = state.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    width = high - low
    width = torch.where(width < 1e-5, width + 1e-5, width)
    return ((flat - low) / width).reshape(state.shape)
