"""Densities that a flow learns from samples, and the formulas of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmxx.discovery.feynman import AIFeynmanRegressor, fit_density
from mmxx.discovery.feynman.own import read_samples


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, size=800)
    return np.column_stack([x, rng.logistic(0.5 * x, 0.3)])


@pytest.fixture(scope="module")
def density(samples):
    before = torch.get_rng_state()
    density = fit_density(samples, steps=60, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    return density


def test_a_density_sums_to_one(density):
    x, y = np.meshgrid(np.linspace(-9, 15, 150), np.linspace(-8, 12, 150), indexing="ij")
    p = np.exp(density.log_density(np.column_stack([x.ravel(), y.ravel()])))
    assert p.sum() * (24 / 149) * (20 / 149) == pytest.approx(1, abs=0.01)


def test_a_density_is_learnt(samples, density):
    z = (samples[:, 1] - 0.5 * samples[:, 0]) / 0.3
    normal = -np.square((samples[:, 0] - 3) / 2) / 2 - np.log(2 * np.sqrt(2 * np.pi))
    truth = normal - z - 2 * np.log1p(np.exp(-z)) - np.log(0.3)
    lost = truth.mean() - density.log_density(samples).mean()
    assert -0.05 < lost < 0.1  # nats, by the divergence of Kullback and Leibler
    same = fit_density(samples, steps=2, seed=1).log_density(samples)
    assert np.array_equal(same, fit_density(samples, steps=2, seed=1).log_density(samples))


def test_its_formula_is_found():
    samples = np.random.default_rng(0).gamma(2.0, size=(1000, 1))
    X, y = fit_density(samples, steps=100).table(samples, rows=300)
    model = AIFeynmanRegressor(max_formulas=5000, network=False).fit(X, y)
    assert any(f.text in ("x0*exp(-x0)", "x0/exp(x0)") for f in model.frontier_)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(60), r"samples must be \[50 or more, columns\], got \[60\]"),
        (np.full((60, 1), np.nan), "samples must be finite, got 60 rows that are not"),
        (np.ones((60, 2)), "samples must vary, column 0 is constant"),
    ],
)
def test_samples_that_do_not_do_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        fit_density(samples)


def test_a_table_of_words_has_no_density():
    class Words:
        numeric = ()

    with pytest.raises(ValueError, match="density needs a column of numbers"):
        read_samples(Words(), 1, 0)
