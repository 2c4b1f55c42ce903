"""What a fit learns: a sum of trees and ridge regressions, and its predictions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmxx.tabular.snapboost.fourier import Encoder, Projection, add_product
from mmxx.tabular.snapboost.tree import Forest, Map, Tree, add_tree

Array = NDArray[np.float64]
_CHUNK = 4096  # rows predicted together
SAMPLE = 512  # rows on which the slopes of ridge rounds are measured


class Learner(NamedTuple):
    """What one round added, for one class.

    Attributes:
        round: Its number, from 0.
        kind: "tree" or "ridge".
        klass: The row of the raw predictions that it adds to.
        depth: The tree's greatest depth as drawn; 0 for a ridge.
        tree: The tree.
        coef: float64 [c + 1], the ridge's coefficients, the intercept last.
    """

    round: int
    kind: Literal["tree", "ridge"]
    klass: int
    depth: int = 0
    tree: Tree | None = None
    coef: Array | None = None

    @property
    def leaves(self) -> int:
        """How many leaves the tree has; 0 for a ridge."""
        return 0 if self.tree is None else self.tree.leaves


@contextmanager
def workers(n_jobs: int | None) -> Iterator[tuple[int, Map]]:
    """How many threads ``n_jobs`` means, and a map that spreads calls over them."""
    threads = 1 if n_jobs is None else n_jobs if n_jobs > 0 else os.cpu_count() or 1
    if threads == 1:
        yield 1, map
        return
    with ThreadPoolExecutor(threads) as pool:
        yield threads, pool.map


@dataclass
class Ensemble:
    """The learners so far.

    Attributes:
        base: float64 [classes, 1], where the sum begins.
        rate: What each learner is multiplied by.
        learners: In the order of their rounds.
        encoder, projection: Of the ridge rounds; None where there can be none.
    """

    base: Array
    rate: float
    learners: list[Learner] = field(default_factory=list)
    encoder: Encoder | None = None
    projection: Projection | None = None

    @property
    def classes(self) -> int:
        """Rows of the raw predictions."""
        return len(self.base)

    def raw(self, X: Array, rounds: int, n_jobs: int | None = None) -> Array:
        """The sum of the first rounds' learners: [classes, n]; ``X`` float64 [n, d]."""
        chosen = [learner for learner in self.learners if learner.round < rounds]
        forests = [
            Forest.of([one.tree for one in chosen if one.tree is not None and one.klass == k])
            for k in range(self.classes)
        ]
        ridges = [total_coefficients(chosen, k) for k in range(self.classes)]
        out = np.repeat(self.base, len(X), axis=1)

        def add(start: int) -> None:
            rows = slice(start, start + _CHUNK)
            part = np.ascontiguousarray(X[rows])
            phi = None if all(beta is None for beta in ridges) else self.features(part)
            for k, (forest, beta) in enumerate(zip(forests, ridges, strict=True)):
                forest.add_to(out[k, rows], part, self.rate)
                if beta is not None:
                    add_product(phi, self.rate * beta, out[k, rows])

        with workers(n_jobs if len(X) > _CHUNK else None) as (_, spread):
            list(spread(add, range(0, len(X), _CHUNK)))
        return out

    def staged(self, X: Array, rounds: int) -> Iterator[Array]:
        """The sum after each of the first rounds, [classes, n] each; always the same array."""
        X = np.ascontiguousarray(X)
        out = np.repeat(self.base, len(X), axis=1)
        phi = self.features(X) if any(one.coef is not None for one in self.learners) else None
        for number in range(rounds):
            self.advance(out, X, phi, self.of_round(number))
            yield out

    def of_round(self, number: int) -> list[Learner]:
        """The learners of one round, one for each class."""
        return self.learners[number * self.classes : (number + 1) * self.classes]

    def features(self, X: Array) -> NDArray[np.float32]:
        """The Fourier features of some rows: float32 [n, c]."""
        assert self.encoder is not None
        assert self.projection is not None
        return self.projection(self.encoder(X))

    def advance(
        self,
        out: Array,
        X: Array,
        phi: NDArray[np.float32] | None,
        learners: Sequence[Learner],
    ) -> None:
        """Add a round's learners to ``out``, [classes, n], in place."""
        for one in learners:
            step = np.zeros(len(X))
            if one.tree is not None:
                add_tree(step, X, one.tree)
            else:
                add_product(phi, one.coef, step)
            out[one.klass] += self.rate * step

    def importances(
        self, columns: int, ridge_gain: float, sample: NDArray[np.float32] | None
    ) -> Array:
        """Each column's share in what all rounds took off the objective: [columns], of sum 1.

        A tree's splits say whose it is. What the ridge rounds took off is shared by the squares
        of their sum's slopes times the variances of the columns.

        Args:
            columns: How many there are.
            ridge_gain: What the ridge rounds took off.
            sample: Encoded rows, float32 [m, width], at which slopes are measured.
        """
        total = np.zeros(columns)
        for one in self.learners:
            if one.tree is not None:
                inner = one.tree.nodes["feature"] >= 0
                np.add.at(total, one.tree.nodes["feature"][inner], one.tree.gains[inner])
        slopes = np.zeros(columns)
        for k in range(self.classes):
            beta = total_coefficients(self.learners, k)
            if beta is not None:
                assert self.encoder is not None
                assert self.projection is not None
                assert sample is not None
                slope = self.projection.slopes(sample, beta)
                effect = np.square(slope).mean(0) * sample.var(0)
                np.add.at(slopes, self.encoder.origins, effect)
        if slopes.sum() > 0:
            total += ridge_gain * slopes / slopes.sum()
        return total / total.sum() if total.sum() > 0 else total


def total_coefficients(learners: Sequence[Learner], klass: int) -> Array | None:
    """The sum of a class's ridge coefficients, or None."""
    coefs = [one.coef for one in learners if one.coef is not None and one.klass == klass]
    return np.sum(coefs, axis=0) if coefs else None
