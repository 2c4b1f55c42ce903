"""The compiled search: births, their evaluation, and the cache of what behaves alike."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.automl_zero import _draws
from mmxx.discovery.automl_zero._interpreter import lower, run
from mmxx.discovery.automl_zero.ops import COST, DATA, HOLDS, IN1, IN2, OUT

ALTER, INSTRUCTION, COMPONENT, IDENTITY, INSERT, REMOVE, TRADE, ALL = range(8)
RANDOM_START, EMPTY_START, GIVEN_START = range(3)
(
    BIRTHS, STEPS, HITS, STOPPED, REFUSED, EVALUATED, HISTORY,
) = range(7)  # fmt: skip
COUNTERS = 7
WAYS = 8  # of a bucket of the cache
_NONE, _ONE = np.int64(0), np.int64(1)  # typed, so that no copy is compiled for the literal
_ALONE = 1 << 20  # what a lineage notes for a birth that is nobody's child
_CONST, _ELEMENT, _CELL, _UNIFORM, _GAUSSIAN = range(5)
assert list(DATA)[:5] == ["const", "element", "cell", "uniform", "gaussian"]


class Population(NamedTuple):
    """Programs and their fitness.

    Attributes:
        code: int16 [P, L, 5]: operation, inputs, output, stream (-1: the place).
        data: float64 [P, L, 3].
        sizes: int64 [P, 3].
        fitness: float64 [P].
        line: Births at which the line of descent improved, int64 [P, depth, 2]: birth, and the
            mutation (times 4, plus the component).
        line_fitness: float64 [P, depth].
        depth: int64 [P], how many of these there are.
    """

    code: np.ndarray
    data: np.ndarray
    sizes: np.ndarray
    fitness: np.ndarray
    line: np.ndarray
    line_fitness: np.ndarray
    depth: np.ndarray


class Rules(NamedTuple):
    """What may be born, and how it is judged.

    Attributes:
        starts: Where the components begin in a program, int64 [3].
        low: Least sizes, int64 [3].
        high: Sizes at which nothing is inserted any more, less one, int64 [3].
        first: Sizes at the start, int64 [3].
        ops: Allowed operations of each component, int64 [3, 65].
        op_counts: How many, int64 [3].
        mutations: Allowed mutations, int64 [n].
        mutate_prob: Chance that a child is mutated.
        tournament: Individuals drawn for each birth; 0 is random search.
        start: RANDOM_START, EMPTY_START or GIVEN_START.
        seed: Of the search.
        train: Examples shown.
        valid: Examples in validation.
        epochs: Times that they are shown.
        loss: RMS or ACCURACY.
        most: The largest error.
        tasks: How many.
        median: Whether fitness is the median over the tasks, else the mean.
        budget: Cost beyond which a program is not run; inf for none.
        probe_train: Examples of the probe in training; 0 for no cache.
        probe_valid: Examples of the probe in validation.
        forget: Sights after which a cached fitness is forgotten.
        hurdle: The quantile that the first block must pass; 0 for none.
        renew: Births between two computations of that threshold.
    """

    starts: np.ndarray
    low: np.ndarray
    high: np.ndarray
    first: np.ndarray
    ops: np.ndarray
    op_counts: np.ndarray
    mutations: np.ndarray
    mutate_prob: float
    tournament: int
    start: int
    seed: int
    train: int
    valid: int
    epochs: int
    loss: int
    most: float
    tasks: int
    median: bool
    budget: float
    probe_train: int
    probe_valid: int
    forget: int
    hurdle: float
    renew: int


class Record(NamedTuple):
    """What the search has seen: counters, bests, the cache, the hurdle.

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
        key: Hashes of behaviour, uint64 [buckets, WAYS].
        value: The fitness of each, float64 [buckets, WAYS].
        seen: How often it was met, int64 [buckets, WAYS]; 0 is free.
        used: When last, int64 [buckets, WAYS].
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
    key: np.ndarray
    value: np.ndarray
    seen: np.ndarray
    used: np.ndarray
    recent: np.ndarray
    threshold: np.ndarray


class Bench(NamedTuple):
    """Room to work in: nothing of it is kept.

    Attributes:
        code: The child, int16 [L, 5].
        data: float64 [L, 3].
        sizes: int64 [3].
        scores: Fitness on each task, float64 [tasks].
        errors: Of the probe, float64 [examples, lanes].
        bits: The same memory as uint64.
        nothing: float64 [0, lanes].
        state: Of the running generator, uint64 [1].
    """

    code: np.ndarray
    data: np.ndarray
    sizes: np.ndarray
    scores: np.ndarray
    errors: np.ndarray
    bits: np.ndarray
    nothing: np.ndarray
    state: np.ndarray


# -- births ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _copy(code, data, i, to_code, to_data, j):
    """Copy an instruction; by loops, since assigning rows takes long to compile."""
    for k in range(5):
        to_code[j, k] = code[i, k]
    for k in range(3):
        to_data[j, k] = data[i, k]


@njit(cache=True, nogil=True)
def _copy_all(code, data, sizes, to_code, to_data, to_sizes):
    """Copy a program."""
    for i in range(code.shape[0]):
        _copy(code, data, i, to_code, to_data, i)
    for part in range(3):
        to_sizes[part] = sizes[part]


@njit(cache=True, nogil=True)
def _address(kind, counts, state):
    """Any address of a type, to read."""
    return _draws.below(state, counts[kind])


@njit(cache=True, nogil=True)
def _target(kind, counts, state):
    """Any address of a type that may be written."""
    first = 0 if kind == 2 else 1
    return first + _draws.below(state, counts[kind] - first)


@njit(cache=True, nogil=True)
def _single(x):
    return np.float64(np.float32(x))


@njit(cache=True, nogil=True)
def _signed(state):
    return 2.0 * _draws.next_unit(state) - 1.0


@njit(cache=True, nogil=True)
def randomize(code, data, i, op, counts, state):
    """Write a random instruction of an operation at place i."""
    code[i, 0] = op
    code[i, 1] = _address(IN1[op], counts, state) if IN1[op] >= 0 else 0
    code[i, 2] = _address(IN2[op], counts, state) if IN2[op] >= 0 else 0
    code[i, 3] = _target(OUT[op], counts, state) if OUT[op] >= 0 else 0
    code[i, 4] = -1
    data[i, :] = 0.0
    holds = HOLDS[op]
    if holds == _CONST:
        data[i, 0] = _signed(state)
    elif holds == _ELEMENT:
        data[i, 0] = _single(_draws.next_unit(state))
        data[i, 1] = _single(_signed(state))
    elif holds == _CELL:
        data[i, 0] = _single(_draws.next_unit(state))
        data[i, 1] = _single(_draws.next_unit(state))
        data[i, 2] = _single(_signed(state))
    elif holds == _UNIFORM:
        data[i, 0] = _single(_signed(state))
        data[i, 1] = _single(_signed(state))
    elif holds == _GAUSSIAN:
        data[i, 0] = _single(_signed(state))
        data[i, 1] = _single(_draws.next_unit(state))


@njit(cache=True, nogil=True)
def _rescale(x, flip, state):
    """A tenth of the time the other sign, else times exp of a standard normal."""
    if flip and _draws.next_unit(state) < 0.1:
        return -x
    return x * math.exp(_draws.next_normal(state))


@njit(cache=True, nogil=True)
def alter(code, data, i, counts, state):
    """Change one parameter of the instruction at place i."""
    op = code[i, 0]
    if OUT[op] < 0:
        return
    holds = HOLDS[op]
    inputs = int(IN1[op] >= 0) + int(IN2[op] >= 0)
    choice = _draws.below(state, inputs + 2 if holds <= _GAUSSIAN else inputs + 1)
    if choice < inputs:
        kind = IN1[op] if choice == 0 else IN2[op]
        code[i, 1 + choice] = _address(kind, counts, state)
    elif choice == inputs:
        code[i, 3] = _target(OUT[op], counts, state)
    elif holds == _CONST:
        data[i, 0] = _rescale(data[i, 0], True, state)
    elif holds == _ELEMENT or holds == _CELL:
        last = 1 if holds == _ELEMENT else 2
        which = _draws.below(state, last + 1)
        fresh = _draws.next_unit(state) if which < last else _rescale(data[i, last], True, state)
        data[i, which] = _single(fresh)
    else:
        which = _draws.below(state, 2)
        flip = holds == _UNIFORM or which == 0
        data[i, which] = _single(_rescale(data[i, which], flip, state))
        if holds == _UNIFORM and data[i, 0] > data[i, 1]:
            data[i, 0], data[i, 1] = data[i, 1], data[i, 0]


@njit(cache=True, nogil=True)
def _any_op(part, rules, state):
    return rules.ops[part, _draws.below(state, rules.op_counts[part])]


@njit(cache=True, nogil=True)
def _fill(bench, rules, counts, part):
    """Randomise every instruction of a component."""
    for place in range(bench.sizes[part]):
        op = _any_op(part, rules, bench.state)
        randomize(bench.code, bench.data, rules.starts[part] + place, op, counts, bench.state)


@njit(cache=True, nogil=True)
def _insert(bench, rules, counts, part):
    start, size = rules.starts[part], bench.sizes[part]
    place = start + _draws.below(bench.state, size + 1)
    for i in range(start + size, place, -1):
        _copy(bench.code, bench.data, i - 1, bench.code, bench.data, i)
    op = _any_op(part, rules, bench.state)
    randomize(bench.code, bench.data, place, op, counts, bench.state)
    bench.sizes[part] = size + 1


@njit(cache=True, nogil=True)
def _remove(bench, rules, part):
    start, size = rules.starts[part], bench.sizes[part]
    for i in range(start + _draws.below(bench.state, size), start + size - 1):
        _copy(bench.code, bench.data, i + 1, bench.code, bench.data, i)
    bench.sizes[part] = size - 1


@njit(cache=True, nogil=True)
def mutate(bench, rules, counts):
    """Mutate the child once: the mutation times 4, plus the component."""
    state = bench.state
    mutation = rules.mutations[_draws.below(state, rules.mutations.size)]
    open_parts = 0
    for part in range(3):
        open_parts += rules.op_counts[part] > 0
    pick = _draws.below(state, open_parts)
    part = 0
    while rules.op_counts[part] == 0 or pick > 0:
        pick -= rules.op_counts[part] > 0
        part += 1
    size = bench.sizes[part]
    place = rules.starts[part] + _draws.below(state, max(size, 1))
    if mutation == ALTER and size:
        alter(bench.code, bench.data, place, counts, state)
    elif mutation == INSTRUCTION and size:
        randomize(bench.code, bench.data, place, _any_op(part, rules, state), counts, state)
    elif mutation == COMPONENT:
        _fill(bench, rules, counts, part)
    elif mutation == INSERT and size < rules.high[part] - 1:
        _insert(bench, rules, counts, part)
    elif mutation == REMOVE and size > rules.low[part]:
        _remove(bench, rules, part)
    elif mutation == TRADE:
        _insert(bench, rules, counts, part)
        _remove(bench, rules, part)
    elif mutation == ALL:
        for each in range(3):
            if rules.op_counts[each]:
                _fill(bench, rules, counts, each)
    return 4 * mutation + part


@njit(cache=True, nogil=True)
def _beget(population, rules, bench, counts, birth):
    """Make the child of a birth: (its parent's place or -1, what was mutated)."""
    bench.state[0] = _draws.key(rules.seed, birth, _NONE, _NONE)
    size = population.fitness.size
    if rules.tournament and (birth >= size or rules.start == GIVEN_START):
        if birth < size:  # all places hold the given program
            parent = birth
        else:
            parent = _draws.below(bench.state, size)
            for _ in range(rules.tournament - 1):
                other = _draws.below(bench.state, size)
                if population.fitness[other] > population.fitness[parent]:
                    parent = other
        _copy_all(
            population.code[parent], population.data[parent], population.sizes[parent],
            bench.code, bench.data, bench.sizes,
        )  # fmt: skip
        if birth < size:
            return -1, _ALONE
        if _draws.next_unit(bench.state) < rules.mutate_prob:
            return parent, mutate(bench, rules, counts)
        return parent, 4 * IDENTITY
    bench.code[:] = 0
    bench.code[:, 4] = -1
    bench.data[:] = 0.0
    for part in range(3):
        bench.sizes[part] = rules.first[part]
    if rules.start != EMPTY_START or not rules.tournament:
        for part in range(3):
            if rules.op_counts[part]:
                _fill(bench, rules, counts, part)
    return -1, _ALONE


# -- judging -----------------------------------------------------------------------------------


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
            low, machine, block, b, rules.probe_train, rules.probe_valid, _ONE, rules.loss,
            rules.most, _NONE, _ONE, bench.errors, bench.nothing,
        )  # fmt: skip
        for row in range(bench.errors.shape[0]):
            for t in range(bench.errors.shape[1]):
                x = bench.errors[row, t]
                found = _draws.mix(found + (bench.bits[row, t] if x == x else missing))
    return found, steps


@njit(cache=True, nogil=True)
def _look_up(record, key, forget):
    """Where the key stands in its bucket, or -1; what was met too often is forgotten."""
    bucket = np.int64(key & np.uint64(record.key.shape[0] - 1))
    for way in range(WAYS):
        if record.seen[bucket, way] and record.key[bucket, way] == key:
            record.used[bucket, way] = record.counters[BIRTHS]
            record.seen[bucket, way] += 1
            if record.seen[bucket, way] > forget:
                record.seen[bucket, way] = 0
                return -1
            return bucket * WAYS + way
    return -1


@njit(cache=True, nogil=True)
def _store(record, key, fitness):
    """Remember, in a free place of the bucket or in that of the longest unused."""
    bucket = np.int64(key & np.uint64(record.key.shape[0] - 1))
    chosen = 0
    for way in range(WAYS):
        if not record.seen[bucket, way]:
            chosen = way
            break
        if record.used[bucket, way] < record.used[bucket, chosen]:
            chosen = way
    record.key[bucket, chosen] = key
    record.value[bucket, chosen] = fitness
    record.seen[bucket, chosen] = 1
    record.used[bucket, chosen] = record.counters[BIRTHS]


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
def _judge(low, machine, block, rules, record, bench, birth):
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
        known = _look_up(record, key, rules.forget)
        if known >= 0:
            counters[HITS] += 1
            return record.value[known // WAYS, known % WAYS]
    seed = np.int64(_draws.key(rules.seed, birth, _ONE, _NONE) >> np.uint64(1))
    lanes = block.task.shape[1]
    fitness = 0.0
    for b in range(block.x.shape[0]):
        counters[STEPS] += run(
            low, machine, block, b, rules.train, rules.valid, rules.epochs, rules.loss, rules.most,
            seed, _ONE, bench.nothing, bench.nothing,
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
        _store(record, key, fitness)
    return fitness


@njit(cache=True, nogil=True)
def advance(population, rules, low, machine, block, record, bench, births, steps, target):
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
        parent, what = _beget(population, rules, bench, machine.counts, birth)
        fitness = _judge(low, machine, block, rules, record, bench, birth)
        slot = birth % size
        _descend(population, parent, slot, birth, what, fitness)
        _copy_all(
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
            _copy_all(
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
