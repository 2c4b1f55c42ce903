"""Tuning by successive halving: bad settings are given up after few rounds, good ones go on."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state

from mmxx.tabular.snapboost.boosting import SnapBoost
from mmxx.tabular.snapboost.inputs import check_number
from mmxx.tabular.snapboost.tree import Map


def sample_space(source: Any) -> dict[str, Any]:
    """Parameters at random, from the distribution that the paper tunes over.

    Args:
        source: A numpy Generator, or a trial of Optuna or whatever has its ``suggest_float`` and
            ``suggest_int``.

    Returns:
        Arguments for `SnapBoostRegressor` and `SnapBoostClassifier`.

    Example:
        >>> drawn = sample_space(np.random.default_rng(0))
        >>> drawn["min_max_depth"] <= drawn["max_max_depth"]
        True
    """
    trial = _Trial(source) if isinstance(source, np.random.Generator) else source
    deepest = trial.suggest_int("max_max_depth", 1, 8)
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "max_max_depth": deepest,
        "min_max_depth": trial.suggest_int("min_max_depth", 1, deepest),
        "p_tree": trial.suggest_float("p_tree", 0.5, 1.0),
        "l2": trial.suggest_float("l2", 0.01, 100.0, log=True),
        "gamma": trial.suggest_float("gamma", 0.001, 1.0, log=True),
        "alpha": trial.suggest_float("alpha", 0.001, 100.0, log=True),
        "n_components": trial.suggest_int("n_components", 10, 1000, log=True),
    }


@dataclass(frozen=True)
class _Trial:
    """A numpy generator with the two methods of a trial that are needed."""

    rng: np.random.Generator

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if log:
            return math.exp(self.rng.uniform(math.log(low), math.log(high)))
        return float(self.rng.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        if log:
            return round(self.suggest_float(name, low, high, log=True))
        return int(self.rng.integers(low, high + 1))


class _Item(NamedTuple):
    """A task for a worker: to take one fit on one split to more rounds."""

    model: SnapBoost
    X: Any
    y: NDArray[Any]
    train: NDArray[np.int64]
    held: NDArray[np.int64]
    rounds: int
    state: dict[str, Any] | None


def _advance(item: _Item) -> dict[str, Any]:
    """Go on with a fit: its losses on the held-out rows, and its state.

    Args:
        item: What to do.
    """
    machine = item.model.begin(
        _rows(item.X, item.train), item.y[item.train], X_val=_rows(item.X, item.held),
        y_val=item.y[item.held],
    )  # fmt: skip
    if item.state is not None:
        machine.load_state_dict(item.state)
    while machine.rounds < item.rounds:
        machine.step()
    return {"losses": list(machine.validation_loss), "state": machine.state_dict()}


def _rows(X: Any, chosen: NDArray[np.int64]) -> Any:
    return X.iloc[chosen] if hasattr(X, "iloc") else X[chosen]


@dataclass(frozen=True)
class Trial:
    """One set of parameters.

    Attributes:
        parameters: For ``set_params``, with the best number of rounds so far as ``n_rounds``.
        rounds: How far it was taken.
        loss: Mean loss on the held-out rows at its best round.
    """

    parameters: dict[str, Any]
    rounds: int
    loss: float


@dataclass(frozen=True)
class Tuning:
    """What came of tuning.

    Attributes:
        trials: All of them, in the order in which they were drawn.
        best: The one of least loss among those that were taken to the end.
    """

    trials: list[Trial]
    best: Trial


def tune(
    model: SnapBoost,
    X: Any,
    y: ArrayLike,
    *,
    n_candidates: int = 27,
    factor: int = 3,
    min_rounds: int | None = None,
    cv: Any = None,
    space: Callable[[Any], dict[str, Any]] = sample_space,
    random_state: Any = None,
    map: Map = builtins.map,
) -> Tuning:
    """Choose parameters by successive halving over rounds.

    All candidates are fitted for ``min_rounds``; the best one in ``factor`` goes on to ``factor``
    times as many, from where it stood, and so on up to the model's ``n_rounds``. Candidates are
    compared by the loss at their best round, equal ones by their order.

    Args:
        model: What to tune, unfitted; its other parameters stay.
        X: An array [n, d] or a data frame of pandas.
        y: Targets [n].
        n_candidates: How many sets of parameters are drawn.
        factor: 2 or more; 1 takes all to the end, which is random search.
        min_rounds: Rounds before the first choice; a ninth of ``n_rounds`` by default.
        cv: As in scikit-learn: a number of folds, a splitter, or pairs of indices; 5 folds by
            default. Losses are means over splits.
        space: A function as `sample_space`, of a numpy Generator.
        random_state: Seed or RandomState of candidates and fits.
        map: What to spread fits with; the result is the same for every map.

    Returns:
        The trials, and the best; ``model.set_params(**tuning.best.parameters)`` takes it over.

    Raises:
        ValueError: A parameter out of range, or what `SnapBoostRegressor.fit` refuses.

    Source: Parnell et al. (2020), section 5, tune by successive halving; Jamieson and Talwalkar
    (2016).

    Example:
        >>> from mmxx.tabular.snapboost import SnapBoostRegressor
        >>> X = np.random.default_rng(0).uniform(size=(120, 2))
        >>> model = SnapBoostRegressor(n_rounds=18)
        >>> tuning = tune(model, X, X[:, 0], n_candidates=4, cv=2, random_state=0)
        >>> [trial.rounds for trial in tuning.trials].count(18)
        1
    """
    check_number("n_candidates", n_candidates, 1, whole=True)
    check_number("factor", factor, 1, whole=True)
    check_number("n_rounds", model.n_rounds, 1, whole=True)
    if min_rounds is not None and (
        not isinstance(min_rounds, Integral) or not 1 <= min_rounds <= model.n_rounds
    ):
        raise ValueError(
            f"min_rounds must be None or 1 to n_rounds={model.n_rounds}, got {min_rounds!r}"
        )
    if not hasattr(X, "iloc"):
        X = np.asarray(X)
    y = np.asarray(y)
    random = check_random_state(random_state)
    rng = np.random.default_rng(random.randint(2**31 - 1, size=4))
    drawn = [space(rng) for _ in range(n_candidates)]
    fixed = {"early_stopping": False, "warm_start": False}
    copies: list[Any] = [clone(model) for _ in drawn]
    models = [
        copy.set_params(**one, **fixed, random_state=int(seed))
        for copy, one, seed in zip(
            copies, drawn, random.randint(2**31 - 1, size=n_candidates), strict=True
        )
    ]
    splitter: Any = check_cv(cv, y, classifier=is_classifier(model))
    splits = list(splitter.split(X, y))
    states: dict[tuple[int, int], dict[str, Any] | None] = {}
    losses: dict[int, NDArray[np.float64]] = {}
    alive = list(range(n_candidates))
    for rounds in _rungs(model.n_rounds, factor, min_rounds):
        places = [(k, s) for k in alive for s in range(len(splits))]
        items = [
            _Item(models[k], X, y, splits[s][0], splits[s][1], rounds, states.get((k, s)))
            for k, s in places
        ]
        found: dict[int, list[list[float]]] = {}
        for (k, s), result in zip(places, map(_advance, items), strict=True):
            states[k, s] = result["state"]
            found.setdefault(k, []).append(result["losses"])
        losses |= {k: np.mean(of, axis=0) for k, of in found.items()}
        alive.sort(key=lambda k: (losses[k].min(), k))
        if rounds < model.n_rounds:
            alive = alive[: math.ceil(len(alive) / factor)]
    trials = [
        Trial(
            one | {"n_rounds": max(1, int(losses[k].argmin()))}, losses[k].size - 1,
            float(losses[k].min()),
        )
        for k, one in enumerate(drawn)
    ]  # fmt: skip
    return Tuning(trials, trials[alive[0]])


def _rungs(n_rounds: int, factor: int, min_rounds: int | None) -> list[int]:
    """After how many rounds candidates are compared."""
    if factor == 1:
        return [n_rounds]
    least = max(1, n_rounds // 9) if min_rounds is None else min_rounds
    found = [n_rounds]
    while found[-1] // factor >= least:
        found.append(found[-1] // factor)
    return found[::-1]
