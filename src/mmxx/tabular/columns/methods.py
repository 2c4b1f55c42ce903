"""The ways to choose k columns, by name; and the error of a choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from numpy.random import RandomState

from mmxx.tabular.columns import pivoting, spectrum
from mmxx.tabular.columns.draws import check_rank, sample_projection
from mmxx.tabular.columns.gram import ColumnGram, Floats, Gram, Indices
from mmxx.tabular.columns.sampling import sample_kdpp

_ROUNDS = 4  # of adaptive sampling


def select(gram: Gram, k: int, method: str, rng: RandomState) -> Indices:
    """Choose k columns.

    Args:
        gram: What to choose from.
        k: How many.
        method: One of `METHODS`.
        rng: For those that draw.

    Returns:
        Different indices in the order of choice, [≤ k]: fewer where nothing is left to choose.

    Raises:
        ValueError: The method needs a matrix that is too large, or a rank of k.
    """
    return METHODS[method](gram, k, rng)


def check_method(method: str) -> None:
    """Refuse an unknown name."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")


def is_random(method: str) -> bool:
    """Whether a method draws."""
    return method not in _FIXED


def _uniform(gram: Gram, k: int, rng: RandomState) -> Indices:
    return rng.permutation(gram.n)[:k]  # as scikit-learn's Nystroem draws them


def _weighted(weights: Floats, k: int, rng: RandomState) -> Indices:
    """Without replacement, each next one by its weight."""
    k = min(k, int((weights > 0).sum()))
    return rng.choice(weights.size, k, replace=False, p=weights / weights.sum())


def _leverage(gram: Gram, k: int, rng: RandomState) -> Indices:
    vectors = gram.eigen[1][:, :k]
    return _weighted(np.einsum("ij,ij->i", vectors, vectors), k, rng)


def _ridge_leverage(gram: Gram, k: int, rng: RandomState) -> Indices:
    values, vectors = gram.eigen
    if k >= values.size:
        return _leverage(gram, k, rng)
    alpha = spectrum.alpha_for_size(values, k)
    return _weighted((vectors**2) @ (values / (values + alpha)), k, rng)


def _adaptive(gram: Gram, k: int, rng: RandomState) -> Indices:
    """In rounds by what is left of the squared lengths (Deshpande and Vempala, 2006)."""
    left = gram.diagonal()
    spent = pivoting.SPENT * left.max(initial=0.0)
    chosen = np.empty(0, np.int64)
    for part in np.array_split(np.arange(k), min(_ROUNDS, k)):
        left[left <= spent] = 0.0
        if not left.any():
            break
        chosen = np.concatenate([chosen, _weighted(left, part.size, rng)])
        left = residual_diagonal(gram, chosen)
        left[chosen] = 0.0
    return chosen


def _kdpp(gram: Gram, k: int, rng: RandomState) -> Indices:
    return sample_kdpp(gram, k, random_state=rng)[0]


def _projection(gram: Gram, k: int, rng: RandomState) -> Indices:
    """The DPP of the first k eigenvectors (Belhadji, Bardenet and Chainais, 2018)."""
    values, vectors = gram.eigen
    check_rank(values, k, gram.n)
    return sample_projection(vectors[:, :k], rng)[0]


def _pivoted_qr(gram: Gram, k: int, rng: RandomState) -> Indices:
    if not isinstance(gram, ColumnGram):
        return pivoting.pivoted_cholesky(gram, k)  # the same pivots, in exact arithmetic
    A = gram.take(np.arange(gram.n))
    factored: Any = scipy.linalg.qr(A, mode="r", pivoting=True, check_finite=False)
    return factored[1][:k].astype(np.int64)


METHODS: dict[str, Callable[[Gram, int, RandomState], Indices]] = {
    "uniform": _uniform,
    "leverage": _leverage,
    "ridge_leverage": _ridge_leverage,
    "adaptive": _adaptive,
    "kdpp": _kdpp,
    "projection": _projection,
    "rpcholesky": lambda gram, k, rng: pivoting.rpcholesky(gram, k, rng)[0],
    "greedy": lambda gram, k, rng: pivoting.greedy(gram, k),
    "pivoted_qr": _pivoted_qr,
    "pivoted_cholesky": lambda gram, k, rng: pivoting.pivoted_cholesky(gram, k),
    "local_search": lambda gram, k, rng: pivoting.local_search(gram, k),
    "exhaustive": lambda gram, k, rng: pivoting.exhaustive(gram, k),
}
_FIXED = frozenset(("greedy", "pivoted_qr", "pivoted_cholesky", "local_search", "exhaustive"))


def residual_diagonal(gram: Gram, indices: Indices) -> Floats:
    """The diagonal of L − L̂ [n] for some columns, at the cost of these columns of L."""
    pivots, lower = pivoted_factor(gram.block(indices))
    columns = gram.columns(indices[pivots]).T
    factor = scipy.linalg.solve_triangular(lower, columns, lower=True, check_finite=False)
    left = gram.diagonal() - np.einsum("ij,ij->j", factor, factor)
    left[indices] = 0.0
    return np.maximum(left, 0.0)


def pivoted_factor(block: Floats) -> tuple[Indices, Floats]:
    """Cholesky factor of the part of L_SS that is more than rounding: (rows of it, factor)."""
    lapack: Any = scipy.linalg.lapack
    lower, order, rank, _ = lapack.dpstrf(
        block, lower=1, tol=block.diagonal().max(initial=0.0) * pivoting.SPENT
    )
    return order[:rank].astype(np.int64) - 1, np.tril(lower[:rank, :rank])
