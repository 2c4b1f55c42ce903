"""Meshes out of fields, clouds into the cube, and the files of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmxx.data import Mesh, load
from mmxx.signals.siren import (
    bumpy_sphere,
    extract_mesh,
    obj_text,
    pieces_near,
    ply_text,
    surface_points,
)
from mmxx.signals.siren.surfaces import check_cloud, frame_of, shaded


def _ball(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=1) - 0.6


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of the triangles, as long as twice their areas."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return np.cross(b - a, c - a)


def test_the_mesh_of_a_ball() -> None:
    vertices, faces = extract_mesh(_ball, 40)
    assert vertices.dtype == np.float64
    assert faces.dtype == np.int64
    assert np.abs(_ball(vertices)).max() < 0.002
    crosses = _normals(vertices, faces)
    centres = vertices[faces].mean(axis=1)
    assert ((crosses * centres).sum(axis=1) > 0).all()  # outwards
    area = np.linalg.norm(crosses, axis=1).sum() / 2
    assert area == pytest.approx(4 * np.pi * 0.6**2, rel=0.01)
    volume = (crosses * vertices[faces[:, 0]]).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)
    # Closed: every edge lies between two triangles, once in each direction; a sphere by Euler.
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    assert {tuple(e) for e in edges.tolist()} == {tuple(e) for e in edges[:, ::-1].tolist()}
    assert len(vertices) - len(edges) // 2 + len(faces) == 2


def test_the_mesh_is_not_mirrored_and_takes_a_level() -> None:
    def oval(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm((points - [0.3, 0.0, -0.2]) / [0.3, 0.5, 0.7], axis=1)

    vertices, _ = extract_mesh(oval, 48, level=1.0)
    assert np.allclose(vertices.min(axis=0), [0.0, -0.5, -0.9], atol=0.01)
    assert np.allclose(vertices.max(axis=0), [0.6, 0.5, 0.5], atol=0.01)


def test_the_function_is_asked_a_slab_at_a_time() -> None:
    sizes = []

    def counted(points: np.ndarray) -> np.ndarray:
        sizes.append(len(points))
        return _ball(points)

    extract_mesh(counted, 10)
    assert sizes == [100] * 10


def test_no_surface_and_no_resolution() -> None:
    with pytest.raises(ValueError, match="there is no surface"):
        extract_mesh(lambda p: _ball(p) + 5, 8)
    with pytest.raises(ValueError, match="resolution"):
        extract_mesh(_ball, 1)


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_files_are_read_back(suffix: str, tmp_path: Path) -> None:
    vertices, faces = extract_mesh(_ball, 12)
    text = {"ply": ply_text, "obj": obj_text}[suffix](vertices, faces)
    path = tmp_path / f"ball.{suffix}"
    path.write_text(text)
    mesh = load(path, kinds=("mesh",))
    assert isinstance(mesh, Mesh)
    assert np.abs(mesh.vertices - vertices).max() < 1e-5
    assert np.array_equal(mesh.faces, faces)


def test_pieces_without_points_are_dropped() -> None:
    def two(points: np.ndarray) -> np.ndarray:
        apart = [np.linalg.norm(points - [x, 0, 0], axis=1) - 0.3 for x in (-0.5, 0.5)]
        return np.minimum(*apart)

    vertices, faces = extract_mesh(two, 32)
    kept, triangles = pieces_near(vertices, faces, np.array([[-0.2, 0.0, 0.0]]), 0.1)
    assert len(triangles) == len(faces) // 2
    assert triangles.max() == len(kept) - 1
    assert (kept[:, 0] < 0).all()
    assert np.allclose(np.linalg.norm(kept - [[-0.5, 0, 0]], axis=1), 0.3, atol=0.01)
    far = np.array([[0.0, 0.9, 0.0]])
    assert [len(part) for part in pieces_near(vertices, faces, far, 0.1)] == [0, 0]


def test_points_follow_the_area() -> None:
    """A triangle of three times the area gets three quarters of the points, evenly spread."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5]])
    faces = np.array([[0, 1, 2], [3, 5, 4]])
    points, normals = surface_points(vertices, faces, 20000, random_state=0)
    upper = points[:, 2] > 1
    deviation = np.sqrt(0.75 * 0.25 / 20000)
    assert abs(upper.mean() - 0.75) < 4 * deviation
    assert np.allclose(normals, np.where(upper, -1.0, 1.0)[:, None] * [0, 0, 1])
    assert np.allclose(points[~upper].mean(axis=0), [1 / 3, 1 / 3, 0], atol=0.02)
    inside = points[~upper]
    assert (inside[:, :2] >= 0).all()
    assert (inside[:, :2].sum(axis=1) <= 1).all()
    corner = (inside[:, :2].sum(axis=1) < 0.5).mean()  # a quarter of the area
    assert corner == pytest.approx(0.25, abs=0.03)
    again, _ = surface_points(vertices, faces, 20000, random_state=0)
    assert np.array_equal(points, again)


def test_a_mesh_without_area_has_no_points() -> None:
    with pytest.raises(ValueError, match="area"):
        surface_points(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5)


def test_bumpy_sphere_normals_are_those_of_the_surface() -> None:
    """Against central differences of the function whose zero the surface is."""
    points, normals = bumpy_sphere(300, bumps=7, height=0.04, random_state=0)

    def level(p: np.ndarray) -> np.ndarray:
        radius = np.linalg.norm(p, axis=1)
        return radius - 0.7 - 0.04 * np.sin(7 * p / radius[:, None]).prod(axis=1)

    assert np.abs(level(points)).max() < 1e-12
    step = 1e-6
    slope = np.stack(
        [(level(points + step * e) - level(points - step * e)) / (2 * step) for e in np.eye(3)],
        axis=1,
    )
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    assert np.abs(slope - normals).max() < 1e-7
    assert np.abs(points).max() < 1
    again, _ = bumpy_sphere(300, bumps=7, height=0.04, random_state=0)
    assert np.array_equal(points, again)
    with pytest.raises(ValueError, match="n must be"):
        bumpy_sphere(0)


def test_frames_keep_the_aspect_and_a_margin() -> None:
    cloud = np.array([[1.0, 2.0, 3.0], [11.0, 4.0, 3.0], [5.0, 3.0, 4.0]])
    frame = frame_of(cloud)
    inside = (cloud - frame.centre) / frame.scale
    assert np.allclose(np.abs(inside).max(), 0.9)
    assert np.allclose(inside.max(axis=0), -inside.min(axis=0))
    assert np.allclose(np.ptp(inside, axis=0) * frame.scale, np.ptp(cloud, axis=0))
    assert np.allclose(frame.centre + frame.scale * inside, cloud)


def test_clouds_are_checked() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    normals = points / np.linalg.norm(points, axis=1, keepdims=True)
    cloud, arrows = check_cloud(points, normals)
    assert np.array_equal(cloud, points)
    assert np.allclose(arrows, normals)
    with pytest.warns(UserWarning, match="brought to 1"):
        _, arrows = check_cloud(points, 3 * normals)
    assert np.allclose(arrows, normals)
    for bad, message in (
        ((points[:0], normals[:0]), "N > 0"),
        ((points[:, 0], normals[:, 0]), r"\[N, 3\]"),
        ((points, normals[:4]), "shape of points"),
        ((points, normals * [1, np.nan, 1]), "5 rows with NaN"),
        ((points * [[np.inf], [1], [1], [1], [1]], normals), "1 rows with NaN"),
        ((np.ones((5, 3)), normals), "one place only"),
        ((points, normals * [[0], [1], [1], [0], [1]]), "2 zeros"),
    ):
        with pytest.raises(ValueError, match=message):
            check_cloud(*bad)


def test_a_shaded_picture_shows_the_nearest_side() -> None:
    vertices, faces = extract_mesh(_ball, 24)
    points, normals = surface_points(vertices, faces, 30_000, random_state=0)
    picture = shaded(points, normals, 48)
    assert picture.shape == (48, 48)
    assert 0 <= picture.min() <= picture.max() <= 1
    row, column = np.mgrid[:48, :48] / 47 * 2 - 1
    outside = np.hypot(row, column) > 0.65
    assert (picture[outside] == 1).all()
    assert picture[np.hypot(row, column) < 0.5].max() < 1
    assert picture[15, 15] > picture[32, 32] + 0.2  # lit from the upper left
