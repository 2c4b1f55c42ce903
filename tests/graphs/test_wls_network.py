"""Layers and networks against dense formulas, and the estimator that trains them."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from sklearn.base import clone

from mmxx.data import as_graphs
from mmxx.graphs.wls import WLSClassifier, WLSConv, WLSNet
from mmxx.graphs.wls._rivals import GCNLayer, GINLayer
from mmxx.lab.testing.watching import global_states, same_states

GRAPH = nx.gnp_random_graph(9, 0.4, seed=1)
A = torch.tensor(nx.to_numpy_array(GRAPH))
INDEX = torch.tensor(np.array(np.nonzero(nx.to_numpy_array(GRAPH))))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("residual", [False, True])
def test_a_layer_is_its_dense_formula(
    generator: torch.Generator, aggregation: Any, residual: bool
) -> None:
    layer = WLSConv(3, 6, aggregation=aggregation, residual=residual).double()
    x = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    own = layer.transform(x) + (layer.shortcut(x) if layer.shortcut else 0)
    total = A @ own
    if aggregation == "mean":
        total = total / A.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(layer(x, INDEX), torch.cat([own, total], 1))
    assert [m.out_features for m in layer.transform if isinstance(m, torch.nn.Linear)] == [6, 6, 3]


def test_gates_weights_and_edge_attributes_are_their_dense_formulas(
    generator: torch.Generator,
) -> None:
    x = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    gated = WLSConv(3, 6, edge_gate=True).double()
    assert gated.gate_source is not None
    assert gated.gate_target is not None
    own = gated.transform(x)
    sent = gated.gate_source(own)
    gates = torch.sigmoid(gated.gate_target(own) @ sent.T / 3**0.5) * A
    torch.testing.assert_close(gated(x, INDEX)[:, 3:], gates @ sent)

    weight = torch.randn(INDEX.shape[1], generator=generator, dtype=torch.float64)
    dense = torch.zeros_like(A).index_put((INDEX[1], INDEX[0]), weight)
    plain = WLSConv(3, 6).double()
    torch.testing.assert_close(plain(x, INDEX, weight)[:, 3:], dense @ plain.transform(x))

    attributed = WLSConv(3, 6, edge_dim=2).double()
    assert attributed.edge_transform is not None
    e = torch.randn(INDEX.shape[1], 2, generator=generator, dtype=torch.float64)
    messages = attributed.edge_transform(torch.cat([x[INDEX[0]], e], 1))
    total = torch.stack([messages[INDEX[1] == v].sum(0) for v in range(9)])
    torch.testing.assert_close(attributed(x, INDEX, edge_attr=e)[:, 3:], total)


def test_rivals_are_their_dense_formulas(generator: torch.Generator) -> None:
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    gin, gcn = GINLayer(4).double(), GCNLayer(4).double()
    wanted = x + torch.relu(gin.norm(gin.transform((1 + gin.epsilon) * x + A @ x)))
    torch.testing.assert_close(gin(x, INDEX), wanted)
    loops = A + torch.eye(9, dtype=A.dtype)
    root = loops.sum(1).rsqrt()
    mixed = root[:, None] * loops * root @ x
    torch.testing.assert_close(gcn(x, INDEX), x + torch.relu(gcn.norm(gcn.transform(mixed))))


def test_a_net_reads_graphs_out_one_by_one(generator: torch.Generator) -> None:
    x = torch.randn(9, 2, generator=generator)
    for readout in ("mean", "sum"):
        net = WLSNet(2, 3, hidden=8, n_iter=2, level="graph", readout=readout).eval()
        alone = net(x, INDEX)
        both = net(
            torch.cat([x, x[:1]]), INDEX, batch=torch.tensor([0] * 9 + [1])
        )  # a second graph of one node
        torch.testing.assert_close(both[:1], alone)
        assert both.shape == (2, 3)
    assert WLSNet(2, 3, hidden=8)(x, INDEX).shape == (9, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WLSConv(3, 5), "even"),
        (lambda: WLSConv(0, 4), "in_channels"),
        (lambda: WLSConv(3, 4, mlp_layers=0), "mlp_layers"),
        (lambda: WLSConv(3, 4, aggregation="max"), "aggregation"),  # type: ignore[arg-type]
        (lambda: WLSConv(3, 4, edge_gate=True, edge_dim=1), "one of them"),
        (lambda: WLSConv(3, 4, edge_dim=1)(torch.ones(9, 3), INDEX), "edge_attr is missing"),
        (lambda: WLSConv(3, 4)(torch.ones(9, 3), INDEX, edge_attr=torch.ones(1, 1)), "no edge_dim"),
        (lambda: WLSNet(3, 2, level="edge"), "level"),  # type: ignore[arg-type]
        (lambda: WLSNet(3, 0), "out_dim"),
        (lambda: WLSNet(3, 2, readout="max"), "readout"),  # type: ignore[arg-type]
    ],
)
def test_wrong_layers_are_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


# -- the estimator -----------------------------------------------------------------------------


def rings_and_stars(seed: int) -> tuple[list[nx.Graph], list[str]]:
    rng = np.random.default_rng(seed)
    graphs, y = [], []
    for k in range(20):
        graph = (nx.cycle_graph, nx.star_graph)[k % 2](int(rng.integers(5, 12)))
        for edge in graph.edges:
            graph.edges[edge]["edge_attr"] = float(rng.normal())
        graphs.append(graph)
        y.append(("ring", "star")[k % 2])
    return graphs, y


@pytest.mark.parametrize("options", [{}, {"edges": "attributes", "validation_fraction": 0.2}])
def test_the_classifier_learns(options: dict[str, Any]) -> None:
    graphs, y = rings_and_stars(0)
    model = WLSClassifier(2, 8, max_iter=30, lr=1e-2, batch_size=8, random_state=0, **options)
    assert clone(model).get_params() == model.get_params()
    model.fit(graphs, y)
    new, truth = rings_and_stars(1)
    assert model.score(new, truth) == 1.0
    chances = model.predict_proba(new)
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-6)
    assert model.classes_.tolist() == ["ring", "star"]
    assert len(model.loss_curve_) == model.n_iter_ <= 30
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_one_seed_gives_one_network_and_nothing_global_moves() -> None:
    graphs, y = rings_and_stars(2)
    before = global_states()
    models = [
        WLSClassifier(1, 4, dropout=0.2, max_iter=3, random_state=s).fit(graphs, y)
        for s in (0, 0, 1)
    ]
    one, two, other = (m.predict_proba(graphs) for m in models)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert same_states(before, global_states())


def test_training_ends_where_the_rate_is_too_small() -> None:
    graphs, y = rings_and_stars(3)
    model = WLSClassifier(1, 4, max_iter=300, lr=1.1e-5, dropout=0.9, random_state=0)
    assert model.fit(graphs, y).n_iter_ < 300


def test_targets_of_the_graphs_are_the_classes() -> None:
    graphs, y = rings_and_stars(4)
    data = as_graphs(graphs).with_targets([int(label == "star") for label in y])
    model = WLSClassifier(1, 4, max_iter=2, random_state=0).fit(data)
    assert set(model.predict(data)) <= {0, 1}
    assert model.score(data) == model.score(data, data.targets)


@pytest.mark.parametrize(
    ("options", "y", "says"),
    [
        ({}, None, "y must be"), ({}, ["a"], "y must be"), ({}, ["a"] * 20, "two classes"),
        ({"lr": 0}, "own", "lr"), ({"max_iter": 0}, "own", "max_iter"),
        ({"validation_fraction": 1.0}, "own", "validation_fraction"),
        ({"edges": "labels"}, "own", "edges without labels"), ({"hidden": 5}, "own", "even"),
        ({"lr": 1e20, "max_iter": 20, "readout": "sum"}, "own", "diverged"),
    ],
)  # fmt: skip
def test_wrong_training_is_refused(options: dict[str, Any], y: Any, says: str) -> None:
    graphs, labels = rings_and_stars(0)
    model = WLSClassifier(**{"n_iter": 1, "hidden": 4, "random_state": 0, **options})
    with pytest.raises(ValueError, match=says):
        model.fit(graphs, labels if y == "own" else y)
    with pytest.raises(ValueError, match="not fitted"):
        WLSClassifier().predict(graphs)
