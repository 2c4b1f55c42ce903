"""A table of one's own: what is searched for its formula."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.regressor import AIFeynmanRegressor, safe_names
from mmxx.discovery.feynman.units import check_units


class Own(NamedTuple):
    """A table whose formula is looked for.

    Attributes:
        X: Columns, float64 [rows, columns].
        y: The target, float64 [rows].
        names: Of the columns as formulas can have them.
        target: The target's name.
        units: Of the columns and of the target, or None.
        notes: What was done to the table, in words.
    """

    X: NDArray[np.float64]
    y: NDArray[np.float64]
    names: tuple[str, ...]
    target: str
    units: tuple[list[Any], str] | None
    notes: list[str]

    def regressor(self, **settings: Any) -> AIFeynmanRegressor:
        """The estimator for it."""
        units, target_units = self.units or (None, None)
        return AIFeynmanRegressor(units=units, target_units=target_units, **settings)


def read_table(table: Any, target: str, units: Any) -> Own:
    """The rows of a table that are whole, its target and its units.

    Args:
        table: The user's.
        target: Its column to predict; "" for the last one of numbers.
        units: A table of names and units, or None.

    Raises:
        ValueError: No such column, none besides it, or units that do not fit.
    """
    numeric, notes = list(table.numeric), []
    target = target or (numeric or [""])[-1]
    if target not in numeric or len(numeric) < 2:
        raise ValueError(f"target must be one of {', '.join(numeric)}, got {target!r}")
    names = [name for name in numeric if name != target]
    left = [name for name in table.names if name not in numeric]
    if left:
        notes.append(f"Columns that hold text were left out: {', '.join(left)}.")
    X, y = table.matrix(names), table[target]
    whole = np.isfinite(X).all(1) & np.isfinite(y)
    if not whole.all():
        notes.append(f"{int((~whole).sum())} of {len(y)} rows were left out: a cell is missing.")
    safe, renamed = safe_names(names)
    known = None if units is None else _units(units, names, target)
    return Own(X[whole], y[whole], safe, target, known, notes + renamed)


def read_samples(table: Any, steps: int, seed: int) -> Own:
    """A density that was learnt from the rows of a table, at up to 1,000 of them.

    Args:
        table: The user's: its columns of numbers are the variables.
        steps: Of the flow.
        seed: Of the flow.

    Raises:
        ValueError: No column of numbers, or samples that `fit_density` does not take.
    """
    from mmxx.discovery.feynman.density import fit_density

    names = list(table.numeric)
    if not names:
        raise ValueError("density needs a column of numbers, got none")
    samples = table.matrix(names)
    samples = samples[np.isfinite(samples).all(1)]
    safe, notes = safe_names(names)
    X, y = fit_density(samples, steps=steps, seed=seed).table(samples)
    notes.append(f"p is the density of {len(samples)} samples, as a flow has learnt it.")
    return Own(X, y, safe, "p", None, notes)


def _units(table: Any, names: list[str], target: str) -> tuple[list[Any], str]:
    if len(table.names) != 2:
        raise ValueError(f"units must have two columns, got {', '.join(table.names)}")
    # a column of nothing but 1 is read as numbers
    units = {
        str(name): unit if isinstance(unit, str) else f"{unit:g}"
        for name, unit in zip(*table.columns, strict=True)
    }
    if target not in units:
        raise ValueError(f"units must have a row for the target {target!r}, got {', '.join(units)}")
    inputs = {name: unit for name, unit in units.items() if name != target}
    return check_units(inputs, names), units[target]
