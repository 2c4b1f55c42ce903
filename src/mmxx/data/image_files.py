"""Pictures: one, or a folder of them. Pillow decodes."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, NoReturn

from mmxx.data.source import (
    MAX_DECODED_BYTES,
    DataError,
    Decoding,
    Source,
    read_bytes,
    sha256,
    user_source,
)

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
MAX_PIXELS = 2**26
"""A picture of more pixels (8,192 by 8,192) is refused before it is decoded."""
# Not every decoder of Pillow: some start other programs (EPS) or are hardly used and hardly tested.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_ACCEPTED = f"a picture ({' '.join(SUFFIXES)}) of at most {MAX_PIXELS:,} pixels"
ACCEPTED_FOLDER = "a folder of pictures, or of one sub-folder of pictures for each class"
_CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A picture.

    Attributes:
        pixels: float32 in [0, 1], [H, W] if grey, [H, W, 3] (red, green, blue) if not.
        source: Where it comes from.
    """

    kind: ClassVar[str] = "image"
    pixels: np.ndarray
    source: Source


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Pictures of one size, with labels where there are any.

    Attributes:
        images: uint8 in 0..255, or float32 ([0, 1] unless the maker says otherwise), [N, H, W, C]
            with C = 1 (grey) or 3.
        labels: int64 [N] in 0..len(classes)-1, or None.
        classes: Name of each class, or None where there are no labels.
        source: Where they come from.
        skipped: Number of corrupt files that were left out.
        converted: Number of pictures whose pixels had to be converted: palette, transparency, 16
            bits, another colour space, or grey among coloured ones.
    """

    kind: ClassVar[str] = "images"
    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    source: Source
    skipped: int = 0
    converted: int = 0

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.images)

    def as_float(self) -> np.ndarray:
        """The pictures as float32 [N, H, W, C]; bytes are divided by 255."""
        if self.images.dtype.kind == "f":
            return self.images.astype("float32", copy=False)
        return self.images.astype("float32") / 255


class Decoded(NamedTuple):
    """A decoded picture: uint8, uint16 or float32 pixels [H, W] or [H, W, 3], and what it was."""

    pixels: np.ndarray
    converted: bool
    transparent: bool


def decode(content: bytes, path: object) -> Decoded:
    """Decodes the bytes of a picture: its first frame, turned upright as its EXIF data say.

    A palette, CMYK and the like become RGB; transparency is composited on white.

    Raises:
        DataError: If the bytes are no whole picture of the formats accepted, or it is too large.
    """
    import numpy as np
    from PIL import Image as Pillow
    from PIL import ImageOps

    with Decoding(path, _ACCEPTED), Pillow.open(io.BytesIO(content), formats=_FORMATS) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise DataError(path, f"{opened.width} x {opened.height} pixels", _ACCEPTED)
        picture = ImageOps.exif_transpose(opened)
        mode, grey = picture.mode, picture.mode in ("1", "L", "LA", "La")
        if mode.startswith("I") or mode == "F":
            return Decoded(_deep(np.asarray(picture), mode, path), True, False)
        transparent = False
        alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
        if alpha:
            # Straight RGBA is reached from all of these; "La" and "RGBa" only by way of it.
            picture = picture.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGBA")
            transparent = picture.getchannel("A").getextrema() != (255, 255)
            picture = Pillow.alpha_composite(Pillow.new("RGBA", picture.size, "white"), picture)
        pixels = np.array(picture.convert("L" if grey and not alpha else "RGB"))
        pixels = pixels[..., 0] if grey and alpha else pixels
        return Decoded(pixels, alpha or mode not in ("L", "RGB"), transparent)


def _deep(pixels: np.ndarray, mode: str, path: object) -> np.ndarray:
    """Grey pictures of more than 8 bits: whole numbers as uint16, others as float32 in [0, 1]."""
    import numpy as np

    low, high = pixels.min(), pixels.max()
    top = 1 if mode == "F" else 65535
    if not (low >= 0 and high <= top):
        raise DataError(path, f"grey values from {low} to {high}", f"values from 0 to {top}")
    return pixels.astype(np.float32 if mode == "F" else np.uint16)


def read_image(path: str | PathLike[str]) -> Image:
    """Reads one picture: its first frame, turned upright as its EXIF data say.

    Args:
        path: A PNG, JPEG, BMP, GIF, TIFF, WebP or PNM file. Grey is read at 8 or 16 bits, colour
            at 8 (Pillow reduces 16-bit colour). Palettes, CMYK and the like become RGB. Where it
            is transparent it is composited on white, with a warning; opaque alpha is dropped.

    Returns:
        The `Image`.

    Raises:
        DataError: If the file is missing, empty, truncated, corrupt, no such picture, or of more
            than 8,192 by 8,192 pixels.
    """
    path = Path(path)
    content = read_bytes(path, _ACCEPTED)
    decoded = decode(content, path)
    if decoded.transparent:
        warnings.warn(f"{path}: transparent pixels are composited on white", stacklevel=2)
    return Image(to_unit(decoded.pixels), user_source(path, sha256(content)))


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """uint8 and uint16 pixels as float32 in [0, 1]; float32 as it is."""
    if pixels.dtype.kind == "f":
        return pixels
    return pixels.astype("float32") / (255 if pixels.dtype.itemsize == 1 else 65535)


def target_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """``size`` as (height, width).

    Raises:
        ValueError: If it is neither a side nor (height, width), each at least 1.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else size
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise ValueError(f"size: {size!r}; accepted: a side in pixels or (height, width)")
    return pair


def fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle part, of the shape of ``size``, of a uint8 picture [H, W] or [H, W, 3], resized.

    Bicubic with antialiasing.
    """
    import numpy as np
    from PIL import Image as Pillow
    from PIL import ImageOps

    if pixels.shape[:2] == size:
        return pixels
    picture = Pillow.fromarray(np.ascontiguousarray(pixels))
    return np.array(ImageOps.fit(picture, (size[1], size[0]), Pillow.Resampling.BICUBIC))


def decode_all(
    contents: Iterator[tuple[object, bytes]] | Sequence[tuple[object, bytes]],
    size: tuple[int, int] | None,
) -> Iterator[Decoded | DataError]:
    """Decodes pictures on worker threads, in order, as uint8; a corrupt one gives its error.

    Raises:
        DataError: If all together would take more than `MAX_DECODED_BYTES`.
    """
    total, pending = 0, iter(contents)

    def work(item: tuple[object, bytes]) -> Decoded | DataError:
        try:
            pixels, converted, transparent = decode(item[1], item[0])
        except DataError as error:
            return error
        if pixels.dtype != "uint8":
            pixels = (to_unit(pixels) * 255 + 0.5).astype("uint8")
        return Decoded(pixels if size is None else fit(pixels, size), converted, transparent)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(pending, _CHUNK)):
            for (path, _), result in zip(chunk, pool.map(work, chunk), strict=True):
                if isinstance(result, Decoded):
                    total += result.pixels.nbytes
                    if total > MAX_DECODED_BYTES:
                        found = f"more than {MAX_DECODED_BYTES:,} bytes of pixels so far"
                        raise DataError(path, found, "fewer pictures, or a smaller size=")
                yield result


def stack(decoded: Sequence[Decoded], path: object) -> tuple[np.ndarray, int]:
    """Pictures as one array uint8 [N, H, W, C], and how many of them had to be converted.

    Raises:
        DataError: If they differ in height or width.
    """
    import numpy as np

    sizes = {item.pixels.shape[:2] for item in decoded}
    if len(sizes) > 1:
        some = ", ".join(f"{width} x {height}" for height, width in sorted(sizes)[:3])
        found = f"pictures of {len(sizes)} sizes ({some}{', ...' if len(sizes) > 3 else ''})"
        raise DataError(path, found, "pictures of one size, or a size= to bring them to")
    colour = any(item.pixels.ndim == 3 for item in decoded)
    height, width = next(iter(sizes))
    images = np.empty((len(decoded), height, width, 3 if colour else 1), dtype=np.uint8)
    for image, item in zip(images, decoded, strict=True):
        image[:] = item.pixels if item.pixels.ndim == 3 else item.pixels[..., None]
    greys = sum(item.pixels.ndim == 2 and not item.converted for item in decoded) if colour else 0
    return images, greys + sum(item.converted for item in decoded)


def read_folder(folder: Path, size: tuple[int, int] | None) -> Images:
    """The pictures of a folder; see `mmxx.data.image_arrays.read_images`."""
    files = _listing(folder)
    digest = hashlib.sha256()

    def contents() -> Iterator[tuple[object, bytes]]:
        for _, file in files:
            try:
                content = read_bytes(file, _ACCEPTED)
            except DataError:
                content = b""  # no picture either: it is left out and counted
            digest.update(f"{file.relative_to(folder).as_posix()}\n{sha256(content)}\n".encode())
            yield file, content

    results = list(decode_all(contents(), size))
    decoded = [item for item in results if isinstance(item, Decoded)]
    if not decoded:
        found = f"{len(results)} files named like pictures, none of which can be read"
        raise DataError(folder, found, ACCEPTED_FOLDER)
    images, converted = stack(decoded, folder)
    classes = tuple(sorted({name for name, _ in files if name is not None}))
    labels = None
    if classes:
        import numpy as np

        index = {name: number for number, name in enumerate(classes)}
        kept = [
            index[name]
            for (name, _), item in zip(files, results, strict=True)
            if name is not None and isinstance(item, Decoded)
        ]
        labels = np.array(kept, dtype=np.int64)
    source = user_source(folder, digest.hexdigest())
    skipped = len(results) - len(decoded)
    return Images(images, labels, classes or None, source, skipped, converted)


def _fail(error: OSError) -> NoReturn:
    """For `os.walk`, which leaves out what it cannot list unless told otherwise."""
    raise error


def _listing(folder: Path) -> list[tuple[str | None, Path]]:
    """(class or None, file) of each picture, sorted.

    Hidden files and folders are left out, links to folders not followed (they may lead back).
    """
    files: list[tuple[str | None, Path]] = []
    with Decoding(folder, ACCEPTED_FOLDER):
        for place, folders, names in os.walk(folder, onerror=_fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(place).relative_to(folder).parts
            files.extend(
                (inside[0] if inside else None, Path(place, name))
                for name in sorted(names)
                if name.lower().endswith(SUFFIXES) and not name.startswith(".")
            )
    if not files:
        raise DataError(folder, "a folder without pictures", ACCEPTED_FOLDER)
    loose = sum(name is None for name, _ in files)
    if 0 < loose < len(files):
        found = f"{loose} pictures in the folder itself and {len(files) - loose} in sub-folders"
        raise DataError(folder, found, ACCEPTED_FOLDER)
    return files
