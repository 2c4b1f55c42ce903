"""What a search holds while it runs, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmxx.discovery.automl_zero import _evolution
from mmxx.discovery.automl_zero._births import Population
from mmxx.discovery.automl_zero._cache import Cache
from mmxx.discovery.automl_zero._evolution import Record
from mmxx.discovery.automl_zero.ops import COMPONENTS
from mmxx.discovery.automl_zero.program import Program, unpack

MUTATIONS = (
    "alter",
    "randomize_instruction",
    "randomize_component",
    "identity",
    "insert",
    "remove",
    "trade",
    "randomize_all",
)
"""Kinds of mutation; one is drawn for each mutated child."""


class Improvement(NamedTuple):
    """A new best.

    Attributes:
        programs: Births so far.
        steps: Training examples shown so far.
        fitness: Its fitness.
        program: The program.
    """

    programs: int
    steps: int
    fitness: float
    program: Program


class Ancestor(NamedTuple):
    """A birth at which the line of descent of the best improved.

    Attributes:
        program: Which birth.
        fitness: The fitness it had.
        mutation: What was mutated, "first" for one of the first population.
        component: Where: "setup", "predict", "learn" or "".
    """

    program: int
    fitness: float
    mutation: str
    component: str


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The fittest program.
        fitness: Its fitness on the tasks of the search.
        history: Every improvement of the best (512 at most; then the last is written over).
        lineage: The improvements along the best one's line of descent (32 at most).
        stats: Counts: programs, steps (training examples shown, those of the cache's probes
            among them), fec_hits, early_stops (at the hurdle), over_budget.
    """

    best: Program
    fitness: float
    history: tuple[Improvement, ...]
    lineage: tuple[Ancestor, ...]
    stats: dict[str, int]


@dataclass
class SearchState:
    """A search between two steps: arrays that a checkpoint can hold, changed in place.

    Attributes:
        population: The programs and their fitness.
        record: Counters, and bests.
        cache: What behaves alike.
    """

    population: Population
    record: Record
    cache: Cache

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, the same objects."""
        return {
            **self.population._asdict(),
            **{f"_{k}": v for k, v in self.record._asdict().items()},
            **{f"cache_{k}": v for k, v in self.cache._asdict().items()},
        }

    @property
    def programs(self) -> int:
        """Births so far."""
        return int(self.record.counters[_evolution.BIRTHS])

    @property
    def steps(self) -> int:
        """Training examples shown so far."""
        return int(self.record.counters[_evolution.STEPS])

    @property
    def fitness(self) -> float:
        """The best so far."""
        found = int(self.record.counters[_evolution.HISTORY])
        return float(self.record.best[found - 1]) if found else 0.0


def read_result(state: SearchState, starts: np.ndarray) -> SearchResult:
    """The result of a state whose components begin at ``starts``."""
    record, counters = state.record, state.record.counters
    history = tuple(
        Improvement(
            int(record.when[n, 0]),
            int(record.when[n, 1]),
            float(record.best[n]),
            unpack(record.code[n], record.data[n], record.sizes[n], starts),
        )
        for n in range(counters[_evolution.HISTORY])
    )
    lineage = tuple(
        _ancestor(int(record.line[0, n, 0]), int(record.line[0, n, 1]), fitness)
        for n, fitness in enumerate(record.line_fitness[0, : record.depth[0]].tolist())
    )
    names = ("programs", "steps", "fec_hits", "early_stops", "over_budget")
    stats = {name: int(counters[n]) for n, name in enumerate(names)}
    best = history[-1] if history else Improvement(0, 0, 0.0, Program())
    return SearchResult(best.program, best.fitness, history, lineage, stats)


def _ancestor(birth: int, what: int, fitness: float) -> Ancestor:
    mutation = what // 4
    if mutation >= len(MUTATIONS):
        return Ancestor(birth + 1, fitness, "first", "")
    name = MUTATIONS[mutation]
    whole = name in ("identity", "randomize_all")
    return Ancestor(birth + 1, fitness, name, "" if whole else COMPONENTS[what % 4])
