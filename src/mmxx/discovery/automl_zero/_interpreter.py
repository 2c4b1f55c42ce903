"""The compiled interpreter: one program on many tasks in step.

Tasks are lanes: every address holds its numbers for all lanes side by side (element first, lane
last), so that an instruction is looked at once for all of them and its loop runs over contiguous
doubles.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.automl_zero import _draws
from mmxx.discovery.automl_zero.ops import KERNELS

RMS, ACCURACY = 0, 1
_SETUP, _TRAIN, _LEARN, _VALID = 0, 1, 2, 3

(
    _NONE, _ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _ABS, _RECIPROCAL, _SIN, _COS, _TAN, _ARCSIN,
    _ARCCOS, _ARCTAN, _EXP, _LOG, _STEP_AT_ZERO, _STEP, _SCALE, _BROADCAST, _NORM, _DOT, _OUTER,
    _MATVEC, _COLUMNS, _ROWS, _COLUMN_NORMS, _ROW_NORMS, _TRANSPOSE, _MATMUL, _MINIMUM, _MAXIMUM,
    _MEAN, _ROW_MEANS, _ROW_DEVIATIONS, _DEVIATION, _CONST, _ELEMENT, _UNIFORM, _GAUSSIAN,
) = range(len(KERNELS))  # fmt: skip


class Block(NamedTuple):
    """Tasks side by side; the last block is filled up with lanes that are no tasks.

    Attributes:
        x: Features in training, float64 [blocks, examples, F * lanes], element first.
        y: Labels, float64 [blocks, examples, lanes].
        vx: Features in validation.
        vy: Labels in validation.
        task: Numbers of the tasks, int64 [blocks, lanes]; -1 for a lane that is none.
    """

    x: np.ndarray
    y: np.ndarray
    vx: np.ndarray
    vy: np.ndarray
    task: np.ndarray


class Machine(NamedTuple):
    """Memory for one block of lanes.

    Attributes:
        counts: Scalars, vectors, matrices, F and lanes, int64 [5].
        memory: float64 [(scalars + F vectors + F² matrices) lanes].
        spare: Room for products that may be written over their inputs, float64 [F² lanes].
        alive: Lanes still running, uint8 [lanes].
        loss: Summed loss of this epoch, float64 [lanes].
        fitness: The best epoch so far, float64 [lanes].
    """

    counts: np.ndarray
    memory: np.ndarray
    spare: np.ndarray
    alive: np.ndarray
    loss: np.ndarray
    fitness: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def run(low, machine, block, number, train, valid, epochs, loss, most, seed, setup, errors, said):
    """Set up, train and validate a program on the tasks of one block, in step.

    Args:
        low: The program.
        machine: The memory; ``fitness`` receives the result, in [0, 1], 0 where a task failed.
        block: The tasks.
        number: Which block.
        train: Examples shown in training.
        valid: Examples in validation, or 0 to train only.
        epochs: Times that the training examples are shown; the best validation counts.
        loss: RMS or ACCURACY.
        most: A larger error than this, or NaN, ends a task.
        seed: Of the draws.
        setup: Whether to wipe the memory and run Setup; else it is gone on with.
        errors: float64 [examples, lanes], receives the absolute errors in order, or [0, lanes].
        said: float64 [valid, lanes], receives the predictions in validation, or [0, lanes].

    Returns:
        Training examples shown, summed over the tasks that were still running.
    """
    mem, spare, alive = machine.memory, machine.spare, machine.alive
    fitness, total = machine.fitness, machine.loss
    loops, place, data = low.loop, low.place, low.data
    f, lanes = np.uint64(machine.counts[3]), np.uint64(machine.counts[4])
    v0 = np.uint64(machine.counts[0] * machine.counts[4])
    one, none = np.uint64(1), np.uint64(0)
    width = f * lanes
    running = 0
    for t in range(lanes):
        alive[t] = block.task[number, t] >= 0
        fitness[t] = 0.0
        running += alive[t]
    if setup:
        mem[:] = 0.0
    steps, row, example, epoch, predicted, learned = 0, 0, 0, 0, 0, 0
    phase = _SETUP if setup else (_TRAIN if train else _VALID)
    while running:
        if phase == _SETUP:
            start, stop, time = 0, low.ends[0], 0
        elif phase == _LEARN:
            start, stop, time = low.ends[1], low.ends[2], learned
            learned += 1
            for t in range(lanes):
                mem[t] = block.y[number, example, t]
        else:
            start, stop, time = low.ends[0], low.ends[1], predicted
            predicted += 1
            for t in range(lanes):
                mem[t] = 0.0
            if low.ends[3]:
                if phase == _TRAIN:
                    for i in range(width):
                        mem[v0 + i] = block.x[number, example, i]
                else:
                    for i in range(width):
                        mem[v0 + i] = block.vx[number, example, i]
        for i in range(start, stop):
            loop = loops[i]
            a, b, o, n = place[i, 0], place[i, 1], place[i, 2], place[i, 3]
            size = n * lanes
            if loop == _ADD:
                for j in range(size):
                    mem[o + j] = mem[a + j] + mem[b + j]
            elif loop == _SUBTRACT:
                for j in range(size):
                    mem[o + j] = mem[a + j] - mem[b + j]
            elif loop == _MULTIPLY:
                for j in range(size):
                    mem[o + j] = mem[a + j] * mem[b + j]
            elif loop == _DIVIDE:
                for j in range(size):
                    mem[o + j] = mem[a + j] / mem[b + j]
            elif loop == _ABS:
                for j in range(size):
                    mem[o + j] = abs(mem[a + j])
            elif loop == _RECIPROCAL:
                for j in range(size):
                    mem[o + j] = 1.0 / mem[a + j]
            elif loop == _SIN:
                for j in range(size):
                    mem[o + j] = math.sin(mem[a + j])
            elif loop == _COS:
                for j in range(size):
                    mem[o + j] = math.cos(mem[a + j])
            elif loop == _TAN:
                for j in range(size):
                    mem[o + j] = math.tan(mem[a + j])
            elif loop == _ARCSIN:
                for j in range(size):
                    mem[o + j] = math.asin(mem[a + j])
            elif loop == _ARCCOS:
                for j in range(size):
                    mem[o + j] = math.acos(mem[a + j])
            elif loop == _ARCTAN:
                for j in range(size):
                    mem[o + j] = math.atan(mem[a + j])
            elif loop == _EXP:
                for j in range(size):
                    mem[o + j] = math.exp(mem[a + j])
            elif loop == _LOG:
                for j in range(size):
                    mem[o + j] = math.log(mem[a + j])
            elif loop == _STEP_AT_ZERO:
                for j in range(size):
                    mem[o + j] = 1.0 if mem[a + j] >= 0.0 else 0.0
            elif loop == _STEP:
                for j in range(size):
                    mem[o + j] = 1.0 if mem[a + j] > 0.0 else 0.0
            elif loop == _MINIMUM:
                for j in range(size):
                    x, y = mem[a + j], mem[b + j]
                    mem[o + j] = y if y < x or y != y else x
            elif loop == _MAXIMUM:
                for j in range(size):
                    x, y = mem[a + j], mem[b + j]
                    mem[o + j] = y if y > x or y != y else x
            elif loop == _SCALE:
                for k in range(none, size, lanes):
                    for t in range(lanes):
                        mem[o + k + t] = mem[a + t] * mem[b + k + t]
            elif loop == _BROADCAST:
                for k in range(none, size, lanes):
                    for t in range(lanes):
                        mem[o + k + t] = mem[a + t]
            elif loop == _DOT:
                for t in range(lanes):
                    spare[t] = mem[a + t] * mem[b + t]
                for k in range(lanes, size, lanes):
                    for t in range(lanes):
                        spare[t] += mem[a + k + t] * mem[b + k + t]
                for t in range(lanes):
                    mem[o + t] = spare[t]
            elif loop == _NORM:
                spare[:lanes] = 0.0
                for k in range(none, size, lanes):
                    for t in range(lanes):
                        spare[t] += mem[a + k + t] * mem[a + k + t]
                for t in range(lanes):
                    mem[o + t] = math.sqrt(spare[t])
            elif loop in (_MEAN, _DEVIATION):
                _moments(mem, spare, a, lanes, n, lanes)
                for t in range(lanes):
                    mem[o + t] = spare[t] if loop == _MEAN else spare[lanes + t]
            elif loop in (_ROW_MEANS, _ROW_DEVIATIONS):
                shift = none if loop == _ROW_MEANS else lanes
                for k in range(none, width, lanes):
                    _moments(mem, spare, a + k * f, lanes, f, lanes)
                    for t in range(lanes):
                        mem[o + k + t] = spare[shift + t]
            elif loop in (_COLUMN_NORMS, _ROW_NORMS):
                stride = width if loop == _COLUMN_NORMS else lanes
                other = lanes if loop == _COLUMN_NORMS else width
                for k in range(f):
                    spare[:lanes] = 0.0
                    for j in range(f):
                        for t in range(lanes):
                            x = mem[a + k * other + j * stride + t]
                            spare[t] += x * x
                    for t in range(lanes):
                        mem[o + k * lanes + t] = math.sqrt(spare[t])
            elif loop == _OUTER:
                for k in range(none, width, lanes):
                    for j in range(none, width, lanes):
                        for t in range(lanes):
                            mem[o + k * f + j + t] = mem[a + k + t] * mem[b + j + t]
            elif loop == _COLUMNS:
                for k in range(none, width, lanes):
                    for j in range(none, width, lanes):
                        for t in range(lanes):
                            mem[o + k * f + j + t] = mem[a + k + t]
            elif loop == _ROWS:
                for k in range(none, width, lanes):
                    for j in range(width):
                        mem[o + k * f + j] = mem[a + j]
            elif loop == _TRANSPOSE:
                for k in range(f):
                    for j in range(f):
                        for t in range(lanes):
                            spare[(k * f + j) * lanes + t] = mem[a + (j * f + k) * lanes + t]
                for j in range(size):
                    mem[o + j] = spare[j]
            elif loop in (_MATVEC, _MATMUL):
                columns = one if loop == _MATVEC else f
                spare[: f * columns * lanes] = 0.0
                for k in range(f):
                    for j in range(f):
                        for c in range(columns):
                            for t in range(lanes):
                                spare[(k * columns + c) * lanes + t] += (
                                    mem[a + (k * f + j) * lanes + t]
                                    * mem[b + (j * columns + c) * lanes + t]
                                )
                for j in range(f * columns * lanes):
                    mem[o + j] = spare[j]
            elif loop in (_CONST, _ELEMENT):
                for t in range(lanes):
                    mem[o + t] = data[i, 0]
            else:
                for t in range(lanes):
                    base = _draws.key(seed, block.task[number, t], low.stream[i], time)
                    for k in range(n):
                        if loop == _UNIFORM:
                            x = data[i, 0] + (data[i, 1] - data[i, 0]) * _draws.unit(base, k)
                        else:
                            x = data[i, 0] + data[i, 1] * _draws.normal(base, k)
                        mem[o + k * lanes + t] = x
        if phase == _SETUP:
            phase = _TRAIN if train else _VALID
        elif phase == _TRAIN:
            steps += running
            running = 0
            for t in range(lanes):
                if loss == ACCURACY:
                    mem[lanes + t] = 1.0 / (1.0 + math.exp(-mem[lanes + t]))
                error = abs(block.y[number, example, t] - mem[lanes + t])
                if row < errors.shape[0]:
                    errors[row, t] = error
                alive[t] &= error <= most
                running += alive[t]
            row += 1
            phase = _LEARN
        elif phase == _LEARN:
            example += 1
            phase = _TRAIN
            if example == train:
                example = 0
                if valid:
                    phase = _VALID
                else:
                    epoch += 1
                    if epoch == epochs:
                        break
        else:
            if example == 0:
                total[:] = 0.0
            running = 0
            for t in range(lanes):
                y, x = block.vy[number, example, t], mem[lanes + t]
                if example < said.shape[0]:
                    said[example, t] = x
                if loss == ACCURACY:
                    x = 1.0 / (1.0 + math.exp(-x))
                    total[t] += (y > 0.5) != (x > 0.5)
                else:
                    total[t] += (y - x) * (y - x)
                error = abs(y - x)
                if row < errors.shape[0]:
                    errors[row, t] = error
                alive[t] &= error <= most
                running += alive[t]
            row += 1
            example += 1
            if example == valid:
                for t in range(lanes):
                    if alive[t]:
                        mean = total[t] / valid
                        if loss == RMS:
                            mean = 2.0 / math.pi * math.atan(math.sqrt(mean))
                        fitness[t] = max(fitness[t], 1.0 - mean)
                epoch += 1
                example = 0
                phase = _TRAIN
                if epoch == epochs:
                    break
    return steps


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(mem, spare, begin, stride, count, lanes):
    """Mean, and standard deviation as sqrt(E x² - (E x)²), of ``count`` elements, into spare."""
    spare[: 2 * np.int64(lanes)] = 0.0
    for k in range(count):
        for t in range(lanes):
            x = mem[begin + k * stride + t]
            spare[t] += x
            spare[lanes + t] += x * x
    for t in range(lanes):
        mean = spare[t] / count
        spare[lanes + t] = math.sqrt(spare[lanes + t] / count - mean * mean)
        spare[t] = mean
