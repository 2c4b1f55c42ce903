"""The compiled search: births judged one after the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.automl_zero import _draws
from mmxx.discovery.automl_zero._births import NONE, ONE, beget, copy_all
from mmxx.discovery.automl_zero._cache import look_up, store, value_at
from mmxx.discovery.automl_zero._interpreter import run
from mmxx.discovery.automl_zero._lowering import lower
from mmxx.discovery.automl_zero.ops import COST

BIRTHS, STEPS, HITS, STOPPED, REFUSED, EVALUATED, HISTORY = range(7)
COUNTERS = 7


class Record(NamedTuple):
    """What the search has seen: counters, bests, the hurdle.

    Attributes:
        counters: int64 [COUNTERS], by the names above.
        when: Births and steps at which the best improved, int64 [H, 2].
        best: The fitness then, float64 [H]; full, the last is written over.
        code: The program then, int16 [H, L, 5].
        data: float64 [H, L, 3].
        sizes: int64 [H, 3].
        line: The line of descent of the best, int64 [1, depth, 2].
        line_fitness: float64 [1, depth].
        depth: int64 [1].
        recent: First-part fitness of recent births, float64 [renew].
        threshold: The hurdle, float64 [1].
    """

    counters: np.ndarray
    when: np.ndarray
    best: np.ndarray
    code: np.ndarray
    data: np.ndarray
    sizes: np.ndarray
    line: np.ndarray
    line_fitness: np.ndarray
    depth: np.ndarray
    recent: np.ndarray
    threshold: np.ndarray


@njit(cache=True, nogil=True)
def cost(code, starts, sizes, live, train):
    """What a program's live instructions cost: Setup, and Predict and Learn for each example."""
    once, each = 0.0, 0.0
    for part in range(3):
        for i in range(starts[part], starts[part] + sizes[part]):
            if live[i]:
                if part == 0:
                    once += COST[code[i, 0]]
                else:
                    each += COST[code[i, 0]]
    return once + train * each


@njit(cache=True, nogil=True, inline="always")
def _behaviour(low, machine, block, rules, bench):
    """A hash of the errors on a few examples, with draws that are always the same; and steps."""
    steps = 0
    found = np.uint64(0)
    missing = np.uint64(1)
    for b in range(block.x.shape[0]):
        bench.errors[:] = 0.0
        steps += run(
            low, machine, block, b, rules.probe_train, rules.probe_valid, ONE, rules.loss,
            rules.most, NONE, ONE, bench.errors, bench.nothing,
        )  # fmt: skip
        for row in range(bench.errors.shape[0]):
            for t in range(bench.errors.shape[1]):
                x = bench.errors[row, t]
                found = _draws.mix(found + (bench.bits[row, t] if x == x else missing))
    return found, steps


@njit(cache=True, nogil=True)
def _quantile(values, share):
    """The quantile of some numbers, between the two nearest; they are sorted in place."""
    for i in range(1, values.size):
        x, j = values[i], i
        while j > 0 and values[j - 1] > x:
            values[j] = values[j - 1]
            j -= 1
        values[j] = x
    place = share * (values.size - 1)
    below = int(place)
    above = min(below + 1, values.size - 1)
    return values[below] + (place - below) * (values[above] - values[below])


@njit(cache=True, nogil=True)
def _combine(scores, median):
    if median:
        return _quantile(scores, 0.5)
    total = 0.0
    for x in scores:
        total += x
    return total / scores.size


@njit(cache=True, nogil=True)
def _falls_at_hurdle(record, rules, first):
    """Whether the first part's fitness is below the quantile of recent ones."""
    count = record.counters[EVALUATED]
    place = count % rules.renew
    if place == 0 and count:
        record.threshold[0] = _quantile(record.recent, rules.hurdle)
    record.recent[place] = first
    return count >= rules.renew and first < record.threshold[0]


@njit(cache=True, nogil=True, inline="always")
def _judge(low, machine, block, rules, record, cache, bench, birth):
    """The fitness of the child."""
    counters = record.counters
    lower(bench.code, bench.data, rules.starts, bench.sizes, machine.counts, low, True)
    spent = cost(bench.code, rules.starts, bench.sizes, low.live, rules.train)
    if spent > rules.budget:
        counters[REFUSED] += 1
        return 0.0
    key = np.uint64(0)
    if rules.probe_train:
        key, steps = _behaviour(low, machine, block, rules, bench)
        counters[STEPS] += steps
        known = look_up(cache, key, rules.forget, counters[BIRTHS])
        if known >= 0:
            counters[HITS] += 1
            return value_at(cache, known)
    seed = np.int64(_draws.key(rules.seed, birth, ONE, NONE) >> np.uint64(1))
    lanes = block.task.shape[1]
    fitness = 0.0
    for b in range(block.x.shape[0]):
        counters[STEPS] += run(
            low, machine, block, b, rules.train, rules.valid, rules.epochs, rules.loss, rules.most,
            seed, ONE, bench.nothing, bench.nothing,
        )  # fmt: skip
        done = min((b + 1) * lanes, rules.tasks)
        for task in range(b * lanes, done):
            bench.scores[task] = machine.fitness[task - b * lanes]
        if b == 0 and rules.hurdle > 0.0:
            fitness = _combine(bench.scores[:done], rules.median)
            stopped = _falls_at_hurdle(record, rules, fitness)
            counters[EVALUATED] += 1
            if stopped:
                counters[STOPPED] += 1
                break
        if done == rules.tasks:
            fitness = _combine(bench.scores, rules.median)
    if rules.probe_train:
        store(cache, key, fitness, counters[BIRTHS])
    return fitness


@njit(cache=True, nogil=True)
def advance(population, rules, low, machine, block, record, cache, bench, births, steps, target):
    """Births until there were so many, so many training examples were shown, or one is fit enough.

    Regularised evolution: the child takes the place of the oldest, which is the next in the ring;
    its parent is the fittest of a few drawn with replacement. All arrays are changed in place.

    Source: Real et al. (2019), algorithm 1; Real et al. (2020), section 3.
    """
    counters = record.counters
    size, most = population.fitness.size, record.best.size
    best = record.best[min(counters[HISTORY], most) - 1] if counters[HISTORY] else -1.0
    while counters[BIRTHS] < births and counters[STEPS] < steps and best < target:
        birth = counters[BIRTHS]
        parent, what = beget(population, rules, bench, machine.counts, birth)
        fitness = _judge(low, machine, block, rules, record, cache, bench, birth)
        slot = birth % size
        _descend(population, parent, slot, birth, what, fitness)
        copy_all(
            bench.code, bench.data, bench.sizes,
            population.code[slot], population.data[slot], population.sizes[slot],
        )  # fmt: skip
        population.fitness[slot] = fitness
        counters[BIRTHS] += 1
        if fitness > best:
            best = fitness
            place = min(counters[HISTORY], most - 1)
            counters[HISTORY] = place + 1
            record.when[place, 0], record.when[place, 1] = birth + 1, counters[STEPS]
            record.best[place] = fitness
            copy_all(
                bench.code, bench.data, bench.sizes,
                record.code[place], record.data[place], record.sizes[place],
            )  # fmt: skip
            record.depth[0] = population.depth[slot]
            _copy_line(population, slot, record.line[0], record.line_fitness[0])


@njit(cache=True, nogil=True)
def _copy_line(population, place, line, fitness):
    """Copy an individual's line of descent."""
    for i in range(population.depth[place]):
        line[i, 0] = population.line[place, i, 0]
        line[i, 1] = population.line[place, i, 1]
        fitness[i] = population.line_fitness[place, i]


@njit(cache=True, nogil=True)
def _descend(population, parent, slot, birth, what, fitness):
    """The child's line of descent: its parent's, and this birth where it improved."""
    depth = 0
    if parent >= 0:
        depth = population.depth[parent]
        _copy_line(population, parent, population.line[slot], population.line_fitness[slot])
    if depth == 0 or fitness > population.line_fitness[slot, depth - 1]:
        place = min(depth, population.line.shape[1] - 1)
        population.line[slot, place, 0] = birth
        population.line[slot, place, 1] = what
        population.line_fitness[slot, place] = fitness
        depth = place + 1
    population.depth[slot] = depth
