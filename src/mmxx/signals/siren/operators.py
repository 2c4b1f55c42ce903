"""Derivatives of a field by its coordinates.

Two ways. `gradient`, `divergence`, `laplacian`, `jacobian` and `hessian` differentiate any
output by autograd and can be nested. The functions whose name begins with ``value`` take a
network and coordinates: for a `Siren` they compute the derivatives as the network that they are
(the derivative of a SIREN is a SIREN, section 3.1), by one reverse or one forward sweep of
ordinary operations; a loss of them needs one backward pass, and no graph of a graph. For any
other module they fall back on autograd.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmxx.nn.linear import linear
from mmxx.signals.siren.siren import SineLayer, Siren

Second = Literal["laplacian", "diagonal", "hessian"]


def _check(values: Tensor, coords: Tensor, single: bool = False) -> None:
    if not coords.requires_grad:
        raise ValueError("coords must have requires_grad=True before the values are computed")
    if values.ndim != 2 or coords.ndim != 2 or len(values) != len(coords):
        raise ValueError(
            f"values [N, c] and coords [N, d] must have equal N, got {tuple(values.shape)} and "
            f"{tuple(coords.shape)}"
        )
    if single and values.shape[1] != 1:
        raise ValueError(
            f"values must be [N, 1], got {tuple(values.shape)}; for more values use jacobian"
        )


def _grad(values: Tensor, coords: Tensor) -> Tensor:
    """Derivative of the sum of values [N] by coords [N, d]; zeros where it does not depend."""
    if not values.requires_grad:
        return torch.zeros_like(coords)
    ones = torch.ones_like(values)
    return torch.autograd.grad(
        values, coords, ones, create_graph=True, allow_unused=True, materialize_grads=True
    )[0]


def gradient(values: Tensor, coords: Tensor) -> Tensor:
    """Gradient of a scalar field by autograd.

    Args:
        values: [N, 1], computed from ``coords`` point by point.
        coords: [N, d], with ``requires_grad``.

    Returns:
        [N, d], differentiable again.

    Raises:
        ValueError: If the shapes do not fit or ``coords`` does not require a gradient.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> gradient((x**2).sum(1, keepdim=True), x).tolist()
        [[2.0, 4.0]]
    """
    _check(values, coords, single=True)
    return _grad(values[:, 0], coords)


def divergence(values: Tensor, coords: Tensor) -> Tensor:
    """Divergence of a vector field by autograd: [N, 1] of values [N, d] at coords [N, d].

    Args:
        values: [N, d], computed from ``coords`` point by point.
        coords: [N, d], with ``requires_grad``.

    Raises:
        ValueError: If the shapes do not fit or ``coords`` does not require a gradient.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> divergence(x**2, x).tolist()
        [[6.0]]
    """
    _check(values, coords)
    if values.shape != coords.shape:
        raise ValueError(
            f"values must have the shape of coords, {tuple(coords.shape)}, got "
            f"{tuple(values.shape)}"
        )
    parts = [_grad(values[:, i], coords)[:, i] for i in range(coords.shape[1])]
    return torch.stack(parts).sum(0)[:, None]


def laplacian(values: Tensor, coords: Tensor) -> Tensor:
    """Laplacian of a scalar field by autograd: [N, 1] of values [N, 1] at coords [N, d].

    Args:
        values: [N, 1], computed from ``coords`` point by point.
        coords: [N, d], with ``requires_grad``.

    Raises:
        ValueError: If the shapes do not fit or ``coords`` does not require a gradient.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> laplacian((x**2).sum(1, keepdim=True), x).tolist()
        [[4.0]]
    """
    return divergence(gradient(values, coords), coords)


def jacobian(values: Tensor, coords: Tensor) -> Tensor:
    """Jacobian by autograd: [N, c, d] of values [N, c] at coords [N, d].

    Args:
        values: [N, c], computed from ``coords`` point by point.
        coords: [N, d], with ``requires_grad``.

    Raises:
        ValueError: If the shapes do not fit or ``coords`` does not require a gradient.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> jacobian(torch.stack([x[:, 0] * x[:, 1], x[:, 0]], dim=1), x).tolist()
        [[[2.0, 1.0], [1.0, 0.0]]]
    """
    _check(values, coords)
    return torch.stack([_grad(column, coords) for column in values.unbind(1)], dim=1)


def hessian(values: Tensor, coords: Tensor) -> Tensor:
    """Second derivatives by autograd: [N, c, d, d] of values [N, c] at coords [N, d].

    Args:
        values: [N, c], computed from ``coords`` point by point.
        coords: [N, d], with ``requires_grad``.

    Raises:
        ValueError: If the shapes do not fit or ``coords`` does not require a gradient.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> hessian(x[:, :1] ** 2 * x[:, 1:], x).tolist()
        [[[[4.0, 2.0], [2.0, 0.0]]]]
    """
    first = jacobian(values, coords)
    return torch.stack([jacobian(row, coords) for row in first.unbind(1)], dim=1)


def value_gradient(net: nn.Module, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Values and first derivatives of a network.

    Args:
        net: Maps coordinates [N, d] to values [N, c], point by point.
        coords: [N, d].

    Returns:
        The values [N, c] and the Jacobian [N, c, d], both differentiable by the parameters.

    Raises:
        ValueError: If ``coords`` is not [N, d].

    Example:
        >>> value, slope = value_gradient(Siren(2, 3, hidden_features=16), torch.zeros(5, 2))
        >>> value.shape, slope.shape
        (torch.Size([5, 3]), torch.Size([5, 3, 2]))
    """
    _check_coords(coords)
    if not isinstance(net, Siren):
        coords = coords if coords.requires_grad else coords.detach().requires_grad_()
        values = net(coords)
        return values, jacobian(values, coords)
    if net.out_features > net.in_features:
        values, first, _ = _forward_sweep(net, coords, None)
        return values, first
    return _reverse_sweep(net, coords)


def value_gradient_laplacian(net: nn.Module, coords: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, first derivatives and Laplacian of a network.

    Args:
        net: Maps coordinates [N, d] to values [N, c], point by point.
        coords: [N, d].

    Returns:
        Values [N, c], Jacobian [N, c, d] and Laplacian [N, c].

    Raises:
        ValueError: If ``coords`` is not [N, d].

    Example:
        >>> parts = value_gradient_laplacian(Siren(2, 1, hidden_features=16), torch.zeros(5, 2))
        >>> [tuple(part.shape) for part in parts]
        [(5, 1), (5, 1, 2), (5, 1)]
    """
    return _second_order(net, coords, "laplacian")


def value_gradient_hessian(net: nn.Module, coords: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, first and second derivatives of a network.

    Args:
        net: Maps coordinates [N, d] to values [N, c], point by point.
        coords: [N, d].

    Returns:
        Values [N, c], Jacobian [N, c, d] and Hessian [N, c, d, d].

    Raises:
        ValueError: If ``coords`` is not [N, d].

    Example:
        >>> parts = value_gradient_hessian(Siren(2, 1, hidden_features=16), torch.zeros(5, 2))
        >>> [tuple(part.shape) for part in parts]
        [(5, 1), (5, 1, 2), (5, 1, 2, 2)]
    """
    return _second_order(net, coords, "hessian")


def value_gradient_diagonal(net: nn.Module, coords: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, first derivatives and unmixed second derivatives of a network.

    Args:
        net: Maps coordinates [N, d] to values [N, c], point by point.
        coords: [N, d].

    Returns:
        Values [N, c], Jacobian [N, c, d] and the diagonals of the Hessians, [N, c, d].

    Raises:
        ValueError: If ``coords`` is not [N, d].

    Example:
        >>> parts = value_gradient_diagonal(Siren(2, 1, hidden_features=16), torch.zeros(5, 2))
        >>> [tuple(part.shape) for part in parts]
        [(5, 1), (5, 1, 2), (5, 1, 2)]
    """
    return _second_order(net, coords, "diagonal")


def _check_coords(coords: Tensor) -> None:
    if coords.ndim != 2:
        raise ValueError(f"coords must be [N, d], got {tuple(coords.shape)}")


def _second_order(net: nn.Module, coords: Tensor, second: Second) -> tuple[Tensor, Tensor, Tensor]:
    _check_coords(coords)
    if isinstance(net, Siren):
        values, first, curved = _forward_sweep(net, coords, second)
        assert curved is not None
        return values, first, curved
    coords = coords if coords.requires_grad else coords.detach().requires_grad_()
    values = net(coords)
    first = jacobian(values, coords)
    if second == "hessian":
        return values, first, torch.stack([jacobian(row, coords) for row in first.unbind(1)], dim=1)
    diagonal = torch.stack(
        [
            torch.stack([_grad(row[:, i], coords)[:, i] for i in range(row.shape[1])], dim=1)
            for row in first.unbind(1)
        ],
        dim=1,
    )
    return values, first, diagonal.sum(-1) if second == "laplacian" else diagonal


def _reverse_sweep(net: Siren, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Values [N, c] and Jacobian [N, c, d], by c products a layer."""
    kept: list[tuple[Tensor, Tensor | None]] = []
    values = coords
    for layer in net.net:
        if isinstance(layer, SineLayer):
            values, cosine = layer.with_cosine(values)
            kept.append((layer.omega_0 * layer.linear.weight, cosine))
        else:
            assert isinstance(layer, nn.Linear)
            values = layer(values)
            kept.append((layer.weight, None))
    # [c, 1 or N, features], from the outputs backwards
    slope = torch.eye(net.out_features, dtype=coords.dtype, device=coords.device)[:, None]
    for weight, cosine in reversed(kept):
        slope = linear(slope if cosine is None else slope * cosine, weight.t())
    return values, slope.transpose(0, 1)


def _forward_sweep(
    net: Siren, coords: Tensor, second: Second | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values, Jacobian and second derivatives, by one product for each a layer.

    With z = W x + b and s = sin z: ∂s = cos z ∂z and ∂∂s = cos z ∂∂z - sin z ∂z ∂z.
    """
    d = coords.shape[1]
    rows, columns = torch.arange(d), torch.arange(d)
    if second == "hessian":
        rows, columns = torch.triu_indices(d, d)
    values = coords
    first = torch.eye(d, dtype=coords.dtype, device=coords.device)[:, None]  # [d, 1 or N, h]
    curved: Tensor | None = None
    for layer in net.net:
        if isinstance(layer, SineLayer):
            weight = layer.omega_0 * layer.linear.weight
            values, cosine = layer.with_cosine(values)
            change = linear(first, weight)
            first = cosine * change
            if second is not None:
                product = change[rows] * change[columns] if second == "hessian" else change**2
                if second == "laplacian":
                    product = product.sum(0, keepdim=True)
                bend = -values * product
                curved = bend if curved is None else bend + cosine * linear(curved, weight)
        else:
            assert isinstance(layer, nn.Linear)
            values = layer(values)
            first = linear(first, layer.weight)
            curved = None if curved is None else linear(curved, layer.weight)
    first = first.permute(1, 2, 0)
    if curved is None:
        return values, first, None
    if second == "laplacian":
        return values, first, curved[0]
    curved = curved.permute(1, 2, 0)
    if second == "hessian":
        place = torch.empty(d, d, dtype=torch.long)
        place[rows, columns] = place[columns, rows] = torch.arange(len(rows))
        curved = curved[..., place]
    return values, first, curved
