"""Where a field is looked at: grids, random and stratified points, surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmxx.signals.siren.siren import check_count


def grid(shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The coordinates of an array's cells, in the order of its memory.

    Axis i of the array is coordinate i: for a picture [H, W] the first coordinate goes down and
    the second to the right, both from -1 to 1, ends included.

    Args:
        shape: Sides of the array, each at least 2.
        dtype: Type of the result.

    Returns:
        [product of the sides, number of sides].

    Raises:
        ValueError: If there is no side or one is below 2: a single cell has no place in [-1, 1].

    Example:
        >>> grid((2, 3)).tolist()
        [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    check_shape(shape)
    axes = [torch.linspace(-1, 1, side, dtype=dtype) for side in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))


def check_shape(shape: Sequence[int]) -> None:
    """Raises ValueError where a side is below 2."""
    if not len(shape) or min(shape) < 2:
        raise ValueError(f"every side must be at least 2, got a signal of shape {tuple(shape)}")


def grid_rows(shape: Sequence[int], start: int, stop: int) -> Tensor:
    """Rows ``start`` to ``stop`` of `grid`, without making the others."""
    places = np.unravel_index(np.arange(start, stop), tuple(shape))
    axes = [torch.linspace(-1, 1, side) for side in shape]
    return torch.stack([axis[place] for axis, place in zip(axes, places, strict=True)], dim=1)


def uniform_points(n: int, dims: int, *, generator: torch.Generator | None = None) -> Tensor:
    """``n`` points drawn uniformly from the cube [-1, 1].

    Args:
        n: Number of points.
        dims: Number of coordinates.
        generator: Where they are drawn from; torch's default generator if None.

    Returns:
        [n, dims].

    Example:
        >>> uniform_points(5, 3).shape
        torch.Size([5, 3])
    """
    check_count("n", n)
    check_count("dims", dims)
    return torch.empty(n, dims).uniform_(-1, 1, generator=generator)


def stratified_points(cells: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
    """One point drawn uniformly from each cell of a division of the cube [-1, 1].

    Args:
        cells: Number of cells along each axis.
        generator: Where they are drawn from; torch's default generator if None.

    Returns:
        [product of cells, number of axes], in the order of the cells.

    Raises:
        ValueError: If an axis has no cell.

    Example:
        >>> points = stratified_points((4, 4))
        >>> points.shape, bool((points[:4, 0] < -0.5).all())
        (torch.Size([16, 2]), True)
    """
    for count in cells:
        check_count("cells", count)
    corners = torch.stack(
        torch.meshgrid(*(torch.arange(count) for count in cells), indexing="ij"), dim=-1
    ).reshape(-1, len(cells))
    inside = torch.rand(corners.shape, generator=generator)
    return (corners + inside) / torch.tensor(list(cells)) * 2 - 1


def surface_batch(
    points: Tensor, normals: Tensor, n: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Points for a signed distance loss: half on the surface, half anywhere in the cube.

    Whether a point lies on the surface is a mask of its own. (The authors mark the others with
    a distance of -1, which a true distance may be.)

    Args:
        points: Points of the surface, [P, d], in [-1, 1].
        normals: Their unit normals, [P, d].
        n: Points of each half; those on the surface are drawn with replacement.
        generator: Where they are drawn from; torch's default generator if None.

    Returns:
        Coordinates [2 n, d], and the pair of a mask [2 n] and normals [2 n, d] (zero off the
        surface): the targets of `SDFLoss`.

    Example:
        >>> cloud = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
        >>> coords, (mask, normals) = surface_batch(cloud / 2, cloud, 8)
        >>> coords.shape, int(mask.sum()), normals.shape
        (torch.Size([16, 3]), 8, torch.Size([16, 3]))
    """
    check_count("n", n)
    chosen = torch.randint(len(points), (n,), generator=generator)
    elsewhere = torch.empty(n, points.shape[1]).uniform_(-1, 1, generator=generator)
    coords = torch.cat([points[chosen], elsewhere.to(points)])
    mask = torch.arange(2 * n) < n
    return coords, (mask, torch.cat([normals[chosen], torch.zeros_like(elsewhere).to(normals)]))
