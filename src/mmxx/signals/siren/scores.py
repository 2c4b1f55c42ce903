"""How well fitted networks do on pictures, their derivatives, sound and surfaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mmxx.signals.siren import surfaces
from mmxx.signals.siren.metrics import chamfer, match_affine, psnr
from mmxx.signals.siren.problems import (
    between_pixels,
    look,
    look_derivatives,
    pixel_derivatives,
)

Panel = tuple[str, np.ndarray]


def every_second(pixels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture in [0, 1] made smaller, [2h - 1, 2w - 1, c], and every second pixel of it.

    Args:
        pixels: [H, W] or [H, W, c] in [0, 1].
        size: The longer of h and w; the shorter is 4 or more.
    """
    from skimage.transform import resize

    longer = max(pixels.shape[:2])
    sides = [2 * max(4, round(side * size / longer)) - 1 for side in pixels.shape[:2]]
    fine = np.asarray(resize(pixels, sides, anti_aliasing=True), float).clip(0, 1)
    fine = fine.reshape(*sides, -1)
    return fine, fine[::2, ::2]


def spline_between(shown: np.ndarray, fine: np.ndarray) -> float:
    """PSNR of a cubic spline through ``shown`` on the pixels of ``fine`` that it lacks."""
    from scipy.ndimage import zoom

    sides = [(2 * side - 1) / side for side in shown.shape[:2]]
    between = between_pixels(fine)
    spline = np.asarray(zoom(shown, [*sides, 1], order=3, mode="nearest"))
    return psnr(spline[between], fine[between], peak=1)


def shown_picture(pixels: np.ndarray) -> np.ndarray:
    """A picture that can be drawn: in [0, 1], without an axis for a single channel."""
    clipped = np.asarray(pixels).clip(0, 1)
    return clipped[..., 0] if clipped.shape[-1] == 1 else clipped


def picture_scores(
    nets: Mapping[str, nn.Module], fine: np.ndarray, shown: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, list[Panel]]]:
    """Values, derivatives and pixels between of networks fitted to ``shown``.

    Args:
        nets: The networks, by arm; their values are in [-1, 1].
        fine: The picture [2h - 1, 2w - 1, c] in [0, 1].
        shown: Every second pixel of it.

    Returns:
        A row for each arm, and its pictures: values, length of the gradient, Laplacian, the
        latter two in the range of the truth's; those of the truth under "picture".
    """
    between = between_pixels(fine)
    slopes, bends = (part[::2, ::2] for part in pixel_derivatives(2 * fine - 1))
    rows = []
    panels = {"picture": _panels("picture", shown, slopes, bends, slopes, bends)}
    for arm, net in nets.items():
        values = (look(net, fine.shape[:2]) + 1) / 2
        slope, bend = look_derivatives(net, shown.shape[:2])
        rows.append(
            {
                "arm": arm,
                "values [dB]": psnr(values[::2, ::2], shown, peak=1),
                "gradient [dB]": psnr(slope, slopes, peak=float(np.ptp(slopes)) or 1.0),
                "Laplacian [dB]": psnr(bend, bends, peak=float(np.ptp(bends)) or 1.0),
                "between the pixels [dB]": psnr(values[between], fine[between], peak=1),
                "parameters": sum(p.numel() for p in net.parameters()),
            }
        )
        panels[arm] = _panels(arm, values[::2, ::2], slope, bend, slopes, bends)
    return rows, panels


def _panels(
    name: str,
    values: np.ndarray,
    slope: np.ndarray,
    bend: np.ndarray,
    true_slope: np.ndarray,
    true_bend: np.ndarray,
) -> list[Panel]:
    length, true_length = (np.sqrt((s**2).sum((-1, -2))) for s in (slope, true_slope))
    return [
        (name, shown_picture(values)),
        ("gradient", (length / (true_length.max() or 1)).clip(0, 1)),
        ("Laplacian", (0.5 + bend.mean(-1) / (6 * true_bend.std() or 1)).clip(0, 1)),
    ]


def recovered(net: nn.Module, shown: np.ndarray) -> tuple[np.ndarray, float]:
    """A picture recovered from derivatives, after the best scale and offset, and its PSNR."""
    view = match_affine(look(net, shown.shape[:2]), shown)
    return view, psnr(view, shown, peak=1)


@dataclass(frozen=True)
class Shape:
    """A mesh taken from a fitted distance, and how far it is from the truth.

    Attributes:
        vertices: [V, 3] in the cube, and
        faces: [F, 3], of the pieces near the cloud.
        chamfer: Chamfer distance of these pieces.
        whole: Chamfer distance of the whole zero set, with sheets elsewhere.
    """

    vertices: np.ndarray
    faces: np.ndarray
    chamfer: float
    whole: float


def take_shape(
    net: nn.Module, cloud: np.ndarray, truth: np.ndarray, *, resolution: int, points: int, seed: int
) -> Shape | None:
    """The mesh of a fitted distance, or None where it is nowhere zero near the cloud.

    Args:
        net: The field.
        cloud: The points it was fitted to, [N, 3].
        truth: Other points of the surface, [M, 3].
        resolution: Points along a side of the cube.
        points: Points drawn on the mesh for the distances.
        seed: Seed of the draw.
    """

    def values(places: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(places).float()).numpy()[:, 0]

    try:
        whole = surfaces.extract_mesh(values, resolution)
    except ValueError:  # it says that there is no zero
        return None
    near = surfaces.pieces_near(*whole, cloud, 4 / (resolution - 1))
    if not len(near[1]):
        return None
    distances = [
        chamfer(surfaces.surface_points(*mesh, points, random_state=seed)[0], truth)
        for mesh in (near, whole)
    ]
    return Shape(*near, *distances)
