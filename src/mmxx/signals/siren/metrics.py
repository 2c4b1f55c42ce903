"""How near a field comes to what it was asked to be."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor, nn

from mmxx.signals.siren.operators import value_gradient


def psnr(signal: np.ndarray, truth: np.ndarray, *, peak: float) -> float:
    """Peak signal-to-noise ratio, $10 \\log_{10}(\\text{peak}^2 / \\text{mse})$.

    Args:
        signal: Any shape.
        truth: The same shape.
        peak: Peak to peak of the range that the signal may take: 255 for bytes, 2 for values in
            [-1, 1], not 1.

    Returns:
        Decibels; inf where both are equal.

    Raises:
        ValueError: If the shapes differ or ``peak`` is not positive.

    Example:
        >>> psnr(np.zeros(4), np.full(4, 0.1), peak=1.0)
        20.0
    """
    signal, truth = np.asarray(signal, float), np.asarray(truth, float)
    if signal.shape != truth.shape:
        raise ValueError(
            f"signal and truth must be of one shape, got {signal.shape} and {truth.shape}"
        )
    if not peak > 0:
        raise ValueError(f"peak must be positive, got {peak}")
    error = float(np.mean((signal - truth) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(picture: np.ndarray, truth: np.ndarray, *, peak: float) -> float:
    """Structural similarity with a Gaussian window of sigma 1.5 (Wang et al., 2004).

    Args:
        picture: [H, W] or [H, W, C], sides of at least 11.
        truth: The same shape.
        peak: Peak to peak of the range that the pixels may take.

    Returns:
        1 for equal pictures.

    Raises:
        ValueError: If the shapes differ or a side is too small.

    Example:
        >>> ssim(np.eye(16), np.eye(16), peak=1.0)
        1.0
    """
    from skimage.metrics import structural_similarity

    picture, truth = np.asarray(picture, float), np.asarray(truth, float)
    if picture.shape != truth.shape or picture.ndim not in (2, 3) or min(picture.shape[:2]) < 11:
        raise ValueError(
            "picture and truth must be [H, W] or [H, W, C] of one shape with sides of at least "
            f"11, got {picture.shape} and {truth.shape}"
        )
    similarity = np.asarray(
        structural_similarity(
            picture,
            truth,
            data_range=peak,
            channel_axis=2 if picture.ndim == 3 else None,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
    return float(similarity)


def match_affine(signal: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The signal times a scale plus an offset, those that come nearest to the truth.

    A picture recovered from its gradients has no level of its own, and one recovered from
    filtered gradients no scale.

    Args:
        signal: Any shape.
        truth: The same shape.

    Returns:
        float64 of that shape.

    Example:
        >>> match_affine(np.array([0.0, 1.0, 2.0]), np.array([5.0, 7.0, 9.0])).tolist()
        [5.0, 7.0, 9.0]
    """
    signal, truth = np.asarray(signal, float), np.asarray(truth, float)
    centred = signal - signal.mean()
    energy = float((centred**2).sum())
    scale = float((centred * (truth - truth.mean())).sum()) / energy if energy else 0.0
    return truth.mean() + scale * centred


def chamfer(points: np.ndarray, others: np.ndarray) -> float:
    """Symmetric chamfer distance: the mean of both mean distances to the nearest point.

    Args:
        points: [N, d].
        others: [M, d].

    Raises:
        ValueError: If either is empty.

    Example:
        >>> chamfer(np.zeros((1, 3)), np.array([[0.0, 0.0, 2.0]]))
        2.0
    """
    from scipy.spatial import KDTree

    if not len(points) or not len(others):
        raise ValueError(
            f"points and others must not be empty, got {len(points)} and {len(others)}"
        )
    there = KDTree(others).query(points)[0].mean()
    back = KDTree(points).query(others)[0].mean()
    return float((there + back) / 2)


def eikonal_error(net: nn.Module, coords: Tensor) -> float:
    """Mean of $||\\nabla f| - 1|$: 0 for a distance.

    Args:
        net: A field of one value.
        coords: Where to look, [N, d].

    Example:
        >>> plane = nn.Linear(3, 1)
        >>> _ = plane.weight.data.copy_(torch.tensor([[0.0, 0.0, 1.0]]))
        >>> eikonal_error(plane, torch.zeros(4, 3))
        0.0
    """
    _, slope = value_gradient(net, coords)
    return (slope[:, 0].norm(dim=1) - 1).abs().mean().item()
