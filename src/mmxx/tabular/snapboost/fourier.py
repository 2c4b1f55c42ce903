"""Random Fourier features of standardised columns, and ridge regression on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray
from scipy.linalg import eigh, lapack

from mmxx.tabular.snapboost.binning import Map
from mmxx.tabular.snapboost.shards import Reduce

_lapack: Any = lapack
Array = NDArray[np.float64]
Single = NDArray[np.float32]

BLOCK_ROWS = 8192
KEEP_BYTES = 2**30  # features of more bytes are computed anew each time they are used
_MUCH = 10**9  # products in a Gram matrix from which they take longer than all else in a round
_FARTHEST = 1e6  # deviations from the mean, so that a cosine of any value is finite


@dataclass(frozen=True)
class Encoder:
    """Columns as numbers of mean 0 and variance 1, for features that depend on scale.

    A missing value becomes the mean, and a column that had any gets an indicator beside it. A
    category becomes a 1 among zeros. A constant column becomes 0.

    Attributes:
        size: float64 [d], the largest magnitude of each column, by which it is divided first.
        mean, rate: float64 [d], mean and inverse deviation of what that leaves.
        gaps: bool [d], whether a column gets an indicator.
        codes: int64 [d], the number of categories, or -1.
        variance: Sum of the variances of all columns it makes.
    """

    size: Array
    mean: Array
    rate: Array
    gaps: NDArray[np.bool_]
    codes: NDArray[np.int64]
    variance: float

    @classmethod
    def of(cls, X: Array, w: Array, codes: NDArray[np.int64]) -> Encoder:
        """Measure the columns: X float64 [n, d], weights w [n], numbers of categories [d]."""
        size, mass, mean, square, present = _moments(X, w)
        deviation = np.sqrt(square / mass)
        rate = np.where(deviation > 1e-12, 1 / np.maximum(deviation, 1e-12), 0.0)
        numbers = codes < 0
        gaps = numbers & (present > 0) & (present < len(X))
        share = mass / w.sum()
        encoder = cls(size, mean, rate, gaps, codes, 1.0)
        variance = float((share * (rate > 0))[numbers].sum() + (share * (1 - share))[gaps].sum())
        for j in np.flatnonzero(~numbers):
            there = ~np.isnan(X[:, j])
            p = np.bincount(X[there, j].astype(int), w[there]) / w.sum()
            variance += float((p * (1 - p)).sum())
        object.__setattr__(encoder, "variance", variance or 1.0)
        return encoder

    @property
    def origins(self) -> NDArray[np.int64]:
        """For each column that it makes, the column it comes from: [width]."""
        categories = np.repeat(np.arange(len(self.codes)), np.maximum(self.codes, 0))
        return np.concatenate(
            [np.flatnonzero(self.codes < 0), np.flatnonzero(self.gaps), categories]
        )

    def __call__(self, X: Array) -> Single:
        """Encode rows: float32 [n, width]: first the numbers, then indicators, then categories."""
        numbers = np.flatnonzero(self.codes < 0)
        out = np.empty((len(X), len(self.origins)), np.float32)
        _standardise(np.ascontiguousarray(X), numbers, self.size, self.mean, self.rate, out)
        parts = [np.isnan(X[:, self.gaps])]
        parts += [
            X[:, j : j + 1] == np.arange(self.codes[j]) for j in np.flatnonzero(self.codes >= 0)
        ]
        np.concatenate(parts, axis=1, out=out[:, len(numbers) :])
        return out


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(X, w):
    """Largest magnitude, mass, mean over it, mass of squares, and how many: [d] each.

    Mean and squares are those of the values over their largest magnitude; NaN does not count.
    """
    d = X.shape[1]
    size, mass, mean, square = np.zeros(d), np.zeros(d), np.zeros(d), np.zeros(d)
    present = np.zeros(d, np.int64)
    for i in range(X.shape[0]):
        row, weight = X[i], w[i]
        for j in range(d):  # loops of one sum each, of which the compiler makes many at a time
            size[j] = abs(row[j]) if abs(row[j]) > size[j] else size[j]
        for j in range(d):
            mass[j] += weight if row[j] == row[j] else 0.0
        for j in range(d):
            present[j] += row[j] == row[j]
    for j in range(d):
        size[j] = size[j] if size[j] > 0 else 1.0
        mass[j] = max(mass[j], 1e-300)
    for i in range(X.shape[0]):
        row, weight = X[i], w[i]
        for j in range(d):
            mean[j] += weight * (row[j] / size[j]) if row[j] == row[j] else 0.0
    mean /= mass
    for i in range(X.shape[0]):
        row, weight = X[i], w[i]
        for j in range(d):
            off = row[j] / size[j] - mean[j]
            square[j] += weight * off * off if row[j] == row[j] else 0.0
    return size, mass, mean, square, present


@njit(cache=True, nogil=True)
def _standardise(X, columns, size, mean, rate, out):
    """Columns less their mean, over their deviation; 0 where they are missing."""
    for i in range(X.shape[0]):
        for k in range(columns.size):
            j = columns[k]
            z = (X[i, j] / size[j] - mean[j]) * rate[j]
            out[i, k] = min(max(z, -_FARTHEST), _FARTHEST) if z == z else 0.0


def _wave() -> Single:
    """Coefficients of s(u²) u, which is sin(2πu) for |u| ≤ 1/4 to the precision of float32."""
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 128) / 4
    powers = nodes[:, None] ** np.arange(1, 12, 2)
    return np.linalg.lstsq(powers, np.sin(2 * np.pi * nodes), rcond=None)[0].astype(np.float32)


_S = tuple(_wave())
_TURNS = np.float32(0.5 / math.pi)
_QUARTER = np.float32(0.25)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _features(Z, W, b, scale, out):
    """``scale cos(Z W + b)``, row by row: a row has the same bits in every company.

    Four columns at once, since storing the sums would take most of the time; and the cosine by a
    polynomial, so that the compiler makes many at a time.
    """
    columns, width = W.shape
    fours = columns - columns % 4
    for i in range(Z.shape[0]):
        row = out[i]
        row[:] = b
        for j in range(0, fours, 4):
            z0, z1, z2, z3 = Z[i, j], Z[i, j + 1], Z[i, j + 2], Z[i, j + 3]
            for k in range(width):
                row[k] += z0 * W[j, k] + z1 * W[j + 1, k] + z2 * W[j + 2, k] + z3 * W[j + 3, k]
        for j in range(fours, columns):
            z = Z[i, j]
            for k in range(width):
                row[k] += z * W[j, k]
        for k in range(width):
            turns = row[k] * _TURNS
            u = _QUARTER - abs(turns - np.rint(turns))
            v = u * u
            wave = _S[0] + v * (_S[1] + v * (_S[2] + v * (_S[3] + v * (_S[4] + v * _S[5]))))
            row[k] = scale * (u * wave)


@njit(cache=True, nogil=True)
def _weigh(phi, h, out):
    """``[phi, 1]`` times the roots of h, row by row, into ``out`` [m, c + 1]."""
    width = phi.shape[1]
    for i in range(h.size):
        root = np.sqrt(h[i])
        for k in range(width):
            out[i, k] = phi[i, k] * root
        out[i, width] = root


@njit(cache=True, nogil=True)
def _add_transposed(phi, g, out):
    """Add ``[phi, 1]ᵀ g`` to ``out``, float64 [c + 1]."""
    width = phi.shape[1]
    for i in range(g.size):
        for k in range(width):
            out[k] += phi[i, k] * g[i]
        out[width] += g[i]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_product(phi, beta, out):
    """Add ``[phi, 1] beta`` to ``out``, float64 [m]."""
    width = phi.shape[1]
    for i in range(out.size):
        total = beta[width]
        for k in range(width):
            total += phi[i, k] * beta[k]
        out[i] += total


@dataclass(frozen=True)
class Projection:
    r"""Random Fourier features (Rahimi and Recht, 2007): $\sqrt{2/c}\,\cos(W^\top z + b)$.

    The mean of the product of two rows' features is $\exp(-\gamma\|z - z'\|^2)$.

    Attributes:
        W: float32 [width, c], from N(0, 2γ).
        b: float32 [c], uniform on [0, 2π).
    """

    W: Single
    b: Single

    @classmethod
    def draw(
        cls, width: int, components: int, gamma: float, rng: np.random.Generator
    ) -> Projection:
        """Draw the projection of ``width`` columns onto ``components`` features."""
        W = rng.standard_normal((components, width)).T * math.sqrt(2 * gamma)
        b = rng.uniform(0, 2 * math.pi, components)
        return cls(np.ascontiguousarray(W, np.float32), b.astype(np.float32))

    def __call__(self, Z: Single, out: Single | None = None) -> Single:
        """The features of encoded rows, float32 [m, c]; into ``out``, if given."""
        out = np.empty((len(Z), self.W.shape[1]), np.float32) if out is None else out
        _features(Z, self.W, self.b, np.float32(math.sqrt(2 / self.W.shape[1])), out)
        return out

    def slopes(self, Z: Single, beta: Array) -> Array:
        """The gradient of ``[Φ, 1] β`` with respect to each encoded row: [m, width]."""
        phases = Z.astype(np.float64) @ self.W + self.b
        return -math.sqrt(2 / len(self.b)) * (np.sin(phases) * beta[:-1]) @ self.W.T


class Features:
    """The features of many rows, kept where there is room for them.

    Args:
        X: float64 [n, d], the rows.
        encode: Makes encoded rows, float32 [m, width], of some of them; block by block, since all
            of them would only be written and read once.
        projection: What to apply to these.
        map: What to spread blocks of rows with.
    """

    def __init__(
        self, X: Array, encode: Callable[[Any], Single], projection: Projection, map: Map = map
    ) -> None:
        self.width = projection.W.shape[1]
        self._X, self._encode, self._projection, self._map = X, encode, projection, map
        self._kept: Single | None = None
        if 4 * len(X) * self.width <= KEEP_BYTES:
            # in one piece, for which the system has large pages
            kept = np.empty((len(X), self.width), np.float32)
            list(map(lambda rows: projection(encode(X[rows]), kept[rows]), self._blocks()))
            self._kept = kept

    def _blocks(self) -> list[slice]:
        starts = range(0, len(self._X), BLOCK_ROWS)
        return [slice(start, min(start + BLOCK_ROWS, len(self._X))) for start in starts]

    def _phi(self, rows: slice) -> Single:
        if self._kept is None:
            return self._projection(self._encode(self._X[rows]))
        return self._kept[rows]

    def gram(self, h: Array, *, single: bool = False) -> Array:
        """``[Φ, 1]ᵀ diag(h) [Φ, 1]``: float64 [c + 1, c + 1]; always added up in the same order.

        With ``single`` only the sums over blocks are float64, which takes half the time.
        """
        total = np.zeros((self.width + 1, self.width + 1))
        dtype, unit = np.float64, 1.0
        if single:  # in units of the mean, of which float32 can hold the squares
            dtype, unit = np.float32, float(h.mean()) or 1.0
        room = np.empty((min(BLOCK_ROWS, len(h)), self.width + 1), dtype)
        for rows in self._blocks():
            scaled = room[: rows.stop - rows.start]
            _weigh(self._phi(rows), h[rows] / unit, scaled)
            total += scaled.T @ scaled
        return total * unit

    def transposed(self, g: Array) -> Array:
        """``[Φ, 1]ᵀ g``: float64 [c + 1]."""

        def part(rows: slice) -> Array:
            out = np.zeros(self.width + 1)
            _add_transposed(self._phi(rows), g[rows], out)
            return out

        return np.sum(list(self._map(part, self._blocks())), axis=0)

    def add_product(self, beta: Array, out: Array) -> None:
        """Add ``[Φ, 1] β`` to ``out``, float64 [n]."""
        list(self._map(lambda rows: add_product(self._phi(rows), beta, out[rows]), self._blocks()))


class Ridge:
    r"""One ridge round: $(\Phi^\top H\Phi + \alpha I)\beta = -\Phi^\top g$, g/h never being formed.

    Without a penalty it is the solution of least norm. The intercept is not penalised.

    Args:
        features: Φ.
        alpha: The penalty, 0 or more.
        relative: Whether the penalty is a multiple of the mean curvature, so that it does not
            outgrow the data in late rounds of the log-loss.
        fit_intercept: Whether there is an intercept.
        allreduce: With rows shared among machines, the sum over all of them of a float64 array.

    Attributes:
        factor: The triangle of the last factorisation, float64 [c + 1, c + 1] or without the
            intercept; None before there is one, and where the matrix was singular.
    """

    def __init__(
        self,
        features: Features,
        alpha: float,
        *,
        relative: bool = True,
        fit_intercept: bool = True,
        allreduce: Reduce | None = None,
    ) -> None:
        self._features, self._alpha, self._relative = features, alpha, relative
        self._used = features.width + fit_intercept
        self._allreduce = allreduce or (lambda array: array)
        self.factor: Array | None = None
        self._inverse: Array | None = None

    def solve(self, g: Array, h: Array, mass: float, *, same: bool = False) -> Array:
        """The coefficients, float64 [c + 1], the intercept last.

        Args:
            g, h: float64 [n], gradients and curvatures.
            mass: Sum of the rows' weights, over all machines.
            same: Whether h is that of the last call, whose factorisation then serves again.
        """
        if not same or (self.factor is None and self._inverse is None):
            self._factorise(h, mass)
        right = -self._allreduce(self._features.transposed(g))[: self._used]
        beta = np.zeros(self._features.width + 1)
        if self.factor is not None:
            beta[: self._used], _ = _lapack.dpotrs(self.factor, right)
        else:
            assert self._inverse is not None
            beta[: self._used] = self._inverse @ (self._inverse.T @ right)
        return beta

    def _is_safe(self, h: Array, mass: float) -> bool:
        """Whether products of float32 save much time, and their error is little to the penalty.

        They err by some 1e-7 of the diagonal, whose mean is Σh/c. With a penalty of 1e-4 of that,
        predictions change by less than 1e-3 of their deviation.
        """
        width = self._features.width
        most = mass if self._relative else float(h.sum())
        return len(h) * width**2 > _MUCH and self._alpha * width > 1e-4 * most

    def _factorise(self, h: Array, mass: float) -> None:
        gram = self._allreduce(self._features.gram(h, single=self._is_safe(h, mass)))
        # the intercept's entry is the sum of curvatures
        alpha = self._alpha * gram[-1, -1] / mass if self._relative else self._alpha
        gram = gram[: self._used, : self._used]
        width = self._features.width
        gram[np.arange(width), np.arange(width)] += alpha
        self.factor = self._inverse = None
        if alpha > 0:
            factor, failed = _lapack.dpotrf(gram, clean=0)
            # a pivot far below the largest has no digit left
            pivots = np.square(np.diagonal(factor))
            if not failed and pivots.min() > 1e-13 * pivots.max():
                self.factor = factor
                return
        values, vectors = eigh(gram)
        kept = values > max(values[-1], 0.0) * len(values) * np.finfo(float).eps
        self._inverse = vectors[:, kept] / np.sqrt(values[kept])
