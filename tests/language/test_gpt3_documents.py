"""The mixture of documents and its best reader."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mmxx.language.gpt3 import Documents, bayes_accuracy
from mmxx.language.gpt3.documents import (
    END,
    LANGUAGES,
    VOCABULARY,
    WORDS,
    render,
)


def test_the_best_readers_accuracy_in_the_known_places():
    found = [bayes_accuracy(k) for k in (0, 1, 2, 4, 8, 16)]
    assert found == pytest.approx([1 / 6, 7 / 12, 7 / 12, 0.786, 0.925, 0.991], abs=5e-4)


@pytest.mark.parametrize("shots", [1, 2, 3, 4])
def test_the_best_readers_accuracy_by_listing_all_contexts(shots):
    languages, switching = 3, 0.4
    right, wrong = 1 - switching + switching / languages, switching / languages
    total = 0.0
    for seen in itertools.product(range(languages), repeat=shots):
        counts = np.bincount(seen, minlength=languages)
        best = counts == counts.max()
        probability = np.prod([right if s == 0 else wrong for s in seen])
        total += probability * best[0] / best.sum()
    assert bayes_accuracy(shots, languages=languages, switching=switching) == pytest.approx(total)


def test_documents_are_what_they_are_said_to_be():
    docs = Documents(shots=5, seed=3)
    tokens, answers = docs.translations(np.random.default_rng(0), 4000)
    assert tokens.shape == (4000, 13)
    assert (tokens[:, 0] == END).all()
    words, spoken = tokens[:, 1::2] - 1, tokens[:, 2::2] - 1 - WORDS
    assert (spoken % WORDS == words).all()
    language = (answers - 1 - WORDS) // WORDS
    assert (language == language[:, :1]).all()
    agree = (tokens[:, 2::2] == answers).mean()
    assert agree == pytest.approx(0.5 + 0.5 / LANGUAGES, abs=0.01)
    tokens, answers = docs.novel_words(np.random.default_rng(0), 200)
    for row in tokens:
        pairs = dict(zip(row[1::2], row[2::2], strict=True))
        assert len(pairs) <= 4
        assert all(pairs[a] == b for a, b in zip(row[1::2], row[2::2], strict=True))
    text = docs.repeated(np.random.default_rng(0), 50)
    for row in text[:, 1:]:
        assert any((row[p:] == row[:-p]).all() for p in range(3, 9))


def test_incoherent_documents_say_nothing_of_their_language():
    docs = Documents(shots=5, coherent=False)
    tokens, answers = docs.translations(np.random.default_rng(0), 4000)
    assert (tokens[:, 2::2] == answers).mean() == pytest.approx(1 / LANGUAGES, abs=0.01)


def test_rows_are_a_function_of_seed_and_place():
    first, again, other = Documents(seed=1), Documents(seed=1), Documents(seed=2)
    again.rows(0, 7)
    assert torch.equal(first.rows(64, 16), again.rows(64, 16))
    assert not torch.equal(first.rows(64, 16), first.rows(80, 16))
    assert not torch.equal(first.rows(64, 16), other.rows(64, 16))
    rows = first.rows(0, 4000)
    assert int(rows.max()) < VOCABULARY
    kinds = (rows[:, 1] >= VOCABULARY - 32).double().mean().item()
    assert kinds == pytest.approx(1 / 4, abs=0.03)


def test_documents_can_be_read():
    rows = Documents(shots=2, mixture={"T": 1}).rows(0, 3)
    for row in rows:
        pairs = [pair.split() for pair in render(row).split(", ")]
        assert len(pairs) == 3
        assert all(right.startswith(left) for left, right in pairs)
    assert len(render(Documents(shots=2, mixture={"S": 1}).rows(0, 1)[0]).split()) == 6
    assert "q" in render(Documents(shots=2, mixture={"N": 1}).rows(0, 1)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": {"X": 1}}, "mixture must give weights to T, N and S"),
        ({"mixture": {"T": 0}}, "mixture must give weights"),
        ({"shots": -1}, "shots must be 0 or more, got -1"),
        ({"switching": 1.5}, r"switching must lie in \[0, 1\], got 1.5"),
    ],
)
def test_documents_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Documents(**settings)
