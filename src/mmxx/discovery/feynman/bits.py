"""Description lengths in bits, of errors, numbers and formulas; and the Pareto frontier."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmxx.discovery.feynman.expression import Expr

PRECISION = 2.0**-30  #: The error, in units of y's root mean square, that counts as one bit
_LARGEST = 10_000  # numerator and denominator of a rational number
_SAME = 1e-10
_REAL = 1e-14
T = TypeVar("T")


def error_bits(y: ArrayLike, predicted: ArrayLike, scale: float | None = None) -> float:
    r"""Mean of $\log_2(1 + |y - f| / (2^{-30} y_{rms}))$ (Udrescu et al., section 2).

    Args:
        y: The truth, [rows].
        predicted: [rows].
        scale: The root mean square to measure by; that of y by default.

    Returns:
        Bits per row; infinite where a prediction is not finite.
    """
    truth, guess = np.asarray(y, np.float64), np.asarray(predicted, np.float64)
    unit = PRECISION * (rms(truth) if scale is None else scale)
    error = np.abs(truth - guess)
    if not np.isfinite(error).all():
        return math.inf
    return float(np.log2(1 + error / unit).mean())


def rms(y: NDArray[np.float64]) -> float:
    """The root mean square, safe from overflow; 1 for zeros."""
    largest = float(np.abs(y).max(initial=0.0))
    return largest * float(np.sqrt(np.square(y / largest).mean())) if largest else 1.0


def rational(value: float, largest: int = _LARGEST) -> Fraction | None:
    """The fraction p/q with p and q up to ``largest`` that a number is, to 1e-10."""
    if abs(value) > largest:
        return None
    near = Fraction(value).limit_denominator(largest)
    return near if abs(float(near) - value) <= _SAME and abs(near.numerator) <= largest else None


def number_bits(value: float) -> float:
    r"""Bits of a number.

    $\log_2(1+|n|)$ for an integer, $\log_2((1+|p|)q)$ for a fraction, 2 for pi, else
    $\frac12 \log_2(1 + (r/10^{-14})^2)$.

    Example:
        >>> number_bits(3.0), round(number_bits(2 / 3), 3), round(number_bits(0.1234567), 2)
        (2.0, 3.17, 43.49)
    """
    if value.is_integer():
        return math.log2(1 + abs(value))
    if abs(abs(value) - math.pi) < _SAME:
        return 2.0
    near = rational(value)
    if near is not None and near != 0:
        return math.log2((1 + abs(near.numerator)) * near.denominator)
    return max(0.0, math.log2(abs(value) / _REAL))


def mdl(expr: Expr, kind: str = "symbols") -> float:
    r"""Bits of a formula: its numbers, and its symbols.

    Args:
        expr: The formula.
        kind: ``"symbols"``: k occurrences of n kinds of variables and operations cost
            $k \log_2 \max(n, 2)$, as in the paper. ``"distinct"``: $n \log_2 n$ whatever the
            occurrences, as in the authors' code.

    Raises:
        ValueError: ``kind`` is neither.
    """
    if kind not in ("symbols", "distinct"):
        raise ValueError(f"complexity must be 'symbols' or 'distinct', got {kind!r}")
    numbers, symbols = 0.0, []
    for node in expr.walk():
        if node.op == "num":
            numbers += number_bits(node.value)
        elif node.op == "pi":
            numbers += 2.0
        else:
            symbols.append((node.op, node.value if node.op == "var" else 0.0))
            numbers += number_bits(node.value) if node.op == "pow" else 0.0
    kinds = len(set(symbols))
    if kind == "distinct":
        return numbers + (kinds * math.log2(kinds) if kinds else 0.0)
    return numbers + len(symbols) * math.log2(max(kinds, 2))


class Pareto(Generic[T]):
    """The points of which no other is both simpler and better, with what belongs to them.

    Sorted by complexity; inserting costs a binary search. Of equal points the first stays.

    Example:
        >>> front = Pareto()
        >>> [front.add(*point) for point in [(3, 1.0, "a"), (1, 5.0, "b"), (4, 2.0, "c")]]
        [True, True, False]
        >>> [label for _, _, label in front]
        ['b', 'a']
    """

    def __init__(self) -> None:
        self._complexity: list[float] = []
        self._error: list[float] = []
        self._items: list[T] = []

    def admits(self, complexity: float, error: float) -> bool:
        """Whether no point is as simple and as good."""
        at = bisect.bisect_right(self._complexity, complexity)
        return not math.isnan(error) and (at == 0 or error < self._error[at - 1])

    def add(self, complexity: float, error: float, item: T) -> bool:
        """Add a point, drop those that it beats; whether it was added."""
        if not self.admits(complexity, error):
            return False
        low = bisect.bisect_left(self._complexity, complexity)
        high = low
        while high < len(self._error) and self._error[high] >= error:
            high += 1
        self._complexity[low:high] = [complexity]
        self._error[low:high] = [error]
        self._items[low:high] = [item]
        return True

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self):
        return iter(zip(self._complexity, self._error, self._items, strict=True))


def pareto(points: Iterable[tuple[float, float]]) -> list[int]:
    """Indices of the points (complexity, error) of which no other is simpler and better."""
    front: Pareto[int] = Pareto()
    for index, (complexity, error) in enumerate(points):
        front.add(complexity, error, index)
    return [index for _, _, index in front]
