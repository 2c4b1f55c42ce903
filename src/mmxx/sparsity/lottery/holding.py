"""Training inside a mask: what is dropped stays exactly 0 under any optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from mmxx.sparsity._common import Masks


@njit(cache=True, nogil=True)
def _zero_others(values, kept):
    zero = values.dtype.type(0)
    for i in range(values.size):
        values[i] = values[i] if kept[i] else zero


def _keep(values: Tensor, kept: Tensor) -> None:
    """Set all but the kept to 0, in place: as a product with the mask, which is read in bytes."""
    plain = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    if plain and values.is_contiguous() and not values.requires_grad:
        _zero_others(values.numpy().reshape(-1), kept.numpy().reshape(-1))
    else:
        values.mul_(kept)


@contextmanager
def hold(model: nn.Module, masks: Masks) -> Iterator[dict[Tensor, Tensor]]:
    """Within, the dropped weights of a network are 0 and get no gradient.

    They are set to 0, and the gradient is masked as soon as it is there, so that neither momentum
    nor weight decay moves them: the step of SGD, Adam, AdamW and their like is 0 where weight,
    gradient and state are 0. Nothing is recomputed and the parameters stay what they are, so that
    optimizers, copies and ``state_dict`` work as before.

    Args:
        model: The network, changed in place.
        masks: What is kept.

    Yields:
        For each parameter that is held its mask, a bool tensor. Layers that keep everything are
        left out.

    Raises:
        ValueError: The masks are for another network.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        >>> with hold(net, Masks({"weight": torch.eye(2, 3) > 0})):
        ...     net(torch.ones(1, 3)).sum().backward()
        ...     optimizer.step()
        >>> int((net.weight != 0).sum())
        2
    """
    parameters = masks.validate(model)
    masks.apply(model)
    held: dict[Tensor, Tensor] = {}
    for name, parameter in parameters.items():
        if not bool(masks[name].all()):
            held[parameter] = masks[name].to(parameter.device).contiguous()

    def mask_gradient(parameter: Tensor) -> None:
        if parameter.grad is not None:
            if held[parameter].device != parameter.device:  # the network has moved in between
                held[parameter] = held[parameter].to(parameter.device)
            _keep(parameter.grad, held[parameter])

    handles = [p.register_post_accumulate_grad_hook(mask_gradient) for p in held]
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def mask_state(optimizer: torch.optim.Optimizer, held: dict[Tensor, Tensor]) -> None:
    """Set an optimizer's state of dropped weights to 0: momentum of an earlier training.

    Args:
        optimizer: Changed in place; whatever has its parameter's shape is masked.
        held: As `hold` yields it.
    """
    for parameter, mask in held.items():
        state: dict[str, Any] = optimizer.state.get(parameter, {})
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                value.mul_(mask.to(value.device))


def moved(model: nn.Module, masks: Masks) -> list[str]:
    """The names of parameters in which a dropped weight is not 0."""
    return [
        name
        for name, parameter in masks.validate(model).items()
        if bool(((parameter != 0) & ~parameter.isnan() & ~masks[name].to(parameter.device)).any())
    ]
