"""Generalised sums: y = F(g(x_i) + h(x_j)), and products, whose logarithms are sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.alphabet import Alphabet, templates
from mmxx.discovery.feynman.expression import Expr, num, var
from mmxx.discovery.feynman.modularity import Module, Oracle, verify

Array = NDArray[np.float64]
_GRID = 200  # points at which slopes are compared
_WHERE = 0.05, 0.95  # quantiles of the data between which a network is to be trusted
_SYMBOLS = 5  # of a formula of one variable
_CANDIDATES = 5  # of which each is tried with each


def generalized_additivity(oracle: Oracle, X: Array, i: int, j: int) -> float:
    """How far f is from F(g(x_i) + h(x_j)), the others at their medians: 0 where it is.

    The ratio of its two slopes is then a product of a function of each:
    s(a, b) s(c, d) = s(a, d) s(c, b).

    Args:
        oracle: The function.
        X: Points [rows, columns].
        i: A column.
        j: Another.

    Source: Udrescu et al. (2020), section 2.3.
    """
    base = np.tile(np.median(X, axis=0), (len(X), 1))
    other = np.roll(np.arange(len(X)), 1)

    def ratio(rows_i: NDArray[np.int64], rows_j: NDArray[np.int64]) -> Array:
        points = base.copy()
        points[:, i], points[:, j] = X[rows_i, i], X[rows_j, j]
        slopes = oracle.gradient(points)
        return slopes[:, i] / slopes[:, j]

    here = np.arange(len(X))
    with np.errstate(all="ignore"):
        left = ratio(here, here) * ratio(other, other)
        right = ratio(here, other) * ratio(other, here)
        off = np.abs(left - right) / (np.abs(left) + np.abs(right))
    return float(np.median(off[np.isfinite(off)])) if np.isfinite(off).any() else math.inf


def additive(
    oracle: Oracle,
    X: Array,
    y: Array,
    i: int,
    j: int,
    rng: np.random.Generator,
    *,
    operators: str | Sequence[str] = "14ops",
    largest_error: float = 0.01,
) -> Module | None:
    """The formulas g and h of y = F(g(x_i) + h(x_j)), where y depends on both by their sum only.

    The ratio of the slopes is g'(x_i) / h'(x_j). Along x_i it shows g' but for a factor, along x_j,
    turned over, h' with the same factor; both are compared with the slopes of the formulas of one
    variable. The best pairs are verified as in `compositionality`.

    Args:
        oracle: The function.
        X: Points [rows, columns].
        y: Values [rows].
        i: A column.
        j: Another.
        rng: Draws.
        operators: See `brute_force`.
        largest_error: As in `compositionality`.

    Returns:
        The module with g + h as its formula, or None if none was verified.

    Source: Udrescu et al. (2020), section 2.3.
    """
    centre, middle = _steep(oracle, X, i, j)
    halves: list[list[tuple[float, Expr]]] = []
    for column, flip in ((i, False), (j, True)):
        points = np.tile(centre, (_GRID, 1))
        low, high = np.quantile(X[:, column], _WHERE)
        points[:, column] = np.linspace(low, high, _GRID)
        slopes = oracle.gradient(points)
        with np.errstate(all="ignore"):
            ratio = slopes[:, j] / slopes[:, i] if flip else slopes[:, i] / slopes[:, j]
            ratio *= middle[i] / middle[j] if flip else 1.0
        good = np.isfinite(ratio)
        if good.sum() < _GRID // 2:
            return None
        halves.append(_alike(points[good, column], ratio[good], operators))
    found: list[Module] = []
    for (a, g), (b, h) in itertools.product(*halves):
        for factor in (float(Fraction(b / a).limit_denominator(4)), b / a):
            inner = _joined(g, h.substitute([var(1)]), factor)
            error = verify(oracle, X, y, inner, [i, j], rng)
            if error <= largest_error:
                named = inner.substitute([var(i), var(j)])
                found.append(Module("additivity", (i, j), error, inner=named))
                break
    return min(found, key=lambda module: module.error, default=None)


@lru_cache
def _of_one_variable(operators: str | tuple[str, ...]) -> list[Expr]:
    """All formulas of one variable of at most five symbols, and their logarithms.

    Of those that are the same but for a factor and a constant, the first. With logarithms
    y = F(g(x_i) h(x_j)) is a sum, too.
    """
    alphabet = Alphabet.make(operators, 1)
    shapes = [t for n in range(1, _SYMBOLS + 1) for t in templates(n)]
    plain = [
        Expr.from_rpn(alphabet.formula(shape, index))
        for shape in shapes
        for index in range(alphabet.size(shape))
    ]
    x = np.linspace(0.4, 1.7, 7)[:, None]
    with np.errstate(all="ignore"):
        values = np.array([expr.evaluate(x) for expr in plain])
        values = np.concatenate([values, np.log(np.abs(values))])
        # the same for all c f + d
        first, last = values[:, :1], values[:, -1:]
        keys = np.round((values - first) / (last - first), 9)
    seen, found = set(), []
    for place, key in enumerate(keys):
        if np.isfinite(key).all() and (same := tuple(key.tolist())) not in seen:
            seen.add(same)
            expr = plain[place % len(plain)]
            found.append(expr if place < len(plain) else Expr("log", (Expr("abs", (expr,)),)))
    return found


def _joined(g: Expr, h: Expr, factor: float) -> Expr:
    """g + factor h; of logarithms the product, which has a sign."""
    sizes = [f.args[0].args[0] for f in (g, h) if f.op == "log" and f.args[0].op == "abs"]
    if len(sizes) == 2 and abs(factor) == 1:
        return (sizes[0] * sizes[1] if factor > 0 else sizes[0] / sizes[1]).simplify()
    return (g + num(factor) * h).simplify()


def _steep(oracle: Oracle, X: Array, i: int, j: int) -> tuple[Array, Array]:
    """A point amid the data where neither slope vanishes, and the gradient there."""
    middle = np.median(X, axis=0)
    points = np.tile(middle, (9, 1))
    low, high = np.quantile(X, (0.25, 0.75), axis=0)
    for n, (a, b) in enumerate(itertools.product((middle, low, high), repeat=2)):
        points[n, i], points[n, j] = a[i], b[j]
    slopes = oracle.gradient(points)
    best = int(np.abs(slopes[:, [i, j]] * X.std(0)[[i, j]]).min(1).argmax())
    return points[best], slopes[best]


def _alike(x: Array, slope: Array, operators: str | Sequence[str]) -> list[tuple[float, Expr]]:
    """The formulas f whose slope c f'(x) comes closest: (c, f), best first; poles count little."""
    asked = operators if isinstance(operators, str) else tuple(operators)
    weight = 1 / (1 + np.square(slope / np.median(np.abs(slope))))
    found = []
    for place, expr in enumerate(_of_one_variable(asked)):
        with np.errstate(all="ignore"):
            mine = expr.grad(x[:, None])[1][:, 0]
            c = float((weight * mine) @ slope / ((weight * mine) @ mine))
            error = float(np.sqrt(weight) @ np.abs(slope - c * mine))
        if math.isfinite(error) and c != 0:
            found.append((error, place, c, expr))
    found.sort(key=lambda one: one[:2])
    return [(c, expr) for _, _, c, expr in found[:_CANDIDATES]]
