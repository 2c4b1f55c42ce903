"""Where to clip weights: statistics-aware weight binning (SAWB)."""

from __future__ import annotations

from torch import Tensor

from mmxx.training.fourbit.rounding import mean_sizes

_EVEN = {
    2: (3.12, -2.064),
    3: (7.509, -6.892),
    4: (12.68, -12.80),
    5: (17.74, -18.64),
    8: (31.76, -35.04),
}
_WITH_ZERO = {2: (2.6, -1.71), 4: (12.035, -12.03)}


def sawb_alpha(weights: Tensor, bits: int = 4, *, zero: bool = True) -> float:
    r"""The clipping value that about minimises the squared error of uniform quantisation.

    $\alpha = c_1 \sqrt{E w^2} + c_2 E|w|$ with coefficients fitted to several distributions.
    They belong to one grid: with ``zero`` to the $2^b - 1$ levels from $-\alpha$ to $\alpha$
    that include 0, without it to the $2^b$ levels that do not.

    Args:
        weights: Of any shape and floating type.
        bits: 2 or 4 with ``zero``; 2, 3, 4, 5 or 8 without.
        zero: Which grid.

    Returns:
        alpha, above 0. Where the formula gives none (constant weights) it is the largest
        magnitude, and 1 where that is 0 or there are no weights.

    Raises:
        ValueError: There are no coefficients, or the weights are no floating-point tensor.

    Source: Choi et al., *Accurate and Efficient 2-bit Quantized Neural Networks* (2019), and the
    coefficients in IBM's fms-model-optimizer, whose code 403 is ``bits=4`` with zero.

    Example:
        >>> import torch
        >>> round(sawb_alpha(torch.linspace(-1, 1, 1001)), 2)
        0.93
    """
    known = _WITH_ZERO if zero else _EVEN
    if bits not in known:
        every = ",".join(map(str, _EVEN))
        grid = f" on a grid with 0 (zero=False takes {every})" if bits in _EVEN else ""
        numbers = ",".join(map(str, known)) if grid else every
        raise ValueError(f"SAWB has no coefficients for {bits} bits{grid}; known: {numbers}")
    if not weights.is_floating_point():
        raise ValueError(f"weights must be of a floating type, got {weights.dtype}")
    if weights.numel() == 0:
        return 1.0
    mean, root = mean_sizes(weights)
    alpha = _fitted(known[bits], mean, root)
    return alpha if not alpha <= 0 else float(weights.detach().abs().max()) or 1.0


def _fitted(coefficients: tuple[float, float], mean: float, root: float) -> float:
    return coefficients[0] * root + coefficients[1] * mean


def clipped_at(mean: float, root: float, peak: float) -> float:
    """`sawb_alpha` of four bits from the mean, root mean square and maximum of the magnitudes."""
    alpha = _fitted(_WITH_ZERO[4], mean, root)
    return alpha if not alpha <= 0 else peak or 1.0
