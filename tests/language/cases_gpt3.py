"""GPT-3 for the contract: the model, and the functions that take numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.lab.testing import Case
from mmxx.language.gpt3 import GPT, GPTConfig, generate, loglikelihoods, scaling_fit
from mmxx.language.gpt3.cleaning import kept
from mmxx.language.gpt3.generation import truncate
from mmxx.nn.cross_entropy import head_cross_entropy
from mmxx.nn.gpt import banded_attention


def _model() -> GPT:
    config = GPTConfig(2, 8, 2, n_ctx=12, vocab_size=11, window=3, init_std=0.2)
    return GPT(config, generator=torch.Generator().manual_seed(0))


class _Logits(nn.Module):
    """The model's logits alone, which every parameter has a part in."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _model()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)[0]


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _tokens() -> tuple[Tensor]:
    return (torch.randint(11, (4, 10), generator=torch.Generator().manual_seed(0)),)


def _written(prompts: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    found = generate(_model(), prompts.tolist(), max_new_tokens=2, generator=generator)
    return torch.tensor([text.tokens for text in found]).view(len(prompts), 2)


def _scored(rows: Tensor) -> np.ndarray:
    pairs = [(row[:6], row[6:]) for row in rows.tolist()]
    return np.array([found.logprob for found in loglikelihoods(_model(), pairs)])


def _truncated(logits: Tensor) -> Tensor:
    return truncate(logits, top_k=3, top_p=0.8).softmax(-1)


def _loss(x: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return head_cross_entropy(x, head, targets)[None]


def _exponent(compute: np.ndarray, loss: np.ndarray) -> np.ndarray:
    return np.array([scaling_fit(compute, loss).alpha])


def _law() -> tuple[np.ndarray, np.ndarray]:
    compute = np.logspace(1, 4, 7)
    return compute, 3 * compute**-0.1


def _whole(make: Any, args: Any, kind: Any = "function", name: str = "") -> Case:
    return Case(make, args, kind, name, per_sample=False)


CASES = [
    Case(_Logits, _tokens, "module", "GPT"),
    Case(lambda: _written, _tokens, name="generate"),
    Case(lambda: _truncated, lambda: (_normal(4, 7),), name="truncate"),
    Case(
        lambda: partial(banded_attention, window=3),
        lambda: tuple(_normal(2, 3, 8, 4) for _ in range(3)),
        name="banded_attention",
    ),
    _whole(
        lambda: _loss,
        lambda: (_normal(9, 4), _normal(11, 4), torch.arange(9)),
        name="head_cross_entropy",
    ),
    _whole(lambda: _exponent, _law, name="scaling_fit"),
    _whole(
        lambda: lambda scores: kept(scores, 9.0, np.random.default_rng(0)).astype(scores.dtype),
        lambda: (np.linspace(0, 1, 20),),
        name="kept",
    ),
    _whole(lambda: lambda rows: torch.from_numpy(_scored(rows)), _tokens, name="loglikelihoods"),
]
