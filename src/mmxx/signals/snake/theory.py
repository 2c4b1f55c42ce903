r"""The two theorems on extrapolation, as something to compute with.

Along any ray, a network of ReLU ends in a straight line and one of tanh in a constant. One
hidden layer of Snake can follow a periodic function for ever (universal extrapolation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmxx.signals.snake.activation import Snake


def fourier_network(
    cosines: Sequence[float], sines: Sequence[float], *, period: float, constant: float = 0.0
) -> nn.Sequential:
    r"""One hidden layer of Snake that equals a Fourier series, everywhere on the line.

    With $a = 1/2$ and $s_k = 2\pi k / p$, two units make a wave, since the identity cancels:
    $\mathrm{Snake}(u) + \mathrm{Snake}(-u) = 4 \sin^2(u/2) = 2 - 2\cos u$. For
    $u = s_k x$ this gives the cosine, for $u = s_k x - \pi/2$ the sine.

    Args:
        cosines: Coefficients of $\cos(2\pi k x / p)$ for k = 1, 2, ...
        sines: Coefficients of $\sin(2\pi k x / p)$, as many.
        period: p.
        constant: The constant term.

    Returns:
        Network from [..., 1] to [..., 1] in double precision, with 4 units per k.

    Raises:
        ValueError: The coefficients are not of equal, positive number, or ``period`` is not
            positive.

    Example:
        >>> network = fourier_network([0.0], [1.0], period=4.0)
        >>> network(torch.tensor([[1.0], [401.0]], dtype=torch.float64)).round(decimals=6).tolist()
        [[1.0], [1.0]]
    """
    if not cosines or len(cosines) != len(sines):
        raise ValueError(
            "fourier_network: cosines and sines must be of one positive length, "
            f"got {len(cosines)} and {len(sines)}"
        )
    if not 0 < period < math.inf:
        raise ValueError(f"fourier_network: period must be positive, got {period}")
    weights, biases, outputs = [], [], []
    for k, pair in enumerate(zip(cosines, sines, strict=True), 1):
        speed = 2 * math.pi * k / period
        for coefficient, shift in zip(pair, (0.0, -math.pi / 2), strict=True):
            for sign in (1.0, -1.0):
                weights.append(sign * speed)
                biases.append(sign * shift)
                outputs.append(-coefficient / 2)
    double = torch.float64
    hidden = nn.Linear(1, len(weights), dtype=double)
    last = nn.Linear(len(weights), 1, dtype=double)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor(weights, dtype=double)[:, None])
        hidden.bias.copy_(torch.tensor(biases, dtype=double))
        last.weight.copy_(torch.tensor(outputs, dtype=double)[None])
        last.bias.fill_(constant + sum(cosines) + sum(sines))
    activation = Snake(len(weights), torch.tensor(0.5, dtype=double))
    return nn.Sequential(hidden, activation, last)


class Asymptote(NamedTuple):
    """How a network goes on: its slope far out, and what is left about the straight line."""

    slope: float
    wiggle: float


@torch.no_grad()
def asymptote(
    model: Callable[[Tensor], Tensor],
    direction: Tensor,
    *,
    radius: float,
    length: float,
    points: int = 512,
) -> Asymptote:
    """Follow a network along a ray and fit a straight line to what it does there.

    Args:
        model: From [n, d] to [n] or [n, 1].
        direction: The ray, [d]; its length is of no effect.
        radius: Where to begin, as a distance from the origin; far outside of the data.
        length: How far to follow it.
        points: How many points on the way.

    Returns:
        Slope of the line per unit of distance, and the root mean square deviation from it:
        (any, 0) for ReLU, (0, 0) for tanh, and a wiggle that stays for Snake.

    Raises:
        ValueError: ``direction`` is zero, or a distance is not positive.
    """
    norm = float(direction.norm())
    if not norm > 0:
        raise ValueError("asymptote: direction must not be zero")
    if not (radius > 0 and length > 0):
        raise ValueError(
            f"asymptote: radius and length must be positive, got {radius} and {length}"
        )
    away = torch.linspace(0, length, points, dtype=torch.float64)
    ray = (radius + away)[:, None] * (direction.double() / norm)
    values = model(ray.to(direction.dtype)).reshape(points).double()
    centred = away - away.mean()
    slope = float(centred @ values / (centred @ centred))
    rest = values - values.mean() - slope * centred
    return Asymptote(slope, float(rest.square().mean().sqrt()))
