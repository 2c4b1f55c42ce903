"""SIREN as a scikit-learn regressor."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from mmxx.signals.siren.fitting import fit
from mmxx.signals.siren.losses import mse_loss
from mmxx.signals.siren.siren import Siren, check_count, check_omega


class SirenRegressor(RegressorMixin, BaseEstimator):
    """A SIREN that maps coordinates, or other low-dimensional inputs, to values.

    Inputs are brought to [-1, 1] by their range in the training set, and targets to mean 0 and
    standard deviation 1. It is fitted in single and predicts in double precision, so that a
    prediction does not depend on what else is predicted with it.

    Args:
        hidden_features: Width of the hidden layers.
        hidden_layers: Number of sine layers after the first.
        omega_0: Frequency of the layers after the first.
        first_omega_0: Frequency of the first layer: the higher, the rougher the function that
            is fitted.
        max_iter: Steps of Adam.
        lr: Its learning rate.
        batch_size: Samples drawn for a step, or "full" for all; then the weights of the lowest
            loss are kept, else the last.
        random_state: Seed, numpy's RandomState or None.

    Attributes:
        net_: The fitted `Siren`, in double precision.
        losses_: The loss before each step.
        n_iter_: Number of steps.
        n_features_in_: Number of inputs.

    Example:
        >>> X = np.linspace(0, 1, 200)[:, None]
        >>> y = np.sin(40 * X[:, 0])
        >>> model = SirenRegressor(hidden_features=32, max_iter=200, lr=1e-3, random_state=0)
        >>> model.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.99
        True
    """

    def __init__(
        self,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        omega_0: float = 30.0,
        first_omega_0: float = 30.0,
        max_iter: int = 500,
        lr: float = 1e-4,
        batch_size: int | Literal["full"] = "full",
        random_state: Any = None,
    ) -> None:
        self.hidden_features = hidden_features
        self.hidden_layers = hidden_layers
        self.omega_0 = omega_0
        self.first_omega_0 = first_omega_0
        self.max_iter = max_iter
        self.lr = lr
        self.batch_size: int | Literal["full"] = batch_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SirenRegressor:
        """Fit the network.

        Args:
            X: Inputs [N, d].
            y: Targets [N] or [N, c].

        Returns:
            The regressor itself.

        Raises:
            ValueError: If inputs are not finite or do not fit, or a parameter is out of range.
            FloatingPointError: If the fit diverges.
        """
        check_count("max_iter", self.max_iter)
        check_omega("omega_0", self.omega_0)
        check_omega("first_omega_0", self.first_omega_0)
        if self.batch_size != "full":
            check_count("batch_size", self.batch_size)
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        targets = y.reshape(len(y), -1).astype(float)
        low, high = X.min(axis=0), X.max(axis=0)
        self._centre, self._half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
        self._mean, spread = targets.mean(axis=0), targets.std(axis=0)
        self._deviation = np.where(spread > 0, spread, 1.0)
        self._flat = y.ndim == 1

        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        self.net_ = Siren(
            X.shape[1],
            targets.shape[1],
            hidden_features=self.hidden_features,
            hidden_layers=self.hidden_layers,
            omega_0=self.omega_0,
            first_omega_0=self.first_omega_0,
            generator=generator,
        )
        coords = torch.from_numpy((X - self._centre) / self._half).float()
        values = torch.from_numpy((targets - self._mean) / self._deviation).float()
        count = len(X) if self.batch_size == "full" else min(self.batch_size, len(X))

        def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            if count == len(X):
                return coords, values
            chosen = torch.randint(len(X), (count,), generator=generator)
            return coords[chosen], values[chosen]

        self.losses_ = fit(
            self.net_, draw, mse_loss, steps=self.max_iter, lr=self.lr, keep_best=count == len(X)
        )
        self.net_.double()
        self.n_iter_ = len(self.losses_)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict values.

        Args:
            X: Inputs [N, d].

        Returns:
            float64 [N], or [N, c] if the targets were.

        Raises:
            ValueError: If inputs are not finite or do not fit.
            sklearn.exceptions.NotFittedError: If `fit` was not called.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        out = np.empty((len(X), len(self._mean)))
        rows = max(1, math.ceil(2**23 / self.hidden_features))
        with torch.no_grad():
            for start in range(0, len(X), rows):
                part = (X[start : start + rows] - self._centre) / self._half
                out[start : start + rows] = self.net_(torch.from_numpy(part)).numpy()
        out = self._mean + self._deviation * out
        return out[:, 0] if self._flat else out

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's tags: several targets are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags
