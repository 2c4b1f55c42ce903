"""Regression trees on gradients and curvatures: growing them, and predicting with many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from mmxx.tabular.snapboost import _grow
from mmxx.tabular.snapboost.binning import Binner, Map
from mmxx.tabular.snapboost.shards import Reduce

Array = NDArray[np.float64]

NUMBER, RISING, FALLING, CATEGORY = 0, 1, -1, 2
NODE = np.dtype(
    [
        ("threshold", np.float64),  # the value, in a leaf
        ("feature", np.int32),  # -1 in a leaf
        ("right", np.int32),  # how far behind; the left child is the next node
        ("missing_left", np.int32),
        ("left_set", np.int32),  # row in the table of categories, -1 for a number
    ]
)
_TASK_ROWS = 32_768  # rows of a node from which its threads share the work


class Tree(NamedTuple):
    """A tree, its nodes in depth-first order.

    Attributes:
        nodes: `NODE` [m]; a left child follows its parent.
        gains: float64 [m], what each split took off twice the objective; 0 in leaves.
        covers: float64 [m], the sum of curvatures.
        left_sets: bool [s, 256], the categories on the left of each categorical split.
    """

    nodes: NDArray[Any]
    gains: Array
    covers: Array
    left_sets: NDArray[np.bool_]

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return int((self.nodes["feature"] < 0).sum())


@dataclass(frozen=True)
class Rules:
    """What a tree may be.

    Attributes:
        l2: Penalty on the squares of leaf values.
        min_child_weight: Least sum of curvatures in a leaf.
        min_samples_leaf: Least rows in a leaf.
    """

    l2: float = 0.0
    min_child_weight: float = 1.0
    min_samples_leaf: int = 1


@njit(cache=True, nogil=True)
def quantise(g, h, g_unit, h_unit, out):
    """Gradients and curvatures as whole numbers of their units: int64 [n, 2] into ``out``."""
    for i in range(g.size):
        out[i, 0] = np.int64(np.rint(g[i] / g_unit))
        out[i, 1] = np.int64(np.rint(h[i] / h_unit))


@njit(cache=True, nogil=True)
def _total(gh, rows):
    """Sums of g and of h and the count over some rows, int64 [3]; and whether h is always one."""
    sums, same = np.zeros(3, np.int64), True
    for row in rows:
        sums[0] += gh[row, 0]
        sums[1] += gh[row, 1]
        same &= gh[row, 1] == gh[rows[0], 1]
    sums[2] = rows.size
    return sums, same


def unit(total: float) -> float:
    """The power of two in which the sum of numbers of that total magnitude fits into 61 bits."""
    return 2.0 ** (np.ceil(np.log2(total)) - 60) if total > 0 else 1.0


class Grower:
    """Grows trees over the same rows.

    Args:
        bins: uint8 [n, d], from the binner.
        binner: Where bins end.
        kinds: int8 [d]: `NUMBER`, `RISING`, `FALLING` or `CATEGORY`.
        rules: What a tree may be.
        threads: How many tasks to make of a large node.
        map: What to spread them with.
        allreduce: With rows shared among several machines, the sum over all of them of an int64
            array; every machine grows the same tree.
    """

    def __init__(
        self,
        bins: NDArray[np.uint8],
        binner: Binner,
        kinds: NDArray[np.int8],
        rules: Rules,
        *,
        threads: int = 1,
        map: Map = map,
        allreduce: Reduce | None = None,
    ) -> None:
        self.bins, self.binner, self.kinds, self.rules = bins, binner, kinds, rules
        self._threads, self._map, self._allreduce = threads, map, allreduce
        self._spare = np.empty(len(bins), np.int32)
        self._pool = self._room(0)
        self._categories = bool((kinds == CATEGORY).any())

    def _room(self, slots: int, cell: int = 3) -> NDArray[np.int64]:
        return np.empty((slots, len(self.kinds), _grow.BINS, cell), np.int64)

    def grow(
        self,
        gh: NDArray[np.int64],
        units: tuple[float, float],
        rows: NDArray[np.int32],
        columns: NDArray[np.int32],
        max_depth: int,
    ) -> tuple[Tree, NDArray[np.int64]]:
        """Grow a tree.

        Args:
            gh: int64 [n, 2], gradients and curvatures in whole units.
            units: Of gradients and of curvatures.
            rows: int32 [m], the rows to learn from; reordered in place, leaf by leaf.
            columns: int32 [k], the columns to use.
            max_depth: Splits on the way to a leaf at most, 1 to 31.

        Returns:
            The tree, and for each node the first of its rows and the one after its last: [m, 2].
        """
        settings = np.array(
            [
                self.rules.l2,
                self.rules.min_child_weight,
                self.rules.min_samples_leaf,
                max_depth,
                *units,
            ]
        )
        bounds = np.array([-np.inf, np.inf])
        total, same = _total(gh, rows)
        if self._allreduce is not None:
            total, same = self._allreduce(total), False  # others may have another h
        if self._pool.shape[3] != 3 - same:
            self._pool = self._room(0, 3 - same)
        if self._allreduce is None and (self._threads == 1 or rows.size <= _TASK_ROWS):
            parts = self._subtree(gh, rows, columns, total, bounds, settings, self._spare, 0)
        else:
            parts = self._share(gh, rows, columns, total, bounds, settings)
        nodes, values, sets = parts
        return self._tree(nodes, values, sets), nodes[:, _grow.START : _grow.STOP + 1].astype(
            np.int64
        )

    def _subtree(
        self,
        gh: NDArray[np.int64],
        rows: NDArray[np.int32],
        columns: NDArray[np.int32],
        total: NDArray[np.int64],
        bounds: Array,
        settings: Array,
        spare: NDArray[np.int32],
        offset: int,
        pool: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int32], Array, NDArray[np.bool_]]:
        """Grow what is below one node; nodes int32 [m, 7], values [m, 3], categories [m or 0, 256].

        ``offset`` is the place of its first row among all rows. A ``pool`` of its own holds its
        histogram already, as the last.
        """
        depth = int(settings[_grow.MAX_DEPTH])
        slots = depth + 2 if rows.size > _grow.SMALL else 0
        counted = pool is not None
        if pool is None:
            if len(self._pool) < slots:
                self._pool = self._room(slots, self._pool.shape[3])
            pool = self._pool
        room = max(1, min(2 ** (depth + 1) - 1, 2 * rows.size - 1))
        nodes = np.empty((room, 7), np.int32)
        values = np.empty((room, 3))
        sets = np.empty((room if self._categories else 0, _grow.BINS), np.bool_)
        count = _grow.grow(
            self.bins, gh, rows, spare, columns, self.kinds, total, bounds, settings, pool, counted,
            nodes, values, sets,
        )  # fmt: skip
        nodes = nodes[:count]
        nodes[:, _grow.START : _grow.STOP + 1] += offset
        return nodes, values[:count], sets[:count]

    # -- large nodes, and rows that are shared among machines ----------------------------------

    def _share(
        self,
        gh: NDArray[np.int64],
        rows: NDArray[np.int32],
        columns: NDArray[np.int32],
        total: NDArray[np.int64],
        bounds: Array,
        settings: Array,
    ) -> Any:
        """Split large nodes with all threads, then grow what is below them side by side."""
        small = max(_TASK_ROWS, rows.size // (2 * self._threads))
        tasks: list[Any] = []
        top = self._top(
            gh, rows, columns, total, bounds, settings, None, 0,
            0 if self._allreduce else small, tasks,
        )  # fmt: skip
        order = np.argsort([-size for size, _ in tasks], kind="stable")  # long ones first
        grown = self._map(lambda k: tasks[k][1](), order)
        return self._join(top, dict(zip(order.tolist(), grown, strict=True)))

    def _top(
        self,
        gh: NDArray[np.int64],
        rows: NDArray[np.int32],
        columns: NDArray[np.int32],
        total: NDArray[np.int64],
        bounds: Array,
        settings: Array,
        hist: NDArray[np.int64] | None,
        offset: int,
        small: int,
        tasks: list[Any],
    ) -> Any:
        """A node and what is below it: ``(record, values, categories, left, right)``.

        A node of few rows becomes the number of a task instead.
        """
        depth_left = int(settings[_grow.MAX_DEPTH])
        if self._allreduce is None and rows.size <= small:
            pool = None
            if hist is not None:
                pool = self._room(depth_left + 2, self._pool.shape[3])
                pool[-1] = hist
            spare = self._spare[offset : offset + rows.size]
            task = partial(
                self._subtree, gh, rows, columns, total, bounds, settings, spare, offset, pool
            )
            tasks.append((rows.size, task))
            return len(tasks) - 1
        split, left = np.zeros(8, np.int64), np.zeros(_grow.BINS, np.bool_)
        gain = 0.0
        if depth_left > 0:
            hist = self._histogram(gh, rows, columns) if hist is None else hist
            gain = _grow.search_histogram(
                hist, columns, self.kinds, total, bounds, settings, split, left
            )
        h = total[1] * settings[_grow.H_UNIT]
        value = _grow.leaf_value(
            total[0] * settings[_grow.G_UNIT], h + settings[_grow.L2], bounds[0], bounds[1]
        )
        split[_grow.FEATURE] = split[_grow.FEATURE] if gain > 0 else -1
        record = np.array([*split[:5], offset, offset + rows.size], np.int32)
        if not gain > 0:
            return record, (value, 0.0, h), left, None, None
        middle = self._partition(rows, split, left)
        totals = split[_grow.SUMS :].copy(), total - split[_grow.SUMS :]
        edges = np.empty(2), np.empty(2)
        _grow.child_bounds(self.kinds, split, total, bounds, settings, *edges)
        below = settings.copy()
        below[_grow.MAX_DEPTH] -= 1
        parts = rows[:middle], rows[middle:]
        hists: list[Any] = [None, None]
        if hist is not None and below[_grow.MAX_DEPTH] > 0:
            fewer = int(totals[1][2] < totals[0][2])
            hists[fewer] = self._histogram(gh, parts[fewer], columns)
            hists[1 - fewer] = hist - hists[fewer]
        children = [
            self._top(
                gh, part, columns, of, edge, below, own, offset + shift, small, tasks
            )
            for part, of, edge, own, shift in zip(
                parts, totals, edges, hists, (0, middle), strict=True
            )
        ]  # fmt: skip
        return record, (value, gain, h), left, *children

    def _histogram(
        self, gh: NDArray[np.int64], rows: NDArray[np.int32], columns: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        def count(part: NDArray[np.int32]) -> NDArray[np.int64]:
            hist = np.zeros(self._pool.shape[1:], np.int64)
            _grow.accumulate(hist, self.bins, gh, part, columns)
            return hist

        hists = list(self._map(count, np.array_split(rows, self._threads)))
        hist = np.sum(hists, axis=0)
        return hist if self._allreduce is None else self._allreduce(hist)

    def _partition(
        self, rows: NDArray[np.int32], split: NDArray[np.int64], left: NDArray[np.bool_]
    ) -> int:
        """Order a node's rows by their side, stable; how many are on the left."""

        def order(part: NDArray[np.int32]) -> int:
            spare = np.empty(part.size, np.int32)
            count: Any = _grow.partition(
                self.bins, part, spare, split[_grow.FEATURE], split[_grow.LOW],
                split[_grow.MISSING_LEFT], left,
            )  # fmt: skip
            return count

        parts = np.array_split(rows, self._threads)
        counts = list(self._map(order, parts))
        if len(parts) > 1:
            on_left = [part[:k] for part, k in zip(parts, counts, strict=True)]
            on_right = [part[k:] for part, k in zip(parts, counts, strict=True)]
            rows[:] = np.concatenate([*on_left, *on_right])
        return sum(counts)

    def _join(self, top: Any, done: dict[int, Any]) -> Any:
        """The arrays of a tree from its top and its finished tasks, in depth-first order."""
        if isinstance(top, int):
            return done[top]
        record, values, left, *children = top
        own = record[None], np.array([values]), left[None] if self._categories else left[None][:0]
        if children[0] is None:
            return own
        below = [self._join(child, done) for child in children]
        record[_grow.RIGHT] = 1 + len(below[0][0])
        return tuple(np.concatenate(arrays) for arrays in zip(own, *below, strict=True))

    def _tree(self, nodes: NDArray[np.int32], values: Array, sets: NDArray[np.bool_]) -> Tree:
        """The tree in original units."""
        found = np.empty(len(nodes), NODE)
        _fill(nodes, values, found)
        columns, low, high = (nodes[:, k] for k in (_grow.FEATURE, _grow.LOW, _grow.HIGH))
        self.binner.thresholds(columns, low, high, found["threshold"])
        if len(sets):
            sets = sets[(columns >= 0) & (low < 0)]
        return Tree(found, values[:, _grow.GAIN], values[:, _grow.COVER], sets)


@njit(cache=True, nogil=True)
def _fill(nodes, values, out):
    """Nodes as the growth left them, as `NODE` [m]; thresholds of numbers are missing."""
    sets = 0
    for i in range(out.size):
        node, inner = out[i], nodes[i, _grow.FEATURE] >= 0
        categorical = inner and nodes[i, _grow.LOW] < 0
        node["threshold"] = 0.0 if categorical else values[i, _grow.VALUE]
        node["feature"] = nodes[i, _grow.FEATURE]
        node["right"] = nodes[i, _grow.RIGHT] if inner else 0
        node["missing_left"] = nodes[i, _grow.MISSING_LEFT] if inner else 0
        node["left_set"] = sets if categorical else -1
        sets += categorical


_FIRST = np.zeros(1, np.int64)


def add_tree(out: Array, X: Array, tree: Tree) -> None:
    """Add a tree's predictions to ``out`` [n]; ``X`` float64 [n, d] without gaps in memory."""
    _add_trees(X, tree.nodes, _FIRST, tree.left_sets, 1.0, out)


class Forest(NamedTuple):
    """Trees one after the other, for the prediction.

    Attributes:
        nodes: `NODE` [m] of all trees.
        roots: int64 [trees], the place of each tree's first node.
        left_sets: bool [s, 256].
    """

    nodes: NDArray[Any]
    roots: NDArray[np.int64]
    left_sets: NDArray[np.bool_]

    @classmethod
    def of(cls, trees: Sequence[Tree]) -> Forest:
        """Put trees together."""
        nodes = np.concatenate([np.empty(0, NODE), *(tree.nodes for tree in trees)])
        sizes = [len(tree.nodes) for tree in trees]
        shifts = np.cumsum([0, *(len(tree.left_sets) for tree in trees)])
        nodes["left_set"] += np.where(
            nodes["left_set"] >= 0, np.repeat(shifts[:-1], sizes), 0
        ).astype(np.int32)
        sets = np.concatenate([np.empty((0, _grow.BINS), np.bool_), *(t.left_sets for t in trees)])
        return cls(nodes, np.cumsum([0, *sizes])[:-1], sets)

    def add_to(self, out: Array, X: Array, rate: float) -> None:
        """Add the trees' predictions, times a rate, to ``out`` [n].

        ``X`` is float64 [n, d], NaN for missing values, numbers for categories.
        """
        _add_trees(np.ascontiguousarray(X), self.nodes, self.roots, self.left_sets, rate, out)


@njit(cache=True, nogil=True)
def goes_left(node, x, left_sets):
    """Whether a value falls on the left of a node's split."""
    if np.isnan(x):
        return node["missing_left"] != 0
    if node["left_set"] >= 0:
        return left_sets[node["left_set"], int(x)]
    return x <= node["threshold"]


@njit(cache=True, nogil=True)
def _add_trees(X, nodes, roots, left_sets, rate, out):
    for root in roots:
        for row in range(X.shape[0]):
            place = root
            node = nodes[place]
            while node["feature"] >= 0:
                left = goes_left(node, X[row, node["feature"]], left_sets)
                place += 1 if left else node["right"]
                node = nodes[place]
            out[row] += rate * node["threshold"]


@njit(cache=True, nogil=True)
def add_leaves(out, rows, nodes, segments):
    """Add a tree's values to the rows that it was grown on, leaf by leaf."""
    for i in range(nodes.size):
        if nodes[i]["feature"] < 0:
            value = nodes[i]["threshold"]
            for k in range(segments[i, 0], segments[i, 1]):
                out[rows[k]] += value
