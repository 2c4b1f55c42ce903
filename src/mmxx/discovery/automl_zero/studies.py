"""The spaces and tasks that the paper's claims are measured on, and the statistics of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.svm import SVC

from mmxx.discovery.automl_zero.evaluation import evaluate
from mmxx.discovery.automl_zero.islands import evolve_islands
from mmxx.discovery.automl_zero.library import DAMAGED_NEURAL_NET, LINEAR, NEURAL_NET
from mmxx.discovery.automl_zero.ops import OPS
from mmxx.discovery.automl_zero.program import Program
from mmxx.discovery.automl_zero.results import Ancestor, Improvement, SearchResult
from mmxx.discovery.automl_zero.search import RandomSearch, RegularizedEvolution
from mmxx.discovery.automl_zero.space import FEC, SearchSpace
from mmxx.discovery.automl_zero.tasks import (
    Task,
    affine_tasks,
    linear_regression_tasks,
    nn_teacher_tasks,
    projected_binary_tasks,
)

Arm = Literal["evolution", "no selection", "random"]
ARMS: tuple[Arm, ...] = ("evolution", "random", "no selection")
CANDIDATES, FAR = 64, 0.9
"""How many finds are chosen among, where the search has reached so much."""
SELECT, FINAL = 0.9999, 0.999
"""What a find must reach on the tasks of selection, and on those that nothing was chosen by."""
_SIX = (
    "scalar_const", "inner_product", "scalar_difference", "scalar_product",
    "scalar_vector_product", "vector_sum",
)  # fmt: skip

FIXED = SearchSpace(
    scalars=4, vectors=3, matrices=0, setup_ops=_SIX[:1], predict_ops=_SIX[1:2],
    learn_ops=_SIX[2:], sizes=(5, 1, 4),
)  # fmt: skip
"""The easier space: each component has only the operations that it needs."""
DEMO = SearchSpace(
    scalars=4, vectors=5, matrices=1, setup_ops=_SIX, predict_ops=_SIX, learn_ops=_SIX,
    sizes=(10, 2, 8),
)  # fmt: skip
"""The authors' demonstration: six operations anywhere, and more room than needed."""
AFFINE = replace(
    FIXED, scalars=5, predict_ops=("inner_product", "scalar_sum"),
    learn_ops=(*_SIX[2:], "scalar_sum"), sizes=(5, 2, 5),
)  # fmt: skip
"""As `FIXED`, with sums of scalars for the bias."""
REPAIR = SearchSpace(
    scalars=5, vectors=9, matrices=2, setup_ops=("vector_gaussian", "matrix_gaussian"),
    sizes=(1, 5, 11), size_min=(6, 5, 11), size_max=(7, 5, 11),
)  # fmt: skip
"""Setup alone may change: the authors' test that a damaged network is repaired."""
ALL_OPS = tuple(op.name for op in OPS)
DIGITS = SearchSpace(
    scalars=8, vectors=12, matrices=3, setup_ops=ALL_OPS, predict_ops=ALL_OPS, learn_ops=ALL_OPS,
    sizes=(3, 5, 11), size_min=(1, 1, 1), size_max=(22, 22, 46),
)  # fmt: skip
"""All operations, and the network's memory with room to spare."""


class Study(NamedTuple):
    """One search to make: what a worker gets.

    Attributes:
        name: "fixed", "demo", "affine", "repair", "digits" or "own".
        arm: Which search.
        seed: Of tasks and search.
        restarts: Numbers of the searches; it ends with the first that succeeds.
        steps: Training examples shown in each.
        population: Individuals; 0 for that of the study.
        tasks: Tasks of the search where they are not made from the seed, else none.
    """

    name: str
    arm: Arm
    seed: int
    restarts: range
    steps: int
    population: int = 0
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Find:
    """What came of a study.

    Attributes:
        result: Of the restart that was best on the tasks of selection.
        select: Its fitness there.
        final: Its fitness on tasks that nothing was chosen by.
        restart: Which restart it was.
        programs: Programs born in all restarts.
        steps: Training examples shown in all restarts.
    """

    result: SearchResult
    select: float
    final: float
    restart: int
    programs: int
    steps: int

    @property
    def success(self) -> bool:
        """Whether it is a solution by both kinds of tasks."""
        return self.select > SELECT and self.final > FINAL


TEACHERS: dict[str, Callable[..., list[Task]]] = {
    "fixed": linear_regression_tasks,
    "demo": linear_regression_tasks,
    "affine": affine_tasks,
    "repair": nn_teacher_tasks,
}


def search_for(study: Study) -> RegularizedEvolution:
    """The search of a study, with the authors' settings where they published any."""
    space = {"fixed": FIXED, "demo": DEMO, "affine": AFFINE, "repair": REPAIR}.get(
        study.name, DIGITS
    )
    settings: dict[str, Any] = {"population_size": 1000, "tournament_size": 10}
    if space in (FIXED, AFFINE):
        settings = {
            "population_size": 300, "tournament_size": 3,
            "mutations": ("alter", "randomize_instruction"), "fec": FEC(5, 5),
        }  # fmt: skip
    if study.name == "repair":
        settings |= {
            "mutations": ("alter", "insert", "remove", "trade"), "mutate_prob": 1.0,
            "initial": DAMAGED_NEURAL_NET, "train_budget": 2.0, "fec": None,
        }  # fmt: skip
    elif space is DIGITS:
        settings |= {
            "mutations": ("insert", "remove", "randomize_component", "alter"),
            "initial": NEURAL_NET, "population_size": 100,
        }  # fmt: skip
    if study.population:
        settings["population_size"] = study.population
    if study.arm == "random":
        return RandomSearch(space, **settings)
    if study.arm == "no selection":
        settings["tournament_size"] = 1
    settings["tournament_size"] = min(settings["tournament_size"], settings["population_size"])
    return RegularizedEvolution(space, **settings)


def search_tasks(study: Study, restart: int) -> list[Task]:
    """The tasks that a restart searches on."""
    if study.tasks:
        return list(study.tasks)
    count, train = (1, 1000) if study.name == "repair" else (10, 100)
    return TEACHERS[study.name](count, train=train, random_state=[study.seed, restart])


def judging_tasks(study: Study, which: int) -> list[Task]:
    """100 tasks of 1,000 and 100 examples: to select by (0), and to report on once (1)."""
    return TEACHERS[study.name](100, train=1000, random_state=[study.seed, 1_000_000 + which])


def merge(finds: Sequence[Find]) -> Find:
    """Parts of the restarts of one study as one: they end with the first that succeeds."""
    ended = next((n for n, find in enumerate(finds) if find.success), len(finds) - 1)
    made = finds[: ended + 1]
    best = max(made, key=lambda find: find.select)
    return replace(best, programs=sum(f.programs for f in made), steps=sum(f.steps for f in made))


def as_tree(find: Find) -> dict[str, Any]:
    """A find as numbers and strings, that a checkpoint can hold."""
    tree = vars(find) | {"result": vars(find.result)}
    result = tree["result"]
    tree["result"] = result | {
        "best": result["best"].to_json(),
        "history": [[*entry[:3], entry[3].to_json()] for entry in result["history"]],
        "lineage": [list(entry) for entry in result["lineage"]],
    }
    return tree


def read(tree: dict[str, Any]) -> Find:
    """What `as_tree` wrote."""
    result = dict(tree["result"])
    result["best"] = Program.from_json(result["best"])
    result["history"] = tuple(
        Improvement(programs, steps, fitness, Program.from_json(text))
        for programs, steps, fitness, text in result["history"]
    )
    result["lineage"] = tuple(Ancestor(*entry) for entry in result["lineage"])
    return Find(**{**tree, "result": SearchResult(**result)})


# -- digits ------------------------------------------------------------------------------------


def digit_pairs(seed: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The 45 pairs of digits: 36 to search and select on, and 9 held out."""
    pairs = [(a, b) for a in range(10) for b in range(a + 1, 10)]
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[k] for k in order[:36]], [pairs[k] for k in order[36:]]


def digit_tasks(
    images: np.ndarray,
    labels: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    projections: int,
    seed: int,
) -> list[Task]:
    """Pairs of digits projected to 16 features: 200 pictures shown ten times, 80 to judge by."""
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(images))
    split = int(0.7 * len(order))
    train, valid = order[:split], order[split:]
    return projected_binary_tasks(
        images[train], labels[train], images[valid], labels[valid], pairs=pairs,
        projections=projections, epochs=10, random_state=rng,
    )  # fmt: skip


def digit_study(
    images: np.ndarray, labels: np.ndarray, arm: Arm, seed: int, steps: int, pairs: int,
    population: int,
) -> Study:  # fmt: skip
    """The search on digits: pairs of them, one projection of each."""
    searched, _ = digit_pairs(seed)
    tasks = digit_tasks(images, labels, searched[:pairs], 1, seed)
    return Study("digits", arm, seed, range(1), steps, population, tuple(tasks))


def judge_digits(
    images: np.ndarray, labels: np.ndarray, seed: int, pairs: int, projections: int,
    result: SearchResult,
) -> dict[str, Any]:  # fmt: skip
    """Choose among what a search found on other projections; report on pairs held out.

    Returns:
        Mean accuracies by name, and the program's text.
    """
    searched, held_out = digit_pairs(seed)
    make = partial(digit_tasks, images, labels)
    select = make(searched[:pairs], projections, seed + 1)
    finds = [NEURAL_NET, *(step.program for step in result.history[-20:])]
    best = finds[int(evaluate(finds, select, random_state=seed).mean(1).argmax())]
    final = make(held_out, projections, seed + 2)
    names = ("evolved", "network", "linear")
    scores = evaluate([best, NEURAL_NET, LINEAR], final, random_state=seed).mean(1)
    machine = SVC(C=10, random_state=0)  # how much there is to gain
    machines = [machine.fit(t.X, t.y).score(t.X_valid, t.y_valid) for t in final]
    return {
        "accuracy": dict(zip(names, scores.tolist(), strict=True))
        | {"support vector machine": float(np.mean(machines))},
        "program": best.pruned().normalized().text(),
    }


def on_islands(seed: int, islands: int, steps: int, population: int, **how: Any) -> dict[str, Any]:
    """The demonstration on islands: what became of it, in numbers; ``how`` as in evolve_islands."""
    study = Study("demo", "evolution", seed, range(1), steps, population)
    search = search_for(study)
    result, _ = evolve_islands(
        search, search_tasks(study, 0), islands=islands, max_train_steps=steps,
        migrants=min(50, search.population_size // 2), random_state=seed, **how,
    )  # fmt: skip
    select = float(evaluate(result.best, judging_tasks(study, 0)).mean())
    return {
        "islands": islands, "search fitness": result.fitness, "selection fitness": select,
        "programs": result.stats["programs"], "training examples": result.stats["steps"],
    }  # fmt: skip


# -- statistics --------------------------------------------------------------------------------


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a success rate.

    Args:
        successes: How many.
        trials: Of how many.
        z: Standard normal quantile; 1.96 for 95 per cent.

    Returns:
        (low, high).

    Example:
        >>> low, high = wilson(2, 10)
        >>> round(low, 3), round(high, 3)
        (0.057, 0.51)

    Source: Wilson (1927).
    """
    p = successes / trials
    middle = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    scale = 1 + z * z / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def median_programs(finds: Sequence[Find]) -> float:
    """The median of programs born until success; infinite where half or more do not succeed."""
    return float(np.median([f.programs if f.success else math.inf for f in finds]))
