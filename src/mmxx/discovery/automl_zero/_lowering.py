"""Lowering: a program's dead instructions go, and the rest become loops over so many elements."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.discovery.automl_zero.ops import DATA, HOLDS, IN1, IN2, KERNEL, KERNELS, OUT

STREAMS = 256  # of a component: an instruction's place in it is its stream
_NO_LOOP = KERNELS.index("none")
_HOLDS_ELEMENT, _HOLDS_CELL = list(DATA).index("element"), list(DATA).index("cell")


class Lowered(NamedTuple):
    """A program ready to run; its arrays are written anew for every program.

    Attributes:
        loop: Which loop, int64 [L].
        place: Where first input, second input and output begin in memory, and the number of
            elements of output (or of what is reduced), uint64 [L, 4].
        data: What the instructions hold, float64 [L, 3]; index fractions resolved.
        stream: Streams of draws, int64 [L].
        ends: Ends of setup, predict and learn, int64 [3]; then whether v0 is read.
        live: Spare room for marks, uint8 [L of the program].
    """

    loop: np.ndarray
    place: np.ndarray
    data: np.ndarray
    stream: np.ndarray
    ends: np.ndarray
    live: np.ndarray


@njit(cache=True, nogil=True)
def _backwards(code, start, stop, alive, live):
    """Mark what is alive in a component, given the bits alive after it; alive becomes before."""
    for i in range(stop - 1, start - 1, -1):
        op = code[i, 0]
        kind = OUT[op]
        if kind < 0:
            continue
        bit = np.int64(1) << np.int64(code[i, 3])
        if not alive[kind] & bit:
            continue
        live[i] = 1
        if HOLDS[op] != _HOLDS_ELEMENT and HOLDS[op] != _HOLDS_CELL:  # these keep other elements
            alive[kind] &= ~bit
        if IN1[op] >= 0:
            alive[IN1[op]] |= np.int64(1) << np.int64(code[i, 1])
        if IN2[op] >= 0:
            alive[IN2[op]] |= np.int64(1) << np.int64(code[i, 2])


@njit(cache=True, nogil=True)
def mark_live(code, starts, sizes, live):
    """Mark the instructions that can reach a prediction; whether v0 is read by one of them.

    Backwards through Setup, then (Predict, Learn) over and over, or Predict alone in validation,
    until nothing more becomes alive; ``s1`` after Predict is what is looked at.

    Args:
        code: int16 [L, 5]: operation, inputs, output, stream.
        starts: Where the components begin, int64 [3].
        sizes: Their lengths, int64 [3].
        live: uint8 [L], receives the marks.
    """
    live[:] = 0
    before_predict = np.zeros(3, np.int64)
    before_learn = np.zeros(3, np.int64)
    alive = np.zeros(3, np.int64)
    changed = True
    while changed:
        changed = False
        for kind in range(3):
            alive[kind] = before_learn[kind] | before_predict[kind]
        alive[0] |= 2
        _backwards(code, starts[1], starts[1] + sizes[1], alive, live)
        for kind in range(3):
            changed |= alive[kind] != before_predict[kind]
            before_predict[kind] = alive[kind]
        _backwards(code, starts[2], starts[2] + sizes[2], alive, live)
        for kind in range(3):
            changed |= alive[kind] != before_learn[kind]
            before_learn[kind] = alive[kind]
    reads = before_predict[1] | before_learn[1]
    alive[:] = before_predict
    _backwards(code, starts[0], starts[0] + sizes[0], alive, live)
    return reads & 1


@njit(cache=True, nogil=True)
def _begin_of(kind, address, counts):
    """Where an address begins in memory."""
    scalars, vectors, f, lanes = counts[0], counts[1], counts[3], counts[4]
    if kind == 0:
        return address * lanes
    if kind == 1:
        return (scalars + address * f) * lanes
    return (scalars + vectors * f + address * f * f) * lanes


@njit(cache=True, nogil=True)
def _index(fraction, f):
    """The element that a fraction in [0, 1) names, for vectors of any length."""
    return min(int(np.float32(f) * np.float32(fraction)), f - 1)


@njit(cache=True, nogil=True)
def lower(code, data, starts, sizes, counts, low, prune):
    """Fill ``low`` with a program's instructions, or, with ``prune``, those that can matter."""
    reads = mark_live(code, starts, sizes, low.live)
    f = counts[3]
    n = 0
    for part in range(3):
        for place in range(sizes[part]):
            i = starts[part] + place
            op = code[i, 0]
            if (prune and not low.live[i]) or KERNEL[op] == _NO_LOOP:
                continue
            kernel = KERNEL[op]
            low.loop[n] = kernel
            kind = OUT[op]
            long = max(IN1[op], IN2[op]) if kind == 0 and IN1[op] > 0 else kind
            low.place[n, 0] = _begin_of(max(IN1[op], 0), code[i, 1], counts)
            low.place[n, 1] = _begin_of(max(IN2[op], 0), code[i, 2], counts)
            low.place[n, 2] = _begin_of(kind, code[i, 3], counts)
            low.place[n, 3] = 1 if long == 0 else (f if long == 1 else f * f)
            for k in range(3):
                low.data[n, k] = data[i, k]
            if HOLDS[op] == _HOLDS_ELEMENT:
                low.place[n, 2] += _index(data[i, 0], f) * counts[4]
                low.data[n, 0] = data[i, 1]
            elif HOLDS[op] == _HOLDS_CELL:
                cell = _index(data[i, 0], f) * f + _index(data[i, 1], f)
                low.place[n, 2] += cell * counts[4]
                low.data[n, 0] = data[i, 2]
            low.stream[n] = code[i, 4] if code[i, 4] >= 0 else part * STREAMS + place
            n += 1
        low.ends[part] = n
    low.ends[3] = reads if prune else 1
