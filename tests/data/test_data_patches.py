"""The cutter of patches."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mmxx.data import Image, Source, patches, photo_patches
from mmxx.data.images import luma

SOURCE = Source("test", "mine", "made here")


def picture(pixels):
    return Image(np.asarray(pixels, dtype=np.float32), SOURCE)


def test_cells_are_disjoint_and_patches_stay_inside_one():
    # Each 16 x 16 cell has a grey of its own, so a patch's grey tells the cell it lies in.
    cells = np.arange(120).reshape(10, 12)
    grey = np.kron(cells, np.ones((16, 16))) / 256 + 1 / 512
    train, test = patches({"a": picture(grey)}, 8, (2000, 500), levels=256, random_state=1)
    for part in (train, test):
        assert part.images.dtype == np.uint8
        assert (part.images == part.images[:, :1, :1]).all()
    seen = [set(part.images[:, 0, 0, 0].tolist()) for part in (train, test)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(120))
    assert len(seen[1]) == 24  # dealt out in the proportion of the patches


def test_patches_of_cells_take_every_place_in_the_cell():
    # Two cells of 4 x 4: one trains, one tests; a patch of 2 x 2 has 9 places in its cell.
    grey = np.arange(32).reshape(4, 8) / 32 + 1 / 64
    train, test = patches({"a": picture(grey)}, 2, (400, 400), levels=32, random_state=0)
    first = [{tuple(p) for p in part.images.reshape(-1, 4).tolist()} for part in (train, test)]
    assert [len(places) for places in first] == [9, 9]
    whole = {
        (8 * y + x, 8 * y + x + 1, 8 * y + x + 8, 8 * y + x + 9)
        for y in range(3)
        for x in (0, 1, 2, 4, 5, 6)
    }
    assert first[0] | first[1] == whole


def test_halves_do_not_share_a_column():
    grey = np.tile(np.arange(200) / 256 + 1 / 512, (40, 1))
    train, test = patches(
        {"a": picture(grey)}, 10, (3000, 3000), split="halves", levels=256, random_state=0
    )
    assert (train.images.min(), train.images.max()) == (0, 99)
    assert (test.images.min(), test.images.max()) == (100, 199)


def test_standardised_and_flat():
    rng = np.random.default_rng(0)
    noise, flat = picture(rng.random((64, 64, 3))), picture(np.full((64, 64), 0.25))
    train, _ = patches({"noise": noise, "flat": flat}, 8, (50, 10), random_state=0)
    assert train.classes == ("noise", "flat")
    np.testing.assert_array_equal(train.labels, np.repeat([0, 1], 50))
    rough = train.images[:50].astype(np.float64)
    np.testing.assert_allclose(rough.mean((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(rough.std((1, 2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(train.images[50:], 0, atol=1e-6)


def test_luma_equals_scikit_image():
    from skimage.color import rgb2gray

    pixels = np.random.default_rng(0).random((9, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(luma(pixels), rgb2gray(pixels), atol=1e-6)
    np.testing.assert_array_equal(luma(pixels[..., 0]), pixels[..., 0])


def test_photo_patches():
    train, test = photo_patches((6, 3))
    assert train.images.shape == (96, 16, 16, 1)
    assert test.images.shape == (48, 16, 16, 1)
    assert len(train.classes) == 16
    assert np.isfinite(train.images).all()
    np.testing.assert_array_equal(np.bincount(test.labels), np.full(16, 3))
    assert train.source.generated
    assert train.source.name == "photo_patches"
    assert "CC BY 2.0" in train.source.licence
    assert "danielbuechele" in train.source.origin


def test_the_seed_decides():
    first, again, other = (photo_patches((4, 2), random_state=seed) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.images, two.images)
    assert first[0].source.sha256 == again[0].source.sha256
    assert not np.array_equal(first[0].images, other[0].images)
    generator = photo_patches((4, 2), random_state=np.random.default_rng(3))
    np.testing.assert_array_equal(first[1].images, generator[1].images)


def test_global_random_states_are_untouched():
    torch = pytest.importorskip("torch")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    photo_patches((2, 1))
    patches({"a": picture(np.eye(64))}, 4, (2, 2))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": {}}, "sources"),
        ({"size": 0}, "size: 0"),
        ({"per_class": (0, 1)}, "per_class"),
        ({"per_class": (1, 2, 3)}, "per_class"),
        ({"split": "thirds"}, "split: 'thirds'; accepted: 'halves' or 'cells'"),
        ({"levels": 1}, "levels"),
        ({"levels": 257}, "levels"),
        ({"size": 30}, "'a' of 50 x 60 pixels is too small"),
        ({"size": 25}, "too small"),  # one cell only: nothing left to test on
        ({"size": 31, "split": "halves"}, "too small"),
    ],
)
def test_bad_arguments(change, message):
    good = {"sources": {"a": picture(np.zeros((50, 60)))}, "size": 8, "per_class": (1, 1)}
    with pytest.raises(ValueError, match=message):
        patches(**(good | change))
