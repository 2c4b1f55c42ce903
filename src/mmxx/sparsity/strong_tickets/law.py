"""What the random weights of one layer are: two layers of products, or one row of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mmxx.sparsity.strong_tickets import draws

Name = Literal["product", "row", "golden"]
_INNER, _OUTER, _OFF = range(3)


@dataclass(frozen=True)
class Law:
    r"""The random weights of one layer, as a function of a seed.

    Each input i of the layer feeds hidden units that no other input feeds, with weights
    $u_{i,d}$; output j sees unit (i, d) with weight $v_{j,i,d}$. A target weight $w_{ji}$ is the
    sum of those $a_d = u_{i,d} v_{j,i,d}$ that the mask keeps.

    Attributes:
        name: "product": u uniform on (-1, 1), v on (low, high) = (-high, high). "golden": both
            with density proportional to 1/magnitude; u on [2^-octaves, 1), v on
            high × [2^-octaves, 2^octaves), so that the product falls into every golden bin
            equally often. "row": no u (units repeat the input) and $v_{j,d}$ uniform on
            (low, high), the same for all i.
        seed: Of the whole network.
        layer: Its number in the network.
        bias: Whether these are the weights from the constant input 1.
        low: The least of v.
        high: The largest of v; for "golden" the scale.
        octaves: See "golden".
    """

    name: Name
    seed: int
    layer: int
    low: float
    high: float
    bias: bool = False
    octaves: int = 0

    def for_bias(self) -> Law:
        """The same law for the weights from the constant input."""
        return replace(self, bias=True)

    def _key(self, kind: int) -> np.ndarray:
        return draws.key(self.seed, self.layer, int(self.bias), kind)

    def inner(self, inputs: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """$u$ of units by input and number (they broadcast): float32."""
        if self.name == "row":
            return np.ones(np.broadcast_shapes(inputs.shape, numbers.shape), np.float32)
        keys = draws.child(draws.child(self._key(_INNER), inputs), numbers)
        if self.name == "golden":
            return draws.hyperbolic(keys, -self.octaves, 0)
        return draws.uniform(keys)

    def outer(self, rows: np.ndarray, places: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """$v$ by output, place (input × tap) and number of the unit (they broadcast): float32."""
        keys = draws.child(self._key(_OUTER), rows)
        if self.name == "row":
            keys = draws.child(keys, numbers)
            share = (draws.uniform(keys).astype(np.float64) + 1) / 2
            values = (self.low + (self.high - self.low) * share).astype(np.float32)
            return np.broadcast_to(values, np.broadcast_shapes(values.shape, places.shape))
        keys = draws.child(draws.child(keys, places), numbers)
        if self.name == "golden":
            return draws.hyperbolic(keys, -self.octaves, self.octaves) * np.float32(self.high)
        return draws.uniform(keys) * np.float32(self.high)

    def off(self, units: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The weights of the first random layer that the theorem prunes: float32."""
        return draws.uniform(draws.child(draws.child(self._key(_OFF), units), inputs))

    def positions(self, channels: int, count: int, sign: int) -> np.ndarray:
        """Numbers of the first ``count`` units of each input that fire for inputs of a sign.

        Args:
            channels: How many inputs there are.
            count: How many units each needs.
            sign: 1 for units with u > 0, which pass positive inputs, -1 for the others.

        Returns:
            int64 [channels, count], ascending in each row.
        """
        if self.name == "row":
            return np.broadcast_to(np.arange(count), (channels, count))
        tried = 2 * count + 16
        while True:
            fires = self.inner(np.arange(channels)[:, None], np.arange(tried)) * sign > 0
            if (fires.sum(1) >= count).all():
                break
            tried *= 2
        return np.argsort(~fires, axis=1, kind="stable")[:, :count]


def default_count(law: Law, eps: float) -> int:
    r"""How many units each target weight gets to choose from.

    $3 \,\mathrm{round}(\log_2 (s / \epsilon))$ as in the authors' experiment, s being the width of
    the weights' distribution. For "golden" so many that all bins are hit with a probability of
    about 1/2; what is missing is drawn later.

    Example:
        >>> default_count(Law("row", 0, 0, -0.464, 0.541), 0.01)
        21
    """
    if law.name == "golden":
        bins = max(1, round(law.octaves * math.log(2) / math.log((1 + math.sqrt(5)) / 2)))
        return math.ceil(math.log(2 * bins) * 4 * bins)
    width = law.high - law.low
    return max(4, 3 * round(math.log2(max(width / eps, 1))))
