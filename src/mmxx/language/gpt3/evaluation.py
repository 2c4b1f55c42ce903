"""Few-shot evaluation: shots that fit the context, scores with their errors."""

from __future__ import annotations

import hashlib
import math
import re
import string
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mmxx.language.gpt3.generation import generate
from mmxx.language.gpt3.likelihood import Likelihood, Tokens, loglikelihoods, split
from mmxx.language.gpt3.packing import Map
from mmxx.language.gpt3.tasks import Example, Task, joined
from mmxx.nn.gpt import GPT


@dataclass
class Result:
    """What one task gave at one number of shots.

    Attributes:
        task: Its name.
        shots: Shots that were asked for, K.
        fitted: Shots that fitted the context, on average.
        score: Accuracy, or mean F1.
        error: Its standard error.
        count: Questions.
        truncated: Questions that had to do with fewer shots, or with a context cut on the left.
        control: The score with the shots' answers exchanged among them; None where not asked for.
        perplexity: Of the right answers, per token; None for "generate".
        prompts: For each question sha256 of its prompt, and whether it was answered.
    """

    task: str
    shots: int
    fitted: float
    score: float
    error: float
    count: int
    truncated: int
    control: float | None = None
    perplexity: float | None = None
    prompts: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def row(self) -> dict[str, Any]:
        """The figures without the prompts, for a table."""
        return {name: value for name, value in vars(self).items() if name != "prompts"}


def evaluate(
    model: GPT,
    tok: Tokens,
    tasks: Sequence[Task],
    *,
    shots: Sequence[int] = (0, 1, 10),
    seed: int = 0,
    batch_tokens: int = 8192,
    fixed: bool = False,
    control: bool = False,
    map: Map = map,
    source: Callable[[], tuple[GPT, Tokens]] | None = None,
) -> list[Result]:
    """Ask a model questions after so many examples.

    Args:
        model: The model.
        tok: Its tokenizer.
        tasks: The tasks.
        shots: Numbers of examples, K. Where K do not fit the model's context, as many as do.
        seed: Of the draws of examples, which differ from question to question.
        batch_tokens: Tokens of a forward pass.
        fixed: Whether all questions have the same examples, drawn once; the one asked is left
            out of them.
        control: Whether to ask again with the examples' answers exchanged among them.
        map: What spreads the work, a task at one K an item: ``map(fn, items)``.
        source: Loads both in another process; by default they travel with each item.

    Returns:
        A `Result` for each task and K.

    Raises:
        ValueError: More shots than the pool has, or a text to write that does not fit.

    Source: Brown et al. (2020), section 2.4.
    """
    for task in tasks:
        pool = len(task.pool) or len(task.examples) - 1
        for count in shots:
            if not 0 <= count <= pool:
                raise ValueError(
                    f"shots must lie in 0 … {pool} for task {task.name!r}, which has so many "
                    f"other examples, got {count}"
                )
    items = [
        _Item(source or (model, tok), task, count, seed, fixed, batch_tokens, exchanged)
        for task in tasks
        for count in shots
        for exchanged in (False, True)[: 1 + (control and count > 1)]
    ]
    found: list[Result] = []
    for item, result in zip(items, map(_ask, items), strict=True):
        if item.exchanged:
            found[-1].control = result.score
        else:
            found.append(result)
    return found


class _Item(NamedTuple):
    """One task at one number of shots; ``exchanged`` is the control."""

    source: tuple[GPT, Tokens] | Callable[[], tuple[GPT, Tokens]]
    task: Task
    shots: int
    seed: int
    fixed: bool
    batch_tokens: int
    exchanged: bool


def _ask(item: _Item) -> Result:
    model, tok = item.source() if callable(item.source) else item.source
    return _Asked(model, tok, item).result()


class _Asked:
    """The questions of an item."""

    def __init__(self, model: GPT, tok: Tokens, item: _Item) -> None:
        self.model, self.tok = model, tok
        self.task, self.shots, self.fixed = item.task, item.shots, item.fixed
        self.batch_tokens, self.exchanged = item.batch_tokens, item.exchanged
        self.seed = [item.seed, zlib.crc32(item.task.name.encode()), item.shots]

    def result(self) -> Result:
        """Score and error, and what each question's prompt was."""
        prompts, fitted, truncated = [], [], 0
        for i, example in enumerate(self.task.examples):
            prefix, kept, cut = self._prompt(i, example)
            prompts.append(prefix)
            fitted.append(kept)
            truncated += cut
        scores, perplexity = self._scores(prompts)
        values = np.array(scores, float)
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        hashes = [
            {"sha256": hashlib.sha256((p + e.context).encode()).hexdigest(), "score": float(s)}
            for p, e, s in zip(prompts, self.task.examples, scores, strict=True)
        ]
        return Result(
            self.task.name, self.shots, float(np.mean(fitted)), float(values.mean()),
            float(error), len(values), truncated, None, perplexity, hashes,
        )  # fmt: skip

    def _prompt(self, number: int, example: Example) -> tuple[str, int, bool]:
        """What stands before the question, how many shots that is, and whether it was cut."""
        chosen = self._draw(number)
        answers = [shot.completion for shot in chosen]
        if self.exchanged:
            rng = np.random.default_rng([*self.seed, number, 1])
            answers = [answers[i] for i in rng.permutation(len(answers))]
        shots = [self.task.shot(*pair) for pair in zip(chosen, answers, strict=True)]
        room = self.model.config.n_ctx

        def prefix(count: int) -> str:
            return self.task.prompt + "".join(s + self.task.between for s in shots[:count])

        def is_over(count: int) -> bool:
            return self._needed(prefix(count), example) > room

        kept = len(shots)
        if is_over(kept):
            kept = bisect_left(range(kept), True, key=is_over) - 1
        if kept >= 0:
            return prefix(kept), kept, kept < len(shots)
        if self.task.kind == "generate":
            raise ValueError(
                f"task {self.task.name!r}, example {number}: {self._needed('', example)} tokens "
                f"with those to come do not fit n_ctx={room}"
            )
        return "", 0, True

    def _draw(self, number: int) -> list[Example]:
        rng = np.random.default_rng([*self.seed, 0 if self.fixed else number])
        pool = self.task.pool or self.task.examples
        order = rng.permutation(len(pool))[: self.shots + 1]
        own = self.task.examples[number]
        others = [pool[i] for i in order if (i != number if not self.task.pool else pool[i] != own)]
        return others[: self.shots]

    def _needed(self, prefix: str, example: Example) -> int:
        """Tokens that a prompt and the longest answer take up."""
        answers = example.choices or (example.completion,)
        if self.task.kind == "generate":
            context = _end_of(prefix + example.context)
            return len(self.tok.encode_with_starts(context)[0]) + self.task.max_new_tokens
        texts = ["".join(joined(prefix + example.context, answer)) for answer in answers]
        return max(len(self.tok.encode_with_starts(text)[0]) for text in texts)

    def _pair(self, context: str, answer: str) -> tuple[list[int], list[int]]:
        before, after = split(self.tok, *joined(context, answer))
        over = len(before) + len(after) - 1 - self.model.config.n_ctx
        if over >= len(before):
            raise ValueError(
                f"task {self.task.name!r}: the answer {answer[:40]!r} alone has more than "
                f"n_ctx={self.model.config.n_ctx} tokens"
            )
        return before[max(over, 0) :], after

    def _scores(self, prompts: Sequence[str]) -> tuple[list[float], float | None]:
        contexts = [p + e.context for p, e in zip(prompts, self.task.examples, strict=True)]
        if self.task.kind == "generate":
            return self._generate(contexts), None
        requests, owners = [], []
        for i, (context, example) in enumerate(zip(contexts, self.task.examples, strict=True)):
            for answer in example.choices or (example.completion,):
                requests.append(self._pair(context, answer))
                owners.append(i)
        likely = loglikelihoods(self.model, requests, batch_tokens=self.batch_tokens)
        owned: list[list[Likelihood]] = [[] for _ in contexts]
        for i, likelihood in zip(owners, likely, strict=True):
            owned[i].append(likelihood)
        if self.task.kind == "cloze":
            right = [one for (one,) in owned]
            return [float(one.greedy) for one in right], _perplexity(right)
        less = self._baselines(prompts)
        scores, right = [], []
        for likelihoods, example, base in zip(owned, self.task.examples, less, strict=True):
            values = [
                one.logprob / (one.tokens if self.task.normalise == "tokens" else 1) - minus
                for one, minus in zip(likelihoods, base, strict=True)
            ]
            scores.append(float(int(np.argmax(values)) == example.answer))
            right.append(likelihoods[example.answer])
        return scores, _perplexity(right)

    def _baselines(self, prompts: Sequence[str]) -> list[list[float]]:
        """What is taken off the log p of each choice."""
        examples = self.task.examples
        if self.task.normalise in ("tokens", "none"):
            return [[0.0] * len(example.choices) for example in examples]
        if self.task.normalise == "unconditional":
            contexts = [self.task.answer_context or ""] * len(examples)
        else:
            contexts = [prompt + "N/A" for prompt in prompts]
        pairs = [
            self._pair(context, choice)
            for context, example in zip(contexts, examples, strict=True)
            for choice in example.choices
        ]
        found = iter(loglikelihoods(self.model, pairs, batch_tokens=self.batch_tokens))
        return [[next(found).logprob for _ in example.choices] for example in examples]

    def _generate(self, contexts: Sequence[str]) -> list[float]:
        scores = []
        for context, example in zip(contexts, self.task.examples, strict=True):
            tokens = self.tok.encode_with_starts(_end_of(context))[0]
            (written,) = generate(
                self.model, [[self.tok.end, *tokens]], stop=("\n", self.tok.end),
                max_new_tokens=self.task.max_new_tokens, tokenizer=self.tok, num_beams=4,
            )  # fmt: skip
            score = f1 if self.task.metric == "f1" else exact_match
            scores.append(score(written.text or "", example.completion))
        return scores


def _end_of(context: str) -> str:
    """A context to go on from: without the spaces at its end, which belong to the next token."""
    return context.rstrip(" ")


def _perplexity(likelihoods: Sequence[Likelihood]) -> float:
    total = sum(one.logprob for one in likelihoods)
    return math.exp(min(700.0, -total / sum(one.tokens for one in likelihoods)))


def _words(text: str) -> list[str]:
    text = re.sub(f"[{re.escape(string.punctuation)}]", "", text.lower())
    return [word for word in text.split() if word not in ("a", "an", "the")]


def exact_match(written: str, right: str) -> float:
    """1 where two answers are alike but for white space around them, else 0.

    Args:
        written: What a model wrote.
        right: The right answer.
    """
    return float(written.strip() == right.strip())


def f1(written: str, right: str) -> float:
    """Harmonic mean of precision and recall of words, without articles and punctuation.

    Args:
        written: What a model wrote.
        right: The right answer.

    Source: Rajpurkar et al. (2016), section 6.1.
    """
    ours, theirs = _words(written), _words(right)
    common = sum((Counter(ours) & Counter(theirs)).values())
    if not common:
        return float(ours == theirs)
    return 2 * common / (len(ours) + len(theirs))
