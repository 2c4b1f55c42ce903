"""The review: every system in a process of its own, a live table, and one static site."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmxx.lab import catalog, claims, compute, errors, folder
from mmxx.lab.catalog import Broken, Card
from mmxx.lab.errors import BadInputError

_POLL = 0.1  # seconds between two looks at the children
_STOP = 10.0  # seconds that a child gets to stop by itself
_STATUS = {0: "done", 1: "done", 3: "missing extra", 75: "interrupted"}


@dataclass
class _Entry:
    """A system in the review, from waiting to its end."""

    system: str
    title: str
    status: str = "waiting"
    reason: str | None = None
    seconds: float | None = None
    code: int = 0
    began: float = 0.0
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def row(self, root: Path) -> dict[str, Any]:
        has_run = (root / self.system / "run.json").is_file()
        return {
            "system": self.system,
            "title": self.title,
            "folder": self.system if has_run else None,
            "status": "not run" if self.status in ("waiting", "running") else self.status,
            "reason": self.reason,
            "seconds": self.seconds,
        }


def review(root: Path, *, only: list[str], tier: str, jobs: int, seed: int, strict: bool) -> int:
    """Run the systems, render the site below ``root``, print its path, return the exit code."""
    _make_root(root)
    with folder.lock(root) or nullcontext():
        return _review(root, only, tier, jobs, seed, strict)


def _review(root: Path, only: list[str], tier: str, jobs: int, seed: int, strict: bool) -> int:
    from mmxx.lab.report.render import render_review

    entries = [
        _Entry(name, name, "broken", entry.reason)
        if isinstance(entry, Broken)
        else _Entry(name, entry.title)
        for name, entry in catalog.systems().items()
        if not only or name in only
    ]
    cards = {n: c for n, c in catalog.systems().items() if isinstance(c, Card)}
    record: dict[str, Any] = {"schema": 1, "tier": tier, "started": folder.now(), "ended": None}
    began = time.monotonic()

    def write(ended: str | None) -> None:
        record.update(
            ended=ended,
            seconds=round(time.monotonic() - began, 1),
            entries=[entry.row(root) for entry in entries],
        )
        folder.write_json(root / "review.json", record)

    write(None)
    with _stop_signals() as stopped, _live(root, entries) as show, _no_orphans(entries):
        threads = max(1, compute.cores() // jobs)
        while any(entry.status in ("waiting", "running") for entry in entries):
            running = [entry for entry in entries if entry.child is not None]
            for entry in running:
                _look(root, entry, stopped())
            waiting = [entry for entry in entries if entry.status == "waiting"]
            if stopped():
                for entry in waiting:
                    entry.status = "not run"
            elif waiting and sum(entry.child is not None for entry in entries) < jobs:
                _start(root, waiting[0], cards[waiting[0].system], tier, seed, threads)
                continue
            show()
            time.sleep(_POLL)
    write(folder.now())
    page = render_review(root)
    _print_summary(root, entries)
    print(f"site: {page}")
    return _exit_code(root, entries, stopped=stopped(), strict=strict)


def _make_root(root: Path) -> None:
    folder.make(root)
    strangers = [
        path.name
        for path in root.iterdir()
        if not (path.name in ("review.json", "index.html") or path.name.startswith("."))
        and not (path / "run.json").is_file()
    ]
    if strangers and not (root / "review.json").is_file():
        raise BadInputError(
            f"--out must be a new folder or that of a review, and {root} holds {strangers[0]}"
        )


def _start(root: Path, entry: _Entry, card: Card, tier: str, seed: int, threads: int) -> None:
    target = root / entry.system
    command = [sys.executable, "-m", "mmxx"]
    if _resumable(target, card, tier, seed):
        command += ["resume", str(target)]
    else:
        shutil.rmtree(target, ignore_errors=True)
        command += ["run", entry.system, "--out", str(target), "--seed", str(seed)]
        command += ["--full"] if tier == "full" else []
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MMXX_PROGRESS": str(root / f".progress-{entry.system}"),
    }
    with open(root / f".output-{entry.system}", "wb") as output:
        entry.child = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment
        )
    entry.status, entry.began = "running", time.monotonic()


def _resumable(target: Path, card: Card, tier: str, seed: int) -> bool:
    """Whether an earlier review left the system unfinished, with the settings of this one."""
    if not (target / "run.json").is_file():
        return False
    import importlib

    try:
        record = folder.read_record(target)
        module = importlib.import_module(card.experiment.partition(":")[0])
        usual = folder.config_json(module.FULL if tier == "full" else module.QUICK)
    except Exception:  # unreadable: begin anew
        return False
    return (
        record.get("status") in ("interrupted", "running")
        and record.get("tier") == tier
        and record.get("seed") == seed
        and record.get("config") == usual
    )


def _look(root: Path, entry: _Entry, stop: bool) -> None:
    """Note the end of a child, or stop it."""
    child = entry.child
    assert child is not None
    if stop:
        child.terminate()
        try:
            child.wait(_STOP)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    code = child.poll()
    if code is None:
        return
    entry.child, entry.code = None, code
    entry.seconds = round(time.monotonic() - entry.began, 1)
    output = (root / f".output-{entry.system}").read_text(errors="replace").strip()
    for name in (f".output-{entry.system}", f".progress-{entry.system}"):
        (root / name).unlink(missing_ok=True)
    if code < 0 and stop:  # before it could stop by itself, or since it did not
        entry.status, entry.reason = "interrupted", "stopped"
        _mark(root / entry.system, "stopped")
    elif code < 0:
        entry.status, entry.reason = "crashed", f"signal {-code}"
        _mark(root / entry.system, f"crashed ({entry.reason})")
    else:
        entry.status = _STATUS.get(code, "failed")
        if entry.status != "done":
            entry.reason = output.rpartition("\n")[2].removeprefix("mmxx: ") or f"exit code {code}"


def _mark(target: Path, reason: str) -> None:
    """Say in the record of a run that it will not go on by itself, and render what there is."""
    from mmxx.lab.report.render import render_run

    with suppress(BadInputError):
        record = folder.read_record(target)
        record.update(status="interrupted", reason=reason)
        folder.write_json(target / "run.json", record)
        render_run(target)


def _exit_code(root: Path, entries: list[_Entry], *, stopped: bool, strict: bool) -> int:
    if stopped:
        return errors.Interrupted.exit_code
    codes = [entry.code for entry in entries]
    if errors.CannotWriteError.exit_code in codes:
        return errors.CannotWriteError.exit_code
    if any(entry.status in ("crashed", "failed") for entry in entries):
        return errors.INTERNAL
    if any(entry.status == "interrupted" for entry in entries):
        return errors.Interrupted.exit_code
    short = any(_counts(root, entry)[claims.FALLS_SHORT] for entry in entries)
    return errors.FELL_SHORT if strict and short else errors.DONE


def _counts(root: Path, entry: _Entry) -> dict[str, int]:
    path = root / entry.system / "claims.json"
    lines = json.loads(path.read_bytes())["claims"] if path.is_file() else []
    return claims.counts(lines)


def _summary(root: Path, entry: _Entry) -> str:
    if entry.status != "done":
        return entry.reason or ""
    found = _counts(root, entry)
    return ", ".join(f"{n} {verdict}" for verdict, n in found.items() if n)


def _print_summary(root: Path, entries: list[_Entry]) -> None:
    width = max((len(entry.system) for entry in entries), default=0)
    for entry in entries:
        seconds = "" if entry.seconds is None else f"{entry.seconds:6.1f} s"
        print(f"{entry.system:{width}}  {entry.status:13} {seconds:>8}  {_summary(root, entry)}")


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a question that the review asks between two looks."""
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in numbers}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _no_orphans(entries: list[_Entry]) -> Iterator[None]:
    """Leave no child behind, should the review itself end in an error."""
    try:
        yield
    finally:
        for entry in entries:
            if entry.child is not None:
                entry.child.kill()
                entry.child.wait()


@contextmanager
def _live(root: Path, entries: list[_Entry]) -> Iterator[Callable[[], None]]:
    """A table that follows the systems on a terminal; elsewhere a line as each one ends."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), auto_refresh=False) as live:
            yield lambda: live.update(_table(root, entries), refresh=True)
            live.update(_table(root, entries), refresh=True)
        return
    told = {entry.system for entry in entries if entry.status == "broken"}

    def tell() -> None:
        for entry in entries:
            if entry.system not in told and entry.status not in ("waiting", "running"):
                told.add(entry.system)
                print(f"{entry.system}: {entry.status} {_summary(root, entry)}", file=sys.stderr)

    yield tell
    tell()


def _table(root: Path, entries: list[_Entry]) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table("system", "status", "progress", "seconds", "claims")
    for entry in entries:
        bar: Any = ""
        seconds = entry.seconds
        if entry.status == "running":
            seconds = time.monotonic() - entry.began
            with suppress(OSError, ValueError):
                label, done, total = json.loads((root / f".progress-{entry.system}").read_text())
                entry.reason = None
                bar = Table.grid(padding=(0, 1))
                bar.add_row(label, ProgressBar(total=total, completed=done, width=20))
        table.add_row(
            entry.system,
            entry.status,
            bar,
            "" if seconds is None else f"{seconds:.0f}",
            _summary(root, entry),
        )
    return table
