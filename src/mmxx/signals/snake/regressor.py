"""SnakeRegressor: continue one or many series, or fit a table, with networks of Snake."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from mmxx.signals.snake.fitting import Fit, Job, Matrix, begin, fit
from mmxx.signals.snake.selection import Choice, pick, propose, read_times, tail_size

_SERIES_PER_TASK = 8
_TABLE_A = (0.2, 1.0, 5.0)  # several columns have no one time axis: no cycle to look for


class _Task(NamedTuple):
    """Some series to fit: what a worker gets."""

    job: Job  # without networks
    seeds: list[list[int]]  # [series][restart]
    a: float | None  # None: choose


def _fit_task(task: _Task) -> tuple[dict[str, NDArray[np.float32]], list[Choice]]:
    """Choose ``a`` for each series and train; the best restart's weights, and the choices."""
    choices = [_choose(task, s) for s in range(task.job.y.shape[1])]
    restarts = len(task.seeds[0])
    trained, losses = fit(_with_networks(task, list(enumerate(choices))))
    best = losses.reshape(-1, restarts).argmin(1)
    rows = torch.arange(len(choices)) * restarts + best
    state = {name: value[rows].numpy() for name, value in trained.networks.state_dict().items()}
    return state, choices


def _with_networks(task: _Task, pairs: Sequence[tuple[int, Choice]]) -> Job:
    """The job with a network for each pair of series and choice, and each restart."""
    triples = [(s, choice, seed) for s, choice in pairs for seed in task.seeds[s]]
    series, choices, seeds = zip(*triples, strict=True)
    return task.job._replace(series=series, choices=choices, seeds=seeds)


def _choose(task: _Task, s: int) -> Choice:
    """The choice that, trained on the first three quarters, does well on the last."""
    if task.a is not None:
        return Choice(None, task.a)
    x, y = task.job.x, task.job.y[:, s]
    there = np.isfinite(y)
    if x.shape[1] == 1:
        proposals = propose(x[there, 0], y[there])
    else:
        proposals = [Choice(None, a) for a in _TABLE_A]
        order = np.random.default_rng(task.seeds[s][0]).permutation(len(x))
        x, y, there = x[order], y[order], there[order]
    head = len(x) - tail_size(len(x))
    if len(proposals) == 1 or there[:head].sum() < 2 or not there[head:].any():
        return proposals[0]
    part = task._replace(job=task.job._replace(x=x[:head], y=y[:head, None]), seeds=[task.seeds[s]])
    trained, _ = fit(_with_networks(part, [(0, choice) for choice in proposals]))
    squares = np.square(trained.predict(x[head:]) - y[head:, None])[there[head:]]
    return proposals[pick(squares.reshape(len(squares), len(proposals), -1).mean(2))]


def _is_axis(X: Any) -> bool:
    """Whether X has one dimension; only lists and their like are converted to find out."""
    return (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) == 1


class SnakeRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""A network of Snake for one or many series, as a scikit-learn estimator.

    For a time axis it proposes ``a`` from the three strongest cycles of a periodogram, each for
    all layers and for the first one with 0.2 in the deeper ones, and 0.2 alone for data without
    a cycle; it decides on the last quarter of the training data, and trains on all of it. Half
    of the units begin at the cycle's frequency. Several columns are fitted as a table, with
    ``a`` from 0.2, 1 and 5 decided on a random quarter.

    Args:
        hidden: Widths of the hidden layers.
        a: ``"cv"``, or a number for the time axis as scaled: with ``standardize``, a cycle of
            period p in training data of length T has $a = \pi T / 2p$. All layers begin at it.
        n_restarts: Networks per series, of which the one with the least training error stays.
        standardize: Scale each column to [-1, 1] on the training data, and let the network
            learn what a least-squares linear part leaves of y, scaled to variance 1.
        max_iter: Steps of Adam over all points.
        lr: First learning rate, falling to 0 by a cosine.
        random_state: Seed or RandomState for the weights, and for the split of a table.

    Attributes:
        a_: Chosen ``a`` on the scaled time axis: a float, or [series].
        period_: Its period in units of the time axis (days for dates); NaN where the choice
            was no cycle, and for tables.
        n_dropped_: Gaps (NaN in y) that were left out: an int, or [series].
        n_features_in_: Columns seen in fit.
        n_iter_: Steps made.

    Example:
        >>> t = np.arange(96.0)
        >>> model = SnakeRegressor(max_iter=300, random_state=0)
        >>> model = model.fit(t[:72], np.sin(2 * np.pi * t[:72] / 12))
        >>> round(model.period_, 2)
        12.0
        >>> model.predict(t[72:]).shape
        (24,)
    """

    n_features_in_: int
    _fit: Fit
    _time_unit: str | None
    _flat: bool

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (64, 64),
        a: float | str = "cv",
        n_restarts: int = 1,
        standardize: bool = True,
        max_iter: int = 1000,
        lr: float = 1e-3,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden = hidden
        self.a = a
        self.n_restarts = n_restarts
        self.standardize = standardize
        self.max_iter = max_iter
        self.lr = lr
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, *, map: Callable[..., Any] = builtins.map
    ) -> SnakeRegressor:
        """Fit one network per series.

        Args:
            X: Time stamps [n], strictly increasing: numbers, ``datetime64``, or integers
                YYYYMMDD. Or a table [n, columns], in any order.
            y: [n], or [n, series]. NaN is a gap: left out and counted.
            map: What to spread groups of eight series with, called as ``map(fn, tasks)``.

        Returns:
            Itself.

        Raises:
            ValueError: A parameter out of range, stamps that do not increase, NaN or infinity
                in X, infinity in y, or a series of fewer than two values.

        Warns:
            UserWarning: The strongest variation of a series is seen less than twice.
        """
        self._check_parameters()
        self._time_unit = None
        if _is_axis(X):
            X = self._stamps(X)
        rules = (
            {"dtype": np.float64, "ensure_min_samples": 2},
            {"dtype": np.float64, "ensure_2d": False, "ensure_all_finite": "allow-nan"},
        )
        checked = validate_data(
            self, cast("Any", X), cast("Any", y), validate_separately=cast("Any", rules)
        )
        x, values = cast("tuple[Matrix, Matrix]", checked)
        if values.ndim > 2 or len(values) != len(x):
            raise ValueError(
                f"y must have shape [{len(x)}] or [{len(x)}, series] to go with X of shape "
                f"{x.shape}, got {values.shape}"
            )
        table = values.reshape(len(values), -1)
        counts = np.isfinite(table).sum(0)
        if counts.min() < 2:
            raise ValueError(
                f"every series needs two values, got {counts.min()} in series {counts.argmin()}"
            )
        self._flat = values.ndim == 1
        self.n_dropped_ = self._one_or_all(len(table) - counts)
        self.n_iter_ = self.max_iter
        order = np.argsort(x[:, 0], kind="stable") if x.shape[1] == 1 else np.arange(len(x))
        self._fit_series(x[order], table[order], map)
        return self

    def _fit_series(self, x: Matrix, y: Matrix, map: Callable[..., Any]) -> None:
        count = y.shape[1]
        base = int(check_random_state(self.random_state).randint(2**31 - 1))
        seeds = [
            np.random.SeedSequence([base, s]).generate_state(self.n_restarts, np.uint64).tolist()
            for s in range(count)
        ]
        job = Job(
            x,
            y,
            series=range(count),
            choices=[Choice(None, 1.0)] * count,
            seeds=[0] * count,
            hidden=tuple(self.hidden),
            steps=self.max_iter,
            lr=self.lr,
            standardize=self.standardize,
        )
        groups = [
            slice(start, start + _SERIES_PER_TASK) for start in range(0, count, _SERIES_PER_TASK)
        ]
        a = None if isinstance(self.a, str) else float(self.a)
        tasks = [_Task(job._replace(y=y[:, group]), seeds[group], a) for group in groups]
        results = list(map(_fit_task, tasks))
        self._fit = begin(job)
        states = [state for state, _ in results]
        self._fit.networks.load_state_dict(
            {name: torch.tensor(np.concatenate([s[name] for s in states])) for name in states[0]}
        )
        choices = [choice for _, some in results for choice in some]
        half = float(self._fit.frame.half[0])
        time_axis = x.shape[1] == 1
        self.a_ = self._one_or_all(np.array([c.scaled(half) for c in choices]))
        self.period_ = self._one_or_all(
            np.array([self._period(c, half) if time_axis else math.nan for c in choices])
        )

    def _period(self, choice: Choice, half: float) -> float:
        if choice.period is not None:
            return choice.period
        if isinstance(self.a, str):
            return math.nan  # the choice was no cycle
        return math.pi * half / abs(choice.a) if choice.a else math.inf

    def _one_or_all(self, values: NDArray[Any]) -> Any:
        return values[0].item() if self._flat else values

    def predict(self, X: ArrayLike) -> Matrix:
        """Predict, or continue, every series.

        Args:
            X: [m] stamps of the kind that ``fit`` got, in any order; or a table [m, columns].

        Returns:
            [m], or [m, series] where y had two dimensions.

        Raises:
            ValueError: X has other columns, or stamps of another kind, than in ``fit``.
        """
        check_is_fitted(self)
        if self.n_features_in_ == 1 and _is_axis(X):
            X = self._stamps(X, fitting=False)
        checked = validate_data(self, cast("Any", X), reset=False, dtype=np.float64)
        predicted = self._fit.predict(cast("Matrix", checked))
        return predicted[:, 0] if self._flat else predicted

    def _stamps(self, t: ArrayLike, *, fitting: bool = True) -> Matrix:
        """Time stamps as a table of one column."""
        times = read_times(t)
        if fitting:
            steps = np.diff(times.values)
            if not (steps > 0).all():
                place = int(np.argmax(steps <= 0)) + 1
                kind = "repeats the one before" if steps[place - 1] == 0 else "goes back"
                raise ValueError(
                    f"time stamps must increase, but stamp {place} {kind}: "
                    f"{times.values[place - 1]:g}, then {times.values[place]:g}. Sort the series "
                    "and merge repeated stamps, or pass X of shape [n, 1]"
                )
            self._time_unit = times.unit
        elif self._time_unit is not None and times.unit != self._time_unit:
            raise ValueError(
                f"fit was given stamps as {self._time_unit}s, and predict as {times.unit}s"
            )
        return times.values[:, None]

    def _check_parameters(self) -> None:
        hidden = list(self.hidden) if isinstance(self.hidden, Iterable) else []
        if not hidden or not all(isinstance(w, Integral) and w >= 1 for w in hidden):
            raise ValueError(f"hidden must hold positive integers, got {self.hidden!r}")
        is_number = isinstance(self.a, Real) and math.isfinite(self.a)
        if not is_number and not (isinstance(self.a, str) and self.a == "cv"):
            raise ValueError(f"a must be 'cv' or a finite number, got {self.a!r}")
        for name in ("n_restarts", "max_iter"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if not isinstance(self.lr, Real) or not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a positive number, got {self.lr!r}")
