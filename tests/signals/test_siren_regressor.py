"""The regressor among scikit-learn's tools."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmxx.signals.siren import SirenRegressor


def _wave(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    X = np.linspace(5.0, 7.0, n)[:, None]
    return X, 100 + 3 * np.sin(12 * X[:, 0])


def _small(**changes: object) -> SirenRegressor:
    settings = {
        "hidden_features": 24,
        "hidden_layers": 1,
        "max_iter": 80,
        "lr": 2e-3,
        "random_state": 0,
        **changes,
    }
    return SirenRegressor(**settings)  # type: ignore[arg-type]


def test_fits_between_the_samples() -> None:
    X, y = _wave()
    model = _small(first_omega_0=15.0).fit(X[::2], y[::2])
    assert model.score(X[1:-1:2], y[1:-1:2]) > 0.99
    assert model.predict(X).dtype == np.float64
    assert len(model.losses_) == model.n_iter_ == 80
    assert model.n_features_in_ == 1


def test_several_targets_and_units_do_not_matter() -> None:
    X, y = _wave()
    both = np.stack([y, np.cos(5 * X[:, 0])], axis=1)
    model = _small().fit(X, both)
    assert model.predict(X).shape == (80, 2)
    assert model.score(X, both) > 0.99
    scaled = _small().fit(1000 * X - 3, 1e-4 * both + 7).predict(1000 * X - 3)
    assert np.allclose((scaled - 7) * 1e4, model.predict(X), atol=0.05)
    column = _small().fit(X, y[:, None])
    assert column.predict(X).shape == (80, 1)


def test_in_a_pipeline_and_a_grid_search() -> None:
    X, y = _wave(60)
    shuffled = np.random.default_rng(0).permutation(60)
    X, y = X[shuffled], y[shuffled]
    pipeline = make_pipeline(StandardScaler(), _small(max_iter=50))
    search = GridSearchCV(pipeline, {"sirenregressor__first_omega_0": [0.01, 8.0]}, cv=2)
    search.fit(X, y)
    assert search.best_params_ == {"sirenregressor__first_omega_0": 8.0}
    assert search.best_score_ > 0.9
    assert cross_val_score(_small(max_iter=50, first_omega_0=8.0), X, y, cv=2).min() > 0.9


def test_clones_and_repetitions() -> None:
    X, y = _wave(40)
    model = _small(batch_size=16, max_iter=10).fit(X, y)
    twin = clone(model)
    assert not hasattr(twin, "net_")
    assert twin.get_params() == model.get_params()
    assert np.array_equal(twin.fit(X, y).predict(X), model.predict(X))
    assert not np.array_equal(clone(model).set_params(random_state=1).fit(X, y).predict(X), y)
    generator = np.random.RandomState(0)
    first = _small(max_iter=2, random_state=generator).fit(X, y).predict(X)
    second = _small(max_iter=2, random_state=generator).fit(X, y).predict(X)
    assert not np.array_equal(first, second)


def test_a_prediction_does_not_depend_on_its_neighbours() -> None:
    X, y = _wave(40)
    model = _small(max_iter=10).fit(X, y)
    together = model.predict(X)
    alone = np.concatenate([model.predict(x[None]) for x in X])
    assert np.allclose(together, alone, rtol=1e-12, atol=0)


def test_constant_inputs_and_targets() -> None:
    X, y = _wave(20)
    constant = _small(max_iter=300, first_omega_0=1.0).fit(X, np.full(20, 7.0))
    assert np.allclose(constant.predict(X), 7.0, atol=0.02)
    wide = np.hstack([X, np.full((20, 1), 3.0)])
    assert np.isfinite(_small(max_iter=5).fit(wide, y).predict(wide)).all()


def test_bad_input_is_refused() -> None:
    X, y = _wave(20)
    for name, bad in (
        ("max_iter", 0),
        ("omega_0", 0.0),
        ("first_omega_0", -1.0),
        ("batch_size", 0),
        ("lr", math.nan),
        ("hidden_features", 0),
    ):
        with pytest.raises(ValueError, match=name):
            _small(**{name: bad}).fit(X, y)
    with pytest.raises(ValueError, match="NaN"):
        _small().fit(np.where(X > 6, np.nan, X), y)
    with pytest.raises(ValueError, match="inconsistent"):
        _small().fit(X, y[:10])
    with pytest.raises(NotFittedError):
        _small().predict(X)
    with pytest.raises(ValueError, match="features"):
        _small(max_iter=1).fit(X, y).predict(np.hstack([X, X]))
    with pytest.raises(FloatingPointError, match=r"lr=1e\+30"):
        _small(lr=1e30).fit(X, y)
