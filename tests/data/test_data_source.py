"""Laziness, the error, `load` by kind, and the examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import os
import pickle
import subprocess
import sys

import pytest

import mmxx.data
from mmxx.data import KINDS, DataError, Source, load
from mmxx.data.source import MAX_FILE_BYTES

MODULES = (
    "audio", "embedded", "graph_files", "graph_objects", "graphs", "image_arrays", "image_files",
    "images", "kinds", "meshes", "ply", "source", "tables", "text",
)  # fmt: skip


def test_importing_the_package_loads_nothing_heavy():
    heavy = "numpy PIL torch scipy skimage sklearn statsmodels pandas matplotlib"
    code = (
        "import sys, mmxx.data, mmxx.data.source, mmxx.data.kinds\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])\n"
        "print([m for m in sys.modules if m.startswith('mmxx.lab')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["[]", "[]"]


def test_every_public_name_is_there_and_documented():
    for name in mmxx.data.__all__:
        if name == "KINDS":
            continue
        assert getattr(mmxx.data, name).__doc__, name
    with pytest.raises(AttributeError):
        mmxx.data.nothing  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(f"mmxx.data.{name}")
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_example_of_the_package_runs():
    failed, tried = doctest.testmod(mmxx.data)
    assert tried
    assert failed == 0


def test_error_names_path_found_accepted_and_survives_a_process():
    error = DataError("a/b.png", "nonsense", "a picture")
    assert isinstance(error, ValueError)
    assert str(error) == "a/b.png: nonsense; accepted: a picture"
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.found, again.accepted) == ("a/b.png", "nonsense", "a picture")


def test_source_defaults():
    source = Source("a", "mine", "here")
    assert source.sha256 is None
    assert not source.generated


def write(path, content=b"x"):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "kinds", "found"),
    [
        ("a.png", ("audio",), "a picture"),
        ("a.wav", ("image", "table"), "sound"),
        ("a.ply", ("text",), "a mesh or points"),
        ("a.npz", ("image",), "a set of pictures"),
        ("a-idx3-ubyte.gz", ("image",), "a set of pictures"),
        ("a.pkl", ("image", "mesh"), "a file named a.pkl"),
        ("a.md", ("text",), "a file named a.md"),
        ("a.csv", ("text",), "a table"),
        ("a.xyz", ("mesh",), "points"),
        ("a.TXT", ("mesh",), "a table or text"),
    ],
)
def test_wrong_kind_says_what_was_found_and_what_is_accepted(tmp_path, name, kinds, found):
    with pytest.raises(DataError) as caught:
        load(write(tmp_path / name), kinds)
    assert caught.value.path == str(tmp_path / name)
    assert caught.value.found == found
    assert "." in caught.value.accepted


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.csv", "a.wav", "a.txt", "a.ply", "a.xyz"])
def test_missing_empty_folder_and_broken(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(DataError, match="no such file"):
        load(path)
    write(path, b"")
    with pytest.raises(DataError, match="an empty file"):
        load(path)
    write(path, b"\x00\xff\xfe\x00rubbish\x80" * 9)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_larger_than_the_cap_is_refused_unread(tmp_path):
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse: takes no room on the disk
    with pytest.raises(DataError, match="at most"):
        load(path)


def test_what_the_system_refuses_is_the_same_error(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / ("x" * 300 + ".png"))
    (tmp_path / "sub").mkdir()
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match="Permission denied"):
        load(tmp_path, ("images",))


def test_a_folder_is_no_file(tmp_path):
    folder = tmp_path / "a.txt"
    folder.mkdir()
    with pytest.raises(DataError, match="a folder"):
        mmxx.data.read_text(folder)
    with pytest.raises(DataError, match=": a folder; accepted"):
        load(folder, ("text",))


@pytest.mark.parametrize("kinds", [(), ("picture",), ("image", "nonsense")])
def test_unknown_kinds_are_the_callers_mistake(tmp_path, kinds):
    with pytest.raises(ValueError, match="kinds") as caught:
        load(tmp_path, kinds)
    assert not isinstance(caught.value, DataError)
    assert all(kind in str(caught.value) for kind in KINDS)


def test_txt_is_the_kind_named_first(tmp_path):
    path = write(tmp_path / "a.txt", b"1\n2\n")
    assert load(path, ("text", "table")).kind == "text"
    assert load(path, ("table", "text")).kind == "table"
    with pytest.raises(DataError, match="without a column of numbers"):
        load(write(tmp_path / "b.txt", b"some prose\nof two lines\n"), ("table",))


def test_content_decides_between_mesh_and_points(tmp_path):
    points = write(tmp_path / "a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    mesh = write(tmp_path / "b.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert load(points).kind == "points"
    assert load(mesh).kind == "mesh"
    with pytest.raises(DataError, match="points; accepted: a mesh"):
        load(points, ("mesh",))
    with pytest.raises(DataError, match="a mesh; accepted: points"):
        load(mesh, ("points",))
