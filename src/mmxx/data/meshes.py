"""Meshes and point clouds: PLY, OBJ and XYZ files; points drawn on a surface."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmxx.data.ply import read_ply
from mmxx.data.source import DataError, Decoding, Source, read_bytes, sha256, user_source
from mmxx.data.text import decode

if TYPE_CHECKING:
    import numpy as np

_ACCEPTED = "a mesh or points (.ply, .obj), or points (.xyz: 3 or 6 numbers a line)"


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """A surface of triangles.

    Attributes:
        vertices: float64 [V, 3], finite.
        faces: int64 [F, 3], indices of vertices; larger polygons have been cut into fans.
        source: Where it comes from.
    """

    kind: ClassVar[str] = "mesh"
    vertices: np.ndarray
    faces: np.ndarray
    source: Source


@dataclass(frozen=True, slots=True, eq=False)
class PointCloud:
    """Points, perhaps with the surface's normal at each.

    Attributes:
        points: float64 [N, 3], finite.
        normals: float64 [N, 3], finite, of the length they have in the file, or None.
        source: Where they come from.
    """

    kind: ClassVar[str] = "points"
    points: np.ndarray
    normals: np.ndarray | None
    source: Source


def read_mesh(path: str | PathLike[str]) -> Mesh | PointCloud:
    """Reads a mesh or a point cloud; the suffix decides the format.

    Args:
        path: ``.ply`` (ASCII, or binary of either byte order), ``.obj`` (polygons of any size,
            ``v``, ``v/t``, ``v//n`` and ``v/t/n``, negative indices), or ``.xyz`` (3 or 6 numbers
            a line, parted by white space or commas: a point, then its normal; ``#`` starts a
            comment). Polygons are cut into fans around their first corner, which is exact for
            convex ones.

    Returns:
        A `Mesh` where there are faces, else a `PointCloud`; its normals are PLY's ``nx ny nz``,
        OBJ's ``vn`` if there is one for each vertex, or XYZ's last three.

    Raises:
        DataError: If the file is missing, empty, truncated, corrupt, without points, with values
            that are not finite or faces that name vertices that do not exist, or its header
            promises more than the file holds.
    """
    path = Path(path)
    reader = {".ply": read_ply, ".obj": _read_obj, ".xyz": _read_xyz}.get(path.suffix.lower())
    if reader is None:
        raise DataError(path, f"a file named {path.suffix or 'without suffix'}", _ACCEPTED)
    content = read_bytes(path, _ACCEPTED)
    source = user_source(path, sha256(content))
    with Decoding(path, _ACCEPTED):
        points, normals, corners, counts = reader(content, path)
        return _assemble(path, source, points, normals, corners, counts)


def _assemble(
    path: Path,
    source: Source,
    points: np.ndarray,
    normals: np.ndarray | None,
    corners: np.ndarray,
    counts: np.ndarray,
) -> Mesh | PointCloud:
    """Checks what a reader found; the polygons' corners lie end to end, with their numbers."""
    import numpy as np

    if not len(points):
        raise DataError(path, "no points", "at least one point")
    for name, values in (("points", points), ("normals", normals)):
        if values is not None and not np.isfinite(values).all():
            bad = np.count_nonzero(~np.isfinite(values).all(axis=1))
            raise DataError(path, f"{bad} {name} that are not finite", f"finite {name}")
    if not len(counts):
        return PointCloud(points, normals, source)
    if counts.min() < 3:
        found = f"face {counts.argmin()} with {counts.min()} corners"
        raise DataError(path, found, "faces of at least 3 corners")
    if corners.min() < 0 or corners.max() >= len(points):
        found = f"faces that name vertices {corners.min()} to {corners.max()} of {len(points)}"
        raise DataError(path, found, "faces that name vertices that exist")
    return Mesh(points, fans(corners, counts), source)


def fans(corners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Polygons as fans of triangles.

    Args:
        corners: The polygons' vertices end to end, int64 [sum of counts].
        counts: Number of corners of each polygon, at least 3, int64 [P].

    Returns:
        int64 [sum of (count - 2), 3], in the polygons' order.
    """
    import numpy as np

    triangles = counts - 2
    start = np.repeat(np.cumsum(counts) - counts, triangles)
    step = np.arange(triangles.sum()) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return corners[np.column_stack([start, start + step + 1, start + step + 2])]


def _read_obj(
    content: bytes, path: Path
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    import numpy as np

    points: list[list[float]] = []
    normals: list[list[float]] = []
    corners: list[int] = []
    counts: list[int] = []
    for line in decode(content, path, _ACCEPTED).replace("\\\n", " ").split("\n"):
        word, _, rest = line.partition("#")[0].strip().replace("\t", " ").partition(" ")
        if word == "v":
            points.append([float(value) for value in rest.split()[:3]])
        elif word == "vn":
            normals.append([float(value) for value in rest.split()])
        elif word == "f":
            indices = [int(corner.partition("/")[0]) for corner in rest.split()]
            if 0 in indices:
                raise DataError(path, f"a face with vertex 0 ({line.strip()!r})", "indices from 1")
            corners.extend(i - 1 if i > 0 else len(points) + i for i in indices)
            counts.append(len(indices))
    for name, rows in (("v", points), ("vn", normals)):
        if any(len(row) != 3 for row in rows):
            raise DataError(path, f"a line {name!r} without 3 numbers", _ACCEPTED)
    return (
        np.array(points, dtype=np.float64).reshape(-1, 3),
        np.array(normals, dtype=np.float64) if points and len(normals) == len(points) else None,
        np.array(corners, dtype=np.int64),
        np.array(counts, dtype=np.int64),
    )


def _read_xyz(
    content: bytes, path: Path
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    import numpy as np

    lines = decode(content, path, _ACCEPTED).replace(",", " ").split("\n")
    rows = [fields for line in lines if (fields := line.partition("#")[0].split())]
    if not rows:
        raise DataError(path, "no points", "at least one point")
    width = len(rows[0])
    if width not in (3, 6):
        raise DataError(path, f"{width} fields in the first line", "3 or 6 numbers a line")
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            found = f"row {number} with {len(row)} numbers where the first has {width}"
            raise DataError(path, found, "3 or 6 numbers a line, in each line as many")
    values = np.array(rows, dtype=np.float64)
    none = np.empty(0, dtype=np.int64)
    return values[:, :3], values[:, 3:] if width == 6 else None, none, none


def sample_surface(
    mesh: Mesh, n: int, random_state: int | np.random.Generator | None = None
) -> PointCloud:
    """Points drawn uniformly by area on a mesh, with the normals of their triangles.

    A triangle is drawn in proportion to its area; inside it the point is
    $(1 - \\sqrt u) a + \\sqrt u (1 - v) b + \\sqrt u\\, v\\, c$ with uniform u and v (Osada et al.,
    Shape distributions, 2002, section 4.2).

    Args:
        mesh: The surface.
        n: Number of points, at least 1.
        random_state: Seed or generator of the draw.

    Returns:
        `PointCloud` of ``n`` points with normals of length 1 (right-handed about the corners).

    Raises:
        ValueError: If ``n`` is not at least 1, or the mesh has no area.

    Example:
        >>> import numpy as np
        >>> from mmxx.data import Mesh, Source
        >>> corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> mesh = Mesh(corners, np.array([[0, 1, 2]]), Source("triangle", "mine", "here"))
        >>> cloud = sample_surface(mesh, 4, random_state=0)
        >>> cloud.points.shape, cloud.normals[0].tolist()
        ((4, 3), [0.0, 0.0, 1.0])
    """
    import numpy as np

    if n < 1:
        raise ValueError(f"n: {n}; accepted: at least 1")
    rng = np.random.default_rng(random_state)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1)
    total = np.cumsum(area)
    if not len(total) or not total[-1] > 0:
        raise ValueError("mesh: no area; accepted: at least one triangle that is not degenerate")
    # Side "right" steps over triangles without area, whose total equals the one before.
    chosen = np.searchsorted(total, rng.random(n) * total[-1], side="right")
    chosen = np.minimum(chosen, np.flatnonzero(area)[-1])
    u, v = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
    points = (1 - u) * a[chosen] + u * (1 - v) * b[chosen] + u * v * c[chosen]
    return PointCloud(points, normal[chosen] / area[chosen, None], mesh.source)
