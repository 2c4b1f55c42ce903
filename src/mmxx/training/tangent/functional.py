"""A model as a function of its parameters, and what must hold for it to have a tangent kernel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

Params = dict[str, Tensor]


def chosen(model: nn.Module, params: Mapping[str, Tensor] | None) -> Params:
    """The parameters to differentiate by, and their values, detached.

    Args:
        model: Any module.
        params: Values by name; the names decide which parameters are meant. By default all
            that require a gradient, as they are.

    Raises:
        ValueError: A name is unknown, a shape is another, or there is none.
    """
    own = dict(model.named_parameters())
    if params is None:
        params = {name: value for name, value in own.items() if value.requires_grad}
    if not params:
        raise ValueError("params: the model has no parameter that requires a gradient")
    for name, value in params.items():
        if name not in own:
            raise ValueError(f"params: the model has no parameter {name!r}; it has {sorted(own)}")
        if value.shape != own[name].shape:
            raise ValueError(
                f"params[{name!r}] must have shape {tuple(own[name].shape)}, got "
                f"{tuple(value.shape)}"
            )
    return {name: value.detach() for name, value in params.items()}


def check_model(model: nn.Module) -> None:
    """Refuse a model of which the outputs are no function of sample and parameters alone.

    Raises:
        ValueError: A batch normalisation or dropout is in training mode.
    """
    for name, part in model.named_modules():
        if not part.training:
            continue
        what = None
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            what = "batch normalisation is in training mode: a sample's output depends on others"
        elif _chance(part) > 0:
            what = "dropout is active: the output is random"
        if what:
            raise ValueError(f"model: {name or type(part).__name__}: {what}. Call model.eval()")


def _chance(part: nn.Module) -> float:
    """Of an element to be dropped."""
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.p
    return part.dropout if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)) else 0.0


def check_input(model: nn.Module, name: str, x: Tensor, like: Tensor) -> None:
    """Refuse inputs that the model cannot be differentiated at.

    Raises:
        TypeError: Not a tensor.
        ValueError: No samples axis, integers for a model without embedding, or another dtype or
            device than the parameters.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor [N, ...], got {type(x).__name__}")
    if x.ndim < 1:
        raise ValueError(f"{name} must be [N, ...], got a number")
    if x.device != like.device:
        raise ValueError(f"{name} is on {x.device}, the parameters are on {like.device}")
    if x.is_floating_point():
        if x.dtype != like.dtype:
            raise ValueError(f"{name} must be {like.dtype} as the parameters, got {x.dtype}")
    elif not any(isinstance(part, nn.Embedding) for part in model.modules()):
        raise ValueError(
            f"{name} must be floats, got {x.dtype}; integers are for models with an nn.Embedding"
        )


def check_output(out: object, samples: int) -> Tensor:
    """The model's output as [N, C].

    Raises:
        ValueError: It is not a tensor [N] or [N, C].
    """
    if not isinstance(out, Tensor) or out.ndim not in (1, 2) or len(out) != samples:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"model must return [N] or [N, C] for N samples, got {shape} for {samples}"
        )
    return out[:, None] if out.ndim == 1 else out


@cache
def load_forward_mode() -> None:
    """Let torch load its rules for derivatives forward, and keep its warning of itself quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        one = torch.ones(1)
        jvp(torch.sin, (one,), (one,))


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by operations that can be differentiated forward and in batches."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def of_sample(model: nn.Module) -> Callable[[Params, Tensor], Tensor]:
    """``f(params, x)`` for one sample without its axis: the outputs [C]."""

    def call(params: Params, x: Tensor) -> Tensor:
        with plain_attention():
            return check_output(functional_call(model, params, (x[None],)), 1)[0]

    return call


def of_samples(model: nn.Module, x: Tensor) -> Callable[[Params], Tensor]:
    """``f(params)``: the outputs [N, C] at fixed samples."""

    def call(params: Params) -> Tensor:
        with plain_attention():
            return check_output(functional_call(model, params, (x,)), len(x))

    return call


def check_bytes(what: str, elements: int, like: Tensor, advice: str) -> None:
    """Refuse what does not fit into memory, before anything is computed.

    Raises:
        MemoryError: It needs more than the machine, or the GPU, has; the message says how much.
    """
    size = elements * like.element_size()
    if like.device.type == "cuda":
        there = torch.cuda.get_device_properties(like.device).total_memory
    elif hasattr(os, "sysconf"):
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        return
    if size > there:
        raise MemoryError(
            f"{what} takes {size / 2**30:,.1f} GiB, there are {there / 2**30:,.1f} GiB. {advice}"
        )
