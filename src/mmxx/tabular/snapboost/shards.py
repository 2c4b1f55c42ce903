"""Rows that are shared among machines, of which each learns the same model."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reduce = Callable[[NDArray[Any]], NDArray[Any]]


def _alone(array: NDArray[Any]) -> NDArray[Any]:
    return array


@dataclass(frozen=True)
class Shard:
    """Which machine this is, and how it adds up arrays with the others.

    Every machine calls ``begin`` of an estimator with equal parameters, its own rows and its own
    shard, and then makes the same calls in the same order. With ``torch.distributed``, say::

        def allreduce(array):
            tensor = torch.from_numpy(array.copy())
            torch.distributed.all_reduce(tensor)
            return tensor.numpy()

    Attributes:
        allreduce: The sum over all machines of an array of float64 or int64, a new array.
        rank: The number of this machine.
        machines: How many there are.
    """

    allreduce: Reduce = _alone
    rank: int = 0
    machines: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.machines:
            raise ValueError(f"rank must be 0 to machines - 1, got {self.rank} of {self.machines}")

    @property
    def reduce(self) -> Reduce | None:
        """`allreduce`, or None on a single machine."""
        return None if self.machines == 1 else self.allreduce

    def total(self, *values: float) -> list[float]:
        """Sums over all machines."""
        if self.machines == 1:
            return list(values)
        return self.allreduce(np.array(values, np.float64)).tolist()

    def gather(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rows of all machines one after the other, on each of them."""
        if self.machines == 1:
            return array
        sizes = np.zeros(self.machines, np.int64)
        sizes[self.rank] = len(array)
        ends = np.cumsum(self.allreduce(sizes))
        whole = np.zeros((int(ends[-1]), *array.shape[1:]))
        whole[ends[self.rank] - len(array) : ends[self.rank]] = array
        return self.allreduce(whole)

    def same(self, name: str, value: Any) -> None:
        """Refuse what differs among machines.

        Raises:
            ValueError: It names what differs, and what this machine has.
        """
        mark = float(zlib.crc32(repr(value).encode()))
        if len(set(self.gather(np.array([mark])).tolist())) > 1:
            raise ValueError(f"{name} must be the same on all machines, got {value!r} here")


ALONE = Shard()
