"""The activation that learns where to clip: PACT."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, top: int) -> Tensor:
        inside, above = (x > 0) & (x < alpha), x >= alpha
        ctx.save_for_backward(inside, above)
        step = alpha / top
        clipped = torch.minimum(x.clamp(min=0), alpha)
        return (clipped / step).round() * step

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - by the decorator
        ctx: Any, *grads: Tensor
    ) -> Any:
        inside, above = ctx.saved_tensors
        (grad,) = grads
        return torch.where(inside, grad, 0.0), torch.where(above, grad, 0.0).sum(), None


class PACT(nn.Module):
    r"""Clips to $[0, \alpha]$ and rounds to $2^b$ levels; $\alpha$ is learned.

    $y = \mathrm{round}(\mathrm{clip}(x, 0, \alpha) \cdot n / \alpha) \cdot \alpha / n$ with
    $n = 2^b - 1$. The gradient passes straight through inside the range, and that of
    $\alpha$ is the sum of what arrives at $x \ge \alpha$. Stands in the place of ReLU; a layer
    converted with ``activations="pact"`` has its own.

    Args:
        alpha: Where $\alpha$ begins, above 0.
        bits: 1 to 8.

    Raises:
        ValueError: An argument is out of its range; or the input is of integers or booleans.

    Source: Choi et al., *PACT: Parameterized Clipping Activation for Quantized Neural Networks*
    (2018), equations 1 to 3. The authors decay $\alpha$ by its own L2 penalty.

    Example:
        >>> PACT(alpha=1.5)(torch.tensor([-1.0, 0.32, 9.0])).detach().tolist()
        [0.0, 0.30000001192092896, 1.5]
    """

    def __init__(self, alpha: float = 6.0, bits: int = 4) -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        if bits not in range(1, 9):
            raise ValueError(f"bits must be from 1 to 8, got {bits}")
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """The rounded values, of the shape and type of ``x``."""
        if not x.is_floating_point():
            raise ValueError(f"x must be of a floating type, got {x.dtype}")
        return _Clip.apply(x, self.alpha.to(x.dtype), 2**self.bits - 1)

    def extra_repr(self) -> str:
        """The number of bits."""
        return f"bits={self.bits}"
