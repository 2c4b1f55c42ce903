"""Columns as at most 255 bins each, by weighted quantiles, and a bin for missing values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from mmxx.tabular.snapboost._rows import MISSING

Map = Callable[..., Iterable[Any]]

EDGE_ROWS = 200_000  # rows from which edges are computed at most
_CELLS = 4096  # of a column's even grid: an edge lies in few of them, as the processor expects
_TOGETHER = 256  # rows binned column by column, so that they stay in the first-level cache


@njit(cache=True, nogil=True)
def _find_bins(X, edges, starts, codes, spans, firsts, out):
    """The bin of each value: the number of its column's edges that lie below it.

    Args:
        X: float64 [n, d].
        edges: float64, those of all columns, ascending in each.
        starts: int64 [d + 1], where each column's begin.
        codes: int64 [d]: -1, or for a categorical column its number of categories.
        spans: float64 [d, 3]: the first and the last edge, and cells over half their distance.
        firsts: int16 [d, cells + 1]: how many edges lie before each cell of an even grid.
        out: uint8 [n, d].
    """
    for first in range(0, X.shape[0], _TOGETHER):
        last = min(first + _TOGETHER, X.shape[0])
        for column in range(X.shape[1]):
            start = starts[column]
            low, high, rate = spans[column, 0], spans[column, 1], spans[column, 2]
            for row in range(first, last):
                x = X[row, column]
                if np.isnan(x):
                    out[row, column] = MISSING
                elif codes[column] >= 0:
                    out[row, column] = int(x) if 0 <= x < codes[column] else MISSING
                else:
                    # halves, since the distance of the largest numbers would overflow
                    cell = np.uintp((min(max(x, low), high) / 2 - low / 2) * rate)
                    below = np.int64(firsts[column, cell])
                    left = firsts[column, cell + np.uintp(1)] - below
                    while left > 0:  # no branch inside: it could not be predicted
                        half = (left + 1) >> 1
                        below += half * np.int64(edges[start + below + half - 1] < x)
                        left -= half
                    out[row, column] = below


def _grid(edges: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """What `_find_bins` needs to find most values' bins at once: ``spans`` and ``firsts``."""
    spans = np.zeros((len(edges), 3))
    firsts = np.zeros((len(edges), _CELLS + 1), np.int16)
    for j, own in enumerate(edges):
        if len(own) == 0:
            continue
        half = own[-1] / 2 - own[0] / 2
        rate = (_CELLS - 1) / half if half > 1e-290 else 0.0
        spans[j] = own[0], own[-1], rate
        cells = ((own / 2 - own[0] / 2) * rate).astype(np.int64)
        firsts[j, 1:] = np.cumsum(np.bincount(cells, minlength=_CELLS))
    return spans, firsts


@dataclass(frozen=True)
class Binner:
    """Where the bins of each column end.

    Attributes:
        edges: For each column its edges, ascending float64; bin b holds what is above edge b - 1
            and not above edge b. Empty for a categorical column.
        codes: int64 [d]: the number of categories of a categorical column, else -1.
    """

    edges: tuple[NDArray[np.float64], ...]
    codes: NDArray[np.int64]
    _flat: NDArray[np.float64] = field(init=False, repr=False)
    _starts: NDArray[np.int64] = field(init=False, repr=False)
    _cells: tuple[NDArray[np.float64], NDArray[np.int16]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        flat = np.append(np.concatenate(self.edges), np.inf)
        starts = np.cumsum([0, *map(len, self.edges)])
        object.__setattr__(self, "_flat", flat)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_cells", _grid(self.edges))

    @classmethod
    def of(
        cls,
        X: NDArray[np.float64],
        weights: NDArray[np.float64] | None = None,
        *,
        max_bins: int = 255,
        codes: NDArray[np.int64] | None = None,
        rng: np.random.Generator | None = None,
        map: Map = map,
    ) -> Binner:
        """Find the edges: between any two values where they are few, else at quantiles.

        Args:
            X: float64 [n, d], NaN for missing values.
            weights: float64 [n]; a weight of 2 counts as two rows.
            max_bins: Bins of a column at most, 2 to 255.
            codes: Numbers of categories, as in the attribute.
            rng: Draws 200,000 rows where there are more; without it the first ones are taken.
            map: What to spread the columns with.

        Example:
            >>> Binner.of(np.array([[1.0], [2.0], [4.0]])).edges
            (array([1.5, 3. ]),)
        """
        codes = np.full(X.shape[1], -1) if codes is None else codes
        if len(X) > EDGE_ROWS:
            chosen = (
                np.arange(EDGE_ROWS)
                if rng is None
                else np.sort(rng.choice(len(X), EDGE_ROWS, replace=False, shuffle=False))
            )
            X, weights = X[chosen], None if weights is None else weights[chosen]

        def edges(column: int) -> NDArray[np.float64]:
            return np.empty(0) if codes[column] >= 0 else _edges(X[:, column], weights, max_bins)

        return cls(tuple(map(edges, range(X.shape[1]))), codes)

    def __call__(self, X: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The bins of some rows: uint8 [n, d], 255 for missing values."""
        out = np.empty(X.shape, np.uint8)
        X = np.ascontiguousarray(X)
        _find_bins(X, self._flat, self._starts, self.codes, *self._cells, out)
        return out

    def thresholds(
        self,
        columns: NDArray[np.int32],
        low: NDArray[np.int32],
        high: NDArray[np.int32],
        out: NDArray[np.float64],
    ) -> None:
        """The numbers halfway between pairs of bins; infinity where both are the last in use.

        Args:
            columns: [m], of which columns; nothing is written for -1.
            low, high: [m], the bins; nothing is written for those of a category, -1.
            out: float64 [m], receives them.
        """
        _thresholds(self._flat, self._starts, columns, low, high, out)


@njit(cache=True, nogil=True)
def _halfway(low, high):
    """The middle of two numbers, such that ``low <= middle``, and below ``high`` if they differ."""
    middle = low / 2 + high / 2  # their sum might overflow
    return middle if low <= middle < high else low


@njit(cache=True, nogil=True)
def _thresholds(edges, starts, columns, low, high, out):
    for i in range(out.size):
        if columns[i] >= 0 and low[i] >= 0:
            start = starts[columns[i]]
            out[i] = np.inf
            if low[i] < high[i]:
                out[i] = _halfway(edges[start + low[i]], edges[start + high[i] - 1])


@njit(cache=True, nogil=True)
def _above(values, places):
    """The numbers halfway between some of the ascending values and the next ones."""
    out = np.empty(places.size)
    for i in range(places.size):
        out[i] = _halfway(values[places[i]], values[places[i] + 1])
    return out


def _edges(
    column: NDArray[np.float64], weights: NDArray[np.float64] | None, max_bins: int
) -> NDArray[np.float64]:
    there = ~np.isnan(column)
    if weights is None:
        values = np.sort(column[there])
        mass = None
    else:
        order = np.argsort(column[there], kind="stable")
        values, mass = column[there][order], weights[there][order]
    if not values.size:
        return np.empty(0)
    last = np.append(
        np.flatnonzero(values[1:] != values[:-1]), values.size - 1
    )  # the last of equal ones
    below = last[:-1]
    if last.size > max_bins:
        upto = (last + 1.0) if mass is None else np.cumsum(mass)[last]
        wanted = upto[-1] * np.arange(1, max_bins) / max_bins
        places = np.unique(np.searchsorted(upto, wanted))
        below = last[places[places < last.size - 1]]
    return _above(values, below)
