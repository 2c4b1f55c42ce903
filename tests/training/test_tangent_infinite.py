"""Kernels of infinite width: formulas, integrals, and the wide networks that near them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.training.tangent import (
    NTKClassifier,
    NTKRegressor,
    Scaled,
    infinite,
    ntk,
    ntk_mlp,
    training_outputs,
)


def samples(count: int, columns: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, columns, generator=generator, dtype=torch.float64) / columns**0.5


def test_two_layers_of_relu_have_the_formula_of_the_arc_cosine():
    x, z = samples(2)
    lengths = x.norm() * z.norm()
    angle = torch.acos(x @ z / lengths)
    value = lengths * (torch.sin(angle) + (math.pi - angle) * torch.cos(angle)) / math.pi
    expected = (x @ z) * (math.pi - angle) / math.pi + value
    assert infinite.ntk(1, "relu")(x[None], z[None]).item() == pytest.approx(expected.item())
    assert infinite.nngp(1, "relu")(x[None], z[None]).item() == pytest.approx(value.item())


def test_the_kernel_of_a_sample_with_itself_grows_with_depth():
    x = samples(3)
    squares = x.square().sum(1)
    for depth in range(4):
        found = infinite.ntk(depth, "relu")(x).diagonal()
        assert torch.allclose(found, (depth + 1) * squares, rtol=1e-6)  # acos near 1
        assert torch.allclose(infinite.nngp(depth, "relu")(x).diagonal(), squares, rtol=1e-6)


@pytest.mark.parametrize("act", ["relu", "erf", "linear"])
def test_the_formulas_are_the_expectations(act):
    functions = {
        "relu": lambda z: math.sqrt(2) * torch.relu(z), "erf": torch.erf, "linear": lambda z: z,
    }  # fmt: skip
    x, z = samples(4), samples(7)[4:]
    # A kink spoils the rule of Gauss: its error falls only as one over the nodes.
    tolerance = 0.02 if act == "relu" else 1e-5
    for make in (infinite.ntk, infinite.nngp):
        options = {"weight_std": 1.3, "bias_std": 0.4}
        one = make(2, act, **options)(x, z)
        other = make(2, functions[act], **options)(x, z)
        assert (one - other).norm() < tolerance * one.norm()


def test_monte_carlo_gives_the_expectations_of_relu():
    x, z = samples(2)
    w = torch.randn(400_000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, v = w @ x, w @ z
    value = 2 * (torch.relu(u) * torch.relu(v)).mean()
    slope = 2 * ((u > 0) & (v > 0)).double().mean()
    assert infinite.nngp(1, "relu")(x[None], z[None]).item() == pytest.approx(
        value.item(), abs=4e-3
    )
    tangent = value + slope * (x @ z)
    assert infinite.ntk(1, "relu")(x[None], z[None]).item() == pytest.approx(
        tangent.item(), abs=6e-3
    )


@pytest.mark.parametrize(
    ("act", "module"),
    [
        ("relu", lambda: Scaled(torch.relu, math.sqrt(2))),
        ("erf", lambda: Scaled(torch.erf, 1.0)),
        (nn.functional.silu, nn.SiLU),
    ],
    ids=["relu", "erf", "silu"],
)
def test_wide_networks_near_the_limit_as_one_over_the_root_of_the_width(act, module):
    x = samples(5)
    limit = infinite.ntk(2, act)(x)
    generator = torch.Generator().manual_seed(0)
    errors = []
    for width in (64, 1024):
        kernels = [
            ntk(ntk_mlp((6, width, width, 1), module, generator=generator).double(), x, trace=True)
            for _ in range(12)
        ]
        squares = [((k - limit).norm() / limit.norm()).square() for k in kernels]
        errors.append(float(torch.stack(squares).mean().sqrt()))
    assert math.log(errors[1] / errors[0]) / math.log(1024 / 64) == pytest.approx(-0.5, abs=0.15)
    assert errors[1] < 0.1


def test_the_covariance_is_that_of_outputs_before_training():
    x = samples(3)
    generator = torch.Generator().manual_seed(0)
    outputs = torch.stack([
        ntk_mlp((6, 400, 1), lambda: Scaled(torch.erf, 1.0), generator=generator)(x.float())[:, 0]
        for _ in range(1500)
    ])  # fmt: skip
    found = (outputs.T @ outputs / len(outputs)).double()
    assert torch.allclose(found, infinite.nngp(1, "erf")(x), atol=0.05)


def test_a_sample_of_zeros_is_no_trouble():
    x = torch.zeros(2, 3)
    for act in ("relu", "erf", "linear", torch.tanh):
        assert torch.isfinite(infinite.ntk(2, act)(x)).all()


# -- convolutions ------------------------------------------------------------------------------


def pictures(count: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("pool", [True, False])
def test_a_convolution_of_one_pixel_is_a_layer(pool):
    x = pictures(4, 5, 1, 1)
    options = {"weight_std": 1.2, "bias_std": 0.3}
    for conv, dense in ((infinite.conv_ntk, infinite.ntk), (infinite.conv_nngp, infinite.nngp)):
        for act in ("erf", torch.tanh):
            found = conv(2, act, filter_size=1, pool=pool, **options)(x, x[1:])
            expected = dense(2, act, **options)(x.flatten(1) / 5**0.5, x[1:].flatten(1) / 5**0.5)
            assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("pool", [True, False])
def test_convolutions_by_matrices_of_all_places(monkeypatch, pool):
    """The mean over a filter as a sum over moves, each a matrix [HW, HW]."""
    x = pictures(3, 2, 3, 4)
    high, wide, cells = 3, 4, 12

    def move(down: int, right: int) -> torch.Tensor:
        found = torch.zeros(cells, cells, dtype=torch.float64)
        for row in range(high):
            for column in range(wide):
                if 0 <= row + down < high and 0 <= column + right < wide:
                    found[row * wide + column, (row + down) * wide + column + right] = 1
        return found

    moves = [move(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    w, b = 1.2**2, 0.3**2

    def near(k: torch.Tensor) -> torch.Tensor:
        return sum(m @ k @ m.T for m in moves) / 9

    def kernels(one: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
        """The tangent kernel and the covariance of two pictures."""
        stack = torch.stack([one, other]).flatten(2)
        k = torch.einsum("acs,bct->abst", stack, stack) / 2
        k = w * torch.stack([torch.stack([near(part) for part in line]) for line in k]) + b
        theta = k[0, 1]
        for layer in range(2):
            p, q = k[0, 0].diagonal(), k[1, 1].diagonal()
            size = (p[:, None] * q).sqrt()
            angle = torch.acos((k[0, 1] / size).clamp(-1, 1))
            value = size * (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
            theta = theta * (math.pi - angle) / math.pi
            if layer == 1:
                mean = torch.mean if pool else lambda t: t.diagonal().mean()
                covariance = w * mean(value) + b
                return float(covariance + w * mean(theta)), float(covariance)
            k[0, 1] = w * near(value) + b
            theta = k[0, 1] + w * near(theta)
            for own, sizes in ((0, p), (1, q)):  # of places with themselves ReLU keeps the size
                k[own, own].diagonal()[:] = (w * near(torch.diag(sizes)) + b).diagonal()
        raise AssertionError

    monkeypatch.setattr(infinite, "_PAIRS", 2 * cells ** (2 if pool else 1))
    options = {"pool": pool, "weight_std": 1.2, "bias_std": 0.3}
    found = infinite.conv_ntk(2, "relu", **options)(x)
    covariance = infinite.conv_nngp(2, "relu", **options)(x)
    for i in range(3):
        for j in range(3):
            if i != j:
                expected = kernels(x[i], x[j])
                assert found[i, j].item() == pytest.approx(expected[0], rel=1e-9)
                assert covariance[i, j].item() == pytest.approx(expected[1], rel=1e-9)
    others = infinite.conv_ntk(2, "relu", **options)(x, x[1:])
    assert torch.allclose(found[:, 1:], others, rtol=1e-7)


@pytest.mark.parametrize("pool", [True, False])
def test_networks_of_many_channels_near_the_limit(pool):
    """torch's convolutions, each parameter's kernel times the square of what scales it."""
    x, generator = pictures(3, 2, 4, 3), torch.Generator().manual_seed(0)
    limit = infinite.conv_ntk(2, "erf", pool=pool, weight_std=1.2, bias_std=0.3)(x)

    def kernel(channels: int) -> torch.Tensor:
        net = nn.Sequential(
            nn.Conv2d(2, channels, 3, padding=1), Scaled(torch.erf, 1.0),
            nn.Conv2d(channels, channels, 3, padding=1), Scaled(torch.erf, 1.0),
            nn.AdaptiveAvgPool2d(1) if pool else nn.Identity(), nn.Flatten(),
            nn.Linear(channels * (1 if pool else 12), 1),
        ).double()  # fmt: skip
        total = torch.zeros(3, 3, dtype=torch.float64)
        scales = {}
        for name, value in net.named_parameters():
            scales[name] = 1.2 / value[0].numel() ** 0.5 if value.ndim > 1 else 0.3
            draw = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.data = draw * scales[name]
        for name, value in net.named_parameters():
            total += scales[name] ** 2 * ntk(net, x, params={name: value}, trace=True)
        return total

    errors = []
    for channels in (16, 128):
        squares = [((kernel(channels) - limit).norm() / limit.norm()) ** 2 for _ in range(10)]
        errors.append(float(torch.stack(squares).mean().sqrt()))
    assert math.log(errors[1] / errors[0]) / math.log(8) == pytest.approx(-0.5, abs=0.25)
    assert errors[1] < 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth must be 1 or more, got 0"),
        ({"filter_size": 2}, "filter_size must be odd and above 0, got 2"),
        ({"act": "tanh"}, "act must be a function or one of relu, erf, linear, got 'tanh'"),
        ({"weight_std": 0.0}, "weight_std must be above 0"),
    ],
)
def test_bad_convolutions_are_refused(change, message):
    arguments = {"depth": 1, "act": "relu"} | change
    with pytest.raises(ValueError, match=message):
        infinite.conv_ntk(**arguments)
    with pytest.raises(ValueError, match=r"x1 and x2 must be \[N, channels, H, W\]"):
        infinite.conv_nngp(1, "relu")(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2, 2))


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": -1}, "depth must be 0 or more, got -1"),
        ({"act": "tanh"}, "act must be a function or one of relu, erf, linear, got 'tanh'"),
        ({"weight_std": 0.0}, "weight_std must be above 0"),
        ({"bias_std": -1.0}, "bias_std not below"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"depth": 1, "act": "relu"} | change
    with pytest.raises(ValueError, match=message):
        infinite.ntk(**arguments)
    with pytest.raises(ValueError, match=r"x1 and x2 must be \[N, d\]"):
        infinite.ntk(1, "relu")(torch.ones(3), torch.ones(3))


# -- the estimators ----------------------------------------------------------------------------


def test_the_regressor_is_a_network_trained_to_the_end():
    """Gradient flow for a very long time, from outputs of 0, meets the interpolation."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    other = rng.normal(size=(5, 3))
    model = NTKRegressor(depth=1, alpha=0.0, standardize=False).fit(X, y)
    kernel = infinite.ntk(1, "relu", bias_std=0.3)
    train, test = torch.tensor(X) / math.sqrt(3), torch.tensor(other) / math.sqrt(3)
    found = training_outputs(
        kernel(train), torch.zeros(12, dtype=torch.float64), torch.tensor(y) - y.mean(), [1e9],
        lr=1.0, flow=True, cross=kernel(test, train),
        cross_outputs=torch.zeros(5, dtype=torch.float64),
    )[0]  # fmt: skip
    assert np.allclose(model.predict(X), y, atol=1e-7)
    assert np.allclose(model.predict(other), found.numpy() + y.mean(), atol=1e-6)


def test_the_classifier_reads_digits():
    from mmxx.data import digits

    train, test = digits()
    X, other = (part.images.reshape(len(part), -1)[:400] for part in (train, test))
    y, truth = train.labels[:400], test.labels[:400]
    for kernel in ("ntk", "nngp"):
        model = NTKClassifier(kernel=kernel).fit(X, y)
        assert model.score(other, truth) > 0.94
        assert model.decision_function(other).shape == (len(other), 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 1.5}, "depth must be an integer"),
        ({"kernel": "rbf"}, "kernel must be 'ntk' or 'nngp'"),
        ({"alpha": -1}, "alpha must be a number of 0 or more"),
        ({"act": "tanh"}, "act must be a function or one of"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        NTKRegressor(**change).fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(ValueError, match="two classes or more"):
        NTKClassifier().fit([[0.0], [1.0]], [1, 1])
