"""Compiled loops: count sketches, attention over neighbours, and colour refinement."""

from __future__ import annotations

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

_MIX_1, _MIX_2, _STEP = (
    np.uint64(word) for word in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15)
)
_27, _30, _31 = (np.uint64(bits) for bits in (27, 30, 31))
_FEW = 24  # neighbours up to which insertion sorts fastest


@njit(cache=True, nogil=True)
def count_sketch(x, bucket, sign, width):
    """Columns of x [n, d] added up in buckets [d] with signs [d]: [n, width]."""
    found = np.zeros((x.shape[0], width))
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            found[row, bucket[column]] += sign[column] * x[row, column]
    return found


@njit(cache=True, nogil=True)
def attend(x, indptr, sources, weight, temperature):
    """Softmax-weighted sum of the rows of the neighbours, by inner products over temperature.

    Args:
        x: [nodes, d].
        indptr: Where each node's edges begin, [nodes + 1].
        sources: [edges].
        weight: Factor of each edge's exponential, [edges].
        temperature: What inner products are divided by.

    Returns:
        [nodes, d]; zeros where there is no edge.
    """
    found = np.zeros_like(x)
    for node in range(x.shape[0]):
        first, last = indptr[node], indptr[node + 1]
        scores = np.empty(last - first)
        for edge in range(first, last):
            scores[edge - first] = np.dot(x[sources[edge]], x[node]) / temperature
        if last == first:
            continue
        scores = np.exp(scores - scores.max()) * weight[first:last]
        total = scores.sum()
        for edge in range(first, last):
            found[node] += scores[edge - first] / total * x[sources[edge]]
    return found


@njit(cache=True, nogil=True, inline="always")
def _mixed(word):
    word = (word ^ (word >> _30)) * _MIX_1
    word = (word ^ (word >> _27)) * _MIX_2
    return word ^ (word >> _31)


@njit(cache=True, nogil=True)
def _sorted_neighbours(colours, indptr, sources, found):
    """The colours of each node's neighbours, ascending, into ``found`` [edges]."""
    for node in range(indptr.size - 1):
        first, last = indptr[node], indptr[node + 1]
        for edge in range(first, last):
            found[edge] = colours[sources[edge]]
        if last - first > _FEW:
            found[first:last] = np.sort(found[first:last])
            continue
        for edge in range(first + 1, last):
            colour, place = found[edge], edge
            while place > first and found[place - 1] > colour:
                found[place] = found[place - 1]
                place -= 1
            found[place] = colour


@njit(cache=True, nogil=True)
def _alike(one, other, colours, indptr, ordered):
    """Whether two nodes have the same colour and the same colours around them."""
    start, other_start = indptr[one], indptr[other]
    size = indptr[one + 1] - start
    if colours[one] != colours[other] or indptr[other + 1] - other_start != size:
        return False
    for place in range(size):  # noqa: SIM110 - numba compiles no generators
        if ordered[start + place] != ordered[other_start + place]:
            return False
    return True


@njit(cache=True, nogil=True)
def refine(colours, indptr, sources):
    """One round of colour refinement, exact: equal hashes are compared in full.

    Args:
        colours: [nodes], 0 … .
        indptr: [nodes + 1].
        sources: [edges].

    Returns:
        The new colours [nodes], numbered as they appear, and how many they are.
    """
    nodes = colours.size
    ordered = np.empty(sources.size, dtype=colours.dtype)
    _sorted_neighbours(colours, indptr, sources, ordered)
    slots = 16
    while slots < 2 * nodes:
        slots *= 2
    mask = np.uint64(slots - 1)
    table = np.full(slots, -1, dtype=np.int64)  # the node that stands for each new colour
    found = np.empty_like(colours)
    count = 0
    for node in range(nodes):
        word = _mixed(np.uint64(colours[node]) + _STEP)
        for edge in range(indptr[node], indptr[node + 1]):
            word = _mixed(word ^ (np.uint64(ordered[edge]) + _STEP))
        slot = word & mask
        while True:
            other = table[slot]
            if other < 0:
                table[slot] = node
                found[node] = count
                count += 1
                break
            if _alike(node, other, colours, indptr, ordered):
                found[node] = found[other]
                break
            slot = (slot + np.uint64(1)) & mask
    return found, count
