"""Exact Shapley values of a model's raw predictions, for trees and ridges alike."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from mmxx.tabular.snapboost.ensemble import Ensemble, total_coefficients, workers
from mmxx.tabular.snapboost.fourier import Encoder, Projection
from mmxx.tabular.snapboost.tree import Forest, goes_left

Array = NDArray[np.float64]
_DEEPEST = 32


class Attribution(NamedTuple):
    """What each column adds to the raw predictions; the fields are those of ``shap.Explanation``.

    Attributes:
        values: float64 [n, d], or [n, d, classes] with three classes or more.
        base_values: float64 [n] or [n, classes], the mean raw prediction of the background;
            with the sum of a row's values it is the row's raw prediction.
        data: float64 [n, d], the rows.
    """

    values: Array
    base_values: Array
    data: Array


def attribute(
    ensemble: Ensemble, X: Array, background: Array, rounds: int, n_jobs: int | None = None
) -> Attribution:
    r"""Shapley values of the game in which a column that does not play is a background row's.

    The mean over all background rows. Trees have at most $2^{depth}$ leaves that mix two rows, and
    each leaf's share has a closed form (Lundberg et al., 2020). A Fourier feature is the real part
    of a product over columns, whose Shapley values are the integral over t of
    $(u_j - v_j) \prod_{k \ne j} (t u_k + (1 - t) v_k)$: a polynomial, which Gauss's quadrature
    integrates exactly.

    Args:
        ensemble: The learners.
        X: float64 [n, d].
        background: float64 [m, d].
        rounds: How many rounds to take.
        n_jobs: Threads.

    Source: Lundberg et al., "From local explanations to global understanding with explainable AI
    for trees" (2020), on interventional values; the product form is ours.
    """
    chosen = [one for one in ensemble.learners if one.round < rounds]
    values = np.zeros((ensemble.classes, *X.shape))
    shares = _shares()
    ridge = None
    if any(one.coef is not None for one in chosen):
        assert ensemble.encoder is not None
        assert ensemble.projection is not None
        ridge = _Waves(ensemble.encoder, ensemble.projection, X, background)
    for k in range(ensemble.classes):
        forest = Forest.of([one.tree for one in chosen if one.tree is not None and one.klass == k])
        beta = total_coefficients(chosen, k)

        def add(row: int, k: int = k, forest: Forest = forest, beta: Any = beta) -> None:
            out = values[k, row]
            _attribute_trees(X[row], background, *forest, shares, ensemble.rate, out)
            if ridge is not None and beta is not None:
                ridge.attribute(row, ensemble.rate * beta, out)

        with workers(n_jobs) as (_, spread):
            list(spread(add, range(len(X))))
    values /= len(background)
    base = np.repeat(ensemble.raw(background, rounds).mean(1)[:, None], len(X), axis=1)
    if ensemble.classes == 1:
        return Attribution(values[0], base[0], X)
    return Attribution(np.moveaxis(values, 0, 2), base.T, X)


def _shares() -> Array:
    """``a! b! / (a + b + 1)!``, [32, 32]."""
    return np.array(
        [
            [math.exp(math.lgamma(a + 1) + math.lgamma(b + 1) - math.lgamma(a + b + 2))
             for b in range(_DEEPEST)]
            for a in range(_DEEPEST)
        ]
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _attribute_trees(x, background, nodes, roots, left_sets, shares, rate, out):
    """Add the values of all trees for one row, summed over the background, to ``out`` [d].

    Every leaf that can be reached by taking some columns from the row and the others from the
    background row is visited; ``columns`` and ``ours`` say which were taken from where.
    """
    columns, ours = np.empty(_DEEPEST, np.int64), np.empty(_DEEPEST, np.bool_)
    waiting = np.empty((_DEEPEST + 1, 4), np.int64)
    for z in background:
        for root in roots:
            waiting[0] = root, 0, -1, 0
            pending = 1
            while pending:
                pending -= 1
                place, count, column, mine = waiting[pending]
                if column >= 0:
                    columns[count - 1], ours[count - 1] = column, mine == 1
                node = nodes[place]
                column = np.int64(node["feature"])
                if column < 0:
                    taken = np.sum(ours[:count])
                    for k in range(count):
                        if ours[k]:
                            share = shares[taken - 1, count - taken]
                        else:
                            share = -shares[taken, count - taken - 1]
                        out[columns[k]] += rate * node["threshold"] * share
                    continue
                by_x = goes_left(node, x[column], left_sets)
                by_z = goes_left(node, z[column], left_sets)
                known = -1
                for k in range(count):
                    if columns[k] == column:
                        known = k
                if known >= 0 and by_x != by_z:
                    by_x = by_z = by_x if ours[known] else by_z
                step_x = 1 if by_x else np.int64(node["right"])
                if by_x == by_z:
                    waiting[pending] = place + step_x, count, -1, 0
                    pending += 1
                else:
                    step_z = 1 if by_z else np.int64(node["right"])
                    waiting[pending] = place + step_z, count + 1, column, 0
                    waiting[pending + 1] = place + step_x, count + 1, column, 1
                    pending += 2


class _Waves:
    """The Fourier features of rows and background, column by column.

    Args:
        encoder, projection: Of the model.
        X: float64 [n, d].
        background: float64 [m, d].
    """

    def __init__(
        self, encoder: Encoder, projection: Projection, X: Array, background: Array
    ) -> None:
        d = X.shape[1]
        self._phase = np.exp(1j * projection.b.astype(np.float64))
        self._scale = math.sqrt(2 / len(projection.b))
        self._mine, self._theirs = (
            _turns(encoder(rows), projection, encoder.origins, d) for rows in (X, background)
        )
        nodes, weights = np.polynomial.legendre.leggauss((d + 1) // 2)
        self._nodes, self._weights = (nodes + 1) / 2, weights / 2

    def attribute(self, row: int, beta: Array, out: Array) -> None:
        """Add the values of one row, summed over the background, to ``out`` [d]."""
        _attribute_waves(
            self._mine[row], self._theirs, self._phase * (self._scale * beta[:-1]), self._nodes,
            self._weights, out,
        )  # fmt: skip


def _turns(
    Z: NDArray[np.float32], projection: Projection, origins: NDArray[np.int64], d: int
) -> NDArray[np.complex128]:
    """``exp(i w_j z_j)`` for each column j of the table: [rows, components, d]."""
    phases = np.zeros((len(Z), projection.W.shape[1], d))
    for k, column in enumerate(origins):
        phases[:, :, column] += np.outer(Z[:, k].astype(np.float64), projection.W[k])
    return np.exp(1j * phases)


@njit(cache=True, nogil=True)
def _attribute_waves(mine, theirs, factors, nodes, weights, out):
    """Add the integrals of one row, summed over the background, to ``out``.

    Args:
        mine: complex128 [components, d], of the row.
        theirs: complex128 [m, components, d], of the background.
        factors: complex128 [components], what each product is multiplied by.
        nodes, weights: float64, of the quadrature on [0, 1].
        out: float64 [d].
    """
    components, d = mine.shape
    before = np.empty(d, np.complex128)
    for m in range(theirs.shape[0]):
        for c in range(components):
            for q in range(nodes.size):
                t = nodes[q]
                product = factors[c] * weights[q]
                for j in range(d):  # products of what stands before, then of what stands behind
                    before[j] = product
                    product *= t * mine[c, j] + (1 - t) * theirs[m, c, j]
                behind = 1.0 + 0.0j
                for j in range(d - 1, -1, -1):
                    u, v = mine[c, j], theirs[m, c, j]
                    out[j] += ((u - v) * before[j] * behind).real
                    behind *= t * u + (1 - t) * v
