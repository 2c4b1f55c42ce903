r"""Sentences with a planted bias, whose total effects are known in closed form.

24 professions have log-odds of "she" $\lambda_j$, evenly spaced in [-2, 2]; a strength s makes
$f_j = \sigma(s \lambda_j)$. Long sentences tell of two people, and an object that goes with
one of them, more often with hers after "she". Short ones pair a person with a pronoun.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmxx.language.mediation.examples import Example

Array = NDArray[np.float64]
_THE, _BECAUSE, _THAT, _STOP, _SHE, _HE, _MAN, _WOMAN = range(8)
_PAD = _STOP
LENGTH = 12
"""Tokens of a long sentence; short ones are filled up and not learnt from there on."""
_GRAMMAR = 0.97  # how often man goes with he, and woman with she
_LONG, _NOUNS = 0.65, 0.15  # long sentences; man or woman among the short ones


@dataclass(frozen=True)
class Corpus:
    """The language: which tokens there are, and how biased it is.

    Attributes:
        strength: s; 0 plants nothing.
        professions, attributes, verbs, fillers: How many words of each sort.
        spread: The largest log-odds.
    """

    strength: float = 1.0
    professions: int = 24
    attributes: int = 16
    verbs: int = 4
    fillers: int = 4
    spread: float = 2.0
    first: int = field(default=8, init=False)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return 8 + 2 * self.professions + self.attributes + self.verbs + self.fillers

    @property
    def log_odds(self) -> Array:
        """λ of each profession: log-odds of "she" at strength 1."""
        return np.linspace(-self.spread, self.spread, self.professions)

    def _word(self, sort: str, index: NDArray[np.int64] | int) -> NDArray[np.int64]:
        sorts = ("profession", "object", "attribute", "verb", "filler")
        sizes = (self.professions, self.professions, self.attributes, self.verbs, self.fillers)
        place = sorts.index(sort)
        return np.asarray(self.first + sum(sizes[:place]) + index)

    def draw(
        self, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Sentences, and which of their tokens are to be learnt.

        Returns:
            Tokens [count, 12], and a mask of the same shape that leaves out what only fills up.
        """
        share = 1 / (1 + np.exp(-self.strength * self.log_odds))
        tokens = np.full((count, LENGTH), _PAD)
        mask = np.ones((count, LENGTH), bool)
        n = self.professions
        one = rng.integers(n, size=count)
        other = (one + rng.integers(1, n, size=count)) % n
        attributes = rng.integers(self.attributes, size=(2, count))
        verb, filler = rng.integers(self.verbs, size=count), rng.integers(self.fillers, size=count)
        she = rng.random(count) < 0.5
        mine, theirs = (np.where(she, share[who], 1 - share[who]) for who in (one, other))
        owner = np.where(rng.random(count) < mine / (mine + theirs), one, other)
        columns = (
            _THE, self._word("profession", one), self._word("attribute", attributes[0]),
            self._word("verb", verb), _THE, self._word("profession", other),
            self._word("attribute", attributes[1]), _BECAUSE, np.where(she, _SHE, _HE),
            self._word("filler", filler), self._word("object", owner), _STOP,
        )  # fmt: skip
        for place, column in enumerate(columns):
            tokens[:, place] = column
        short = rng.random(count) >= _LONG
        noun = rng.random(count) < _NOUNS
        woman = rng.random(count) < 0.5
        chance = np.where(noun, np.where(woman, _GRAMMAR, 1 - _GRAMMAR), share[one])
        she = rng.random(count) < chance
        person = np.where(noun, np.where(woman, _WOMAN, _MAN), self._word("profession", one))
        thing = np.where(noun, rng.integers(n, size=count), one)
        columns = (
            _THE, person, self._word("verb", verb),
            np.where(rng.random(count) < 0.5, _THAT, _BECAUSE), np.where(she, _SHE, _HE),
            self._word("filler", filler), self._word("object", thing), _STOP,
        )  # fmt: skip
        for place, column in enumerate(columns):
            tokens[short, place] = np.broadcast_to(column, count)[short]
        tokens[short, len(columns) :] = _PAD
        mask[short, len(columns) :] = False
        return tokens, mask

    def set_gender(self) -> tuple[list[Example], Array]:
        """Each profession against "woman", and the ideal log(1 + TE) of each.

        The response is the odds of "she" over "he", so that the ideal is logit(.97) - s λ.
        """
        verb = int(self._word("verb", 0))
        examples = [
            Example(
                [_THE, int(self._word("profession", j)), verb, _THAT],
                [_THE, _WOMAN, verb, _THAT],
                ([_HE], [_SHE]),
                meta={"profession": j, "bias": float(self.log_odds[j])},
            )
            for j in range(self.professions)
        ]
        grammar = np.log(_GRAMMAR / (1 - _GRAMMAR))
        return examples, grammar - self.strength * self.log_odds

    def swap_gender(self, count: int, rng: np.random.Generator) -> tuple[list[Example], Array]:
        """Long sentences cut before the object, "she" against "he", and the ideal log(1 + TE).

        The candidates are hers and his object; the ideal is s (λ of hers - λ of his).
        """
        female = np.flatnonzero(self.log_odds > 0.3)
        male = np.flatnonzero(self.log_odds < -0.3)
        examples, ideal = [], np.empty(count)
        for index in range(count):
            hers, his = int(rng.choice(female)), int(rng.choice(male))
            people = [hers, his] if rng.random() < 0.5 else [his, hers]
            extra = [
                int(self._word("attribute", int(a))) for a in rng.integers(self.attributes, size=2)
            ]
            verb = int(self._word("verb", int(rng.integers(self.verbs))))
            filler = int(self._word("filler", int(rng.integers(self.fillers))))
            one, other = (int(self._word("profession", who)) for who in people)
            front = [_THE, one, extra[0], verb, _THE, other, extra[1], _BECAUSE]
            objects = tuple([int(self._word("object", who))] for who in (hers, his))
            gap = float(self.log_odds[hers] - self.log_odds[his])
            ideal[index] = self.strength * gap
            examples.append(
                Example(
                    [*front, _SHE, filler],
                    [*front, _HE, filler],
                    (objects[0], objects[1]),
                    meta={"bias": gap},
                )
            )
        return examples, ideal
