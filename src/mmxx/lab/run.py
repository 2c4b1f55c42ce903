"""A run: the only handle an experiment gets, and the only thing that writes to disk.

Everything about a run lies in its folder, from which the report is made again without
computing. Killed at any moment, a run resumes from the folder and ends with the same bits.
"""

from __future__ import annotations

import csv
import errno
import io
import re
import signal
import sys
import threading
import time
import traceback
import types
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmxx.lab import checkpoint, claims, compute, devices, folder
from mmxx.lab.catalog import Card
from mmxx.lab.errors import BadInputError, CannotWriteError, Interrupted, MmxxError
from mmxx.lab.folder import Options
from mmxx.lab.metrics import MetricsWriter, keep_lines

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from mmxx.lab.devices import Team

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_GRACE = 3.0  # seconds that a step may take to end after a signal before it is cut off
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_DEFAULT_SAVES = 10  # checkpoints of a loop whose cadence is not given

T = TypeVar("T")
Progress = Callable[[str, int, int], None]


class Loop:
    """The steps of `Run.loop`. Iterate over it once."""

    def __init__(
        self,
        run: Run,
        name: str,
        steps: int,
        state: Mapping[str, Any],
        every: int,
        depends: tuple[str, ...] | None,
    ) -> None:
        self.name = name
        self.steps = steps
        self.diverged: str | None = None
        self._run = run
        self._state = dict(state)
        self._every = every
        self._depends = depends
        self._finish = False

    def finish(self) -> None:
        """End the loop, for good, after the current step."""
        self._finish = True

    def __iter__(self) -> Iterator[int]:
        return self._run._steps(self)

    def _diverge(self, reason: str) -> None:
        self.diverged = reason
        for claim in self._run.claims_of(self._depends):
            self._run.not_measured(claim, reason)


class Run:
    """One run of one system, in one folder.

    Made by `create` or `reopen`; `execute` calls the experiment with it.

    Attributes:
        folder: Where everything is written.
        seed: The first seed; with k seeds they are seed … seed + k - 1.
        tier: "quick" or "full" by the flags, "tiny" for the smallest configuration.
        writes: Whether this process is the one, of several, that writes.
        options: The flags that every system has.
    """

    def __init__(
        self,
        path: Path,
        card: Card,
        config: Any,
        options: Options,
        tier: str,
        record: dict[str, Any],
        team: Team | None = None,
    ) -> None:
        self.folder = path
        self.card = card
        self.config = config
        self.options = options
        self.tier = tier
        self.seed = options.seed
        self.progress: Progress = lambda label, done, total: None
        self._record = record
        self.writes = team is None or team.rank == 0
        self._team = team
        self._lock = folder.lock(path) if self.writes else None
        self._workers = compute.Workers()
        self._began = time.monotonic()
        self._seconds_before = float(record.get("seconds") or 0.0)
        self._metrics = MetricsWriter(path / "metrics.jsonl")
        self._streams: dict[str, Any] = {}
        self._saved_streams: dict[str, Any] = {}
        self._names: set[str] = set()
        self._active: Loop | None = None
        self._scope: str | None = None
        self._stop: str | None = None
        self._blocked: dict[str, str] = {}
        self._torch_before: torch.Tensor | None = None
        self._user_data = getattr(config, "data", None)
        self._data_sha256 = folder.sha256_of(self._user_data)
        self._owner = {
            "system": card.name,
            "config": folder.config_hash(config, self._data_sha256),
            "seed": str(self.seed),
        }
        self._claims = {
            claim.id: claims.entry(claim, tier)
            for claim in claims.listed(card, tier, self._data_sha256)
        }
        self._no_bar = self._why_no_bar()

    # -- streams ---------------------------------------------------------------------------

    def rng(self, name: str) -> np.random.Generator:
        """The numpy stream of that name; asking for another moves no other."""
        return self._stream(f"numpy:{name}", name, lambda seed: np.random.default_rng(seed))

    def generator(self, name: str) -> torch.Generator:
        """The torch stream of that name, on the CPU; asking for another moves no other."""
        import torch

        return self._stream(
            f"torch:{name}",
            name,
            lambda seed: torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0])),
        )

    def _stream(self, key: str, name: str, make: Callable[[np.random.SeedSequence], T]) -> T:
        self._seed_torch()
        if key not in self._streams:
            seed = np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(name.encode()),))
            self._streams[key] = make(seed)
            if key in self._saved_streams:
                checkpoint.restore(self._streams[key], self._saved_streams[key])
        return self._streams[key]

    def _seed_torch(self) -> None:
        """Seed torch's default generator once torch is there: dropout draws from it."""
        torch = sys.modules.get("torch")
        if torch is not None and self._torch_before is None:
            self._torch_before = torch.get_rng_state()
            torch.manual_seed(self.seed)

    @property
    def device(self) -> torch.device:
        """The device that ``--device`` names."""
        import torch

        self._seed_torch()
        wanted = self.options.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted == "cuda" and not torch.cuda.is_available():
            raise BadInputError("device 'cuda' was asked for, and torch finds none; use 'cpu'")
        return torch.device(wanted)

    def distribute(
        self, net: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """The same for one process; with ``--devices`` gradients are averaged over all.

        Hand each process its part of the global batch by `part`.
        """
        return (net, optimizer) if self._team is None else self._team.set_up(net, optimizer)

    def part(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's part of a global batch along the first axis; for one, the batch."""
        return batch if self._team is None else self._team.part(batch)

    def mean(self, loss: torch.Tensor) -> float:
        """A loss as a number: for several processes the mean of what each has on its part."""
        return loss.item() if self._team is None else self._team.mean(loss)

    @property
    def together(self) -> bool:
        """Whether several processes train one model (``--devices``, or torchrun)."""
        return self._team is not None

    # -- computing -------------------------------------------------------------------------

    def loop(
        self,
        name: str,
        steps: int,
        *,
        state: Mapping[str, Any],
        every: int | None = None,
        claims: tuple[str, ...] | None = None,
    ) -> Loop:
        """Steps that survive a kill: ``for step in run.loop("fit", 500, state={...})``.

        Restores the state in place and yields the steps that are still to do. A finished loop
        restores its last state and yields nothing.

        Args:
            name: Unique in the run: lower-case letters, digits, hyphens.
            steps: How many.
            state: Everything that the body changes: objects with ``state_dict``, tensors,
                arrays, generators, and dictionaries and lists of these.
            every: Steps between two checkpoints; by default a tenth of the loop.
            claims: The claims that depend on the loop, should `check_finite` end it; by
                default all.
        """
        self._claim_name(name)
        self._seed_torch()
        if steps < 0:
            raise ValueError(f"loop {name!r}: steps must be 0 or more, got {steps}")
        if every is not None and every < 1:
            raise ValueError(f"loop {name!r}: every must be 1 or more, got {every}")
        for key, value in state.items():
            if not checkpoint.is_live(value):
                raise TypeError(checkpoint.not_live(f"loop {name!r}: state[{key!r}]", value))
        for claim in claims or ():
            self.card.claim(claim)
        return Loop(self, name, steps, state, every or max(1, steps // _DEFAULT_SAVES), claims)

    def _steps(self, loop: Loop) -> Iterator[int]:
        if self._active is not None:
            raise RuntimeError(f"loop {loop.name!r} began inside loop {self._active.name!r}")
        start, done = self._restore_loop(loop)
        if done:
            return
        self._active, self._scope = loop, loop.name
        try:
            for step in range(start, loop.steps):
                self.progress(loop.name, step, loop.steps)
                yield step
                if loop.diverged:
                    break
                self._note_time()
                finished = step + 1 == loop.steps or loop._finish
                if finished or self._stop or (step + 1) % loop._every == 0:
                    self._save_loop(loop, step + 1, done=finished)
                if finished:
                    break
                self._check_stop()
            else:
                self._save_loop(loop, loop.steps, done=True)  # a loop of no steps
        finally:
            self._active, self._scope = None, None
            if loop.diverged:  # here, since the body may have left by break
                self._restore_loop(loop)
        self.progress(loop.name, loop.steps, loop.steps)
        self._check_stop()

    def _restore_loop(self, loop: Loop) -> tuple[int, bool]:
        found = self._load(loop.name)
        if found is None:
            if loop.steps:  # so that a loop that diverges at once has a state to go back to
                self._save_loop(loop, 0, done=False)
            return 0, False
        for key, value in loop._state.items():
            checkpoint.restore(value, found.tree["state"][key], f"state[{key!r}]")
        if not loop.diverged:
            self._record["sessions"][-1]["resumed"][loop.name] = found.step
        return found.step, found.done

    def _save_loop(self, loop: Loop, step: int, *, done: bool) -> None:
        state = {key: checkpoint.capture(value) for key, value in loop._state.items()}
        self._save(loop.name, step, {"state": state}, done=done)

    def once(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        """``fn(*args)``, computed once: on resume the stored result is returned.

        The result is a tree of dictionaries, lists, tuples, numbers, strings, None, tensors
        and arrays. Streams that ``fn`` draws from are brought to where it left them.
        """
        self._claim_name(name)
        self._seed_torch()
        found = self._load(name)
        if found is not None:
            self._record["sessions"][-1]["resumed"][name] = 0
            return found.tree["result"]
        self.progress(name, 0, 1)
        before, self._scope = self._scope, name
        try:
            result = self._on_rank_0(lambda: fn(*args))
        finally:
            self._scope = before
        self._save(name, 0, {"result": result}, done=True)
        self.progress(name, 1, 1)
        self._note_time()
        self._check_stop()
        return result

    def map(self, fn: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
        """``[fn(item) for item in items]`` on the backend that ``--backend`` names.

        ``fn`` stands at the top of a module; whatever it draws comes from a seed inside its
        item. All backends and numbers of workers give the same bits. The workers of one map
        stay for the next.
        """
        label = self._scope or getattr(fn, "__name__", "map").strip("_")
        return compute.map_items(
            fn,
            items,
            backend=self.options.backend,
            progress=lambda done, total: self.progress(label, done, total),
            kept=self._workers,
        )

    def each(self, name: str, fn: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """Whole trainings: spread over tasks, or each by all processes of ``--devices``.

        As ``once(name, map, fn, items)``. Where several processes train one model together, they
        take one item after the other, and ``fn`` shares its batches by `distribute` and `part`;
        finished items are kept.
        """
        if not self.together:
            return self.once(name, self.map, fn, items)
        done: list[T] = []
        for index in self.loop(name, len(items), state={"done": done}, every=1):
            done += [fn(items[index])]
        return done

    def _on_rank_0(self, fn: Callable[[], T]) -> T:
        """Compute in the process that writes, and hand the result to all."""
        if self._team is None:
            return fn()
        return self._team.share(fn() if self.writes else None)

    def _load(self, name: str) -> checkpoint.Checkpoint | None:
        found = checkpoint.latest(
            self.folder / "checkpoints" / name, owner={**self._owner, "loop": name}
        )
        if self._team is not None:
            self._team.wait()  # nobody saves before everybody has looked
        for skipped in found.skipped if found else ():
            self.say(f"warning: {name}: skipped the checkpoint {skipped}")
        if found is None or found.tree is None:
            return None
        self._saved_streams = found.tree["streams"]
        for key, saved in self._saved_streams.items():
            if key in self._streams:
                checkpoint.restore(self._streams[key], saved)
        torch = sys.modules.get("torch")
        if torch is not None and found.tree["torch"] is not None:
            torch.set_rng_state(found.tree["torch"])
        return found

    def _save(self, name: str, step: int, tree: dict[str, Any], *, done: bool) -> None:
        if not self.writes:
            return
        torch = sys.modules.get("torch")
        streams = {
            **self._saved_streams,
            **{key: checkpoint.capture(stream) for key, stream in self._streams.items()},
        }
        tree = {**tree, "streams": streams, "torch": torch.get_rng_state() if torch else None}
        checkpoint.save(
            self.folder / "checkpoints" / name,
            step,
            tree,
            owner={**self._owner, "loop": name},
            done=done,
        )

    def _claim_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a name in a run is lower-case letters, digits and hyphens, got {name!r}"
            )
        if name in self._names:
            raise ValueError(f"the name {name!r} is used twice in one run")
        self._names.add(name)

    # -- what is measured ------------------------------------------------------------------

    def log(self, step: int, **values: Any) -> None:
        """Add a line to ``metrics.jsonl``; a value that is not finite is written as null."""
        if self.writes:
            self._metrics.write(self._scope, step, time.monotonic() - self._began, values)

    def check_finite(self, step: int, **values: Any) -> bool:
        """Whether all values are finite; if not, the current loop ends after this step.

        Its last checkpoint is kept and restored, and the claims that depend on the loop are
        not measured, with the reason.
        """
        for name, value in values.items():
            number = float(value)
            if not np.isfinite(number):
                reason = f"{name} became {number} at step {step}"
                if self._active is not None:
                    reason += f" of {self._active.name}"
                    self._active._diverge(reason)
                self.say(f"warning: {reason}")
                return False
        return True

    def measure(
        self,
        claim_id: str,
        value: float,
        *,
        baseline: float | None = None,
        control: float | None = None,
        seeds: Sequence[int] = (),
        note: str = "",
    ) -> None:
        """Record our figure for a claim; the bar of the tier judges it.

        A claim that this tier does not list is ignored. Raises KeyError where the card has no
        such claim.
        """
        claim = self.card.claim(claim_id)
        line = self._claims.get(claim_id)
        if line is None or claim_id in self._blocked:
            return
        claims.judge(
            claim,
            self.tier,
            line,
            float(value),
            baseline=None if baseline is None else float(baseline),
            control=None if control is None else float(control),
            seeds=list(seeds) or [self.seed],
            note=note,
            no_bar=None if claim.data_sha256 else self._no_bar,
        )
        self._write_claims("running")

    def not_measured(self, claim_id: str, reason: str) -> None:
        """Say why a claim cannot be measured in this run; a later `measure` is ignored."""
        self.card.claim(claim_id)
        self._blocked[claim_id] = reason
        if claim_id in self._claims:
            self._claims[claim_id].update(measured=None, verdict=claims.NOT_MEASURED, note=reason)
            self._write_claims("running")

    def claims_of(self, depends: tuple[str, ...] | None) -> list[str]:
        """The ids that a loop named as depending on it, or all."""
        return list(depends) if depends is not None else [c.id for c in self.card.claims]

    def _why_no_bar(self) -> str | None:
        if self._user_data is not None:
            return "user data"
        return "no bar at this budget" if self.tier == "tiny" else None

    # -- what is shown ---------------------------------------------------------------------

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], caption: str = "") -> None:
        """Write ``tables/<name>.csv``; the columns are the keys of the first row."""
        text = io.StringIO()
        columns = list(rows[0]) if rows else []
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writerow({column: folder.cell(column) for column in columns})
        writer.writerows({key: folder.cell(value) for key, value in row.items()} for row in rows)
        write = partial(checkpoint.write_bytes, content=text.getvalue().encode())
        self._content("table", name, f"tables/{name}.csv", write, caption)

    def figure(self, name: str, figure: Figure, caption: str = "") -> None:
        """Write a matplotlib figure as ``figures/<name>.svg``."""
        from mmxx.lab.report.figures import save_svg

        write = partial(save_svg, figure)
        self._content("figure", name, f"figures/{name}.svg", write, caption)

    def image(self, name: str, pixels: Any, caption: str = "") -> None:
        """Write pixels as ``figures/<name>.png``: [H, W] or [H, W, 3], uint8 or in [0, 1]."""
        from mmxx.lab.report.figures import save_png

        self._content("image", name, f"figures/{name}.png", partial(save_png, pixels), caption)

    def artifact(self, name: str, content: bytes | str, caption: str = "") -> None:
        """Write a file that a person can take away: ``artifacts/<name>``."""
        if not _FILE.fullmatch(name):
            raise ValueError(f"an artifact's name is letters, digits, '.', '_', '-', got {name!r}")
        data = content.encode() if isinstance(content, str) else content
        write = partial(checkpoint.write_bytes, content=data)
        self._content("artifact", name, f"artifacts/{name}", write, caption)

    def _content(
        self, kind: str, name: str, file: str, write: Callable[[Path], None], caption: str
    ) -> None:
        if kind != "artifact" and not _NAME.fullmatch(name):
            raise ValueError(f"the name of a {kind} is lower-case and hyphens, got {name!r}")
        if not self.writes:
            return
        path = self.folder / file
        folder.make(path.parent)
        write(path)
        entry = {"kind": kind, "name": name, "file": file, "caption": caption}
        contents = [e for e in self._record["contents"] if e["file"] != file]
        self._record["contents"] = [*contents, entry]

    def source(self, source: Any) -> None:
        """Record where data come from: an object with name, licence, origin and sha256."""
        entry = {key: getattr(source, key) for key in ("name", "licence", "origin", "sha256")}
        if entry not in self._record["data"]:
            self._record["data"].append(entry)

    def note(self, sentence: str) -> None:
        """A remark for the reader of the report."""
        if sentence not in self._record["notes"]:
            self._record["notes"].append(sentence)

    def say(self, line: str) -> None:
        """Add a line to ``log.txt``, and to the console where it is a warning."""
        if not self.writes:
            return
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        path = self.folder / "log.txt"
        try:
            with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{stamp} {line}\n")
        except OSError as error:
            raise checkpoint.cannot_write(path, error) from error
        if line.startswith("warning:"):
            print(f"mmxx: {line}", file=sys.stderr)

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """The lines of ``claims.json``."""
        return list(self._claims.values())

    # -- stopping --------------------------------------------------------------------------

    def _note_time(self) -> None:
        """Stop when the time is up; all processes at the same step."""
        limit = self.options.time_limit
        if limit is not None and time.monotonic() - self._began > limit:
            self._stop = self._stop or f"the time limit of {limit:g} s was reached"
        if self._team is not None:
            self._stop = self._team.share(self._stop)

    def _check_stop(self) -> None:
        if self._stop:
            raise Interrupted(self._stop)

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        again = self._stop is not None
        self._stop = self._stop or f"stopped by {signal.Signals(number).name}"
        if self._active is None or again or number == signal.SIGALRM:
            raise Interrupted(self._stop)
        if hasattr(signal, "setitimer"):  # the step may take long: let it end, then cut it off
            signal.setitimer(signal.ITIMER_REAL, _GRACE)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGALRM"):
            numbers.append(signal.SIGALRM)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- files -----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._seed_torch()
        session = {
            "started": folder.now(),
            "ended": None,
            "status": "running",
            "resumed": {},
            "threads": compute.cores(),
        }
        earlier = self._record.get("sessions", [])
        threads = earlier[-1].get("threads") if earlier else session["threads"]
        if threads != session["threads"]:
            self.say(
                f"warning: resumed with {session['threads']} threads after {threads}: "
                "equal bits are promised for an equal number only"
            )
        versions = folder.versions()
        for name, now in versions.items():
            if self._record.get("versions", versions).get(name) != now:
                self.say(f"warning: resumed with {name} {now}, begun with another version")
        self._record.update(
            versions=versions,
            host=folder.host(),
            status="running",
            reason=None,
            ended=None,
            sessions=[*earlier, session],
            data=[],
            notes=[],
            contents=[],
        )
        if self.writes:
            checkpoint.sweep(self.folder)
            self._drop_unsaved_metrics()
        self._write_record()
        self._write_claims("running")

    def _drop_unsaved_metrics(self) -> None:
        """Keep only the metrics that no step will write again."""
        saved: dict[str, float] = {}
        loops = self.folder / "checkpoints"
        for loop in sorted(loops.iterdir()) if loops.is_dir() else []:
            found = checkpoint.latest(loop, owner={**self._owner, "loop": loop.name})
            if found is not None and found.tree is not None:
                saved[loop.name] = float("inf") if found.done else found.step
        keep_lines(
            self.folder / "metrics.jsonl",
            lambda line: line["step"] < saved.get(line.get("loop") or "", -1),
        )

    def _end(self, status: str, reason: str | None) -> None:
        self._metrics.close()
        session = self._record["sessions"][-1]
        session.update(ended=folder.now(), status=status)
        self._record.update(
            status=status,
            reason=reason,
            ended=session["ended"],
            seconds=round(self._seconds_before + time.monotonic() - self._began, 3),
        )
        self._write_claims(status)
        self._write_record()

    def _write_record(self) -> None:
        if self.writes:
            folder.write_json(self.folder / "run.json", self._record)

    def _write_claims(self, status: str) -> None:
        if not self.writes:
            return
        content = {
            "schema": claims.SCHEMA,
            "system": self.card.name,
            "tier": self.tier,
            "seed": self.seed,
            "status": status,
            "claims": self.verdicts,
        }
        folder.write_json(self.folder / "claims.json", content)

    def close(self) -> None:
        """Let go of the folder, and of the other processes."""
        self._workers.close()
        self._metrics.close()
        if self._team is not None:
            self._team.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._torch_before is not None:
            sys.modules["torch"].set_rng_state(self._torch_before)
            self._torch_before = None


def create(
    path: Path | None,
    card: Card,
    config: Any,
    options: Options,
    tier: str,
    *,
    argv: Sequence[str] = (),
) -> Run:
    """A new run in a new or empty folder (by default below ``./runs``).

    With several devices it starts the other processes, or joins those of torchrun.

    Raises:
        BadInputError: The folder holds something already, or is in use; a setting is not finite.
        CannotWriteError: It cannot be made or written.
    """
    settings = folder.config_json(config)
    place, team = _meet(card, options, lambda: folder.new(path, card.name))
    record = {
        "schema": folder.SCHEMA,
        "system": card.name,
        "tier": tier,
        "seed": options.seed,
        "status": "running",
        "reason": None,
        "card": folder.card_json(card),
        "config": settings,
        "argv": list(argv),
        "device": options.device,
        "devices": options.devices,
        "backend": options.backend,
        "started": folder.now(),
        "ended": None,
        "seconds": 0.0,
    }
    return Run(place, card, config, options, tier, record, team)


def _meet(card: Card, options: Options, place: Callable[[], Path]) -> tuple[Path, Team | None]:
    """The folder of a run, and the processes that work on it, should there be several."""
    if not devices.wanted(options.devices):
        return place(), None
    path = place() if devices.is_first() else None  # refused before the others are started
    team = devices.Team(card, options.devices, options.device)
    return Path(team.share(str(path))), team


def reopen(path: Path, card: Card, config_type: type, *, time_limit: float | None = None) -> Run:
    """A run that was interrupted, as it was begun.

    Raises:
        BadInputError: The folder holds no run of the system, or one that is in use.
    """
    record = folder.read_record(path)
    if record["system"] != card.name:
        raise BadInputError(f"{path} belongs to {record['system']}, not to {card.name}")
    options = Options(
        seed=record["seed"],
        device=record["device"],
        devices=record["devices"],
        backend=record["backend"],
        time_limit=time_limit,
    )
    config = folder.config_from_json(config_type, record["config"])
    place, team = _meet(card, options, lambda: path)
    return Run(place, card, config, options, record["tier"], record, team)


def execute(run: Run, experiment: Callable[[Any, Run], None]) -> None:
    """Call the experiment and write the report.

    Raises:
        MmxxError: The run was interrupted or could not be written; its record says so.
        Exception: Whatever the experiment raised; the record says "failed".
    """
    failure: Exception | None = None
    status, reason = "done", None
    try:
        with run._signals(), _logged_warnings(run):
            try:
                run._begin()
                experiment(run.config, run)
            except Exception as error:
                failure = _foreseen(error)
                status = "interrupted" if isinstance(failure, Interrupted) else "failed"
                reason = str(failure) if isinstance(failure, MmxxError) else _in_words(failure)
        if failure is not None and not isinstance(failure, MmxxError):
            run.say("".join(traceback.format_exception(failure)))
        run._end(status, reason)
        if run.writes:
            _render(run.folder)
    except (CannotWriteError, OSError):
        if failure is None:
            raise
    finally:
        run.close()
    if failure is not None:
        raise failure


def _render(path: Path) -> None:
    from mmxx.lab.report.render import render_run

    try:
        render_run(path)
    except OSError as error:
        raise checkpoint.cannot_write(path / "report.html", error) from error


def _foreseen(error: Exception) -> Exception:
    """The user's error where some library met a disk that is full or read-only."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return checkpoint.cannot_write(Path(error.filename or "a temporary file"), error)
    return error


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _logged_warnings(run: Run) -> Iterator[None]:
    """Copy the warnings of a run into its log."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        run.say(f"{category.__name__}: {message}")
        shown(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
