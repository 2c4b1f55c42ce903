"""Test questions that lie in the training text: found, counted, and cut out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmxx.language.gpt3 import words
from mmxx.language.gpt3.tasks import Task

_STUDIED = (8, 13)  # words of a run in the study, at least and at most


@dataclass(frozen=True)
class Report:
    """How much of a task lies in the training text, and what that does to a score.

    Attributes:
        task: Its name.
        ngram: Words of the runs that were looked for.
        dirty: Which questions share a run with the text, bool [n].
        all: Mean score of all questions; NaN where there were no scores.
        clean: Of those that share none; NaN where there are none.
        contaminated: Of those that do.
    """

    task: str
    ngram: int
    dirty: np.ndarray
    all: float = math.nan
    clean: float = math.nan
    contaminated: float = math.nan

    @property
    def difference(self) -> float:
        """By how much the clean questions' score differs from that of all, relative to it."""
        return (self.clean - self.all) / abs(self.all) if self.all else math.nan

    def row(self) -> dict[str, str | float]:
        """The figures, for a table."""
        return {
            "task": self.task, "words of a run": self.ngram, "questions": len(self.dirty),
            "dirty": int(self.dirty.sum()), "all": self.all, "clean": self.clean,
            "contaminated": self.contaminated, "relative difference": self.difference,
        }  # fmt: skip


class Contamination:
    """An index of the runs of words in a training text.

    Runs are looked up by hashes of 64 bits, and what is found is compared word by word.

    Args:
        ngram: Words of a run, for `clean`; a report chooses its own.
        frequent: A run in more documents than that counts as common, and is ignored.

    Source: Brown et al. (2020), appendix C.
    """

    def __init__(self, *, ngram: int = 13, frequent: int = 10) -> None:
        if ngram < 1 or frequent < 1:
            raise ValueError(f"ngram and frequent must be 1 or more, got {ngram} and {frequent}")
        self.ngram, self.frequent = ngram, frequent

    def fit(self, train: Sequence[str]) -> Contamination:
        """Read the training text.

        Args:
            train: Its documents.
        """
        self._docs = list(train)
        found = [words.hashed(text)[0] for text in self._docs]
        self._words = np.concatenate([np.empty(0, np.uint64), *found])
        self._bounds = np.cumsum([0, *map(len, found)])
        self._indexes: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._located: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        return self

    def report(self, task: Task, scores: Sequence[float] | None = None) -> Report:
        """Which questions of a task share a run of words with the training text.

        The runs' length is the 5th percentile of the questions' lengths, held within 8 and 13.

        Args:
            task: The task; a question is its context with the right answer.
            scores: What each question scored, [n], for the means.
        """
        texts = [task.shot(example) for example in task.examples]
        lengths = [len(words.hashed(text)[0]) for text in texts]
        ngram = int(np.clip(np.percentile(lengths, 5), *_STUDIED))
        dirty = np.array([self.overlaps(text, ngram) for text in texts])
        if scores is None:
            return Report(task.name, ngram, dirty)
        values = np.asarray(scores, float)
        if len(values) != len(dirty):
            raise ValueError(f"scores must have {len(dirty)} values, got {len(values)}")
        means = [v.mean() if len(v) else math.nan for v in (values, values[~dirty], values[dirty])]
        return Report(task.name, ngram, dirty, *map(float, means))

    def overlaps(self, text: str, ngram: int | None = None) -> bool:
        """Whether a text shares a run of words that is not common with the training text.

        Args:
            text: The text; one of fewer words than a run is a run itself.
            ngram: Words of a run; by default that of the index.
        """
        return bool(self._hits(text, ngram or self.ngram).any())

    def clean(self, text: str, benchmarks: Contamination) -> list[str]:
        """A training document without what it shares with benchmarks.

        Of every shared run and 200 characters on each side nothing is left; pieces shorter than
        200 characters go, and a document that falls into more than ten goes as a whole.

        Args:
            text: A document of the training text, which this index was fitted on: runs that are
                common there are left alone.
            benchmarks: An index of the benchmarks' questions, with the same ``ngram``.

        Returns:
            What is left, in pieces.
        """
        shared = benchmarks._hits(text, self.ngram, common=False)
        _, starts, ends = words.hashed(text)
        common = self._common(text)
        cuts = [
            (int(starts[i]) - 200, int(ends[i + self.ngram - 1]) + 200)
            for i in np.flatnonzero(shared & ~common)
        ]
        pieces, at = [], 0
        for start, end in cuts:
            if start > at:
                pieces.append(text[at:start])
            at = max(at, end)
        pieces.append(text[at:])
        if not cuts:
            return [text]
        pieces = [piece for piece in pieces if len(piece) >= 200]
        return pieces if len(pieces) <= 10 else []

    def _common(self, text: str) -> np.ndarray:
        keys, counts, _ = self._index(self.ngram)
        hashes = words.runs(words.hashed(text)[0], self.ngram)
        at = np.minimum(np.searchsorted(keys, hashes), max(len(keys) - 1, 0))
        return (
            (keys[at] == hashes) & (counts[at] > self.frequent)
            if len(keys)
            else np.zeros(len(hashes), bool)
        )

    def _hits(self, text: str, ngram: int, *, common: bool = True) -> np.ndarray:
        """Which runs of a text lie in the training text, bool [runs]; common ones do not count."""
        own = words.hashed(text)[0]
        ngram = min(ngram, max(len(own), 1))
        hashes = words.runs(own, ngram)
        keys, counts, places = self._index(ngram)
        hits = np.zeros(len(hashes), bool)
        if not len(keys) or not len(hashes):
            return hits
        at = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
        likely = keys[at] == hashes
        if common:
            likely &= counts[at] <= self.frequent
        spelled = words.spelled(text) if likely.any() else []
        for i in np.flatnonzero(likely):
            hits[i] = self._spelled_at(int(places[at[i]]), ngram) == spelled[i : i + ngram]
        return hits

    def _spelled_at(self, place: int, ngram: int) -> list[str]:
        """The words of the training text from the word of that number on."""
        doc = int(np.searchsorted(self._bounds, place, side="right")) - 1
        text, first = self._docs[doc], place - int(self._bounds[doc])
        if doc not in self._located:
            self._located[doc] = words.hashed(text)[1:]
        starts, ends = self._located[doc]
        return words.spelled(text[starts[first] : ends[first + ngram - 1]])

    def _index(self, ngram: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hashes of all runs, sorted and each once; documents that hold each; where one lies."""
        if ngram not in self._indexes:
            parts, places = [], []
            for start, end in zip(self._bounds[:-1], self._bounds[1:], strict=True):
                hashes, first = np.unique(
                    words.runs(self._words[start:end], ngram), return_index=True
                )
                parts.append(hashes)
                places.append(first + start)
            hashes = np.concatenate([np.empty(0, np.uint64), *parts])
            place = np.concatenate([np.empty(0, np.int64), *places])
            keys, first, counts = np.unique(hashes, return_index=True, return_counts=True)
            self._indexes[ngram] = (keys, counts, place[first])
        return self._indexes[ngram]


def decontaminate(
    docs: Sequence[str], tasks: Sequence[Task], *, ngram: int = 13, frequent: int = 10
) -> list[str]:
    """A training text without the questions of some tasks.

    Args:
        docs: Its documents.
        tasks: The tasks.
        ngram: Words of a shared run.
        frequent: A run in more documents than that is common, and stays.

    Returns:
        The documents, and the pieces of documents, that are left.
    """
    own = Contamination(ngram=ngram, frequent=frequent).fit(docs)
    texts = [task.shot(example) for task in tasks for example in task.examples]
    questions = Contamination(ngram=ngram).fit(texts)
    return [piece for text in docs for piece in own.clean(text, questions)]
