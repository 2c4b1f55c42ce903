"""Random weights as a function of a seed and of where they stand, the same bits everywhere.

No stream is drawn from: a weight is a hash of (seed, layer, kind, indices), so that a network is
its seed, any part of it can be made alone, and the number of workers changes nothing. Only whole
numbers and exact float operations are used, no logarithm or exponential of a system's library.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64 bits."""
    with np.errstate(over="ignore"):  # modulo 2^64, as it is meant
        x = (x ^ (x >> np.uint64(30))) * _M1
        x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


def key(seed: int, *place: int) -> np.ndarray:
    """A 64-bit key, uint64 of shape [], for a seed and some whole numbers."""
    state = np.array(seed % 2**64, np.uint64)
    for number in place:
        state = child(state, np.array(number))
    return _mix(state)


def child(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The key of a place below a key, element by element; the shapes broadcast.

    Example:
        >>> child(key(0), np.arange(3)).shape
        (3,)
    """
    with np.errstate(over="ignore"):
        return _mix(keys + (places.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def uniform(keys: np.ndarray) -> np.ndarray:
    """Uniform on (-1, 1), never 0: odd multiples of 2^-24, float32 of the keys' shape.

    Example:
        >>> values = uniform(child(key(0), np.arange(1000)))
        >>> bool((values != 0).all() and (abs(values) < 1).all())
        True
    """
    whole = (keys >> np.uint64(40)).astype(np.int64)
    return ((2 * whole + 1 - 2**24) * 2.0**-24).astype(np.float32)


def hyperbolic(keys: np.ndarray, low: int, high: int) -> np.ndarray:
    """Magnitude with density proportional to 1/w on [2^low, 2^high), either sign; float32.

    A uniform octave, and within it a mantissa m of density proportional to 1/m by rejection.

    Args:
        keys: uint64 of any shape.
        low: Exponent of the smallest magnitude.
        high: Exponent of the border above.
    """
    octave = low + ((keys >> np.uint64(1)) % np.uint64(high - low)).astype(np.int64)
    sign = 1 - 2 * (keys & np.uint64(1)).astype(np.int64)
    mantissa = np.empty(keys.shape)
    left, tries = np.ones(keys.shape, bool), 0
    while left.any():
        bits = child(keys[left], np.array(tries))
        found = 1 + (bits >> np.uint64(41)).astype(np.float64) * 2.0**-23
        chance = (bits & np.uint64(0xFFFFFF)).astype(np.float64) * 2.0**-24
        accepted = chance * found < 1
        where = np.flatnonzero(left)[accepted]
        mantissa.flat[where], left.flat[where] = found[accepted], False
        tries += 1
    return np.ldexp(sign * mantissa, octave).astype(np.float32)
