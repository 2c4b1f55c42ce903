"""The readers on real files, found through the environment variable MMXX_DATA."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import numpy as np
import pytest

from mmxx.data import decimal_years, load, sample_surface

DATA = os.environ.get("MMXX_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="MMXX_DATA names no folder of real data")


def real(name):
    path = Path(DATA or "", name)
    if not path.exists():
        pytest.skip(f"{name} is not in MMXX_DATA")
    return path


def test_mnist():
    folder = real("mnist")
    data = load(folder, ("images",))
    assert data.images.shape == (10_000, 28, 28, 1)
    assert data.classes == tuple("0123456789")
    # The known count of each digit among the test pictures.
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(data.labels).tolist() == counts
    assert data.images[data.labels == 1].mean() < data.images[data.labels == 0].mean()
    file = load(folder / "t10k-images-idx3-ubyte.gz", ("images",))
    assert file.source.sha256 == data.source.sha256


def test_cifar():
    data = load(real("cifar10/test.npz"), ("images",), size=16)
    assert data.images.shape == (10_000, 16, 16, 3)
    assert np.bincount(data.labels).tolist() == [1000] * 10
    assert "frog" in data.classes
    assert data.skipped == 0


def test_market():
    table = load(real("series/market.txt"), ("table",))
    (values,) = table.columns
    assert len(table) == 6629
    assert np.isnan(values).sum() == 232
    assert values[0] == 4529.05


def test_weather():
    table = load(real("series/dly575.csv"), ("table",))
    assert table.names[:4] == ("date", "ind", "maxtp", "ind_2")
    assert len(table.numeric) == 23
    years = decimal_years(table["date"])
    days = [datetime.datetime.strptime(d, "%d-%b-%Y").toordinal() for d in table["date"]]
    np.testing.assert_allclose(np.diff(years) * 365.25, np.diff(days), rtol=0.003)
    assert table["maxtp"][0] == 21.9
    assert np.isnan(table["gmin"][0])


def test_cello():
    audio = load(real("audio/gt_bach.wav"), ("audio",))
    assert audio.rate == 44_100
    assert audio.samples.shape == (308_207, 1)
    from scipy.io import wavfile

    np.testing.assert_array_equal(audio.samples[:, 0], wavfile.read(real("audio/gt_bach.wav"))[1])


@pytest.mark.parametrize(
    ("name", "vertices", "faces"), [("bunny", 8171, 16301), ("suzanne", 1966, 968)]
)
def test_meshes(name, vertices, faces):
    mesh = load(real(f"meshes/{name}.ply"), ("mesh",))
    assert mesh.vertices.shape == (vertices, 3)
    assert mesh.faces.shape == (faces, 3)
    cloud = sample_surface(mesh, 2000, random_state=0)
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    assert ((cloud.points >= low - 1e-9) & (cloud.points <= high + 1e-9)).all()
