"""Killed by signal 9 at any moment, nothing that was acknowledged is lost."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from mmxx.lab import checkpoint
from mmxx.lab.catalog import Card
from mmxx.lab.run import execute, reopen
from mmxx.lab.testing import assert_same, outcome

KILLED = -9
OWNER = {"system": "toy", "loop": "fit"}

SAVE_FOR_EVER = """
import sys
from pathlib import Path
import numpy as np
from mmxx.lab import checkpoint
folder, owner = Path(sys.argv[1]), {"system": "toy", "loop": "fit"}
found = checkpoint.latest(folder, owner=owner)
step = 0 if found is None else found.step
while True:
    step += 1
    tree = {"array": np.full(200_000, step), "list": [step / 3] * 2000}
    checkpoint.save(folder, step, tree, owner=owner, done=False)
    print(step, flush=True)
"""

# Kills itself when about to make the save of a given number: all since the last one is lost.
KILL_BEFORE_SAVE = """
import os, signal, sys
from mmxx.lab import checkpoint, cli
left, save = int(sys.argv[1]), checkpoint.save
def counted(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return save(*arguments, **named)
checkpoint.save = counted
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_save_loop_loses_nothing(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], kills: int
) -> None:
    rng = random.Random(kills)
    folder = tmp_path / "fit"
    acknowledged = unfinished = 0
    for _ in range(kills):
        child = start("-c", SAVE_FOR_EVER, folder, stderr=None)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        child.kill()
        said = [first, *child.stdout.read().splitlines(keepends=True)]
        before, acknowledged = acknowledged, int([n for n in said if n.endswith("\n")][-1])
        assert acknowledged > before
        found = checkpoint.latest(folder, owner=OWNER)
        assert found is not None
        assert found.skipped == ()
        assert found.step in (acknowledged, acknowledged + 1)
        assert np.array_equal(found.tree["array"], np.full(200_000, found.step))
        assert found.tree["list"] == [found.step / 3] * 2000
        temporary = [path.name for path in folder.glob(".tmp-*")]
        assert len(temporary) <= 1
        unfinished += len(temporary)
        acknowledged = found.step
    print(f"{kills} kills, {unfinished} in the middle of a save, {acknowledged} saves")
    checkpoint.save(folder, acknowledged + 1, {}, owner=OWNER, done=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"step-{step:09d}" for step in (acknowledged, acknowledged + 1)
    ]


def test_killed_before_a_random_save_ends_the_same(
    tmp_path: Path,
    patient_card: Card,
    tiny: Callable[[Card], Path],
    straight: Callable[[Card], Any],
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    """The contract kills every system once, before its last save."""
    card, expected = patient_card, straight(patient_card)
    number = random.Random(zlib.crc32(card.name.encode())).randint(1, expected.saves)
    folder = tmp_path / "killed"
    flags = ("--backend", "serial", "--config", tiny(card), "--out", folder)
    child = start("-c", KILL_BEFORE_SAVE, str(number), "run", card.name, *flags)
    _, said = child.communicate()
    assert child.returncode == KILLED, said
    module, _, experiment = card.experiment.partition(":")
    loaded: Any = importlib.import_module(module)
    execute(reopen(folder, card, loaded.Config), getattr(loaded, experiment))
    assert_same(expected.outcome, outcome(folder))


@pytest.mark.parametrize("step", random.Random(2020).sample(range(30), 2))
def test_killed_at_a_random_step_ends_the_same(
    tmp_path: Path,
    toy: Card,
    mmxx: Callable[..., CompletedProcess[str]],
    command: Callable[..., CompletedProcess[str]],
    step: int,
) -> None:
    folder, flags = tmp_path / "killed", ("--steps", "30", "--backend", "serial")
    done = command("run", "toy", *flags, "--die-at", str(step), "--out", folder)
    assert done.returncode == KILLED, done.stderr
    assert mmxx("resume", folder).returncode == 0
    resumed = json.loads((folder / "run.json").read_bytes())["sessions"][-1]["resumed"]
    assert resumed == {"sizes": 0, "fit": step // 7 * 7}
    assert mmxx("run", "toy", *flags, "--out", tmp_path / "straight").returncode == 0
    assert_same(outcome(tmp_path / "straight"), outcome(folder))


def test_what_a_kill_left_is_swept_and_harms_nothing(
    tmp_path: Path, mmxx: Callable[..., CompletedProcess[str]]
) -> None:
    """Temporary files of a killed process lie wherever it was writing, even before its start."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".tmp-4194304-run.json").write_text('{"schema": 1')
    assert mmxx("run", "toy", "--time-limit", "1e-9", "--out", folder).returncode == 75
    assert not list(folder.rglob(".tmp-*"))
    unfinished = folder / "checkpoints" / "sizes" / ".tmp-4194304-step-000000000"
    for path in (
        unfinished / "state.json",
        folder / ".tmp-4194304-claims.json",
        folder / "figures" / ".tmp-4194304-loss.svg",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("torn")
    assert mmxx("resume", folder).returncode == 0
    assert not list(folder.rglob(".tmp-*"))
    assert "torn" not in (folder / "report.html").read_text()


@pytest.mark.slow
def test_quick_run_killed_five_times_ends_the_same(
    tmp_path: Path,
    card: Card,
    command: Callable[..., CompletedProcess[str]],
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    straight, folder = tmp_path / "straight", tmp_path / "killed"
    done = command("run", card.name, "--out", straight)
    assert done.returncode == 0, done.stderr
    rng = random.Random(zlib.crc32(card.name.encode()))
    arguments = ["run", card.name, "--out", str(folder)]
    kills = 0
    for _ in range(5):
        saves = rng.randint(1, 3) if kills else 1  # some runs save no more than once
        child = start("-c", KILL_BEFORE_SAVE, str(saves), *arguments)
        _, said = child.communicate()
        if child.returncode == 0:
            break  # fewer saves were left
        assert child.returncode == KILLED, said
        kills += 1
        arguments = ["resume", str(folder)]
    assert kills > 0
    done = command("resume", folder)
    assert done.returncode == 0, done.stderr
    assert_same(outcome(straight), outcome(folder))
