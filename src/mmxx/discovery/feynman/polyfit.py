"""Polynomials and monomials by least squares, and the twelve transforms of y."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.expression import Expr, num, var

Array = NDArray[np.float64]
_MOST_TERMS = 400
_SIGNIFICANT = 4.0  # standard errors that a coefficient must be from 0
_ROUNDING = 1e-11  # of y's root mean square: smaller terms are rounding


def _inverse(name: str) -> Callable[[Expr], Expr]:
    return lambda f: Expr(name, (f,))


#: What is fitted in y's place, its derivative, and how y follows from it. "y" itself first.
TRANSFORMS: dict[
    str, tuple[Callable[[Array], Array], Callable[[Array], Array], Callable[[Expr], Expr]]
] = {
    "y": (lambda y: y, np.ones_like, lambda f: f),
    "y**2": (np.square, lambda y: 2 * y, _inverse("sqrt")),
    "1/y": (lambda y: 1 / y, lambda y: 1 / y**2, lambda f: num(1) / f),
    "log": (np.log, lambda y: 1 / y, _inverse("exp")),
    "sqrt": (np.sqrt, lambda y: 0.5 / np.sqrt(y), lambda f: f**2),
    "exp": (np.exp, np.exp, _inverse("log")),
    "sin": (np.sin, np.cos, _inverse("asin")),
    "cos": (np.cos, np.sin, _inverse("acos")),
    "tan": (np.tan, lambda y: 1 / np.cos(y) ** 2, _inverse("atan")),
    "asin": (np.arcsin, lambda y: 1 / np.sqrt(1 - y**2), _inverse("sin")),
    "acos": (np.arccos, lambda y: 1 / np.sqrt(1 - y**2), _inverse("cos")),
    "atan": (np.arctan, lambda y: 1 / (1 + y**2), _inverse("tan")),
}


def transform(name: str, y: Array) -> Array | None:
    """The transform of y, or None where a row has none: such a transform is left out."""
    with np.errstate(all="ignore"):
        values = np.asarray(TRANSFORMS[name][0](y), np.float64)
    return values if np.isfinite(values).all() else None


def spread_of(name: str, y: Array) -> Array:
    """How far y moves when its transform moves by 1, [rows]: errors weigh as much there."""
    with np.errstate(all="ignore"):
        moved = 1 / np.abs(TRANSFORMS[name][1](y))
    return np.where(np.isfinite(moved), moved, 0.0)


def polynomial(X: Array, y: Array, degree: int, weights: Array | None = None) -> Expr:
    """The polynomial of least squares, without the terms that are not significant.

    Args:
        X: [rows, columns].
        y: [rows].
        degree: Of the polynomial; lower where there are fewer rows than two a term.
        weights: Of the rows, [rows].

    Source: the authors' polynomial fit, with exact least squares in scaled variables.
    """
    while degree > 0 and 2 * math.comb(X.shape[1] + degree, degree) > min(len(X), 2 * _MOST_TERMS):
        degree -= 1
    powers = [p for d in range(degree + 1) for p in _exponents(X.shape[1], d)]
    scale = np.abs(X).max(axis=0, initial=0.0)
    scale[scale == 0] = 1.0
    terms = np.column_stack([_term(X / scale, p) for p in powers])
    root = np.ones(len(y)) if weights is None else np.sqrt(weights / weights.max())
    size = float(np.abs(y).max()) or 1.0
    # eliminated from a triangle of as many rows as terms
    triangle: Any = np.linalg.qr(np.column_stack([root[:, None] * terms, root * y]), mode="r")
    kept = np.arange(len(powers))
    while True:
        coefficients, error = _least_squares(triangle[:, kept], triangle[:, -1], len(y))
        low = np.maximum(_SIGNIFICANT * error, _ROUNDING * size)
        weak = np.abs(coefficients) < low
        if not weak.any():
            break
        order = np.argsort(np.abs(coefficients) / low)[: max(1, int(weak.sum()) // 2)]
        kept = np.delete(kept, order)
    # once more from the rows, whose rounding the triangle's is worse than
    coefficients, _ = _least_squares(root[:, None] * terms[:, kept], root * y, len(y))
    total: Expr | None = None
    for coefficient, k in zip(coefficients, kept, strict=True):
        value = coefficient / float(np.prod(scale ** np.array(powers[k])))
        term = _monomial(num(value), powers[k])
        total = term if total is None else total + term
    return num(0.0) if total is None else total


def _exponents(columns: int, degree: int) -> Iterator[tuple[int, ...]]:
    for chosen in itertools.combinations_with_replacement(range(columns), degree):
        yield tuple(chosen.count(k) for k in range(columns))


def _term(X: Array, powers: tuple[int, ...]) -> Array:
    product = np.ones(len(X))
    for column, power in zip(X.T, powers, strict=True):
        for _ in range(power):
            product = product * column
    return product


def _least_squares(A: Array, y: Array, rows: int) -> tuple[Array, Array]:
    """Coefficients and their standard errors."""
    if not A.shape[1]:
        return np.empty(0), np.empty(0)
    norms = np.sqrt(np.square(A).sum(0))
    norms[norms == 0] = 1.0
    u, s, vt = np.linalg.svd(A / norms, full_matrices=False)
    inverse = np.where(s > s[0] * 1e-13, 1 / np.maximum(s, 1e-300), 0.0)
    coefficients = vt.T @ (inverse * (u.T @ y))
    coefficients += vt.T @ (inverse * (u.T @ (y - (A / norms) @ coefficients)))
    residual = y - (A / norms) @ coefficients
    sigma = math.sqrt(float(residual @ residual) / max(rows - A.shape[1], 1))
    error = sigma * np.sqrt(np.square(vt.T * inverse).sum(1))
    return coefficients / norms, error / norms


def _monomial(coefficient: Expr, powers: tuple[float, ...]) -> Expr:
    product = coefficient
    for k, power in enumerate(powers):
        if power == 1:
            product = product * var(k)
        elif power:
            product = product * var(k) ** float(power)
    return product


def monomial(X: Array, y: Array) -> Expr | None:
    """c times a product of powers, by a straight line through the logarithms.

    Exponents are rounded to fractions of denominator up to 4 where they are near one.

    Returns:
        The formula, or None where a variable is not positive or y changes its sign.
    """
    if not X.shape[1] or len(X) < X.shape[1] + 2:
        return None
    if not (X > 0).all() or not ((y > 0).all() or (y < 0).all()):
        return None
    logs = np.column_stack([np.log(X), np.ones(len(X))])
    coefficients, error = _least_squares(logs, np.log(np.abs(y)), len(y))
    powers = []
    for value, uncertain in zip(coefficients[:-1], error[:-1], strict=True):
        near = float(Fraction(value).limit_denominator(4))
        powers.append(near if abs(near - value) <= max(_SIGNIFICANT * uncertain, 1e-9) else value)
    if max(map(abs, powers)) > 64:
        return None
    shape = np.exp(np.log(X) @ np.array(powers))
    c = float((shape @ y) / (shape @ shape))
    return _monomial(num(c), tuple(powers)) if math.isfinite(c) else None
