"""Real measurements: orbits of planets and stars, and the adsorption of gases."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.solve import Frontier, search

Array = NDArray[np.float64]
FILES = ("planets", "exoplanets", "binary stars", "adsorption A", "adsorption B")


def measurements(name: str) -> tuple[Array, Array, tuple[str, ...]]:
    """A table of measurements.

    Orbits: masses m1, m2 and distance d give the period p. d is in astronomical units, m1 in solar
    masses; m2 of planets in Earth masses, of exoplanets in Jupiter masses, of binary stars in
    solar masses; p in 1,000 days, of binary stars in years. Adsorption: the pressure p gives the
    amount q.

    Args:
        name: One of `FILES`.

    Returns:
        X [rows, columns], y [rows], and the names of the columns and of y.

    Source: the data of AI-Descartes (Cornelio et al., 2023).
    """
    text = files("mmxx.discovery.feynman").joinpath("measurements.tsv").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        title, columns, rows = line.split("\t")
        if title == name:
            table = np.array([row.split() for row in rows.split(";")], np.float64)
            return table[:, :-1], table[:, -1], tuple(columns.split())
    raise ValueError(f"name must be one of {', '.join(FILES)}, got {name!r}")


def fit(task: tuple[str, int]) -> list[dict[str, Any]]:
    """The frontier of one table; the task is its name and how many formulas to try."""
    name, max_formulas = task
    X, y, names = measurements(name)
    # a column that never changes says nothing
    kept = [k for k in range(X.shape[1]) if np.ptp(X[:, k]) > 0]
    X, names = np.ascontiguousarray(X[:, kept]), (*(names[k] for k in kept), names[-1])
    frontier = Frontier(X, y)
    search(frontier, X, y, max_formulas=max_formulas, degree=2)
    return [
        {"table": name, "formula": f"{names[-1]} = {f.expr.text(names[:-1])}",
         "complexity, bits": f.complexity, "error, bits": f.error_bits,
         "relative error": f.rmse / frontier.scale}
        for f in frontier
    ]  # fmt: skip
