"""Products of a linear layer, on a CPU by oneDNN where torch itself would ask MKL.

MKL keeps to 256-bit instructions on processors that are not Intel's; oneDNN, which comes with torch
as well, uses what there is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_AVAILABLE = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
_PRODUCTS = 1 << 22  # of two numbers: with fewer, what a call costs exceeds what it saves


class Linear(nn.Linear):
    """A linear layer that multiplies by `linear`, and leaves its numbers to who draws them.

    Nothing is drawn twice, nor from another generator than the one that was handed in.
    """

    def reset_parameters(self) -> None:
        """Draw nothing."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape [..., in_features] to [..., out_features]."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, with gradients of any order.

    Args:
        x: Inputs, shape [..., n].
        weight: Shape [m, n].
        bias: Shape [m], or None.

    Returns:
        Shape [..., m]. Beside `torch.nn.functional.linear` it differs by rounding only.
    """
    if not by_onednn(x, weight):
        return functional.linear(x, weight, bias)
    return _Product.apply(x, weight, bias)  # pyright: ignore[reportReturnType]


def product(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` without gradients, shapes as in `linear`."""
    return _onednn(x, weight) if by_onednn(x, weight) else functional.linear(x, weight)


def outer(x: Tensor, y: Tensor) -> Tensor:
    """``x.T @ y`` without gradients, of shapes [n, m] and [n, k]."""
    if not by_onednn(x.T, y.T):
        return x.T @ y
    return _onednn(x.T, y.T, None, True)


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether ``x @ weight.T`` is faster by oneDNN: large, in single precision, on a CPU."""
    return (
        x.numel() * len(weight) >= _PRODUCTS
        and _AVAILABLE
        and x.ndim > 1
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


# an operator of its own, since inductor takes oneDNN's for one of a frozen net
@torch.library.custom_op("mmxx::linear", mutates_args=())
def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, summed: bool = False) -> Tensor:
    """``x @ weight.T + bias`` by oneDNN, which compiles and keeps code for every shape it meets.

    Where the number of rows changes from call to call, the last ones, an eighth at most, go to
    torch instead, so that the shapes are few; with ``summed`` it is what is summed that changes.
    """
    n = x.shape[-1] if summed else x.numel() // x.shape[-1]
    whole = _round(n)
    if whole == n:
        return _multiply(x, weight, bias)
    if summed:
        y = _multiply(x[:, :whole], weight[:, :whole], bias)
        return y.addmm_(x[:, whole:], weight[:, whole:].T)
    rows = x.reshape(n, -1)
    parts = _multiply(rows[:whole], weight, bias), functional.linear(rows[whole:], weight, bias)
    return torch.cat(parts).view(*x.shape[:-1], len(weight))


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _round(n: int) -> int:
    """A number with nothing behind its four leading bits."""
    behind = max(0, n.bit_length() - 4)
    return n >> behind << behind


@_onednn.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None, summed: bool = False) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


@_onednn.register_vmap
def _(
    info: Any,
    in_dims: tuple[int | None, ...],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    summed: bool = False,
) -> tuple[Tensor, int]:
    def batched(value: Tensor, dim: int | None) -> Tensor:
        return value[None] if dim is None else value.movedim(dim, 0)

    x = batched(x, in_dims[0])
    y = x.flatten(1, -2) @ batched(weight, in_dims[1]).mT
    if bias is not None:
        y = y + batched(bias, in_dims[2])[:, None]
    return y.unflatten(1, x.shape[1:-1]), 0


class _Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        # a gradient that is differentiated in turn needs products that torch can differentiate
        again = torch.is_grad_enabled()
        to_x = to_weight = None
        if needs_x:
            to_x = grad @ weight if again else product(grad, weight.T)
        if needs_weight:
            to_weight = rows.T @ inputs if again else outer(rows, inputs)
        return to_x, to_weight, rows.sum(0) if needs_bias else None

    @staticmethod
    def jvp(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, to_x: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None
    ) -> Tensor:
        x, weight = ctx.saved_tensors
        change = x.new_zeros(*x.shape[:-1], len(weight))
        if to_x is not None:
            change = change + functional.linear(to_x, weight)
        if to_weight is not None:
            change = change + functional.linear(x, to_weight)
        return change if to_bias is None else change + to_bias
