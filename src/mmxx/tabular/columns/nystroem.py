"""The Nyström approximation of a kernel from well-chosen landmarks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any, cast

import numpy as np
import scipy.linalg
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from mmxx.tabular.columns.gram import KernelMatrix, as_gram, check_gamma, check_indices
from mmxx.tabular.columns.methods import check_method, residual_diagonal, select


def nystroem_error(L: Any = None, indices: ArrayLike = (), *, A: Any = None) -> float:
    """Trace (nuclear norm) of L − L̂, or ‖A − P_S A‖²_F, of a choice of columns.

    Nothing n × n is made: the error is the sum of what is left of the diagonal.

    Args:
        L: Kernel matrix [n, n], or a `KernelMatrix`.
        indices: The chosen columns [k], k ≥ 1.
        A: Table [d, n] in the place of L.

    Returns:
        The error, 0 or more.

    Raises:
        ValueError: Indices are out of range, or L is no symmetric matrix.

    Example:
        >>> nystroem_error(np.diag([3.0, 2.0, 1.0]), [0, 1])
        1.0
    """
    gram = as_gram(L, A)
    return float(residual_diagonal(gram, check_indices(cast(Any, indices), gram.n)).sum())


class DPPNystroem(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Feature map of a kernel from landmarks: scikit-learn's Nystroem with a choice of how.

    With ``method="uniform"`` and the same ``random_state`` it takes the same landmarks as
    scikit-learn's.

    Args:
        kernel: A name that ``pairwise_kernels`` knows, or a function of two points.
        gamma: Of the rbf, laplacian, polynomial, sigmoid and chi2 kernels, above 0: 1/(2σ²).
        coef0: Of the polynomial and sigmoid kernels.
        degree: Of the polynomial kernel.
        kernel_params: Further arguments of a kernel that is a function.
        n_components: Landmarks. More than there are samples, or than the numerical rank of the
            kernel allows, are reduced with a warning.
        method: "rpcholesky" reads single columns of the kernel, in O(n k²). "uniform" and
            "pivoted_cholesky" do so too; "adaptive", "leverage", "ridge_leverage", "kdpp",
            "projection", "greedy", "local_search" and "exhaustive" may need the whole matrix.
        random_state: Seed or RandomState.
        n_jobs: Jobs that compute the kernel.

    Attributes:
        components_: The landmarks [k, features].
        component_indices_: Where they stand in X, [k].
        normalization_: Symmetric inverse square root of their kernel matrix, [k, k].
        trace_error_: Trace of K − K̂ over the samples of fit.
        n_features_in_: Features seen in fit.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(60, 3))
        >>> DPPNystroem(gamma=0.2, n_components=8, random_state=0).fit_transform(X).shape
        (60, 8)
    """

    components_: Any
    component_indices_: NDArray[np.int64]
    normalization_: NDArray[Any]
    trace_error_: float
    n_features_in_: int
    _n_features_out: int

    def __init__(
        self,
        kernel: str | Callable[..., float] = "rbf",
        *,
        gamma: float | None = None,
        coef0: float | None = None,
        degree: float | None = None,
        kernel_params: dict[str, Any] | None = None,
        n_components: int = 100,
        method: str = "rpcholesky",
        random_state: int | RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.coef0 = coef0
        self.degree = degree
        self.kernel_params = kernel_params
        self.n_components = n_components
        self.method = method
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: object = None) -> DPPNystroem:
        """Choose landmarks.

        Args:
            X: Samples [n, features], dense or sparse.
            y: Ignored.

        Raises:
            ValueError: A setting is out of range, or X holds NaN or inf.
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X: ArrayLike, y: object = None, **fit_params: Any) -> NDArray[Any]:
        """Choose landmarks and map the samples, computing their kernel columns once.

        Args:
            X: Samples [n, features], dense or sparse.
            y: Ignored.
            fit_params: None is known.

        Returns:
            [n, k], in the precision of X.
        """
        self._check()
        points = self._read(X, reset=True)
        gram = self._kernel(points)
        k = int(self.n_components)
        if k > gram.n:
            warnings.warn(
                f"n_components = {k} is more than n_samples = {gram.n}, which is used instead",
                stacklevel=2,
            )
            k = gram.n
        indices = self._select(gram, k)
        block = gram.between(points[indices], points[indices])
        values, vectors = scipy.linalg.eigh(block, check_finite=False)
        keep = values > values[-1] * len(values) * np.finfo(block.dtype).eps
        if indices.size < k:
            warnings.warn(
                f"n_components = {k} is more than the numerical rank of the kernel, "
                f"{indices.size}, which is used instead",
                stacklevel=2,
            )
        scale = np.zeros_like(values)
        scale[keep] = 1 / np.sqrt(values[keep])
        self.components_ = points[indices]
        self.component_indices_ = indices
        self.normalization_ = (vectors * scale) @ vectors.T
        self._n_features_out = indices.size
        mapped = gram.between(points, self.components_) @ self.normalization_.T
        explained = float(np.einsum("ij,ij->", mapped, mapped, dtype=np.float64))
        self.trace_error_ = max(float(gram.diagonal().sum()) - explained, 0.0)
        return mapped

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Map samples.

        Args:
            X: Samples [n, features], dense or sparse.

        Returns:
            [n, k], in the precision of X.
        """
        check_is_fitted(self)
        points = self._read(X, reset=False)
        return self._kernel(points).between(points, self.components_) @ self.normalization_.T

    def _read(self, X: Any, *, reset: bool) -> Any:
        return validate_data(
            self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=reset
        )  # fmt: skip

    def _kernel(self, X: Any) -> KernelMatrix:
        return KernelMatrix(
            X, self.kernel, gamma=self.gamma, coef0=self.coef0, degree=self.degree,
            kernel_params=self.kernel_params, n_jobs=self.n_jobs,
        )  # fmt: skip

    def _select(self, gram: KernelMatrix, k: int) -> NDArray[np.int64]:
        rng = cast(RandomState, check_random_state(self.random_state))
        if self.method in ("kdpp", "projection"):
            k = min(k, gram.eigen[0].size)
        return select(gram, k, self.method, rng)

    def _check(self) -> None:
        check_method(self.method)
        check_gamma(self.gamma)
        if not isinstance(self.n_components, Integral) or self.n_components < 1:
            raise ValueError(f"n_components must be 1 or more, got {self.n_components!r}")
        if self.kernel == "precomputed":
            raise ValueError(
                "kernel='precomputed' has no landmarks to keep; accepted: a kernel's name or a "
                "function. Choose from a matrix by sample_kdpp"
            )
        if callable(self.kernel) and (self.gamma, self.coef0, self.degree) != (None, None, None):
            raise ValueError(
                "gamma, coef0 and degree are for kernels with a name; hand those of a function "
                "over in kernel_params"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
