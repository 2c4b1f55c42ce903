"""Odd surroundings: clocks, languages, names of folders, no home, no network, few threads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mmxx.lab.catalog import Card
from mmxx.lab.testing import assert_same, outcome

Run = Callable[..., CompletedProcess[str]]
Tiny = Callable[[Card], Path]


def _has(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")


# A clock that stands a day further back whenever somebody looks.
BACKWARDS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    static long days;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, at);
    if (clock == CLOCK_REALTIME) at->tv_sec -= 86400 * ++days;
    return code;
}
"""


@pytest.mark.slow
def test_a_clock_that_goes_backwards(
    tmp_path: Path,
    card: Card,
    tiny: Tiny,
    straight: Callable[[Card], Any],
    command: Run,
    without_coverage: dict[str, str],
) -> None:
    if sys.platform != "linux":
        pytest.skip("needs LD_PRELOAD")
    _has("cc")
    source, shim = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(BACKWARDS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    environment = {**without_coverage, "LD_PRELOAD": str(shim), "TZ": "Pacific/Kiritimati"}
    look = [sys.executable, "-c", "import time; print(int(time.time()) > int(time.time()))"]
    assert subprocess.run(look, env=environment, capture_output=True).stdout == b"True\n"
    folder = tmp_path / "run"
    flags = ("--backend", "serial", "--config", tiny(card), "--out", folder)
    done = command("run", card.name, *flags, "--time-limit", "1e-9", env=environment)
    assert done.returncode in (0, 75), done.stderr
    assert command("resume", folder, env=environment).returncode == 0
    assert_same(straight(card).outcome, outcome(folder))
    record = json.loads((folder / "run.json").read_bytes())
    assert record["started"] > record["ended"]
    assert 0 <= record["seconds"] < 3600, "it is measured by a clock that cannot be set"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a b", "ünï–中", "two\nlines", b"\xff\xfe", "-", "%s{}$HOME"])
@pytest.mark.parametrize(
    "language",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
    ids=["C", "ASCII", "ASCII output"],
)
def test_a_folder_of_any_name_in_any_language(
    tmp_path: Path, command: Run, name: str | bytes, language: dict[str, str]
) -> None:
    place = tmp_path / os.fsdecode(name)
    place.mkdir()
    environment = {**os.environ, **language, "TZ": "Asia/Kathmandu"}
    folder = Path("run") if name == "-" else place / "run"
    flags = ("--backend", "serial", "--steps", "9", "--out", folder)
    for arguments in (
        ("run", "toy", *flags, "--time-limit", "1e-9"),
        ("resume", folder),
        ("resume", folder),
        ("report", folder),
    ):
        done = command(*arguments, env=environment, cwd=place)
        assert done.returncode == (75 if "--time-limit" in arguments else 0), done
        assert "Traceback" not in done.stderr
    assert "</html>" in (place / "run" / "report.html").read_text(encoding="utf-8")
    assert json.loads((place / "run" / "run.json").read_bytes())["status"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("language", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_what_is_told_is_told_in_any_language(
    tmp_path: Path, card: Card, tiny: Tiny, command: Run, language: dict[str, str]
) -> None:
    environment = {**os.environ, **language}
    flags = ("--backend", "serial", "--config", tiny(card), "--out", tmp_path / "run")
    for arguments in (
        ("list",),
        ("list", "--json"),
        ("show", card.name),
        ("doctor",),
        ("run", card.name, "--help"),
        ("run", card.name, *flags),
    ):
        done = command(*arguments, env=environment)
        assert done.returncode == 0, done
        assert done.stderr == "" or arguments == ("run", card.name, *flags)


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/nonexistent", "file"])
def test_without_a_home(
    tmp_path: Path, card: Card, tiny: Tiny, command: Run, home: str | None
) -> None:
    (tmp_path / "file").write_text("no folder")
    taken = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")
    environment = {key: value for key, value in os.environ.items() if key not in taken}
    (tmp_path / "tmp").mkdir()
    environment["TMPDIR"] = str(tmp_path / "tmp")
    if home is not None:
        environment["HOME"] = str(tmp_path / home)
    flags = ("--backend", "serial", "--config", tiny(card), "--out", tmp_path / "run")
    done = command("run", card.name, *flags, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.slow
def test_without_a_network(
    tmp_path: Path, card: Card, tiny: Tiny, without_coverage: dict[str, str]
) -> None:
    """Alone in a network namespace that has no way out."""
    _has("unshare")
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network of its own")
    flags = ("--config", str(tiny(card)), "--out", str(tmp_path / "run"))
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "mmxx", "run", card.name, *flags],
        capture_output=True,
        text=True,
        env=without_coverage,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_nobody_is_called(
    tmp_path: Path, card: Card, tiny: Tiny, without_coverage: dict[str, str]
) -> None:
    """No process of a run so much as tries to reach another machine."""
    _has("strace")
    seen = tmp_path / "seen"
    traced = ("strace", "-f", "-qq", "-e", "trace=execve,connect,bind,sendto", "-o", str(seen))
    flags = ("--config", str(tiny(card)), "--out", str(tmp_path / "run"))
    done = subprocess.run(
        [*traced, sys.executable, "-m", "mmxx", "run", card.name, *flags],
        capture_output=True,
        text=True,
        env=without_coverage,
    )
    if "ptrace" in done.stderr and not (tmp_path / "run").exists():
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    assert "execve(" in seen.read_text(), "it has traced nothing"
    assert re.findall(r".*AF_INET.*", seen.read_text()) == []


def _family(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # gone meanwhile
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["", "1"], ids=["by default", "OMP_NUM_THREADS=1"])
@pytest.mark.parametrize("backend", ["serial", "process"])
def test_threads_and_processes_are_counted(
    tmp_path: Path,
    card: Card,
    tiny: Tiny,
    start: Callable[..., subprocess.Popen[str]],
    threads: str,
    backend: str,
) -> None:
    """No more workers than cores, each with one thread, and no more than the user grants."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc")
    granted = 1 if threads else len(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    flags = ("--backend", backend, "--config", tiny(card), "--out", tmp_path / "run")
    child = start("-m", "mmxx", "run", card.name, *flags, env=environment, stderr=None)
    own, together = 0, 0
    while child.poll() is None:
        workers = 0
        for process in _family(child.pid):
            try:
                words = Path(f"/proc/{process}/cmdline").read_text()
                count = len(list(Path(f"/proc/{process}/task").iterdir()))
            except OSError:
                continue  # gone meanwhile
            if process == child.pid:
                own = max(own, count)
            elif "spawn_main" in words:
                workers += 1
                # one computes; one waits for the parent's end, one to hand over torch tensors
                assert count <= 3, "a worker computes on more than one thread"
        together = max(together, workers)
    assert child.returncode == 0
    assert together <= (0 if backend == "serial" else granted)
    pools = 4  # those of numpy, scipy, torch and numba, each with the process's own thread
    waiting = 0 if backend == "serial" else 2  # on what the workers send
    assert 1 <= own <= 1 + pools * (granted - 1) + waiting
