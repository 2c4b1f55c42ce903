"""What the contract builds of SIREN: networks, derivatives, losses, measures, the regressor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmxx.lab.testing import Case
from mmxx.signals.siren import (
    BatchedSiren,
    ConvEncoder,
    CoordinateMLP,
    GaussianFeatures,
    HyperNetwork,
    PositionalEncoding,
    SetEncoder,
    SineLayer,
    Siren,
    SirenRegressor,
    gradient_loss,
    laplacian_loss,
    match_affine,
    mse_loss,
    psnr,
    ssim,
    value_gradient,
    value_gradient_diagonal,
    value_gradient_hessian,
    value_gradient_laplacian,
)


def _seeded(build: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """What ``build`` makes, from the same draw each time."""
    return build(*args, **settings, generator=torch.Generator().manual_seed(0))


def _siren(**changes: Any) -> Siren:
    return _seeded(Siren, 2, 3, hidden_features=16, hidden_layers=1, **changes)


def _mlp(**changes: Any) -> CoordinateMLP:
    return _seeded(CoordinateMLP, 2, 3, hidden_features=16, hidden_layers=1, **changes)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _coords() -> tuple[Tensor]:
    return (_normal(12, 2).clamp(-1, 1),)


def _sweep(function: Callable[..., Any]) -> Callable[[], Callable[[Tensor], Any]]:
    """Derivatives of a network that has the precision of the coordinates."""
    return lambda: lambda coords: function(_siren().to(coords.dtype), coords)


def _loss(
    function: Callable[..., Any],
) -> Callable[[], Callable[[Tensor, Tensor], Any]]:
    return lambda: lambda coords, targets: function(_siren().to(coords.dtype), coords, targets)


def _pictures() -> tuple[np.ndarray, np.ndarray]:
    one, other = np.random.default_rng(0).random((2, 16, 12))
    return one, other


MODULES = {
    "Siren": (_siren, _coords),
    "Siren-sines": (partial(_siren, outermost_linear=False), _coords),
    "SineLayer": (partial(_seeded, SineLayer, 2, 8, is_first=True), _coords),
    "CoordinateMLP": (_mlp, _coords),
    "CoordinateMLP-tanh": (partial(_mlp, activation="tanh"), _coords),
    "CoordinateMLP-rbf": (partial(_mlp, activation="rbf"), _coords),
    "CoordinateMLP-encoded": (partial(_mlp, octaves=3), _coords),
    "GaussianFeatures": (partial(_seeded, GaussianFeatures, 2, 8), _coords),
    "SetEncoder": (
        partial(_seeded, SetEncoder, 5, 4, hidden_features=8),
        lambda: (_normal(6, 7, 5), _normal(6, 7) > 0),
    ),
    "ConvEncoder": (
        partial(_seeded, ConvEncoder, 3, 4, hidden_features=8),
        lambda: (_normal(4, 3, 8, 8), _normal(4, 8, 8) > 0),
    ),
    "HyperNetwork": (
        lambda: _seeded(HyperNetwork, _siren(), 4, hidden_features=8),
        lambda: (_normal(5, 4), _normal(5, 9, 2).clamp(-1, 1)),
    ),
}
SWEEPS = (
    value_gradient,
    value_gradient_laplacian,
    value_gradient_diagonal,
    value_gradient_hessian,
)
LOSSES = {mse_loss: (12, 3), gradient_loss: (12, 3, 2), laplacian_loss: (12, 3)}

CASES = [
    *(Case(make, args, "module", name) for name, (make, args) in MODULES.items()),
    Case(
        lambda: BatchedSiren([_siren(), _siren()]),
        _coords,
        "module",
        "BatchedSiren",
        per_sample=False,
    ),
    Case(lambda: PositionalEncoding(2, 4), _coords, name="PositionalEncoding"),
    *(Case(_sweep(f), _coords, name=f.__name__) for f in SWEEPS),
    *(
        Case(_loss(f), lambda s=shape: (*_coords(), _normal(*s)), name=f.__name__, per_sample=False)
        for f, shape in LOSSES.items()
    ),
    Case(lambda: partial(psnr, peak=1.0), _pictures, name="psnr", per_sample=False),
    Case(lambda: partial(ssim, peak=1.0), _pictures, name="ssim", per_sample=False),
    Case(lambda: match_affine, _pictures, name="match_affine", per_sample=False),
    Case(
        lambda: SirenRegressor(
            hidden_features=16, hidden_layers=1, first_omega_0=2.0, max_iter=30, lr=1e-2
        ),
        kind="estimator",
        name="SirenRegressor",
    ),
]
