"""Surfaces: clouds of points brought into the cube, meshes taken out of a field."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmxx.signals.siren.siren import check_count


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a cloud lies: ``point = centre + scale * coordinates``."""

    centre: np.ndarray
    scale: float


def frame_of(points: np.ndarray, *, margin: float = 0.1) -> Frame:
    """The frame in which a cloud fills [-1, 1] but for a margin, its aspect kept.

    Args:
        points: [N, d].
        margin: Share of the half side that stays free, so that the surface does not touch the
            border.

    Example:
        >>> frame = frame_of(np.array([[0.0, 0.0], [4.0, 2.0]]), margin=0.0)
        >>> frame.centre.tolist(), frame.scale
        ([2.0, 1.0], 2.0)
    """
    low, high = points.min(axis=0), points.max(axis=0)
    return Frame((low + high) / 2, float((high - low).max() / 2) / (1 - margin))


def check_cloud(points: Any, normals: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points and unit normals as float64 [N, d].

    Raises:
        ValueError: If there are none or only one place, the shapes differ, a value is not finite
            or a normal is zero.
    """
    cloud, arrows = np.asarray(points, dtype=float), np.asarray(normals, dtype=float)
    if cloud.ndim != 2 or cloud.shape[1] not in (2, 3) or not len(cloud):
        raise ValueError(f"points must be [N, 3] or [N, 2] with N > 0, got shape {cloud.shape}")
    if arrows.shape != cloud.shape:
        raise ValueError(
            f"normals must have the shape of points, {cloud.shape}, got {arrows.shape}"
        )
    for name, values in (("points", cloud), ("normals", arrows)):
        if not np.isfinite(values).all():
            bad = np.count_nonzero(~np.isfinite(values).all(axis=1))
            raise ValueError(f"{name} must be finite, got {bad} rows with NaN or infinite values")
    if not np.ptp(cloud, axis=0).max() > 0:
        raise ValueError("points must lie at two places at least, got one place only")
    lengths = np.linalg.norm(arrows, axis=1)
    if not lengths.min() > 0:
        raise ValueError(f"normals must not be zero, got {np.count_nonzero(lengths == 0)} zeros")
    if np.abs(lengths - 1).max() > 1e-3:
        warnings.warn(
            f"normals are of lengths {lengths.min():.3g} to {lengths.max():.3g}: brought to 1",
            stacklevel=3,
        )
    return cloud, arrows / lengths[:, None]


def extract_mesh(
    values: Callable[[np.ndarray], np.ndarray], resolution: int, *, level: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The surface on which a function of the cube [-1, 1] takes a value, by marching cubes.

    Args:
        values: Takes points [N, 3], called a slab of the cube at a time, and returns [N].
        resolution: Points along a side.
        level: The value.

    Returns:
        Vertices [V, 3] in [-1, 1], float64, and faces [F, 3], int64; normals point to where the
        function is larger.

    Raises:
        ValueError: If ``resolution`` is below 2 or the function nowhere crosses the level.

    Example:
        >>> ball = lambda p: np.linalg.norm(p, axis=1) - 0.5
        >>> vertices, faces = extract_mesh(ball, 32)
        >>> bool(np.allclose(np.linalg.norm(vertices, axis=1), 0.5, atol=0.01))
        True
    """
    from skimage.measure import marching_cubes

    check_count("resolution", resolution, 2)
    axis = np.linspace(-1, 1, resolution)
    volume = np.empty((resolution,) * 3, np.float32)
    plane = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    for index, x in enumerate(axis):
        slab = np.column_stack([np.full(len(plane), x), plane])
        volume[index] = values(slab).reshape(resolution, resolution)
    if not volume.min() < level < volume.max():
        raise ValueError(
            f"there is no surface: the field takes values from {volume.min():.3g} to "
            f"{volume.max():.3g}, none of them on both sides of {level:g}"
        )
    spacing = 2 / (resolution - 1)
    vertices, faces, _, _ = marching_cubes(
        volume, level, spacing=(spacing,) * 3, gradient_direction="descent"
    )
    return vertices.astype(float) - 1, faces.astype(np.int64)


def pieces_near(
    vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The connected pieces of a mesh that come near a cloud; the others are dropped.

    Away from the surface a fitted distance may cross zero again: in sheets that no point of the
    cloud lies on.

    Args:
        vertices: [V, 3].
        faces: [F, 3].
        points: The cloud, [N, 3].
        distance: How near a vertex of the piece must come.

    Returns:
        Vertices and faces of what is kept, maybe nothing.

    Example:
        >>> corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 0, 0], [8, 0, 0], [9, 1, 0]])
        >>> kept, faces = pieces_near(corners, np.arange(6).reshape(2, 3), np.zeros((1, 3)), 0.5)
        >>> len(kept), faces.tolist()
        (3, [[0, 1, 2]])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    edges = (np.concatenate([faces[:, 0], faces[:, 1]]), np.concatenate([faces[:, 1], faces[:, 2]]))
    links = coo_array((np.ones(len(edges[0])), edges), shape=(len(vertices), len(vertices)))
    count, piece = connected_components(links, directed=False)
    nearest = np.full(count, np.inf)
    np.minimum.at(nearest, piece, KDTree(points).query(vertices)[0])
    kept = nearest[piece] <= distance
    place = np.cumsum(kept) - 1
    return vertices[kept], place[faces[kept[faces[:, 0]]]]


def shaded(points: np.ndarray, normals: np.ndarray, size: int = 160) -> np.ndarray:
    """A picture of a dense cloud, lit from the front and the upper left, seen along the third axis.

    Args:
        points: [N, 3]; what lies in [-1, 1] is seen. About 12 points for a pixel close all holes.
        normals: Their unit normals, [N, 3].
        size: Side in pixels.

    Returns:
        float64 [size, size] in [0, 1]; 1 where there is nothing.

    Example:
        >>> picture = shaded(np.zeros((1, 3)), np.array([[0.0, 0, 1]]), 3)
        >>> picture.round(2).tolist()
        [[1.0, 1.0, 1.0], [1.0, 0.72, 1.0], [1.0, 1.0, 1.0]]
    """
    seen = (np.abs(points) <= 1).all(axis=1)
    points, normals = points[seen], normals[seen]
    order = np.argsort(points[:, 2])  # the nearest is written last
    column, row = np.rint((points[order, :2] * (1, -1) + 1) / 2 * (size - 1)).astype(int).T
    light = np.array([-0.4, 0.5, 0.77])
    picture = np.ones((size, size))
    picture[row, column] = 0.1 + 0.8 * np.clip(normals[order] @ light, 0, 1)
    return picture


def ply_text(vertices: np.ndarray, faces: np.ndarray) -> str:
    """A mesh as the text of a PLY file.

    Args:
        vertices: [V, 3].
        faces: [F, 3].

    Example:
        >>> ply_text(np.zeros((3, 3)), np.array([[0, 1, 2]])).splitlines()[0]
        'ply'
    """
    head = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    points = [f"{x:.6g} {y:.6g} {z:.6g}" for x, y, z in vertices.tolist()]
    return "\n".join([*head, *points, *(f"3 {a} {b} {c}" for a, b, c in faces.tolist()), ""])


def obj_text(vertices: np.ndarray, faces: np.ndarray) -> str:
    """A mesh as the text of a Wavefront OBJ file.

    Args:
        vertices: [V, 3].
        faces: [F, 3].

    Example:
        >>> obj_text(np.zeros((3, 3)), np.array([[0, 1, 2]])).splitlines()[-1]
        'f 1 2 3'
    """
    points = [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in vertices.tolist()]
    return "\n".join([*points, *(f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()), ""])


def surface_points(
    vertices: np.ndarray, faces: np.ndarray, n: int, *, random_state: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Points drawn uniformly by area on a mesh, with the normals of their triangles.

    Args:
        vertices: [V, 3].
        faces: [F, 3].
        n: Number of points.
        random_state: Seed of the draw.

    Returns:
        Points [n, 3] and unit normals [n, 3].

    Raises:
        ValueError: If the mesh has no area.

    Example:
        >>> corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> surface_points(corners, np.array([[0, 1, 2]]), 2, random_state=0)[1].tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    """
    from mmxx.data import Mesh, Source, sample_surface

    source = Source("mesh", "the caller's", "in memory")
    cloud = sample_surface(Mesh(vertices, faces, source), n, random_state)
    assert cloud.normals is not None
    return cloud.points, cloud.normals


def bumpy_sphere(
    n: int, *, bumps: int = 9, height: float = 0.05, random_state: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of a sphere with waves on it: a closed surface with detail.

    The radius is $0.7 + h \\sin(b x) \\sin(b y) \\sin(b z)$ in the direction (x, y, z).

    Args:
        n: Number of points.
        bumps: Waves along an axis, b.
        height: Height of the waves, h.
        random_state: Seed of the draw; directions are uniform.

    Returns:
        Points [n, 3] inside [-1, 1] and outward unit normals [n, 3], float64.

    Example:
        >>> points, normals = bumpy_sphere(100, random_state=0)
        >>> points.shape, bool(np.allclose(np.linalg.norm(normals, axis=1), 1))
        ((100, 3), True)
    """
    check_count("n", n)
    direction = np.random.default_rng(random_state).normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    sines, cosines = np.sin(bumps * direction), np.cos(bumps * direction)
    radius = 0.7 + height * sines.prod(axis=1)
    # Gradient of |p| - R(p / |p|): the direction less R's gradient along the sphere over |p|.
    slope = np.stack(
        [cosines[:, i] * sines[:, (i + 1) % 3] * sines[:, (i + 2) % 3] for i in range(3)], axis=1
    )
    slope *= height * bumps
    slope -= direction * (slope * direction).sum(axis=1, keepdims=True)
    normals = direction - slope / radius[:, None]
    return radius[:, None] * direction, normals / np.linalg.norm(normals, axis=1, keepdims=True)
