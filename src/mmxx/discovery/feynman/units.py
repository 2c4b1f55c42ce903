"""Dimensional analysis over exact rationals: fewer variables, and none with a unit."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.expression import Expr, num, var

BASE = ("m", "s", "kg", "K", "V")
Unit = tuple[Fraction, ...]
_DERIVED = {  # in m, s, kg, K, V
    "N": (1, -2, 1, 0, 0), "J": (2, -2, 1, 0, 0), "W": (2, -3, 1, 0, 0), "Hz": (0, -1, 0, 0, 0),
    "Pa": (-1, -2, 1, 0, 0), "C": (2, -2, 1, 0, -1), "A": (2, -3, 1, 0, -1),
    "F": (2, -2, 1, 0, -2), "T": (-2, 1, 0, 0, 1), "rad": (0, 0, 0, 0, 0),
}  # fmt: skip
_TOKEN = re.compile(r"\s*(?:([A-Za-z]+)|(1)(?!\d)|(?:\^|\*\*)\s*(-?\d+)|([*/()]))", re.ASCII)
_ALL_CHOICES = 3000  # sets of repeating variables to compare


def parse_unit(text: str | Sequence[float]) -> Unit:
    """A unit as powers of m, s, kg, K, V.

    Args:
        text: "kg m / s^2", "J/(s m K)", "1"; units are m, s, kg, K, V, N, J, W, Hz, Pa, C, A, F,
            T, rad. A slash divides by the next factor. Or five powers.

    Raises:
        ValueError: An unknown unit, or a text that cannot be read.

    Example:
        >>> [str(power) for power in parse_unit("kg m / s^2")]
        ['1', '-2', '1', '0', '0']
    """
    if not isinstance(text, str):
        powers = tuple(Fraction(power).limit_denominator(1000) for power in text)
        if len(powers) != len(BASE):
            raise ValueError(f"a unit has {len(BASE)} powers ({', '.join(BASE)}), got {text!r}")
        return powers
    tokens, at = [], 0
    stripped = text.strip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if match is None:
            raise ValueError(f"unit {text!r}: cannot read {stripped[at:]!r}")
        tokens.append(match.groups())
        at = match.end()
    if not tokens:
        raise ValueError("a unit must not be empty; without a unit is '1'")
    found, rest = _unit_product(tokens, text)
    if rest:
        raise ValueError(f"unit {text!r}: a ')' too many")
    return found


def _unit_product(tokens: list, text: str) -> tuple[Unit, list]:
    total, sign, current = [Fraction(0)] * 5, 1, None
    while tokens:
        word, one, power, symbol = tokens[0]
        if symbol == ")":
            break
        tokens = tokens[1:]
        if power is not None:
            if current is None:
                raise ValueError(f"unit {text!r}: a power of nothing")
            # the unit before was counted once already
            total = [t + (int(power) - 1) * c for t, c in zip(total, current, strict=True)]
            current = None
            continue
        if symbol in ("*", "/"):
            sign = -1 if symbol == "/" else 1
            continue
        if symbol == "(":
            inner, tokens = _unit_product(tokens, text)
            if not tokens:
                raise ValueError(f"unit {text!r}: a ')' is missing")
            tokens = tokens[1:]
        else:
            inner = _named("1" if one else word, text)
        current = [sign * i for i in inner]
        total = [t + c for t, c in zip(total, current, strict=True)]
        sign = 1
    return tuple(total), tokens


def _named(name: str, text: str) -> Unit:
    if name == "1":
        return (Fraction(0),) * 5
    if name in BASE:
        return tuple(Fraction(int(name == base)) for base in BASE)
    if name not in _DERIVED:
        known = ", ".join([*BASE, *_DERIVED])
        raise ValueError(f"unit {text!r}: unknown unit {name!r}; known: {known}")
    return tuple(map(Fraction, _DERIVED[name]))


@dataclass(frozen=True)
class Reduction:
    """Variables without units, and what the target is divided by.

    Attributes:
        target: Powers of the variables whose product has the target's unit, [variables].
        groups: Integer powers of each new variable, [new][variables].
    """

    target: tuple[Fraction, ...]
    groups: tuple[tuple[int, ...], ...]

    def apply(self, X: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """The reduced table: [rows, new], [rows]."""
        columns = [_monomial(X, powers) for powers in self.groups]
        matrix = np.column_stack(columns) if columns else np.empty((len(X), 0))
        return matrix, y / _monomial(X, self.target)

    def oriented(self, X: NDArray[np.float64]) -> Reduction:
        """The same with each large ratio turned round: v/c rather than c/v where c is large."""
        groups = tuple(
            tuple(-p for p in g) if np.median(np.abs(_monomial(X, g))) > 2 and min(g) < 0 else g
            for g in self.groups
        )
        return Reduction(self.target, groups)

    def restore(self, formula: Expr) -> Expr:
        """A formula of the new variables as one of the old."""
        inner = formula.substitute([_monomial_expr(powers) for powers in self.groups])
        return _monomial_expr(self.target) * inner if any(self.target) else inner


def _monomial(X: NDArray[np.float64], powers: Sequence[Fraction | int]) -> NDArray[np.float64]:
    product = np.ones(len(X))
    for column, power in zip(X.T, powers, strict=True):
        if power:
            product = product * column ** float(power)
    return product


def _monomial_expr(powers: Sequence[Fraction | int]) -> Expr:
    above: Expr | None = None
    below: Expr | None = None
    for index, power in enumerate(powers):
        if not power:
            continue
        size = abs(power)
        factor = var(index) if size == 1 else var(index) ** float(size)
        if power > 0:
            above = factor if above is None else above * factor
        else:
            below = factor if below is None else below * factor
    above = num(1.0) if above is None else above
    return above if below is None else above / below


def dimensional_reduce(
    units: Sequence[str | Sequence[float]],
    target: str | Sequence[float],
    names: Sequence[str] | None = None,
) -> Reduction:
    """Buckingham's theorem: as many variables fewer as the units have independent dimensions.

    Of all sets of repeating variables it takes one that gives the smallest powers.

    Args:
        units: Of each variable; see `parse_unit`.
        target: Of what is predicted.
        names: Of the variables, for errors.

    Returns:
        The new variables, and the powers that carry the target's unit.

    Raises:
        ValueError: The target's unit cannot be made of the variables'; what cannot is named.

    Source: Udrescu and Tegmark (2020), section II.A; Buckingham (1914).

    Example:
        >>> reduction = dimensional_reduce(["kg", "m/s", "m/s"], "kg")
        >>> reduction.groups, [str(power) for power in reduction.target]
        (((0, -1, 1),), ['1', '0', '0'])
    """
    columns = [parse_unit(unit) for unit in units]
    wanted = parse_unit(target)
    independent = _independent([[c[d] for c in columns] for d in range(5)])
    rank = len(independent)
    best: tuple | None = None
    for pivots in itertools.islice(itertools.combinations(range(len(columns)), rank), _ALL_CHOICES):
        solved = _solve(columns, pivots, [*columns, wanted])
        if solved is None:
            continue
        *powers, of_target = solved
        if not _reaches(columns, pivots, of_target, wanted):
            missing = _missing(columns, wanted)
            raise ValueError(
                f"target_units: {target!r} cannot be made of the variables' units"
                + (f"; nothing carries {', '.join(missing)}" if missing else "")
                + (f" (variables: {', '.join(names)})" if names else "")
            )
        groups = [
            _integer(columns, pivots, k, powers[k]) for k in range(len(columns)) if k not in pivots
        ]
        cost = sum(abs(p) for p in of_target) + sum(abs(p) for g in groups for p in g)
        broken = any(p.denominator > 1 for p in of_target)
        key = (broken, cost, pivots)
        if best is None or key < best[0]:
            full = [Fraction(0)] * len(columns)
            for pivot, power in zip(pivots, of_target, strict=True):
                full[pivot] = power
            best = (key, Reduction(tuple(full), tuple(groups)))
    assert best is not None
    return best[1]


def _independent(rows: list[list[Fraction]]) -> list[int]:
    """Pivot columns of a matrix, by exact elimination."""
    rows = [list(row) for row in rows]
    pivots: list[int] = []
    for column in range(len(rows[0]) if rows else 0):
        at = len(pivots)
        found = next((r for r in range(at, len(rows)) if rows[r][column]), None)
        if found is None:
            continue
        rows[at], rows[found] = rows[found], rows[at]
        head = rows[at][column]
        rows[at] = [value / head for value in rows[at]]
        for r in range(len(rows)):
            if r != at and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [v - factor * h for v, h in zip(rows[r], rows[at], strict=True)]
        pivots.append(column)
    return pivots


def _solve(
    columns: list[Unit], pivots: tuple[int, ...], right: list[Unit]
) -> list[tuple[Fraction, ...]] | None:
    """Powers of the pivots that make each right side, or None where the pivots depend."""
    rank, width = len(pivots), len(right)
    rows = [[columns[p][d] for p in pivots] + [unit[d] for unit in right] for d in range(5)]
    for at in range(rank):
        found = next((r for r in range(at, 5) if rows[r][at]), None)
        if found is None:
            return None
        rows[at], rows[found] = rows[found], rows[at]
        head = rows[at][at]
        rows[at] = [value / head for value in rows[at]]
        for r in range(5):
            if r != at and rows[r][at]:
                factor = rows[r][at]
                rows[r] = [v - factor * h for v, h in zip(rows[r], rows[at], strict=True)]
    return [tuple(rows[at][rank + k] for at in range(rank)) for k in range(width)]


def _reaches(
    columns: list[Unit], pivots: tuple[int, ...], powers: Sequence[Fraction], wanted: Unit
) -> bool:
    return all(
        sum((columns[p][d] * power for p, power in zip(pivots, powers, strict=True)), Fraction(0))
        == wanted[d]
        for d in range(5)
    )


def _missing(columns: list[Unit], wanted: Unit) -> list[str]:
    return [BASE[d] for d in range(5) if wanted[d] and not any(column[d] for column in columns)]


def _integer(
    columns: list[Unit], pivots: tuple[int, ...], index: int, powers: Sequence[Fraction]
) -> tuple[int, ...]:
    """The variable divided by its unit, to the smallest integer powers."""
    group = [Fraction(0)] * len(columns)
    group[index] = Fraction(1)
    for pivot, power in zip(pivots, powers, strict=True):
        group[pivot] = -power
    common = math.lcm(*(power.denominator for power in group))
    return tuple(int(power * common) for power in group)


def check_units(
    units: Mapping[str, str | Sequence[float]], names: Sequence[str]
) -> list[str | Sequence[float]]:
    """The units in the order of the names.

    Raises:
        ValueError: A name without a unit, or a unit for no column.
    """
    unknown = [name for name in units if name not in names]
    missing = [name for name in names if name not in units]
    if unknown or missing:
        raise ValueError(
            "units must name every column once"
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            + (f"; missing: {', '.join(missing)}" if missing else "")
        )
    return [units[name] for name in names]
