"""Random Fourier features of standardised columns, and ridge regression on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray
from scipy.linalg import eigh, lapack

from mmxx.tabular.snapboost.tree import Map, Reduce

_lapack: Any = lapack
Array = NDArray[np.float64]
Single = NDArray[np.float32]

BLOCK_ROWS = 8192
KEEP_BYTES = 2**30  # features of more bytes are computed anew each time they are used
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
        there = ~np.isnan(X)
        plain = np.where(there, X, 0.0)
        size = np.abs(plain).max(0, initial=0.0)
        size[size == 0] = 1.0
        plain /= size
        mass = np.maximum(w @ there, 1e-300)
        mean = (w @ plain) / mass
        squares = np.where(there, np.square(plain - mean), 0.0)
        deviation = np.sqrt((w @ squares) / mass)
        rate = np.where(deviation > 1e-12, 1 / np.maximum(deviation, 1e-12), 0.0)
        numbers = codes < 0
        gaps = numbers & ~there.all(0) & there.any(0)
        share = (w @ there) / w.sum()
        encoder = cls(size, mean, rate, gaps, codes, 1.0)
        variance = float((share * (rate > 0))[numbers].sum() + (share * (1 - share))[gaps].sum())
        for j in np.flatnonzero(~numbers):
            p = np.bincount(X[there[:, j], j].astype(int), w[there[:, j]]) / w.sum()
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
        numbers = self.codes < 0
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (X[:, numbers] / self.size[numbers] - self.mean[numbers]) * self.rate[numbers]
        scaled = np.nan_to_num(np.clip(scaled, -_FARTHEST, _FARTHEST), copy=False)
        parts = [scaled, np.isnan(X[:, self.gaps])]
        parts += [X[:, j : j + 1] == np.arange(self.codes[j]) for j in np.flatnonzero(~numbers)]
        return np.ascontiguousarray(np.concatenate(parts, axis=1, dtype=np.float32))


@njit(cache=True, nogil=True)
def _phases(Z, W, b, out):
    """``Z W + b``, row by row: a row has the same bits in every company."""
    for i in range(Z.shape[0]):
        out[i] = b
        for j in range(Z.shape[1]):
            z = Z[i, j]
            for k in range(W.shape[1]):
                out[i, k] += z * W[j, k]


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

    def __call__(self, Z: Single) -> Single:
        """The features of encoded rows: float32 [m, c]."""
        out = np.empty((len(Z), self.W.shape[1]), np.float32)
        _phases(Z, self.W, self.b, out)
        np.cos(out, out=out)
        out *= np.float32(math.sqrt(2 / self.W.shape[1]))
        return out

    def slopes(self, Z: Single, beta: Array) -> Array:
        """The gradient of ``[Φ, 1] β`` with respect to each encoded row: [m, width]."""
        phases = Z.astype(np.float64) @ self.W + self.b
        return -math.sqrt(2 / len(self.b)) * (np.sin(phases) * beta[:-1]) @ self.W.T


class Features:
    """The features of many rows, kept where there is room for them.

    Args:
        Z: float32 [n, width], encoded rows.
        projection: What to apply to them.
        map: What to spread blocks of rows with.
    """

    def __init__(self, Z: Single, projection: Projection, map: Map = map) -> None:
        self.width = projection.W.shape[1]
        self._Z, self._projection, self._map = Z, projection, map
        self._kept: list[Single] | None = None
        if 4 * len(Z) * self.width <= KEEP_BYTES:
            self._kept = list(map(self._block, self._slices()))

    def _slices(self) -> list[slice]:
        starts = range(0, len(self._Z), BLOCK_ROWS)
        return [slice(start, min(start + BLOCK_ROWS, len(self._Z))) for start in starts]

    def _block(self, rows: slice) -> Single:
        return self._projection(self._Z[rows])

    def _blocks(self) -> Iterator[tuple[int, slice]]:
        return iter(enumerate(self._slices()))

    def _phi(self, number: int, rows: slice) -> Single:
        return self._block(rows) if self._kept is None else self._kept[number]

    def gram(self, h: Array) -> Array:
        """``[Φ, 1]ᵀ diag(h) [Φ, 1]``: float64 [c + 1, c + 1]; always added up in the same order."""
        total = np.zeros((self.width + 1, self.width + 1))
        for number, rows in self._blocks():
            root = np.sqrt(h[rows])
            scaled = np.empty((len(root), self.width + 1))
            np.multiply(self._phi(number, rows), root[:, None], out=scaled[:, :-1])
            scaled[:, -1] = root
            total += scaled.T @ scaled
        return total

    def transposed(self, g: Array) -> Array:
        """``[Φ, 1]ᵀ g``: float64 [c + 1]."""

        def part(item: tuple[int, slice]) -> Array:
            out = np.zeros(self.width + 1)
            _add_transposed(self._phi(*item), g[item[1]], out)
            return out

        return np.sum(list(self._map(part, self._blocks())), axis=0)

    def add_product(self, beta: Array, out: Array) -> None:
        """Add ``[Φ, 1] β`` to ``out``, float64 [n]."""

        def part(item: tuple[int, slice]) -> None:
            add_product(self._phi(*item), beta, out[item[1]])

        list(self._map(part, self._blocks()))


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
        self._factor: Array | None = None
        self._inverse: Array | None = None

    def solve(self, g: Array, h: Array, mass: float, *, same: bool = False) -> Array:
        """The coefficients, float64 [c + 1], the intercept last.

        Args:
            g, h: float64 [n], gradients and curvatures.
            mass: Sum of the rows' weights, over all machines.
            same: Whether h is that of the last call, whose factorisation then serves again.
        """
        if not same or (self._factor is None and self._inverse is None):
            self._factorise(h, mass)
        right = -self._allreduce(self._features.transposed(g))[: self._used]
        beta = np.zeros(self._features.width + 1)
        if self._factor is not None:
            beta[: self._used], _ = _lapack.dpotrs(self._factor, right)
        else:
            assert self._inverse is not None
            beta[: self._used] = self._inverse @ (self._inverse.T @ right)
        return beta

    def _factorise(self, h: Array, mass: float) -> None:
        gram = self._allreduce(self._features.gram(h))
        # the intercept's entry is the sum of curvatures
        alpha = self._alpha * gram[-1, -1] / mass if self._relative else self._alpha
        gram = gram[: self._used, : self._used]
        width = self._features.width
        gram[np.arange(width), np.arange(width)] += alpha
        self._factor = self._inverse = None
        if alpha > 0:
            factor, failed = _lapack.dpotrf(gram, clean=0)
            # a pivot far below the largest has no digit left
            pivots = np.square(np.diagonal(factor))
            if not failed and pivots.min() > 1e-13 * pivots.max():
                self._factor = factor
                return
        values, vectors = eigh(gram)
        kept = values > max(values[-1], 0.0) * len(values) * np.finfo(float).eps
        self._inverse = vectors[:, kept] / np.sqrt(values[kept])
