"""A small tanh network, fitted by Levenberg and Marquardt: exact to five digits in a second."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]
_WIDTHS = (16, 16)
_DECAY = 1e-6  # of the weights' squares, in the sum of squared errors
_PATIENCE = 40
_TRIES = 8  # of a step, each shorter
_SHORTER, _LONGER = 4.0, 0.2  # what the damping is multiplied by where a step fails, or succeeds


@dataclass
class TanhNetwork:
    """A fitted network in the units of the table.

    Attributes:
        weights: All, layer after layer, a matrix and its biases each.
        layers: Inputs and outputs of each layer.
        centre, width: Of each column, [columns].
        mean, deviation: Of y.
        error: Root mean square error on the rows held back.
        steps: Steps made.
    """

    weights: Array
    layers: tuple[tuple[int, int], ...]
    centre: Array
    width: Array
    mean: float
    deviation: float
    error: float = math.inf
    steps: int = 0

    def value(self, X: Array) -> Array:
        """Values [rows] at X [rows, columns]."""
        return _forward(self.weights, self.layers, self._scaled(X))[-1][:, 0] * self.deviation + (
            self.mean
        )

    def gradient(self, X: Array) -> Array:
        """Derivatives [rows, columns] at X."""
        outputs = _forward(self.weights, self.layers, self._scaled(X))
        slope = np.ones((len(X), 1))
        for layer, (matrix, _) in reversed(list(enumerate(_parts(self.weights, self.layers)))):
            slope = slope @ matrix.T
            if layer:
                slope *= 1 - np.square(outputs[layer])
        return slope * self.deviation / self.width

    def _scaled(self, X: Array) -> Array:
        return (X - self.centre) / self.width


def fit_tanh(X: Array, y: Array, *, steps: int = 200, seed: int = 0) -> TanhNetwork:
    """Fit n-16-16-1 by least squares, with all rows in every step.

    A fifth of the rows is held back. It stops early when their error has not fallen for 40 steps,
    and the best weights are kept.

    Args:
        X: [rows, columns].
        y: [rows].
        steps: At most; each solves a linear system in the 300 to 500 weights.
        seed: Of weights and split.

    Source: Hagan and Menhaj (1994). The paper's network has 30,000 weights and is fitted by Adam
    to up to a million rows; see `train`.

    Example:
        >>> X = np.random.default_rng(0).uniform(1, 3, (200, 2))
        >>> net = fit_tanh(X, X[:, 0] / X[:, 1], steps=60)
        >>> net.error < 1e-3
        True
    """
    rng = np.random.default_rng(seed)
    width = X.std(0)
    width[width == 0] = 1.0
    sizes = (X.shape[1], *_WIDTHS, 1)
    layers = tuple(itertools.pairwise(sizes))
    weights = np.concatenate(
        [
            np.concatenate([rng.normal(size=a * b) / math.sqrt(a), rng.normal(size=b) / 2])
            for a, b in layers
        ]
    )
    net = TanhNetwork(weights, layers, X.mean(0), width, float(y.mean()), float(y.std()) or 1.0)
    inputs, target = net._scaled(X), (y - net.mean) / net.deviation
    order = rng.permutation(len(X))
    held = order[: max(1, len(X) // 5)]
    rest = order[len(held) :] if len(X) > len(held) else order
    damping, best, last = 1e-2, (math.inf, weights), 0
    for net.steps in range(1, steps + 1):
        made = _step(weights, layers, inputs[rest], target[rest], damping)
        if made is None:
            break
        weights, damping = made
        error = _forward(weights, layers, inputs[held])[-1][:, 0] - target[held]
        off = float(np.sqrt(np.square(error).mean()))
        if off < best[0]:
            best, last = (off, weights), net.steps
        elif net.steps - last >= _PATIENCE:
            break
    net.weights, net.error = best[1], best[0] * net.deviation
    return net


def _step(
    weights: Array, layers: tuple[tuple[int, int], ...], X: Array, y: Array, damping: float
) -> tuple[Array, float] | None:
    """The next weights and damping; None where no step makes it better."""
    said, slopes = _jacobian(weights, layers, X)
    error = y - said
    before = error @ error + _DECAY * (weights @ weights)
    curvature, pull = slopes.T @ slopes, slopes.T @ error - _DECAY * weights
    place = np.diag_indices_from(curvature)
    curvature[place] += _DECAY
    for _ in range(_TRIES):
        damped = curvature.copy()
        damped[place] += damping
        try:
            moved = weights + cho_solve(cho_factor(damped, overwrite_a=True), pull)
        except (np.linalg.LinAlgError, ValueError):  # not positive, or not finite
            damping *= _SHORTER
            continue
        error = y - _forward(moved, layers, X)[-1][:, 0]
        if error @ error + _DECAY * (moved @ moved) < before:
            return moved, max(damping * _LONGER, 1e-14)
        damping *= _SHORTER
    return None


def _parts(weights: Array, layers: tuple[tuple[int, int], ...]) -> list[tuple[Array, Array]]:
    """Views of the weights: a matrix [inputs, outputs] and biases [outputs] a layer."""
    found, at = [], 0
    for a, b in layers:
        matrix = weights[at : at + a * b].reshape(a, b)
        found.append((matrix, weights[at + a * b : at + a * b + b]))
        at += a * b + b
    return found


def _forward(weights: Array, layers: tuple[tuple[int, int], ...], X: Array) -> list[Array]:
    """The inputs, and what each layer puts out, [rows, outputs]."""
    outputs = [X]
    for layer, (matrix, biases) in enumerate(_parts(weights, layers)):
        z = outputs[-1] @ matrix + biases
        outputs.append(np.tanh(z) if layer + 1 < len(layers) else z)
    return outputs


def _jacobian(weights: Array, layers: tuple[tuple[int, int], ...], X: Array) -> tuple[Array, Array]:
    """Values [rows], and their derivatives by all weights [rows, weights]."""
    outputs, parts = _forward(weights, layers, X), _parts(weights, layers)
    slopes = np.empty((len(X), len(weights)))
    slope, at = np.ones((len(X), 1)), len(weights)
    for layer in reversed(range(len(layers))):
        a, b = layers[layer]
        slopes[:, at - b : at] = slope
        at -= a * b + b
        block = slopes[:, at : at + a * b].reshape(len(X), a, b)
        np.multiply(outputs[layer][:, :, None], slope[:, None, :], out=block)
        if layer:
            slope = (slope @ parts[layer][0].T) * (1 - np.square(outputs[layer]))
    return outputs[-1][:, 0], slopes
