"""Fitting networks to series: the coordinates they work in, and what one task trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmxx.signals.snake.network import Networks, train
from mmxx.signals.snake.selection import Choice

Matrix = NDArray[np.floating[Any]]


class Frame(NamedTuple):
    """The coordinates of the networks: columns on [-1, 1], y less its linear part, scaled.

    Attributes:
        centre: Middle of each column, [d].
        half: Half of its range, [d].
        coefficients: Linear part of each series in these columns, the constant last,
            [d + 1, series].
        scale: Root mean square of what the linear part leaves, [series]; 0 where it leaves
            nothing but rounding.
    """

    centre: Matrix
    half: Matrix
    coefficients: Matrix
    scale: Matrix

    @classmethod
    def of(cls, x: Matrix, y: Matrix, standardize: bool = True) -> Frame:
        """The frame of points [n, d] and values [n, series] with NaN for gaps.

        Without ``standardize``, the one that changes nothing.
        """
        d, series = x.shape[1], y.shape[1]
        if not standardize:
            return cls(np.zeros(d), np.ones(d), np.zeros((d + 1, series)), np.ones(series))
        low, high = x.min(0), x.max(0)
        half = (high - low) / 2
        coefficients, scale = np.zeros((d + 1, series)), np.empty(series)
        frame = cls((low + high) / 2, np.where(half > 0, half, 1.0), coefficients, scale)
        design = frame.design(x)
        for s in range(series):
            there = np.isfinite(y[:, s])
            mean = y[there, s].mean()
            rest = y[there, s] - mean
            fitted = np.linalg.lstsq(design[there], rest, rcond=None)[0]
            deviation = float(np.sqrt(np.mean((rest - design[there] @ fitted) ** 2)))
            rounding = 1e-12 * float(np.abs(y[there, s]).max())
            scale[s] = deviation if deviation > rounding else 0.0
            coefficients[:, s] = fitted
            coefficients[-1, s] += mean
        return frame

    def points(self, x: Matrix) -> Matrix:
        """The networks' input, [n, d]."""
        return (x - self.centre) / self.half

    def design(self, x: Matrix) -> Matrix:
        """The networks' input and a column of ones, [n, d + 1]."""
        return np.column_stack([self.points(x), np.ones(len(x))])

    def targets(self, x: Matrix, y: Matrix) -> Matrix:
        """What the networks should put out, [n, series]; gaps stay NaN."""
        return (y - self.design(x) @ self.coefficients) / np.where(self.scale > 0, self.scale, 1.0)

    def values(self, x: Matrix, outputs: Matrix, series: Sequence[int]) -> Matrix:
        """In units of y, [n, networks]: ``outputs`` [n, networks], each of a series."""
        of = list(series)
        return outputs * self.scale[of] + self.design(x) @ self.coefficients[:, of]


class Job(NamedTuple):
    """Networks to train together, each on one of some series over the same points.

    Attributes:
        x: Points [n, d]; d = 1 for a time axis.
        y: Values [n, series], NaN for gaps.
        series: The series of each network.
        choices: Its ``a``.
        seeds: The seed of its weights.
        activation: ``"snake"`` or a rival's name.
        hidden: Widths of the hidden layers.
        steps: Steps of Adam.
        lr: First learning rate.
        standardize: Whether to train in the `Frame` of the data.
        speed: What to multiply the input by after that.
    """

    x: Matrix
    y: Matrix
    series: Sequence[int]
    choices: Sequence[Choice]
    seeds: Sequence[int]
    activation: str = "snake"
    hidden: tuple[int, ...] = (64, 64)
    steps: int = 1000
    lr: float = 1e-3
    standardize: bool = True
    speed: float = 1.0


class Fit(NamedTuple):
    """Networks of a `Job`, and what they are trained on.

    Attributes:
        job: What it was made from.
        frame: The coordinates.
        networks: One per seed of the job.
        data: Points [1, n, d], targets [networks, n], and 1 where a value is, else 0.
    """

    job: Job
    frame: Frame
    networks: Networks
    data: tuple[Tensor, Tensor, Tensor]

    def predict(self, x: Matrix) -> Matrix:
        """Every network at the points [m, d], in units of y and double precision: [m, networks]."""
        points = torch.tensor(self.frame.points(x)[None] * self.job.speed)
        weights = {k: v.double() for k, v in self.networks.state_dict().items()}
        with torch.no_grad():
            outputs = torch.func.functional_call(self.networks, weights, points)
        return self.frame.values(x, outputs.T.numpy(), self.job.series)


def begin(job: Job) -> Fit:
    """Draw the networks of a job and scale its data; nothing is trained yet."""
    frame = Frame.of(job.x, job.y, job.standardize)
    half = float(frame.half[0])
    networks = Networks(
        job.activation,
        seeds=job.seeds,
        in_features=job.x.shape[1],
        hidden=job.hidden,
        a=[choice.scaled(half) for choice in job.choices],
        deeper_a=[choice.deeper(half) for choice in job.choices],
        aligned=[choice.period is not None and job.activation == "snake" for choice in job.choices],
    )
    targets = frame.targets(job.x, job.y).T[list(job.series)]
    present = np.isfinite(targets)
    points, wanted, counted = (
        torch.tensor(part, dtype=torch.float32)
        for part in (
            frame.points(job.x)[None] * job.speed,
            np.where(present, targets, 0.0),
            present,
        )
    )
    return Fit(job, frame, networks, (points, wanted, counted))


def fit(job: Job) -> tuple[Fit, Tensor]:
    """Train a job; also the final error of each network in the frame, [networks]."""
    begun = begin(job)
    return begun, train(begun.networks, *begun.data, steps=job.steps, lr=job.lr)
