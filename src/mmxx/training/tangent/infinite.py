r"""Kernels of infinitely wide fully connected networks, in closed form.

They are the limits, as the hidden widths grow, of the networks of
:func:`~mmxx.training.tangent.ntk_mlp`: hidden layers with an activation and linear outputs,
weights from N(0, 1), scaled by $1/\sqrt{\text{width}}$ from the second layer on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Act = Literal["relu", "erf", "linear"] | Callable[[Tensor], Tensor]
Kernel = Callable[..., Tensor]
_NODES = 48  # of the quadrature, in each of two directions
_CELLS = 2**11  # pairs of samples that are integrated over at once


def ntk(depth: int, act: Act, *, weight_std: float = 1.0, bias_std: float = 0.0) -> Kernel:
    r"""The tangent kernel of an infinitely wide network.

    Args:
        depth: Hidden layers.
        act: "relu" (times $\sqrt 2$, so that a signal keeps its size), "erf", "linear"; or any
            function, element by element, that is then integrated by quadrature.
        weight_std: Factor of each layer's weights.
        bias_std: Factor of each layer's biases, N(0, 1) too.

    Returns:
        A function of samples [N1, d] and, if not the same, [N2, d] that gives [N1, N2].

    Raises:
        ValueError: An argument is out of range.

    Source: Jacot, Gabriel and Hongler (2018); Cho and Saul (2009) for ReLU, Williams (1997) for
        erf.

    Example:
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> ntk(1, "linear")(x)
        tensor([[2., 0.],
                [0., 2.]], dtype=torch.float64)
    """
    return _kernel(depth, act, weight_std, bias_std, tangent=True)


def nngp(depth: int, act: Act, *, weight_std: float = 1.0, bias_std: float = 0.0) -> Kernel:
    """The covariance of the outputs of an infinitely wide network before training.

    Args:
        depth: Hidden layers.
        act: As in `ntk`.
        weight_std: Factor of each layer's weights.
        bias_std: Factor of each layer's biases.

    Returns:
        A function of samples [N1, d] and, if not the same, [N2, d] that gives [N1, N2].

    Raises:
        ValueError: An argument is out of range.

    Source: Neal (1996); Lee et al. (2018).

    Example:
        >>> nngp(3, "relu")(torch.tensor([[3.0, 4.0]])).item()
        25.0
    """
    return _kernel(depth, act, weight_std, bias_std, tangent=False)


def _kernel(depth: int, act: Act, weight_std: float, bias_std: float, *, tangent: bool) -> Kernel:
    if depth < 0:
        raise ValueError(f"depth must be 0 or more, got {depth}")
    if isinstance(act, str) and act not in _DUALS:
        raise ValueError(f"act must be a function or one of {', '.join(_DUALS)}, got {act!r}")
    if not weight_std > 0 or not bias_std >= 0:
        raise ValueError(
            f"weight_std must be above 0 and bias_std not below, got {weight_std} and {bias_std}"
        )
    dual = _DUALS[act] if isinstance(act, str) else _quadrature(act)
    w, b = weight_std**2, bias_std**2

    @torch.no_grad()
    def kernel(x1: Any, x2: Any = None) -> Tensor:
        one = torch.as_tensor(x1)
        other = one if x2 is None else torch.as_tensor(x2)
        if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
            raise ValueError(
                f"x1 and x2 must be [N, d], got {tuple(one.shape)} and {tuple(other.shape)}"
            )
        q1, q2 = (w * x.square().sum(1) + b for x in (one, other))
        covariance = w * (one @ other.T) + b
        result = covariance
        for _ in range(depth):
            value, slope = dual(covariance, q1[:, None], q2[None, :])
            q1, q2 = (w * _variance(dual, q) + b for q in (q1, q2))
            covariance = w * value + b
            result = covariance + w * slope * result
        return result if tangent else covariance

    return kernel


# -- expectations: of s(u) s(v) and s'(u) s'(v), for (u, v) of covariance s and variances p, q ---

Dual = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _variance(dual: Dual, q: Tensor) -> Tensor:
    return dual(q, q, q)[0]


def _relu(s: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    size = (p * q).sqrt()
    cosine = (s / size.clamp_min(torch.finfo(s.dtype).tiny)).clamp(-1, 1)
    angle = torch.acos(cosine)
    value = size * (torch.sin(angle) + (math.pi - angle) * cosine) / math.pi
    return value, (math.pi - angle) / math.pi


def _erf(s: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    size = (1 + 2 * p) * (1 + 2 * q)
    value = 2 / math.pi * torch.asin((2 * s / size.sqrt()).clamp(-1, 1))
    return value, 4 / math.pi / (size - 4 * s**2).sqrt()


def _linear(s: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    return s, torch.ones_like(s)


def _quadrature(act: Callable[[Tensor], Tensor]) -> Dual:
    """Gauss and Hermite's rule in two dimensions, a few pairs at a time."""
    roots, masses = np.polynomial.hermite_e.hermegauss(_NODES)
    masses = masses / masses.sum()

    def slope(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(act(z).sum(), z)[0]

    def dual(s: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        z, mass = torch.tensor(roots).to(s), torch.tensor(masses).to(s)
        found = []
        flat = (part.flatten().split(_CELLS) for part in torch.broadcast_tensors(s, p, q))
        for some, left, right in zip(*flat, strict=True):
            size = (left * right).sqrt().clamp_min(torch.finfo(s.dtype).tiny)
            rho = (some / size).clamp(-1, 1)[:, None, None]
            u = left.sqrt()[:, None] * z  # [pairs, nodes]
            v = right.sqrt()[:, None, None] * (rho * z[:, None] + (1 - rho**2).sqrt() * z)
            parts = [
                torch.einsum("pi,pij,i,j->p", function(u), function(v), mass, mass)
                for function in (act, slope)
            ]
            found.append(torch.stack(parts))
        value, derivative = torch.cat(found, 1)
        return value.view(s.shape), derivative.view(s.shape)

    return dual


_DUALS: dict[str, Dual] = {"relu": _relu, "erf": _erf, "linear": _linear}
