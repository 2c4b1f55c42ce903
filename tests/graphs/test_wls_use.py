"""Model files, shares of a distance, and examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from safetensors.numpy import load, save

from mmxx.data import Graphs, as_graphs
from mmxx.graphs.wls import (
    AggregationTransformer,
    WLSClassifier,
    WLSKernel,
    WLSTransformer,
    load_model,
    save_model,
)

MODULES = ("classifier", "files", "kernel", "network", "refinement", "transformer")


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    rng = np.random.default_rng(0)
    found = [nx.gnp_random_graph(n, 0.5, seed=n) for n in range(4, 12)]
    for graph in found:
        nx.set_node_attributes(graph, {v: rng.normal(size=2) for v in graph}, "x")
        nx.set_edge_attributes(graph, {e: rng.normal(size=1) for e in graph.edges}, "edge_attr")
    return as_graphs(found).with_targets([0, 1] * 4)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"mmxx.graphs.wls.{name}"))
    assert tried
    assert not failed


# -- shares of a distance ----------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("rounds", ["last", 2])
def test_shares_sum_up_to_the_squared_distance(graphs: Graphs, readout: Any, rounds: Any) -> None:
    model = WLSTransformer(readout=readout, iterations=rounds, random_state=0).fit(graphs)
    one, other = (graphs.subset([k]) for k in (2, 6))
    pairs = [(g.edge_index, g.attributes) for g in (one, other)]
    ours, theirs = model.explain_distance(*pairs)
    assert (len(ours), len(theirs)) == (one.n_nodes, other.n_nodes)
    X = model.transform(pairs)
    assert ours.sum() + theirs.sum() == pytest.approx(np.square(X[0] - X[1]).sum(), rel=1e-9)


def test_the_node_that_differs_has_the_largest_share() -> None:
    x = np.ones((6, 1))
    edges = np.array(nx.cycle_graph(6).to_directed().edges).T
    odd = x.copy()
    odd[4] = 3.0
    model = WLSTransformer(0).fit([(edges, x), (edges, odd)])
    _, theirs = model.explain_distance((edges, x), (edges, odd))
    assert np.abs(theirs).argmax() == 4
    same = model.explain_distance((edges, x), (edges, x))
    assert not same[0].any()
    with pytest.raises(ValueError, match="iterations"):
        WLSTransformer(iterations="all").fit([(edges, x)]).explain_distance((edges, x), (edges, x))


# -- files -------------------------------------------------------------------------------------


def models() -> list[Any]:
    return [
        WLSTransformer(2, 8, random_state=0),
        WLSTransformer(2, 8, projection="gaussian", edges="attributes", iterations="all"),
        WLSTransformer(1, projection="none"),
        WLSKernel(2, 8, random_state=np.random.RandomState(0)),
        AggregationTransformer("gcn", 2),
        WLSClassifier(1, 4, max_iter=2, edges="attributes", random_state=0),
    ]


@pytest.mark.parametrize("model", models(), ids=lambda model: type(model).__name__)
def test_a_model_comes_back_with_the_same_bits(model: Any, graphs: Graphs, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="not fitted"):
        save_model(model, path)
    model.fit(graphs)
    save_model(model, path)
    again = load_model(path)
    assert type(again) is type(model)
    method = "predict_proba" if hasattr(model, "predict_proba") else "transform"
    results = [getattr(m, method)(graphs) for m in (model, again)]
    np.testing.assert_array_equal(*results)
    if method == "transform":
        assert again.get_feature_names_out().tolist() == model.get_feature_names_out().tolist()


def broken(path: Path, change: Any) -> None:
    """Write the file again after a change of its arrays and header."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    arrays, header = load(content), json.loads(metadata["model"])
    change(arrays, header)
    path.write_bytes(save(arrays, metadata | {"model": json.dumps(header)}))


def _set(name: str, value: Any) -> Any:
    return lambda arrays, header: arrays.__setitem__(name, value)


def _say(name: str, value: Any) -> Any:
    return lambda arrays, header: header.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("layers.0.keep", np.ones((3, 8))), "layer 0: keep"),
        (_set("layers.1.bucket", np.full((2, 8), 99)), "out of range"),
        (_set("layers.1.bucket", np.zeros((2, 8))), "out of range"),
        (_set("vectors", np.ones((2, 3))), "vectors"),
        (_set("columns.spread", np.ones(5)), "columns"),
        (lambda arrays, header: arrays.pop("layers.0.send"), "damaged"),
        (_say("class", "object"), "'object'"),
        (_say("params", {"n_iter": -1}), "n_iter"),
        (_say("params", {"nothing": 1}), "damaged"),
        (_say("columns", None), "damaged"),
    ],
)
def test_damage_of_a_file_is_refused(
    change: Any, says: str, graphs: Graphs, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(WLSKernel(2, 8, random_state=0).fit(graphs), path)
    broken(path, change)
    with pytest.raises(ValueError, match=says):
        load_model(path)


def test_other_files_and_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no model file"):
        load_model(path)
    path.write_bytes(save({"a": np.ones(2)}))
    with pytest.raises(ValueError, match="not a file of"):
        load_model(path)
    with pytest.raises(TypeError, match="dict"):
        save_model({}, path)
