"""The fit loop: plain, so that it can be written out, or a step of it used, anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.signals.siren.losses import Loss
from mmxx.signals.siren.siren import SineLayer, check_count

Draw = Callable[[int], tuple[Tensor, Any]]


def fit_step(
    net: nn.Module, optimizer: torch.optim.Optimizer, coords: Tensor, targets: Any, loss: Loss
) -> Tensor:
    """One step: forward, loss, backward, step.

    The losses are means over points, so that equal shards of the points on several processes,
    their gradients averaged, make the same step as all points on one.

    Args:
        net: The field.
        optimizer: Of the field's parameters.
        coords: Coordinates [N, d].
        targets: What ``loss`` takes.
        loss: Called as ``loss(net, coords, targets)``.

    Returns:
        The loss before the step, a detached scalar.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> square = lambda net, x, y: (net(x) - y).square().mean()
        >>> fit_step(net, sgd, torch.zeros(4, 2), torch.zeros(4, 1), square).shape
        torch.Size([])
    """
    optimizer.zero_grad()
    value = loss(net, coords, targets)
    value.backward()
    optimizer.step()
    return value.detach()


def fit(
    net: nn.Module,
    draw: Draw,
    loss: Loss,
    *,
    steps: int,
    lr: float = 1e-4,
    optimizer: torch.optim.Optimizer | None = None,
    keep_best: bool = False,
) -> list[float]:
    """Fit a field by gradient descent, in place.

    Args:
        net: The field.
        draw: Gives the coordinates and targets of a step, called with the step's number.
        loss: Called as ``loss(net, coords, targets)``.
        steps: Number of steps.
        lr: Learning rate of Adam, for which the paper takes 1e-4.
        optimizer: Another optimiser of the field's parameters; ``lr`` is then only named in
            messages.
        keep_best: End with the weights of the lowest loss rather than the last. Sensible where
            every step sees the same points: at large rates the loss of a SIREN spikes.

    Returns:
        The loss before each step.

    Raises:
        ValueError: If ``steps`` or ``lr`` is not positive.
        FloatingPointError: If the loss becomes NaN or infinite. The field then has the weights of
            the lowest loss.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> x = torch.linspace(-1, 1, 9)[:, None]
        >>> square = lambda net, x, y: (net(x) - y).square().mean()
        >>> losses = fit(net, lambda step: (x, 2 * x), square, steps=300, lr=0.05)
        >>> losses[-1] < 1e-3
        True
    """
    check_count("steps", steps)
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr must be positive and finite, got {lr}")
    optimizer = optimizer or torch.optim.Adam(net.parameters(), lr=lr)
    losses: list[float] = []
    best, best_step, best_state = math.inf, 0, _copy(net)
    for step in range(steps):
        state = _copy(net)
        coords, targets = draw(step)
        losses.append(float(fit_step(net, optimizer, coords, targets, loss)))
        if not math.isfinite(losses[-1]):
            net.load_state_dict(best_state)
            raise FloatingPointError(
                f"the loss became {losses[-1]} at step {step} with lr={lr:g}{_frequencies(net)}; "
                f"a smaller lr or omega_0 may help (the weights of step {best_step}, of loss "
                f"{best:.3g}, are back in place)"
            )
        if losses[-1] < best:
            best, best_step, best_state = losses[-1], step, state
    if keep_best:
        net.load_state_dict(best_state)
    return losses


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _frequencies(net: nn.Module) -> str:
    omegas = [layer.omega_0 for layer in net.modules() if isinstance(layer, SineLayer)]
    if not omegas:
        return ""
    return f", first_omega_0={omegas[0]:g} and omega_0={omegas[-1]:g}"
