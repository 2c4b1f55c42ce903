"""The disk is full, at any write: exit 74 with one line, and nothing older is harmed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mmxx.lab import checkpoint
from mmxx.lab.catalog import Card
from mmxx.lab.testing import assert_same, outcome

Run = Callable[..., CompletedProcess[str]]
Line = Callable[[CompletedProcess[str]], str]
Loads = Callable[[Path, str], checkpoint.Checkpoint | None]

# A limit on the size of files stops the write that is too long where a full disk would, for
# anybody and without a disk: (what it hits, the limit in bytes, the flags, a step that is safe).
CASES = [
    pytest.param(
        "checkpoints/fit/step-", 64_000, ("--steps", "30", "--grow", "1000"), 7, id="checkpoint"
    ),
    pytest.param("metrics.jsonl", 8_192, ("--steps", "400"), 98, id="metrics"),
    pytest.param("figures/loss.svg", 9_000, ("--steps", "30"), 30, id="figure"),
    pytest.param("report.html", 20_000, ("--steps", "30"), 30, id="report"),
]


@pytest.mark.parametrize(("victim", "size", "flags", "step"), CASES)
def test_a_write_that_fails_is_told_and_harms_nothing(
    tmp_path: Path,
    mmxx: Run,
    command: Run,
    one_line: Line,
    loads: Loads,
    victim: str,
    size: int,
    flags: tuple[str, ...],
    step: int,
) -> None:
    folder, straight = tmp_path / "full", tmp_path / "straight"
    flags = (*flags, "--backend", "serial")
    done = command("run", "toy", *flags, "--out", folder, file_size=size)
    assert done.returncode == 74, done
    line = one_line(done)
    assert line.startswith(f"mmxx: cannot write {folder / victim}")
    assert line.endswith(": File too large")
    assert not list(folder.rglob(".tmp-*"))
    found = loads(folder, "fit")
    assert found is not None
    assert found.step >= step
    assert found.skipped == ()
    record = json.loads((folder / "run.json").read_bytes())
    assert record["status"] == ("done" if victim == "report.html" else "failed")
    assert mmxx("resume", folder).returncode == 0
    assert "</html>" in (folder / "report.html").read_text()
    assert mmxx("run", "toy", *flags, "--out", straight).returncode == 0
    assert_same(outcome(straight), outcome(folder))


@contextmanager
def _no_file_above(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_every_system_goes_on_once_there_is_room(
    tmp_path: Path,
    patient_card: Card,
    tiny: Callable[[Card], Path],
    straight: Callable[[Card], Any],
    mmxx: Run,
    one_line: Line,
    loads: Loads,
) -> None:
    card, expected = patient_card, straight(patient_card)
    largest = max(path.stat().st_size for path in expected.folder.glob("checkpoints/*/*/*"))
    record = (expected.folder / "run.json").stat().st_size
    size = max(largest - 1, 2 * record)  # for without a record there is no run
    folder = tmp_path / "full"
    flags = ("--backend", "serial", "--config", tiny(card), "--out", folder)
    with _no_file_above(size):
        done = mmxx("run", card.name, *flags)
    assert done.returncode == 74, done.stderr
    assert one_line(done).startswith(f"mmxx: cannot write {folder}/")
    assert not list(folder.rglob(".tmp-*"))
    for loop in {step.parent for step in folder.glob("checkpoints/*/step-*")}:
        found = loads(folder, loop.name)
        assert found is not None
        assert found.skipped == ()
    assert mmxx("resume", folder).returncode == 0
    assert_same(expected.outcome, outcome(folder))


def test_no_room_to_show_progress_stops_no_run(
    tmp_path: Path, mmxx: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The review asks its children to write how far they are; that file is a courtesy."""
    monkeypatch.setenv("MMXX_PROGRESS", str(tmp_path / "gone" / ".progress-toy"))
    done = mmxx("run", "toy", "--time-limit", "1e-9", "--out", tmp_path / "run")
    assert done.returncode == 75, done.stderr


def test_no_room_for_what_a_library_writes(
    tmp_path: Path, mmxx: Run, one_line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills elsewhere, as that of temporary files, is no internal error."""
    import mmxx_toy.line

    def full(*_: object, **__: object) -> None:
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")

    monkeypatch.setattr(mmxx_toy.line, "gradient", full)
    done = mmxx("run", "toy", "--backend", "serial", "--out", tmp_path / "run")
    assert done.returncode == 74
    assert one_line(done).endswith(": No space left on device")


# In a mount namespace of its own: the disk is gone with the process, so what lies on it is
# copied out. Given are the disk, the place for the copy, and the command.
ON_SMALL_DISK = """
import os, shutil, subprocess, sys
disk, copy, *command = sys.argv[1:]
if not os.environ.get("IN_NAMESPACE"):
    os.environ["IN_NAMESPACE"] = "yes"
    os.execvp("unshare", ["unshare", "-m", sys.executable, "-c", sys.orig_argv[2], *sys.argv[1:]])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
code = subprocess.run([sys.executable, "-m", "mmxx", *command]).returncode
shutil.copytree(disk, copy, dirs_exist_ok=True)
sys.exit(code)
"""


@pytest.mark.slow
def test_on_a_disk_of_16_megabytes(
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[str]],
    mmxx: Run,
    one_line: Line,
    loads: Loads,
    without_coverage: dict[str, str],
) -> None:
    """The run's folder on a disk of its own that fills up, and ``$TMPDIR`` on another."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, to mount a small disk")
    disk, copy, elsewhere = (tmp_path / name for name in ("disk", "copy", "elsewhere"))
    for place in (disk, copy, elsewhere):
        place.mkdir()
    flags = ("--backend", "serial", "--steps", "30", "--grow", "60000")
    child = start(
        "-c",
        ON_SMALL_DISK,
        disk,
        copy,
        *("run", "toy", *flags, "--out", disk / "run"),
        env={**without_coverage, "TMPDIR": str(elsewhere)},
    )
    out, err = child.communicate()
    done = CompletedProcess(child.args, child.returncode, out, err)
    assert done.returncode == 74, done
    line = one_line(done)
    assert line.startswith(f"mmxx: cannot write {disk / 'run' / 'checkpoints' / 'fit' / 'step-'}")
    assert line.endswith(": No space left on device")
    assert not list(copy.rglob(".tmp-*"))
    assert not list(elsewhere.iterdir())
    found = loads(copy / "run", "fit")
    assert found is not None
    assert found.skipped == ()
    assert found.step == int(max((copy / "run/checkpoints/fit").iterdir()).name[5:])
    assert mmxx("resume", copy / "run").returncode == 0
    assert mmxx("run", "toy", *flags, "--out", tmp_path / "straight").returncode == 0
    assert_same(outcome(tmp_path / "straight"), outcome(copy / "run"))
