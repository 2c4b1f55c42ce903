"""What the figures are measured with: against formulas, brute force and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from mmxx.signals.siren import chamfer, eikonal_error, match_affine, psnr, ssim


def _pictures(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.random(shape)
    return np.clip(truth + 0.1 * rng.normal(size=shape), 0, 1), truth


@pytest.mark.parametrize("peak", [1.0, 2.0, 255.0])
def test_psnr_equals_that_of_skimage(peak: float) -> None:
    picture, truth = _pictures(12, 9, 3)
    expected = peak_signal_noise_ratio(truth, picture, data_range=peak)
    assert psnr(picture, truth, peak=peak) == pytest.approx(expected, rel=1e-12)


def test_psnr_does_not_depend_on_the_units() -> None:
    picture, truth = _pictures(12, 9)
    bytes_of, truth_bytes = 255 * picture, 255 * truth
    unit = psnr(picture, truth, peak=1.0)
    assert psnr(bytes_of, truth_bytes, peak=255.0) == pytest.approx(unit)
    assert psnr(2 * picture - 1, 2 * truth - 1, peak=2.0) == pytest.approx(unit)
    wrong = psnr(2 * picture - 1, 2 * truth - 1, peak=1.0)
    assert wrong == pytest.approx(unit - 20 * math.log10(2))


def test_psnr_of_bytes_does_not_wrap_and_of_equals_is_infinite() -> None:
    black, white = np.zeros(4, np.uint8), np.full(4, 255, np.uint8)
    assert psnr(black, white, peak=255.0) == psnr(white, black, peak=255.0) == 0.0
    assert psnr(white, white, peak=255.0) == math.inf


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 3)])
def test_ssim_equals_that_of_skimage(shape: tuple[int, ...]) -> None:
    picture, truth = _pictures(*shape)
    expected = structural_similarity(
        picture,
        truth,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if len(shape) == 3 else None,
    )
    assert ssim(picture, truth, peak=1.0) == pytest.approx(expected, rel=1e-12)
    assert ssim(truth, truth, peak=1.0) == pytest.approx(1.0)
    scaled = ssim(255 * picture, 255 * truth, peak=255.0)
    assert scaled == pytest.approx(expected, rel=1e-9)


def test_ssim_in_the_middle_against_its_definition() -> None:
    """With a window of the size of the picture there is one place to look at."""
    picture, truth = _pictures(11, 11)
    axis = np.arange(-5, 6)
    window = np.exp(-(axis**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2

    def mean(a: np.ndarray) -> float:
        return float((window * a).sum())

    a, b = mean(picture), mean(truth)
    va, vb = mean(picture**2) - a * a, mean(truth**2) - b * b
    covariance = mean(picture * truth) - a * b
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (va + vb + c2))
    assert ssim(picture, truth, peak=1.0) == pytest.approx(expected, abs=1e-6)


def test_affine_match_is_least_squares() -> None:
    picture, truth = _pictures(6, 5)
    matched = match_affine(picture, truth)
    columns = np.stack([picture.ravel(), np.ones(30)], axis=1)
    solution, *_ = np.linalg.lstsq(columns, truth.ravel(), rcond=None)
    assert np.allclose(matched.ravel(), columns @ solution)
    assert np.allclose(match_affine(3 - 7 * truth, truth), truth)
    assert np.allclose(match_affine(np.ones((6, 5)), truth), truth.mean())


def test_chamfer_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(41, 3))
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    expected = (distances.min(axis=1).mean() + distances.min(axis=0).mean()) / 2
    assert chamfer(a, b) == pytest.approx(expected, rel=1e-12)
    assert chamfer(b, a) == pytest.approx(expected, rel=1e-12)
    assert chamfer(a, a[::-1]) == 0.0


def test_eikonal_error_of_distances_and_others() -> None:
    class Ball(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.slope = slope

        def forward(self, p: Tensor) -> Tensor:
            return self.slope * (p.norm(dim=1, keepdim=True) - 0.5)

    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert eikonal_error(Ball(1.0), points) < 1e-6
    assert eikonal_error(Ball(0.25), points) == pytest.approx(0.75, abs=1e-6)
    assert eikonal_error(Ball(3.0), points) == pytest.approx(2.0, abs=1e-6)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(np.zeros(3), np.zeros(4), peak=1.0)
    with pytest.raises(ValueError, match="peak must be positive"):
        psnr(np.zeros(3), np.zeros(3), peak=0.0)
    with pytest.raises(ValueError, match="at least 11"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)), peak=1.0)
    with pytest.raises(ValueError, match="one shape"):
        ssim(np.zeros((20, 20)), np.zeros((20, 21)), peak=1.0)
    with pytest.raises(ValueError, match="must not be empty, got 0 and 3"):
        chamfer(np.zeros((0, 3)), np.zeros((3, 3)))
