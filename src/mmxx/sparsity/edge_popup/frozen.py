"""The frozen weights of a hidden network, and its first scores, from a seed and a name.

The numbers are those of Philox, a counter-based generator whose stream numpy keeps, keyed by a
digest of seed and name. They are made normal by additions, products, quotients and roots of
doubles alone, which round alike everywhere, and rounded to float32: the same bits on every
machine, whatever the version of torch, for any order of layers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

INITS = ("kaiming_normal", "signed_constant")
_CHUNK = 1 << 15  # numbers worked on at a time: a handful of such pieces fit the cache

Doubles = NDArray[np.float64]


def frozen_weight(
    shape: Sequence[int], *, std: float, init: str = "kaiming_normal", seed: int, name: str
) -> Tensor:
    """A random weight that seed, name and shape give back bit by bit.

    Args:
        shape: Of the weight.
        std: Standard deviation.
        init: ``"kaiming_normal"``, normal numbers, or ``"signed_constant"``, ``std`` with a
            random sign.
        seed: Any integer.
        name: Of the weight: another name gives independent numbers.

    Returns:
        float32 of that shape.

    Raises:
        ValueError: ``init`` is unknown.

    Example:
        >>> frozen_weight((3,), std=0.5, init="signed_constant", seed=0, name="fc").abs()
        tensor([0.5000, 0.5000, 0.5000])
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
    count = math.prod(shape)
    if init == "signed_constant":
        words = _words(seed, name, (count + 63) // 64).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), count=count, bitorder="little")
        values = np.where(bits, np.float32(std), np.float32(-std))
    else:
        values = (_normal(_words(seed, name, (count + 1) // 2))[:count] * std).astype(np.float32)
    return torch.from_numpy(values).view(*shape)


def first_scores(shape: Sequence[int], *, bound: float, seed: int, name: str) -> Tensor:
    """Scores before training: uniform on (-bound, bound), float32, none of them 0.

    Args:
        shape: Of the weight.
        bound: The largest magnitude.
        seed: Any integer.
        name: Of the weight; the numbers are independent of the weight's own.
    """
    words = _words(seed, f"scores of {name}", math.prod(shape))
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return torch.from_numpy(((2 * uniform - 1) * bound).astype(np.float32)).view(*shape)


def fan_in(module: nn.Module, weight: Tensor) -> float:
    """How many inputs an output of a linear or (transposed) convolutional layer has.

    In a transposed convolution of stride s it is the mean over the s outputs that differ.
    """
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        taps = weight.shape[0] // module.groups * math.prod(weight.shape[2:])
        return max(1.0, taps / math.prod(module.stride))
    return max(1.0, math.prod(weight.shape[1:]))


def _words(seed: int, name: str, count: int) -> NDArray[np.uint64]:
    """That many 64-bit words of the stream of a seed and a name."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], "<u8")).random_raw(count)


def _normal(words: NDArray[np.uint64]) -> Doubles:
    """Two normal numbers of each word, by Box and Muller: [2 n] of [n]."""
    values = np.empty((len(words), 2))
    for start in range(0, len(words), _CHUNK):
        part = slice(start, start + _CHUNK)
        high = (words[part] >> np.uint64(32)).astype(np.float64)
        low = (words[part] & np.uint64(0xFFFFFFFF)).astype(np.float64)
        radius = np.sqrt(-2 * _log((high + 0.5) * 2.0**-32))
        cosine, sine = _circle(low * 2.0**-32)
        values[part, 0], values[part, 1] = radius * cosine, radius * sine
    return values.reshape(-1)


def _log(x: Doubles) -> Doubles:
    """Natural logarithm of positive doubles: twice the artanh of (m - 1) / (m + 1)."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
    ratio = (mantissa - 1) / (mantissa + 1)
    square, series = ratio * ratio, np.zeros_like(ratio)
    for power in range(23, 0, -2):  # |ratio| < 0.172: what is left out lies below 1e-19
        series = series * square + 1 / power
    return 2 * ratio * series + exponent * math.log(2)


def _circle(turn: Doubles) -> tuple[Doubles, Doubles]:
    """Cosine and sine of a part of a turn, in [0, 1)."""
    quarter = np.floor(4 * turn + 0.5)
    angle = (4 * turn - quarter) * (math.pi / 2)  # at most an eighth of a turn
    square = angle * angle
    cosine, sine = np.zeros_like(angle), np.zeros_like(angle)
    for power in range(18, -2, -2):
        cosine = 1 / math.factorial(power) - square * cosine
        sine = 1 / math.factorial(power + 1) - square * sine
    sine = sine * angle
    quarter = quarter.astype(np.int64) & 3
    swapped = (quarter & 1) == 1
    cosine, sine = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    flip_cosine = (quarter == 1) | (quarter == 2)
    return np.where(flip_cosine, -cosine, cosine), np.where(quarter >= 2, -sine, sine)
