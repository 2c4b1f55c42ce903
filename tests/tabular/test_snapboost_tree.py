"""Trees: beside a search over all splits, beside scikit-learn, by rules, and in parts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.tree import DecisionTreeRegressor

from mmxx.tabular.snapboost import _grow
from mmxx.tabular.snapboost.binning import Binner
from mmxx.tabular.snapboost.tree import (
    CATEGORY,
    FALLING,
    RISING,
    Forest,
    Grower,
    Rules,
    quantise,
    unit,
)

FREE = Rules()


def grown(X, g, h, depth, *, rules=FREE, kinds=None, max_bins=255, rows=None, **options):
    """A tree for gradients and curvatures, and what it is grown with."""
    kinds = np.zeros(X.shape[1], np.int8) if kinds is None else np.array(kinds, np.int8)
    codes = np.where(kinds == CATEGORY, 1 + np.nanmax(X, axis=0, initial=0), -1).astype(np.int64)
    binner = Binner.of(X, max_bins=max_bins, codes=codes)
    units = unit(np.abs(g).sum()), unit(h.sum())
    gh = np.empty((len(X), 2), np.int64)
    quantise(g, h, *units, gh)
    grower = Grower(binner(X), binner, kinds, rules, **options)
    rows = np.arange(len(X), dtype=np.int32) if rows is None else rows
    columns = np.arange(X.shape[1], dtype=np.int32)
    return grower.grow(gh, units, rows, columns, depth)


def predicted(tree, X):
    out = np.zeros(len(X))
    Forest.of([tree]).add_to(out, X, 1.0)
    return out


def score(g, h, l2):
    return g.sum() ** 2 / (h.sum() + l2) if h.sum() + l2 > 0 else 0.0


def best_split(X, g, h, rows, rules):
    """Every threshold of every column, missing values on either side: (gain, left rows)."""
    best = (0.0, None)
    base = score(g[rows], h[rows], rules.l2)
    for column in X.T:
        x = column[rows]
        there = ~np.isnan(x)
        missing = (False, True) if not there.all() else (False,)
        for with_left in missing:
            for t in np.unique(x[there]):
                left = np.where(there, x <= t, with_left)
                a, b = rows[left], rows[~left]
                if min(len(a), len(b)) < rules.min_samples_leaf:
                    continue
                if min(h[a].sum(), h[b].sum()) < rules.min_child_weight:
                    continue
                gain = score(g[a], h[a], rules.l2) + score(g[b], h[b], rules.l2) - base
                if gain > best[0] * (1 + 1e-9) + 1e-12:
                    best = (gain, left)
    return best


def by_search(X, g, h, rows, depth, rules, out):
    """Gains of a tree in depth-first order, by trying everything; its values into ``out``."""
    gain, left = best_split(X, g, h, rows, rules) if depth and len(rows) > 1 else (0.0, None)
    if left is None:
        out[rows] = -g[rows].sum() / (h[rows].sum() + rules.l2)
        return [0.0]
    below = [by_search(X, g, h, part, depth - 1, rules, out) for part in (rows[left], rows[~left])]
    return [gain, *below[0], *below[1]]


@pytest.mark.parametrize(
    ("seed", "n", "rules"),
    [
        (0, 60, Rules()),
        (1, 40, Rules(l2=3.0)),
        (2, 60, Rules(min_child_weight=6.0)),
        (3, 50, Rules(l2=0.5, min_samples_leaf=7)),
        (4, 2, Rules(min_child_weight=0.0)),
    ],
)
def test_it_is_the_tree_that_trying_every_split_finds(seed, n, rules):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    X[rng.random(X.shape) < 0.15] = np.nan
    X[:, 3] = np.round(X[:, 3])  # ties
    g, h = rng.normal(size=n), rng.uniform(0.2, 3, n)
    tree, _ = grown(X, g, h, 4, rules=rules)
    wanted = np.empty(n)
    gains = by_search(X, g, h, np.arange(n), 4, rules, wanted)
    assert len(gains) > 1
    assert tree.gains == pytest.approx(gains, rel=1e-9, abs=1e-12)
    assert np.abs(predicted(tree, X) - wanted).max() < 1e-12


@pytest.mark.parametrize("depth", [1, 3, 7, 31])
def test_it_is_scikit_learns_tree(depth):
    """n = 250 has nodes with and without histograms, and stays below 255 values a column."""
    rng = np.random.default_rng(depth)
    X = rng.normal(size=(250, 5))
    y = np.sin(3 * X[:, 0]) * X[:, 1] + rng.normal(size=250)
    tree, _ = grown(X, -y, np.ones(250), depth)
    theirs = DecisionTreeRegressor(max_depth=depth, random_state=0).fit(X, y)
    assert np.abs(predicted(tree, X) - theirs.predict(X)).max() < 1e-10
    assert tree.leaves == theirs.get_n_leaves()


def test_with_the_same_bins_it_is_scikit_learns_histogram_tree():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 40, (3000, 3)) * 1.0  # few values: edges lie between any two
    X[rng.random(X.shape) < 0.1] = np.nan
    y = np.where(np.isnan(X[:, 0]), 2.0, np.sin(X[:, 0])) + 0.1 * rng.normal(size=3000)
    theirs = HistGradientBoostingRegressor(
        max_iter=1, learning_rate=1.0, max_depth=6, max_leaf_nodes=None, min_samples_leaf=5,
        early_stopping=False,
    ).fit(X, y)  # fmt: skip
    rules = Rules(min_samples_leaf=5)
    tree, _ = grown(X, y.mean() - y, np.ones(3000), 6, rules=rules)
    ours = y.mean() + predicted(tree, X)
    assert np.abs(ours - theirs.predict(X)).max() < 1e-5


def steps_of(X, column):
    """The prediction along one column, the others held at 0."""
    grid = np.zeros((200, X.shape[1]))
    grid[:, column] = np.linspace(X[:, column].min(), X[:, column].max(), 200)
    return grid


@pytest.mark.parametrize("sign", [RISING, FALLING])
def test_monotone_columns_are_monotone_and_others_are_not(sign):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = sign * X[:, 0] + 2 * np.sin(4 * X[:, 0]) + np.sin(3 * X[:, 1])
    ones = np.ones(400)
    free, _ = grown(X, -y, ones, 6)
    bound, _ = grown(X, -y, ones, 6, kinds=[sign, 0])
    slopes = sign * np.diff(predicted(bound, steps_of(X, 0)))
    assert slopes.min() >= 0
    assert slopes.max() > 0
    assert (sign * np.diff(predicted(free, steps_of(X, 0)))).min() < 0
    assert len(np.unique(np.sign(np.diff(predicted(bound, steps_of(X, 1)))))) == 3


def test_categories_are_grouped_by_their_values_and_new_ones_are_missing():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 12, (600, 1)) * 1.0
    high = np.isin(X[:, 0], (1, 4, 5, 11))
    y = np.where(high, 3.0, -1.0)
    tree, _ = grown(X, -y, np.ones(600), 1, kinds=[CATEGORY])
    assert tree.leaves == 2  # a threshold could not tell them apart in one split
    assert predicted(tree, X) == pytest.approx(y)
    low = predicted(tree, np.array([[np.nan]]))
    assert low == pytest.approx([-1.0])  # to the side with more rows


def test_a_histogram_is_taken_off_its_parents_exactly():
    """Nodes of all sizes: few rows, one side few, both many; and more columns than a block."""
    rng = np.random.default_rng(3)
    X = np.round(rng.normal(size=(700, 70)), 1)
    y = X[:, 3] + np.where(X[:, 66] > 1.7, 5.0, 0.0) + rng.normal(size=700)
    tree, segments = grown(X, -y, np.ones(700), 8)
    nodes = tree.nodes
    leaves = np.flatnonzero(nodes["feature"] < 0)
    rows = np.concatenate([np.arange(*segments[k]) for k in leaves])
    assert np.array_equal(rows, np.arange(700))
    covers = np.diff(segments, axis=1)[:, 0]
    assert np.array_equal(tree.covers, covers)
    theirs = DecisionTreeRegressor(max_depth=8, random_state=0).fit(X, y)
    ours = np.square(predicted(tree, X) - y).mean()
    assert ours == pytest.approx(np.square(theirs.predict(X) - y).mean(), rel=0.05)


def large(n=70_000):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    X[::7, 1] = np.nan
    g = np.sin(3 * X[:, 0]) + np.nan_to_num(X[:, 1]) * X[:, 2] + rng.normal(size=n)
    return X, g, rng.uniform(0.5, 2, n)


def same_tree(one, other):
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other, strict=True)
    )


def test_threads_change_no_bit():
    X, g, h = large()
    one, segments = grown(X, g, h, 7)
    for threads in (2, 3):
        with ThreadPoolExecutor(threads) as pool:
            many, theirs = grown(X, g, h, 7, threads=threads, map=pool.map)
        assert same_tree(one, many)
        assert np.array_equal(segments, theirs)


def test_the_order_of_the_rows_changes_no_bit():
    X, g, h = (array[:3000] for array in large())
    order = np.random.default_rng(1).permutation(3000)
    assert same_tree(grown(X, g, h, 6)[0], grown(X[order], g[order], h[order], 6)[0])


class Together:
    """The sum over all shards of an array, for threads that play machines."""

    def __init__(self, machines):
        self.barrier, self.parts = threading.Barrier(machines), [None] * machines

    def of(self, machine):
        def reduce(array):
            self.parts[machine] = array
            self.barrier.wait()
            total = sum(self.parts[1:], self.parts[0].copy())
            self.barrier.wait()
            return total

        return reduce


def test_four_shards_grow_the_tree_of_one():
    X, g, h = (array[:2000] for array in large())
    whole, _ = grown(X, g, h, 5)
    binner = Binner.of(X)
    units = unit(np.abs(g).sum()), unit(h.sum())
    together = Together(4)

    def machine(k):
        part = slice(k, None, 4)
        gh = np.empty((500, 2), np.int64)
        quantise(g[part], h[part], *units, gh)
        grower = Grower(
            binner(X[part]), binner, np.zeros(4, np.int8), Rules(), allreduce=together.of(k)
        )
        rows, columns = np.arange(500, dtype=np.int32), np.arange(4, dtype=np.int32)
        return grower.grow(gh, units, rows, columns, 5)[0]

    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(machine, range(4)))
    assert all(same_tree(whole, tree) for tree in trees)


def test_bins_count_a_weight_of_two_as_two_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 2))
    weights = rng.integers(1, 4, 900)
    once = Binner.of(X, weights * 1.0, max_bins=16)
    often = Binner.of(np.repeat(X, weights, axis=0), max_bins=16)
    for one, other in zip(once.edges, often.edges, strict=True):
        assert len(one) == 15
        assert np.array_equal(one, other)


def test_bins_hold_equal_shares_and_their_edges_lie_between():
    x = np.random.default_rng(0).exponential(size=(4000, 1))
    x[::10] = np.nan
    binner = Binner.of(x, max_bins=20)
    bins = binner(x)[:, 0]
    assert (bins[::10] == _grow.MISSING).all()
    shares = np.bincount(bins[bins < _grow.MISSING]) / 3600
    assert shares == pytest.approx(np.full(20, 0.05), abs=0.001)
    there = ~np.isnan(x[:, 0])
    wanted = np.searchsorted(binner.edges[0], x[there, 0], side="left")
    assert np.array_equal(bins[there], wanted)


@pytest.mark.parametrize("power", [0, 1, 9])
def test_bins_are_those_that_a_search_finds_however_crowded_the_edges(power):
    rng = np.random.default_rng(power)
    x = np.sign(rng.normal(size=5000)) * np.exp(power * rng.normal(size=5000))
    binner = Binner.of(x[:, None])
    asked = np.concatenate([x, binner.edges[0], [0.0, -1e308, 1e308, -1e-308]])
    wanted = np.searchsorted(binner.edges[0], asked, side="left")
    assert np.array_equal(binner(asked[:, None])[:, 0], wanted)


def test_numbers_at_the_ends_of_the_range_are_told_apart():
    x = np.array([[-1e308], [-1.0], [1.0], [np.nextafter(1.0, 2)], [1e308]])
    tree, _ = grown(x, -np.arange(5.0), np.ones(5), 4)
    assert predicted(tree, x) == pytest.approx(np.arange(5.0))
