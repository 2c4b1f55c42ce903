"""The three products of a layer, each with its own four-bit operands.

Forward: weights times inputs, INT4 by INT4. Backward: weights times the gradient, INT4 by FP4.
Update: the gradient times the inputs, FP4 by INT4. Levels are multiplied as whole numbers and
the product is scaled afterwards, so that it equals an integer product bit for bit. What waits
for the backward pass are the packed codes of the input, an eighth of its float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmxx.training.fourbit import operators
from mmxx.training.fourbit.operators import unpack_bits
from mmxx.training.fourbit.recipes import Recipe
from mmxx.training.fourbit.tracing import Traced

CHUNK = 64
"""Products that are summed before the sum is rounded, with ``accumulate="fp16"``."""


class Geometry(NamedTuple):
    """How a convolution moves; all but ``groups`` have two entries (one for 1-D)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def to_1_6_9(x: Tensor) -> Tensor:
    """float32 with the mantissa cut to 9 bits, to the nearest, ties to even.

    The range of the 6-bit exponent is not imposed: the operands here stay far inside it.
    """
    bits = x.float().contiguous().view(torch.int32)
    rounded = (bits + (0x1FFF + ((bits >> 14) & 1))) & -0x4000
    return torch.where(x.isfinite(), rounded.view(torch.float32), x.float()).to(x.dtype)


def multiply(a: Tensor, b: Tensor, accumulate: str) -> Tensor:
    """``a @ b`` of matrices [n, k] and [k, m], the sums kept as the recipe says."""
    if accumulate == "fp32":
        return a @ b
    total = a.new_zeros(a.shape[0], b.shape[1])
    for start in range(0, a.shape[1], CHUNK):
        part = to_1_6_9(a[:, start : start + CHUNK] @ b[start : start + CHUNK])
        total = to_1_6_9(total + part)
    return total


class _Layer:
    """The products of a linear layer: inputs [..., in], weights [out, in]."""

    def __init__(self, accumulate: str) -> None:
        self.accumulate = accumulate

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        if self.accumulate == "fp32":
            return a @ w.t()
        flat = multiply(a.reshape(-1, a.shape[-1]), w.t(), self.accumulate)
        return flat.view(*a.shape[:-1], w.shape[0])

    def backward(self, delta: Tensor, w: Tensor, shape: torch.Size) -> Tensor:
        return multiply(delta.reshape(-1, delta.shape[-1]), w, self.accumulate).view(shape)

    def update(self, delta: Tensor, a: Tensor, shape: torch.Size) -> Tensor:
        rows = delta.reshape(-1, delta.shape[-1])
        return multiply(rows.t(), a.reshape(-1, a.shape[-1]), self.accumulate)

    @staticmethod
    def bias(delta: Tensor) -> Tensor:
        return delta.reshape(-1, delta.shape[-1]).sum(0)

    @staticmethod
    def add(z: Tensor, bias: Tensor) -> Tensor:
        return z.add_(bias)


class _Convolution:
    """The products of a convolution: inputs [N, in, ...], weights [out, in / groups, ...]."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        return torch.convolution(
            a, w, None, stride, padding, dilation, False, [0] * len(stride), groups
        )

    def _backward(self, delta: Tensor, a: Tensor, w: Tensor, mask: list[bool]) -> Any:
        stride, padding, dilation, groups = self.geometry
        return torch.ops.aten.convolution_backward(
            delta, a, w, None, stride, padding, dilation, False, [0] * len(stride), groups, mask
        )

    def backward(self, delta: Tensor, w: Tensor, shape: torch.Size) -> Tensor:
        return self._backward(delta, w.new_empty(shape), w, [True, False, False])[0]

    def update(self, delta: Tensor, a: Tensor, shape: torch.Size) -> Tensor:
        return self._backward(delta, a, a.new_empty(shape), [False, True, False])[1]

    @staticmethod
    def bias(delta: Tensor) -> Tensor:
        return delta.sum([0, *range(2, delta.dim())])

    @staticmethod
    def add(z: Tensor, bias: Tensor) -> Tensor:
        return z.add_(bias.view(-1, *[1] * (z.dim() - 2)))


class _ConvolutionByPatches(_Convolution):
    """A 2-D convolution without groups as a product of matrices, for sums in pieces."""

    def __init__(self, geometry: Geometry, accumulate: str) -> None:
        super().__init__(geometry)
        self.linear = _Layer(accumulate)

    def _patches(self, a: Tensor, w_shape: torch.Size) -> Tensor:
        stride, padding, dilation, _ = self.geometry
        return torch.nn.functional.unfold(a, w_shape[2:], dilation, padding, stride).mT

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        z = self.linear.forward(self._patches(a, w.shape), w.flatten(1)).mT
        sizes = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, (s, p, d) in zip(
                a.shape[2:], w.shape[2:], zip(*self.geometry[:3], strict=True), strict=True
            )
        ]
        return z.reshape(len(a), len(w), *sizes)

    def backward(self, delta: Tensor, w: Tensor, shape: torch.Size) -> Tensor:
        stride, padding, dilation, _ = self.geometry
        rows = delta.flatten(2).mT
        wide = torch.Size((*rows.shape[:2], w[0].numel()))
        patches = self.linear.backward(rows, w.flatten(1), wide).mT
        return torch.nn.functional.fold(patches, shape[2:], w.shape[2:], dilation, padding, stride)

    def update(self, delta: Tensor, a: Tensor, shape: torch.Size) -> Tensor:
        patches = self._patches(a, shape)
        return self.linear.update(delta.flatten(2).mT, patches, shape).view(shape)


def _products(geometry: Geometry | None, accumulate: str) -> _Layer | _Convolution:
    if geometry is None:
        return _Layer(accumulate)
    return (
        _Convolution(geometry)
        if accumulate == "fp32"
        else _ConvolutionByPatches(geometry, accumulate)
    )


def round_gradient(
    delta: Tensor, recipe: Recipe, exponent: Tensor, counts: Tensor, label: str
) -> tuple[Tensor, Tensor]:
    """The gradient for the input's product and for the weight's; moves the layer's scale."""
    form = recipe.gradients
    if form is None:
        return delta, delta
    powers = getattr(form, "powers", None)
    mode = recipe.scale
    if not isinstance(mode, str):
        mode = "fixed"
    for_input, for_weight = operators.gradient(
        delta,
        exponent,
        counts,
        powers.radix if powers else 0,
        powers.least if powers else 0.5,
        form.top,
        form.fullest,
        recipe.stochastic,
        mode,
        recipe.two_phases,
        recipe.samples,
        label,
    )
    return for_input, for_weight if for_weight.numel() else for_input


class QuantizedProduct(torch.autograd.Function):
    """The output of a linear layer or convolution under a recipe, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        alpha: Tensor | None,
        running: Tensor,
        exponent: Tensor,
        counts: Tensor,
        recipe: Recipe,
        geometry: Geometry | None,
        training: bool,
        label: str,
        traced: Traced | None,
    ) -> Tensor:
        products = _products(geometry, recipe.accumulate)
        inside = step = None
        if recipe.activations == "sawb":
            levels, packed, step = operators.symmetric(x, running, training, True)
        elif recipe.activations == "pact":
            assert alpha is not None
            clip = alpha.detach().view(())
            levels, packed, inside = operators.clipped(x, clip)
            step = clip / 15
        else:
            levels = packed = x
        w, w_step = _round_weight(weight, recipe)
        z = products.forward(levels, w.to(levels.dtype))
        if step is not None or w_step is not None:
            z = z.mul_((1 if step is None else step) * (1 if w_step is None else w_step))
        if bias is not None:
            z = products.add(z, bias.to(z.dtype))
        ctx.save_for_backward(packed, step, inside, weight, exponent, counts)
        ctx.shape, ctx.dtype, ctx.level_dtype = x.shape, x.dtype, levels.dtype
        ctx.settings = recipe, geometry, label, traced
        ctx.bias_dtype = None if bias is None else bias.dtype
        return z.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - by the decorator
        ctx: Any, *grads: Tensor
    ) -> Any:
        packed, step, inside, weight, exponent, counts = ctx.saved_tensors
        recipe, geometry, label, traced = ctx.settings
        (delta,) = grads
        products = _products(geometry, recipe.accumulate)
        need_x, need_weight, need_bias, need_alpha = ctx.needs_input_grad[:4]
        for_input, for_weight = round_gradient(delta, recipe, exponent, counts, label)
        if traced is not None:
            traced.add(delta, for_input, for_weight, exponent)
        kind = ctx.level_dtype
        grad_x = grad_weight = grad_bias = grad_alpha = None
        if need_x or need_alpha:
            w, w_step = _round_weight(weight, recipe)
            grad_x = products.backward(for_input.to(kind), w.to(kind), ctx.shape)
            if w_step is not None:
                grad_x = grad_x.mul_(w_step)
            if inside is not None:
                kept = unpack_bits(inside, grad_x.numel()).view(ctx.shape)
                codes = operators.unpack(packed, ctx.shape, False, kind)
                grad_alpha = torch.where(kept | (codes < 15), 0.0, grad_x).sum().view(1)
                grad_x = torch.where(kept, grad_x, 0.0)
            grad_x = grad_x.to(ctx.dtype)
        if need_weight:
            levels = packed
            if recipe.activations is not None:
                levels = operators.unpack(packed, ctx.shape, inside is None, kind)
            grad_weight = products.update(for_weight.to(kind), levels.to(kind), weight.shape)
            if step is not None:
                grad_weight = grad_weight.mul_(step)
            grad_weight = grad_weight.to(weight.dtype)
        if need_bias:
            grad_bias = products.bias(delta).to(ctx.bias_dtype)
        return (grad_x, grad_weight, grad_bias, grad_alpha, *[None] * 8)


def _round_weight(weight: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor | None]:
    if recipe.weights is None:
        return weight, None
    levels, _, step = operators.symmetric(weight, None, False, False)
    return levels, step


class EightBitProduct(torch.autograd.Function):
    """A convolution whose operands are 8-bit floats: E4M3, and E5M2 for the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        exponent: Tensor,
        counts: Tensor,
        accumulate: str,
        geometry: Geometry,
        label: str,
        traced: Traced | None,
    ) -> Tensor:
        products = _products(geometry, accumulate)
        codes, unit = operators.eight_bits(x)
        w, w_unit = operators.eight_bits(weight)
        z = products.forward(codes.to(unit.dtype), w.to(unit.dtype)).mul_(unit * w_unit)
        if bias is not None:
            z = products.add(z, bias.to(z.dtype))
        ctx.save_for_backward(codes, unit, weight, exponent, counts)
        ctx.settings = products, label, traced
        ctx.dtypes = x.dtype, None if bias is None else bias.dtype
        return z.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - by the decorator
        ctx: Any, *grads: Tensor
    ) -> Any:
        codes, unit, weight, exponent, counts = ctx.saved_tensors
        products, label, traced = ctx.settings
        x_dtype, bias_dtype = ctx.dtypes
        (delta,) = grads
        rounded = operators.eight_bit_gradient(delta, exponent, counts, label).to(unit.dtype)
        if traced is not None:
            traced.add(delta, rounded, rounded, exponent)
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_x = grad_weight = grad_bias = None
        if need_x:
            w, w_unit = operators.eight_bits(weight)
            grad_x = products.backward(rounded, w.to(unit.dtype), codes.shape).mul_(w_unit)
            grad_x = grad_x.to(x_dtype)
        if need_weight:
            grad_weight = products.update(rounded, codes.to(unit.dtype), weight.shape).mul_(unit)
            grad_weight = grad_weight.to(weight.dtype)
        if need_bias:
            grad_bias = products.bias(delta).to(bias_dtype)
        return (grad_x, grad_weight, grad_bias, *[None] * 6)


class QuantizedLookup(torch.autograd.Function):
    """The rows of an embedding, their weights rounded to INT4 and their gradients to FP4."""

    @staticmethod
    def forward(
        ctx: Any,
        indices: Tensor,
        weight: Tensor,
        padding_idx: int | None,
        exponent: Tensor,
        counts: Tensor,
        recipe: Recipe,
        label: str,
        traced: Traced | None,
    ) -> Tensor:
        ctx.save_for_backward(indices, exponent, counts)
        ctx.settings = recipe, label, traced, padding_idx
        ctx.rows = weight.shape[0]
        levels, step = _round_weight(weight, recipe)
        rows = torch.nn.functional.embedding(indices, levels)
        return (rows if step is None else rows.mul_(step)).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - by the decorator
        ctx: Any, *grads: Tensor
    ) -> Any:
        indices, exponent, counts = ctx.saved_tensors
        recipe, label, traced, padding_idx = ctx.settings
        (delta,) = grads
        for_input, for_weight = round_gradient(delta, recipe, exponent, counts, label)
        if traced is not None:
            traced.add(delta, for_input, for_weight, exponent)
        grad = torch.ops.aten.embedding_dense_backward(
            for_weight.to(delta.dtype), indices, ctx.rows,
            -1 if padding_idx is None else padding_idx, False,
        )  # fmt: skip
        return (None, grad, *[None] * 6)
