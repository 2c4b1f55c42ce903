"""One AdaBelief step over many arrays in one call, for the CPU.

The caller hands over addresses and sizes, so that 2,000 small arrays cost one dispatch and 28
bytes of traffic an element, and nothing is allocated that grows with them. Every operation is
element-wise and rounds as IEEE 754 says (no fused multiply-add, no reassociation): the bits do
not depend on how elements are spread over arrays or threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numba import carray, njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.kernels._pointers import typed_pointer

_BLOCK = 2048  # elements worked on at a time: four or five such pieces fit the first-level cache
_BFLOAT16, _FLOAT16 = 1, 2
_NUMPY = {
    "float32": (np.float32, np.float32),
    "float64": (np.float64, np.float64),
    "bfloat16": (np.uint16, np.float32),  # numpy and numba know the 16-bit ones as bits only
    "float16": (np.uint16, np.float32),
}
STATE = {name: np.dtype(state).name for name, (_, state) in _NUMPY.items()}
"""The parameter types that `adabelief_step` takes, each with the type of its state."""
MIN_PER_THREAD = 1 << 19
"""Elements below which another thread costs more than it saves."""


@njit(nogil=True, error_model="numpy")
def _update(p, g, m, s, peak, scalars, rate, root, amsgrad):
    """The rule on arrays of one length. ``root`` 0 marks a step by momentum alone."""
    scale, pull, decay = scalars[0], scalars[1], scalars[2]
    beta1, rest1, beta2, rest2, eps = scalars[3], scalars[4], scalars[5], scalars[6], scalars[7]
    if root != 0 and not amsgrad:  # the usual case, in one pass
        for i in range(p.size):
            w = p[i]
            d = g[i] * scale + pull * w if pull != 0 else g[i] * scale  # 0 * inf is NaN
            mean = beta1 * m[i] + rest1 * d
            residual = d - mean
            belief = beta2 * s[i] + rest2 * (residual * residual) + eps
            m[i] = mean
            s[i] = belief
            p[i] = w * decay - rate * (mean / (np.sqrt(belief) * root + eps))
        return
    for i in range(p.size):
        d = g[i] * scale + pull * p[i] if pull != 0 else g[i] * scale
        mean = beta1 * m[i] + rest1 * d
        residual = d - mean
        m[i] = mean
        s[i] = beta2 * s[i] + rest2 * (residual * residual) + eps
    if amsgrad:
        for i in range(p.size):
            peak[i] = peak[i] if s[i] <= peak[i] else s[i]  # a NaN in s passes on
    if root == 0:
        for i in range(p.size):
            p[i] = p[i] * decay - rate * m[i]
    else:
        for i in range(p.size):
            p[i] = p[i] * decay - rate * (m[i] / (np.sqrt(peak[i]) * root + eps))


@njit(nogil=True, error_model="numpy")
def _widen_bfloat16(half, bits):
    for i in range(half.size):
        bits[i] = np.uint32(half[i]) << np.uint32(16)


@njit(nogil=True, error_model="numpy")
def _narrow_bfloat16(bits, half):
    """To the nearest, ties to even."""
    for i in range(half.size):
        b = bits[i]
        rounded = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        nan = (b & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        half[i] = np.uint16(0x7FC0) if nan else np.uint16(rounded)


@njit(nogil=True, error_model="numpy")
def _narrow_bfloat16_at_random(bits, half, key, first):
    """Up or down with the probability that keeps the mean; the noise hashes key and place."""
    # Products of 32-bit numbers are 64 bits wide in numba: each is cut back.
    for i in range(half.size):
        b = bits[i]
        x = np.uint32(np.uint32(first + i) * np.uint32(0x9E3779B1) + key)
        x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        x = np.uint32((x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        x = x ^ (x >> np.uint32(16))
        rounded = (b + (x & np.uint32(0xFFFF))) >> np.uint32(16)
        magnitude = b & np.uint32(0x7FFFFFFF)
        if magnitude >= np.uint32(0x7F800000):  # infinity stays, NaN stays NaN
            rounded = (b >> np.uint32(16)) | np.uint32(magnitude > np.uint32(0x7F800000))
        half[i] = np.uint16(rounded)


@njit(nogil=True, error_model="numpy")
def _widen_float16(half, bits, floats):
    """``bits`` and ``floats`` are two views of the same memory."""
    for i in range(half.size):
        bits[i] = np.uint32(half[i] & np.uint16(0x7FFF)) << np.uint32(13)
    for i in range(half.size):
        floats[i] = floats[i] * np.float32(5.192296858534828e33)  # 2**112 rebases the exponent
    for i in range(half.size):
        b = bits[i]
        if half[i] & np.uint16(0x7C00) == np.uint16(0x7C00):
            b |= np.uint32(0x7F800000)
        bits[i] = b | (np.uint32(half[i] & np.uint16(0x8000)) << np.uint32(16))


@njit(nogil=True, error_model="numpy")
def _narrow_float16(bits, floats, half):
    """To the nearest, ties to even. Overwrites its input."""
    for i in range(half.size):
        sign = (bits[i] >> np.uint32(16)) & np.uint32(0x8000)
        magnitude = bits[i] & np.uint32(0x7FFFFFFF)
        half[i] = np.uint16(sign)
        bits[i] = magnitude
    for i in range(half.size):
        b = bits[i]
        if b < np.uint32(0x38800000):  # below 2**-14: adding a half leaves the digits in place
            floats[i] = floats[i] + np.float32(0.5)
            digits = bits[i] - np.uint32(0x3F000000)
        elif b < np.uint32(0x47800000):
            digits = (
                b - np.uint32(0x38000000) + np.uint32(0xFFF) + ((b >> np.uint32(13)) & np.uint32(1))
            ) >> np.uint32(13)
        elif b <= np.uint32(0x7F800000):
            digits = np.uint32(0x7C00)
        else:
            digits = np.uint32(0x7E00)
        half[i] = half[i] | np.uint16(digits)


@njit(nogil=True, error_model="numpy")
def _read(source, kind, bits, floats):
    if kind == _BFLOAT16:
        _widen_bfloat16(source, bits)
    else:
        _widen_float16(source, bits, floats)


@njit(cache=True, nogil=True, error_model="numpy")
def _run(addresses, sizes, which, rates, scalars, amsgrad, like, like_state, begin, end):
    """Elements ``begin`` to ``end`` of all arrays end to end, in the arrays' own type."""
    before = 0
    for k in range(sizes.size):
        first, last = max(begin - before, 0), min(end - before, sizes[k])
        before += sizes[k]
        if first >= last:
            continue
        p = carray(typed_pointer(addresses[0, k], like), (last,))
        g = carray(typed_pointer(addresses[1, k], like), (last,))
        m = carray(typed_pointer(addresses[2, k], like_state), (last,))
        s = carray(typed_pointer(addresses[3, k], like_state), (last,))
        peak = carray(typed_pointer(addresses[4, k], like_state), (last,)) if amsgrad else s
        rate, root = rates[which[k], 0], rates[which[k], 1]
        for a in range(first, last, _BLOCK):
            b = min(a + _BLOCK, last)
            _update(p[a:b], g[a:b], m[a:b], s[a:b], peak[a:b], scalars, rate, root, amsgrad)


@njit(cache=True, nogil=True, error_model="numpy")
def _run_half(
    addresses, sizes, which, rates, scalars, amsgrad, like, like_state, begin, end, kind, keys
):
    """As `_run`, for 16-bit parameters: ``kind`` is one of the two constants."""
    before = 0
    p_bits, g_bits = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    p_floats, g_floats = p_bits.view(np.float32), g_bits.view(np.float32)
    for k in range(sizes.size):
        first, last = max(begin - before, 0), min(end - before, sizes[k])
        before += sizes[k]
        if first >= last:
            continue
        p = carray(typed_pointer(addresses[0, k], like), (last,))
        g = carray(typed_pointer(addresses[1, k], like), (last,))
        m = carray(typed_pointer(addresses[2, k], like_state), (last,))
        s = carray(typed_pointer(addresses[3, k], like_state), (last,))
        peak = carray(typed_pointer(addresses[4, k], like_state), (last,)) if amsgrad else s
        rate, root = rates[which[k], 0], rates[which[k], 1]
        for a in range(first, last, _BLOCK):
            b = min(a + _BLOCK, last)
            n = b - a
            _read(p[a:b], kind, p_bits, p_floats)
            _read(g[a:b], kind, g_bits, g_floats)
            _update(
                p_floats[:n],
                g_floats[:n],
                m[a:b],
                s[a:b],
                peak[a:b],
                scalars,
                rate,
                root,
                amsgrad,
            )
            if kind == _FLOAT16:
                _narrow_float16(p_bits, p_floats, p[a:b])
            elif keys.size:
                _narrow_bfloat16_at_random(p_bits, p[a:b], keys[k], a)
            else:
                _narrow_bfloat16(p_bits, p[a:b])


def adabelief_step(
    addresses: np.ndarray,
    sizes: np.ndarray,
    which: np.ndarray,
    rates: Sequence[tuple[float, float]],
    *,
    dtype: str,
    betas: tuple[float, float],
    eps: float,
    scale: float = 1.0,
    pull: float = 0.0,
    decay: float = 1.0,
    amsgrad: bool = False,
    keys: np.ndarray | None = None,
    threads: int = 1,
) -> None:
    """Take one step on K dense arrays in place.

    With gradient $g$, parameter $\\theta$, mean $m$, belief $s$ (AdaBelief, algorithm 2)::

        d = scale * g + pull * theta
        m = beta1 * m + (1 - beta1) * d
        s = beta2 * s + (1 - beta2) * (d - m) ** 2 + eps
        theta = decay * theta - rate * m / (sqrt(s) * root + eps)

    where root is 0, the denominator is 1; with ``amsgrad`` the largest s so far stands under
    the root. 16-bit parameters are widened, updated and rounded once.

    Args:
        addresses: int64 [5, K]: of each parameter, gradient, mean, belief and largest belief
            (the last row is read with ``amsgrad`` only). The caller keeps the memory alive.
        sizes: int64 [K], elements of each.
        which: int64 [K], the row of ``rates`` that each array takes.
        rates: Pairs (rate, root).
        dtype: Type of parameters and gradients, a key of `STATE`; the state has its value.
        betas: Decay of mean and belief.
        eps: The constant inside the recurrence and beside the root.
        scale: What the gradient is multiplied by: -1 to ascend, 1/s to undo a loss scale s.
        pull: Coupled weight decay.
        decay: Factor of the decoupled weight decay.
        amsgrad: Whether the largest belief is kept.
        keys: uint32 [K], noise for rounding bfloat16 at random; None rounds to the nearest.
        threads: How many share the work; the bits do not depend on it.

    Raises:
        ValueError: ``dtype`` is unknown, or has ``keys`` and is not bfloat16.
    """
    if dtype not in _NUMPY:
        raise ValueError(f"dtype must be one of {', '.join(_NUMPY)}, got {dtype!r}")
    if keys is not None and dtype != "bfloat16":
        raise ValueError(f"keys are for bfloat16 parameters, got dtype {dtype!r}")
    like, like_state = (np.empty(0, kind) for kind in _NUMPY[dtype])
    beta1, beta2 = betas
    scalars = np.array(
        [scale, pull, decay, beta1, 1 - beta1, beta2, 1 - beta2, eps], like_state.dtype
    )
    common = (addresses, sizes, which, np.array(rates, like_state.dtype), scalars, amsgrad)
    total = int(sizes.sum())

    def work(begin: int, end: int) -> None:
        if like.dtype == like_state.dtype:
            _run(*common, like, like_state, begin, end)
        else:
            kind = _BFLOAT16 if dtype == "bfloat16" else _FLOAT16
            noise = np.empty(0, np.uint32) if keys is None else keys
            _run_half(*common, like, like_state, begin, end, kind, noise)

    pieces = max(1, min(threads, total // MIN_PER_THREAD))
    cuts = [total * i // pieces for i in range(pieces + 1)]
    others = [threading.Thread(target=work, args=(begin, end)) for begin, end in pairwise(cuts[1:])]
    for thread in others:
        thread.start()
    work(cuts[0], cuts[1])
    for thread in others:
        thread.join()
