"""The losses: each against plain numpy, and at exact answers of what it asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import hankel2
from torch import Tensor, nn

from mmxx.signals.siren import (
    HelmholtzLoss,
    InpaintingLoss,
    SDFLoss,
    Siren,
    gradient_loss,
    hyper_loss,
    laplacian_loss,
    mse_loss,
    surface_batch,
    uniform_points,
    value_gradient_diagonal,
    value_gradient_hessian,
)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(n: int, dims: int = 2, seed: int = 1) -> Tensor:
    return uniform_points(n, dims, generator=_seeded(seed)).double()


def _net(channels: int, dims: int = 2) -> Siren:
    net = Siren(
        dims,
        channels,
        hidden_features=8,
        hidden_layers=1,
        omega_0=4.0,
        first_omega_0=4.0,
        generator=_seeded(),
    )
    return net.double()


def _parts(net: nn.Module, coords: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, first, second = value_gradient_hessian(net, coords)
    return values.detach().numpy(), first.detach().numpy(), second.detach().numpy()


class _Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, coords: Tensor) -> Tensor:
        return self.function(coords)  # type: ignore[operator]


def test_values_gradients_and_laplacians_against_loops() -> None:
    net, coords, rng = _net(3), _points(7), np.random.default_rng(0)
    values, first, second = _parts(net, coords)
    wanted = rng.normal(size=(7, 3))
    total = sum((values[i, c] - wanted[i, c]) ** 2 for i in range(7) for c in range(3)) / 21
    assert mse_loss(net, coords, torch.from_numpy(wanted)).item() == pytest.approx(total, rel=1e-12)

    slopes = rng.normal(size=(7, 3, 2))
    total = 0.0
    for i in range(7):
        for c in range(3):
            for d in range(2):
                total += (first[i, c, d] - slopes[i, c, d]) ** 2 / 7
    found = gradient_loss(net, coords, torch.from_numpy(slopes)).item()
    assert found == pytest.approx(total, rel=1e-12)

    total = 0.0
    for i in range(7):
        for c in range(3):
            total += (second[i, c, 0, 0] + second[i, c, 1, 1] - wanted[i, c]) ** 2 / 21
    found = laplacian_loss(net, coords, torch.from_numpy(wanted)).item()
    assert found == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("prior", ["tv", "hessian"])
def test_inpainting_prior_against_a_loop(prior: str) -> None:
    net, coords = _net(2), _points(5)
    wanted = torch.zeros(5, 2, dtype=torch.float64)
    loss = InpaintingLoss(prior=prior, weight=0.3, points=11, generator=_seeded(4))  # type: ignore[arg-type]
    found = loss(net, coords, wanted).item()
    places = uniform_points(11, 2, generator=_seeded(4)).double()
    values, first, second = _parts(net, places)
    assert len(values) == 11
    bent = first if prior == "tv" else second
    lengths = [math.sqrt(sum(v**2 for v in bent[i].ravel())) for i in range(11)]
    expected = mse_loss(net, coords, wanted).item() + 0.3 * sum(lengths) / 11
    assert found == pytest.approx(expected, rel=1e-9)
    assert loss(net, coords, wanted).item() != found  # other places at the next call


def test_inpainting_prior_has_finite_gradients_where_nothing_changes() -> None:
    flat = nn.Linear(2, 1)
    with torch.no_grad():
        flat.weight.zero_()
        flat.bias.zero_()
    loss = InpaintingLoss(points=4, generator=_seeded())
    loss(flat, torch.zeros(3, 2), torch.zeros(3, 1)).backward()
    assert torch.isfinite(flat.weight.grad).all()


def test_inpainting_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="prior must be"):
        InpaintingLoss(prior="l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight must be"):
        InpaintingLoss(weight=-1.0)


def test_distance_loss_against_a_loop() -> None:
    net, rng = _net(1, 3), np.random.default_rng(0)
    coords, mask = _points(9, 3), rng.random(9) < 0.5
    normals = rng.normal(size=(9, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    loss = SDFLoss(surface=7.0, off=5.0, normal=3.0, eikonal=2.0, sharpness=4.0)
    found = loss(net, coords, (torch.from_numpy(mask), torch.from_numpy(normals))).item()
    values, first, _ = _parts(net, coords)
    total = 0.0
    for i in range(9):
        f, slope = values[i, 0], first[i, 0]
        length = np.linalg.norm(slope)
        total += 2.0 * abs(length - 1)
        if mask[i]:
            total += 7.0 * abs(f) + 3.0 * (1 - slope @ normals[i] / length)
        else:
            total += 5.0 * math.exp(-4.0 * abs(f))
    assert found == pytest.approx(total / 9, rel=1e-9)


def test_distance_loss_has_the_weights_of_the_paper() -> None:
    loss = SDFLoss()
    weights = loss.surface, loss.off, loss.normal, loss.eikonal, loss.sharpness
    assert weights == (3e3, 1e2, 1e2, 5e1, 1e2)


@pytest.mark.parametrize("shape", ["plane", "sphere"])
def test_an_exact_distance_leaves_only_the_term_off_the_surface(shape: str) -> None:
    if shape == "plane":
        exact = _Function(lambda p: p[:, 2:])
        cloud = torch.cat([_points(50), torch.zeros(50, 1)], dim=1).double()
        normals = torch.tensor([[0.0, 0.0, 1.0]]).double().expand(50, 3)
    else:
        exact = _Function(lambda p: p.norm(dim=1, keepdim=True) - 0.5)
        normals = nn.functional.normalize(_points(50, 3), dim=1)
        cloud = normals / 2
    coords, (mask, targets) = surface_batch(cloud, normals, 40, generator=_seeded())
    away = exact(coords[~mask])[:, 0].abs()
    expected = 1e2 * torch.exp(-100 * away).sum().item() / 80
    found = SDFLoss()(exact, coords, (mask, targets)).item()
    assert found == pytest.approx(expected, abs=1e-8)
    flipped = SDFLoss()(exact, coords, (mask, -targets)).item()
    assert flipped == pytest.approx(expected + 1e2 * 2 * 0.5, abs=1e-8)
    doubled = _Function(lambda p: 2 * exact(p))
    assert SDFLoss(off=0.0)(doubled, coords, (mask, targets)).item() == pytest.approx(50, abs=1e-6)


def test_a_batch_on_and_off_a_surface() -> None:
    cloud = nn.functional.normalize(_points(30, 3), dim=1) / 2
    coords, (mask, normals) = surface_batch(cloud, 2 * cloud, 200, generator=_seeded())
    assert coords.dtype == normals.dtype == torch.float64
    assert mask.tolist() == [True] * 200 + [False] * 200
    assert torch.allclose(coords[mask].norm(dim=1), torch.full((200,), 0.5).double())
    assert torch.allclose(normals[mask], 2 * coords[mask])
    assert not normals[~mask].any()
    assert float(coords[~mask].abs().max()) <= 1
    assert 0.9 < float(coords[~mask].var()) * 3 < 1.1  # uniform: a variance of 1/3


# -- Helmholtz -----------------------------------------------------------------------------------


def _hankel(p: np.ndarray, k: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """i/4 H0(kr), its first and its unmixed second derivatives, by Bessel's recurrences."""
    r = np.linalg.norm(p, axis=1)[:, None]
    h0, h1 = hankel2(0, k * r), hankel2(1, k * r)
    by_r, by_rr = -k * h1, -(k**2) * (h0 - h1 / (k * r))
    unit = p / r
    first = 0.25j * by_r * unit
    second = 0.25j * (by_rr * unit**2 + by_r / r * (1 - unit**2))
    return 0.25j * h0[:, 0], first, second


@pytest.mark.parametrize("k", [5.0, 20.0])
def test_the_wave_of_a_point_source_leaves_no_residual(k: float) -> None:
    """Away from the source and without the rim i/4 H0 solves the equation."""
    p = _points(200).numpy()
    p = p[np.linalg.norm(p, axis=1) > 0.3]
    wave, first, second = (torch.from_numpy(part) for part in _hankel(p, k))
    coords = torch.from_numpy(p)
    loss = HelmholtzLoss(k, source_width=0.02, rim=0.0)
    residual = loss.residual(coords, wave, first, second)
    assert float(residual.abs().max()) < 1e-10 * k**2
    wrong = loss.residual(coords, wave, first, 1.01 * second)
    assert float(wrong.abs().max()) > 1e-4 * k**2
    faster = HelmholtzLoss(k, slowness=lambda q: torch.full_like(q[:, :1], 2.0), rim=0.0)
    found = faster.residual(coords, wave, first, second)
    assert torch.allclose(found, k**2 * wave, atol=1e-9)


def test_inside_the_rim_nothing_is_stretched() -> None:
    k = 6.0
    p = 0.49 * _points(100).numpy()
    p = p[np.linalg.norm(p, axis=1) > 0.3]
    parts = [torch.from_numpy(part) for part in _hankel(p, k)]
    residual = HelmholtzLoss(k, source_width=0.02, rim=0.5).residual(torch.from_numpy(p), *parts)
    assert float(residual.abs().max()) < 1e-9


def test_the_source_has_unit_mass_and_sits_at_its_place() -> None:
    """As the flux of i/4 H0 out of a small circle around it, so that both have one sign."""
    loss = HelmholtzLoss(5.0, source=(0.2, -0.1), source_width=0.05)
    axis = torch.linspace(-1, 1, 401, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    force = loss.force(plane)
    assert float(force.sum()) * 0.005**2 == pytest.approx(1.0, abs=1e-9)
    assert torch.allclose(plane[force.argmax()], torch.tensor([0.2, -0.1]).double(), atol=1e-9)
    radius = np.array([[1e-6, 0.0]])
    _, first, _ = _hankel(radius, 5.0)
    flux = 2 * math.pi * 1e-6 * first[0, 0]  # of the gradient, through a small circle
    assert flux == pytest.approx(1.0, abs=1e-6)


def test_the_rim_is_a_change_of_coordinates() -> None:
    """A plane wave with x replaced by the integral of the stretch solves the equation there.

    Along an axis the stretched equation reads d/dX of d/dX with dX = e dx, so that exp(-i k X)
    solves it, and decays.
    """
    k, strength, rim = 8.0, 5.0, 0.5
    x = np.linspace(-1, 1, 101)
    depth = np.clip(np.abs(x) - (1 - rim), 0, None) / rim
    stretch = 1 - 1j * strength * depth**2
    change = -2j * strength * depth / rim * np.sign(x)
    stretched = x - 1j * strength * rim * depth**3 / 3 * np.sign(x)
    wave = np.exp(-1j * k * stretched)
    first = -1j * k * stretch * wave
    second = (-1j * k * change - (k * stretch) ** 2) * wave
    zero = np.zeros_like(x)
    coords = torch.from_numpy(np.stack([x, zero], axis=1))  # the other axis is in the middle
    pairs = (np.stack([part, 0 * part], axis=1) for part in (first, second))
    loss = HelmholtzLoss(k, source=(9.0, 9.0), strength=strength, rim=rim)
    residual = loss.residual(coords, torch.from_numpy(wave), *(torch.from_numpy(q) for q in pairs))
    assert float(residual.abs().max()) < 1e-9
    assert abs(wave[-1]) < 0.01


def test_helmholtz_loss_is_the_scaled_mean_of_the_residual() -> None:
    net, coords = _net(2), _points(9)
    loss = HelmholtzLoss(4.0)
    values, first, second = value_gradient_diagonal(net, coords)
    u = torch.complex(values[:, 0], values[:, 1])
    slope = torch.complex(first[:, 0], first[:, 1])
    bend = torch.complex(second[:, 0], second[:, 1])
    residual = loss.residual(coords, u, slope, bend).detach().numpy()
    expected = np.mean(np.abs(residual) ** 2) / 4.0**4
    assert loss(net, coords).item() == pytest.approx(expected, rel=1e-12)
    loss(net, coords).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_helmholtz_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="wavenumber"):
        HelmholtzLoss(0.0)
    with pytest.raises(ValueError, match="source_width"):
        HelmholtzLoss(source_width=math.nan)
    with pytest.raises(ValueError, match="rim"):
        HelmholtzLoss(rim=1.0)
    with pytest.raises(ValueError, match="2 values"):
        HelmholtzLoss()(nn.Linear(2, 3), torch.zeros(4, 2))


def test_hyper_loss_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    values, targets, latent = (
        rng.normal(size=(2, 5, 3)),
        rng.normal(size=(2, 5, 3)),
        rng.normal(size=(2, 4)),
    )
    weights = [rng.normal(size=(2, 6, 2)), rng.normal(size=(2, 6))]
    arrays = [torch.from_numpy(part) for part in (values, targets, latent)]
    found = hyper_loss(
        *arrays, [torch.from_numpy(w) for w in weights], latent_weight=0.5, weight_weight=3.0
    )
    numbers = [v for w in weights for v in w.ravel()]
    expected = (
        sum((a - b) ** 2 for a, b in zip(values.ravel(), targets.ravel(), strict=True)) / 30
        + 0.5 * sum(v**2 for v in latent.ravel()) / 8
        + 3.0 * sum(v**2 for v in numbers) / len(numbers)
    )
    assert found.item() == pytest.approx(expected, rel=1e-12)
