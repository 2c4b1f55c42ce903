"""What the fault tests share: the systems, commands in this process and in others, damage."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

import pytest

from mmxx.lab import checkpoint, cli
from mmxx.lab.catalog import Card, systems
from mmxx.lab.folder import config_json, write_json
from mmxx.lab.testing import Straight, straight

_HANG = 300.0  # seconds: no test measures time, but none may wait for ever

# A process that its own test limits or traces cannot also write its coverage.
_LIMITED = """
import ctypes, os, resource, sys
size, caps = int(sys.argv[1]), ctypes.CDLL(None)
if size:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
if sys.argv[2] == "bound" and os.geteuid() == 0:  # permissions bind root too, from now on
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert caps.prctl(24, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "mmxx", *sys.argv[3:]])
"""


def _installed() -> dict[str, Card]:
    return {name: card for name, card in systems().items() if isinstance(card, Card)}


@pytest.fixture(params=list(_installed().values()), ids=list(_installed()))
def card(request: pytest.FixtureRequest) -> Card:
    """Every installed system, and the toy."""
    return request.param


@pytest.fixture(
    params=[
        pytest.param(card, marks=() if name == "toy" else pytest.mark.slow)
        for name, card in _installed().items()
    ],
    ids=list(_installed()),
)
def patient_card(request: pytest.FixtureRequest) -> Card:
    """The toy, and every installed system where there is time."""
    return request.param


@pytest.fixture(name="straight")
def _straight() -> Callable[[Card], Straight]:
    """The undisturbed run of a system, done once for all tests, which must not change it."""
    return straight


@pytest.fixture
def at_its_end(tmp_path: Path) -> Callable[[Card], Path]:
    """A copy of that run, as if it had been interrupted at its very end."""

    def copy(card: Card) -> Path:
        folder = tmp_path / "run"
        shutil.copytree(straight(card).folder, folder)
        record = json.loads((folder / "run.json").read_bytes())
        write_json(folder / "run.json", record | {"status": "interrupted"})
        return folder

    return copy


@pytest.fixture
def toy() -> Card:
    """The toy, for what concerns the lab alone."""
    return _installed()["toy"]


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[Card], Path]:
    """Writes the smallest settings of a system into a file for ``--config``."""

    def write(card: Card) -> Path:
        module: Any = importlib.import_module(card.experiment.partition(":")[0])
        path = tmp_path / f"tiny-{card.name}.json"
        write_json(path, config_json(module.TINY))
        return path

    return write


@pytest.fixture
def mmxx(capfd: pytest.CaptureFixture[str]) -> Callable[..., CompletedProcess[str]]:
    """Runs a command in this process."""

    def run(*arguments: str | Path) -> CompletedProcess[str]:
        capfd.readouterr()
        with patch.dict(os.environ):
            try:
                code = cli.main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = stop.code
        assert isinstance(code, int)
        return CompletedProcess(arguments, code, *capfd.readouterr())

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python process, and ends it with the test."""
    children: list[subprocess.Popen[str]] = []

    def popen(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        usual = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings: dict[str, Any] = {"text": True, "errors": "replace", **usual, **options}
        child = subprocess.Popen([sys.executable, *map(str, arguments)], **settings)
        children.append(child)
        return child

    yield popen
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def command(
    start: Callable[..., subprocess.Popen[str]],
) -> Callable[..., CompletedProcess[str]]:
    """Runs a command in a process of its own, under limits where they are given."""

    def run(
        *arguments: str | Path, file_size: int = 0, bound: bool = False, **options: Any
    ) -> CompletedProcess[str]:
        if file_size or bound:
            options["env"] = uncovered(options.get("env"))
            limits = ("-c", _LIMITED, str(file_size), "bound" if bound else "free")
            child = start(*limits, *arguments, **options)
        else:
            child = start("-m", "mmxx", *arguments, **options)
        out, err = child.communicate(timeout=_HANG)
        return CompletedProcess(arguments, child.returncode, out, err)

    return run


def uncovered(environment: dict[str, str] | None) -> dict[str, str]:
    """An environment in which a child does not record its coverage."""
    given = dict(os.environ) if environment is None else environment
    return {key: value for key, value in given.items() if not key.startswith("COV")}


@pytest.fixture
def without_coverage() -> dict[str, str]:
    """The environment of a child that is traced, or may write in few places only."""
    return uncovered(None)


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], None]:
    """Waits for something that another process does."""

    def wait(happened: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + _HANG
        while not happened():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.005)

    return wait


@pytest.fixture
def loads() -> Callable[[Path, str], checkpoint.Checkpoint | None]:
    """Reads the newest sound checkpoint of a loop as its run would."""

    def latest(run: Path, loop: str) -> checkpoint.Checkpoint | None:
        place = run / "checkpoints" / loop
        manifest = json.loads((max(place.glob("step-*")) / "manifest.json").read_bytes())
        return checkpoint.latest(place, owner=manifest["owner"])

    return latest


@pytest.fixture
def one_line() -> Callable[[CompletedProcess[str]], str]:
    """The only line by which a command explains its failure; a traceback is a failed test."""

    def line(done: CompletedProcess[str]) -> str:
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("mmxx: ")]
        reasons = [line for line in lines if not line.startswith("mmxx: warning:")]
        assert len(reasons) == 1, done.stderr
        return reasons[0]

    return line
