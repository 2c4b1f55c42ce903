"""Vectors of graphs against what defines them: features, sums, refinement; and bad input."""

from __future__ import annotations

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone

from mmxx.data import Graphs, as_graphs
from mmxx.graphs.wls import AggregationTransformer, WLSKernel, WLSTransformer, similarity
from mmxx.graphs.wls.expansion import Expansion, Projected, Sketched, draw_layer, unit_rows
from mmxx.graphs.wls.inputs import fit_columns
from mmxx.graphs.wls.refinement import colours
from mmxx.lab.testing.watching import global_states, same_states


def some(rng: np.random.Generator, count: int = 8, width: int = 3) -> list[nx.Graph]:
    graphs = [nx.gnp_random_graph(int(rng.integers(3, 9)), 0.5, seed=k) for k in range(count)]
    for graph in graphs:
        for node in graph:
            graph.nodes[node]["x"] = rng.normal(size=width)
    return graphs


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    return as_graphs(some(np.random.default_rng(1)))


# -- features and projections ------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("order", [1, 2])
def test_features_are_taylors_of_the_gaussian_kernel_without_the_constant(
    sigma: float, order: int
) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 6, 4))
    phi = Expansion("rbf", order, sigma)
    inner = x @ y.T / sigma**2
    series = inner + (inner**2 / 2 if order == 2 else 0)
    envelope = np.exp(-((x**2).sum(1)[:, None] + (y**2).sum(1)) / (2 * sigma**2))
    wanted = sigma**2 * series * envelope
    np.testing.assert_allclose(phi.features(x) @ phi.features(y).T, wanted, rtol=0, atol=1e-10)
    assert phi.features(x).shape[1] == phi.width(4)
    linear = Expansion("linear")
    np.testing.assert_array_equal(linear.features(x), x)


def test_packed_products_are_projected_as_all_would_be() -> None:
    rng = np.random.default_rng(3)
    layer = draw_layer(rng, Expansion(sigma=0.7), "gaussian", (5, 5), 16)
    assert isinstance(layer, Projected)
    again = np.random.default_rng(3)
    keep, send, full = (unit_rows(again, n, 16) for n in (5, 5, 25))
    x = again.normal(size=(9, 5))
    products = (x[:, :, None] * x[:, None, :]).reshape(9, 25) / (np.sqrt(2) * 0.7)
    envelope = np.exp(-(x**2).sum(1, keepdims=True) / (2 * 0.7**2))
    wanted = envelope * (x @ send + products @ full)
    np.testing.assert_allclose(layer.messages(x), wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(layer.own(x), x @ keep)
    np.testing.assert_allclose(np.linalg.norm(keep, axis=1), 1)


def test_a_sketch_of_products_is_the_sum_over_pairs_in_their_buckets() -> None:
    layer = draw_layer(np.random.default_rng(0), Expansion(), "sketch", (4, 4), 7)
    assert isinstance(layer, Sketched)
    x = np.random.default_rng(1).normal(size=(3, 4))
    wanted = np.zeros((3, 7))
    for i, j in itertools.product(range(4), repeat=2):
        place = (layer.bucket[0, i] + layer.bucket[1, j]) % 7
        wanted[:, place] += layer.sign[0, i] * layer.sign[1, j] * x[:, i] * x[:, j]
    np.testing.assert_allclose(layer.products(x), wanted, atol=1e-12)


def test_inner_products_of_sketches_are_right_on_average() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 1, 5))
    rng = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        layer = draw_layer(rng, Expansion(), "sketch", (5, 5), 12)
        assert isinstance(layer, Sketched)
        found.append((layer.products(x) @ layer.products(y).T).item())
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - float((x @ y.T).item()) ** 2) < 4 * error


# -- one round, and many -----------------------------------------------------------------------


@pytest.mark.parametrize("cat_scale", [1.0, 0.5, 0.0])
def test_a_round_without_projection_is_the_definition(graphs: Graphs, cat_scale: float) -> None:
    model = WLSTransformer(1, cat_scale=cat_scale, projection="none").fit(graphs)
    x = model.node_vectors(graphs, 0)
    phi = Expansion().features(x)
    source, target = graphs.edge_index
    total = np.zeros_like(phi)
    np.add.at(total, target, phi[source])
    wanted = np.hstack([cat_scale * x, total]) if cat_scale else total + phi
    np.testing.assert_allclose(model.node_vectors(graphs), wanted / np.sqrt(3), atol=1e-12)


def test_edge_weights_and_attributes_enter_the_sum(graphs: Graphs) -> None:
    rng = np.random.default_rng(5)
    weight, more = rng.normal(size=graphs.n_edges), rng.normal(size=(graphs.n_edges, 2))
    rich = Graphs(graphs.offsets, graphs.indptr, graphs.sources, graphs.attributes,
                  edge_weight=weight, edge_attributes=more)  # fmt: skip
    for cat_scale in (1.0, 0.0):
        model = WLSTransformer(1, cat_scale=cat_scale, projection="none", edges="attributes")
        model.fit(rich)
        x, e = model.node_vectors(rich, 0), (more - more.mean(0)) / more.std(0)
        source, target = rich.edge_index
        phi = Expansion().features(np.hstack([x[source], e]))
        total = np.zeros((rich.n_nodes, phi.shape[1]))
        np.add.at(total, target, weight[:, None] * phi)
        alone = Expansion().features(np.hstack([x, np.zeros((len(x), 2))]))
        wanted = np.hstack([x, total]) if cat_scale else total + alone
        np.testing.assert_allclose(model.node_vectors(rich), wanted / np.sqrt(3), atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"aggregation": "wwl"},
        *({"aggregation": a, "add_self": s} for a in ("sage", "gcn", "gat") for s in (False, True)),
        {"aggregation": "gat", "temperature": 10.0},
    ],
)
def test_rivals_are_their_dense_formulas(options: dict[str, Any]) -> None:
    graph = nx.disjoint_union(nx.gnp_random_graph(7, 0.4, seed=2), nx.empty_graph(1))
    for node in graph:
        graph.nodes[node]["x"] = np.random.default_rng(node).normal(size=2)
    model = AggregationTransformer(n_iter=1, **options).fit([graph])
    x, A = model.node_vectors([graph], 0), nx.to_numpy_array(graph)
    loops = A + np.eye(8) * options.get("add_self", False)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nan_to_num(A / A.sum(1, keepdims=True)) @ x
        root = np.nan_to_num(1 / np.sqrt(loops.sum(1)), posinf=0)
        soft = np.exp(x @ x.T / options.get("temperature", 1)) * A
        soft = np.nan_to_num(soft / soft.sum(1, keepdims=True)) @ x
    wanted = {
        "wwl": (x + mean) / 2,
        "sage": mean + x * options.get("add_self", False),
        "gcn": (root[:, None] * loops * root) @ x,
        "gat": soft + x * options.get("add_self", False),
    }[options["aggregation"]]
    np.testing.assert_allclose(model.node_vectors([graph]), wanted, atol=1e-12)


# -- what refinement tells apart ---------------------------------------------------------------


def refined(graphs: Graphs, rounds: int) -> np.ndarray:
    """A number for each class of graphs that refinement takes for one another."""
    after, known = colours(graphs, rounds), {}
    keys = []
    for first, last in itertools.pairwise(graphs.offsets):
        key = tuple(np.sort(after[:, first:last]).ravel().tolist())
        keys.append(known.setdefault(key, len(known)))
    return np.array(keys)


def relative(X: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(X, axis=1)
    return cdist(X, X) / np.maximum(norms[:, None], norms)


def test_all_small_graphs_are_told_apart_exactly_where_refinement_does() -> None:
    data = as_graphs(nx.graph_atlas_g()[1:])
    classes = refined(data, 7)
    assert (len(data), classes.max() + 1) == (1252, 1226)
    found = WLSTransformer(nodes="constant", random_state=0).fit_transform(data)
    distance, same = relative(found), classes[:, None] == classes
    assert distance[same].max() < 1e-12
    assert distance[~same].min() > 1e-8


def test_trees_are_told_apart() -> None:
    trees = list(nx.nonisomorphic_trees(10))
    found = WLSTransformer(nodes="constant", random_state=0).fit_transform(trees)
    distance = relative(found)[np.triu_indices(len(trees), 1)]
    assert distance.min() > 1e-3


def cfi(base: nx.Graph, twisted: bool) -> nx.Graph:
    """The graph of Cai, Fürer and Immerman over a base graph, with one edge twisted or none."""
    graph, twist = nx.Graph(), next(iter(base.edges)) if twisted else None
    for node in base:
        for size in range(0, base.degree(node) + 1, 2):
            for chosen in itertools.combinations(sorted(base[node]), size):
                for other in base[node]:
                    graph.add_edge(("v", node, chosen), ("e", node, other, other in chosen))
    for edge in base.edges:
        u, v = edge
        for bit in (False, True):
            graph.add_edge(("e", u, v, bit), ("e", v, u, bit ^ (edge == twist)))
    return graph


def twins() -> list[tuple[str, nx.Graph, nx.Graph]]:
    rook = nx.line_graph(nx.complete_bipartite_graph(4, 4))
    shrikhande = nx.Graph(
        ((a, b), ((a + i) % 4, (b + j) % 4))
        for a in range(4) for b in range(4) for i, j in ((0, 1), (1, 0), (1, 1))
    )  # fmt: skip
    rings = nx.cycle_graph(6)
    decalin = nx.Graph([*nx.cycle_graph(10).edges, (0, 5)])
    bicyclopentyl = nx.disjoint_union(nx.cycle_graph(5), nx.cycle_graph(5))
    bicyclopentyl.add_edge(0, 5)
    triangles = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    plain, twisted = (cfi(nx.complete_graph(4), t) for t in (False, True))
    return [
        ("rings", rings, triangles),
        ("molecules", decalin, bicyclopentyl),
        ("strongly regular", rook, shrikhande),
        ("CFI", plain, twisted),
    ]


@pytest.mark.parametrize(("one", "other"), [t[1:] for t in twins()], ids=[t[0] for t in twins()])
def test_what_refinement_confuses_is_confused(one: nx.Graph, other: nx.Graph) -> None:
    assert not nx.is_isomorphic(one, other)
    found = WLSTransformer(8, nodes="constant", random_state=0).fit_transform([one, other])
    assert relative(found)[0, 1] < 1e-12
    assert similarity(one, other, nodes="constant") > 1 - 1e-12


def test_regular_graphs_of_other_degree_differ() -> None:
    pair = [nx.random_regular_graph(d, 20, seed=0) for d in (3, 4)]
    found = WLSTransformer(2, nodes="constant", random_state=0).fit_transform(pair)
    assert relative(found)[0, 1] > 1e-3


def test_order_of_nodes_and_of_graphs_does_not_matter() -> None:
    graphs = some(np.random.default_rng(2))
    rng = np.random.default_rng(3)
    mixed = []
    for graph in graphs:
        nodes = list(graph)
        shuffled = nx.Graph()
        order = rng.permutation(len(nodes))
        shuffled.add_nodes_from((nodes[k], graph.nodes[nodes[k]]) for k in order)
        shuffled.add_edges_from(graph.edges)
        mixed.append(shuffled)
    model = WLSTransformer(random_state=0).fit(graphs)
    X = model.transform(graphs)
    np.testing.assert_allclose(model.transform(mixed), X, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.transform(graphs[::-1])[::-1], X, rtol=1e-12, atol=1e-14)


def test_a_sum_of_a_union_is_the_sum(graphs: Graphs) -> None:
    one, other = some(np.random.default_rng(4), 2)
    model = WLSTransformer(random_state=0, iterations="all").fit(graphs)
    X = model.transform([one, other, nx.disjoint_union(one, other)])
    np.testing.assert_allclose(X[0] + X[1], X[2], rtol=1e-9, atol=1e-12)


def test_blocks_give_what_all_at_once_gives(
    monkeypatch: pytest.MonkeyPatch, graphs: Graphs
) -> None:
    model = WLSTransformer(random_state=0).fit(graphs)
    whole = model.transform(graphs)
    monkeypatch.setattr("mmxx.graphs.wls.transformer._BLOCK", 10)
    seen = []

    def spread(fn: Any, blocks: list[Any]) -> list[Any]:
        seen.extend(blocks)
        return [fn(block) for block in blocks]

    np.testing.assert_allclose(model.transform(graphs, map=spread), whole, rtol=1e-12, atol=1e-14)
    assert len(seen) > 2


# -- kernels -----------------------------------------------------------------------------------


def test_a_kernel_matrix_is_symmetric_and_positive(graphs: Graphs) -> None:
    kernel = WLSKernel(n_iter=2, random_state=0)
    K = kernel.fit_transform(graphs)
    X = kernel.vectors_
    np.testing.assert_allclose(K, np.exp(-kernel.gamma_ * cdist(X, X, "sqeuclidean")), atol=1e-12)
    np.testing.assert_array_equal(K, K.T)
    assert np.linalg.eigvalsh(K).min() > -1e-8 * len(K)
    np.testing.assert_allclose(kernel.transform(graphs), K, atol=1e-12)
    assert kernel.gamma_ == pytest.approx(2 / cdist(X, X, "sqeuclidean").mean())


def test_similar_is_nearer_than_unlike() -> None:
    ring, path, star = nx.cycle_graph(8), nx.path_graph(8), nx.star_graph(7)
    assert similarity(ring, path) > similarity(ring, star)
    assert similarity(ring, nx.cycle_graph(8)) == 1.0
    with pytest.raises(ValueError, match="gamma"):
        similarity(ring, path, gamma=0)


# -- as an estimator ---------------------------------------------------------------------------


def test_parameters_names_and_frames(graphs: Graphs) -> None:
    model = WLSTransformer(2, 6, iterations="all", random_state=0)
    assert clone(model).get_params() == model.get_params()
    X = model.fit_transform(graphs)
    assert X.shape == (8, 3 + 6 + 6)
    assert len(model.get_feature_names_out()) == 15
    one = clone(model).set_params(iterations=1).fit(graphs).transform(graphs)
    np.testing.assert_array_equal(one, X[:, 3:9])
    pytest.importorskip("pandas")
    frame = model.set_output(transform="pandas").transform(graphs)
    assert frame.columns[0] == "wlstransformer0"
    kernel = WLSKernel(2, 6, random_state=0).set_output(transform="pandas")
    assert kernel.fit_transform(graphs).shape == (8, 8)


def test_seeds_decide_and_nothing_global_moves(graphs: Graphs) -> None:
    before = global_states()
    one, two, other = (WLSTransformer(random_state=s).fit_transform(graphs) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)
    assert same_states(before, global_states())


def test_columns_are_standardised_and_constants_become_one() -> None:
    x = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    data = as_graphs([(np.zeros((2, 0), int), x)])
    columns = fit_columns(data, "auto")
    np.testing.assert_allclose(columns.of(data).mean(0), [0, 1], atol=1e-15)
    np.testing.assert_allclose(columns.of(data).std(0), [1, 0])
    np.testing.assert_array_equal(columns.of(as_graphs([(np.zeros((2, 0), int), x + 1)]))[:, 1], 2)


def test_labels_and_degrees_stand_in_for_attributes() -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: 4, 1: 7, 2: 4}, "label")
    labelled = WLSTransformer(0).fit([graph])
    np.testing.assert_allclose(labelled.node_vectors([graph])[:, 0], np.array([1, -2, 1]) / 2**0.5)
    assert labelled.columns_.use == "labels"
    assert WLSTransformer(0).fit([nx.path_graph(3)]).columns_.use == "degree"
    nx.set_node_attributes(graph, 1, "label")
    with pytest.raises(ValueError, match=r"label 1, fitted were \[4, 7\]"):
        labelled.transform([graph])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_iter": -1}, "n_iter"), ({"n_iter": 1.5}, "n_iter"), ({"dim": 0}, "dim"),
        ({"kernel": "poly"}, "kernel"), ({"order": 0}, "order"), ({"order": 3}, "order"),
        ({"sigma": 0.0}, "sigma"), ({"sigma": float("nan")}, "sigma"), ({"sigma": "1"}, "sigma"),
        ({"cat_scale": -1.0}, "cat_scale"), ({"readout": "max"}, "readout"),
        ({"projection": "pca"}, "projection"), ({"iterations": 6}, "iterations"),
        ({"iterations": "first"}, "iterations"), ({"nodes": "names"}, "nodes"),
        ({"edges": "weights"}, "edges"), ({"edges": "labels"}, "edges without labels"),
        ({"nodes": "labels"}, "nodes without labels"),
        ({"projection": "none", "n_iter": 5}, "columns in 5 rounds"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(
    graphs: Graphs, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        WLSTransformer(**options).fit(graphs)


def test_wrong_use_is_refused(graphs: Graphs) -> None:
    with pytest.raises(ValueError, match="aggregation"):
        AggregationTransformer("max").fit(graphs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature"):
        AggregationTransformer("gat", temperature=0).fit(graphs)
    with pytest.raises(ValueError, match="gamma"):
        WLSKernel(gamma=-1.0).fit(graphs)
    with pytest.raises(ValueError, match="not fitted"):
        WLSTransformer().transform(graphs)
    model = WLSTransformer().fit(graphs)
    with pytest.raises(ValueError, match="4 columns at each node, fitted were 3"):
        model.transform(some(np.random.default_rng(0), 2, width=4))
    with pytest.raises(ValueError, match="nodes without attributes"):
        model.transform([nx.path_graph(2)])
    with pytest.raises(ValueError, match="round must be from 0 to 5"):
        model.node_vectors(graphs, 6)
    with pytest.warns(UserWarning, match="no counterpart"):
        WLSTransformer().fit([nx.DiGraph([(0, 1)])])


def test_vectors_that_overflow_are_refused() -> None:
    graph = nx.path_graph(3)
    nx.set_edge_attributes(graph, 1e200, "weight")
    with pytest.raises(ValueError, match="overflow"), np.errstate(all="ignore"):
        WLSTransformer(3, random_state=0).fit_transform([graph])
