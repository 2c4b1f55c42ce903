r"""What a layer adds to the tangent kernel, from its inputs and the derivatives of its outputs.

The gradient of output c by the weight of a linear layer is a sum of outer products over the
places t at which the layer acts, $\sum_t \delta_{ct} a_t^\top$. Its inner product with that of
another sample needs the two small factors only: nothing of the size of the weight is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmxx.training.tangent.network import NTKLinear


class Outer(NamedTuple):
    """Gradients that are sums of outer products.

    Attributes:
        names: The weight and, where it is asked for, the bias.
        inputs: a, [N, T, i].
        deltas: δ, [N, C, T, o].
        weight: What a weight's gradient is multiplied by; 0 where it is not asked for.
        bias: The same for the bias, whose input is 1.
    """

    names: tuple[str, ...]
    inputs: Tensor
    deltas: Tensor
    weight: float
    bias: float


class Tokens(NamedTuple):
    """Gradients of rows of a table: outer products with unit vectors.

    Attributes:
        names: The table.
        tokens: Which row, [N, T]; -1 for one that is not trained.
        rows: How many there are.
        deltas: [N, C, T, o].
    """

    names: tuple[str, ...]
    tokens: Tensor
    rows: int
    deltas: Tensor


class Dense(NamedTuple):
    """Gradients written out.

    Attributes:
        names: The parameters, in order.
        jacobian: [N, C, p], all parameters one after the other.
    """

    names: tuple[str, ...]
    jacobian: Tensor


Factor = Outer | Tokens | Dense
Wanted = dict[str, str]  # name in the layer -> name in the model, of what is asked for
Rule = Callable[[Any, Wanted, Tensor, Tensor], Factor]


# -- the rules: layer, what is asked for, input [N, ...], deltas [N, C, ...] -> factor ----------


def _linear(layer: nn.Linear, wanted: Wanted, inputs: Tensor, deltas: Tensor) -> Factor:
    scales = (layer.scale, layer.bias_scale) if isinstance(layer, NTKLinear) else (1.0, 1.0)
    return Outer(
        tuple(wanted.values()),
        inputs.reshape(len(inputs), -1, layer.in_features),
        deltas.reshape(*deltas.shape[:2], -1, layer.out_features),
        scales[0] if "weight" in wanted else 0.0,
        scales[1] if "bias" in wanted else 0.0,
    )


def _convolution(
    layer: nn.Conv1d | nn.Conv2d, wanted: Wanted, inputs: Tensor, deltas: Tensor
) -> Factor:
    if isinstance(layer, nn.Conv1d):  # as a picture one pixel high
        inputs = inputs.unsqueeze(-2)
        kernel, stride, dilation = ((1, *v) for v in _geometry(layer))
    else:
        kernel, stride, dilation = _geometry(layer)
    padded = nn.functional.pad(
        inputs, _padding(layer), "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    )
    columns = nn.functional.unfold(padded, kernel, dilation=dilation, stride=stride)
    columns = columns.transpose(1, 2)  # [N, T, in · kernel]
    deltas = deltas.flatten(3).transpose(2, 3)  # [N, C, T, out]
    names = tuple(wanted.values())
    if layer.groups == 1:
        return Outer(names, columns, deltas, float("weight" in wanted), float("bias" in wanted))
    parts = []
    if "weight" in wanted:  # few weights: each group has its own inputs and outputs
        a = columns.unflatten(2, (layer.groups, -1))
        d = deltas.unflatten(3, (layer.groups, -1))
        parts.append(torch.einsum("nctgo,ntgi->ncgoi", d, a).flatten(2))
    if "bias" in wanted:
        parts.append(deltas.sum(2))
    return Dense(names, torch.cat(parts, 2))


def _geometry(layer: nn.Conv1d | nn.Conv2d) -> tuple[tuple[int, ...], ...]:
    return layer.kernel_size, layer.stride, layer.dilation


def _padding(layer: nn.Conv1d | nn.Conv2d) -> list[int]:
    """Both ends of each axis, the last axis first, as ``pad`` wants them."""
    ends: list[int] = []
    for axis in reversed(range(len(layer.kernel_size))):
        if layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            ends += [total // 2, total - total // 2]
        else:
            ends += [0, 0] if layer.padding == "valid" else [int(layer.padding[axis])] * 2
    return ends


def _embedding(layer: nn.Embedding, wanted: Wanted, inputs: Tensor, deltas: Tensor) -> Factor:
    tokens = inputs.reshape(len(inputs), -1)
    if layer.padding_idx is not None:
        tokens = torch.where(tokens == layer.padding_idx, -1, tokens)
    deltas = deltas.reshape(*deltas.shape[:2], -1, layer.embedding_dim)
    return Tokens(tuple(wanted.values()), tokens, layer.num_embeddings, deltas)


def _layer_norm(layer: nn.LayerNorm, wanted: Wanted, inputs: Tensor, deltas: Tensor) -> Factor:
    normed = nn.functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    size = layer.weight.numel()
    deltas = deltas.reshape(*deltas.shape[:2], -1, size)
    return _elementwise(wanted, normed.reshape(len(normed), 1, -1, size), deltas, 2)


def _batch_norm(layer: nn.BatchNorm2d, wanted: Wanted, inputs: Tensor, deltas: Tensor) -> Factor:
    normed = nn.functional.batch_norm(
        inputs, layer.running_mean, layer.running_var, eps=layer.eps, training=False
    )
    normed = normed.reshape(len(inputs), 1, inputs.shape[1], -1)
    return _elementwise(wanted, normed, deltas.reshape(*deltas.shape[:3], -1), 3)


def _elementwise(wanted: Wanted, normed: Tensor, deltas: Tensor, over: int) -> Factor:
    parts = {"weight": lambda: (deltas * normed).sum(over), "bias": lambda: deltas.sum(over)}
    return Dense(tuple(wanted.values()), torch.cat([parts[name]() for name in wanted], 2))


_RULES: dict[Any, Rule] = {
    nn.Linear.forward: _linear,
    NTKLinear.forward: _linear,
    nn.Conv1d.forward: _convolution,
    nn.Conv2d.forward: _convolution,
    nn.Embedding.forward: _embedding,
    nn.LayerNorm.forward: _layer_norm,
    nn.BatchNorm1d.forward: _batch_norm,  # the three share one forward
}


def rule_of(layer: nn.Module) -> Rule | None:
    """How to get a layer's factor from its input and deltas; None where there is no rule.

    A subclass with a forward of its own has none, nor has a layer whose weight is computed
    from other parameters.
    """
    own = {name for name, parameter in layer.named_parameters(recurse=False)}
    if not own <= {"weight", "bias"} or next(layer.children(), None) is not None:
        return None
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
        return None
    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.sparse):
        return None
    return _RULES.get(type(layer).forward)


def merged(factors: Sequence[Factor]) -> Factor:
    """One factor for all calls of a layer in one run: further places, or a sum."""
    first = factors[0]
    if len(factors) == 1:
        return first
    if isinstance(first, Dense):
        parts = [factor.jacobian for factor in factors if isinstance(factor, Dense)]
        return first._replace(jacobian=torch.stack(parts).sum(0))
    others = [factor for factor in factors if not isinstance(factor, Dense)]
    deltas = torch.cat([factor.deltas for factor in others], 2)
    if isinstance(first, Tokens):
        tokens = [factor.tokens for factor in others if isinstance(factor, Tokens)]
        return first._replace(tokens=torch.cat(tokens, 1), deltas=deltas)
    inputs = [factor.inputs for factor in others if isinstance(factor, Outer)]
    return first._replace(inputs=torch.cat(inputs, 1), deltas=deltas)
