"""The container of graphs, graphs of other libraries, and the TU format."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import scipy.sparse

from mmxx.data import DataError, Graphs, as_graphs, load, read_tu, to_networkx, write_tu

ARRAYS = (
    "offsets", "indptr", "sources", "attributes", "node_labels", "edge_weight",
    "edge_attributes", "edge_labels", "targets",
)  # fmt: skip


def assert_same(one: Graphs, other: Graphs) -> None:
    for name in ARRAYS:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, name)


@pytest.fixture
def graphs() -> list[nx.Graph]:
    rng = np.random.default_rng(0)
    graphs = [nx.gnp_random_graph(n, 0.4, seed=n) for n in (5, 1, 7)]
    for graph in graphs:
        for node in graph:
            graph.nodes[node].update(x=rng.normal(size=2).tolist(), label=node % 3)
    return graphs


def test_every_library_gives_the_same_graphs(graphs: list[nx.Graph]) -> None:
    made = as_graphs(graphs, node_label=None)
    x = [np.array([v["x"] for _, v in graph.nodes(data=True)]) for graph in graphs]
    sparse = [nx.to_scipy_sparse_array(graph, dtype=float) for graph in graphs]
    pairs = [np.array([*graph.edges, *(e[::-1] for e in graph.edges)]).reshape(-1, 2).T
             for graph in graphs]  # fmt: skip
    assert_same(made, as_graphs(list(zip(sparse, x, strict=True))))
    assert_same(made, as_graphs(list(zip(pairs, x, strict=True))))
    torch = pytest.importorskip("torch")
    data = [
        SimpleNamespace(edge_index=torch.tensor(e), x=torch.tensor(v), edge_attr=None, y=None)
        for e, v in zip(pairs, x, strict=True)
    ]
    assert_same(made, as_graphs(data))
    for graph, back in zip(graphs, to_networkx(made), strict=True):
        assert nx.utils.graphs_equal(nx.Graph(graph.edges), nx.Graph(back.edges))
    assert made.symmetric


def test_edges_lie_with_their_targets() -> None:
    graph = nx.DiGraph([(0, 2), (1, 2), (2, 0)])
    nx.set_edge_attributes(graph, {(0, 2): 3.0, (1, 2): 4.0, (2, 0): 5.0}, "weight")
    made = as_graphs([graph])  # nodes in networkx' order: 0, 2, 1
    assert made.edge_index.tolist() == [[1, 0, 2], [0, 1, 1]]
    assert made.edge_weight is not None
    assert made.edge_weight.tolist() == [5.0, 3.0, 4.0]
    assert made.degrees.tolist() == [1, 2, 0]
    assert not made.symmetric
    assert to_networkx(made)[0].edges[2, 1]["weight"] == 4.0


def test_a_subset_is_what_would_have_been_made_of_it(graphs: list[nx.Graph]) -> None:
    assert_same(as_graphs(graphs).subset([2, 0]), as_graphs([graphs[2], graphs[0]]))


def test_targets_and_edge_attributes_of_pyg_are_taken() -> None:
    data = SimpleNamespace(edge_index=np.array([[1, 0], [0, 1]]), num_nodes=2, y=np.array([3]),
                           edge_attr=np.array([[1.0], [2.0]]))  # fmt: skip
    made = as_graphs([data, data])
    assert made.targets is not None
    assert made.edge_attributes is not None
    assert made.targets.tolist() == [3, 3]
    assert made.edge_attributes.ravel().tolist() == [1.0, 2.0, 1.0, 2.0]
    assert made.attributes is None


X = np.ones((2, 1))
EDGE = np.array([[0], [1]])


@pytest.mark.parametrize(
    ("graphs", "error", "says"),
    [
        ([], ValueError, "none"),
        ("graphs", TypeError, "str"),
        (nx.path_graph(2), TypeError, "single"),
        ([3], TypeError, "graph 0: int"),
        ([(EDGE, X), (EDGE, np.ones((2, 2)))], ValueError, "graph 1: 2 attributes"),
        ([(EDGE, X), (np.zeros((2, 0)), np.ones((0, 1)))], ValueError, "graph 1 has no nodes"),
        ([(EDGE, X), (EDGE, X * np.nan)], ValueError, "graph 1: attributes hold NaN"),
        ([(EDGE, X * np.inf)], ValueError, "inf"),
        ([(np.array([[0], [2]]), X)], ValueError, "graph 0: an edge to node 2"),
        ([(np.array([[-1], [1]]), X)], ValueError, "node -1"),
        ([(np.array([[0.0], [1.0]]), X)], ValueError, "float64"),
        ([(EDGE, X), (scipy.sparse.eye_array(2), None)], ValueError, "graph 1 has no attributes"),
        ([(scipy.sparse.csr_array((2, 3)), None)], ValueError, "square"),
        ([(EDGE, [["a"], ["b"]])], ValueError, "no numbers"),
        ([(EDGE, None)], ValueError, "how many nodes"),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_named(graphs: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        as_graphs(graphs)


def test_a_value_must_be_at_every_node_or_none() -> None:
    graph = nx.path_graph(3)
    graph.nodes[1]["x"] = 1.0
    with pytest.raises(ValueError, match="graph 1: 2 of 3 nodes have no 'x'"):
        as_graphs([nx.path_graph(2), graph])
    graph.nodes[0]["x"] = graph.nodes[2]["x"] = (1.0, 2.0)
    with pytest.raises(ValueError, match="differ in length"):
        as_graphs([graph])
    nx.set_node_attributes(graph, 0.5, "label")
    with pytest.raises(ValueError, match="no integers"):
        as_graphs([graph], node_attribute=None)


def test_targets_are_one_a_graph() -> None:
    with pytest.raises(ValueError, match=r"targets must be \[1\]"):
        as_graphs([(EDGE, X)]).with_targets([1, 2, 3])


# -- the TU format -----------------------------------------------------------------------------


@pytest.fixture
def folder(graphs: list[nx.Graph], tmp_path: Path) -> Path:
    place = tmp_path / "SET"
    write_tu(as_graphs(graphs).with_targets([1, -1, 1]), place)
    return place


def zipped(folder: Path, prefix: str = "SET/") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(prefix + file.name), file.read_bytes())
    return path


def test_what_is_written_is_read_again(graphs: list[nx.Graph], folder: Path) -> None:
    wanted = as_graphs(graphs).with_targets([1, -1, 1])
    assert_same(read_tu(folder), wanted)
    assert_same(read_tu(folder.parent), wanted)
    loaded = load(folder, ("graphs",))
    assert isinstance(loaded, Graphs)
    assert_same(loaded, wanted)
    assert_same(read_tu(zipped(folder)), wanted)
    assert read_tu(folder).source.sha256 != read_tu(zipped(folder)).source.sha256


def test_all_that_the_format_holds_comes_back(tmp_path: Path) -> None:
    made = as_graphs([(EDGE, X)])
    full = Graphs(
        made.offsets, made.indptr, made.sources, made.attributes,
        edge_attributes=np.array([[1 / 3, 2.0]]), edge_labels=np.array([7]),
        targets=np.array([0.1]),
    )  # fmt: skip
    write_tu(full, tmp_path / "R")
    assert_same(read_tu(tmp_path / "R"), full)


def test_nodes_and_edges_may_lie_in_any_order(folder: Path) -> None:
    wanted = read_tu(folder)
    nodes = wanted.n_nodes
    for part in ("graph_indicator", "node_labels", "node_attributes"):
        path = folder / f"SET_{part}.txt"
        path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[::-1]))
    edges = folder / "SET_A.txt"
    pairs = [
        [nodes + 1 - int(v) for v in line.split(",")] for line in edges.read_text().splitlines()
    ]
    edges.write_text("".join(f"{u}, {v}\n" for u, v in pairs))
    found = read_tu(folder)
    assert found.degrees.sum() == wanted.degrees.sum()
    for graph in range(3):
        one, other = found.subset([graph]), wanted.subset([graph])
        assert one.attributes is not None
        assert other.attributes is not None
        np.testing.assert_array_equal(one.attributes[::-1], other.attributes)
        np.testing.assert_array_equal(one.degrees[::-1], other.degrees)


def change(folder: Path, part: str, old: str, new: str) -> None:
    path = folder / f"SET_{part}.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("part", "old", "new", "says"),
    [
        ("A", "8, 7", "8, 99", "node 99"),
        ("A", "8, 7", "8, x", "SET, A"),
        ("A", "8, 7", "8, 1", "joins two graphs"),
        ("A", "8, 7", "8", "SET, A"),
        ("graph_labels", "1\n", "", "graph_labels 2"),
        ("graph_labels", "1\n", "1\n1\n", "graph 4 without nodes"),
        ("node_labels", "0\n", "", "12 lines of node_labels; accepted: 13"),
        ("node_labels", "0\n", "0.5\n", "integers"),
        ("graph_indicator", "1\n", "0\n", "0 to 3"),
    ],
)
def test_damage_is_named(folder: Path, part: str, old: str, new: str, says: str) -> None:
    change(folder, part, old, new)
    with pytest.raises(DataError, match=says):
        read_tu(folder)


def test_files_that_are_missing_are_listed(folder: Path) -> None:
    (folder / "SET_graph_labels.txt").unlink()
    (folder / "SET_graph_indicator.txt").unlink()
    with pytest.raises(DataError, match=r"SET_graph_indicator.txt, SET_graph_labels.txt missing"):
        read_tu(folder)
    (folder / "SET_A.txt").unlink()
    with pytest.raises(DataError, match="no file NAME_A"):
        read_tu(folder)
    with pytest.raises(DataError, match="no such"):
        read_tu(folder / "nothing")


def test_a_zip_that_leads_outside_or_is_none_is_refused(folder: Path) -> None:
    for prefix in ("../", "/tmp/", "a/../../"):
        with pytest.raises(DataError, match="leads outside"):
            read_tu(zipped(folder, prefix))
    folder.with_suffix(".zip").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="no zip file"):
        read_tu(folder.with_suffix(".zip"))
    (folder / "OTHER_A.txt").write_text("1, 1\n")
    with pytest.raises(DataError, match="2 sets"):
        read_tu(folder)


def test_what_the_format_has_no_place_for_is_refused(tmp_path: Path) -> None:
    made = as_graphs([(EDGE, X)])
    with pytest.raises(ValueError, match="no targets"):
        write_tu(made, tmp_path / "A")
    with pytest.raises(ValueError, match="name"):
        write_tu(made.with_targets([1]), tmp_path / "a b")
    weighted = as_graphs([(scipy.sparse.csr_array([[0.0, 2.0], [2.0, 0.0]]), X)])
    with pytest.raises(ValueError, match="edge weights"):
        write_tu(weighted.with_targets([1]), tmp_path / "A")


@pytest.mark.skipif("MMXX_DATA" not in os.environ, reason="MMXX_DATA names no folder of real data")
def test_public_sets_have_the_published_sizes() -> None:
    place = Path(os.environ["MMXX_DATA"]) / "graphs" / "tu"
    mutag = read_tu(place / "MUTAG.zip")
    assert (len(mutag), mutag.n_nodes, mutag.n_edges) == (188, 3371, 7442)
    assert mutag.edge_labels is not None
    bzr = read_tu(place / "BZR.zip")
    assert (len(bzr), bzr.n_nodes) == (405, 14479)
    assert bzr.attributes is not None
    assert bzr.attributes.shape == (14479, 3)
