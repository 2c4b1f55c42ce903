"""Encoders of sets, and networks that make networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmxx.signals.siren import (
    ConvEncoder,
    HyperNetwork,
    SetEncoder,
    Siren,
    batched_siren,
    grid,
    hyper_loss,
    uniform_points,
)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _siren(**changes: object) -> Siren:
    settings = {"hidden_features": 16, "hidden_layers": 1, "generator": _seeded(), **changes}
    return Siren(2, 3, **settings)  # type: ignore[arg-type]


def test_a_set_has_no_order_and_unknown_members_do_not_count() -> None:
    encoder = SetEncoder(5, 8, hidden_features=16, generator=_seeded()).double()
    observed = torch.randn(3, 10, 5, generator=_seeded(1)).double()
    mask = torch.rand(3, 10, generator=_seeded(2)) < 0.5
    latent = encoder(observed, mask)
    order = torch.randperm(10, generator=_seeded(3))
    assert torch.allclose(encoder(observed[:, order], mask[:, order]), latent, rtol=0, atol=1e-14)
    changed = torch.where(mask[..., None], observed, 100.0)
    assert torch.allclose(encoder(changed, mask), latent, rtol=0, atol=1e-14)
    for b in range(3):
        alone = encoder(observed[b : b + 1, mask[b]])
        assert torch.allclose(alone[0], latent[b], rtol=0, atol=1e-14)
    assert not torch.allclose(encoder(observed), latent)


def test_an_empty_set_is_encoded_as_zeros() -> None:
    encoder = SetEncoder(5, 8, generator=_seeded())
    assert not encoder(torch.randn(2, 4, 5), torch.zeros(2, 4, dtype=torch.bool)).any()


def test_unknown_pixels_do_not_count() -> None:
    encoder = ConvEncoder(3, 8, hidden_features=8, generator=_seeded())
    pictures = torch.rand(2, 3, 8, 8, generator=_seeded(1))
    mask = torch.rand(2, 8, 8, generator=_seeded(2)) < 0.5
    latent = encoder(pictures, mask)
    assert latent.shape == (2, 8)
    other = torch.where(mask[:, None], pictures, 5.0)
    assert torch.equal(encoder(other, mask), latent)
    everything = torch.ones(2, 8, 8, dtype=torch.bool)
    assert torch.equal(encoder(pictures), encoder(pictures, everything))
    assert not torch.allclose(encoder(pictures), latent)


@pytest.mark.parametrize("channels", [1, 3])
def test_made_networks_are_sirens(channels: int) -> None:
    """Each network that is made equals a Siren with those weights, and is initialised as one."""
    siren = Siren(
        2,
        channels,
        hidden_features=16,
        hidden_layers=1,
        omega_0=20.0,
        first_omega_0=10.0,
        generator=_seeded(),
    )
    hyper = HyperNetwork(siren, 6, hidden_features=12, generator=_seeded(1))
    latent = torch.randn(4, 6, generator=_seeded(2))
    coords = uniform_points(9, 2, generator=_seeded(3))
    weights = hyper.weights(latent)
    found = hyper(latent, coords)
    assert torch.isfinite(found).all()
    assert torch.equal(found, batched_siren(weights[::2], weights[1::2], coords, [10.0, 20.0]))
    names = [name for name, _ in siren.named_parameters()]
    for b in range(4):
        siren.load_state_dict({n: w[b].detach() for n, w in zip(names, weights, strict=True)})
        assert torch.allclose(found[b], siren(coords), atol=2e-6)
    own = coords.expand(4, -1, -1)
    assert torch.allclose(hyper(latent, own), found, atol=1e-6)


def test_made_weights_begin_close_to_those_of_the_siren() -> None:
    siren = _siren()
    hyper = HyperNetwork(siren, 6, hidden_features=12, generator=_seeded(1))
    latent = torch.randn(4, 6, generator=_seeded(2))
    for made, first in zip(hyper.weights(latent), siren.parameters(), strict=True):
        assert made.shape == (4, *first.shape)
        away = float((made - first).detach().abs().max())
        assert 0 < away < 0.25 * float(first.detach().abs().max())
    for made, first in zip(hyper.weights(torch.zeros(1, 6)), siren.parameters(), strict=True):
        assert torch.allclose(made[0], first, rtol=1e-6)
    assert all(p is not q for p in hyper.parameters() for q in siren.parameters())


def test_learns_a_family_of_signals() -> None:
    """Waves of any direction, each seen at ten points: better than their mean, by far."""
    coords = grid((8, 8))
    angles = torch.rand(48, generator=_seeded(5)) * math.pi

    def waves(points: Tensor) -> Tensor:
        along = torch.stack([angles.cos(), angles.sin()], dim=1)
        return torch.sin(2 * torch.einsum("...nd,bd->bn", points, along))[..., None]

    chosen = torch.randperm(64, generator=_seeded(6))[:10]
    truth = waves(coords)
    observed = torch.cat([coords[chosen].expand(48, -1, -1), truth[:, chosen]], dim=-1)
    siren = Siren(
        2,
        1,
        hidden_features=16,
        hidden_layers=1,
        omega_0=30.0,
        first_omega_0=10.0,
        generator=_seeded(),
    )
    encoder = SetEncoder(3, 16, hidden_features=32, generator=_seeded(1))
    hyper = HyperNetwork(siren, 16, hidden_features=32, generator=_seeded(2))
    parameters = nn.ModuleList([encoder, hyper]).parameters()
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    train = slice(0, 40)
    for _ in range(200):
        latent = encoder(observed[train])
        loss = hyper_loss(
            hyper(latent, coords),
            truth[train],
            latent,
            hyper.weights(latent),
            latent_weight=1e-4,
            weight_weight=1e-4,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        seen = hyper(encoder(observed[train]), coords)
        unseen = hyper(encoder(observed[40:]), coords)
    spread = float(truth.var())
    assert float((seen - truth[train]).square().mean()) < 0.05 * spread
    assert float((unseen - truth[40:]).square().mean()) < 0.3 * spread


def test_draws_are_seeded_and_arguments_checked() -> None:
    before = torch.get_rng_state()
    one, other = (HyperNetwork(_siren(), 4, generator=_seeded(7)) for _ in range(2))
    ConvEncoder(1, 4, generator=_seeded())
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="linear layer"):
        HyperNetwork(_siren(outermost_linear=False), 4)
    with pytest.raises(ValueError, match="latent_features"):
        HyperNetwork(_siren(), 0)
    with pytest.raises(ValueError, match="in_features"):
        SetEncoder(0)
    with pytest.raises(ValueError, match="channels"):
        ConvEncoder(0)
    assert np.isfinite([float(p.detach().abs().sum()) for p in one.parameters()]).all()
