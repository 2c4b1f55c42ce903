"""Kernel matrices by what they are made of: L itself, the columns of A, or a kernel function.

Samplers and selectors ask only for what they need: the diagonal, some columns, all of it (refused
where that would not fit), or the eigenvalues.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array, issparse
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.utils.extmath import row_norms

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST_DENSE = 20_000  # columns beyond which no n × n matrix is made
BLOCK = 4096  # columns at a time; fixed, so that sums have the same bits however A is cut


class Gram(ABC):
    """L = AᵀA for n columns.

    Attributes:
        n: How many columns there are to choose from.
    """

    n: int

    @abstractmethod
    def diagonal(self) -> Floats:
        """Squared lengths of the columns, [n]."""

    @abstractmethod
    def columns(self, indices: Indices) -> Floats:
        """L[:, indices], [n, len(indices)]."""

    @abstractmethod
    def block(self, indices: Indices) -> Floats:
        """L[indices, indices]."""

    def dense(self) -> Floats:
        """A new copy of L, [n, n].

        Raises:
            ValueError: There are more than 20,000 columns.
        """
        check_dense(self.n)
        return np.ascontiguousarray(self.columns(np.arange(self.n)))

    @cached_property
    def eigen(self) -> tuple[Floats, Floats]:
        """Eigenvalues above rounding [r], descending, and eigenvectors [n, r]."""
        values, vectors = scipy.linalg.eigh(
            self.dense(), overwrite_a=True, check_finite=False, driver="evd"
        )
        return positive_part(values, vectors, self.n)

    @cached_property
    def spectrum(self) -> Floats:
        """All eigenvalues [n], descending; those that are rounding below 0 are 0."""
        values = scipy.linalg.eigvalsh(self.dense(), overwrite_a=True, check_finite=False)
        return np.maximum(values[::-1], 0.0)


def check_dense(n: int) -> None:
    """Refuse an n × n matrix that would not fit."""
    if n > MOST_DENSE:
        raise ValueError(
            f"L of n = {n:,} columns would take {8 * n * n:,} bytes; accepted densely: n up to "
            f"{MOST_DENSE:,}. For more, hand over A= (few rows), or use method='intermediate' "
            "with a KernelMatrix, or a selector that reads single columns, method='rpcholesky'"
        )


def positive_part(values: Floats, vectors: Floats, n: int) -> tuple[Floats, Floats]:
    """The eigenvalues above rounding, n·eps·λ_1, and their vectors; both descending."""
    rank = int((values > rank_tolerance(values, n)).sum())
    order = slice(None, -rank - 1, -1) if rank else slice(0, 0)
    return values[order].copy(), np.asfortranarray(vectors[:, order])


def rank_tolerance(values: Floats, n: int) -> float:
    """What an eigenvalue must exceed to be more than rounding."""
    return float(n * np.finfo(np.float64).eps * max(values.max(initial=0.0), 0.0))


class DenseGram(Gram):
    """L given as a matrix [n, n]: real, finite, symmetric and positive semidefinite.

    Raises:
        ValueError: It is none of these. Definiteness is found out by `eigen` only.
    """

    def __init__(self, L: Any) -> None:
        shape = np.shape(L)
        if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
            raise ValueError(
                f"L must be a square matrix, got shape {shape}; a table of columns is A="
            )
        self.n = shape[0]
        check_dense(self.n)
        if issparse(L):
            L = L.toarray()
        if np.iscomplexobj(L):
            raise ValueError("L must be real, got complex numbers")
        self._L = np.ascontiguousarray(L, dtype=np.float64)
        if not np.isfinite(self._L).all():
            raise ValueError("L must be finite, got NaN or inf")
        largest = float(np.abs(self._L).max())
        # in place and by rows: a second n × n matrix may not fit
        asymmetry = max(float(np.abs(self._L[i] - self._L[:, i]).max()) for i in range(self.n))
        if asymmetry > 1e-8 * largest:
            raise ValueError(f"L must be symmetric, its largest asymmetry is {asymmetry:g}")
        if self._L.diagonal().min() < -1e-10 * largest:
            raise ValueError(_indefinite(float(self._L.diagonal().min())))

    def diagonal(self) -> Floats:
        return np.maximum(self._L.diagonal(), 0.0)

    def columns(self, indices: Indices) -> Floats:
        return self._L[indices].T  # rows lie together

    def block(self, indices: Indices) -> Floats:
        return self._L[np.ix_(indices, indices)]

    def dense(self) -> Floats:
        return self._L.copy()

    @cached_property
    def eigen(self) -> tuple[Floats, Floats]:
        values, vectors = scipy.linalg.eigh(self._L, check_finite=False, driver="evd")
        if values[0] < -1e-10 * values[-1]:
            raise ValueError(_indefinite(float(values[0])))
        return positive_part(values, vectors, self.n)


def _indefinite(value: float) -> str:
    return (
        f"L must be positive semidefinite, its most negative eigenvalue is {value:g} or less; "
        "accepted: down to -1e-10 of the largest"
    )


class ColumnGram(Gram):
    """L = AᵀA of the columns of A [d, n], which is never made for large n.

    Args:
        A: An array, a memory map, a sparse matrix, or a list of these that stand side by side.
            What is read is read in blocks of 4,096 columns, counted over all parts, so that the
            results have the same bits however A is cut.

    Raises:
        ValueError: A is no table of finite numbers, or its parts have different numbers of rows.
    """

    def __init__(self, A: Any) -> None:
        parts = list(A) if isinstance(A, (list, tuple)) and np.ndim(A[0]) == 2 else [A]
        self._parts = [_part(part) for part in parts]
        self.d = self._parts[0].shape[0]
        if any(part.shape[0] != self.d for part in self._parts):
            raise ValueError(
                f"A: parts must have one number of rows, got {[p.shape[0] for p in self._parts]}"
            )
        self._starts = np.cumsum([0, *(part.shape[1] for part in self._parts)])
        self.n = int(self._starts[-1])
        for start, block in self.blocks():
            if not np.isfinite(block).all():
                column = start + int(np.argmin(np.isfinite(block).all(0)))
                raise ValueError(f"A must be finite, got NaN or inf in column {column}")

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """(first column, columns [d, up to 4096]) from left to right."""
        for start in range(0, self.n, BLOCK):
            yield start, self._between(start, min(start + BLOCK, self.n))

    def _between(self, start: int, stop: int) -> Floats:
        found = []
        for part, first in zip(self._parts, self._starts, strict=False):
            low, high = max(start - first, 0), min(stop - first, part.shape[1])
            if low < high:
                found.append(_floats(part[:, low:high]))
        return found[0] if len(found) == 1 else np.hstack(found)

    def take(self, indices: Indices) -> Floats:
        """A[:, indices], [d, len(indices)]."""
        found = np.empty((self.d, len(indices)))
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            found[:, mine] = _floats(self._parts[number][:, indices[mine] - self._starts[number]])
        return found

    def diagonal(self) -> Floats:
        return np.concatenate([np.einsum("ij,ij->j", block, block) for _, block in self.blocks()])

    def columns(self, indices: Indices) -> Floats:
        chosen = self.take(indices)
        return np.concatenate([block.T @ chosen for _, block in self.blocks()])

    def block(self, indices: Indices) -> Floats:
        chosen = self.take(indices)
        return chosen.T @ chosen

    @cached_property
    def rows(self) -> tuple[Floats, Floats]:
        """Eigenvalues above rounding [r] of AAᵀ, descending, and its eigenvectors [d, r]."""
        outer = np.zeros((self.d, self.d))
        for _, block in self.blocks():
            outer += block @ block.T
        values, vectors = scipy.linalg.eigh(outer, overwrite_a=True, check_finite=False)
        return positive_part(values, vectors, self.d)

    @cached_property
    def eigen(self) -> tuple[Floats, Floats]:
        """Eigenvalues above rounding [r], descending, and vectors [n, r], by singular values."""
        A = np.hstack([block for _, block in self.blocks()])
        _, sigma, right = scipy.linalg.svd(A, full_matrices=False, check_finite=False)
        # sigma is good to eps σ_1, its square to that squared: nothing is lost by AᵀA
        rank = int((sigma > max(A.shape) * np.finfo(np.float64).eps * sigma[0]).sum())
        return sigma[:rank] ** 2, np.asfortranarray(right[:rank].T)

    @cached_property
    def spectrum(self) -> Floats:
        values = np.zeros(self.n)
        values[: self.eigen[0].size] = self.eigen[0]
        return values


def _part(part: Any) -> Any:
    if issparse(part):
        return csc_array(part)
    values = part if isinstance(part, np.memmap) else np.asarray(part)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"A must be a table [rows, columns] that is not empty, got {values.shape}")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"A must hold numbers, got {values.dtype}")
    return values


def _floats(part: Any) -> Floats:
    return np.ascontiguousarray(part.toarray() if issparse(part) else part, dtype=np.float64)


class KernelMatrix(Gram):
    """A kernel function over the rows of X: L_ij = kernel(x_i, x_j), computed when it is asked for.

    Args:
        X: The points [n, features], dense or sparse.
        kernel: A name that scikit-learn's ``pairwise_kernels`` knows, or a function of two points.
        gamma: Of the rbf, laplacian, polynomial, sigmoid and chi2 kernels, above 0. With a width
            σ it is 1/(2σ²).
        coef0: Of the polynomial and sigmoid kernels.
        degree: Of the polynomial kernel.
        kernel_params: Further arguments of the kernel.
        n_jobs: Jobs that compute the kernel.

    Raises:
        ValueError: gamma is not above 0.

    Example:
        >>> KernelMatrix([[0.0], [1.0]], gamma=1.0).block(np.array([0, 1])).round(3).tolist()
        [[1.0, 0.368], [0.368, 1.0]]
    """

    def __init__(
        self,
        X: ArrayLike,
        kernel: Any = "rbf",
        *,
        gamma: float | None = None,
        coef0: float | None = None,
        degree: float | None = None,
        kernel_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        check_gamma(gamma)
        self.X: Any = X if issparse(X) else np.asarray(X)
        self.n = self.X.shape[0]
        self.kernel = kernel
        given = {"gamma": gamma, "coef0": coef0, "degree": degree}
        self._params = dict(kernel_params or {})
        if not callable(kernel):
            self._params |= {name: value for name, value in given.items() if value is not None}
        self._n_jobs = n_jobs

    def between(self, X: Any, Y: Any) -> Any:
        """The kernel of two sets of points, [len(X), len(Y)]."""
        return pairwise_kernels(
            X, Y, metric=self.kernel, filter_params=True, n_jobs=self._n_jobs, **self._params
        )

    def diagonal(self) -> Floats:
        if self.kernel in ("rbf", "laplacian"):
            return np.ones(self.n)
        if self.kernel == "linear":
            return np.asarray(row_norms(self.X, squared=True), dtype=np.float64)
        size = 256  # a block gives its diagonal at so many times the cost
        return np.concatenate(
            [
                np.diagonal(self.between(self.X[i : i + size], self.X[i : i + size]))
                for i in range(0, self.n, size)
            ]
        ).astype(np.float64)

    def columns(self, indices: Indices) -> Floats:
        return np.asarray(self.between(self.X, self.X[indices]), dtype=np.float64)

    def block(self, indices: Indices) -> Floats:
        return np.asarray(self.between(self.X[indices], self.X[indices]), dtype=np.float64)


def check_gamma(gamma: float | None) -> None:
    """Refuse a kernel width that is none."""
    if gamma is not None and not 0 < gamma < np.inf:
        raise ValueError(f"gamma must be above 0 (1/(2σ²) for a width σ), got {gamma}")


def as_gram(L: Any, A: Any) -> Gram:
    """The kernel matrix that exactly one of two arguments stands for."""
    if (L is None) == (A is None):
        raise ValueError("exactly one of L (a kernel matrix) and A (a table of columns) is needed")
    if A is not None:
        return ColumnGram(A)
    return L if isinstance(L, Gram) else DenseGram(L)


def check_indices(indices: Sequence[int] | NDArray[Any], n: int) -> Indices:
    """Indices of different columns, as int64 [k]."""
    found = np.asarray(indices)
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iu":
        raise ValueError(f"indices must be a list of whole numbers, got {indices!r}")
    if found.min() < 0 or found.max() >= n:
        raise ValueError(f"indices must be in 0 … {n - 1}, got {found.min()} … {found.max()}")
    return found.astype(np.int64)
