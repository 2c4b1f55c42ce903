"""Few-shot evaluation: exact log-likelihoods, shots that fit, scores with their errors."""

from __future__ import annotations

import hashlib
import math
import re
import string
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmxx.language.gpt3.generation import generate
from mmxx.language.gpt3.tasks import Example, Task, joined
from mmxx.nn.gpt import GPT
from mmxx.nn.kv_cache import KVCache


class Tokens(Protocol):
    """What an evaluation needs of a tokenizer: a `ByteBPE`, or one's own."""

    @property
    def end(self) -> int: ...
    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Likelihood:
    """log p of a completion after a context.

    Attributes:
        logprob: Sum over its tokens, in nats.
        tokens: How many tokens.
        greedy: Whether each of them is the likeliest one.
    """

    logprob: float
    tokens: int
    greedy: bool


def split(tok: Tokens, context: str, completion: str) -> tuple[list[int], list[int]]:
    """Tokens of a context and of its completion, tokenised together; an end mark comes first.

    Raises:
        ValueError: The completion is empty, or begins within a token.
    """
    if not completion:
        raise ValueError(f"the completion of {context[-40:]!r} is empty")
    tokens, starts = tok.encode_with_starts(context + completion)
    count = sum(start < len(context) for start in starts)
    if (starts[count:] and starts[count] != len(context)) or not starts[count:]:
        raise ValueError(
            f"the completion {completion[:40]!r} begins within a token of the context "
            f"{context[-40:]!r}; let it begin with a space or a newline"
        )
    return [tok.end, *tokens[:count]], tokens[count:]


@torch.no_grad()
def loglikelihoods(
    model: GPT,
    requests: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_tokens: int = 8192,
) -> list[Likelihood]:
    """log p(completion | context) for many pairs of tokens.

    Completions of one context share its keys and values, and contexts that begin alike, as those
    with the same shots do, share those of the beginning.

    Args:
        model: The model.
        requests: Tokens of context and completion, neither empty.
        batch_tokens: Tokens of a forward pass.

    Returns:
        One for each request, in order, whatever the batches are.

    Raises:
        ValueError: An empty part, or more tokens than the model's context.
    """
    for context, completion in requests:
        if not len(context) or not len(completion):
            raise ValueError("a context and a completion of one token or more are needed")
        if len(context) + len(completion) - 1 > model.config.n_ctx:
            raise ValueError(
                f"{len(context)} tokens of context and {len(completion)} of completion do not "
                f"fit n_ctx={model.config.n_ctx}"
            )
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, (context, _) in enumerate(requests):
        groups.setdefault(tuple(context), []).append(i)
    contexts = sorted(groups, key=len, reverse=True)
    found: list[Likelihood | None] = [None] * len(requests)
    was_training = model.training
    model.eval()
    while contexts:
        width = len(contexts[0]) + max(len(requests[i][1]) for i in groups[contexts[0]])
        count = max(1, batch_tokens // width)
        batch, contexts = contexts[:count], contexts[count:]
        _score(model, batch, [groups[c] for c in batch], requests, found, batch_tokens)
    model.train(was_training)
    return [likelihood for likelihood in found if likelihood is not None]


def _score(
    model: GPT,
    contexts: Sequence[tuple[int, ...]],
    groups: Sequence[list[int]],
    requests: Sequence[tuple[Sequence[int], Sequence[int]]],
    found: list[Likelihood | None],
    batch_tokens: int,
) -> None:
    device = model.wte.weight.device
    longest = max(len(requests[i][1]) for group in groups for i in group)
    shared = _common(contexts)
    cache = KVCache(model.config, min(model.config.n_ctx, max(map(len, contexts)) + longest))
    if shared and len(contexts) > 1:
        model.hidden(torch.tensor([contexts[0][:shared]], device=device), cache=cache)
        cache = cache.select(torch.zeros(len(contexts), dtype=torch.long, device=device))
    else:
        shared = 0
    tokens, lengths = _padded([context[shared:] for context in contexts], device)
    x = model.hidden(tokens, cache=cache, lengths=lengths)
    ends = x[torch.arange(len(x), device=device), lengths - 1]
    pairs = [(row, i) for row, group in enumerate(groups) for i in group]
    per = max(1, batch_tokens // (max(map(len, contexts)) + longest))
    for start in range(0, len(pairs), per):
        part = pairs[start : start + per]
        rows = torch.tensor([row for row, _ in part], device=device)
        targets, counts = _padded([requests[i][1] for _, i in part], device)
        hidden = ends.new_zeros(*targets.shape, ends.shape[1])
        hidden[:, 0] = ends[rows]
        longer = (counts > 1).nonzero()[:, 0]
        if len(longer):
            chosen = cache.select(rows[longer])
            fed = targets[longer, :-1]
            hidden[longer, 1:] = model.hidden(fed, cache=chosen, lengths=counts[longer] - 1)
        logits = model.head(hidden)
        exact = torch.promote_types(logits.dtype, torch.float32)
        logprobs = logits.log_softmax(-1, dtype=exact)
        each = logprobs.gather(2, targets[..., None])[..., 0]
        best = logprobs.argmax(-1) == targets
        counted = torch.arange(targets.shape[1], device=device) < counts[:, None]
        sums = (each.double() * counted).sum(1).tolist()
        greedy = (best | ~counted).all(1).tolist()
        for (_, i), total, likeliest in zip(part, sums, greedy, strict=True):
            found[i] = Likelihood(total, len(requests[i][1]), likeliest)


def _common(contexts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all contexts begin with, and not all of any."""
    low, high = min(contexts), max(contexts)
    most = min(map(len, contexts)) - 1
    for i in range(most):
        if low[i] != high[i]:
            return i
    return max(most, 0)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows padded on the right, [B, T], and how long each is, [B]."""
    tensors = [torch.tensor(list(row), dtype=torch.long) for row in rows]
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return pad_sequence(tensors, batch_first=True).to(device), lengths


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

    Returns:
        A `Result` for each task and K.

    Raises:
        ValueError: More shots than the pool has, or a text to write that does not fit.

    Source: Brown et al. (2020), section 2.4.
    """
    found = []
    for task in tasks:
        pool = len(task.pool) or len(task.examples) - 1
        for count in shots:
            if not 0 <= count <= pool:
                raise ValueError(
                    f"shots must lie in 0 … {pool} for task {task.name!r}, which has so many "
                    f"other examples, got {count}"
                )
    for task in tasks:
        for count in shots:
            asked = _Asked(model, tok, task, count, seed, fixed, batch_tokens)
            result = asked.result(exchanged=False)
            if control and count > 1:
                result.control = asked.result(exchanged=True).score
            found.append(result)
    return found


class _Asked:
    """One task at one number of shots."""

    def __init__(
        self,
        model: GPT,
        tok: Tokens,
        task: Task,
        shots: int,
        seed: int,
        fixed: bool,
        batch_tokens: int,
    ) -> None:
        self.model, self.tok, self.task, self.shots = model, tok, task, shots
        self.batch_tokens, self.fixed = batch_tokens, fixed
        self.seed = [seed, zlib.crc32(task.name.encode()), shots]

    def result(self, *, exchanged: bool) -> Result:
        prompts, fitted, truncated = [], [], 0
        for i, example in enumerate(self.task.examples):
            prefix, kept, cut = self._prompt(i, example, exchanged)
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

    def _prompt(self, number: int, example: Example, exchanged: bool) -> tuple[str, int, bool]:
        """What stands before the question, how many shots that is, and whether it was cut."""
        chosen = self._draw(number)
        answers = [shot.completion for shot in chosen]
        if exchanged:
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
