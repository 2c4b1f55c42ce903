"""Compiled growth of one regression tree over binned columns.

Gradients and curvatures come as whole numbers in a common unit, so that their sums are exact: the
same tree, bit for bit, whatever the order of the rows, the number of threads or of shards.
"""

from __future__ import annotations

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.tabular.snapboost._machine_code import trailing_zeros
from mmxx.tabular.snapboost._rows import BINS, MISSING, accumulate, partition

SMALL = 96  # a node of so many rows at most is searched without a histogram of every bin
TIE = 1e-10  # a gain must be better by this share: gains that are equal differ by rounding

# Columns of a node's record: the feature (-1 for a leaf), the bins on both sides of the threshold,
# how far the right child lies behind the node (the left one is next), where missing values go,
# and the rows of the node.
FEATURE, LOW, HIGH, RIGHT, MISSING_LEFT, START, STOP = range(7)
VALUE, GAIN, COVER = range(3)
# Entries of ``settings``; the units turn whole numbers into gradients and curvatures.
L2, MIN_WEIGHT, MIN_LEAF, MAX_DEPTH, G_UNIT, H_UNIT = range(6)
# Entries of a split, after FEATURE to MISSING_LEFT: the sums of its left side
SUMS = 5
# Entries of a histogram's cell; the last is left out where every row has the same curvature
_SUM, _COUNT, _WEIGHT = range(3)
# Entries of a node that waits: its parent, its side, its rows, its depth, and its histogram
PARENT, SIDE, FIRST, END, DEPTH, SLOT = range(6)


_ONE, _TWO, _THREE, _BINS = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(BINS)
_SIX, _LAST = np.uintp(6), np.uintp(63)


@njit(cache=True, nogil=True)
def _score(g, h, lower, upper):
    """What a leaf takes off twice the objective, and its value: -g/h within its bounds."""
    if not h > 0.0:
        return 0.0, min(max(0.0, lower), upper)
    value = -g / h
    if value < lower or value > upper:
        value = min(max(value, lower), upper)
        return -(2.0 * g + h * value) * value, value
    return g * g / h, value


@njit(cache=True, nogil=True)
def leaf_value(g, h, lower, upper):
    """The value of a leaf, within its bounds; ``h`` holds the penalty."""
    return _score(g, h, lower, upper)[1]


@njit(cache=True, nogil=True)
def _order_of(sums, size, settings, order):
    """Order categories by the value that a leaf of each alone would have: [size] into order."""
    rank = np.empty(size)
    for i in range(size):
        weight = sums[i, 1] * settings[H_UNIT] + settings[L2]
        rank[i] = sums[i, 0] * settings[G_UNIT] / weight if weight > 0.0 else 0.0
        place = i
        while place > 0 and rank[order[place - 1]] > rank[i]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = i


@njit(cache=True, nogil=True)
def _scan(column, size, codes, sums, missing, total, kind, bounds, settings, gain, split, left):
    """Try every split of one column, and keep the best of all columns.

    Args:
        column: Which column.
        size: How many of its bins are in use.
        codes: int64 [256]: these bins, ascending.
        sums: int64 [256, 3]: their sums of g and of h, and counts.
        missing, total: int64 [3]: the same of the missing values, and of the node.
        kind: 0 for a number, 1 or -1 for one along which the value must not fall or rise, 2 for
            a category.
        bounds: float64 [2], between which values must lie.
        settings: float64 [6].
        gain: That of the best split so far.
        split: int64 [8], the best split so far.
        left: bool [256], the categories on its left.

    Returns:
        The gain of the best split so far.
    """
    g_unit, h_unit, l2 = settings[G_UNIT], settings[H_UNIT], settings[L2]
    least, least_weight = settings[MIN_LEAF], settings[MIN_WEIGHT]
    lower, upper = bounds[0], bounds[1]
    bound = kind == 1 or kind == -1 or lower > -np.inf or upper < np.inf
    base, _ = _score(total[0] * g_unit, total[1] * h_unit + l2, lower, upper)
    order = np.empty(size if kind == 2 else 0, np.int64)
    if kind == 2:
        _order_of(sums, size, settings, order)
    for way in range(2 if missing[2] > 0 else 1):  # missing values on the right, then on the left
        g, h, n = np.int64(0), np.int64(0), np.int64(0)
        if way == 1:
            g, h, n = missing[0], missing[1], missing[2]
        alone = way == 0 and missing[2] > 0  # then all others may be on the left
        for i in range(size if alone else size - 1):
            k = order[i] if kind == 2 else i
            g += sums[k, 0]
            h += sums[k, 1]
            n += sums[k, 2]
            h_left, h_right = h * h_unit, (total[1] - h) * h_unit
            if n < least or h_left < least_weight:
                continue
            if total[2] - n < least or h_right < least_weight:
                break
            g_left, g_right = g * g_unit, (total[0] - g) * g_unit
            h_left, h_right = h_left + l2, h_right + l2
            if bound:
                on_left, left_value = _score(g_left, h_left, lower, upper)
                on_right, right_value = _score(g_right, h_right, lower, upper)
                if (kind == 1 and left_value > right_value) or (
                    kind == -1 and left_value < right_value
                ):
                    continue
            else:  # the same without their values, of which there would be two divisions more
                on_left = g_left * g_left / h_left if h_left > 0.0 else 0.0
                on_right = g_right * g_right / h_right if h_right > 0.0 else 0.0
            found = on_left + on_right - base
            if found > gain * (1.0 + TIE) and found > 1e-12 * (on_left + on_right):
                gain = found
                split[FEATURE] = column
                split[MISSING_LEFT] = way if missing[2] > 0 else 2 * h > total[1]
                split[SUMS], split[SUMS + 1], split[SUMS + 2] = g, h, n
                if kind == 2:
                    split[LOW] = split[HIGH] = -1
                    left[:] = False
                    for j in range(i + 1):
                        left[codes[order[j]]] = True
                else:
                    split[LOW] = codes[k]
                    split[HIGH] = codes[k + 1] if k + 1 < size else codes[k]
    return gain


@njit(cache=True, nogil=True)
def search_histogram(hist, columns, kinds, total, bounds, settings, split, left):
    """The best split of a node by its histogram.

    Args:
        hist: int64 [d, 256, 3 or 2].
        columns: int32 [k], which columns.
        kinds: int8 [d]; this and what follows as for one column above.
        total: int64 [3].
        bounds: float64 [2].
        settings: float64 [6].
        split: int64 [8], receives the split.
        left: bool [256], receives the categories on its left.

    Returns:
        Its gain; 0 where there is none.
    """
    codes, sums = np.empty(BINS, np.int64), np.empty((BINS, 3), np.int64)
    missing = np.empty(3, np.int64)
    weighted = hist.shape[2] == 3
    each = np.int64(0) if weighted else total[1] // total[2]  # the curvature of every row
    gain = 0.0
    flat, cells = hist.reshape(-1), np.uintp(hist.shape[2])
    for column in columns:
        cell = np.uintp(column) * _BINS * cells
        size = np.uintp(0)
        for code in range(MISSING):  # one that is empty is overwritten by the next
            count = flat[cell + _ONE]
            codes[size] = code
            sums[size, 0] = flat[cell]
            sums[size, 1] = flat[cell + _TWO] if weighted else count * each
            sums[size, 2] = count
            size += np.uintp(count != 0)
            cell += cells
        count = flat[cell + _ONE]
        missing[0], missing[2] = flat[cell], count
        missing[1] = flat[cell + _TWO] if weighted else count * each
        gain = _scan(
            column, np.int64(size), codes, sums, missing, total, kinds[column], bounds, settings,
            gain, split, left,
        )  # fmt: skip
    return gain


@njit(cache=True, nogil=True)
def _search_rows(bins, gh, rows, columns, kinds, total, bounds, settings, tally, split, left):
    """The same for few rows, without a histogram: ``tally``, int64 [256, 3], is and stays 0."""
    codes, sums = np.empty(BINS, np.int64), np.empty((BINS, 3), np.int64)
    used, missing = np.zeros(4, np.uint64), np.empty(3, np.int64)
    own, flat = np.empty((rows.size, 2), np.int64), tally.reshape(-1)
    for i in range(rows.size):
        own[i, 0], own[i, 1] = gh[rows[i], 0], gh[rows[i], 1]
    gain = 0.0
    for column in columns:
        for i in range(rows.size):
            code = np.uintp(bins[np.uintp(rows[i]), np.uintp(column)])
            used[code >> _SIX] |= _ONE << (code & _LAST)
            cell = code * _THREE
            flat[cell] += own[i, 0]
            flat[cell + _ONE] += own[i, 1]
            flat[cell + _TWO] += 1
        missing[:] = tally[MISSING]
        tally[MISSING] = 0
        used[3] &= ~(np.uint64(1) << np.uint64(63))
        size = np.uintp(0)
        for word in range(4):
            rest, first = used[word], np.uintp(64 * word)
            used[word] = 0
            while rest:
                code = first + np.uintp(trailing_zeros(rest))
                codes[size] = code
                cell = code * _THREE
                for k in range(3):
                    sums[size, k] = flat[cell + np.uintp(k)]
                    flat[cell + np.uintp(k)] = 0
                size += _ONE
                rest &= rest - _ONE
        gain = _scan(
            column, np.int64(size), codes, sums, missing, total, kinds[column], bounds, settings,
            gain, split, left,
        )  # fmt: skip
    return gain


@njit(cache=True, nogil=True)
def child_bounds(kinds, split, total, bounds, settings, lower_child, upper_child):
    """The bounds of both children: along a monotone column they part in the middle."""
    lower_child[:] = bounds
    upper_child[:] = bounds
    kind = kinds[split[FEATURE]]
    if kind == 1 or kind == -1:
        g, h = split[SUMS] * settings[G_UNIT], split[SUMS + 1] * settings[H_UNIT]
        whole = total[0] * settings[G_UNIT], total[1] * settings[H_UNIT]
        _, one = _score(g, h + settings[L2], bounds[0], bounds[1])
        _, two = _score(whole[0] - g, whole[1] - h + settings[L2], bounds[0], bounds[1])
        middle = (one + two) / 2
        lower_child[1 if kind == 1 else 0] = middle
        upper_child[0 if kind == 1 else 1] = middle


@njit(cache=True, nogil=True)
def _split_histogram(pool, slot, free, bins, gh, small, large, columns):
    """Turn a node's histogram into those of its children.

    That of the child with more rows takes its place; the other's, where it needs one, is counted
    and taken off it.

    Returns:
        The slots of the smaller and of the larger child, -1 for none, and how many slots are free.
    """
    count = free[0]
    if large.size <= SMALL:
        free[count + 1] = slot
        free[0] = count + 1
        return -1, -1
    if small.size <= SMALL:
        for row in small:
            for column in columns:
                cell = pool[slot, column, bins[row, column]]
                cell[_SUM] -= gh[row, 0]
                cell[_COUNT] -= 1
                if pool.shape[3] == 3:
                    cell[_WEIGHT] -= gh[row, 1]
        return -1, slot
    own = free[count]
    free[0] = count - 1
    for column in columns:
        pool[own, column] = 0
    accumulate(pool[own], bins, gh, small, columns)
    for column in columns:
        pool[slot, column] -= pool[own, column]
    return own, slot


@njit(cache=True, nogil=True)
def grow(
    bins, gh, rows, spare, columns, kinds, total, bounds, settings, pool, counted, nodes, values,
    sets,
):  # fmt: skip
    """Grow a tree, depth first.

    Args:
        bins: uint8 [n, d], the last bin for missing values.
        gh: int64 [n, 2], gradients and curvatures in the units of the settings.
        rows: int32 [m], the rows of the root; reordered so that every node's are together.
        spare: int32, at least [m].
        columns: int32 [k], the columns to use.
        kinds: int8 [d]: 0 for a number, 1 or -1 for one along which the value must not fall or
            rise, 2 for a category.
        total: int64 [3]: sums of g and of h and the count over the root's rows.
        bounds: float64 [2], between which the root's value must lie.
        settings: float64 [6]: L2 penalty, least curvature and least rows of a leaf, greatest
            depth, the units of g and h.
        pool: int64 [depth + 2, d, 256, 3 or 2], room for histograms.
        counted: Whether the root's is there already, as the last.
        nodes: int32 [room, 7], receives the nodes in depth-first order.
        values: float64 [room, 3], receives their values, gains and curvatures.
        sets: bool [room, 256], receives the categories on the left; [0, 256] without categories.

    Returns:
        How many nodes there are.
    """
    split, left = np.zeros(8, np.int64), np.zeros(BINS, np.bool_)
    tally = np.zeros((BINS, 3), np.int64)
    depth_limit = int(settings[MAX_DEPTH])
    waiting = np.empty((depth_limit + 2, 6), np.int64)
    totals = np.empty((depth_limit + 2, 3), np.int64)
    limits = np.empty((depth_limit + 2, 2))
    own, edge = np.empty(3, np.int64), np.empty(2)
    free = np.empty(pool.shape[0] + 1, np.int64)  # how many slots are free, and which
    free[0] = pool.shape[0]
    free[1:] = np.arange(pool.shape[0])
    slot = -1
    if rows.size > SMALL and depth_limit > 0:
        slot = free[free[0]]
        free[0] -= 1
        if not counted:
            pool[slot] = 0
            accumulate(pool[slot], bins, gh, rows, columns)
    waiting[0] = -1, 0, 0, rows.size, 0, slot
    totals[0], limits[0] = total, bounds
    pending, count = 1, 0
    while pending:
        pending -= 1
        parent, side, start, stop, depth, slot = waiting[pending]
        own[:], edge[:] = totals[pending], limits[pending]
        if side == 1:
            nodes[parent, RIGHT] = count - parent
        mine = rows[start:stop]
        weight = own[1] * settings[H_UNIT]
        gain = 0.0
        if depth < depth_limit and mine.size > 1:
            if slot >= 0:
                gain = search_histogram(
                    pool[slot], columns, kinds, own, edge, settings, split, left
                )
            else:
                gain = _search_rows(
                    bins, gh, mine, columns, kinds, own, edge, settings, tally, split, left
                )
        node = count
        count += 1
        nodes[node, START], nodes[node, STOP] = start, stop
        nodes[node, RIGHT] = 0
        values[node, VALUE] = _score(
            own[0] * settings[G_UNIT], weight + settings[L2], edge[0], edge[1]
        )[1]
        values[node, GAIN], values[node, COVER] = gain, weight
        if not gain > 0.0:
            nodes[node, FEATURE] = -1
            if slot >= 0:
                free[0] += 1
                free[free[0]] = slot
            continue
        nodes[node, : MISSING_LEFT + 1] = split[: MISSING_LEFT + 1]
        if split[LOW] < 0:
            sets[node] = left
        on_left = partition(
            bins, mine, spare, split[FEATURE], split[LOW], split[MISSING_LEFT], left
        )
        middle = start + on_left
        slots = -1, -1
        if slot >= 0 and depth + 1 < depth_limit:
            if on_left <= stop - middle:
                slots = _split_histogram(
                    pool, slot, free, bins, gh, rows[start:middle], rows[middle:stop], columns
                )
            else:
                slots = _split_histogram(
                    pool, slot, free, bins, gh, rows[middle:stop], rows[start:middle], columns
                )
                slots = slots[1], slots[0]
        elif slot >= 0:
            free[0] += 1
            free[free[0]] = slot
        waiting[pending] = node, 1, middle, stop, depth + 1, slots[1]
        waiting[pending + 1] = node, 0, start, middle, depth + 1, slots[0]
        child_bounds(kinds, split, own, edge, settings, limits[pending + 1], limits[pending])
        for k in range(3):
            totals[pending + 1, k] = split[SUMS + k]
            totals[pending, k] = own[k] - split[SUMS + k]
        pending += 2
    return count
