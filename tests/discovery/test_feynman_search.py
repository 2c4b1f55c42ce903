"""Brute force: the order of formulas, the loss, planted formulas, the test, the cursor."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmxx.discovery.feynman import Expr, brute_force
from mmxx.discovery.feynman.alphabet import Alphabet, templates
from mmxx.discovery.feynman.search import Cursor

COUNTS = [4, 40, 428, 5072, 64468, 859384, 11853948, 167763360, 2422342052]
X = np.random.default_rng(0).uniform(1, 3, (200, 2))


def enumerate_all(alphabet: Alphabet, length: int) -> list[str]:
    """All formulas of a length in the authors' order, by trying every arity string."""
    found = []
    for arity in itertools.product(range(3), repeat=length):
        depth = 0
        for a in arity:
            depth += 1 - a
            if depth < 1:
                break
        if depth != 1 or arity[0] != 0:
            continue
        if any(sum(1 - a for a in arity[: k + 1]) < 1 for k in range(length)):
            continue
        choices = [alphabet.letters[a] for a in arity]
        found += ["".join(word[::-1]) for word in itertools.product(*choices[::-1])]
    return found


def test_counts_are_the_authors():
    alphabet = Alphabet.make("14ops", 3)
    assert [alphabet.count(n) for n in range(1, 10)] == COUNTS
    assert [len(templates(n)) for n in range(1, 10)] == [1, 1, 2, 4, 9, 21, 51, 127, 323]


def test_ranks_are_those_of_an_enumeration():
    alphabet = Alphabet.make("+*S0", 1)
    words = [word for n in range(1, 6) for word in enumerate_all(alphabet, n)]
    assert [alphabet.rank(word) for word in words] == list(range(1, len(words) + 1))
    mine = [
        alphabet.formula(t, k)
        for n in range(1, 6) for t in templates(n) for k in range(alphabet.size(t))
    ]  # fmt: skip
    assert sorted(mine) == sorted(words)
    big = Alphabet.make("14ops", 3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        shape = templates(9)[rng.integers(323)]
        word = big.formula(shape, int(rng.integers(big.size(shape))))
        assert COUNTS[7] < big.rank(word) <= COUNTS[8]
    with pytest.raises(ValueError, match="not one formula"):
        big.rank("ab")


def loss(expr: Expr, X: np.ndarray, y: np.ndarray, mode: str) -> tuple[float, float]:
    """Mean bits and constant, in plain numpy."""
    f = expr.evaluate(X)
    asked = y / f if mode == "*" else y - f
    c = np.sort(asked)[(len(y) - 1) // 2]
    error = y - c * f if mode == "*" else y - f - c
    unit = math.sqrt(np.square(y).mean()) * 2.0**-30
    return float(np.log2(np.maximum(np.abs(error) / unit, 1)).mean()), float(c)


@pytest.mark.parametrize("mode", ["*", "+"])
def test_the_loss_is_that_of_plain_numpy(mode):
    y = np.tanh(X[:, 0]) * X[:, 1] ** 1.3 + 0.1 * np.sin(9 * X[:, 1])
    found = brute_force(X, y, mode=mode, max_length=5, max_formulas=None, nu=1e9)
    assert len(found.hits) > 5
    for hit in found.hits:
        bits, c = loss(Expr.from_rpn(hit.rpn), X, y, mode)
        assert hit.bits == pytest.approx(bits, abs=1e-9)
        assert hit.constant == pytest.approx(c, rel=1e-12)
    bits = [hit.bits for hit in found.hits]
    assert bits == sorted(bits, reverse=True)
    words = enumerate_all(Alphabet.make("14ops", 2), 3)
    with np.errstate(all="ignore"):
        every = [loss(Expr.from_rpn(word), X, y, mode) for word in words]
    best = min(bits for bits, c in every if abs(c) < 1e6)  # 30 bits a constant may have
    assert min(hit.bits for hit in found.hits if len(hit.rpn) <= 3) <= best + 1e-9


def test_a_formula_of_every_template_is_found():
    alphabet = Alphabet.make("14ops", 2)
    rng = np.random.default_rng(1)
    tried = 0
    for shape in (t for n in range(2, 6) for t in templates(n)):
        for _ in range(3):
            word = alphabet.formula(shape, int(rng.integers(alphabet.size(shape))))
            values = Expr.from_rpn(word).evaluate(X)
            if not np.isfinite(values).all() or not 1e-6 < np.abs(values).min() < 1e6:
                continue
            if np.abs(values).max() > 1e6 or np.ptp(values) < 1e-6:
                continue
            found = brute_force(X, -2.5 * values, max_formulas=None, max_length=5)
            assert found.exact, word
            assert found.hits[-1].bits < 1
            tried += 1
    assert tried > 20


def test_the_test_loses_no_exact_formula():
    y = X[:, 0] * np.exp(-X[:, 1])
    few, all_ = (brute_force(X, y, nu=nu, max_formulas=30_000) for nu in (10.0, 1e9))
    assert [hit.rpn for hit in few.frontier] == [hit.rpn for hit in all_.frontier]
    assert few.exact


def test_a_sweep_goes_on_from_its_cursor():
    y = np.tanh(X[:, 0]) * X[:, 1] ** 1.3
    whole = brute_force(X, y, max_formulas=20_000)
    hits, cursor = [], None
    for _ in range(4):
        part = brute_force(X, y, max_formulas=5000, start=cursor)
        hits += part.hits
        cursor = part.cursor
    assert hits == whole.hits
    assert cursor == whole.cursor
    assert cursor == Cursor(**vars(cursor))
    assert cursor.seen == 20_000


def test_parts_are_the_same_for_every_map_and_lose_nothing(monkeypatch):
    monkeypatch.setattr("mmxx.discovery.feynman.search._SLICE", 2000)
    monkeypatch.setattr("mmxx.discovery.feynman.search._PART", 3000)
    y = np.tanh(X[:, 0]) * X[:, 1] ** 1.3
    options = {"max_formulas": 40_000, "largest": True}
    whole = brute_force(X, y, **options)
    serial = brute_force(X, y, **options, map=map)
    with ThreadPoolExecutor(3) as pool:
        threads = brute_force(X, y, **options, map=pool.map)
    assert serial == threads
    assert serial.cursor.seen == whole.cursor.seen == 40_000
    assert serial.cursor.best <= whole.cursor.best
    bits = [hit.bits for hit in serial.hits if hit.bits <= serial.cursor.best]
    assert bits == [serial.cursor.best]
    planted = brute_force(X, 2 * X[:, 0] * np.exp(-X[:, 1] / 2), max_formulas=None, max_length=6,
                          map=map)  # fmt: skip
    assert planted.exact
    again = brute_force(X, y, max_formulas=20_000, map=map)
    rest = brute_force(X, y, max_formulas=20_000, start=again.cursor, map=map)
    assert rest.cursor.seen == 40_000


def test_gradients_find_what_is_inside_any_function():
    slopes = np.column_stack([X[:, 1], X[:, 0]]) * np.cos(X[:, :1] * X[:, 1:])  # of sin(ab)
    units = slopes / np.linalg.norm(slopes, axis=1)[:, None]
    found = brute_force(X, units, mode="gradient", max_formulas=3000)
    assert found.exact
    assert found.hits[-1].rpn == "ab*"


def test_the_largest_error_is_followed_too():
    y = np.tanh(X[:, 0]) * X[:, 1] ** 1.3
    found = brute_force(X, y, max_formulas=20_000, largest=True)
    for hit in found.hits:
        f = hit.expr.evaluate(X)
        unit = math.sqrt(np.square(y).mean()) * 2.0**-30
        assert hit.largest == pytest.approx(math.log2(np.abs(y - f).max() / unit), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operators": "+*?"}, "different symbols"),
        ({"operators": "++"}, "different symbols"),
        ({"mode": "x"}, "mode must be one of"),
        ({"max_formulas": 0}, "max_formulas must be 1 or more, got 0"),
        ({"max_formulas": None}, "must be given"),
        ({"max_seconds": -1.0}, "max_seconds must be positive"),
        ({"nu": 0.0}, "nu must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        brute_force(X, X[:, 0], **settings)


def test_seconds_stop_it_with_the_best_so_far():
    found = brute_force(X, np.tanh(X[:, 0] ** 1.1), max_formulas=None, max_seconds=1e-9)
    assert found.timed_out
