"""The frequency of the first layer, from the signal itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from mmxx.signals.siren.fitting import fit
from mmxx.signals.siren.losses import mse_loss
from mmxx.signals.siren.sampling import check_shape, grid
from mmxx.signals.siren.siren import Siren

PROBE_STEPS = 50
_PROBE_CELLS = 1024
_SHARES = (1.0, 0.5, 0.25, 0.125)


def first_omega(signal: np.ndarray, *, share: float = 0.99) -> float:
    """A first frequency for a sampled signal, from its spectrum: an upper bound to search below.

    The weights of the first layer are at most 1/d, so that $\\omega_0 / d$ is the highest
    frequency along an axis, in radian for a unit of the coordinates, before the hidden layers
    mix and multiply them. The rule: d times the frequency below which ``share`` of the signal's
    energy lies. Hidden layers reach several times as far, so the best frequency lies below.

    Args:
        signal: The samples, [side, ...] without a channel axis.
        share: Share of the energy, without that of the mean.

    Returns:
        A frequency of at least 1.

    Raises:
        ValueError: If a side is below 2.

    Example:
        >>> wave = np.sin(20 * np.linspace(-1, 1, 400))
        >>> 19 < first_omega(wave) < 26
        True
    """
    check_shape(signal.shape)
    dims = signal.ndim
    window = np.ones(())
    for axis, side in enumerate(signal.shape):  # so that the edges do not look like detail
        window = window * np.hanning(side + 2)[1:-1].reshape(
            [-1 if i == axis else 1 for i in range(dims)]
        )
    energy = np.abs(np.fft.fftn((signal - signal.mean()) * window)) ** 2
    if not energy.sum() > 0:
        return 1.0
    # A cell is 2 / (side - 1) wide, hence radian per unit = 2π cycles per cell (side - 1) / 2.
    axes = [np.abs(np.fft.fftfreq(side)) * math.pi * (side - 1) for side in signal.shape]
    highest = np.zeros(())
    for axis, frequencies in enumerate(axes):
        shaped = frequencies.reshape([-1 if i == axis else 1 for i in range(dims)])
        highest = np.maximum(highest, shaped)
    order = np.argsort(highest, axis=None)
    below = np.cumsum(energy.ravel()[order])
    place = int(np.searchsorted(below, share * below[-1]))
    return max(1.0, dims * float(highest.ravel()[order[min(place, len(order) - 1)]]))


def probe_first_omega(
    values: np.ndarray,
    *,
    hidden_features: int = 256,
    hidden_layers: int = 3,
    omega_0: float = 30.0,
    lr: float = 1e-4,
    random_state: int = 0,
) -> float:
    """A first frequency for a sampled signal, by a short trial on its middle.

    `first_omega`, its half, quarter and eighth are tried: every other sample of a window of at
    most 1,024 is fitted in 50 steps, and the frequency wins that misses the samples between
    least. Too low a frequency cannot follow the signal, too high a one swings between samples.

    Args:
        values: The samples in [-1, 1], [side, ..., channels].
        hidden_features: Width of the network to be.
        hidden_layers: Its sine layers after the first.
        omega_0: The frequency of these.
        lr: Learning rate of the fit to be.
        random_state: Seed of the trial networks.

    Returns:
        A frequency of at least 1.

    Example:
        >>> x = np.linspace(-1, 1, 200)[:, None]
        >>> slow = probe_first_omega(np.sin(6 * x), hidden_features=32, lr=1e-3)
        >>> fast = probe_first_omega(np.sin(60 * x), hidden_features=32, lr=1e-3)
        >>> slow < fast
        True
    """
    shape = values.shape[:-1]
    highest = first_omega(values.mean(axis=-1))
    window = _window(shape)
    coords = grid(shape).reshape(*shape, -1)[window].reshape(-1, len(shape))
    targets = torch.from_numpy(np.ascontiguousarray(values[window], np.float32))
    sides = targets.shape[:-1]
    targets = targets.reshape(len(coords), -1)
    parity = np.indices(sides).sum(axis=0).reshape(-1) % 2
    seen, unseen = torch.from_numpy(parity == 0), torch.from_numpy(parity == 1)
    errors: dict[float, float] = {}
    for share in _SHARES:
        omega = max(1.0, share * highest)
        if omega in errors:
            continue
        net = Siren(
            len(shape),
            targets.shape[1],
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            omega_0=omega_0,
            first_omega_0=omega,
            generator=torch.Generator().manual_seed(random_state),
        )
        pair = coords[seen], targets[seen]
        try:
            fit(net, lambda step, pair=pair: pair, mse_loss, steps=PROBE_STEPS, lr=lr)
        except FloatingPointError:  # this frequency is no candidate
            errors[omega] = math.inf
            continue
        with torch.no_grad():
            errors[omega] = float(mse_loss(net, coords[unseen], targets[unseen]))
    return min(errors, key=errors.__getitem__)


def _window(shape: Sequence[int]) -> tuple[slice, ...]:
    """The middle of an array, of at most `_PROBE_CELLS` cells, its sides as equal as can be."""
    sides, cells = [0] * len(shape), _PROBE_CELLS
    for rank, axis in enumerate(sorted(range(len(shape)), key=lambda axis: shape[axis])):
        sides[axis] = max(2, min(shape[axis], round(cells ** (1 / (len(shape) - rank)))))
        cells = max(2, cells // sides[axis])
    return tuple(
        slice((total - side) // 2, (total + side) // 2)
        for total, side in zip(shape, sides, strict=True)
    )
