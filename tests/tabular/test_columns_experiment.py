"""The experiment: its tables, a table of one's own, equal bits on every backend, the sham."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mmxx.data import DataError
from mmxx.lab.compute import map_items
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.tabular.columns import experiment, spectrum, study, tables
from mmxx.tabular.columns.card import CARD


@pytest.mark.parametrize(
    ("name", "shape", "median", "wide"),
    [
        ("diabetes", (442, 10), 59.641, {2: 2.486, 7: 4.339, 9: 6.696, 14: 4.539}),
        ("anes96", (944, 11), 67.397, {2: 1.976, 8: 6.422, 9: 5.300, 14: 3.862}),
        ("breast_cancer", (569, 30), 451.622, {}),
    ],
)
def test_the_tables_are_those_of_the_curves(name, shape, median, wide):
    X = tables.shipped(name).X
    assert X.shape == shape
    assert study.median_distance(X) == pytest.approx(median, abs=5e-4)
    if wide:
        curve = spectrum.approximation_factor(experiment._eigenvalues(X, 10 * median), 14)
        assert curve[list(wide)] == pytest.approx(list(wide.values()), abs=1.5e-3)


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_table_is_finite_and_named(name):
    table = tables.shipped(name)
    assert np.isfinite(table.X).all()
    assert len(set(table.names)) == table.X.shape[1]


def items(sham=False):
    return [
        {"lam": np.r_[np.ones(4), np.full(8, 0.01)], "rotation": [0, 1], "sham": sham,
         "jobs": [("kdpp", 4, 50), ("greedy", 3, 50)], "seed": [0, number]}
        for number in range(2)
    ]  # fmt: skip


def bits(results):
    return [[e.tobytes() for e in result["errors"]] for result in results]


def test_processes_give_the_same_bits():
    serial = map_items(study.work, items(), backend="serial")
    assert bits(serial) == bits(map_items(study.work, items(), backend="process", workers=2))
    assert serial[0]["errors"][0].shape == (50,)
    assert serial[0]["errors"][1].shape == (1,)
    assert bits(serial)[0][0] != bits(serial)[1][0]


@pytest.mark.slow
def test_ray_gives_the_same_bits():
    pytest.importorskip("ray")
    serial = map_items(study.work, items(), backend="serial")
    assert bits(serial) == bits(map_items(study.work, items(), backend="ray", workers=2))


def test_the_sham_draws_uniformly_and_is_seen():
    lam = items()[0]["lam"]
    formula = spectrum.expected_error(lam)[4]
    real, sham = (
        study.summary(np.concatenate([study.work(i)["errors"][0] for i in items(s)]))
        for s in (False, True)
    )
    assert abs(real[0] - formula) < 4 * real[1]
    assert abs(sham[0] - formula) > 4 * sham[1]


# -- a table of one's own ----------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 6)) + 0.1 * rng.normal(size=(40, 6))
    lines = ["name," + ",".join(f"c{i}" for i in range(6))]
    lines += [f"r{n}," + ",".join(f"{v:.17g}" for v in row) for n, row in enumerate(X)]
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "own.npy", X)
    svm = [f"1 {' '.join(f'{i + 1}:{v:.17g}' for i, v in enumerate(row))}" for row in X]
    (tmp_path / "own.svm").write_text("\n".join(svm) + "\n")
    return tmp_path, X


def test_all_three_forms_of_a_table_are_read(table):
    folder, X = table
    found = [tables.read(folder / f"own.{suffix}") for suffix in ("csv", "npy", "svm")]
    assert all(np.array_equal(one.X, X) for one in found)
    assert found[0].names == [f"c{i}" for i in range(6)]
    assert found[0].left_out == ["name"]
    assert found[1].names[0] == "column_1"


def run(tmp_path, config):
    run = create(tmp_path / "run", CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}, run.folder


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_columns_or_rows_are_chosen_from_it(table, kernel):
    folder, _ = table
    config = replace(experiment.TINY, data=folder / "own.csv", kernel=kernel, sigma="2med")
    lines, where = run(folder, config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert lines["as-predicted"]["measured"] == pytest.approx(1, abs=0.6)
    head, *rows = (where / "artifacts" / "selected.csv").read_text().splitlines()
    assert head == "method,order,index,name"
    name = "c" if kernel == "linear" else "row "
    assert all(row.split(",")[3].startswith(name) for row in rows)
    assert any("Sizes to avoid" in n for n in json.loads((where / "run.json").read_text())["notes"])
    assert (where / "tables" / "curve.csv").is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gap.csv", "a,b\n1,2\n,3\n", "NaN, inf or gaps in a; accepted: finite numbers"),
        ("text.csv", "a,b\nx,y\nz,w\n", "no column of numbers"),
        ("zero.csv", "a,b\n0,0\n0,0\n", "zeros only"),
        ("bad.svm", "1 1:x\n", "cannot be read"),
        ("bad.npy", "nothing", "cannot be read"),
        ("picture.png", "x", "accepted"),
        ("missing.npy", None, "no such file"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        tables.read(tmp_path / name)


def test_arrays_that_are_no_table_are_refused(tmp_path):
    np.save(tmp_path / "line.npy", np.ones(3))
    with pytest.raises(DataError, match=r"an array \(3,\) of float64"):
        tables.read(tmp_path / "line.npy")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        tables.read(tmp_path / "objects.npy")


def test_too_few_columns_and_too_many_rows_are_refused(tmp_path):
    np.save(tmp_path / "two.npy", np.random.default_rng(0).normal(size=(5, 2)))
    with pytest.raises(ValueError, match="3 columns to choose from or more are needed, got 2"):
        run(tmp_path, replace(experiment.TINY, data=tmp_path / "two.npy"))
    np.save(tmp_path / "line.npy", np.outer(np.arange(5.0), [1, 2, -3]))
    with pytest.raises(ValueError, match="every column is a multiple of one"):
        run(tmp_path, replace(experiment.TINY, data=tmp_path / "line.npy"))
    many = tables.NamedTable(np.ones((5001, 2)), ["a", "b"], tables.user_source(tmp_path, None), [])
    with pytest.raises(ValueError, match="kernel=rbf over 5,001 rows"):
        study.own_gram(many, "rbf", "1med")
    many.X = many.X[:9]
    with pytest.raises(ValueError, match="the median distance of two rows is 0"):
        study.own_gram(many, "rbf", "1med")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kmax": 1}, "kmax must be 2 or more, got 1"),
        ({"sizes": ()}, r"sizes must be one or more numbers above 0, got \(\)"),
        ({"compared": ("wine",)}, "compared must be among the tables, got wine"),
        ({"sigma": "0med"}, "sigma must be a number above 0, or one and 'med', got '0med'"),
        ({"sigma": "wide"}, "got 'wide'"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)
