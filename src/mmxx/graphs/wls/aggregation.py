"""What a node takes from its neighbours: sums of messages, and what other methods take."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from mmxx.data.graphs import Graphs
from mmxx.graphs.wls import _kernels
from mmxx.graphs.wls.expansion import Exact, Floats, Layer

Aggregation = Literal["wwl", "sage", "gcn", "gat"]
AGGREGATIONS: tuple[Aggregation, ...] = ("wwl", "sage", "gcn", "gat")


def weights(graphs: Graphs) -> Floats:
    """The weight of each edge, 1 where none is given."""
    given = graphs.edge_weight
    return np.ones(graphs.n_edges) if given is None else given


def adjacency(graphs: Graphs) -> csr_array:
    """Weights of the edges into each node (row) from each other (column), [nodes, nodes]."""
    shape = (graphs.n_nodes, graphs.n_nodes)
    return csr_array((weights(graphs), graphs.sources, graphs.indptr), shape=shape)


def transform_sum_cat(
    layer: Layer, x: Floats, graphs: Graphs, cat_scale: float, edges: Floats | None = None
) -> Floats:
    r"""One round: $P\,\mathrm{cat}(s\,x_v, \sum_{u \to v} w_{uv}\,\varphi(x_u)) / \sqrt d$.

    P is linear, so messages are projected before they are added up.

    Args:
        layer: φ and P.
        x: [nodes, d].
        graphs: The graphs of these nodes.
        cat_scale: The factor s; with 0 nothing is kept beside the sum, and the node counts as
            one of its own neighbours.
        edges: Columns of each edge [edges, k], to be expanded beside the sender's.

    Returns:
        [nodes, width].
    """
    if edges is None:
        sent = layer.messages(x)
        total = adjacency(graphs) @ sent
    else:
        sent = layer.messages(np.hstack([x[graphs.sources], edges]))
        shape = (graphs.n_nodes, graphs.n_edges)
        columns = np.arange(graphs.n_edges)
        total = csr_array((weights(graphs), columns, graphs.indptr), shape=shape) @ sent
    if cat_scale == 0:
        if edges is not None:
            sent = layer.messages(np.hstack([x, np.zeros((len(x), edges.shape[1]))]))
        total += sent
    elif isinstance(layer, Exact):
        total = np.hstack([cat_scale * x, total])
    else:
        total += cat_scale * layer.own(x)
    total /= math.sqrt(x.shape[1])
    return total


def aggregate(
    aggregation: Aggregation,
    x: Floats,
    graphs: Graphs,
    *,
    add_self: bool = False,
    temperature: float = 1.0,
) -> Floats:
    r"""One round of a method that aggregates before it transforms, without parameters.

    Args:
        aggregation: "wwl" (half of x and the neighbours' mean), "sage" (their mean), "gcn"
            ($D^{-1/2} A D^{-1/2}$), "gat" (softmax of inner products).
        x: [nodes, d].
        graphs: The graphs of these nodes; weights of edges count.
        add_self: sage and gat: add x; gcn: A + I for A. wwl has it anyway.
        temperature: gat: what inner products are divided by.

    Returns:
        [nodes, d]; the mean of no neighbours is 0.
    """
    if aggregation == "gat":
        found = _kernels.attend(
            np.ascontiguousarray(x), graphs.indptr, graphs.sources, weights(graphs), temperature
        )
        return found + x if add_self else found
    matrix = adjacency(graphs)
    degree = np.asarray(matrix.sum(axis=1)).reshape(-1, 1)
    if aggregation == "gcn":
        root = _inverse(np.sqrt(np.maximum(degree + add_self, 0)))
        scaled = x * root
        return (matrix @ scaled + (scaled if add_self else 0)) * root
    mean = (matrix @ x) * _inverse(degree)
    if aggregation == "wwl":
        return (x + mean) / 2
    return mean + x if add_self else mean


def _inverse(values: Floats) -> Floats:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values != 0)


def read_out(x: Floats, graphs: Graphs, readout: str) -> Floats:
    """Sum or mean of each graph's rows, [nodes, d] to [graphs, d]."""
    found = np.add.reduceat(x, graphs.offsets[:-1], axis=0)
    return found / np.diff(graphs.offsets)[:, None] if readout == "mean" else found
