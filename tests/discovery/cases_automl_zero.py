"""What the contract calls of AutoML-Zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmxx.discovery.automl_zero import (
    FEC,
    LINEAR,
    NEURAL_NET,
    AutoMLZeroClassifier,
    AutoMLZeroRegressor,
    RegularizedEvolution,
    SearchSpace,
    Task,
    evaluate,
    evolve_islands,
    linear_regression_tasks,
    projected_binary_tasks,
)
from mmxx.lab.testing import Case

SIX = (
    "scalar_const", "inner_product", "scalar_difference", "scalar_product",
    "scalar_vector_product", "vector_sum",
)  # fmt: skip


def table() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    return x[:30], x[:30, 0], x[30:], x[30:, 0]


def fitness(x: Any, y: Any, x_valid: Any, y_valid: Any) -> np.ndarray:
    return evaluate([LINEAR, NEURAL_NET], [Task(x, y, x_valid, y_valid)] * 2)


def evolved(x: Any, y: Any, x_valid: Any, y_valid: Any) -> np.ndarray:
    space = SearchSpace(4, 3, 0, SIX, SIX, SIX, sizes=(3, 1, 4))
    search = RegularizedEvolution(space, population_size=20, fec=FEC(5, 5))
    task = Task(x, y, x_valid, y_valid)
    found = search.run([task], max_programs=200, random_state=0)
    apart, _ = evolve_islands(search, [task], max_train_steps=3000, migrants=5)
    return np.array([found.fitness, apart.fitness])


def projected(x: Any, y: Any, x_valid: Any, y_valid: Any) -> np.ndarray:
    (task,) = projected_binary_tasks(
        x, y > 0, x_valid, y_valid > 0, pairs=[(False, True)], features=2, random_state=0
    )
    return task.X


def teachers() -> np.ndarray:
    return np.stack([task.X for task in linear_regression_tasks(3, train=5, random_state=0)])


CASES = [
    Case(lambda: fitness, table, name="evaluate", per_sample=False),
    Case(lambda: evolved, table, name="evolution", per_sample=False),
    Case(lambda: projected, table, name="projected_binary_tasks", per_sample=False),
    Case(lambda: teachers, tuple, name="linear_regression_tasks", per_sample=False),
    Case(
        lambda: AutoMLZeroClassifier(max_train_steps=200_000), tuple, "estimator",
        "AutoMLZeroClassifier",
    ),
    Case(
        lambda: AutoMLZeroRegressor(max_train_steps=200_000), tuple, "estimator",
        "AutoMLZeroRegressor",
    ),
]  # fmt: skip
