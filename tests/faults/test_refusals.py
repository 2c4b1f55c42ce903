"""Folders that cannot be used: refused at once, in one line, and left as they were."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mmxx.lab.catalog import Card
from mmxx.lab.testing import assert_same, outcome, run_tiny

Run = Callable[..., CompletedProcess[str]]
Line = Callable[[CompletedProcess[str]], str]
FOR_EVER = ("--steps", "1000", "--pause", "3600")  # a run that began would never come back


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("flags", [("--seed", "1"), ("--noise", "0.5"), ()])
def test_a_folder_with_a_run_is_refused(
    tmp_path: Path, toy: Card, mmxx: Run, one_line: Line, flags: tuple[str, ...]
) -> None:
    """Another seed, other settings, or the same again: a run is only ever gone on with."""
    folder = tmp_path / "run"
    run_tiny(toy, folder)
    before = _content(folder)
    done = mmxx("run", "toy", *flags, "--out", folder)
    assert done.returncode == 2
    assert f"{folder} already holds a run of toy" in one_line(done)
    assert f"mmxx resume {folder}" in one_line(done)
    assert _content(folder) == before


@pytest.mark.parametrize(("key", "value"), [("seed", 1), ("config", {"steps": 21})])
def test_a_record_that_was_changed_is_refused(
    tmp_path: Path, toy: Card, mmxx: Run, one_line: Line, key: str, value: object
) -> None:
    """The checkpoints know whose they are, whatever ``run.json`` says."""
    folder = tmp_path / "run"
    expected = run_tiny(toy, folder)
    sound = json.loads((folder / "run.json").read_bytes()) | {"status": "interrupted"}
    changed = sound | {key: sound[key] | value if isinstance(value, dict) else value}
    (folder / "run.json").write_text(json.dumps(changed))
    done = mmxx("resume", folder)
    assert done.returncode == 2
    assert f" belongs to {key} " in one_line(done)
    (folder / "run.json").write_text(json.dumps(sound))
    assert mmxx("resume", folder).returncode == 0
    assert_same(expected, outcome(folder))


def test_the_second_process_on_a_folder_is_refused(
    tmp_path: Path,
    mmxx: Run,
    one_line: Line,
    start: Callable[..., subprocess.Popen[str]],
    until: Callable[[Callable[[], object], str], None],
) -> None:
    folder = tmp_path / "run"
    flags = ("--steps", "10000", "--pause", "0.1", "--backend", "serial", "--out", folder)
    first = start("-m", "mmxx", "run", "toy", *flags)
    until((folder / "checkpoints" / "fit" / "step-000000000").is_dir, "the first checkpoint")
    before = _content(folder)
    second = mmxx("resume", folder)
    assert second.returncode == 2
    assert one_line(second) == f"mmxx: {folder} is in use by another process"
    assert mmxx("run", "toy", "--out", folder).returncode == 2
    after = _content(folder)
    assert {name: after[name] for name in before if name != "metrics.jsonl"} == {
        name: content for name, content in before.items() if name != "metrics.jsonl"
    }
    assert first.poll() is None
    first.kill()
    first.wait()
    done = mmxx("resume", folder, "--time-limit", "1e-9")
    assert done.returncode == 75, "a killed process must not hold the folder"


def test_of_two_that_start_at_once_one_is_refused(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    flags = ("--backend", "serial", "--out", tmp_path / "run")
    children = [start("-m", "mmxx", "run", "toy", *flags) for _ in range(2)]
    said = [child.communicate()[1] for child in children]
    assert sorted(child.returncode for child in children) == [0, 2], said
    outcome(tmp_path / "run")


def test_the_second_review_of_a_folder_is_refused(
    tmp_path: Path, mmxx: Run, one_line: Line
) -> None:
    from mmxx.lab.folder import lock

    held = lock(tmp_path)
    assert held is not None
    done = mmxx("review", "--only", "toy", "--out", tmp_path)
    held.close()
    assert done.returncode == 2
    assert one_line(done) == f"mmxx: {tmp_path} is in use by another process"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder that nobody may write in."""
    path = tmp_path / "closed"
    path.mkdir(mode=0o555)
    return path


def test_a_closed_place_is_told_before_any_work(closed: Path, command: Run, one_line: Line) -> None:
    for place, where in (("--out", closed / "run"), (None, closed)):
        flags = (place, where) if place else ()
        done = command("run", "toy", *flags, *FOR_EVER, bound=True, cwd=closed)
        assert done.returncode == 74, done
        assert one_line(done).startswith("mmxx: cannot write ")
        assert one_line(done).endswith(": Permission denied")
        assert "of" not in done.stderr.replace(one_line(done), ""), "it has begun"
    assert list(closed.iterdir()) == []
    done = command("review", "--only", "toy", "--out", closed, bound=True)
    assert done.returncode == 74, done
    assert one_line(done).startswith(f"mmxx: cannot write {closed}")
    assert list(closed.iterdir()) == []


def test_a_closed_run_is_told_before_any_work(
    tmp_path: Path, mmxx: Run, command: Run, one_line: Line
) -> None:
    folder = tmp_path / "run"
    assert mmxx("run", "toy", "--time-limit", "1e-9", "--out", folder).returncode == 75
    before = _content(folder)
    folder.chmod(0o555)
    (folder / ".lock").chmod(0o444)
    for arguments in (("resume", folder), ("report", folder)):
        done = command(*arguments, bound=True)
        assert done.returncode == 74, done
        assert one_line(done).startswith(f"mmxx: cannot write {folder}")
    assert _content(folder) == before
    folder.chmod(0o755)


def test_a_hidden_place_is_told(tmp_path: Path, command: Run, one_line: Line) -> None:
    """A folder that may not even be looked into, and a file of data that may not be read."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o000)
    data = tmp_path / "data.txt"
    data.write_text("0 1\n1 3\n")
    data.chmod(0o000)
    for code, arguments in (
        (74, ("run", "toy", "--out", hidden / "run")),
        (74, ("review", "--only", "toy", "--out", hidden / "run")),
        (2, ("resume", hidden / "run")),
        (2, ("report", hidden / "run")),
        (2, ("run", "toy", "--out", tmp_path / "run", "--data", hidden / "data.txt")),
        (2, ("run", "toy", "--out", tmp_path / "run", "--data", data)),
        (2, ("run", "toy", "--out", tmp_path / "run", "--config", hidden / "run.json")),
    ):
        done = command(*arguments, bound=True)
        assert done.returncode == code, done
        assert str(hidden) in one_line(done) or str(data) in one_line(done)
    hidden.chmod(0o755)


@pytest.mark.parametrize("name", ["below/run", "x" * 300], ids=["below a file", "too long"])
def test_a_place_that_cannot_be(tmp_path: Path, mmxx: Run, one_line: Line, name: str) -> None:
    (tmp_path / "below").write_text("a file")
    place = tmp_path / name
    for code, arguments in (
        (74, ("run", "toy", "--out", place, *FOR_EVER)),
        (74, ("review", "--only", "toy", "--out", place)),
        (2, ("resume", place)),
        (2, ("report", place)),
        (2, ("run", "toy", "--data", place)),
    ):
        done = mmxx(*arguments)
        assert done.returncode == code, done
        assert str(place) in one_line(done)
    assert [path.name for path in tmp_path.iterdir()] == ["below"]


def test_a_file_in_the_place_of_a_folder(tmp_path: Path, mmxx: Run, one_line: Line) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    for arguments in (("run", "toy"), ("review", "--only", "toy")):
        done = mmxx(*arguments, "--out", place)
        assert done.returncode in (2, 74), done
        assert str(place) in one_line(done)
    assert place.read_text() == "mine"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_setting_that_json_cannot_hold(
    tmp_path: Path, mmxx: Run, one_line: Line, value: str
) -> None:
    done = mmxx("run", "toy", "--noise", value, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert one_line(done) == f"mmxx: noise must be finite, got {value}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_on_a_read_only_disk(
    tmp_path: Path,
    mmxx: Run,
    one_line: Line,
    start: Callable[..., subprocess.Popen[str]],
    without_coverage: dict[str, str],
) -> None:
    """A run on a disk that is now mounted read-only: told, unlike a missing permission, by all."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, to mount a disk read-only")
    folder = tmp_path / "disk" / "run"
    folder.parent.mkdir()
    assert mmxx("run", "toy", "--time-limit", "1e-9", "--out", folder).returncode == 75
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    for arguments in (
        ("resume", folder),
        ("report", folder),
        ("run", "toy", "--out", folder.with_name("other"), *FOR_EVER),
        ("review", "--only", "toy", "--out", folder.with_name("review")),
    ):
        script = ["unshare", "-m", "sh", "-c", mount, str(folder.parent)]
        done = subprocess.run(
            [*script, sys.executable, "-m", "mmxx", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=without_coverage,
            timeout=120,
        )
        assert done.returncode == 74, done
        assert one_line(done).startswith(f"mmxx: cannot write {folder.parent}")
        assert one_line(done).endswith(": Read-only file system")
    assert mmxx("resume", folder).returncode == 0
