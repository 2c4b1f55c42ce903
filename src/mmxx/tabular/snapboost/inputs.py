"""What users hand in, as one matrix of numbers: arrays, data frames, categories, bad values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_X_y, validate_data

Array = NDArray[np.float64]
MAX_CATEGORIES = 255
_CATEGORICAL = ("category", "categorical", "enum")  # how pandas and polars call their types


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    whole: bool = False,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Refuse a value that is no number between two bounds.

    Raises:
        ValueError: It names the argument, the value and the range.
    """
    inside = (
        isinstance(value, Integral if whole else Real)
        and not isinstance(value, bool)
        and math.isfinite(number := float(value))
        and (number > low if open_low else number >= low)
        and (number < high if open_high else number <= high)
    )
    if not inside:
        kind = "a whole number" if whole else "a number"
        edges = f"{'above' if open_low else 'of at least'} {low:g}"
        if high < math.inf:
            edges += f" and {'below' if open_high else 'at most'} {high:g}"
        raise ValueError(f"{name} must be {kind} {edges}, got {value!r}")


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or value != value


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class Columns:
    """The columns of a table: which are categorical, and what categories they have.

    Attributes:
        categories: For each column the list of its categories, or None for numbers.
    """

    def __init__(self, categories: Sequence[list[Any] | None]) -> None:
        self.categories = list(categories)

    @property
    def codes(self) -> NDArray[np.int64]:
        """For each column the number of its categories, -1 for numbers."""
        return np.array([-1 if c is None else len(c) for c in self.categories], np.int64)

    @classmethod
    def of(cls, X: Any, categorical: Any) -> Columns:
        """Find the categorical columns of the training table, and their categories.

        Args:
            X: A data frame, or an array [n, d].
            categorical: "from_dtype" (the categorical columns of a data frame), None, names or
                numbers of columns, or a mask [d].

        Raises:
            ValueError: There is no such column, or one has more than 255 categories.
        """
        names, columns = _columns(X)
        if isinstance(categorical, str) and categorical == "from_dtype":
            chosen = {
                j
                for j, column in enumerate(columns)
                if hasattr(X, "columns")
                and str(getattr(column, "dtype", "")).lower().startswith(_CATEGORICAL)
            }
        elif isinstance(categorical, str):
            raise ValueError(
                "categorical_features must be 'from_dtype', None, or a list of names, numbers or "
                f"booleans, got {categorical!r}"
            )
        else:
            chosen = _chosen([] if categorical is None else list(categorical), names)
        return cls(
            [_categories(c, names[j]) if j in chosen else None for j, c in enumerate(columns)]
        )

    def matrix(self, X: Any) -> Array:
        """The table as float64 [n, d]: categories as their numbers, NaN for the missing and new."""
        names, columns = _columns(X)
        out = np.empty((len(columns[0]) if columns else 0, len(columns)))
        for j, (column, categories) in enumerate(zip(columns, self.categories, strict=True)):
            if categories is None:
                out[:, j] = _numbers(column, names[j])
            else:
                number = {category: float(code) for code, category in enumerate(categories)}
                out[:, j] = [
                    math.nan if _is_missing(v) else number.get(_plain(v), math.nan)
                    for v in np.asarray(column)
                ]
        return out


def _columns(X: Any) -> tuple[list[Any], list[Any]]:
    """Names and values of the columns."""
    if hasattr(X, "columns"):
        return list(X.columns), [X[name] for name in X.columns]
    array = np.asarray(X)
    if array.ndim != 2:
        raise ValueError(f"Expected 2D array, got {array.ndim}D array instead. Reshape your data")
    return list(range(array.shape[1])), list(array.T)


def _chosen(categorical: list[Any], names: list[Any]) -> set[int]:
    if categorical and all(isinstance(c, bool | np.bool_) for c in categorical):
        if len(categorical) != len(names):
            raise ValueError(
                f"categorical_features has {len(categorical)} booleans for {len(names)} columns"
            )
        return {j for j, c in enumerate(categorical) if c}
    found = set()
    for c in categorical:
        if isinstance(c, str) and c in names:
            found.add(names.index(c))
        elif isinstance(c, int | np.integer) and 0 <= c < len(names):
            found.add(int(c))
        else:
            raise ValueError(f"categorical_features names {c!r}, and the columns are {names}")
    return found


def _categories(column: Any, name: Any) -> list[Any]:
    values = {_plain(v) for v in np.asarray(column) if not _is_missing(v)}
    if len(values) > MAX_CATEGORIES:
        raise ValueError(
            f"X: column {name!r} has {len(values)} categories; at most {MAX_CATEGORIES} "
            "are accepted"
        )
    return sorted(values, key=lambda v: (isinstance(v, str), v))


def _numbers(column: Any, name: Any) -> Array:
    values = np.asarray(column)
    if values.dtype.kind in "mM":
        raise ValueError(
            f"X: column {name!r} holds times; accepted: numbers, such as years, or days since the "
            "first"
        )
    try:
        if values.dtype.kind in "biuf":
            numbers = values.astype(np.float64)
        else:
            numbers = np.array([math.nan if _is_missing(v) else float(v) for v in values])
    except (TypeError, ValueError):
        text = next(repr(v) for v in values if not isinstance(v, Real) and not _is_missing(v))
        raise ValueError(
            f"X: column {name!r} holds {text}, which is no number (could not convert string to "
            "float); make the column categorical, or name it in categorical_features"
        ) from None
    if np.isinf(numbers).any():
        raise ValueError(f"X: column {name!r} contains infinity; accepted: numbers and NaN")
    return numbers


_RULES: Any = {"dtype": np.float64, "order": "C", "ensure_all_finite": "allow-nan"}


def read_training(
    estimator: Any, X: Any, y: Any, categorical: Any, *, numeric: bool
) -> tuple[Columns, Array, NDArray[Any]]:
    """The training table of an estimator, checked: its columns, float64 [n, d], and y [n].

    Raises:
        ValueError: Infinity in X, text in a column of numbers, NaN in y, or lengths that differ.
        TypeError: X is sparse.
    """
    plain = isinstance(categorical, str) or categorical is None
    if not hasattr(X, "columns") and plain:
        if isinstance(categorical, str) and categorical != "from_dtype":
            Columns.of(np.empty((1, 1)), categorical)
        X, y = validate_data(estimator, X, y, y_numeric=numeric, **_RULES)
        return Columns([None] * X.shape[1]), X, y
    validate_data(estimator, X, y, skip_check_array=True)
    columns = Columns.of(X, categorical)
    X, y = check_X_y(columns.matrix(X), y, y_numeric=numeric, **_RULES)
    return columns, X, y


def read(estimator: Any, X: Any, columns: Columns) -> Array:
    """A later table of an estimator, checked against the first: float64 [n, d].

    Raises:
        ValueError: Other columns, or the same ones in another order; infinity, or text.
    """
    if not hasattr(X, "columns") and (columns.codes < 0).all():
        return np.asarray(validate_data(estimator, X, reset=False, **_RULES))
    validate_data(estimator, X, reset=False, skip_check_array=True)
    return columns.matrix(X)
