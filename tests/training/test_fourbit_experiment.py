"""The experiment of four-bit training: its trainings, its data, its refusals."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.training.fourbit import Int4Sym, Radix4FP4, arms, experiment
from mmxx.training.fourbit.card import CARD

TEXT = "the quick brown fox jumps over the lazy dog. " * 60
ITEM = {
    "text": arms.encode_text(TEXT), "seed": 1, "steps": 40, "batch": 8, "length": 16, "width": 16,
    "blocks": 1, "heads": 2, "position_std": 1.0, "lr": 1e-2, "tests": 8, "probe": {},
}  # fmt: skip


def test_the_arms_differ_in_what_their_names_say():
    base = arms.ARMS["4-bit"]
    assert isinstance(base.gradients, Radix4FP4)
    assert base.two_phases
    assert base.scale == "adaptive"
    assert arms.ARMS["one phase"] == replace(base, two_phases=False)
    assert arms.ARMS["one loss scale"] == replace(base, scale=1024.0)
    int4 = arms.ARMS["INT4 gradients"]
    assert int4 == replace(base, gradients=Int4Sym(), scale="max", two_phases=False)
    assert set(experiment._ALL) == set(arms.ARMS) - {"FP32", "4-bit"}


def test_training_on_text_learns_and_repeats():
    item = {**ITEM, "recipe": arms.ARMS["4-bit"], "probe": {"one phase": arms.ARMS["one phase"]}}
    before = torch.get_rng_state()
    first, second = arms.train_text(item), arms.train_text(item)
    assert torch.equal(before, torch.get_rng_state())
    assert first == second
    assert first["score"] < 0.8 * first["curve"][0]
    assert first["layers"] == ["blocks.0.qkv", "blocks.0.out", "blocks.0.up", "blocks.0.down"]
    assert np.shape(first["scales"]) == (40, 4)
    rows = first["quality"]["one phase"]
    assert [row["layer"] for row in rows] == first["layers"]
    assert all(0.5 < row["cosine"] < 1 for row in rows)
    assert all(row["bias"] == row["input_bias"] for row in rows)
    plain = arms.train_text({**ITEM, "recipe": None})
    assert plain["layers"] == []
    assert plain["quality"] == {}
    assert plain["curve"][0] == pytest.approx(first["curve"][0], rel=0.05)


def test_noise_of_luq_is_seeded():
    item = {**ITEM, "steps": 5, "recipe": arms.ARMS["LUQ"]}
    one, other = arms.train_text(item), arms.train_text(item)
    assert one["curve"] == other["curve"]


@pytest.mark.filterwarnings("ignore:the gradient of layer:RuntimeWarning")
def test_training_that_diverges_says_so():
    result = arms.train_text({**ITEM, "recipe": arms.ARMS["4-bit"], "lr": 1e39, "probe": {}})
    assert result["score"] == math.inf
    assert len(result["curve"]) < 40


def test_training_on_pictures_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 128)
    pictures = rng.normal(size=(128, 8, 8, 1)) + 3 * labels[:, None, None, None]
    both = (pictures.astype(np.float32), labels)
    item = {"train": both, "test": both, "classes": 2, "channels": 4, "steps": 60, "batch": 32}
    item |= {"lr": 1e-2, "seed": 0, "probe": {"4-bit": arms.ARMS["4-bit"]}}
    result = arms.train_pictures({**item, "recipe": arms.ARMS["4-bit"]})
    assert result["score"] < 0.3
    assert len(result["layers"]) == 4
    assert len(result["quality"]["4-bit"]) == 4


def measured(folder, config):
    run = create(folder, CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    record = json.loads((folder / "run.json").read_bytes())
    return {line["id"]: line for line in run.verdicts}, record


def test_a_text_of_ones_own(tmp_path):
    (tmp_path / "mine.txt").write_text(TEXT)
    config = replace(experiment.TINY, data=tmp_path / "mine.txt", recipe="luq4")
    lines, record = measured(tmp_path / "run", config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert all(line["measured"] is not None for line in lines.values())
    assert "mine.txt" in json.dumps(record["data"])
    table = (tmp_path / "run" / "tables" / "arms.csv").read_text()
    assert table.count("\n") == 1 + 9


def test_pictures_of_ones_own(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.png")
    config = replace(experiment.TINY, data=tmp_path / "mine", channels=2, arms=("one phase",))
    lines, _ = measured(tmp_path / "run", config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert "not asked for" in lines["grad-scale"]["note"]
    for file in (tmp_path / "mine" / "dogs").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="10 pictures or more with labels of 2 classes"):
        measured(tmp_path / "other", config)


@pytest.mark.slow
def test_the_test_pictures_of_mnist(tmp_path):
    if "MMXX_DATA" not in os.environ:
        pytest.skip("MMXX_DATA is not set")
    path = Path(os.environ["MMXX_DATA"]) / "mnist" / "t10k-images-idx3-ubyte.gz"
    config = replace(experiment.QUICK, data=path, arms=(), steps=60, channels=4)
    lines, _ = measured(tmp_path / "run", config)
    assert lines["near-fp32"]["baseline"] < math.log2(10)  # so few steps: better than guessing
    assert lines["near-fp32"]["measured"] is not None


def test_a_short_text_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("Too short.")
    config = replace(experiment.TINY, data=tmp_path / "short.txt")
    with pytest.raises(ValueError, match="the text has 10 characters; 180 or more are needed"):
        measured(tmp_path / "run", config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be above 0, got 0"),
        ({"lr": math.inf}, "lr must be above 0, got inf"),
        ({"heads": 5}, "heads must divide width=64, got 5"),
        ({"arms": ("LUQ", "LUQ")}, "arms must name each arm once"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)
