"""Compiled loops: ratios of elementary symmetric polynomials, and draws of determinantal processes.

Every draw has a stream of its own, ``uniform(seed, position)``, so that draws may be made in any
order and in any process, and two samplers can be given the same numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

PROPOSALS = 1 << 32  # where the positions of a draw's second phase begin
_STEP, _MIX_1, _MIX_2 = (
    np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_PATIENCE = 300  # times k: so many refusals in a row have a chance of exp(-300)
_30, _27, _31, _11 = (np.uint64(bits) for bits in (30, 27, 31, 11))


@njit(cache=True, nogil=True, inline="always")
def uniform(seed, position):
    """A number in [0, 1) that depends on its place in the stream alone (SplitMix64)."""
    z = np.uint64(seed) + (np.uint64(position) + np.uint64(1)) * _STEP
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return np.float64((z ^ (z >> _31)) >> _11) * 2.0**-53


@njit(cache=True, nogil=True)
def uniforms(seed, start, count):
    """``count`` numbers of a stream from a position on."""
    found = np.empty(count)
    for place in range(count):
        found[place] = uniform(seed, start + place)
    return found


@njit(cache=True, nogil=True, error_model="numpy")  # which lets the compiler divide many at once
def next_ratios(lam, count, before, after):
    """Ratios q_l = e_l/e_{l-1} of one eigenvalue more, of those of the ``count - 1`` before.

    From e_l(m) = e_l(m-1) + λ e_{l-1}(m-1) follows
    q_l(m) = (q_l(m-1) + λ) · q_{l-1}(m-1)/(q_{l-1}(m-1) + λ): sums of positive numbers that neither
    overflow nor cancel, and by Newton's inequality no error grows. ``before`` and ``after`` may be
    the same array: l runs downwards. Place 0 is not used.
    """
    for degree in range(min(count, after.size - 1), 1, -1):
        lower = before[degree - 1]
        after[degree] = (before[degree] + lam) * (lower / (lower + lam))
    after[1] = before[1] + lam


@njit(cache=True, nogil=True)
def last_ratios(lam, kmax):
    """q_1 … q_kmax of all eigenvalues [r], in places 1 … kmax of [kmax + 1]; 0 beyond r."""
    ratios = np.zeros(kmax + 1)
    for place in range(lam.size):
        next_ratios(lam[place], place + 1, ratios, ratios)
    return ratios


@njit(cache=True, nogil=True)
def all_ratios(lam, k):
    """The same for every beginning of the spectrum: [r + 1, k + 1], row m for m eigenvalues."""
    table = np.zeros((lam.size + 1, k + 1))
    for place in range(lam.size):
        next_ratios(lam[place], place + 1, table[place], table[place + 1])
    return table


@njit(cache=True, nogil=True)
def choose_eigenvectors(lam, table, seed, chosen):
    """Phase 1 of a k-DPP: k of r eigenvectors, each set as likely as its product of eigenvalues.

    From the smallest eigenvalue on; given that l of the first m are still to be chosen, the m-th
    is with probability λ_m e_{l-1}(m-1)/e_l(m) = λ_m/(q_l(m-1) + λ_m).
    """
    left = chosen.size
    for place in range(lam.size - 1, -1, -1):
        if left == 0:
            break
        if left == place + 1 or (
            uniform(seed, place) * (table[place, left] + lam[place]) < lam[place]
        ):
            left -= 1
            chosen[left] = place


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(a, b):
    total = 0.0
    for place in range(a.size):
        total += a[place] * b[place]
    return total


@njit(cache=True, nogil=True)
def consider(row, leverage, u, basis, count):
    """Whether a proposed row of V [k] joins the ``count`` before it, whose basis is orthonormal.

    The proposal came with probability ‖row‖² / k; what it should have is the squared length of
    what the basis leaves of it. A first pass refuses by subtraction; whatever passes it is made
    orthogonal twice, so that the length that decides has no cancellation, and kept in the basis.
    """
    left = leverage
    for place in range(count):
        left -= _dot(basis[place], row) ** 2
        if left < u * leverage - 1e-8 * leverage:
            return False
    rest = basis[count]
    rest[:] = row
    for _ in range(2):
        for place in range(count):
            along = _dot(basis[place], rest)
            for column in range(rest.size):
                rest[column] -= along * basis[place, column]
    length = _dot(rest, rest)
    if not length > u * leverage:
        return False
    rest /= np.sqrt(length)
    return True


@njit(cache=True, nogil=True)
def _leverage(vectors, chosen):
    """Squared lengths of the rows of some columns, [n], read as they lie in memory."""
    n = vectors.shape[0]
    leverage = np.zeros(n)
    if vectors.strides[0] <= vectors.strides[1]:
        for column in chosen:
            for row in range(n):
                leverage[row] += vectors[row, column] ** 2
    else:
        for row in range(n):
            for column in chosen:
                leverage[row] += vectors[row, column] ** 2
    return leverage


@njit(cache=True, nogil=True)
def project(vectors, chosen, seed, indices):
    """Phase 2: ``indices.size`` rows from the projection on some columns of ``vectors`` [n, r].

    Rows are proposed by their leverage and refused by what the rows before leave of it, about
    k ln k proposals in all: O(nk + k³ ln k) instead of O(nk²).

    Returns:
        Whether there were so many. Of orthonormal columns there are; of others a length may be
        off, or none of the proposals, k for one row at most on average, leaves enough.
    """
    k = chosen.size
    leverage = _leverage(vectors, chosen)
    heights = np.cumsum(leverage)
    if not abs(heights[-1] - k) <= 1e-6 * k:
        return False
    basis, row = np.empty((k, k)), np.empty(k)
    position = PROPOSALS
    for count in range(k):
        for _ in range(_PATIENCE * k):
            height = uniform(seed, position) * heights[-1]
            place = min(np.searchsorted(heights, height, side="right"), heights.size - 1)
            for column in range(k):
                row[column] = vectors[place, chosen[column]]
            taken = consider(row, leverage[place], uniform(seed, position + 1), basis, count)
            position += 2
            if taken:
                indices[count] = place
                break
        else:
            return False
    return True


@njit(cache=True, nogil=True)
def draw_kdpps(lam, vectors, columns, table, seeds, indices):
    """A k-DPP for each seed, into ``indices`` [size, k]; False where one could not be drawn.

    ``columns`` [r] says where the eigenvector of each eigenvalue stands among the ``vectors``.
    """
    chosen = np.empty(indices.shape[1], np.int64)
    for draw in range(seeds.size):
        choose_eigenvectors(lam, table, seeds[draw], chosen)
        if not project(vectors, columns[chosen], seeds[draw], indices[draw]):
            return False
    return True


@njit(cache=True, nogil=True)
def take_proposals(rows, leverage, u, basis, count, taken):
    """`consider` for proposed rows [m, k] in turn, until the basis is full.

    Returns how many are taken in all; ``taken[count:]`` receives their places among the rows.
    """
    for place in range(rows.shape[0]):
        if count == basis.shape[0]:
            break
        if consider(rows[place], leverage[place], u[place], basis, count):
            taken[count] = place
            count += 1
    return count


@njit(cache=True, nogil=True)
def swap_chain(L, subset, steps, seed):
    """Exchange chain of a k-DPP: changes ``subset`` [k] in place; returns how many it accepted.

    Each step proposes one of the k to leave and any of the n to come in (one that is in already
    changes nothing, which makes the chain aperiodic), accepted with the ratio of determinants.
    The inverse of L[subset, subset] follows by two updates of rank one.
    """
    n, k = L.shape[0], subset.size
    inside = np.zeros(n, np.bool_)
    inside[subset] = True
    inverse = np.linalg.inv(_block(L, subset))
    without, column = np.empty((k, k)), np.empty(k)
    accepted = 0
    for step in range(steps):
        leaving = int(uniform(seed, 3 * step) * k)
        coming = int(uniform(seed, 3 * step + 1) * n)
        if inside[coming]:
            continue
        for place in range(k):
            column[place] = L[subset[place], coming] if place != leaving else 0.0
        # the inverse without the leaving one: its row and column become zero
        weight = inverse[leaving, leaving]
        reach = _dot(inverse[leaving], column)
        applied = inverse @ column - inverse[leaving] * (reach / weight)
        schur = L[coming, coming] - _dot(applied, column)
        if not schur * weight > uniform(seed, 3 * step + 2):  # det ratio
            continue
        accepted += 1
        inside[subset[leaving]], inside[coming] = False, True
        subset[leaving] = coming
        if accepted % 256 == 0:  # so that no rounding piles up
            inverse = np.linalg.inv(_block(L, subset))
            continue
        for i in range(k):
            for j in range(k):
                without[i, j] = inverse[i, j] - inverse[i, leaving] * inverse[leaving, j] / weight
        applied[leaving] = -1.0
        for i in range(k):
            for j in range(k):
                inverse[i, j] = without[i, j] + applied[i] * applied[j] / schur
    return accepted


@njit(cache=True, nogil=True)
def _block(L, subset):
    block = np.empty((subset.size, subset.size))
    for i in range(subset.size):
        for j in range(subset.size):
            block[i, j] = L[subset[i], subset[j]]
    return block


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_outer(residual, vector, sign, squares):
    """residual += sign · vector vectorᵀ; ``squares`` [n] receives the row sums of its squares."""
    for i in range(residual.shape[0]):
        total, scaled = 0.0, sign * vector[i]
        for j in range(residual.shape[1]):
            residual[i, j] += scaled * vector[j]
            total += residual[i, j] ** 2
        squares[i] = total


@njit(cache=True, nogil=True)
def best_subset(L, k, least):
    """The k columns of least trace error among all, by depth-first search; (subset, error).

    A column whose residual is below ``least`` is in the span already and gains nothing.
    """
    n = L.shape[0]
    residuals = np.empty((k, n, n))
    residuals[0] = L
    squares, vector = np.empty(n), np.empty(n)
    gains = np.empty((k, n))
    traces = np.empty(k)
    subset, best = np.arange(k), np.arange(k)
    error = np.inf
    depth, fresh = 0, True
    subset[0] = -1
    while depth >= 0:
        if fresh:
            residual = residuals[depth]
            traces[depth] = 0.0
            for i in range(n):
                traces[depth] += residual[i, i]
                total = 0.0
                for j in range(n):
                    total += residual[i, j] ** 2
                gains[depth, i] = total / residual[i, i] if residual[i, i] > least else 0.0
            fresh = False
        subset[depth] += 1
        column = subset[depth]
        if column > n - k + depth:
            depth -= 1
        elif depth == k - 1:
            left = traces[depth] - gains[depth, column]
            if left < error:
                error = left
                best[:] = subset
        else:
            residuals[depth + 1] = residuals[depth]
            pivot = residuals[depth, column, column]
            if pivot > least:
                vector[:] = residuals[depth, column] / np.sqrt(pivot)
                add_outer(residuals[depth + 1], vector, -1.0, squares)
            depth += 1
            subset[depth] = column
            fresh = True
    return best, error
