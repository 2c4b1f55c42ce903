"""Probability densities: a normalising flow learns one from samples; its table can be searched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn.functional import log_softmax, softplus

Array = NDArray[np.float64]
_COMPONENTS, _HIDDEN = 12, 32
_RATE = 1e-2
_LOOK = 10  # steps between two looks at the samples held back
_FEWEST = 50


class _Conditional(nn.Module):
    """The density of one variable given those before it: a mixture of logistic ones.

    Its distribution function carries the variable to a uniform one: a layer of the flow.
    """

    def __init__(self, before: int) -> None:
        super().__init__()
        shapes = 3 * _COMPONENTS
        self.net = nn.Sequential(
            nn.Linear(before or 1, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, shapes)
        )  # not asked for the first variable
        self.base = nn.Parameter(
            torch.cat(
                [
                    torch.zeros(_COMPONENTS),
                    torch.linspace(-2, 2, _COMPONENTS),
                    torch.full((_COMPONENTS,), -1.0),
                ]
            )
        )

    def forward(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Logarithm of the density of x [n], given before [n, variables before]."""
        shapes = self.base.expand(len(x), -1)
        if before.shape[1]:
            shapes = shapes + self.net(before)
        share, place, log_width = shapes.split(_COMPONENTS, dim=1)
        z = (x[:, None] - place) * torch.exp(-log_width)
        logistic = -z - 2 * softplus(-z) - log_width
        return torch.logsumexp(log_softmax(share, dim=1) + logistic, dim=1)


@dataclass
class Density:
    """A density that was learnt.

    Attributes:
        layers: One a variable, in the order of the columns.
        centre, width: Of each column, [columns].
        held: Mean log density of the samples held back.
    """

    layers: nn.ModuleList
    centre: Array
    width: Array
    held: float

    def log_density(self, X: ArrayLike) -> Array:
        """Its logarithm [rows] at X [rows, columns]."""
        scaled = (np.asarray(X, np.float64) - self.centre) / self.width
        with torch.no_grad():
            found = _log_density(self.layers, torch.from_numpy(scaled)).numpy()
        return found - float(np.log(self.width).sum())

    def table(self, samples: ArrayLike, rows: int = 1000) -> tuple[Array, Array]:
        """Points and the density there, for `AIFeynmanRegressor`.

        Args:
            samples: Of the density, [n, columns]; the first ``rows`` of them are the points.
            rows: How many.

        Returns:
            X [rows, columns] and y [rows].
        """
        X = np.asarray(samples, np.float64)[:rows]
        return X, np.exp(self.log_density(X))


def fit_density(samples: ArrayLike, *, steps: int = 600, seed: int = 0) -> Density:
    """Learn a density from samples, by an autoregressive flow of largest likelihood.

    A fifth of the samples is held back; the weights that are likeliest to have made them are kept.
    The global state of torch is unchanged.

    Args:
        samples: [n, columns], n of 50 or more.
        steps: Of Adam, with all samples in each.
        seed: Of weights and split.

    Raises:
        ValueError: Too few samples, another shape, values that are not finite, or a column that is
            constant.

    Source: Udrescu et al. (2020), section 2.4, whose flow is of another kind.

    Example:
        >>> normal = np.random.default_rng(0).normal(size=(2000, 1))
        >>> density = fit_density(normal, steps=100)
        >>> abs(density.log_density([[0.0]])[0] - np.log(1 / np.sqrt(2 * np.pi))) < 0.1
        True
    """
    X = np.asarray(samples, np.float64)
    if X.ndim != 2 or len(X) < _FEWEST or not X.shape[1]:
        raise ValueError(f"samples must be [{_FEWEST} or more, columns], got {list(X.shape)}")
    if not np.isfinite(X).all():
        rows = ~np.isfinite(X).all(1)
        raise ValueError(f"samples must be finite, got {int(rows.sum())} rows that are not")
    centre, width = X.mean(0), X.std(0)
    if (width == 0).any():
        raise ValueError(f"samples must vary, column {int(np.argmin(width))} is constant")
    order = np.random.default_rng(seed).permutation(len(X))
    scaled = torch.from_numpy((X - centre) / width)[torch.from_numpy(order)]
    held, rest = scaled[: len(X) // 5], scaled[len(X) // 5 :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.ModuleList(_Conditional(k) for k in range(X.shape[1])).double()
    adam = torch.optim.Adam(layers.parameters(), lr=_RATE)
    best: tuple[float, Any] = (-math.inf, None)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        adam.zero_grad()
        (-_log_density(layers, rest).mean()).backward()
        adam.step()
        if step % _LOOK == _LOOK - 1 or step + 1 == steps:
            with torch.no_grad():
                likely = float(_log_density(layers, held).mean())
            if likely > best[0]:
                best = likely, {k: v.clone() for k, v in layers.state_dict().items()}
    layers.load_state_dict(best[1])
    layers.requires_grad_(False)
    return Density(layers, centre, width, best[0] - float(np.log(width).sum()))


def _log_density(layers: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([layer(x[:, k], x[:, :k]) for k, layer in enumerate(layers)]).sum(0)
