"""Linear mode connectivity: how high is the wall between two trained networks?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Barrier:
    """The losses on the straight line between two networks.

    Attributes:
        places: From 0, the first network, to 1, the second, [n].
        losses: The loss at each place, [n].
    """

    places: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def height(self) -> float:
        """How far the highest loss exceeds the mean of those at the two ends."""
        return max(self.losses) - (self.losses[0] + self.losses[-1]) / 2


def linear_barrier(
    model_a: nn.Module,
    model_b: nn.Module,
    loss_fn: Callable[[nn.Module], float | Tensor],
    n: int = 11,
    *,
    prepare: Callable[[nn.Module], Any] | None = None,
) -> Barrier:
    """Measure a loss on the straight line between the weights of two networks.

    Two copies of one network, trained on from the same step with different noise (order of the
    data), are *linearly connected* where the height is about 0: from that step on the noise does
    not decide any more which valley the training ends in.

    Args:
        model_a: A network; neither is changed.
        model_b: Another one with the same parameters.
        loss_fn: Gives the loss, or the error, of a network, on data of your choice.
        n: Number of places, both ends included.
        prepare: Called with each network in between, before its loss: where there is batch
            normalisation, whose mean statistics do not fit, it should make new ones.

    Returns:
        Places and losses; ``height`` is the barrier.

    Raises:
        ValueError: The networks differ in their parameters, or n is below 3.

    Source: Frankle, Dziugaite, Roy and Carbin (2020), section 2.

    Example:
        >>> a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(a.weight, -1.0), nn.init.constant_(b.weight, 1.0)
        >>> linear_barrier(a, b, lambda net: 1 - net.weight.item() ** 2).height
        1.0
    """
    if n < 3:
        raise ValueError(f"n must be 3 or more, both ends and what is between, got {n}")
    one, other = model_a.state_dict(), model_b.state_dict()
    wrong = sorted(one.keys() ^ other.keys())
    wrong += [name for name in one if name in other and one[name].shape != other[name].shape]
    if wrong:
        raise ValueError(f"the two networks differ in {', '.join(wrong)}")
    between = copy.deepcopy(model_a)
    places = tuple(i / (n - 1) for i in range(n))
    losses = []
    for place in places:
        mixed = {
            name: torch.lerp(value, other[name], place) if value.is_floating_point() else value
            for name, value in one.items()
        }
        between.load_state_dict(other if place == 1 else mixed)
        if prepare is not None and 0 < place < 1:
            prepare(between)
        with torch.no_grad():
            losses.append(float(loss_fn(between)))
    return Barrier(places, tuple(losses))
