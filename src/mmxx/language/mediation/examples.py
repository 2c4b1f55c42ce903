"""What is measured: a text, its changed form, and two ways to go on; and how it becomes tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_THAT = "said yelled whispered wanted desired wished"
_BECAUSE = "ate ran drove slept cried laughed went_home stayed_up was_fired was_promoted yelled"
TEMPLATES = tuple(
    f"The {{}} {verb.replace('_', ' ')} {end}"
    for verbs, end in ((_THAT, "that"), (_BECAUSE, "because"))
    for verb in verbs.split()
)
"""The paper's 17 sentences; the profession goes into the braces."""

Tokens = tuple[int, ...]
Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Example:
    """One prompt u, its intervention x, and the two candidates whose odds are the response.

    Attributes:
        base: The prompt: a string, or token ids.
        alternative: The prompt after the intervention: "man" in the profession's place, or the
            other pronoun.
        candidates: How the text goes on: the stereotypical way, then the anti-stereotypical
            one; the response is p(second) / p(first). Strings begin with their blank.
        position: Token, or slice of tokens, of ``base`` at which neurons are intervened on;
            by default the one token in which ``base`` and ``alternative`` differ.
        weight: Weight in averages, positive.
        meta: What to carry along; JSON values.
    """

    base: str | Sequence[int]
    alternative: str | Sequence[int]
    candidates: tuple[str | Sequence[int], str | Sequence[int]]
    position: int | slice | None = None
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.candidates) != 2:
            raise ValueError(f"candidates must be two, got {len(self.candidates)}")
        if self.candidates[0] == self.candidates[1]:
            raise ValueError(f"candidates must differ, got {self.candidates[0]!r} twice")
        if not self.weight > 0:
            raise ValueError(f"weight must be positive, got {self.weight}")


@dataclass(frozen=True)
class Encoded:
    """An example as tokens.

    Attributes:
        base, alternative: The prompts.
        first, second: The candidates.
        start: Tokens in front that both prompts share.
        places: Where neurons are, in ``base`` and in ``alternative``; None where that is not
            one token and was not said.
    """

    base: Tokens
    alternative: Tokens
    first: Tokens
    second: Tokens
    start: int
    places: tuple[Tokens, Tokens] | None

    @property
    def shape(self) -> tuple[Any, ...]:
        """What examples have in common that can be computed as one batch."""
        sizes = tuple(map(len, (self.base, self.alternative, self.first, self.second)))
        return (*sizes, self.start, self.places)


def encode(example: Example, tokenizer: Any, vocab: int, *, align_last: bool) -> Encoded:
    """Tokens of an example.

    Args:
        example: The example.
        tokenizer: As transformers has them, with ``encode``; None where ids are given.
        vocab: Tokens that the model knows.
        align_last: Whether prompts of different length are aligned at their ends.

    Raises:
        ValueError: Strings without a tokenizer, an id out of range, prompts of different length,
            a candidate that does not go on from the prompt or is empty, a position out of range.
    """

    def ids(text: str | Sequence[int]) -> Tokens:
        if isinstance(text, str):
            if tokenizer is None:
                raise ValueError(f"examples hold strings ({text!r}), and tokenizer is None")
            return tuple(tokenizer.encode(text))
        found = tuple(int(token) for token in text)
        if any(not 0 <= token < vocab for token in found):
            raise ValueError(f"token ids must lie in [0, {vocab}), got {found}")
        return found

    base, alternative = ids(example.base), ids(example.alternative)
    if not base or not alternative:
        raise ValueError(f"base and alternative must not be empty, got {base} and {alternative}")
    if len(base) != len(alternative) and not align_last:
        raise ValueError(
            f"base and alternative must have as many tokens: {_named(base, tokenizer)} are "
            f"{len(base)}, {_named(alternative, tokenizer)} are {len(alternative)}; "
            "Mediation(align='last') aligns them at their ends, for neurons and total effects"
        )
    first, second = (_candidate(example, way, ids, (base, alternative)) for way in (0, 1))
    if first == second:
        raise ValueError(f"candidates must differ, both are the tokens {first}")
    shared = 0
    while shared < min(len(base), len(alternative)) and base[shared] == alternative[shared]:
        shared += 1
    places = _places(example.position, base, alternative)
    start = min(shared, len(base) - 1, len(alternative) - 1)
    if places is not None:
        start = min(start, *places[0], *places[1])
    return Encoded(base, alternative, first, second, start, places)


def _candidate(
    example: Example,
    way: int,
    ids: Callable[[str | Sequence[int]], Tokens],
    prompts: tuple[Tokens, Tokens],
) -> Tokens:
    """A candidate's tokens as they stand after the prompt."""
    given = example.candidates[way]
    if not isinstance(given, str) or not isinstance(example.base, str):
        found = ids(given)
    else:
        # A tokenizer may treat the beginning of a text apart, so the candidate is read in place.
        whole = ids(example.base + given)
        found = whole[len(prompts[0]) :]
        if whole[: len(prompts[0])] != prompts[0]:
            raise ValueError(
                f"candidate {given!r} melts into the prompt {example.base!r}: their tokens are "
                "not those of the prompt and more; does it begin with a blank?"
            )
    if not found:
        raise ValueError(f"candidate {given!r} has no token")
    return found


def _places(
    position: int | slice | None, base: Tokens, alternative: Tokens
) -> tuple[Tokens, Tokens] | None:
    size = len(base)
    if isinstance(position, slice):
        found = tuple(range(size))[position]
    elif position is not None:
        found = (position + size if position < 0 else position,)
    elif size == len(alternative):
        found = tuple(i for i in range(size) if base[i] != alternative[i])
        if not found:
            found = (size - 1,)  # nothing changed: any place will do
        if len(found) > 1:
            return None
    else:
        end = 0  # the last token before what both share at the end
        while end < min(size, len(alternative)) and base[-1 - end] == alternative[-1 - end]:
            end += 1
        found = (max(size - 1 - end, 0),)
    if not found or not all(0 <= place < size for place in found):
        raise ValueError(f"position {position} is not found in {size} tokens")
    moved = tuple(place + len(alternative) - size for place in found)
    if min(moved) < 0:
        raise ValueError(f"position {position} has no counterpart in {len(alternative)} tokens")
    return found, moved


def _named(tokens: Tokens, tokenizer: Any) -> str:
    if tokenizer is None or not hasattr(tokenizer, "convert_ids_to_tokens"):
        return str(list(tokens))
    return str(tokenizer.convert_ids_to_tokens(list(tokens)))


def buckets(encoded: Sequence[Encoded]) -> list[list[int]]:
    """Indices of examples of one shape, so that no padding is needed."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, one in enumerate(encoded):
        found.setdefault(one.shape, []).append(index)
    return list(found.values())
