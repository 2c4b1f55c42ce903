"""Snake for the contract."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from mmxx.lab.testing import Case
from mmxx.signals.snake import (
    Networks,
    Snake,
    SnakeBeta,
    SnakeRegressor,
    candidate_periods,
    convert,
    fourier_network,
    harmonic_regression,
    last_value,
    periodogram,
    polynomial,
    seasonal_naive,
    snake,
    snake_init_,
)


def _normal(*shape: int) -> tuple[torch.Tensor]:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)),)


def _and_a() -> tuple[torch.Tensor, torch.Tensor]:
    return (*_normal(6, 4), torch.tensor([0.0, -2.0, 0.3, 20.0]))


def _series() -> tuple[np.ndarray, ...]:
    t = np.arange(96.0)
    y = np.sin(2 * np.pi * t / 12) + 0.02 * t
    return t[:72], y[:72], t[72:]


def _converted() -> torch.nn.Module:
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    generator = torch.Generator().manual_seed(0)
    for layer, a in ((net[0], None), (net[2], 1.0)):
        snake_init_(layer, a, generator=generator)
    return convert(net)


def _whole(make: Any, args: Any, kind: Any = "function", name: str = "") -> Case:
    return Case(make, args, kind, name, per_sample=False)


CASES: list[Case] = [
    Case(lambda: snake, _and_a, "function", "snake"),
    Case(partial(Snake, 4, 3.0), partial(_normal, 6, 4), "module", "Snake"),
    Case(partial(Snake, 4, 3.0, logscale=True), partial(_normal, 6, 4), "module", "Snake-log"),
    Case(partial(Snake, 4, 3.0, dim=1), partial(_normal, 6, 4, 9), "module", "Snake-channels"),
    Case(partial(SnakeBeta, 4, 3.0, 2.0), partial(_normal, 6, 4), "module", "SnakeBeta"),
    Case(_converted, partial(_normal, 6, 4), "module", "convert"),
    Case(lambda: fourier_network([1.0, 0.5], [0.0, -2.0], period=3.0).float(),
         partial(_normal, 6, 1), "module", "fourier_network"),
    _whole(partial(Networks, "snake", seeds=(0, 1), hidden=(8,)), partial(_normal, 1, 6, 1),
           "module", "Networks"),
    _whole(lambda: periodogram, lambda: _series()[:2], name="periodogram"),
    _whole(lambda: lambda t, y: np.array(candidate_periods(t, y, 1)), lambda: _series()[:2],
           name="candidate_periods"),
    _whole(lambda: last_value, _series, name="last_value"),
    _whole(lambda: polynomial, _series, name="polynomial"),
    _whole(lambda: partial(seasonal_naive, period=12.0), _series, name="seasonal_naive"),
    _whole(lambda: partial(harmonic_regression, period=12.0), _series, name="harmonic_regression"),
    Case(lambda: SnakeRegressor(hidden=(8,), max_iter=5, random_state=0), tuple, "estimator",
         "SnakeRegressor"),
]  # fmt: skip
