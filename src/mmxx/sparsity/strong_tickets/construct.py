"""Finding the masks: a subset for every weight of a layer, a chunk of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmxx.sparsity.strong_tickets import golden, subset
from mmxx.sparsity.strong_tickets.law import Law, default_count

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
_CHUNK = 1_000_000  # coefficients at a time
_MORE = 4  # units more at each further try
_MOST_GOLDEN = 100_000  # units of a weight, after which there is something wrong


@dataclass(frozen=True)
class Found:
    """The masks of one layer for inputs of one sign.

    Attributes:
        counts: How many units each input has, int64 [in].
        mask: Packed bits of bool [out, in, taps, max(counts)] along the last axis.
        retried: How many weights needed more units than the others.
    """

    counts: np.ndarray
    mask: np.ndarray
    retried: int

    def unpacked(self) -> np.ndarray:
        """The mask as bool [out, in, taps, max(counts)]."""
        return np.unpackbits(self.mask, axis=-1, count=int(self.counts.max())).astype(bool)


def find(
    weights: np.ndarray, law: Law, sign: int, *, eps: float, stop: float, n: int | None, map: Map
) -> Found:
    """Masks such that the kept products add up to the weights.

    Args:
        weights: float64 [out, in, taps].
        law: Of the layer's random weights.
        sign: Of the inputs that the units must pass.
        eps: The error that no weight may exceed; a weight that does gets more units.
        stop: The search for a weight ends at this error.
        n: Units to choose from, None for `default_count`.
        map: Maps chunks of rows.

    Raises:
        ValueError: n is too large, or so many units are not enough.
    """
    if n is None:
        n = default_count(law, eps)
    if law.name != "golden":
        subset.check_count(f"eps={eps:g} for weights in ±{law.high:g} needs n", n)
    rows = max(1, _CHUNK // (weights[0].size * n))
    items = [
        (weights[start : start + rows], start, law, sign, eps, stop, n)
        for start in range(0, len(weights), rows)
    ]
    parts = list(map(_rows, items))
    counts = np.max([used.max(axis=(0, 2)) for used, _ in parts], axis=0).astype(np.int64)
    width = -(-int(counts.max()) // 8)
    mask = np.zeros((*weights.shape, width), np.uint8)
    for (_, start, *_), (used, bits) in zip(items, parts, strict=True):
        mask[start : start + len(used), ..., : bits.shape[-1]] = bits
    return Found(counts, mask, sum(int((used > n).sum()) for used, _ in parts))


def _rows(item: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For some rows: units used [R, in, taps], and packed masks. A task of its own."""
    weights, _, law, _, eps, _, n = item
    number, channels, taps = weights.shape
    every = np.indices(weights.shape).reshape(3, -1)
    mask, errors = _solve(item, every, n)
    used, count = np.full(weights.size, n), n
    failed = np.flatnonzero(errors > eps)
    masks = [(np.arange(weights.size), mask)]
    for count in _further(law, n):
        if not failed.size:
            break
        mask, errors[failed] = _solve(item, every[:, failed], count)
        masks.append((failed, mask))
        used[failed] = count
        failed = failed[errors[failed] > eps]
    if failed.size:
        raise ValueError(
            f"eps={eps:g} cannot be reached for {failed.size} weights with {count} units each "
            f"(the worst is off by {errors[failed].max():.3g}); a larger eps can"
        )
    bits = np.zeros((weights.size, int(used.max())), bool)
    for places, mask in masks:
        bits[places] = False
        bits[places, : mask.shape[1]] = mask
    packed = np.packbits(bits, axis=1).reshape(number, channels, taps, -1)
    return used.reshape(weights.shape), packed


def _further(law: Law, n: int) -> Iterator[int]:
    """How many units to try after n."""
    if law.name != "golden":
        yield from range(n + _MORE, subset.MOST + 1, _MORE)
        return
    while n < _MOST_GOLDEN:
        n += n // 2 + 1
        yield n


def _solve(item: tuple[Any, ...], where: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [G, n] and errors [G] of the weights at ``where`` [3, G], from n units each."""
    weights, start, law, sign, eps, stop, _ = item
    _, channels, taps = weights.shape
    row, channel, tap = where
    targets = weights[row, channel, tap]
    if law.name == "row":
        present, group = np.unique(row, return_inverse=True)
        numbers = law.outer(start + present[:, None], np.zeros((1, 1), int), np.arange(n))
        numbers = numbers.astype(np.float64)
        if len(row) == weights.size:  # all of them: the targets of a row share its numbers
            codes, errors = subset.solve(weights.reshape(len(weights), -1), numbers, stop)
        else:
            codes, errors = subset.solve(targets[:, None], numbers[group], stop)
        return subset.unpack(codes.ravel(), n), errors.ravel()
    numbers = law.positions(channels, n, sign)
    inner = law.inner(np.arange(channels)[:, None], numbers).astype(np.float64)
    places = (channel * taps + tap)[:, None]
    outer = law.outer(start + row[:, None], places, numbers[channel])
    products = outer * inner[channel]  # of doubles that hold floats: exact
    if law.name == "golden":
        borders = golden.golden_borders(golden.bins_for(eps, law.high), law.high)
        return golden.solve(targets, products, borders)
    codes, errors = subset.solve(targets[:, None], products, stop)
    return subset.unpack(codes[:, 0], n), errors[:, 0]


def octaves_for(eps: float, scale: float) -> int:
    """Octaves that hold all golden bins down to an error of ``eps``."""
    bins = golden.bins_for(eps, scale)
    return max(1, math.ceil(-bins * math.log2(golden.RATIO)))
