"""The search of one table: polynomials, brute force on y and its transforms, and a frontier."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.alphabet import MAX_VARIABLES
from mmxx.discovery.feynman.bits import PRECISION, Pareto, mdl, rms
from mmxx.discovery.feynman.expression import Expr, num, var
from mmxx.discovery.feynman.polyfit import TRANSFORMS, monomial, polynomial, spread_of, transform
from mmxx.discovery.feynman.search import Hit, Map, brute_force
from mmxx.discovery.feynman.simplify import distribute
from mmxx.discovery.feynman.snap import MOST_NUMBERS, refine, snap, with_pi

Array = NDArray[np.float64]
EXACT = 1.0  # mean bits of error below which a formula is exact
#: Where brute force looks, and its share of the formulas; the first alone, then the others.
PLAN = (("y", "*", 3), ("y**2", "*", 1), ("1/y", "*", 1), ("log", "*", 1))
#: For parts of one variable, where seven symbols are three million formulas: more of each.
PLAN_OF_ONE = tuple((name, "*", 4) for name in ("y", "y**2", "1/y", "log", "sqrt"))
_SHARES = sum(part for *_, part in PLAN)
_REFINED = 12  # of the best formulas, whose numbers are refined and snapped


@dataclass(frozen=True)
class Formula:
    """A point of the frontier.

    Attributes:
        expr: The formula.
        complexity: Its description length in bits.
        error_bits: Mean bits of its error.
        rmse: Its root mean square error.
        provenance: How it was found.
        names: Of the variables.
    """

    expr: Expr
    complexity: float
    error_bits: float
    rmse: float
    provenance: str
    names: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As Python writes it."""
        return self.expr.text(self.names or None)

    def latex(self) -> str:
        """As LaTeX, without dollar signs."""
        return self.expr.latex(self.names or None)

    def predict(self, X: Any) -> Array:
        """Its values for X [rows, columns]; NaN where it is undefined."""
        values = self.expr.evaluate(X)
        return np.where(np.isfinite(values), values, np.nan)


@lru_cache(maxsize=2048)  # two frontiers ask for the same
def _tidied(expr: Expr) -> tuple[Expr, ...]:
    """A formula in its short form, and multiplied out where that is another."""
    forms = [with_pi(form.simplify()).simplify() for form in (expr, distribute(expr))]
    return tuple(dict.fromkeys(forms))


@dataclass
class Frontier:
    """Formulas of which no other is both simpler and better, on the rows they are judged by.

    Args:
        X: [rows, columns].
        y: [rows].
        kind: Of complexity, "symbols" or "distinct".
        weights: Of the rows, [rows].
        rule: "mean" bits of the error, or its "largest" as the method's 2019 version had it.
    """

    X: Array
    y: Array
    kind: str = "symbols"
    weights: Array | None = None
    rule: str = "mean"
    points: Pareto[Formula] = field(default_factory=Pareto)

    def __post_init__(self) -> None:
        self.columns = np.ascontiguousarray(self.X.T)
        self.scale = rms(self.y)
        self._polished: set[Expr] = set()

    def add(self, expr: Expr, provenance: str) -> bool:
        """Judge a formula, as it is and multiplied out.

        One that is undefined on a row is not taken.
        """
        if len(expr.numbers()) > MOST_NUMBERS:  # a polynomial, in its shortest form already
            return self._add(expr, provenance)
        forms = _tidied(expr)
        return sum(self._add(form, provenance) for form in forms) > 0

    def _add(self, expr: Expr, provenance: str) -> bool:
        complexity = mdl(expr, self.kind)
        predicted = expr.evaluate_columns(self.columns)
        error = np.abs(self.y - predicted)
        if not np.isfinite(error).all():
            return False
        # the part of a bit below the precision stays 0: rounding must not decide
        bits = np.log2(np.maximum(error / (PRECISION * self.scale), 1.0))
        mean = float(np.average(bits, weights=self.weights) if self.rule == "mean" else bits.max())
        if not self.points.admits(complexity, mean):
            return False
        square = float(np.average(np.square(error / self.scale), weights=self.weights))
        formula = Formula(expr, complexity, mean, self.scale * math.sqrt(square), provenance)
        return self.points.add(complexity, mean, formula)

    def __iter__(self) -> Iterator[Formula]:
        return (formula for _, _, formula in self.points)

    @property
    def best_bits(self) -> float:
        """Mean bits of the best formula."""
        return min((formula.error_bits for formula in self), default=math.inf)

    def polish(self) -> None:
        """Refine and snap the numbers of the best formulas."""
        chosen = [f for f in self if 0 < len(f.expr.numbers()) <= MOST_NUMBERS][-_REFINED:]
        for formula in chosen:
            if formula.expr in self._polished:
                continue
            self._polished.add(formula.expr)
            if formula.error_bits < EXACT:
                refined = formula.expr
            else:
                refined = refine(formula.expr, self.X, self.y, weights=self.weights)
                self.add(refined, formula.provenance)
            for variant in snap(refined, self.X, self.y, self.weights):
                self.add(variant, formula.provenance)


#: What is told about a frontier that may have changed.
Watch = Callable[[Frontier], None]


@dataclass(frozen=True)
class Sweep:
    """One brute-force search, ready to be sent to a worker."""

    X: Array
    y: Array
    name: str  # of the spread_of, transform
    mode: str
    max_formulas: int
    operators: Any
    nu: float
    largest: bool = False
    max_seconds: float | None = None


def run_sweep(
    task: Sweep, map: Map | None = None, watch: Callable[[list[Hit]], None] | None = None
) -> tuple[list[Hit], int]:
    """What a sweep found for a transform of y, and how many formulas it looked at."""
    found = brute_force(
        task.X, task.y, task.operators, mode=task.mode, max_formulas=task.max_formulas,
        max_seconds=task.max_seconds, nu=task.nu, largest=task.largest, map=map, watch=watch,
    )  # fmt: skip
    return found.hits, found.cursor.seen


def polynomials(X: Array, y: Array, degree: int, weights: Array) -> Iterator[tuple[Expr, str]]:
    """Polynomials up to a degree for y and each transform of it, and a monomial.

    Then polynomials up to degree 2 in the reciprocals of the variables, if none of them is 0: with
    1/y in y's place these are laws of saturation, of lenses and of resistors side by side.
    """
    product = monomial(X, y)
    if product is not None:
        yield product, "monomial"
    tables: list[tuple[Array, range, Callable[[Expr], Expr], str]] = [
        (X, range(degree + 1), lambda expr: expr, "")
    ]
    with np.errstate(all="ignore"):
        over = 1 / X
    if X.shape[1] and np.isfinite(over).all():
        turned = [num(1.0) / var(k) for k in range(X.shape[1])]
        degrees = range(1, min(degree, 2) + 1)
        tables.append((over, degrees, lambda expr: expr.substitute(turned), " of reciprocals"))
    for columns, degrees, back, what in tables:
        for name, (_, _, inverse) in TRANSFORMS.items():
            target = transform(name, y)
            if target is None or (np.ptp(target) == 0 and name != "y"):
                continue
            spread = spread_of(name, y)
            if not spread.any():  # y moves too little to be told from its transform
                continue
            spread = weights * np.square(spread / spread.max())
            for d in degrees:
                found = back(polynomial(columns, target, d, spread))
                yield inverse(found), f"polynomial of degree {d}{what} for {name}"


def search(
    frontier: Frontier,
    X: Array,
    y: Array,
    *,
    rival: Frontier | None = None,
    max_formulas: int,
    operators: Any = "14ops",
    nu: float = 0.5,
    degree: int = 4,
    transforms: bool = True,
    plan: Sequence[tuple[str, str, int]] = PLAN,
    restore: Callable[[Expr], Expr] = lambda expr: expr,
    until: Callable[[], float | None] = lambda: None,
    map: Map = builtins.map,
    watch: Watch = lambda frontier: None,
) -> int:
    """Fill a frontier with what polynomials and brute force find for one table.

    Args:
        frontier: Judges every formula on the original table.
        X: The table to search, [rows, columns]: the original, or a reduced one.
        rival: A frontier by another rule, to be filled by the same search.
        y: [rows].
        max_formulas: Of brute force; 0 leaves it out.
        operators: See `brute_force`.
        nu: Of the hypothesis test.
        degree: Of the polynomials; -1 leaves them out.
        transforms: Whether to look at transforms of y, too.
        plan: Where brute force looks: transform, mode, and sixths of the formulas.
        restore: From a formula of the searched table to one of the original.
        until: Seconds that are left.
        map: What to spread the sweeps with.
        watch: Called with the frontier whenever it may have changed.

    Returns:
        How many formulas brute force looked at.
    """
    judges = (frontier,) if rival is None else (frontier, rival)
    if degree >= 0:
        # errors of the original y, whatever the table's y was divided by
        unit = np.where(y != 0, frontier.y / np.where(y != 0, y, 1.0), 1.0)
        weights = np.square(unit / np.abs(unit).max()) * (
            1.0 if frontier.weights is None else frontier.weights
        )
        for expr, how in polynomials(X, y, degree, weights):
            for judge in judges:
                judge.add(restore(expr), how)
            if frontier.best_bits < EXACT:
                break
    for judge in judges:
        judge.polish()
    watch(frontier)
    if frontier.best_bits < EXACT or not max_formulas or not 1 <= X.shape[1] <= MAX_VARIABLES:
        return 0
    tasks = []
    shares = _SHARES if transforms else plan[0][2]
    for name, mode, part in plan if transforms else plan[:1]:
        target = transform(name, y)
        if target is not None and np.ptp(target) > 0:
            count = max(1, max_formulas * part // shares)
            both = rival is not None
            tasks.append(Sweep(X, target, name, mode, count, operators, nu, both, until()))
    seen = 0

    def take(task: Sweep, hits: list[Hit]) -> None:
        inverse = TRANSFORMS[task.name][2]
        how = f"brute force on {task.name}, {task.mode}"
        for hit in hits:
            for judge in judges:
                judge.add(restore(inverse(hit.expr)), f"{how}: {hit.rpn}")
        watch(frontier)

    first, others = tasks[:1], tasks[1:]  # y in parts, then its transforms, each as a whole
    for task in first:
        seen += run_sweep(task, map, lambda hits, task=task: take(task, hits))[1]
    for judge in judges:
        judge.polish()
    if frontier.best_bits >= EXACT:
        for task, (hits, count) in zip(others, map(run_sweep, others), strict=True):
            seen += count
            take(task, hits)
        for judge in judges:
            judge.polish()
    watch(frontier)
    return seen
