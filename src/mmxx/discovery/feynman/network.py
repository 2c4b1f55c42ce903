"""A network that stands for the unknown function: trained, evaluated, differentiated."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]
_TOGETHER = 20  # steps of L-BFGS between two looks at the rows held back


@dataclass
class Network:
    """A trained network in the units of the table.

    Attributes:
        net: The module, for scaled variables.
        centre, width: Of each column, [columns].
        mean, deviation: Of y.
        error: Root mean square error on the rows held back.
        steps: Steps made.
    """

    net: nn.Module
    centre: Array
    width: Array
    mean: float
    deviation: float
    error: float
    steps: int

    def value(self, X: Array) -> Array:
        """Values [rows] at X [rows, columns]."""
        with torch.no_grad():
            return self.net(self._scaled(X))[:, 0].double().numpy() * self.deviation + self.mean

    def gradient(self, X: Array) -> Array:
        """Derivatives [rows, columns] at X."""
        x = self._scaled(X).requires_grad_(True)
        (slope,) = torch.autograd.grad(self.net(x).sum(), x)
        return slope.double().numpy() * self.deviation / self.width

    def _scaled(self, X: Array) -> torch.Tensor:
        return torch.from_numpy(((X - self.centre) / self.width).astype(np.float32))


def tanh_network(columns: int, widths: tuple[int, ...] = (128, 128, 64, 64)) -> nn.Sequential:
    """The paper's network: tanh, n-128-128-64-64-1.

    Args:
        columns: Of its input [rows, columns]; it gives [rows, 1].
        widths: Of the hidden layers.

    Source: Udrescu et al. (2020), section 2.2.
    """
    layers: list[nn.Module] = []
    for before, after in zip((columns, *widths), widths, strict=False):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def _copy(module: nn.Module, columns: int) -> nn.Module:
    """A copy, tried on two rows."""
    copied = copy.deepcopy(module).float()
    try:
        shape = tuple(copied(torch.zeros(2, columns)).shape)
    except RuntimeError as error:
        raise ValueError(
            f"network must take [rows, {columns}], got {type(module).__name__}: {error}"
        ) from None
    if shape != (2, 1):
        raise ValueError(f"network must give [rows, 1], got {list(shape)} for two rows")
    return copied


def train(
    X: Array,
    y: Array,
    *,
    steps: int = 2000,
    lr: float = 5e-3,
    widths: tuple[int, ...] = (128, 128, 64, 64),
    seed: int = 0,
    patience: int = 400,
    module: nn.Module | None = None,
) -> Network:
    """Fit a network by full-batch Adam, and then by L-BFGS, which comes closer in less time.

    Adam makes half of the steps, its learning rate falling to 0 by a cosine. A fifth of the rows
    is held back. Either half stops early when their error has not fallen for ``patience`` steps,
    and the best weights are kept. The global state of torch is unchanged.

    Args:
        X: [rows, columns].
        y: [rows].
        steps: At most.
        lr: First learning rate.
        widths: Of the hidden layers.
        seed: Of weights and split.
        patience: See above.
        module: A network of one's own, from [rows, columns] to [rows, 1], both scaled, in
            float32; a copy of it is trained.

    Raises:
        ValueError: The module takes or gives another shape.

    Source: Udrescu et al. (2020), section 2.2; the authors use Adam alone, with batches and four
    rates.
    """
    centre, width = X.mean(0), X.std(0)
    width[width == 0] = 1.0
    mean, deviation = float(y.mean()), float(y.std()) or 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = tanh_network(X.shape[1], widths) if module is None else _copy(module, X.shape[1])
    order = np.random.default_rng(seed).permutation(len(X))
    held = order[: max(1, len(X) // 5)]
    rest = order[len(held) :] if len(X) > len(held) else order
    network = Network(net, centre, width, mean, deviation, math.inf, 0)
    inputs = network._scaled(X)
    target = torch.from_numpy(((y - mean) / deviation).astype(np.float32))[:, None]
    train_x, train_y, held_x, held_y = inputs[rest], target[rest], inputs[held], target[held]
    watch = _Watch(net, held_x, held_y, patience)

    def loss() -> torch.Tensor:
        net.zero_grad()
        value = (net(train_x) - train_y).square().mean()
        value.backward()
        return value

    first, step = (steps + 1) // 2, 0
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(first):
        for group in adam.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / first))
        loss()
        adam.step()
        if (step % 10 == 9 or step + 1 == first) and watch.is_over(step):
            break
    network.steps = step + 1
    net.load_state_dict(watch.kept)
    watch.step = 0
    newton = torch.optim.LBFGS(
        net.parameters(), max_iter=_TOGETHER, history_size=_TOGETHER, line_search_fn="strong_wolfe"
    )
    for step in range(0, steps - first, _TOGETHER):
        newton.param_groups[0]["max_iter"] = min(_TOGETHER, steps - first - step)
        newton.step(loss)
        network.steps += newton.param_groups[0]["max_iter"]
        if watch.is_over(step):
            break
    net.load_state_dict(watch.kept)
    net.requires_grad_(False)
    network.error = math.sqrt(watch.best) * deviation
    return network


class _Watch:
    """The best weights so far, by the error on rows that are held back."""

    def __init__(self, net: nn.Module, x: torch.Tensor, y: torch.Tensor, patience: int) -> None:
        self.best, self.step = math.inf, 0
        self._net, self._x, self._y, self._patience = net, x, y, patience
        self.kept = {name: value.clone() for name, value in net.state_dict().items()}

    def is_over(self, step: int) -> bool:
        """Look at the present weights; whether none were better for ``patience`` steps."""
        with torch.no_grad():
            error = float((self._net(self._x) - self._y).square().mean())
        if error < self.best:
            self.best, self.step = error, step
            self.kept = {name: value.clone() for name, value in self._net.state_dict().items()}
        return step - self.step >= self._patience or not math.isfinite(error)
