"""Boosting of other libraries with a search of its own, to stand beside ours."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, NamedTuple

import numpy as np

from mmxx.tabular.snapboost.problems import Problem, Split

SCIKIT_LEARN, LIGHTGBM = "HistGradientBoosting", "LightGBM"


class Search(NamedTuple):
    """A task for a worker: one library on one split of a table."""

    library: str
    problem: Problem
    split: Split
    settings: int
    rounds: int
    seed: int


def available() -> list[str]:
    """The libraries that are installed."""
    return [SCIKIT_LEARN] + [LIGHTGBM] * (importlib.util.find_spec("lightgbm") is not None)


def search(task: Search) -> float:
    """The test loss of the best of some random settings by the validation rows."""
    rng = np.random.default_rng(task.seed)
    X, y, parts = task.problem.X, task.problem.y, task.split
    best: tuple[float, float] = (np.inf, np.inf)
    for _ in range(task.settings):
        rate, l2 = np.exp(rng.uniform(np.log([0.03, 0.01]), np.log([0.4, 100])))
        depth, least = int(rng.integers(1, 8)), int(np.exp(rng.uniform(0, np.log(20))))
        make = _scikit_learn if task.library == SCIKIT_LEARN else _lightgbm
        model = make(task.problem.task, float(rate), float(l2), depth, least, task.rounds)
        model.fit(X[parts.train], y[parts.train])
        staged = _staged(task, model)
        stages = list(staged(X[parts.validation]))
        losses = [_loss(task, y[parts.validation], stage) for stage in stages]
        place = int(np.argmin(losses))
        if losses[place] < best[0]:
            test = list(staged(X[parts.test]))[place]
            best = losses[place], _loss(task, y[parts.test], test)
    return best[1]


def _scikit_learn(task: str, rate: float, l2: float, depth: int, least: int, rounds: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind: Any = (
        HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    )
    return kind(
        learning_rate=rate, l2_regularization=l2, max_depth=depth, min_samples_leaf=least,
        max_leaf_nodes=None, max_iter=rounds, early_stopping=False,
    )  # fmt: skip


def _lightgbm(task: str, rate: float, l2: float, depth: int, least: int, rounds: int) -> Any:
    lightgbm = importlib.import_module("lightgbm")
    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    return kind(
        learning_rate=rate, reg_lambda=l2, max_depth=depth, num_leaves=2**depth,
        min_child_samples=least, n_estimators=rounds, n_jobs=1, verbose=-1, deterministic=True,
        force_col_wise=True,
    )  # fmt: skip


def _staged(task: Search, model: Any) -> Any:
    regression = task.problem.task == "regression"
    if task.library == SCIKIT_LEARN:
        return model.staged_predict if regression else model.staged_predict_proba
    predict = model.booster_.predict
    return lambda X: (predict(X, num_iteration=k + 1, num_threads=1) for k in range(task.rounds))


def _loss(task: Search, y: Any, found: Any) -> float:
    """Mean squared error, or log-loss of two classes."""
    if task.problem.task == "regression":
        return float(np.square(found - y).mean())
    p = np.clip(found[:, 1] if found.ndim == 2 else found, 1e-15, 1 - 1e-15)
    return float(-np.log(np.where(y == 1, p, 1 - p)).mean())
