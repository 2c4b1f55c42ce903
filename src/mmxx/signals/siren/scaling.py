"""Signals of all types brought to the [-1, 1] that a network gives, and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

# Root mean square that the targets of the Poisson problem are brought to. The result is nearly
# the same from 1 to 5 and from 10 to 100, and worse above, where the picture behind the targets
# is larger than what an initialised network gives.
SLOPE_RMS = 3.0
BEND_RMS = 30.0


@dataclass(frozen=True, slots=True)
class Scale:
    """``value = offset + gain * output``; a signal's range is that of outputs from -1 to 1."""

    gain: float
    offset: float

    @property
    def peak(self) -> float:
        """Peak to peak of the range, in the signal's units."""
        return 2 * self.gain


def check_signal(signal: Any, dims: int, name: str) -> np.ndarray:
    """The signal as an array [side, ..., channels] with ``dims`` sides.

    Raises:
        ValueError: If it has another number of axes, a side below 2, no channel, or values that
            are not finite.
        TypeError: If it does not hold real numbers.
    """
    array = np.asarray(signal)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold real numbers, got an array of {array.dtype}")
    if array.ndim not in (dims, dims + 1):
        raise ValueError(
            f"{name} must have {dims} axes, or {dims + 1} with channels last, got shape "
            f"{array.shape}"
        )
    sides = array.shape[:dims]
    if min(sides) < 2:
        raise ValueError(f"every side of {name} must be at least 2, got shape {array.shape}")
    if array.ndim == dims:
        array = array[..., None]
    if not array.shape[-1]:
        raise ValueError(f"{name} must have at least one channel, got shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"{name} must be finite, got {bad} values that are NaN or infinite")
    return array


def without_alpha(pixels: np.ndarray) -> np.ndarray:
    """A picture with 2 or 4 channels laid on white; others as they are."""
    if pixels.shape[-1] not in (2, 4):
        return pixels
    scale = range_of(pixels)
    top = scale.offset + scale.gain
    alpha = (pixels[..., -1:].astype(float) - (scale.offset - scale.gain)) / scale.peak
    warnings.warn(
        f"the picture has {pixels.shape[-1]} channels: the last is taken as its opacity and the "
        "picture laid on white",
        stacklevel=4,
    )
    laid = pixels[..., :-1] * alpha + top * (1 - alpha)
    return np.rint(laid).astype(pixels.dtype) if pixels.dtype.kind in "ui" else laid


def range_of(signal: np.ndarray) -> Scale:
    """The range that a picture's or a volume's values may take.

    That of the type for bool and unsigned integers of 8 and 16 bits; [0, 1] for floats inside
    it; else that of the data.
    """
    low, high = float(signal.min()), float(signal.max())
    if signal.dtype in (np.uint8, np.uint16):
        low, high = 0.0, float(np.iinfo(signal.dtype).max)
    elif signal.dtype == bool or (signal.dtype.kind == "f" and low >= 0 and high <= 1):
        low, high = 0.0, 1.0
    return Scale((high - low) / 2 or 1.0, (high + low) / 2)


def warn_if_constant(signal: np.ndarray, name: str) -> bool:
    """Warns of a signal with one value, whose PSNR says nothing, and returns whether it is."""
    constant = bool((signal == signal.reshape(-1)[0]).all())
    if constant:
        warnings.warn(
            f"{name} is constant ({signal.reshape(-1)[0]}): there is nothing to represent, and "
            "psnr_ is inf",
            stacklevel=4,
        )
    return constant
