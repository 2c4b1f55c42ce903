"""Problems, nested cross-validation, and what the experiment refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC

from mmxx.data import DataError, write_tu
from mmxx.graphs.wls import experiment, patterns, problems, study
from mmxx.graphs.wls.card import CARD
from mmxx.lab.compute import map_items
from mmxx.lab.errors import MmxxError
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute


def test_trees_are_trees_whose_classes_differ_in_neighbours_only() -> None:
    graphs = problems.signed_trees(np.random.default_rng(0), 60, nodes=30)
    assert (len(graphs), graphs.n_nodes, graphs.n_edges) == (60, 1800, 60 * 58)
    assert graphs.symmetric
    assert graphs.targets is not None
    assert graphs.attributes is not None
    assert np.bincount(graphs.targets).tolist() == [20, 20, 20]
    direction = np.linalg.svd(graphs.attributes, full_matrices=False)[2][0]
    signs = np.sign(graphs.attributes @ direction)
    source, target = graphs.edge_index
    agree = signs[source] == signs[target]
    of_edge = graphs.targets[graphs.owner[source]]
    for label, chance in enumerate((0.8, 0.5, 0.2)):
        assert agree[of_edge == label].mean() == pytest.approx(chance, abs=0.05)
        assert abs(signs[graphs.targets[graphs.owner] == label].mean()) < 0.35


def test_patterns_are_denser_than_communities() -> None:
    graphs, planted = problems.planted_patterns(np.random.default_rng(0), 20)
    assert planted.sum() == 20 * 10
    assert graphs.symmetric
    source, target = graphs.edge_index
    assert not (source == target).any()
    sizes = np.diff(graphs.offsets)
    others = (sizes - 1)[graphs.owner]
    share = graphs.degrees / others
    assert share[planted == 1].mean() == pytest.approx(0.5, abs=0.03)
    assert share[planted == 0].mean() < 0.45
    assert problems.weighted_accuracy(planted, planted, (0, 1)) == 100
    assert problems.weighted_accuracy(0 * planted, planted, (0, 1)) == 50


def test_folds_part_the_graphs() -> None:
    targets = np.arange(40) % 2
    folds = problems.make_folds(targets, 5, np.random.default_rng(0), 5)
    for fold in folds:
        assert sorted(np.concatenate(fold).tolist()) == list(range(40))
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (24, 8, 8)
        assert targets[fold.test].mean() == 0.5
    tests = np.concatenate([fold.test for fold in folds])
    assert sorted(tests.tolist()) == list(range(40))
    with pytest.raises(ValueError, match="class 1 has 2 graphs"):
        problems.make_folds(np.array([0] * 9 + [1] * 2), 3, np.random.default_rng(0), 3)


def index_files(place: Path, **lines: str) -> Path:
    for part, text in {"train": "0,1\n2,3\n", "val": "2\n0\n", "test": "3\n1\n", **lines}.items():
        (place / f"F_{part}.index").write_text(text)
    return place / "F"


def test_folds_are_read(tmp_path: Path) -> None:
    folds = problems.read_folds(index_files(tmp_path), 4, 10)
    assert [[part.tolist() for part in fold] for fold in folds] == [
        [[0, 1], [2], [3]],
        [[2, 3], [0], [1]],
    ]
    assert len(problems.read_folds(tmp_path / "F", 4, 1)) == 1


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ({"test": "4\n1\n"}, "graph 4; accepted: 0 to 3"),
        ({"test": "1\n1\n"}, "fold 1 with a graph twice"),
        ({"test": "3\n"}, "2, 2, 1 folds"),
        ({"val": "a\n0\n"}, "line 1: 'a'"),
        ({"val": "-1\n0\n"}, "line 1: '-1'"),
        ({"val": ""}, "empty"),
    ],
)
def test_damaged_folds_are_refused(tmp_path: Path, lines: dict[str, str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        problems.read_folds(index_files(tmp_path, **lines), 4, 10)


# -- nested cross-validation -------------------------------------------------------------------


@pytest.fixture(scope="module")
def task() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    targets = np.arange(30) % 2
    rounds = [rng.normal(size=(30, 4)), rng.normal(size=(30, 5)) + 3 * targets[:, None]]
    (fold,) = problems.make_folds(targets, 3, rng, 1)
    return {"rounds": rounds, "targets": targets, "fold": fold, "gammas": (0.01, 1.0),
            "costs": (0.1, 10.0)}  # fmt: skip


def test_accuracies_are_those_of_a_machine_on_vectors(task: dict[str, Any]) -> None:
    found = study.accuracies(task)
    assert found.shape == (2, 2, 2, 2)
    fold = task["fold"]
    for t, g, c in np.ndindex(2, 2, 2):
        machine = SVC(C=task["costs"][c], gamma=task["gammas"][g])
        machine.fit(task["rounds"][t][fold.train], task["targets"][fold.train])
        for place, part in enumerate((fold.validation, fold.test)):
            score = machine.score(task["rounds"][t][part], task["targets"][part])
            assert found[place, t, g, c] == pytest.approx(100 * score)
    accuracy, choice = study.chosen([found])
    assert accuracy == 100
    assert choice[1] == 1


def test_of_equals_the_first_is_chosen() -> None:
    grid = np.zeros((2, 2, 2, 2))
    grid[0, 1] = 80.0
    grid[1, 1, 0, 0], grid[1, 1, 1, 1] = 60.0, 90.0
    assert study.chosen([grid, grid + 0.0]) == (60.0, (0, 1, 0, 0))
    better = grid.copy()
    better[0, 0, 1, 0], better[1, 0, 1, 0] = 81.0, 42.0
    assert study.chosen([grid, better]) == (42.0, (1, 0, 1, 0))


def test_intervals_and_coordinates() -> None:
    assert study.interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.484, abs=1e-3)
    assert np.isnan(study.interval(np.array([1.0])))
    x = np.array([[0.0], [1.0], [10.0]])
    flat = study.principal((x - x.T) ** 2, 1e-6)
    assert np.abs(np.diff(flat[:, 0]))[1] == pytest.approx(
        9e0 * np.abs(np.diff(flat[:, 0]))[0], rel=1e-2
    )


def test_every_arm_has_its_settings() -> None:
    counts = {
        arm: len(study.configurations(arm, (0.1, 1.0), ("sum", "mean"), every=True))
        for arm in study.ARMS
    }
    assert counts == {"WLS": 4, "WLS without cat": 4, "WLSLin": 2, "WWL": 2, "GCN": 4,
                      "GraphSAGE": 4, "GAT": 12}  # fmt: skip
    assert len(study.configurations("GAT", (1.0,), ("sum",), every=False)) == 1


def test_processes_give_the_bits_of_one(task: dict[str, Any]) -> None:
    graphs = problems.signed_trees(np.random.default_rng(0), 30)
    items = [
        {"graphs": graphs, "configuration": {**choice, "n_iter": 2}, "seed": 3}
        for arm in ("WLS", "GAT")
        for choice in study.configurations(arm, (1.0,), ("sum",), every=False)
    ]
    one, two = (map_items(study.vectors, items, backend=b) for b in ("serial", "process"))
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_networks_learn_to_find_patterns() -> None:
    item = {"arm": "WLSNet", "graphs": 20, "steps": 21, "lr": 3e-3, "seed": 0}
    found = patterns.trained(item)
    assert found["loss"][-1] < found["loss"][0]
    assert found["parameters"] < 80_000
    assert 0 <= found["accuracy"] <= 100


# -- the run -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"graphs": 3}, "graphs"), ({"arms": ("WLS", "WWL", "GCN")}, "arms"),
        ({"arms": ("WLS", "WLS without cat")}, "arms"), ({"sigmas": ()}, "sigmas"),
        ({"sigmas": (-1.0,)}, "sigmas"), ({"readouts": ()}, "readouts"),
        ({"judged": 11}, "judged"), ({"folds": Path("x")}, "folds"), ({"patterns": 3}, "patterns"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        experiment.Config(**options)


def ran(config: experiment.Config, folder: Path, tier: str = "tiny") -> list[dict[str, Any]]:
    run = create(folder, CARD, config, Options(backend="serial"), tier)
    execute(run, experiment.run)
    return run.verdicts


def test_a_set_of_ones_own_is_measured_and_not_judged(tmp_path: Path) -> None:
    graphs = problems.signed_trees(np.random.default_rng(0), 30, nodes=10)
    write_tu(graphs, tmp_path / "MINE")
    settings: Any = {
        "arms": ("WLS", "WLS without cat", "WWL"), "n_iter": 1, "dim": 8, "parts": 3, "judged": 1,
        "judged_of_data": 1, "grid": "authors",
    }  # fmt: skip
    config = experiment.Config(data=tmp_path / "MINE", show=4, **settings)
    verdicts = ran(config, tmp_path / "run", "quick")
    assert {line["id"] for line in verdicts} == {"accuracy", "beats-linear", "cat"}
    assert all(line["verdict"] == "not measured" for line in verdicts)
    assert all(line["measured"] is not None for line in verdicts)
    nearest = (tmp_path / "run" / "tables" / "nearest.csv").read_text().splitlines()
    assert nearest[1].startswith("4,1,10,0")
    one = graphs.with_targets([0] * 30)
    write_tu(one, tmp_path / "ONE")
    with pytest.raises((ValueError, MmxxError), match="two classes"):
        ran(experiment.Config(data=tmp_path / "ONE", **settings), tmp_path / "other")


@pytest.mark.skipif("MMXX_DATA" not in os.environ, reason="MMXX_DATA names no folder of real data")
def test_a_public_file_is_judged_by_claims_of_its_own(tmp_path: Path) -> None:
    place = Path(os.environ["MMXX_DATA"]) / "graphs"
    config = experiment.Config(
        arms=("WLS", "WLS without cat", "WWL", "GCN"), n_iter=1, dim=8, judged_of_data=1,
        data=place / "tu" / "BZR.zip", folds=place / "wls_folds" / "BZR",
    )  # fmt: skip
    lines = {line["id"]: line for line in ran(config, tmp_path / "run", "full")}
    assert lines["bzr-accuracy"]["verdict"] in ("holds", "falls short")
    assert lines["bzr-beats-linear"]["baseline"] is not None
    assert lines["accuracy"]["verdict"] == "not measured"
    assert not any(name.startswith(("synthie", "enzymes")) for name in lines)
