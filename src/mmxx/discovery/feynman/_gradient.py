"""The compiled sweep that compares directions of gradients: it finds h of y = g(h(x))."""

from __future__ import annotations

import math

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.feynman import _program as program
from mmxx.discovery.feynman._sweep import FIRST

_PRECISION = 2.0**30
_CAP = 60.0  # bits: a product of 16 errors stays below 2^960


@njit(cache=True, nogil=True, error_model="numpy")
def _position(code, arity, first, leaves, low, a, b, here, da, db, dual, by, m):
    """Values and derivatives of one position on ``m`` rows from ``low`` on.

    Args:
        code: Leaf or opcode.
        arity: How many operands it takes.
        first: The leaf that is the first variable.
        leaves: Constants and variables, [leaves, rows].
        low: The first row.
        a, b: Values of the operands, [block].
        here: Receives the values, [block].
        da, db: Derivatives of the operands, [variables, block].
        dual: Receives the derivatives.
        by: Scratch, [2, block].
        m: Rows.
    """
    variables = dual.shape[0]
    if arity == 0:
        here[:m] = leaves[code, low : low + m]
        dual[:, :m] = 0.0
        if code >= first:
            dual[code - first, :m] = 1.0
        return
    program.apply(code, 0.0, a, b, here, m)
    program.slopes(code, 0.0, a, b, here, by[0], by[1], m)
    for k in range(variables):
        if arity == 1:
            for j in range(m):
                dual[k, j] = by[0, j] * da[k, j]
        else:
            for j in range(m):
                dual[k, j] = by[0, j] * da[k, j] + by[1, j] * db[k, j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})
def _product(dual, target, low, off, m):
    """The product of max(1, error) of ``m`` rows, and the errors; infinite where there is none.

    The error is how far the cosine of both gradients is from 1, in units of 2^-30; the signs of
    directions do not matter.
    """
    total, spoilt = 1.0, 0.0
    for j in range(m):
        dot, square = 0.0, 0.0
        for k in range(dual.shape[0]):
            dot += dual[k, j] * target[k, low + j]
            square += dual[k, j] * dual[k, j]
        error = (1 - abs(dot) / np.sqrt(square)) * _PRECISION
        spoilt += error * 0.0
        off[j] = error if error > 1.0 else 1.0
    for j in range(m):
        total *= off[j]
    return total if spoilt == 0.0 else np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def _judge(chosen, arity, left, right, leaves, target, first, nu, best, sigma, work, duals, by):
    """Look at one formula on more and more rows, until the test rejects it or all were seen.

    Args:
        chosen: Leaf or opcode at each position, [length].
        work: Scratch, [length, 16].
        duals: Scratch, [length, variables, 16].
        by: Scratch, [2, 16].

    Returns:
        Mean bits (infinite if rejected), their deviation, and the largest.
    """
    n, rows = chosen.size, target.shape[1]
    off = np.empty(FIRST)
    total = squares = most = mean = 0.0
    done, upto = 0, min(FIRST, rows)
    while done < rows:
        for low in range(done, upto, FIRST):
            m = min(FIRST, upto - low)
            for p in range(n):
                one, two = left[p], right[p]
                _position(chosen[p], arity[p], first, leaves, low, work[one], work[two], work[p],
                          duals[one], duals[two], duals[p], by, m)  # fmt: skip
            if not _product(duals[n - 1], target, low, off, m) < np.inf:
                return np.inf, 0.0, 0.0
            for j in range(m):
                bits = math.log2(off[j])
                total += bits
                squares += bits * bits
                most = max(most, bits)
        mean = total / upto
        if upto < rows and math.sqrt(upto) * (mean - best) > nu * sigma:
            return np.inf, 0.0, 0.0
        done, upto = upto, min(4 * upto, rows)
    return mean, math.sqrt(max(squares / rows - mean * mean, 0.0)), most


@njit(cache=True, nogil=True, error_model="numpy")
def scan(arity, left, right, radix, table, leaves, target, first, start, stop, nu, best, sigma,
         enough, out_index, out_value):  # fmt: skip
    """`mmxx.discovery.feynman._sweep.scan` for gradients.

    Args:
        target: Unit gradients, [variables, rows].
        first: The leaf that is the first variable.
        out_value: Mean bits, deviation, 1 and the largest bits.

    Returns:
        How many were written, the index to go on from, and best and sigma then.
    """
    n = arity.size
    variables, rows = target.shape
    m = min(FIRST, rows)
    value, dual = np.empty((n, FIRST)), np.empty((n, variables, FIRST))
    spare, spare_dual = np.empty((n, FIRST)), np.empty((n, variables, FIRST))
    by, off = np.empty((2, FIRST)), np.empty(FIRST)
    weight = np.ones(n, np.int64)
    for p in range(n - 2, -1, -1):
        weight[p] = weight[p + 1] * radix[p + 1]
    digits, chosen = np.empty(n, np.int64), np.empty(n, np.int64)
    index = start
    for p in range(n):
        digits[p] = (index // weight[p]) % radix[p]
    written, level = 0, 0
    allowed = 2.0 ** (m * min(best + nu * sigma / math.sqrt(m), _CAP))
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
        _position(code, arity[level], first, leaves, 0, value[one], value[two], value[level],
                  dual[one], dual[two], dual[level], by, m)  # fmt: skip
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
        if _product(dual[n - 1], target, 0, off, m) <= allowed:
            mean, deviation, most = _judge(
                chosen, arity, left, right, leaves, target, first, nu, best, sigma, spare,
                spare_dual, by,
            )  # fmt: skip
            if mean < best:
                best, sigma = mean, deviation
                allowed = 2.0 ** (m * min(best + nu * sigma / math.sqrt(m), _CAP))
                out_index[written] = index
                out_value[written, 0], out_value[written, 1] = best, sigma
                out_value[written, 2], out_value[written, 3] = 1.0, most
                written += 1
                if best < enough or written == out_index.size:
                    return written, index + 1, best, sigma
        index += 1
        digits[level] += 1
    return written, min(index, stop), best, sigma
