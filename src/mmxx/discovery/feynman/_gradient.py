"""The compiled sweep that compares directions of gradients: it finds h of y = g(h(x))."""

from __future__ import annotations

import math

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.feynman import _program as program

_FIRST = 4  # rows of the first look: a wrong formula shows soon
_PRECISION = 2.0**30


@njit(cache=True, nogil=True, error_model="numpy")
def _step(code, arity, a, b, here, da, db, dual, low, high):
    """Values and derivatives of one position on some rows."""
    variables = dual.shape[0]
    m = high - low
    program.apply(code, 0.0, a[low:high], b[low:high], here[low:high], m)
    for j in range(low, high):
        by_a, by_b = program.slope(code, 0.0, a[j], b[j], here[j])
        for k in range(variables):
            change = by_a * da[k, j]
            if arity == 2:
                change += by_b * db[k, j]
            dual[k, j] = change


@njit(cache=True, nogil=True, error_model="numpy")
def _bits(dual, target, j):
    """Bits by which the direction of a gradient is off in row j; NaN where there is none."""
    dot, square = 0.0, 0.0
    for k in range(dual.shape[0]):
        dot += dual[k, j] * target[k, j]
        square += dual[k, j] * dual[k, j]
    off = 1 - abs(dot) / math.sqrt(square)
    return math.log2(max(off * _PRECISION, 1.0)) if off == off else np.nan


@njit(cache=True, nogil=True)
def _leaf(code, first, leaves, here, dual, low, high):
    here[low:high] = leaves[code, low:high]
    dual[:, low:high] = 0.0
    if code >= first:
        dual[code - first, low:high] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def scan(arity, left, right, radix, table, leaves, target, first, start, stop, nu, best, sigma,
         enough, out_index, out_value):  # fmt: skip
    """`mmxx.discovery.feynman._sweep.scan` for gradients.

    Args:
        target: Unit gradients, [variables, rows].
        first: The leaf that is the first variable.
        out_value: Mean bits, deviation, 1 and the largest bits.

    The test is made after every row, as the authors do.

    Returns:
        How many were written, the index to go on from, and best and sigma then.
    """
    n = arity.size
    variables, rows = target.shape
    m = min(_FIRST, rows)
    value, dual = np.empty((n, rows)), np.empty((n, variables, rows))
    weight = np.ones(n, np.int64)
    for p in range(n - 2, -1, -1):
        weight[p] = weight[p + 1] * radix[p + 1]
    digits, chosen = np.empty(n, np.int64), np.empty(n, np.int64)
    index = start
    for p in range(n):
        digits[p] = (index // weight[p]) % radix[p]
    written, level = 0, 0
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
        one, two = left[level], right[level]
        if arity[level] == 0:
            _leaf(code, first, leaves, value[level], dual[level], 0, m)
        else:
            _step(code, arity[level], value[one], value[two], value[level], dual[one], dual[two],
                  dual[level], 0, m)  # fmt: skip
        bad = False
        for j in range(m):
            bad |= not math.isfinite(value[level, j])
        if bad:
            index += weight[level] - index % weight[level]
            digits[level] += 1
            digits[level + 1 :] = 0
            continue
        if level < n - 1:
            level += 1
            continue
        total = squares = most = 0.0
        done, upto, alive = 0, m, True
        while alive:
            for j in range(done, upto):
                bits = _bits(dual[n - 1], target, j)
                total += bits
                squares += bits * bits
                most = max(most, bits)
                mean = total / (j + 1)
                if not math.sqrt(j + 1) * (mean - best) <= nu * sigma:  # NaN, too
                    alive = False
                    break
            done = upto
            if not alive or done == rows:
                break
            upto = min(4 * upto, rows)
            for p in range(n):
                if arity[p] == 0:
                    _leaf(chosen[p], first, leaves, value[p], dual[p], done, upto)
                else:
                    one, two = left[p], right[p]
                    _step(chosen[p], arity[p], value[one], value[two], value[p], dual[one],
                          dual[two], dual[p], done, upto)  # fmt: skip
        if alive and total / rows < best:
            best = total / rows
            sigma = math.sqrt(max(squares / rows - best * best, 0.0))
            out_index[written] = index
            out_value[written, 0], out_value[written, 1] = best, sigma
            out_value[written, 2], out_value[written, 3] = 1.0, most
            written += 1
            if best < enough or written == out_index.size:
                return written, index + 1, best, sigma
        index += 1
        digits[level] += 1
    return written, min(index, stop), best, sigma
