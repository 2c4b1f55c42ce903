"""Edge-popup's experiment: its trainings, its data, its refusals."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.sparsity.edge_popup import Ticket, arms, experiment
from mmxx.sparsity.edge_popup.card import CARD


def task(**changes):
    """Two classes that a straight line parts."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    pictures = rng.normal(size=(300, 4, 4, 1)) + labels[:, None, None, None]
    found = experiment._standardised(pictures[:200], labels[:200], pictures[200:], labels[200:])
    settings = {
        "arm": "hidden", "hidden": (60,), "width": 0, "epochs": 20, "lr": 0.1, "batch_size": 50,
        "k": 0.3, "init": "kaiming_normal", "scale": True, "frozen": False, "gradient": "",
        "show": False, "seed": 1,
    }  # fmt: skip
    return {**found, **settings, **changes}


def test_a_hidden_network_learns_repeats_and_leaves_its_weights():
    before = torch.get_rng_state()
    first, second = (arms.train(task(show=True)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert first["score"] == second["score"] > 90
    assert first["curve"] == second["curve"]
    assert first["changed"] == 0
    assert first["weights"] == 16 * 60 + 60 * 2
    assert first["shuffled"] < first["score"] - 10
    ticket = Ticket.from_bytes(first["ticket"].tobytes())
    assert ticket.masks.total == first["weights"]
    assert np.array_equal(first["first"] != 0, ticket.masks["1.weight"].numpy()[:32])


def test_frozen_scores_learn_nothing():
    result = arms.train(task(frozen=True))
    assert result["score"] == result["untrained"]


def test_the_trained_network_learns_and_begins_as_the_hidden_one_with_all_edges():
    dense = arms.train(task(arm="dense"))
    assert dense["score"] > 90
    whole = arms.train(task(k=1.0, frozen=True))
    assert dense["untrained"] == whole["score"]


@pytest.mark.parametrize("gradient", ["unsigned", "weightless"])
def test_a_misled_gradient_is_the_one_that_is_meant(gradient):
    from torch import nn

    from mmxx.sparsity.edge_popup import EdgePopup

    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    hidden = EdgePopup.convert(nn.Sequential(nn.Linear(4, 3)), seed=1)
    arms._misled(hidden, gradient)
    hidden(inputs).sum().backward()
    weight = hidden.model[0].parametrizations.weight.original
    of_the_use = inputs.sum(0).expand(3, 4)
    expected = of_the_use * weight if gradient == "unsigned" else of_the_use
    assert torch.allclose(hidden.scores()[0].grad, expected, rtol=1e-5, atol=1e-6)


def test_the_convolutional_network_trains_both_ways():
    changes = {"width": 8, "epochs": 15}
    for arm in ("dense", "hidden"):
        result = arms.train(task(arm=arm, **changes))
        assert result["score"] > 80, arm
        assert result["curve"][-1] < result["curve"][0]
    net = arms.conv_net(3, 4, 9, width=2, classes=5)
    assert net(torch.zeros(2, 3, 4, 9)).shape == (2, 5)


def measured(folder, config):
    run = create(folder, CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    record = json.loads((folder / "run.json").read_bytes())
    return {line["id"]: line for line in run.verdicts}, record


def test_pictures_of_ones_own(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.png")
    config = replace(experiment.TINY, data=tmp_path / "mine")
    lines, record = measured(tmp_path / "run", config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert "mine" in json.dumps(record["data"])
    assert (tmp_path / "run" / "artifacts" / "hidden.ticket").is_file()
    assert "Per cent right on your pictures" in json.dumps(record)
    for file in (tmp_path / "mine" / "dogs").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="10 pictures or more with labels of 2 classes"):
        measured(tmp_path / "other", config)


def test_a_training_that_diverges_leaves_its_claims_unmeasured(tmp_path):
    config = replace(experiment.TINY, lr=1e30, epochs=3, fractions=(), widths=(), conv_width=0)
    lines, _ = measured(tmp_path / "run", config)
    assert lines["matches-trained"]["note"] == "a training diverged"


def test_the_mnist_claim_is_judged_on_that_file_only(tmp_path):
    place = os.environ.get("MMXX_DATA")
    file = Path(place or "", "mnist", "t10k-images-idx3-ubyte.gz")
    if place is None or not file.is_file():
        pytest.skip("MMXX_DATA names no folder with the MNIST test images")
    config = replace(experiment.TINY, data=file, fractions=(), widths=(), conv_width=0)
    lines, _ = measured(tmp_path / "run", config)
    assert lines["mnist-matches-trained"]["verdict"] in ("holds", "falls short")
    assert lines["matches-trained"]["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0.0}, "k must be above 0, got 0.0"),
        ({"fractions": (0.5, 1.5)}, r"k and fractions must be in \(0, 1\], got 1.5"),
        ({"hidden": (0,)}, "hidden must be above 0"),
        ({"conv_width": -1}, "conv_width must be"),
        ({"widths": (100, 50)}, "widths must be none, or two or more that rise"),
        ({"widths": (100,)}, "widths must be none, or two or more that rise"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)
