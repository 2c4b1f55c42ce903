"""Looking at gradients as they are rounded, and switching the rounding off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

LOWEST = -48
"""The first exponent that a histogram counts; all below are counted with it."""
BINS = 60


@dataclass
class Traced:
    """What was seen of a layer's gradients while `gemm` traced.

    Attributes:
        exponents: Exponent of the layer's scale after each backward pass.
        cosine: Between the gradient and what the weight's product took for it, the last time.
        bias: How much longer that is along the gradient, a part of the gradient's length;
            -0.1 says that it is a tenth too short.
        input_bias: The same of what the input's product took.
        histogram: How many numbers of the last gradient have the binary exponents from -48 on.
    """

    exponents: list[int] = field(default_factory=list)
    cosine: float = float("nan")
    bias: float = float("nan")
    input_bias: float = float("nan")
    histogram: list[int] = field(default_factory=list)

    def add(self, delta: Tensor, for_input: Tensor, for_weight: Tensor, exponent: Tensor) -> None:
        """Take note of a gradient before and after rounding."""
        tensors = (delta, for_input, for_weight)
        true, first, second = (t.detach().double().flatten() for t in tensors)
        length = true.dot(true)
        norms = length.sqrt() * second.norm()
        self.exponents.append(int(exponent))
        self.cosine = float(true.dot(second) / norms) if norms > 0 else float("nan")
        if length > 0:
            self.bias = float(true.dot(second) / length) - 1
            self.input_bias = float(true.dot(first) / length) - 1
        _, found = torch.frexp(true[true != 0])
        bins = (found - 1 - LOWEST).clamp(0, BINS - 1).long()
        self.histogram = torch.bincount(bins, minlength=BINS).tolist()


@dataclass(frozen=True)
class _Mode:
    trace: bool = False
    exact: bool = False


_mode = _Mode()  # a plain global, which torch.compile can watch


@contextmanager
def gemm(*, trace: bool = False, exact: bool = False) -> Iterator[None]:
    """How the products of converted layers are computed within a ``with`` block, in all threads.

    Args:
        trace: Compare each gradient with what it is rounded to; `stats` shows it. Costs time.
        exact: Compute as the layers would unconverted, nothing rounded. Scales stay.

    Example:
        >>> from mmxx.training.fourbit import convert, stats
        >>> net = torch.nn.Linear(8, 4)
        >>> report = convert(net, skip=())
        >>> with gemm(trace=True):
        ...     net(torch.ones(2, 8)).sum().backward()
        >>> stats(net)[0]["cosine"] > 0.9
        True
    """
    global _mode
    before, _mode = _mode, _Mode(trace, exact)
    try:
        yield
    finally:
        _mode = before


def mode() -> _Mode:
    """What `gemm` asks for."""
    return _mode
