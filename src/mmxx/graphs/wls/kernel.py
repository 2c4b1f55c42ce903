"""Gaussian kernels of graph vectors, and the similarity of two graphs."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.utils.validation import check_is_fitted

from mmxx.graphs.wls import inputs
from mmxx.graphs.wls.expansion import Floats, Kernel, Projection
from mmxx.graphs.wls.transformer import Readout, WLSTransformer

_ROWS = 2048  # of a kernel matrix made at a time


def squared_distances(A: Floats, B: Floats) -> Floats:
    """‖a − b‖² of the rows of two matrices, [n, m], by one product; never below 0."""
    found = A @ B.T
    found *= -2.0
    found += np.square(A).sum(1)[:, None]
    found += np.square(B).sum(1)
    return np.maximum(found, 0.0, out=found)


def gaussian(A: Floats, B: Floats, gamma: float) -> Floats:
    """exp(−γ ‖a − b‖²), [n, m], in blocks of rows."""
    found = np.empty((len(A), len(B)))
    for start in range(0, len(A), _ROWS):
        rows = squared_distances(A[start : start + _ROWS], B)
        rows *= -gamma
        np.exp(rows, out=found[start : start + _ROWS])
    return found


class WLSKernel(WLSTransformer):
    """The Gaussian kernel of WLS vectors, for what takes a precomputed kernel.

    Args:
        n_iter: Rounds.
        dim: Columns of the projections.
        gamma: The kernel's exponent, or "scale" for 1 over the sum of the variances of the vectors'
            columns in `fit`: half of the mean squared distance.
        kernel: Of node vectors: "rbf" or "linear".
        order: Highest degree of the rbf features: 1 or 2.
        sigma: Width of rbf, in standard deviations of an attribute.
        cat_scale: What a node's own vector is multiplied by; see `WLSTransformer`.
        readout: "sum" or "mean" over the nodes of a graph.
        projection: "sketch", "gaussian" or "none".
        iterations: Which rounds make the vector: "last", "all" side by side, or one from 0.
        nodes: What rounds begin with.
        edges: "attributes" or "labels" to expand an edge's columns beside the sender's vector.
        random_state: Seed or RandomState for the projections.

    Attributes:
        gamma_: The exponent that is used.
        vectors_: Those of the graphs in `fit`, [n, features].

    Example:
        >>> import networkx as nx
        >>> graphs = [nx.path_graph(n) for n in range(3, 9)]
        >>> kernel = WLSKernel(n_iter=2, dim=32, random_state=0)
        >>> K = kernel.fit_transform(graphs)
        >>> K.shape, kernel.transform(graphs[:2]).shape
        ((6, 6), (2, 6))
    """

    gamma_: float
    vectors_: Floats

    def __init__(
        self,
        n_iter: int = 5,
        dim: int = 200,
        *,
        gamma: float | str = "scale",
        kernel: Kernel = "rbf",
        order: int = 2,
        sigma: float = 1.0,
        cat_scale: float = 1.0,
        readout: Readout = "sum",
        projection: Projection = "sketch",
        iterations: str | int = "last",
        nodes: inputs.Nodes = "auto",
        edges: inputs.Edges = "none",
        random_state: int | RandomState | None = None,
    ) -> None:
        super().__init__(
            n_iter, dim, kernel=kernel, order=order, sigma=sigma, cat_scale=cat_scale,
            readout=readout, projection=projection, iterations=iterations, nodes=nodes,
            edges=edges, random_state=random_state,
        )  # fmt: skip
        self.gamma = gamma

    def fit(self, X: Any, y: object = None) -> WLSKernel:
        """Keep the vectors of some graphs.

        Args:
            X: As for `WLSTransformer`.
            y: Ignored.

        Returns:
            The kernel itself.

        Raises:
            ValueError: A parameter is out of range, or a graph cannot be used; it is named.
        """
        if self.gamma != "scale":
            inputs.check_positive("gamma", self.gamma)
        super().fit(X)
        self.vectors_ = self._vectors(X, builtins.map)
        spread = float(self.vectors_.var(0).sum())
        self.gamma_ = 1 / (spread or 1.0) if self.gamma == "scale" else float(self.gamma)
        self._n_features_out = len(self.vectors_)
        return self

    def fit_transform(self, X: Any, y: object = None, **fit_params: Any) -> Floats:
        """The kernel matrix of some graphs, [n, n], symmetric with ones on the diagonal.

        Args:
            X: As for `WLSTransformer`.
            y: Ignored.
            fit_params: Ignored.
        """
        self.fit(X)
        found = gaussian(self.vectors_, self.vectors_, self.gamma_)
        found = (found + found.T) / 2
        np.fill_diagonal(found, 1.0)
        return found

    def transform(self, X: Any, *, map: Callable[..., Any] = builtins.map) -> Floats:
        """The kernel of graphs with those in `fit`, [m, n].

        Args:
            X: As for `WLSTransformer`.
            map: What to spread blocks of graphs with.
        """
        check_is_fitted(self)
        return gaussian(self._vectors(X, map), self.vectors_, self.gamma_)


def similarity(g: Any, h: Any, *, gamma: float = 1.0, **options: Any) -> float:
    r"""How alike two graphs are: $e^{-\gamma |f - f'|^2 / |f| |f'|}$ of their WLS vectors.

    It is 1 for graphs that Weisfeiler-Leman refinement does not tell apart, such as isomorphic
    ones, and near 0 for those that differ in size or all over.

    Args:
        g: A graph that `mmxx.data.as_graphs` takes.
        h: Another, with the same attributes.
        gamma: The exponent.
        options: Parameters of `WLSTransformer`; by default ``random_state=0``.

    Returns:
        A number from 0 to 1.

    Example:
        >>> import networkx as nx
        >>> similarity(nx.path_graph(4), nx.path_graph([3, 1, 0, 2]))
        1.0
    """
    inputs.check_positive("gamma", gamma)
    settings: Any = {"random_state": 0, **options}
    f, other = WLSTransformer(**settings).fit_transform([g, h])
    scale = float(np.linalg.norm(f) * np.linalg.norm(other))
    squared = float(np.square(f - other).sum())
    return float(np.exp(-gamma * squared / scale)) if scale else float(squared == 0)
