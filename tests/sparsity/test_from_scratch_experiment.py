"""The experiment: its trainings, its claims, the user's pictures, its refusals."""

from __future__ import annotations

import copy
import csv
import json
import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mmxx.lab.errors import BadInputError
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.sparsity.from_scratch import ChannelGraph, arms, experiment
from mmxx.sparsity.from_scratch.card import CARD
from mmxx.sparsity.from_scratch.networks import conv_net

REAL = os.environ.get("MMXX_DATA")
ALONE = replace(experiment.TINY, task="digits", ratios=(0.5, 0.9), random_control=False)


def easy(count: int = 96):
    """Pictures of two classes that differ in brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    pictures = rng.normal(size=(count, 1, 8, 8)) + 2 * labels[:, None, None, None]
    return pictures.astype(np.float32), labels


def item(**more):
    pair = easy()
    common = {"train": pair, "test": pair, "classes": 2, "shape": (1, 8, 8), "widths": (4, 4)}
    common |= {"expansion": 1.5, "batch": 16, "epochs": 6, "seed": 1}
    return {**common, "gate_epochs": 2, "gate_lr": 0.05, "start": "random", **more}


def test_training_learns_repeats_and_draws_nothing_global():
    before = torch.get_rng_state()
    first, second = arms.train(item()), arms.train(item())
    assert torch.equal(before, torch.get_rng_state())
    assert first == second
    assert first["score"] > 95
    assert first["curve"][-1] < first["curve"][0]
    assert arms.train(item(seed=2)) != first


def test_training_that_diverges_counts_nothing():
    pictures, labels = easy()
    result = arms.train(item(train=(pictures * np.inf, labels)))
    assert result["score"] == 0
    assert len(result["curve"]) == 1


def test_batches_go_through_everything_in_another_order_each_time():
    x, y = torch.arange(33.0).view(33, 1), torch.arange(33)
    batches = arms.Batches(x, y, 16, torch.Generator().manual_seed(0))
    first, second = ([labels for _, labels in batches] for _ in range(2))
    assert [len(part) for part in first] == [16, 16]  # a batch of one is left out
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    assert len(set(torch.cat(first).tolist())) == 32


class Member:
    """One of two threads that train together: a step takes the mean of both gradients."""

    def __init__(self, rank, shared):
        self.rank, self.shared = rank, shared

    def distribute(self, net, optimizer):
        self.shared["nets"][self.rank], self.optimizer = net, optimizer
        return net, self

    def part(self, batch):
        return batch.chunk(2)[self.rank]

    def step(self):
        self.shared["barrier"].wait()
        pairs = zip(*(net.parameters() for net in self.shared["nets"]), strict=True)
        means = [(one.grad + other.grad) / 2 for one, other in pairs]
        self.shared["barrier"].wait()
        for weights, mean in zip(self.shared["nets"][self.rank].parameters(), means, strict=True):
            weights.grad = mean
        self.optimizer.step()

    def mean(self, loss):
        self.shared["losses"][self.rank] = loss.item()
        self.shared["barrier"].wait()
        return sum(self.shared["losses"]) / 2


def test_two_train_together_by_the_mean_of_their_gradients():
    pair = easy(100)  # the four that fill no batch are left out
    new = partial(conv_net, 1, (4, 4), 2)
    with arms.seeded(0):
        alone = new()
    nets = [copy.deepcopy(alone) for _ in range(2)]
    shared = {"nets": [None, None], "losses": [0, 0], "barrier": threading.Barrier(2, timeout=60)}
    curves = [None, None]

    def work(rank):
        curves[rank] = arms.fit(nets[rank], item(train=pair, team=Member(rank, shared)), 4)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    pictures, labels = (torch.from_numpy(part) for part in pair)
    generator = torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD(alone.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    curve = []
    for rate in (0.1, 0.1, 0.01, 0.001):
        optimizer.param_groups[0]["lr"] = rate
        order, losses = torch.randperm(100, generator=generator), []
        for chosen in order[:96].split(16):
            halves = [torch.nn.functional.cross_entropy(alone(pictures[half]), labels[half])
                      for half in chosen.chunk(2)]  # fmt: skip
            losses.append(sum(halves) / 2)
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        curve.append(sum(loss.item() for loss in losses) / 6)
    assert curves[0] == curves[1] == pytest.approx(curve, abs=1e-5)
    for net in nets:
        for mine, other in zip(net.parameters(), alone.parameters(), strict=True):
            assert (mine - other).abs().max() <= 1e-5


def test_gates_are_learnt_on_random_weights_or_on_trained_ones():
    random, trained = (arms.learn(item(start=start)) for start in ("random", "pretrained"))
    assert random["accuracy"] is None
    assert trained["accuracy"] > 95
    assert random["gates"].shape == trained["gates"].shape == (12,)
    assert not torch.equal(random["gates"], trained["gates"])
    assert random["history"][0]["loss"] > trained["history"][0]["loss"]


@pytest.mark.parametrize("kind", arms.SHRUNK)
def test_networks_shrink_and_keep_their_function(kind):
    found = arms.shrink(kind, 0.5, 3)
    assert 0.4 * found["macs"][0] < found["macs"][1] <= 0.5 * found["macs"][0]
    assert found["parameters"][1] < found["parameters"][0]
    assert found["difference"] < 1e-5


def measured(folder: Path, config) -> tuple[dict, list[dict[str, str]]]:
    run = create(folder, CARD, config, Options(backend="serial"), "full")
    execute(run, experiment.run)
    with open(folder / "tables" / "digits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {line["id"]: line for line in run.verdicts}, rows


def test_the_claims_are_the_differences_of_the_table(tmp_path):
    config = replace(ALONE, seeds=2, widths=(4, 4, 6, 6, 8, 8))
    lines, rows = measured(tmp_path / "run", config)
    mean = {(row["arm"], row["taken away"]): float(row["mean"]) for row in rows}
    full = mean["full network", "0%"]
    ours, plain = (mean[arm, "50%"] for arm in ("gates on random weights", "uniform width"))
    assert lines["half"]["measured"] == pytest.approx(ours - full, abs=0.02)
    assert lines["half"]["control"] == pytest.approx(plain - full, abs=0.02)
    ours, rival = (mean[f"gates on {w} weights", "90%"] for w in ("random", "trained"))
    assert lines["tenth-pretrained"]["measured"] == pytest.approx(ours - rival, abs=0.02)
    assert lines["tenth-full"]["measured"] == pytest.approx(ours - full, abs=0.02)
    assert lines["half"]["seeds"] == [0, 1]
    assert lines["burden"]["measured"] == 2 / 5
    total = int(rows[0]["multiply-adds"])
    for row in rows[1:]:
        limit = total * {"50%": 0.5, "90%": 0.1}[row["taken away"]]
        assert 0.6 * limit < int(row["multiply-adds"]) <= limit + 1
    assert lines["patches-half"]["verdict"] == "not measured"
    notes = json.loads((tmp_path / "run" / "run.json").read_bytes())["notes"]
    assert sum("one uniform width" in note for note in notes) == 2


def test_the_sham_makes_both_ways_of_finding_one(tmp_path):
    with experiment.sham():
        lines, _ = measured(tmp_path / "run", ALONE)
    assert lines["tenth-pretrained"]["measured"] == 0
    assert lines["diverse"]["measured"] == lines["burden"]["measured"] == 1


def test_ratios_of_ones_own_leave_the_claims_unmeasured(tmp_path):
    config = replace(ALONE, ratios=(0.3,), gate_seeds=1, epochs=3, budget=("digits",))
    lines, rows = measured(tmp_path / "run", config)
    assert lines["half"]["note"] == "0.5 is not among the ratios"
    assert lines["diverse"]["note"] == "gates were learnt on one seed"
    assert lines["burden"]["measured"] == 2 / (3 * 3 + 2)  # one epoch of gates, three of training
    assert [row["epochs"] for row in rows] == ["3", "4", "4", "4"]
    assert [row["taken away"] for row in rows] == ["0%", "30%", "30%", "30%"]


def test_pictures_of_ones_own(tmp_path):
    pictures, labels = easy(60)
    pictures = ((pictures - pictures.min()) / np.ptp(pictures) * 255).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", images=pictures[:, 0], labels=labels)
    lines, rows = measured(tmp_path / "run", replace(ALONE, data=tmp_path / "mine.npz", size=12))
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert len(rows) == 7
    np.savez(tmp_path / "none.npz", images=pictures[:, 0])
    with pytest.raises(ValueError, match="data: labelled pictures are needed, 10 or more"):
        measured(tmp_path / "other", replace(ALONE, data=tmp_path / "none.npz"))


@pytest.mark.skipif(not REAL, reason="MMXX_DATA is not set: no MNIST, no CIFAR-10")
@pytest.mark.parametrize(
    ("path", "shape"),
    [("mnist/t10k-images-idx3-ubyte.gz", (1, 8, 8)), ("cifar10/test.npz", (3, 8, 8))],
)
def test_real_pictures_are_read(path, shape):
    from mmxx.data import load

    class Stream:
        def rng(self, name: str) -> np.random.Generator:
            return np.random.default_rng(0)

    pictures = experiment._split(Stream(), load(Path(str(REAL)) / path, kinds=("images",), size=8))
    assert pictures["shape"] == shape
    assert pictures["classes"] == 10
    assert len(pictures["train"][0]) == 8000
    assert abs(pictures["train"][0].mean()) < 1e-3
    wide = arms.wide_net({**pictures, "widths": (4, 8), "expansion": 1.5})
    assert ChannelGraph(wide, shape).size == 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"ratios": (0.5, 1.0)}, "ratios must be one or more between 0 and 1"),
        ({"ratios": ()}, "ratios must be one or more between 0 and 1"),
        ({"widths": ()}, "widths must name one convolution or more"),
        ({"widths": (4, 0)}, "widths must be above 0"),
        ({"seeds": 3}, "gate_seeds must be no fewer than seeds=3, got 1"),
        ({"size": 3}, "size must be 4 or more, got 3"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)


def test_a_ratio_out_of_reach_is_refused_before_anything_is_learnt(tmp_path):
    config = replace(experiment.TINY, ratios=(0.5, 0.999))
    run = create(tmp_path / "run", CARD, config, Options(backend="serial"), "full")
    with pytest.raises(BadInputError, match=r"ratios must be 0\.\d+ or less .* got 0\.999"):
        execute(run, experiment.run)
    assert not (tmp_path / "run" / "checkpoints" / "digits-gates").exists()
