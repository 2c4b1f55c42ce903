"""Compiled arithmetic: the operations of formulas on blocks of rows, with derivatives."""

from __future__ import annotations

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

# Opcodes. Leaves, unary, binary; POW and LIN take a number beside their argument.
CONST, VAR = 0, 1
NEG, INV, SQRT, EXP, LOG, SIN, COS, TAN, ASIN, ACOS, ATAN, TANH, ABS, SUCC, PRED, TWICE, ODD = (
    range(2, 19)
)
POW = 19
ADD, SUB, MUL, DIV = 20, 21, 22, 23
BLOCK = 128


@njit(cache=True, nogil=True, error_model="numpy")
def apply(code, number, a, b, out, m):
    """``out[:m] = code(a[:m], b[:m])``; one branch a block, not one a row."""
    if code == MUL:
        for j in range(m):
            out[j] = a[j] * b[j]
    elif code == ADD:
        for j in range(m):
            out[j] = a[j] + b[j]
    elif code == SUB:
        for j in range(m):
            out[j] = a[j] - b[j]
    elif code == DIV:
        for j in range(m):
            out[j] = a[j] / b[j]
    elif code == SUCC:
        for j in range(m):
            out[j] = a[j] + 1
    elif code == PRED:
        for j in range(m):
            out[j] = a[j] - 1
    elif code == NEG:
        for j in range(m):
            out[j] = -a[j]
    elif code == INV:
        for j in range(m):
            out[j] = 1 / a[j]
    elif code == SQRT:
        for j in range(m):
            out[j] = np.sqrt(a[j])
    elif code == EXP:
        for j in range(m):
            out[j] = np.exp(a[j])
    elif code == LOG:
        for j in range(m):
            out[j] = np.log(a[j])
    elif code == SIN:
        for j in range(m):
            out[j] = np.sin(a[j])
    elif code == COS:
        for j in range(m):
            out[j] = np.cos(a[j])
    elif code == POW:
        if number == 2:
            for j in range(m):
                out[j] = a[j] * a[j]
        else:
            for j in range(m):
                out[j] = a[j] ** number
    elif code == TAN:
        for j in range(m):
            out[j] = np.tan(a[j])
    elif code == ASIN:
        for j in range(m):
            out[j] = np.arcsin(a[j])
    elif code == ACOS:
        for j in range(m):
            out[j] = np.arccos(a[j])
    elif code == ATAN:
        for j in range(m):
            out[j] = np.arctan(a[j])
    elif code == TANH:
        for j in range(m):
            out[j] = np.tanh(a[j])
    elif code == ABS:
        for j in range(m):
            out[j] = abs(a[j])
    elif code == TWICE:
        for j in range(m):
            out[j] = 2 * a[j]
    else:  # ODD
        for j in range(m):
            out[j] = 2 * a[j] + 1


@njit(cache=True, nogil=True, error_model="numpy")
def slopes(code, number, a, b, value, by_a, by_b, m):
    """The partial derivatives of ``value = code(a, b)`` by a and, for two operands, by b."""
    if code == MUL:
        for j in range(m):
            by_a[j], by_b[j] = b[j], a[j]
    elif code == DIV:
        for j in range(m):
            by_a[j], by_b[j] = 1 / b[j], -value[j] / b[j]
    elif code in (ADD, SUB):
        by_a[:m] = 1.0
        by_b[:m] = 1.0 if code == ADD else -1.0
    elif code in (SUCC, PRED):
        by_a[:m] = 1.0
    elif code == NEG:
        by_a[:m] = -1.0
    elif code == INV:
        for j in range(m):
            by_a[j] = -value[j] * value[j]
    elif code == SQRT:
        for j in range(m):
            by_a[j] = 0.5 / value[j] if value[j] > 0 else np.nan
    elif code == EXP:
        by_a[:m] = value[:m]
    elif code == LOG:
        for j in range(m):
            by_a[j] = 1 / a[j]
    elif code == SIN:
        for j in range(m):
            by_a[j] = np.cos(a[j])
    elif code == COS:
        for j in range(m):
            by_a[j] = -np.sin(a[j])
    elif code == POW:
        for j in range(m):
            by_a[j] = number * a[j] ** (number - 1)
    elif code == TAN:
        for j in range(m):
            by_a[j] = 1 + value[j] * value[j]
    elif code in (ASIN, ACOS):
        sign = 1.0 if code == ASIN else -1.0
        for j in range(m):
            by_a[j] = sign / np.sqrt(1 - a[j] * a[j]) if abs(a[j]) < 1 else np.nan
    elif code == ATAN:
        for j in range(m):
            by_a[j] = 1 / (1 + a[j] * a[j])
    elif code == TANH:
        for j in range(m):
            by_a[j] = 1 - value[j] * value[j]
    elif code == ABS:
        for j in range(m):
            by_a[j] = 1.0 if a[j] >= 0 else -1.0
    else:  # TWICE, ODD
        by_a[:m] = 2.0


@njit(cache=True, nogil=True, error_model="numpy")
def evaluate(codes, numbers, columns, out):
    """A program in postfix order on all rows.

    Args:
        codes: Opcodes, int64 [length].
        numbers: What goes with them, [length]: a constant, the index of a column, an exponent.
        columns: The variables, [columns, rows], C order.
        out: Receives the values, [rows]; NaN where the formula is undefined.
    """
    stack = np.empty((codes.size + 1, BLOCK))
    for low in range(0, out.size, BLOCK):
        m = min(BLOCK, out.size - low)
        top = -1
        for p in range(codes.size):
            code = codes[p]
            if code == CONST:
                top += 1
                stack[top, :m] = numbers[p]
            elif code == VAR:
                top += 1
                stack[top, :m] = columns[int(numbers[p]), low : low + m]
            elif code >= ADD:
                top -= 1
                apply(code, 0.0, stack[top], stack[top + 1], stack[top], m)
            else:
                apply(code, numbers[p], stack[top], stack[top], stack[top], m)
        out[low : low + m] = stack[0, :m]


@njit(cache=True, nogil=True)
def chain(by, inner, m):
    """``inner *= by``, where what does not change stays 0 whatever the slope."""
    for j in range(m):
        inner[j] = by[j] * inner[j] if inner[j] != 0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def evaluate_dual(codes, numbers, slots, columns, out, gradient):
    """`evaluate`, and derivatives by forward-mode dual numbers.

    Args:
        codes: As for `evaluate`.
        numbers: As for `evaluate`.
        slots: int64 [length]: which derivative a leaf carries, or -1.
        columns: As for `evaluate`.
        out: Receives the values, [rows].
        gradient: Receives the derivatives, [slots, rows].
    """
    k = gradient.shape[0]
    stack = np.empty((codes.size + 1, BLOCK))
    dual = np.empty((codes.size + 1, k, BLOCK))
    a, b = np.empty(BLOCK), np.empty(BLOCK)
    by_a, by_b = np.empty(BLOCK), np.empty(BLOCK)
    for low in range(0, out.size, BLOCK):
        m = min(BLOCK, out.size - low)
        top = -1
        for p in range(codes.size):
            code = codes[p]
            if code <= VAR:
                top += 1
                if code == CONST:
                    stack[top, :m] = numbers[p]
                else:
                    stack[top, :m] = columns[int(numbers[p]), low : low + m]
                dual[top] = 0.0
                if slots[p] >= 0:
                    dual[top, slots[p]] = 1.0
                continue
            if code >= ADD:
                top -= 1
            a[:m], b[:m] = stack[top, :m], stack[top + 1, :m]
            apply(code, numbers[p], a, b, stack[top], m)
            slopes(code, numbers[p], a, b, stack[top], by_a, by_b, m)
            for i in range(k):
                chain(by_a, dual[top, i], m)
                if code >= ADD:
                    chain(by_b, dual[top + 1, i], m)
                    for j in range(m):
                        dual[top, i, j] += dual[top + 1, i, j]
        out[low : low + m] = stack[0, :m]
        for i in range(k):
            gradient[i, low : low + m] = dual[0, i, :m]
