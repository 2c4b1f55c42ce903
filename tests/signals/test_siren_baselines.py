"""The networks that SIREN is compared with: encodings, activations and initial weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmxx.signals.siren import (
    CoordinateMLP,
    GaussianFeatures,
    PositionalEncoding,
    nyquist_octaves,
    uniform_points,
)

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "rbf": lambda x: np.maximum(x, 0),
}


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(n: int, dims: int) -> Tensor:
    return uniform_points(n, dims, generator=_seeded(1)).double()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_encoding_against_the_formula(dims: int) -> None:
    coords = _points(7, dims)
    encoded = PositionalEncoding(dims, 4).double()(coords).numpy()
    x = coords.numpy()
    assert encoded.shape == (7, dims * 9)
    columns = {tuple(np.round(column, 6)) for column in encoded.T}
    expected = [x[:, d] for d in range(dims)]
    for d in range(dims):
        for i in range(4):
            phase = 2.0**i * math.pi * x[:, d]
            expected += [np.sin(phase), np.cos(phase)]
    assert np.array_equal(encoded[:, :dims], x)
    for column in expected:
        assert np.abs(encoded - column[:, None]).max(axis=0).min() < 1e-5  # frequencies are float32
    assert len(columns) == len(expected)


def test_octaves_of_a_grid() -> None:
    """A quarter of the side is the highest frequency: a power of two for each doubling."""
    assert [nyquist_octaves(side) for side in (2, 4, 8, 16, 64, 100, 512)] == [1, 1, 1, 2, 4, 4, 7]
    with pytest.raises(ValueError, match="side"):
        nyquist_octaves(0)


def test_gaussian_features_against_a_loop() -> None:
    features = GaussianFeatures(2, 5, generator=_seeded()).double()
    coords = _points(4, 2)
    found = features(coords).detach().numpy()
    centres, betas = features.centres.detach().numpy(), features.betas.detach().numpy()
    assert np.abs(centres).max() <= 1
    for i, x in enumerate(coords.numpy()):
        for k in range(5):
            distance = ((x - centres[k]) ** 2).sum()
            assert found[i, k] == pytest.approx(math.exp(-(betas[k] ** 2) * distance), rel=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("octaves", [0, 3])
def test_networks_against_numpy(activation: str, octaves: int) -> None:
    net = CoordinateMLP(
        2,
        3,
        hidden_features=8,
        hidden_layers=2,
        activation=activation,  # type: ignore[arg-type]
        octaves=octaves,
        generator=_seeded(),
    ).double()
    coords = _points(6, 2)
    out = net.features(coords).detach().numpy()
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in net.net]
    assert len(layers) == 4
    pairs = net.activations(coords)
    for (weight, bias), (before, after) in zip(layers[:-1], pairs, strict=True):
        phases = out @ weight.T + bias
        out = ACTIVATIONS[activation](phases)
        assert np.allclose(before.detach().numpy(), phases, rtol=0, atol=1e-10)
        assert np.allclose(after.detach().numpy(), out, rtol=0, atol=1e-10)
    expected = out @ layers[-1][0].T + layers[-1][1]
    assert np.allclose(net(coords).detach().numpy(), expected, rtol=0, atol=1e-10)
    assert net(coords.reshape(2, 3, 2)).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("activation", "variance"),
    [("relu", 2.0), ("softplus", 2.0), ("rbf", 2.0), ("selu", 1.0), ("elu", 1.55)],
)
def test_initial_variance_times_the_inputs(activation: str, variance: float) -> None:
    net = CoordinateMLP(
        2,
        1,
        hidden_features=256,
        activation=activation,
        generator=_seeded(),  # type: ignore[arg-type]
    )
    weight = net.net[1].weight.detach()
    assert 256 * float(weight.var()) == pytest.approx(variance, rel=0.05)
    assert float(net.net[1].bias.detach().abs().max()) <= 1 / 16


def test_initial_variance_of_glorot_and_after_an_encoding() -> None:
    tanh = CoordinateMLP(2, 1, hidden_features=256, activation="tanh", generator=_seeded())
    assert 512 * float(tanh.net[1].weight.detach().var()) == pytest.approx(2.0, rel=0.05)
    encoded = CoordinateMLP(2, 1, hidden_features=256, octaves=4, generator=_seeded())
    assert 256 * float(encoded.net[1].weight.detach().var()) == pytest.approx(1 / 3, rel=0.05)


def test_elu_keeps_the_variance() -> None:
    """Its gain is one over the root mean square of the ELU of a normal variable."""
    z = torch.randn(400_000, generator=_seeded(), dtype=torch.float64)
    expected = 1 / float(torch.nn.functional.elu(z).square().mean())
    assert expected == pytest.approx(1.5505188080679277, rel=0.01)


def test_networks_repeat_by_their_generator_only() -> None:
    before = torch.get_rng_state()
    one, other, third = (
        CoordinateMLP(2, 1, hidden_features=8, activation="rbf", generator=_seeded(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    coords = _points(5, 2).float()
    assert torch.equal(one(coords), other(coords))
    assert not torch.equal(one(coords), third(coords))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="activation must be one of relu"):
        CoordinateMLP(activation="gelu")  # type: ignore[arg-type]
    for name, bad in (("octaves", -1), ("hidden_features", 0), ("in_features", 0)):
        with pytest.raises(ValueError, match=name):
            CoordinateMLP(**{name: bad})
    with pytest.raises(ValueError, match="octaves"):
        PositionalEncoding(2, 0)
    with pytest.raises(ValueError, match="out_features"):
        GaussianFeatures(2, 0)
