"""From a measured figure to a verdict."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmxx_toy.card import CARD

from mmxx.lab import claims
from mmxx.lab.catalog import Card, Claim, at_least, between


def judged(claim: Claim, measured: float, tier: str = "quick", **changes: Any) -> dict[str, Any]:
    line = claims.entry(claim, tier)
    usual: dict[str, Any] = {"baseline": None, "control": None, "seeds": [0], "note": ""}
    claims.judge(claim, tier, line, measured, **{**usual, "no_bar": None, **changes})
    return line


BEATS = CARD.claim("beats-mean")  # at least 2


def test_a_line_before_anything_is_measured_says_so() -> None:
    line = claims.entry(BEATS, "quick")
    assert line == {
        "id": "beats-mean",
        "text": "A line is better than a constant.",
        "where": "Table 1",
        "paper": None,
        "unit": "× the constant's error",
        "bar": {"op": ">=", "value": 2.0},
        "sham": True,
        "measured": None,
        "baseline": None,
        "control": None,
        "seeds": [],
        "verdict": "not measured",
        "note": "the run did not get that far",
    }


def test_a_bar_of_two_ends_is_a_list_in_json() -> None:
    claim = Claim("near", "It is near.", "Table 2", None, {"quick": between(-1, 1)})
    assert json.loads(json.dumps(claims.entry(claim, "quick")))["bar"] == {
        "op": "in",
        "value": [-1, 1],
    }
    assert claims.entry(claim, "full")["bar"] is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_figure_holds_exactly_where_it_reaches_the_bar(measured: float) -> None:
    line = judged(BEATS, measured, baseline=1.0, control=0.5, seeds=[3, 4], note="a remark")
    assert line["verdict"] == ("holds" if measured >= 2 else "falls short")
    assert line["measured"] == measured
    assert (line["baseline"], line["control"], line["seeds"]) == (1.0, 0.5, [3, 4])
    assert line["note"] == "a remark"


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_not_measured(measured: float) -> None:
    line = judged(BEATS, measured, note="a remark")
    assert line["verdict"] == "not measured"
    assert line["measured"] is None
    assert line["note"] == f"the measured figure is {measured}; a remark"


def test_user_data_keep_the_figure_and_lose_the_verdict() -> None:
    line = judged(BEATS, 5.0, no_bar="user data")
    assert (line["measured"], line["verdict"], line["note"]) == (5.0, "not measured", "user data")


def test_a_tier_without_a_bar_judges_nothing() -> None:
    line = judged(CARD.claim("full-only"), 5.0, "quick")
    assert (line["measured"], line["verdict"]) == (5.0, "not measured")
    assert line["note"] == "no bar at this budget"
    assert judged(CARD.claim("full-only"), 5.0, "full")["verdict"] == "holds"


def test_baselines_that_are_not_finite_are_null_so_that_json_can_hold_them() -> None:
    line = judged(BEATS, 5.0, baseline=math.nan, control=math.inf)
    assert (line["baseline"], line["control"]) == (None, None)
    assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_a_tier_lists_the_claims_with_a_bar_in_it() -> None:
    def ids(tier: str) -> list[str]:
        return [claim.id for claim in claims.listed(CARD, tier, None)]

    assert ids("quick") == ["finds-slope", "beats-mean"]
    assert ids("full") == ["finds-slope", "full-only", "beats-mean"]
    assert ids("tiny") == ["finds-slope", "full-only", "beats-mean"]


def test_a_claim_that_is_bound_to_a_file_is_listed_with_that_file_only() -> None:
    bound = Claim("on-file", "x", "y", None, {"quick": at_least(0)}, data_sha256="ab" * 32)
    card = Card(**{**{name: getattr(CARD, name) for name in CARD.__slots__}, "claims": (bound,)})
    assert claims.listed(card, "quick", None) == []
    assert claims.listed(card, "quick", "cd" * 32) == []
    assert claims.listed(card, "quick", "ab" * 32) == [bound]


@given(st.lists(st.sampled_from([claims.HOLDS, claims.FALLS_SHORT, claims.NOT_MEASURED])))
def test_counts_add_up(verdicts: list[str]) -> None:
    found = claims.counts([{"verdict": verdict} for verdict in verdicts])
    assert sum(found.values()) == len(verdicts)
    assert all(found[verdict] == verdicts.count(verdict) for verdict in found)
    assert list(found) == ["holds", "falls short", "not measured"]
