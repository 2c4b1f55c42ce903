"""SnakeRegressor: continuing series, gaps, dates, refusals, repeatability."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmxx.signals.snake import SnakeRegressor
from mmxx.signals.snake.fitting import Frame, Job, begin, fit
from mmxx.signals.snake.selection import Choice

SMALL = {"hidden": (32, 32), "max_iter": 150, "lr": 3e-3, "random_state": 0}
TINY = {"hidden": (4,), "max_iter": 3, "random_state": 0}
T = np.arange(96.0)
PAST, FUTURE = T[:60], T[60:]


def wave(t, period=12.0):
    return np.sin(2 * np.pi * t / period + 0.3)


def noisy(t, period=12.0, noise=0.05):
    return wave(t, period) + noise * np.random.default_rng(0).normal(size=len(t))


def mse(one, other):
    return float(np.mean((one - other) ** 2))


def rivals_error(activation):
    """A network of another activation on the same series, with the same budget."""
    job = Job(
        PAST[:, None],
        noisy(PAST)[:, None],
        series=[0],
        choices=[Choice(None, 1.0)],
        seeds=[0],
        activation=activation,
        hidden=SMALL["hidden"],
        steps=SMALL["max_iter"],
        lr=SMALL["lr"],
    )
    return mse(fit(job)[0].predict(FUTURE[:, None])[:, 0], wave(FUTURE))


@pytest.fixture(scope="module")
def fitted():
    """Continuing a sine that is a little noisy."""
    return SnakeRegressor(**SMALL).fit(PAST, noisy(PAST))


# -- continuing a series -----------------------------------------------------------------------


def test_it_continues_a_sine_and_relu_and_tanh_do_not(fitted):
    error = mse(fitted.predict(FUTURE), wave(FUTURE))
    assert error < 0.05
    assert error < 0.1 * rivals_error("relu")
    assert error < 0.1 * rivals_error("tanh")
    assert mse(fitted.predict(PAST), wave(PAST)) < 0.01


def test_it_tells_the_period_and_its_a(fitted):
    assert fitted.period_ == pytest.approx(12, rel=0.01)
    assert fitted.a_ == pytest.approx(math.pi * (59 / 2) / fitted.period_)
    assert isinstance(fitted.a_, float)
    assert isinstance(fitted.period_, float)
    assert (fitted.n_dropped_, fitted.n_iter_, fitted.n_features_in_) == (0, 150, 1)


def test_score_is_r2(fitted):
    rest = np.square(fitted.predict(FUTURE) - wave(FUTURE)).sum()
    total = np.square(wave(FUTURE) - wave(FUTURE).mean()).sum()
    assert fitted.score(FUTURE[:, None], wave(FUTURE)) == pytest.approx(1 - rest / total)


def test_predicting_takes_any_order_and_one_stamp(fitted):
    backwards = fitted.predict(FUTURE[::-1])
    assert np.allclose(backwards[::-1], fitted.predict(FUTURE), rtol=1e-12)
    assert fitted.predict([70]) == pytest.approx(fitted.predict(FUTURE)[10:11])
    assert np.allclose(fitted.predict(FUTURE[:, None]), fitted.predict(FUTURE))
    assert fitted.predict(FUTURE).dtype == np.float64


def test_a_trend_goes_on():
    y = 5 + 0.3 * PAST + noisy(PAST)
    model = SnakeRegressor(**SMALL).fit(PAST, y)
    wanted = 5 + 0.3 * FUTURE + wave(FUTURE)
    assert model.period_ == pytest.approx(12, rel=0.01)
    assert mse(model.predict(FUTURE), wanted) < 0.1
    assert mse(y.mean(), wanted) > 50


def test_many_series_are_those_alone():
    periods = [12.0, 10.0]
    y = np.stack([(k + 1) * noisy(PAST, p) for k, p in enumerate(periods)], 1)
    model = SnakeRegressor(**SMALL).fit(PAST, y)
    predicted = model.predict(FUTURE)
    assert predicted.shape == (36, 2)
    assert model.a_.shape == model.period_.shape == model.n_dropped_.shape == (2,)
    assert model.period_ == pytest.approx(periods, rel=0.01)
    for k, period in enumerate(periods):
        # their mean would be off by 0.5
        assert mse(predicted[:, k] / (k + 1), wave(FUTURE, period)) < 0.2
    tiny, first = (SnakeRegressor(**TINY).fit(PAST, part) for part in (y, y[:, 0]))
    assert np.allclose(first.predict(FUTURE), tiny.predict(FUTURE)[:, 0], atol=1e-4)
    column = SnakeRegressor(**TINY).fit(PAST, y[:, :1])
    assert column.predict(FUTURE).shape == (36, 1)


def test_series_are_spread_in_groups_of_eight_by_the_callers_map():
    calls = []

    def backwards(function, tasks):
        calls.append(len(tasks))
        done = {k: function(tasks[k]) for k in reversed(range(len(tasks)))}
        return [done[k] for k in range(len(tasks))]

    y = np.stack([wave(PAST, 5 + k) for k in range(10)], 1)
    spread = SnakeRegressor(**TINY).fit(PAST, y, map=backwards)
    plain = SnakeRegressor(**TINY).fit(PAST, y)
    assert calls == [2]
    assert np.array_equal(spread.predict(FUTURE), plain.predict(FUTURE))
    assert np.array_equal(spread.a_, plain.a_)


def test_a_given_is_kept_and_has_its_period():
    model = SnakeRegressor(**{**TINY, "a": 7.5}).fit(PAST, wave(PAST))
    assert model.a_ == 7.5
    assert model.period_ == pytest.approx(math.pi * 29.5 / 7.5)
    assert SnakeRegressor(**{**TINY, "a": 0.0}).fit(PAST, wave(PAST)).period_ == math.inf
    with_minus = SnakeRegressor(**{**TINY, "a": -7.5}).fit(PAST, wave(PAST))
    assert with_minus.period_ == model.period_


def test_the_best_of_several_restarts_stays():
    y = wave(PAST)
    options = {**TINY, "hidden": (8,), "max_iter": 30, "a": 5.0}
    errors = {}
    for restarts in (1, 4):
        model = SnakeRegressor(**{**options, "n_restarts": restarts}).fit(PAST, y)
        errors[restarts] = mse(model.predict(PAST), y)
    assert errors[4] < errors[1]


def test_a_table_is_fitted_too():
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (120, 2))
    y = np.sin(2 * X[:, 0]) + X[:, 1]
    model = SnakeRegressor(**{**SMALL, "hidden": (24, 24)}).fit(X[:90], y[:90])
    assert model.a_ in (0.2, 1.0, 5.0)
    assert math.isnan(model.period_)
    assert model.score(X[90:], y[90:]) > 0.95


def test_without_scaling_the_axis_is_taken_as_it_is():
    model = SnakeRegressor(**{**TINY, "standardize": False, "a": 2.0}).fit(PAST, wave(PAST))
    assert model.period_ == pytest.approx(math.pi / 2)


# -- what series are like ----------------------------------------------------------------------


def test_times_that_do_not_increase_are_refused_where_they_are():
    t = PAST.copy()
    t[7] = t[6]
    with pytest.raises(ValueError, match="stamp 7 repeats the one before: 6, then 6"):
        SnakeRegressor(**TINY).fit(t, wave(PAST))
    t[7] = 2
    with pytest.raises(ValueError, match="stamp 7 goes back: 6, then 2"):
        SnakeRegressor(**TINY).fit(t, wave(PAST))


def test_one_column_may_be_unsorted_and_repeat_itself():
    order = np.random.default_rng(0).permutation(60)
    y = wave(PAST)
    sorted_ = SnakeRegressor(**TINY).fit(PAST[:, None], y)
    shuffled = SnakeRegressor(**TINY).fit(PAST[order, None], y[order])
    assert np.array_equal(sorted_.predict(FUTURE), shuffled.predict(FUTURE))
    twice = np.repeat(PAST, 2)
    model = SnakeRegressor(**TINY).fit(twice[:, None], wave(twice))
    assert model.period_ == pytest.approx(12, rel=1e-3) or math.isnan(model.period_)
    assert np.isfinite(model.predict(FUTURE)).all()


def test_gaps_are_left_out_and_counted():
    y = np.stack([noisy(PAST), noisy(PAST)], 1)
    gaps = [3, 4, 5, 17, 33]
    y[gaps, 1] = math.nan
    kept = y.copy()
    both = SnakeRegressor(**TINY).fit(PAST, y)
    assert both.n_dropped_.tolist() == [0, 5]
    assert np.array_equal(y, kept, equal_nan=True)
    model = SnakeRegressor(**{**SMALL, "random_state": 1}).fit(PAST, y[:, 1])
    assert model.n_dropped_ == 5
    assert isinstance(model.n_dropped_, int)
    assert model.period_ == pytest.approx(12, rel=0.01)
    assert mse(model.predict(FUTURE), wave(FUTURE)) < 0.2


def test_a_gap_is_as_if_it_were_not_there():
    options = {**TINY, "a": 5.0, "max_iter": 20}
    y = wave(PAST)
    y[[10, 30]] = math.nan
    there = np.isfinite(y)
    with_gaps = SnakeRegressor(**options).fit(PAST, y)
    without = SnakeRegressor(**options).fit(PAST[there], y[there])
    assert np.allclose(with_gaps.predict(FUTURE), without.predict(FUTURE), atol=1e-4)


def test_a_series_of_one_value_is_none():
    y = np.stack([wave(PAST), np.full(60, math.nan)], 1)
    y[5, 1] = 1.0
    with pytest.raises(ValueError, match="every series needs two values, got 1 in series 1"):
        SnakeRegressor(**TINY).fit(PAST, y)


def test_integer_dates_and_dates_are_days():
    days = np.datetime64("2019-12-20") + np.arange(40)
    whole = np.array([int(str(day).replace("-", "")) for day in days])
    y = wave(np.arange(40.0), 7)
    models = [SnakeRegressor(**TINY).fit(t, y) for t in (days, whole, whole.tolist())]
    numbers = SnakeRegressor(**TINY).fit(np.arange(40), y)
    later = days[-1] + np.arange(1, 9)
    wanted = numbers.predict(np.arange(40, 48))
    for model in models:
        assert model.a_ == pytest.approx(numbers.a_, rel=1e-6)
        assert np.allclose(model.predict(later), wanted, atol=1e-4)
    with pytest.raises(ValueError, match="stamps as days, and predict as numbers"):
        models[0].predict([1, 2, 3])
    with pytest.raises(ValueError, match="stamps as numbers, and predict as days"):
        numbers.predict(later)


@pytest.mark.parametrize("value", [0.0, 3.5, -1e9])
def test_a_constant_stays(value):
    model = SnakeRegressor(**TINY).fit(PAST, np.full(60, value))
    assert np.allclose(model.predict(FUTURE), value, rtol=1e-9, atol=1e-12)
    assert math.isnan(model.period_)


def test_a_line_stays():
    model = SnakeRegressor(**TINY).fit(PAST, 4 - 2 * PAST)
    assert np.allclose(model.predict(FUTURE), 4 - 2 * FUTURE, rtol=1e-9)


def test_less_than_two_periods_warns():
    with pytest.warns(UserWarning, match="fewer than 2 periods.*not identifiable"):
        SnakeRegressor(**TINY).fit(PAST, wave(PAST, 50))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_shortest_series(n):
    model = SnakeRegressor(**TINY).fit(PAST[:n], np.arange(n) ** 2.0)
    assert np.isfinite(model.predict(FUTURE)).all()


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("a", "auto"),
        ("a", math.nan),
        ("a", math.inf),
        ("a", None),
        ("hidden", ()),
        ("hidden", (8, 0)),
        ("hidden", (2.5,)),
        ("n_restarts", 0),
        ("max_iter", 0),
        ("max_iter", 2.5),
        ("lr", 0.0),
        ("lr", -1.0),
        ("lr", math.inf),
        ("lr", "fast"),
    ],
)
def test_bad_arguments_name_themselves(option, value):
    model = SnakeRegressor(**{**TINY, option: value})  # stored as it is
    assert model.get_params()[option] is value
    with pytest.raises(ValueError, match=f"^{option} must"):
        model.fit(PAST, wave(PAST))


@pytest.mark.parametrize(
    ("t", "y", "message"),
    [
        (PAST, wave(PAST)[:-1], r"y must have shape \[60\] or \[60, series\].*got \(59,\)"),
        (PAST, np.zeros((60, 2, 2)), "dim 3, while dim <= 2 is required"),
        (np.where(PAST == 3, math.nan, PAST), wave(PAST), "t must be finite, got 1"),
        (np.full((60, 2), math.inf), wave(PAST), "infinity"),
        (PAST, np.where(PAST == 3, math.inf, wave(PAST)), "infinity"),
        (np.array(["a"] * 60), wave(PAST), "t must hold numbers or dates"),
        (PAST[:1], wave(PAST)[:1], "minimum of 2 is required"),
    ],
)
def test_bad_data_is_refused(t, y, message):
    with pytest.raises(ValueError, match=message):
        SnakeRegressor(**TINY).fit(t, y)


def test_predicting_other_columns_is_refused(fitted):
    with pytest.raises(ValueError, match=r"2 features.*expecting 1"):
        fitted.predict(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="t must be finite"):
        fitted.predict([1.0, math.nan])


# -- repeatability -----------------------------------------------------------------------------


def predictions(random_state):
    model = SnakeRegressor(**{**TINY, "random_state": random_state})
    return model.fit(PAST, wave(PAST)).predict(FUTURE)


def test_random_state_repeats_and_matters():
    assert np.array_equal(predictions(1), predictions(1))
    assert not np.array_equal(predictions(1), predictions(2))
    state = np.random.RandomState(1)
    first = predictions(state)
    assert np.array_equal(first, predictions(1))
    assert not np.array_equal(first, predictions(state))


def test_global_generators_are_left_alone():
    def states():
        numpy_state = np.random.get_state()  # noqa: NPY002 - the global state is watched
        return random.getstate(), numpy_state[1].tobytes(), torch.get_rng_state().tolist()

    before = states()
    predictions(0)
    assert states() == before


def test_fitting_again_forgets_the_first_time():
    model = SnakeRegressor(**TINY).fit(PAST, np.stack([wave(PAST)] * 2, 1))
    model.fit(np.datetime64("2020-01-01") + np.arange(60), wave(PAST))
    model.fit(PAST, wave(PAST))
    assert np.array_equal(model.predict(FUTURE), predictions(0))


def test_clone_pipeline_and_search():
    model = SnakeRegressor(**TINY)
    assert clone(model).get_params() == model.get_params()
    X = PAST[:, None]
    pipeline = make_pipeline(StandardScaler(), model).fit(X, wave(PAST))
    assert pipeline.predict(FUTURE[:, None]).shape == (36,)
    search = GridSearchCV(model, {"a": [0.2, 5.0]}, cv=2).fit(X, wave(PAST))
    assert search.best_params_["a"] in (0.2, 5.0)


# -- coordinates -------------------------------------------------------------------------------


def test_frame_goes_there_and_back():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(3, 9, (30, 2)), 100 * rng.normal(size=(30, 3))
    y[4, 1] = math.nan
    frame = Frame.of(x, y)
    targets = frame.targets(x, y)
    assert np.allclose(np.nanmean(targets, 0), 0, atol=1e-12)
    assert np.allclose(np.nanmean(targets**2, 0), 1)
    points = frame.points(x)
    assert np.allclose([points.min(0), points.max(0)], [[-1, -1], [1, 1]])
    back = frame.values(x, targets[:, [2, 0, 1]], [2, 0, 1])
    assert np.allclose(back, y[:, [2, 0, 1]], equal_nan=True)
    same = Frame.of(x, y, standardize=False)
    assert np.array_equal(same.points(x), x)
    assert np.array_equal(same.targets(x, y), y, equal_nan=True)


def test_half_of_the_first_layer_starts_at_the_cycle():
    job = Job(
        PAST[:, None], wave(PAST)[:, None], series=[0], choices=[Choice(12.0, math.nan)], seeds=[3]
    )
    networks = begin(job).networks
    first = networks.weights[0].detach()[0, 0]
    assert (first[::2].abs() == 1).all()
    assert (first[1::2].abs() < 1).all()
    assert networks.snakes[0].a.detach().flatten()[0] == pytest.approx(math.pi * 29.5 / 12)
