"""Six functions of two variables on which optimizers are seen to walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

NEAR = 0.05
"""Distance to the optimum at which a walk has arrived."""
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "|x| + |y|": lambda x, y: abs(x) + abs(y),
    "|x + y| + |x - y|/10": lambda x, y: abs(x + y) + abs(x - y) / 10,
    "(x + y)² + (x - y)²/10": lambda x, y: (x + y) ** 2 + (x - y) ** 2 / 10,
    "x²/10 + y²": lambda x, y: x**2 / 10 + y**2,
    "Beale": lambda x, y: (
        (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2
    ),
    "Rosenbrock": lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
}
"""Of arrays or tensors, element by element."""
STEEP = 4
"""The functions from this one on are steep: momentum alone needs a tenth of the rate there."""
STARTS = np.array([(3, 2), (3, 2), (3, 2), (3, 2), (-1, -1), (-1.5, 2)], float)
OPTIMA = np.array([(0, 0), (0, 0), (0, 0), (0, 0), (3, 0.5), (1, 1)], float)


def values(where: np.ndarray) -> np.ndarray:
    """All functions at [..., 6, 2]; the result is [6, ...]."""
    xs, ys = np.moveaxis(where, (-1, -2), (0, 1))
    return np.stack([f(x, y) for f, x, y in zip(FUNCTIONS.values(), xs, ys, strict=True)])


def gradients(where: np.ndarray) -> np.ndarray:
    """Of all functions, written out: [..., 6, 2] for [..., 6, 2].

    Ten thousand steps of automatic differentiation would cost most of a short run.
    """
    x, y = where[..., 0], where[..., 1]
    plus, minus = x[..., 1:3] + y[..., 1:3], x[..., 1:3] - y[..., 1:3]
    slopes = np.empty_like(where)
    slopes[..., 0, :] = np.sign(where[..., 0, :])
    up, down = np.sign(plus[..., 0]), np.sign(minus[..., 0]) / 10
    slopes[..., 1, 0], slopes[..., 1, 1] = up + down, up - down
    up, down = 2 * plus[..., 1], minus[..., 1] / 5
    slopes[..., 2, 0], slopes[..., 2, 1] = up + down, up - down
    slopes[..., 3, :] = where[..., 3, :] * (0.2, 2.0)
    u, v = x[..., 4], y[..., 4]
    square, cube = v * v, v * v * v
    a, b, c = 1.5 - u + u * v, 2.25 - u + u * square, 2.625 - u + u * cube
    slopes[..., 4, 0] = 2 * (a * (v - 1) + b * (square - 1) + c * (cube - 1))
    slopes[..., 4, 1] = 2 * u * (a + 2 * b * v + 3 * c * square)
    u, v = x[..., 5], y[..., 5]
    off = v - u * u
    slopes[..., 5, 0], slopes[..., 5, 1] = 2 * (u - 1) - 400 * u * off, 200 * off
    return slopes


def distances(where: np.ndarray) -> np.ndarray:
    """How far [..., 6, 2] lies from the optima, [..., 6]."""
    return np.sqrt(np.square(where - OPTIMA).sum(-1))


def closed_form(steps: int, *, lr: float, betas: tuple[float, float], eps: float) -> np.ndarray:
    r"""Where AdaBelief stands after each step of the constant gradient 1, from 0: [steps].

    The residual is $\beta_1^t$, so that
    $s_t = (1 - \beta_2) \beta_1^2 (\beta_2^t - \beta_1^{2t}) / (\beta_2 - \beta_1^2) +
    \epsilon (1 - \beta_2^t) / (1 - \beta_2)$ and the step is
    $\mathrm{lr} / (\sqrt{s_t / (1 - \beta_2^t)} + \epsilon)$.
    """
    beta1, beta2 = betas
    t = np.arange(1, steps + 1)
    left = 1 - beta2**t
    s = (1 - beta2) * beta1**2 * (beta2**t - beta1 ** (2 * t)) / (beta2 - beta1**2)
    s = s + eps * left / (1 - beta2)
    return -np.cumsum(lr / (np.sqrt(s / left) + eps))


def pushed(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], steps: int
) -> np.ndarray:
    """Where the optimizer that ``make`` builds stands after each step of the gradient 1."""
    point = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make([point])
    point.grad = torch.ones_like(point)
    places = np.empty(steps)
    for step in range(steps):
        optimizer.step()
        places[step] = point.item()
    return places
