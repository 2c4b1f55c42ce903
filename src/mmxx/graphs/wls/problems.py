"""What the experiment is measured on where no file is given: signed trees, and planted patterns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from mmxx.data.graphs import Graphs, assemble
from mmxx.data.source import DataError, Source, read_bytes
from mmxx.data.text import decode
from mmxx.graphs.wls.expansion import Floats

Indices = NDArray[np.int64]
_AGREE = (0.8, 0.5, 0.2)  # chance that a node has its parent's sign, for each class
_NEAR = 6  # nodes before a node of which one is its parent
_FOLDS_ACCEPTED = "lines of integers parted by commas, one line a fold"
_LINE = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*")


def signed_trees(rng: np.random.Generator, count: int, nodes: int = 40) -> Graphs:
    """Trees of three classes that differ in how neighbours' attributes go together.

    Every node has a hidden sign, which is its parent's with a chance of .8, .5 or .2, and the
    attributes sign · a + N(0, .3²), a = (1, 1, 1, 1) / 2. Single nodes are distributed alike in
    all classes, and so is every linear statistic 1ᵀAᵏX in expectation.

    Args:
        rng: What is drawn from.
        count: How many trees; classes take turns.
        nodes: Nodes of each.
    """
    direction = np.full(4, 0.5)
    parts, targets = [], []
    for number in range(count):
        label = number % 3
        signs, parents = np.ones(nodes), np.zeros(nodes, dtype=np.int64)
        signs[0] = rng.choice([-1.0, 1.0])
        for node in range(1, nodes):
            parents[node] = rng.integers(max(0, node - _NEAR), node)
            agrees = rng.random() < _AGREE[label]
            signs[node] = signs[parents[node]] * (1 if agrees else -1)
        ends = np.stack([parents[1:], np.arange(1, nodes)])
        x = signs[:, None] * direction + 0.3 * rng.standard_normal((nodes, 4))
        parts.append((nodes, np.hstack([ends, ends[::-1]]), {"attributes": x}))
        targets.append(label)
    source = Source("signed trees", "Apache-2.0", "mmxx.graphs.wls.problems", generated=True)
    return assemble(parts, targets=targets, source=source)


def planted_patterns(
    rng: np.random.Generator, count: int, sizes: tuple[int, int] = (5, 15), pattern: int = 10
) -> tuple[Graphs, Indices]:
    """Graphs of five communities with a pattern planted, whose nodes are to be found.

    A stochastic block model as of SBM_PATTERN, smaller: nodes of one community are joined with a
    chance of .5, of two with .35, and those of the pattern with .5 to one another and to all. Each
    node has one of three signals, drawn at random, but the pattern's nodes carry one of ten fixed
    sequences.

    Args:
        rng: What is drawn from.
        count: How many graphs.
        sizes: Least and largest number of nodes of a community.
        pattern: Nodes of the pattern.

    Returns:
        The graphs, with signals as node labels, and for each node whether it is of the pattern.
    """
    signals = rng.integers(3, size=(10, pattern))
    parts, found = [], []
    for _ in range(count):
        communities = rng.integers(sizes[0], sizes[1] + 1, size=5)
        block = np.repeat(np.arange(6), [*communities, pattern])
        chance = np.where(block[:, None] == block, 0.5, 0.35)
        planted = block == 5
        chance[planted] = chance[:, planted] = 0.5
        upper = np.triu(rng.random(chance.shape) < chance, 1)
        order = rng.permutation(block.size)  # so that a node's number tells nothing
        joined = (upper | upper.T)[np.ix_(order, order)]
        labels = rng.integers(3, size=block.size)
        labels[planted] = signals[rng.integers(10)]
        parts.append((block.size, np.stack(np.nonzero(joined)), {"node_labels": labels[order]}))
        found.append(planted[order].astype(np.int64))
    return assemble(parts), np.concatenate(found)


class Fold(NamedTuple):
    """Numbers of the graphs to fit, to choose, and to judge by."""

    train: Indices
    validation: Indices
    test: Indices


def make_folds(targets: Indices, count: int, rng: np.random.Generator, keep: int) -> list[Fold]:
    """Stratified folds: fold k is judged by part k and chosen by part k + 1.

    Args:
        targets: The class of each graph.
        count: Parts.
        rng: What is drawn from.
        keep: How many folds are used.

    Raises:
        ValueError: Some class has fewer graphs than there are parts.
    """
    classes, sizes = np.unique(targets, return_counts=True)
    if sizes.min() < count:
        raise ValueError(
            f"data: class {classes[sizes.argmin()]} has {sizes.min()} graphs; accepted: {count} or "
            "more, one for each fold"
        )
    split = StratifiedKFold(count, shuffle=True, random_state=int(rng.integers(2**31)))
    parts = [test for _, test in split.split(targets, targets)]
    found = []
    for k in range(keep):
        test, validation = parts[k], parts[(k + 1) % count]
        train = np.setdiff1d(np.arange(targets.size), np.union1d(test, validation))
        found.append(Fold(train, validation, test))
    return found


def read_folds(prefix: str | PathLike[str], graphs: int, keep: int) -> list[Fold]:
    """Folds from ``PREFIX_train.index``, ``PREFIX_val.index`` and ``PREFIX_test.index``.

    Args:
        prefix: Where the files lie, and how their names begin.
        graphs: How many graphs there are.
        keep: How many folds are used, or all where there are fewer.

    Raises:
        DataError: A file is missing or holds something else; a number is out of range; the three
            files have different numbers of lines; a graph stands twice in a fold.
    """
    tables: list[list[Indices]] = []
    for part in ("train", "val", "test"):
        path = Path(f"{prefix}_{part}.index")
        lines = decode(read_bytes(path, _FOLDS_ACCEPTED), path, _FOLDS_ACCEPTED).splitlines()
        lines = [line for line in lines if line.strip()]
        for number, line in enumerate(lines):
            if not _LINE.fullmatch(line):
                raise DataError(path, f"line {number + 1}: {line[:40]!r}", _FOLDS_ACCEPTED)
        rows = [np.array(line.split(","), dtype=np.int64) for line in lines]
        if any(row.max() >= graphs for row in rows):
            raise DataError(path, f"graph {max(row.max() for row in rows)}", f"0 to {graphs - 1}")
        tables.append(rows)
    if len({len(rows) for rows in tables}) > 1:
        counts = ", ".join(str(len(rows)) for rows in tables)
        raise DataError(prefix, f"{counts} folds in three files", "as many in each")
    folds = [Fold(*rows) for rows in zip(*tables, strict=True)][:keep]
    for number, fold in enumerate(folds):
        if len(np.unique(np.concatenate(fold))) < sum(map(len, fold)):
            raise DataError(prefix, f"fold {number + 1} with a graph twice", "each graph once")
    return folds


def weighted_accuracy(predicted: Indices, truth: Indices, classes: Sequence[int]) -> float:
    """Mean over the classes of the share of its nodes that were found, in percent."""
    return float(100 * np.mean([(predicted[truth == c] == c).mean() for c in classes]))


def class_means(X: Floats, targets: Indices) -> Floats:
    """The mean vector of each class, [classes, d]."""
    return np.array([X[targets == c].mean(0) for c in np.unique(targets)])
