"""Connect Four by alpha-beta over bitboards, compiled.

A column takes rows + 1 bits, the lowest the bottom; the bit above the top stays empty, so that
lines do not run over. ``own`` are the mover's stones and ``every`` all stones.
"""

from __future__ import annotations

import numpy as np
from numba import int64, njit, uint64  # pyright: ignore[reportPrivateImportUsage]

SLOTS = 1 << 22  # of the table of positions
_ONE = np.uint64(1)
_HASH = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(42)


@njit(cache=True, nogil=True)
def _has_four(stones, height):
    for step in (np.uint64(1), height - _ONE, height, height + _ONE):
        pairs = stones & (stones >> step)
        if pairs & (pairs >> (step + step)):
            return True
    return False


@njit(
    int64(uint64, uint64, int64, int64, int64, int64, int64[::1], uint64[::1], uint64[::1]),
    cache=True, nogil=True,
)  # fmt: skip
def _search(own, every, left, alpha, beta, rows, order, keys, bounds):
    """Value for the mover, exact within (alpha, beta); ``left`` is the number of empty cells.

    Nobody has four. ``bounds`` packs the lower bound + 1 and, from bit 2, the upper bound + 1.
    """
    if left == 0:
        return 0
    height = np.uint64(rows + 1)
    column_mask = (_ONE << np.uint64(rows)) - _ONE
    forced, threats = -1, 0
    other = own ^ every
    for column in order:
        bottom = _ONE << (np.uint64(column) * height)
        place = (every + bottom) & (column_mask << (np.uint64(column) * height))
        if not place or place & every:
            continue
        if _has_four(own | place, height):
            return 1
        if _has_four(other | place, height):
            forced = column
            threats += 1
    if threats > 1:
        return -1
    if left == 1:
        return 0
    key = own + every + (_ONE << np.uint64(62))
    slot = np.int64((key * _HASH) >> _SHIFT)
    low, high = -1, 1
    if keys[slot] == key:
        packed = np.int64(bounds[slot])
        low, high = (packed & 3) - 1, (packed >> 2) - 1
        if low == high or low >= beta:
            return low
        if high <= alpha:
            return high
        alpha, beta = max(alpha, low), min(beta, high)
    best, lowest = -1, alpha
    for column in order:
        if threats == 1 and column != forced:
            continue
        bottom = _ONE << (np.uint64(column) * height)
        place = (every + bottom) & (column_mask << (np.uint64(column) * height))
        if not place or place & every:
            continue
        value = -_search(other, every | place, left - 1, -beta, -alpha, rows, order, keys, bounds)
        best = max(best, value)
        alpha = max(alpha, best)
        if alpha >= beta:
            break
    if best <= lowest:
        high = min(high, best)
    elif best >= beta:
        low = max(low, best)
    else:
        low = high = best
    keys[slot] = key
    bounds[slot] = np.uint64((low + 1) | ((high + 1) << 2))
    return best


@njit(cache=True, nogil=True)
def solve_all(states, rows, columns, order, keys, bounds, found):
    """Values of all moves of each state into ``found [B, columns]``; -2 for a full column."""
    height = np.uint64(rows + 1)
    for b in range(len(states)):
        own, every, left = np.uint64(0), np.uint64(0), rows * columns
        for row in range(rows):
            for column in range(columns):
                stone = states[b, row * columns + column]
                if stone:
                    bit = _ONE << np.uint64(column * (rows + 1) + rows - 1 - row)
                    every |= bit
                    left -= 1
                    if stone == states[b, rows * columns]:
                        own |= bit
        for column in range(columns):
            bottom = _ONE << (np.uint64(column) * height)
            mask = ((_ONE << np.uint64(rows)) - _ONE) << (np.uint64(column) * height)
            place = (every + bottom) & mask
            if not place or place & every:
                found[b, column] = -2
            elif _has_four(own | place, height):
                found[b, column] = 1
            else:
                found[b, column] = -_search(
                    own ^ every, every | place, left - 1, -1, 1, rows, order, keys, bounds
                )
