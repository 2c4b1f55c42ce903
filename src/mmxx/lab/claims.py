"""Judging: what was measured, beside the paper's figure and our bar, becomes a verdict.

``claims.json`` of a run is a stable interface that other programs may read; see `entry`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmxx.lab.catalog import Card, Claim

SCHEMA = 1
HOLDS, FALLS_SHORT, NOT_MEASURED = "holds", "falls short", "not measured"
NOT_REACHED = "the run did not get that far"


def entry(claim: Claim, tier: str) -> dict[str, Any]:
    """The line of a claim in ``claims.json`` before anything was measured."""
    bar = claim.bars.get(tier)
    return {
        "id": claim.id,
        "text": claim.text,
        "where": claim.where,
        "paper": claim.paper,
        "unit": claim.unit,
        "bar": None if bar is None else {"op": bar.op, "value": bar.value},
        "sham": claim.sham,
        "measured": None,
        "baseline": None,
        "control": None,
        "seeds": [],
        "verdict": NOT_MEASURED,
        "note": NOT_REACHED,
    }


def listed(card: Card, tier: str, data_sha256: str | None) -> list[Claim]:
    """The claims that a run of this tier judges.

    Those with a bar in the tier (every claim in the "tiny" tier, which judges none); a claim
    that is bound to a public file only where that file was given.
    """
    return [
        claim
        for claim in card.claims
        if (tier == "tiny" or tier in claim.bars)
        and (claim.data_sha256 is None or claim.data_sha256 == data_sha256)
    ]


def judge(
    claim: Claim,
    tier: str,
    line: dict[str, Any],
    measured: float,
    *,
    baseline: float | None,
    control: float | None,
    seeds: Sequence[int],
    note: str,
    no_bar: str | None,
) -> None:
    """Fill in a claim's line.

    Args:
        claim: The claim.
        tier: The tier that ran.
        line: The line from `entry`, changed in place.
        measured: Our figure.
        baseline: The figure of the paper's own baseline.
        control: The figure of the control that should fail.
        seeds: The seeds behind the figure.
        note: A remark for the reader.
        no_bar: Why the bars do not apply to this run, or None where they do.
    """
    line["measured"] = measured if math.isfinite(measured) else None
    line["baseline"] = _finite(baseline)
    line["control"] = _finite(control)
    line["seeds"] = [int(seed) for seed in seeds]
    bar = claim.bars.get(tier)
    if not math.isfinite(measured):
        verdict, reason = NOT_MEASURED, f"the measured figure is {measured}"
    elif no_bar is not None:
        verdict, reason = NOT_MEASURED, no_bar
    elif bar is None:
        verdict, reason = NOT_MEASURED, "no bar at this budget"
    else:
        verdict, reason = (HOLDS if bar.holds(measured) else FALLS_SHORT), ""
    line["verdict"] = verdict
    line["note"] = "; ".join(part for part in (reason, note) if part)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def counts(lines: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many claims hold, fall short and were not measured."""
    return {
        verdict: sum(line["verdict"] == verdict for line in lines)
        for verdict in (HOLDS, FALLS_SHORT, NOT_MEASURED)
    }
