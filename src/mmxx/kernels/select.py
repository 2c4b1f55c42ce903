"""The largest magnitudes of many tensors, exactly, by counting the digits of their bits.

The bits of a float without its sign, read as a whole number, have the order of the magnitudes.
The first pass counts the highest 11 of these bits; the second gathers the few values that share
those of the border; two more counts of 10 bits among them (five for doubles) leave the one bit
pattern that lies at the border: exact, linear, and without sorting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import carray, njit  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor

from mmxx.kernels._pointers import typed_pointer

# of each float: its bits as a whole number, and the digits (shift, width) from the top
_DIGITS = {
    torch.float32: (np.uint32, ((20, 11), (10, 10), (0, 10))),
    torch.float64: (np.uint64, ((52, 11), (42, 10), (32, 10), (22, 10), (11, 11), (0, 11))),
}
_LANES = 4  # counters side by side, so that equal digits in a row do not wait for one another


@njit(cache=True, nogil=True)
def _narrow(addresses, sizes, rank, like, digits, magnitude):
    """The magnitude of that rank (from 0), how many lie below, how many equal it, the largest."""
    prefix, largest, equal = like.dtype.type(0), like.dtype.type(0), 0
    below, found = 0, 0
    near = np.empty(0, like.dtype)
    for step in range(digits.shape[0]):
        shift, width = like.dtype.type(digits[step, 0]), digits[step, 1]
        above = like.dtype.type(digits[step, 0] + width)
        digit = like.dtype.type((1 << width) - 1)
        counts = np.zeros((_LANES, 1 << width), np.int64)
        if step == 0:
            for k in range(sizes.size):
                bits = carray(typed_pointer(addresses[k], like), (sizes[k],))
                for i in range(sizes[k]):
                    key = bits[i] & magnitude
                    largest = max(largest, key)
                    counts[i & (_LANES - 1), key >> shift] += 1
        elif step == 1:  # what has the first digits: the later passes need no other
            near = np.empty(equal + 1, like.dtype)
            for k in range(sizes.size):
                bits = carray(typed_pointer(addresses[k], like), (sizes[k],))
                for i in range(sizes[k]):
                    key = bits[i] & magnitude
                    near[found] = key
                    found += key >> above == prefix
        else:
            before, found = found, 0
            for i in range(before):
                key = near[i]
                near[found] = key
                found += key >> above == prefix
        for i in range(found):
            counts[i & (_LANES - 1), (near[i] >> shift) & digit] += 1
        place = 0
        while True:
            equal = 0
            for lane in range(_LANES):
                equal += counts[lane, place]
            if below + equal > rank:
                break
            below += equal
            place += 1
        prefix = (prefix << like.dtype.type(width)) | like.dtype.type(place)
    return prefix, below, equal, largest


@njit(cache=True, nogil=True)
def _mark(addresses, sizes, marks, border, dropped, like, like_mark, magnitude):
    """Mark what exceeds the border, and all that equal it but the first ``dropped``."""
    for k in range(sizes.size):
        bits = carray(typed_pointer(addresses[k], like), (sizes[k],))
        mark = carray(typed_pointer(marks[k], like_mark), (sizes[k],))
        if dropped < 0:
            for i in range(sizes[k]):
                mark[i] = (bits[i] & magnitude) > border
            continue
        for i in range(sizes[k]):
            key = bits[i] & magnitude
            mark[i] = key > border
            if key == border:
                mark[i] = dropped <= 0
                dropped -= dropped > 0


@njit(cache=True, nogil=True)
def _copy(addresses, sizes, sources, targets, border, dropped, like, like_value, magnitude):
    """Copy to the targets what `_mark` would mark, and 0 elsewhere."""
    zero = like_value.dtype.type(0)
    for k in range(sizes.size):
        bits = carray(typed_pointer(addresses[k], like), (sizes[k],))
        source = carray(typed_pointer(sources[k], like_value), (sizes[k],))
        target = carray(typed_pointer(targets[k], like_value), (sizes[k],))
        if dropped < 0:
            for i in range(sizes[k]):
                target[i] = source[i] if (bits[i] & magnitude) > border else zero
            continue
        for i in range(sizes[k]):
            key = bits[i] & magnitude
            kept = key > border
            if key == border:
                kept = dropped <= 0
                dropped -= dropped > 0
            target[i] = source[i] if kept else zero


class _Border:
    """Where the sorted magnitudes of some tensors are cut: a magnitude, and ties dropped."""

    def __init__(self, values: Sequence[Tensor], rank: int) -> None:
        first = values[0]
        wide = [v.detach().contiguous() for v in values]
        if first.dtype not in _DIGITS:
            wide = [v.float() for v in wide]  # 16-bit floats fit into 32 bits exactly
        kind, digits = _DIGITS[wide[0].dtype]
        self.like = np.empty(0, kind)
        self.kept_alive = wide
        self.addresses = np.array([v.data_ptr() for v in wide], np.int64)
        self.sizes = np.array([v.numel() for v in wide], np.int64)
        self.magnitude = kind(np.iinfo(kind).max >> 1)
        float_kind = np.dtype(f"f{self.like.itemsize}")
        key, self.below, self.equal, largest = _narrow(
            self.addresses, self.sizes, rank, self.like, np.array(digits), self.magnitude
        )
        if largest > np.array(np.inf, float_kind).view(kind):
            raise ValueError(_NAN)
        self.key = kind(key)
        self.value = float(self.key.view(float_kind))


_NAN = "values hold NaN, which has no place in an order"


def _tensors(values: Tensor | Sequence[Tensor]) -> list[Tensor]:
    tensors = [values] if isinstance(values, Tensor) else list(values)
    kinds = {(v.dtype, v.device) for v in tensors}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"values must share one dtype and device, got {found}")
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise ValueError(f"values must be floating-point tensors, got {tensor.dtype}")
    return tensors


def kth_abs(values: Tensor | Sequence[Tensor], k: int) -> float:
    """The k-th smallest magnitude of all elements of one or more tensors.

    Args:
        values: Tensors of any shape, of one floating-point dtype and device.
        k: From 1, the smallest, to the number of elements.

    Returns:
        The magnitude, exact: equal to ``torch.kthvalue`` of the magnitudes.

    Raises:
        ValueError: ``k`` is out of range, tensors differ in dtype or device, or one holds NaN.

    Example:
        >>> kth_abs(torch.tensor([3.0, -1.0, 2.0]), 2)
        2.0
    """
    tensors = _tensors(values)
    total = sum(t.numel() for t in tensors)
    if not 1 <= k <= total:
        raise ValueError(f"k must be 1 to {total}, the number of elements, got {k}")
    if tensors[0].device.type == "cpu":
        return _Border(tensors, k - 1).value
    return _kth_plain(tensors, k)


def _kth_plain(tensors: Sequence[Tensor], k: int) -> float:
    """As `kth_abs`, on any device."""
    magnitudes = torch.cat([t.detach().abs().flatten() for t in tensors])
    if magnitudes.isnan().any():
        raise ValueError(_NAN)
    return magnitudes.kthvalue(k).values.item()


def keep_largest(values: Tensor | Sequence[Tensor], count: int) -> list[Tensor]:
    """Masks of exactly ``count`` elements of largest magnitude over one or more tensors.

    Among equal magnitudes at the border, those of lower index are dropped first; the tensors
    count as one, end to end.

    Args:
        values: Tensors of any shape, of one floating-point dtype and device.
        count: How many to keep, from 0 to the number of elements.

    Returns:
        A bool tensor for each tensor, of its shape and on its device.

    Raises:
        ValueError: ``count`` is out of range, tensors differ in dtype or device, or one holds
            NaN.

    Example:
        >>> keep_largest(torch.tensor([3.0, -1.0, 2.0, -2.0]), 2)
        [tensor([ True, False, False,  True])]
    """
    tensors = _tensors(values)
    total = sum(t.numel() for t in tensors)
    if not 0 <= count <= total:
        raise ValueError(f"count must be 0 to {total}, the number of elements, got {count}")
    dropped = total - count
    if dropped == 0:
        if any(t.isnan().any() for t in tensors):
            raise ValueError(_NAN)
        return [torch.ones(t.shape, dtype=torch.bool, device=t.device) for t in tensors]
    if tensors[0].device.type != "cpu":
        return _keep_plain(tensors, dropped)
    border = _Border(tensors, dropped - 1)
    masks = [torch.empty(t.shape, dtype=torch.bool) for t in tensors]
    ties = dropped - border.below
    _mark(
        border.addresses,
        border.sizes,
        np.array([m.data_ptr() for m in masks], np.int64),
        border.key,
        -1 if ties == border.equal else ties,
        border.like,
        np.empty(0, np.bool_),
        border.magnitude,
    )
    return masks


def keep_where_largest(
    weights: Tensor | Sequence[Tensor], values: Tensor | Sequence[Tensor], count: int
) -> list[Tensor]:
    """Weights where the ``count`` largest magnitudes of ``values`` are, and 0 elsewhere.

    As multiplying by the masks of `keep_largest`, in one pass and without the masks.

    Args:
        weights: Tensors of the shapes and on the device of ``values``.
        values: As for `keep_largest`.
        count: How many to keep, from 0 to the number of elements.

    Returns:
        A new tensor for each weight, of its dtype.

    Raises:
        ValueError: As `keep_largest`, and where shapes or devices of the two differ.

    Example:
        >>> keep_where_largest(torch.tensor([5.0, 6.0, 7.0]), torch.tensor([3.0, -1.0, -2.0]), 2)
        [tensor([5., 0., 7.])]
    """
    tensors = _tensors(values)
    kept = [weights] if isinstance(weights, Tensor) else list(weights)
    shapes, others = [(t.shape, t.device) for t in kept], [(t.shape, t.device) for t in tensors]
    if shapes != others:
        raise ValueError(
            f"weights must have the shapes and device of values, got {_places(kept)} "
            f"for {_places(tensors)}"
        )
    total = sum(t.numel() for t in tensors)
    direct = all(
        w.dtype == t.dtype and w.dtype in _DIGITS and w.device.type == "cpu" and w.is_contiguous()
        for w, t in zip(kept, tensors, strict=True)
    )
    if not direct or not 0 < total - count <= total:
        masks = keep_largest(tensors, count)
        return [w.detach().masked_fill(~m, 0.0) for w, m in zip(kept, masks, strict=True)]
    border = _Border(tensors, total - count - 1)
    ties = total - count - border.below
    found = [torch.empty_like(w, requires_grad=False) for w in kept]
    _copy(
        border.addresses,
        border.sizes,
        np.array([w.data_ptr() for w in kept], np.int64),
        np.array([t.data_ptr() for t in found], np.int64),
        border.key,
        -1 if ties == border.equal else ties,
        border.like,
        np.empty(0, f"f{border.like.itemsize}"),
        border.magnitude,
    )
    return found


def _places(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{tuple(t.shape)} on {t.device}" for t in tensors)


def _keep_plain(tensors: Sequence[Tensor], dropped: int) -> list[Tensor]:
    """As `keep_largest`, on any device."""
    border = _kth_plain(tensors, dropped)
    magnitudes = torch.cat([t.detach().abs().flatten() for t in tensors])
    equal = magnitudes == border
    ties = dropped - int((magnitudes < border).sum())
    mask = (magnitudes > border) | (equal & (equal.cumsum(0) > ties))
    parts = mask.split([t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
