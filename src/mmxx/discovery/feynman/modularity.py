"""Modularity of an unknown function, seen by asking it, and its gradient, at chosen points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.bits import rms
from mmxx.discovery.feynman.expression import Expr, var
from mmxx.discovery.feynman.search import brute_force

Array = NDArray[np.float64]
#: What is looked for, in this order.
KINDS = ("symmetry", "separability", "generalized", "composition", "additivity")
#: How two variables that go together are moved, and what takes their place.
PAIRS = {
    "minus": lambda i, j: var(i) - var(j),
    "plus": lambda i, j: var(i) + var(j),
    "divide": lambda i, j: var(i) / var(j),
    "multiply": lambda i, j: var(i) * var(j),
}
_FACTOR = 1.2
_SMALLEST = 1e-16  # of 1 - score: below is rounding
_MOST_SPLITS = 200
_ANCHORS, _SAMPLES = 200, 60
_PROOFS = 200  # points at which a formula is verified
_NEWTON = 12
_FEWEST = 10  # rows that can be moved


class Oracle(Protocol):
    """A function that can be asked anywhere: a trained network, or the truth in a test."""

    def value(self, X: Array) -> Array:
        """Values [rows] at X [rows, columns]."""
        ...

    def gradient(self, X: Array) -> Array:
        """Derivatives [rows, columns] at X."""
        ...


@dataclass(frozen=True)
class Module:
    """Something that a function is made of.

    Attributes:
        kind: "minus", "plus", "divide", "multiply", "sum", "product", "symmetry",
            "composition" or "additivity".
        columns: The variables that belong together.
        error: Median error of what it predicts, in units of y's root mean square.
        signal: Of a generalised symmetry, in decimal orders of magnitude; else 0.
        inner: The formula of those variables that takes their place, over all columns.
    """

    kind: str
    columns: tuple[int, ...]
    error: float
    signal: float = 0.0
    inner: Expr | None = None


def symmetries(oracle: Oracle, X: Array, y: Array) -> list[Module]:
    """Pairs of variables that count only by difference, sum, ratio or product; best first.

    Both are moved so that the combination stays, and the function should, too. Each row is moved
    up or else down, whichever stays within the range of the data, where a network knows the
    function; a row that does not is left out.

    Args:
        oracle: The function.
        X: Points [rows, columns].
        y: Values [rows], by whose root mean square errors are measured.

    Source: Udrescu and Tegmark (2020), section II.D.
    """
    base, unit, found = oracle.value(X), rms(y), []
    for i, j in itertools.combinations(range(X.shape[1]), 2):
        for kind, make in PAIRS.items():
            moved, rows = _moved(X, i, j, kind)
            if len(rows) < _FEWEST:
                continue
            error = float(np.median(np.abs(base[rows] - oracle.value(moved)))) / unit
            found.append(Module(kind, (i, j), error, inner=make(i, j)))
    return sorted(found, key=lambda module: module.error)


def _moved(X: Array, i: int, j: int, kind: str) -> tuple[Array, NDArray[np.int64]]:
    """Rows with two columns moved as a kind of pair wants it, within the data, and which."""
    low, high = X.min(0), X.max(0)
    step = 0.5 * min(X[:, i].std(), X[:, j].std())
    opposite = kind in ("plus", "multiply")
    ways = []
    for sign in (1.0, -1.0):
        moved = X.copy()
        for column, way in ((i, sign), (j, -sign if opposite else sign)):
            if kind in ("minus", "plus"):
                moved[:, column] += way * step
            else:
                moved[:, column] *= _FACTOR**way
        ways.append((moved, ((moved >= low) & (moved <= high)).all(1)))
    (up, is_up), (down, is_down) = ways
    rows = np.flatnonzero(is_up | is_down)
    return np.where(is_up[rows, None], up[rows], down[rows]), rows


def separability(oracle: Oracle, X: Array, y: Array) -> list[Module]:
    """Splits of the variables into a sum or a product of two functions; best first.

    Args:
        oracle: The function.
        X: Points [rows, columns].
        y: Values [rows], by whose root mean square errors are measured.

    Source: Udrescu and Tegmark (2020), section II.E.
    """
    unit, found = rms(y), []
    for part in itertools.islice(_splits(X.shape[1]), _MOST_SPLITS):
        first, second, centre = parts(oracle, X, part)
        whole = oracle.value(X)
        total = np.abs(whole - (first + second - centre))
        found.append(Module("sum", part, float(np.median(total)) / unit))
        if centre != 0:
            product = np.abs(whole - first * second / centre)
            found.append(Module("product", part, float(np.median(product)) / unit))
    return sorted(found, key=lambda module: module.error)


def _splits(columns: int) -> Iterator[tuple[int, ...]]:
    """Every split once: the part that holds variable 0, smaller ones first."""
    for size in range(columns - 1):
        for others in itertools.combinations(range(1, columns), size):
            yield (0, *others)


def parts(oracle: Oracle, X: Array, part: Sequence[int]) -> tuple[Array, Array, float]:
    """The function with the other, with these, and with all variables at their medians."""
    median = np.median(X, axis=0)
    first, second = np.tile(median, (len(X), 1)), X.copy()
    chosen = list(part)
    first[:, chosen] = X[:, chosen]
    second[:, chosen] = median[chosen]
    centre = float(oracle.value(median[None])[0])
    return oracle.value(first), oracle.value(second), centre


def generalized_symmetries(
    oracle: Oracle,
    X: Array,
    rng: np.random.Generator,
    *,
    anchors: int = _ANCHORS,
    samples: int = _SAMPLES,
    largest: int = 3,
) -> list[Module]:
    r"""Sets of variables that count only by one function of them; best first.

    At an anchor the variables of the set are held and the others drawn again from the data: the
    direction of the gradient by the set must stay. Its score is the share of the largest
    eigenvalue of the directions' second moments, and the signal is
    $-\log_{10}(1 - \mathrm{score})$, the median over anchors, above that of a set of nothing
    held, less $\log_{10} 2$ a variable.

    Args:
        oracle: The function.
        X: Points [rows, columns].
        rng: Draws anchors and samples.
        anchors: Points at which sets are held.
        samples: Draws at each.
        largest: Variables in a set, at most.

    Source: Udrescu et al. (2020), section 2.3.
    """
    columns, found = X.shape[1], []
    chosen = X[rng.integers(len(X), size=anchors)]
    for size in range(2, min(largest, columns - 1) + 1):
        for part in itertools.combinations(range(columns), size):
            held = list(part)
            off = 1 - _agreement(oracle, X, chosen, held, samples, rng)
            loose = 1 - _agreement(oracle, X, chosen, held, samples, rng, hold=False)
            signal = float(np.median(np.log10(loose)) - np.median(np.log10(off)))
            signal -= math.log10(2) * size
            found.append(Module("symmetry", part, float(np.median(off)), signal))
    return sorted(found, key=lambda module: -module.signal)


def _agreement(
    oracle: Oracle,
    X: Array,
    anchors: Array,
    part: list[int],
    samples: int,
    rng: np.random.Generator,
    hold: bool = True,
) -> Array:
    """Share of the largest eigenvalue of the gradients' directions, [anchors]."""
    directions, weights = _directions(oracle, X, anchors, part, samples, rng, hold)
    moment = (
        np.einsum("asi,asj->aij", directions, directions)
        / np.maximum(weights.sum(1), 1.0)[:, None, None]
    )
    share = np.linalg.eigvalsh(moment)[:, -1]
    return np.minimum(share, 1 - _SMALLEST)


def _directions(
    oracle: Oracle,
    X: Array,
    anchors: Array,
    part: list[int],
    samples: int,
    rng: np.random.Generator,
    hold: bool = True,
) -> tuple[Array, Array]:
    """Unit gradients by the set [anchors, samples, set], and 1 where there is one."""
    count, columns = anchors.shape
    points = np.empty((count, samples, columns))
    for k in range(columns):
        drawn = X[rng.integers(len(X), size=(count, samples)), k]
        points[:, :, k] = anchors[:, None, k] if hold and k in part else drawn
    slopes = oracle.gradient(points.reshape(-1, columns))[:, part]
    length = np.linalg.norm(slopes, axis=1)
    good = (length > 0) & np.isfinite(length)
    units = np.where(good[:, None], slopes / np.where(good, length, 1.0)[:, None], 0.0)
    return units.reshape(count, samples, len(part)), good.reshape(count, samples).astype(float)


def consensus(
    oracle: Oracle, X: Array, part: Sequence[int], rng: np.random.Generator, samples: int = 20
) -> Array:
    """The direction on which the gradients by a set agree, at every row, [rows, set]."""
    held = list(part)
    directions, _ = _directions(oracle, X, X, held, samples, rng)
    moment = np.einsum("asi,asj->aij", directions, directions)
    return np.linalg.eigh(moment)[1][:, :, -1]


def compositionality(
    oracle: Oracle,
    X: Array,
    y: Array,
    part: Sequence[int],
    rng: np.random.Generator,
    *,
    max_formulas: int = 200_000,
    operators: str = "14ops",
    largest_error: float = 0.01,
) -> Module | None:
    """The formula h of a set of variables such that y depends on them by h only.

    Brute force compares the gradients of h with the function's; every formula that comes first is
    verified: two points of equal h, and of equal other variables, must have equal values.

    Args:
        oracle: The function.
        X: Points [rows, columns].
        y: Values [rows].
        part: The set; all variables for y = g(h(x)).
        rng: Draws.
        max_formulas: For brute force.
        operators: See `brute_force`.
        largest_error: Median difference that is taken for equal, in units of y's root mean square.

    Returns:
        The module with its formula, or None if none was verified.

    Source: Udrescu et al. (2020), section 2.3.
    """
    held = list(part)
    if len(held) < X.shape[1]:
        target = consensus(oracle, X, held, rng)
    else:
        slopes = oracle.gradient(X)
        target = slopes / np.maximum(np.linalg.norm(slopes, axis=1), 1e-300)[:, None]
    found = brute_force(X[:, held], target, operators, mode="gradient", max_formulas=max_formulas)
    kind = "symmetry" if len(held) < X.shape[1] else "composition"
    for hit in sorted(found.hits, key=lambda hit: hit.bits):
        error = verify(oracle, X, y, hit.expr, held, rng)
        if error <= largest_error:
            inner = hit.expr.substitute([var(k) for k in held])
            return Module(kind, tuple(held), error, inner=inner)
    return None


def verify(
    oracle: Oracle, X: Array, y: Array, h: Expr, part: list[int], rng: np.random.Generator
) -> float:
    """Median difference of values between points of equal h, in units of y's root mean square.

    The second point starts from the row whose h is nearest and is moved along the gradient of h;
    those that leave the range of the data are not used.
    """
    rows = rng.permutation(len(X))[:_PROOFS]
    here = X[rows]
    with np.errstate(all="ignore"):
        wanted, values = h.evaluate(here[:, part]), h.evaluate(X[:, part])
        if not np.isfinite(values).all():
            return math.inf
        order = np.argsort(values, kind="stable")
        near = np.clip(np.searchsorted(values[order], wanted) + 1, 0, len(X) - 1)
        there = X[order[near]][:, part]
        for _ in range(_NEWTON):
            now, slope = h.grad(there)
            there = there - ((now - wanted) / np.square(slope).sum(1))[:, None] * slope
        low, high = X[:, part].min(0), X[:, part].max(0)
        close = np.abs(h.evaluate(there) - wanted) <= 1e-9 * (1 + np.abs(wanted))
    inside = close & (there >= low).all(1) & (there <= high).all(1)
    if inside.sum() < 10:
        return math.inf
    other = here.copy()
    other[:, part] = there
    difference = oracle.value(here[inside]) - oracle.value(other[inside])
    return float(np.median(np.abs(difference))) / rms(y)
