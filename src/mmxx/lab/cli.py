"""The command line: ``mmxx list | show | run | resume | report | review | bench | doctor``.

Nothing heavier than tyro and rich is imported before a run really begins, so that ``mmxx list``
and ``mmxx run NAME --help`` answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import shlex
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mmxx import __version__
from mmxx.lab import catalog, errors, formulas
from mmxx.lab.catalog import Bar, Broken, Card
from mmxx.lab.errors import BadInputError, MissingExtraError, MmxxError

if TYPE_CHECKING:
    from mmxx.lab.run import Progress, Run

_SHOWN_EVERY = 0.2  # seconds between two looks at a run's progress


@dataclass(frozen=True)
class RunOptions:
    """The flags that every system has."""

    full: bool = False
    """Start from the settings of the full tier (at most ten minutes) instead of the quick one."""

    seed: int = 0
    """The first seed; everything random follows from it."""

    out: Path | None = None
    """The run's folder, new or empty. By default ./runs/NAME-<time>-<4 hex>."""

    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where to compute; equal bits are promised on the cpu."""

    devices: int = 1
    """Processes that train one model together."""

    backend: Literal["serial", "process", "ray"] = "process"
    """Where independent tasks run; all give the same bits."""

    time_limit: float | None = None
    """Stop after that many seconds, resumable, with exit code 75."""

    strict: bool = False
    """Exit with 1 where a claim falls short."""

    config: Path | None = None
    """A JSON file with settings; a run's own run.json repeats that run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (see `mmxx.lab.errors`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _set_caches()
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr does: "≤" is no letter everywhere
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if arguments[:1] == ["run"] and len(arguments) > 1 and not arguments[1].startswith("-"):
            return _run(arguments[1], arguments[2:])
        parsed = _parser().parse_args(arguments)
        code = parsed.command(parsed)
        sys.stdout.flush()  # here, where a reader who has left is no error
        return code
    except MmxxError as error:
        print(f"mmxx: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - closed at exit, which is next
        return errors.DONE
    except KeyboardInterrupt:
        return errors.Interrupted.exit_code
    except Exception:  # what nobody foresaw; left alone it would end as a claim that fell short
        traceback.print_exc()
        return errors.INTERNAL


def _set_caches() -> None:
    """Let numba and matplotlib cache in the user's cache folder, wherever mmxx is installed."""
    if "NUMBA_CACHE_DIR" in os.environ and "MPLCONFIGDIR" in os.environ:
        return
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mmxx"
        base.mkdir(parents=True, exist_ok=True)
        if not os.access(base, os.W_OK):
            raise PermissionError(base)
    except (OSError, RuntimeError):  # no home, or a read-only one
        base = _private_folder()
    os.environ.setdefault("NUMBA_CACHE_DIR", str(base / "numba"))
    os.environ.setdefault("MPLCONFIGDIR", str(base / "matplotlib"))


def _private_folder() -> Path:
    """A temporary folder that nobody else can fill: numba runs what it finds in its cache."""
    user = os.getuid() if hasattr(os, "getuid") else None
    path = Path(tempfile.gettempdir()) / f"mmxx-{user}"
    with suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if user is None or (found.st_uid == user and stat.S_IMODE(found.st_mode) == 0o700):
            return path
    return Path(tempfile.mkdtemp(prefix="mmxx-"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmxx",
        description="The landmark machine-learning systems of 2020, maintained and measured.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mmxx {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="all systems, a line each")
    command.add_argument("--json", action="store_true", help="the whole catalog as JSON")
    command.set_defaults(command=_list)

    command = commands.add_parser("show", help="a system's paper, claims, bars and interface")
    command.add_argument("name")
    command.set_defaults(command=_show)

    command = commands.add_parser(
        "run", help="measure a system's claims; 'mmxx run NAME --help' lists its flags"
    )
    command.add_argument("name")
    command.set_defaults(command=lambda parsed: _run(parsed.name, []))

    command = commands.add_parser("resume", help="go on with an interrupted run")
    command.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    command.add_argument("--time-limit", type=float, metavar="SECONDS")
    command.add_argument("--strict", action="store_true", help="exit 1 where a claim falls short")
    command.set_defaults(command=_resume)

    command = commands.add_parser("report", help="make a run's or a review's page again")
    command.add_argument("folder", type=Path, metavar="RUN")
    command.set_defaults(command=_report)

    command = commands.add_parser("review", help="run every system and build one site")
    command.add_argument("--full", action="store_true", help="the full tier: minutes a system")
    command.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these systems")
    command.add_argument("--jobs", type=int, default=1, metavar="N", help="systems at a time")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--strict", action="store_true", help="exit 1 where a claim falls short")
    command.add_argument("--out", type=Path, default=Path("runs/review"), metavar="FOLDER")
    command.set_defaults(command=_review)

    command = commands.add_parser("bench", help="time systems beside their peers (in a checkout)")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.set_defaults(command=_bench)

    command = commands.add_parser("doctor", help="what is installed, and what is broken")
    command.set_defaults(command=_doctor)
    return parser


# -- list and show -----------------------------------------------------------------------------


def _list(parsed: argparse.Namespace) -> int:
    systems = catalog.systems()
    if parsed.json:
        from mmxx.lab.folder import card_json

        content = {
            name: {"broken": entry.reason, "package": entry.package}
            if isinstance(entry, Broken)
            else card_json(entry)
            for name, entry in systems.items()
        }
        print(json.dumps(content, indent=1))
        return errors.DONE
    width = max((len(name) for name in systems), default=0)
    for name, entry in systems.items():
        if isinstance(entry, Broken):
            print(f"{name:{width}}  broken: {entry.reason} (from {entry.package})")
        else:
            print(f"{name:{width}}  {entry.title} ({entry.paper.venue} {entry.paper.year})")
    return errors.DONE


def _show(parsed: argparse.Namespace) -> int:
    card = catalog.find(parsed.name)
    paper = card.paper
    lines = [
        card.title,
        f"{paper.title}. {', '.join(paper.authors)}. {paper.venue} {paper.year}. {paper.url}",
        "",
        card.summary,
        "",
        "Claims",
    ]
    for claim in card.claims:
        bars = ", ".join(f"{tier} {bar}" for tier, bar in claim.bars.items())
        only = " (full only)" if "quick" not in claim.bars else ""
        figure = "no figure" if claim.paper is None else f"{claim.paper:g}"
        lines += [
            f"  {claim.id}{only}: {claim.text}",
            f"    paper: {figure} ({claim.where}); bar: {bars} {claim.unit}".rstrip(),
        ]
        lines += [f"    scaled: {claim.scaled}"] if claim.scaled else []
    lines += ["", "Interface", *(f"  {target.replace(':', '.')}" for target in card.api)]
    if card.departs:
        lines += ["", "What differs from the paper", *(f"  {line}" for line in card.departs)]
    if card.extra:
        lines += ["", f"Needs: pip install '{_distribution(card)}[{card.extra}]'"]
    print(formulas.plain("\n".join(lines)))
    return errors.DONE


def _distribution(card: Card) -> str:
    return card.experiment.partition(".")[0]


# -- run and resume ----------------------------------------------------------------------------


def _run(name: str, arguments: list[str]) -> int:
    card = catalog.find(name)
    module = _module(card)
    config, options = _parse_run(card, module, arguments)
    _require(card)
    from mmxx.lab import run as runs
    from mmxx.lab.folder import Options

    tier = tier_of(module, config, "full" if options.full else "quick")
    shared = Options(
        seed=options.seed,
        device=options.device,
        devices=options.devices,
        backend=options.backend,
        time_limit=options.time_limit,
    )
    _check_data(config)
    run = runs.create(
        options.out, card, config, shared, tier, argv=["mmxx", "run", name, *arguments]
    )
    changed = _changed(module, config, tier)
    return _execute(card, run, strict=options.strict, note=changed)


def _resume(parsed: argparse.Namespace) -> int:
    from mmxx.lab import run as runs
    from mmxx.lab.folder import read_claims, read_record

    record = read_record(parsed.folder)
    card = catalog.find(record["system"])
    if record["status"] == "done":
        page = parsed.folder / "report.html"
        if not page.is_file():  # the disk was full, or the run was stopped while writing it
            from mmxx.lab.report.render import render_run

            render_run(parsed.folder)
        print(f"{parsed.folder} is done; its report is {page}")
        return _exit_code(read_claims(parsed.folder), strict=parsed.strict)
    _require(card)
    module = _module(card)
    run = runs.reopen(parsed.folder, card, module.Config, time_limit=parsed.time_limit)
    return _execute(card, run, strict=parsed.strict, note=_changed(module, run.config, run.tier))


def _execute(card: Card, run: Run, *, strict: bool, note: str | None) -> int:
    from mmxx.lab.run import execute

    experiment = getattr(_module(card), card.experiment.partition(":")[2])

    def noted(config: Any, run: Run) -> None:
        if note:
            run.note(note)
        experiment(config, run)

    with _progress(card.title, quiet=not run.writes) as run.progress:
        try:
            execute(run, noted)
        except ModuleNotFoundError as error:
            raise _missing(card, error) from error
        except MmxxError as error:
            if isinstance(error, errors.Interrupted):
                message = f"{error}; go on with: mmxx resume {shlex.quote(str(run.folder))}"
                raise errors.Interrupted(message) from error
            raise
        except Exception as error:
            data = getattr(run.config, "data", None)
            if isinstance(error, ValueError) and data is not None:
                named = str(error).removeprefix(f"{data}: ")
                raise BadInputError(f"--data {data}: {named}") from error
            where = run.folder / "log.txt"
            raise errors.CrashedError(
                f"{card.name} failed: {type(error).__name__}: {error} (the traceback is in {where})"
            ) from error
    if run.writes:
        _print_claims(run)
        print(f"report: {run.folder / 'report.html'}")
    return _exit_code(run.verdicts, strict=strict)


def _exit_code(lines: Sequence[dict[str, Any]], *, strict: bool) -> int:
    from mmxx.lab import claims

    short = claims.counts(lines)[claims.FALLS_SHORT]
    return errors.FELL_SHORT if strict and short else errors.DONE


def _module(card: Card) -> Any:
    """The module of a system's experiment."""
    try:
        return importlib.import_module(card.experiment.partition(":")[0])
    except ModuleNotFoundError as error:
        raise _missing(card, error) from error


def _parse_run(card: Card, module: Any, arguments: list[str]) -> tuple[Any, RunOptions]:
    """The configuration and the options, with the defaults that --full and --config choose."""
    import tyro

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--full", action="store_true")
    first.add_argument("--config", type=Path)
    chosen, _ = first.parse_known_args(arguments)
    options = RunOptions(full=chosen.full, config=chosen.config)
    config = module.FULL if chosen.full else module.QUICK
    if chosen.config is not None:
        config, options = _from_file(card, module.Config, chosen.config, options)
        if chosen.full:
            raise BadInputError("--full and --config both choose the settings; give one of them")

    flat = (tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes)
    kinds = {"config": module.Config, "options": RunOptions}
    fields = [(name, Annotated[kind, *flat]) for name, kind in kinds.items()]
    flags_type = make_dataclass("Flags", fields, frozen=True)
    try:
        flags = tyro.cli(
            flags_type,
            prog=f"mmxx run {card.name}",
            description=f"{card.title}: measure its claims. {formulas.plain(card.summary)}",
            default=flags_type(config, options),
            args=arguments,
        )
    except SystemExit as stop:
        if stop.code == errors.DONE:  # --help
            raise
        raise SystemExit(BadInputError.exit_code) from stop
    except ValueError as error:  # a check of the configuration itself
        raise BadInputError(str(error)) from error
    return flags.config, flags.options


def _from_file(
    card: Card, config_type: type, path: Path, options: RunOptions
) -> tuple[Any, RunOptions]:
    from mmxx.lab.folder import config_from_json

    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInputError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or "system" not in content:
        return config_from_json(config_type, content), options
    if content["system"] != card.name:
        raise BadInputError(f"--config {path} is of a run of {content['system']}, not {card.name}")
    seed = content.get("seed", 0)
    if not isinstance(seed, int):
        raise BadInputError(f"--config {path}: seed must be a whole number, got {seed!r}")
    options = RunOptions(full=content.get("tier") == "full", seed=seed, config=path)
    return config_from_json(config_type, content.get("config")), options


def tier_of(module: Any, config: Any, asked: str) -> str:
    """ "tiny" for the smallest settings of an experiment, else the tier that was asked for."""
    return "tiny" if config == module.TINY else asked


def _changed(module: Any, config: Any, tier: str) -> str | None:
    """A remark where the settings are not those that the bars were set for."""
    if tier == "tiny":
        return None
    usual = module.FULL if tier == "full" else module.QUICK
    from mmxx.lab.folder import config_json

    now, then = config_json(config), config_json(usual)
    changed = [f"{key} = {now[key]}" for key in now if now[key] != then[key] and key != "data"]
    if not changed:
        return None
    return (
        f"Settings differ from the {tier} tier, for which the bars were set: {', '.join(changed)}."
    )


def _check_data(config: Any) -> None:
    data = getattr(config, "data", None)
    if data is not None and not os.path.exists(data):
        raise BadInputError(f"--data {data}: there is no such file or folder")
    if data is not None and not os.access(data, os.R_OK):
        raise BadInputError(f"--data {data}: it may not be read")


def _require(card: Card) -> None:
    """Import what the card announces, so that a missing extra is told before any work."""
    for target in card.api:
        module, _, attribute = target.partition(":")
        try:
            getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise _missing(card, error) from error


def _missing(card: Card, error: ModuleNotFoundError) -> MmxxError:
    package = _distribution(card)
    if card.extra is None or (error.name or "").partition(".")[0] == package:
        return errors.CrashedError(f"{card.name}: {error}")
    return MissingExtraError(
        f"{card.name} needs {error.name}. Install it with: pip install '{package}[{card.extra}]'"
    )


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator[Progress]:
    """Show how far a run is: a bar on a terminal, a file for the review, else a line a part."""
    if quiet:
        yield lambda label, done, total: None
        return
    target = os.environ.get("MMXX_PROGRESS")
    if target:
        yield _to_file(Path(target))
        return
    if not sys.stderr.isatty():
        yield _to_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(f"{title} · {label}", total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield show


def _to_file(path: Path) -> Progress:
    last = 0.0

    def show(label: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _SHOWN_EVERY or done == total:
            last = now
            temporary = path.with_suffix(".tmp")
            with suppress(OSError):  # a courtesy: what cannot be shown must not end the run
                temporary.write_text(json.dumps([label, done, total]))
                os.replace(temporary, path)

    return show


def _to_lines() -> Progress:
    def show(label: str, done: int, total: int) -> None:
        if done == total:
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)

    return show


def _print_claims(run: Run) -> None:
    for line in run.verdicts:
        verdict = line["verdict"]
        if verdict != "not measured":
            verdict += f" at {run.tier} scale"
        print(f"{line['id']}: {verdict}")
        parts = [
            f"{name} {line[name]:.4g}"
            for name in ("measured", "baseline", "control", "paper")
            if line[name] is not None
        ]
        if line["bar"] is not None:
            value = line["bar"]["value"]
            bar = Bar(line["bar"]["op"], tuple(value) if isinstance(value, list) else value)
            parts.append(f"bar {bar}")
        print(f"  {', '.join(parts)} {line['unit']}".rstrip())
        if line["note"]:
            print(f"  {line['note']}")


# -- the other commands ------------------------------------------------------------------------


def _report(parsed: argparse.Namespace) -> int:
    from mmxx.lab.report.render import render_review, render_run

    if os.path.isfile(parsed.folder / "review.json"):  # which takes a hidden folder for a no
        print(render_review(parsed.folder))
    elif os.path.isfile(parsed.folder / "run.json"):
        print(render_run(parsed.folder))
    else:
        raise BadInputError(f"{parsed.folder} holds neither a run nor a review")
    return errors.DONE


def _review(parsed: argparse.Namespace) -> int:
    from mmxx.lab.review import review

    if parsed.jobs < 1:
        raise BadInputError(f"--jobs must be 1 or more, got {parsed.jobs}")
    cards = [catalog.find(name) for name in parsed.only]
    return review(
        parsed.out,
        only=[card.name for card in cards],
        tier="full" if parsed.full else "quick",
        jobs=parsed.jobs,
        seed=parsed.seed,
        strict=parsed.strict,
    )


def _bench(parsed: argparse.Namespace) -> int:
    import subprocess

    root = Path(__file__).resolve().parents[3] / "benchmarks"
    if not root.is_dir():
        raise BadInputError("mmxx bench needs a checkout of the project: benchmarks/ is not there")
    names = [catalog.find(name).name for name in parsed.names]
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(root.glob("*/bench_*.py"))}
    missing = [name for name in names if name not in scripts]
    if missing:
        raise BadInputError(f"there is no benchmark of {', '.join(missing)} in {root}")
    codes = []
    for name in names or scripts:
        print(f"== {name} ==", flush=True)
        codes.append(subprocess.run([sys.executable, str(scripts[name])], check=False).returncode)
    return errors.INTERNAL if any(codes) else errors.DONE


def _doctor(parsed: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import PackageNotFoundError, requires, version

    print(f"mmxx {__version__}, Python {platform.python_version()}, {platform.platform()}")
    cores = os.cpu_count()
    print(f"cores: {cores}; OMP_NUM_THREADS: {os.environ.get('OMP_NUM_THREADS', 'not set')}")
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        print(f"{name}: {os.environ[name]}")
    for requirement in requires("mmxx") or []:
        specification, _, marker = requirement.partition(";")
        name = specification.strip().split("[")[0].split(">")[0].split("=")[0].strip()
        extra = marker.partition("extra ==")[2].strip(" '\"")
        if name == "mmxx" or extra in ("dev", "docs", "bench", "all"):
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            found = f"not installed: pip install 'mmxx[{extra}]'" if extra else "not installed"
        print(f"  {name}: {found}")
    broken = [entry for entry in catalog.systems().values() if isinstance(entry, Broken)]
    for entry in broken:
        print(f"broken: {entry.name} from {entry.package}: {entry.reason}")
    print(f"systems: {len(catalog.systems()) - len(broken)} sound, {len(broken)} broken")
    return errors.DONE
