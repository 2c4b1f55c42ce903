"""What Snake has to beat, networks side by side, and the theorems on extrapolation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.signals.snake import (
    ACTIVATIONS,
    Networks,
    Snake,
    arima,
    asymptote,
    fourier_network,
    harmonic_regression,
    last_value,
    polynomial,
    seasonal_naive,
    snake,
)
from mmxx.signals.snake.network import Adam, cosine, squared_error, train

T = np.arange(48.0)
FUTURE = np.arange(48.0, 90.0)


# -- without networks --------------------------------------------------------------------------


def test_last_value_stays():
    assert last_value(T, T**2, FUTURE).tolist() == [47.0**2] * 42


def test_seasonal_naive_repeats_the_last_period():
    y = np.where(T < 24, 0.0, T % 12)
    assert np.array_equal(seasonal_naive(T, y, FUTURE, period=12), FUTURE % 12)
    month = T / 12 + 1958.37  # stamps that are no binary fractions
    future = FUTURE / 12 + 1958.37
    assert np.allclose(seasonal_naive(month, T % 12, future, period=1.0), FUTURE % 12, atol=1e-6)
    between = seasonal_naive(T, np.sin(2 * np.pi * T / 9.5), FUTURE, period=9.5)
    assert np.abs(between - np.sin(2 * np.pi * FUTURE / 9.5)).max() < 0.06


def test_seasonal_naive_needs_one_period():
    whole = seasonal_naive(T, np.cos(T), FUTURE, period=47.0)
    assert np.allclose(whole, np.cos(FUTURE - 47))
    with pytest.raises(ValueError, match="period 48 is longer than the series, 47"):
        seasonal_naive(T, T, FUTURE, period=48.0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_polynomial_is_exact_on_polynomials(degree):
    coefficients = [2.0, -0.5, 0.03, 1e-3][: degree + 1]
    exact = np.polynomial.Polynomial(coefficients)
    found = polynomial(T, exact(T), FUTURE, degree=degree)
    assert np.allclose(found, exact(FUTURE), rtol=1e-9)


def test_polynomial_of_default_degree_is_the_parabola():
    y = np.random.default_rng(0).normal(size=48)
    assert np.allclose(polynomial(T, y, FUTURE), np.polyval(np.polyfit(T, y, 2), FUTURE))
    for degree in (-1, 48):
        with pytest.raises(ValueError, match=r"degree must be in 0\.\.47"):
            polynomial(T, y, FUTURE, degree=degree)


@pytest.mark.parametrize("offset", [0.0, 2000.0])
def test_harmonic_regression_is_exact_on_waves_and_a_trend(offset):
    def series(t):
        waves = 3 * np.sin(2 * np.pi * t / 7.3 + 1) + np.cos(4 * np.pi * t / 7.3 - 2)
        return 5 + 0.25 * t + waves

    t, future = T + offset, FUTURE + offset
    found = harmonic_regression(t, series(t), future, period=7.3)
    assert np.allclose(found, series(future), rtol=0, atol=1e-7)
    one = harmonic_regression(t, series(t), future, period=7.3, n_harmonics=1)
    assert np.abs(one - series(future)).max() > 0.5
    flat = harmonic_regression(t, series(t), future, period=7.3, degree=0)
    assert np.abs(flat - series(future)).max() > 5


def test_harmonic_regression_without_waves_is_a_polynomial():
    y = np.random.default_rng(1).normal(size=48)
    found = harmonic_regression(T, y, FUTURE, period=5, n_harmonics=0, degree=2)
    assert np.allclose(found, polynomial(T, y, FUTURE, degree=2))


@pytest.mark.parametrize("period", [0.0, -3.0, math.nan, math.inf])
def test_a_bad_period_is_refused(period):
    for baseline in (seasonal_naive, harmonic_regression):
        with pytest.raises(ValueError, match="period must be positive and finite"):
            baseline(T, T, FUTURE, period=period)


@pytest.mark.parametrize("counts", [{"n_harmonics": -1}, {"degree": -1}])
def test_bad_counts_are_refused(counts):
    with pytest.raises(ValueError, match="n_harmonics and degree must be 0 or more"):
        harmonic_regression(T, T, FUTURE, period=5, **counts)


def test_arima_goes_on_as_its_equation_says():
    pytest.importorskip("statsmodels", reason="statsmodels: not installed")
    rng = np.random.default_rng(2)
    y = np.zeros(400)
    for k in range(1, 400):
        y[k] = 0.8 * y[k - 1] + rng.normal()
    y += 10 - y[-1] + 5  # ends far from its mean
    t = np.arange(400.0)
    found = arima(t, y, FUTURE[:30], order=(1, 0, 0))
    assert found.shape == (30,)
    shrinks = np.diff(found)
    ratios = shrinks[1:6] / shrinks[:5]
    assert np.allclose(ratios, ratios[0], rtol=1e-4)  # y - mean falls geometrically
    assert ratios[0] == pytest.approx(0.8, abs=0.08)
    # a random walk with no memory stays where it is
    assert np.allclose(arima(t, y, FUTURE[:5], order=(0, 1, 0)), y[-1])
    assert np.isfinite(arima(t, y, FUTURE[:5])).all()


# -- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("tanh", np.tanh),
        ("swish", lambda x: x / (1 + np.exp(-x))),
        ("sin", np.sin),
        ("sin+cos", lambda x: np.sin(x) + np.cos(x)),
        ("x+sin", lambda x: x + np.sin(x)),
    ],
)
def test_activations_of_the_rivals(name, formula):
    x = np.linspace(-6, 6, 97)
    assert np.allclose(ACTIVATIONS[name](torch.tensor(x)).numpy(), formula(x), atol=1e-12)


def test_these_are_all_the_rivals():
    assert set(ACTIVATIONS) == {"relu", "tanh", "swish", "sin", "sin+cos", "x+sin"}


@pytest.mark.parametrize("activation", ["snake", *ACTIVATIONS])
def test_networks_are_layers_side_by_side(activation):
    networks = Networks(activation, seeds=(4, 9), hidden=(6, 5), a=(2.0, 3.0), deeper_a=0.2)
    x = torch.linspace(-2, 2, 11)[:, None]
    got = networks(x[None])
    assert got.shape == (2, 11)
    for k, a in enumerate((2.0, 3.0)):
        out = x
        for layer in range(3):
            out = out @ networks.weights[layer][k] + networks.biases[layer][k]
            if layer < 2 and activation == "snake":
                out = snake(out, a if layer == 0 else 0.2)
            elif layer < 2:
                out = ACTIVATIONS[activation](out)
        assert torch.allclose(got[k], out[:, 0], atol=1e-5)


def test_a_network_does_not_depend_on_its_neighbours():
    x = torch.linspace(-1, 1, 9).reshape(1, 9, 1)
    y = torch.sin(5 * x[..., 0])
    there = torch.ones_like(y)
    pair = Networks("snake", seeds=(1, 2), hidden=(8,), a=(3.0, 9.0))
    alone = Networks("snake", seeds=(2,), hidden=(8,), a=9.0)
    assert torch.equal(pair.weights[0][1], alone.weights[0][0])
    losses = train(pair, x, y.expand(2, -1), there.expand(2, -1), steps=30, lr=1e-2)
    loss = train(alone, x, y, there, steps=30, lr=1e-2)
    assert losses[1] == pytest.approx(float(loss[0]), rel=1e-3)
    assert torch.allclose(pair(x)[1], alone(x)[0], atol=1e-3)


def test_gaps_do_not_count():
    networks = Networks("tanh", seeds=(0, 1), hidden=(5,))
    x = torch.linspace(-1, 1, 8).reshape(1, 8, 1)
    y = torch.zeros(2, 8)
    there = torch.ones(2, 8)
    y[1, 3], there[1, 3] = 1e3, 0
    found = squared_error(networks, x, y, there)
    out = networks(x)
    assert torch.allclose(found[0], out[0].square().mean())
    assert torch.allclose(found[1], out[1][torch.arange(8) != 3].square().mean())


def test_networks_refuse():
    with pytest.raises(ValueError, match=r"activation must be 'snake' or one of relu.*got 'gelu'"):
        Networks("gelu", seeds=(0,))
    with pytest.raises(ValueError, match=r"a must hold one value per seed \(2\)"):
        Networks("snake", seeds=(0, 1), a=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="aligned needs one input feature, got in_features=2"):
        Networks("snake", seeds=(0,), in_features=2, aligned=True)


def test_adam_is_the_published_rule_and_goes_on_from_its_state():
    rng = np.random.default_rng(0)
    theta, bowl = rng.normal(size=6), rng.uniform(0, 3, 6)
    parameter = nn.Parameter(torch.tensor(theta))
    idle = nn.Parameter(torch.ones(2))
    adam = Adam([parameter, idle])
    first, second = np.zeros(6), np.zeros(6)
    for step in range(40):
        lr = cosine(step, 40, 0.05)
        assert lr == pytest.approx(0.025 * (1 + math.cos(math.pi * step / 40)))
        adam.zero_grad()
        (torch.tensor(bowl) * parameter.square()).sum().backward()
        adam.step(lr)
        slope = 2 * bowl * theta
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        size = np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8
        theta = theta - lr * first / (1 - 0.9 ** (step + 1)) / size
        assert np.allclose(parameter.detach().numpy(), theta, rtol=0, atol=1e-9)
        if step == 20:
            resumed = Adam([parameter, idle])
            resumed.load_state_dict(adam.state_dict())
            adam = resumed
    assert idle.tolist() == [1, 1]


# -- the theorems ------------------------------------------------------------------------------


def in_the_plane(activation):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 1)
    )


@pytest.mark.parametrize("angle", [0.1, 2.0, 4.5])
def test_along_a_ray_relu_ends_straight_tanh_constant_and_snake_wavy(angle):
    ray = torch.tensor([math.cos(angle), math.sin(angle)])
    far = {"radius": 1e4, "length": 50.0}
    relu = asymptote(in_the_plane(nn.ReLU).double(), ray.double(), **far)
    assert relu.wiggle < 1e-9
    assert abs(relu.slope) > 1e-4
    tanh = asymptote(in_the_plane(nn.Tanh).double(), ray.double(), **far)
    assert abs(tanh.slope) < 1e-9
    assert tanh.wiggle < 1e-9
    wavy = asymptote(in_the_plane(lambda: Snake(16, 1.0)).double(), ray.double(), **far)
    assert wavy.wiggle > 0.01


def test_asymptote_of_known_functions():
    ray = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = asymptote(lambda x: x @ ray + 7, ray, radius=10, length=20)
    assert found.slope == pytest.approx(5)
    assert found.wiggle == pytest.approx(0, abs=1e-10)
    waves = asymptote(
        lambda x: (2 * torch.sin(2 * math.pi * x.norm(dim=1)))[:, None],
        ray,
        radius=10,
        length=100,
        points=4000,
    )
    assert waves.slope == pytest.approx(0, abs=1e-3)
    assert waves.wiggle == pytest.approx(math.sqrt(2), rel=1e-2)


@pytest.mark.parametrize(
    ("ray", "radius", "length", "message"),
    [
        (torch.zeros(2), 1.0, 1.0, "direction must not be zero"),
        (torch.ones(2), 0.0, 1.0, "radius and length must be positive"),
        (torch.ones(2), 1.0, -1.0, "radius and length must be positive"),
    ],
)
def test_asymptote_refuses(ray, radius, length, message):
    with pytest.raises(ValueError, match=message):
        asymptote(lambda x: x[:, 0], ray, radius=radius, length=length)


def test_one_hidden_layer_of_snake_is_a_fourier_series_for_ever():
    cosines, sines, period = [0.5, -2.0, 0.0], [1.5, 0.25, -1.0], 3.7
    network = fourier_network(cosines, sines, period=period, constant=0.75)
    assert [type(layer) for layer in network] == [nn.Linear, Snake, nn.Linear]
    assert network[0].out_features == 12
    for start in (-5.0, 1e5):
        x = torch.linspace(start, start + 20, 301, dtype=torch.float64)[:, None]
        wanted = torch.full_like(x, 0.75)
        for k, (c, s) in enumerate(zip(cosines, sines, strict=True), 1):
            angle = 2 * math.pi * k * x / period
            wanted = wanted + c * torch.cos(angle) + s * torch.sin(angle)
        assert torch.allclose(network(x), wanted, rtol=0, atol=1e-8)


def test_fourier_network_follows_a_square_wave_ever_closer():
    x = torch.linspace(1000, 1004, 801, dtype=torch.float64)[:, None]
    square = torch.sign(torch.sin(math.pi * x / 2))
    errors = []
    for terms in (1, 5, 25):
        sines = [4 / (math.pi * k) if k % 2 else 0.0 for k in range(1, terms + 1)]
        network = fourier_network([0.0] * terms, sines, period=4.0)
        errors.append(float((network(x) - square).detach().square().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_fourier_network_refuses():
    for cosines, sines in (([], []), ([1.0], [])):
        with pytest.raises(ValueError, match="cosines and sines must be of one positive length"):
            fourier_network(cosines, sines, period=1.0)
    for period in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="period must be positive"):
            fourier_network([1.0], [1.0], period=period)
