"""How draws of determinantal processes are made: from eigenvectors, from AAᵀ, or by a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.random import Generator, RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from mmxx.tabular.columns._kernels import (
    PROPOSALS,
    all_ratios,
    choose_eigenvectors,
    draw_kdpps,
    project,
    swap_chain,
    take_proposals,
    uniforms,
)
from mmxx.tabular.columns.gram import ColumnGram, Floats, Gram, Indices, rank_tolerance
from mmxx.tabular.columns.pivoting import rpcholesky

Random = int | RandomState | Generator | None
Seeds = NDArray[np.uint64]
_MANY = 32  # draws that are worth a copy of the eigenvectors column by column


@dataclass(frozen=True)
class SampleInfo:
    """How draws were made.

    Attributes:
        exact: Whether they have the k-DPP's law exactly, up to rounding.
        acceptance: Share of accepted proposals: swaps of "mcmc", candidate sets of
            "intermediate"; 1 for the others.
        candidates: Columns among which the last draw was made; n for all but "intermediate".
    """

    exact: bool
    acceptance: float
    candidates: int


def sample_projection(vectors: Floats, random_state: Random, size: int = 1) -> Indices:
    """Draws [size, k] of the projection DPP of VVᵀ, the columns of V [n, k] being orthonormal."""
    indices = np.empty((size, vectors.shape[1]), np.int64)
    for row, seed in zip(indices, seeds_of(random_state, size), strict=True):
        check_drawn(project(vectors, np.arange(vectors.shape[1]), seed, row))
    return indices


def check_drawn(done: Any) -> None:
    """Refuse vectors from which a draw did not come to its end."""
    if not done:
        raise ValueError(
            "eigenvectors must be finite and orthonormal, those that were drawn are not"
        )


def seeds_of(random_state: Random, size: int) -> Seeds:
    """The seed of each draw's stream."""
    if isinstance(random_state, Generator):
        return random_state.integers(2**64, size=size, dtype=np.uint64)
    rng = cast(RandomState, check_random_state(random_state))
    words = rng.randint(0, 2**32, size=(size, 2), dtype=np.uint64)
    return words[:, 0] << np.uint64(32) | words[:, 1]


def checked_eigen(values: ArrayLike, vectors: ArrayLike) -> tuple[Floats, Floats, Indices]:
    """Eigenvalues above rounding [r], descending; vectors [n, m] as given; the columns of those.

    The vectors are neither copied nor read: for a single draw that would take most of the time.
    """
    lam, U = np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    if lam.ndim != 1 or U.ndim != 2 or U.shape[1] != lam.size or U.shape[0] < lam.size:
        raise ValueError(f"eigen must be values [r] and vectors [n, r], got {lam.shape}, {U.shape}")
    if not np.isfinite(lam).all():
        raise ValueError("eigen: eigenvalues must be finite, got NaN or inf")
    if lam.min(initial=0.0) < -1e-10 * lam.max(initial=0.0):
        raise ValueError(f"eigen: eigenvalues must be 0 or more, got {lam.min():g}")
    order = np.argsort(-lam, kind="stable")
    order = order[lam[order] > rank_tolerance(lam, U.shape[0])]
    return lam[order], U, order


def check_rank(values: Floats, k: int, n: int) -> None:
    """Refuse more columns than there are eigenvalues above rounding."""
    if k > values.size:
        largest = values[0] if values.size else 0.0
        raise ValueError(
            f"k = {k} exceeds the numerical rank {values.size} (eigenvalues above "
            f"{n * np.finfo(np.float64).eps * largest:.3g}): no subset of that size has a volume"
        )


def exact(
    values: Floats, vectors: Floats, columns: Indices, k: int, seeds: Seeds
) -> tuple[Indices, SampleInfo]:
    """Draws from eigenvalues [r], descending, and their ``columns`` among the vectors [n, m]."""
    check_rank(values, k, vectors.shape[0])
    if seeds.size >= _MANY or not vectors.flags.forc:
        vectors = np.asfortranarray(vectors)
    indices = np.empty((seeds.size, k), np.int64)
    scaled = values / values[0]
    check_drawn(draw_kdpps(scaled, vectors, columns, all_ratios(scaled, k), seeds, indices))
    return indices, SampleInfo(True, 1.0, vectors.shape[0])


def primal(gram: Gram, k: int, seeds: Seeds, n_steps: int | None) -> tuple[Indices, SampleInfo]:
    """Draws from the eigenvectors of L."""
    values, vectors = gram.eigen
    return exact(values, vectors, np.arange(values.size), k, seeds)


def dual(gram: Gram, k: int, seeds: Seeds, n_steps: int | None) -> tuple[Indices, SampleInfo]:
    """As exact, but rows of V = Aᵀ U Λ^-½ are made where they are proposed."""
    if not isinstance(gram, ColumnGram):
        raise ValueError("method='dual' needs A=, a table [d, n] with d ≪ n")
    values, left = gram.rows
    check_rank(values, k, gram.d)
    scaled = values / values[0]
    table = all_ratios(scaled, k)
    indices = np.empty((seeds.size, k), np.int64)
    chosen = np.empty(k, np.int64)
    for row, seed in zip(indices, seeds, strict=True):
        choose_eigenvectors(scaled, table, seed, chosen)
        _project_columns(gram, (left[:, chosen] / np.sqrt(values[chosen])).T, seed, row)
    return indices, SampleInfo(True, 1.0, gram.n)


def _project_columns(gram: ColumnGram, onto: Floats, seed: np.uint64, indices: Indices) -> None:
    """`project` for V = (onto A)ᵀ, onto [k, d], with proposals in pools and the same stream."""
    k = len(onto)
    leverage = np.empty(gram.n)
    for start, block in gram.blocks():
        part = onto @ block
        np.einsum("ij,ij->j", part, part, out=leverage[start : start + part.shape[1]])
    heights = np.cumsum(leverage)
    basis = np.empty((k, k))
    taken = np.empty(k, np.int64)
    pool = 2 * k + int(k * np.log(k))  # some more than are needed on average
    count, position = 0, PROPOSALS
    while count < k:
        u = uniforms(seed, position, 2 * pool).reshape(pool, 2)
        position += 2 * pool
        places = np.searchsorted(heights, u[:, 0] * heights[-1], side="right")
        places = np.minimum(places, gram.n - 1)
        rows = np.ascontiguousarray((onto @ gram.take(places)).T)
        before = count
        count = take_proposals(rows, leverage[places], u[:, 1].copy(), basis, before, taken)
        indices[before:count] = places[taken[before:count]]


def mcmc(gram: Gram, k: int, seeds: Seeds, n_steps: int | None) -> tuple[Indices, SampleInfo]:
    n = gram.n
    start, _ = rpcholesky(gram, k, RandomState(int(seeds[0] >> np.uint64(32))))
    if start.size < k:
        raise ValueError(f"k = {k} exceeds the numerical rank, near {start.size}")
    steps = int(np.ceil(n * k * np.log(max(n, 2)))) if n_steps is None else n_steps
    L = gram.dense()
    indices = np.empty((seeds.size, k), np.int64)
    accepted, subset = 0, start
    for row, seed in zip(indices, seeds, strict=True):
        accepted += swap_chain(L, subset, steps, seed)
        row[:] = subset
    return indices, SampleInfo(False, accepted / (steps * seeds.size), n)
