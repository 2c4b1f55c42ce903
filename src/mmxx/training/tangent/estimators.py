"""Infinitely wide networks, trained to the end, as scikit-learn estimators."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mmxx.training.tangent import infinite

Array = NDArray[np.float64]


class _KernelRidge(BaseEstimator):
    """What regressor and classifier share: scaling, the kernel, and the solution."""

    n_features_in_: int

    def __init__(
        self,
        *,
        depth: int = 2,
        act: infinite.Act = "relu",
        kernel: Literal["ntk", "nngp"] = "ntk",
        alpha: float = 1e-3,
        weight_std: float = 1.0,
        bias_std: float = 0.3,
        standardize: bool = True,
    ) -> None:
        self.depth = depth
        self.act = act
        self.kernel = kernel
        self.alpha = alpha
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.standardize = standardize

    def _solve(self, X: Array, targets: Array) -> None:
        """Keep the samples, and what the kernel with them is multiplied by."""
        self._shift, self._spread = np.zeros(X.shape[1]), np.ones(X.shape[1])
        if self.standardize:
            spread = X.std(0)
            self._shift, self._spread = X.mean(0), np.where(spread > 0, spread, 1.0)
        self._samples = self._scaled(X)
        gram = self._gram(self._samples)
        ridge = self.alpha * float(np.trace(gram)) / len(gram)
        gram[np.diag_indices_from(gram)] += max(ridge, 1e-12 * float(np.trace(gram)))
        self._mean = targets.mean(0)
        self.dual_coef_ = cho_solve(cho_factor(gram, lower=True), targets - self._mean)

    def _outputs(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        checked = validate_data(self, cast("Any", X), reset=False, dtype=np.float64)
        gram = self._gram(self._scaled(cast("Array", checked)), self._samples)
        return gram @ self.dual_coef_ + self._mean

    def _scaled(self, X: Array) -> Array:
        # Divided by the root of the number of features, so that a sample has length 1 or so.
        return (X - self._shift) / self._spread / np.sqrt(X.shape[1])

    def _gram(self, one: Array, other: Array | None = None) -> Array:
        found = self._make_kernel()(
            torch.tensor(one), None if other is None else torch.tensor(other)
        )
        return found.numpy().copy()  # of one sample with itself it may be a view

    def _make_kernel(self) -> infinite.Kernel:
        if not isinstance(self.depth, Integral) or self.depth < 0:
            raise ValueError(f"depth must be an integer of 0 or more, got {self.depth!r}")
        if self.kernel not in ("ntk", "nngp"):
            raise ValueError(f"kernel must be 'ntk' or 'nngp', got {self.kernel!r}")
        if not isinstance(self.alpha, Real) or not 0 <= self.alpha < np.inf:
            raise ValueError(f"alpha must be a number of 0 or more, got {self.alpha!r}")
        make = infinite.ntk if self.kernel == "ntk" else infinite.nngp
        return make(
            int(self.depth),
            cast("infinite.Act", self.act),
            weight_std=self.weight_std,
            bias_std=self.bias_std,
        )


class NTKRegressor(MultiOutputMixin, RegressorMixin, _KernelRidge):
    r"""Ridge regression with the kernel of an infinitely wide network.

    With ``kernel="ntk"`` and alpha near 0 it predicts what such a network, trained to the end by
    gradient descent on squared errors, predicts on average over its beginnings.

    Args:
        depth: Hidden layers.
        act: "relu", "erf", "linear" or a function of tensors; see `infinite.ntk`.
        kernel: "ntk", or "nngp" where only the last layer is trained.
        alpha: Ridge, times the mean of the kernel's diagonal.
        weight_std: Factor of each layer's weights.
        bias_std: Factor of each layer's biases.
        standardize: Scale each column of X by the training data.

    Attributes:
        dual_coef_: [n] or [n, outputs], what the kernel is multiplied by.
        n_features_in_: Columns seen in fit.

    Example:
        >>> X = np.linspace(-2, 2, 40)[:, None]
        >>> model = NTKRegressor(depth=2).fit(X, np.sin(2 * X[:, 0]))
        >>> model.score(X, np.sin(2 * X[:, 0])) > 0.95
        True
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> NTKRegressor:
        """Solve for the training data.

        Args:
            X: [n, columns].
            y: [n] or [n, outputs].

        Returns:
            Itself.

        Raises:
            ValueError: A parameter out of range, or NaN or infinity in the data.
        """
        checked = validate_data(
            self, cast("Any", X), cast("Any", y), dtype=np.float64, multi_output=True,
            y_numeric=True,
        )  # fmt: skip
        self._solve(cast("Array", checked[0]), np.asarray(checked[1], np.float64))
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Predict.

        Args:
            X: [m, columns].

        Returns:
            [m] or [m, outputs].
        """
        return self._outputs(X)


class NTKClassifier(ClassifierMixin, _KernelRidge):
    """Classification by ridge regression on one output for each class; see `NTKRegressor`.

    Args:
        depth: Hidden layers.
        act: "relu", "erf", "linear" or a function of tensors; see `infinite.ntk`.
        kernel: "ntk", or "nngp" where only the last layer is trained.
        alpha: Ridge, times the mean of the kernel's diagonal.
        weight_std: Factor of each layer's weights.
        bias_std: Factor of each layer's biases.
        standardize: Scale each column of X by the training data.

    Attributes:
        classes_: The classes.
        dual_coef_: [n, classes], what the kernel is multiplied by.
        n_features_in_: Columns seen in fit.

    Example:
        >>> X = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
        >>> NTKClassifier().fit(X, ["same", "same", "other", "other"]).predict(X).tolist()
        ['same', 'same', 'other', 'other']
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> NTKClassifier:
        """Solve for the training data.

        Args:
            X: [n, columns].
            y: [n], of two classes or more.

        Returns:
            Itself.

        Raises:
            ValueError: A parameter out of range, one class only, or NaN or infinity in X.
        """
        checked = validate_data(self, cast("Any", X), cast("Any", y), dtype=np.float64)
        check_classification_targets(checked[1])
        self.classes_, where = np.unique(checked[1], return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold two classes or more, got {len(self.classes_)} class")
        self._solve(
            cast("Array", checked[0]),
            np.where(where[:, None] == np.arange(len(self.classes_)), 1.0, -1.0),
        )
        return self

    def decision_function(self, X: ArrayLike) -> Array:
        """The outputs.

        Args:
            X: [m, columns].

        Returns:
            [m, classes], or for two classes [m], above 0 for the second.
        """
        found = self._outputs(X)
        return found[:, 1] if len(self.classes_) == 2 else found

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The class of the largest output.

        Args:
            X: [m, columns].

        Returns:
            [m].
        """
        found = self.decision_function(X)
        return self.classes_[(found > 0).astype(int) if found.ndim == 1 else found.argmax(1)]
