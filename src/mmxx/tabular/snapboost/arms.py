"""The arms that are compared, each with the same search over its settings."""

from __future__ import annotations

import csv
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmxx.tabular.snapboost.binning import Map
from mmxx.tabular.snapboost.boosting import SnapBoost
from mmxx.tabular.snapboost.estimators import SnapBoostClassifier, SnapBoostRegressor
from mmxx.tabular.snapboost.machine import Machine
from mmxx.tabular.snapboost.problems import Problem, Split
from mmxx.tabular.snapboost.tuning import tune

Array = NDArray[np.float64]
ARMS = ("one depth", "random depth", "mixed", "control", "ridge only")
_DEPTHS = 7
_COMPONENTS = (50, 100, 200, 400)


class Draw(NamedTuple):
    """One configuration, of which every arm takes what it has a use for."""

    learning_rate: float
    l2: float
    min_child_weight: float
    depth: int
    least: int
    p_tree: float
    gamma: float
    alpha: float
    n_components: int


def draws(count: int, rng: np.random.Generator) -> list[Draw]:
    """Configurations at random, the same for every arm."""

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    found = []
    for _ in range(count):
        depth = int(rng.integers(1, _DEPTHS + 1))
        found.append(
            Draw(
                log_uniform(0.03, 0.4),
                log_uniform(0.01, 100),
                log_uniform(1, 20),
                depth,
                int(rng.integers(1, depth + 1)),
                float(rng.uniform(0.3, 1)),
                log_uniform(0.001, 1),
                log_uniform(0.001, 100),
                int(rng.choice(_COMPONENTS)),
            )
        )
    return found


def parameters(arm: str, draw: Draw) -> dict[str, Any]:
    """What a configuration means to an arm."""
    found: dict[str, Any] = {
        "learning_rate": draw.learning_rate, "l2": draw.l2,
        "min_child_weight": draw.min_child_weight, "max_max_depth": draw.depth,
        "min_max_depth": draw.depth if arm == "one depth" else draw.least,
    }  # fmt: skip
    if arm in ("one depth", "random depth"):
        return found | {"p_tree": 1.0}
    share = 0.0 if arm == "ridge only" else draw.p_tree
    return found | {
        "p_tree": share, "gamma": draw.gamma, "alpha": draw.alpha,
        "n_components": draw.n_components,
    }  # fmt: skip


class ShuffledMachine(Machine):
    """The control: ridge rounds that learn from the features of other rows."""

    def ridge_rows(self) -> Array:
        """The rows in another order."""
        return np.random.default_rng(self._seed).permutation(super().ridge_rows())


class ShuffledRegressor(SnapBoostRegressor):
    """Its estimator for regression."""

    _machine = ShuffledMachine


class ShuffledClassifier(SnapBoostClassifier):
    """Its estimator for classification."""

    _machine = ShuffledMachine


def estimator(arm: str, task: str, **options: Any) -> SnapBoost:
    """The unfitted model of an arm."""
    if arm == "control":
        return (ShuffledRegressor if task == "regression" else ShuffledClassifier)(**options)
    return (SnapBoostRegressor if task == "regression" else SnapBoostClassifier)(**options)


class Search(NamedTuple):
    """A task for a worker: one arm on one split of a table, with all its configurations."""

    arm: str
    problem: Problem
    split: Split
    draws: list[Draw]
    rounds: int
    seed: int


def search(task: Search) -> dict[str, Any]:
    """Fit every configuration, choose by validation, and measure on the test rows.

    Returns:
        ``test``, the loss of the chosen one; ``losses``, each one's on the validation rows;
        ``best``, its number; ``rounds``, how many it has; ``tree`` and ``ridge``, the mean squared
        cosines of its two kinds of rounds (None where it has none); ``predicted``, its predictions
        for the test rows, [n] or probabilities [n, classes].
    """
    X, y, parts = task.problem.X, task.problem.y, task.split
    losses, chosen = [], None
    for number, draw in enumerate(task.draws):
        model = estimator(
            task.arm, task.problem.task, n_rounds=task.rounds, early_stopping=True,
            n_rounds_no_change=20, random_state=task.seed + number,
            categorical_features=list(task.problem.categorical), **parameters(task.arm, draw),
        )  # fmt: skip
        model.fit(
            X[parts.train], y[parts.train], X_val=X[parts.validation], y_val=y[parts.validation]
        )
        assert model.validation_loss_ is not None
        losses.append(float(model.validation_loss_.min()))
        if chosen is None or losses[-1] < min(losses[:-1]):
            chosen = model
    assert chosen is not None
    is_tree = np.array([one.kind == "tree" for one in chosen.learners_])
    is_tree = is_tree.reshape(chosen.n_rounds_, -1)[:, 0]
    cosines = {
        kind: float(chosen.cosine_[which].mean()) if which.any() else None
        for kind, which in (("tree", is_tree), ("ridge", ~is_tree))
    }
    return {
        "test": test_loss(chosen, X[parts.test], y[parts.test]),
        "predicted": predictions(chosen, X[parts.test]),
        "losses": losses,
        "best": int(np.argmin(losses)),
        "rounds": chosen.best_round_,
        **cosines,
    }


SHARES = (1.0, 0.95, 0.9, 0.8, 0.65)
_ALIKE = {
    "learning_rate": 0.1, "min_max_depth": 3, "max_max_depth": 3, "l2": 1.0, "gamma": 0.03,
    "alpha": 1.0, "n_components": 200,
}  # fmt: skip


class Sweep(NamedTuple):
    """A task for a worker: one split of a table, with more and more ridges among the rounds."""

    problem: Problem
    split: Split
    rounds: int
    seed: int


def sweep(task: Sweep) -> list[float]:
    """The test losses for each of `SHARES` as ``p_tree``, with nothing else changed."""
    X, y, parts = task.problem.X, task.problem.y, task.split
    found = []
    for share in SHARES:
        model = estimator(
            "mixed", task.problem.task, n_rounds=task.rounds, p_tree=share, early_stopping=True,
            n_rounds_no_change=20, random_state=task.seed, **_ALIKE,
        )  # fmt: skip
        model.fit(
            X[parts.train], y[parts.train], X_val=X[parts.validation], y_val=y[parts.validation]
        )
        found.append(test_loss(model, X[parts.test], y[parts.test]))
    return found


def beside_trees(tasks: list[Sweep], losses: list[list[float]]) -> list[dict[str, Any]]:
    """Rows of a report: for each table and share the mean loss, and its ratio to trees alone."""
    rows = []
    for name in dict.fromkeys(task.problem.name for task in tasks):
        mine = [of for task, of in zip(tasks, losses, strict=True) if task.problem.name == name]
        means = np.mean(mine, axis=0)
        rows += [
            {"table": name, "p_tree": share, "test loss": round(float(mean), 4),
             "ratio": round(float(mean / means[0]), 3)}
            for share, mean in zip(SHARES, means, strict=True)
        ]  # fmt: skip
    return rows


def angles(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a report: rounds and angles of each arm's chosen models, means over its splits."""
    rows = []
    for arm, searched in results.items():
        row: dict[str, Any] = {"arm": arm}
        row["rounds"] = round(float(np.mean([r["rounds"] for r in searched])), 1)
        for kind in ("tree", "ridge"):
            found = [r[kind] for r in searched if r[kind] is not None]
            row[f"cos² of {kind} rounds"] = round(float(np.mean(found)), 3) if found else None
        rows.append(row)
    return rows


def predictions(model: Any, X: Array) -> Array:
    """Predicted targets [n], or probabilities [n, classes]."""
    return model.predict(X) if isinstance(model, SnapBoostRegressor) else model.predict_proba(X)


def test_loss(model: Any, X: Array, y: Array) -> float:
    """Mean squared error, or log-loss."""
    found = predictions(model, X)
    if found.ndim == 1:
        return float(np.square(found - y).mean())
    mine = found[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(-np.log(np.maximum(mine, 1e-15)).mean())


def tuned(
    problem: Problem, candidates: int, rounds: int, seed: int, map: Map
) -> list[dict[str, Any]]:
    """Settings of the mixture by successive halving, those that were taken farthest first.

    Returns:
        For each its ``loss``, ``taken to`` (rounds) and parameters.
    """
    model = estimator(
        "mixed", problem.task, n_rounds=rounds, categorical_features=list(problem.categorical)
    )
    found = tune(model, problem.X, problem.y, n_candidates=candidates, random_state=seed, map=map)
    trials = sorted(found.trials, key=lambda trial: (-trial.rounds, trial.loss))
    return [{"loss": t.loss, "taken to": t.rounds, **t.parameters} for t in trials]


def as_csv(problem: Problem, model: Any) -> str:
    """Targets and predictions for all rows of a table, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    found = predictions(model, problem.X)
    found = found[:, None] if found.ndim == 1 else found
    heads = ["predicted"] if found.shape[1] == 1 else [f"p{k}" for k in range(found.shape[1])]
    writer.writerow(["target", *heads])
    for y, line in zip(problem.y.tolist(), found.tolist(), strict=True):
        writer.writerow([y, *(f"{value:.6g}" for value in line)])
    return text.getvalue()
