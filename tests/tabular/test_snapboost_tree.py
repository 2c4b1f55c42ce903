"""Trees: beside a search over all splits, beside scikit-learn, by rules, and in parts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from mmxx.tabular.snapboost import _grow
from mmxx.tabular.snapboost.binning import Binner
from mmxx.tabular.snapboost.tree import CATEGORY, FALLING, RISING, Forest, Grower, Rules, quantise, unit


def grown(X, g, h, depth, *, rules=Rules(), kinds=None, max_bins=255, rows=None, **options):
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
