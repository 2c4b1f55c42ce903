"""Rounding tensors to four bits: by a compiled pass on the CPU, by torch operations elsewhere.

The two ways give the same bits. Numbers that are not finite take the outermost level here;
those who call look at the largest magnitude, which every function returns.
"""

from __future__ import annotations

import importlib.util
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST_EXPONENT = 60
"""Scales lie between 2**-60 and 2**60, so that no scaled exponent leaves the range of float32."""
_HAS_NUMBA = importlib.util.find_spec("numba") is not None


class Powers(NamedTuple):
    """A format of signed powers: 0 and seven magnitudes, ``radix ** -3`` to ``radix ** 3``.

    Attributes:
        radix: 2 or 4.
        least: The smallest magnitude that is not rounded to 0.
    """

    radix: int
    least: float

    @property
    def wide(self) -> int:
        """Binary exponents from one power to the next, less one."""
        return self.radix // 4

    def carry(self, mantissa: int) -> int:
        """What carries the bits of the midpoint between two powers to the upper one.

        The midpoint of 4**(n-1) and 4**n is 1.25 * 2**(2n-1), that of powers of 2 is
        1.5 * 2**(n-1). For powers of 4 one exponent more makes the biased exponent even.
        """
        one = 1 << mantissa
        return one + 3 * one // 4 if self.wide else one // 2

    def zero(self, bias: int) -> int:
        """The exponent, with ``bias`` and shifted as for a code, from which codes count."""
        return (bias + 1) // 2 - 4 if self.wide else bias - 4

    def base(self, bias: int) -> int:
        """The biased exponent that code 0 would have."""
        return bias - 4 * (1 + self.wide)


class Rounded(NamedTuple):
    """What rounding gave.

    Attributes:
        values: The rounded numbers, unscaled again.
        odd: The same in the second phase, where it was asked for.
        peak: The largest magnitude before rounding; infinite or NaN where some number was.
        lost: How many numbers became 0 that were not 0.
        over: How many lay beyond what rounds to the largest power.
    """

    values: Tensor
    odd: Tensor | None
    peak: float
    lost: int
    over: int


def in_one_pass(x: Tensor) -> bool:
    """Whether the compiled pass takes the tensor."""
    return _HAS_NUMBA and x.is_cpu and x.dtype is torch.float32


def flat(x: Tensor) -> np.ndarray:
    """A contiguous CPU tensor as a one-dimensional array of the same memory."""
    return x.detach().view(-1).numpy()


def powers(x: Tensor, form: Powers, exponent: int, *, two_phases: bool = False) -> Rounded:
    """The nearest of the powers divided by ``2 ** exponent``.

    Args:
        x: Of any shape; 16-bit tensors are rounded as float32.
        form: The powers.
        exponent: Of the scale, from -60 to 60.
        two_phases: Round also to twice the powers (``Rounded.odd``); powers of 4 only.
    """
    x = x.contiguous() if x.dtype in (torch.float32, torch.float64) else x.float().contiguous()
    if not in_one_pass(x):
        return _plain_powers(x, form, exponent, two_phases)
    from mmxx.training.fourbit import kernels

    out = torch.empty_like(x)
    int32 = np.int32
    bits, to = flat(x).view(int32), flat(out).view(int32)
    shift, cap = int32(exponent << 23), int32((137 - exponent) << 23)
    least = np.float32(form.least).view(int32)
    carry, zero, base = int32(form.carry(23)), int32(form.zero(127)), int32(form.base(127))
    base = int32(base - exponent)
    odd = None
    if two_phases:
        odd = torch.empty_like(x)
        second = flat(odd).view(int32)
        counts = kernels.two_phases(bits, to, second, shift, least, cap, carry, zero, base)
    else:
        counts = kernels.powers(bits, to, shift, least, cap, carry, int32(form.wide), zero, base)
    peak = float(np.int32(counts[0]).view(np.float32))
    return Rounded(out, odd, peak, int(counts[1]), int(counts[2]))


def _layout(dtype: torch.dtype) -> tuple[torch.dtype, int, int]:
    """Integers as wide as the floats, bits of the mantissa, and bias of the exponent."""
    return (torch.int64, 52, 1023) if dtype is torch.float64 else (torch.int32, 23, 127)


def _plain_powers(x: Tensor, form: Powers, exponent: int, two_phases: bool) -> Rounded:
    kind, mantissa, bias = _layout(x.dtype)
    size = x.abs()
    scaled = size * math.ldexp(1.0, exponent)
    scaled = torch.where(scaled < 1024.0, scaled, 1024.0)  # NaN too: nothing overflows below
    values, codes = _nearest(scaled, form, kind, mantissa, bias)
    odd = None
    if two_phases:
        odd, _ = _nearest(scaled * 0.5, form, kind, mantissa, bias)
        odd = torch.copysign(odd * math.ldexp(1.0, 1 - exponent), x)
    return Rounded(
        torch.copysign(values * math.ldexp(1.0, -exponent), x),
        odd,
        float(size.max()) if x.numel() else 0.0,
        int(((values == 0) & (size != 0)).sum()),
        int((codes > 7).sum()),
    )


def _nearest(
    scaled: Tensor, form: Powers, kind: torch.dtype, mantissa: int, bias: int
) -> tuple[Tensor, Tensor]:
    bits = scaled.view(kind)
    codes = ((bits + form.carry(mantissa)) >> (mantissa + form.wide)) - form.zero(bias)
    exponents = (codes.clamp(1, 7) << form.wide) + form.base(bias)
    values = (exponents << mantissa).view(scaled.dtype)
    return torch.where(scaled < form.least, 0.0, values), codes


def powers_at_random(x: Tensor, form: Powers, scale: float, key: int) -> Rounded:
    """A power next to ``scale * x``, at random so that the mean is kept, divided by ``scale``.

    Below the smallest power it is that or 0. The noise is a hash of ``key`` and of the place
    of the element: no generator is drawn from.

    Args:
        x: Of any shape.
        form: Powers of 2.
        scale: Above 0.
        key: 32 bits.
    """
    x = x.contiguous() if x.dtype in (torch.float32, torch.float64) else x.float().contiguous()
    smallest = 2.0**-3
    if in_one_pass(x):
        from mmxx.training.fourbit import kernels

        out = torch.empty_like(x)
        to, float32 = flat(out), np.float32
        rate = float32(scale)
        peak, lost, over = kernels.powers_at_random(
            flat(x), to, to.view(np.int32), rate, float32(1) / rate,
            float32(smallest).view(np.int32), float32(smallest),
            float32(64 * smallest).view(np.int32), np.int32(137 << 23), np.uint32(key),
        )  # fmt: skip
        top = float(np.int32(peak).view(float32)) / scale
        return Rounded(out, None, top, int(lost), int(over))
    scaled = x * scale
    kind, mantissa, bias = _layout(x.dtype)
    size = scaled.abs()
    peak = float(size.max()) / scale if x.numel() else 0.0
    size = torch.where(size < 1024.0, size, 1024.0)
    drawn = _noise(x.numel(), key, x.device).view(x.shape)  # 23 bits
    bits = size.view(kind) + (drawn << (mantissa - 23)).to(kind)
    codes = ((bits >> mantissa) - form.base(bias)).clamp(max=7)
    inside = ((codes + form.base(bias)) << mantissa).view(x.dtype)
    below = torch.where(size * 2.0**23 > drawn * smallest, smallest, 0.0).to(x.dtype)
    values = torch.where(size < smallest, below, inside)
    lost = int(((values == 0) & (size != 0)).sum())
    over = int((size > 64 * smallest).sum())
    return Rounded(torch.copysign(values, x) / scale, None, peak, lost, over)


def _noise(count: int, key: int, device: torch.device) -> Tensor:
    """23 bits for each place: a Weyl sequence, hashed."""
    low = 0xFFFFFFFF
    noise = torch.arange(count, device=device).mul_(0x9E3779B1).add_(key).bitwise_and_(low)
    noise = ((noise ^ (noise >> 16)) * 0x7FEB352D).bitwise_and_(low)
    noise = ((noise ^ (noise >> 15)) * 0x846CA68B).bitwise_and_(low)
    return noise >> 9


def grid(x: Tensor, rate: Tensor, low: int, high: int, *, pack: bool) -> tuple[Tensor, Tensor]:
    """The nearest whole number from ``low`` to ``high`` to ``rate * x``, ties to even.

    Args:
        x: Of any shape; 16-bit tensors are rounded as float32. A NaN stays.
        rate: One number.
        low: The lowest level, -8 or more.
        high: The highest; ``high - low`` is at most 15.
        pack: Whether the codes are wanted, too.

    Returns:
        (levels of the shape of x, codes two a byte or empty).
    """
    x = x.contiguous() if x.dtype in (torch.float32, torch.float64) else x.float().contiguous()
    size = (x.numel() + 1) // 2 if pack else 0
    if in_one_pass(x):
        from mmxx.training.fourbit import kernels

        levels = torch.empty_like(x)
        packed = torch.empty(size, dtype=torch.uint8)
        to, float32 = flat(levels), np.float32
        kernels.grid(
            flat(x), to, to.view(np.int32), packed.numpy(), float32(rate), float32(low),
            float32(high),
        )  # fmt: skip
        return levels, packed
    levels = (x * rate.to(x)).clamp(low, high).round() + 0.0  # no negative zero
    if not pack:
        return levels, torch.empty(0, dtype=torch.uint8, device=x.device)
    return levels, pack_codes(levels.nan_to_num().to(torch.int16).bitwise_and(15).to(torch.uint8))


def pack_codes(codes: Tensor) -> Tensor:
    """uint8 codes below 16, of any shape, two a byte, the first in the low half."""
    codes = codes.reshape(-1)
    if codes.numel() % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return codes[::2] | (codes[1::2] << 4)


def unpack_codes(packed: Tensor, count: int) -> Tensor:
    """The first ``count`` codes, uint8 [count]."""
    return torch.stack([packed & 15, packed >> 4], 1).reshape(-1)[:count]


def unpack_grid(packed: Tensor, shape: list[int], signed: bool, dtype: torch.dtype) -> Tensor:
    """Levels of `grid` from their codes; signed ones are two's complement."""
    count = math.prod(shape)
    if packed.is_cpu and _HAS_NUMBA and dtype is torch.float32:
        from mmxx.training.fourbit import kernels

        levels = torch.empty(shape, dtype=dtype)
        kernels.unpack_grid(packed.numpy(), flat(levels), signed)
        return levels
    codes = unpack_codes(packed, count).to(dtype)
    if signed:
        codes = torch.where(codes > 7, codes - 16, codes)
    return codes.view(shape)


def mean_sizes(x: Tensor) -> tuple[float, float]:
    """(mean magnitude, root of the mean square) of a tensor that is not empty."""
    if in_one_pass(x) and x.is_contiguous():
        from mmxx.training.fourbit import kernels

        total, squares = kernels.sizes(flat(x))
    else:
        wide = x.detach().double()
        total, squares = float(wide.abs().sum()), float(wide.square().sum())
    return float(total) / x.numel(), math.sqrt(squares / x.numel())
