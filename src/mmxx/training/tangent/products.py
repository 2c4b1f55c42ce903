r"""What the factors of two sets of samples add to the tangent kernel, in the cheaper order.

A layer that acts at T places adds $\sum_{ts} (a_{nt} \cdot a_{ms}) (\delta_{nct} \cdot
\delta_{mds})$. Either the sum over places comes first: the gradients $\sum_t \delta_{nct}
a_{nt}^\top$ are written out, some rows of the weight at a time, in NCT·oi + (NC)²·oi
multiplications. Or the inner products of the inputs come first, and nothing has the size of the
weight: N²(T²i + CT²o + C²To). The first suits few weights and many places, the second the rest.

Where both sets are one (the factors are the same object), only pairs of samples n <= m are
computed; `mirror` does the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mmxx.training.tangent.layers import Dense, Factor, Outer, Tokens

_CHUNK = 2**22  # numbers of written-out gradients, or of pairs of places, in memory at once
_BANDS = 4  # into which the triangle n <= m is cut
_TRIANGLE = 5 / 8  # of the square: what the bands cover
# What a multiplication of the second order costs, measured: its products are thin, but those of
# the first go through more memory, which counts where they are few.
_COST, _COST_OF_TRACE = 1.6, 0.7


def add_full(kernel: Tensor, one: Factor, other: Factor) -> None:
    """Add a layer's part to the kernel [N1, C, N2, C] of two sets of samples, in place."""
    if isinstance(one, Dense) and isinstance(other, Dense):
        _add_gram(kernel, one.jacobian, other.jacobian, one is other)
    elif not isinstance(one, Dense) and not isinstance(other, Dense):
        if _written_first(one, other):
            for left, right in _chunks(one, other):
                _add_gram(kernel, left, right, one is other)
        elif one.deltas.shape[2] == 1 == other.deltas.shape[2]:
            _add_single(kernel, one, other)
        else:
            _add_pairs(kernel, one, other)


def add_trace(kernel: Tensor, one: Factor, other: Factor) -> None:
    """Add the sum over outputs of a layer's part to the kernel [N1, N2], in place."""
    if isinstance(one, Dense) and isinstance(other, Dense):
        _add_trace_gram(kernel, one.jacobian, other.jacobian, one is other)
    elif not isinstance(one, Dense) and not isinstance(other, Dense):
        if _written_first(one, other, trace=True):
            for left, right in _chunks(one, other):
                _add_trace_gram(kernel, left, right, one is other)
            return
        t1, t2 = one.deltas.shape[2], other.deltas.shape[2]
        left, right = (f.deltas.transpose(1, 2).flatten(2) for f in (one, other))  # [N, T, C · o]
        for rows, columns in _bands(*kernel.shape, one is other, t1 * t2):
            places = _places(_inputs(one, rows), _inputs(other, columns))
            grams = left[rows].flatten(0, 1) @ right[columns].flatten(0, 1).T
            pairs = grams.mul_(places).unflatten(0, (-1, t1)).unflatten(2, (-1, t2))
            kernel[rows, columns] += pairs.sum((1, 3))


def add_diagonal(kernel: Tensor, one: Factor) -> None:
    """Add a layer's part to each sample's kernel with itself [N, C, C], in place."""
    if isinstance(one, Dense):
        kernel += one.jacobian @ one.jacobian.mT
    elif _written_first(one, one, diagonal=True):
        for part, _ in _chunks(one, one):
            kernel += part @ part.mT
    else:
        n, c = kernel.shape[:2]
        if isinstance(one, Outer):
            places = one.weight**2 * (one.inputs @ one.inputs.mT) + one.bias**2
        else:
            places = _equal(one.tokens[:, :, None], one.tokens[:, None, :]).to(kernel.dtype)
        mixed = (places @ _outputs_last(one)).view(n, -1, c)
        kernel += one.deltas.flatten(2) @ mixed


def mirror(kernel: Tensor) -> None:
    """Fill in the pairs n > m of a kernel [N, C, N, C] or [N, N] from the others."""
    for m in range(1, len(kernel)):
        if kernel.ndim == 2:
            kernel[m, :m] = kernel[:m, m]
        else:
            kernel[m, :, :m] = kernel[:m, :, m].permute(2, 0, 1)


# -- the two orders ----------------------------------------------------------------------------


def _written_first(
    one: Outer | Tokens, other: Outer | Tokens, *, trace: bool = False, diagonal: bool = False
) -> bool:
    """Whether writing the gradients out takes less time."""
    if isinstance(one, Tokens) or isinstance(other, Tokens):
        return False
    (n1, t1, i), (n2, t2, _) = one.inputs.shape, other.inputs.shape
    c, o = one.deltas.shape[1], one.deltas.shape[3]
    if t1 == 1 == t2:
        return False
    if diagonal:
        return c * o * i * (t1 + c) < t1 * (t1 * (i + c * o) + c * c * o)
    same = one is other
    writing = n1 * t1 if same else n1 * t1 + n2 * t2
    grams = n1 * n2 * (_TRIANGLE if same else 1)
    if trace:
        written = c * o * i * (writing + grams)
        return written < _COST_OF_TRACE * grams * t1 * t2 * (i + c * o)
    written = c * o * i * (writing + grams * c)
    pairs = n1 * n2 * (0.5 if same else 1) * t1 * (t2 * (i + c * o) + c * c * o)
    return written < _COST * pairs


def _add_gram(kernel: Tensor, left: Tensor, right: Tensor, same: bool) -> None:
    """Products of gradients [N, C, p] by all outputs."""
    n1, c, n2, _ = kernel.shape
    flat = kernel.view(n1 * c, n2 * c)
    for rows, columns in _bands(n1, n2, same):
        block = flat[rows.start * c : rows.stop * c, columns.start * c :]
        block.addmm_(left[rows].flatten(0, 1), right[columns].flatten(0, 1).T)


def _add_trace_gram(kernel: Tensor, left: Tensor, right: Tensor, same: bool) -> None:
    for rows, columns in _bands(*kernel.shape, same):
        kernel[rows, columns].addmm_(left[rows].flatten(1), right[columns].flatten(1).T)


def _add_single(kernel: Tensor, one: Outer | Tokens, other: Outer | Tokens) -> None:
    """For a layer that acts at one place."""
    n1, c, n2, _ = kernel.shape
    for rows, columns in _bands(n1, n2, one is other, c * c):
        places = _places(_inputs(one, rows), _inputs(other, columns))
        grams = one.deltas[rows].flatten(0, 2) @ other.deltas[columns].flatten(0, 2).T
        block = kernel[rows, :, columns]
        block.addcmul_(grams.view(block.shape), places[:, None, :, None])


def _add_pairs(kernel: Tensor, one: Outer | Tokens, other: Outer | Tokens) -> None:
    """One sample of the second set at a time."""
    left, right = one.deltas.flatten(2), _outputs_last(other)
    n1, c = kernel.shape[:2]
    for m in range(len(right)):
        rows = slice(0, m + 1 if one is other else n1)
        places = _places(_inputs(one, rows), _inputs(other, slice(m, m + 1)))
        mixed = (places @ right[m]).view(rows.stop, -1, c)  # [N1, T1 · o, C]
        kernel[rows, :, m] += left[rows] @ mixed


def _outputs_last(one: Outer | Tokens) -> Tensor:
    """Deltas as [N, T, o · C]."""
    return one.deltas.permute(0, 2, 3, 1).flatten(2)


def _bands(n1: int, n2: int, same: bool, temporary: int = 0) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the kernel to work on; of the triangle n <= m where both sets are one.

    Args:
        n1: Samples of the first set.
        n2: Of the second.
        same: Whether both are one.
        temporary: Numbers that a pair of samples needs on the way.
    """
    step = -(-n1 // _BANDS) if same else n1
    if temporary:
        step = max(1, min(step, _CHUNK // (n2 * temporary)))
    for start in range(0, n1, step):
        yield slice(start, min(start + step, n1)), slice(start if same else 0, n2)


def _inputs(one: Outer | Tokens, samples: slice) -> Outer | Tokens:
    """With the inputs of some samples only."""
    if isinstance(one, Outer):
        return one._replace(inputs=one.inputs[samples])
    return one._replace(tokens=one.tokens[samples])


def _places(one: Outer | Tokens, other: Outer | Tokens) -> Tensor:
    """Inner products of the layer's inputs at all places, [N1 · T1, N2 · T2]."""
    if isinstance(one, Outer) and isinstance(other, Outer):
        left, right = one.inputs.flatten(0, 1), other.inputs.flatten(0, 1)
        bias = left.new_full((), one.bias**2).expand(len(left), len(right))
        return torch.addmm(bias, left, right.T, alpha=one.weight**2) if one.weight else bias
    assert isinstance(one, Tokens)
    assert isinstance(other, Tokens)
    left, right = one.tokens.flatten()[:, None], other.tokens.flatten()
    return _equal(left, right).to(one.deltas.dtype)


def _equal(one: Tensor, other: Tensor) -> Tensor:
    return (one == other) & (one >= 0)


def _chunks(one: Outer, other: Outer) -> Iterator[tuple[Tensor, Tensor]]:
    """The gradients written out, a few outputs of the layer at a time: [N, C, p] each."""
    samples = max(len(one.inputs), len(other.inputs))
    _, c, _, o = one.deltas.shape
    step = max(1, _CHUNK // max(1, samples * c * one.inputs.shape[2]))
    if one.bias:
        left = one.bias * one.deltas.sum(2)
        yield left, left if other is one else one.bias * other.deltas.sum(2)
    for start in range(0, o if one.weight else 0, step):
        part = slice(start, start + step)
        left = _written(one, part)
        yield left, left if other is one else _written(other, part)


def _written(factor: Outer, part: slice) -> Tensor:
    """The gradients by rows of the weight, [N, C, p]."""
    deltas = factor.deltas[..., part].transpose(2, 3)  # [N, C, o, T]
    n, c, o, t = deltas.shape
    nothing = deltas.new_zeros(())  # so that the factor costs no look at the result
    rows = deltas.reshape(n, c * o, t)
    return torch.baddbmm(nothing, rows, factor.inputs, beta=0, alpha=factor.weight).view(n, c, -1)
