"""Graphs from objects of other libraries, none of which is imported; and back to networkx."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mmxx.data.graphs import Graphs, Parts, assemble

if TYPE_CHECKING:
    import numpy as np

_ACCEPTED = (
    "networkx graphs, (scipy sparse adjacency, attributes), (edge_index, attributes), or objects "
    "with edge_index and x as of PyTorch Geometric"
)


def as_graphs(
    graphs: Any,
    *,
    node_attribute: str | None = "x",
    node_label: str | None = "label",
    edge_weight: str | None = "weight",
    edge_attribute: str | None = "edge_attr",
) -> Graphs:
    """Graphs of other libraries as one container; none of these libraries is imported.

    Args:
        graphs: `Graphs` (returned as they are), or a sequence, in which each is one of

            * a networkx graph; an undirected edge counts in both directions;
            * ``(A, x)``: a square scipy sparse matrix or array, A[u, v] the weight of the edge
              from u to v, and attributes [n, d] or None;
            * ``(edge_index, x)``: sources above targets [2, edges], and attributes [n, d];
            * an object with ``edge_index`` and ``x`` or ``num_nodes`` (PyTorch Geometric's Data),
              perhaps ``edge_attr``, ``edge_weight`` and ``y``.
        node_attribute: networkx: the node attribute that holds a number or vector.
        node_label: networkx: the node attribute that holds an integer label.
        edge_weight: networkx: the edge attribute that holds a weight.
        edge_attribute: networkx: the edge attribute that holds a number or vector.

    Returns:
        The graphs. What no graph has is None.

    Raises:
        TypeError: Something is no graph of these kinds.
        ValueError: There is no graph, or one has no nodes, an edge to a node that is not there,
            attributes of another width than those before or that are not finite, or lacks what
            others have; it names the graph's number.

    Example:
        >>> import numpy as np
        >>> square = (np.array([[0, 1, 2, 3], [1, 2, 3, 0]]), np.ones((4, 1)))
        >>> as_graphs([square]).symmetric
        False
    """
    if isinstance(graphs, Graphs):
        if not len(graphs):
            raise ValueError("graphs: there is none; accepted: one or more")
        return graphs
    if isinstance(graphs, (str, bytes)) or not isinstance(graphs, Iterable):
        raise TypeError(f"graphs: {type(graphs).__name__}; accepted: a sequence of {_ACCEPTED}")
    if hasattr(graphs, "adj") and hasattr(graphs, "nodes"):
        raise TypeError("graphs: a single networkx graph; accepted: a sequence of graphs")
    names = (node_attribute, node_label, edge_weight, edge_attribute)
    items = list(graphs)
    found = assemble([_parts(number, graph, names) for number, graph in enumerate(items)])
    targets = [getattr(graph, "y", None) for graph in items]
    if targets and all(target is not None for target in targets):
        import numpy as np

        values = [np.asarray(target).reshape(-1) for target in targets]
        if all(len(value) == 1 for value in values):
            found = found.with_targets([value[0] for value in values])
    return found


def _parts(number: int, graph: Any, names: tuple[str | None, ...]) -> Parts:
    """One graph of whatever kind."""
    if hasattr(graph, "adj") and hasattr(graph, "nodes") and hasattr(graph, "is_directed"):
        return _from_networkx(number, graph, names)
    if hasattr(graph, "edge_index"):
        return _from_pyg(graph)
    if isinstance(graph, (tuple, list)) and len(graph) == 2:
        structure, attributes = graph
        if hasattr(structure, "tocoo"):
            return _from_sparse(number, structure, attributes)
        return _from_edges(number, structure, attributes)
    if hasattr(graph, "tocoo"):
        return _from_sparse(number, graph, None)
    raise TypeError(f"graph {number}: {type(graph).__name__}; accepted: {_ACCEPTED}")


def _from_networkx(number: int, graph: Any, names: tuple[str | None, ...]) -> Parts:
    import numpy as np

    place = {node: index for index, node in enumerate(graph.nodes)}
    edges = [(place[u], place[v], values) for u, v, values in graph.edges(data=True)]
    if not graph.is_directed():
        edges += [(v, u, values) for u, v, values in edges if u != v]
    pairs = [(u, v) for u, v, _ in edges]
    nodes = [values for _, values in graph.nodes(data=True)]
    of_edges = [values for _, _, values in edges]
    node_attribute, node_label, edge_weight, edge_attribute = names
    columns = {
        "attributes": _gathered(number, nodes, node_attribute, "node"),
        "node_labels": _gathered(number, nodes, node_label, "node"),
        "edge_weight": _gathered(number, of_edges, edge_weight, "edge"),
        "edge_attributes": _gathered(number, of_edges, edge_attribute, "edge"),
    }
    return len(place), np.array(pairs, dtype=np.int64).reshape(-1, 2).T, columns


def _gathered(
    number: int, items: Sequence[dict[str, Any]], name: str | None, what: str
) -> np.ndarray | None:
    """A value that all nodes or edges of a networkx graph have, or None where none has it."""
    import numpy as np

    there = sum(name in values for values in items)
    if name is None or there == 0:
        return None
    if there < len(items):
        raise ValueError(
            f"graph {number}: {len(items) - there} of {len(items)} {what}s have no {name!r}; "
            f"accepted: a value at every {what} or at none"
        )
    try:
        return np.array([values[name] for values in items])
    except ValueError:
        raise ValueError(f"graph {number}: the {name!r} of its {what}s differ in length") from None


def _from_pyg(graph: Any) -> Parts:
    import numpy as np

    found = {
        name: np.asarray(value)
        for name in ("edge_index", "x", "edge_attr", "edge_weight")
        if (value := getattr(graph, name, None)) is not None
    }
    index = found.pop("edge_index")
    nodes = len(found["x"]) if "x" in found else int(graph.num_nodes)
    names = {"x": "attributes", "edge_attr": "edge_attributes", "edge_weight": "edge_weight"}
    return nodes, index, {names[name]: value for name, value in found.items()}


def _from_sparse(number: int, matrix: Any, attributes: Any) -> Parts:
    import numpy as np

    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"graph {number}: an adjacency of shape {matrix.shape}; accepted: square")
    entries = matrix.tocoo()
    rows, columns = (entries.row, entries.col) if hasattr(entries, "row") else entries.coords
    weight = np.asarray(entries.data, dtype=np.float64)
    index = np.stack([rows, columns]).astype(np.int64)
    return matrix.shape[0], index, {"attributes": attributes, "edge_weight": weight}


def _from_edges(number: int, edge_index: Any, attributes: Any) -> Parts:
    if attributes is None:
        raise ValueError(f"graph {number}: edges without attributes do not say how many nodes")
    return len(attributes), edge_index, {"attributes": attributes}


def to_networkx(graphs: Graphs) -> list[Any]:
    """The graphs as networkx graphs: undirected where every edge has its counterpart.

    Args:
        graphs: Graphs without parallel edges, which networkx' simple graphs do not have.

    Returns:
        One ``Graph`` or ``DiGraph`` each, with "x" and "label" at nodes and "weight" at edges
        where the graphs have them.

    Example:
        >>> pair = as_graphs([([[0, 1], [1, 0]], [[1.0], [2.0]])])
        >>> to_networkx(pair)[0].number_of_edges()
        1
    """
    import networkx

    kind = networkx.Graph if graphs.symmetric else networkx.DiGraph
    source, target = graphs.edge_index
    found = []
    for first, last in itertools.pairwise(graphs.offsets.tolist()):
        graph = kind()
        graph.add_nodes_from(range(last - first))
        for node in range(first, last):
            if graphs.attributes is not None:
                graph.nodes[node - first]["x"] = graphs.attributes[node].tolist()
            if graphs.node_labels is not None:
                graph.nodes[node - first]["label"] = int(graphs.node_labels[node])
        for edge in range(int(graphs.indptr[first]), int(graphs.indptr[last])):
            u, v = int(source[edge]) - first, int(target[edge]) - first
            graph.add_edge(u, v)
            if graphs.edge_weight is not None:
                graph.edges[u, v]["weight"] = float(graphs.edge_weight[edge])
        found.append(graph)
    return found
