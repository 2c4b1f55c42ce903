"""The features whose inner products are a kernel of node vectors, and projections of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mmxx.graphs.wls import _kernels

Floats = NDArray[np.float64]
Kernel = Literal["rbf", "linear"]
Projection = Literal["sketch", "gaussian", "none"]
MOST_COLUMNS = 1_000_000
rfft: Any = fft.rfft  # whose stubs know only what dispatches
irfft: Any = fft.irfft
_ROWS = 512  # nodes whose monomials are made at a time


@dataclass(frozen=True)
class Expansion:
    r"""The map φ of a kernel of vectors.

    "linear" is the identity. "rbf" is
    $\varphi(x) = e^{-|x|^2/2\sigma^2}\,[x,\ (x \otimes x)/(\sqrt2\,\sigma)]$: σ times the Taylor
    features of the Gaussian kernel to second order, without the constant 1.

    Attributes:
        kernel: "rbf" or "linear".
        order: Highest degree of rbf: 1 or 2.
        sigma: Width of rbf.
    """

    kernel: Kernel = "rbf"
    order: int = 2
    sigma: float = 1.0

    @property
    def quadratic(self) -> bool:
        """Whether there are products of two entries."""
        return self.kernel == "rbf" and self.order > 1

    def width(self, d: int) -> int:
        """Columns of `features`, with equal products taken together."""
        return d + d * (d + 1) // 2 if self.quadratic else d

    def envelope(self, x: Floats) -> Floats:
        """exp(−|x|²/2σ²) of each row [n, 1]; ones for the linear kernel."""
        if self.kernel == "linear":
            return np.ones((len(x), 1))
        return np.exp(np.square(x).sum(1, keepdims=True) / (-2 * self.sigma**2))

    def features(self, x: Floats) -> Floats:
        """φ of each row: [n, d] to [n, width]; x_i x_j and x_j x_i are one column times √2."""
        if not self.quadratic:
            return self.envelope(x) * x
        rows, columns = np.triu_indices(x.shape[1])
        factor = np.where(rows == columns, 1.0, math.sqrt(2)) / (math.sqrt(2) * self.sigma)
        return self.envelope(x) * np.hstack([x, x[:, rows] * x[:, columns] * factor])


class Layer(Protocol):
    """One round's random matrices: what a node sends, and what it keeps."""

    def messages(self, x: Floats) -> Floats:
        """The projected φ of each row, [n, d] to [n, width]."""
        ...

    def own(self, x: Floats) -> Floats:
        """The projection of the vectors themselves, [n, d] to [n, width]."""
        ...


@dataclass(frozen=True)
class Sketched:
    """Linear terms by random unit vectors, products by TensorSketch.

    TensorSketch: of two count sketches of x the circular convolution, by way of the FFT, is a
    count sketch of x ⊗ x (Pham and Pagh, 2013). It never makes the d² products.

    Attributes:
        expansion: φ.
        keep: Unit rows [d, D] for what a node keeps.
        send: Unit rows [d, D] for the linear terms of messages.
        bucket: Hashes of two count sketches, int64 [2, d].
        sign: Their signs, [2, d].
    """

    expansion: Expansion
    keep: Floats
    send: Floats
    bucket: NDArray[np.int64]
    sign: Floats

    def messages(self, x: Floats) -> Floats:
        found = x @ self.send
        if self.expansion.quadratic:
            found += self.products(x) / (math.sqrt(2) * self.expansion.sigma)
        if self.expansion.kernel == "rbf":
            found *= self.expansion.envelope(x)
        return found

    def products(self, x: Floats) -> Floats:
        """The sketch of x ⊗ x, [n, d] to [n, D]."""
        width = self.send.shape[1]
        found = np.empty((len(x), width))
        for start in range(0, len(x), _ROWS):
            rows = np.ascontiguousarray(x[start : start + _ROWS])
            one, other = (
                rfft(_kernels.count_sketch(rows, self.bucket[k], self.sign[k], width))
                for k in range(2)
            )
            found[start : start + _ROWS] = irfft(one * other, n=width)
        return found

    def own(self, x: Floats) -> Floats:
        return x @ self.keep


@dataclass(frozen=True)
class Projected:
    """The paper's projection: a random unit vector for each feature, equal products packed.

    Attributes:
        expansion: φ.
        keep: Unit rows [d, D] for what a node keeps.
        send: Unit rows [d, D] for the linear terms of messages.
        pairs: For each product x_i x_j, i ≤ j, the sum of the unit vectors of x_i x_j and
            x_j x_i, [d (d + 1) / 2, D]; no rows without products.
    """

    expansion: Expansion
    keep: Floats
    send: Floats
    pairs: Floats

    def messages(self, x: Floats) -> Floats:
        found = x @ self.send
        if self.expansion.quadratic:
            rows, columns = np.triu_indices(x.shape[1])
            for start in range(0, len(x), _ROWS):
                part = x[start : start + _ROWS]
                products = part[:, rows] * part[:, columns]
                products /= math.sqrt(2) * self.expansion.sigma
                found[start : start + _ROWS] += products @ self.pairs
        if self.expansion.kernel == "rbf":
            found *= self.expansion.envelope(x)
        return found

    def own(self, x: Floats) -> Floats:
        return x @ self.keep


@dataclass(frozen=True)
class Exact:
    """No projection: messages are φ itself, and what is kept stands beside them.

    Attributes:
        expansion: φ.
    """

    expansion: Expansion

    def messages(self, x: Floats) -> Floats:
        return self.expansion.features(x)

    def own(self, x: Floats) -> Floats:
        return x


def unit_rows(rng: np.random.Generator, rows: int, width: int) -> Floats:
    """Random directions, [rows, width]."""
    found = rng.standard_normal((rows, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def draw_layer(
    rng: np.random.Generator,
    expansion: Expansion,
    projection: Projection,
    widths: tuple[int, int],
    dim: int,
) -> Layer:
    """The random matrices of one round.

    Args:
        rng: What they are drawn from.
        expansion: φ.
        projection: Which kind.
        widths: Columns of a node's vector, and of what is expanded (more, with edge attributes).
        dim: Columns of the projection.
    """
    own, sent = widths
    if projection == "none":
        return Exact(expansion)
    keep, send = unit_rows(rng, own, dim), unit_rows(rng, sent, dim)
    if projection == "sketch":
        bucket = rng.integers(dim, size=(2, sent))
        return Sketched(expansion, keep, send, bucket, rng.choice([-1.0, 1.0], (2, sent)))
    pairs = np.empty((0, dim))
    if expansion.quadratic:
        full = unit_rows(rng, sent * sent, dim).reshape(sent, sent, dim)
        rows, columns = np.triu_indices(sent)
        pairs = full[rows, columns]
        apart = rows != columns
        pairs[apart] += full[columns[apart], rows[apart]]
    return Projected(expansion, keep, send, pairs)
