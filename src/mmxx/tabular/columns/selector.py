"""ColumnSubsetSelector: some columns that say nearly all the others say."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, cast

import numpy as np
import scipy.linalg
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from mmxx.tabular.columns import spectrum
from mmxx.tabular.columns.gram import ColumnGram, Floats, Indices
from mmxx.tabular.columns.methods import (
    check_method,
    is_random,
    pivoted_factor,
    residual_diagonal,
    select,
)


class ColumnSubsetSelector(SelectorMixin, BaseEstimator):
    """Select k columns of which all others are nearly linear combinations; no target is needed.

    The error is the squared Frobenius norm of what is left of X, and the factor is its ratio to
    the least that any k directions would leave.

    Args:
        n_features_to_select: Columns to keep: a number, a fraction in (0, 1), None for half of
            them, or "valley" for the size at which the expected factor is least after the peak
            of its curve (half of them where it has no peak).
        method: "kdpp" (volume sampling: its expected error is known beforehand), "greedy",
            "rpcholesky", "projection", "uniform", "leverage", "ridge_leverage", "adaptive",
            "pivoted_qr", "pivoted_cholesky", "local_search" or "exhaustive".
        center: Subtract the columns' means first. The paper does not.
        scale: Divide by the columns' standard deviations; constant columns stay.
        n_draws: For methods that draw: draw so often and keep the draw of least error.
        random_state: Seed or RandomState.

    Attributes:
        support_: Mask of the selected columns, [features].
        selected_: Their indices in the order of selection, [k].
        coef_: [k, features] such that X ≈ X[:, support] @ ``coef_``, its rows in the order of
            the columns.
        error_: The error of the selection.
        opt_: The least error of any rank-k approximation.
        factor_: ``error_`` over ``opt_``; NaN where the latter is rounding.
        expected_factor_: What a k-DPP has on average; NaN likewise.
        n_features_in_: Columns seen in fit.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(30, 3)) @ np.ones((3, 8)) + np.eye(30, 8)
        >>> ColumnSubsetSelector(4, random_state=0).fit_transform(X).shape
        (30, 4)
    """

    support_: NDArray[np.bool_]
    selected_: Indices
    coef_: Floats
    error_: float
    opt_: float
    factor_: float
    expected_factor_: float
    n_features_in_: int
    _mean: Floats
    _scale: Floats

    def __init__(
        self,
        n_features_to_select: int | float | str | None = None,
        *,
        method: str = "kdpp",
        center: bool = False,
        scale: bool = False,
        n_draws: int = 1,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.n_features_to_select = n_features_to_select
        self.method = method
        self.center = center
        self.scale = scale
        self.n_draws = n_draws
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> ColumnSubsetSelector:
        """Select columns.

        Args:
            X: [samples, features], dense or sparse; names of a data frame are kept.
            y: Ignored.

        Returns:
            The selector itself.

        Raises:
            ValueError: A setting is out of range, X is zero throughout, or a column holds text,
                NaN or inf: it is named.
        """
        check_method(self.method)
        if not isinstance(self.n_draws, Integral) or self.n_draws < 1:
            raise ValueError(f"n_draws must be 1 or more, got {self.n_draws!r}")
        _check_columns(X)
        table: Any = validate_data(self, cast(Any, X), accept_sparse="csc", dtype=np.float64)
        gram = ColumnGram(self._reduced(table))
        lam = gram.spectrum
        if not lam.any():
            raise ValueError(
                f"X is zero throughout{' once centred' if self.center else ''}, with n_samples = "
                f"{table.shape[0]}: no column says anything"
            )
        k = self._size(lam)
        chosen, gram_error = self._choose(gram, k)
        self.selected_ = _filled(chosen, k, gram.n)
        self.support_ = np.zeros(gram.n, dtype=bool)
        self.support_[self.selected_] = True
        self.coef_ = _coefficients(gram, np.flatnonzero(self.support_))
        self.error_ = gram_error
        self.opt_ = float(spectrum.opt(lam)[k])
        factor = float(spectrum.approximation_factor(lam, k)[k])
        self.expected_factor_ = factor
        self.factor_ = self.error_ / self.opt_ if np.isfinite(factor) else float("nan")
        return self

    def inverse_transform(self, X: ArrayLike) -> Floats:
        """All columns again, from the selected ones: X_S @ ``coef_``, which is P_S X.

        Args:
            X: The selected columns [samples, k].

        Returns:
            [samples, features].
        """
        check_is_fitted(self)
        check: Any = check_array
        values = check(X, accept_sparse="csr", dtype=np.float64)
        if values.shape[1] != self.support_.sum():
            raise ValueError(
                f"X must have the {self.support_.sum()} selected columns, got {values.shape[1]}"
            )
        values = values.toarray() if issparse(values) else values
        mean, scale = self._mean, self._scale
        kept = (values - mean[self.support_]) / scale[self.support_]
        return kept @ self.coef_ * scale + mean

    def _get_support_mask(self) -> Any:
        check_is_fitted(self)
        return self.support_

    def _reduced(self, X: Any) -> Any:
        """A table with the same AᵀA as X centred and scaled, and no more rows than columns."""
        features = X.shape[1]
        self._mean, self._scale = np.zeros(features), np.ones(features)
        if issparse(X):
            if self.center:
                raise ValueError("center=True would fill a sparse X; accepted: center=False")
            if self.scale:
                spread = np.sqrt(_variance(X))
                self._scale[spread > 0] = spread[spread > 0]
                X = X / self._scale
            X = X.toarray() if X.shape[0] <= features else X
        else:
            if self.center:
                self._mean = X.mean(0)
            if self.scale:
                spread = X.std(0)
                self._scale[spread > 0] = spread[spread > 0]
            if self.center or self.scale:
                X = (X - self._mean) / self._scale
        if X.shape[0] <= features:
            return X
        dense = X.toarray() if issparse(X) else X
        return scipy.linalg.qr(dense, mode="r", check_finite=False)[0][:features]

    def _size(self, lam: Floats) -> int:
        k: Any = self.n_features_to_select
        n = lam.size
        if k == "valley":
            curve = spectrum.approximation_factor(lam, n - 1) if n > 1 else lam
            valleys = spectrum.peaks(lam, n - 1)[1] if n > 2 else np.empty(0, np.int64)
            return int(valleys[np.argmin(curve[valleys])]) if valleys.size else max(1, n // 2)
        if k is None:
            return max(1, n // 2)
        if isinstance(k, (int, np.integer)) and not isinstance(k, bool) and 1 <= k <= n:
            return int(k)
        if isinstance(k, (float, np.floating)) and 0 < k < 1:
            return max(1, int(k * n))
        raise ValueError(
            f"n_features_to_select must be in 1 … n_features, a fraction in (0, 1), 'valley' or "
            f"None, got {k!r} with n_features = {n}"
        )

    def _choose(self, gram: ColumnGram, k: int) -> tuple[Indices, float]:
        rng = cast(RandomState, check_random_state(self.random_state))
        rank = gram.eigen[0].size
        if k > rank:
            warnings.warn(
                f"{k} columns are selected where X has the numerical rank {rank}: the first "
                f"{rank} leave nothing, the others are filled in from the left",
                stacklevel=3,
            )
        best: tuple[Indices, float] | None = None
        for _ in range(self.n_draws if is_random(self.method) else 1):
            chosen = select(gram, min(k, rank), self.method, rng)
            error = float(residual_diagonal(gram, chosen).sum())
            if best is None or error < best[1]:
                best = chosen, error
        assert best is not None
        return best

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _variance(X: Any) -> Floats:
    moments: Any = mean_variance_axis(X.tocsc(), axis=0)
    return moments[1]


def _filled(chosen: Indices, k: int, n: int) -> Indices:
    others = np.setdiff1d(np.arange(n), chosen)
    return np.concatenate([chosen, others[: k - chosen.size]])


def _coefficients(gram: ColumnGram, support: Indices) -> Floats:
    """Least squares of all columns on some, [k, n]; those that add nothing get zeros."""
    A = gram.take(np.arange(gram.n))
    pivots, _ = pivoted_factor(gram.block(support))
    inside = A[:, support[pivots]]
    factored: Any = scipy.linalg.qr(inside, mode="economic", check_finite=False)
    q, r = factored
    coefficients = np.zeros((support.size, gram.n))
    coefficients[pivots] = scipy.linalg.solve_triangular(r, q.T @ A, check_finite=False)
    return coefficients


def _check_columns(X: Any) -> None:
    """Refuse text, NaN and inf in a data frame by the name of the column."""
    if not hasattr(X, "columns") or not hasattr(X, "dtypes"):
        return
    for name in X.columns:
        values = np.asarray(X[name])
        try:
            finite = np.isfinite(values.astype(np.float64))
        except (TypeError, ValueError):
            raise ValueError(f"X: column {name!r} holds text; accepted: numbers") from None
        if not finite.all():
            what = "NaN" if np.isnan(values.astype(np.float64)).any() else "inf"
            raise ValueError(f"X: column {name!r} contains {what}; accepted: finite numbers")
