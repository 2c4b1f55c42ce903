"""What the contract calls of AI Feynman."""

from __future__ import annotations

import numpy as np

from mmxx.discovery.feynman import AIFeynmanRegressor, Expr, brute_force, refine
from mmxx.lab.testing import Case


def table() -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).uniform(1, 3, (40, 2))
    return X, 1.5 * np.cos(X[:, 0] * X[:, 1])


def constant(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([brute_force(X, y, max_formulas=3000).hits[-1].constant])


def refined(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array(refine(Expr.parse("1.4*cos(x0*x1)"), X, y).numbers())


CASES = [
    Case(lambda: constant, table, name="brute_force", per_sample=False),
    Case(lambda: refined, table, name="refine", per_sample=False),
    Case(
        lambda: AIFeynmanRegressor(max_formulas=20_000, network=False), tuple, "estimator",
        "AIFeynmanRegressor",
    ),
]  # fmt: skip
