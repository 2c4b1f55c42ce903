"""Sets of small pictures cut from photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from mmxx.data.embedded import photo
from mmxx.data.image_files import Image, Images
from mmxx.data.source import Source, sha256

if TYPE_CHECKING:
    import numpy as np

_PATCH_CLASSES = (
    "astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "ihc", "moon", "page", "rocket", "china", "flower",
)  # fmt: skip


def patches(
    sources: Mapping[str, Image],
    size: int,
    per_class: tuple[int, int],
    *,
    split: Literal["halves", "cells"] = "cells",
    levels: int | None = None,
    random_state: int | np.random.Generator | None = None,
    name: str = "patches",
) -> tuple[Images, Images]:
    """Grey square patches of pictures; the picture that a patch is cut from is its class.

    Args:
        sources: The pictures by class name; colour becomes luma (.2125 R + .7154 G + .0721 B).
        size: Side of a patch in pixels.
        per_class: Number of (training, test) patches cut from each picture.
        split: How training and test patches are kept apart, so that no pixel is in both:
            "halves" takes them from the left and the right half of the picture; "cells" divides
            it into cells of twice the patch's side, deals these out at random in the proportion
            of ``per_class``, and cuts each patch inside one cell.
        levels: None standardises each patch to mean 0 and variance 1 (its deviation taken to be
            at least 1/255, so that flat patches stay flat); a number quantises [0, 1] to that
            many grey levels instead.
        random_state: Seed or generator of the draw.
        name: Name of the set in its source.

    Returns:
        (train, test), the classes in order, patches of a class in the order drawn:
        float32 [N, size, size, 1], standardised, or uint8 in 0..levels-1.

    Raises:
        ValueError: If an argument is out of range, or a picture too small.

    Example:
        >>> from mmxx.data import photo
        >>> train, test = patches({"coins": photo("coins")}, 8, (5, 2), random_state=0)
        >>> train.images.shape, test.images.shape
        ((5, 8, 8, 1), (2, 8, 8, 1))
    """
    import numpy as np

    if not sources:
        raise ValueError("sources: none given; accepted: at least one picture")
    if size < 1:
        raise ValueError(f"size: {size}; accepted: at least 1")
    if len(per_class) != 2 or min(per_class) < 1:
        raise ValueError(f"per_class: {per_class}; accepted: (training, test), each at least 1")
    if split not in ("halves", "cells"):
        raise ValueError(f"split: {split!r}; accepted: 'halves' or 'cells'")
    if levels is not None and not 2 <= levels <= 256:
        raise ValueError(f"levels: {levels}; accepted: None, or 2 to 256")
    rng = np.random.default_rng(random_state)
    cut: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label, picture in sources.items():
        grey = luma(picture.pixels)
        if split == "halves":
            parts = _halves(grey.shape, size)
        else:
            parts = _cells(grey.shape, size, per_class[1] / sum(per_class), rng)
        for part, regions, count in zip(cut, parts, per_class, strict=True):
            if not len(regions):
                raise ValueError(
                    f"sources: {label!r} of {grey.shape[0]} x {grey.shape[1]} pixels is too small "
                    f"for split={split!r} with patches of {size} x {size}"
                )
            part.append(_cut(grey, regions, size, count, rng))
    made = [_finish(np.concatenate(part), levels) for part in cut]
    origin = f"{size} x {size} patches of " + "; ".join(
        f"{label} ({picture.source.origin})" for label, picture in sources.items()
    )
    licence = "; ".join(sorted({picture.source.licence for picture in sources.values()}))
    source = Source(
        name, licence, origin, sha256(b"".join(array.tobytes() for array in made)), generated=True
    )
    train, test = (
        Images(array, np.repeat(np.arange(len(sources)), count), tuple(sources), source)
        for array, count in zip(made, per_class, strict=True)
    )
    return train, test


def luma(pixels: np.ndarray) -> np.ndarray:
    """A picture [H, W] or [H, W, 3] as grey [H, W], float32 (weights of ITU-R BT.709)."""
    import numpy as np

    if pixels.ndim == 2:
        return pixels.astype(np.float32, copy=False)
    return pixels @ np.array([0.2125, 0.7154, 0.0721], dtype=np.float32)


def _halves(shape: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions (top, left, height, width) of the left and of the right half."""
    import numpy as np

    height, middle = shape[0], shape[1] // 2
    if height < size or middle < size:
        return np.empty((0, 4), int), np.empty((0, 4), int)
    return (
        np.array([[0, 0, height, middle]]),
        np.array([[0, middle, height, shape[1] - middle]]),
    )


def _cells(
    shape: Sequence[int], size: int, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Regions of the training and of the test cells, at least one of each where there are two."""
    import numpy as np

    side = 2 * size
    rows, columns = shape[0] // side, shape[1] // side
    top, left = np.divmod(rng.permutation(rows * columns), max(columns, 1))
    side_column = np.full(len(top), side)
    cells = np.column_stack([top * side, left * side, side_column, side_column])
    tests = min(max(1, round(share * len(cells))), max(len(cells) - 1, 0))
    return cells[tests:], cells[:tests]


def _cut(
    grey: np.ndarray, regions: np.ndarray, size: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    import numpy as np

    top, left, height, width = regions[rng.integers(len(regions), size=count)].T
    top = top + rng.integers(height - size + 1)
    left = left + rng.integers(width - size + 1)
    span = np.arange(size)
    return grey[(top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None, :]]


def _finish(cut: np.ndarray, levels: int | None) -> np.ndarray:
    import numpy as np

    if levels is not None:
        quantised = np.minimum((cut * levels).astype(np.int64), levels - 1)
        return quantised.astype(np.uint8)[..., None]
    exact = cut.astype(np.float64)
    exact -= exact.mean((1, 2), keepdims=True)
    exact /= np.maximum(exact.std((1, 2), keepdims=True), 1 / 255)
    return exact.astype(np.float32)[..., None]


def photo_patches(
    per_class: tuple[int, int] = (200, 50), *, random_state: int | np.random.Generator = 0
) -> tuple[Images, Images]:
    """Which of 16 photographs is this patch from? A classification task of medium difficulty.

    16 by 16 grey patches of pictures that ship inside scikit-image and scikit-learn, each
    standardised; training and test patches come from disjoint 32 by 32 cells. A small
    convolutional network gets well below 100 % here, where it saturates on `digits`.

    Args:
        per_class: Number of (training, test) patches of each class.
        random_state: Seed or generator; the same seed gives the same patches.

    Returns:
        (train, test) `Images`, float32 [N, 16, 16, 1], standardised, with 16 classes.

    Raises:
        ModuleNotFoundError: If scikit-image or scikit-learn is not installed.
    """
    return patches(
        {name: photo(name) for name in _PATCH_CLASSES},
        16,
        per_class,
        random_state=random_state,
        name="photo_patches",
    )
