"""k-DPPs of large kernels: exact draws from a few hundred candidates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.random import Generator, RandomState

from mmxx.tabular.columns import spectrum
from mmxx.tabular.columns.draws import SampleInfo, Seeds, check_rank, checked_eigen, exact
from mmxx.tabular.columns.gram import Floats, Gram, Indices, rank_tolerance
from mmxx.tabular.columns.pivoting import rpcholesky

_MOST_CANDIDATES = 2000
_TRIES = 1000


@dataclass(frozen=True)
class _Estimate:
    """L/α approximated from some of its columns, and how candidates are drawn by it.

    Attributes:
        alpha: With which the approximation L̂/α has k elements on average.
        leverage: Ridge leverage under it, and what it leaves of the diagonal, [n].
        heights: Its running sum, [n].
        dimension: tr L̂/α (I + L̂/α)⁻¹.
        log_det: log det(I + L̂/α).
        over: ρ, candidates for each unit of leverage.
    """

    alpha: float
    leverage: Floats
    heights: Floats
    dimension: float
    log_det: float
    over: float

    @property
    def mean(self) -> float:
        """Candidates proposed on average."""
        return self.over * np.exp(1 / self.over) * self.heights[-1]


def _estimate(gram: Gram, k: int, rng: RandomState) -> _Estimate:
    diagonal = gram.diagonal()
    rank = min(4 * k, gram.n)
    while True:
        pivots, factor = rpcholesky(gram, rank, rng)
        values, vectors = scipy.linalg.eigh(factor.T @ factor, check_finite=False)
        values = np.maximum(values, 0.0)
        check_rank(values[values > rank_tolerance(values, gram.n)], k, gram.n)
        left = np.maximum(diagonal - np.einsum("ij,ij->i", factor, factor), 0.0)
        positive = values[values > 0]
        alpha = spectrum.alpha_for_size(positive, k) if k < positive.size else positive.min() / k
        # what is left out costs acceptance, exp(-Σ left/α) at worst, and makes more candidates
        if left.sum() <= alpha * max(1.0, k / 4) or pivots.size < rank:
            break
        if rank >= min(40 * k, 2000, gram.n):
            break
        rank = min(2 * rank, gram.n)
    # squared coordinates in the eigenvectors of L̂ are those of factor @ vectors over its values
    leverage = ((factor @ vectors) ** 2) @ (1 / (values + alpha)) + left / alpha
    total = float(leverage.sum())
    over = max(total / 3, 1.0)
    if over * np.exp(1 / over) * total > _MOST_CANDIDATES:
        over = max(_MOST_CANDIDATES / total / np.e, 1.0)
    return _Estimate(
        alpha, leverage, np.cumsum(leverage), float((values / (values + alpha)).sum()),
        float(np.log1p(values / alpha).sum()), over,
    )  # fmt: skip


@dataclass(frozen=True)
class _Candidates:
    """Points (a column may be there twice), and the eigenvalues and vectors of L̃ between them."""

    points: Indices
    values: Floats
    vectors: Floats


def intermediate(
    gram: Gram, k: int, seeds: Seeds, n_steps: int | None
) -> tuple[Indices, SampleInfo]:
    """k-DPPs of accepted sets of candidates.

    For points σ of a Poisson process with intensities r_i = ρ l_i, and L̃_ij = L_ij/(α √(r_i r_j))
    between them, the k-subsets drawn as often as Σ_T det(L̃_T) = e_k(L̃) says have the law of the
    k-DPP of L, whatever r is. By concavity of log det,
    e_k(L̃) ≤ det(I + L̃) ≤ det(I + L̂/α) exp(Σ_σ l_i/r_i - dimension), where l is the ridge leverage
    under L̂ plus (L - L̂)_ii/α. The factor exp(|σ|/ρ) is that of a process with intensities
    e^(1/ρ) r: it is proposed from that, and accepted with what remains of the ratio.
    """
    estimate = _estimate(gram, k, RandomState(int(seeds[0] >> np.uint64(32))))
    indices = np.empty((seeds.size, k), np.int64)
    refused, tries, last = 0, 0, 0
    for row, seed in zip(indices, seeds, strict=True):
        stream = np.random.default_rng(int(seed))
        found = None
        for _ in range(_TRIES):
            tries += 1
            found = _try(gram, k, estimate, stream, accept_any=False)
            if found is not None:
                break
        else:
            refused += 1
            while found is None:
                found = _try(gram, k, estimate, stream, accept_any=True)
        eigen = checked_eigen(found.values, found.vectors)
        row[:] = found.points[exact(*eigen, k, np.array([seed]))[0][0]]
        last = found.points.size
    if refused:
        warnings.warn(
            f"method='intermediate': {refused} of {seeds.size} draws are approximate, none of "
            f"{_TRIES} sets of candidates was accepted: the eigenvalues fall too slowly for "
            f"k = {k}. method='mcmc' or a smaller k would do",
            stacklevel=3,
        )
    return indices, SampleInfo(not refused, (seeds.size - refused) / tries, last)


def _try(
    gram: Gram, k: int, estimate: _Estimate, stream: Generator, *, accept_any: bool
) -> _Candidates | None:
    """A set of candidates, or None where it is refused or too small."""
    height = stream.random(stream.poisson(estimate.mean)) * estimate.heights[-1]
    points = np.minimum(np.searchsorted(estimate.heights, height, side="right"), gram.n - 1)
    if points.size < k:
        return None
    scale = 1 / np.sqrt(estimate.over * estimate.leverage[points] * estimate.alpha)
    small = gram.block(points) * np.outer(scale, scale)
    bound = estimate.log_det - estimate.dimension + points.size / estimate.over
    limit = bound + np.log(stream.random())
    if not accept_any and _log_det(small) < limit:  # e_k is smaller still, and costs more
        return None
    values, vectors = scipy.linalg.eigh(small, check_finite=False)
    values = np.maximum(values, 0.0)
    if (values > rank_tolerance(values, len(values))).sum() < k:
        return None
    if not accept_any and spectrum.log_esp(values, k)[k] < limit:
        return None
    return _Candidates(points, values, vectors)


def _log_det(small: Floats) -> float:
    """log det(I + L̃)."""
    lower = scipy.linalg.cholesky(small + np.eye(len(small)), lower=True, check_finite=False)
    return 2 * float(np.log(lower.diagonal()).sum())
