"""Sets of graphs in the TU format: a folder or zip of text files ``NAME_A.txt``, …"""

from __future__ import annotations

import io
import re
import zipfile
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mmxx.data.graphs import Graphs, assemble
from mmxx.data.source import (
    MAX_DECODED_BYTES,
    DataError,
    Decoding,
    Source,
    read_bytes,
    sha256,
    user_source,
)
from mmxx.data.text import decode

if TYPE_CHECKING:
    import numpy as np

_ACCEPTED = (
    "a folder or .zip of one set of graphs in the TU format: NAME_A.txt, NAME_graph_indicator.txt "
    "and NAME_graph_labels.txt (or NAME_graph_attributes.txt), perhaps NAME_node_labels.txt, "
    "NAME_node_attributes.txt, NAME_edge_labels.txt and NAME_edge_attributes.txt"
)
_NEEDED = ("A", "graph_indicator")
_INTEGERS = ("A", "graph_indicator", "graph_labels", "node_labels", "edge_labels")
_NUMBERS = ("graph_attributes", "node_attributes", "edge_attributes")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_tu(path: str | PathLike[str]) -> Graphs:
    """Reads a set of graphs in the TU format.

    Args:
        path: A folder, or a .zip, which is read in memory and never unpacked to disk. Nodes and
            graphs are counted from 1 in the files; labels are kept as they are.

    Returns:
        `Graphs`; ``targets`` are the graph labels, or the first graph attribute of a set without
        labels. The source's sha256 is that of the zip; for a folder, of the sorted lines of the
        names and digests of the files read.

    Raises:
        DataError: A file is missing, cut short, too large or no table of numbers; numbers of
            lines do not fit; an edge leads from one graph to another or to a node that is not
            there; a graph has no nodes; a zip names a path outside of itself.
    """
    path = Path(path)
    with Decoding(path, _ACCEPTED):
        if not path.exists():
            raise DataError(path, "no such file or folder", _ACCEPTED)
        contents, digest = _from_folder(path) if path.is_dir() else _from_zip(path)
        tables = {part: _table(path, part, content) for part, content in contents.items()}
        return _built(path, tables, user_source(path, digest))


def _parts_of(path: Path, names: list[str]) -> dict[str, str]:
    """The files by what they hold, ``{"A": "dir/NAME_A.txt", …}``."""
    sets = sorted(name.removesuffix("_A.txt") for name in names if name.endswith("_A.txt"))
    if not sets:
        raise DataError(path, "no file NAME_A.txt", _ACCEPTED)
    if len(sets) > 1:
        raise DataError(path, f"{len(sets)} sets of graphs: {', '.join(sets)}", "one set")
    there = {
        part: name for part in (*_INTEGERS, *_NUMBERS) if (name := f"{sets[0]}_{part}.txt") in names
    }
    missing = [part for part in _NEEDED if part not in there]
    if "graph_labels" not in there and "graph_attributes" not in there:
        missing.append("graph_labels")
    if missing:
        lacking = ", ".join(f"{PurePosixPath(sets[0]).name}_{part}.txt" for part in missing)
        raise DataError(path, f"{lacking} missing", _ACCEPTED)
    return there


def _from_folder(path: Path) -> tuple[dict[str, bytes], str]:
    files = {file.name: file for file in path.iterdir() if file.is_file()}
    nested = [child for child in path.iterdir() if child.is_dir()]
    if not any(name.endswith("_A.txt") for name in files) and len(nested) == 1:
        return _from_folder(nested[0])  # as a zip unpacks
    contents = {
        part: read_bytes(files[name], _ACCEPTED)
        for part, name in _parts_of(path, sorted(files)).items()
    }
    lines = sorted(f"{part} {sha256(content)}" for part, content in contents.items())
    return contents, sha256("\n".join(lines).encode())


def _from_zip(path: Path) -> tuple[dict[str, bytes], str]:
    content = read_bytes(path, _ACCEPTED)
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DataError(path, "no zip file", _ACCEPTED)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        for name in members:
            if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "\\" in name:
                raise DataError(path, f"the path {name!r}, which leads outside", "paths inside")
        wanted = _parts_of(path, sorted(members))
        size = sum(members[name].file_size for name in wanted.values())
        if size > MAX_DECODED_BYTES:
            raise DataError(path, f"{size:,} bytes unpacked", f"at most {MAX_DECODED_BYTES:,}")
        found = {}
        for part, name in wanted.items():
            with archive.open(name) as member:  # no more than it says it holds
                found[part] = member.read(members[name].file_size)
    return found, sha256(content)


def _table(path: Path, part: str, content: bytes) -> np.ndarray:
    """The numbers of one file, [lines, columns]."""
    import numpy as np

    text = decode(content, f"{path}, {part}", "UTF-8 text")
    if not text.strip():
        return np.zeros((0, 2 if part == "A" else 1), dtype=np.int64)
    kind = np.int64 if part in _INTEGERS else np.float64
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", dtype=kind, ndmin=2, comments=None)
    except ValueError as error:
        what = "integers" if kind is np.int64 else "numbers"
        raise DataError(f"{path}, {part}", str(error), f"{what} parted by commas") from None


def _built(path: Path, tables: dict[str, np.ndarray], source: Source) -> Graphs:
    import numpy as np

    def refuse(found: str, accepted: str) -> DataError:
        return DataError(path, found, accepted)

    indicator = tables["graph_indicator"][:, 0]
    nodes = len(indicator)
    what = "graph_labels" if "graph_labels" in tables else "graph_attributes"
    targets = tables[what][:, 0]
    count = len(targets)
    if not nodes or indicator.min() < 1 or indicator.max() > count:
        span = f"{indicator.min()} to {indicator.max()}" if nodes else "no"
        raise refuse(f"graph_indicator names {span} graphs, {what} {count}", f"1 to {count}")
    sizes = np.bincount(indicator - 1, minlength=count)
    if not sizes.all():
        raise refuse(f"graph {sizes.argmin() + 1} without nodes", "nodes in every graph")
    edges = tables["A"]
    if edges.shape[1] != 2:
        raise refuse(f"A with {edges.shape[1]} columns", "source and target")
    for part, table in tables.items():
        rows = {"node": nodes, "edge": len(edges)}.get(part.partition("_")[0])
        if rows is not None and len(table) != rows:
            raise refuse(f"{len(table)} lines of {part}", f"{rows}")
        if part.endswith("_labels") and table.shape[1] != 1:
            raise refuse(f"{part} with {table.shape[1]} columns", "one label a line")
    if len(edges) and (edges.min() < 1 or edges.max() > nodes):
        wrong = edges[(edges < 1) | (edges > nodes)][0]
        raise refuse(f"an edge to node {wrong}, which is missing", f"nodes 1 to {nodes}")
    ends = indicator[edges - 1]
    if (ends[:, 0] != ends[:, 1]).any():
        line = int((ends[:, 0] != ends[:, 1]).argmax())
        raise refuse(f"line {line + 1} of A joins two graphs", "edges inside of a graph")
    return _cut(tables, indicator, sizes, targets, source)


def _cut(
    tables: dict[str, np.ndarray],
    indicator: np.ndarray,
    sizes: np.ndarray,
    targets: np.ndarray,
    source: Source,
) -> Graphs:
    """Graph by graph what the files hold end to end, in any order."""
    import numpy as np

    order = np.argsort(indicator, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    edges = tables["A"] - 1
    owner = indicator[edges[:, 0]] - 1
    by_graph = np.argsort(owner, kind="stable")
    node_cuts = np.cumsum(sizes)[:-1]
    edge_cuts = np.cumsum(np.bincount(owner, minlength=len(sizes)))[:-1]

    def of_nodes(name: str) -> list[Any]:
        table = tables.get(name)
        return [None] * len(sizes) if table is None else np.split(table[order], node_cuts)

    def of_edges(name: str) -> list[Any]:
        table = tables.get(name)
        return [None] * len(sizes) if table is None else np.split(table[by_graph], edge_cuts)

    pieces = zip(
        sizes.tolist(),
        np.split(place[edges][by_graph], edge_cuts),
        of_nodes("node_attributes"),
        of_nodes("node_labels"),
        of_edges("edge_attributes"),
        of_edges("edge_labels"),
        strict=True,
    )
    parts = [
        (
            size,
            pairs.T,
            {
                "attributes": x,
                "node_labels": None if labels is None else labels[:, 0],
                "edge_attributes": e,
                "edge_labels": None if edge_labels is None else edge_labels[:, 0],
            },
        )
        for size, pairs, x, labels, e, edge_labels in pieces
    ]
    return assemble(parts, targets=targets, source=source)


def write_tu(graphs: Graphs, folder: str | PathLike[str]) -> None:
    """Writes graphs in the TU format, named after the folder; `read_tu` gives the same again.

    Args:
        graphs: Graphs with targets. Weights of edges have no place in the format; hand them in
            as edge attributes.
        folder: Is made where it is not there; files of these names are overwritten.

    Raises:
        ValueError: There are no targets, there are edge weights, or the folder's name is not made
            of letters, digits, ``.``, ``_`` and ``-``.
    """
    import numpy as np

    place = Path(folder)
    if not _NAME.fullmatch(place.name):
        raise ValueError(f"folder: the name {place.name!r}; accepted: letters, digits, . _ -")
    if graphs.targets is None or graphs.edge_weight is not None:
        what = "no targets" if graphs.targets is None else "edge weights"
        raise ValueError(f"graphs: {what}; accepted: targets, and no edge weights")
    labelled = graphs.targets.dtype.kind in "iu"
    columns: dict[str, Any] = {
        "A": graphs.edge_index.T + 1,
        "graph_indicator": graphs.owner + 1,
        "graph_labels" if labelled else "graph_attributes": graphs.targets,
        "node_attributes": graphs.attributes,
        "node_labels": graphs.node_labels,
        "edge_attributes": graphs.edge_attributes,
        "edge_labels": graphs.edge_labels,
    }
    place.mkdir(parents=True, exist_ok=True)
    for part, values in columns.items():
        if values is not None:
            rows = np.asarray(values).reshape(len(values), -1).tolist()
            text = "".join(", ".join(map(repr, row)) + "\n" for row in rows)
            (place / f"{place.name}_{part}.txt").write_text(text, encoding="utf-8")
