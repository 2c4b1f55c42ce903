"""What the contract calls of mediation: pure functions, and the effects of a small GPT."""

from __future__ import annotations

import numpy as np
import torch

from mmxx.lab.testing import Case
from mmxx.language.mediation import Example, Mediation, decompose, total_effect
from mmxx.nn.gpt import GPT, GPTConfig


def odds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0.1, 2, 6), rng.uniform(0.1, 2, 6)


def shares() -> tuple[np.ndarray, ...]:
    return tuple(np.random.default_rng(0).uniform(-0.5, 2, (3, 6)))


def examples() -> list[Example]:
    return [Example([1, 2, 3], [1, other, 3], ([5], [6])) for other in (4, 7)]


class Measured(torch.nn.Module):
    """Effects of a network's heads as a function of something that learns."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        shape = GPTConfig(n_layer=2, d_model=8, n_head=2, vocab_size=9, n_ctx=8, init_std=0.3)
        self.inner = GPT(shape, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
        self.kind = kind
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        effects = getattr(Mediation(self.inner), self.kind)(examples())
        return x * self.scale + torch.from_numpy(effects.nie.sum()[None]).to(x.dtype)


def ones() -> tuple[torch.Tensor]:
    return (torch.ones(6, 4),)


CASES = [
    Case(lambda: total_effect, odds, name="total_effect"),
    Case(lambda: decompose, shares, name="decompose"),
    *(
        Case(lambda kind=kind: Measured(kind), ones, kind="module", name=kind)
        for kind in ("heads", "neurons", "attribution")
    ),
]
