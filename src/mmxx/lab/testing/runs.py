"""The checks of an experiment: same bits again, after a cut, a kill and a resume; no trace."""

from __future__ import annotations

import atexit
import importlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmxx.lab import checkpoint, claims, metrics
from mmxx.lab.catalog import Card
from mmxx.lab.errors import MmxxError
from mmxx.lab.folder import Options, config_json, write_json
from mmxx.lab.run import create, execute, reopen
from mmxx.lab.testing.cards import WAIT, experiment_of, module_of
from mmxx.lab.testing.watching import global_states, same_states, watched

_IMPORTED = ["mmxx.lab.cli", "numba", "sklearn.base", "torch._dynamo", "matplotlib.figure"]


@dataclass(frozen=True)
class Outcome:
    """What a run left that must be equal in every repetition."""

    claims: list[dict[str, Any]]
    digests: dict[str, str]
    metrics: list[dict[str, Any]]
    files: dict[str, bytes]


def outcome(folder: Path) -> Outcome:
    """Read what a finished run left."""
    lines = [
        {key: value for key, value in line.items() if key != "t"}
        for line in metrics.read(folder / "metrics.jsonl")
    ]
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("tables", "figures", "artifacts")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }
    found = json.loads((folder / "claims.json").read_bytes())["claims"]
    return Outcome(found, checkpoint.digests(folder / "checkpoints"), lines, files)


def assert_same(one: Outcome, other: Outcome) -> None:
    """Raise AssertionError, naming the first part in which two outcomes differ."""
    assert one.claims == other.claims, _differ("claims.json", one.claims, other.claims)
    assert one.digests == other.digests, _differ("checkpoints", one.digests, other.digests)
    assert one.metrics == other.metrics, _differ("metrics.jsonl", one.metrics, other.metrics)
    assert one.files.keys() == other.files.keys(), _differ(
        "files", sorted(one.files), sorted(other.files)
    )
    for name, content in one.files.items():
        assert content == other.files[name], f"{name} differs"


def _differ(what: str, one: object, other: object) -> str:
    return f"{what} differ:\n{one!r:.1500}\n{other!r:.1500}"


def run_tiny(card: Card, folder: Path, *, seed: int = 0, backend: str = "serial") -> Outcome:
    """Run the smallest configuration in this process."""
    options = Options(seed=seed, backend=backend)
    execute(create(folder, card, module_of(card).TINY, options, "tiny"), experiment_of(card))
    return outcome(folder)


@dataclass(frozen=True)
class Straight:
    """A run of the smallest configuration that nothing disturbed, and that stays as it is."""

    folder: Path
    outcome: Outcome
    saves: int


_straight: dict[Callable[..., None], Straight] = {}
_again: dict[Callable[..., None], tuple[Outcome, set[str], bool]] = {}


def straight(card: Card) -> Straight:
    """The undisturbed run of a system, made once in a process, for all checks to compare with."""
    key = experiment_of(card)
    if key not in _straight:
        place = tempfile.mkdtemp(prefix="mmxx-straight-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        folder = Path(place) / "run"
        with _after_save(math.inf) as saves:
            found = run_tiny(card, folder)
        _straight[key] = Straight(folder, found, saves[0])
    return _straight[key]


def again(card: Card) -> tuple[Outcome, set[str], bool]:
    """A second run, made once too: its outcome, what it touched, whether generators moved."""
    key = experiment_of(card)
    if key not in _again:
        _again[key] = _watched_run(card)
        if _again[key][2]:  # a library may have moved one when it was imported
            _again[key] = _watched_run(card)
    return _again[key]


def _watched_run(card: Card) -> tuple[Outcome, set[str], bool]:
    with temporary_folder() as folder:
        before = global_states()
        with watched(folder) as seen:
            found = run_tiny(card, folder)
        return found, seen, not same_states(before, global_states())


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A path for a run folder, removed afterwards with all that lies beside it."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "run"


def same_seed_gives_same_bits(card: Card) -> None:
    """Two runs with one seed leave the same claims, checkpoints, metrics and files."""
    first = straight(card)
    assert (first.folder / "report.html").is_file(), "there is no report"
    assert first.outcome.digests, "nothing was saved: an experiment needs a run.loop or run.once"
    unsaid = [c["id"] for c in first.outcome.claims if c["note"] == claims.NOT_REACHED]
    assert not unsaid, f"the run ended without a word on {', '.join(unsaid)}"
    assert_same(first.outcome, again(card)[0])


def seed_matters(card: Card) -> None:
    """Another seed gives other checkpoints."""
    with temporary_folder() as other:
        second = run_tiny(card, other, seed=1)
        same = second.digests == straight(card).outcome.digests
        assert not same, "another seed leaves the same checkpoints"


def sham_is_undone(card: Card) -> None:
    """The sham runs, and leaving it leaves no trace."""
    first = straight(card).outcome
    with temporary_folder() as shammed, temporary_folder() as other:
        with module_of(card).sham():
            run_tiny(card, shammed)
        assert_same(first, run_tiny(card, other))


def report_is_reproducible(card: Card) -> None:
    """A copy of the run folder gives the same page, byte by byte."""
    from mmxx.lab.report.render import render_run

    with temporary_folder() as copied:
        shutil.copytree(straight(card).folder, copied)
        page = (copied / "report.html").read_bytes()
        (copied / "report.html").unlink()
        assert render_run(copied).read_bytes() == page


def leaves_the_process_as_it_was(card: Card) -> None:
    """Writes only in the run folder, opens no socket, leaves the global generators alone."""
    _, seen, moved = again(card)
    assert not seen, f"the run touched: {', '.join(sorted(seen))}"
    assert not moved, "a global random generator has moved"


def cut_short_resumes_to_the_same_bits(card: Card) -> None:
    """Cut off after its first, middle and last save, one after the other, a run ends the same."""
    first = straight(card)
    total, made = first.saves, 0.0
    with temporary_folder() as folder:
        for number in [*sorted({1, (total + 1) // 2, total}), math.inf]:
            try:
                with _after_save(number - made):
                    _begin_or_resume(card, folder)
                break
            except _Cut:
                made = number
        assert_same(first.outcome, outcome(folder))


def _begin_or_resume(card: Card, folder: Path) -> None:
    if folder.exists():
        run = reopen(folder, card, module_of(card).Config)
    else:
        run = create(folder, card, module_of(card).TINY, Options(backend="serial"), "tiny")
    execute(run, experiment_of(card))


def killed_resumes_to_the_same_bits(card: Card) -> None:
    """A process of its own, killed (signal 9) before its last save, is resumed and ends the same.

    What that process has computed is compared with what this one has, and this one goes on.
    """
    first = straight(card)
    with temporary_folder() as folder:
        config, said = folder.with_name("tiny.json"), folder.with_name("stderr.txt")
        write_json(config, config_json(module_of(card).TINY))
        flags = ["--backend", "serial", "--config", str(config), "--out", str(folder)]
        # forked from one that has only imported, which is most of what a new process takes
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        torch = sys.modules.get("torch")
        threads = None if torch is None else torch.get_num_threads()
        child = context.Process(
            target=_run_until_killed,
            args=(max(1, first.saves - 1), ["run", card.name, *flags], said, threads),
        )
        child.start()
        child.join(WAIT)
        killed = child.exitcode == -signal.SIGKILL
        assert killed, f"a run of its own ends with {child.exitcode}: {said.read_text()[-2000:]}"
        execute(reopen(folder, card, module_of(card).Config), experiment_of(card))
        assert_same(first.outcome, outcome(folder))


def _run_until_killed(save: int, arguments: list[str], said: Path, threads: int | None) -> None:
    """A command that kills itself right after a save of a given number."""
    from mmxx.lab import cli

    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        importlib.import_module("torch").set_num_threads(threads)
    with said.open("w") as sys.stderr, _after_save(save, partial(os.kill, os.getpid(), 9)):
        sys.exit(cli.main(arguments))


def stops_at_its_time_limit(card: Card) -> None:
    """A time limit ends a run as interrupted, and it can be resumed."""
    with temporary_folder() as folder:
        options = Options(backend="serial", time_limit=1e-9)
        run = create(folder, card, module_of(card).TINY, options, "tiny")
        code = 0
        try:
            execute(run, experiment_of(card))
        except MmxxError as error:
            code = error.exit_code
        record = json.loads((folder / "run.json").read_bytes())
        if any((folder / "checkpoints").glob("*/step-*[1-9]*")):  # else there is no loop to stop
            assert code == 75, f"a run with a loop and no time left ended with {code}"
            assert record["status"] == "interrupted", f"its status is {record['status']!r}"
            execute(reopen(folder, card, module_of(card).Config), experiment_of(card))


class _Cut(BaseException):
    """Stands for a kill inside one process: no handler of the lab catches it."""


def _cut() -> None:
    raise _Cut


@contextmanager
def _after_save(number: float, then: Callable[[], None] = _cut) -> Iterator[list[int]]:
    """Do something, else cut off, right after the save of that number; count the saves."""
    real, count = checkpoint.save, [0]

    def save(*args: Any, **more: Any) -> Path:
        path = real(*args, **more)
        count[0] += 1
        if count[0] == number:
            then()
        return path

    checkpoint.save = save
    try:
        yield count
    finally:
        checkpoint.save = real
