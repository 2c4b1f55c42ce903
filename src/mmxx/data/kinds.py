"""`load`: a file of the user, whatever it is."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from mmxx.data import image_arrays, image_files
from mmxx.data.audio import Audio, read_audio
from mmxx.data.graph_files import read_tu
from mmxx.data.graphs import Graphs
from mmxx.data.image_files import Image, Images
from mmxx.data.meshes import Mesh, PointCloud, read_mesh
from mmxx.data.source import DataError, Decoding
from mmxx.data.tables import Table, read_table
from mmxx.data.text import Text, read_text

if TYPE_CHECKING:
    Data = Image | Images | Table | Audio | Text | Mesh | PointCloud | Graphs

_SUFFIXES = {
    "image": image_files.SUFFIXES,
    "images": (".npz",),
    "table": (".csv", ".tsv", ".dat", ".txt"),
    "audio": (".wav",),
    "text": (".txt",),
    "mesh": (".ply", ".obj"),
    "points": (".xyz", ".ply", ".obj"),
    "graphs": (".zip",),
}
KINDS = tuple(_SUFFIXES)
"""The kinds that `load` knows."""
_WORDS = {
    "image": "a picture",
    "images": "a set of pictures",
    "table": "a table",
    "audio": "sound",
    "text": "text",
    "mesh": "a mesh",
    "points": "points",
    "graphs": "graphs in the TU format",
}


def load(
    path: str | PathLike[str],
    kinds: Iterable[str] = KINDS,
    *,
    size: int | tuple[int, int] | None = None,
) -> Data:
    """Reads a file or folder of the user.

    The name decides what it is: a folder is "images" (`read_images`) or "graphs" (`read_tu`),
    whichever ``kinds`` names first, an IDX or .npz file "images", a .zip "graphs", a picture
    "image" (`read_image`), .csv .tsv .dat "table" (`read_table`), .wav "audio" (`read_audio`),
    .txt "text" (`read_text`) or "table", whichever ``kinds`` names first, .ply and .obj "mesh" or
    "points", whichever is in the file, .xyz "points" (`read_mesh`).

    Args:
        path: The file or folder.
        kinds: What the caller can use, some of `KINDS`.
        size: For "images": the side, or (height, width), to bring them to.

    Returns:
        `Image`, `Images`, `Table`, `Audio`, `Text`, `Mesh`, `PointCloud` or `Graphs`; its
        ``kind`` is one of ``kinds``, its ``source`` names the path and the sha256 of the file.

    Raises:
        DataError: If the file is missing, empty, truncated or corrupt, or of another kind; it
            says what was found and what is accepted.
        ValueError: If ``kinds`` names something unknown, or ``size`` is out of range.
    """
    wanted = tuple(dict.fromkeys(kinds))
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown or not wanted:
        raise ValueError(f"kinds: {unknown or 'none'}; accepted: some of {', '.join(KINDS)}")
    path = Path(path)
    accepted = ", ".join(map(_described, wanted))
    with Decoding(path, accepted):
        if not path.exists():
            raise DataError(path, "no such file or folder", accepted)
        possible = _possible(path)
    chosen = next((kind for kind in wanted if kind in possible), None)
    if chosen is None:
        what = "a folder" if path.is_dir() else " or ".join(_WORDS[kind] for kind in possible)
        raise DataError(path, what or f"a file named {path.name}", accepted)
    loaded = _read(path, chosen, size)
    if loaded.kind not in wanted:
        raise DataError(path, _WORDS[loaded.kind], accepted)
    return loaded


def _described(kind: str) -> str:
    shapes = {
        "images": "a folder, IDX (…-ubyte, …-ubyte.gz, .idx), ",
        "graphs": "a folder, ",
    }.get(kind, "")
    return f"{_WORDS[kind]} ({shapes}{' '.join(_SUFFIXES[kind])})"


def _possible(path: Path) -> tuple[str, ...]:
    """The kinds that a file or folder of this name may be."""
    if path.is_dir():
        return ("images", "graphs")
    if image_arrays.is_idx(path):
        return ("images",)
    return tuple(kind for kind in KINDS if path.name.lower().endswith(_SUFFIXES[kind]))


def _read(path: Path, kind: str, size: int | tuple[int, int] | None) -> Data:
    match kind:
        case "image":
            return image_files.read_image(path)
        case "images":
            return image_arrays.read_images(path, size=size)
        case "audio":
            return read_audio(path)
        case "graphs":
            return read_tu(path)
        case "text":
            return read_text(path)
        case "table":
            table = read_table(path)
            if path.suffix.lower() == ".txt" and not table.numeric:
                raise DataError(path, "text without a column of numbers", "a table of numbers")
            return table
        case _:
            return read_mesh(path)
