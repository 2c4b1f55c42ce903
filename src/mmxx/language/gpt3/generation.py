"""Text from a model: greedy, sampled or by beam search, with a key-value cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mmxx.language.gpt3.bpe import ByteBPE
from mmxx.nn.gpt import GPT
from mmxx.nn.kv_cache import KVCache


class Decoder(Protocol):
    """What turns tokens into text: a `ByteBPE`, or one's own."""

    def decode(self, tokens: Sequence[int]) -> str: ...


@dataclass
class Generation:
    """What a model wrote after a prompt.

    Attributes:
        tokens: The new tokens. A stop token is not among them, and of a stop string no token is
            that begins after it does.
        logprobs: log p of each token under the model itself, whatever was sampled from.
        stopped: Whether it ended by itself, at a stop.
        text: The new text up to a stop string; None without a tokenizer.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    text: str | None = None


@torch.no_grad()
def generate(
    model: GPT,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Sequence[int | str] = (),
    tokenizer: Decoder | None = None,
    generator: torch.Generator | None = None,
    num_beams: int = 1,
    length_penalty: float = 0.6,
) -> list[Generation]:
    """Continue prompts of any lengths, all at once.

    Args:
        model: The model, on its device and in its mode; dropout is off meanwhile.
        prompts: Tokens of each prompt, one or more; or text, which a `ByteBPE` encodes behind
            the mark with which a text begins.
        max_new_tokens: Tokens to write at most.
        temperature: What the logits are divided by; 0 takes the likeliest token.
        top_k: Sample among so many likeliest tokens only.
        top_p: Sample among the fewest likeliest tokens that together have this probability.
        stop: Tokens, or strings wherever the borders of tokens lie, that end a text.
        tokenizer: Needed for prompts of text and for strings to stop at; gives ``text``.
        generator: Draws; torch's default generator where it is None.
        num_beams: With more than 1, beam search: temperature, top_k and top_p do not apply.
        length_penalty: α of beam search; a text's log p is divided by ((5 + length) / 6)^α.

    Returns:
        A `Generation` for each prompt.

    Raises:
        ValueError: A number out of range, a prompt that is empty or does not fit into the
            model's context with what is to come, or a token that the model does not have.

    Source: Brown et al. (2020), section 2.4, for beam search; Wu et al. (2016), equation 14, for
    its penalty; Holtzman et al. (2020) for top-p.
    """
    encoded = [_encoded(prompt, tokenizer) for prompt in prompts]
    _check(model, encoded, max_new_tokens, temperature, top_k, top_p, num_beams, length_penalty)
    if tokenizer is None and any(isinstance(mark, str) for mark in stop):
        raise ValueError("stop holds strings, and tokenizer is None: hand in what decodes tokens")
    if any(mark == "" for mark in stop):
        raise ValueError("stop must not hold an empty string")
    was_training = model.training
    model.eval()
    try:
        if num_beams > 1:
            ends = _Stops(stop, tokenizer)
            return [
                _beam(model, prompt, max_new_tokens, ends, num_beams, length_penalty)
                for prompt in encoded
            ]
        pick = _Pick(temperature, top_k, top_p, generator)
        return _sample(model, encoded, max_new_tokens, _Stops(stop, tokenizer), pick)
    finally:
        model.train(was_training)


def _encoded(prompt: str | Sequence[int], tokenizer: Decoder | None) -> Sequence[int]:
    if not isinstance(prompt, str):
        return prompt
    if not isinstance(tokenizer, ByteBPE):
        raise ValueError("prompts hold text, and tokenizer is no ByteBPE: hand in one, or tokens")
    return [tokenizer.end, *tokenizer.encode(prompt)]


def _check(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    num_beams: int,
    length_penalty: float,
) -> None:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be 1 or more, got {max_new_tokens}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or more, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
    if num_beams < 1:
        raise ValueError(f"num_beams must be 1 or more, got {num_beams}")
    if not 0 <= length_penalty < math.inf:
        raise ValueError(f"length_penalty must be 0 or more, got {length_penalty}")
    room, size = model.config.n_ctx, model.config.vocab_size
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty; begin with the end-of-text token")
        if len(prompt) + max_new_tokens - 1 > room:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; with max_new_tokens={max_new_tokens} it "
                f"does not fit n_ctx={room}"
            )
        if not 0 <= min(prompt) <= max(prompt) < size:
            raise ValueError(f"prompt {i} must hold tokens in 0 … {size - 1}")


class _Stops:
    """Where a text ends."""

    def __init__(self, stop: Sequence[int | str], tokenizer: Decoder | None) -> None:
        self.tokens = {mark for mark in stop if isinstance(mark, int)}
        self.strings = [mark for mark in stop if isinstance(mark, str)]
        self.tokenizer = tokenizer
        self._longest = 4 * max(map(len, self.strings), default=0) + 4  # bytes, in tokens

    def ends(self, tokens: list[int]) -> bool:
        """Whether the last token brings the text to its end."""
        if tokens[-1] in self.tokens:
            return True
        if not self.strings or self.tokenizer is None:
            return False
        tail = self.tokenizer.decode(tokens[-self._longest :])
        return any(mark in tail for mark in self.strings)

    def finish(self, found: Generation) -> Generation:
        """Cut a text at its stop."""
        if found.tokens and found.tokens[-1] in self.tokens:
            found.tokens, found.logprobs = found.tokens[:-1], found.logprobs[:-1]
        if self.tokenizer is None:
            return found
        text = self.tokenizer.decode(found.tokens)
        places = [text.find(mark) for mark in self.strings if mark in text]
        if places:
            found.text = text[: min(places)]
            kept = len(found.tokens)
            while kept and len(self.tokenizer.decode(found.tokens[: kept - 1])) >= min(places):
                kept -= 1
            found.tokens, found.logprobs = found.tokens[:kept], found.logprobs[:kept]
        else:
            found.text = text
        return found


class _Pick:
    """The next token, of logits [B, V]."""

    def __init__(
        self,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        generator: torch.Generator | None,
    ) -> None:
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.generator = generator

    def __call__(self, logits: Tensor) -> Tensor:
        if self.temperature == 0:
            return logits.argmax(-1)
        probs = truncate(logits / self.temperature, self.top_k, self.top_p).softmax(-1)
        # one draw a row, on the generator's own device, so that rows and devices do not matter
        where = "cpu" if self.generator is None else self.generator.device
        at = torch.rand(len(probs), 1, generator=self.generator, device=where, dtype=torch.float64)
        sums = probs.double().cumsum(-1)
        chosen = torch.searchsorted(sums, at.to(sums.device) * sums[:, -1:], right=True)[:, 0]
        return chosen.clamp(max=probs.shape[1] - 1)


def truncate(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits in which all but the likeliest tokens are -inf.

    Args:
        logits: Shape [B, V].
        top_k: How many tokens stay.
        top_p: The fewest tokens stay that together have this probability: the one that crosses
            it stays too.

    Returns:
        Shape [B, V].
    """
    if top_k is not None and top_k < logits.shape[1]:
        least = logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        probs = ordered.softmax(-1)
        ordered = ordered.masked_fill(probs.cumsum(-1) - probs >= top_p, -math.inf)
        logits = torch.empty_like(logits).scatter_(1, order, ordered)
    return logits


def _prefill(model: GPT, prompts: Sequence[Sequence[int]], room: int) -> tuple[KVCache, Tensor]:
    """A cache that holds the prompts, and the logits after each, [B, V]."""
    device = model.wte.weight.device
    counts = [len(prompt) for prompt in prompts]
    tokens = torch.zeros(len(prompts), max(counts), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.as_tensor(prompt)
    lengths = torch.tensor(counts, device=device)
    cache = KVCache(model.config, min(model.config.n_ctx, max(counts) + room))
    ragged = min(counts) < max(counts)
    x = model.hidden(tokens.to(device), cache=cache, lengths=lengths if ragged else None)
    return cache, model.head(x[torch.arange(len(x), device=device), lengths - 1])


def _sample(
    model: GPT, prompts: Sequence[Sequence[int]], most: int, stops: _Stops, pick: _Pick
) -> list[Generation]:
    if not prompts:
        return []
    cache, logits = _prefill(model, prompts, most)
    found = [Generation() for _ in prompts]
    active = list(range(len(prompts)))  # the prompt of each row
    for left in range(most - 1, -1, -1):
        chosen = pick(logits)
        logprobs = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        going = []
        for row, (token, logprob) in enumerate(
            zip(chosen.tolist(), logprobs.tolist(), strict=True)
        ):
            text = found[active[row]]
            text.tokens.append(token)
            text.logprobs.append(logprob)
            text.stopped = stops.ends(text.tokens)
            if not text.stopped:
                going.append(row)
        if not going or not left:
            break
        if len(going) < len(active):
            rows = torch.tensor(going, device=logits.device)
            cache, chosen = cache.select(rows), chosen[rows]
            active = [active[row] for row in going]
        logits = model.head(model.hidden(chosen[:, None], cache=cache)[:, -1])
    return [stops.finish(text) for text in found]


def _beam(
    model: GPT, prompt: Sequence[int], most: int, stops: _Stops, beams: int, alpha: float
) -> Generation:
    """The likeliest text by length-normalised log p, finished or not.

    A text that has ended leaves the beam for a pool, and the search ends when no text of the
    beam, however long it became, could enter the pool's best ``beams``.
    """

    def normalised(logprob: float, length: int) -> float:
        return logprob / ((5 + length) / 6) ** alpha

    cache, logits = _prefill(model, [prompt], most)
    running: list[tuple[list[int], list[float]]] = [([], [])]
    pool: list[tuple[float, list[int], list[float], bool]] = []
    for length in range(1, most + 1):
        scores = logits.log_softmax(-1)
        past = torch.tensor([sum(logprobs) for _, logprobs in running], dtype=torch.float64)
        sums = (scores.double().cpu() + past[:, None]).flatten()
        best = sums.topk(min(len(sums), 2 * beams))
        rows, following = [], []
        for rank, place in enumerate(best.indices.tolist()):
            row, token = divmod(place, scores.shape[1])
            tokens = [*running[row][0], token]
            logprobs = [*running[row][1], float(scores[row, token])]
            if stops.ends(tokens):
                if rank < beams:  # one that did not reach the beam does not count
                    pool.append((normalised(sum(logprobs), length), tokens, logprobs, True))
            elif len(rows) < beams:
                rows.append(row)
                following.append((tokens, logprobs))
        running = following
        pool = sorted(pool, key=lambda item: -item[0])[:beams]
        if not running or length == most:
            break
        reachable = normalised(max(sum(logprobs) for _, logprobs in running), most)
        if len(pool) == beams and reachable <= pool[-1][0]:
            running = []
            break
        chosen = torch.tensor([[tokens[-1]] for tokens, _ in running], device=logits.device)
        cache = cache.select(torch.tensor(rows, device=logits.device))
        logits = model.head(model.hidden(chosen, cache=cache)[:, -1])
    pool += [
        (normalised(sum(logprobs), len(tokens)), tokens, logprobs, False)
        for tokens, logprobs in running
    ]
    _, tokens, logprobs, stopped = max(pool, key=lambda item: item[0])
    return stops.finish(Generation(tokens, logprobs, stopped))
