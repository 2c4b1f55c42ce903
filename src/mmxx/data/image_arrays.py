"""Sets of pictures: a folder, an IDX file (MNIST) or an .npz file."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from mmxx.data.image_files import (
    ACCEPTED_FOLDER,
    Decoded,
    Images,
    decode_all,
    fit,
    read_folder,
    stack,
    target_size,
)
from mmxx.data.source import (
    MAX_DECODED_BYTES,
    DataError,
    Decoding,
    read_bytes,
    sha256,
    user_source,
)

if TYPE_CHECKING:
    import numpy as np

_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_IDX_ACCEPTED = (
    "an IDX file of pictures (unsigned bytes, [N, H, W] or [N, H, W, 3]), plain or gzip, and its "
    "labels beside it, named alike with 'images' as 'labels' and 'idx3' as 'idx1'"
)
_NPZ_ACCEPTED = (
    "an .npz file without objects: images (uint8, or floats in [0, 1], [N, H, W] or [N, H, W, C]) "
    "with labels and classes where there are any, or jpeg, offset, label and classes"
)
# No byte of deflated data can unpack to more than this many.
_DEFLATE_RATIO = 1032


def is_idx(path: Path) -> bool:
    """Whether a file is named like MNIST's: ``…-idx3-ubyte``, ``….idx3-ubyte.gz``, ``….idx``."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith((".idx", "ubyte"))


def read_images(path: str | PathLike[str], *, size: int | tuple[int, int] | None = None) -> Images:
    """Reads a set of pictures.

    Args:
        path: One of

            * a folder of pictures, or of one sub-folder of pictures for each class (classes are
              sorted by name; pictures deeper inside count too, links to folders are not
              followed), decoded on worker threads. Corrupt files are left out and counted. Where
              some are grey and some coloured all become coloured, 16 bits become 8, transparency
              is composited on white; these are counted as converted. Files not named like
              pictures, and hidden ones, are ignored;
            * an IDX file of pictures, plain or gzip, or a folder with one such file; the labels
              are found beside it by name;
            * an .npz file with ``images`` (and ``labels``, ``classes``), or with ``jpeg`` (all
              encoded files end to end), ``offset`` (N + 1) and ``label``, ``classes``. Objects
              (pickles) are refused.
        size: Side, or (height, width), to which each picture is cropped in the middle and resized;
            None leaves them as they are, and then they must all be of one size.

    Returns:
        `Images`. The source's sha256 is that of the file of pictures as it lies on disk; for a
        folder of pictures, of the sorted lines of names and digests of its files.

    Raises:
        DataError: If nothing readable is there, a header promises more than the file holds, the
            sizes differ and ``size`` is None, labels do not fit, or there are more than 2 GiB.
        ValueError: If ``size`` is out of range.
    """
    path, shape = Path(path), target_size(size)
    if path.is_dir():
        with Decoding(path, ACCEPTED_FOLDER):
            idx = sorted(f for f in path.iterdir() if is_idx(f) and "label" not in f.name)
        if not idx:
            return read_folder(path, shape)
        if len(idx) > 1:
            names = ", ".join(file.name for file in idx)
            raise DataError(path, f"{len(idx)} IDX files of pictures", f"one of them: {names}")
        path = idx[0]
    content = read_bytes(path, _NPZ_ACCEPTED if path.suffix.lower() == ".npz" else _IDX_ACCEPTED)
    read = _read_npz if path.suffix.lower() == ".npz" else _read_idx
    return read(path, content, shape)


def _read_idx(path: Path, content: bytes, size: tuple[int, int] | None) -> Images:
    pixels = idx_array(content, path)
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3)):
        raise DataError(path, f"an array of shape {pixels.shape}", _IDX_ACCEPTED)
    labels, beside = None, _beside(path)
    if beside is not None:
        labels = idx_array(read_bytes(beside, _IDX_ACCEPTED), beside)
    return _images(path, content, pixels, labels, None, size, _IDX_ACCEPTED)


def _beside(path: Path) -> Path | None:
    """The file of labels that belongs to a file of pictures, if it is there."""
    plain = path.name.removesuffix(".gz")
    name = plain.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    if name == plain:
        return None
    both = path.with_name(name), path.with_name(name + ".gz")
    return next((file for file in both if file.exists()), None)


def idx_array(content: bytes, path: Path) -> np.ndarray:
    """The array in the bytes of an IDX file, plain or gzip.

    Raises:
        DataError: If it is no IDX file, or longer or shorter than its header says.
    """
    import numpy as np

    with Decoding(path, _IDX_ACCEPTED):
        if content[:2] == b"\x1f\x8b":
            room = min(len(content) * _DEFLATE_RATIO, MAX_DECODED_BYTES)
            stream = gzip.GzipFile(fileobj=io.BytesIO(content))
        else:
            room, stream = len(content), io.BytesIO(content)
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not head[3]:
            raise DataError(path, "no IDX file", _IDX_ACCEPTED)
        dtype = np.dtype(_IDX_TYPES[head[2]])
        sizes = stream.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise DataError(path, "truncated in its header", _IDX_ACCEPTED)
        shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
        need = math.prod(shape) * dtype.itemsize
        if need > room:
            found = f"a header that promises {need:,} bytes where there is room for {room:,}"
            raise DataError(path, found, _IDX_ACCEPTED)
        body = stream.read(need + 1)
        if len(body) != need:
            found = "longer" if len(body) > need else "truncated: shorter"
            raise DataError(path, f"{found} than its header says ({shape})", _IDX_ACCEPTED)
        if not need:
            raise DataError(path, f"an empty array of shape {shape}", _IDX_ACCEPTED)
        return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_npz(path: Path, content: bytes, size: tuple[int, int] | None) -> Images:
    with Decoding(path, _NPZ_ACCEPTED):
        arrays = npz_arrays(
            content, path, ("images", "labels", "jpeg", "offset", "label", "classes")
        )
    labels, classes = arrays.get("labels", arrays.get("label")), arrays.get("classes")
    names = None if classes is None else tuple(str(name) for name in classes.ravel())
    if "images" in arrays:
        return _images(path, content, arrays["images"], labels, names, size, _NPZ_ACCEPTED)
    if "jpeg" not in arrays or "offset" not in arrays:
        raise DataError(path, "neither images nor jpeg and offset", _NPZ_ACCEPTED)
    data, offset = arrays["jpeg"], arrays["offset"]
    if data.dtype != "uint8" or data.ndim != 1 or offset.dtype.kind not in "iu" or len(offset) < 2:
        raise DataError(path, "jpeg or offset of another type or shape", _NPZ_ACCEPTED)
    if offset[0] != 0 or offset[-1] != len(data) or (offset[1:] < offset[:-1]).any():
        raise DataError(path, "offsets that do not part jpeg from end to end", _NPZ_ACCEPTED)
    parts = [
        (f"{path}: picture {number}", data[start:end].tobytes())
        for number, (start, end) in enumerate(pairwise(offset.tolist()))
    ]
    results = list(decode_all(parts, size))
    kept = [index for index, item in enumerate(results) if isinstance(item, Decoded)]
    if not kept:
        raise DataError(path, f"{len(results)} pictures, none of which can be read", _NPZ_ACCEPTED)
    if labels is not None and labels.shape == (len(results),):
        labels = labels[kept]
    images, converted = stack([item for item in results if isinstance(item, Decoded)], path)
    made = _images(path, content, images, labels, names, None, _NPZ_ACCEPTED)
    skipped = len(results) - len(kept)
    return Images(made.images, made.labels, made.classes, made.source, skipped, converted)


def npz_arrays(content: bytes, path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of those names that the bytes of an .npz file hold.

    Raises:
        DataError: If one holds objects, or promises more than the file holds; other exceptions on
            broken bytes are the caller's to turn.
    """
    import numpy as np
    from numpy.lib import format as npy

    arrays, total = {}, 0
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in names:
            if f"{name}.npy" not in archive.namelist():
                continue
            member = archive.getinfo(f"{name}.npy")
            total += member.file_size
            if total > MAX_DECODED_BYTES:
                raise DataError(path, f"{total:,} bytes when unpacked", _NPZ_ACCEPTED)
            with archive.open(member) as stream:
                version = npy.read_magic(stream)
                if version not in ((1, 0), (2, 0)):
                    raise DataError(path, f"{name} in .npy version {version}", _NPZ_ACCEPTED)
                read = npy.read_array_header_1_0 if version[0] == 1 else npy.read_array_header_2_0
                shape, fortran, dtype = read(stream)
                if dtype.hasobject:
                    raise DataError(path, f"objects (a pickle) in {name}", _NPZ_ACCEPTED)
                # The whole rest is read, so that the archive's checksum is verified.
                body = stream.read()
            if math.prod(shape) * dtype.itemsize != len(body):
                found = f"{name}: {len(body)} bytes, not an array {shape} of {dtype}"
                raise DataError(path, found, _NPZ_ACCEPTED)
            array = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
            arrays[name] = array
    return arrays


def _images(
    path: Path,
    content: bytes,
    pixels: np.ndarray,
    labels: np.ndarray | None,
    classes: tuple[str, ...] | None,
    size: tuple[int, int] | None,
    accepted: str,
) -> Images:
    """Checks arrays of pictures and labels that came out of one file, and resizes."""
    import numpy as np

    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or not pixels.size:
        raise DataError(path, f"pictures of shape {pixels.shape}", accepted)
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            found = f"pixels from {pixels.min()} to {pixels.max()}"
            raise DataError(path, found, "finite values in [0, 1]")
        pixels = pixels.astype(np.float32)
    elif pixels.dtype != np.uint8:
        raise DataError(path, f"pixels of type {pixels.dtype}", accepted)
    if size is not None and size != pixels.shape[1:3]:
        if pixels.dtype != np.uint8:
            found = f"float pictures of {pixels.shape[1]} x {pixels.shape[2]}"
            raise DataError(path, found, "uint8 pictures, where a size= is asked for")
        grey = pixels.shape[3] == 1
        resized = [fit(image[..., 0] if grey else image, size) for image in pixels]
        pixels = np.stack(resized).reshape(len(pixels), *size, -1)
    source = user_source(path, sha256(content))
    if labels is None:
        return Images(pixels, None, None, source)
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        found = f"labels of type {labels.dtype} and shape {labels.shape} for {len(pixels)} pictures"
        raise DataError(path, found, "one whole number for each picture")
    low, high = int(labels.min()), int(labels.max())
    limit = len(classes) if classes is not None else 100_000
    if low < 0 or high >= limit:
        raise DataError(path, f"labels from {low} to {high}", f"labels from 0 to {limit - 1}")
    names = tuple(str(n) for n in range(high + 1)) if classes is None else classes
    return Images(pixels, labels.astype(np.int64), names, source)
