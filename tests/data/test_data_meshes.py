"""Meshes and point clouds."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmxx.data import DataError, Mesh, PointCloud, Source, load, read_mesh, sample_surface
from mmxx.data.ply import read_ply

QUICK = settings(max_examples=80, deadline=None, database=None, derandomize=True)
SOURCE = Source("test", "mine", "made here")
FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")
SCALARS = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I",
           "float": "f", "double": "d"}  # fmt: skip


def ply(kind, elements):
    """Bytes of a PLY file by hand, row by row.

    ``elements``: (name, [(property name, type, list length's type or None)], rows).
    """
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
    head = ["ply", f"format {kind} 1.0", "comment made by hand"]
    body = b""
    for name, properties, rows in elements:
        head.append(f"element {name} {len(rows)}")
        for label, code, length in properties:
            listed = f"list {length} " if length else ""
            head.append(f"property {listed}{code} {label}")
        for row in rows:
            words = []
            for (_, code, length), value in zip(properties, row, strict=True):
                values = list(value) if length else [value]
                if length:
                    words.append((length, len(values)))
                words += [(code, v) for v in values]
            if order:
                body += b"".join(struct.pack(order + SCALARS[c], v) for c, v in words)
            else:
                body += " ".join(repr(v) for _, v in words).encode() + b"\n"
    return ("\n".join([*head, "end_header"]) + "\n").encode() + body


def xyz(code="float", more=()):
    return [(axis, code, None) for axis in "xyz"] + list(more)


def fan(polygons):
    return [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]


float32 = st.floats(-1e6, 1e6, width=32)


@st.composite
def meshes(draw):
    points = draw(st.lists(st.tuples(float32, float32, float32), min_size=3, max_size=8))
    corner = st.integers(0, len(points) - 1)
    polygons = draw(st.lists(st.lists(corner, min_size=3, max_size=6), min_size=1, max_size=6))
    return points, polygons


@QUICK
@given(
    meshes(),
    st.sampled_from(FORMATS),
    st.sampled_from(["float", "double"]),
    st.sampled_from(["uchar", "ushort", "int"]),
    st.sampled_from(["int", "uint", "short"]),
    st.sampled_from(["vertex_indices", "vertex_index"]),
    st.booleans(),
)
def test_ply_round_trip(mesh, kind, code, length, index, name, extra):
    points, polygons = mesh
    vertex = [(*p, 7) if extra else p for p in points]
    face = [(3, p, [0.5]) if extra else (p,) for p in polygons]
    properties = [(name, index, length)]
    if extra:
        properties = [("flag", "uchar", None), *properties, ("uv", "float", "uchar")]
    content = ply(
        kind,
        [
            ("vertex", xyz(code, [("red", "uchar", None)] if extra else ()), vertex),
            ("edge", [("a", "short", None)], [(1,), (2,)]),
            ("face", properties, face),
        ],
    )
    found, normals, corners, counts = read_ply(content, "x")
    np.testing.assert_array_equal(found, np.array(points))
    assert normals is None
    assert np.split(corners, np.cumsum(counts)[:-1])[0].tolist() == polygons[0]
    assert corners.tolist() == [c for p in polygons for c in p]
    assert counts.tolist() == [len(p) for p in polygons]


@pytest.mark.parametrize("kind", FORMATS)
def test_ply_mesh_and_points(tmp_path, kind):
    path = tmp_path / "a.ply"
    points = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0)]
    polygons = [[0, 1, 2, 3], [0, 1, 2]]
    faces = ("face", [("vertex_indices", "int", "uchar")], [(p,) for p in polygons])
    path.write_bytes(ply(kind, [("vertex", xyz(), points), faces]))
    mesh = load(path, ("mesh",))
    assert mesh.vertices.dtype == np.float64
    assert mesh.faces.dtype == np.int64
    assert mesh.faces.tolist() == fan(polygons)
    normals = [(axis, "float", None) for axis in ("nx", "ny", "nz")]
    rows = [(*p, 0.0, 0.0, 2.0) for p in points]
    path.write_bytes(ply(kind, [("vertex", xyz("double", normals), rows)]))
    cloud = load(path, ("points",))
    np.testing.assert_array_equal(cloud.points, points)
    np.testing.assert_array_equal(cloud.normals, [[0, 0, 2]] * 4)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("polygons", [[[0, 1, 2], [2, 1, 3]], [[0, 1, 2], [0, 1, 2, 3]]])
def test_ply_truncated_at_every_length(tmp_path, kind, polygons):
    points = [(0.5, 0.25, 0.125), (1.0, 0.5, 0.5), (1.5, 1.0, 0.25), (0.5, 1.0, 0.75)]
    faces = ("face", [("vertex_indices", "int", "uchar")], [(p,) for p in polygons])
    content = ply(kind, [("vertex", xyz(), points), faces])
    path = tmp_path / "a.ply"
    # Without its last line end an ASCII file is still whole.
    for length in range(len(content) - (kind == "ascii")):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            read_mesh(path)
    path.write_bytes(content + b"7 ")
    with pytest.raises(DataError, match="after the last element"):
        read_mesh(path)


@QUICK
@given(st.data(), st.sampled_from(FORMATS))
def test_damaged_ply_is_an_error_or_a_mesh(tmp_path_factory, data, kind):
    points = [(0.5, 0.25, 0.125), (1.0, 0.5, 0.5), (1.5, 1.0, 0.25), (0.5, 1.0, 0.75)]
    faces = ("face", [("vertex_indices", "int", "uchar")], [([0, 1, 2],), ([0, 1, 2, 3],)])
    content = bytearray(ply(kind, [("vertex", xyz(), points), faces]))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.ply"
    path.write_bytes(content)
    try:
        found = read_mesh(path)
    except DataError:
        return
    if isinstance(found, Mesh):
        assert np.isfinite(found.vertices).all()
        assert found.faces.min() >= 0
        assert found.faces.max() < len(found.vertices)


def header(*lines, body=""):
    return ("\n".join(["ply", *lines, "end_header"]) + "\n" + body).encode()


ASCII = "format ascii 1.0"
XYZ = ("property float x", "property float y", "property float z")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(ASCII, "element vertex 99999999999999", *XYZ, body="0 0 0"), "promised"),
        (header("format binary_little_endian 1.0", "element vertex 999999999", *XYZ), "promised"),
        (header(ASCII, "element vertex " + "9" * 5000, *XYZ, body="0 0 0"), "cannot be read"),
        (header(ASCII, "element vertex 1", "property float x", body="0"), "without x, y and z"),
        (header(ASCII, "element vertex 0", *XYZ), "no points"),
        (header(ASCII, "element vertex 1", *XYZ, body="0 nan 0"), "1 points that are not finite"),
        (header(ASCII, "element vertex 1", *XYZ, body="0 word 0"), "cannot be read"),
        (header(ASCII, "element vertex 1", *XYZ, *XYZ, body="0 0 0"), "doubled names"),
        (header(ASCII, "element vertex 1", body="0 0 0"), "missing or doubled"),
        (header(ASCII, "element vertex 1", "property half x", body="0"), "'property half x'"),
        (header(ASCII, "element vertex -1", *XYZ), "the header line 'element vertex -1'"),
        (header(ASCII, "property float x"), "the header line"),
        (header("format ascii 2.0", "element vertex 1", *XYZ), "format ascii 2.0"),
        (header("element vertex 1", *XYZ, body="0 0 0"), "without format"),
        (header(ASCII, "element vertex 1", "property list float int x"), "property list float"),
        (b"ply" + b" " * 100_000, "truncated in its header"),
        (b"solid stl\n", "no PLY file"),
    ],
)
def test_unusable_ply(tmp_path, content, message):
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mesh(path)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ("3 0 1 3", "name vertices 0 to 3 of 3"),
        ("3 0 1 -1", "name vertices -1 to 1 of 3"),
        ("2 0 1", "face 0 with 2 corners"),
        ("3 0 1 0.5", "fractional indices"),
        ("3 0 1 nan", "fractional indices"),
        ("2.5 0 1 2", "list of length 2.5"),
        ("-3 0 1 2", "a list of -3"),
        ("nan 0 1 2", "cannot be read"),
        ("1e300 0 1 2", "truncated, or corrupt"),
        ("4 0 1 2", "truncated, or corrupt"),
    ],
)
def test_unusable_faces(tmp_path, faces, message):
    path = tmp_path / "a.ply"
    lists = "property list int int vertex_indices"
    path.write_bytes(
        header(ASCII, "element vertex 3", *XYZ, "element face 1", lists,
               body="0 0 0 1 0 0 0 1 0 " + faces)
    )  # fmt: skip
    with pytest.raises(DataError, match=message):
        read_mesh(path)


def test_triangle_strips_are_named(tmp_path):
    path = tmp_path / "a.ply"
    strips = ("element tristrips 1", "property list int int vertex_indices")
    path.write_bytes(header(ASCII, "element vertex 3", *XYZ, *strips, body="0 0 0 1 0 0 0 1 0 0"))
    with pytest.raises(DataError, match="triangle strips"):
        read_mesh(path)


OBJ = """# a cube's side and a hexagon
mtllib a.mtl
o thing
v 0 0 0
v 1 0 0 1.0
v 1 1 0 0.5 0.5 0.5
v\t0 1 0
vt 0 0
vn 0 0 1
s off
f 1 2 3 4
f 1/1 2/1 3/1
f 1//1 2//1 3//1
f 1/1/1 2/1/1 \\
3/1/1
f -4 -3 -2 # counted from the last
v 2 2 2
v 3 3 3
f 1 2 3 4 5 -1
l 1 2
"""


def test_obj(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text(OBJ)
    mesh = load(path, ("mesh",))
    assert len(mesh.vertices) == 6
    assert mesh.vertices[2].tolist() == [1, 1, 0]
    triangle = [0, 1, 2]
    polygons = [[0, 1, 2, 3], triangle, triangle, triangle, triangle, [0, 1, 2, 3, 4, 5]]
    assert mesh.faces.tolist() == fan(polygons)


def test_obj_points_and_normals(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nvn 0 0 1\nv 1 0 0\nvn 0 1 0\n")
    cloud = read_mesh(path)
    assert isinstance(cloud, PointCloud)
    np.testing.assert_array_equal(cloud.normals, [[0, 0, 1], [0, 1, 0]])
    path.write_text("v 0 0 0\nv 1 0 0\nvn 0 1 0\n")
    assert read_mesh(path).normals is None


@QUICK
@given(meshes(), st.booleans())
def test_obj_round_trip(tmp_path_factory, mesh, negative):
    points, polygons = mesh
    n = len(points)
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in points]
    lines += ["f " + " ".join(str(c - n if negative else c + 1) for c in p) for p in polygons]
    path = tmp_path_factory.getbasetemp() / "round.obj"
    path.write_text("\n".join(lines))
    found = read_mesh(path)
    np.testing.assert_array_equal(found.vertices, np.array(points))
    assert found.faces.tolist() == fan(polygons)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 0 0\n", "a line 'v' without 3 numbers"),
        ("v 0 0 0\nvn 1 0\n", "a line 'vn' without 3 numbers"),
        ("v 0 0 0\nv 0 1 0\nv 1 0 0\nf 0 1 2\n", "vertex 0"),
        ("v 0 0 0\nv 0 1 0\nv 1 0 0\nf 1 2 4\n", "name vertices 0 to 3 of 3"),
        ("v 0 0 0\nv 0 1 0\nv 1 0 0\nf 1 2 -4\n", "name vertices -1 to 1 of 3"),
        ("v 0 0 0\nv 0 1 0\nf 1 2\n", "face 0 with 2 corners"),
        ("v 0 0 0\nf 1 x 1\n", "cannot be read"),
        ("v 0 inf 0\n", "1 points that are not finite"),
        ("v 0 1 0\nvn 0 nan 0\n", "1 normals that are not finite"),
        ("just words\n", "no points"),
        ("v 0 \0 0\n", "a NUL"),
    ],
)
def test_unusable_obj(tmp_path, text, message):
    path = tmp_path / "a.obj"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_mesh(path)


def test_xyz(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("# points\n0 0 1\n\n2,3,4 # one more\n")
    cloud = load(path)
    assert cloud.kind == "points"
    assert cloud.normals is None
    np.testing.assert_array_equal(cloud.points, [[0, 0, 1], [2, 3, 4]])
    path.write_text("0 0 1 0 0 1\n2 3 4 1 0 0\n")
    np.testing.assert_array_equal(load(path).normals, [[0, 0, 1], [1, 0, 0]])
    for text, message in (
        ("# nothing\n", "no points"),
        ("12\nwater\nO 0 0 0\n", "1 fields in the first line"),
        ("1 2 3\n1 2\n", "row 2 with 2 numbers where the first has 3"),
        ("1 2 x\n", "cannot be read"),
        ("1 2 inf\n", "1 points that are not finite"),
        ("1 2 3 nan 0 0\n", "1 normals that are not finite"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            load(path)


def test_other_suffixes_are_refused(tmp_path):
    path = tmp_path / "a.stl"
    path.write_text("solid")
    with pytest.raises(DataError, match=r"named \.stl"):
        read_mesh(path)


def test_points_are_uniform_by_area():
    # A triangle of area 4.5, one of 0.5 in another plane, and one without area.
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 5], [1, 0, 5], [0, 0, 6.0]])
    mesh = Mesh(vertices, np.array([[0, 0, 1], [0, 1, 2], [3, 4, 5], [1, 1, 1]]), SOURCE)
    cloud = sample_surface(mesh, 40_000, random_state=0)
    large = cloud.points[:, 2] == 0
    assert large.mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 40_000))
    np.testing.assert_array_equal(cloud.normals[large], np.tile([0, 0, 1], (large.sum(), 1)))
    np.testing.assert_array_equal(cloud.normals[~large], np.tile([0, -1, 0], ((~large).sum(), 1)))
    # Inside the large one each of the nine equal small triangles gets a ninth.
    x, y = cloud.points[large, :2].T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + y <= 3 + 1e-12).all()
    upper = (x % 1) + (y % 1) > 1
    counts = np.unique(np.column_stack([x // 1, y // 1, upper]), axis=0, return_counts=True)[1]
    assert len(counts) == 9
    expected = large.sum() / 9
    assert ((counts - expected) ** 2 / expected).sum() < 26.1  # chi-square, 8 df, p = .001


def test_sampling_a_sphere_gives_radial_normals():
    t, p = np.meshgrid(np.linspace(0, np.pi, 40), np.linspace(0, 2 * np.pi, 80), indexing="ij")
    points = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], -1)
    i = np.arange(40 * 80).reshape(40, 80)
    a, b, c, d = (q.ravel() for q in (i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]))
    faces = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
    cloud = sample_surface(Mesh(points.reshape(-1, 3), faces, SOURCE), 20_000, random_state=1)
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=1e-12)
    assert (np.sum(cloud.normals * cloud.points, axis=1) > 0.99).all()
    # Archimedes: the height is uniform.
    height = np.sort(cloud.points[:, 2])
    assert np.abs(height - np.linspace(-1, 1, 20_000)).max() < 0.03


def test_sampling_is_seeded_and_leaves_global_states():
    mesh = Mesh(np.eye(3), np.array([[0, 1, 2]]), SOURCE)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again = (sample_surface(mesh, 9, random_state=5) for _ in range(2))
    sample_surface(mesh, 9)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_allclose(first.points.sum(1), 1)
    other = sample_surface(mesh, 9, random_state=np.random.default_rng(6))
    assert not np.array_equal(first.points, other.points)


def test_sampling_refuses():
    line = Mesh(np.eye(3), np.array([[0, 0, 1]]), SOURCE)
    with pytest.raises(ValueError, match="mesh: no area"):
        sample_surface(line, 3)
    with pytest.raises(ValueError, match="n: 0"):
        sample_surface(Mesh(np.eye(3), np.array([[0, 1, 2]]), SOURCE), 0)
