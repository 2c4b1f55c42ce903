"""Colour refinement of Weisfeiler and Leman, and the subtree kernel that counts its colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from mmxx.data.graph_objects import as_graphs
from mmxx.data.graphs import Graphs
from mmxx.graphs.wls import _kernels
from mmxx.graphs.wls.inputs import check_whole

Indices = NDArray[np.int64]


def colours(graphs: Graphs, n_iter: int, labels: Indices | None = None) -> Indices:
    """Colours of all nodes after each round, numbered from 0 in every round.

    Args:
        graphs: The graphs.
        n_iter: Rounds.
        labels: Those to begin with, [nodes]; by default the graphs' own, else one for all.

    Returns:
        [n_iter + 1, nodes].
    """
    if labels is None:
        labels = graphs.node_labels
    found = np.zeros((n_iter + 1, graphs.n_nodes), dtype=np.int64)
    if labels is not None:
        found[0] = np.unique(labels, return_inverse=True)[1]
    for t in range(n_iter):
        found[t + 1] = _kernels.refine(found[t], graphs.indptr, graphs.sources)[0]
    return found


def wl_labels(graphs: Any, n_iter: int, node_labels: Sequence[Any] | None = None) -> list[Indices]:
    """Colours of nodes by Weisfeiler-Leman refinement, in a numbering that all graphs share.

    Two nodes have one colour in a round where they had one before and their neighbours had the
    same colours, as often. It is exact: no hash decides.

    Args:
        graphs: `mmxx.data.Graphs`, or a sequence of graphs that `mmxx.data.as_graphs` takes.
        n_iter: Rounds.
        node_labels: For each graph an integer a node; by default the graphs' own labels, else all
            nodes begin alike.

    Returns:
        For each graph [n_iter + 1, nodes], int64.

    Raises:
        ValueError: n_iter below 0, a graph that cannot be used, or labels that do not fit.

    Example:
        >>> import networkx as nx
        >>> wl_labels([nx.path_graph(4)], 1)[0].tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0]]
    """
    check_whole("n_iter", n_iter, 0)
    data = as_graphs(graphs)
    labels = None
    if node_labels is not None:
        if len(node_labels) != len(data):
            raise ValueError(f"node_labels for {len(node_labels)} graphs, there are {len(data)}")
        for number, (given, size) in enumerate(
            zip(node_labels, np.diff(data.offsets), strict=True)
        ):
            if np.shape(given) != (size,) or np.asarray(given).dtype.kind not in "iu":
                raise ValueError(f"node_labels of graph {number} must be {size} integers")
        labels = np.concatenate([np.asarray(given) for given in node_labels])
    return np.split(colours(data, n_iter, labels), data.offsets[1:-1], axis=1)


def wl_equivalent(g: Any, h: Any) -> bool:
    """Whether refinement, for as many rounds as it takes, does not tell two graphs apart.

    Isomorphic graphs are equivalent; equivalent ones need not be isomorphic.

    Args:
        g: A graph that `mmxx.data.as_graphs` takes; its labels count, attributes do not.
        h: Another.

    Example:
        >>> import networkx as nx
        >>> two = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
        >>> wl_equivalent(nx.cycle_graph(6), two)
        True
    """
    data = as_graphs([g, h])
    if np.ptp(np.diff(data.offsets)):
        return False
    now = colours(data, 0)[0]
    count = now.max() + 1
    while True:
        one, other = np.split(now, [data.offsets[1]])
        if not np.array_equal(np.sort(one), np.sort(other)):
            return False
        now, finer = _kernels.refine(now, data.indptr, data.sources)
        if finer == count:
            return True
        count = finer


class WLSubtreeKernel(TransformerMixin, BaseEstimator):
    """The number of equal colours of two graphs, over all rounds of refinement.

    Args:
        n_iter: Rounds.
        normalize: Divide by the roots of both graphs' kernels with themselves.

    Attributes:
        graphs_: The graphs in `fit`; only their structure and labels count.

    Source: Shervashidze et al., *Weisfeiler-Lehman graph kernels*, JMLR 2011.

    Example:
        >>> import networkx as nx
        >>> graphs = [nx.path_graph(3), nx.cycle_graph(3)]
        >>> WLSubtreeKernel(n_iter=1).fit_transform(graphs).tolist()
        [[14, 12], [12, 18]]
    """

    graphs_: Graphs

    def __init__(self, n_iter: int = 5, *, normalize: bool = False) -> None:
        self.n_iter = n_iter
        self.normalize = normalize

    def fit(self, X: Any, y: object = None) -> WLSubtreeKernel:
        """Keep some graphs.

        Args:
            X: As for `wl_labels`.
            y: Ignored.

        Returns:
            The kernel itself.

        Raises:
            ValueError: n_iter below 0, or a graph that cannot be used.
        """
        check_whole("n_iter", self.n_iter, 0)
        self.graphs_ = as_graphs(X)
        return self

    def fit_transform(self, X: Any, y: object = None, **fit_params: Any) -> NDArray[Any]:
        """The kernel matrix of some graphs, [n, n]: int64, or float64 where normalised.

        Args:
            X: As for `wl_labels`.
            y: Ignored.
            fit_params: Ignored.
        """
        self.fit(X)
        counts = self._counts(self.graphs_)
        return self._kernel(counts, counts)

    def transform(self, X: Any) -> NDArray[Any]:
        """The kernel of graphs with those in `fit`, [m, n].

        Args:
            X: As for `wl_labels`.

        Raises:
            ValueError: A graph cannot be used, or has labels where those in `fit` have none.
        """
        check_is_fitted(self)
        data = as_graphs(X)
        if (data.node_labels is None) != (self.graphs_.node_labels is None):
            raise ValueError("graphs: with labels, or without, as those in fit must be all")
        counts = self._counts(_joined(self.graphs_, data))
        n = len(self.graphs_)
        return self._kernel(counts[n:], counts[:n])

    def _counts(self, data: Graphs) -> csr_array:
        """How often each graph has each colour of each round, [graphs, colours]."""
        found = colours(data, self.n_iter)
        sizes = found.max(1) + 1
        columns = (found + (np.cumsum(sizes) - sizes)[:, None]).ravel()
        owners = np.tile(data.owner, self.n_iter + 1)
        shape = (len(data), int(sizes.sum()))
        return csr_array((np.ones(columns.size, np.int64), (owners, columns)), shape=shape)

    def _kernel(self, one: csr_array, other: csr_array) -> NDArray[Any]:
        found = (one @ other.T).toarray()
        if not self.normalize:
            return found
        roots = [np.sqrt(counts.multiply(counts).sum(axis=1)) for counts in (one, other)]
        return found / np.outer(*roots)


def _joined(one: Graphs, other: Graphs) -> Graphs:
    """The structure and labels of two sets, end to end."""
    labels = None
    if one.node_labels is not None and other.node_labels is not None:
        labels = np.concatenate([one.node_labels, other.node_labels])
    return Graphs(
        np.concatenate([one.offsets, other.offsets[1:] + one.n_nodes]),
        np.concatenate([one.indptr, other.indptr[1:] + one.n_edges]),
        np.concatenate([one.sources, other.sources + one.n_nodes]),
        node_labels=labels,
    )
