"""From a run folder to one page, and from a review's folder to its index.

Both are pure functions of what lies in the folder: no clock, no torch, no card is imported, and
the folder's own name and place are not in the page, so that a copy elsewhere gives the same
bytes. Nothing that was read is trusted: any field may be missing, of another type or hostile,
and a file is shown only if it lies inside the folder.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
from collections.abc import Callable
from functools import cache
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmxx.lab import metrics
from mmxx.lab.checkpoint import write_bytes
from mmxx.lab.errors import BadInputError
from mmxx.lab.report import boxes, inline
from mmxx.lab.report.loose import (
    at,
    dicts,
    duration,
    inside,
    load,
    moment,
    number,
    pairs,
    plural,
    real,
    size,
    text,
    texts,
)

_MAX_INLINE = 6_000_000  # bytes of one picture; a larger one is linked
_MAX_ROWS, _MAX_COLUMNS, _MAX_CURVES, _MAX_POINTS = 200, 60, 24, 240
_NUMERIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_CRASHED = ("crashed", "failed", "broken")


def render_run(folder: Path) -> Path:
    """Write ``report.html`` in a run folder, whole or not at all.

    Args:
        folder: The run folder. Only ``run.json`` must be there; whatever else is missing or
            cannot be read is named in the page.

    Returns:
        The page's path.

    Raises:
        BadInputError: The folder is not a run folder.
        CannotWriteError: The page cannot be written.
    """
    return _write(Path(folder), "run.json", "a run folder", "page.html", "report.html", _run)


def render_review(folder: Path) -> Path:
    """Write ``index.html`` in a review's folder, whole or not at all.

    Args:
        folder: The folder that holds ``review.json`` and, below it, the run folders.

    Returns:
        The page's path.

    Raises:
        BadInputError: The folder holds no review.
        CannotWriteError: The page cannot be written.
    """
    return _write(Path(folder), "review.json", "a review", "index.html", "index.html", _review)


def _write(
    folder: Path,
    key: str,
    what: str,
    template: str,
    page: str,
    view: Callable[[Path], dict[str, Any]],
) -> Path:
    if not (folder / key).is_file():
        raise BadInputError(f"{folder} is not {what}: it has no {key}")
    content = _environment().get_template(template).render(view(folder))
    # A lone surrogate out of a JSON escape has no UTF-8.
    write_bytes(folder / page, content.encode("utf-8", "replace"))
    return folder / page


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mmxx.lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = inline.prose
    return environment


# --- a run ---


def _run(folder: Path) -> dict[str, Any]:
    problems: list[str] = []
    run = load(folder / "run.json", problems)
    judged = load(folder / "claims.json", problems)
    tier, card, host = text(run, "tier"), at(run, "card"), at(run, "host")
    claims, elsewhere = boxes.claims(run, judged)
    kinds = [claim["kind"] for claim in claims] if tier != "tiny" else []
    headline, tone = boxes.headline(kinds, tier)
    curves = _curves(folder / "metrics.jsonl")
    return {
        "system": text(run, "system"),
        "title": text(card, "title") or text(run, "system") or "A run",
        "summary": text(card, "summary"),
        "paper": _paper(at(card, "paper")),
        "tier": tier,
        "status": text(run, "status"),
        "reason": text(run, "reason"),
        "headline": headline,
        "tone": tone,
        "counts": boxes.counts(kinds),
        "claims": claims,
        "elsewhere": elsewhere,
        "notes": texts(run, "notes"),
        "contents": _contents(folder, run, problems),
        "curves": curves[:_MAX_CURVES],
        "more_curves": len(curves[_MAX_CURVES:]),
        "departs": texts(card, "departs"),
        "api": [name.replace(":", ".") for name in texts(card, "api")],
        "scale": texts(card, "scale"),
        "command": _command(texts(run, "argv")),
        "config": _flat(at(run, "config")),
        "data": [
            {key: text(source, key) for key in ("name", "licence", "origin", "sha256")}
            for source in dicts(run, "data")
        ],
        "facts": _filled(
            ("Tier", tier),
            ("Seed", text(run, "seed")),
            ("Status", text(run, "status")),
            ("Took", duration(at(run, "seconds"))),
            ("Started", moment(at(run, "started"))),
            ("Device", text(run, "device")),
            ("Threads", text(host, "threads")),
        ),
        "machine": _filled(
            ("System", text(host, "system")),
            ("Machine", text(host, "machine")),
            ("Processor", text(host, "processor")),
            ("Cores", text(host, "cores")),
            ("Threads", text(host, "threads")),
            ("Device", text(run, "device")),
            ("Processes", text(run, "devices")),
            ("Backend", text(run, "backend")),
        ),
        "versions": _flat(at(run, "versions")),
        "version": text(run, "versions", "mmxx"),
        "sessions": [_session(session) for session in dicts(run, "sessions")],
        "problems": problems,
        "records": [
            name
            for name in ("run.json", "claims.json", "metrics.jsonl", "log.txt")
            if inside(folder, name)
        ],
    }


def _paper(paper: Any) -> dict[str, Any]:
    venue, year, arxiv = text(paper, "venue"), text(paper, "year"), text(paper, "arxiv")
    places = [text(paper, "url")]
    if arxiv and arxiv not in places[0]:
        places.append(f"arXiv:{arxiv}")
    return {
        "title": text(paper, "title"),
        "authors": ", ".join(texts(paper, "authors")),
        "venue": venue if year in venue else f"{venue} {year}".strip(),
        "places": [place for place in places if place],
    }


def _filled(*rows: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in rows if value]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, inner in pairs(value):
        if isinstance(inner, dict) and inner and prefix.count(".") < 4:
            rows += _flat(inner, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "none" if inner is None else text(inner)))
    return rows


def _command(words: list[str]) -> str:
    """The command line, without the program's path and the folder that it was told to use."""
    if words and Path(words[0]).name in ("mmxx", "mmxx.exe", "__main__.py"):
        words = words[1:]
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if "--out" not in (before, word) and not word.startswith("--out=")
    ]
    return shlex.join(["mmxx", *kept]) if kept else ""


def _session(session: dict[str, Any]) -> dict[str, str]:
    resumed = [f"{loop} after step {text(step)}" for loop, step in pairs(session, "resumed")]
    return {
        "started": moment(at(session, "started")),
        "ended": moment(at(session, "ended")) or "–",
        "status": text(session, "status"),
        "resumed": ", ".join(resumed) or "–",
    }


def _contents(folder: Path, run: dict[str, Any], problems: list[str]) -> dict[str, list[Any]]:
    """What the run wrote, in its order, then the files that a kill left unlisted."""
    found: dict[str, list[Any]] = {"picture": [], "table": [], "artifact": []}
    listed, seen = dicts(run, "contents"), set()
    for kind in ("figure", "table", "artifact"):
        for path in sorted((folder / f"{kind}s").glob("[!.]*")):
            listed.append({"kind": kind, "name": path.stem, "file": f"{kind}s/{path.name}"})
    for index, item in enumerate(listed):
        place = inside(folder, text(item, "file"))
        if place is None:
            problems.append(f"{text(item, 'file') or 'a file without a name'} is missing")
            continue
        path, link = place
        if link in seen:
            continue
        seen.add(link)
        entry = {"name": text(item, "name"), "caption": text(item, "caption"), "link": link}
        kind = {".svg": "picture", ".png": "picture", ".csv": "table"}.get(path.suffix, "artifact")
        if kind == "artifact" or text(item, "kind") == "artifact":
            found["artifact"].append(entry | {"file": path.name, "size": size(path.stat().st_size)})
        elif kind == "table":
            found["table"].append(entry | _table(path))
        else:
            label = entry["caption"] or entry["name"]
            found["picture"].append(entry | _picture(path, f"f{index}-", label))
    return found


def _picture(path: Path, prefix: str, label: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"svg": None, "png": None, "why": "damaged: not a picture"}
    if (bytes_ := path.stat().st_size) > _MAX_INLINE:
        return shown | {"why": f"{size(bytes_)}: too large to stand in the page"}
    try:
        content = path.read_bytes()
    except OSError as error:
        return shown | {"why": f"cannot be read: {error.strerror}"}
    if path.suffix == ".svg":
        shown["svg"] = inline.svg(content.decode("utf-8", "replace"), prefix, label)
    else:
        shown["png"] = inline.png(content)
    return shown


def _table(path: Path) -> dict[str, Any]:
    shown: dict[str, Any] = {"head": [], "rows": [], "kinds": [], "more": 0, "why": ""}
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.reader(file)
            head = next(reader, [])[:_MAX_COLUMNS]
            rows = [row[:_MAX_COLUMNS] for row in islice(reader, _MAX_ROWS)]
            more = sum(1 for _ in reader)
    except (OSError, csv.Error) as error:
        return shown | {"why": f"cannot be read: {error}"}
    columns = [_column(cells) for cells in zip_longest(head, *rows, fillvalue="")]
    kinds, cells = [kind for kind, _ in columns], [cells for _, cells in columns]
    head, *rows = list(zip(*cells, strict=True)) or [()]
    return shown | {"head": head, "rows": rows, "kinds": kinds, "more": more}


def _column(column: tuple[str, ...]) -> tuple[str, list[str]]:
    """How a column is set, and its cells: long floats are cut to one number of decimals."""
    head, *cells = column
    filled = [cell for cell in cells if cell not in ("", "nan", "None")]
    if not filled or not all(_NUMERIC.fullmatch(cell) for cell in filled):
        return "short" if all(len(cell) <= 24 for cell in cells) else "long", list(column)
    sizes = [abs(float(cell)) for cell in filled if float(cell) != 0]
    if not sizes or max(sizes) > 1e300 or all(len(cell) <= 8 for cell in filled):
        return "num", list(column)
    decimals = max(0, 3 - math.floor(math.log10(max(sizes))))
    even = 10 ** (1 - decimals) <= min(sizes) and max(sizes) < 1e7

    def shown(cell: str) -> str:
        if cell not in filled:
            return cell
        value = float(cell)
        return f"{value:.{decimals}f}".replace("-", "−") if even else number(value)

    return "num", [head, *map(shown, cells)]


def _curves(path: Path) -> list[dict[str, Any]]:
    """A small line for each number that the run logged."""
    series: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
    for line in metrics.read(path):
        step = real(line["step"])
        for name, value in line.items():
            if name not in ("loop", "step", "t") and step is not None and abs(step) < 1e15:
                series.setdefault((name, text(line, "loop")), []).append((step, real(value)))
    drawn = []
    for (name, loop), points in sorted(series.items()):
        finite = [value for _, value in points if value is not None]
        if len(finite) > 1:
            drawn.append({"name": name, "loop": loop} | _sparkline(points, finite))
    return drawn


def _sparkline(points: list[tuple[float, float | None]], finite: list[float]) -> dict[str, Any]:
    log = min(finite) > 0 and max(finite) > 30 * min(finite)

    def scale(value: float) -> float:
        return math.log10(value) if log else value / 2  # the difference of two halves is finite

    stride = -(-len(points) // _MAX_POINTS)
    kept = points[::stride] + ([points[-1]] if (len(points) - 1) % stride else [])
    low, high = scale(min(finite)), scale(max(finite))
    first, last = min(step for step, _ in kept), max(step for step, _ in kept)
    lines: list[list[str]] = [[]]
    for step, value in kept:
        if value is None:
            lines.append([])
            continue
        x = 200 * ((step - first) / ((last - first) or 1))
        y = 46 - 44 * ((scale(value) - low) / ((high - low) or 1))
        lines[-1].append(f"{x:.1f},{y:.1f}")
    return {
        "lines": [" ".join(line) for line in lines if len(line) > 1],
        "first": number(finite[0], 3),
        "last": number(finite[-1], 3),
        "log": log,
        "steps": number(last),
        "gaps": len(points) - len(finite),
    }


# --- a review ---


def _review(folder: Path) -> dict[str, Any]:
    problems: list[str] = []
    review = load(folder / "review.json", problems)
    tier = text(review, "tier")
    systems = [_system(folder, entry, problems) for entry in dicts(review, "entries")]
    kinds = [claim["kind"] for system in systems for claim in system["claims"]]
    headline, tone = boxes.headline(kinds, tier)
    counts = boxes.counts(kinds)
    unfinished = [system["kind"] for system in systems if system["status"] != "done"]
    for kind, words in (("crash", "crashed or broken"), ("none", "not run to the end")):
        if count := unfinished.count(kind):
            counts.append((kind, count, f"{plural(count, 'system').split()[1]} {words}"))
    return {
        "tier": tier,
        "headline": headline,
        "tone": tone,
        "counts": counts,
        "systems": systems,
        "total": plural(len(systems), "system"),
        "took": duration(at(review, "seconds")),
        "started": moment(at(review, "started")),
        "ended": moment(at(review, "ended")),
        "problems": problems,
    }


def _system(folder: Path, entry: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    status, reason, claims, page = text(entry, "status"), text(entry, "reason"), [], None
    if home := text(entry, "folder"):
        page = inside(folder, f"{home}/report.html")
        if (place := inside(folder, f"{home}/run.json")) is not None:
            own: list[str] = []
            run, judged = load(place[0], own), load(place[0].with_name("claims.json"), own)
            problems += [f"{text(entry, 'system')}: {line}" for line in own]
            claims = boxes.claims(run, judged)[0] if text(run, "tier") != "tiny" else []
            reason = reason or (text(run, "reason") if status != "done" else "")
    return {
        "name": text(entry, "system"),
        "title": text(entry, "title") or text(entry, "system") or "unnamed",
        "status": status or "status unknown",
        "kind": "crash" if status in _CRASHED else "none",
        "reason": reason,
        "seconds": duration(at(entry, "seconds")),
        "link": page[1] if page else None,
        "claims": claims,
    }
