"""The quality filter, near-duplicates, contamination, and the scaling fit."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from mmxx.language.gpt3 import (
    Contamination,
    Example,
    Quality,
    Task,
    decontaminate,
    dedup,
    frontier,
    minhash,
    scaling_fit,
)
from mmxx.language.gpt3 import words as words_module
from mmxx.language.gpt3.cleaning import jaccard, kept, shingles


def prose(rng, count, words=2000):
    return " ".join(f"w{rng.randrange(words)}" for _ in range(count))


def test_words_have_no_case_and_no_punctuation():
    text = "  Hello, WORLD! don't — Straße\u2003ÉCOLE… 🦆x _a_ "
    assert words_module.spelled(text) == ["hello", "world", "dont", "straße", "école", "🦆x", "a"]
    hashes, starts, ends = words_module.hashed(text)
    assert text[starts[0] : ends[0]] == "Hello,"
    assert np.array_equal(hashes[:2], words_module.hashed("hello world")[0])
    assert len(words_module.hashed("... !")[0]) == 0
    assert len(np.unique(words_module.hashed(prose(random.Random(0), 5000))[0])) > 1800


def test_runs_are_alike_where_their_words_are():
    hashes = words_module.hashed("a b c d a b c e")[0]
    runs = words_module.runs(hashes, 3)
    assert len(runs) == 6
    assert runs[0] == runs[4]
    assert len(np.unique(runs)) == 5
    assert len(words_module.runs(hashes, 9)) == 0


def test_parts_of_signatures_agree_as_often_as_sets_do():
    rng = random.Random(0)
    docs = []
    for _ in range(60):
        base = prose(rng, 120).split()
        other = list(base)
        for place in rng.sample(range(120), 8):
            other[place] = "changed"
        docs += [" ".join(base), " ".join(other)]
    found = minhash(docs, num_hashes=400)
    agreed = expected = variance = 0.0
    for i in range(0, len(docs), 2):
        similarity = jaccard(shingles(docs[i]), shingles(docs[i + 1]))
        assert 0.2 < similarity < 0.9
        agreed += (found[i] == found[i + 1]).sum()
        expected += 400 * similarity
        variance += 400 * similarity * (1 - similarity)
    assert abs(agreed - expected) < 4 * math.sqrt(variance)


def test_bands_find_pairs_as_their_curve_says():
    rng = random.Random(1)
    found = expected = variance = 0.0
    for trial in range(250):
        base = prose(rng, 60).split()
        other = list(base)
        for place in rng.sample(range(60), 5):
            other[place] = "changed"
        docs = [" ".join(base), " ".join(other)]
        similarity = jaccard(*map(shingles, docs))
        chance = 1 - (1 - similarity**5) ** 2
        kept_docs = dedup(docs, num_hashes=10, bands=2, threshold=0.01, seed=trial)
        assert kept_docs[0]
        found += not kept_docs[1]
        expected += chance
        variance += chance * (1 - chance)
    assert abs(found - expected) < 4 * math.sqrt(variance)


def test_of_documents_that_hang_together_the_first_stays():
    rng = random.Random(2)
    texts = [prose(rng, 80) for _ in range(6)]
    docs = [*texts, texts[3].upper() + "!", "x " + texts[1], texts[1] + " y", ""]
    expected = [True] * 6 + [False] * 3 + [True]
    assert dedup(docs).tolist() == expected
    assert dedup([]).tolist() == []
    in_shards = minhash(docs * 60, num_hashes=4)
    assert np.array_equal(in_shards, np.tile(minhash(docs, num_hashes=4), (60, 1)))
    with pytest.raises(ValueError, match="bands must divide num_hashes=10, got 3"):
        dedup(docs, bands=3)
    with pytest.raises(ValueError, match=r"threshold must lie in \(0, 1\], got 0"):
        dedup(docs, threshold=0)


def test_the_filter_tells_good_from_raw_and_keeps_by_pareto():
    rng = random.Random(0)
    good = [f"the study shows {prose(rng, 30, 50)}" for _ in range(60)]
    raw = [f"click here buy now {prose(rng, 30, 50)}" for _ in range(60)]
    quality = Quality().fit(good[:40], raw[:40])
    scores = quality.score([*good[40:], *raw[40:]])
    assert scores[:20].min() > scores[20:].max()
    assert quality.keep(good[40:] + raw[40:], random_state=1).dtype == bool
    assert np.array_equal(quality.keep(raw), quality.keep(raw))
    with pytest.raises(ValueError, match="good must hold one text or more"):
        Quality().fit([], raw)
    with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
        quality.keep(raw, alpha=0)


@pytest.mark.parametrize("score", [1.0, 0.9, 0.5, 0.0])
def test_the_chance_to_stay_in_closed_form(score):
    draws = 10**6
    rate = kept(np.full(draws, score), 9.0, np.random.default_rng(0)).mean()
    expected = (2 - score) ** -9
    assert abs(rate - expected) <= 3 * math.sqrt(expected * (1 - expected) / draws)


def questions(rng, count):
    return Task("quiz", [Example(f"Q: {prose(rng, 12)}?\nA:", prose(rng, 2)) for _ in range(count)])


def test_planted_questions_are_found_and_no_others():
    rng = random.Random(0)
    docs = [prose(rng, 300) for _ in range(30)]
    task = questions(rng, 40)
    planted = [3, 7, 31]
    for place in planted:
        docs[place % 30] += " " + task.shot(task.examples[place]).upper() + " " + prose(rng, 20)
    index = Contamination().fit(docs)
    report = index.report(task, scores=[float(i in planted) for i in range(40)])
    assert np.flatnonzero(report.dirty).tolist() == planted
    assert (report.clean, report.contaminated, report.all) == (0.0, 1.0, 3 / 40)
    assert report.difference == -1
    assert 8 <= report.ngram <= 13
    assert report.row()["dirty"] == 3
    with pytest.raises(ValueError, match="scores must have 40 values, got 2"):
        index.report(task, scores=[1, 0])
    nothing = Contamination().fit([]).report(task)
    assert not nothing.dirty.any()
    assert math.isnan(nothing.all)


def test_overlaps_are_those_of_a_set_of_strings():
    rng = random.Random(5)
    docs = [prose(rng, 200, words=3) for _ in range(4)]
    index = Contamination(ngram=6, frequent=100).fit(docs)
    runs = {tuple(d.split()[i : i + 6]) for d in docs for i in range(195)}
    texts = [prose(rng, 8, words=3) for _ in range(100)]
    expected = [any(tuple(t.split()[i : i + 6]) in runs for i in range(3)) for t in texts]
    assert sum(expected) > 10
    assert [index.overlaps(text) for text in texts] == expected


def test_equal_hashes_of_different_words_are_no_overlap(monkeypatch):
    monkeypatch.setattr(
        words_module, "runs", lambda hashes, n: np.zeros(max(len(hashes) - n + 1, 0), np.uint64)
    )
    index = Contamination(ngram=2).fit(["one two three"])
    assert index.overlaps("one two")
    assert not index.overlaps("four five")


def test_common_runs_are_ignored():
    docs = [f"this text is licensed under the terms of that licence {i}" for i in range(12)]
    assert not Contamination(ngram=8).fit(docs).overlaps(docs[0][:50])
    assert Contamination(ngram=8).fit(docs[:10]).overlaps(docs[0][:50])


def test_questions_are_cut_out_of_the_text():
    rng = random.Random(3)
    task = questions(rng, 3)
    asked = task.shot(task.examples[1])
    left, right = prose(rng, 200), prose(rng, 200)
    clean = prose(rng, 100)
    found = decontaminate([f"{left} {asked} {right}", clean, f"{asked} short"], [task])
    assert found[-1] == clean
    assert len(found) == 3
    assert left.startswith(found[0])
    assert len(left) - 201 <= len(found[0]) <= len(left) - 150
    assert right.endswith(found[1])
    many = " ".join(f"{prose(rng, 150)} {asked}" for _ in range(12))
    assert decontaminate([many], [task]) == []
    with pytest.raises(ValueError, match="ngram and frequent must be 1 or more, got 0 and 10"):
        Contamination(ngram=0)


@pytest.mark.parametrize("floor", [0.0, 1.3])
def test_the_planted_exponent_is_found(floor):
    compute = np.logspace(10, 16, 9)
    loss = floor + 30 * compute**-0.1
    fit = scaling_fit(compute, loss, floor=floor > 0)
    assert fit.alpha == pytest.approx(0.1, abs=0.002)
    assert fit.floor == pytest.approx(floor, abs=0.02)
    assert fit.r2 > 0.9999
    assert fit.predict(1e18) == pytest.approx(floor + 30 * 1e18**-0.1, rel=1e-2)
    noisy = loss * np.exp(0.01 * np.random.default_rng(0).normal(size=9))
    fit = scaling_fit(compute, noisy, floor=floor > 0)
    assert fit.interval[0] < 0.1 < fit.interval[1]


def test_fits_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="with 3 different computes or more"):
        scaling_fit([1, 1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="with 4 different computes or more"):
        scaling_fit([1, 2, 3], [3, 2, 1], floor=True)
    with pytest.raises(ValueError, match="finite and above 0"):
        scaling_fit([1, 2, 0], [1, 2, 3])
    assert frontier([3, 1, 2, 4], [1.0, 3.0, 3.5, 0.5]) == [1, 0, 3]
