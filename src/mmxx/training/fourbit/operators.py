"""The steps of a layer as operators of torch, opaque to torch.compile.

They are called ``torch.ops.mmxx_fourbit.*``; none has a derivative of its own.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from mmxx.training.fourbit import rounding
from mmxx.training.fourbit.formats import draw_key
from mmxx.training.fourbit.rounding import LARGEST_EXPONENT, Powers, Rounded
from mmxx.training.fourbit.sawb import sawb_alpha

_LIBRARY = torch.library.Library("mmxx_fourbit", "DEF")
_LIBRARY.define(
    "symmetric(Tensor x, Tensor(a!)? running, bool training, bool pack)"
    " -> (Tensor levels, Tensor packed, Tensor step)"
)
_LIBRARY.define("clipped(Tensor x, Tensor alpha) -> (Tensor levels, Tensor packed, Tensor inside)")
_LIBRARY.define("unpack(Tensor packed, int[] shape, bool signed, ScalarType dtype) -> Tensor")
_LIBRARY.define(
    "gradient(Tensor delta, Tensor(a!) exponent, Tensor(b!) counts, int radix, float least,"
    " float top, float fullest, bool stochastic, str scale, bool two_phases, int samples,"
    " str label) -> (Tensor, Tensor)"
)
_LIBRARY.define("eight_bits(Tensor x) -> (Tensor codes, Tensor unit)")
_LIBRARY.define(
    "eight_bit_gradient(Tensor delta, Tensor(a!) exponent, Tensor(b!) counts, str label) -> Tensor"
)
_MOMENTUM = 0.1  # of the running clipping value, as of batch normalisation
_E4M3, _E5M2 = torch.finfo(torch.float8_e4m3fn), torch.finfo(torch.float8_e5m2)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def _symmetric(
    x: Tensor, running: Tensor | None, training: bool, pack: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Levels from -7 to 7, their codes, and the size of a level.

    ``running`` is what SAWB clips at on average. Training follows it; else it is taken, once it
    is above 0.
    """
    alpha = 0.0 if running is None or training else float(running)
    broken = False
    if alpha <= 0:
        alpha = sawb_alpha(x)
        broken = not math.isfinite(alpha)
        if broken:
            alpha = 1.0
        elif running is not None and training and x.numel():
            before = float(running)
            running.fill_(alpha if before <= 0 else before + _MOMENTUM * (alpha - before))
    step = torch.tensor(alpha / 7, dtype=_wide(x), device=x.device)
    levels, packed = rounding.grid(x, 1 / step, -7, 7, pack=pack)
    if broken:  # an infinity in x must not pass for a large number
        levels = torch.where(x.isfinite(), levels, torch.nan)
    return levels, packed, step


def _symmetric_shapes(
    x: Tensor, running: Tensor | None, training: bool, pack: bool
) -> tuple[Tensor, Tensor, Tensor]:
    size = (x.numel() + 1) // 2 if pack else 0
    levels = torch.empty(x.shape, dtype=_wide(x), device=x.device)
    return levels, x.new_empty(size, dtype=torch.uint8), levels.new_empty(())


def _clipped(x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels from 0 to 15, their codes, and a bit for each x inside (0, alpha)."""
    levels, packed = rounding.grid(x, (15 / alpha).to(_wide(x)), 0, 15, pack=True)
    inside = ((x > 0) & (x < alpha)).reshape(-1)
    return levels, packed, pack_bits(inside)


def _clipped_shapes(x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count = x.numel()
    levels = torch.empty(x.shape, dtype=_wide(x), device=x.device)
    packed = x.new_empty((count + 1) // 2, dtype=torch.uint8)
    return levels, packed, x.new_empty((count + 7) // 8, dtype=torch.uint8)


def pack_bits(bits: Tensor) -> Tensor:
    """Booleans [n], eight a byte."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.numel() % 8)).view(-1, 8)
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (padded << shifts).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """The first ``count`` booleans."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> shifts) & 1).view(-1)[:count].bool()


def _unpack(packed: Tensor, shape: list[int], signed: bool, dtype: torch.dtype) -> Tensor:
    return rounding.unpack_grid(packed, shape, signed, dtype)


def _unpack_shape(packed: Tensor, shape: list[int], signed: bool, dtype: torch.dtype) -> Tensor:
    return packed.new_empty(shape, dtype=dtype)


def fitting_exponent(largest: float, peak: float) -> int:
    """The greatest e with ``peak * 2**e <= largest``, from -60 to 60; 0 for a peak of 0."""
    if peak <= 0:
        return 0
    return max(-LARGEST_EXPONENT, min(LARGEST_EXPONENT, math.floor(math.log2(largest / peak))))


def next_exponent(exponent: int, largest: float, peak: float) -> int:
    """One step towards ``largest / 2 < peak * 2**e <= largest``; a peak of 0 moves nothing."""
    scaled = math.ldexp(peak, exponent)
    if scaled > largest:
        return max(exponent - 1, -LARGEST_EXPONENT)
    if 0 < scaled <= largest / 2:
        return min(exponent + 1, LARGEST_EXPONENT)
    return exponent


def _peak(delta: Tensor) -> float:
    return float(delta.abs().max()) if delta.numel() else 0.0


def _gradient(
    delta: Tensor,
    exponent: Tensor,
    counts: Tensor,
    radix: int,
    least: float,
    top: float,
    fullest: float,
    stochastic: bool,
    scale: str,
    two_phases: bool,
    samples: int,
    label: str,
) -> tuple[Tensor, Tensor]:
    """A gradient rounded for the input's product and for the weight's.

    Args:
        delta: The gradient of a layer's output.
        exponent: Of the layer's scale; moved by one where ``scale`` is "adaptive".
        counts: Gradients seen, numbers in them, those that became 0, those beyond the range.
        radix: 4, 2, or 0 for whole numbers.
        least: As of `rounding.Powers`.
        top: The largest number of the format.
        fullest: Times ``top``, the largest scaled number that is within the range.
        stochastic: Round at random.
        scale: "adaptive", "stateless", "max" or "fixed", which is the exponent as it stands.
        two_phases: As of `Recipe`, and so is samples.
        samples: See there.
        label: The layer's name, for the warning.

    Returns:
        The two, of the shape of ``delta``; the second is empty where it is the first.
    """
    kept = int(exponent)
    multiplier = 0.0  # set where the scale is no power of two
    if scale != "fixed" and (scale != "adaptive" or int(counts[0]) == 0):
        peak = _peak(delta)
        if math.isfinite(peak) and peak > 0:
            kept = fitting_exponent(top if scale == "stateless" else top * fullest, peak)
            multiplier = top / peak if scale == "max" else 0.0
    if radix == 0:
        found = _whole_numbers(delta, multiplier or math.ldexp(1.0, kept))
        for_weight = None
    elif stochastic:
        factor = multiplier or math.ldexp(1.0, kept)
        form = Powers(radix, least)
        found = rounding.powers_at_random(delta, form, factor, draw_key())
        for_weight = None
        for _ in range(samples - 1):
            more = rounding.powers_at_random(delta, form, factor, draw_key()).values
            for_weight = more if for_weight is None else for_weight.add_(more)
        if for_weight is not None:
            for_weight.add_(found.values).div_(samples)
    elif multiplier:
        found = rounding.powers(delta * multiplier, Powers(radix, least), 0)
        found = found._replace(values=found.values / multiplier, peak=found.peak / multiplier)
        for_weight = None
    else:
        found = rounding.powers(delta, Powers(radix, least), kept, two_phases=two_phases)
        for_weight = found.odd
    if not math.isfinite(found.peak):
        _warn_of_nan(label)
        bad = torch.full_like(found.values, math.nan)
        return bad, bad.new_empty(0) if for_weight is None else bad.clone()
    counts += torch.tensor([1, delta.numel(), found.lost, found.over], device=counts.device)
    if scale == "adaptive":
        kept = next_exponent(kept, top * fullest, found.peak)
    exponent.fill_(kept)
    return found.values, found.values.new_empty(0) if for_weight is None else for_weight


def _warn_of_nan(label: str) -> None:
    warnings.warn(
        f"the gradient of layer {label!r} has a NaN or an infinity: its scale stays as it is, "
        "and its gradients become NaN, so that the step can be skipped",
        RuntimeWarning,
        stacklevel=3,
    )


def _eight_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor as 8-bit floats with 3 bits of mantissa (E4M3), and the value of their 1."""
    peak = _peak(x)
    exponent = fitting_exponent(_E4M3.max, peak) if math.isfinite(peak) else 0
    unit = torch.tensor(math.ldexp(1.0, -exponent), dtype=_wide(x), device=x.device)
    return (x / unit).to(torch.float8_e4m3fn), unit


def _eight_bits_shapes(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.float8_e4m3fn), x.new_empty((), dtype=_wide(x))


def _eight_bit_gradient(delta: Tensor, exponent: Tensor, counts: Tensor, label: str) -> Tensor:
    """A gradient rounded to 8-bit floats with 2 bits of mantissa (E5M2), scaled to fit them.

    ``exponent`` becomes that of the scale, and ``counts`` go on as of `_gradient`.
    """
    peak = _peak(delta)
    if not math.isfinite(peak):
        _warn_of_nan(label)
        return torch.full_like(delta, math.nan, dtype=_wide(delta))
    exponent.fill_(fitting_exponent(_E5M2.max, peak))
    scale = math.ldexp(1.0, int(exponent))
    values = (delta.to(_wide(delta)) * scale).to(torch.float8_e5m2).to(_wide(delta)) / scale
    lost = int(((values == 0) & (delta != 0)).sum())
    counts += torch.tensor([1, delta.numel(), lost, 0], device=counts.device)
    return values


def _eight_bit_gradient_shape(
    delta: Tensor, exponent: Tensor, counts: Tensor, label: str
) -> Tensor:
    return torch.empty(delta.shape, dtype=_wide(delta), device=delta.device)


def _whole_numbers(delta: Tensor, rate: float) -> Rounded:
    levels, _ = rounding.grid(
        delta, torch.tensor(rate, dtype=_wide(delta), device=delta.device), -7, 7, pack=False
    )
    size = delta.abs()
    peak = float(size.max()) if delta.numel() else 0.0
    lost = int(((levels == 0) & (size != 0)).sum())
    over = int((size * rate > 7.5).sum())
    return Rounded(levels / rate, None, peak, lost, over)


def _gradient_shapes(
    delta: Tensor,
    exponent: Tensor,
    counts: Tensor,
    radix: int,
    least: float,
    top: float,
    fullest: float,
    stochastic: bool,
    scale: str,
    two_phases: bool,
    samples: int,
    label: str,
) -> tuple[Tensor, Tensor]:
    values = torch.empty(delta.shape, dtype=_wide(delta), device=delta.device)
    return values, torch.empty_like(values) if two_phases or samples > 1 else values.new_empty(0)


for _name, _function, _shapes in (
    ("symmetric", _symmetric, _symmetric_shapes),
    ("clipped", _clipped, _clipped_shapes),
    ("unpack", _unpack, _unpack_shape),
    ("gradient", _gradient, _gradient_shapes),
    ("eight_bits", _eight_bits, _eight_bits_shapes),
    ("eight_bit_gradient", _eight_bit_gradient, _eight_bit_gradient_shape),
):
    _LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"mmxx_fourbit::{_name}", _shapes, lib=_LIBRARY)

symmetric = torch.ops.mmxx_fourbit.symmetric
clipped = torch.ops.mmxx_fourbit.clipped
unpack = torch.ops.mmxx_fourbit.unpack
gradient = torch.ops.mmxx_fourbit.gradient
eight_bits = torch.ops.mmxx_fourbit.eight_bits
eight_bit_gradient = torch.ops.mmxx_fourbit.eight_bit_gradient
