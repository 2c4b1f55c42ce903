"""AIFeynmanRegressor: from a table to a frontier of formulas."""

from __future__ import annotations

import builtins
import keyword
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mmxx.discovery.feynman.alphabet import Alphabet
from mmxx.discovery.feynman.bits import PRECISION
from mmxx.discovery.feynman.expression import Expr, num, var
from mmxx.discovery.feynman.grammar import RESERVED
from mmxx.discovery.feynman.modularity import KINDS
from mmxx.discovery.feynman.recursion import Node, Settings, solve
from mmxx.discovery.feynman.search import Map
from mmxx.discovery.feynman.solve import Formula, Frontier
from mmxx.discovery.feynman.units import check_units, dimensional_reduce

Array = NDArray[np.float64]
_EXTREME = 2.0**20  # a scale of y beyond which it is divided by a power of two
_KNEE = 0.2  # bits by which a formula may be worse than the best and be chosen for being short


class AIFeynmanRegressor(RegressorMixin, BaseEstimator):
    """Symbolic regression: units, polynomials, brute force, and modules seen by a network.

    Args:
        operators: "7ops", "10ops", "14ops", "19ops", or symbols of the authors' alphabet.
        max_formulas: For brute force on one table, shared over y and its transforms; None:
            6,000,000, about a second or two. 0 leaves brute force out.
        max_seconds: When to stop, with the best so far; None: no limit.
        units: Of the columns by name, "kg m/s^2"; see `parse_unit`. None: no units.
        target_units: Of y; needed with ``units``.
        polyfit_degree: Of the polynomials; those of reciprocals have degree 2 at most.
        transforms: Whether brute force also looks at y², 1/y and log y.
        network: Whether a network is fitted where the rest is not enough, see `fit_tanh`; or a
            ``torch.nn.Module`` from [rows, columns] to [rows, 1], of which a copy is trained for
            the whole table (for smaller ones the default), see `train`. With units, the columns
            are those that they leave.
        modularity: What is looked for in it.
        max_iter: Steps of the network, at most; a module of one's own makes ten times as many.
        nu: Of the hypothesis test; see `brute_force`.
        noise: Standard deviation of the noise in units of y's root mean square, if known.
        complexity: "symbols" or "distinct"; see `mdl`.
        selection: ``best_`` is the shortest formula within 0.2 bits of the best ("knee"), the one
            of least error ("accuracy"), or of least total description length ("mdl").
        validation_fraction: Rows on which ``best_`` is chosen; formulas see all rows.
        missing: What to do with rows that hold NaN or infinity: "error", or "drop".
        n_jobs: Threads for brute force; None: 1, -1: all processors. The result is the same.
        random_state: For the split and the network.

    Attributes:
        frontier_: The formulas of which no other is simpler and better, simplest first.
        best_: The chosen one.
        decomposition_: How the function was taken apart.
        notes_: What was done to the table, in words.
        n_features_in_: Columns seen in fit.
        n_iter_: 1, for scikit-learn.

    Source: Udrescu, Tan, Feng, Neto, Wu and Tegmark (NeurIPS 2020).

    Example:
        >>> X = np.random.default_rng(0).uniform(1, 3, (100, 2))
        >>> model = AIFeynmanRegressor(max_formulas=20_000, network=False)
        >>> model.fit(X, X[:, 0] * np.exp(-X[:, 1])).model()
        'x0*exp(-x1)'
    """

    n_features_in_: int

    def __init__(
        self,
        *,
        operators: str | Sequence[str] = "14ops",
        max_formulas: int | None = None,
        max_seconds: float | None = None,
        units: Mapping[str, Any] | Sequence[Any] | None = None,
        target_units: str | None = None,
        polyfit_degree: int = 4,
        transforms: bool = True,
        network: Any = True,
        modularity: Sequence[str] = KINDS,
        max_iter: int = 200,
        nu: float = 0.5,
        noise: float | None = None,
        complexity: str = "symbols",
        selection: str = "knee",
        validation_fraction: float = 0.2,
        missing: str = "error",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.operators = operators
        self.max_formulas = max_formulas
        self.max_seconds = max_seconds
        self.units = units
        self.target_units = target_units
        self.polyfit_degree = polyfit_degree
        self.transforms = transforms
        self.network = network
        self.modularity = modularity
        self.max_iter = max_iter
        self.nu = nu
        self.noise = noise
        self.complexity = complexity
        self.selection = selection
        self.validation_fraction = validation_fraction
        self.missing = missing
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        map: Map | None = None,
        watch: Callable[[list[Formula]], None] | None = None,
    ) -> AIFeynmanRegressor:
        """Search for formulas.

        Args:
            X: [rows, columns]; a data frame's column names are those of the formulas.
            y: [rows].
            sample_weight: [rows].
            map: What to spread brute force with instead of threads, called as
                ``map(fn, tasks)``.
            watch: Called with the frontier so far whenever it may have changed.

        Returns:
            Itself.

        Raises:
            ValueError: A parameter out of range, NaN or infinity (how many rows, and the first),
                units that are missing, unknown or do not reach the target's.
        """
        self._check_parameters()
        self.notes_: list[str] = []
        bad = _not_finite(X, y)
        if bad is not None and self.missing == "drop" and not bad.all():
            self.notes_.append(f"{int(bad.sum())} of {len(bad)} rows were left out: not finite")
            X, y = _without(X, bad), np.asarray(y)[~bad]
            sample_weight = None if sample_weight is None else np.asarray(sample_weight)[~bad]
        elif bad is not None:
            raise ValueError(
                f"X and y must be finite, got NaN or infinity in {int(bad.sum())} of {len(bad)} "
                f"rows, the first is row {int(np.argmax(bad))}; leave them out, or set "
                "missing='drop'"
            )
        matrix, target = validate_data(
            self, cast("Any", X), cast("Any", y), dtype=np.float64, y_numeric=True,
            ensure_min_samples=2,
        )  # fmt: skip
        matrix, target = cast("Array", matrix), cast("Array", target).astype(np.float64)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, matrix)
        if weights is not None:
            keep = weights > 0
            matrix, target, weights = matrix[keep], target[keep], weights[keep]
            if not len(matrix):
                raise ValueError("sample_weight must have a positive value, got none")
        self.n_iter_ = 1
        self._names, notes = safe_names(self._column_names())
        self.notes_ += notes
        shift = self._shift(target)
        target = np.ldexp(target, -shift)
        with _spread(self.n_jobs) as threads:
            self._search(matrix, target, weights, map or threads, shift, watch)
        return self

    def _search(
        self, X: Array, y: Array, weights: Array | None, map: Map, shift: int,
        watch: Callable[[list[Formula]], None] | None,
    ) -> None:  # fmt: skip
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31 - 1))
        frontier = Frontier(X, y, self.complexity, weights)
        if np.ptp(y) == 0:
            frontier.add(num(float(y[0])), "constant")
            self.decomposition_ = Node(self._names)
        else:
            table, values, names, restore = self._reduced(X, y)
            deadline = (
                None if self.max_seconds is None else time.monotonic() + float(self.max_seconds)
            )
            settings = Settings(
                max_formulas=6_000_000 if self.max_formulas is None else self.max_formulas,
                operators=self.operators,
                nu=self.nu,
                degree=self.polyfit_degree,
                transforms=self.transforms,
                modules=tuple(self.modularity),
                max_iter=self.max_iter,
                seed=seed,
                floor=math.log2(1 + (self.noise or 0.0) / PRECISION),
                network=self.network,
                until=lambda: None if deadline is None else max(0.0, deadline - time.monotonic()),
                map=map,
                watch=lambda f: None if watch is None else watch(self._told(f, shift)),
            )
            self.decomposition_ = solve(frontier, table, values, names, settings, restore)
        self.frontier_ = self._told(frontier, 0)
        best = self.frontier_.index(self._select(X, y, np.random.default_rng(seed)))
        self.frontier_ = self._told(frontier, shift)
        self.best_ = self.frontier_[best]

    def _told(self, frontier: Frontier, shift: int) -> list[Formula]:
        """The formulas of a frontier with the columns' names, for y as it was given."""
        named = [replace(f, names=self._names) for f in frontier]
        scale = num(math.ldexp(1.0, shift))
        return [_scaled(f, scale) for f in named] if shift else named

    def _reduced(
        self, X: Array, y: Array
    ) -> tuple[Array, Array, tuple[str, ...], Callable[[Expr], Expr]]:
        """The table that is searched: without units, constant and repeated columns."""
        names: tuple[str, ...] = self._names
        restore: Callable[[Expr], Expr] = lambda expr: expr  # noqa: E731
        if self.units is not None:
            given = self._units()
            reduction = dimensional_reduce(given, str(self.target_units), names).oriented(X)
            with np.errstate(all="ignore"):
                table, values = reduction.apply(X, y)
            if np.isfinite(table).all() and np.isfinite(values).all():
                groups = [Expr.text(reduction_name, names) for reduction_name in _groups(reduction)]
                self.notes_.append(f"units leave {len(groups)} of {len(names)} variables")
                X, y, names, restore = table, values, tuple(groups), reduction.restore
            else:
                self.notes_.append("units were not used: a variable that is divided by is 0")
        kept: list[int] = []
        for k in range(X.shape[1]):
            same = next((j for j in kept if np.array_equal(X[:, j], X[:, k])), None)
            if np.ptp(X[:, k]) == 0:
                self.notes_.append(f"{names[k]} is constant and was left out")
            elif same is not None:
                self.notes_.append(f"{names[k]} repeats {names[same]} and was left out")
            else:
                kept.append(k)
        if len(kept) == X.shape[1]:
            return X, y, names, restore
        inner = [var(k) for k in kept]
        outer = restore
        return (
            X[:, kept], y, tuple(names[k] for k in kept),
            lambda expr: outer(expr.substitute(inner)),
        )  # fmt: skip

    def _units(self) -> list[Any]:
        if self.target_units is None:
            raise ValueError("target_units must be given with units, got None")
        originals = self._column_names()
        if isinstance(self.units, Mapping):
            return check_units(self.units, originals)
        given = list(self.units or ())
        if len(given) != len(originals):
            raise ValueError(f"units must be {len(originals)}, one a column, got {len(given)}")
        return given

    def _column_names(self) -> list[str]:
        names = getattr(self, "feature_names_in_", None)
        return [f"x{k}" for k in range(self.n_features_in_)] if names is None else list(names)

    @staticmethod
    def _shift(y: Array) -> int:
        """The power of two that y is divided by: 0 unless its scale is extreme."""
        largest = float(np.abs(y).max())
        if largest == 0 or 1 / _EXTREME < largest < _EXTREME:
            return 0
        return math.frexp(largest)[1]

    def _select(self, X: Array, y: Array, rng: np.random.Generator) -> Formula:
        held = rng.permutation(len(X))[: max(1, round(self.validation_fraction * len(X)))]
        judge = Frontier(X[held], y[held], self.complexity)
        bits = []
        for formula in self.frontier_:
            error = np.abs(y[held] - formula.expr.evaluate(X[held]))
            unit = PRECISION * judge.scale
            bits.append(float(np.log2(np.maximum(error / unit, 1.0)).mean()))
        if self.selection == "accuracy":
            place = int(np.argmin(bits))
        elif self.selection == "mdl":
            shown = zip(bits, self.frontier_, strict=True)
            place = int(np.argmin([b * len(X) + f.complexity for b, f in shown]))
        else:
            place = next(k for k, b in enumerate(bits) if b <= min(bits) + _KNEE)
        return self.frontier_[place]

    def predict(self, X: ArrayLike) -> Array:
        """Values of ``best_``; NaN where it is undefined.

        Args:
            X: [rows, columns], the columns of `fit`.

        Raises:
            ValueError: Other columns than in `fit`.
        """
        check_is_fitted(self)
        matrix = validate_data(self, cast("Any", X), reset=False, dtype=np.float64)
        return self.best_.predict(matrix)

    def model(self, X_names: Sequence[str] | None = None) -> str:
        """The chosen formula as SRBench reads it: ``**``, ``exp``, ``log``, ``sqrt``.

        Args:
            X_names: Of the columns, instead of their own.

        Raises:
            ValueError: Another number of names than columns.
        """
        check_is_fitted(self)
        names = self._names if X_names is None else list(X_names)
        if len(names) != self.n_features_in_:
            raise ValueError(f"X_names must be {self.n_features_in_} names, got {len(names)}")
        return self.best_.expr.text(names)

    def plot_frontier(self, ax: Any) -> Any:
        """Draw bits of error against bits of complexity on matplotlib axes, ``best_`` marked."""
        check_is_fitted(self)
        points = [(f.complexity, f.error_bits) for f in self.frontier_]
        ax.step(*zip(*points, strict=True), where="post", marker="o")
        ax.plot([self.best_.complexity], [self.best_.error_bits], marker="*", markersize=14)
        ax.set(xlabel="complexity / bits", ylabel="mean error / bits")
        return ax

    def _check_parameters(self) -> None:
        Alphabet.make(self.operators, 1)
        for name, low in (("polyfit_degree", 0), ("max_iter", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < low:
                raise ValueError(f"{name} must be a whole number of {low} or more, got {value!r}")
        if self.max_formulas is not None and (
            not isinstance(self.max_formulas, Integral) or self.max_formulas < 0
        ):
            raise ValueError(f"max_formulas must be None or 0 or more, got {self.max_formulas!r}")
        if self.max_seconds is not None and not 0 < float(self.max_seconds) < math.inf:
            raise ValueError(f"max_seconds must be None or positive, got {self.max_seconds!r}")
        if not isinstance(self.nu, Real) or not self.nu > 0:
            raise ValueError(f"nu must be positive, got {self.nu!r}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}"
            )
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be None or 0 or more, got {self.noise!r}")
        if self.n_jobs is not None and (
            not isinstance(self.n_jobs, Integral) or self.n_jobs == 0 or self.n_jobs < -1
        ):
            raise ValueError(f"n_jobs must be None, -1 or 1 or more, got {self.n_jobs!r}")
        if not isinstance(self.network, bool | np.bool_) and not callable(self.network):
            raise ValueError(
                f"network must be True, False or a torch.nn.Module, got {self.network!r}"
            )
        choices = {
            "complexity": ("symbols", "distinct"), "selection": ("knee", "accuracy", "mdl"),
            "missing": ("error", "drop"),
        }  # fmt: skip
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name} must be one of {', '.join(accepted)}, got {getattr(self, name)!r}"
                )
        unknown = [name for name in self.modularity if name not in KINDS]
        if unknown:
            raise ValueError(
                f"modularity must be some of {', '.join(KINDS)}, got {self.modularity!r}"
            )


def safe_names(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Column names as formulas can have them, and what was changed.

    One that is no identifier, a keyword, or the name of a function becomes x and its number.
    """
    safe: list[str] = []
    notes = []
    for k, name in enumerate(names):
        good = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and not keyword.iskeyword(name)
        if not good or name in RESERVED or name in safe:
            notes.append(f"column {name!r} is called x{k} in formulas")
            name = f"x{k}"
        safe.append(name)
    return tuple(safe), notes


def _groups(reduction: Any) -> list[Expr]:
    count = len(reduction.groups)
    plain = type(reduction)((0,) * len(reduction.target), reduction.groups)
    return [plain.restore(var(k)).simplify() for k in range(count)]


def _scaled(formula: Formula, scale: Expr) -> Formula:
    expr = (scale * formula.expr).simplify()
    return replace(formula, expr=expr, rmse=formula.rmse * scale.value)


@contextmanager
def _spread(n_jobs: int | None) -> Iterator[Map]:
    """A map over so many threads: the sweeps hold no lock."""
    count = 1 if n_jobs is None else n_jobs if n_jobs > 0 else os.cpu_count() or 1
    if count == 1:
        yield builtins.map
        return
    with ThreadPoolExecutor(count) as pool:
        yield pool.map


def _not_finite(X: ArrayLike, y: ArrayLike) -> NDArray[np.bool_] | None:
    """Which rows hold NaN or infinity, or None; what else is wrong, scikit-learn says."""
    try:
        parts = [np.asarray(X), np.asarray(y)]
        if any(part.dtype.kind == "c" for part in parts):
            return None
        parts = [part.astype(np.float64) for part in parts]
    except (TypeError, ValueError):
        return None
    if parts[0].ndim != 2 or parts[1].shape != parts[0].shape[:1]:
        return None
    bad = ~(np.isfinite(parts[0]).all(1) & np.isfinite(parts[1]))
    return bad if bad.any() else None


def _without(X: Any, bad: NDArray[np.bool_]) -> Any:
    return X.loc[~bad] if hasattr(X, "loc") else np.asarray(X)[~bad]
