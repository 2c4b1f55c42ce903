"""A mixture of texts whose tasks are never named, and the best that any reader can do.

Three kinds of document, one task each: pairs of a word and its translation into the document's
language, with code-switching; pairs under a map of novel words that is fresh in each document;
and repeated strings. Only the documents before tell the lexicon, only the pairs before tell the
language: the first lies in a model's weights, the second in its context.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

LANGUAGES = 6
WORDS = 40
NOVEL = 16  # words that have no meaning of their own, and as many that they are paired with
MAPPED = 4  # of them in a document
LETTERS = 32
SWITCHING = 0.5
PERIODS = (3, 8)

END = 0
_WORD = 1
_TRANSLATION = _WORD + WORDS
_NOVEL = _TRANSLATION + LANGUAGES * WORDS
_TARGET = _NOVEL + NOVEL
_LETTER = _TARGET + NOVEL
VOCABULARY = _LETTER + LETTERS

_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
_ENDINGS = ("an", "esh", "il", "or", "um", "yt")


class Documents:
    """Endless documents; row i is a function of the seed and of where its batch begins.

    Args:
        shots: Pairs of a document but the last, K.
        mixture: How many documents are translations ("T"), novel words ("N") and repeated
            strings ("S"), in proportion.
        switching: Probability ν that a translation is into a random language.
        coherent: With False every pair of a translation is into a random language: the same
            pairs as often, and nothing to learn from the context.
        seed: Of the documents.

    Attributes:
        n_ctx: Tokens of a document but the first one, 2 (K + 1): an end-of-text mark and pairs.
    """

    def __init__(
        self,
        shots: int = 16,
        mixture: Mapping[str, float] | None = None,
        *,
        switching: float = SWITCHING,
        coherent: bool = True,
        seed: int = 0,
    ) -> None:
        mixture = {"T": 2.0, "N": 1.0, "S": 1.0} if mixture is None else dict(mixture)
        if set(mixture) - set("TNS") or not sum(mixture.values()) > 0 or min(mixture.values()) < 0:
            raise ValueError(f"mixture must give weights to T, N and S, got {mixture}")
        if shots < 0:
            raise ValueError(f"shots must be 0 or more, got {shots}")
        if not 0 <= switching <= 1:
            raise ValueError(f"switching must lie in [0, 1], got {switching}")
        self.shots, self.switching, self.coherent, self.seed = shots, switching, coherent, seed
        self.n_ctx = 2 * (shots + 1)
        self._kinds = list(mixture)
        self._weights = np.array(list(mixture.values())) / sum(mixture.values())

    def rows(self, start: int, count: int) -> Tensor:
        """Documents of the mixture, int64 [count, n_ctx + 1].

        Args:
            start: Documents that were read before.
            count: How many.
        """
        rng = np.random.default_rng([self.seed, start])
        kinds = rng.choice(len(self._kinds), count, p=self._weights)
        makers: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
            "T": lambda rng, count: self.translations(rng, count)[0],
            "N": lambda rng, count: self.novel_words(rng, count)[0],
            "S": self.repeated,
        }
        found = np.empty((count, self.n_ctx + 1), np.int64)
        for kind, name in enumerate(self._kinds):
            found[kinds == kind] = makers[name](rng, int((kinds == kind).sum()))
        return torch.from_numpy(found)

    def translations(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Documents of translations, and what each pair would be in the document's language.

        Returns:
            Tokens [count, n_ctx + 1] and answers [count, shots + 1].
        """
        pairs = self.shots + 1
        language = rng.integers(LANGUAGES, size=(count, 1))
        words = rng.integers(WORDS, size=(count, pairs))
        other = rng.integers(LANGUAGES, size=(count, pairs))
        switched = rng.random((count, pairs)) < (self.switching if self.coherent else 1.0)
        spoken = np.where(switched, other, language)
        tokens = _paired(_WORD + words, _TRANSLATION + spoken * WORDS + words)
        return tokens, _TRANSLATION + language * WORDS + words

    def novel_words(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Documents of novel words and their answers, shapes as in `translations`."""
        keys, values = (
            rng.permuted(np.tile(np.arange(NOVEL), (count, 1)), axis=1)[:, :MAPPED]
            for _ in range(2)
        )
        which = rng.integers(MAPPED, size=(count, self.shots + 1))
        answers = _TARGET + np.take_along_axis(values, which, 1)
        return _paired(_NOVEL + np.take_along_axis(keys, which, 1), answers), answers

    def repeated(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Documents of one string of 3 to 8 letters again and again, [count, n_ctx + 1]."""
        period = rng.integers(PERIODS[0], PERIODS[1] + 1, size=(count, 1))
        letters = rng.integers(LETTERS, size=(count, PERIODS[1]))
        text = np.take_along_axis(letters, np.arange(self.n_ctx) % period, 1)
        return np.concatenate([np.full((count, 1), END), _LETTER + text], 1)


def _paired(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """An end mark and x y x y …, [count, 2 pairs + 1]."""
    count = len(left)
    return np.concatenate(
        [np.full((count, 1), END), np.stack([left, right], 2).reshape(count, 2 * left.shape[1])], 1
    )


def bayes_accuracy(
    shots: int, *, languages: int = LANGUAGES, switching: float = SWITCHING
) -> float:
    """How often the best reader knows the document's language after that many pairs.

    A translation is into the document's language with probability 1 - ν + ν/R and into each
    other one with ν/R, so that the best guess is the language seen most often; ties are broken
    at random. By enumeration of how often each language can be seen.

    Args:
        shots: Pairs seen, K.
        languages: Languages, R.
        switching: Probability ν of a random language.

    Example:
        >>> [round(bayes_accuracy(k), 3) for k in (0, 1, 2, 4, 16)]
        [0.167, 0.583, 0.583, 0.786, 0.991]
    """
    right, wrong = 1 - switching + switching / languages, switching / languages
    total = 0.0
    for own in range(shots + 1):
        rest = shots - own
        share = math.comb(shots, own) * right**own * wrong**rest
        # how the rest can fall on the other languages: n of them tie with ours, none exceeds it
        for ties in range(languages):
            ways = _ways(rest, languages - 1, own, ties)
            total += share * ways / (ties + 1)
    return total


@cache
def _ways(shots: int, languages: int, most: int, ties: int) -> int:
    """Sequences in which no language is seen more than ``most`` times and ``ties`` are as often."""
    if languages == 0:
        return int(shots == 0 and ties == 0)
    found = 0
    for seen in range(min(shots, most) + 1):
        left = ties - (seen == most)
        if left >= 0:
            found += math.comb(shots, seen) * _ways(shots - seen, languages - 1, most, left)
    return found


def render(tokens: Tensor) -> str:
    """A document as a person can read it, without its end mark."""
    names = [_name(token) for token in tokens.tolist() if token != END]
    if int(tokens[-1]) >= _LETTER:
        return " ".join(names)
    return ", ".join(" ".join(names[i : i + 2]) for i in range(0, len(names), 2))


def _name(token: int) -> str:
    if token < _TRANSLATION:
        return _stem(token - _WORD)
    if token < _NOVEL:
        language, word = divmod(token - _TRANSLATION, WORDS)
        return _stem(word) + _ENDINGS[language]
    if token < _TARGET:
        return _stem(WORDS + token - _NOVEL) + "x"
    if token < _LETTER:
        return _stem(WORDS + NOVEL + token - _TARGET) + "q"
    letter = token - _LETTER
    return chr(ord("a") + letter % 26) * (1 + letter // 26)


def _stem(word: int) -> str:
    return _SYLLABLES[word * 7 % len(_SYLLABLES)] + _SYLLABLES[word * 11 % 67]
