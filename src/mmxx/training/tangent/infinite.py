r"""Kernels of infinitely wide networks, in closed form.

`ntk` and `nngp` are the limits, as the hidden widths grow, of the networks of
:func:`~mmxx.training.tangent.ntk_mlp`: hidden layers with an activation and linear outputs,
weights from N(0, 1), scaled by $1/\sqrt{\text{width}}$ from the second layer on. `conv_ntk` and
`conv_nngp` are those of convolutional networks as the numbers of channels grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

Act = Literal["relu", "erf", "linear"] | Callable[[Tensor], Tensor]
Kernel = Callable[..., Tensor]
_NODES = 48  # of the quadrature, in each of two directions
_CELLS = 2**11  # pairs of samples that are integrated over at once
_PAIRS = 2**22  # pairs of places, of some pairs of pictures, that are in memory at once


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


def conv_ntk(
    depth: int,
    act: Act,
    *,
    filter_size: int = 3,
    pool: bool = True,
    weight_std: float = 1.0,
    bias_std: float = 0.0,
) -> Kernel:
    r"""The tangent kernel of a convolutional network with infinitely many channels.

    Hidden layers of convolutions, of stride 1 and padded with zeros to the same size, each with
    the activation; then a linear output. Weights are from N(0, 1), scaled by the root of what a
    unit sees (channels times ``filter_size`` squared), also in the first layer.

    Args:
        depth: Hidden layers, 1 or more.
        act: As in `ntk`.
        filter_size: Height and width of the filters, odd.
        pool: Take the mean over all places before the output, for which all pairs of places of
            two pictures are needed: $(HW)^2$ numbers a layer; else give each place weights of
            its own, for which HW do.
        weight_std: Factor of each layer's weights.
        bias_std: Factor of each layer's biases, N(0, 1) too.

    Returns:
        A function of pictures [N1, channels, H, W] and, if not the same, [N2, channels, H, W] that
        gives [N1, N2].

    Raises:
        ValueError: An argument is out of range.

    Source: Arora et al., *On Exact Computation with an Infinitely Wide Neural Net* (2019), section
        4; Novak et al. (2019) and Garriga-Alonso et al. (2019) for `conv_nngp`.

    Example:
        >>> x = torch.eye(6).view(2, 3, 3, 2)
        >>> conv_ntk(2, "relu")(x).shape
        torch.Size([2, 2])
    """
    options = {"filter_size": filter_size, "pool": pool, "tangent": True}
    return _conv_kernel(depth, act, weight_std, bias_std, **options)


def conv_nngp(
    depth: int,
    act: Act,
    *,
    filter_size: int = 3,
    pool: bool = True,
    weight_std: float = 1.0,
    bias_std: float = 0.0,
) -> Kernel:
    """The covariance of the outputs of the network of `conv_ntk` before training.

    Args:
        depth: As in `conv_ntk`, and so are the others.
        act: See there.
        filter_size: See there.
        pool: See there.
        weight_std: See there.
        bias_std: See there.

    Returns:
        A function of pictures [N1, channels, H, W] and, if not the same, [N2, channels, H, W] that
        gives [N1, N2].

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> x = torch.ones(1, 3, 2, 2)  # a filter of one pixel sees no border
        >>> conv_nngp(3, "relu", filter_size=1)(x).item()
        1.0
    """
    options = {"filter_size": filter_size, "pool": pool, "tangent": False}
    return _conv_kernel(depth, act, weight_std, bias_std, **options)


def _checked(depth: int, least: int, act: Act, weight_std: float, bias_std: float) -> Dual:
    """The expectations that belong to an activation."""
    if depth < least:
        raise ValueError(f"depth must be {least} or more, got {depth}")
    if isinstance(act, str) and act not in _DUALS:
        raise ValueError(f"act must be a function or one of {', '.join(_DUALS)}, got {act!r}")
    if not weight_std > 0 or not bias_std >= 0:
        raise ValueError(
            f"weight_std must be above 0 and bias_std not below, got {weight_std} and {bias_std}"
        )
    return _DUALS[act] if isinstance(act, str) else _quadrature(act)


def _kernel(depth: int, act: Act, weight_std: float, bias_std: float, *, tangent: bool) -> Kernel:
    dual = _checked(depth, 0, act, weight_std, bias_std)
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


def _conv_kernel(
    depth: int,
    act: Act,
    weight_std: float,
    bias_std: float,
    *,
    filter_size: int,
    pool: bool,
    tangent: bool,
) -> Kernel:
    dual = _checked(depth, 1, act, weight_std, bias_std)
    if filter_size < 1 or filter_size % 2 == 0:
        raise ValueError(f"filter_size must be odd and above 0, got {filter_size}")
    w, b = weight_std**2, bias_std**2

    def near(x: Tensor) -> Tensor:
        return (_near_pairs if pool else _near)(x, filter_size)

    def variances(x: Tensor) -> list[Tensor]:
        """Of each layer before its activation, [N, H, W]."""
        found = [w * _near(x.square().mean(1), filter_size) + b]
        for _ in range(1, depth):
            found.append(w * _near(_variance(dual, found[-1]), filter_size) + b)
        return found

    def row(one: Tensor, other: Tensor, p: list[Tensor], q: list[Tensor]) -> Tensor:
        """The kernel of one picture with others: of [1, channels, H, W] and [N2, ...], [N2]."""
        products = "ichw,jcuv->jhwuv" if pool else "ichw,jchw->jhw"
        covariance = w * near(torch.einsum(products, one, other) / one.shape[1]) + b
        result, ends = covariance, tuple(range(1, covariance.ndim))
        for layer in range(depth):
            mine = p[layer][..., None, None] if pool else p[layer]
            theirs = q[layer][:, None, None] if pool else q[layer]
            value, slope = dual(covariance, mine, theirs)
            last = layer == depth - 1
            covariance = w * (value.mean(ends) if last else near(value)) + b
            if tangent:
                carried = slope * result
                result = covariance + w * (carried.mean(ends) if last else near(carried))
        return result if tangent else covariance

    @torch.no_grad()
    def kernel(x1: Any, x2: Any = None) -> Tensor:
        one = torch.as_tensor(x1)
        other = one if x2 is None else torch.as_tensor(x2)
        if one.ndim != 4 or other.ndim != 4 or one.shape[1:] != other.shape[1:]:
            raise ValueError(
                "x1 and x2 must be [N, channels, H, W], got "
                f"{tuple(one.shape)} and {tuple(other.shape)}"
            )
        p, q = variances(one), variances(other)
        cells = math.prod(one.shape[2:]) ** (2 if pool else 1)
        step = max(1, _PAIRS // max(1, cells))
        found = one.new_empty(len(one), len(other))
        for i in range(len(one)):
            for start in range(i if x2 is None else 0, len(other), step):
                some = slice(start, start + step)
                mine, theirs = [v[i : i + 1] for v in p], [v[some] for v in q]
                found[i, some] = row(one[i : i + 1], other[some], mine, theirs)
            if x2 is None:  # what lies below the diagonal is the mirror image
                found[i + 1 :, i] = found[i, i + 1 :]
        return found

    return kernel


def _near(x: Tensor, size: int) -> Tensor:
    """The mean over a filter's places around each, of which those outside are 0; [N, H, W]."""
    return avg_pool2d(x[:, None], size, 1, size // 2)[:, 0]


def _near_pairs(x: Tensor, size: int) -> Tensor:
    """The mean over both places of a pair moving together; [N, H, W, H, W]."""
    half = size // 2
    for axis in (1, 2):
        length, both = x.shape[axis], (axis, axis + 2)
        ends = [half if end in both else 0 for end in (4, 3, 2, 1) for _ in range(2)]
        wide = pad(x, ends)
        x = sum(
            (wide.narrow(axis, k, length).narrow(axis + 2, k, length) for k in range(size)),
            torch.zeros_like(x),
        ) / size  # fmt: skip
    return x


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
