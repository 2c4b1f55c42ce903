"""Drawing a network's parameters anew, as its layers draw them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.sparsity.lottery.replicas import Replicas


def reset_parameters(model: nn.Module) -> None:
    """Let every layer draw its parameters and clear its statistics, from torch's generator.

    Raises:
        ValueError: A parameter belongs to no layer that can draw it.
    """
    left = _reset(model, "")
    if left:
        raise ValueError(
            f"no layer can draw {', '.join(left)} anew (it has no reset_parameters): give init, a "
            "function that initialises a network in place"
        )


def _reset(module: nn.Module, prefix: str) -> list[str]:
    """Reset from the top down; returns the names of parameters that nobody draws."""
    own = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    left = []
    if callable(own):
        own()
    else:
        left = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        left += _reset(child, f"{prefix}{name}.")
    return left


def redrawn(
    model: nn.Module, seed: int, init: Callable[[nn.Module], Any] | None = None
) -> nn.Module:
    """A copy of a network with its parameters drawn anew.

    Args:
        model: The network; it is not changed.
        seed: Of the draw; torch's default generator is given back.
        init: Initialises a network in place; by default the ``reset_parameters`` of its layers.

    Raises:
        ValueError: There is no ``init``, and a parameter belongs to no layer that can draw it.
    """
    twin = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw = init or reset_parameters
        if isinstance(twin, Replicas):
            twin.for_each(draw)
        else:
            draw(twin)
    return twin


@torch.no_grad()
def with_signs(drawn: nn.Module, like: dict[str, Tensor], names: list[str]) -> None:
    """Give the named parameters of a network the signs of others, in place."""
    parameters = dict(drawn.named_parameters())
    for name in names:
        parameters[name].copy_(parameters[name].abs() * like[name].sign())
