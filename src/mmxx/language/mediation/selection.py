"""Which few mediators together do what all of them do: by rank, or greedily."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mmxx.language.mediation.averages import Mean
from mmxx.language.mediation.examples import Example

if TYPE_CHECKING:
    from mmxx.language.mediation.mediation import Mediation

Pair = tuple[int, int]
Kind = Literal["heads", "neurons"]
Source = Callable[[], "Mediation"]
"""Gives the model to a task in whatever process: a partial of a function that loads it."""
_CANDIDATES = 16  # of a task: fixed, so that results do not depend on the number of workers


@dataclass(frozen=True)
class Selection:
    """Mediators in the order in which they were taken.

    Attributes:
        kind: "heads" or "neurons".
        order: Pairs (layer, head) or (layer, neuron).
        effect: Mean NIE of the first 1, 2, … of them together.
        whole: Mean NIE of all mediators together.
    """

    kind: Kind
    order: tuple[Pair, ...]
    effect: tuple[float, ...]
    whole: float

    @property
    def share(self) -> tuple[float, ...]:
        """``effect`` as a share of ``whole``; NaN where nothing is mediated."""
        return tuple(one / self.whole if self.whole else float("nan") for one in self.effect)


class Task(NamedTuple):
    """Some sets to measure. Pure: the same anywhere, any number of times."""

    source: Mediation | Source
    examples: Sequence[Example]
    sets: Sequence[Sequence[Pair]]
    kind: Kind
    average: Mean


def measure(task: Task) -> list[float]:
    """The mean NIE of each set of a task."""
    mediation = task.source if not callable(task.source) else task.source()
    effects = mediation.sets(task.examples, task.sets, task.kind)
    found = effects.mean(task.average, draws=0).nie
    assert found is not None
    return found.value.tolist()


def greedy_step(
    source: Mediation | Source,
    examples: Sequence[Example],
    chosen: Sequence[Pair],
    candidates: Iterable[Pair],
    *,
    kind: Kind = "heads",
    average: Mean = "ratio",
    map: Callable[..., Iterable[Any]] = map,
) -> tuple[Pair, float]:
    """The mediator that adds most to those chosen, and the effect of all of them.

    Args:
        source: The model, or what gives it to a task in another process.
        examples: One or more.
        chosen: Mediators that were taken before.
        candidates: What to choose from; those chosen are left out.
        kind: "heads" or "neurons".
        average: The mean to maximise.
        map: As Python's own, or that of a pool.

    Raises:
        ValueError: No candidate is left.
    """
    left = [pair for pair in candidates if pair not in set(chosen)]
    if not left:
        raise ValueError(f"no candidate is left beside {len(chosen)} chosen")
    sets = [[*chosen, pair] for pair in left]
    tasks = [
        Task(source, examples, sets[begin : begin + _CANDIDATES], kind, average)
        for begin in range(0, len(sets), _CANDIDATES)
    ]
    effects = [effect for found in map(measure, tasks) for effect in found]
    best = int(np.argmax(effects))
    return left[best], effects[best]


def select(
    mediation: Mediation,
    examples: Sequence[Example],
    kind: Kind = "heads",
    k: int = 10,
    method: Literal["greedy", "top-k"] = "greedy",
    *,
    average: Mean = "ratio",
    candidates: Iterable[Pair] | None = None,
    map: Callable[..., Iterable[Any]] = map,
) -> Selection:
    """The k mediators that together mediate most.

    Args:
        mediation: The model.
        examples: One or more.
        kind: "heads" or "neurons".
        k: How many.
        method: "top-k" takes the k of largest mean NIE; "greedy" adds the one that raises the
            joint NIE most, k times, at k measurements of every candidate.
        average: The mean that counts.
        candidates: Pairs (layer, unit) to choose from; by default all.
        map: For greedy: as Python's own, or that of a pool.

    Raises:
        ValueError: ``k`` is out of range, or an argument is unknown.

    Source: Vig et al. (2020), on selecting subsets of mediators.
    """
    if method not in ("greedy", "top-k"):
        raise ValueError(f"method must be 'greedy' or 'top-k', got {method!r}")
    everything = every(mediation, kind)
    pool = everything if candidates is None else list(dict.fromkeys(candidates))
    if not 1 <= k <= len(pool):
        raise ValueError(f"k must lie between 1 and {len(pool)}, got {k}")
    whole = measure(Task(mediation, examples, [everything], kind, average))[0]
    if method == "greedy":
        order: list[Pair] = []
        effect: list[float] = []
        for _ in range(k):
            best, reached = greedy_step(
                mediation, examples, order, pool, kind=kind, average=average, map=map
            )
            order.append(best)
            effect.append(reached)
    else:
        alone = measure(Task(mediation, examples, [[pair] for pair in pool], kind, average))
        order = [pool[index] for index in np.argsort(np.negative(alone), kind="stable")[:k]]
        prefixes = [order[: size + 1] for size in range(k)]
        effect = measure(Task(mediation, examples, prefixes, kind, average))
    return Selection(kind, tuple(order), tuple(effect), whole)


def every(mediation: Mediation, kind: Kind) -> list[Pair]:
    """All mediators of a kind, as pairs.

    Raises:
        ValueError: ``kind`` is neither "heads" nor "neurons".
    """
    parts = mediation.parts
    if kind == "heads":
        return [(layer, head) for layer, heads in enumerate(parts.heads) for head in range(heads)]
    if kind == "neurons":
        levels = range(len(parts.blocks) + 1)
        return [(level, unit) for level in levels for unit in range(parts.width)]
    raise ValueError(f"kind must be 'heads' or 'neurons', got {kind!r}")
