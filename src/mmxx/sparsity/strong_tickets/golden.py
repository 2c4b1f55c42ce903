"""The golden-ratio decomposition: any number from one random number in each bin, greedily."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmxx.sparsity.strong_tickets import _search

RATIO = (math.sqrt(5) - 1) / 2
r"""$\gamma$, for which $1 - \gamma = \gamma^2$."""


def golden_borders(bins: int, scale: float = 1.0) -> np.ndarray:
    r"""The borders of the golden bins: $s \gamma^i$ for i from 0 to k, descending, float64 [k + 1].

    Args:
        bins: k, the number of bins.
        scale: s, the upper border of the first.

    Example:
        >>> golden_borders(2).round(3).tolist()
        [1.0, 0.618, 0.382]
    """
    return scale * RATIO ** np.arange(bins + 1)


def bins_for(eps: float, scale: float = 1.0) -> int:
    r"""How many bins it takes for an error of at most ``eps``: $\gamma^{k - 1} s \le \epsilon$.

    Args:
        eps: The error.
        scale: The largest magnitude that is to be decomposed.

    Example:
        >>> bins_for(0.01)
        11
    """
    return 1 + max(0, math.ceil(math.log(eps / scale) / math.log(RATIO) - 1e-9))


def golden_decomposition(
    w: Any, b: Any, bins: int, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Targets as sums of random numbers, one from each golden bin, greedily from the top.

    Bin i holds the magnitudes in $(s \gamma^{i+1}, s \gamma^i]$. Going down the bins, a number is
    taken if it does not exceed what is left. With one number $b_i$ of the target's sign in each of
    k bins, at most $s \gamma^{k-1}$ is left of any $|w| \le s$: if at most $\gamma^{i-1}$ is left
    before bin i, then afterwards it is either less than $b_i \le \gamma^i$, or at most
    $\gamma^{i-1} - \gamma^{i+1} = \gamma^i$.

    Args:
        w: Targets, of any shape, of magnitude ``scale`` at most.
        b: Random numbers, [n] or ``[*w.shape, n]``, of either sign. The first in each bin counts;
            those of the other sign than the target are passed over. A bin may be empty: the
            error is then what it is.
        bins: k.
        scale: s.

    Returns:
        The choice, bool ``[*w.shape, n]``, and the absolute errors, float64 ``[*w.shape]``.

    Raises:
        ValueError: Something is not finite, a target exceeds ``scale``, or a shape does not fit.

    Example:
        >>> chosen, error = golden_decomposition(0.9, [0.8, 0.5, 0.3, 0.2, 0.1], bins=5)
        >>> chosen.astype(int).tolist(), round(float(error), 6)
        ([1, 0, 0, 0, 1], 0.0)

    Source: Orseau, Hutter and Rivasplata (2020), the golden-ratio decomposition.
    """
    targets, numbers = np.asarray(w, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(targets).all() and np.isfinite(numbers).all()):
        raise ValueError("w and b must be finite, got NaN or infinity")
    if bins < 1 or not 0 < scale < math.inf:
        raise ValueError(f"bins must be 1 or more and scale above 0, got {bins} and {scale}")
    if targets.size and np.abs(targets).max() > scale:
        raise ValueError(f"w must be {scale} at most, the scale, got {np.abs(targets).max()}")
    if numbers.ndim == 0 or numbers.ndim - 1 not in (0, targets.ndim):
        raise ValueError(f"b must be [n] or {(*targets.shape, 'n')}, got shape {numbers.shape}")
    n = numbers.shape[-1]
    numbers = np.broadcast_to(numbers, (*targets.shape, n)).reshape(-1, n)
    mask, errors = solve(targets.ravel(), numbers, golden_borders(bins, scale))
    return mask.reshape(*targets.shape, n), errors.reshape(targets.shape)


def solve(
    targets: np.ndarray, numbers: np.ndarray, borders: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `golden_decomposition`, without checks, for [G] and [G, n]: bool [G, n], errors [G]."""
    chosen = np.empty((targets.size, borders.size - 1), np.int64)
    errors = np.empty(targets.size)
    _search.greedy(
        np.ascontiguousarray(targets), np.ascontiguousarray(numbers), borders, chosen, errors
    )
    mask = np.zeros(numbers.shape, bool)
    rows, places = np.nonzero(chosen >= 0)
    mask[rows, chosen[rows, places]] = True
    return mask, errors


def worst_left(bins: int, trials: int, rng: np.random.Generator) -> float:
    r"""The most that the decomposition leaves of a target, in $\gamma^k$, over random trials.

    Args:
        bins: k; in each trial there is one random number in each bin.
        trials: Targets, uniform on [0, 1].
        rng: Draws numbers and targets.
    """
    worst, borders = 0.0, golden_borders(bins)
    while trials > 0:
        count = min(trials, 20_000)
        trials -= count
        numbers = borders[1:] + (borders[:-1] - borders[1:]) * (1 - rng.random((count, bins)))
        _, left = golden_decomposition(rng.random(count), numbers, bins)
        worst = max(worst, float(left.max() / borders[-1]))
    return worst
