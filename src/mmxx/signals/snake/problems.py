"""Series to continue: a noisy sine, real ones, and the user's own table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmxx.data import decimal_years
from mmxx.signals.snake.selection import Vector, read_times

if TYPE_CHECKING:
    from mmxx.data import Table

_FEWEST = 16


class Problem(NamedTuple):
    """A series to continue.

    Attributes:
        name: For tables and figures.
        t: Training stamps [n], increasing.
        y: Training values [n, repetitions]; alike in all where there is only one series.
        future: Stamps [m] after them.
        truth: What came, [m].
        unit: What errors are divided by.
    """

    name: str
    t: Vector
    y: Vector
    future: Vector
    truth: Vector
    unit: float = 1.0


def sine(
    rng: np.random.Generator, *, points: int, periods: float, noise: float, repetitions: int
) -> Problem:
    """A sine of period 1: noisy in training, clean after it, for as many periods again."""
    t = np.linspace(0, 2 * periods, 2 * points)
    clean = np.sin(2 * np.pi * t)
    y = clean[:points, None] + noise * rng.normal(size=(points, repetitions))
    return Problem("sine", t[:points], y, t[points:], clean[points:])


def split(name: str, t: Vector, y: Vector, part: float, repetitions: int) -> Problem:
    """A series whose first ``part`` is training; errors are in its training variances.

    Raises:
        ValueError: Too few values on either side.
    """
    n = int(len(t) * part)
    if n < _FEWEST or n >= len(t):
        raise ValueError(
            f"split: {name} has {len(t)} values, of which {n} would be training; it takes at "
            f"least {_FEWEST}, and one to predict"
        )
    unit = float(y[:n].var()) or 1.0
    return Problem(name, t[:n], np.tile(y[:n, None], repetitions), t[n:], y[n:], unit)


def monthly(years: Vector, values: Vector) -> tuple[Vector, Vector]:
    """Means of the months that have a value; stamps are the middles of these months."""
    there = np.isfinite(values)
    months = np.floor(years[there] * 12 + 1e-6).astype(np.int64)
    found, place = np.unique(months, return_inverse=True)
    return (found + 0.5) / 12, np.bincount(place, values[there]) / np.bincount(place)


def read_series(table: Table, *, time: str = "", value: str = "") -> tuple[Vector, Vector, list]:
    """A column of values over one of time stamps.

    Args:
        table: The user's table.
        time: Column of numbers, dates, or integers YYYYMMDD; by default the first of several
            columns, and the number of the row where there is one.
        value: Column of numbers; by default the first that is not the time.

    Returns:
        Increasing stamps, finite values, and remarks: what was dropped, sorted and merged.

    Raises:
        ValueError: A column is missing or of the wrong kind, or values are infinite.
    """
    remarks: list[str] = []
    for flag, name in (("time", time), ("value", value)):
        if name and name not in table.names:
            raise ValueError(f"{flag}: no column {name!r}; there are {', '.join(table.names)}")
    time = time or (table.names[0] if len(table.names) > 1 else "")
    numbers = [name for name in table.numeric if name != time]
    if not value and not numbers:
        raise ValueError(f"value: no column of numbers among {', '.join(table.names)}")
    value = value or numbers[0]
    if value not in table.numeric:
        raise ValueError(f"value: column {value!r} holds text; numbers: {', '.join(table.numeric)}")
    y = table[value]
    if np.isinf(y).any():
        raise ValueError(f"value: column {value!r} holds infinity in {np.isinf(y).sum()} rows")
    t = _stamps(table, time, remarks)
    keep = np.isfinite(t) & np.isfinite(y)
    if not keep.all():
        remarks.append(f"{(~keep).sum()} of {len(y)} rows have no value or no time: left out.")
    t, y = t[keep], y[keep]
    if (np.diff(t) < 0).any():
        remarks.append(f"The stamps of column {time!r} do not increase: the rows were sorted.")
    stamps, place = np.unique(t, return_inverse=True)
    if len(stamps) == 1 < len(t):
        raise ValueError(f"time: column {time!r} holds the same stamp in all of its {len(t)} rows")
    if len(stamps) < len(t):
        repeats = len(t) - len(stamps)
        remarks.append(f"{repeats} stamps are repeated: rows of one stamp became their mean.")
    y = np.bincount(place, y, minlength=1) / np.bincount(place, minlength=1)
    if len(y) and np.ptp(y) == 0:
        remarks.append(f"Column {value!r} is constant.")
    return stamps, y, remarks


def _stamps(table: Table, time: str, remarks: list[str]) -> Vector:
    if not time:
        return np.arange(float(len(table)))
    column = table[time]
    if column.dtype.kind != "f":
        remarks.append(f"Column {time!r} holds dates: time is in years.")
        return decimal_years(column)
    finite = column[np.isfinite(column)]
    if len(finite) and (finite == np.rint(finite)).all() and np.abs(finite).max() < 2**53:
        whole = np.where(np.isfinite(column), column, finite[0]).astype(np.int64)
        times = read_times(whole)
        if times.unit == "day":
            remarks.append(f"Column {time!r} holds dates as YYYYMMDD: time is in days.")
        return np.where(np.isfinite(column), times.values, np.nan)
    return column
