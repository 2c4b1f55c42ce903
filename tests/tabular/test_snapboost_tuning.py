"""Tuning: the space, the halving, and that it is the fits that one would make by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, ShuffleSplit

from mmxx.tabular.snapboost import SnapBoostClassifier, SnapBoostRegressor, sample_space, tune

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = np.sin(2 * X[:, 0]) + (X[:, 1] > 0)
MODEL = SnapBoostRegressor(n_rounds=18, n_components=10)
ONE = ShuffleSplit(1, test_size=0.3, random_state=0)


def small(rng):
    return sample_space(rng) | {"n_components": int(rng.integers(5, 20))}


class Recorder:
    """A trial as Optuna has them."""

    def __init__(self):
        self.asked = {}

    def suggest_float(self, name, low, high, *, log=False):
        self.asked[name] = (low, high, log)
        return low

    def suggest_int(self, name, low, high, *, log=False):
        self.asked[name] = (low, high, log)
        return high


def test_the_space_is_the_papers_by_either_source():
    trial = Recorder()
    of_trial = sample_space(trial)
    assert trial.asked["learning_rate"] == (0.01, 0.3, True)
    assert of_trial["min_max_depth"] == of_trial["max_max_depth"] == 8
    rng = np.random.default_rng(0)
    draws = [sample_space(rng) for _ in range(300)]
    assert all(one.keys() == trial.asked.keys() for one in draws)
    assert all(1 <= one["min_max_depth"] <= one["max_max_depth"] <= 8 for one in draws)
    assert 0.5 <= min(one["p_tree"] for one in draws) < 0.55
    below = np.mean([one["learning_rate"] < np.sqrt(0.01 * 0.3) for one in draws])
    assert 0.4 < below < 0.6  # half of them below the geometric mean
    SnapBoostRegressor(**draws[0])


def test_the_best_goes_on_and_has_the_losses_of_a_straight_fit():
    tuning = tune(MODEL, X, Y, n_candidates=7, cv=ONE, space=small, random_state=3)
    assert sorted(trial.rounds for trial in tuning.trials) == [2, 2, 2, 2, 6, 6, 18]
    assert tuning.best.rounds == 18
    ((train, held),) = ONE.split(X)
    least = []
    for seed, trial in zip(seeds_of(3, 7), tuning.trials, strict=True):
        straight = clone(MODEL).set_params(**trial.parameters, random_state=seed)
        straight.set_params(n_rounds=trial.rounds)
        straight.fit(X[train], Y[train], X_val=X[held], y_val=Y[held])
        assert trial.loss == straight.validation_loss_.min()
        least.append(straight.validation_loss_[:3].min())
        assert trial.parameters["n_rounds"] == max(1, straight.validation_loss_.argmin())
    went_on = [k for k, trial in enumerate(tuning.trials) if trial.rounds > 2]
    assert sorted(went_on) == sorted(np.argsort(least, kind="stable")[:3])
    assert clone(MODEL).set_params(**tuning.best.parameters).fit(X, Y).score(X, Y) > 0.5


def seeds_of(state, count):
    random = np.random.RandomState(state)
    random.randint(2**31 - 1, size=4)
    return random.randint(2**31 - 1, size=count).tolist()


def test_it_is_the_same_for_every_map_and_random_search_takes_all_to_the_end():
    options = {"n_candidates": 3, "cv": KFold(2), "space": small, "random_state": 0}
    one = tune(MODEL, X, Y, factor=1, **options)
    assert [trial.rounds for trial in one.trials] == [18] * 3
    assert one.best == min(one.trials, key=lambda trial: trial.loss)
    with ThreadPoolExecutor(2) as pool:
        assert tune(MODEL, X, Y, factor=1, map=pool.map, **options) == one


def test_classes_and_data_frames_are_taken():
    frame = pd.DataFrame({"a": X[:, 0], "b": pd.Categorical(np.where(X[:, 1] > 0, "x", "y"))})
    labels = np.where(Y > 0.5, "high", "low")
    model = SnapBoostClassifier(n_rounds=4)
    tuning = tune(model, frame, labels, n_candidates=2, cv=2, space=small, random_state=0)
    assert tuning.best.loss < np.log(2)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="n_candidates must be a whole number of at least 1"):
        tune(MODEL, X, Y, n_candidates=0)
    with pytest.raises(ValueError, match="factor must be a whole number of at least 1, got 0"):
        tune(MODEL, X, Y, factor=0)
    with pytest.raises(ValueError, match="min_rounds must be None or 1 to n_rounds=18, got 19"):
        tune(MODEL, X, Y, min_rounds=19)
