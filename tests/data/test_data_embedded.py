"""What ships inside the dependencies, against the packages' own loaders."""

from __future__ import annotations

import hashlib
import random
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mmxx.data import co2, decimal_years, digits, doc_text, elnino, photo, photos


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def shipped(package, file):
    spec = find_spec(package)
    return Path(spec.submodule_search_locations[0], file)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    train, test = digits()
    assert train.images.shape == (1433, 8, 8, 1)
    assert test.images.shape == (364, 8, 8, 1)
    assert train.images.dtype == np.float32
    assert train.labels.dtype == np.int64
    assert train.classes == tuple("0123456789")
    theirs = load_digits()
    images, labels = np.empty_like(theirs.images), np.empty_like(theirs.target)
    seen = [0] * 10
    place = {"train": 0, "test": 0}
    for index, label in enumerate(theirs.target):
        part, name = (test, "test") if seen[label] % 5 == 0 else (train, "train")
        seen[label] += 1
        images[index] = part.images[place[name], :, :, 0] * 16
        labels[index] = part.labels[place[name]]
        place[name] += 1
    assert place == {"train": 1433, "test": 364}
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)
    file = shipped("sklearn", "datasets/data/digits.csv.gz")
    assert train.source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert train.source == test.source


def test_digits_split_is_even_and_the_same_each_time():
    train, test = digits()
    shares = np.bincount(test.labels) / np.bincount(np.r_[train.labels, test.labels])
    assert shares.min() > 0.19
    assert shares.max() < 0.22
    np.testing.assert_array_equal(digits()[1].images, test.images)


@pytest.mark.parametrize("name", photos())
def test_photos_are_pictures_in_the_unit_range(name):
    picture = photo(name)
    assert picture.kind == "image"
    assert picture.pixels.dtype == np.float32
    assert picture.pixels.ndim == 2 or picture.pixels.shape[2:] == (3,)
    assert min(picture.pixels.shape[:2]) >= 100
    assert 0 <= picture.pixels.min() < picture.pixels.max() <= 1
    assert picture.pixels.std() > 0.01
    assert picture.source.name == name
    assert picture.source.licence
    assert len(picture.source.sha256) == 64


@pytest.mark.parametrize("name", ["camera", "astronaut", "coffee", "chelsea", "moon", "page"])
def test_photos_equal_those_of_scikit_image(name):
    import skimage.data

    theirs = getattr(skimage.data, name)()
    np.testing.assert_array_equal(np.round(photo(name).pixels * 255), theirs)


def test_photos_equal_those_of_scikit_learn():
    from sklearn.datasets import load_sample_image

    theirs = load_sample_image("china.jpg").astype(float)
    assert np.abs(photo("china").pixels * 255 - theirs).max() <= 1


def test_unknown_photo():
    with pytest.raises(ValueError, match="'lena'; accepted: astronaut, brick"):
        photo("lena")
    with pytest.raises(ValueError):
        photo("../camera")


def test_doc_text_is_python_s_own_help():
    from pydoc_data.topics import topics

    text = doc_text()
    assert text.kind == "text"
    assert len(text.text) > 300_000
    names = sorted(topics)
    assert text.text.startswith(topics[names[0]] + "\n" + topics[names[1]])
    assert text.text.endswith(topics[names[-1]])
    assert text.source.sha256 == hashlib.sha256(text.text.encode()).hexdigest()


def test_co2_is_that_of_statsmodels():
    import statsmodels.datasets.co2

    table = co2()
    assert table.names == ("year", "co2")
    theirs = statsmodels.datasets.co2.load_pandas().data
    np.testing.assert_array_equal(table["co2"], theirs["co2"].to_numpy())
    assert np.isnan(table["co2"]).sum() == 59
    assert (np.diff(table["year"]) > 0).all()
    # Their index is made up of Saturdays; the file's own dates agree with it to a week.
    index = decimal_years(theirs.index.strftime("%Y-%m-%d"))
    assert np.abs(table["year"] - index).max() < 7.1 / 365


def test_elnino_is_that_of_statsmodels():
    import statsmodels.datasets.elnino

    table = elnino()
    theirs = statsmodels.datasets.elnino.load_pandas().data.to_numpy()
    np.testing.assert_array_equal(table["temperature"], theirs[:, 1:].ravel())
    np.testing.assert_allclose(np.diff(table["year"]), 1 / 12, atol=1e-9)
    assert table["year"][0] == pytest.approx(1950 + 1 / 24)
    assert len(table) == 732


@pytest.mark.parametrize(
    ("package", "call", "message"),
    [
        ("statsmodels", co2, r"co2\(\) needs statsmodels: pip install 'mmxx\[series\]'"),
        ("statsmodels", elnino, r"elnino\(\) needs statsmodels: pip install 'mmxx\[series\]'"),
        ("sklearn", digits, r"digits\(\) needs scikit-learn: pip install 'mmxx\[torch\]'"),
        ("skimage", lambda: photo("camera"), r"needs scikit-image: pip install 'mmxx\[torch\]'"),
    ],
)
def test_missing_package_names_the_extra(monkeypatch, package, call, message):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message) as caught:
        call()
    assert caught.value.name == package


def test_global_random_states_are_untouched():
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    digits(), photo("camera"), doc_text(), co2(), elnino()
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
