"""The experiment of GPT-3: one's own text, weights and tasks, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmxx.lab.errors import BadInputError
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.language.gpt3 import GPT, ByteBPE, arms, experiment, own
from mmxx.language.gpt3.card import CARD


def measured(folder, config):
    run = create(folder, CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}


def table(folder, name):
    with open(folder / "tables" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of text, some of which holds a question of the tasks beside it."""
    place = tmp_path_factory.mktemp("own")
    (place / "texts").mkdir()
    questions = [
        {"context": f"which of the many numbers comes right after the number {i}?",
         "choices": [str(i + 1), str(i + 2)], "answer": 0}
        for i in range(12)
    ]  # fmt: skip
    (place / "numbers.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    for i in range(24):
        words = " ".join(f"word{(i * j) % 17}" for j in range(60))
        planted = f" {questions[3]['context']} 4." if i == 5 else ""
        (place / "texts" / f"{i}.txt").write_text(words + planted)
    return place


@pytest.fixture(scope="module")
def trained(texts):
    config = replace(
        experiment.TINY, steps=4, data=texts / "texts", tasks=(texts / "numbers.jsonl",),
        shots=(0, 2), n_ctx=64,
    )  # fmt: skip
    return texts / "trained", measured(texts / "trained", config)


def test_a_text_of_ones_own(trained, texts):
    folder, lines = trained
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    (row,) = table(folder, "training")
    assert int(row["documents"]) + int(row["held-out documents"]) == 24
    assert float(row["held-out loss, nats per token"]) > 1
    assert len(table(folder, "samples")) == 3
    asked = table(folder, "tasks")
    assert [(r["task"], r["shots"], r["count"]) for r in asked] == [
        ("numbers", "0", "12"), ("numbers", "2", "12")
    ]  # fmt: skip
    assert asked[1]["control"]
    (dirty,) = table(folder, "contamination")
    assert dirty["dirty"] == "1"
    prompts = json.loads((folder / "artifacts" / "prompts.json").read_text())
    assert len(prompts[1]["prompts"]) == 12
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == [0, 1, 2, 3]
    assert "texts" in (folder / "run.json").read_text()


def test_what_was_trained_is_weights_for_another_run(trained, texts, tmp_path):
    model, tok = own.load(trained[0] / "artifacts")
    assert isinstance(model, GPT)
    assert isinstance(tok, ByteBPE)
    config = replace(
        experiment.TINY, weights=trained[0] / "artifacts", tasks=(texts / "numbers.jsonl",),
        shots=(0, 2),
    )  # fmt: skip
    measured(tmp_path / "again", config)
    assert table(tmp_path / "again", "tasks") == table(trained[0], "tasks")
    assert not (tmp_path / "again" / "tables" / "training.csv").exists()
    ours = replace(config, tasks=(), questions=3, shots=(1,))
    measured(tmp_path / "rules", ours)
    assert len(table(tmp_path / "rules", "tasks")) == 21


def command(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "mmxx", *map(str, words)], start_new_session=True,
        stdout=subprocess.DEVNULL, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--shard",)], ids=["ddp", "fsdp"])
def test_two_devices_end_alike_when_killed_and_resumed(texts, tmp_path, flags):
    pytest.importorskip("lightning_fabric")
    run = ("run", "gpt3", "--data", texts / "texts", "--widths", 16, "--steps", 300, "--batch", 4,
           "--n-ctx", 32, "--vocabulary", 300, "--devices", 2, *flags)  # fmt: skip
    assert command(*run, "--out", tmp_path / "whole").wait(120) == 0
    killed = command(*run, "--out", tmp_path / "killed")
    saved = tmp_path / "killed" / "checkpoints" / "train"
    while not list(saved.glob("step-*60*")):
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert command("resume", tmp_path / "killed").wait(120) == 0
    record = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert record["sessions"][-1]["resumed"]["train"] >= 60
    one, two = (
        (tmp_path / name / "artifacts" / "model.safetensors").read_bytes()
        for name in ("whole", "killed")
    )
    assert one == two


@pytest.mark.slow
def test_processes_answer_as_this_one_does(trained, texts, tmp_path):
    config = replace(
        experiment.TINY, weights=trained[0] / "artifacts", tasks=(texts / "numbers.jsonl",),
        shots=(0, 2),
    )  # fmt: skip
    run = create(tmp_path / "run", CARD, config, Options(backend="process"), "quick")
    execute(run, experiment.run)
    for name in ("tables/tasks.csv", "artifacts/prompts.json"):
        assert (tmp_path / "run" / name).read_bytes() == (trained[0] / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (6,), "heads": 4}, "widths must be even and multiples of heads=4, got 6"),
        ({"widths": ()}, "widths and shots must hold one number or more"),
        ({"steps": 0}, "steps must be above 0, got 0"),
        ({"shots": (-1,)}, "shots must be 0 or more"),
        ({"text_widths": (8, 16)}, r"text_widths must be four or more for a fit, got \(8, 16\)"),
        ({"pairs": 3}, "pairs must be 4 or more, got 3"),
        ({"vocabulary": 200}, "vocabulary must be 257 or more, got 200"),
        ({"shard": True}, "shard is for a text that is learnt: give --data"),
        ({"shard": True, "data": Path(), "precision": "fp16"}, "shard takes precision fp32"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)


def test_tasks_need_a_model(texts):
    with pytest.raises(ValueError, match="tasks need a model"):
        replace(experiment.TINY, tasks=(texts / "numbers.jsonl",))


def test_what_the_user_hands_in_is_read_before_anything_is_trained(texts, tmp_path):
    config = replace(experiment.TINY, data=texts / "texts", tasks=(texts / "numbers.jsonl",))
    for number, (change, message) in enumerate(
        [
            ({"shots": (0, 12)}, r"shots must be below 12"),
            ({"weights": texts / "texts"}, r"has no config\.json"),
            ({"shard": True}, "shard needs several processes: give --devices N"),
            ({"tasks": (texts / "numbers.jsonl",) * 2}, "different file names"),
            ({"tasks": (texts / "absent.jsonl",)}, r"absent\.jsonl"),
        ]
    ):
        with pytest.raises(BadInputError, match=message):
            measured(tmp_path / str(number), replace(config, **{"shots": (0,), **change}))


def test_a_context_of_random_languages_is_the_control():
    item = {
        "width": 8, "layers": 1, "heads": 2, "seed": 0, "steps": 1, "batch": 4, "lr": 1e-3,
        "shots": 4, "mixture": {"T": 1.0}, "tests": 200, "coherent": True,
    }  # fmt: skip
    found = arms.train_documents(item)
    assert len(found["translation"]) == len(found["shuffled"]) == len(found["pairs"]) == 5
    again = arms.train_documents({**item, "context": False})
    assert again["novel"] == found["novel"]
    assert again["translation"] != found["translation"]


def test_the_reader_of_guesses_looks_at_the_right_place():
    class Echo(torch.nn.Module):
        """A model that is sure of the token it last saw, plus one."""

        def hidden(self, rows):
            return torch.nn.functional.one_hot(rows + 1, 400).double()

        def head(self, x):
            return x

    docs = arms.Documents(4)
    tokens, _ = docs.translations(np.random.default_rng(0), 5)
    assert np.array_equal(arms.guesses(Echo(), tokens), tokens[:, 1:-1] + 1)


def test_the_planted_text_holds_what_was_planted():
    docs, source = own.documentation(30)
    assert len(docs) == 30
    assert "PSF" in source.licence
    text = own.planted_text(experiment.TINY, docs, np.random.default_rng(0))
    report = text["index"].report(text["task"])
    assert text["planted"].sum() >= 1
    assert report.dirty[text["planted"]].all()
    tokens, bounds = text["items"]["val"]
    assert bounds[-1] == len(tokens)
    assert len(text["items"]["requests"]) == len(text["task"].examples)
