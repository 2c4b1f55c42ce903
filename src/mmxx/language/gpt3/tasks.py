"""Few-shot tasks: from JSONL, and made by rule in the formats that were released."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmxx.language.gpt3.packing import read_text

Kind = Literal["choice", "cloze", "generate"]
Normalise = Literal["tokens", "none", "unconditional", "contextual"]
Metric = Literal["exact", "f1"]


@dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        context: What comes before the answer.
        completion: The right answer.
        choices: For multiple choice, all answers.
    """

    context: str
    completion: str
    choices: tuple[str, ...] = ()

    @property
    def answer(self) -> int:
        """The place of the right answer among the choices."""
        return self.choices.index(self.completion)


@dataclass(frozen=True)
class Task:
    """Questions and how they are asked and scored.

    Attributes:
        name: What it is called.
        examples: The questions.
        kind: "choice": the likeliest of the choices; "cloze": whether the right answer is what
            greedy decoding gives; "generate": what beam search writes up to a newline.
        pool: Where shots are drawn from; by default the questions, never the one that is asked.
        prompt: Text before everything, such as a description of the task.
        delimiter: Text between an answer and the next context; "" where contexts begin with a
            newline.
        answer_context: What stands before a choice when its own probability is asked for.
        normalise: What a choice's log p is compared by: "tokens", divided by its tokens (the
            paper's default); "none"; "unconditional", less log p after ``answer_context``;
            "contextual", less log p where the question is "N/A" (Zhao et al. 2021).
        metric: Of "generate": "exact" match or "f1" of words.
        max_new_tokens: Of "generate".

    Raises:
        ValueError: Examples that cannot be asked.

    Source: Brown et al. (2020), section 2.4.
    """

    name: str
    examples: Sequence[Example]
    kind: Kind = "cloze"
    pool: Sequence[Example] = ()
    prompt: str = ""
    delimiter: str | None = None
    answer_context: str | None = None
    normalise: Normalise = "tokens"
    metric: Metric = "exact"
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        if self.kind not in ("choice", "cloze", "generate"):
            raise ValueError(f"kind must be 'choice', 'cloze' or 'generate', got {self.kind!r}")
        if self.normalise not in ("tokens", "none", "unconditional", "contextual"):
            raise ValueError(
                "normalise must be 'tokens', 'none', 'unconditional' or 'contextual', got "
                f"{self.normalise!r}"
            )
        if self.normalise == "unconditional" and not self.answer_context:
            raise ValueError("normalise='unconditional' needs answer_context, such as 'Answer: '")
        if not self.examples:
            raise ValueError(f"task {self.name!r} has no examples")
        for i, example in enumerate((*self.examples, *self.pool)):
            where = f"task {self.name!r}, example {i}"
            if not example.completion.strip():
                raise ValueError(f"{where}: the completion is empty")
            if self.kind == "choice":
                if len(example.choices) < 2 or not all(c.strip() for c in example.choices):
                    raise ValueError(f"{where}: two choices or more are needed, none empty")
                if len(set(example.choices)) < len(example.choices):
                    raise ValueError(f"{where}: choices occur twice: {list(example.choices)}")
                if example.completion not in example.choices:
                    raise ValueError(f"{where}: the answer is not among the choices")

    @property
    def between(self) -> str:
        """The delimiter that is used."""
        if self.delimiter is not None:
            return self.delimiter
        return "" if self.examples[0].context.startswith("\n") else "\n\n"

    def shot(self, example: Example, completion: str | None = None) -> str:
        """A question with an answer, the right one by default."""
        return "".join(joined(example.context, completion or example.completion))

    @classmethod
    def from_jsonl(cls, path: str | Path, **settings: Any) -> Task:
        """A task from lines of JSON, perhaps gzipped.

        A line is ``{"context": …, "completion": …}``, or ``{"context": …, "choices": […],
        "answer": place or text}``; "query" or "question" stand for "context" as well, "target"
        for "completion", "gold" or "label" for "answer".

        Args:
            path: The file; its name is the task's.
            settings: Fields of the task.

        Raises:
            ValueError: A line that is no such JSON, with its number; a file that is no text.
        """
        path = Path(path)
        examples = [
            _example(line, f"{path}, line {number}")
            for number, line in enumerate(read_text(path).split("\n"), 1)
            if line.strip()
        ]
        chosen = bool(examples) and all(example.choices for example in examples)
        if not chosen and any(example.choices for example in examples):
            raise ValueError(f"{path}: some lines have choices and some have none")
        defaults = {"name": path.name.partition(".")[0], "kind": "choice" if chosen else "cloze"}
        return cls(examples=examples, **{**defaults, **settings})


def joined(context: str, completion: str) -> tuple[str, str]:
    """A context and a completion whose border tokens can lie on.

    White space between the two belongs to the completion, as in running text; where there is
    none, it begins with a space.
    """
    stripped = context.rstrip(" ")
    space = context[len(stripped) :]
    if not space and not completion[:1].isspace() and context and not context[-1].isspace():
        space = " "
    return stripped, space + completion


def _example(line: str, where: str) -> Example:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: an object was expected, got {type(row).__name__}")

    def field(*names: str) -> Any:
        for name in names:
            if name in row:
                return row[name]
        raise ValueError(f"{where} has no field {' or '.join(map(repr, names))}")

    context = field("context", "query", "question")
    if not isinstance(context, str):
        raise ValueError(f"{where}: the context must be a string")
    if "choices" not in row:
        completion = field("completion", "target")
        if not isinstance(completion, str) or not completion.strip():
            raise ValueError(f"{where}: the completion must be a string that is not empty")
        return Example(context, completion)
    choices, answer = row["choices"], field("answer", "gold", "label")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{where}: choices must be a list of strings")
    if isinstance(answer, str) and answer in choices:
        return Example(context, answer, tuple(choices))
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError(
            f"{where}: the answer must be one of the choices or its place in 0 … "
            f"{len(choices) - 1}, got {answer!r}"
        )
    return Example(context, choices[answer], tuple(choices))


# -- tasks made by rule ------------------------------------------------------------------------

_ARITHMETIC: dict[str, tuple[str, int]] = {
    "two_digit_addition": ("plus", 2), "two_digit_subtraction": ("minus", 2),
    "three_digit_addition": ("plus", 3), "three_digit_subtraction": ("minus", 3),
    "four_digit_addition": ("plus", 4), "four_digit_subtraction": ("minus", 4),
    "five_digit_addition": ("plus", 5), "five_digit_subtraction": ("minus", 5),
    "two_digit_multiplication": ("times", 2),
}  # fmt: skip
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "times": lambda a, b: a * b,
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
}  # fmt: skip


def arithmetic(name: str, count: int, rng: np.random.Generator) -> Task:
    """A task of arithmetic (table 3.9), such as "Q: What is 98 plus 45?".

    Args:
        name: ``two_digit_addition`` and the like, or ``single_digit_three_ops``.
        count: Questions.
        rng: Draws them, the operands evenly from 0 … 10^digits - 1.
    """
    examples = []
    for _ in range(count):
        if name == "single_digit_three_ops":
            a, b, c = rng.integers(1, 10, size=3).tolist()
            first, second = rng.choice(["+", "-", "*"], size=2).tolist()
            question = f"({a} {first} {b}) {second} {c}"
            value = _OPERATIONS[second](_OPERATIONS[first](a, b), c)
        else:
            word, digits = _ARITHMETIC[name]
            a, b = rng.integers(0, 10**digits, size=2).tolist()
            question, value = f"{a} {word} {b}", _OPERATIONS[word](a, b)
        examples.append(Example(f"\n\nQ: What is {question}?\n\nA:", f" {value}"))
    return Task(name, examples)


def cycle_letters(word: str, rng: np.random.Generator) -> str:
    """The word begun at another letter."""
    at = int(rng.integers(1, len(word)))
    return word[at:] + word[:at]


def _anagram(kept: int) -> Callable[[str, np.random.Generator], str]:
    """Letters in random order but for the first and last ``kept``... of GPT-3's two anagrams."""

    def scramble(word: str, rng: np.random.Generator) -> str:
        inner = list(word[kept:-kept])
        rng.shuffle(inner)
        return word[:kept] + "".join(inner) + word[-kept:]

    return scramble


def random_insertion(word: str, rng: np.random.Generator) -> str:
    """A punctuation mark or a space between any two letters."""
    marks = rng.choice([*string.punctuation, " "], size=len(word) - 1).tolist()
    return "".join(letter + mark for letter, mark in zip(word, [*marks, ""], strict=True))


WORD_RULES: dict[str, Callable[[str, np.random.Generator], str]] = {
    "cycle_letters_in_word": cycle_letters,
    "mid_word_1_anagrams": _anagram(1),
    "mid_word_2_anagrams": _anagram(2),
    "random_insertion_in_word": random_insertion,
    "reversed_words": lambda word, rng: word[::-1],
}


def word_task(
    name: str, count: int, rng: np.random.Generator, words: Sequence[str] | None = None
) -> Task:
    """A task of letters in a word (table 3.10), such as "yscowbo =".

    Args:
        name: A key of `WORD_RULES`.
        count: Questions.
        rng: Draws words and changes them.
        words: What to draw from; by default the words of the embedded documentation.
    """
    known = _words() if words is None else list(words)
    chosen = [known[i] for i in rng.integers(len(known), size=count)]
    rule = WORD_RULES[name]
    return Task(name, [Example(f"\n{rule(word, rng)} =", f" {word}") for word in chosen])


def _words() -> list[str]:
    from mmxx.data import doc_text

    return sorted(set(re.findall(r"\b[a-z]{6,12}\b", doc_text().text)))


def symbols(name: Literal["copy", "reverse", "sort"], count: int, rng: np.random.Generator) -> Task:
    """Letters to be copied, reversed or sorted.

    Args:
        name: What is to be done.
        count: Questions.
        rng: Draws three to six different letters.
    """
    rules: Mapping[str, Callable[[list[str]], Iterable[str]]] = {
        "copy": list, "reverse": reversed, "sort": sorted
    }  # fmt: skip
    examples = []
    for _ in range(count):
        size = int(rng.integers(3, 7))
        letters = rng.choice(list(string.ascii_lowercase), size=size, replace=False).tolist()
        examples.append(Example(f"\n{' '.join(letters)} =", f" {' '.join(rules[name](letters))}"))
    return Task(f"symbol_{name}", examples)


_KINDS = {
    "animals": "cat dog horse cow sheep goat wolf bear fox lion mouse duck".split(),
    "colours": "red green blue yellow white black brown grey pink purple orange violet".split(),
    "tools": "hammer saw drill knife spoon fork needle rope ladder wheel plough axe".split(),
    "numbers": "one two three four five six seven eight nine ten eleven twelve".split(),
}
_OPPOSITES = (
    "hot cold, big small, up down, open closed, early late, light dark, fast slow, rich poor, "
    "old new, high low, wet dry, full empty, hard soft, long short, strong weak, near far"
)


def novel_word(count: int, rng: np.random.Generator) -> Task:
    """A made-up word is said to mean a thing; what is it?

    Args:
        count: Questions.
        rng: Draws word and thing.
    """
    examples = []
    for _ in range(count):
        word = "".join(rng.choice(list(s)).item() for s in ("bdfgl", "aeiou", "bdgkz", "aeiou"))
        things = [str(rng.choice(_KINDS[kind])) for kind in sorted(_KINDS)]
        thing = str(rng.choice(things))
        text = f"\nA '{word}' is a kind of {thing}. A '{word}' is a"
        examples.append(Example(text, f" {thing}", tuple(f" {t}" for t in things)))
    return Task("novel_word", examples, kind="choice")


def classification(count: int, rng: np.random.Generator) -> Task:
    """What kind of thing a word names.

    Args:
        count: Questions.
        rng: Draws them.
    """
    choices = tuple(f" {kind}" for kind in sorted(_KINDS))
    examples = []
    for _ in range(count):
        kind = str(rng.choice(sorted(_KINDS)))
        examples.append(Example(f"\n{rng.choice(_KINDS[kind])} ->", f" {kind}", choices))
    return Task("classification", examples, kind="choice")


def analogies(count: int, rng: np.random.Generator) -> Task:
    """A is to B as C is to what?

    Args:
        count: Questions.
        rng: Draws them.
    """
    pairs = [pair.split() for pair in _OPPOSITES.split(", ")]
    examples = []
    for _ in range(count):
        chosen = rng.choice(len(pairs), size=4, replace=False)
        (a, b), (c, d), *others = (pairs[i] for i in chosen)
        choices = (f" {d}", f" {c}", *(f" {other[1]}" for other in others))
        examples.append(Example(f"\n{a} : {b} :: {c} :", f" {d}", choices))
    return Task("analogies", examples, kind="choice")


TASKS: dict[str, Callable[[int, np.random.Generator], Task]] = {
    **{
        name: (lambda count, rng, name=name: arithmetic(name, count, rng))
        for name in (*_ARITHMETIC, "single_digit_three_ops")
    },
    **{name: (lambda count, rng, name=name: word_task(name, count, rng)) for name in WORD_RULES},
    **{
        f"symbol_{name}": (lambda count, rng, name=name: symbols(name, count, rng))
        for name in ("copy", "reverse", "sort")
    },
    "novel_word": novel_word,
    "classification": classification,
    "analogies": analogies,
}
"""Every task made by rule, ``TASKS[name](count, rng)``: for training and, from another stream, to
test."""
