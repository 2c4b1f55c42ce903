"""The experiment of the lottery tickets: refusals, one's own data, and what it says."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.sparsity.lottery import Masks, experiment
from mmxx.sparsity.lottery.card import CARD


def measured(folder, config):
    run = create(folder, CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}


def table(folder, name):
    with open(folder / "tables" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.0}, "rate must be above 0 and below 1, got 1.0"),
        ({"conv_rate": 0.0}, "conv_rate must be above 0 and below 1, got 0.0"),
        ({"seeds": 0}, "seeds must be above 0, got 0"),
        ({"levels": -1}, "levels must be 0 or more, got -1"),
        ({"conv_rewinds": (0, -5)}, "conv_rewinds must be 0 or more"),
        ({"hidden": ()}, "hidden and conv_rewinds must hold one number or more"),
        ({"early": 16}, r"early must be at most epochs \(15\), got 16"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)


def test_pictures_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    images = rng.integers(0, 120, (200, 9, 7, 3), dtype=np.uint8)
    images[..., 0] += (40 * labels[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    config = replace(experiment.TINY, data=tmp_path / "mine.npz", conv_rewinds=(0,), barriers=False)
    lines = measured(tmp_path / "run", config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert "mine.npz" in (tmp_path / "run" / "run.json").read_text()
    assert len(table(tmp_path / "run", "levels")) == 3
    assert len(table(tmp_path / "run", "convolutional")) == 2
    masks = Masks.load(tmp_path / "run" / "artifacts" / "masks-level-2.safetensors")
    assert masks["0.weight"].shape == (12, 9 * 7 * 3)
    np.savez(tmp_path / "mine.npz", images=images)
    with pytest.raises(ValueError, match="10 pictures or more with labels of 2 classes"):
        measured(tmp_path / "other", config)


def test_only_the_convolutional_network(tmp_path):
    lines = measured(tmp_path / "run", replace(experiment.TINY, net="conv"))
    assert {line["note"] for line in lines.values()} == {
        "the fully connected network was not asked for"
    }
    rows = table(tmp_path / "run", "convolutional")
    assert [row["rewound to step"] for row in rows] == ["0", "0", "1", "1"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["notes"]


@pytest.mark.skipif("MMXX_DATA" not in os.environ, reason="MMXX_DATA names no folder of real data")
@pytest.mark.parametrize(
    ("path", "inputs", "least"),
    [("mnist/t10k-images-idx3-ubyte.gz", 28 * 28, 15), ("cifar10/test.npz", 32 * 32 * 3, 0)],
)
def test_real_pictures(tmp_path, path, inputs, least):
    data = Path(os.environ["MMXX_DATA"]) / path
    config = replace(
        experiment.TINY, data=data, seeds=1, levels=1, barriers=False, net="lenet", batch=600
    )
    lines = measured(tmp_path / "run", config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert float(table(tmp_path / "run", "levels")[0]["ticket"]) > least
    masks = Masks.load(tmp_path / "run" / "artifacts" / "masks-level-1.safetensors")
    assert masks["0.weight"].shape == (12, inputs)
    assert masks["0.weight"].sum() == 12 * inputs - round(0.2 * 12 * inputs)
