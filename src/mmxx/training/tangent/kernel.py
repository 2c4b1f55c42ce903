r"""The tangent kernel of any network, $K(x, z) = \nabla f(x) \nabla f(z)^\top$."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from mmxx.training.tangent import layers, products
from mmxx.training.tangent.factors import capture
from mmxx.training.tangent.functional import (
    Params,
    check_bytes,
    check_input,
    check_model,
    check_output,
    chosen,
    load_forward_mode,
    of_sample,
    of_samples,
)

Method = Literal["auto", "structured", "jacobian", "ntvp"]
METHODS = ("auto", "structured", "jacobian", "ntvp")
_COLUMNS = 64  # of the kernel that "ntvp" computes at once


def ntk(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    params: Mapping[str, Tensor] | None = None,
    trace: bool = False,
    diagonal: bool = False,
    batch: int | None = None,
    method: Method = "auto",
    out: Any = None,
    map: Callable[..., Any] = builtins.map,
) -> Tensor:
    r"""The empirical neural tangent kernel of a model.

    Args:
        model: Returns [N] or [N, C] for N samples, each from its sample alone.
        x1: Samples [N1, ...], of the dtype of the parameters; integers for models with an
            ``nn.Embedding``.
        x2: Samples [N2, ...]; x1 by default.
        params: Values of the parameters by name. Only those named are differentiated by; the
            others stay as the model has them. By default all that require a gradient.
        trace: The mean over outputs c of $K_{cc}$ in place of all pairs of outputs.
        diagonal: Only the kernel of each sample of x1 with itself.
        batch: Samples in a block; by default all at once. Blocks below the diagonal are not
            computed where x2 is x1.
        method: "structured": from the inputs of each layer and the derivatives of its
            outputs, which needs memory for N · C · (all widths), for Linear, NTKLinear, Conv1d,
            Conv2d, Embedding, LayerNorm and BatchNorm. "jacobian": from N · C · (all
            parameters) derivatives. "ntvp": column by column from products, without either.
            "auto": structured, with the Jacobian of only those parameters that lie in no such
            layer.
        out: A tensor or array (of ``numpy.memmap``, too) of the result's shape, that is filled
            and returned as a tensor.
        map: What to spread rows of blocks with, called as ``map(fn, tasks)``.

    Returns:
        [N1, N2, C, C], or [N1, N2] for a model that returns [N] and with ``trace``. With
        ``diagonal`` [N1, C, C], or [N1].

    Raises:
        TypeError, ValueError: An argument that is out of range; a model in training mode; with
            "structured" a parameter that lies in no layer it knows.
        MemoryError: The kernel, or with "jacobian" the Jacobian, does not fit; it says how large
            it would be.
        RuntimeError: A layer's part disagrees with a gradient of the whole model, which is
            computed beside it: the samples of a batch depend on one another, or a parameter is
            used outside of its layer.

    Source: the paper's equation 1; the products per layer: Novak, Sohl-Dickstein and Schoenholz,
        *Fast Finite Width Neural Tangent Kernel* (2022).

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> x = torch.eye(4)
        >>> ntk(net, x).shape, ntk(net, x, x[:3], trace=True).shape
        (torch.Size([4, 4, 2, 2]), torch.Size([4, 3]))
        >>> head = {name: p for name, p in net.named_parameters() if name.startswith("2")}
        >>> ntk(net, x, params=head, trace=True, diagonal=True).shape
        torch.Size([4])
    """
    values = chosen(model, params)
    like = next(iter(values.values()))
    _check_arguments(model, x1, x2, like, diagonal, batch, method)
    shape_of_one = _shape_of_one(model, values, x1)
    single = trace or not shape_of_one
    outputs = shape_of_one[0] if shape_of_one else 1
    task = _Task(model, values, x1, x2, outputs, single, method, batch or len(x1))
    n1, n2 = len(x1), len(x1 if x2 is None else x2)
    shape = ((n1,) if diagonal else (n1, n2)) + (() if single else (outputs, outputs))
    if out is None:
        advice = "Give out= a memory-mapped array and a batch, or use trace=True"
        check_bytes("the kernel", math.prod(shape), like, advice)
    if out is None and not diagonal and task.batch >= max(n1, n2):
        return next(iter(map(_strip, [(task, 0)])))
    kernel = _buffer(out, shape, like)
    rows = [(task, start) for start in range(0, n1, task.batch)]
    if diagonal:
        for (_, start), found in zip(rows, map(_own, rows), strict=True):
            kernel[start : start + task.batch] = found
        return kernel
    for (_, start), found in zip(rows, map(_strip, rows), strict=True):
        stop = start + len(found)
        kernel[start:stop, start if x2 is None else 0 :] = found
        if x2 is None:  # what lies below the diagonal is the mirror image
            beyond = found[:, len(found) :].transpose(0, 1)
            kernel[stop:, start:stop] = beyond if single else beyond.mT
    return kernel


def jacobian(
    model: nn.Module, x: Tensor, *, params: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The derivatives of every output by every parameter.

    Args:
        model: Returns [N] or [N, C] for N samples.
        x: Samples [N, ...].
        params: Values by name, as in `ntk`.

    Returns:
        For each parameter its shape behind [N, C].

    Raises:
        TypeError, ValueError: As in `ntk`.
        MemoryError: It does not fit; the message says how large it would be.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> {name: tuple(part.shape) for name, part in jacobian(net, torch.ones(5, 3)).items()}
        {'weight': (5, 2, 2, 3), 'bias': (5, 2, 2)}
    """
    values = chosen(model, params)
    like = next(iter(values.values()))
    _check_arguments(model, x, None, like, False, None, "jacobian")
    outputs = (*_shape_of_one(model, values, x), 1)[0]
    return _derivatives(model, values, x, outputs)


# -- blocks ------------------------------------------------------------------------------------


class _Task(NamedTuple):
    """What a worker needs to compute a row of blocks."""

    model: nn.Module
    values: Params
    x1: Tensor
    x2: Tensor | None
    outputs: int
    single: bool
    method: Method
    batch: int


@torch.no_grad()
def _strip(item: tuple[_Task, int]) -> Tensor:
    """A row of blocks, [B, M, C, C] or [B, M]; from the diagonal on where x2 is x1."""
    task, start = item
    rows = task.x1[start : start + task.batch]
    others = rows if task.x2 is None else task.x2[: task.batch]
    own = _factors(task, rows)
    blocks = [_block(task, rows, own, others, own if task.x2 is None else _factors(task, others))]
    rest = task.x1[start + task.batch :] if task.x2 is None else task.x2[task.batch :]
    parts = rest.split(task.batch) if len(rest) else ()
    blocks += [_block(task, rows, own, part, _factors(task, part)) for part in parts]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)


def _block(
    task: _Task,
    rows: Tensor,
    own: list[layers.Factor],
    others: Tensor,
    theirs: list[layers.Factor],
) -> Tensor:
    """A block of the kernel, [B, M, C, C] or [B, M]."""
    c = task.outputs
    shape = (len(rows), len(others)) if task.single else (len(rows), c, len(others), c)
    block = next(iter(task.values.values())).new_zeros(shape)
    if task.method == "ntvp":
        _add_products(task, rows, others, block)
    else:
        add = products.add_trace if task.single else products.add_full
        for one, other in zip(own, theirs, strict=True):
            add(block, one, other)
        if own is theirs:
            products.mirror(block)
    return block / c if task.single else block.transpose(1, 2)


@torch.no_grad()
def _own(item: tuple[_Task, int]) -> Tensor:
    """The kernel of each sample of a block with itself, [B, C, C] or [B]."""
    task, start = item
    rows = task.x1[start : start + task.batch]
    if task.method == "ntvp":
        found = [_strip((task._replace(x1=row[None], x2=None, batch=1), 0)) for row in rows]
        return torch.stack([block[0, 0] for block in found])
    block = next(iter(task.values.values())).new_zeros(len(rows), *[task.outputs] * 2)
    for factor in _factors(task, rows):
        products.add_diagonal(block, factor)
    return block.diagonal(dim1=1, dim2=2).mean(1) if task.single else block


def _factors(task: _Task, x: Tensor) -> list[layers.Factor]:
    if task.method == "ntvp":
        return []
    if task.method == "jacobian":
        return [_dense(task.model, task.values, x, task.outputs)]
    covered, rest = capture(task.model, task.values, x)
    if rest and task.method == "structured":
        raise ValueError(
            f"method 'structured' has no rule for {', '.join(sorted(rest))}; use 'auto'"
        )
    return [*covered, *([_dense(task.model, rest, x, task.outputs, task.values)] if rest else [])]


def _dense(
    model: nn.Module, values: Params, x: Tensor, outputs: int, others: Params | None = None
) -> layers.Dense:
    found = _derivatives(model, values, x, outputs, others)
    return layers.Dense(tuple(found), torch.cat([part.flatten(2) for part in found.values()], 2))


@torch.no_grad()
def _derivatives(
    model: nn.Module, values: Params, x: Tensor, outputs: int, others: Params | None = None
) -> Params:
    """The derivatives by some parameters, others at given values, [N, C, *shape] each."""
    like = next(iter(values.values()))
    elements = len(x) * outputs * sum(value.numel() for value in values.values())
    check_bytes("the Jacobian", elements, like, "Use a smaller batch, or method='ntvp'")
    call = of_sample(model)
    fixed = dict(others or {})
    of_values = jacrev(lambda some, sample: call({**fixed, **some}, sample))
    return vmap(of_values, in_dims=(None, 0), randomness="error")(values, x)


def _add_products(task: _Task, rows: Tensor, others: Tensor, block: Tensor) -> None:
    """Add a block of the kernel, column by column: a product with J of one with Jᵀ."""
    load_forward_mode()
    left, right = of_samples(task.model, rows), of_samples(task.model, others)
    pull = vjp(right, task.values)[1]

    def column(direction: Tensor) -> Tensor:
        return jvp(left, (task.values,), pull(direction))[1]

    c, n = task.outputs, len(others)
    for start in range(0, n * c, _COLUMNS):
        chosen_columns = range(start, min(start + _COLUMNS, n * c))
        units = torch.eye(n * c, dtype=block.dtype, device=block.device)[list(chosen_columns)]
        found = vmap(column)(units.view(-1, n, c))  # [columns, N1, C]
        if task.single:
            for row, k in zip(found, chosen_columns, strict=True):
                block[:, k // c] += row[:, k % c]
        else:
            block.flatten(2)[:, :, list(chosen_columns)] = found.permute(1, 2, 0)


# -- arguments ---------------------------------------------------------------------------------


def _check_arguments(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None,
    like: Tensor,
    diagonal: bool,
    batch: int | None,
    method: str,
) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be 1 or more, got {batch}")
    if diagonal and x2 is not None:
        raise ValueError("diagonal=True is for one set of samples; leave x2 out")
    check_model(model)
    for name, x in (("x1", x1), ("x2", x2)):
        if x is None:
            continue
        check_input(model, name, x, like)
        if not len(x):
            raise ValueError(f"{name} has no sample")


def _shape_of_one(model: nn.Module, values: Params, x: Tensor) -> tuple[int, ...]:
    """The shape of the output for one sample: (C,) or ()."""
    with torch.no_grad():
        out = functional_call(model, values, (x[:1],))
    check_output(out, 1)
    return tuple(out.shape[1:])


def _buffer(out: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if out is None:
        return like.new_empty(shape)
    kernel = torch.from_numpy(out) if isinstance(out, np.ndarray) else out
    if not isinstance(kernel, Tensor) or tuple(kernel.shape) != shape:
        given = tuple(kernel.shape) if isinstance(kernel, Tensor) else type(out).__name__
        raise ValueError(f"out must be a tensor or array of shape {shape}, got {given}")
    return kernel
