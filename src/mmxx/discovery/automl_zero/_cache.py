"""The cache of fitnesses by behaviour: in buckets of eight, or exactly the longest unused first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

WAYS = 8  # of a bucket
# Columns of `Cache.links`, each one more than a place, 0 for none: the next of the same slot, and
# who was used after and before
_NEXT, _AFTER, _BEFORE = range(3)
_NEWEST, _OLDEST, _COUNT = range(3)  # of `Cache.ends`


class Cache(NamedTuple):
    """Fitnesses by keys.

    Attributes:
        key: Hashes of behaviour, uint64 [buckets, WAYS]; exact, [places, 1].
        value: The fitness of each, float64, as key.
        seen: How often it was met, int64, as key; 0 is free.
        used: When last, int64, as key; not used where it is exact.
        slots: Exact: one more than the first place of each slot, int64 [slots]; else [0].
        links: Exact: lists through the places, int64 [places, 3]; else [0, 3].
        ends: Exact: one more than the newest and the oldest place, and how many, int64 [3].
    """

    key: np.ndarray
    value: np.ndarray
    seen: np.ndarray
    used: np.ndarray
    slots: np.ndarray
    links: np.ndarray
    ends: np.ndarray


def make_cache(size: int, exact: bool) -> Cache:
    """An empty cache.

    Args:
        size: Places; in buckets, rounded up to a power of two.
        exact: Whether the longest unused of all is dropped, instead of that of a bucket.
    """
    shape = (size, 1) if exact else (1 << (-(-size // WAYS) - 1).bit_length(), WAYS)
    slots = 1 << (2 * size - 1).bit_length() if exact else 0
    return Cache(
        np.zeros(shape, np.uint64), np.zeros(shape), np.zeros(shape, np.int64),
        np.zeros(shape, np.int64), np.zeros(slots, np.int64),
        np.zeros((size if exact else 0, 3), np.int64), np.zeros(3, np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def look_up(cache, key, forget, now):
    """The place of a key, or -1; what was met more than ``forget`` times is forgotten.

    Args:
        cache: The cache.
        key: uint64.
        forget: See above.
        now: Births so far.
    """
    place = np.int64(-1)
    ways = cache.key.shape[1]
    if cache.slots.size:
        found = cache.slots[np.int64(key & np.uint64(cache.slots.size - 1))]
        while found and (cache.key[found - 1, 0] != key or not cache.seen[found - 1, 0]):
            found = cache.links[found - 1, _NEXT]
        place = found - 1
    else:
        bucket = np.int64(key & np.uint64(cache.key.shape[0] - 1))
        for way in range(ways):
            if cache.seen[bucket, way] and cache.key[bucket, way] == key:
                place = bucket * ways + way
    if place < 0:
        return place
    row, way = place // ways, place % ways
    cache.used[row, way] = now
    cache.seen[row, way] += 1
    is_over = cache.seen[row, way] > forget
    if cache.slots.size:
        _unlink(cache, row)
        _link(cache, row, not is_over)
    if is_over:
        cache.seen[row, way] = 0
        return np.int64(-1)
    return place


@njit(cache=True, nogil=True)
def value_at(cache, place):
    """The fitness at a place."""
    ways = cache.key.shape[1]
    return cache.value[place // ways, place % ways]


@njit(cache=True, nogil=True)
def store(cache, key, fitness, now):
    """Remember, in a free place or in that of the longest unused.

    Args:
        cache: The cache.
        key: uint64.
        fitness: What to remember.
        now: Births so far.
    """
    if cache.slots.size:
        row, way = _make_room(cache, key), 0
    else:
        row, way = np.int64(key & np.uint64(cache.key.shape[0] - 1)), 0
        for other in range(cache.key.shape[1]):
            if not cache.seen[row, other]:
                way = other
                break
            if cache.used[row, other] < cache.used[row, way]:
                way = other
    cache.key[row, way] = key
    cache.value[row, way] = fitness
    cache.seen[row, way] = 1
    cache.used[row, way] = now


@njit(cache=True, nogil=True)
def _make_room(cache, key):
    """A place for a key, taken from what was there, in its slot's list and newest of all."""
    oldest = cache.ends[_OLDEST] - 1
    if cache.ends[_COUNT] < cache.key.shape[0] and not (oldest >= 0 and not cache.seen[oldest, 0]):
        place = cache.ends[_COUNT]
        cache.ends[_COUNT] += 1
    else:
        place = oldest
        _unlink(cache, place)
        slot = np.int64(cache.key[place, 0] & np.uint64(cache.slots.size - 1))
        at = cache.slots[slot] - 1
        if at == place:
            cache.slots[slot] = cache.links[place, _NEXT]
        else:
            while cache.links[at, _NEXT] != place + 1:
                at = cache.links[at, _NEXT] - 1
            cache.links[at, _NEXT] = cache.links[place, _NEXT]
    slot = np.int64(key & np.uint64(cache.slots.size - 1))
    cache.links[place, _NEXT] = cache.slots[slot]
    cache.slots[slot] = place + 1
    _link(cache, place, True)
    return place


@njit(cache=True, nogil=True)
def _unlink(cache, place):
    """Take a place out of the order of use."""
    after, before = cache.links[place, _AFTER], cache.links[place, _BEFORE]
    if after:
        cache.links[after - 1, _BEFORE] = before
    else:
        cache.ends[_NEWEST] = before
    if before:
        cache.links[before - 1, _AFTER] = after
    else:
        cache.ends[_OLDEST] = after


@njit(cache=True, nogil=True)
def _link(cache, place, newest):
    """Put a place at the new or at the old end of the order of use."""
    side, end, other = (_BEFORE, _NEWEST, _AFTER) if newest else (_AFTER, _OLDEST, _BEFORE)
    neighbour = cache.ends[end]
    cache.links[place, side], cache.links[place, other] = neighbour, 0
    if neighbour:
        cache.links[neighbour - 1, other] = place + 1
    else:
        cache.ends[_NEWEST] = cache.ends[_OLDEST] = place + 1
    cache.ends[end] = place + 1
