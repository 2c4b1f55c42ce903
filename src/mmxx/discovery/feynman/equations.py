"""The Feynman equations and the bonus equations: formulas, ranges and units, and tables of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.expression import Expr

Array = NDArray[np.float64]
_BONUS = "test_"


@dataclass(frozen=True)
class Equation:
    """A formula with ranges.

    Attributes:
        name: Its number in the Feynman Lectures, "I.6.2a", or "test_1" for a bonus equation.
        output: What it gives.
        formula: As text.
        names: The variables.
        ranges: Low and high of each, in which rows are drawn.
        units: Of each variable and, last, of the output; None for the bonus equations.
    """

    name: str
    output: str
    formula: str
    names: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    units: tuple[str, ...] | None

    @cached_property
    def expr(self) -> Expr:
        """The formula as a tree."""
        return Expr.parse(self.formula, self.names)

    @property
    def bonus(self) -> bool:
        """Whether it is one of the 20 bonus equations."""
        return self.name.startswith(_BONUS)

    def sample(self, rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Rows drawn uniformly in the ranges, and the formula's values: [rows, names], [rows].

        Rows in which the formula is undefined are drawn again.
        """
        low, high = np.array(self.ranges).T
        X = rng.uniform(low, high, (rows, len(self.names)))
        y = self.expr.evaluate(X)
        while not (good := np.isfinite(y)).all():
            X[~good] = rng.uniform(low, high, (int((~good).sum()), len(self.names)))
            y = self.expr.evaluate(X)
        return X, y


@lru_cache
def feynman_equations() -> dict[str, Equation]:
    """The 100 equations of the Feynman Lectures and the 20 bonus equations, by name.

    Source: Udrescu and Tegmark (2020), tables 4 to 6; units follow from physics.

    Example:
        >>> table = feynman_equations()
        >>> len(table), table["I.34.8"].formula, table["I.34.8"].units[-1]
        (120, 'q*v*B/p', '1/s')
    """
    units = {}
    for line in _lines("units.tsv"):
        unit, names = line
        units |= dict.fromkeys(names.split(), unit)
    table = {}
    for name, output, formula, variables in _lines("equations.tsv"):
        parts = [variable.split(":") for variable in variables.split()]
        names = tuple(part[0] for part in parts)
        ranges = tuple((float(low), float(high)) for _, low, high in parts)
        known = None if name.startswith(_BONUS) else tuple(units[n] for n in (*names, output))
        table[name] = Equation(name, output, formula, names, ranges, known)
    return table


def _lines(file: str) -> list[list[str]]:
    text = files("mmxx.discovery.feynman").joinpath(file).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


def make(name: str, n: int = 1000, noise: float = 0.0, seed: int = 0) -> tuple[Array, Array]:
    """A table of an equation.

    Args:
        name: Of the equation.
        n: Rows.
        noise: Standard deviation of the noise on y, in units of y's root mean square.
        seed: Of the rows and the noise.

    Returns:
        X [n, variables] and y [n].

    Raises:
        ValueError: No equation has that name, or a number is out of range.
    """
    table = feynman_equations()
    if name not in table:
        raise ValueError(f"name: no equation {name!r}; there are {', '.join(table)}")
    if n < 1 or not 0 <= noise < np.inf:
        raise ValueError(f"n must be 1 or more and noise 0 or more, got {n} and {noise}")
    rng = np.random.default_rng(seed)
    X, y = table[name].sample(n, rng)
    return X, y + noise * np.sqrt(np.square(y).mean()) * rng.normal(size=n)
