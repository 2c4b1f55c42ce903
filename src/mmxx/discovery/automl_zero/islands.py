"""Islands: populations that evolve apart for a while, and then exchange programs."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmxx.discovery.automl_zero.results import SearchResult, SearchState
from mmxx.discovery.automl_zero.search import RegularizedEvolution, check_budget
from mmxx.discovery.automl_zero.tasks import Task


@dataclass(frozen=True, eq=False)
class Stint:
    """One island in one epoch: what a worker gets.

    Attributes:
        evolution: The search.
        tasks: What it is judged on.
        arrays: The island's state by name; None for the first epoch.
        steps: Training examples shown in all by the end of the epoch.
        target: Fitness at which to stop.
        seed: Of this island.
    """

    evolution: RegularizedEvolution
    tasks: Sequence[Task]
    arrays: dict[str, np.ndarray] | None
    steps: int
    target: float
    seed: int


def live(stint: Stint) -> dict[str, np.ndarray]:
    """Evolve one island for one epoch: its state afterwards."""
    state = stint.evolution.start(stint.tasks, stint.arrays)
    stint.evolution.step(
        state, stint.tasks, steps=stint.steps, target_fitness=stint.target, random_state=stint.seed
    )
    return state.arrays()


def migrate(states: Sequence[dict[str, np.ndarray]], migrants: int, epoch: int, seed: int) -> None:
    """Each island's random individuals go to the next one of the ring, in place of random ones.

    Args:
        states: Arrays of the islands, changed in place.
        migrants: How many go from each.
        epoch: Number of the epoch.
        seed: Of the draws.
    """
    rng = np.random.default_rng([seed, epoch])
    size = len(states[0]["fitness"])
    names = ("code", "data", "sizes", "fitness", "line", "line_fitness", "depth")
    leaving = []
    for arrays in states:
        chosen = rng.choice(size, migrants, replace=False)
        leaving.append({name: arrays[name][chosen].copy() for name in names})
    for number, arrays in enumerate(states):
        places = rng.choice(size, migrants, replace=False)
        for name in names:
            arrays[name][places] = leaving[number - 1][name]


def evolve_islands(
    evolution: RegularizedEvolution,
    tasks: Sequence[Task],
    *,
    islands: int = 4,
    epochs: int = 3,
    max_train_steps: int,
    migrants: int = 50,
    target_fitness: float = 0.9999,
    random_state: int = 0,
    map: Callable[..., Any] = builtins.map,
    rounds: Callable[[int, dict[str, Any]], Iterable[int]] = lambda epochs, state: range(epochs),
) -> tuple[SearchResult, list[SearchState]]:
    """Evolve several populations, which exchange individuals after each epoch.

    Migration is done here, in the order of the islands, so that the result is the same bit for bit
    whatever ``map`` is and however many workers it has.

    Args:
        evolution: The search of each island.
        tasks: What programs are judged on.
        islands: Populations.
        epochs: Stints between which programs migrate; it ends early when the target is reached.
        max_train_steps: Training examples shown, summed over islands and epochs.
        migrants: Individuals that leave each island; half the population at most.
        target_fitness: Fitness at which an island stops.
        random_state: Seed.
        map: What to spread the islands with, called as ``map(fn, items)``.
        rounds: What gives the epochs that are still to do, called with their number and a
            dictionary that holds all islands in between, to keep and to go on from.

    Returns:
        The best island's result, with the counts of all, and the states of the islands.

    Raises:
        ValueError: A number out of range.

    Source: Real et al. (2020), section 3.3 and supplement: workers exchange programs by migration.
    """
    for name, value in {"islands": islands, "epochs": epochs}.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if not 0 <= migrants <= evolution.population_size // 2:
        raise ValueError(
            f"migrants must be 0 to half the population, {evolution.population_size // 2}, got "
            f"{migrants}"
        )
    check_budget(max_train_steps, None, target_fitness)
    seeds = np.random.SeedSequence(random_state).generate_state(islands).tolist()
    state: dict[str, Any] = {"islands": [None] * islands, "best": 0.0}
    for epoch in rounds(epochs, state):
        if state["best"] >= target_fitness:
            continue
        shown = math.ceil(max_train_steps / islands * (epoch + 1) / epochs)
        stints = [
            Stint(evolution, tasks, arrays, shown, target_fitness, seed)
            for arrays, seed in zip(state["islands"], seeds, strict=True)
        ]
        evolved: list[dict[str, np.ndarray]] = list(map(live, stints))
        state["best"] = max(evolution.start(tasks, arrays).fitness for arrays in evolved)
        if epoch + 1 < epochs and state["best"] < target_fitness:
            migrate(evolved, migrants, epoch, random_state)
        state["islands"] = evolved
    found = [evolution.start(tasks, arrays) for arrays in state["islands"]]
    results = [evolution.result(state) for state in found]
    winner = max(results, key=lambda result: result.fitness)
    stats = {name: sum(result.stats[name] for result in results) for name in winner.stats}
    return SearchResult(winner.best, winner.fitness, winner.history, winner.lineage, stats), found
