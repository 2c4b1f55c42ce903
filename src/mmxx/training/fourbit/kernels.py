"""Rounding to four bits and packing in one pass over memory, for the CPU (numba).

All kernels work on flat float32 or uint8 arrays. The powers of 4 and of 2 are rounded on the
bits of the float: nothing is multiplied, and a scale that is a power of two shifts the
exponent. `mmxx.training.fourbit.formats` has the same in torch operations, with the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

_BLOCK = 4096  # elements worked on at a time, so that the second look at them is in cache
_ABS, _SIGN = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
_ZERO, _ONE, _TOP = np.int32(0), np.int32(1), np.int32(7)
_EXPONENT, _PAIR, _DOUBLING = np.int32(23), np.int32(24), np.int32(1 << 23)
_POWER = np.int32(0x7F800000)  # the exponent's bits
_MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: added and taken away, it rounds half to even


@njit(nogil=True, error_model="numpy", cache=True)
def powers(x, out, shift, least, cap, carry, wide, zero, base):
    """Round the bits ``x`` to signed powers, and count what the format cannot hold.

    Args:
        x: Bits of float32, int32 [n].
        out: For the bits of the result, int32 [n].
        shift: The scale is ``2**(shift >> 23)``.
        least: Bits of the smallest scaled magnitude that is not rounded to 0.
        cap: Magnitudes above it are cut to it, lest the sum overflow.
        carry: What, added to the bits, carries into the exponent from the midpoint on.
        wide: 0 for powers of 2, 1 for powers of 4.
        zero: The shifted bits of the code 0.
        base: Biased exponent that the code 0 would have, unscaled.

    Returns:
        (bits of the largest magnitude, how many became 0 that were not, how many lie above
        the range of the largest code).
    """
    # Sums of 32-bit numbers are 64 bits wide in numba; cut back, eight or more go at once.
    peak, lost, over = np.int32(0), 0, 0
    drop = np.int32(_EXPONENT + wide)
    for start in range(0, x.size, _BLOCK):
        low, high = np.int32(0), np.int32(0)
        piece, to = x[start : start + _BLOCK], out[start : start + _BLOCK]
        for i in range(piece.size):
            bits = piece[i]
            size = np.int32(bits & _ABS)
            peak = max(peak, size)
            scaled = np.int32(min(size, cap) + shift)
            code = np.int32(np.int32(np.int32(scaled + carry) >> drop) - zero)
            high = np.int32(high + np.int32(code > _TOP))
            code = min(max(code, _ONE), _TOP)
            small = scaled < least
            low = np.int32(low + np.int32(small & (size != _ZERO)))
            value = np.int32(np.int32(np.int32(code << wide) + base) << _EXPONENT)
            to[i] = np.int32((_ZERO if small else value) | np.int32(bits & _SIGN))
        lost += low
        over += high
    return peak, lost, over


@njit(nogil=True, error_model="numpy", cache=True)
def two_phases(x, even, odd, shift, least, cap, carry, zero, base):
    """Powers of 4 and twice powers of 4 in one pass; arguments and result as of `powers`."""
    peak, lost, over = np.int32(0), 0, 0
    upper = np.int32(base + 1)
    for start in range(0, x.size, _BLOCK):
        low, high = np.int32(0), np.int32(0)
        piece = x[start : start + _BLOCK]
        first, second = even[start : start + _BLOCK], odd[start : start + _BLOCK]
        for i in range(piece.size):
            bits = piece[i]
            size = np.int32(bits & _ABS)
            sign = np.int32(bits & _SIGN)
            peak = max(peak, size)
            scaled = np.int32(min(size, cap) + shift)
            code = np.int32(np.int32(np.int32(scaled + carry) >> _PAIR) - zero)
            high = np.int32(high + np.int32(code > _TOP))
            code = min(max(code, _ONE), _TOP)
            small = scaled < least
            low = np.int32(low + np.int32(small & (size != _ZERO)))
            value = np.int32(np.int32(np.int32(code << _ONE) + base) << _EXPONENT)
            first[i] = np.int32((_ZERO if small else value) | sign)
            scaled = np.int32(scaled - _DOUBLING)
            code = np.int32(np.int32(np.int32(scaled + carry) >> _PAIR) - zero)
            code = min(max(code, _ONE), _TOP)
            value = np.int32(np.int32(np.int32(code << _ONE) + upper) << _EXPONENT)
            second[i] = np.int32((_ZERO if scaled < least else value) | sign)
        lost += low
        over += high
    return peak, lost, over


@njit(nogil=True, error_model="numpy", cache=True)
def powers_at_random(x, out, bits, scale, unit, least, smallest, top, cap, key):
    """Round ``scale * x`` up or down to powers of 2 with the probability that keeps the mean.

    The noise is a hash of ``key`` and of the element's place.

    Args:
        x: float32 [n].
        out: For the result, divided by the scale again, float32 [n].
        bits: The memory of ``out`` as int32.
        scale: Of x.
        unit: One over it; what it multiplies are powers of 2, so that it is as good as division.
        least: Bits of ``smallest``.
        smallest: The smallest power: what is smaller becomes it or 0.
        top: Bits of the largest power.
        cap: As of `powers`, and so is what is returned.
        key: 32 bits.
    """
    peak, lost, over = np.int32(0), 0, 0
    grain = np.float32(smallest * np.float32(2.0**-23))
    floats = np.empty(_BLOCK, np.float32)  # only read where ``out`` is written: eight at once
    whole = floats.view(np.int32)
    for start in range(0, x.size, _BLOCK):
        low, high = np.int32(0), np.int32(0)
        first = np.uint32(start)
        piece, to = x[start : start + _BLOCK], out[start : start + _BLOCK]
        codes = bits[start : start + _BLOCK]
        for i in range(piece.size):
            floats[i] = np.float32(piece[i] * scale)
        for i in range(piece.size):
            noise = np.uint32(np.uint32(np.uint32(i) + first) * np.uint32(0x9E3779B1))
            noise = np.uint32(noise + key)
            noise = np.uint32(np.uint32(noise ^ (noise >> np.uint32(16))) * np.uint32(0x7FEB352D))
            noise = np.uint32(np.uint32(noise ^ (noise >> np.uint32(15))) * np.uint32(0x846CA68B))
            drawn = np.int32(noise >> np.uint32(9))  # 23 bits, as many as a mantissa has
            kept = np.abs(floats[i]) > np.float32(np.float32(drawn) * grain)
            size = np.int32(whole[i] & _ABS)
            peak = max(peak, size)
            scaled = min(size, cap)
            high = np.int32(high + np.int32(scaled > top))
            small = scaled < least
            low = np.int32(low + np.int32(small & (not kept) & (size != _ZERO)))
            inside = min(np.int32(np.int32(scaled + drawn) & _POWER), top)
            below = least if kept else _ZERO
            codes[i] = np.int32((below if small else inside) | np.int32(whole[i] & _SIGN))
        for i in range(piece.size):
            to[i] = np.float32(to[i] * unit)
        lost += low
        over += high
    return peak, lost, over


@njit(nogil=True, error_model="numpy", cache=True, fastmath={"reassoc", "contract"})
def sizes(x):
    """(sum of magnitudes, sum of squares) of float32 [n]; NaN and infinity pass on."""
    total, squares = 0.0, 0.0
    for start in range(0, x.size, _BLOCK):
        piece = x[start : start + _BLOCK]
        part, square = np.float32(0.0), np.float32(0.0)
        for i in range(piece.size):
            value = piece[i]
            part += np.abs(value)
            square += value * value
        total += part
        squares += square
    return total, squares


@njit(nogil=True, error_model="numpy", cache=True)
def grid(x, levels, bits, packed, rate, low, high):
    """The nearest level ``rate * x`` from ``low`` to ``high``, as floats and packed.

    Args:
        x: float32 [n].
        levels: For the levels, float32 [n].
        bits: The memory of ``levels`` as int32.
        packed: For two codes a byte, uint8 [(n + 1) // 2], or [0] where they are not wanted.
        rate: Levels in a unit of x.
        low, high: The outermost levels.
    """
    for start in range(0, x.size, _BLOCK):
        piece, to = x[start : start + _BLOCK], levels[start : start + _BLOCK]
        if not packed.size:
            for i in range(piece.size):
                value = np.float32(piece[i] * rate)
                value = high if value > high else value
                value = low if value < low else value
                to[i] = np.float32(np.float32(value + _MAGIC) - _MAGIC)
        else:
            for i in range(piece.size):
                value = np.float32(piece[i] * rate)
                value = high if value > high else value
                value = low if value < low else value
                to[i] = np.float32(value + _MAGIC)  # the last bits are now the level
            codes, into = bits[start : start + _BLOCK], packed[start // 2 :]
            for i in range(codes.size // 2):
                into[i] = np.uint8((codes[2 * i] & 15) | ((codes[2 * i + 1] & 15) << 4))
            if codes.size % 2:
                into[codes.size // 2] = np.uint8(codes[codes.size - 1] & 15)
            for i in range(to.size):
                to[i] = np.float32(to[i] - _MAGIC)


@njit(nogil=True, error_model="numpy", cache=True)
def unpack_grid(packed, levels, signed):
    """Two codes a byte to levels, float32 [n]; signed ones are two's complement."""
    flip = np.int32(8) if signed else np.int32(0)
    for i in range(levels.size // 2):
        byte = np.int32(packed[i])
        levels[2 * i] = np.float32(np.int32(np.int32(byte & 15) ^ flip) - flip)
        levels[2 * i + 1] = np.float32(np.int32(np.int32(byte >> 4) ^ flip) - flip)
    if levels.size % 2:
        levels[levels.size - 1] = np.float32(((np.int32(packed[-1]) & 15) ^ flip) - flip)
