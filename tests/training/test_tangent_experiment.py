"""The tangent kernel's experiment: its arms, its data, its refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.training.tangent import arms, experiment, hessian_norm, ntk
from mmxx.training.tangent.card import CARD


def samples(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * count, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.where(np.arange(count) % 2, 1, -1).astype(np.float32)
    return {"x": x[:count], "y": y, "xt": x[count:]}


def item(**changes):
    return {
        **samples(8), "width": 32, "narrow": 0, "head": "linear", "seed": 3, "steps": 20,
        "rate": 1.0, "samples": 2, "points": 4,
    } | changes  # fmt: skip


def test_a_training_is_measured_from_its_beginning():
    found = arms.train(item())
    assert found["steps"] == arms.moments(20, 4)
    assert found["steps"][0] == 0
    assert found["steps"][-1] == 20
    assert found["drift"][0] == 0
    assert found["drift"][-1] > 0
    assert found["loss"][-1] < 0.5 * found["loss"][0]
    assert found["ok"]
    net = arms.network(5, 32, seed=3)
    x = torch.from_numpy(samples(8)["x"])
    assert found["hessian"] == pytest.approx(hessian_norm(net, x[:2], tol=1e-4).value, rel=0.05)
    smallest = torch.linalg.eigvalsh(ntk(net.double(), x.double(), trace=True))[0]
    assert found["smallest"] == pytest.approx(float(smallest), rel=1e-3)


def test_two_trainings_are_the_same_and_leave_the_global_generator():
    before = torch.get_rng_state()
    assert arms.train(item(narrow=1)) == arms.train(item(narrow=1))
    assert torch.equal(before, torch.get_rng_state())


def test_arms_begin_alike_but_for_the_output():
    linear, tanh = (arms.network(5, 16, seed=1, head=head) for head in ("linear", "tanh"))
    x = torch.from_numpy(samples(8)["x"])
    assert torch.equal(torch.tanh(linear(x)), tanh(x))
    narrow = arms.network(5, 16, narrow=2, seed=1)
    assert [p.shape[0] for p in narrow.parameters()] == [16, 2, 16, 1]


def test_a_wide_network_ends_where_its_linearisation_does():
    gaps = [arms.train(item(width=width, samples=0))["gap"] for width in (16, 512)]
    assert gaps[1] < 0.5 * gaps[0]
    assert arms.train(item(samples=0))["hessian"] is None


def test_a_training_that_diverges_says_so():
    found = arms.train(item(rate=1e6, samples=0, steps=40))
    assert not found["ok"]
    assert found["drift"] == []


def test_networks_of_one_layer_are_measured_exactly():
    found = arms.draw({"x": samples(8)["x"], "width": 30, "seed": 0, "draws": 3})
    assert len(found["hessian"]) == len(found["error"]) == 3
    wide = arms.draw({"x": samples(8)["x"], "width": 3000, "seed": 0, "draws": 3})
    assert np.mean(wide["error"]) < 0.3 * np.mean(found["error"])
    assert np.mean(wide["hessian"]) < 0.3 * np.mean(found["hessian"])


def test_slopes_and_means():
    assert arms.slope([4, 16, 64], [3.0, 1.5, 0.75]) == pytest.approx(-0.5)
    assert math.isnan(arms.slope([4], [1.0]))
    assert math.isnan(arms.slope([4, 8], [1.0, math.inf]))
    assert arms.log_mean([2.0, 8.0]) == pytest.approx(4)
    assert arms.moments(3, 10) == [0, 1, 2, 3]


def measured(folder, config):
    run = create(folder, CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    record = json.loads((folder / "run.json").read_bytes())
    return {line["id"]: line for line in run.verdicts}, record


def test_every_claim_is_judged_at_the_width_it_names(tmp_path, monkeypatch):
    lines, _ = measured(tmp_path / "other", experiment.TINY)
    assert lines["output-decides"]["note"] == "width 1024 is not among the widths"
    monkeypatch.setattr(experiment, "_AT", 16)
    lines, _ = measured(tmp_path / "run", experiment.TINY)
    assert all(line["measured"] is not None for line in lines.values())
    assert lines["tanh-flat"]["measured"] == abs(lines["kernel-constant"]["baseline"])


def test_a_run_that_diverges_judges_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(arms, "train", lambda item: {"ok": False})
    lines, _ = measured(tmp_path / "run", experiment.TINY)
    assert lines["tanh-flat"]["verdict"] == "not measured"
    assert "6 of 6 trainings diverged" in lines["tanh-flat"]["note"]
    assert lines["limit-rate"]["measured"] is not None


def test_a_table_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    rows = ["a,b,name,c,kind"]
    rows += [f"{a},{b},x,{c},{'yes' if a + b > 0 else 'no'}" for a, b, c in x]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    lines, record = measured(tmp_path / "run", replace(experiment.TINY, data=tmp_path / "mine.csv"))
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert lines["limit-rate"]["measured"] is not None
    assert "mine.csv" in json.dumps(record["data"])
    rows = [f"{a},{b},{a * b}" for a, b, _ in x]  # a number: below and above its median
    (tmp_path / "number.csv").write_text("\n".join(rows))
    measured(tmp_path / "other", replace(experiment.TINY, data=tmp_path / "number.csv"))


def test_pictures_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(1, 255, (30, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=pictures, labels=np.arange(30) % 3)
    lines, _ = measured(tmp_path / "run", replace(experiment.TINY, data=tmp_path / "mine.npz"))
    assert lines["limit-rate"]["measured"] is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,x\n2,x\n", "there is one class only"),
        ("b\nx\ny\n", "a column of numbers before the last"),
        ("a,b\n1,x\n2,y\n", "5 samples of each of two classes are needed"),
        ("a,b\nnan,x\nnan,y\n3,\n", "."),
    ],
)
def test_a_table_that_does_not_do_is_refused(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        measured(tmp_path / "run", replace(experiment.TINY, data=tmp_path / "mine.csv"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (64,)}, "widths must name two widths or more"),
        ({"limit_widths": (0, 5)}, "limit_widths must name two widths or more, each above 0"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"samples": 1}, "samples must be 2 or more"),
        ({"rate": 2.5}, "rate must be above 0 and below 2"),
        ({"digits": (3, 3)}, "digits must be two different digits"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)


def test_the_sham_has_a_tanh_output(tmp_path, monkeypatch):
    seen = []

    def train(item):
        seen.append((item["arm"], item["head"]))
        return {"ok": False}

    monkeypatch.setattr(arms, "train", train)
    with experiment.sham():
        measured(tmp_path / "run", experiment.TINY)
    assert set(seen) == {("linear", "tanh"), ("tanh", "tanh"), ("bottleneck", "linear")}
    assert arms.HEADS["linear"] is None
    assert arms.HEADS["tanh"] is nn.Tanh
