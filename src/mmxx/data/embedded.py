"""Data that ship inside the dependencies. Nothing is ever downloaded.

The files are read where the packages are installed, without importing these packages: their own
loaders would fetch what is missing, and take seconds to import.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from mmxx.data.image_files import Image, Images, decode, to_unit
from mmxx.data.source import DataError, Source, read_bytes, sha256
from mmxx.data.tables import Table, decimal_years, parse_table
from mmxx.data.text import Text

if TYPE_CHECKING:
    import numpy as np

_SKIMAGE = ("skimage", "scikit-image", "data", "torch")
_SKLEARN = ("sklearn", "scikit-learn", "datasets/images", "torch")
_MATPLOTLIB = ("matplotlib", "matplotlib", "mpl-data/sample_data", "torch")
_NOT_STATED = "not stated (ships in scikit-image)"
_NO_RESTRICTIONS = "no known copyright restrictions"
# name: (package, file, licence, of whom)
_PHOTOS = {
    "astronaut": (_SKIMAGE, "astronaut.png", "public domain", "NASA"),
    "brick": (_SKIMAGE, "brick.png", "CC0", "CC0Textures"),
    "camera": (_SKIMAGE, "camera.png", "CC0", "Lav Varshney"),
    "cell": (_SKIMAGE, "cell.png", "CC0", "Paul Müller and others"),
    "chelsea": (_SKIMAGE, "chelsea.png", "CC0", "Stéfan van der Walt"),
    "china": (_SKLEARN, "china.jpg", "CC BY 2.0", "danielbuechele on flickr"),
    "coffee": (_SKIMAGE, "coffee.png", "CC0", "Rachel Michetti"),
    "coins": (_SKIMAGE, "coins.png", _NO_RESTRICTIONS, "Brooklyn Museum"),
    "flower": (_SKLEARN, "flower.jpg", "CC BY 2.0", "vultilion on flickr"),
    "grace_hopper": (_MATPLOTLIB, "grace_hopper.jpg", "public domain", "US Navy"),
    "grass": (_SKIMAGE, "grass.png", "CC0", "CC0Textures"),
    "gravel": (_SKIMAGE, "gravel.png", "CC0", "CC0Textures"),
    "hubble_deep_field": (_SKIMAGE, "hubble_deep_field.jpg", "public domain", "NASA"),
    "ihc": (_SKIMAGE, "ihc.png", _NO_RESTRICTIONS, "CMMI"),
    "microaneurysms": (_SKIMAGE, "microaneurysms.png", "CC0", "Andreas Maier"),
    "moon": (_SKIMAGE, "moon.png", _NOT_STATED, "the authors of scikit-image"),
    "motorcycle_left": (_SKIMAGE, "motorcycle_left.png", _NOT_STATED, "Middlebury stereo 2014"),
    "motorcycle_right": (_SKIMAGE, "motorcycle_right.png", _NOT_STATED, "Middlebury stereo 2014"),
    "page": (_SKIMAGE, "page.png", _NOT_STATED, "the authors of scikit-image"),
    "retina": (_SKIMAGE, "retina.jpg", "CC0", "Mikael Häggström"),
    "rocket": (_SKIMAGE, "rocket.jpg", "public domain", "SpaceX"),
    "text": (_SKIMAGE, "text.png", "public domain", "Wikipedia, Corner.png"),
}


def _shipped(module: str, package: str, file: str, extra: str, what: str) -> tuple[Path, bytes]:
    """A file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{what} needs {package}: pip install 'mmxx[{extra}]'", name=module
        )
    path = Path(spec.submodule_search_locations[0], file)
    return path, read_bytes(path, f"{what} as {package} ships it")


def photos() -> tuple[str, ...]:
    """Names of the pictures that `photo` knows, sorted.

    Example:
        >>> photos()[:3]
        ('astronaut', 'brick', 'camera')
    """
    return tuple(_PHOTOS)


def photo(name: str) -> Image:
    """A picture that ships inside scikit-image, scikit-learn or matplotlib.

    Args:
        name: One of `photos`.

    Returns:
        The `Image`: float32 in [0, 1], [H, W] or [H, W, 3]. ``source.sha256`` is that of the
        file; decoders differ in the last bit of a JPEG (china, flower, grace_hopper,
        hubble_deep_field, retina, rocket), so pixels of these are not the same everywhere.

    Raises:
        ValueError: If the name is unknown.
        ModuleNotFoundError: If the package is not installed; it names the extra.

    Example:
        >>> photo("camera").pixels.shape
        (512, 512)
    """
    if name not in _PHOTOS:
        raise ValueError(f"name: {name!r}; accepted: {', '.join(_PHOTOS)}")
    (module, package, folder, extra), file, licence, author = _PHOTOS[name]
    path, content = _shipped(module, package, f"{folder}/{file}", extra, f"photo({name!r})")
    origin = f"{file}, by {author}, from {package}"
    source = Source(name, licence, origin, sha256(content))
    return Image(to_unit(decode(content, path).pixels), source)


def digits() -> tuple[Images, Images]:
    """The 1,797 handwritten digits of 8 by 8 pixels that ship inside scikit-learn.

    Of each class every fifth in the file's order is a test picture.

    Returns:
        (train, test): 1,433 and 364 `Images`, float32 [N, 8, 8, 1] in [0, 1] (grey levels 0..16
        divided by 16), labels 0..9.

    Raises:
        ModuleNotFoundError: If scikit-learn is not installed; it names the extra.

    Example:
        >>> train, test = digits()
        >>> train.images.shape
        (1433, 8, 8, 1)
    """
    import numpy as np

    file = "datasets/data/digits.csv.gz"
    path, content = _shipped("sklearn", "scikit-learn", file, "torch", "digits()")
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", ndmin=2)
    if table.shape != (1797, 65):
        raise DataError(path, f"a table of {table.shape}", "1797 rows of 64 pixels and a label")
    source = Source(
        "digits",
        "CC BY 4.0",
        "E. Alpaydin and C. Kaynak, UCI Optical Recognition of Handwritten Digits, from "
        "scikit-learn",
        sha256(content),
    )
    images = (table[:, :64] / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = table[:, 64].astype(np.int64)
    occurrence = np.empty_like(labels)
    for label in range(10):
        where = labels == label
        occurrence[where] = np.arange(where.sum())
    test = occurrence % 5 == 0
    return _part(images, labels, ~test, source), _part(images, labels, test, source)


def _part(images: np.ndarray, labels: np.ndarray, where: np.ndarray, source: Source) -> Images:
    return Images(images[where], labels[where], tuple("0123456789"), source)


def doc_text() -> Text:
    """The help topics of this Python (``pydoc_data.topics``), sorted by name, joined by newlines.

    About 465,000 characters of technical English. They change with every release of Python, so
    the source's sha256 is a record and never the same everywhere.

    Example:
        >>> len(doc_text().text) > 300_000
        True
    """
    import platform
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    origin = f"pydoc_data.topics of Python {platform.python_version()}"
    return Text(text, Source("doc_text", "PSF-2.0", origin, sha256(text.encode())))


def co2() -> Table:
    """Weekly carbon dioxide in the air of Mauna Loa, 1958 to 2001, from statsmodels.

    Returns:
        `Table` with ``year`` (with decimals) and ``co2`` (parts per million by volume; nan in the
        59 weeks without a value), 2,284 rows.

    Raises:
        ModuleNotFoundError: If statsmodels is not installed; it names the extra.
    """
    file = "datasets/co2/co2.csv"
    path, content = _shipped("statsmodels", "statsmodels", file, "series", "co2()")
    source = Source(
        "co2",
        "public domain",
        "C. D. Keeling and T. P. Whorf, Scripps Institution of Oceanography, from statsmodels",
        sha256(content),
    )
    table = parse_table(content, path, source)
    days = [f"{day:.0f}" for day in table["date"]]
    return Table(("year", "co2"), (decimal_years(days), table["co2"]), source)


def elnino() -> Table:
    """Monthly sea surface temperature of the eastern tropical Pacific, 1950 to 2010.

    Region Nino 1+2 (0 to 10 degrees south, 90 to 80 degrees west), from statsmodels.

    Returns:
        `Table` with ``year`` (the middle of the month, with decimals) and ``temperature``
        (degrees Celsius), 732 rows.

    Raises:
        ModuleNotFoundError: If statsmodels is not installed; it names the extra.
    """
    import numpy as np

    file = "datasets/elnino/elnino.csv"
    path, content = _shipped("statsmodels", "statsmodels", file, "series", "elnino()")
    source = Source("elnino", "public domain", "NOAA, ERSST.V3B, from statsmodels", sha256(content))
    months = parse_table(content, path, source).matrix()
    years = months[:, :1] + (np.arange(12) + 0.5) / 12
    return Table(("year", "temperature"), (years.ravel(), months[:, 1:].ravel()), source)
