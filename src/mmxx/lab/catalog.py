"""What a system says of itself, and how the house finds systems. Standard library only.

A system is found by an entry point of the group ``mmxx.systems`` that names its
:class:`Card`, ours and another package's alike::

    [project.entry-points."mmxx.systems"]
    siren = "mmxx.signals.siren.card:CARD"
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from mmxx.lab.errors import BadInputError

GROUP = "mmxx.systems"
TIERS = ("quick", "full")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Bar:
    """What a measured figure must reach. Made by `at_least`, `at_most` and `between`."""

    op: Literal[">=", "<=", "in"]
    value: float | tuple[float, float]

    def holds(self, measured: float) -> bool:
        """Whether ``measured`` reaches the bar; a NaN never does."""
        if isinstance(self.value, tuple):
            return self.value[0] <= measured <= self.value[1]
        return measured >= self.value if self.op == ">=" else measured <= self.value

    def __str__(self) -> str:
        if isinstance(self.value, tuple):
            return f"{self.value[0]:g} to {self.value[1]:g}"
        return f"{'≥' if self.op == '>=' else '≤'} {self.value:g}"


def at_least(value: float) -> Bar:
    """The figure must be ``value`` or more."""
    return Bar(">=", value)


def at_most(value: float) -> Bar:
    """The figure must be ``value`` or less."""
    return Bar("<=", value)


def between(low: float, high: float) -> Bar:
    """The figure must lie in the closed interval from ``low`` to ``high``."""
    if not low <= high:
        raise ValueError(f"between: low must not exceed high, got {low} and {high}")
    return Bar("in", (low, high))


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of a paper that a reader can check, and how we judge it.

    Attributes:
        id: Lower-case words joined by hyphens, unique in the card.
        text: The sentence. ``$...$`` holds a formula.
        where: The table, figure or section in which the paper says so.
        paper: The paper's figure in the paper's setting; None where there is no source.
        bars: The bar for each tier, ``{"quick": at_least(8)}``; a missing tier is not judged.
        unit: Unit of the figure; a relative bar says what it is relative to.
        scaled: In words, how our setting is smaller than the paper's.
        sham: Whether the claim must fall short when the method is replaced by its sham.
        data_sha256: The public file that the claim is bound to; it is judged with that file only.
    """

    id: str
    text: str
    where: str
    paper: float | None
    bars: Mapping[str, Bar]
    unit: str = ""
    scaled: str = ""
    sham: bool = False
    data_sha256: str | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"Claim.id must be lower-case words and hyphens, got {self.id!r}")
        for name in ("text", "where"):
            if not getattr(self, name).strip():
                raise ValueError(f"claim {self.id!r}: {name} must not be empty")
        if not self.bars or set(self.bars) - set(TIERS):
            raise ValueError(
                f"claim {self.id!r}: bars must have the keys 'quick' or 'full', "
                f"got {sorted(self.bars)}"
            )
        if self.paper is not None and not math.isfinite(self.paper):
            raise ValueError(f"claim {self.id!r}: paper must be finite or None, got {self.paper}")


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a system comes from. ``arxiv`` may be empty where there is no preprint."""

    title: str
    authors: tuple[str, ...]
    venue: str
    year: int
    url: str
    arxiv: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What a system is, what its paper claims, and where its code is.

    Attributes:
        name: The name of its folder: lower-case letters, digits, underscores.
        title: What a person calls it.
        paper: Its source.
        summary: Two or three sentences: what it does and for whom.
        claims: What is measured.
        api: The public objects, ``"mmxx.signals.siren:Siren"``.
        experiment: ``"module:function"`` of the function that measures the claims.
        extra: The extra that installs what it needs, or None.
        departs: In words, where the implementation departs from the paper.
        scale: What it can be spread over: any of "ddp", "fsdp", "map".
    """

    name: str
    title: str
    paper: Paper
    summary: str
    claims: tuple[Claim, ...]
    api: tuple[str, ...]
    experiment: str
    extra: str | None = None
    departs: tuple[str, ...] = ()
    scale: frozenset[str] = field(default_factory=frozenset[str])

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"Card.name must be lower-case letters, digits and underscores, got {self.name!r}"
            )
        ids = [claim.id for claim in self.claims]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"card {self.name!r}: claim ids must be unique, got {twice} twice")
        for target in (*self.api, self.experiment):
            module, _, attribute = target.partition(":")
            if not module or not attribute:
                raise ValueError(f"card {self.name!r}: expected 'module:name', got {target!r}")
        unknown = self.scale - {"ddp", "fsdp", "map"}
        if unknown:
            raise ValueError(
                f"card {self.name!r}: scale accepts 'ddp', 'fsdp' and 'map', got {sorted(unknown)}"
            )

    def claim(self, claim_id: str) -> Claim:
        """The claim of that id. Raises KeyError, naming the ids that exist."""
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        known = ", ".join(claim.id for claim in self.claims)
        raise KeyError(f"card {self.name!r} has no claim {claim_id!r}; it has: {known}")


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry point that gave no card, and why."""

    name: str
    package: str
    reason: str


def _load(point: EntryPoint) -> Card | Broken:
    package = point.dist.name if point.dist is not None else "unknown package"
    try:
        card = point.load()
    except (Exception, SystemExit) as error:  # a stranger's package may raise anything at import
        return Broken(point.name, package, f"{type(error).__name__}: {error}")
    if not isinstance(card, Card):
        return Broken(point.name, package, f"{point.value} is not a Card but {type(card).__name__}")
    if card.name != point.name:
        return Broken(point.name, package, f"the card calls itself {card.name!r}")
    return card


def systems() -> dict[str, Card | Broken]:
    """Every system that an installed package announces, by name, sorted.

    Where two packages announce one name, neither is trusted: the name is listed as broken.
    """
    found: dict[str, Card | Broken] = {}
    for point in sorted(set(entry_points(group=GROUP)), key=lambda p: (p.name, p.value)):
        entry = _load(point)
        if point.name in found:
            entry = Broken(point.name, "two packages", "the name is announced twice")
        found[point.name] = entry
    return found


def find(name: str) -> Card:
    """The card of a system; ``-`` and ``_`` are alike.

    Raises:
        BadInputError: No system has that name (the nearest are suggested), or it is broken.
    """
    known = systems()
    entry = known.get(name.replace("-", "_").lower())
    if entry is None:
        near = difflib.get_close_matches(name.replace("-", "_").lower(), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see 'mmxx list'"
        raise BadInputError(f"no system is called {name!r}; {hint}")
    if isinstance(entry, Broken):
        raise BadInputError(f"{entry.name} from {entry.package} is broken: {entry.reason}")
    return entry
