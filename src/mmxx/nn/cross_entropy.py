"""Cross-entropy of a linear head that never holds all its logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmxx.nn.linear import outer, product

_ELEMENTS = 1 << 21  # logits held at a time
_ROWS = 256  # at least: each piece reads and writes the head's whole gradient


def head_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    z_loss: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of the logits ``x @ weight.T``, computed a few rows at a time.

    The gradients are computed in the same pass, so that the [N, V] logits never exist; second
    derivatives are not available.

    Args:
        x: What the head sees, shape [N, d].
        weight: The head, shape [V, d].
        targets: The right classes, integers of shape [N].
        weights: How much each row counts, shape [N]; by default all count the same.
        z_loss: This times the mean of log²Z, Z the sum of the exponentials, is added
            (Chowdhery et al. 2022, section 5).

    Returns:
        The loss in nats, a scalar of at least single precision. With weights that are all 0 it
        is 0.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _HeadCrossEntropy.apply(x, weight, targets, weights, z_loss)  # pyright: ignore[reportReturnType]


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None, z_loss: float
    ) -> Tensor:
        head = weight.to(x.dtype)
        exact = torch.promote_types(x.dtype, torch.float32)
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = None
        loss = x.new_zeros((), dtype=exact)
        rows = min(max(_ROWS, _ELEMENTS // len(weight)), len(x))
        # all pieces share this memory: fresh pages cost more than a pass over them
        shared = x.new_empty(rows, len(weight), dtype=exact)
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), rows):
                part = slice(start, start + rows)
                piece, target = x[part], targets[part, None]
                logits, grad = product(piece, head), shared[: len(piece)]
                # log Z by the likeliest class: two cheap passes where logsumexp needs many
                torch.softmax(logits, 1, dtype=exact, out=grad)
                log_z = logits.amax(1, keepdim=True).to(exact) - grad.amax(1, keepdim=True).log()
                lost = log_z - logits.gather(1, target).to(exact)
                if z_loss:
                    lost = lost + z_loss * log_z.square()
                counts = None if weights is None else weights[part, None].to(exact)
                loss += lost.sum() if counts is None else (lost * counts).sum()
                if not (needs_x or needs_weight):
                    continue
                if z_loss:
                    grad *= 1 + 2 * z_loss * log_z
                grad.scatter_add_(1, target, torch.full_like(lost, -1.0))
                grad = (grad if counts is None else grad.mul_(counts)).to(x.dtype)
                if grad_x is not None:
                    grad_x[part] = product(grad, head.T)
                if needs_weight:
                    found = outer(grad, piece).to(exact)
                    grad_weight = found if grad_weight is None else grad_weight.add_(found)
        total = loss.new_tensor(len(x)) if weights is None else weights.sum().to(exact)
        share = 1 / total.clamp(min=torch.finfo(exact).tiny)
        ctx.save_for_backward(grad_x, grad_weight, share)
        ctx.dtype = weight.dtype
        return loss * share

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight, share = ctx.saved_tensors
        scale = grads[0] * share  # only here: in half precision a share alone may vanish
        return (
            None if grad_x is None else grad_x * scale.to(grad_x.dtype),
            None if grad_weight is None else (grad_weight * scale).to(ctx.dtype),
            None,
            None,
            None,
        )
