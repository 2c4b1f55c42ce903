"""Sine and cosine in one pass over memory, by numba. Imported at the first use only.

Elementwise passes over the activations are bound by memory, not by arithmetic: one pass that
gives both functions, and one that multiplies and sums, replace five.
"""

from __future__ import annotations

import numba
import numpy as np

LARGEST = np.float32(1.0e5)
"""Beyond this magnitude the three-part reduction below loses digits; torch takes over."""

# π/2 in three parts, of which the first two have so few digits that n times them is exact
# (Cody and Waite, Software Manual for the Elementary Functions, 1980).
_HIGH = np.float32(1.5703125)
_MIDDLE = np.float32(4.837512969970703125e-4)
_LOW = np.float32(np.pi / 2 - 1.5703125 - 4.837512969970703125e-4)
_PER_QUADRANT = np.float32(2 / np.pi)
_ROUND = np.float32(1.5 * 2**23)  # adding and subtracting it rounds to a whole number


def _fit(function: np.ufunc, terms: int) -> list[np.float32]:
    """Coefficients of a polynomial in t = r² for what is left of sine or cosine in |r| <= π/4."""
    t = np.linspace(0, (np.pi / 4) ** 2, 4001)[1:]
    r = np.sqrt(t)
    rest = (np.sin(r) / r - 1) / t if function is np.sin else (np.cos(r) - 1 + t / 2) / t**2
    chebyshev = np.polynomial.Chebyshev.fit(t, rest, terms)
    return [np.float32(c) for c in chebyshev.convert(kind=np.polynomial.Polynomial).coef]


_S0, _S1, _S2 = _fit(np.sin, 2)
_C0, _C1, _C2 = _fit(np.cos, 2)
_ONE, _HALF = np.float32(1), np.float32(0.5)


@numba.njit(cache=True, fastmath={"contract"}, nogil=True, error_model="numpy")
def sine_and_cosine(phase, offset, sine, cosine):
    """Write sine and cosine of ``phase + offset``; float32 [n, h], offset [h].

    Returns whether a sum exceeds `LARGEST` in magnitude: then both are not to be used.
    """
    beyond = False
    for i in range(phase.shape[0]):
        for j in range(phase.shape[1]):
            z = phase[i, j] + offset[j]
            beyond = beyond | (abs(z) > LARGEST)  # not "or": this form becomes vector instructions
            n = (z * _PER_QUADRANT + _ROUND) - _ROUND
            r = z - n * _HIGH
            r = r - n * _MIDDLE
            r = r - n * _LOW
            quadrant = np.int32(n)
            t = r * r
            s = r + r * t * (_S0 + t * (_S1 + t * _S2))
            c = _ONE - _HALF * t + t * t * (_C0 + t * (_C1 + t * _C2))
            odd = (quadrant & 1) != 0
            a, b = (c, s) if odd else (s, c)
            sine[i, j] = -a if (quadrant & 2) != 0 else a
            cosine[i, j] = -b if ((quadrant + 1) & 2) != 0 else b
    return beyond


@numba.njit(cache=True, fastmath={"contract"}, nogil=True, error_model="numpy")
def product_and_sums(a, b, product, sums):
    """Write ``a * b`` to ``product``, add its sums over rows to ``sums``; float32 [n, h], [h]."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            value = a[i, j] * b[i, j]
            product[i, j] = value
            sums[j] += value
