"""Readers of pictures: single files, folders, IDX and .npz."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from mmxx.data import DataError, load, read_image, read_images
from mmxx.data.image_arrays import idx_array

QUICK = settings(max_examples=60, deadline=None, database=None, derandomize=True)
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def encoded(pixels, kind="PNG", mode=None, **options):
    buffer = io.BytesIO()
    picture = Pillow.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, bits, colour, rows):
    """A PNG by hand: each row is the bytes of its samples."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("suffix", "kind"), [("png", "PNG"), ("BMP", "BMP"), ("tif", "TIFF"), ("ppm", "PPM")]
)
def test_lossless_formats_come_back_exactly(tmp_path, suffix, kind):
    for pixels in (GREY, COLOUR):
        image = read_image(write(tmp_path / f"a.{suffix}", encoded(pixels, kind)))
        assert image.pixels.dtype == np.float32
        np.testing.assert_array_equal(image.pixels, pixels.astype(np.float32) / 255)
        assert load(tmp_path / f"a.{suffix}", ("image",)).source == image.source


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_lossy_formats_come_near(tmp_path, suffix, kind):
    smooth = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    image = read_image(write(tmp_path / f"a.{suffix}", encoded(smooth, kind, quality=95)))
    pixels = image.pixels if image.pixels.ndim == 2 else image.pixels[..., 0]
    assert np.abs(pixels - smooth / 255).max() < 0.05


def test_16_bit_grey_keeps_its_precision_and_16_bit_colour_8_bits(tmp_path):
    deep = RNG.integers(0, 65536, (7, 5)).astype(">u2")
    rows = [row.tobytes() for row in deep]
    image = read_image(write(tmp_path / "a.png", png(5, 7, 16, 0, rows)))
    np.testing.assert_array_equal(image.pixels, deep.astype(np.float32) / 65535)
    colour = RNG.integers(0, 65536, (7, 5, 3)).astype(">u2")
    rows = [row.tobytes() for row in colour]
    image = read_image(write(tmp_path / "b.png", png(5, 7, 16, 2, rows)))
    assert image.pixels.shape == (7, 5, 3)
    np.testing.assert_allclose(image.pixels, colour / 65535, atol=1 / 255)


def test_transparency_is_composited_on_white_with_a_warning(tmp_path):
    alpha = np.array([[0, 64, 128, 255]], dtype=np.uint8)
    rgba = np.dstack([np.full((1, 4, 3), (200, 100, 0), dtype=np.uint8), alpha])
    path = write(tmp_path / "a.png", encoded(rgba))
    with pytest.warns(UserWarning, match="transparent pixels are composited on white"):
        image = read_image(path)
    share = alpha[0, :, None] / 255
    expected = share * np.array([200, 100, 0]) / 255 + (1 - share)
    np.testing.assert_allclose(image.pixels[0], expected, atol=0.6 / 255)
    grey = np.dstack([np.full((1, 4), 100, dtype=np.uint8), alpha])
    with pytest.warns(UserWarning, match="composited"):
        image = read_image(write(path, encoded(grey)))
    assert image.pixels.shape == (1, 4)
    np.testing.assert_allclose(image.pixels[0], expected[:, 1], atol=0.6 / 255)


def test_opaque_alpha_is_dropped_silently(tmp_path):
    rgba = np.dstack([COLOUR, np.full((7, 5), 255, dtype=np.uint8)])
    image = read_image(write(tmp_path / "a.png", encoded(rgba)))
    np.testing.assert_array_equal(image.pixels, COLOUR.astype(np.float32) / 255)


def test_other_modes(tmp_path):
    bits = GREY > 127
    image = read_image(write(tmp_path / "a.png", encoded(bits)))
    np.testing.assert_array_equal(image.pixels, bits.astype(np.float32))
    palette = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    indexed = Pillow.fromarray(GREY)
    indexed.putpalette(palette.tobytes())
    assert indexed.mode == "P"
    indexed.save(tmp_path / "p.png")
    image = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(image.pixels, palette[GREY].astype(np.float32) / 255)
    transparent = encoded(np.zeros((2, 2), np.uint8), mode="P", transparency=0)
    with pytest.warns(UserWarning, match="composited"):
        image = read_image(write(tmp_path / "t.png", transparent))
    np.testing.assert_array_equal(image.pixels, np.ones((2, 2, 3)))
    keyed = encoded(np.array([[0, 90]], np.uint8), transparency=0)
    with pytest.warns(UserWarning, match="composited"):
        image = read_image(write(tmp_path / "k.png", keyed))
    np.testing.assert_allclose(image.pixels, [[1, 90 / 255]])
    image = read_image(write(tmp_path / "c.tif", encoded(COLOUR, "TIFF", mode="CMYK")))
    np.testing.assert_allclose(image.pixels, COLOUR / 255, atol=0.01)
    real = RNG.random((7, 5), dtype=np.float32)
    image = read_image(write(tmp_path / "f.tif", encoded(real, "TIFF")))
    np.testing.assert_array_equal(image.pixels, real)
    for bad in (real - 1, real * np.float32(3), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(DataError, match="grey values from"):
            read_image(write(tmp_path / "f.tif", encoded(bad, "TIFF")))


def test_exif_orientation_is_applied(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    image = read_image(write(tmp_path / "a.png", encoded(GREY, exif=exif)))
    np.testing.assert_array_equal(image.pixels * 255, np.rot90(GREY, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "GIF", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_truncated_at_every_length(tmp_path, kind):
    whole = encoded(COLOUR, kind)
    path = tmp_path / f"a.{kind.lower()}"
    pixels = read_image(write(path, whole)).pixels
    refused = 0
    for length in range(len(whole)):
        try:
            image = read_image(write(path, whole[:length]))
        except DataError:
            refused += 1
        else:
            # Only what carries no pixels may be missing: a trailer.
            np.testing.assert_array_equal(image.pixels, pixels)
    assert refused >= len(whole) - 30


def test_bombs_and_foreign_formats_are_refused(tmp_path):
    with pytest.raises(DataError, match="pixels"):
        read_image(write(tmp_path / "a.png", png(100_000, 100_000, 8, 0, [b"\0"])))
    with pytest.raises(DataError, match="9000 x 9000 pixels"):
        read_image(write(tmp_path / "b.png", png(9_000, 9_000, 8, 0, [b"\0"])))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 7\nshowpage\n"
    with pytest.raises(DataError, match="cannot be read"):
        read_image(write(tmp_path / "c.png", script))
    with pytest.raises(DataError, match="cannot be read"):
        read_image(write(tmp_path / "d.jpg", b"no picture at all"))


def test_folder_of_classes(tmp_path):
    for name, value in (("cat", 10), ("ant", 20)):
        for number in range(3):
            pixels = np.full((4, 6), value + number, np.uint8)
            write(tmp_path / name / f"{number}.png", encoded(pixels))
    write(tmp_path / "cat" / "deep" / "er" / "9.png", encoded(np.full((4, 6), 99, np.uint8)))
    write(tmp_path / "notes.txt", b"no picture")
    write(tmp_path / "cat" / ".hidden.png", b"no picture")
    write(tmp_path / ".git" / "x.png", b"no picture")
    data = load(tmp_path, ("images",))
    assert data.images.shape == (7, 4, 6, 1)
    assert data.images.dtype == np.uint8
    assert data.classes == ("ant", "cat")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [20, 21, 22, 10, 11, 12, 99]
    assert (data.skipped, data.converted) == (0, 0)
    np.testing.assert_array_equal(data.as_float(), data.images.astype(np.float32) / 255)
    digest = data.source.sha256
    assert read_images(tmp_path).source.sha256 == digest
    write(tmp_path / "ant" / "0.png", encoded(np.full((4, 6), 1, np.uint8)))
    assert read_images(tmp_path).source.sha256 != digest


def test_folder_without_classes_corrupt_files_and_modes(tmp_path):
    write(tmp_path / "a.png", encoded(COLOUR))
    write(tmp_path / "b.png", encoded(GREY))
    write(tmp_path / "c.png", encoded(COLOUR)[:60])
    write(tmp_path / "d.jpg", b"")
    write(tmp_path / "e.png", png(5, 7, 16, 0, [bytes([v, v] * 5) for v in range(7)]))
    rgba = np.dstack([COLOUR, np.full((7, 5), 255, np.uint8)])
    write(tmp_path / "f.png", encoded(rgba))
    data = read_images(tmp_path)
    assert data.labels is None
    assert data.classes is None
    assert data.skipped == 2
    assert data.converted == 3  # grey, 16 bits, alpha
    assert data.images.shape == (4, 7, 5, 3)
    np.testing.assert_array_equal(data.images[0], COLOUR)
    np.testing.assert_array_equal(data.images[1], np.dstack([GREY] * 3))
    np.testing.assert_array_equal(data.images[2, :, 0, 0], range(7))
    np.testing.assert_array_equal(data.images[3], COLOUR)


def test_labels_follow_when_files_are_skipped(tmp_path):
    for number, name in enumerate("abc"):
        for copy in range(2):
            content = encoded(np.full((2, 2), 10 * number + copy, np.uint8))
            write(tmp_path / name / f"{copy}.png", content if (number, copy) != (1, 0) else b"x")
    data = read_images(tmp_path)
    assert data.labels.tolist() == [0, 0, 1, 2, 2]
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 11, 20, 21]


def test_sizes(tmp_path):
    write(tmp_path / "a.png", encoded(np.full((8, 12), 7, np.uint8)))
    write(tmp_path / "b.png", encoded(np.full((20, 10), 9, np.uint8)))
    with pytest.raises(DataError, match=r"pictures of 2 sizes \(12 x 8, 10 x 20\)"):
        read_images(tmp_path)
    assert read_images(tmp_path, size=4).images.shape == (2, 4, 4, 1)
    data = load(tmp_path, ("images",), size=(3, 5))
    assert data.images.shape == (2, 3, 5, 1)
    assert data.images[:, 1, 1, 0].tolist() == [7, 9]
    for bad in (0, (3,), (2.0, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match="size"):
            read_images(tmp_path, size=bad)


def test_resizing_takes_the_middle(tmp_path):
    wide = np.zeros((10, 60), np.uint8)
    wide[:, 20:40] = 200  # the middle square and a margin as wide as the filter
    write(tmp_path / "a.png", encoded(wide))
    np.testing.assert_array_equal(read_images(tmp_path, size=5).images, np.full((1, 5, 5, 1), 200))
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (60, 1))
    write(tmp_path / "a.png", encoded(ramp))
    small = read_images(tmp_path, size=15).images[0, 7, 1:-1, 0].astype(int)
    np.testing.assert_allclose(small, ramp[0].reshape(15, 4).mean(1)[1:-1], atol=1)


def test_unusable_folders(tmp_path):
    with pytest.raises(DataError, match="a folder without pictures"):
        read_images(tmp_path)
    write(tmp_path / "a.png", b"x")
    with pytest.raises(DataError, match="1 files named like pictures, none of which can be read"):
        read_images(tmp_path)
    write(tmp_path / "b" / "a.png", encoded(GREY))
    with pytest.raises(DataError, match="1 pictures in the folder itself and 1 in sub-folders"):
        read_images(tmp_path)


def test_sets_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path / f"{number}.png", encoded(GREY))
    monkeypatch.setattr("mmxx.data.image_files.MAX_DECODED_BYTES", 3 * GREY.size)
    with pytest.raises(DataError, match="fewer pictures, or a smaller size="):
        read_images(tmp_path)
    assert len(read_images(tmp_path, size=2)) == 4


IDX_CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array):
    code = IDX_CODES[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@QUICK
@given(
    st.sampled_from(sorted(IDX_CODES)).flatmap(
        lambda code: hnp.arrays(code, hnp.array_shapes(max_dims=4, max_side=4))
    ),
    st.booleans(),
)
def test_idx_round_trip(array, packed):
    content = gzip.compress(idx(array)) if packed else idx(array)
    back = idx_array(content, "x")
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, array)


def test_idx_pair_is_found_with_its_labels(tmp_path):
    pixels = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    labels = np.array([3, 1, 0, 1, 2, 3], np.uint8)
    for images_name, labels_name in (
        ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        ("x-images.idx3-ubyte.gz", "x-labels.idx1-ubyte"),
    ):
        folder = tmp_path / images_name
        for name, array in ((images_name, pixels), (labels_name, labels)):
            content = idx(array)
            write(folder / name, gzip.compress(content) if name.endswith("gz") else content)
        for path in (folder, folder / images_name):
            data = load(path, ("images",))
            np.testing.assert_array_equal(data.images[..., 0], pixels)
            assert data.labels.tolist() == labels.tolist()
            assert data.labels.dtype == np.int64
            assert data.classes == ("0", "1", "2", "3")
            assert data.source.name == images_name
        assert read_images(folder, size=2).images.shape == (6, 2, 2, 1)
        (folder / labels_name).unlink()
        assert read_images(folder).labels is None


def test_idx_colour_and_several(tmp_path):
    pixels = RNG.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    write(tmp_path / "a-images-idx4-ubyte", idx(pixels))
    np.testing.assert_array_equal(read_images(tmp_path).images, pixels)
    write(tmp_path / "b.idx", idx(pixels))
    with pytest.raises(DataError, match=r"one of them: a-images-idx4-ubyte, b\.idx"):
        read_images(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_truncated_at_every_length(tmp_path, packed):
    content = idx(RNG.integers(0, 256, (3, 4, 2), dtype=np.uint8))
    content = gzip.compress(content) if packed else content
    path = tmp_path / "a-idx3-ubyte"
    for length in range(len(content)):
        with pytest.raises(DataError):
            read_images(write(path, content[:length]))
    with pytest.raises(DataError):
        read_images(write(path, content + b"x"))


def test_idx_that_lies(tmp_path):
    path = tmp_path / "a-images-idx3-ubyte"
    promise = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    for content in (promise, gzip.compress(promise), promise + bytes(500)):
        with pytest.raises(DataError, match="promises"):
            read_images(write(path, content))
    bomb = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 2, 2) + bytes(10_000_000)
    with pytest.raises(DataError, match="longer than its header"):
        read_images(write(path, gzip.compress(bomb)))
    for array in (np.zeros(3, np.uint8), np.zeros((2, 3, 3, 2), np.uint8)):
        with pytest.raises(DataError, match="an array of shape"):
            read_images(write(path, idx(array)))
    with pytest.raises(DataError, match="pixels of type int16"):
        read_images(write(path, idx(np.zeros((2, 3, 3), np.int16))))
    with pytest.raises(DataError, match="an empty array"):
        read_images(write(path, idx(np.zeros((0, 3, 3), np.uint8))))


def test_idx_labels_that_do_not_fit(tmp_path):
    write(tmp_path / "a-images-idx3-ubyte", idx(np.zeros((3, 2, 2), np.uint8)))
    beside = tmp_path / "a-labels-idx1-ubyte"
    for labels, message in (
        (np.zeros(4, np.uint8), r"shape \(4,\) for 3 pictures"),
        (np.zeros(3, np.float32), "type float32"),
        (np.array([0, -1, 0], np.int32), "labels from -1 to 0"),
        (np.array([0, 2**30, 0], np.int32), "labels from 0"),
    ):
        write(beside, idx(labels))
        with pytest.raises(DataError, match=message):
            read_images(tmp_path)


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_npz_of_arrays(tmp_path):
    path = tmp_path / "a.npz"
    pixels = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    npz(path, images=pixels, labels=np.array([0, 1, 1, 0]), classes=np.array(["no", "yes"]))
    data = load(path, ("images",))
    np.testing.assert_array_equal(data.images, pixels)
    assert data.classes == ("no", "yes")
    assert data.labels.tolist() == [0, 1, 1, 0]
    assert read_images(path, size=3).images.shape == (4, 3, 3, 3)
    real = RNG.random((4, 5, 6))
    data = read_images(npz(path, images=np.asfortranarray(real)))
    assert data.images.dtype == np.float32
    np.testing.assert_array_equal(data.as_float()[..., 0], real.astype(np.float32))
    assert len(data) == 4
    with pytest.raises(DataError, match="float pictures of 5 x 6"):
        read_images(path, size=3)


def test_npz_of_encoded_pictures(tmp_path):
    parts = [encoded(COLOUR), encoded(GREY), b"rubbish", encoded(COLOUR)]
    offset = np.cumsum([0] + [len(part) for part in parts])
    everything = np.frombuffer(b"".join(parts), np.uint8)
    path = tmp_path / "a.npz"
    good = {"jpeg": everything, "offset": offset, "label": np.array([2, 1, 0, 2], np.uint8)}
    data = read_images(npz(path, **good))
    assert (data.skipped, data.converted) == (1, 1)
    assert data.labels.tolist() == [2, 1, 2]
    np.testing.assert_array_equal(data.images[2], COLOUR)
    for change, message in (
        ({"offset": offset[:-1]}, "offsets"),
        ({"offset": offset[::-1]}, "offsets"),
        ({"offset": offset.astype(float)}, "another type"),
        ({"jpeg": everything.astype(np.int16)}, "another type"),
        ({"jpeg": np.zeros(9, np.uint8), "offset": np.array([0, 4, 9])}, "2 pictures, none"),
        ({"label": np.array([0, 1])}, "labels of type"),
    ):
        with pytest.raises(DataError, match=message):
            read_images(npz(path, **(good | change)))


def test_npz_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, message in (
        ({"x": np.zeros(3)}, "neither images nor jpeg"),
        ({"jpeg": np.zeros(3, np.uint8)}, "neither images nor jpeg and offset"),
        ({"images": np.array([{"a": 1}], dtype=object)}, r"objects \(a pickle\)"),
        ({"images": np.zeros((2, 3), np.uint8)}, "pictures of shape"),
        ({"images": np.zeros((2, 3, 3, 2), np.uint8)}, "pictures of shape"),
        ({"images": np.zeros((0, 3, 3), np.uint8)}, "pictures of shape"),
        ({"images": np.zeros((2, 3, 3), np.int64)}, "pixels of type int64"),
        ({"images": np.full((2, 3, 3), np.nan)}, "pixels from nan"),
        ({"images": np.full((2, 3, 3), 1.5)}, "pixels from 1.5"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": np.array([0, 5]),
          "classes": np.array(["a", "b"])}, "labels from 0 to 5; accepted: labels from 0 to 1"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read_images(npz(path, **arrays))


def test_npz_truncated_at_every_length(tmp_path):
    path = npz(tmp_path / "a.npz", images=np.zeros((2, 3, 3), np.uint8))
    whole = path.read_bytes()
    for length in range(len(whole)):
        with pytest.raises(DataError):
            read_images(write(path, whole[:length]))


def test_npz_bombs(tmp_path):
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 10, 10)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="0 bytes, not an array"):
        read_images(path)
    # A directory that claims three gigabytes for a member of a few bytes.
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 3 * 2**30)
    with pytest.raises(DataError, match="bytes when unpacked"):
        read_images(write(path, bytes(content)))


@QUICK
@given(st.data())
def test_damaged_npz_is_an_error_or_pictures(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez(path, images=np.zeros((2, 3, 3), np.uint8), labels=np.array([0, 1]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        images = read_images(path)
    except DataError:
        return
    assert images.images.shape == (2, 3, 3, 1)
