"""A process that is told to stop, and one that breaks."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from mmxx_toy.variants import announce

from mmxx.lab.catalog import Card
from mmxx.lab.folder import lock
from mmxx.lab.testing import assert_same, outcome

Run = Callable[..., CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Until = Callable[[Callable[[], object], str], None]

# Told to stop by a signal that comes at the end of its first save.
STOPPED = """
import os, signal, sys
from mmxx.lab import checkpoint, cli
save = checkpoint.save
def told(*arguments, **named):
    path = save(*arguments, **named)
    os.kill(os.getpid(), signal.SIGTERM)
    return path
checkpoint.save = told
sys.exit(cli.main(sys.argv[1:]))
"""
# Once something is saved it reads what nobody may read, and leaves no core behind.
BREAKS = """
import ctypes, resource

def run(config, run):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for step in run.loop("fit", 10, state={"history": {}}, every=2):
        run.log(step, loss=0.0)
        if step == 5:
            ctypes.string_at(0)
"""
DAWDLES = """
import time

def run(config, run):
    time.sleep(3600)
"""
IN_THE_WAY = """
import os, signal

def run(config, run):
    (run.folder / "report.html" / "in the way").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("pause", ["0.01", "3600"], ids=["between steps", "in a long step"])
def test_a_signal_ends_a_run(
    tmp_path: Path, start: Start, until: Until, mmxx: Run, number: int, pause: str
) -> None:
    """A step gets some seconds to end, then it is cut off."""
    folder = tmp_path / "run"
    flags = ("--steps", "100000", "--pause", pause, "--backend", "serial", "--out", folder)
    child = start("-m", "mmxx", "run", "toy", *flags)
    until((folder / "metrics.jsonl").is_file, "the first step")
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 75, said
    assert f"stopped by {signal.Signals(number).name}; go on with: mmxx resume" in said
    record = json.loads((folder / "run.json").read_bytes())
    assert record["status"] == "interrupted"
    assert "</html>" in (folder / "report.html").read_text()
    if pause != "3600":
        assert mmxx("resume", folder, "--time-limit", "1e-9").returncode == 75


def test_a_signal_ends_every_system(
    tmp_path: Path,
    patient_card: Card,
    tiny: Callable[[Card], Path],
    straight: Callable[[Card], Any],
    start: Start,
    mmxx: Run,
) -> None:
    """Sent as soon as something is saved, by the process itself, which cannot miss the moment."""
    card, folder = patient_card, tmp_path / "run"
    flags = ("--backend", "serial", "--config", tiny(card), "--out", folder)
    child = start("-c", STOPPED, "run", card.name, *flags)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 75, said
    assert mmxx("resume", folder).returncode == 0
    assert_same(straight(card).outcome, outcome(folder))


def test_a_signal_ends_a_review_and_its_children(
    tmp_path: Path, start: Start, until: Until
) -> None:
    announce(tmp_path / "site", "dawdles", DAWDLES)
    root = tmp_path / "review"
    environment = _with(tmp_path / "site")
    flags = ("--only", "dawdles", "toy", "--out", root)
    child = start("-m", "mmxx", "review", *flags, env=environment)
    until((root / "dawdles" / "claims.json").is_file, "the first system to begin")
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 75, said
    entries = json.loads((root / "review.json").read_bytes())["entries"]
    assert [entry["status"] for entry in entries] == ["interrupted", "not run"]
    _is_free(root / "dawdles")


def _is_free(place: Path) -> None:
    """No process works in a run's folder any more."""
    held = lock(place)
    assert held is not None
    held.close()


def _with(place: Path) -> dict[str, str]:
    path = os.pathsep.join([str(place), os.environ["PYTHONPATH"]])
    return {**os.environ, "PYTHONPATH": path}


def test_a_system_that_crashes_stops_no_other(tmp_path: Path, command: Run) -> None:
    announce(tmp_path / "site", "breaks", BREAKS)
    root = tmp_path / "review"
    flags = ("--only", "breaks", "toy", "--out", root)
    done = command("review", *flags, env=_with(tmp_path / "site"))
    assert done.returncode == 70, done
    assert "Traceback" not in done.stdout + done.stderr
    entries = json.loads((root / "review.json").read_bytes())["entries"]
    found = {entry["system"]: (entry["status"], entry["reason"]) for entry in entries}
    assert found == {"breaks": ("crashed", "signal 11"), "toy": ("done", None)}
    record = json.loads((root / "breaks" / "run.json").read_bytes())
    assert record["reason"] == "crashed (signal 11)"
    for page in (root / "index.html", root / "breaks" / "report.html"):
        text = page.read_text()
        assert "crashed" in text
        assert "signal 11" in text
    verdicts = [c["verdict"] for c in json.loads((root / "toy/claims.json").read_bytes())["claims"]]
    assert verdicts == ["holds", "holds"]


def test_a_review_that_fails_leaves_no_child(tmp_path: Path, command: Run) -> None:
    announce(tmp_path / "site", "blocks", IN_THE_WAY)
    announce(tmp_path / "site", "dawdles", DAWDLES)
    root = tmp_path / "review"
    flags = ("--jobs", "2", "--only", "blocks", "dawdles", "--out", root)
    done = command("review", *flags, env=_with(tmp_path / "site"))
    assert done.returncode == 74, done
    assert f"mmxx: cannot write {root / 'blocks' / 'report.html'}: " in done.stderr
    if (root / "dawdles").is_dir():
        _is_free(root / "dawdles")


@pytest.mark.parametrize("name", ["a b & 'c'", "ünï–中", "two\nlines"])
def test_the_command_to_go_on_with_can_be_copied(tmp_path: Path, mmxx: Run, name: str) -> None:
    folder = tmp_path / name
    done = mmxx("run", "toy", "--time-limit", "1e-9", "--out", folder)
    assert done.returncode == 75
    given = done.stderr.partition("go on with: mmxx ")[2]
    again = mmxx(*shlex.split(given))
    assert again.returncode == 0, again.stderr
