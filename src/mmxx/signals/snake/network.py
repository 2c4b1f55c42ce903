"""Small fully connected networks side by side, and the activations they are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.signals.snake.activation import Snake

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "swish": nn.functional.silu,
    "sin": torch.sin,
    "sin+cos": lambda x: torch.sin(x) + torch.cos(x),
    "x+sin": lambda x: x + torch.sin(x),
}
"""The activations that the paper compares with Snake, by name."""


def _each(name: str, value: float | Sequence[float], count: int) -> list[float]:
    """One value per network."""
    values = [value] * count if isinstance(value, (int, float)) else list(value)
    values = [float(v) for v in values]
    if len(values) != count:
        raise ValueError(f"{name} must hold one value per seed ({count}), got {values}")
    return values


class Networks(nn.Module):
    r"""Several networks of one shape, evaluated and trained together.

    Each has its own weights and its own ``a``; nothing passes between them. Weights and biases
    are drawn as torch draws those of ``nn.Linear``, from one seed per network.

    Args:
        activation: ``"snake"`` or a key of ``ACTIVATIONS``.
        seeds: One seed per network.
        in_features: Size d of the input.
        hidden: Widths of the hidden layers.
        a: ``a`` of the first hidden layer of each network (one number, or one per network), of
            no effect for other activations than Snake. A weight of 1 then wiggles with period
            $\pi/a$.
        deeper_a: ``a`` of the other hidden layers, alike; by default that of the first.
        aligned: Give half of the first layer's units weights of exactly 1 or -1, so that they
            start at that period: the error has a minimum about it that is narrower than the
            gaps between random weights. One input feature only.

    Raises:
        ValueError: The activation is unknown, ``a`` does not fit the seeds, or ``aligned`` with
            several input features.

    Example:
        >>> networks = Networks("snake", seeds=(0, 1), a=10.0)
        >>> networks(torch.linspace(-1, 1, 5).reshape(1, 5, 1)).shape  # [networks, points]
        torch.Size([2, 5])
    """

    def __init__(
        self,
        activation: str,
        *,
        seeds: Sequence[int],
        in_features: int = 1,
        hidden: Sequence[int] = (64, 64),
        a: float | Sequence[float] = 1.0,
        deeper_a: float | Sequence[float] | None = None,
        aligned: bool | Sequence[bool] = False,
    ) -> None:
        super().__init__()
        if activation != "snake" and activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be 'snake' or one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        count = len(seeds)
        first_a = _each("a", a, count)
        other_a = first_a if deeper_a is None else _each("deeper_a", deeper_a, count)
        align = _each("aligned", aligned, count)
        if any(align) and in_features != 1:
            raise ValueError(f"aligned needs one input feature, got in_features={in_features}")
        self.activation = activation
        widths = (in_features, *hidden, 1)
        shapes = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(count, d, width) for d, width in shapes)
        self.biases = nn.ParameterList(torch.empty(count, 1, width) for _, width in shapes)
        for index, seed in enumerate(seeds):
            self._draw(index, torch.Generator().manual_seed(int(seed)), bool(align[index]))
        self.snakes = nn.ModuleList()
        if activation == "snake":
            for layer, width in enumerate(hidden):
                start = torch.tensor(first_a if layer == 0 else other_a, dtype=torch.float32)
                self.snakes.append(Snake((count, 1, width), start.reshape(count, 1, 1)))

    @torch.no_grad()
    def _draw(self, index: int, generator: torch.Generator, aligned: bool) -> None:
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[1])
            weight[index].uniform_(-bound, bound, generator=generator)
            bias[index].uniform_(-bound, bound, generator=generator)
        if aligned:
            half = self.weights[0][index, :, ::2]
            half.copy_(torch.where(half < 0, -1.0, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate all networks.

        Args:
            x: [networks, n, in_features], or [1, n, in_features] for the same points in all.

        Returns:
            [networks, n].
        """
        last = len(self.weights) - 1
        x = x.expand(self.weights[0].shape[0], -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if layer < last:
                x = self.snakes[layer](x) if self.snakes else ACTIVATIONS[self.activation](x)
        return x.squeeze(-1)


def squared_error(networks: Networks, x: Tensor, y: Tensor, present: Tensor) -> Tensor:
    """Mean squared error of each network, [networks], over the values that are there.

    Args:
        networks: The networks.
        x: [networks or 1, n, in_features].
        y: [networks or 1, n].
        present: [networks or 1, n], 1 for values that count and 0 for gaps.
    """
    return ((networks(x) - y).square() * present).sum(1) / present.expand_as(y).sum(1)


class Adam:
    """Adam (Kingma and Ba, 2015), as ``torch.optim.Adam`` does it.

    The latter imports torch's compiler when it is built, which takes longer than all the
    training of a small series; every worker process would pay for it.

    Args:
        parameters: What to train, changed in place.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        self.betas = betas
        self.eps = eps
        self.steps = 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every parameter that has a gradient by one step of rate ``lr``."""
        self.steps += 1
        rate = lr / (1 - self.betas[0] ** self.steps)
        root = math.sqrt(1 - self.betas[1] ** self.steps)
        for p, first, second in zip(self.parameters, self.first, self.second, strict=True):
            if p.grad is not None:
                first.lerp_(p.grad, 1 - self.betas[0])
                second.mul_(self.betas[1]).addcmul_(p.grad, p.grad, value=1 - self.betas[1])
                p.addcdiv_(first, second.sqrt().div_(root).add_(self.eps), value=-rate)

    def state_dict(self) -> dict[str, Any]:
        """Steps made, and both moments."""
        return {"steps": self.steps, "first": self.first, "second": self.second}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.steps = int(state["steps"])
        for name in ("first", "second"):
            for mine, saved in zip(getattr(self, name), state[name], strict=True):
                mine.copy_(saved)


def cosine(step: int, steps: int, lr: float) -> float:
    """The learning rate of a step: half a cosine from ``lr`` down to 0."""
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


def train(
    networks: Networks, x: Tensor, y: Tensor, present: Tensor, *, steps: int, lr: float
) -> Tensor:
    """Train all networks by Adam over all points at each step, with a cosine schedule.

    Args:
        networks: Changed in place.
        x: [networks or 1, n, in_features].
        y: [networks or 1, n] targets.
        present: [networks or 1, n], 1 for values that count and 0 for gaps.
        steps: How many.
        lr: First learning rate.

    Returns:
        The mean squared error of each network after training, [networks].
    """
    optimizer = Adam(networks.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        squared_error(networks, x, y, present).sum().backward()
        optimizer.step(cosine(step, steps, lr))
    with torch.no_grad():
        return squared_error(networks, x, y, present)
