"""Long searches in turns: between two of them everything is held by numbers, arrays and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mmxx.discovery.automl_zero import studies
from mmxx.discovery.automl_zero.evaluation import evaluate
from mmxx.discovery.automl_zero.results import SearchResult, SearchState
from mmxx.discovery.automl_zero.search import RegularizedEvolution
from mmxx.discovery.automl_zero.studies import Find, Study

_AT_ONCE = 12  # turns of a round
_TURN = 100_000_000  # training examples of a turn: some seconds
_SHORTER = {"repair": 25_000_000, "digits": 10_000_000}  # where an example takes longer


class Turn(NamedTuple):
    """What a worker gets.

    Attributes:
        study: What is searched.
        progress: Where it stands, as `begin` and `advance` give it.
    """

    study: Study
    progress: dict[str, Any]


def begin(study: Study) -> dict[str, Any]:
    """Where a study stands before its first turn.

    Returns:
        ``restart``: the present one; ``arrays``: of its search, empty before it began; ``find``:
        the best of the restarts that ended, or None; ``fitness`` and ``program``: the best so far
        of all; ``programs`` and ``steps`` of the restarts that ended; ``done``.
    """
    return {
        "restart": study.restarts.start, "arrays": {}, "find": None, "fitness": 0.0,
        "program": "", "programs": 0, "steps": 0, "done": False,
    }  # fmt: skip


def advance(turn: Turn) -> dict[str, Any]:
    """Go on with a study for one turn: where it stands then."""
    study, at = turn.study, dict(turn.progress)
    search = studies.search_for(study)
    target = 1.0 if study.name == "digits" else studies.SELECT
    left = _SHORTER.get(study.name, _TURN)
    while left > 0 and not at["done"]:
        tasks = studies.search_tasks(study, at["restart"])
        state = search.start(tasks, at["arrays"])
        before = state.steps
        seed = study.seed
        if study.name != "digits":
            seed = int(np.random.SeedSequence([seed, at["restart"]]).generate_state(1)[0])
        until = min(study.steps, before + left)
        search.step(state, tasks, steps=until, target_fitness=target, random_state=seed)
        left -= min(state.steps, until) - before  # the last program may have gone beyond
        if state.fitness > at["fitness"]:
            at["fitness"], at["program"] = state.fitness, search.result(state).best.text()
        if state.steps < study.steps and state.fitness < target:
            at["arrays"] = state.arrays()
        else:
            _end_restart(study, at, search, state)
    return at


def _end_restart(
    study: Study, at: dict[str, Any], search: RegularizedEvolution, state: SearchState
) -> None:
    """Judge what a restart found, and go on to the next."""
    result = search.result(state)
    at["programs"] += state.programs
    at["steps"] += state.steps
    fitness, result = _selected(study, result)
    if at["find"] is None or fitness > at["find"]["select"]:
        final = 0.0
        if study.name in studies.TEACHERS:
            final = float(evaluate(result.best, studies.judging_tasks(study, 1)).mean())
        find = Find(result, fitness, final, at["restart"], 0, 0)
        at["find"] = studies.as_tree(find)
        at["program"] = result.best.text()
    at["find"] |= {"programs": at["programs"], "steps": at["steps"]}
    at["arrays"] = {}
    at["restart"] += 1
    at["done"] = at["restart"] == study.restarts.stop or fitness > studies.SELECT


def _selected(study: Study, result: SearchResult) -> tuple[float, SearchResult]:
    """The best on the tasks of selection, of the last improvements where the search got far."""
    if study.name not in studies.TEACHERS:
        return result.fitness, result
    finds = [step.program for step in result.history[-studies.CANDIDATES :]]
    finds = finds if result.fitness > studies.FAR else finds[-1:]
    scores = evaluate(finds, studies.judging_tasks(study, 0)).mean(1)
    place = int(scores.argmax())
    return float(scores[place]), replace(result, best=finds[place])


class Searches:
    """All studies of a run and where each stands; a checkpoint holds it.

    Args:
        items: The studies; parts of one stand beside one another, by their restarts.
    """

    def __init__(self, items: Sequence[Study]) -> None:
        self.items = list(items)
        self.progress = [begin(item) for item in items]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"progress": self.progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a checkpoint did."""
        self.progress = list(state["progress"])

    @property
    def rounds(self) -> int:
        """How many rounds it takes at most."""
        turns = [
            -(-len(item.restarts) * item.steps // _SHORTER.get(item.name, _TURN))
            for item in self.items
        ]
        return max(turns, default=0) + sum(turns) // _AT_ONCE

    def turns(self) -> list[Turn]:
        """The next round: the first studies that are not done; none where all are.

        A part whose study has succeeded in an earlier one is not needed.
        """
        return [Turn(self.items[n], self.progress[n]) for n in self._open()][:_AT_ONCE]

    def absorb(self, advanced: Sequence[dict[str, Any]]) -> None:
        """Take over what came of `turns`."""
        for n, progress in zip(self._open(), advanced, strict=False):
            self.progress[n] = progress

    def _open(self) -> list[int]:
        """The numbers of what is to do; first parts before second ones."""
        found, over = [], False
        for n, (item, at) in enumerate(zip(self.items, self.progress, strict=True)):
            over = over and item.restarts.start > 0
            if not over and not at["done"]:
                found.append(n)
            over = over or (at["find"] is not None and studies.read(at["find"]).success)
        return sorted(found, key=lambda n: (self.items[n].restarts.start > 0, n))

    def merged(self) -> tuple[list[Study], list[Find]]:
        """Each study once, and what came of the parts that its restarts were made in."""
        items: list[Study] = []
        finds: list[list[Find]] = []
        for item, at in zip(self.items, self.progress, strict=True):
            if item.restarts.start == 0:
                items.append(item)
                finds.append([])
            if at["find"] is not None:
                finds[-1].append(studies.read(at["find"]))
        return items, [studies.merge(parts) for parts in finds]

    def best(self) -> dict[str, tuple[float, str]]:
        """Of each kind of study the fitness on the search's tasks, and the program, so far."""
        found: dict[str, tuple[float, str]] = {}
        for item, at in zip(self.items, self.progress, strict=True):
            if item.arm != "random" and at["fitness"] > found.get(item.name, (0.0, ""))[0]:
                found[item.name] = at["fitness"], at["program"]
        return found

    def told(self) -> str:
        """How things stand, in one line."""
        succeeded: dict[str, int] = {}
        for item, at in zip(self.items, self.progress, strict=True):
            if item.arm != "random" and at["find"] is not None:
                hit = studies.read(at["find"]).success
                succeeded[item.name] = succeeded.get(item.name, 0) + hit
        return "; ".join(
            f"{name} {fitness:.6f}"
            + (f", {succeeded[name]} succeeded" if succeeded.get(name) else "")
            for name, (fitness, _) in self.best().items()
        )
