"""What the box of a claim shows: the figures in words, and who stands where on its line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from mmxx.lab.claims import FALLS_SHORT, HOLDS, NOT_MEASURED
from mmxx.lab.report.loose import at, dicts, number, pairs, plural, real, text, texts

_KINDS = {HOLDS: "holds", FALLS_SHORT: "falls", NOT_MEASURED: "none"}
_WORDS = {"holds": ("holds", "hold"), "falls": ("falls short", "fall short")}
# In a unit, these words say that the figure is a margin or a ratio: then the baseline and the
# control are raw values on another scale and cannot stand on the same line.
_RELATIVE = re.compile(
    r"×|\b(over|above|below|under|than|of|per|ratio|times|relative|against|versus|vs|margin)\b"
)
_MARGIN = re.compile(r"\b(over|above|below|under|more than|less than|fewer than)\b")
_SHORT_UNIT = 9


def claims(
    run: dict[str, Any], judged: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The boxes of the claims that were judged, and the card's claims that were not.

    Args:
        run: What ``run.json`` holds.
        judged: What ``claims.json`` holds; where it is missing, the card's claims with a bar in
            the run's tier stand as not measured.
    """
    tier = text(judged, "tier") or text(run, "tier")
    written = {text(claim, "id"): claim for claim in dicts(run, "card", "claims")}
    lines = dicts(judged, "claims")
    known = {text(line, "id") for line in lines}
    elsewhere = []
    for name, claim in written.items():
        if name in known:
            continue
        if not judged and at(claim, "bars", tier) is not None:
            lines.append(claim | {"bar": at(claim, "bars", tier), "note": "no verdict was written"})
            continue
        unit = text(claim, "unit")
        bars = [f"{key} tier: {_bar(bar)[0]} {unit}".strip() for key, bar in pairs(claim, "bars")]
        if at(claim, "data_sha256"):
            bars.append("judged only with the public file that it is bound to")
        elsewhere.append(
            {key: text(claim, key) for key in ("text", "where", "scaled")} | {"bars": bars}
        )
    return [_box(line, written.get(text(line, "id"), {}), tier) for line in lines], elsewhere


def _box(line: dict[str, Any], written: dict[str, Any], tier: str) -> dict[str, Any]:
    verdict = text(line, "verdict") or NOT_MEASURED
    unit, ours = text(line, "unit"), real(at(line, "measured"))
    relative = bool(_RELATIVE.search(unit))
    wanted, low, high = _bar(at(line, "bar"))
    suffix = f"\u00a0{unit}" if unit and len(unit) <= _SHORT_UNIT and not relative else ""
    strip = _strip(line, ours, low, high, unit, relative)
    cells = {}
    for name, missing in (("baseline", "none"), ("control", "none"), ("paper", "no figure")):
        value = real(at(line, name))
        cells[name] = {
            "name": name.capitalize(),
            "value": None if value is None else number(value) + suffix,
            "missing": missing,
            "drawn": strip is not None and name in strip["marks"],
        }
    return {
        "text": text(line, "text"),
        "where": text(line, "where"),
        "verdict": verdict,
        "tier": f" at {tier} scale" if tier else "",
        "kind": _KINDS.get(verdict, "none"),
        "ours": None if ours is None else _apart(ours, (low, high)) + suffix,
        "unit": "" if suffix else unit,
        "bar": f"{wanted}{suffix}" if wanted else "",
        "cells": cells,
        "strip": strip,
        "seeds": texts(line, "seeds") if ours is not None else [],
        "note": text(line, "note"),
        "scaled": text(written, "scaled"),
    }


def _bar(bar: Any) -> tuple[str, float | None, float | None]:
    """A bar in words, and the ends of the interval in which it is reached."""
    op, value = at(bar, "op"), at(bar, "value")
    if op == "in" and isinstance(value, list) and len(value) == 2:
        low, high = real(value[0]), real(value[1])
        if low is not None and high is not None:
            return f"{number(low)} to {number(high)}", low, high
    edge = real(value)
    if edge is not None and op == ">=":
        return f"≥ {number(edge)}", edge, None
    if edge is not None and op == "<=":
        return f"≤ {number(edge)}", None, edge
    return "", None, None


def _apart(value: float, bars: Iterable[float | None]) -> str:
    """A measured figure with as many digits as it takes not to look equal to its bar."""
    edges = [bar for bar in bars if bar is not None and bar != value]
    for digits in range(4, 16):
        shown = number(value, digits)
        if all(shown != number(edge, digits) for edge in edges):
            return shown
    return repr(value)


def _strip(
    line: dict[str, Any],
    ours: float | None,
    low: float | None,
    high: float | None,
    unit: str,
    relative: bool,
) -> dict[str, Any] | None:
    """Places in percent on the line of a claim: the zone that reaches the bar, and the marks.

    A mark that lies so far off that the rest would shrink to a point is left to the figures.
    """
    bars = [bar for bar in (low, high) if bar is not None]
    if ours is None or not bars:
        return None
    marks = {"paper": real(at(line, "paper"))}
    if not relative:
        marks |= {name: real(at(line, name)) for name in ("baseline", "control")}
    elif unit.startswith("×"):
        marks["even"] = 1.0
    elif _MARGIN.search(unit):
        marks["even"] = 0.0
    core = [ours, *bars]
    reach = 3 * max(max(core) - min(core), max(abs(value) for value in core) / 2)
    near = {
        name: value
        for name, value in marks.items()
        if value is not None and min(core) - reach <= value <= max(core) + reach
    }
    least, most = min([*core, *near.values()]), max([*core, *near.values()])
    margin = 0.1 * (most - least) or abs(ours) / 2 or 1.0
    if not 1e-300 < most - least + 2 * margin < 1e300:
        return None
    step = 10 ** math.floor(math.log10(most - least + 2 * margin) - 0.3)
    left = math.floor((least - margin) / step) * step
    right = math.ceil((most + margin) / step) * step
    if least >= 0 > left:  # nothing below zero is there to be shown
        left = 0.0

    def place(value: float) -> float:
        return round(100 * (value - left) / (right - left), 2)

    start, end = (left if low is None else low), (right if high is None else high)
    digits = max(3, 1 + math.floor(math.log10(max(abs(left), abs(right)) / step)))
    return {
        "start": place(start),
        "length": round(place(end) - place(start), 2),
        "bars": [place(bar) for bar in bars],
        "marks": {name: place(value) for name, value in near.items()},
        "ours": place(ours),
        "ends": (number(left, digits), number(right, digits)),
    }


def headline(kinds: list[str], tier: str) -> tuple[str, str]:
    """The sentence at the top of a page, and the tone in which it is set."""
    total, held = len(kinds), kinds.count("holds")
    scale = f" at {tier} scale" if tier else ""
    if not total:
        return "No claim is judged here", "none"
    if kinds.count("none") == total:
        return f"None of {plural(total, 'claim')} was measured{scale}", "none"
    tone = "mixed" if held < total else "holds"
    if not held:
        tone = "falls" if "none" not in kinds else "mixed"
    if total == 1:
        return f"The claim {'holds' if held else 'falls short'}{scale}", tone
    if held == total:
        return f"{'Both' if total == 2 else f'All {total}'} claims hold{scale}", tone
    words = f"{held or 'None'} of {total} claims {'hold' if held > 1 else 'holds'}"
    return f"{words}{scale}", tone


def counts(kinds: list[str]) -> list[tuple[str, int, str]]:
    """How many claims of each kind, with the word that follows the number."""
    rows = []
    for kind in _KINDS.values():
        one, more = _WORDS.get(kind, (NOT_MEASURED, NOT_MEASURED))
        if count := kinds.count(kind):
            rows.append((kind, count, one if count == 1 else more))
    return rows
