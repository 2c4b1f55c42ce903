"""Exact log-likelihoods of how a text goes on, many at once, with shared keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
