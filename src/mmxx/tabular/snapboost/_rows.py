"""Compiled passes over binned rows: counting them into histograms, and parting them by a split."""

from __future__ import annotations

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.tabular.snapboost._machine_code import prefetch

BINS = 256  # of a column's histogram; the last one holds missing values
MISSING = BINS - 1
BLOCK = 64  # columns whose histograms fit into the second-level cache together
AHEAD = 12  # rows between fetching a row and counting it

_ONE, _TWO, _THREE, _BINS = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(BINS)


@njit(cache=True, nogil=True)
def accumulate(hist, bins, gh, rows, columns):
    """Add rows to the histogram of each column.

    Args:
        hist: int64 [d, 256, 3]: sums of g, counts, sums of h; or [d, 256, 2] without the last,
            where h is the same in all rows.
        bins: uint8 [n, d].
        gh: int64 [n, 2]: g and h.
        rows: int32 [m], which rows.
        columns: int32 [k], which columns, ascending.
    """
    # unsigned numbers: signed ones would be compared with 0 each time, to count from the end
    flat, chosen = hist.reshape(-1), columns.astype(np.uintp)
    whole = columns.size == hist.shape[0]
    weighted = hist.shape[2] == 3
    for first in range(0, columns.size, BLOCK):
        last = min(first + BLOCK, columns.size)
        for i in range(rows.size):
            row = np.uintp(rows[i])
            # below the root rows lie scattered, and waiting for them would take most of the time
            ahead = rows[min(i + AHEAD, rows.size - 1)]
            prefetch(bins, ahead)
            prefetch(gh, ahead)
            value, weight = gh[row, 0], gh[row, 1]
            if weighted:
                for c in range(first, last):
                    column = np.uintp(c) if whole else chosen[c]
                    cell = (column * _BINS + np.uintp(bins[row, column])) * _THREE
                    flat[cell] += value
                    flat[cell + _ONE] += 1
                    flat[cell + _TWO] += weight
            elif whole:
                for c in range(first, last):
                    cell = (np.uintp(c) * _BINS + np.uintp(bins[row, np.uintp(c)])) * _TWO
                    flat[cell] += value
                    flat[cell + _ONE] += 1
            else:
                for c in range(first, last):
                    column = chosen[c]
                    cell = (column * _BINS + np.uintp(bins[row, column])) * _TWO
                    flat[cell] += value
                    flat[cell + _ONE] += 1


@njit(cache=True, nogil=True)
def partition(bins, rows, spare, feature, low, missing_left, left):
    """Order rows by the side of a split that they fall on, and otherwise as they were.

    Args:
        bins: uint8 [n, d].
        rows: int32 [m], reordered in place.
        spare: int32, at least [m].
        feature, low, missing_left: The split; left of it lie bins up to ``low``.
        left: bool [256]: the categories on the left, where ``low`` is -1.

    Returns:
        How many rows are on the left.
    """
    goes = np.empty(BINS, np.int64)
    for code in range(MISSING):
        goes[code] = left[code] if low < 0 else code <= low
    goes[MISSING] = missing_left
    column = np.uintp(feature)
    count, others = np.uintp(0), np.uintp(0)
    for i in range(rows.size):
        row = rows[i]
        prefetch(bins, rows[min(i + AHEAD, rows.size - 1)])
        side = np.uintp(goes[np.uintp(bins[np.uintp(row), column])])
        rows[count] = row  # never ahead of the row that is read
        spare[others] = row
        count += side
        others += _ONE - side
    rows[count:] = spare[:others]
    return np.int64(count)
