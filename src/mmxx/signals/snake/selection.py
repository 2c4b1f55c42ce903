r"""Choosing ``a``: cycles from a periodogram, decided on the last part of the training data.

The authors advise to choose ``a`` by validation. Snake with weight 1 wiggles with period
$\pi/a$, so a cycle found in the data proposes an ``a``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

Vector = NDArray[np.floating[Any]]

NON_PERIODIC_A = 0.2
"""The ``a`` for layers and data without a cycle: nearly the identity, bent a little."""

_OVERSAMPLE = 8
_MOST_TERMS = 100_000_000  # stamps times frequencies of a direct sum: a few seconds
_MIN_CYCLES = 2.0


class Times(NamedTuple):
    """A time axis as numbers. ``unit`` is "number", or "day" where calendar dates were given."""

    values: Vector
    unit: str


def read_times(t: ArrayLike) -> Times:
    """Time stamps as float64.

    Args:
        t: [n] numbers; ``datetime64`` values; or integers that all read as calendar dates
            YYYYMMDD, whose plain differences would be wrong. Dates become days since 1970.

    Returns:
        The stamps, and their unit.

    Raises:
        ValueError: ``t`` is not one-dimensional, not numbers or dates, or not finite.

    Example:
        >>> read_times([20200131, 20200201]).values
        array([18292., 18293.])
    """
    array = np.asarray(t)
    if array.ndim != 1:
        raise ValueError(f"t must have one dimension, got shape {array.shape}")
    unit = "number"
    dates = array if array.dtype.kind == "M" else _calendar_dates(array)
    if dates is not None:
        values = dates.astype("datetime64[us]").astype(np.float64) / 86_400e6
        values[np.isnat(dates)] = np.nan
        unit = "day"
    elif array.dtype.kind in "iuf":
        values = array.astype(np.float64)
    else:
        raise ValueError(f"t must hold numbers or dates, got dtype {array.dtype}")
    if not np.isfinite(values).all():
        raise ValueError(
            f"t must be finite, got {int((~np.isfinite(values)).sum())} that are NaN or infinity"
        )
    return Times(values, unit)


def _calendar_dates(array: NDArray[Any]) -> NDArray[np.datetime64] | None:
    """The dates that integers YYYYMMDD stand for; None where they stand for none."""
    if array.dtype.kind not in "iu" or not array.size:
        return None
    year, month, day = array // 10_000, array // 100 % 100, array % 100
    if not ((year >= 1000) & (year <= 9999) & (month >= 1) & (month <= 12)).all():
        return None
    first = (year - 1970).astype("timedelta64[Y]") + np.datetime64("1970", "Y")
    month_start = first.astype("datetime64[M]") + (month - 1).astype("timedelta64[M]")
    dates = month_start.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    return dates if (dates.astype("datetime64[M]") == month_start).all() and day.all() else None


def detrend(t: Vector, y: Vector) -> Vector:
    """``y`` without its least-squares straight line over ``t``; both [n]."""
    centred = t - t.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread if spread > 0 else 0.0
    return y - y.mean() - slope * centred


def periodogram(t: Vector, y: Vector) -> tuple[Vector, Vector]:
    r"""Share of the detrended variance that a wave of each frequency takes up.

    $P(f) = 2 |\sum_j y_j e^{-2\pi i f t_j}|^2 / (n \sum_j y_j^2)$ (Schuster), by a fast Fourier
    transform where the stamps lie on a grid (gaps allowed), else by the direct sum.

    Args:
        t: [n] stamps, increasing (equal ones allowed), at least two different.
        y: [n] values.

    Returns:
        frequencies [m] in cycles per unit of t, from 1/(8 T) to the mean Nyquist frequency
        for a length T (for long series off a grid, as far as a direct sum is affordable), and
        power [m], near 1 for a single wave; all 0 for constant or straight data.

    Raises:
        ValueError: All stamps are equal.
    """
    length = float(t[-1] - t[0])
    if not length > 0:
        raise ValueError("periodogram: t must hold at least two different stamps")
    rest = detrend(t, y)
    energy = float(rest @ rest)
    n = len(t)
    base = 1 / (_OVERSAMPLE * length)
    count = max(_OVERSAMPLE * (n - 1) // 2, 1)
    if energy <= 1e-24 * max(float(y @ y), 1e-300):
        return base * np.arange(1, count + 1), np.zeros(count)
    places = _grid_places(t)
    if places is not None:
        slots = int(places[-1]) + 1
        filled = np.zeros(slots)
        np.add.at(filled, places, rest)
        padded = _OVERSAMPLE * (slots - 1)
        count = min(count, padded // 2)
        sums = np.fft.rfft(filled, padded)[1 : count + 1]
        frequencies = base * np.arange(1, count + 1)
    else:
        count = max(min(count, _MOST_TERMS // n), 1)
        frequencies = base * np.arange(1, count + 1)
        sums = np.empty(count, dtype=np.complex128)
        rows = max(1_000_000 // n, 1)
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            waves = np.exp(-2j * np.pi * np.outer(frequencies[part], t - t[0]))
            sums[part] = waves @ rest
    return frequencies, 2 * np.abs(sums) ** 2 / (n * energy)


def _grid_places(t: Vector) -> NDArray[np.int64] | None:
    """The slot of each stamp in a regular grid that is at most half empty, if there is one."""
    steps = np.diff(t)
    step = float(steps.min())
    if not step > 0:
        return None
    places = (t - t[0]) / step
    rounded = np.rint(places)
    if np.abs(places - rounded).max() > 1e-3 or rounded[-1] > 2 * len(t):
        return None
    return rounded.astype(np.int64)


def _without_wave(t: Vector, y: Vector, frequency: float) -> Vector:
    """What a straight line and a wave of the frequency, fitted together, leave of ``y``."""
    angle = 2 * math.pi * frequency * (t - t[0])
    design = np.column_stack([np.ones_like(t), t - t.mean(), np.cos(angle), np.sin(angle)])
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def candidate_periods(t: Vector, y: Vector, n: int = 3) -> tuple[float, ...]:
    """Periods of the strongest cycles, each found in what the earlier ones leave.

    Args:
        t: [n] stamps, increasing (equal ones allowed).
        y: [n] values, finite.
        n: At most how many.

    Returns:
        Periods in units of ``t``, strongest first, each seen at least twice in the data and
        refined by least squares. Fewer than ``n``, or none, where nothing is left to explain.

    Warns:
        UserWarning: The strongest variation of the detrended data is slower than that: the
            period of such a cycle cannot be identified.

    Raises:
        ValueError: All stamps are equal.

    Example:
        >>> t = np.arange(120.0)
        >>> [round(p, 3) for p in candidate_periods(t, np.sin(2 * np.pi * t / 12), 1)]
        [12.0]
    """
    t, y = np.asarray(t, np.float64), np.asarray(y, np.float64)
    found: list[float] = []
    length = float(t[-1] - t[0])
    rest = detrend(t, y)
    enough = max(1e-20 * float(y @ y), 1e-6 * float(rest @ rest), 1e-300)
    for index in range(n):
        if len(t) < 6 or float(rest @ rest) <= enough:
            break
        frequencies, power = periodogram(t, rest)
        seen = frequencies * length >= _MIN_CYCLES * (1 - 1e-9)
        if not seen.any():
            break
        best = int(np.argmax(np.where(seen, power, -1.0)))
        if index == 0 and power.argmax() != best and power.max() > 2 * power[best]:
            warnings.warn(
                f"the strongest variation has fewer than {_MIN_CYCLES:g} periods in the training "
                f"part of length {length:g}: a cycle that long is not identifiable; only shorter "
                "ones are candidates",
                UserWarning,
                stacklevel=2,
            )
        step = frequencies[0]
        frequency = float(
            minimize_scalar(
                lambda f, rest=rest: float(np.square(_without_wave(t, rest, f)).sum()),
                bounds=(max(frequencies[best] - step, step), frequencies[best] + step),
                method="bounded",
                options={"xatol": 1e-6 * step},
            ).x  # pyright: ignore[reportAttributeAccessIssue]
        )
        found.append(1 / frequency)
        rest = _without_wave(t, rest, frequency)
    return tuple(found)


class Choice(NamedTuple):
    r"""One way for a network to begin.

    Attributes:
        period: Of the cycle, in units of the time axis; None where ``a`` is given as it is.
        a: ``a`` on the scaled axis where there is no period.
        deeper_a: ``a`` of the layers after the first; None for the same in all.
    """

    period: float | None
    a: float
    deeper_a: float | None = None

    def scaled(self, half: float) -> float:
        r"""``a`` of the first layer on an axis divided by ``half``: $\pi$ over the period there."""
        return self.a if self.period is None else math.pi * half / self.period

    def deeper(self, half: float) -> float:
        """``a`` of the other layers on that axis."""
        return self.scaled(half) if self.deeper_a is None else self.deeper_a


def propose(t: Vector, y: Vector) -> list[Choice]:
    """What validation decides between, for a time axis.

    For each of at most three cycles: the same ``a`` in all layers, as in the paper, which keeps
    a noisy series from bending away; and 0.2 in the deeper ones, which follows a trend. Last,
    0.2 in all layers, for data without a cycle.

    Args:
        t: [n] stamps, increasing (equal ones allowed).
        y: [n] values, finite.

    Warns:
        UserWarning: As `candidate_periods` does.
    """
    found = candidate_periods(t, y) if t[-1] > t[0] else ()
    cycles = [Choice(p, math.nan, deeper) for p in found for deeper in (None, NON_PERIODIC_A)]
    return [*cycles, Choice(None, NON_PERIODIC_A)]


def tail_size(n: int) -> int:
    """How many of ``n`` values make the validation tail: a quarter, at least one."""
    return max(n // 4, 1)


def pick(squares: Vector) -> int:
    """The first proposal whose error is within one standard error of the least.

    On a short tail noise decides between proposals that do alike; then the stronger cycle,
    which is proposed earlier, is the better guess.

    Args:
        squares: Squared errors [tail, proposals].

    Returns:
        Its number.
    """
    means = squares.mean(0)
    best = int(means.argmin())
    margin = float(squares[:, best].std()) / math.sqrt(len(squares))
    return int(np.argmax(means <= means[best] + margin))
