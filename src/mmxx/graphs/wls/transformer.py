"""Graphs as vectors: rounds of transform-sum-cat, or of a rival's aggregation, and a readout."""

from __future__ import annotations

import builtins
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal, cast

import numpy as np
from numpy.random import RandomState
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mmxx.data.graph_objects import as_graphs
from mmxx.data.graphs import Graphs
from mmxx.graphs.wls import inputs
from mmxx.graphs.wls.aggregation import (
    AGGREGATIONS,
    Aggregation,
    aggregate,
    read_out,
    transform_sum_cat,
)
from mmxx.graphs.wls.expansion import (
    MOST_COLUMNS,
    Expansion,
    Floats,
    Kernel,
    Layer,
    Projection,
    draw_layer,
)
from mmxx.graphs.wls.inputs import Columns

Readout = Literal["sum", "mean"]
_BLOCK = 16_384  # nodes that are worked on at a time, or one graph


class _GraphVectors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """What both transformers share: data in, rounds, readout, and the choice of rounds."""

    n_iter: int
    readout: str
    iterations: str | int
    nodes: str
    columns_: Columns

    def fit(self, X: Any, y: object = None) -> Any:
        """Learn means and standard deviations of the attributes, and draw what is drawn.

        Args:
            X: `mmxx.data.Graphs`, or a sequence of graphs that `mmxx.data.as_graphs` takes.
            y: Ignored.

        Returns:
            The transformer itself.

        Raises:
            ValueError: A parameter is out of range, or a graph cannot be used; it is named.

        Warns:
            UserWarning: An edge has no counterpart: nodes then listen to the sources of their
                edges only.
        """
        self._check()
        data = as_graphs(X)
        if not data.symmetric:
            warnings.warn(
                "some edges have no counterpart in the other direction: a node takes in the "
                "sources of the edges that lead to it",
                stacklevel=2,
            )
        self.columns_ = inputs.fit_columns(data, self.nodes)
        self._prepare(data)
        self._n_features_out = sum(self._widths()[t] for t in self._chosen())
        return self

    def transform(self, X: Any, *, map: Callable[..., Any] = builtins.map) -> Floats:
        """The vectors of graphs.

        Args:
            X: As for `fit`, with the same attributes.
            map: What to spread blocks of graphs with, called as ``map(fn, blocks)``.

        Returns:
            [graphs, features] of the rounds that ``iterations`` names.

        Raises:
            ValueError: The attributes are others than in `fit`.
        """
        return self._vectors(X, map)

    def _vectors(self, X: Any, map: Callable[..., Any]) -> Floats:
        every = self.transform_rounds(X, map=map)
        return np.hstack([every[t] for t in self._chosen()])

    def transform_rounds(self, X: Any, *, map: Callable[..., Any] = builtins.map) -> list[Floats]:
        """The vectors after each round, round 0 being the attributes: n_iter + 1 matrices.

        Args:
            X: As for `fit`, with the same attributes.
            map: What to spread blocks of graphs with.
        """
        check_is_fitted(self)
        data = as_graphs(X)
        self.columns_.of(data.subset([0]))  # refused here rather than in a worker
        blocks = [(self, data.subset(numbers)) for numbers in _blocks(data)]
        found = list(map(_rounds_of_block, blocks))
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def node_vectors(self, X: Any, round: int = -1) -> Floats:
        """The vectors of nodes after a round, of which the readout makes those of graphs.

        Args:
            X: As for `fit`, with the same attributes.
            round: 0 … n_iter, or -1 for the last.

        Returns:
            [nodes, width], the graphs' nodes end to end.

        Raises:
            ValueError: There is no such round.
        """
        check_is_fitted(self)
        if not -1 <= round <= self.n_iter:
            raise ValueError(f"round must be from 0 to {self.n_iter}, or -1, got {round}")
        return self._node_rounds(as_graphs(X))[round]

    def explain_distance(self, g: Any, h: Any) -> tuple[Floats, Floats]:
        r"""What each node adds to the squared distance of two graphs.

        With $\Delta = f(g) - f(h)$ a node v of g adds $\langle f(v), \Delta \rangle$ and one of h
        the negative of it, with the mean as readout over the number of nodes: together
        $|\Delta|^2$. Nodes that have their like in the other graph add to both, and cancel.

        Args:
            g: A graph, as for `fit`.
            h: Another.

        Returns:
            The shares of g's nodes [n] and of h's [m], which sum up to the squared distance.

        Raises:
            ValueError: ``iterations`` is "all".
        """
        if self.iterations == "all":
            raise ValueError("iterations='all': accepted is one round, 'last' or its number")
        check_is_fitted(self)
        data = as_graphs([g, h])
        x = self._node_rounds(data)[self._chosen()[0]]
        one, other = read_out(x, data, self.readout)
        shares = x @ (one - other)
        if self.readout == "mean":
            shares /= np.diff(data.offsets)[data.owner]
        cut = data.offsets[1]
        return shares[:cut], -shares[cut:]

    def _node_rounds(self, data: Graphs) -> list[Floats]:
        found = [self.columns_.of(data)]
        edges = self._edge_columns(data)
        for t in range(self.n_iter):
            found.append(self._step(t, found[-1], data, edges))
        if not all(np.isfinite(x).all() for x in found):
            raise ValueError("graphs: vectors overflow; fewer rounds or smaller weights are needed")
        return found

    def _chosen(self) -> list[int]:
        rounds = self.iterations
        if rounds == "all":
            return list(range(self.n_iter + 1))
        return [self.n_iter if rounds == "last" else int(rounds)]

    def _check(self) -> None:
        inputs.check_whole("n_iter", self.n_iter, 0)
        if self.readout not in ("sum", "mean"):
            raise ValueError(f"readout must be 'sum' or 'mean', got {self.readout!r}")
        rounds: Any = self.iterations
        if rounds not in ("last", "all") and not (
            isinstance(rounds, Integral)
            and not isinstance(rounds, bool)
            and 0 <= int(rounds) <= self.n_iter
        ):
            raise ValueError(
                f"iterations must be 'last', 'all' or one of 0 … {self.n_iter}, got {rounds!r}"
            )
        inputs.check_use(self.nodes, getattr(self, "edges", "none"))

    def _prepare(self, data: Graphs) -> None:
        """What a subclass learns besides the columns."""

    def _widths(self) -> list[int]:
        """Columns of a vector after each round."""
        return [len(self.columns_.shift)] * (self.n_iter + 1)

    def _edge_columns(self, data: Graphs) -> Floats | None:
        return None

    @abstractmethod
    def _step(self, t: int, x: Floats, data: Graphs, edges: Floats | None) -> Floats:
        """The vectors [nodes, width] after round t + 1, of those after round t."""


class WLSTransformer(_GraphVectors):
    r"""Vectors of graphs by rounds of transform, sum and cat.

    A node's vector is expanded by the features φ of a kernel, summed over the neighbours, and
    put beside the node's own: $f_{t+1}(v) = P\,\mathrm{cat}(f_t(v), \sum_u \varphi(f_t(u)))$. The
    distance of two sums is the kernel's distance of two multisets: nodes are alike whose
    neighbourhoods are. P is a random projection, another in each round. Whatever a Weisfeiler-Leman
    refinement does not tell apart has the same vector.

    Args:
        n_iter: Rounds.
        dim: Columns of the projections.
        kernel: "rbf", or "linear" for φ the identity.
        order: Highest degree of the rbf features: 1 or 2.
        sigma: Width of rbf, in standard deviations of an attribute.
        cat_scale: What a node's own vector is multiplied by. With 0 it is not kept: the node counts
            as one of its neighbours.
        readout: "sum" or "mean" over the nodes of a graph.
        projection: "sketch" (products by TensorSketch), "gaussian" (the paper's, slow), or "none",
            whose vectors grow as $d^{2^t}$.
        iterations: Which rounds make the vector: "last", "all" side by side, or one from 0.
        nodes: What rounds begin with: "attributes", "labels" (one column each), "both", "degree",
            "constant"; "auto" takes the first of attributes, labels and degree that is there.
        edges: "attributes" or "labels" to expand an edge's columns beside the sender's vector.
        random_state: Seed or RandomState for the projections.

    Attributes:
        columns_: How attributes are standardised: over all nodes in `fit`.
        edge_columns_: The same for edges, or None.
        layers_: The random matrices of each round.

    Example:
        >>> import networkx as nx
        >>> graphs = [nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)),
        ...           nx.path_graph(6)]
        >>> one, two, path = WLSTransformer(nodes="constant", random_state=0).fit_transform(graphs)
        >>> bool(np.allclose(one, two)), bool(np.allclose(one, path))
        (True, False)
    """  # fmt: skip

    edge_columns_: Columns | None
    layers_: list[Layer]

    def __init__(
        self,
        n_iter: int = 5,
        dim: int = 200,
        *,
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
        self.n_iter = n_iter
        self.dim = dim
        self.kernel = kernel
        self.order = order
        self.sigma = sigma
        self.cat_scale = cat_scale
        self.readout = readout
        self.projection = projection
        self.iterations = iterations
        self.nodes = nodes
        self.edges = edges
        self.random_state = random_state

    def _check(self) -> None:
        super()._check()
        inputs.check_whole("dim", self.dim, 1)
        if self.kernel not in ("rbf", "linear"):
            raise ValueError(f"kernel must be 'rbf' or 'linear', got {self.kernel!r}")
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order!r}")
        inputs.check_positive("sigma", self.sigma)
        if not inputs.is_real(self.cat_scale) or not 0 <= self.cat_scale < np.inf:
            raise ValueError(f"cat_scale must be a number of 0 or more, got {self.cat_scale!r}")
        if self.projection not in ("sketch", "gaussian", "none"):
            raise ValueError(
                f"projection must be 'sketch', 'gaussian' or 'none', got {self.projection!r}"
            )

    def _prepare(self, data: Graphs) -> None:
        self.edge_columns_ = None
        if self.edges != "none":
            self.edge_columns_ = inputs.fit_columns(data, self.edges, "edge")
        widest = max(self._widths())
        if widest > MOST_COLUMNS:
            raise ValueError(
                f"projection='none' makes {widest:,} columns in {self.n_iter} rounds; accepted: at "
                f"most {MOST_COLUMNS:,}, or another projection"
            )
        random = cast("RandomState", check_random_state(self.random_state))
        seed = int(random.randint(2**31 - 1))
        expansion = self._expansion()
        more = self._edge_width()
        self.layers_ = [
            draw_layer(
                np.random.default_rng([seed, t]), expansion, cast("Projection", self.projection),
                (width, width + more), self.dim,
            )
            for t, width in enumerate(self._widths()[:-1])
        ]  # fmt: skip

    def _expansion(self) -> Expansion:
        return Expansion(cast("Kernel", self.kernel), self.order, float(self.sigma))

    def _edge_width(self) -> int:
        return 0 if self.edge_columns_ is None else len(self.edge_columns_.shift)

    def _widths(self) -> list[int]:
        found = super()._widths()[:1]
        expansion = self._expansion()
        for _ in range(self.n_iter):
            width = self.dim
            if self.projection == "none":
                width = expansion.width(found[-1] + self._edge_width())
                width += found[-1] if self.cat_scale else 0
            found.append(width)
        return found

    def _edge_columns(self, data: Graphs) -> Floats | None:
        return None if self.edge_columns_ is None else self.edge_columns_.of(data)

    def _step(self, t: int, x: Floats, data: Graphs, edges: Floats | None) -> Floats:
        return transform_sum_cat(self.layers_[t], x, data, float(self.cat_scale), edges)


class AggregationTransformer(_GraphVectors):
    """Vectors of graphs by methods that aggregate before they transform, without parameters.

    What WLS is measured beside, in the same pipeline.

    Args:
        aggregation: "wwl" (half of a node's vector and its neighbours' mean), "sage" (their mean),
            "gcn" (normalised by degrees), or "gat" (softmax of inner products).
        n_iter: Rounds.
        add_self: sage and gat: add the node's own vector; gcn: a loop at every node.
        temperature: gat: what inner products are divided by.
        readout: "sum" or "mean" over the nodes of a graph.
        iterations: Which rounds make the vector: "last", "all" side by side, or one from 0.
        nodes: What rounds begin with; see `WLSTransformer`.

    Attributes:
        columns_: How attributes are standardised: over all nodes in `fit`.

    Example:
        >>> import networkx as nx
        >>> graphs = [nx.path_graph(4), nx.star_graph(3)]
        >>> AggregationTransformer("gcn", 2).fit_transform(graphs).shape
        (2, 1)
    """

    def __init__(
        self,
        aggregation: Aggregation = "wwl",
        n_iter: int = 5,
        *,
        add_self: bool = False,
        temperature: float = 1.0,
        readout: Readout = "sum",
        iterations: str | int = "last",
        nodes: inputs.Nodes = "auto",
    ) -> None:
        self.aggregation = aggregation
        self.n_iter = n_iter
        self.add_self = add_self
        self.temperature = temperature
        self.readout = readout
        self.iterations = iterations
        self.nodes = nodes

    def _check(self) -> None:
        super()._check()
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(
                f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {self.aggregation!r}"
            )
        inputs.check_positive("temperature", self.temperature)

    def _step(self, t: int, x: Floats, data: Graphs, edges: Floats | None) -> Floats:
        return aggregate(
            cast("Aggregation", self.aggregation), x, data, add_self=bool(self.add_self),
            temperature=float(self.temperature),
        )  # fmt: skip


def _rounds_of_block(task: tuple[_GraphVectors, Graphs]) -> list[Floats]:
    """The vectors of some graphs after each round: what a worker does."""
    model, data = task
    return [read_out(x, data, model.readout) for x in model._node_rounds(data)]


def _blocks(data: Graphs) -> list[range]:
    """Numbers of graphs with about so many nodes together."""
    block = data.offsets[:-1] // _BLOCK
    cuts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(data)]
    return [range(first, last) for first, last in pairwise(cuts)]
