"""The method."""

from __future__ import annotations

import numpy as np


def fit_line(x: np.ndarray, y: np.ndarray, *, steps: int = 200, lr: float = 0.1) -> np.ndarray:
    """Slope and intercept by gradient descent on the squared error.

    Args:
        x: Inputs, shape [n].
        y: Targets, shape [n].
        steps: Steps of gradient descent.
        lr: Step size.

    Returns:
        Slope and intercept, shape [2].

    Raises:
        ValueError: The shapes differ, or there is no point.

    Source: Gauss (1809).
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or x.size == 0:
        raise ValueError(f"x and y must be [n] with n above 0, got {x.shape} and {y.shape}")
    weights = np.zeros(2)
    for _ in range(steps):
        weights -= lr * gradient(weights, x, y)
    return weights


def gradient(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of half the mean squared error, shape [2]."""
    error = weights[0] * x + weights[1] - y
    return np.array([np.mean(error * x), np.mean(error)])
