"""What rounds begin with: columns of numbers at nodes and edges, standardised over a data set."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmxx.data.graphs import Graphs
from mmxx.graphs.wls.expansion import Floats

Nodes = Literal["auto", "attributes", "labels", "both", "degree", "constant"]
Edges = Literal["none", "attributes", "labels"]
NODES: tuple[Nodes, ...] = ("auto", "attributes", "labels", "both", "degree", "constant")
EDGES: tuple[Edges, ...] = ("none", "attributes", "labels")
_LEAST_SPREAD = 1e-7


@dataclass(frozen=True)
class Columns:
    """Columns of nodes or of edges as a data set has them.

    Attributes:
        use: "attributes", "labels", "both", "degree" or "constant".
        what: "node" or "edge".
        labels: The labels of the data set, ascending, int64; empty without labels.
        shift: What is subtracted from each column, [d].
        spread: What it is divided by, [d].
    """

    use: str
    what: str
    labels: NDArray[np.int64]
    shift: Floats
    spread: Floats

    def of(self, graphs: Graphs) -> Floats:
        """The standardised columns, [nodes or edges, d].

        Raises:
            ValueError: The graphs lack what the data set had, have a label that it had not, or
                another number of attributes.
        """
        raw = _raw(graphs, self.use, self.what, self.labels)
        if raw.shape[1] != len(self.shift):
            raise ValueError(
                f"graphs: {raw.shape[1]} columns at each {self.what}, fitted were {len(self.shift)}"
            )
        return (raw - self.shift) / self.spread


def fit_columns(graphs: Graphs, use: str, what: str = "node") -> Columns:
    """Mean and standard deviation of each column over all nodes, or edges, of a data set.

    A column without spread becomes 1, since φ of 0 is 0 and every feature would vanish.

    Args:
        graphs: The data set.
        use: One of `NODES`, or of `EDGES` without "none". "auto" takes attributes where there are
            any, else labels, else the degree.
        what: "node" or "edge".

    Raises:
        ValueError: The graphs do not have what is to be used.
    """
    if use == "auto":
        use = "attributes" if graphs.attributes is not None else "labels"
        if use == "labels" and graphs.node_labels is None:
            use = "degree"
    given = graphs.node_labels if what == "node" else graphs.edge_labels
    labels = np.empty(0, np.int64)
    if use in ("labels", "both") and given is not None:
        labels = np.unique(given)
    raw = _raw(graphs, use, what, labels)
    if not raw.shape[1]:
        raise ValueError(f"graphs: no {what} has attributes, only rows without columns")
    if not len(raw):  # a data set without edges
        return Columns(use, what, labels, np.zeros(raw.shape[1]), np.ones(raw.shape[1]))
    shift, spread = raw.mean(0), np.maximum(raw.std(0), _LEAST_SPREAD)
    constant = raw.min(0) == raw.max(0)
    shift[constant], spread[constant] = raw[0, constant] - 1, 1.0
    return Columns(use, what, labels, shift, spread)


def _raw(graphs: Graphs, use: str, what: str, labels: NDArray[np.int64]) -> Floats:
    if use == "degree":
        return graphs.degrees[:, None].astype(np.float64)
    if use == "constant":
        return np.ones((graphs.n_nodes, 1))
    nodes = what == "node"
    found = []
    if use in ("attributes", "both"):
        values = graphs.attributes if nodes else graphs.edge_attributes
        if values is None:
            raise ValueError(_lacking(what, "attributes"))
        found.append(values)
    if use in ("labels", "both"):
        given = graphs.node_labels if nodes else graphs.edge_labels
        if given is None:
            raise ValueError(_lacking(what, "labels"))
        if len(strange := np.setdiff1d(given, labels)):
            raise ValueError(
                f"graphs: the {what} label {strange[0]}, fitted were {labels.tolist()}"
            )
        found.append((given[:, None] == labels).astype(np.float64))
    return np.hstack(found)


def _lacking(what: str, values: str) -> str:
    other = "nodes='auto', 'degree' or 'constant'" if what == "node" else "edges='none'"
    return f"graphs: {what}s without {values}; accepted without: {other}"


def check_use(nodes: object, edges: object) -> None:
    """Refuse what is to be used of nodes and edges where it is unknown."""
    for name, value, known in (("nodes", nodes, NODES), ("edges", edges, EDGES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def is_real(value: object) -> bool:
    """Whether it is a number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_positive(name: str, value: Any) -> None:
    """Refuse what is no finite number above 0."""
    if not is_real(value) or not 0 < value < np.inf:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of ``least`` or more."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of {least} or more, got {value!r}")
