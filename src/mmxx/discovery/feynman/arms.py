"""One equation under one arm: the search that the experiment spreads over workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman import modularity
from mmxx.discovery.feynman.bits import PRECISION, rms
from mmxx.discovery.feynman.equations import Equation, feynman_equations
from mmxx.discovery.feynman.expression import Expr
from mmxx.discovery.feynman.levenberg import fit_tanh
from mmxx.discovery.feynman.polyfit import polynomial
from mmxx.discovery.feynman.recursion import Settings
from mmxx.discovery.feynman.recursion import solve as deeper
from mmxx.discovery.feynman.solve import Formula, Frontier, search
from mmxx.discovery.feynman.units import dimensional_reduce

Array = NDArray[np.float64]
FRESH = 10_000  # rows on which a formula is compared with the truth
CLOSE = 1e-6  # largest relative error of a formula recovered from clean data
WITHIN = 0.2  # of the noise, from noisy data
_MOST_VARIABLES = 6
LONGER = 1.5  # times the bits of the truth that a formula recovered from noise may have

QUICK_EQUATIONS = (
    "I.6.2a", "I.8.14", "I.10.7", "I.12.2", "I.12.11", "I.13.4", "I.16.6", "I.29.4", "I.34.8",
    "II.3.24", "III.15.12", "III.17.37",
)  # fmt: skip


def chosen(count: int) -> list[str]:
    """So many equations: 12 chosen ones, then others in the table's order, of few variables."""
    others = [
        name
        for name, equation in feynman_equations().items()
        if not equation.bonus
        and len(equation.names) <= _MOST_VARIABLES
        and name not in QUICK_EQUATIONS
    ]
    return [*QUICK_EQUATIONS, *others][:count]


@dataclass(frozen=True)
class Task:
    """What a worker gets.

    Attributes:
        name: Of the equation, or of the demonstration.
        arm: "units", "without" (the whole search, without units), "brute force" (nothing else),
            "polynomial" (of degree up to 4 in y, nothing else) or "module".
        rows: Of the table.
        noise: On y, in units of its root mean square.
        seed: Of rows and noise.
        max_formulas: For brute force.
        steps: Of the network; 0: none.
    """

    name: str
    arm: str
    rows: int
    noise: float
    seed: int
    max_formulas: int
    steps: int = 0


def work(task: Task) -> dict[str, Any]:
    """What a worker does with a task."""
    return module(task) if task.arm == "module" else solve(task)


def table(equation: Equation, task: Task) -> tuple[Array, Array]:
    """The rows of a task: the noise is drawn apart, so that every level has the same rows."""
    X, y = equation.sample(task.rows, np.random.default_rng([task.seed, 0]))
    noise = np.random.default_rng([task.seed, 1]).normal(size=task.rows)
    return X, y + task.noise * rms(y) * noise


def solve(task: Task) -> dict[str, Any]:
    """Search for an equation, and compare what was found with the truth.

    Returns:
        ``found``: the simplest recovered formula or ""; ``rule_2019``: the formula of least
        largest error if it is the truth, or ""; ``ever_2019``: whether one on the way was;
        ``best``: the best formula; ``bits``: its mean bits; ``seen``: formulas looked at;
        ``frontier``: bits of complexity and mean bits of error of each formula; ``place``: the
        simplest recovered one in it, or -1; ``tree``: how a network took the function apart.
    """
    equation = feynman_equations()[task.name]
    X, y = table(equation, task)
    frontier = Frontier(X, y)
    rival = Frontier(X, y, rule="largest") if task.noise else None
    seen, tree = 0, ""
    if task.arm == "polynomial":
        for degree in range(5):
            frontier.add(polynomial(X, y, degree), f"polynomial of degree {degree}")
        frontier.polish()
    else:
        seen, tree = _search(task, equation, X, y, frontier, rival)
    fresh = equation.sample(FRESH, np.random.default_rng([task.seed, 2]))
    right = [f for f in frontier if recovered(f, equation, fresh, task.noise)]
    accepted = list(rival) if rival is not None else []
    passed = [f for f in accepted if recovered(f, equation, fresh, task.noise)]
    best = min(frontier, key=lambda f: f.error_bits)
    return {
        "found": right[0].expr.text(equation.names) if right else "",
        "rule_2019": passed[-1].expr.text(equation.names)
        if passed and passed[-1] is accepted[-1]
        else "",
        "ever_2019": bool(passed),
        "best": best.expr.text(equation.names),
        "bits": best.error_bits,
        "seen": seen,
        "frontier": [[f.complexity, f.error_bits] for f in frontier],
        "place": next((k for k, f in enumerate(frontier) if f in right), -1),
        "tree": tree,
    }


def _search(
    task: Task, equation: Equation, X: Array, y: Array, frontier: Frontier, rival: Frontier | None
) -> tuple[int, str]:
    reduced, restore, names = (X, y), _same, equation.names
    if task.arm == "units" and equation.units is not None:
        reduction = dimensional_reduce(equation.units[:-1], equation.units[-1]).oriented(X)
        reduced, restore = reduction.apply(X, y), reduction.restore
        names = tuple(f"p{k}" for k in range(len(reduction.groups)))
    degree = -1 if task.arm == "brute force" else 4
    # with a network, the budget is for the parts that it shows
    first = max(1, task.max_formulas // 10) if task.steps else task.max_formulas
    seen = search(
        frontier, *reduced, rival=rival, max_formulas=first, degree=degree, restore=restore
    )
    if task.steps:
        settings = Settings(
            max_formulas=task.max_formulas // 2, seed=task.seed, max_iter=task.steps,
            floor=math.log2(1 + task.noise / PRECISION), searched=True,
        )  # fmt: skip
        return seen, str(deeper(frontier, *reduced, names, settings, restore))
    return seen, ""


def _same(expr: Expr) -> Expr:
    return expr


def recovered(
    formula: Formula, equation: Equation, fresh: tuple[Array, Array], noise: float
) -> bool:
    """Whether a formula is the truth, on rows that the search has not seen.

    Without noise: no relative error above 1e-6. With noise: a root mean square error against the
    truth of at most a fifth of the noise, and at most half as many bits again as the truth.
    """
    X, y = fresh
    error = np.abs(formula.expr.evaluate(X) - y)
    if not noise:
        return bool((error <= CLOSE * np.abs(y)).all())
    return bool(
        np.sqrt(np.square(error).mean()) <= WITHIN * noise * rms(y)
        and formula.complexity <= LONGER * shortest(equation.expr)
    )


def shortest(expr: Expr) -> float:
    """Bits of the truth as it is written, or simplified if that is shorter."""
    return min(expr.complexity(), expr.simplify().complexity())


DEMONSTRATION = "x2*sqrt(x0**2+x1**2)"  # x0 and x1 count only by their distance


def module(task: Task) -> dict[str, Any]:
    """Train a network on the demonstration, and look for its generalised symmetry.

    Returns:
        ``set``: the set of variables that stands out most; ``signals`` of all sets, in decimal
        orders of magnitude; ``error`` of the network in units of y's root mean square.
    """
    rng = np.random.default_rng([task.seed, 3])
    X = rng.uniform(-1.5, 1.5, (task.rows, 3))
    X[:, 2] = rng.uniform(1.0, 3.0, task.rows)
    y = Expr.parse(DEMONSTRATION).evaluate(X)
    net = fit_tanh(X, y, steps=task.steps, seed=task.seed)
    found = modularity.generalized_symmetries(net, X, rng, anchors=100, samples=30)
    return {
        "set": list(found[0].columns),
        "signals": {",".join(map(str, m.columns)): m.signal for m in found},
        "error": net.error / rms(y),
    }


DENSITIES: dict[str, tuple[str, Callable[[np.random.Generator, int], Array]]] = {
    "normal": ("exp(-x0**2/2)/sqrt(2*pi)", lambda rng, n: rng.normal(size=(n, 1))),
    "gamma": ("x0*exp(-x0)", lambda rng, n: rng.gamma(2.0, size=(n, 1))),
    "gamma and normal": (
        "x0**2*exp(-x0-x1**2/2)/(2*sqrt(2*pi))",
        lambda rng, n: np.column_stack([rng.gamma(3.0, size=n), rng.normal(size=n)]),
    ),
}


class Samples(NamedTuple):
    """What a worker gets: a density to be found from samples of it.

    Attributes:
        name: Of `DENSITIES`.
        samples: How many.
        seed: Of samples and flow.
        steps: Of the flow.
        max_formulas: For brute force.
    """

    name: str
    samples: int
    seed: int
    steps: int
    max_formulas: int


def density(task: Samples) -> dict[str, Any]:
    """Learn a density, search for its formula, and compare with the truth.

    Returns:
        A row of a table: the formula of the frontier that is nearest to the truth and not half as
        long again, or a dash; errors against the truth, in units of its root mean square.
    """
    from mmxx.discovery.feynman.density import fit_density

    text, draw = DENSITIES[task.name]
    truth = Expr.parse(text)
    samples = draw(np.random.default_rng([task.seed, 4]), task.samples)
    X, y = fit_density(samples, steps=task.steps, seed=task.seed).table(samples)
    frontier = Frontier(X, y)
    search(frontier, X, y, max_formulas=task.max_formulas)

    def off(values: Array) -> float:
        return rms(values - truth.evaluate(X)) / rms(truth.evaluate(X))

    short = [f for f in frontier if f.complexity <= LONGER * shortest(truth)]
    best = min(short, key=lambda f: off(f.predict(X)))
    return {
        "density": task.name, "truth": text, "formula": best.expr.text(),
        "formula's error": off(best.predict(X)), "flow's error": off(y),
    }  # fmt: skip
