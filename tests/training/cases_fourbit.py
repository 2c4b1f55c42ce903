"""What the contract builds of four-bit training."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from mmxx.lab.testing import Case
from mmxx.training.fourbit import (
    PACT,
    Int4Sym,
    Log2FP4,
    QuantConv2d,
    QuantLinear,
    Radix4FP4,
    Recipe,
    convert,
    quantize,
)


def _normal(*shape: int) -> tuple[torch.Tensor]:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)),)


def _seeded(make: Any, *args: Any, **options: Any) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args, **options)


def _converted() -> torch.nn.Module:
    def make() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)
        )

    net = _seeded(make)
    convert(net, skip=("last",))
    return net


CASES = [
    Case(partial(_seeded, QuantLinear, 6, 4), partial(_normal, 5, 6), "module", "QuantLinear"),
    Case(partial(_seeded, QuantLinear, 6, 4, recipe=Recipe(activations="pact")),
         partial(_normal, 5, 6), "module", "QuantLinear-pact"),
    Case(partial(_seeded, QuantConv2d, 2, 3, 3), partial(_normal, 4, 2, 5, 5), "module",
         "QuantConv2d"),
    Case(_converted, partial(_normal, 5, 6), "module", "convert"),
    Case(PACT, partial(_normal, 6, 4), "module", "PACT"),
    Case(lambda: partial(quantize, fmt=Radix4FP4(), phase="odd"), partial(_normal, 6, 4),
         "function", "quantize-radix4"),
    Case(lambda: partial(quantize, fmt=Log2FP4()), partial(_normal, 6, 4), "function",
         "quantize-log2"),
    Case(lambda: partial(quantize, fmt=Int4Sym(), scale=3.0), partial(_normal, 6, 4), "function",
         "quantize-int4"),
]  # fmt: skip
