"""What a field is asked to be: values, gradients, Laplacians, distances, waves.

Every loss is called as ``loss(net, coords, targets)`` with coordinates [N, d] and returns a
scalar; so is any function of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmxx.signals.siren.operators import (
    value_gradient,
    value_gradient_diagonal,
    value_gradient_hessian,
    value_gradient_laplacian,
)
from mmxx.signals.siren.sampling import uniform_points

Loss = Callable[[nn.Module, Tensor, Any], Tensor]


def mse_loss(net: nn.Module, coords: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of the values (section 4.1).

    Args:
        net: The field.
        coords: [N, d].
        targets: Values [N, c].

    Example:
        >>> mse_loss(nn.Identity(), torch.zeros(4, 2), torch.ones(4, 2)).item()
        1.0
    """
    return (net(coords) - targets).square().mean()


def gradient_loss(net: nn.Module, coords: Tensor, targets: Tensor) -> Tensor:
    """Mean over points of $|\\nabla\\Phi - g|^2$: the Poisson problem from gradients (eq. 5).

    Args:
        net: The field.
        coords: [N, d].
        targets: Gradients by the coordinates, [N, c, d].

    Example:
        >>> gradient_loss(nn.Linear(2, 1), torch.zeros(4, 2), torch.zeros(4, 1, 2)).shape
        torch.Size([])
    """
    _, slope = value_gradient(net, coords)
    return (slope - targets).square().sum((1, 2)).mean()


def laplacian_loss(net: nn.Module, coords: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of the Laplacian: the Poisson problem from Laplacians (eq. 5).

    Args:
        net: The field.
        coords: [N, d].
        targets: Laplacians by the coordinates, [N, c].

    Example:
        >>> laplacian_loss(nn.Linear(2, 1), torch.zeros(4, 2), torch.zeros(4, 1)).item()
        0.0
    """
    _, _, curved = value_gradient_laplacian(net, coords)
    return (curved - targets).square().mean()


@dataclass(frozen=True)
class InpaintingLoss:
    """Mean squared error at the points given, and a prior at random points of the cube.

    Attributes:
        prior: "tv", the mean length of the gradient (total variation), or "hessian", the mean
            Frobenius norm of the Hessian.
        weight: Weight of the prior.
        points: Random points at each call.
        generator: Where they are drawn from; torch's default generator if None.

    Example:
        >>> loss = InpaintingLoss(prior="tv", weight=0.1, points=8)
        >>> loss(nn.Linear(2, 1), torch.zeros(4, 2), torch.zeros(4, 1)).shape
        torch.Size([])
    """

    prior: Literal["tv", "hessian"] = "tv"
    weight: float = 1e-3
    points: int = 1024
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.prior not in ("tv", "hessian"):
            raise ValueError(f"prior must be 'tv' or 'hessian', got {self.prior!r}")
        if not self.weight >= 0:
            raise ValueError(f"weight must be 0 or more, got {self.weight}")

    def __call__(self, net: nn.Module, coords: Tensor, targets: Tensor) -> Tensor:
        """The loss of ``net`` at coordinates [N, d] with values [N, c]."""
        places = uniform_points(self.points, coords.shape[1], generator=self.generator).to(coords)
        if self.prior == "tv":
            bent = value_gradient(net, places)[1].flatten(1)
        else:
            bent = value_gradient_hessian(net, places)[2].flatten(1)
        return mse_loss(net, coords, targets) + self.weight * _length(bent).mean()


def _length(vectors: Tensor) -> Tensor:
    """Euclidean lengths, [N] of [N, k], with a finite derivative at zero."""
    return (vectors.square().sum(1) + 1e-12).sqrt()


@dataclass(frozen=True)
class SDFLoss:
    """The loss of a signed distance function, from oriented points (section 4.2, eq. 6).

    The sum of |f| on the surface, $\\exp(-a|f|)$ off it, $1 - \\cos(\\nabla f, n)$ on it and
    $||\\nabla f| - 1|$ everywhere. As in the authors' code each mean runs over the whole batch,
    half of which lies on the surface. The second term keeps f from zero away from the surface:
    far out, f is not a distance.

    Attributes:
        surface: Weight of the values on the surface.
        off: Weight of the term off the surface.
        normal: Weight of the normals.
        eikonal: Weight of the unit gradient.
        sharpness: a above.

    Example:
        >>> loss, coords = SDFLoss(), torch.randn(6, 3)
        >>> targets = (torch.arange(6) < 3, torch.nn.functional.normalize(coords, dim=1))
        >>> loss(nn.Linear(3, 1), coords, targets).shape
        torch.Size([])
    """

    surface: float = 3e3
    off: float = 1e2
    normal: float = 1e2
    eikonal: float = 5e1
    sharpness: float = 1e2

    def __call__(self, net: nn.Module, coords: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        """The loss at coordinates [N, d]; ``targets``: a mask [N] and normals [N, d]."""
        mask, normals = targets
        values, slope = value_gradient(net, coords)
        distance, slope = values[:, 0], slope[:, 0]
        length = _length(slope)
        cosine = (slope * normals).sum(1) / length
        on = mask.to(distance)
        return (
            self.surface * (on * distance.abs()).mean()
            + self.off * ((1 - on) * torch.exp(-self.sharpness * distance.abs())).mean()
            + self.normal * (on * (1 - cosine)).mean()
            + self.eikonal * (length - 1).abs().mean()
        )


@dataclass(frozen=True)
class HelmholtzLoss:
    """The residual of the Helmholtz equation with an absorbing rim (section 4.3, eq. 7).

    For a field of two values, u = (real, imaginary) part at points of the plane,
    $\\partial_x(\\tfrac{e_y}{e_x} u_x) + \\partial_y(\\tfrac{e_x}{e_y} u_y) + e_x e_y k^2 m u = f$
    with $e_x = 1 - i a_0 (l_x / L)^2$, $l_x$ the depth in the rim of width L (a perfectly matched
    layer). The source f is a Gaussian of unit mass, so that with m = 1 and a narrow source u is
    $\\tfrac i4 H_0^{(2)}(k r)$. The mean over points of |residual|², over $k^4$.

    Attributes:
        wavenumber: k, in radian for a unit of length.
        source: Place of the source.
        source_width: Standard deviation of the Gaussian.
        slowness: Squared slowness m, [N, 1] of coordinates [N, 2]; 1 if None.
        strength: $a_0$.
        rim: L; 0 for no rim.

    Example:
        >>> loss = HelmholtzLoss(wavenumber=5.0)
        >>> loss(nn.Linear(2, 2), torch.zeros(4, 2)).shape
        torch.Size([])
    """

    wavenumber: float = 20.0
    source: tuple[float, float] = (0.0, 0.0)
    source_width: float = 0.05
    slowness: Callable[[Tensor], Tensor] | None = None
    strength: float = 5.0
    rim: float = 0.5

    def __post_init__(self) -> None:
        for name in ("wavenumber", "source_width"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.rim < 1:
            raise ValueError(f"rim must be at least 0 and below 1, got {self.rim}")

    def __call__(self, net: nn.Module, coords: Tensor, targets: object = None) -> Tensor:
        """The loss of a field with two outputs at coordinates [N, 2]; there are no targets."""
        values, first, second = value_gradient_diagonal(net, coords)
        if values.shape[1] != 2:
            raise ValueError(
                f"net must give 2 values, the real and imaginary part, got {values.shape[1]}"
            )
        u, first, second = (torch.complex(t[:, 0], t[:, 1]) for t in (values, first, second))
        residual = self.residual(coords, u, first, second)
        return (residual.real.square() + residual.imag.square()).mean() / self.wavenumber**4

    def residual(self, coords: Tensor, u: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Left side less right side of the equation, complex [N].

        Args:
            coords: [N, 2].
            u: The field, complex [N].
            first: Its derivatives by x and y, complex [N, 2].
            second: Its second derivatives by x and by y, complex [N, 2].
        """
        stretch, change = self._stretch(coords)
        ex, ey = stretch.unbind(1)
        slopes = (second - change / stretch * first) / stretch
        waves = slopes[:, 0] * ey + slopes[:, 1] * ex
        slowness = 1.0 if self.slowness is None else self.slowness(coords)[:, 0]
        return waves + ex * ey * self.wavenumber**2 * slowness * u - self.force(coords)

    def force(self, coords: Tensor) -> Tensor:
        """The source, [N]."""
        away = coords - torch.tensor(self.source).to(coords)
        variance = self.source_width**2
        return torch.exp(-away.square().sum(1) / (2 * variance)) / (2 * math.pi * variance)

    def _stretch(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """$e$ along each axis and its derivative along that axis, complex [N, 2]."""
        if not self.rim:
            one = torch.ones_like(coords) + 0j
            return one, torch.zeros_like(one)
        depth = (coords.abs() - (1 - self.rim)).clamp_min(0) / self.rim
        stretch = 1 - 1j * self.strength * depth.square()
        return stretch, -2j * self.strength / self.rim * depth * coords.sign()
