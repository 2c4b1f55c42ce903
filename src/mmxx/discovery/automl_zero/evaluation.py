"""Run programs on tasks: fitness, errors, and predictions for new rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmxx.discovery.automl_zero import _interpreter, _lowering
from mmxx.discovery.automl_zero._interpreter import ACCURACY, RMS, Block, Machine
from mmxx.discovery.automl_zero._lowering import Lowered
from mmxx.discovery.automl_zero.program import Program, checked_addresses, pack
from mmxx.discovery.automl_zero.tasks import Task, check_alike, each_block

MAX_ABS_ERROR = 100.0
LANES = 16


def lanes_for(tasks: int, features: int) -> int:
    """How many tasks run side by side: few enough for their memory to stay near the core."""
    return min(tasks, LANES if features <= 8 else LANES // 2)


def make_block(tasks: Sequence[Task], lanes: int) -> Block:
    """Tasks as a `Block`, filled up with lanes that are none."""
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for some in each_block(tasks, lanes):
        padded = [*some, *[some[-1]] * (lanes - len(some))]
        for part, name in zip(parts, ("X", "y", "X_valid", "y_valid"), strict=True):
            stacked = np.stack([getattr(task, name) for task in padded], axis=-1)
            part.append(stacked.reshape(len(stacked), -1))
    number = np.full((len(parts[0]), lanes), -1, np.int64)
    number.flat[: len(tasks)] = np.arange(len(tasks))
    x, y, vx, vy = (np.ascontiguousarray(part) for part in parts)
    return Block(x, y, vx, vy, number)


def make_machine(memory: tuple[int, int, int], features: int, lanes: int) -> Machine:
    """Memory for so many addresses."""
    scalars, vectors, matrices = memory
    size = (scalars + vectors * features + matrices * features**2) * lanes
    return Machine(
        np.array([scalars, vectors, matrices, features, lanes], np.int64),
        np.zeros(size),
        np.zeros(max(features**2, 2) * lanes),
        np.zeros(lanes, np.uint8),
        np.zeros(lanes),
        np.zeros(lanes),
    )


def make_lowered(length: int) -> Lowered:
    """Room for a program of so many instructions."""
    return Lowered(
        np.zeros(length, np.int64),
        np.zeros((length, 4), np.uint64),
        np.zeros((length, 3)),
        np.zeros(length, np.int64),
        np.zeros(4, np.int64),
        np.zeros(length, np.uint8),
    )


def loss_code(task: Task) -> int:
    """The interpreter's number for a task's loss."""
    return ACCURACY if task.loss == "accuracy" else RMS


class Evaluated(NamedTuple):
    """What `trace` found.

    Attributes:
        fitness: float64 [tasks].
        errors: Absolute errors of all examples in the order they were shown, float64
            [examples, tasks]; those after a task's end are NaN.
    """

    fitness: np.ndarray
    errors: np.ndarray


def evaluate(
    programs: Program | Sequence[Program],
    tasks: Sequence[Task],
    *,
    random_state: int = 0,
    max_abs_error: float = MAX_ABS_ERROR,
    memory: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """The fitness of programs on tasks.

    For each task the memory is wiped and Setup runs; for each example the label is hidden
    (``s0 = 0``), Predict runs, and Learn sees the label. Then validation, where Predict runs alone.
    Fitness is 1 - (2/π) atan(root mean square error), or the accuracy; 0 where an error exceeds
    ``max_abs_error`` or is NaN.

    Args:
        programs: One, or several.
        tasks: Alike in shape.
        random_state: Seed of operations that draw. The same program, task and seed give the same
            fitness, whatever else is evaluated.
        max_abs_error: The largest error that does not end a task.
        memory: Scalars, vectors and matrices; by default as many as the programs need.

    Returns:
        float64 [programs, tasks], or [tasks] for one program.

    Raises:
        ValueError: Tasks that differ, or too little memory.

    Example:
        >>> from mmxx.discovery.automl_zero import LINEAR, evaluate, linear_regression_tasks
        >>> evaluate(LINEAR, linear_regression_tasks(2, train=1000, random_state=0)).round(3)
        array([1., 1.])

    Source: Real et al. (2020), figure 1 and section 3.1.
    """
    several = [programs] if isinstance(programs, Program) else list(programs)
    check_alike(tasks)
    counts = checked_addresses(several, memory)
    lanes = lanes_for(len(tasks), tasks[0].features)
    machine = make_machine(counts, tasks[0].features, lanes)
    block = make_block(tasks, lanes)
    code, data, sizes, starts = pack(several)
    low, nothing = make_lowered(code.shape[1]), np.zeros((0, lanes))
    found = np.zeros((len(several), len(tasks)))
    first = tasks[0]
    for n in range(len(several)):
        _lowering.lower(code[n], data[n], starts, sizes[n], machine.counts, low, True)
        for b in range(len(block.task)):
            _interpreter.run(
                low, machine, block, b, len(first.y), len(first.y_valid), first.epochs,
                loss_code(first), max_abs_error, random_state, 1, nothing, nothing,
            )  # fmt: skip
            part = found[n, b * lanes : (b + 1) * lanes]
            part[:] = machine.fitness[: len(part)]
    return found[0] if isinstance(programs, Program) else found


def trace(
    program: Program,
    tasks: Sequence[Task],
    *,
    random_state: int = 0,
    max_abs_error: float = MAX_ABS_ERROR,
    memory: tuple[int, int, int] | None = None,
    prune: bool = True,
) -> Evaluated:
    """As `evaluate` for one program, with every error; ``prune`` leaves out what cannot matter."""
    check_alike(tasks)
    first, lanes = tasks[0], lanes_for(len(tasks), tasks[0].features)
    machine = make_machine(checked_addresses([program], memory), first.features, lanes)
    block = make_block(tasks, lanes)
    code, data, sizes, starts = pack([program])
    low = make_lowered(code.shape[1])
    _lowering.lower(code[0], data[0], starts, sizes[0], machine.counts, low, prune)
    shown = (len(first.y) + len(first.y_valid)) * first.epochs
    fitness, errors = [], []
    for b in range(len(block.task)):
        part = np.full((shown, lanes), np.nan)
        _interpreter.run(
            low, machine, block, b, len(first.y), len(first.y_valid), first.epochs,
            loss_code(first), max_abs_error, random_state, 1, part, np.zeros((0, lanes)),
        )  # fmt: skip
        ended = np.logical_or.accumulate(~(part <= max_abs_error))
        ended[1:] = ended[:-1].copy()  # the error that ends a task is still one
        ended[0] = False
        fitness.append(machine.fitness.copy())
        errors.append(np.where(ended, np.nan, part))
    count = len(tasks)
    return Evaluated(np.concatenate(fitness)[:count], np.concatenate(errors, axis=1)[:, :count])


class Trained(NamedTuple):
    """A program with what it has learnt, one lane for each label column.

    Attributes:
        program: The program.
        memory: float64 [numbers of one lane, columns].
        counts: Scalars, vectors, matrices.
        features: F.
    """

    program: Program
    memory: np.ndarray
    counts: tuple[int, int, int]
    features: int

    def predict(self, X: np.ndarray, random_state: int = 0) -> np.ndarray:
        """``s1`` after Predict for every row on its own, [n, F] to float64 [n, columns]."""
        code, data, sizes, starts = pack([self.program])
        low = make_lowered(code.shape[1])
        out = np.empty((len(X), self.memory.shape[1]))
        for start in range(0, len(X), 4 * LANES):
            rows = X[start : start + 4 * LANES]
            lanes = len(rows)
            machine = make_machine(self.counts, self.features, lanes)
            _lowering.lower(code[0], data[0], starts, sizes[0], machine.counts, low, True)
            none = np.zeros((1, 0, 1))
            vx = np.ascontiguousarray(rows.T).reshape(1, 1, -1)
            block = Block(none, none, vx, np.zeros((1, 1, lanes)), np.zeros((1, lanes), np.int64))
            said = np.zeros((1, lanes))
            for column in range(out.shape[1]):
                machine.memory[:] = np.repeat(self.memory[:, column], lanes)
                _interpreter.run(
                    low, machine, block, 0, 0, 1, 1, RMS, np.inf, random_state, 0,
                    np.zeros((0, lanes)), said,
                )  # fmt: skip
                out[start : start + lanes, column] = said[0]
        return out


def train(
    program: Program,
    X: np.ndarray,
    y: np.ndarray,
    *,
    loss: Any = "rms",
    epochs: int = 1,
    random_state: int = 0,
    memory: tuple[int, int, int] | None = None,
) -> Trained:
    """Set a program up and show it all rows, so that it can predict.

    Args:
        program: What to train.
        X: Features, float64 [n, F].
        y: Labels, float64 [n, columns]: one lane for each column.
        loss: "rms", or "accuracy", where Learn sees the probability.
        epochs: Times that the rows are shown.
        random_state: Seed of operations that draw.
        memory: Scalars, vectors and matrices; by default as many as the program needs.

    Returns:
        The program with its memory.
    """
    lanes, features = y.shape[1], X.shape[1]
    counts = checked_addresses([program], memory)
    machine = make_machine(counts, features, lanes)
    code, data, sizes, starts = pack([program])
    low = make_lowered(code.shape[1])
    _lowering.lower(code[0], data[0], starts, sizes[0], machine.counts, low, True)
    block = Block(
        np.repeat(X, lanes, axis=1)[None].astype(np.float64),
        np.ascontiguousarray(y, np.float64)[None],
        np.zeros((1, 0, features * lanes)),
        np.zeros((1, 0, lanes)),
        np.arange(lanes)[None],
    )
    nothing = np.zeros((0, lanes))
    code_of = ACCURACY if loss == "accuracy" else RMS
    _interpreter.run(
        low,
        machine,
        block,
        0,
        len(X),
        0,
        epochs,
        code_of,
        np.inf,
        random_state,
        1,
        nothing,
        nothing,
    )
    return Trained(program, machine.memory.reshape(-1, lanes).copy(), counts, features)
