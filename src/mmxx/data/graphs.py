"""`Graphs`: many graphs end to end in one container."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mmxx.data.source import Source

if TYPE_CHECKING:
    import numpy as np

MEMORY = Source("graphs", "not stated", "objects in memory")


@dataclass(frozen=True, slots=True, eq=False)
class Graphs:
    """Graphs end to end; nodes and edges are numbered through.

    An edge leads from its source to its target; of an undirected graph both directions are
    there. Edges are sorted by target, so that those into node v are ``indptr[v]:indptr[v + 1]``.
    Parallel edges and loops are kept.

    Attributes:
        offsets: The nodes of graph g are ``offsets[g]:offsets[g + 1]``, int64 [graphs + 1].
        indptr: int64 [nodes + 1].
        sources: Source of each edge, int64 [edges].
        attributes: float64 [nodes, d], finite, or None.
        node_labels: int64 [nodes], or None.
        edge_weight: float64 [edges], finite, or None for edges that all count 1.
        edge_attributes: float64 [edges, k], finite, or None.
        edge_labels: int64 [edges], or None.
        targets: What is to be predicted of each graph, int64 or float64 [graphs], or None.
        source: Where they come from.

    Example:
        >>> from mmxx.data import as_graphs
        >>> pair = as_graphs([([[0, 1], [1, 0]], [[1.0], [2.0]])])
        >>> len(pair), pair.n_nodes, pair.n_edges
        (1, 2, 2)
    """

    kind: ClassVar[str] = "graphs"
    offsets: np.ndarray
    indptr: np.ndarray
    sources: np.ndarray
    attributes: np.ndarray | None = None
    node_labels: np.ndarray | None = None
    edge_weight: np.ndarray | None = None
    edge_attributes: np.ndarray | None = None
    edge_labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    source: Source = MEMORY

    def __len__(self) -> int:
        """How many graphs."""
        return len(self.offsets) - 1

    @property
    def n_nodes(self) -> int:
        """Nodes of all graphs."""
        return int(self.offsets[-1])

    @property
    def n_edges(self) -> int:
        """Edges of all graphs; an undirected one counts twice."""
        return len(self.sources)

    @property
    def owner(self) -> np.ndarray:
        """The graph of each node, int64 [nodes]."""
        import numpy as np

        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def edge_index(self) -> np.ndarray:
        """Sources above targets, int64 [2, edges]."""
        import numpy as np

        return np.stack([self.sources, np.repeat(np.arange(self.n_nodes), np.diff(self.indptr))])

    @property
    def degrees(self) -> np.ndarray:
        """Edges into each node, int64 [nodes]."""
        import numpy as np

        return np.diff(self.indptr)

    @property
    def symmetric(self) -> bool:
        """Whether every edge is there in the other direction too, and as often."""
        import numpy as np

        source, target = self.edge_index
        there, back = source * self.n_nodes + target, target * self.n_nodes + source
        return bool(np.array_equal(np.sort(there), np.sort(back)))

    def subset(self, chosen: Iterable[int]) -> Graphs:
        """Some of the graphs, in the order given.

        Args:
            chosen: Their numbers.
        """
        import numpy as np

        numbers = np.fromiter(chosen, np.int64)
        sizes = np.diff(self.offsets)[numbers]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        nodes = _ranges(self.offsets[numbers], sizes)
        counts = np.diff(self.indptr)[nodes]
        edges = _ranges(self.indptr[nodes], counts)
        shift = np.repeat(offsets[:-1] - self.offsets[numbers], sizes)
        sources = self.sources[edges] + np.repeat(shift, counts)

        def of(array: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
            return None if array is None else array[rows]

        return Graphs(
            offsets,
            np.concatenate([[0], np.cumsum(counts)]),
            sources,
            of(self.attributes, nodes),
            of(self.node_labels, nodes),
            of(self.edge_weight, edges),
            of(self.edge_attributes, edges),
            of(self.edge_labels, edges),
            of(self.targets, numbers),
            self.source,
        )

    def with_targets(self, targets: Sequence[Any]) -> Graphs:
        """The same graphs with other targets.

        Args:
            targets: One for each graph.

        Raises:
            ValueError: Their number is another.
        """
        import numpy as np

        values = np.asarray(targets)
        if values.shape != (len(self),):
            raise ValueError(f"targets must be [{len(self)}], one a graph, got {values.shape}")
        return replace(self, targets=values)


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, … for each start, as many as counted, end to end."""
    import numpy as np

    total = int(counts.sum())
    return np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(total)


Parts = tuple[int, "Any", dict[str, "Any"]]
"""A graph's number of nodes, its edges [2, edges], and the arrays that it has, by name."""
_NODE_ARRAYS = ("attributes", "node_labels")
_EDGE_ARRAYS = ("edge_weight", "edge_attributes", "edge_labels")


def assemble(
    parts: Sequence[Parts],
    *,
    targets: Any = None,
    source: Source = MEMORY,
) -> Graphs:
    """Check graphs one by one and put them end to end.

    Args:
        parts: For each the number of nodes, sources above targets [2, edges] counted from 0 in
            that graph, and the arrays of `Graphs` that it has, by name.
        targets: What is to be predicted of each graph.
        source: Where they come from.

    Raises:
        ValueError: As of `as_graphs`.
    """
    import numpy as np

    if not parts:
        raise ValueError("graphs: there is none; accepted: one or more")
    columns: dict[str, list[np.ndarray]] = {}
    first = parts[0][2]
    indices = []
    for number, (nodes, given, arrays) in enumerate(parts):
        index = _edges_of(number, nodes, given)
        indices.append(index)
        for name in (*_NODE_ARRAYS, *_EDGE_ARRAYS):
            value, other = arrays.get(name), first.get(name)
            if (value is None) != (other is None):
                if name not in _EDGE_ARRAYS or index.shape[1]:
                    without = number if value is None else 0
                    raise ValueError(
                        f"graph {without} has no {name.replace('_', ' ')}, others have"
                    )
                continue  # a graph without edges need not say what its edges have
            if value is not None:
                count = nodes if name in _NODE_ARRAYS else index.shape[1]
                before = columns.setdefault(name, [])
                before.append(_column(number, name, value, count, before[0] if before else None))
    sizes = np.array([nodes for nodes, _, _ in parts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    source_ids, target_ids = np.concatenate(
        [index + shift for index, shift in zip(indices, offsets[:-1], strict=True)], axis=1
    )
    order = np.lexsort((source_ids, target_ids))
    counts = np.bincount(target_ids, minlength=offsets[-1])
    joined: dict[str, Any] = {name: np.concatenate(found) for name, found in columns.items()}
    for name in set(_EDGE_ARRAYS) & set(joined):
        joined[name] = joined[name][order]
    if "edge_weight" in joined and (joined["edge_weight"] == 1).all():
        del joined["edge_weight"]
    graphs = Graphs(
        offsets,
        np.concatenate([[0], np.cumsum(counts)]),
        source_ids[order],
        source=source,
        **joined,
    )
    return graphs if targets is None else graphs.with_targets(targets)


def _edges_of(number: int, nodes: int, given: Any) -> np.ndarray:
    import numpy as np

    if nodes < 1:
        raise ValueError(f"graph {number} has no nodes; accepted: one or more")
    index = np.asarray(given)
    if index.size == 0:
        return np.zeros((2, 0), dtype=np.int64)
    if index.ndim != 2 or len(index) != 2 or index.dtype.kind not in "iu":
        raise ValueError(
            f"graph {number}: edge_index of shape {index.shape} and dtype {index.dtype}; accepted: "
            "integers [2, edges], sources above targets"
        )
    if index.min() < 0 or index.max() >= nodes:
        wrong = index[(index < 0) | (index >= nodes)][0]
        raise ValueError(
            f"graph {number}: an edge to node {wrong}, which is missing; accepted: 0 … {nodes - 1}"
        )
    return index.astype(np.int64)


def _column(
    number: int, name: str, given: Any, count: int, before: np.ndarray | None
) -> np.ndarray:
    """An array of one graph, checked against its nodes or edges and the graphs before."""
    import numpy as np

    words, labels = name.replace("_", " "), name.endswith("labels")
    try:
        values = np.asarray(given, dtype=np.int64 if labels else np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"graph {number}: {words} that are no numbers") from None
    if labels and not np.array_equal(values, np.asarray(given)):
        raise ValueError(f"graph {number}: {words} that are no integers")
    dims = 2 if name.endswith("attributes") else 1
    if values.ndim == 1 and dims == 2:
        values = values[:, None]
    if values.ndim != dims or len(values) != count:
        raise ValueError(
            f"graph {number}: {words} of shape {np.shape(given)}; accepted: {count} rows"
            if dims == 2
            else f"graph {number}: {words} of shape {np.shape(given)}; accepted: [{count}]"
        )
    if before is not None and values.shape[1:] != before.shape[1:]:
        raise ValueError(
            f"graph {number}: {values.shape[1]} {words} a row, graph 0 has {before.shape[1]}"
        )
    if not labels and not np.isfinite(values).all():
        what = "NaN" if np.isnan(values).any() else "inf"
        raise ValueError(f"graph {number}: {words} hold {what}; accepted: finite numbers")
    return values
