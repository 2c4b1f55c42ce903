"""What the contract calls of MuZero."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmxx.lab.testing import Case
from mmxx.planning.muzero import (
    DiscreteSupport,
    RecurrentOutput,
    RootOutput,
    gumbel_muzero_policy,
    mlp_network,
    muzero_policy,
    resnet_network,
    scale_hidden,
)


def roots() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((4, 6), (4,), (4, 6)))


def model(action: Any, state: Any) -> tuple[RecurrentOutput, Any]:
    new = np.roll(state, 1, axis=1) * 0.9
    new[np.arange(len(new)), action] -= 1
    d = np.full(len(new), -1, new.dtype)
    return RecurrentOutput(new[:, 0] * 0, d, np.tanh(new[:, 1]), new), new


def searched(policy: Any) -> Any:
    def call(logits: Any, value: Any, state: Any) -> Any:
        found = policy(RootOutput(logits, value, state), model, num_simulations=12, generator=0)
        return found.action_weights, found.tree.qvalues

    return call


def two_hot(x: torch.Tensor) -> Any:
    support = DiscreteSupport(3)
    return support.decode(support.encode(x).clamp(min=1e-30).log())


def network(make: Any, shape: tuple[int, ...], **options: Any) -> Any:
    return make(
        shape, 3, support=DiscreteSupport(2), generator=torch.Generator().manual_seed(0), **options
    )


def seen(*shape: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    actions = torch.tensor([[0, 2], [1, 1], [2, 0], [0, 0]])
    return torch.randn(4, *shape, generator=generator), actions


CASES = [
    Case(lambda: searched(muzero_policy), roots, name="muzero_policy"),
    Case(lambda: searched(gumbel_muzero_policy), roots, name="gumbel_muzero_policy"),
    Case(lambda: two_hot, lambda: (torch.linspace(-4, 4, 9),), name="DiscreteSupport"),
    Case(lambda: scale_hidden, lambda: seen(5)[:1], name="scale_hidden"),
    Case(
        lambda: network(mlp_network, (5,), width=8, state_size=6), lambda: seen(5), "module",
        "mlp_network", per_sample=False,
    ),
    Case(
        lambda: network(resnet_network, (2, 3, 3), blocks=1, channels=4), lambda: seen(2, 3, 3),
        "module", "resnet_network", per_sample=False,
    ),
]  # fmt: skip
