"""Tasks, estimators, a table of one's own, and the experiment's parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_iris

from mmxx.discovery.automl_zero import (
    LINEAR,
    NEURAL_NET,
    AutoMLZeroClassifier,
    AutoMLZeroRegressor,
    Task,
    affine_tasks,
    evaluate,
    experiment,
    linear_regression_tasks,
    nn_teacher_tasks,
    projected_binary_tasks,
    studies,
    turns,
)
from mmxx.discovery.automl_zero.card import CARD
from mmxx.discovery.automl_zero.results import SearchResult
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.lab.testing import assert_same, outcome

# -- tasks -------------------------------------------------------------------------------------


def test_teachers_are_what_they_say() -> None:
    for make, columns in ((linear_regression_tasks, 4), (affine_tasks, 5)):
        (task,) = make(1, train=50, random_state=0)
        x = np.hstack([task.X, np.ones((50, columns - 4))])
        assert np.linalg.lstsq(x, task.y)[1][0] < 1e-20
    (task,) = affine_tasks(1, train=50, random_state=0)
    assert np.linalg.lstsq(task.X, task.y)[1][0] > 1e-3
    (task,) = nn_teacher_tasks(1, train=2000, random_state=0)
    kinks = np.linalg.lstsq(task.X, task.y)[1][0]
    assert kinks > 1  # two hidden units of the four are left, and they bend
    fewer = nn_teacher_tasks(2, random_state=1)
    more = nn_teacher_tasks(4, random_state=1)
    assert np.array_equal(fewer[1].X, more[1].X)


def test_projected_pairs_are_standardised_and_labelled() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 9)), np.repeat([3, 5, 7], 20)
    x[y == 7] += 2
    tasks = projected_binary_tasks(x, y, x, y, features=4, projections=2, random_state=0)
    assert len(tasks) == 6
    for task in tasks:
        np.testing.assert_allclose(task.X.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(task.X.std(0), 1)
        assert task.y.sum() == 20
    assert evaluate(LINEAR, tasks[2:]).min() > 0.6  # pairs with the class that is moved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [1.0, 1.0]}, "y has one value only, 1: there is nothing to learn"),
        ({"X": [[0.0], [np.nan]]}, "1 of 2 rows are not, the first of them row 1"),
        ({"X": [[0.0, 1.0], [1.0, 0.0]]}, "X_valid must have 2 columns like X, got 1"),
        ({"y": [1.0, 2.0, 3.0]}, r"y must be \[2\] to go with X"),
        ({"loss": "accuracy", "y": [1.0, 2.0]}, "y must be 0 or 1 for loss='accuracy'"),
        ({"loss": "hinge"}, "loss must be 'rms' or 'accuracy', got 'hinge'"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"X": np.zeros((2, 65))}, "F from 1 to 64, got shape"),
    ],
)
def test_a_task_that_cannot_be_is_refused(change, message) -> None:
    whole = {"X": [[0.0], [1.0]], "y": [0.0, 1.0], "X_valid": [[0.0]], "y_valid": [1.0]}
    with pytest.raises(ValueError, match=message):
        Task(**{**whole, **change})


def test_a_pair_without_a_class_is_refused() -> None:
    x, y = np.zeros((4, 2)), [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"y lacks a class of \(0, 2\)"):
        projected_binary_tasks(x, y, x, y, pairs=[(0, 2)])


# -- estimators --------------------------------------------------------------------------------


def test_a_classifier_learns_three_classes() -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = AutoMLZeroClassifier(max_train_steps=100_000, random_state=0).fit(x[::2], names[::2])
    assert model.score(x[1::2], names[1::2]) > 0.8
    assert set(model.predict(x)) <= set(names)
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1)
    assert model.search_.stats["steps"] >= 100_000


def test_a_regressor_projects_wide_tables() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 80))
    y = 5 + x[:, 0]
    model = AutoMLZeroRegressor(program=LINEAR, n_components=8, n_projections=3, random_state=0)
    assert model.fit(x[:200], y[:200]).score(x[200:], y[200:]) > 0.8
    assert len(model._matrices) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program": "best"}, "program must be 'evolve' or a Program, got 'best'"),
        ({"initial": "ones"}, "initial must be 'best', 'neural_net' or 'linear', got 'ones'"),
        ({"max_train_steps": 0}, "max_train_steps must be a positive integer, got 0"),
        ({"n_components": 65}, "n_components must be 64 at most, got 65"),
    ],
)
def test_estimators_refuse(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        AutoMLZeroClassifier(**change).fit(np.eye(4), [0, 1, 0, 1])


# -- the experiment ----------------------------------------------------------------------------


def find(select: float, final: float, programs: int) -> studies.Find:
    result = SearchResult(NEURAL_NET, 0.5, (), (), {"programs": programs})
    return studies.Find(result, select, final, 0, programs, 10 * programs)


def test_parts_of_restarts_end_with_the_first_success() -> None:
    finds = [find(0.5, 0.4, 7), find(1.0, 1.0, 5), find(1.0, 1.0, 3)]
    merged = studies.merge(finds)
    assert merged.success
    assert (merged.programs, merged.steps) == (12, 120)
    assert studies.merge(finds[:1]).programs == 7
    assert not find(1.0, 0.9, 1).success
    assert studies.median_programs([merged, finds[0], finds[2]]) == 12
    assert studies.read(studies.as_tree(finds[0])) == finds[0]


def test_the_interval_is_wilsons() -> None:
    from scipy.stats import binomtest

    for hits, count in ((0, 10), (3, 20), (20, 20)):
        theirs = binomtest(hits, count).proportion_ci(method="wilson")
        assert studies.wilson(hits, count) == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def measured(tmp_path, config):
    run = create(tmp_path / "run", CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}, run.folder


def test_digits_may_be_run_alone(tmp_path) -> None:
    config = replace(experiment.TINY, tasks=("digits",), islands=1)
    _, folder = measured(tmp_path, config)
    assert "support vector machine" in (folder / "tables" / "digits.csv").read_text()


def test_a_search_stopped_at_every_turn_finds_the_same(
    tmp_path, monkeypatch, capsys, stopping
) -> None:
    monkeypatch.setattr(turns, "_TURN", 8000)
    monkeypatch.setattr(turns, "_AT_ONCE", 3)
    config = replace(experiment.TINY, tasks=("fixed",), islands=1)
    _, folder = measured(tmp_path, config)
    assert "best so far: fixed" in capsys.readouterr().err
    assert "def Predict():" in (folder / "artifacts" / "fixed-raw.txt").read_text()
    assert stopping(tmp_path / "stopped", CARD, experiment, config) == 3
    assert_same(outcome(folder), outcome(tmp_path / "stopped"))


@pytest.mark.parametrize("target", ["kind", "a"])
def test_a_table_of_ones_own(tmp_path, target) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    rows = [f"{a},{b},{'yes' if a > 0 else 'no'}" for a, b in x]
    rows[3] = ",1.0,yes"
    (tmp_path / "t.csv").write_text("a,b,kind\n" + "\n".join(rows) + "\n")
    config = replace(experiment.TINY, data=tmp_path / "t.csv", target=target)
    lines, folder = measured(tmp_path, config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    scores = (folder / "tables" / "scores.csv").read_text()
    assert scores.count("\n") == 6
    assert "def Predict():" in (folder / "artifacts" / "own.txt").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "z"}, "target must be one of a, b, got 'z'"),
        ({"target": "b"}, "'b' is constant: there is nothing to learn"),
        ({"target": "a"}, "data must have 40 rows without gaps or more, got 30"),
    ],
)
def test_tables_that_do_not_do_are_refused(tmp_path, change, message) -> None:
    count = 30 if change["target"] == "a" else 50
    rows = "\n".join(f"{n},1" for n in range(count))
    (tmp_path / "t.csv").write_text(f"a,b\n{rows}\n")
    with pytest.raises(ValueError, match=message):
        measured(tmp_path, replace(experiment.TINY, data=tmp_path / "t.csv", **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed_steps": 0}, "fixed_steps must be 1 or more, got 0"),
        ({"tasks": ()}, "tasks must name one or more"),
        ({"digits_pairs": 37}, "digits_pairs must be 1 to 36, got 37"),
    ],
)
def test_settings_out_of_range_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)
