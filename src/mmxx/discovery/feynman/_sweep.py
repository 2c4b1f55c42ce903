"""The compiled sweep over all formulas of a template, and the tests that a formula must pass.

One buffer for each position of the postfix string instead of a stack: the operands of a position
are fixed by the template. The last position turns fastest, so that what stands before it is
computed once for all its endings, and a part that is not finite takes all its endings with it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.feynman import _program as program

TIMES, PLUS, PLAIN, GRADIENT = 0, 1, 2, 3
FIRST = 16  # rows of the first look
_CAP = 60.0  # bits: a product of 16 errors stays below 2^960
_HUGE, _TINY = 2.0**30, 2.0**-30


@njit(cache=True, nogil=True, inline="always")
def _median5(a, b, c, d, e):
    """The middle one of five numbers: that of the last, and of the inner two of the others."""
    low = max(min(a, b), min(c, d))
    high = min(max(a, b), max(c, d))
    return max(min(e, low), min(max(e, low), high))


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _finite(values, m):
    """Whether all are finite: infinity and NaN times 0 are NaN."""
    total = 0.0
    for j in range(m):
        total += values[j] * 0.0
    return total == 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _constant(f, y, mode, m):
    """The first guess of the constant: the median of five, or of all where there are fewer."""
    if mode == PLAIN:
        return 1.0
    if m < 5:
        few = np.empty(m)
        for j in range(m):
            few[j] = y[j] / f[j] if mode == TIMES else y[j] - f[j]
        return np.median(few)
    if mode == TIMES:
        return _median5(y[0] / f[0], y[1] / f[1], y[2] / f[2], y[3] / f[3], y[4] / f[4])
    return _median5(y[0] - f[0], y[1] - f[1], y[2] - f[2], y[3] - f[3], y[4] - f[4])


@njit(cache=True, nogil=True)
def _allowed(c, mode, unit):
    """Whether a constant is a number of at most 30 bits before and after the point."""
    size = abs(c) * unit if mode == TIMES else abs(c) * unit + _TINY
    return _TINY <= size <= _HUGE


@njit(cache=True, nogil=True)
def _free(m, mode):
    """Rows that show errors: the constant is the median of what rows ask for, and fits one."""
    return m if mode == PLAIN or m == 1 else m - 1


@njit(cache=True, nogil=True, fastmath={"reassoc"}, error_model="numpy")
def _product(f, y, c, plus, scale, m):
    """The product of max(1, error), whose logarithm is the sum of bits; NaN spoils it."""
    total, spoilt = 1.0, 0.0
    for j in range(m):
        error = abs(y[j] - c * f[j] - plus) * scale
        spoilt += error * 0.0
        total *= error if error > 1.0 else 1.0
    return total if spoilt == 0.0 else np.inf


@njit(cache=True, nogil=True, fastmath={"reassoc"}, error_model="numpy")
def _largest(f, y, c, plus, scale, m):
    most = 0.0
    for j in range(m):
        most = max(most, abs(y[j] - c * f[j] - plus) * scale)
    return most


@njit(cache=True, nogil=True)
def _median(values, m, spare):
    """The median of ``values[:m]`` by quickselect (the lower of two); NaN if any is NaN."""
    for j in range(m):
        if values[j] != values[j]:
            return np.nan
        spare[j] = values[j]
    low, high, middle = 0, m - 1, (m - 1) // 2
    while low < high:
        pivot = spare[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while spare[i] < pivot:
                i += 1
            while spare[j] > pivot:
                j -= 1
            if i <= j:
                spare[i], spare[j] = spare[j], spare[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            break
    return spare[middle]


@njit(cache=True, nogil=True, error_model="numpy")
def judge(chosen, arity, left, right, leaves, y, mode, scale, nu, best, sigma, worst, work):
    """Look at one formula on more and more rows, until the test rejects it or all were seen.

    Rejected when z = sqrt(j) (mean bits - best) / sigma > nu after j rows, and its largest error
    is no smaller than ``worst`` either.

    Args:
        chosen: Leaf or opcode at each position, [length].
        arity: Of each position; ``left`` and ``right`` are where its operands are.
        leaves: Constants and variables, [leaves, rows].
        y: [rows].
        mode: y = c f (TIMES), f + c (PLUS) or f (PLAIN).
        scale: 1 over the error that counts as one bit.
        nu, best, sigma: Of the test: the best mean so far and the deviation of its bits.
        worst: Bits of the least largest error so far.
        work: Scratch, [3, rows].

    Returns:
        Mean bits (infinite if rejected), their deviation, the constant, the largest error's bits.
    """
    n, rows = chosen.size, y.size
    f, offsets = work[0], work[1]
    buffer = np.empty((n, program.BLOCK))
    done, upto = 0, min(64, rows)
    c = 1.0
    while True:
        for low in range(done, upto, program.BLOCK):
            m = min(program.BLOCK, upto - low)
            for p in range(n):
                if arity[p] == 0:
                    buffer[p, :m] = leaves[chosen[p], low : low + m]
                else:
                    program.apply(chosen[p], 0.0, buffer[left[p]], buffer[right[p]], buffer[p], m)
            f[low : low + m] = buffer[n - 1, :m]
        if not _finite(f[done:upto], upto - done):
            return np.inf, 0.0, 0.0, np.inf
        if mode != PLAIN:
            for j in range(done, upto):
                offsets[j] = y[j] / f[j] if mode == TIMES else y[j] - f[j]
            c = _median(offsets, upto, work[2])
            if not math.isfinite(c):
                return np.inf, 0.0, 0.0, np.inf
        factor, plus = (c, 0.0) if mode == TIMES else (1.0, c if mode == PLUS else 0.0)
        total = 0.0
        for low in range(0, upto, FIRST):
            m = min(FIRST, upto - low)
            part = _product(f[low : low + m], y[low : low + m], factor, plus, scale, m)
            total += math.log2(part)
        mean = total / rows
        worse = mean >= best
        if upto < rows:
            mean = total / _free(upto, mode)
            worse = math.sqrt(upto) * (mean - best) > nu * sigma
        if worse and worst > 0.0:
            worse = _largest(f, y, factor, plus, scale, upto) >= 2.0**worst
        if worse:
            return np.inf, 0.0, 0.0, np.inf
        if upto == rows:
            break
        done, upto = upto, min(4 * upto, rows)
    squares = most = 0.0
    for j in range(rows):
        bits = math.log2(max(abs(y[j] - factor * f[j] - plus) * scale, 1.0))
        squares += bits * bits
        most = max(most, bits)
    return mean, math.sqrt(max(squares / rows - mean * mean, 0.0)), c, most


@njit(cache=True, nogil=True, error_model="numpy")
def scan(arity, left, right, radix, table, leaves, y, mode, scale, start, stop, nu, best, sigma,
         worst, enough, out_index, out_value):  # fmt: skip
    """All formulas of a template from index ``start`` to ``stop``.

    The index counts with the last position fastest. A formula that becomes the best by mean or,
    where ``worst`` is above 0, by largest error is written to ``out_index`` and ``out_value``
    (mean bits, deviation, constant, largest bits).

    Returns:
        How many were written, the index to go on from, and best, sigma and worst then.
    """
    n, rows = arity.size, y.size
    m = min(FIRST, rows)
    unit = scale * _TINY  # 1 over the root mean square of y
    buffer, work = np.empty((n, FIRST)), np.empty((3, rows))
    weight = np.ones(n, np.int64)
    for p in range(n - 2, -1, -1):
        weight[p] = weight[p + 1] * radix[p + 1]
    digits, chosen = np.empty(n, np.int64), np.empty(n, np.int64)
    index = start
    for p in range(n):
        digits[p] = (index // weight[p]) % radix[p]
    written, level = 0, 0
    free = _free(m, mode)
    allowed = 2.0 ** (free * min(best + nu * sigma / math.sqrt(m), _CAP))
    most = 2.0 ** min(worst, 2 * _CAP)
    while index < stop:
        if digits[level] == radix[level]:
            if level == 0:
                break
            digits[level] = 0
            level -= 1
            digits[level] += 1
            continue
        code = table[arity[level], digits[level]]
        chosen[level] = code
        here = buffer[level]
        if arity[level] == 0:
            for j in range(m):
                here[j] = leaves[code, j]
        else:
            program.apply(code, 0.0, buffer[left[level]], buffer[right[level]], here, m)
            if level < n - 1 and not _finite(here, m):
                index += weight[level] - index % weight[level]
                digits[level] += 1
                digits[level + 1 :] = 0
                continue
        if level < n - 1:
            level += 1
            continue
        c = _constant(here, y, mode, m)
        if _allowed(c, mode, unit):
            factor, plus = (c, 0.0) if mode == TIMES else (1.0, c if mode == PLUS else 0.0)
            good = _product(here, y, factor, plus, scale, m) < allowed
            if not good and most > 1.0:
                good = _largest(here, y, factor, plus, scale, m) < most
            if good:
                mean, deviation, c, bits = judge(
                    chosen, arity, left, right, leaves, y, mode, scale, nu, best, sigma, worst, work
                )
                if mean < np.inf and _allowed(c, mode, unit):
                    out_index[written] = index
                    out_value[written, 0], out_value[written, 1] = mean, deviation
                    out_value[written, 2], out_value[written, 3] = c, bits
                    written += 1
                    if mean < best:
                        best, sigma = mean, deviation
                        allowed = 2.0 ** (free * min(best + nu * sigma / math.sqrt(m), _CAP))
                    if bits < worst:
                        worst = bits
                        most = 2.0 ** min(worst, 2 * _CAP)
                    if best < enough or written == out_index.size:
                        return written, index + 1, best, sigma, worst
        index += 1
        digits[level] += 1
    return written, min(index, stop), best, sigma, worst
