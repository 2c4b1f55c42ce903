"""Searches over programs: regularised evolution, and the random search it is compared with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mmxx.discovery.automl_zero import _evolution as compiled
from mmxx.discovery.automl_zero._births import (
    EMPTY_START,
    GIVEN_START,
    RANDOM_START,
    Bench,
    Population,
    Rules,
)
from mmxx.discovery.automl_zero._cache import make_cache
from mmxx.discovery.automl_zero._evolution import Record
from mmxx.discovery.automl_zero._interpreter import Block
from mmxx.discovery.automl_zero._lowering import mark_live
from mmxx.discovery.automl_zero.evaluation import (
    MAX_ABS_ERROR,
    lanes_for,
    loss_code,
    make_block,
    make_lowered,
    make_machine,
)
from mmxx.discovery.automl_zero.library import NEURAL_NET
from mmxx.discovery.automl_zero.ops import COMPONENTS, OPS
from mmxx.discovery.automl_zero.program import Program, checked_addresses, pack
from mmxx.discovery.automl_zero.results import MUTATIONS, SearchResult, SearchState, read_result
from mmxx.discovery.automl_zero.space import FEC, Hurdle, SearchSpace, Sizes
from mmxx.discovery.automl_zero.tasks import Task, check_alike

_HISTORY, _DEPTH = 512, 32
_BIRTHS_AT_ONCE = 20_000
_STARTS = {"random": RANDOM_START, "noop": EMPTY_START}


@dataclass(frozen=True)
class RegularizedEvolution:
    """Evolution in which the oldest dies.

    A child is the mutated copy of the fittest of a few individuals drawn from the population; it
    takes the place of the oldest one.

    Args:
        space: Which programs there are.
        population_size: Individuals, P.
        tournament_size: How many are drawn for each birth, T; 1 is no selection at all.
        mutate_prob: Chance that a child is mutated; else it is a copy.
        mutations: Kinds, of `MUTATIONS`; one is drawn each time.
        initial: "random" programs, "noop" (empty ones), or a program of which all are copies.
        fec: The functional equivalence cache, or None.
        hurdle: A `Hurdle`, or None.
        train_budget: Programs that cost more than so many times the two-layer network are not run;
            None for no limit.
        combine: "mean" or "median" of the fitness over the tasks.
        max_abs_error: A larger error on any example is a fitness of 0 on that task.

    Raises:
        ValueError: A value out of range.

    Warns:
        UserWarning: The tournament is larger than the population.

    Example:
        >>> from mmxx.discovery.automl_zero import linear_regression_tasks
        >>> space = SearchSpace(
        ...     scalars=4,
        ...     vectors=3,
        ...     matrices=0,
        ...     setup_ops=["scalar_const"],
        ...     predict_ops=["inner_product"],
        ...     sizes=(2, 1, 4),
        ...     learn_ops=[
        ...         "scalar_difference",
        ...         "scalar_product",
        ...         "scalar_vector_product",
        ...         "vector_sum",
        ...     ],
        ... )
        >>> evolution = RegularizedEvolution(space, population_size=100)
        >>> result = evolution.run(
        ...     linear_regression_tasks(4, random_state=0), max_train_steps=50_000, random_state=0
        ... )
        >>> 0 < result.fitness <= 1
        True

    Source: Real et al. (2019), algorithm 1; Real et al. (2020), section 3.2.
    """

    space: SearchSpace
    population_size: int = 1000
    tournament_size: int = 10
    mutate_prob: float = 0.9
    mutations: Sequence[str] = ("alter", "randomize_instruction", "randomize_component")
    initial: Literal["random", "noop"] | Program = "random"
    fec: FEC | None = field(default_factory=FEC)
    hurdle: Hurdle | None = None
    train_budget: float | None = None
    combine: Literal["mean", "median"] = "mean"
    max_abs_error: float = MAX_ABS_ERROR

    def __post_init__(self) -> None:
        for name in ("population_size", "tournament_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.tournament_size > self.population_size:
            warnings.warn(
                f"tournament_size={self.tournament_size} is larger than "
                f"population_size={self.population_size}: nearly always the best is drawn",
                stacklevel=2,
            )
        if not 0 <= self.mutate_prob <= 1:
            raise ValueError(f"mutate_prob must be 0 to 1, got {self.mutate_prob}")
        if not self.mutations or not set(self.mutations) <= set(MUTATIONS):
            raise ValueError(
                f"mutations must be of {', '.join(MUTATIONS)}, got {list(self.mutations)}"
            )
        if not isinstance(self.initial, Program) and self.initial not in _STARTS:
            raise ValueError(f"initial must be 'random', 'noop' or a Program, got {self.initial!r}")
        if self.combine not in ("mean", "median"):
            raise ValueError(f"combine must be 'mean' or 'median', got {self.combine!r}")
        for name in ("train_budget", "max_abs_error"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if isinstance(self.initial, Program):
            checked_addresses([self.initial], self.space.memory)
        elif self.initial == "random":
            for name, ops, size in zip(COMPONENTS, self.space.ops, self.space.sizes, strict=True):
                if size and not ops:
                    raise ValueError(
                        f"{name}_ops is empty, but sizes asks for {size} random instructions; give "
                        "operations, or a Program as initial"
                    )

    # -- steps ---------------------------------------------------------------------------------

    def start(
        self, tasks: Sequence[Task], arrays: Mapping[str, np.ndarray] | None = None
    ) -> SearchState:
        """The state before the first birth, or that of an earlier search.

        Args:
            tasks: What programs will be judged on.
            arrays: Of the earlier state, by name; they are copied. None, or nothing: a new one.
        """
        self._check_tasks(tasks)
        capacity = self._capacity()
        size, length = self._places(), sum(capacity)
        code, data = np.zeros((size, length, 5), np.int16), np.zeros((size, length, 3))
        sizes = np.zeros((size, 3), np.int64)
        if isinstance(self.initial, Program):
            one, numbers, lengths, _ = pack([self.initial], capacity)
            code[:], data[:], sizes[:] = one, numbers, lengths
        fec = self.fec or FEC(cache_size=1)
        state = SearchState(
            Population(
                code, data, sizes, np.zeros(size), np.zeros((size, _DEPTH, 2), np.int64),
                np.zeros((size, _DEPTH)), np.zeros(size, np.int64),
            ),
            Record(
                np.zeros(compiled.COUNTERS, np.int64), np.zeros((_HISTORY, 2), np.int64),
                np.zeros(_HISTORY), np.zeros((_HISTORY, length, 5), np.int16),
                np.zeros((_HISTORY, length, 3)), np.zeros((_HISTORY, 3), np.int64),
                np.zeros((1, _DEPTH, 2), np.int64), np.zeros((1, _DEPTH)), np.zeros(1, np.int64),
                np.zeros(self.hurdle.every if self.hurdle else 1), np.zeros(1),
            ),
            make_cache(fec.cache_size, fec.exact),
        )  # fmt: skip
        if arrays:
            for name, array in state.arrays().items():
                array[...] = arrays[name]
        return state

    def step(
        self,
        state: SearchState,
        tasks: Sequence[Task],
        *,
        programs: int | None = None,
        steps: int | None = None,
        target_fitness: float = math.inf,
        random_state: int = 0,
    ) -> None:
        """Go on from a state, which is changed in place, until a total is reached.

        What comes of it does not depend on how it is cut into steps.

        Args:
            state: From `start`, or a checkpoint of it.
            tasks: The same as in `start`.
            programs: Births in all, from the first one on.
            steps: Training examples shown in all.
            target_fitness: Stop at a best of this.
            random_state: Seed of the search.
        """
        most = np.iinfo(np.int64).max
        rules, block = self._rules(tasks, random_state)
        lanes = block.task.shape[1]
        machine = make_machine(self.space.memory, tasks[0].features, lanes)
        length = state.population.code.shape[1]
        errors = np.zeros((rules.probe_train + rules.probe_valid, lanes))
        bench = Bench(
            np.zeros((length, 5), np.int16), np.zeros((length, 3)), np.zeros(3, np.int64),
            np.zeros(len(tasks)), errors, errors.view(np.uint64), np.zeros((0, lanes)),
            np.zeros(1, np.uint64),
        )  # fmt: skip
        low = make_lowered(length)
        births = most if programs is None else programs
        shown = most if steps is None else steps
        counters = state.record.counters
        while counters[compiled.BIRTHS] < births and counters[compiled.STEPS] < shown:
            before = counters[compiled.BIRTHS]
            some = min(births, before + _BIRTHS_AT_ONCE)
            compiled.advance(
                state.population, rules, low, machine, block, state.record, state.cache, bench,
                some, shown, target_fitness,
            )  # fmt: skip
            if counters[compiled.BIRTHS] < some:
                break  # the steps are spent, or the target is reached

    def result(self, state: SearchState) -> SearchResult:
        """What a state has found so far.

        Args:
            state: After a step.
        """
        return read_result(state, self._starts())

    def run(
        self,
        tasks: Sequence[Task],
        *,
        max_train_steps: int | None = None,
        max_programs: int | None = None,
        target_fitness: float = 0.9999,
        random_state: int = 0,
    ) -> SearchResult:
        """Search until the budget is spent or a program is fit enough.

        Args:
            tasks: What programs are judged on.
            max_train_steps: Training examples shown, summed over tasks.
            max_programs: Programs born.
            target_fitness: Fitness at which to stop; one that is reached on these tasks may not be
                on others, so choose among several runs on tasks of their own.
            random_state: Seed.

        Raises:
            ValueError: No budget, one below 1, a target above 1, or tasks that do not fit.
        """
        check_budget(max_train_steps, max_programs, target_fitness)
        state = self.start(tasks)
        self.step(
            state, tasks, programs=max_programs, steps=max_train_steps,
            target_fitness=target_fitness, random_state=random_state,
        )  # fmt: skip
        return self.result(state)

    # -- parts ---------------------------------------------------------------------------------

    def _places(self) -> int:
        return self.population_size

    def _tournament(self) -> int:
        return self.tournament_size

    def _capacity(self) -> list[int]:
        """Room for each component: one more than the longest, for a trade."""
        high, first = self.space.size_max, self._first()
        assert high is not None
        return [max(h, f) + 1 for h, f in zip(high, first, strict=True)]

    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self._capacity())])[:3].astype(np.int64)

    def _first(self) -> Sizes:
        if isinstance(self.initial, Program):
            setup, predict, learn = map(len, self.initial.parts)
            return setup, predict, learn
        return self.space.sizes

    def _check_tasks(self, tasks: Sequence[Task]) -> None:
        check_alike(tasks)
        for name, probe, there in (
            ("train", self.fec and self.fec.train, len(tasks[0].y)),
            ("valid", self.fec and self.fec.valid, len(tasks[0].y_valid)),
        ):
            if probe and probe > there:
                raise ValueError(
                    f"fec: its probe takes {name}={probe} examples, the tasks have {there}"
                )

    def _rules(self, tasks: Sequence[Task], seed: int) -> tuple[Rules, Block]:
        space, first, fec, hurdle = self.space, tasks[0], self.fec, self.hurdle
        low, high = space.size_min, space.size_max
        lanes = lanes_for(len(tasks), first.features)
        if hurdle is not None:
            lanes = min(hurdle.tasks or (len(tasks) + 1) // 2, len(tasks))
        ops = np.zeros((3, len(OPS)), np.int64)
        for part, allowed in enumerate(space.ops):
            ops[part, : len(allowed)] = allowed
        start = GIVEN_START if isinstance(self.initial, Program) else _STARTS[self.initial]
        rules = Rules(
            self._starts(), np.array(low, np.int64), np.array(high, np.int64),
            np.array(self._first(), np.int64), ops,
            np.array([len(allowed) for allowed in space.ops], np.int64),
            np.array([MUTATIONS.index(kind) for kind in self.mutations], np.int64),
            float(self.mutate_prob), self._tournament(), start, int(seed), len(first.y),
            len(first.y_valid), first.epochs, loss_code(first), float(self.max_abs_error),
            len(tasks), self.combine == "median", self._cost_limit(len(first.y) * first.epochs),
            fec.train if fec else 0, fec.valid if fec else 0, fec.forget_every if fec else 0,
            hurdle.quantile if hurdle else 0.0, hurdle.every if hurdle else 1,
        )  # fmt: skip
        return rules, make_block(tasks, lanes)

    def _cost_limit(self, shown: int) -> float:
        if self.train_budget is None:
            return math.inf
        code, _, sizes, starts = pack([NEURAL_NET])
        live = np.zeros(code.shape[1], np.uint8)
        mark_live(code[0], starts, sizes[0], live)
        return self.train_budget * compiled.cost(code[0], starts, sizes[0], live, shown)


@dataclass(frozen=True)
class RandomSearch(RegularizedEvolution):
    """Programs drawn one by one, the best of which is kept: the paper's baseline.

    Args:
        space: Which programs there are; their sizes are ``space.sizes``.
        population_size: Not used.
        tournament_size: Not used.
        mutate_prob: Not used.
        mutations: Not used.
        initial: Not used.
        fec: The functional equivalence cache, or None.
        hurdle: A `Hurdle`, or None.
        train_budget: As in `RegularizedEvolution`.
        combine: "mean" or "median" of the fitness over the tasks.
        max_abs_error: A larger error on any example is a fitness of 0 on that task.

    Source: Real et al. (2020), section 4.1.
    """

    def _places(self) -> int:
        return 1

    def _tournament(self) -> int:
        return 0


def check_budget(
    max_train_steps: int | None, max_programs: int | None, target_fitness: float
) -> None:
    """Refuse a search that would not begin or not end.

    Raises:
        ValueError: No budget, one below 1, or a target above 1.
    """
    if max_train_steps is None and max_programs is None:
        raise ValueError("max_train_steps or max_programs must be given")
    for name, value in (("max_train_steps", max_train_steps), ("max_programs", max_programs)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if not target_fitness <= 1:
        raise ValueError(f"target_fitness must be 1 at most, got {target_fitness}")
