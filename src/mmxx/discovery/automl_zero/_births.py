"""Births: random instructions, mutations, and the choice of a parent."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.automl_zero import _draws
from mmxx.discovery.automl_zero.ops import DATA, HOLDS, IN1, IN2, OUT

ALTER, INSTRUCTION, COMPONENT, IDENTITY, INSERT, REMOVE, TRADE, ALL = range(8)
RANDOM_START, EMPTY_START, GIVEN_START = range(3)
NONE, ONE = np.int64(0), np.int64(1)  # typed, so that no copy is compiled for the literal
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


@njit(cache=True, nogil=True)
def _copy(code, data, i, to_code, to_data, j):
    """Copy an instruction; by loops, since assigning rows takes long to compile."""
    for k in range(5):
        to_code[j, k] = code[i, k]
    for k in range(3):
        to_data[j, k] = data[i, k]


@njit(cache=True, nogil=True)
def copy_all(code, data, sizes, to_code, to_data, to_sizes):
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
    elif holds in (_ELEMENT, _CELL):
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
def beget(population, rules, bench, counts, birth):
    """Make the child of a birth: (its parent's place or -1, what was mutated)."""
    bench.state[0] = _draws.key(rules.seed, birth, NONE, NONE)
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
        copy_all(
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
