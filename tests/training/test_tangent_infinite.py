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
