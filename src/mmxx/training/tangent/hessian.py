r"""How curved a network is in its parameters: the spectral norm of the Hessian of an output."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.training.tangent.functional import (
    Params,
    check_bytes,
    check_input,
    check_model,
    chosen,
    of_sample,
)

_BASIS = 16  # vectors of the size of all parameters that are kept at once
_KINKED = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
           nn.RReLU, nn.Hardshrink, nn.Softshrink, nn.Threshold)  # fmt: skip


class SpectralNorm(NamedTuple):
    """The largest absolute eigenvalue of a symmetric matrix, and how sure it is.

    Attributes:
        value: The estimate.
        residual: An eigenvalue lies within this distance of it, or of its negative.
    """

    value: float
    residual: float


def hessian_product(
    model: nn.Module,
    x: Tensor,
    direction: Mapping[str, Tensor],
    *,
    output: int = 0,
    params: Mapping[str, Tensor] | None = None,
) -> Params:
    """The Hessian of one output at one sample, times a direction.

    Args:
        model: Returns [N] or [N, C] for N samples.
        x: One sample, without the axis of samples.
        direction: For each parameter a tensor of its shape.
        output: Which output.
        params: Values of the parameters by name, as in `ntk`.

    Returns:
        For each parameter a tensor of its shape.

    Raises:
        ValueError: The direction has other names or shapes than the parameters.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> one = torch.ones(1, 1)
        >>> found = hessian_product(net, torch.tensor([3.0]), {"0.weight": one, "1.weight": one})
        >>> found["0.weight"]  # the output is 3 times the product of the two weights
        tensor([[3.]])
    """
    values = chosen(model, params)
    shapes = {name: value.shape for name, value in values.items()}
    if {name: part.shape for name, part in direction.items()} != shapes:
        raise ValueError(f"direction must have the names and shapes {shapes}")
    product = _product(of_sample(model), values, x, output)
    flat = torch.cat([direction[name].flatten() for name in values])
    return _unflatten(product(flat), values)


@torch.enable_grad()
def _product(
    call: Callable[[Params, Tensor], Tensor], values: Params, x: Tensor, output: int
) -> Callable[[Tensor], Tensor]:
    """The product with a flat vector. The gradient's graph is kept: a product is one run back.

    Forward over reverse would run the network forward and back each time.
    """
    live = {name: value.detach().requires_grad_() for name, value in values.items()}
    out = call(live, x)[output]
    params = list(live.values())
    slopes = torch.autograd.grad(out, params, create_graph=True, materialize_grads=True)
    bent = [slope for slope in slopes if slope.requires_grad]  # others are constant

    def product(flat: Tensor) -> Tensor:
        if not bent:
            return torch.zeros_like(flat)
        parts = _unflatten(flat, values).values()
        directions = [
            part for part, slope in zip(parts, slopes, strict=True) if slope.requires_grad
        ]
        found = torch.autograd.grad(
            bent, params, directions, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in found])

    return product


def hessian_norm(
    model: nn.Module,
    x: Tensor,
    *,
    output: int = 0,
    params: Mapping[str, Tensor] | None = None,
    tol: float = 1e-3,
    max_products: int = 400,
    generator: torch.Generator | None = None,
) -> SpectralNorm:
    """The spectral norm of the Hessian of one output by the parameters, largest over samples.

    By Lanczos' method with full orthogonalisation, begun again from the best vector when 16
    are in memory; the Hessian itself is never made.

    Args:
        model: Returns [N] or [N, C] for N samples.
        x: Samples [N, ...].
        output: Which output.
        params: Values of the parameters by name, as in `ntk`.
        tol: The residual to reach, relative to the norm.
        max_products: Products of a Hessian with a vector at most, for each sample.
        generator: Draws the first vectors; one of its own, seeded with 0, if None.

    Returns:
        `SpectralNorm`.

    Raises:
        TypeError, ValueError: An argument is out of range, or the model in training mode.
        MemoryError: The vectors do not fit.

    Warns:
        UserWarning: The activation has kinks, so that the Hessian does not see all curvature;
            or the tolerance was not reached.

    Source: the paper's norm of the Hessian; Lanczos (1950).

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> value, residual = hessian_norm(net, torch.ones(1, 2))
        >>> residual <= 1e-3 * value
        True
    """
    values = chosen(model, params)
    like = next(iter(values.values()))
    check_model(model)
    check_input(model, "x", x, like)
    if not len(x):
        raise ValueError("x has no sample")
    if not 0 < tol < 1:
        raise ValueError(f"tol must be between 0 and 1, got {tol}")
    if max_products < 1:
        raise ValueError(f"max_products must be 1 or more, got {max_products}")
    kinked = sorted({type(m).__name__ for m in model.modules() if isinstance(m, _KINKED)})
    if kinked:
        warnings.warn(
            f"{', '.join(kinked)} is piecewise linear: the Hessian leaves out what its kinks bend",
            stacklevel=2,
        )
    size = sum(value.numel() for value in values.values())
    check_bytes("Lanczos' basis", (_BASIS + 2) * size, like, "Name fewer parameters by params=")
    generator = generator or torch.Generator().manual_seed(0)
    call = of_sample(model)
    with torch.no_grad():
        outputs = len(call(values, x[0]))
    if not 0 <= output < outputs:
        raise ValueError(f"output must be 0 to {outputs - 1}, got {output}")
    found = []
    for sample in x:
        product = _product(call, values, sample, output)
        start = torch.randn(size, generator=generator).to(like)
        found.append(spectral_norm(product, start, tol=tol, max_products=max_products))
    return max(found)


def _unflatten(flat: Tensor, values: Params) -> Params:
    parts = flat.split([value.numel() for value in values.values()])
    return {
        name: part.view_as(value) for (name, value), part in zip(values.items(), parts, strict=True)
    }


@torch.no_grad()
def spectral_norm(
    product: Callable[[Tensor], Tensor], start: Tensor, *, tol: float, max_products: int
) -> SpectralNorm:
    """The largest absolute eigenvalue of a symmetric matrix given by its product with a vector.

    Args:
        product: [P] to [P].
        start: The first vector [P], not 0.
        tol: The residual to reach, relative to the value.
        max_products: How many products at most.

    Warns:
        UserWarning: The tolerance was not reached.

    Example:
        >>> value, _ = spectral_norm(
        ...     lambda v: torch.tensor([1.0, -4.0]) * v, torch.ones(2), tol=1e-3, max_products=9
        ... )
        >>> round(value, 5)
        4.0
    """
    basis = start.new_empty(min(_BASIS, len(start)), len(start))
    basis[0] = start / start.norm()
    tiny = torch.finfo(start.dtype).eps
    projected = np.zeros((len(basis), len(basis)))
    used, done = 0, 0  # vectors in the basis, products made
    while True:
        residue = product(basis[used])
        done += 1
        used += 1
        weights = basis[:used] @ residue
        projected[:used, used - 1] = projected[used - 1, :used] = weights.double().cpu().numpy()
        residue = residue - weights @ basis[:used]
        residue -= (basis[:used] @ residue) @ basis[:used]  # once more, against rounding
        rest = float(residue.norm())
        eigenvalues, vectors = np.linalg.eigh(projected[:used, :used])
        best = int(np.abs(eigenvalues).argmax())
        value = abs(float(eigenvalues[best]))
        residual = rest * abs(float(vectors[-1, best]))
        if residual <= tol * value or rest <= tiny * value or rest == 0:
            return SpectralNorm(value, residual)
        if done >= max_products:
            warnings.warn(
                f"after {done} products the residual is {residual:.3g} at a norm of {value:.3g}, "
                f"above tol={tol:g} of it",
                stacklevel=3,
            )
            return SpectralNorm(value, residual)
        if used < len(basis):
            basis[used] = residue / rest
            continue
        # Full: keep the best vector, and what its product leaves, which is the last residue.
        basis[0] = torch.from_numpy(vectors[:, best].copy()).to(basis) @ basis
        basis[1] = residue / rest
        projected[:] = 0
        projected[0, 0] = eigenvalues[best]
        used = 1


def two_layer_hessian_norm(
    weight: Tensor,
    head: Tensor,
    x: Tensor,
    act: Callable[[Tensor], Tensor],
    *,
    scale: float | None = None,
) -> Tensor:
    r"""The norm of the Hessian of $f = s \sum_i v_i\, \sigma(w_i \cdot x)$, in closed form.

    The Hessian is block diagonal over neurons, and a block acts on the plane of x and $v_i$:
    $\|H\| = s \max_i \frac12 (|a_i| + \sqrt{a_i^2 + 4 b_i^2})$ with
    $a_i = v_i \sigma''(z_i) \|x\|^2$ and $b_i = \sigma'(z_i) \|x\|$.

    Args:
        weight: w, [m, d].
        head: v, [m].
        x: Samples [N, d].
        act: σ, element by element.
        scale: s; by default $1/\sqrt m$.

    Returns:
        [N].

    Source: the paper's example of two layers, worked out.

    Example:
        >>> w, v = torch.tensor([[2.0, 0.0]]), torch.tensor([3.0])
        >>> two_layer_hessian_norm(w, v, torch.tensor([[1.0, 0.0]]), torch.square)
        tensor([8.])
    """
    m, d = weight.shape if weight.ndim == 2 else (0, 0)
    if not m or head.shape != (m,) or x.ndim != 2 or x.shape[1] != d:
        raise ValueError(
            "weight must be [m, d], head [m] and x [N, d], got "
            f"{tuple(weight.shape)}, {tuple(head.shape)} and {tuple(x.shape)}"
        )
    z = (x @ weight.T).detach().requires_grad_()  # [N, m]
    with torch.enable_grad():
        (first,) = torch.autograd.grad(act(z).sum(), z, create_graph=True)
        second = torch.zeros_like(z)
        if first.requires_grad:
            (second,) = torch.autograd.grad(first.sum(), z, materialize_grads=True)
    length = x.norm(dim=1, keepdim=True)
    a = (head.detach() * second * length**2).abs()
    b = first.detach() * length
    return (1 / math.sqrt(m) if scale is None else scale) * (
        (a + torch.sqrt(a**2 + 4 * b**2)) / 2
    ).amax(1)
