"""Snake's experiment: backends, the user's table, missing packages, settings, the market file."""

from __future__ import annotations

import csv
import importlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmxx.lab.catalog import at_most
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.lab.testing import assert_same, outcome
from mmxx.signals.snake import experiment
from mmxx.signals.snake.card import CARD
from mmxx.signals.snake.experiment import TINY, Config

SINE = replace(TINY, series=("sine",), rivals=("relu",), seeds=1)


def measure(folder: Path, config: Config, *, tier: str = "tiny", backend: str = "serial") -> Any:
    """Run the experiment; its claims by id."""
    run = create(folder, CARD, config, Options(seed=0, backend=backend), tier)
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def notes(folder: Path) -> str:
    return " ".join(json.loads((folder / "run.json").read_text())["notes"])


@pytest.mark.parametrize("backend", ["process", pytest.param("ray", marks=pytest.mark.slow)])
def test_backends_give_the_same_bits(tmp_path, backend):
    if backend == "ray":
        pytest.importorskip("ray")
    measure(tmp_path / "serial", SINE)
    measure(tmp_path / "other", SINE, backend=backend)
    assert_same(outcome(tmp_path / "serial"), outcome(tmp_path / "other"))


def test_snake_holds_where_relu_does_not(tmp_path):
    config = Config(points=48, periods=4, seeds=1, steps=200, lr=5e-3, hidden=24, rivals=("relu",))
    found = measure(tmp_path / "ours", config, tier="quick")
    assert [line["verdict"] for line in found.values()] == ["holds", "holds"]
    with experiment.sham():
        shammed = measure(tmp_path / "sham", config, tier="quick")
    assert [line["verdict"] for line in shammed.values()] == ["falls short", "falls short"]
    assert shammed["beats-relu-on-sine"]["measured"] == 1
    errors = {row["arm"]: float(row["median"]) for row in rows(tmp_path / "ours", "errors-sine")}
    assert found["extrapolates-sine"]["measured"] == pytest.approx(errors["Snake"])
    assert found["extrapolates-sine"]["baseline"] == pytest.approx(errors["relu"])
    assert found["beats-relu-on-sine"]["measured"] == pytest.approx(
        errors["Snake"] / errors["relu"]
    )
    far = {row["arm"]: float(row["wiggle"]) for row in rows(tmp_path / "ours", "far-sine")}
    assert far["relu"] < 1e-6 < 1e-3 < far["Snake"]


def test_ones_own_table(tmp_path):
    t = np.arange(60)
    y = 3 + np.sin(2 * np.pi * t / 10)
    text = "\n".join(f"{a},{b:.6f}" for a, b in zip(t, y, strict=True))
    path = tmp_path / "mine.csv"
    path.write_text("when,level\n" + text + "\n57,\n")
    found = measure(tmp_path / "run", replace(SINE, data=path, time="when", value="level"))
    for line in found.values():
        assert line["verdict"] == "not measured"
    assert found["extrapolates-sine"]["note"] == "user data"
    assert found["extrapolates-sine"]["measured"] > 0
    assert "another series" in found["beats-relu-on-co2"]["note"]
    assert "1 of 61 rows" in notes(tmp_path / "run")
    labels = [row["arm"] for row in rows(tmp_path / "run", "errors-series")]
    assert labels[:2] == ["Snake", "relu"]
    assert {"harmonic regression", "seasonal naive", "parabola", "last value"} <= set(labels)
    with pytest.raises(ValueError, match="no column 'hour'"):
        measure(tmp_path / "bad", replace(SINE, data=path, time="hour"))


def test_a_series_too_slow_and_one_that_is_constant(tmp_path):
    slow, flat = tmp_path / "slow.csv", tmp_path / "flat.csv"
    slow.write_text("\n".join(f"{np.sin(k / 25):.6f}" for k in range(100)) + "\n")
    flat.write_text("\n".join(["4"] * 40) + "\n")
    measure(tmp_path / "run", replace(SINE, data=slow))
    assert "not identifiable" in notes(tmp_path / "run")
    found = measure(tmp_path / "still", replace(SINE, data=flat))
    assert found["beats-relu-on-sine"]["measured"] is None
    assert "is constant" in notes(tmp_path / "still")
    assert float(rows(tmp_path / "still", "errors-series")[0]["median"]) == 0


def test_without_statsmodels_it_says_so_and_goes_on(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "statsmodels" else find_spec(name)
    )
    found = measure(tmp_path / "run", replace(SINE, series=("co2", "sine")))
    assert "co2 was left out" in notes(tmp_path / "run")
    assert "mmxx[series]" in notes(tmp_path / "run")
    assert found["beats-relu-on-co2"]["note"] == "co2 was not run"
    assert found["extrapolates-sine"]["measured"] > 0
    assert not (tmp_path / "run" / "tables" / "errors-co2.csv").exists()


def test_only_what_was_asked_for_is_run(tmp_path):
    pytest.importorskip("statsmodels")
    found = measure(tmp_path / "run", replace(SINE, series=("elnino",)))
    assert found["extrapolates-sine"]["note"] == "sine was not run"
    assert found["beats-relu-on-co2"]["note"] == "co2 was not run"
    labels = [row["arm"] for row in rows(tmp_path / "run", "errors-elnino")]
    assert "ARIMA(2,1,1)" in labels


def test_the_market_file_runs_the_authors_recipe(tmp_path):
    if not os.environ.get("MMXX_DATA"):
        pytest.skip("MMXX_DATA is not set: no market series")
    path = Path(os.environ["MMXX_DATA"]) / "series" / "market.txt"
    found = measure(tmp_path / "run", replace(SINE, data=path), tier="full")
    assert found["market"]["bar"] == {"op": "<=", "value": 0.0092}
    assert found["market"]["verdict"] == "falls short"  # of two steps
    assert found["market"]["control"] == pytest.approx(0.0189, abs=5e-5)
    assert "0.0095" in notes(tmp_path / "run")
    assert "market series" in found["extrapolates-sine"]["note"]
    labels = [row["arm"] for row in rows(tmp_path / "run", "errors-market")]
    assert labels[-3:] == ["parabola", "last value", "ARIMA(2,1,1)"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 15}, "points must be at least 16, got 15"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"market_steps": 0}, "market_steps must be at least 1, got 0"),
        ({"series": ()}, "series must be one or more"),
        ({"series": ("sine", "sine")}, "series must be one or more"),
        ({"rivals": ("tanh",)}, "rivals must have relu"),
        ({"periods": 0.0}, "periods must be positive, got 0"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
        ({"noise": -0.1}, "noise must be 0 or more, got -0.1"),
        ({"split": 1.0}, "split must lie between 0 and 1, got 1.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_card_holds_to_its_bars():
    assert CARD.claim("extrapolates-sine").bars["quick"] == at_most(0.2)
    assert CARD.claim("beats-relu-on-sine").bars["quick"] == at_most(0.2)
    assert CARD.claim("market").bars["full"] == at_most(0.0092)
    assert CARD.claim("market").paper == 0.0089
    assert CARD.claim("beats-relu-on-co2").bars.keys() == {"full"}
