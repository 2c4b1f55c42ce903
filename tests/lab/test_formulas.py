"""Formulas in a terminal: those of every card can be read, and nothing else is touched."""

from __future__ import annotations

import pytest

from mmxx.lab import catalog
from mmxx.lab.catalog import Card
from mmxx.lab.formulas import plain


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (r"$\sqrt{s_t}$ and $\sqrt m$", "√s_t and √m"),
        (r"$\tilde O(1/\sqrt m)$", "O\u0303(1/√m)"),
        (r"$[2^{-L}, 1)$, $(k+1)\,e_{k+1}$", "[2^-L, 1), (k+1) e_(k+1)"),
        (r"$\Phi_s \in \omega$", "Φ_s ∈ ω"),
        ("it costs $5 and $6", "it costs $5 and $6"),
        (r"$\frac{1}{2}$ and C:\temp", r"$\frac{1}{2}$ and C:\temp"),
    ],
)
def test_formulas_become_letters_and_signs(written: str, shown: str) -> None:
    assert plain(written) == shown


def test_every_card_can_be_read() -> None:
    cards = [card for card in catalog.systems().values() if isinstance(card, Card)]
    assert cards
    for card in cards:
        for text in (card.summary, *card.departs, *(claim.text for claim in card.claims)):
            assert not set("$\\") & set(plain(text)), text
