"""Four-bit number formats: rounding to them, their codes, and two codes a byte."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mmxx.training.fourbit import rounding
from mmxx.training.fourbit.rounding import Powers

Phase = Literal["even", "odd"]


@dataclass(frozen=True)
class Radix4FP4:
    r"""Sign and three exponent bits to the base 4: 0 and $\pm 4^k$, k from -3 to 3.

    Rounds to the nearest in linear distance: from $4^k / 1.6$ up to $4^k$. In the odd phase
    the numbers are $\pm 2 \cdot 4^k$, so that the two phases err differently.

    Args:
        nearest_zero: Whether 0 takes part in the nearest, so that numbers below
            $4^{-3} / 2$ become 0; else those below $4^{-3} / 1.6$.

    Example:
        >>> quantize(torch.tensor([0.7, 3.0, -100.0, 0.001]), Radix4FP4()).tolist()
        [1.0, 4.0, -64.0, 0.0]

    Source: the paper, section on the radix-4 FP4 format and two-phase rounding.
    """

    nearest_zero: bool = False
    name: ClassVar[str] = "radix-4 FP4"
    top: ClassVar[float] = 64.0
    fullest: ClassVar[float] = 1.6  # times top: what still rounds to top, and not beyond
    phases: ClassVar[tuple[str, ...]] = ("even", "odd")

    @property
    def powers(self) -> Powers:
        """How they are rounded."""
        return Powers(4, 4.0**-3 * (0.5 if self.nearest_zero else 0.625))


@dataclass(frozen=True)
class Log2FP4:
    r"""Sign and three exponent bits to the base 2: 0 and $\pm 2^k$, k from -3 to 3.

    Args:
        stochastic: Round up or down at random so that the mean is kept (LUQ); else to the
            nearest in linear distance, from $\frac34 2^k$ up to $2^k$.
        nearest_zero: As for `Radix4FP4`; without ``stochastic``.

    Example:
        >>> quantize(torch.tensor([0.8, 3.0, -100.0, 0.001]), Log2FP4()).tolist()
        [1.0, 4.0, -8.0, 0.0]

    Source: Chmiel et al., *Accurate Neural Training with 4-bit Matrix Multiplications at Standard
    Formats* (ICLR 2023).
    """

    stochastic: bool = False
    nearest_zero: bool = False
    name: ClassVar[str] = "radix-2 FP4"
    top: ClassVar[float] = 8.0
    fullest: ClassVar[float] = 1.5
    phases: ClassVar[tuple[str, ...]] = ("even",)

    @property
    def powers(self) -> Powers:
        """How they are rounded."""
        return Powers(2, 2.0**-3 * (0.5 if self.nearest_zero else 0.75))


@dataclass(frozen=True)
class Int4Sym:
    """The 15 whole numbers from -7 to 7, to the nearest, ties to even.

    Example:
        >>> quantize(torch.tensor([0.4, 0.6, -100.0, 2.5]), Int4Sym()).tolist()
        [0.0, 1.0, -7.0, 2.0]
    """

    name: ClassVar[str] = "INT4"
    top: ClassVar[float] = 7.0
    fullest: ClassVar[float] = 1.0
    phases: ClassVar[tuple[str, ...]] = ("even",)


Format = Radix4FP4 | Log2FP4 | Int4Sym


def table(fmt: Format) -> Tensor:
    """The value of each of the 16 codes, float32 [16]; of `Int4Sym` the code 8 is no number.

    Args:
        fmt: The format.

    Example:
        >>> table(Log2FP4())[:8].tolist()
        [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    """
    if isinstance(fmt, Int4Sym):
        return torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, math.nan, -7, -6, -5, -4, -3, -2, -1])
    half = torch.tensor([0.0, *(float(fmt.powers.radix) ** k for k in range(-3, 4))])
    return torch.cat([half, -half])


def quantize(
    x: Tensor,
    fmt: Format,
    scale: float = 1.0,
    phase: Phase = "even",
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``scale * x`` rounded to a format, divided by the scale again.

    Args:
        x: Of any shape and floating type. Infinity takes the outermost number, a NaN stays.
        fmt: `Radix4FP4`, `Log2FP4` or `Int4Sym`.
        scale: Above 0 and finite. A power of two is exact, and the fastest.
        phase: "even", or "odd" for a format with two phases.
        generator: Draws the noise of a stochastic format; by default torch's own.

    Returns:
        The shape and type of ``x``.

    Raises:
        ValueError: ``x`` is of integers or booleans, the scale or the phase is unfit.

    Example:
        >>> quantize(torch.tensor([0.7, 3.0]), Radix4FP4(), phase="odd").tolist()
        [0.5, 2.0]
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be of a floating type, got {x.dtype}")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be above 0 and finite, got {scale}")
    if phase not in fmt.phases:
        raise ValueError(f"phase of {fmt.name} must be one of {fmt.phases}, got {phase!r}")
    if isinstance(fmt, Int4Sym):
        levels, _ = rounding.grid(x, torch.tensor(scale, dtype=_wide(x)), -7, 7, pack=False)
        return levels.div_(scale).to(x.dtype)
    if isinstance(fmt, Log2FP4) and fmt.stochastic:
        key = draw_key(generator)
        found = rounding.powers_at_random(x, fmt.powers, scale, key)
        values = found.values
    else:
        mantissa, exponent = math.frexp(scale)
        whole = mantissa == 0.5 and abs(exponent - 1) < rounding.LARGEST_EXPONENT
        inner = x if whole else x.to(_wide(x)) * scale
        shift = (exponent - 1 if whole else 0) - (phase == "odd")
        found = rounding.powers(inner, fmt.powers, shift)
        values = found.values if whole else found.values / scale
    if math.isnan(found.peak):
        values = torch.where(x.isnan(), x.to(values.dtype), values)
    return values.to(x.dtype)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def draw_key(generator: torch.Generator | None = None) -> int:
    """32 bits from a generator, by default torch's own."""
    return int(torch.randint(1 << 32, (), generator=generator))


def encode(
    x: Tensor,
    fmt: Format,
    scale: float = 1.0,
    phase: Phase = "even",
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The codes of `quantize`, uint8 below 16, of the shape of ``x``.

    The powers have the sign in the fourth bit and 0 for zero, 1 to 7 for the magnitudes; whole
    numbers are in two's complement.

    Args:
        x: As for `quantize`, and so are ``fmt``, ``scale``, ``phase`` and ``generator``.
        fmt: See there.
        scale: See there.
        phase: See there.
        generator: See there.

    Raises:
        ValueError: As `quantize`, and where ``x`` has a NaN, which has no code.

    Example:
        >>> encode(torch.tensor([1.0, -16.0, 0.0]), Radix4FP4()).tolist()
        [4, 14, 0]
    """
    values = quantize(x, fmt, scale, phase, generator=generator)
    if bool(values.isnan().any()):
        raise ValueError("x has a NaN, which has no code of 4 bits")
    scaled = values.to(torch.float64) * (scale * (0.5 if phase == "odd" else 1.0))
    if isinstance(fmt, Int4Sym):
        return scaled.round().to(torch.int16).bitwise_and(15).to(torch.uint8)
    _, exponents = torch.frexp(scaled)
    powers = (exponents - 1).div(1 + fmt.powers.wide, rounding_mode="floor") + 4
    codes = torch.where(scaled == 0, 0, powers)
    return (codes + 8 * torch.signbit(scaled).to(codes.dtype)).to(torch.uint8)


def decode(codes: Tensor, fmt: Format, scale: float = 1.0, phase: Phase = "even") -> Tensor:
    """The numbers behind codes of `encode`, float32 of their shape.

    Args:
        codes: uint8 below 16.
        fmt: The format.
        scale: What it was encoded with.
        phase: Likewise.

    Raises:
        ValueError: The codes are not uint8 below 16, the scale or the phase is unfit.

    Example:
        >>> decode(encode(torch.tensor([3.0, -0.2]), Radix4FP4()), Radix4FP4()).tolist()
        [4.0, -0.25]
    """
    if phase not in fmt.phases:
        raise ValueError(f"phase of {fmt.name} must be one of {fmt.phases}, got {phase!r}")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be above 0 and finite, got {scale}")
    _check_codes(codes)
    values = table(fmt).to(codes.device)[codes.long()]
    return values * ((2.0 if phase == "odd" else 1.0) / scale)


def _check_codes(codes: Tensor) -> None:
    if codes.dtype is not torch.uint8 or (codes.numel() and int(codes.max()) > 15):
        raise ValueError(f"codes must be uint8 below 16, got {codes.dtype}")


def pack(codes: Tensor) -> Tensor:
    """Two codes a byte, the first in the low half; an odd one is followed by 0.

    Args:
        codes: uint8 below 16, of any shape.

    Returns:
        uint8 [(number of codes + 1) // 2].

    Raises:
        ValueError: They are not.

    Example:
        >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8)).tolist()
        [33, 3]
    """
    _check_codes(codes)
    return rounding.pack_codes(codes)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The codes that `pack` was given.

    Args:
        packed: uint8 [n].
        shape: What the codes had; they must fill the bytes but for half of one.

    Raises:
        ValueError: The bytes are not as many as the shape takes.

    Example:
        >>> unpack(torch.tensor([33, 3], dtype=torch.uint8), (3,)).tolist()
        [1, 2, 3]
    """
    count = math.prod(shape)
    if packed.dtype is not torch.uint8 or packed.shape != ((count + 1) // 2,):
        raise ValueError(
            f"packed must be uint8 [{(count + 1) // 2}] for the shape {tuple(shape)}, "
            f"got {packed.dtype} {list(packed.shape)}"
        )
    return rounding.unpack_codes(packed, count).view(shape)
