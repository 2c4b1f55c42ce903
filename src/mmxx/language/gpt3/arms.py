"""What the experiment trains, each a task that a process can take: documents, and real text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mmxx.language.gpt3.documents import VOCABULARY, WORDS, Documents
from mmxx.language.gpt3.likelihood import loglikelihoods
from mmxx.language.gpt3.packing import PackedSequences
from mmxx.language.gpt3.training import Schedule, Training, validation_loss
from mmxx.nn.gpt import GPT, GPTConfig

_TEST = 1 << 40  # rows that no training comes to


def init_std(width: int) -> float:
    """Standard deviation of the weights at the start: GPT-3's .02 at 768, larger for less."""
    return 0.02 * math.sqrt(768 / width)


def train_documents(item: Mapping[str, Any]) -> dict[str, Any]:
    """Train a model on the mixture of documents, and ask it after 0 … K pairs.

    Args:
        item: width, layers, heads, seed, steps, batch, lr, shots, mixture, tests, coherent.

    Returns:
        The training loss of each step, and right answers by the number of pairs before: to
        translations, to those after pairs of random languages, to novel words, of the table of
        pairs; and the share of letters of repeated strings that are right.
    """
    docs = Documents(item["shots"], item["mixture"], coherent=item["coherent"], seed=item["seed"])
    config = GPTConfig(
        item["layers"], item["width"], item["heads"], n_ctx=docs.n_ctx, vocab_size=VOCABULARY,
        attention="dense", init_std=init_std(item["width"]),
    )  # fmt: skip
    model = GPT(config, generator=torch.Generator().manual_seed(item["seed"]))
    training = Training(model, docs, schedule(item, docs.n_ctx))
    curve = [training.step(step).loss for step in range(training.schedule.steps)]
    return {"curve": curve, "params": model.num_params(embedding=False), **ask(model, item)}


def schedule(item: Mapping[str, Any], n_ctx: int) -> Schedule:
    """A training of ``steps`` batches: the rate rises for an eighth of them, 50 at most."""
    batch = item["batch"] * n_ctx
    warmup = min(50, item["steps"] // 8) * batch
    return Schedule(item["steps"] * batch, batch, n_ctx, item["lr"], warmup)


def ask(model: GPT, item: Mapping[str, Any]) -> dict[str, Any]:
    """Right answers by the number of pairs before, of documents that were not trained on."""
    shots, tests = item["shots"], item["tests"]
    docs, mixed = Documents(shots), Documents(shots, coherent=False)
    asked = docs if item.get("context", True) else mixed
    rng = np.random.default_rng([item["seed"], _TEST])
    texts = {
        "translation": asked.translations(rng, tests),
        "shuffled": mixed.translations(rng, tests),
        "novel": docs.novel_words(rng, tests),
    }
    found: dict[str, Any] = {}
    for name, (tokens, answers) in texts.items():
        found[name] = (guesses(model, tokens)[:, ::2] == answers).mean(0).tolist()
    strings = docs.repeated(rng, tests)
    later = guesses(model, strings)[:, 7:] == strings[:, 9:]  # from the ninth letter on
    found["repeated"] = float(later.mean())
    tokens, answers = texts["translation"]
    found["pairs"] = (table_of_pairs(item)[tokens[:, 1::2] - 1] == answers).mean(0).tolist()
    return found


@torch.no_grad()
def guesses(model: GPT, tokens: np.ndarray) -> np.ndarray:
    """The likeliest token after the second, third … token of each row, [n, T - 2]."""
    rows = torch.from_numpy(tokens[:, :-1])
    found = [model.head(model.hidden(part)[:, 1:]).argmax(-1) for part in rows.split(256)]
    return torch.cat(found).numpy()


def table_of_pairs(item: Mapping[str, Any]) -> np.ndarray:
    """The commonest translation of each word in as many documents as a training reads, [words].

    It sees no context: what it gets right, any zero-shot model can.
    """
    count = min(4096, item["steps"] * item["batch"])
    docs = Documents(item["shots"], {"T": 1}, coherent=item["coherent"], seed=item["seed"])
    tokens = docs.rows(0, count).numpy()
    words, translations = tokens[:, 1::2].ravel() - 1, tokens[:, 2::2].ravel()
    seen = np.zeros((WORDS, VOCABULARY), np.int64)
    np.add.at(seen, (words, translations), 1)
    return seen.argmax(1)


def train_text(item: Mapping[str, Any]) -> dict[str, Any]:
    """Train a model on packed text for one epoch.

    Args:
        item: width, layers, heads, seed, batch, lr, n_ctx, vocab; train and val, the tokens of
            documents with their bounds; requests, tokens of contexts and answers to score.

    Returns:
        Loss on the validation text, parameters without embeddings, tokens, compute 6 N D, and
        the log p of each request.
    """
    n_ctx = item["n_ctx"]
    train, val = (
        PackedSequences(tokens, bounds, n_ctx, seed)
        for (tokens, bounds), seed in ((item["train"], item["seed"]), (item["val"], None))
    )
    config = GPTConfig(
        item["layers"], item["width"], item["heads"], n_ctx=n_ctx, vocab_size=item["vocab"],
        attention="dense", init_std=init_std(item["width"]),
    )  # fmt: skip
    model = GPT(config, generator=torch.Generator().manual_seed(item["seed"]))
    batch = min(item["batch"], train.rows_per_epoch)
    steps = train.rows_per_epoch // batch
    plan = schedule({**item, "steps": steps, "batch": batch}, n_ctx)
    training = Training(model, train, plan)
    curve = [training.step(step).loss for step in range(plan.steps)]
    params = model.num_params(embedding=False)
    scored = loglikelihoods(model, item["requests"]) if item["requests"] else []
    return {
        "loss": validation_loss(model, val, val.rows_per_epoch), "params": params,
        "tokens": plan.tokens, "compute": 6 * params * plan.tokens, "curve": curve,
        "scores": [found.logprob / found.tokens for found in scored],
    }  # fmt: skip


def by_shots(results: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """The mean over seeds of right answers by the number of pairs before, [shots + 1]."""
    return np.mean([result[name] for result in results], axis=0)
