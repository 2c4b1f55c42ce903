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


@njit(uint64(uint64, uint64, uint64), cache=True, nogil=True)
def _wins(stones, empty, height):
    """The cells of ``empty`` in which one stone more makes four, reachable now or later."""
    two = _ONE + _ONE
    found = (stones << _ONE) & (stones << two) & (stones << (two + _ONE))
    for step in (height - _ONE, height, height + _ONE):
        above = (stones << step) & (stones << (two * step))
        below = (stones >> step) & (stones >> (two * step))
        found |= above & ((stones << ((two + _ONE) * step)) | (stones >> step))
        found |= below & ((stones >> ((two + _ONE) * step)) | (stones << step))
    return found & empty


@njit(
    int64(
        uint64, uint64, int64, int64, int64, uint64, uint64, uint64, uint64[::1], uint64[:, ::1],
        int64[:, ::1], uint64[::1], uint64[::1],
    ),
    cache=True, nogil=True,
)  # fmt: skip
def _search(own, every, left, alpha, beta, height, bottom, board, masks, moves, counts, keys,
            bounds):  # fmt: skip
    """Value for the mover, exact within (alpha, beta); ``left`` is the number of empty cells.

    Nobody has four, and the mover cannot make four at once. ``bounds`` packs the lower bound + 1
    and, from bit 2, the upper bound + 1; ``moves`` and ``counts`` are room for each depth.
    """
    if left == 0:
        return 0
    other, empty = own ^ every, board ^ every
    legal = (every + bottom) & board
    threats = _wins(other, empty, height)
    forced = legal & threats
    if forced:
        if forced & (forced - _ONE):
            return -1
        legal = forced
    legal &= ~(threats >> _ONE)  # what lies under a winning cell of the other gives it away
    if not legal:
        return -1
    if left <= 2:
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
    # moves that make the most winning cells first, of equal ones the more central
    count = 0
    for column in range(len(masks)):
        place = legal & masks[column]
        if place:
            spots, score = _wins(own | place, empty ^ place, height), 0
            while spots:
                spots &= spots - _ONE
                score += 1
            at = count
            while at > 0 and counts[left, at - 1] < score:
                counts[left, at], moves[left, at] = counts[left, at - 1], moves[left, at - 1]
                at -= 1
            counts[left, at], moves[left, at] = score, place
            count += 1
    best, lowest = -1, alpha
    for at in range(count):
        value = -_search(
            other, every | moves[left, at], left - 1, -beta, -alpha, height, bottom, board, masks,
            moves, counts, keys, bounds,
        )  # fmt: skip
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
def solve_all(states, rows, columns, order, found):
    """Values of all moves of each state into ``found [B, columns]``; -2 for a full column.

    ``order`` are the columns from the middle outwards.
    """
    keys, bounds = np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.uint64)
    moves = np.zeros((rows * columns + 1, columns), np.uint64)
    counts = np.zeros((rows * columns + 1, columns), np.int64)
    height, bottom = np.uint64(rows + 1), np.uint64(0)
    masks = np.zeros(columns, np.uint64)
    for i in range(columns):
        start = np.uint64(order[i]) * height
        masks[i] = ((_ONE << np.uint64(rows)) - _ONE) << start
        bottom |= _ONE << start
    board = bottom * ((_ONE << np.uint64(rows)) - _ONE)
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
        legal, other = (every + bottom) & board, own ^ every
        wins = _wins(own, board ^ every, height)
        threats = _wins(other, board ^ every, height)
        for i in range(columns):
            place = legal & masks[i]
            after = every | place
            if not place:
                value = -2
            elif place & wins:
                value = 1
            elif threats & (after + bottom) & board & ~after:
                value = -1
            else:  # whether the other loses, and then whether the other wins: narrow windows
                value = -1
                for beta in (0, 1):
                    result = _search(
                        other, after, left - 1, beta - 1, beta, height, bottom, board, masks,
                        moves, counts, keys, bounds,
                    )  # fmt: skip
                    if result < beta:
                        value = 1 - beta
                        break
            found[b, order[i]] = value
