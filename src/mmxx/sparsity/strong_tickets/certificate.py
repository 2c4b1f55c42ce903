"""How far a ticket's output can be from its target's: what is proved, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.sparsity.strong_tickets.network import RandomLayer, RandomNet


@dataclass(frozen=True)
class LayerBound:
    """What is proved of one layer.

    Attributes:
        name: Of the layer in the ticket's network.
        weight_error: Largest absolute error of a weight or bias.
        bound: No output of the layer is off by more, for any input of the domain.
        lipschitz: The same by a product of norms, as the theorems have it; never smaller.
    """

    name: str
    weight_error: float
    bound: float
    lipschitz: float


@dataclass(frozen=True)
class Certificate:
    """What is proved of a ticket, for all inputs between two values.

    Attributes:
        low: Smallest value of an input.
        high: Largest value of an input.
        layers: For each layer, in order.
    """

    low: float
    high: float
    layers: tuple[LayerBound, ...]

    @property
    def weight_error(self) -> float:
        """Largest absolute error of a weight or bias of all layers."""
        return max((layer.weight_error for layer in self.layers), default=0.0)

    @property
    def bound(self) -> float:
        """No output of the network is off by more."""
        return self.layers[-1].bound if self.layers else 0.0

    @property
    def lipschitz(self) -> float:
        """The same by products of norms."""
        return self.layers[-1].lipschitz if self.layers else 0.0


@torch.no_grad()
def certify(target: nn.Sequential, net: RandomNet, low: float, high: float) -> Certificate:
    r"""Bound the error of a ticket over all inputs with values in [low, high].

    With $B$ a bound on the magnitude of what enters a layer, $E$ on its error, $W$ the layer's
    weights and $\Delta$ their errors, the output is off by at most $|\Delta| B + |W + \Delta| E$.
    ``bound`` takes this output by output, with intervals for what enters; ``lipschitz`` takes the
    largest row sums, as in the theorems. Both are in exact arithmetic: rounding of the running
    network (about 1e-7 of its values) comes on top.

    Args:
        target: The trained network.
        net: The ticket's.
        low: Smallest value of an input.
        high: Largest value of an input.

    Raises:
        ValueError: ``low`` exceeds ``high``, or is negative for a ticket made for inputs that
            are not.
    """
    found = net.random_layers()
    if not low <= high:
        raise ValueError(f"low must not exceed high, got {low} and {high}")
    first = next(iter(found.values()), None)
    if first is not None and low < 0 and not (first.form.signed or first.law.name == "row"):
        raise ValueError(f"low={low:g}: the ticket was made for inputs that are not negative")
    lower = torch.full((1,), low, dtype=torch.float64)
    upper = torch.full((1,), high, dtype=torch.float64)
    error = torch.zeros(1, dtype=torch.float64)
    size, spread = max(abs(low), abs(high)), 0.0
    bounds = []
    for place, (trained, layer) in enumerate(zip(target, net.layers, strict=True)):
        if isinstance(layer, nn.ReLU):
            lower, upper = lower.clamp(min=0), upper.clamp(min=0)
        if isinstance(layer, nn.AvgPool1d | nn.AvgPool2d) or (
            isinstance(layer, RandomLayer) and any(layer.form.padding)
        ):  # padding brings in zeros
            lower, upper = lower.clamp(max=0), upper.clamp(min=0)
        if not isinstance(layer, RandomLayer):
            continue
        channels = layer.form.channels[0]
        lower, upper, error = (_spread(part, channels) for part in (lower, upper, error))
        sums = _sums(trained, layer)
        error = sums.off @ torch.maximum(lower.abs(), upper.abs()) + sums.slope @ error
        error = error + sums.bias_off
        lower, upper = (
            sums.up @ lower + sums.down @ upper + sums.bias,
            sums.up @ upper + sums.down @ lower + sums.bias,
        )
        spread = float(sums.off.sum(1).max() * size + sums.slope.sum(1).max() * spread)
        spread += float(sums.bias_off.max())
        size = float((sums.up - sums.down).sum(1).max() * size + sums.bias.abs().max())
        bounds.append(LayerBound(f"layers.{place}", sums.worst, float(error.max()), spread))
    return Certificate(low, high, tuple(bounds))


class _Sums(NamedTuple):
    """A layer's weights summed over taps [out, in], and its biases [out]."""

    up: Tensor
    down: Tensor
    off: Tensor
    slope: Tensor
    bias: Tensor
    bias_off: Tensor
    worst: float


def _sums(trained: nn.Module, layer: RandomLayer) -> _Sums:
    """Positive and negative parts of the target's weights, the errors, the ticket's slopes."""
    weights, bias = layer.effective()
    exact = trained.get_parameter("weight").double()
    errors, bias_off = _errors(trained, layer)
    slope = torch.stack([weight.abs() for weight in weights]).amax(0)
    exact_bias = torch.zeros_like(bias_off)
    if bias is not None:
        exact_bias = trained.get_parameter("bias").double()

    def summed(values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], -1).sum(2)

    worst = max(float(errors.max()), float(bias_off.max()))
    parts = (exact.clamp(min=0), exact.clamp(max=0), errors, slope)
    up, down, off, slope = map(summed, parts)
    return _Sums(up, down, off, slope, exact_bias, bias_off, worst)


def _errors(trained: nn.Module, layer: RandomLayer) -> tuple[Tensor, Tensor]:
    """Absolute errors of the weights (the larger of both signs) and of the biases (0 if none)."""
    weights, bias = layer.effective()
    exact = trained.get_parameter("weight").double()
    errors = torch.stack([(weight - exact).abs() for weight in weights]).amax(0)
    if bias is None:
        return errors, torch.zeros(len(exact), dtype=torch.float64)
    return errors, (bias - trained.get_parameter("bias").double()).abs()


def _spread(values: Tensor, channels: int) -> Tensor:
    """Values of each channel, repeated over the places that a Flatten has laid side by side."""
    return values.repeat_interleave(channels // values.numel())


@torch.no_grad()
def weight_errors(target: nn.Sequential, net: RandomNet) -> np.ndarray:
    """Absolute error of every weight and bias that the ticket stands for, layer by layer.

    Args:
        target: The trained network.
        net: The ticket's.

    Returns:
        float64, one entry for each weight and bias of the target.
    """
    parts = [np.zeros(0)]
    for trained, layer in zip(target, net.layers, strict=True):
        if isinstance(layer, RandomLayer):
            errors, bias_off = _errors(trained, layer)
            parts.append(errors.flatten().numpy())
            if layer.bias_law is not None:
                parts.append(bias_off.numpy())
    return np.concatenate(parts)
