"""Numbers of a formula: refined by least squares, and snapped to whole and simple ones."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from mmxx.discovery.feynman.bits import rms
from mmxx.discovery.feynman.expression import PI, Expr, num

Array = NDArray[np.float64]
MOST_NUMBERS = 10
_EVALUATIONS = 30
_DENOMINATOR = 10
_LONGEST_DENOMINATOR = 10_000
_PI_SAME = 1e-10


def refine(
    expr: Expr, X: ArrayLike, y: ArrayLike, fixed: frozenset[int] = frozenset(),
    weights: Array | None = None,
) -> Expr:  # fmt: skip
    """The formula with numbers of least squared error, by Levenberg and Marquardt.

    Args:
        expr: The formula.
        X: [rows, columns].
        y: [rows].
        fixed: Places in ``expr.numbers()`` that stay as they are.
        weights: Of the rows, [rows].

    Returns:
        A formula whose squared error is no larger; the same where nothing can be gained.
    """
    matrix, target = np.asarray(X, np.float64), np.asarray(y, np.float64)
    start = np.array(expr.numbers())
    free = np.array([k for k in range(len(start)) if k not in fixed], np.int64)
    if not len(free) or len(free) > min(MOST_NUMBERS, len(target)):
        return expr
    unit = 1 / rms(target) * (1.0 if weights is None else np.sqrt(weights))

    def at(values: Array) -> Expr:
        full = start.copy()
        full[free] = values
        return expr.with_numbers(full.tolist())

    def residual(values: Array) -> Array:
        return np.nan_to_num((at(values).evaluate(matrix) - target) * unit, nan=1e6, posinf=1e6)

    def jacobian(values: Array) -> Array:
        slopes = at(values).number_grad(matrix)[1][:, free]
        return np.nan_to_num(slopes * np.reshape(unit, (-1, 1)), posinf=0.0, neginf=0.0)

    with np.errstate(all="ignore"):
        before = residual(start[free])
        if not np.isfinite(before).all() or before @ before == 0:
            return expr
        found = least_squares(
            residual, start[free], cast("Any", jacobian), method="lm", x_scale="jac",
            xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=_EVALUATIONS,
        )  # fmt: skip
        after = residual(found.x)
    return at(found.x) if after @ after < before @ before else expr


def snap(expr: Expr, X: ArrayLike, y: ArrayLike, weights: Array | None = None) -> list[Expr]:
    """Variants of a formula with simpler numbers, the simplest last.

    One number after another is set to a whole number or a fraction of denominator up to 10, the
    nearest first, and the others are fitted again. Which variant is worth its error, the Pareto
    frontier decides.

    Args:
        expr: The formula.
        X: [rows, columns].
        y: [rows].
        weights: Of the rows, [rows].

    Source: Udrescu et al. (2020), section 2.5, and the authors' code.

    Example:
        >>> x = np.linspace(1, 2, 20)[:, None]
        >>> snap(Expr.parse("3.00001*x0"), x, 3 * x[:, 0])[-1].text()
        '3*x0'
    """
    variants = []
    fixed: frozenset[int] = frozenset(
        k for k, value in enumerate(expr.numbers()) if value.is_integer()
    )
    current = expr
    for _ in range(min(len(expr.numbers()), MOST_NUMBERS)):
        numbers = current.numbers()
        choices = [
            (*_nearest(value), k)
            for k, value in enumerate(numbers)
            if k not in fixed and math.isfinite(value)
        ]
        if not choices:
            break
        _, value, k = min(choices)
        numbers[k] = value
        fixed |= {k}
        current = refine(current.with_numbers(numbers), X, y, fixed, weights)
        variants.append(current)
    return [_rounded(expr, X, y), *variants]


def _rounded(expr: Expr, X: ArrayLike, y: ArrayLike) -> Expr:
    """The formula with its numbers as short fractions, as near as the data can tell."""
    numbers = expr.numbers()
    matrix, target = np.asarray(X, np.float64), np.asarray(y, np.float64)
    values, slopes = expr.number_grad(matrix)
    residual = values - target
    variance = float(residual @ residual) / max(len(target) - len(numbers), 1)
    with np.errstate(all="ignore"):
        errors = np.sqrt(variance / np.square(slopes).sum(0))
    for k, error in enumerate(errors):
        if not numbers[k].is_integer() and math.isfinite(error) and error > 0:
            numbers[k] = _short(numbers[k], error)
    return expr.with_numbers(numbers)


def _short(value: float, error: float) -> float:
    """A fraction with a small denominator, at most ``error`` away."""
    largest = 1
    while largest < _LONGEST_DENOMINATOR:
        near = float(Fraction(value).limit_denominator(largest))
        if abs(near - value) <= error:
            return near
        largest += 1 + largest // 4
    return value


def _nearest(value: float) -> tuple[float, float]:
    """How strange a number is as a fraction, and the fraction (the authors' measure)."""
    best = (math.inf, value)
    for denominator in range(1, _DENOMINATOR + 1):
        numerator = round(value * denominator)
        off = abs(value - numerator / denominator) * denominator * (1 + abs(numerator))
        strange = 1 - math.exp(-(off**0.87) / 0.36)
        best = min(best, (strange + 1e-9 * denominator, numerator / denominator))
    return best


def with_pi(expr: Expr) -> Expr:
    """The formula with pi in the place of numbers that are a fraction of it, or of 1/pi."""
    if expr.op != "num":
        return Expr(expr.op, tuple(with_pi(arg) for arg in expr.args), expr.value)
    value = expr.value
    if value == 0 or Fraction(value).limit_denominator(1000) == Fraction(value):
        return expr
    for power in (1, -1, 2, -2, 0.5, -0.5):
        ratio = value / math.pi**power
        near = Fraction(ratio).limit_denominator(100)
        if near and abs(near.numerator) <= 100 and abs(float(near) / ratio - 1) < _PI_SAME:
            base = PI if abs(power) == 1 else Expr("sqrt", (PI,)) if abs(power) < 1 else PI**2
            above, below = num(near.numerator), num(near.denominator)
            above, below = (above * base, below) if power > 0 else (above, below * base)
            return (above / below).simplify()
    return expr
