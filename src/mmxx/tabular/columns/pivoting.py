"""Choosing by residuals: randomly pivoted and greedy Cholesky, Schur gains, swaps, all subsets.

With S chosen, R = L − L_:S L_SS⁻¹ L_S: is what is left. Its trace is the error of S.
"""

from __future__ import annotations

from math import comb

import numpy as np
import scipy.linalg
from numpy.random import RandomState

from mmxx.tabular.columns._kernels import add_outer, best_subset
from mmxx.tabular.columns.gram import Floats, Gram, Indices

MOST_SUBSETS = 2_000_000
SPENT = 1e-14  # a residual below this part of the largest diagonal entry is rounding


def rpcholesky(
    gram: Gram, k: int, rng: RandomState, *, batch: int | None = None
) -> tuple[Indices, Floats]:
    """Randomly pivoted Cholesky: each pivot as likely as what is left of its diagonal entry.

    Candidates are proposed in batches by the diagonal as the batch finds it, and refused within
    the batch by what the ones before left of them: the pivots have the law of one at a time, but
    columns of L are read and the factor is updated many at once.

    Args:
        gram: The kernel matrix, of which k columns and some small blocks are read.
        k: How many pivots.
        rng: Draws the pivots.
        batch: Candidates at a time; by default a quarter of k, between 8 and 64. 1 is the plain
            algorithm.

    Returns:
        (pivots [≤ k], factor [n, ≤ k]) with L̂ = factor factorᵀ; fewer than k where L is exhausted.

    Source: Chen, Epperly, Tropp and Webber (2022); in batches Epperly, Tropp and Webber (2024).
    """
    batch = min(max(k // 4, 8), 64) if batch is None else batch
    left = gram.diagonal()
    spent = SPENT * left.max(initial=0.0)
    factor = np.empty((gram.n, k), order="F")
    pivots: list[int] = []
    while len(pivots) < k:
        left[left <= spent] = 0.0
        heights = np.cumsum(left)
        if not heights[-1] > 0:
            break
        done = len(pivots)
        proposed = np.searchsorted(heights, rng.random_sample(batch) * heights[-1], side="right")
        proposed = np.minimum(proposed, gram.n - 1)
        kept, lower = _thin(
            gram, factor[:, :done], left, proposed, rng.random_sample(batch), k - done
        )
        if not kept.size:
            continue
        new = gram.columns(kept)
        new -= factor[:, :done] @ factor[kept, :done].T
        new = scipy.linalg.solve_triangular(lower, new.T, lower=True, check_finite=False).T
        factor[:, done : done + kept.size] = new
        left -= np.einsum("ij,ij->i", new, new)
        left[kept] = 0.0
        pivots += kept.tolist()
    return np.array(pivots, dtype=np.int64), factor[:, : len(pivots)]


def _thin(
    gram: Gram, factor: Floats, left: Floats, proposed: Indices, u: Floats, most: int
) -> tuple[Indices, Floats]:
    """Those of the proposed pivots that stay, at most so many, and their Cholesky factor."""
    residual = gram.block(proposed)
    residual = residual - factor[proposed] @ factor[proposed].T
    had = left[proposed]
    kept: list[int] = []
    lower = np.zeros((proposed.size, proposed.size))
    for place in range(proposed.size):
        rest = residual[place, place] - lower[place, : len(kept)] @ lower[place, : len(kept)]
        again = bool((proposed[kept] == proposed[place]).any())
        if again or not rest > max(u[place] * had[place], 0.0) or len(kept) == most:
            continue
        column = residual[:, place] - lower[:, : len(kept)] @ lower[place, : len(kept)]
        lower[:, len(kept)] = column / np.sqrt(rest)
        kept.append(place)
    return proposed[kept], lower[np.ix_(kept, range(len(kept)))]


def pivoted_cholesky(gram: Gram, k: int) -> Indices:
    """The k columns that greedily have the largest residual diagonal: QR with column pivoting."""
    left = gram.diagonal()
    spent = SPENT * left.max(initial=0.0)
    factor = np.empty((k, gram.n))
    pivots = np.empty(k, np.int64)
    for count in range(k):
        pivot = int(np.argmax(left))
        if left[pivot] <= spent:
            return pivots[:count]
        pivots[count] = pivot
        row = gram.columns(pivots[count : count + 1])[:, 0]
        row = row - factor[:count].T @ factor[:count, pivot]
        factor[count] = row / np.sqrt(left[pivot])
        left -= factor[count] ** 2
        left[pivot] = 0.0
    return pivots


def _gains(residual: Floats, squares: Floats, spent: float) -> Floats:
    """How much each column would take off the trace, ‖R_:j‖²/R_jj; 0 where nothing is left."""
    diagonal = residual.diagonal()
    return np.divide(squares, diagonal, out=np.zeros(diagonal.size), where=diagonal > spent)


def greedy(gram: Gram, k: int) -> Indices:
    """The best next column, k times, in O(n²k): each lowers the error by ‖R_:j‖²/R_jj.

    Stops early where nothing is left.
    """
    residual = gram.dense()
    squares = np.einsum("ij,ij->i", residual, residual)
    spent = SPENT * residual.diagonal().max()
    chosen: list[int] = []
    for _ in range(k):
        gains = _gains(residual, squares, spent)
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        _take(residual, best, squares)
        chosen.append(best)
    return np.array(chosen, dtype=np.int64)


def _take(residual: Floats, column: int, squares: Floats) -> None:
    """Take a column's part out of the residual, in place."""
    vector = residual[column] / np.sqrt(residual[column, column])
    add_outer(residual, vector, -1.0, squares)
    residual[column] = 0.0
    residual[:, column] = 0.0
    squares[column] = 0.0


def local_search(gram: Gram, k: int) -> Indices:
    """From the greedy columns on, swap one for another while the error falls by 1e-9 of itself."""
    L = gram.dense()
    spent = SPENT * L.diagonal().max()
    chosen = greedy(gram, k)
    improved = chosen.size == k
    while improved:
        improved = False
        for place in range(k):
            rest = np.delete(chosen, place)
            residual = _residual(L, rest)
            squares = np.einsum("ij,ij->i", residual, residual)
            gains = _gains(residual, squares, spent)
            best = int(np.argmax(gains))
            left = residual.trace() - gains[chosen[place]]
            if gains[best] - gains[chosen[place]] > 1e-9 * left:
                chosen[place] = best
                improved = True
    return chosen


def _residual(L: Floats, chosen: Indices) -> Floats:
    if not chosen.size:
        return L.copy()
    lower = scipy.linalg.cholesky(L[np.ix_(chosen, chosen)], lower=True, check_finite=False)
    factor = scipy.linalg.solve_triangular(lower, L[chosen], lower=True, check_finite=False)
    residual = L - factor.T @ factor
    residual[chosen] = 0.0
    residual[:, chosen] = 0.0
    return residual


def exhaustive(gram: Gram, k: int) -> Indices:
    """The k columns of least error among all subsets.

    Raises:
        ValueError: There are more than 2,000,000 subsets.
    """
    subsets = comb(gram.n, k)
    if subsets > MOST_SUBSETS:
        raise ValueError(
            f"method='exhaustive': {k} of {gram.n} columns are {subsets:,} subsets; accepted: up "
            f"to {MOST_SUBSETS:,}. method='local_search' comes near"
        )
    L = gram.dense()
    return best_subset(L, k, SPENT * float(L.diagonal().max()))[0]
