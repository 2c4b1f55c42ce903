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

_FEW_THREADS = 2  # with more, torch's own passes, which use them all, are as fast


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
    return torch.nn.functional.linear(inputs, omega * weight, omega * bias)


def _wide(phases: Tensor) -> Tensor:
    """Under autocast only the product is of low precision, not the sine."""
    return phases.float() if torch.is_autocast_enabled(phases.device.type) else phases


def _fuses(tensor: Tensor) -> bool:
    return (
        tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and torch.get_num_threads() <= _FEW_THREADS
    )


def _sine_and_cosine(phases: Tensor) -> tuple[Tensor, Tensor] | None:
    """Sine and cosine, the latter in the memory of the phases; None if these are too large."""
    if not _fuses(phases):
        return torch.sin(phases), phases.cos_()
    from mmxx.signals.siren import _fused

    sine = torch.empty_like(phases)
    beyond = _fused.sine_and_cosine(phases.numpy().reshape(-1), sine.numpy().reshape(-1))
    return None if beyond else (sine, phases)


def _product_and_sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``a * b`` [N, h] and its sums over rows, [h]."""
    if not (_fuses(a) and a.is_contiguous()):
        product = a * b
        return product, product.sum(0)
    from mmxx.signals.siren import _fused

    product, sums = torch.empty_like(b), torch.empty_like(b[0])
    _fused.product_and_sums(a.numpy(), b.numpy(), product.numpy(), sums.numpy())
    return product, sums


class _SineLayer(torch.autograd.Function):
    """(inputs [N, in], weight, bias, omega) -> sine and cosine of the phases, [N, out]."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, omega: float
    ) -> tuple[Tensor, Tensor]:
        both = _sine_and_cosine(_phases(inputs, weight, bias, omega))
        if both is None:
            phases = _phases(inputs, weight, bias, omega)
            both = torch.sin(phases), phases.cos_()
        ctx.omega = omega
        ctx.save_for_backward(inputs, weight, *both)
        ctx.save_for_forward(inputs, weight, *both)
        ctx.set_materialize_grads(False)
        return both

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        to_sine, to_cosine = gradients
        inputs, weight, sine, cosine = ctx.saved_tensors
        if to_cosine is None:
            if to_sine is None:
                return None, None, None, None
            if torch.is_grad_enabled():  # a graph of the gradient is wanted: plain operations
                to_phases = to_sine * cosine
                sums = to_phases.sum(0)
            else:
                to_phases, sums = _product_and_sums(to_sine, cosine)
        else:
            to_phases = -to_cosine * sine
            if to_sine is not None:
                to_phases = to_phases + to_sine * cosine
            sums = to_phases.sum(0)
        to_inputs, to_weight, to_bias, _ = ctx.needs_input_grad
        return (
            to_phases @ (ctx.omega * weight) if to_inputs else None,
            ctx.omega * (to_phases.t() @ inputs) if to_weight else None,
            ctx.omega * sums if to_bias else None,
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
