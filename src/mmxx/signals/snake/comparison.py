"""What Snake is compared with on a series: which networks to train, and what needs none."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mmxx.signals.snake import baselines
from mmxx.signals.snake.fitting import Job, fit
from mmxx.signals.snake.network import Networks
from mmxx.signals.snake.problems import Problem
from mmxx.signals.snake.selection import Choice, Vector, pick, tail_size
from mmxx.signals.snake.theory import asymptote

FAR = 1000.0
"""Half lengths of the training part: where a ray begins, and how far it is followed."""


class Arm(NamedTuple):
    """Networks to train, and where to ask them."""

    label: str
    job: Job
    future: Vector


def repetitions(
    problem: Problem,
    choices: Sequence[Choice],
    *,
    activation: str,
    seed: int,
    hidden: int,
    steps: int,
    lr: float,
) -> Job:
    """One network per repetition of a problem, with seeds that count on from ``seed``."""
    count = problem.y.shape[1]
    return Job(
        problem.t[:, None],
        problem.y,
        series=range(count),
        choices=choices,
        seeds=range(seed, seed + count),
        activation=activation,
        hidden=(hidden, hidden),
        steps=steps,
        lr=lr,
    )


def validation(job: Job, proposals: Sequence[Sequence[Choice]]) -> Arm:
    """All proposals [repetition][proposal], trained on the head, to be asked about the tail."""
    head = len(job.x) - tail_size(len(job.x))
    triples = [(s, c, job.seeds[s]) for s, some in enumerate(proposals) for c in some]
    series, choices, seeds = zip(*triples, strict=True)
    part = job._replace(x=job.x[:head], y=job.y[:head], series=series, choices=choices, seeds=seeds)
    return Arm("validation", part, job.x[head:, 0])


def decide(
    problem: Problem, proposals: Sequence[Sequence[Choice]], predicted: Vector, seed: int
) -> tuple[list[Choice], list[dict[str, Any]]]:
    """The proposal that does well on the tail, for each repetition, and a table of them.

    Args:
        problem: The problem.
        proposals: [repetition][proposal].
        predicted: The tail as all proposals predict it, [tail, repetitions x proposals].
        seed: The first repetition's, for the table.
    """
    tail = problem.y[-len(predicted) :]
    rows: list[dict[str, Any]] = []
    choices: list[Choice] = []
    start = 0
    for s, some in enumerate(proposals):
        squares = np.square(predicted[:, start : start + len(some)] - tail[:, [s]]) / problem.unit
        start += len(some)
        chosen = pick(squares)
        choice = some[chosen]
        choices.append(choice)
        errors = squares.mean(0)
        periods = dict.fromkeys(f"{c.period:.3g}" for c in some if c.period is not None)
        rows.append(
            {
                "seed": seed + s,
                "proposed periods": ", ".join(periods) or "none",
                "period": "none" if choice.period is None else choice.period,
                "deeper a": "the same" if choice.deeper_a is None else choice.deeper_a,
                "error on the tail": errors[chosen],
                "least": errors.min(),
                "largest": errors.max(),
            }
        )
    return choices, rows


def rivals(
    job: Job, names: Sequence[str], future: Vector, proposals: Sequence[Sequence[Choice]]
) -> list[Arm]:
    """The other activations; last, sine with its input sped up to the strongest cycle."""
    arms = [Arm(name, job._replace(activation=name), future) for name in names]
    first = proposals[0][0]
    if first.period is not None:
        half = float(job.x[-1, 0] - job.x[0, 0]) / 2
        told = job._replace(activation="sin", speed=2 * first.scaled(half))
        arms.append(Arm("sin, told the cycle", told, future))
    return arms


def train_arm(arm: Arm) -> dict[str, Any]:
    """Train an arm; its predictions [m, networks], and how its first network goes on far out."""
    fitted, _ = fit(arm.job)
    slope, wiggle = far_out(fitted.networks, arm.job.speed)
    return {"future": fitted.predict(arm.future[:, None]), "slope": slope, "wiggle": wiggle}


def far_out(networks: Networks, speed: float = 1.0) -> tuple[float, float]:
    """Slope and wiggle of the first network far outside of its data, in its own units."""
    exact = copy.deepcopy(networks).double()
    ray = torch.ones(1, dtype=torch.float64)
    found = asymptote(lambda x: exact((speed * x)[None])[0], ray, radius=FAR, length=FAR)
    return found.slope, found.wiggle


def without_networks(
    problem: Problem, cycles: Sequence[float | None], *, arima: bool
) -> dict[str, Vector]:
    """Predictions [m, repetitions] of what needs no network.

    Args:
        problem: The problem.
        cycles: Strongest period of each repetition, for those with a season; with a None among
            them they are left out.
        arima: Whether to add ARIMA, which is left out without statsmodels all the same.
    """
    t, future = problem.t, problem.future
    columns = list(problem.y.T)
    found = {
        "last value": [baselines.last_value(t, y, future) for y in columns],
        "parabola": [baselines.polynomial(t, y, future, degree=2) for y in columns],
    }
    periods = [period for period in cycles if period is not None]
    if len(periods) == len(columns):
        pairs = list(zip(columns, periods, strict=True))
        found["seasonal naive"] = [
            baselines.seasonal_naive(t, y, future, period=p) for y, p in pairs
        ]
        found["harmonic regression"] = [
            baselines.harmonic_regression(t, y, future, period=p) for y, p in pairs
        ]
    if arima and importlib.util.find_spec("statsmodels"):
        found["ARIMA(2,1,1)"] = [baselines.arima(t, columns[0], future)] * len(columns)
    return {label: np.stack(some, 1) for label, some in found.items()}
