"""Losses: values, gradients and curvatures in one pass over the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

Array = NDArray[np.float64]
CustomLoss = Callable[[Array, Array], tuple[Array, Array, Array]]

_SQUARED, _LOGISTIC, _POISSON, _QUANTILE = range(4)
_KINDS = {
    "squared_error": _SQUARED,
    "log_loss": _LOGISTIC,
    "poisson": _POISSON,
    "quantile": _QUANTILE,
}
_LEAST = 1e-16  # curvature of a row whose class is certain
CHUNK = 65_536  # rows whose sums are added up before those of others, for every number of threads


@njit(cache=True, nogil=True)
def _evaluate(kind, q, spread, y, w, raw, g, h):
    """Gradients and curvatures of some rows, times their weights, into ``g`` and ``h``.

    Returns:
        Sums over the rows: loss, magnitude of g, h, and g²/h.
    """
    value, size, weight, square = 0.0, 0.0, 0.0, 0.0
    for i in range(y.size):
        if kind == _SQUARED:
            first, second = raw[i] - y[i], 1.0
            loss = first * first
        elif kind == _LOGISTIC:
            z = np.exp(-abs(raw[i]))
            p = 1.0 / (1.0 + z) if raw[i] >= 0 else z / (1.0 + z)
            first, second = p - y[i], max(z / ((1.0 + z) * (1.0 + z)), _LEAST)
            loss = np.log1p(z) + max(raw[i], 0.0) - y[i] * raw[i]
        elif kind == _POISSON:
            mean = np.exp(raw[i])
            first, second = mean - y[i], max(mean, 0.5 * (mean + y[i]))
            loss = mean - y[i] * raw[i]
        else:
            rest = y[i] - raw[i]
            slack = abs(rest) + 0.01 * spread
            first = 2.0 * spread * (0.5 - q) - spread * rest / slack
            second = spread / slack
            loss = max(q * rest, (q - 1.0) * rest)
        g[i], h[i] = w[i] * first, w[i] * second
        value += w[i] * loss
        size += abs(g[i])
        weight += h[i]
        square += w[i] * first * first / second
    return value, size, weight, square


@njit(cache=True, nogil=True)
def _evaluate_softmax(y, w, raw, g, h, start, stop):
    """The same for K classes: ``y`` holds their numbers; raw, g and h are [K, n]."""
    classes = raw.shape[0]
    value, size, weight, square = 0.0, 0.0, 0.0, 0.0
    factor = classes / (classes - 1.0)
    p = np.empty(classes)
    for i in range(start, stop):
        top = raw[0, i]
        for k in range(1, classes):
            top = max(top, raw[k, i])
        total = 0.0
        for k in range(classes):
            p[k] = np.exp(raw[k, i] - top)
            total += p[k]
        value += w[i] * (np.log(total) + top - raw[int(y[i]), i])
        for k in range(classes):
            share = p[k] / total
            first = share - (1.0 if k == y[i] else 0.0)
            second = max(factor * share * (1.0 - share), _LEAST)
            g[k, i], h[k, i] = w[i] * first, w[i] * second
            size += abs(g[k, i])
            weight += h[k, i]
            square += w[i] * first * first / second
    return value, size, weight, square


@dataclass(frozen=True)
class Loss:
    r"""A loss and how it is measured.

    - ``squared_error``: $g = F - y$, $h = 1$; its value is $(F - y)^2$.
    - ``log_loss`` of two classes: $g = p - y$, $h = p(1 - p)$. Of K classes: $g_k = p_k - [y = k]$
      and the diagonal $h_k = K/(K-1)\,p_k(1 - p_k)$, with which two classes are as above.
    - ``poisson``: $g = e^F - y$, $h = e^F$, and the mean of $e^F$ and y where y is larger: there
      Newton's step would be y/e^F, without bound.
    - ``quantile``: the pinball loss has no curvature. It is replaced by the parabola that touches
      it from above at the present residual r, $h \propto 1/(|r| + s/100)$ with s the mean
      absolute residual of the base score, so that a round minimises as Hunter and Lange (2000) do.
    - a callable ``(y, raw) -> (values, g, h)`` of arrays [n].

    Attributes:
        name: One of the names above, or a callable.
        classes: Rows of the raw predictions: 1, or K of three or more classes.
        quantile: Which quantile.
        spread: s; only the quantile loss uses it.
    """

    name: str | CustomLoss
    classes: int = 1
    quantile: float = 0.5
    spread: float = 1.0

    @property
    def constant(self) -> bool:
        """Whether the curvature never changes."""
        return self.name == "squared_error"

    def evaluate(
        self, y: Array, w: Array, raw: Array, g: Array, h: Array, start: int, stop: int
    ) -> tuple[float, float, float, float]:
        """Gradients and curvatures of the rows from ``start`` to before ``stop``, times weights.

        Args:
            y: float64 [n], targets or numbers of classes.
            w: float64 [n], weights.
            raw: float64 [classes, n], the present predictions.
            g, h: float64 [classes, n], receive the result.
            start, stop: Which rows.

        Returns:
            Sums over these rows: loss, magnitude of g, h, and g²/h.
        """
        if self.classes > 1:
            return _evaluate_softmax(y, w, raw, g, h, start, stop)
        part = slice(start, stop)
        if isinstance(self.name, str):
            return _evaluate(
                _KINDS[self.name], self.quantile, self.spread, y[part], w[part], raw[0, part],
                g[0, part], h[0, part],
            )  # fmt: skip
        values, first, second = self.name(y[part], raw[0, part])
        if not (np.isfinite(first).all() and np.isfinite(second).all() and (second > 0).all()):
            raise ValueError("loss must return finite gradients and positive curvatures")
        g[0, part], h[0, part] = w[part] * first, w[part] * second
        squares = w[part] * np.square(first) / second
        return (
            float(w[part] @ values), float(np.abs(g[0, part]).sum()), float(h[0, part].sum()),
            float(squares.sum()),
        )  # fmt: skip

    def base_score(self, y: Array, w: Array) -> Array:
        """The constant prediction of least loss: [classes, 1]."""
        if self.classes > 1:
            shares = np.bincount(y.astype(np.int64), w, self.classes) / w.sum()
            return np.log(np.maximum(shares, 1e-12))[:, None]
        mean = float(w @ (y / w.sum()))
        if self.name == "log_loss":
            mean = float(np.log(mean) - np.log1p(-mean))
        elif self.name == "poisson":
            mean = float(np.log(max(mean, 1e-12)))
        elif self.name == "quantile":
            order = np.argsort(y, kind="stable")
            upto = np.cumsum(w[order])
            mean = float(y[order][np.searchsorted(upto, self.quantile * upto[-1])])
        return np.array([[mean]])
