"""Colour refinement against a naive one, and the subtree kernel against counting by hand."""

from __future__ import annotations

import itertools
from collections import Counter

import networkx as nx
import numpy as np
import pytest

from mmxx.data import as_graphs
from mmxx.graphs.wls import WLSubtreeKernel, wl_equivalent, wl_labels


def naive(graphs: list[nx.Graph], rounds: int, labels: bool = False) -> list[list[list[object]]]:
    """Colours as nested tuples, [graph][round][node]."""
    found = []
    for graph in graphs:
        now = {v: graph.nodes[v].get("label", 0) if labels else 0 for v in graph}
        history = [list(now.values())]
        for _ in range(rounds):
            now = {v: hash((now[v], tuple(sorted(now[u] for u in graph[v])))) for v in graph}
            history.append(list(now.values()))
        found.append(history)
    return found


def some(count: int, labels: int = 0) -> list[nx.Graph]:
    rng = np.random.default_rng(count)
    graphs = [nx.gnp_random_graph(int(rng.integers(2, 40)), 0.2, seed=k) for k in range(count)]
    graphs.append(nx.complete_graph(40))  # more neighbours than insertion sorts
    for graph in graphs:
        if labels:
            nx.set_node_attributes(graph, {v: int(rng.integers(labels)) for v in graph}, "label")
    return graphs


@pytest.mark.parametrize("labels", [0, 3])
def test_colours_part_nodes_as_naive_ones_do(labels: int) -> None:
    graphs = some(12, labels)
    ours, theirs = wl_labels(graphs, 4), naive(graphs, 4, bool(labels))
    for t in range(5):
        pairs = {
            (int(a), b)
            for one, other in zip(ours, theirs, strict=True)
            for a, b in zip(one[t], other[t], strict=True)
        }
        assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
        assert {a for a, _ in pairs} == set(range(len(pairs)))


def test_equal_hashes_do_not_make_equal_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmxx.graphs.wls import _kernels

    data = as_graphs(some(6))
    colours = np.zeros(data.n_nodes, dtype=np.int64)
    wanted, count = _kernels.refine(colours, data.indptr, data.sources)
    monkeypatch.setattr(_kernels, "_mixed", lambda word: np.uint64(0))
    for name in ("_alike", "_sorted_neighbours"):
        monkeypatch.setattr(_kernels, name, getattr(_kernels, name).py_func)
    found, again = _kernels.refine.py_func(colours, data.indptr, data.sources)
    np.testing.assert_array_equal(found, wanted)
    assert again == count


def test_equivalence_is_that_of_refinement_on_small_graphs() -> None:
    graphs = [g for g in nx.graph_atlas_g()[1:] if g.number_of_nodes() == 6]
    keys = [tuple(sorted(colour)) for *_, colour in naive(graphs, 6)]
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(len(graphs)), 2)
        if sorted(d for _, d in graphs[i].degree) == sorted(d for _, d in graphs[j].degree)
    ]
    assert len(pairs) > 50
    for i, j in pairs:
        assert wl_equivalent(graphs[i], graphs[j]) == (keys[i] == keys[j])
    assert not wl_equivalent(nx.path_graph(3), nx.path_graph(4))


def test_labels_of_ones_own_count() -> None:
    graph = nx.path_graph(3)
    (found,) = wl_labels([graph], 1, [[5, 9, 7]])
    assert found.tolist() == [[0, 2, 1], [0, 1, 2]]
    for labels, says in (([], "0 graphs"), ([[1, 2]], "3 integers"), ([[0.5] * 3], "3 integers")):
        with pytest.raises(ValueError, match=says):
            wl_labels([graph], 1, labels)
    with pytest.raises(ValueError, match="n_iter"):
        wl_labels([graph], -1)


def test_the_subtree_kernel_counts_equal_colours() -> None:
    graphs = some(9, 2)
    rounds = naive(graphs, 3, labels=True)
    counts = [[Counter(colours) for colours in history] for history in rounds]
    wanted = [
        [
            sum(sum(a[c] * b[c] for c in a) for a, b in zip(one, other, strict=True))
            for other in counts
        ]
        for one in counts
    ]
    kernel = WLSubtreeKernel(3)
    K = kernel.fit_transform(graphs)
    assert K.dtype == np.int64
    np.testing.assert_array_equal(K, wanted)
    np.testing.assert_array_equal(kernel.fit(graphs[:6]).transform(graphs[6:]), K[6:, :6])
    normal = WLSubtreeKernel(3, normalize=True).fit_transform(graphs)
    roots = np.sqrt(K.diagonal())
    np.testing.assert_allclose(normal, K / np.outer(roots, roots))


def test_the_subtree_kernel_refuses_labels_that_it_has_not_seen() -> None:
    kernel = WLSubtreeKernel().fit(some(3))
    with pytest.raises(ValueError, match="with labels, or without"):
        kernel.transform(some(3, 2))
    with pytest.raises(ValueError, match="n_iter"):
        WLSubtreeKernel(-1).fit(some(2))
