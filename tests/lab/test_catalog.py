"""Cards, claims and bars, and finding the systems that installed packages announce."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmxx_toy.card import CARD
from mmxx_toy.variants import announce

from mmxx.lab import catalog
from mmxx.lab.catalog import Bar, Broken, Card, Claim, at_least, at_most, between
from mmxx.lab.errors import BadInputError

BROKEN = Path(__file__).parents[1] / "plugins" / "broken"
NUMBERS = st.floats(allow_nan=False)


def claim(**changes: Any) -> Claim:
    usual = {"id": "a-claim", "text": "It works.", "where": "Table 1", "paper": None}
    return Claim(**{**usual, "bars": {"quick": at_least(1)}, **changes})


# -- bars --------------------------------------------------------------------------------------


@given(bar=NUMBERS, measured=NUMBERS)
def test_a_bar_judges_as_its_comparison_does(bar: float, measured: float) -> None:
    assert at_least(bar).holds(measured) == (measured >= bar)
    assert at_most(bar).holds(measured) == (measured <= bar)


@given(low=NUMBERS, high=NUMBERS, measured=NUMBERS)
def test_an_interval_holds_its_ends_and_what_lies_between(
    low: float, high: float, measured: float
) -> None:
    low, high = sorted((low, high))
    bar = between(low, high)
    assert bar.holds(low)
    assert bar.holds(high)
    assert bar.holds(measured) == (low <= measured <= high)


@pytest.mark.parametrize("bar", [at_least(-math.inf), at_most(math.inf), between(0, 1)])
def test_no_bar_holds_for_nan(bar: Bar) -> None:
    assert not bar.holds(math.nan)


def test_an_interval_from_high_to_low_is_refused() -> None:
    with pytest.raises(ValueError, match="low must not exceed high, got 2 and 1"):
        between(2, 1)
    with pytest.raises(ValueError, match="low must not exceed high"):
        between(math.nan, 1)


def test_bars_speak_in_few_characters() -> None:
    assert [str(bar) for bar in (at_least(8), at_most(0.05), between(1, 2.5))] == [
        "≥ 8",
        "≤ 0.05",
        "1 to 2.5",
    ]


# -- claims and cards --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "Not An Id"}, "Claim.id must be lower-case words and hyphens, got 'Not An Id'"),
        ({"id": "double--hyphen"}, "Claim.id"),
        ({"id": "new\nline"}, "Claim.id"),
        ({"text": " "}, "claim 'a-claim': text must not be empty"),
        ({"where": ""}, "claim 'a-claim': where must not be empty"),
        ({"bars": {}}, r"bars must have the keys 'quick' or 'full', got \[\]"),
        ({"bars": {"slow": at_least(1)}}, r"'quick' or 'full', got \['slow'\]"),
        ({"paper": math.nan}, "paper must be finite or None, got nan"),
        ({"paper": math.inf}, "paper must be finite or None, got inf"),
    ],
)
def test_a_claim_that_says_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claim(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Toy"}, "Card.name must be lower-case letters, digits and underscores"),
        ({"name": "../toy"}, "Card.name"),
        ({"name": "my-toy"}, "Card.name"),
        ({"name": "t" * 65}, "Card.name"),
        ({"claims": (claim(), claim())}, r"claim ids must be unique, got \['a-claim'\] twice"),
        ({"api": ("mmxx_toy.line.fit_line",)}, "expected 'module:name'"),
        ({"experiment": "mmxx_toy.experiment"}, "expected 'module:name'"),
        ({"scale": frozenset({"map", "moon"})}, r"'ddp', 'fsdp' and 'map', got \['moon'\]"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CARD, **changes)


def test_a_card_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CARD.title = "Another"  # type: ignore[misc]


def test_a_card_gives_its_claims_by_id() -> None:
    assert CARD.claim("full-only") is CARD.claims[1]
    with pytest.raises(KeyError, match="it has: finds-slope, full-only, beats-mean"):
        CARD.claim("full_only")


# -- finding -----------------------------------------------------------------------------------


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that the catalog sees."""
    found = [EntryPoint("toy", "mmxx_toy.card:CARD", catalog.GROUP)]
    monkeypatch.setattr(catalog, "entry_points", lambda group: list(found))
    return found


def test_a_package_is_found_by_its_entry_point() -> None:
    assert catalog.systems()["toy"] is CARD
    assert catalog.find("toy") is CARD


def test_hyphens_underscores_and_capitals_are_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(tmp_path, "two_words")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("two_words", "two-words", "Two-Words"):
        assert catalog.find(name).name == "two_words"


def test_systems_are_sorted_by_name(points: list[EntryPoint]) -> None:
    points.append(EntryPoint("abacus", "mmxx_toy.nowhere:CARD", catalog.GROUP))
    assert list(catalog.systems()) == ["abacus", "toy"]


def test_a_near_name_is_suggested(points: list[EntryPoint]) -> None:
    with pytest.raises(BadInputError, match=r"no system is called 'tog'; did you mean toy\?"):
        catalog.find("tog")


def test_a_name_near_to_none_points_to_the_list(points: list[EntryPoint]) -> None:
    with pytest.raises(BadInputError, match="no system is called 'zzz'; see 'mmxx list'"):
        catalog.find("zzz")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("lost", "mmxx_toy.nowhere:CARD", "ModuleNotFoundError: No module named"),
        ("lost", "mmxx_toy.card:MISSING", "AttributeError"),
        ("lost", "mmxx_toy.line:fit_line", "mmxx_toy.line:fit_line is not a Card but function"),
        ("other", "mmxx_toy.card:CARD", "the card calls itself 'toy'"),
    ],
)
def test_an_entry_point_without_its_card_is_broken(
    points: list[EntryPoint], name: str, value: str, reason: str
) -> None:
    points.append(EntryPoint(name, value, catalog.GROUP))
    found = catalog.systems()
    entry = found[name]
    assert isinstance(entry, Broken)
    assert reason in entry.reason
    assert entry.package == "unknown package"
    assert found["toy"] is CARD
    with pytest.raises(BadInputError, match=f"{name} from unknown package is broken: "):
        catalog.find(name)


def test_a_package_that_ends_the_process_at_import_is_only_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(tmp_path, "quitter")
    (tmp_path / "mmxx_quitter" / "card.py").write_text("raise SystemExit('I quit')\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = catalog.systems()["quitter"]
    assert entry == Broken("quitter", "mmxx-quitter", "SystemExit: I quit")


def test_a_name_that_is_announced_twice_is_trusted_from_neither(points: list[EntryPoint]) -> None:
    points.append(EntryPoint("toy", "mmxx_impostor.card:CARD", catalog.GROUP))
    entry = catalog.systems()["toy"]
    assert entry == Broken("toy", "two packages", "the name is announced twice")


def test_one_package_seen_twice_on_the_path_is_one(points: list[EntryPoint]) -> None:
    points.append(EntryPoint("toy", "mmxx_toy.card:CARD", catalog.GROUP))
    assert catalog.systems() == {"toy": CARD}


def test_a_broken_package_is_listed_as_broken_and_disturbs_nothing() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BROKEN), os.environ["PYTHONPATH"]]),
    }

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mmxx", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    listed = call("list")
    assert listed.returncode == 0
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert lines["snapped"].endswith("broken: RuntimeError: snapped in two (from mmxx-snapped)")
    assert lines["toy"].endswith("Toy line (Perthes und Besser 1809)")
    assert listed.stderr == ""
    as_json = json.loads(call("list", "--json").stdout)
    assert as_json["snapped"] == {
        "broken": "RuntimeError: snapped in two",
        "package": "mmxx-snapped",
    }
    assert as_json["toy"]["title"] == "Toy line"


def test_the_card_of_a_system_is_all_that_finding_imports(points: list[EntryPoint]) -> None:
    assert all(isinstance(entry, (Card, Broken)) for entry in catalog.systems().values())
    code = "import sys, mmxx_toy.card; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mmxx_toy.card" in done.stdout
    for heavy in ("numpy", "mmxx_toy.line", "mmxx.lab.run", "tyro"):
        assert heavy not in done.stdout.split()
