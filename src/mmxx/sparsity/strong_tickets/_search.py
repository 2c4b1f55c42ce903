"""Compiled search for subsets: meet in the middle over two sorted halves."""

from __future__ import annotations

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]


@njit(cache=True, nogil=True)
def _sorted_sums(items, sums, codes, spare, spare_codes):
    """All subset sums of some items, ascending, and the bits of their subsets.

    Each item doubles the list: the list and the list moved by the item are merged, so that
    nothing is ever sorted, and without a branch, which could not be predicted. ``sums`` and
    ``codes`` receive the result; all arrays have one place more than there are sums.
    """
    size = 1
    old, old_codes, new, new_codes = sums, codes, spare, spare_codes
    if items.size % 2:  # so that the last merge ends in ``sums``
        old, old_codes, new, new_codes = spare, spare_codes, sums, codes
    old[0], old_codes[0] = 0.0, 0
    for bit in range(items.size):
        x, flag = items[bit], 1 << bit
        old[size] = np.inf  # whoever is at the end never comes first
        i, j = 0, 0
        for place in range(2 * size):
            still, moved = old[i], old[j] + x
            second = still > moved
            new[place] = moved if second else still
            new_codes[place] = old_codes[j] | flag if second else old_codes[i]
            i += 1 - second
            j += second
        size *= 2
        old, new = new, old
        old_codes, new_codes = new_codes, old_codes


@njit(cache=True, nogil=True)
def _nearest(w, low, low_codes, high, high_codes, tol):
    """The subset whose sum, one of each half, is nearest to w.

    The two pointers start in the middle of the lower half, where sums lie close together, so that
    a search with a tolerance ends soon; from there up, then down.
    """
    middle = low.size // 2
    start = np.searchsorted(high, w - low[middle])
    best, code = np.inf, 0
    i, j = middle, min(start, high.size - 1)
    while i < low.size and j >= 0:
        off = low[i] + high[j] - w
        if abs(off) < best:
            best, code = abs(off), low_codes[i] | high_codes[j]
            if best <= tol:
                return code
        above = off > 0
        j -= above
        i += 1 - above
    i, j = middle - 1, max(start - 1, 0)
    while i >= 0 and j < high.size:
        off = low[i] + high[j] - w
        if abs(off) < best:
            best, code = abs(off), low_codes[i] | high_codes[j]
            if best <= tol:
                return code
        above = off > 0
        i -= above
        j += 1 - above
    return code


@njit(cache=True, nogil=True)
def _ones(code):
    count = 0
    while code:
        code &= code - 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def _nearest_of_few(w, low, low_codes, high, high_codes, tol, most):
    """As `_nearest`, over subsets of at most ``most`` items: once for each count in one half."""
    best, code = np.inf, 0
    for count in range(most + 1):
        if best <= tol:
            break
        i, j = 0, high.size - 1
        while i < low.size and j >= 0:
            if _ones(low_codes[i]) != count:
                i += 1
                continue
            if _ones(high_codes[j]) > most - count:
                j -= 1
                continue
            off = low[i] + high[j] - w
            if abs(off) < best:
                best, code = abs(off), low_codes[i] | high_codes[j]
                if best <= tol:
                    break
            if off > 0:
                j -= 1
            else:
                i += 1
    return code


@njit(cache=True, nogil=True)
def search(targets, items, tol, most, codes, errors):
    """A subset for every target of every group.

    Listing the sums costs more than a search. So a target that shares its numbers with no other
    is sought among the sums of a dozen first, and then of four more at a time.

    Args:
        targets: float64 [groups, targets].
        items: float64 [groups, n]: what the targets of a group choose from.
        tol: The search for a target ends at an error of this or less.
        most: Items in a subset at most; n or more means any number.
        codes: int64 [groups, targets], receives the bits of the subsets.
        errors: float64 [groups, targets], receives the absolute errors.
    """
    n = items.shape[1]
    room = (1 << (n - n // 2)) + 1
    sums, spare = np.empty((2, room)), np.empty(room)
    bits, spare_bits = np.empty((2, room), np.int64), np.empty(room, np.int64)
    alone = tol > 0 and targets.shape[1] == 1 and n >= 12
    for group in range(items.shape[0]):
        count = 12 + n % 4 if alone else n
        while True:
            half = count // 2
            _sorted_sums(items[group, :half], sums[0], bits[0], spare, spare_bits)
            _sorted_sums(items[group, half:count], sums[1], bits[1], spare, spare_bits)
            low, low_codes = sums[0, : 1 << half], bits[0, : 1 << half]
            high, high_codes = sums[1, : 1 << (count - half)], bits[1, : 1 << (count - half)]
            for place in range(high.size):
                high_codes[place] <<= half
            for k in range(targets.shape[1]):
                w = targets[group, k]
                if most >= count:
                    code = _nearest(w, low, low_codes, high, high_codes, tol)
                else:
                    code = _nearest_of_few(w, low, low_codes, high, high_codes, tol, most)
                total = 0.0
                for bit in range(count):
                    if code >> bit & 1:
                        total += items[group, bit]
                codes[group, k], errors[group, k] = code, abs(total - w)
            if count == n or errors[group, 0] <= tol:
                break
            count += 4


@njit(cache=True, nogil=True)
def _covers(sums, half_width, eps):
    """Whether every point of [-h, h] has one of some ascending sums within eps.

    What lies between two neighbours is near enough where they are 2 eps apart at most.
    """
    inner = half_width - eps
    place = np.searchsorted(sums, -inner, side="right")
    if place == 0 or sums[-1] < inner:
        return False
    while sums[place - 1] < inner:
        if sums[place] - sums[place - 1] > 2 * eps * (1 + 1e-12):
            return False
        place += 1
    return True


@njit(cache=True, nogil=True)
def covering_counts(sets, half_width, eps, counts):
    """For each set and tolerance the least n such that the sums of the first n numbers cover.

    Args:
        sets: float64 [sets, n].
        half_width: h of the targets [-h, h].
        eps: Tolerances, float64 [e].
        counts: int64 [sets, e], receives the least n, or one more than there are numbers.
    """
    n = sets.shape[1]
    old, new = np.empty((1 << n) + 1), np.empty((1 << n) + 1)
    for row in range(sets.shape[0]):
        counts[row] = n + 1
        size, left = 1, eps.size
        old[0] = 0.0
        for count in range(1, n + 1):
            x = sets[row, count - 1]
            old[size] = np.inf
            i, j = 0, 0
            for place in range(2 * size):  # as in `_sorted_sums`
                still, moved = old[i], old[j] + x
                second = still > moved
                new[place] = moved if second else still
                i += 1 - second
                j += second
            size *= 2
            old, new = new, old
            for e in range(eps.size):
                if counts[row, e] > n and _covers(old[:size], half_width, eps[e]):
                    counts[row, e] = count
                    left -= 1
            if left == 0:
                break


@njit(cache=True, nogil=True)
def greedy(targets, numbers, borders, chosen, errors):
    """Golden-ratio decomposition of each target by the first of its numbers in each bin.

    Args:
        targets: float64 [G].
        numbers: float64 [G, n]; those of the other sign than the target are passed over.
        borders: float64 [k + 1], descending; bin i holds what is in (borders[i + 1], borders[i]].
        chosen: int64 [G, k], receives what was taken of each bin, by number, or -1.
        errors: float64 [G], receives what is left of each target, in magnitude.
    """
    k = borders.size - 1
    first = np.empty(k, np.int64)
    for g in range(targets.size):
        sign = -1.0 if targets[g] < 0 else 1.0
        first[:] = -1
        for d in range(numbers.shape[1]):
            z = numbers[g, d] * sign
            if z > borders[k] and z <= borders[0]:
                low, high = 0, k  # z lies in (borders[high], borders[low]]
                while high - low > 1:
                    middle = (low + high) // 2
                    if z > borders[middle]:
                        high = middle
                    else:
                        low = middle
                if first[low] < 0:
                    first[low] = d
        rest = abs(targets[g])
        for place in range(k):
            d = first[place]
            chosen[g, place] = -1
            if d >= 0 and numbers[g, d] * sign <= rest:
                rest -= numbers[g, d] * sign
                chosen[g, place] = d
        errors[g] = rest
