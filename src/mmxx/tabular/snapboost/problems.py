"""Tables to learn from: some that ship inside scikit-learn and statsmodels, and one made up."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmxx.data import Source, decimal_years, photo, read_table

if TYPE_CHECKING:
    from mmxx.data import Table

Array = NDArray[np.float64]
Task = Literal["regression", "classification"]
TABLES = (
    "diabetes", "star98", "breast_cancer", "anes96", "co2", "photo", "randhie", "fair", "digits",
)  # fmt: skip
_MOST_TEXTS = 255  # that are categories of a column
_MOST_ROWS = {"photo": 5000, "randhie": 6000}
_PUBLIC = "public domain"


@dataclass(frozen=True)
class Problem:
    """A table and what to predict.

    Attributes:
        name: Its name.
        task: "regression", by squared error, or "classification", by log-loss.
        X: float64 [n, d], NaN for missing values.
        y: float64 [n]: targets, or numbers of classes.
        source: Where it comes from.
        categorical: Which columns are categories.
    """

    name: str
    task: Task
    X: Array
    y: Array
    source: Source
    categorical: tuple[int, ...] = ()


class Split(NamedTuple):
    """Rows for fitting, for choosing, and for the verdict: int64 each."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split(problem: Problem, rng: np.random.Generator) -> Split:
    """60, 20 and 20 per cent of the rows, at random; of each class in proportion."""
    n = len(problem.y)
    order = rng.permutation(n)
    if problem.task == "classification":  # deal each class out in turn
        order = order[np.argsort(problem.y[order], kind="stable")]
        place = np.arange(n) % 5
        place = (place + rng.integers(5)) % 5
        parts = order[place < 3], order[place == 3], order[place == 4]
        return Split(*(rng.permutation(part) for part in parts))
    return Split(order[: 3 * n // 5], order[3 * n // 5 : 4 * n // 5], order[4 * n // 5 :])


def embedded(name: str, rng: np.random.Generator) -> Problem:
    """One of `TABLES`; ``rng`` draws rows where there are more than an experiment can take.

    Raises:
        ModuleNotFoundError: The package that ships it is not installed.
    """
    problem = _READERS[name]()
    most = _MOST_ROWS.get(name, len(problem.y))
    if len(problem.y) > most:
        rows = np.sort(rng.choice(len(problem.y), most, replace=False))
        return Problem(name, problem.task, problem.X[rows], problem.y[rows], problem.source)
    return problem


def mixed(rows: int, rng: np.random.Generator) -> Problem:
    """A target that is smooth in five columns and jumps in five others, plus noise.

    The smooth part is a sum of 200 cosines, the other one of 30 products of two indicators; both
    have variance 1, the noise has deviation 0.2.
    """
    X = rng.normal(size=(rows, 10))
    smooth = np.cos(X[:, :5] @ rng.normal(size=(5, 200)) * 0.5 + rng.uniform(0, 2 * np.pi, 200))
    smooth = smooth @ rng.normal(size=200)
    steps = np.zeros(rows)
    for _ in range(30):
        columns = 5 + rng.choice(5, 2, replace=False)
        inside = (X[:, columns] > rng.normal(size=2) * 0.7).all(1)
        steps += rng.normal() * inside
    y = smooth / smooth.std() + steps / steps.std() + 0.2 * rng.normal(size=rows)
    return Problem(
        "mixed", "regression", X, y, Source("mixed", "made here", "computed", None, True)
    )


def own(table: Table, target: str, task: str) -> tuple[Problem, list[str], list[str]]:
    """A user's table as a problem: text becomes categories, rows without a target are left out.

    Dates become years with decimals; a column of more than 255 texts is left out.

    Args:
        table: The table.
        target: Its column to predict.
        task: "regression", "classification", or "auto": classification for text and for whole
            numbers of ten values at most.

    Returns:
        The problem, the names of its columns, and what was done to them, in words.

    Raises:
        ValueError: There is no such column, fewer than 20 rows, or nothing to learn.
    """
    if target not in table.names:
        raise ValueError(f"target must be one of {', '.join(table.names)}, got {target!r}")
    y = table[target]
    there = np.array([bool(v) for v in y]) if y.dtype.kind == "O" else ~np.isnan(y)
    if there.sum() < 20:
        raise ValueError(f"target {target!r} must have 20 values or more, got {there.sum()}")
    values, numbers = np.unique(y[there].astype(str) if y.dtype.kind == "O" else y[there],
                                return_inverse=True)  # fmt: skip
    if task == "auto":
        whole = y.dtype.kind == "f" and bool((values == np.round(values)).all())
        few = len(values) <= 10 and (whole or y.dtype.kind == "O")
        task = "classification" if few or y.dtype.kind == "O" else "regression"
    if task == "regression" and y.dtype.kind == "O":
        raise ValueError(f"target {target!r} holds text, so task must be 'classification'")
    if len(values) < 2:
        raise ValueError(f"target {target!r} has one value only: {values[0]}")
    if task == "classification" and np.bincount(numbers).min() < 5:
        rare = values[np.bincount(numbers).argmin()].item()
        raise ValueError(f"target {target!r} has the class {rare!r} fewer than 5 times")
    columns: dict[str, Array] = {}
    categorical, notes = [], []
    for name in table.names:
        column = table[name][there]
        if name == target:
            continue
        if column.dtype.kind == "O":
            text, column = column.astype(str), _years(column)
            if column is not None:
                notes.append(f"Column {name!r} holds dates: they were taken as years.")
            else:
                kinds, codes = np.unique(text, return_inverse=True)
                if len(kinds) > _MOST_TEXTS:
                    notes.append(
                        f"Column {name!r} was left out: it has {len(kinds)} texts, and "
                        f"{_MOST_TEXTS} are the most that a category may have."
                    )
                    continue
                categorical.append(len(columns))
                column = np.where(kinds[codes] == "", np.nan, codes)
        columns[name] = column.astype(np.float64)
    if not columns:
        raise ValueError(
            f"the table must have a column to learn from besides the target {target!r}"
        )
    y_numbers = numbers.astype(np.float64) if task == "classification" else y[there]
    problem = Problem(
        "table", "classification" if task == "classification" else "regression",
        np.column_stack(list(columns.values())), y_numbers, table.source, tuple(categorical),
    )  # fmt: skip
    return problem, list(columns), notes


def _years(column: NDArray[Any]) -> Array | None:
    """Dates as years with decimals, or None where a text is no date."""
    try:
        return decimal_years(column)
    except ValueError:
        return None


# -- readers -----------------------------------------------------------------------------------


def _scikit_learn(name: str) -> Any:
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")()


def _source(name: str, licence: str, package: str) -> Source:
    return Source(name, licence, f"{name}, from {package}")


def _statsmodels(name: str, licence: str = _PUBLIC) -> tuple[Table, Source]:
    """A table that ships inside statsmodels, which is not imported."""
    spec = importlib.util.find_spec("statsmodels")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{name} needs statsmodels: pip install 'mmxx[tabular]'", name="statsmodels"
        )
    table = read_table(Path(spec.submodule_search_locations[0], "datasets", name, f"{name}.csv"))
    source = Source(name, licence, f"{name}.csv, from statsmodels", table.source.sha256)
    return table, source


def _diabetes() -> Problem:
    data = _scikit_learn("diabetes")
    source = _source("diabetes", "not stated (ships in scikit-learn)", "scikit-learn")
    return Problem("diabetes", "regression", data.data, data.target / 10, source)


def _breast_cancer() -> Problem:
    data = _scikit_learn("breast_cancer")
    source = _source("breast_cancer", "CC BY 4.0", "scikit-learn")
    return Problem("breast_cancer", "classification", data.data, data.target * 1.0, source)


def _digits() -> Problem:
    data = _scikit_learn("digits")
    source = _source("digits", "CC BY 4.0", "scikit-learn")
    return Problem("digits", "classification", data.data, data.target % 2.0, source)


def _star98() -> Problem:
    table, source = _statsmodels("star98", "not stated (ships in statsmodels by permission)")
    share = table["PR50M"] / table["MATHTOT"]
    return Problem("star98", "regression", table.matrix(table.names[2:]), 10 * share, source)


def _anes96() -> Problem:
    table, source = _statsmodels("anes96")
    return Problem(
        "anes96", "classification", table.matrix(table.names[:-1]), table[table.names[-1]], source
    )


def _randhie() -> Problem:
    table, source = _statsmodels("randhie")
    y = np.log1p(table["mdvis"])
    return Problem(
        "randhie", "regression", table.matrix(table.names[1:]), np.asarray(y, np.float64), source
    )


def _fair() -> Problem:
    table, source = _statsmodels("fair")
    y = (table["affairs"] > 0).astype(np.float64)
    return Problem("fair", "classification", table.matrix(table.names[:-1]), y, source)


def _co2() -> Problem:
    """The change from one week to the next from the twelve weeks before."""
    table, source = _statsmodels("co2")
    weeks = np.lib.stride_tricks.sliding_window_view(table["co2"], 13)
    weeks = weeks[~np.isnan(weeks).any(1)]
    last = weeks[:, -2:-1]
    return Problem("co2", "regression", weeks[:, :-1] - last, weeks[:, -1] - last[:, 0], source)


def _photo() -> Problem:
    """A grey level from those of the 16 pixels two away from it, in two photographs."""
    rows, targets = [], []
    for name in ("china", "flower"):
        picture = photo(name)
        grey = picture.pixels.astype(np.float64).mean(-1) * 25.5
        around = np.lib.stride_tricks.sliding_window_view(grey, (5, 5)).reshape(-1, 25)
        ring = [k for k in range(25) if k // 5 in (0, 4) or k % 5 in (0, 4)]
        rows.append(around[:, ring])
        targets.append(around[:, 12])
    source = Source("photo", "CC BY 2.0", "china.jpg and flower.jpg, from scikit-learn")
    return Problem("photo", "regression", np.concatenate(rows), np.concatenate(targets), source)


_READERS = {
    "diabetes": _diabetes, "star98": _star98, "breast_cancer": _breast_cancer, "anes96": _anes96,
    "co2": _co2, "photo": _photo, "randhie": _randhie, "fair": _fair, "digits": _digits,
}  # fmt: skip
