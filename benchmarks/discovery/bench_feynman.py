"""Formulas per second of brute force, beside the original program and what PyPI has.

The original (Fortran, gfortran 12 -O3 -march=native) is a recorded figure of another machine:
144,000 formulas a second with 14 operators, three variables, 100 rows and a target that is not
among them. A calibration loop, x = a x + b on 16 doubles, tells this machine's speed. gplearn and
pyoperon, where they are installed, evaluate formulas in a genetic search on the same table.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from mmxx.discovery.feynman import Expr, brute_force
from mmxx.discovery.feynman.alphabet import Alphabet, templates
from mmxx.discovery.feynman.solve import Frontier

RECORDED = 144_000  # formulas/s, mdl_mult of SJ001/AI-Feynman; recorded, other machine
ROUNDS = 10_000_000


@njit(cache=True)
def calibrate(x: np.ndarray, a: float, b: float, rounds: int) -> None:
    """x = x a + b, over and over."""
    for _ in range(rounds):
        for j in range(x.size):
            x[j] = x[j] * a + b


def seconds(work: Callable[[], object], turns: int) -> float:
    """The least CPU time of several turns."""
    found = []
    for _ in range(turns):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def table(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Three variables, and a target outside of what is searched."""
    X = np.random.default_rng(0).uniform(1, 3, (rows, 3))
    y = X[:, 0] / np.sqrt(1 + np.exp(X[:, 1]) * X[:, 2] ** 1.37) + 0.3 * np.sin(
        5 * X[:, 1] + X[:, 2]
    )
    return X, y


def frontier_again(count: int, rows: int) -> float:
    """Seconds to judge so many formulas on so many rows."""
    alphabet, rng = Alphabet.make("14ops", 3), np.random.default_rng(0)
    shapes = templates(6)
    X, y = table(rows)
    formulas = []
    for _ in range(count):
        shape = shapes[rng.integers(len(shapes))]
        formulas.append(
            Expr.from_rpn(alphabet.formula(shape, int(rng.integers(alphabet.size(shape)))))
        )
    judge = Frontier(X, y)
    formulas[0].evaluate_columns(judge.columns)
    return seconds(lambda: [f.evaluate_columns(judge.columns) for f in formulas], 1)


def peers(X: np.ndarray, y: np.ndarray) -> None:
    """Formulas evaluated per second by genetic programming, from one short run each."""
    try:
        genetic = importlib.import_module("gplearn.genetic")
        model = genetic.SymbolicRegressor(
            population_size=1000, generations=5, function_set=("add", "sub", "mul", "div", "sqrt",
            "log", "sin", "cos"), random_state=0,
        )  # fmt: skip
        show("gplearn", 5000 / seconds(lambda: model.fit(X, y), 1))
    except ImportError:
        print("gplearn is not installed: left out (pip install gplearn)")
    try:
        operon = importlib.import_module("pyoperon.sklearn")
        model = operon.SymbolicRegressor(
            population_size=1000, generations=10, max_evaluations=10_000, n_threads=1,
            optimizer_iterations=0, random_state=0,
        )  # fmt: skip
        show("pyoperon", 10_000 / seconds(lambda: model.fit(X, y), 1))
    except ImportError:
        print("pyoperon is not installed: left out (pip install pyoperon)")


def show(label: str, rate: float) -> None:
    """Print a line as soon as it is known."""
    print(f"{label:52}{rate:14,.0f}{rate / RECORDED:10.2f}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Print formulas per second, and their ratio to the original's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formulas", type=int, default=3_000_000, help="of each timed sweep")
    parser.add_argument("--turns", type=int, default=2, help="of each; the least counts")
    options = parser.parse_args(argv)
    X, y = table(1000)
    units = np.column_stack([np.cos(X[:, 0] + X[:, 1] ** 2.3), 2 * X[:, 1] ** 0.3])
    units /= np.linalg.norm(units, axis=1)[:, None]
    for mode, target, columns in (("*", y, 3), ("gradient", units, 2)):
        brute_force(X[:, :columns], target, mode=mode, max_formulas=10)  # compiled before the clock
    x = np.ones(16)
    calibrate(x, 0.5, 0.5, 1)
    loop = seconds(lambda: calibrate(x, 0.999, 0.001, ROUNDS), options.turns)
    print(f"calibration: {ROUNDS / loop / 1e6:.1f} million rounds of x = a x + b on 16 doubles/s")
    print(f"{'14 operators, one thread, CPU time':52}{'formulas/s':>14}{'× original':>10}")
    for label, mode, rows in (("ours, y = c f, 1,000 rows", "*", 1000),
                              ("ours, y = f + c, 1,000 rows", "+", 1000),
                              ("ours, y = c f, 100 rows", "*", 100)):  # fmt: skip
        a, b = table(rows)
        took = seconds(
            lambda a=a, b=b, mode=mode: brute_force(a, b, mode=mode, max_formulas=options.formulas),
            options.turns,
        )
        show(label, options.formulas / took)
    few = options.formulas // 10
    took = seconds(
        lambda: brute_force(X[:, :2], units, mode="gradient", max_formulas=few),
        options.turns,
    )
    show("ours, gradients of two variables, 1,000 rows", few / took)
    show("the original, 100 rows (recorded, other machine)", RECORDED)
    peers(X, y)
    took = frontier_again(1000, 100_000)
    print(f"1,000 formulas of six symbols on 100,000 rows: {took:.2f} s")


if __name__ == "__main__":
    main()
