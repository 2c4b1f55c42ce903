"""The factors of all layers, from one run of a model forward and one back for each output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmxx.training.tangent.functional import Params, check_output
from mmxx.training.tangent.layers import Dense, Factor, Outer, Tokens, Wanted, merged, rule_of


@torch.enable_grad()
def capture(model: nn.Module, values: Params, x: Tensor) -> tuple[list[Factor], Params]:
    """The factors of the layers that have a rule, and the parameters that lie in none.

    One run forward, one back for each output, and one to check against.

    Raises:
        RuntimeError: A factor disagrees with the gradient of the model.
        ValueError: An input of a layer is changed in place after it.
    """
    live = {name: value.detach().requires_grad_() for name, value in values.items()}
    calls: dict[nn.Module, list[tuple[Tensor, int, Tensor]]] = {}

    def keep(layer: nn.Module, args: tuple[Any, ...], result: Tensor) -> Tensor:
        calls.setdefault(layer, []).append((args[0].detach(), args[0]._version, result))
        return result.clone()  # so that an activation that works in place leaves it as it was

    owners = _owners(model, values)
    handles = [layer.register_forward_hook(keep) for layer in owners]
    try:
        f = check_output(functional_call(model, live, (x,)), len(x))
    finally:
        for handle in handles:
            handle.remove()
    calls = {layer: c for layer, c in calls.items() if all(len(a) == len(x) for a, _, _ in c)}
    _check_in_place(model, calls)
    results = [result for some in calls.values() for _, _, result in some]
    deltas = iter(_deltas(f, results))
    factors = []
    for layer, some in calls.items():
        rule = rule_of(layer)
        assert rule is not None
        found = [rule(layer, owners[layer], inputs, next(deltas)) for inputs, _, _ in some]
        factors.append(merged(found))
    _check_factors(f, live, factors)
    covered = {name for factor in factors for name in factor.names}
    return factors, {name: value for name, value in values.items() if name not in covered}


def _owners(model: nn.Module, values: Params) -> dict[nn.Module, Wanted]:
    """The layers with a rule, and which of their parameters are asked for."""
    places: dict[int, int] = {}
    for part in model.modules():
        for value in part._parameters.values():
            places[id(value)] = places.get(id(value), 0) + 1
    owners: dict[nn.Module, Wanted] = {}
    for prefix, part in model.named_modules():
        wanted = {
            name: full
            for name, value in part._parameters.items()
            if (full := f"{prefix}.{name}" if prefix else name) in values
            and places[id(value)] == 1  # tied to another layer: its gradient is not of one alone
        }
        if wanted and rule_of(part) is not None:
            owners[part] = wanted
    return owners


def _deltas(f: Tensor, results: list[Tensor]) -> list[Tensor]:
    """The derivatives of the outputs by what layers return, [N, C, ...] each."""
    found = [result.new_empty(len(f), f.shape[1], *result.shape[1:]) for result in results]
    for c in range(f.shape[1] if results else 0):
        # Samples do not depend on one another, so that the sum has the derivatives of each.
        parts = torch.autograd.grad(
            f[:, c].sum(), results, retain_graph=True, materialize_grads=True
        )
        for whole, part in zip(found, parts, strict=True):
            whole[:, c] = part
    return found


def _check_in_place(
    model: nn.Module, calls: Mapping[nn.Module, list[tuple[Tensor, int, Tensor]]]
) -> None:
    names = {part: name for name, part in model.named_modules()}
    for layer, some in calls.items():
        if any(inputs._version != version for inputs, version, _ in some):
            raise ValueError(
                f"model: the input of {names[layer] or type(layer).__name__} is changed in place "
                "after it; use an operation that makes a new tensor"
            )


def _check_factors(f: Tensor, live: Params, factors: list[Factor]) -> None:
    """Compare with the gradient of a mixture of all outputs, layer by layer.

    Of the very same run: where an output is saturated, another would be rounded differently.
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(f.shape, generator=generator).to(f)
    found = torch.autograd.grad((weights * f).sum(), list(live.values()), materialize_grads=True)
    true = dict(zip(live, found, strict=True))
    norms = {name: float(part.norm()) for name, part in true.items()}
    total = math.hypot(*norms.values())
    tolerance = math.sqrt(torch.finfo(f.dtype).eps)
    for factor in factors:
        gradients = [true[name] for name in factor.names]
        error = _distance(factor, weights, gradients, generator)
        size = math.hypot(*(norms[name] for name in factor.names))
        if error > tolerance * max(size, 1e-3 * total):
            raise RuntimeError(
                f"the derivatives by {', '.join(factor.names)} are not those of its layer alone: "
                "it is used outside of it, the samples of a batch depend on one another, or the "
                "output is random. Use method='jacobian' in the first case; in the others there "
                "is no tangent kernel"
            )


def _distance(
    factor: Factor, weights: Tensor, gradients: Sequence[Tensor], generator: torch.Generator
) -> float:
    """How far a factor's gradient of ``(weights * outputs).sum()`` is from that of its parameters.

    Of a layer's weight both are multiplied with a random vector, which keeps the length of their
    difference on average: nothing is made that is as large as the weight.
    """
    match factor:
        case Dense(_, jacobian):
            found = torch.einsum("nc,ncp->p", weights, jacobian)
            parts = found.split([part.numel() for part in gradients])
            left = [part.flatten() - own for part, own in zip(gradients, parts, strict=True)]
        case Tokens(_, tokens, rows, deltas):
            mixed = torch.einsum("nc,ncto->nto", weights, deltas)
            table = mixed.new_zeros(rows + 1, mixed.shape[-1])  # the last row takes the -1
            table.index_add_(0, tokens.flatten() % (rows + 1), mixed.flatten(0, 1))
            left = [gradients[0] - table[:rows]]
        case Outer(_, inputs, deltas, weight, bias):
            mixed = torch.einsum("nc,ncto->nto", weights, deltas).flatten(0, 1)
            left = [gradients[-1] - bias * mixed.sum(0)] if bias else []
            if weight:
                direction = torch.randn(inputs.shape[2], generator=generator).to(inputs)
                seen = mixed.T @ (inputs.flatten(0, 1) @ direction)
                left.append(gradients[0].flatten(1) @ direction - weight * seen)
    return math.hypot(*(float(part.norm()) for part in left))
