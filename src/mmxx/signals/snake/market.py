"""The authors' experiment on the Wilshire 5000 index, as their notebook does it.

Three hidden layers of 64 units with a = 30 in all of them and not trained; x is the day over
the number of days, y the index over its maximum; gradient descent with momentum over all
training days at once. The first 6,300 trading days are training.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmxx.signals.snake import baselines
from mmxx.signals.snake.network import Networks
from mmxx.signals.snake.selection import Vector

A = 30.0
TRAINING_DAYS = 6300
LEARNING_RATE = 2e-2
MOMENTUM = 0.9
HIDDEN = (64, 64, 64)


class Market(NamedTuple):
    """The scaled index: ``x`` [days] in (0, 1], ``y`` [days] at most 1."""

    x: Vector
    y: Vector


def scale(values: Vector) -> Market:
    """The index over its maximum, by trading day; days without a value (NaN) are no days.

    Raises:
        ValueError: No more days than the training takes.
    """
    there = values[np.isfinite(values)]
    if len(there) <= TRAINING_DAYS:
        raise ValueError(f"market: expected more than {TRAINING_DAYS} days, got {len(there)}")
    return Market(np.arange(1, len(there) + 1) / len(there), there / there.max())


def begin(activation: str, seeds: Sequence[int]) -> tuple[Networks, torch.optim.SGD]:
    """The networks of the recipe, and their optimizer."""
    networks = Networks(activation, seeds=seeds, hidden=HIDDEN, a=A)
    for snake in networks.snakes:
        snake.requires_grad_(False)
    trained = [p for p in networks.parameters() if p.requires_grad]
    return networks, torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM)


def training_part(market: Market) -> tuple[Tensor, Tensor]:
    """Points [1, days, 1] and targets [1, days] of the training days."""
    part = (market.x[:TRAINING_DAYS], market.y[:TRAINING_DAYS])
    x, y = (torch.tensor(values, dtype=torch.float32)[None] for values in part)
    return x[..., None], y


@torch.no_grad()
def predict(networks: Networks, market: Market) -> Vector:
    """Every day, [days, networks]."""
    x = torch.tensor(market.x, dtype=torch.float32)[None, :, None]
    return networks(x).T.double().numpy()


def train(item: tuple[str, Sequence[int], int, Market]) -> Vector:
    """The recipe from beginning to end, for (activation, seeds, steps, market).

    Returns:
        Every day as predicted, [days, networks].
    """
    activation, seeds, steps, market = item
    networks, optimizer = begin(activation, seeds)
    x, y = training_part(market)
    for _ in range(steps):
        optimizer.zero_grad()
        (networks(x) - y).square().mean(1).sum().backward()
        optimizer.step()
    return predict(networks, market)


def errors(predicted: dict[str, Vector], market: Market) -> tuple[dict[str, Vector], ...]:
    """Mean squared errors after the training days: of networks, and of what needs none.

    Args:
        predicted: By arm, [days, networks].
        market: What came.

    Returns:
        By arm [networks], and by baseline [1]; ARIMA is left out without statsmodels.
    """
    n = TRAINING_DAYS
    truth = market.y[n:]
    past = market.x[:n], market.y[:n], market.x[n:]
    others = {
        "parabola": baselines.polynomial(*past, degree=2),
        "last value": baselines.last_value(*past),
    }
    if importlib.util.find_spec("statsmodels"):
        others["ARIMA(2,1,1)"] = baselines.arima(*past)
    of_networks = {k: np.square(p[n:] - truth[:, None]).mean(0) for k, p in predicted.items()}
    return of_networks, {k: np.square(p - truth).mean(keepdims=True) for k, p in others.items()}
