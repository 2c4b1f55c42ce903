"""Shorter programs: without what cannot matter, and with names that a person can follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmxx.discovery.automl_zero._lowering import mark_live
from mmxx.discovery.automl_zero.evaluation import trace
from mmxx.discovery.automl_zero.ops import FIRST_OUT, NUMBER, OPS
from mmxx.discovery.automl_zero.program import Instruction, Program, pack
from mmxx.discovery.automl_zero.tasks import Task

_FOLDED = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "minimum": min,
    "maximum": max,
    "abs": abs,
}  # exact, so that folding changes no bit


def prune(program: Program, tasks: Sequence[Task] = ()) -> Program:
    """Without dead instructions, then without those that change no error on some tasks.

    Args:
        program: What to prune.
        tasks: Where given, one instruction after the other, from the last, is left out, if all
            errors on all of these tasks stay bit for bit the same.

    Returns:
        The shorter program. Draws keep their streams, so that leaving one out moves no other's.
    """
    code, _, sizes, starts = pack([program])
    live = np.zeros(code.shape[1], np.uint8)
    mark_live(code[0], starts, sizes[0], live)
    program = program.with_streams()
    kept = [
        [i for place, i in enumerate(part, start) if live[place]]
        for start, part in zip(starts, program.parts, strict=True)
    ]
    if tasks:
        memory = program.addresses()
        before = trace(Program(*map(tuple, kept)), tasks, memory=memory).errors
        for part in kept:
            for place in range(len(part) - 1, -1, -1):
                left_out = part.pop(place)
                after = trace(Program(*map(tuple, kept)), tasks, memory=memory).errors
                if not np.array_equal(before, after, equal_nan=True):
                    part.insert(place, left_out)
    return Program(*map(tuple, kept))


def normalize(program: Program) -> Program:
    """The same algorithm with constants folded, no-ops dropped, and addresses in order of use.

    Args:
        program: What to rewrite; prune it first.

    Returns:
        A program whose ``s0``, ``s1`` and ``v0`` are as before.
    """
    return _renamed(prune(_folded(program)))


def _folded(program: Program) -> Program:
    """Setup with what it computes from constants alone written as constants."""
    known: dict[int, float] = {}
    setup: list[Instruction] = []
    for instruction in program.with_streams().setup:
        op = instruction.kind
        value: float | None = None
        if op.name == "scalar_const":
            value = instruction.data[0]
        elif op.out == "s" and op.kernel in _FOLDED and {op.in1, op.in2} <= {"s", ""}:
            inputs = [known.get(instruction.in1)]
            inputs += [known.get(instruction.in2)] if op.in2 else []
            if None not in inputs:
                value = float(_FOLDED[op.kernel](*inputs))
        if op.out == "s":
            known.pop(instruction.out, None)
        if value is not None:
            known[instruction.out] = value
            instruction = Instruction(NUMBER["scalar_const"], out=instruction.out, data=(value,))
        if op.kernel != "none":
            setup.append(instruction)
    rest = [
        tuple(i for i in part if i.kind.kernel != "none")
        for part in program.with_streams().parts[1:]
    ]
    return Program(tuple(setup), *rest)


def _renamed(program: Program) -> Program:
    names: dict[str, dict[int, int]] = {"s": {0: 0, 1: 1}, "v": {0: 0}, "m": {}}

    def name(type_: str, address: int) -> int:
        found = names[type_]
        return found.setdefault(address, max(len(found), FIRST_OUT[type_]))

    def rename(instruction: Instruction) -> Instruction:
        op = OPS[int(instruction.op)]
        changes = {
            field: name(type_, getattr(instruction, field))
            for field, type_ in (("in1", op.in1), ("in2", op.in2), ("out", op.out))
            if type_
        }
        return replace(instruction, **changes)

    return Program(*(tuple(rename(i) for i in part) for part in program.parts))
