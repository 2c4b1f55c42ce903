"""The plain path: an interpreter in numpy, one task at a time, that the compiled one must equal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mmxx.discovery.automl_zero.evaluation import MAX_ABS_ERROR, Evaluated
from mmxx.discovery.automl_zero.ops import OPS
from mmxx.discovery.automl_zero.program import Instruction, Program
from mmxx.discovery.automl_zero.tasks import Task

Array = Any
_WORD = 2**64 - 1


def _deviation(x: Array, axis: int | None = None) -> Array:
    return np.sqrt((x * x).mean(axis) - x.mean(axis) ** 2)


KERNELS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "abs": np.abs,
    "reciprocal": lambda x: 1.0 / x,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "exp": np.exp,
    "log": np.log,
    "step_at_zero": lambda x: np.float64(x >= 0),
    "step": lambda x: np.float64(x > 0),
    "minimum": np.minimum,
    "maximum": np.maximum,
    "scale": np.multiply,
    "norm": lambda x: np.sqrt((x * x).sum()),
    "dot": lambda x, y: (x * y).sum(),
    "outer": np.multiply.outer,
    "matvec": lambda m, v: (m * v).sum(1),
    "columns": lambda v: np.repeat(v[:, None], len(v), axis=1),
    "rows": lambda v: np.repeat(v[None], len(v), axis=0),
    "column_norms": lambda m: np.sqrt((m * m).sum(0)),
    "row_norms": lambda m: np.sqrt((m * m).sum(1)),
    "transpose": lambda m: m.T.copy(),
    "matmul": lambda a, b: (a[:, :, None] * b[None]).sum(1),
    "mean": np.mean,
    "row_means": lambda m: m.mean(1),
    "row_deviations": lambda m: _deviation(m, 1),
    "deviation": _deviation,
}
"""What each loop computes, in numpy."""


def _hash(base: int, number: int) -> int:
    """Splitmix64's finaliser of one step on from a 64-bit integer."""
    z = (base + 0x9E3779B97F4A7C15 * (number + 1)) & _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    return z ^ (z >> 31)


def _unit(key: int, place: int) -> float:
    return (_hash(key, place) >> 11) * 2.0**-53


def _normal(key: int, place: int) -> float:
    radius = math.sqrt(-2.0 * math.log(1.0 - _unit(key, 2 * place)))
    return radius * math.cos(2.0 * math.pi * _unit(key, 2 * place + 1))


class Memory:
    """Scalars, vectors and matrices of one task, all zero at first.

    Args:
        counts: How many of each.
        features: F.
    """

    def __init__(self, counts: tuple[int, int, int], features: int) -> None:
        scalars, vectors, matrices = counts
        self.of = {
            "s": np.zeros(scalars),
            "v": np.zeros((vectors, features)),
            "m": np.zeros((matrices, features, features)),
        }
        self.features = features

    def execute(self, instruction: Instruction, base: Callable[[int], int]) -> None:
        """Carry an instruction out; ``base`` gives the key of its draws from its stream."""
        op = instruction.kind
        if op.kernel == "none":
            return
        target = self.of[op.out]
        out = instruction.out
        f = np.float32(self.features)
        place = [min(int(f * np.float32(x)), self.features - 1) for x in instruction.data[:-1]]
        if op.data == "const":
            target[out] = instruction.data[0]
        elif op.data in ("element", "cell"):
            target[(out, *place)] = instruction.data[-1]
        elif op.data:
            draw = _unit if op.data == "uniform" else _normal
            key = base(instruction.stream or 0)
            drawn = [draw(key, k) for k in range(target[out].size)]
            low, width = instruction.data
            width = width - low if op.data == "uniform" else width
            target[out] = (low + width * np.array(drawn)).reshape(target[out].shape)
        else:
            inputs = [
                self.of[type_][address].copy()
                for type_, address in ((op.in1, instruction.in1), (op.in2, instruction.in2))
                if type_
            ]
            if op.kernel == "broadcast":
                target[out] = inputs[0]
            else:
                target[out] = KERNELS[op.kernel](*inputs)


def trace(
    program: Program,
    task: Task,
    *,
    number: int = 0,
    random_state: int = 0,
    max_abs_error: float = MAX_ABS_ERROR,
) -> Evaluated:
    """Run a program on one task, as `evaluation.trace` does, slowly and without compiled code.

    Args:
        program: The program.
        task: The task.
        number: Its number among the tasks, on which draws depend.
        random_state: Seed of the draws.
        max_abs_error: The largest error that does not end the task.

    Returns:
        Fitness [1], and errors [examples, 1], NaN after the task's end.
    """
    program = program.with_streams()
    memory = Memory(program.addresses(), task.features)
    times = [0, 0, 0]
    shown = (len(task.y) + len(task.y_valid)) * task.epochs
    errors = np.full((shown, 1), np.nan)
    accuracy = task.loss == "accuracy"

    def play(part: int) -> None:
        time = times[part]
        times[part] += 1
        for instruction in program.parts[part]:
            memory.execute(
                instruction,
                lambda stream: _hash(_hash(_hash(random_state, number), stream), time),
            )

    def predict(x: np.ndarray) -> None:
        memory.of["s"][0] = 0.0
        memory.of["v"][0] = x
        play(1)

    best, row = 0.0, 0
    with np.errstate(all="ignore"):
        play(0)
        for _ in range(task.epochs):
            for x, y in zip(task.X, task.y, strict=True):
                predict(x)
                if accuracy:
                    memory.of["s"][1] = 1.0 / (1.0 + np.exp(-memory.of["s"][1]))
                errors[row] = abs(y - memory.of["s"][1])
                if not errors[row, 0] <= max_abs_error:
                    return Evaluated(np.array([best]), errors)
                row += 1
                memory.of["s"][0] = y
                play(2)
            total = 0.0
            for x, y in zip(task.X_valid, task.y_valid, strict=True):
                predict(x)
                said = memory.of["s"][1]
                said = 1.0 / (1.0 + np.exp(-said)) if accuracy else said
                errors[row] = abs(y - said)
                total += float((y > 0.5) != (said > 0.5)) if accuracy else (y - said) ** 2
                if not errors[row, 0] <= max_abs_error:
                    return Evaluated(np.array([best]), errors)
                row += 1
            mean = total / len(task.y_valid)
            best = max(best, 1 - (mean if accuracy else 2 / np.pi * np.arctan(np.sqrt(mean))))
    return Evaluated(np.array([best]), errors)


assert {op.kernel for op in OPS} - set(KERNELS) == {
    "none", "broadcast", "const", "element", "uniform", "gaussian",
}  # fmt: skip
