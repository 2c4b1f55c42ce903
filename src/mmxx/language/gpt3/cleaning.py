"""Cleaning a crawl: a filter of quality, and documents that are almost alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

from mmxx.language.gpt3 import words
from mmxx.language.gpt3.packing import Map

_SHARD = 512  # documents of a task of `map`


class Quality:
    """Keeps documents that read like good ones, and a few that do not.

    A logistic regression on hashed counts of words tells good texts from raw ones; a document is
    kept where numpy's ``pareto(alpha)`` exceeds 1 - score, that is with probability
    (2 - score)^-alpha.

    Args:
        features: Numbers that words are hashed to.
        random_state: Seed of the classifier.

    Source: Brown et al. (2020), appendix A.
    """

    def __init__(self, *, features: int = 1 << 18, random_state: int | None = 0) -> None:
        self.features, self.random_state = features, random_state

    def fit(self, good: Sequence[str], raw: Sequence[str]) -> Quality:
        """Learn from examples.

        Args:
            good: Texts to keep.
            raw: Texts of the crawl, good ones among them.

        Raises:
            ValueError: One of them is empty.
        """
        from sklearn.linear_model import LogisticRegression

        for name, texts in (("good", good), ("raw", raw)):
            if not len(texts):
                raise ValueError(f"{name} must hold one text or more")
        labels = np.repeat([1, 0], [len(good), len(raw)])
        self.classifier_ = LogisticRegression(max_iter=1000, random_state=self.random_state)
        self.classifier_.fit(self._counts([*good, *raw]), labels)
        return self

    def score(self, docs: Sequence[str]) -> np.ndarray:
        """The probability that each text is a good one, [n].

        Args:
            docs: The texts.
        """
        return self.classifier_.predict_proba(self._counts(docs))[:, 1]

    def keep(
        self, docs: Sequence[str], *, alpha: float = 9.0, random_state: int | None = 0
    ) -> np.ndarray:
        """Which documents to keep, bool [n].

        Args:
            docs: The texts.
            alpha: The Pareto distribution's; with more, fewer poor texts stay.
            random_state: Seed of the draws.

        Raises:
            ValueError: ``alpha`` is not positive.
        """
        return kept(self.score(docs), alpha, np.random.default_rng(random_state))

    def _counts(self, docs: Sequence[str]) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(n_features=self.features, alternate_sign=False).transform(docs)


def kept(scores: np.ndarray, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Which of some scores the Pareto draw keeps, bool [n]."""
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    return rng.pareto(alpha, len(scores)) > 1 - scores


def shingles(text: str, size: int = 5) -> np.ndarray:
    """Hashes of the runs of ``size`` words of a text, sorted and each once, uint64.

    Args:
        text: The text; one of fewer words is a single run.
        size: Words of a run.
    """
    found = words.hashed(text)[0]
    return np.unique(words.runs(found, min(size, max(1, len(found)))))


def minhash(
    docs: Sequence[str], *, num_hashes: int = 10, size: int = 5, seed: int = 0, map: Map = map
) -> np.ndarray:
    """Signatures whose parts are equal as often as two texts' runs of words are the same.

    Args:
        docs: The texts.
        num_hashes: Parts of a signature.
        size: Words of a run.
        seed: Of the hash functions.
        map: What spreads the work: ``map(fn, items)``.

    Returns:
        uint64 [n, num_hashes]. A part of two signatures is equal with the probability that is
        the Jaccard similarity of their sets of runs.

    Source: Broder (1997).
    """
    if num_hashes < 1 or size < 1:
        raise ValueError(f"num_hashes and size must be 1 or more, got {num_hashes} and {size}")
    salts = np.random.default_rng(seed).integers(1, 2**63, num_hashes).astype(np.uint64)
    shards = [(docs[i : i + _SHARD], salts, size) for i in range(0, len(docs), _SHARD)]
    found = list(map(_signatures, shards))
    return np.concatenate(found) if found else np.empty((0, num_hashes), np.uint64)


def _signatures(shard: tuple[Sequence[str], np.ndarray, int]) -> np.ndarray:
    docs, salts, size = shard
    found = np.empty((len(docs), len(salts)), np.uint64)
    for row, text in zip(found, docs, strict=True):
        hashes = words.hashed(text)[0]
        _least(words.runs(hashes, min(size, max(1, len(hashes)))), salts, row)
    return found


@njit(cache=True, nogil=True)
def _least(values, salts, row):
    row[:] = np.uint64(0xFFFFFFFFFFFFFFFF)
    for value in values:
        for k in range(len(salts)):
            row[k] = min(row[k], words.mixed(value ^ salts[k]))


def dedup(
    docs: Sequence[str],
    *,
    num_hashes: int = 10,
    bands: int = 5,
    threshold: float = 0.5,
    size: int = 5,
    seed: int = 0,
    map: Map = map,
) -> np.ndarray:
    """Which documents to keep so that no two of them are almost alike, bool [n].

    Signatures are cut into bands; documents that agree in a band are compared by all their runs
    of words. A pair of similarity s is compared with probability 1 - (1 - s^r)^bands, with
    r = num_hashes / bands. Of documents that hang together the first is kept.

    Args:
        docs: The texts.
        num_hashes: Parts of a signature.
        bands: Bands; they divide ``num_hashes``.
        threshold: Jaccard similarity from which two documents are alike.
        size: Words of a run.
        seed: Of the hash functions.
        map: What spreads the work: ``map(fn, items)``.

    Raises:
        ValueError: Numbers out of range.

    Source: Brown et al. (2020), appendix A; Leskovec et al., Mining of Massive Datasets, 3.4.
    """
    if bands < 1 or num_hashes % bands:
        raise ValueError(f"bands must divide num_hashes={num_hashes}, got {bands}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    signatures = minhash(docs, num_hashes=num_hashes, size=size, seed=seed, map=map)
    parents = np.arange(len(docs))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = int(parents[parents[i]])
        return i

    sets: dict[int, np.ndarray] = {}

    def runs_of(i: int) -> np.ndarray:
        if i not in sets:
            sets[i] = shingles(docs[i], size)
        return sets[i]

    for band in np.split(signatures, bands, axis=1):
        for bucket in _buckets(band):
            seen: list[int] = []  # one document of each group in the bucket
            for i in bucket:
                if root(i) in {root(j) for j in seen}:
                    continue
                alike = [j for j in seen if jaccard(runs_of(i), runs_of(j)) >= threshold]
                for j in alike:
                    first, second = sorted((root(i), root(j)))
                    parents[second] = first
                if not alike:
                    seen.append(i)
    return parents == np.arange(len(docs))


def _buckets(band: np.ndarray) -> Iterable[list[int]]:
    """The documents that agree in a band, in order, where there are two or more."""
    _, which, counts = np.unique(band, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    for group in np.split(order, np.cumsum(counts)[:-1]):
        if len(group) > 1:
            yield group.tolist()


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Shared part of two sets, given as sorted arrays.

    Args:
        left: One set.
        right: The other.
    """
    both = len(np.intersect1d(left, right, assume_unique=True))
    either = len(left) + len(right) - both
    return both / either if either else 1.0
