"""Random numbers as a hash of where they are drawn: the same whatever else was computed before.

Splitmix64 (Steele, Lea and Flood, 2014) as a hash. A draw inside a program is a function of the
evaluation's seed, the task, the instruction's stream, how often the instruction ran before, and
the element; so fitness does not depend on the order of evaluation, and taking an instruction out
moves no other's draws.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ONE, _TWO = np.uint64(1), np.uint64(2)
_UNIT = 2.0**-53


@njit(cache=True, nogil=True, inline="always")
def mix(z):
    """The finaliser of splitmix64: a bijection of uint64."""
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


@njit(cache=True, nogil=True)
def key(seed, task, stream, time):
    """What an instruction's draws at one execution hang on: uint64 of four integers."""
    z = mix(np.uint64(seed) + _STEP * (np.uint64(task) + _ONE))
    z = mix(z + _STEP * (np.uint64(stream) + _ONE))
    return mix(z + _STEP * (np.uint64(time) + _ONE))


@njit(cache=True, nogil=True)
def unit(base, place):
    """A double in [0, 1), the ``place``-th of a key."""
    return np.float64(mix(base + _STEP * (np.uint64(place) + _ONE)) >> _11) * _UNIT


@njit(cache=True, nogil=True)
def normal(base, place):
    """A standard normal, by Box and Muller from two draws."""
    first = _TWO * np.uint64(place)
    radius = math.sqrt(-2.0 * math.log(1.0 - unit(base, first)))
    return radius * math.cos(2.0 * math.pi * unit(base, first + _ONE))


@njit(cache=True, nogil=True)
def next_unit(state):
    """A double in [0, 1) from a running state, uint64 [1]."""
    state[0] += _STEP
    return np.float64(mix(state[0]) >> _11) * _UNIT


@njit(cache=True, nogil=True)
def below(state, count):
    """An integer from 0 to count - 1 from a running state."""
    return min(int(next_unit(state) * count), count - 1)


@njit(cache=True, nogil=True)
def next_normal(state):
    """A standard normal from a running state."""
    radius = math.sqrt(-2.0 * math.log(1.0 - next_unit(state)))
    return radius * math.cos(2.0 * math.pi * next_unit(state))
