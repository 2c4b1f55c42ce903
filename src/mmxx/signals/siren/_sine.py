"""A sine layer as one differentiable function, with the frequency folded into the weights.

Folding replaces a pass over [N, h] phases by one over [h, h] weights. The function keeps the
cosine, which every derivative of a sine layer needs, in place of the phases, so that derivatives
of any order take no further sine or cosine. On a CPU in float32 with one or two threads numba
fuses what is elementwise; elsewhere torch computes the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmxx.nn.linear import linear, outer, product

_FEW_THREADS = 2  # with more, torch's own passes, which use them all, are as fast
_PIECE = 1 << 18  # numbers of which a few such pieces stay in a core's own cache


def sine_layer(inputs: Tensor, weight: Tensor, bias: Tensor, omega: float) -> Tensor:
    """$\\sin(\\omega (W x + b))$, [..., out], of inputs [..., in], W [out, in] and b [out]."""
    if _is_plain(inputs, weight, bias):
        return torch.sin(_wide(_phases(inputs, weight, bias, omega)))
    rows = inputs.reshape(-1, inputs.shape[-1])
    sine = _SineLayer.apply(rows, weight, bias, omega)[0]
    return sine.reshape(*inputs.shape[:-1], len(weight))  # -1 would not do for no rows


def sine_and_cosine_layer(
    inputs: Tensor, weight: Tensor, bias: Tensor, omega: float
) -> tuple[Tensor, Tensor]:
    """Sine and cosine of $\\omega (W x + b)$, each [N, out], of inputs [N, in]."""
    if _is_plain(inputs, weight, bias):
        phases = _wide(_phases(inputs, weight, bias, omega))
        return torch.sin(phases), torch.cos(phases)
    return _SineLayer.apply(inputs, weight, bias, omega)


def _is_plain(inputs: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether torch shall record single operations: no gradient, or a transform that needs it."""
    records = inputs.requires_grad or weight.requires_grad or bias.requires_grad
    return (
        not (torch.is_grad_enabled() and records)
        or torch.is_autocast_enabled(inputs.device.type)
        or torch.compiler.is_compiling()
        # No public name tells whether torch.func (vmap, jvp, hessian) is at work.
        or torch._C._are_functorch_transforms_active()
    )


def _phases(inputs: Tensor, weight: Tensor, bias: Tensor, omega: float) -> Tensor:
    return linear(inputs, omega * weight, omega * bias)


def _wide(phases: Tensor) -> Tensor:
    """Under autocast only the product is of low precision, not the sine."""
    return phases.float() if torch.is_autocast_enabled(phases.device.type) else phases


def _fuses(tensor: Tensor) -> bool:
    return (
        tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and torch.get_num_threads() <= _FEW_THREADS
    )


def _pieces(rows: int, width: int) -> list[slice]:
    """Rows that are worked on together, from product to sine, while they are in the cache."""
    count = max(1, _PIECE // max(1, width))
    return [slice(start, start + count) for start in range(0, rows, count)]


def _sine_and_cosine(
    inputs: Tensor, weight: Tensor, bias: Tensor, omega: float
) -> tuple[Tensor, Tensor]:
    """Sine and cosine of $\\omega (W x + b)$."""
    if not _fuses(inputs):
        phases = _phases(inputs, weight, bias, omega)
        return torch.sin(phases), phases.cos_()
    from mmxx.signals.siren import _fused

    folded, offset = omega * weight, (omega * bias).numpy()
    sine, cosine = (inputs.new_empty(len(inputs), len(weight)) for _ in range(2))
    for piece in _pieces(*sine.shape):
        products = product(inputs[piece], folded)
        if _fused.sine_and_cosine(
            products.numpy(), offset, sine[piece].numpy(), cosine[piece].numpy()
        ):
            phases = _phases(inputs, weight, bias, omega)  # some are too large
            return torch.sin(phases), phases.cos_()
    return sine, cosine


def _gradients(
    to_sine: Tensor, cosine: Tensor, inputs: Tensor, weight: Tensor, *, want_inputs: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """With $g$ the gradient of the phases: $g W$ or None, $g^T x$, and the sums of $g$."""
    if not (_fuses(to_sine) and to_sine.is_contiguous()):
        to_phases = to_sine * cosine
        to_inputs = product(to_phases, weight.t()) if want_inputs else None
        return to_inputs, outer(to_phases, inputs), to_phases.sum(0)
    from mmxx.signals.siren import _fused

    to_inputs = torch.empty_like(inputs) if want_inputs else None
    to_weight, sums = torch.zeros_like(weight), weight.new_zeros(len(weight))
    pieces = _pieces(*cosine.shape)
    spare = torch.empty_like(cosine[: pieces[0].stop]) if pieces else cosine
    for piece in pieces:
        to_phases = spare[: len(cosine[piece])]
        _fused.product_and_sums(
            to_sine[piece].numpy(), cosine[piece].numpy(), to_phases.numpy(), sums.numpy()
        )
        if to_inputs is not None:
            to_inputs[piece] = product(to_phases, weight.t())
        to_weight += outer(to_phases, inputs[piece])
    return to_inputs, to_weight, sums


class _SineLayer(torch.autograd.Function):
    """(inputs [N, in], weight, bias, omega) -> sine and cosine of the phases, [N, out]."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, omega: float
    ) -> tuple[Tensor, Tensor]:
        both = _sine_and_cosine(inputs, weight, bias, omega)
        ctx.omega = omega
        ctx.save_for_backward(inputs, weight, *both)
        ctx.save_for_forward(inputs, weight, *both)
        ctx.set_materialize_grads(False)
        return both

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        to_sine, to_cosine = gradients
        inputs, weight, sine, cosine = ctx.saved_tensors
        want_inputs = ctx.needs_input_grad[0]
        if to_cosine is None:
            if to_sine is None:
                return None, None, None, None
            if not torch.is_grad_enabled():
                to_inputs, to_weight, sums = _gradients(
                    to_sine, cosine, inputs, ctx.omega * weight, want_inputs=want_inputs
                )
                return to_inputs, ctx.omega * to_weight, ctx.omega * sums, None
            to_phases = to_sine * cosine  # a graph of the gradient is wanted: plain operations
        else:
            to_phases = -to_cosine * sine
            if to_sine is not None:
                to_phases = to_phases + to_sine * cosine
        _, to_weight, to_bias, _ = ctx.needs_input_grad
        return (
            linear(to_phases, ctx.omega * weight.t()) if want_inputs else None,
            ctx.omega * linear(to_phases.t(), inputs.t()) if to_weight else None,
            ctx.omega * to_phases.sum(0) if to_bias else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs, weight, bias, _ = grad_inputs
        at, weights, sine, cosine = ctx.saved_tensors
        change = torch.zeros_like(sine)
        if inputs is not None:
            change = change + inputs @ weights.t()
        if weight is not None:
            change = change + at @ weight.t()
        if bias is not None:
            change = change + bias
        change = ctx.omega * change
        return cosine * change, -sine * change
