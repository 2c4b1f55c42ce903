"""Attributions beside the definition: the mean over all orders of the columns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mmxx.tabular.snapboost import SnapBoostClassifier, SnapBoostRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 5))
X[RNG.random(X.shape) < 0.1] = np.nan
X[:, 4] = RNG.integers(0, 4, 150)
FILLED = np.nan_to_num(X)
Y = np.sin(2 * FILLED[:, 0]) * FILLED[:, 1] + (FILLED[:, 2] > 0) + (X[:, 4] == 2)
OPTIONS = {"n_rounds": 12, "n_components": 15, "categorical_features": [4], "random_state": 0}


def by_definition(predict, x, background):
    """Shapley values by all sets of columns, the background averaged over."""
    d = len(x)
    worth = {}
    for size in range(d + 1):
        for chosen in itertools.combinations(range(d), size):
            rows = background.copy()
            rows[:, list(chosen)] = x[list(chosen)]
            worth[chosen] = predict(rows).mean(0)
    found = [0.0] * d
    for j in range(d):
        for chosen in (c for c in worth if j not in c):
            share = math.factorial(len(chosen)) * math.factorial(d - len(chosen) - 1)
            gain = worth[tuple(sorted((*chosen, j)))] - worth[chosen]
            found[j] = found[j] + share / math.factorial(d) * gain
    return np.array(found)


@pytest.mark.parametrize("p_tree", [0.0, 0.6, 1.0])
def test_they_are_the_values_of_the_definition(p_tree):
    model = SnapBoostRegressor(**OPTIONS, p_tree=p_tree, max_max_depth=7).fit(X, Y)
    found = model.attributions(X[:4], X[100:107])
    for row in range(4):
        wanted = by_definition(model.predict, X[row], X[100:107])
        # features are computed in single precision
        assert found.values[row] == pytest.approx(wanted, abs=1e-10 if p_tree == 1 else 1e-5)
    assert np.abs(found.values).max() > 0.1
    total = found.base_values + found.values.sum(1)
    assert total == pytest.approx(model.predict(X[:4]), abs=1e-5)
    assert np.array_equal(found.data, X[:4], equal_nan=True)


def test_three_classes_have_values_each_and_threads_change_no_bit():
    labels = np.digitize(Y, [0, 1])
    model = SnapBoostClassifier(**OPTIONS, p_tree=0.5).fit(X, labels)
    found = model.attributions(X[:3], X[100:105])
    assert found.values.shape == (3, 5, 3)
    wanted = by_definition(model.decision_function, X[1], X[100:105])
    assert found.values[1] == pytest.approx(wanted, abs=1e-5)
    total = found.base_values + found.values.sum(1)
    assert total == pytest.approx(model.decision_function(X[:3]), abs=1e-5)
    again = model.set_params(n_jobs=2).attributions(X[:3], X[100:105])
    assert np.array_equal(found.values, again.values)


def test_a_background_without_a_row_is_refused():
    model = SnapBoostRegressor(**{**OPTIONS, "n_rounds": 2}).fit(X, Y)
    with pytest.raises(ValueError, match="background must have 1 row or more, got none"):
        model.attributions(X[:2], X[:0])
    assert model.attributions(X[:0], X[:3]).values.shape == (0, 5)
