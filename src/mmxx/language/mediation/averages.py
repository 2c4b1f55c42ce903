"""Relative effects of odds, how they divide into parts, and their averages over examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mean = Literal["ratio", "log", "median"]


def total_effect(y0: ArrayLike, yx: ArrayLike) -> Array:
    """The relative change of the response, ``yx / y0 - 1``, as the paper defines TE.

    Args:
        y0: The odds without intervention, positive.
        yx: The odds with it, of the same shape.

    Raises:
        ValueError: An odds ratio is not positive.

    Example:
        >>> total_effect([0.5, 2.0], [1.0, 1.0]).tolist()
        [1.0, -0.5]
    """
    before, after = np.asarray(y0, np.float64), np.asarray(yx, np.float64)
    for name, odds in (("y0", before), ("yx", after)):
        if not (odds > 0).all():
            raise ValueError(f"{name} must be positive odds, got {odds[~(odds > 0)][:3]}")
    return after / before - 1


class Parts(NamedTuple):
    """What `decompose` finds: the product of the two routes, and what they leave of TE."""

    product: Array
    interaction: Array
    rest: Array


def decompose(te: ArrayLike, nde: ArrayLike, nie: ArrayLike) -> Parts:
    r"""How a total effect divides into its direct and its indirect part.

    Where the two routes add in the logarithm, $1 + TE = (1 + NDE)(1 + NIE)$, so that
    $TE - NDE - NIE = NDE \cdot NIE$; for small effects that is nothing.

    Args:
        te, nde, nie: Relative effects of one shape, above -1.

    Returns:
        product: $(1 + NDE)(1 + NIE) - 1$; interaction: $TE - NDE - NIE$; rest: TE less the product.

    Example:
        >>> product, interaction, rest = decompose(5.0, 1.0, 2.0)
        >>> float(product), float(interaction), float(rest)
        (5.0, 2.0, 0.0)
    """
    total, direct, indirect = (np.asarray(part, np.float64) for part in (te, nde, nie))
    product = (1 + direct) * (1 + indirect) - 1
    return Parts(product, total - direct - indirect, total - product)


class Interval(NamedTuple):
    """An average over examples with its percentile bootstrap interval; arrays of one shape."""

    value: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Summary:
    """Averages over examples. ``nie`` and ``nde`` are None where only totals were measured."""

    te: Interval
    nie: Interval | None
    nde: Interval | None


def interval(
    logs: Array, weights: Array, drawn: NDArray[np.int64], kind: Mean, ci: float
) -> Interval:
    """The average of log effects [N, ...], and its percentiles over bootstrap draws.

    Args:
        logs: log(1 + effect) of N examples.
        weights: Weights of the examples, [N].
        drawn: The examples of each draw, [draws, N].
        kind: Which average.
        ci: Coverage of the interval.
    """
    flat = logs.reshape(len(logs), -1)
    values = flat if kind == "log" else np.expm1(flat)

    def average(rows: NDArray[np.int64]) -> Array:
        if kind == "median":
            return np.median(values[rows], axis=0)
        share = weights[rows]
        return share @ values[rows] / share.sum()

    value = average(np.arange(len(logs)))
    if len(drawn):
        draws = np.stack([average(rows) for rows in drawn])
        low, high = np.quantile(draws, [(1 - ci) / 2, (1 + ci) / 2], axis=0)
    else:
        low = high = value
    ends = [np.expm1(end) if kind == "log" else end for end in (value, low, high)]
    return Interval(*(end.reshape(logs.shape[1:]) for end in ends))
