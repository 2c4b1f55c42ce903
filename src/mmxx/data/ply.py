"""The Stanford polygon format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmxx.data.source import DataError

if TYPE_CHECKING:
    import numpy as np

_ACCEPTED = "a whole PLY file, ASCII or binary, with x, y and z of each vertex"
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 2**16


class _Property(NamedTuple):
    name: str
    code: str
    """numpy's code of the value, or of a list's members."""
    length_code: str | None
    """numpy's code of a list's length; None for a single value."""


class _Element(NamedTuple):
    name: str
    rows: int
    properties: list[_Property]


class _Columns(NamedTuple):
    values: dict[str, np.ndarray]
    """Single values by property, [rows]."""
    lists: dict[str, tuple[np.ndarray, np.ndarray]]
    """(members end to end, lengths int64 [rows]) by property."""


def read_ply(
    content: bytes, path: Path
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Points, normals, the faces' corners end to end and their sizes, from the bytes of a file.

    Raises:
        DataError: If the header cannot be used, or the body is not what it promises; other
            exceptions on broken bytes are the caller's to turn.
    """
    import numpy as np

    order, elements, body = _header(content, path)
    if order is None:
        # From here on an ASCII body is a binary one in which every number is a double.
        body = np.array(body.split(), dtype=np.bytes_).astype("<f8").tobytes()
        elements = [
            element._replace(
                properties=[
                    item._replace(code="f8", length_code=item.length_code and "f8")
                    for item in element.properties
                ]
            )
            for element in elements
        ]
    reader = _Body(body, order or "<", path)
    found = {element.name: reader.read(element) for element in elements}
    if reader.left:
        raise DataError(path, "more data after the last element", _ACCEPTED)
    vertex = found.get("vertex", _Columns({}, {})).values
    if not {"x", "y", "z"} <= vertex.keys():
        raise DataError(path, "vertices without x, y and z", _ACCEPTED)
    points = np.column_stack([vertex[axis] for axis in "xyz"]).astype(np.float64)
    normals = None
    if {"nx", "ny", "nz"} <= vertex.keys():
        normals = np.column_stack([vertex[axis] for axis in ("nx", "ny", "nz")]).astype(np.float64)
    lists = found.get("face", _Columns({}, {})).lists
    empty = np.empty(0, dtype=np.int64)
    corners, lengths = lists.get("vertex_indices", lists.get("vertex_index", (empty, empty)))
    with np.errstate(invalid="ignore"):  # what is not finite differs from its cast
        whole = corners.astype(np.int64)
    if (whole != corners).any():
        raise DataError(path, "faces with fractional indices", "whole indices")
    if not len(lengths) and found.get("tristrips", _Columns({}, {})).lists:
        raise DataError(path, "triangle strips", "faces with vertex_indices")
    return points, normals, whole, lengths


def _header(content: bytes, path: Path) -> tuple[str | None, list[_Element], bytes]:
    """The byte order (None for ASCII), the elements and the body."""
    lines: list[list[str]] = []
    place = 0
    while not lines or lines[-1] != ["end_header"]:
        end = content.find(b"\n", place, _MAX_HEADER)
        if end < 0 or content[:3] != b"ply":
            raise DataError(path, "no PLY file, or truncated in its header", _ACCEPTED)
        lines.append(content[place:end].decode("latin-1").split())
        place = end + 1
    order, elements = "", []
    for words in lines[1:-1]:
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", kind, "1.0"] if kind in _ORDERS and order == "":
                order = _ORDERS[kind]
            case ["element", name, rows] if rows.isdecimal():
                elements.append(_Element(name, int(rows), []))
            case ["property", "list", length, kind, name] if (
                elements and kind in _TYPES and _TYPES.get(length, "f")[0] != "f"
            ):
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[length]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _TYPES[kind], None))
            case _:
                raise DataError(path, f"the header line {' '.join(words)!r}", _ACCEPTED)
    if order == "":
        raise DataError(path, "a header without format", _ACCEPTED)
    for names in ([e.name for e in elements], *([p.name for p in e.properties] for e in elements)):
        if not names or len(set(names)) < len(names):
            raise DataError(path, "a header with missing or doubled names", _ACCEPTED)
    return order, elements, content[place:]


class _Body:
    """Reads elements, one after the other, from packed numbers."""

    def __init__(self, body: bytes, order: str, path: Path) -> None:
        self.body, self.order, self.path, self.place = body, order, path, 0

    @property
    def left(self) -> int:
        """The number of bytes not yet read."""
        return len(self.body) - self.place

    def read(self, element: _Element) -> _Columns:
        """All rows of an element."""
        import numpy as np

        # A row takes at least its values and its lists' lengths: an absurd promise ends here.
        codes = (item.length_code or item.code for item in element.properties)
        if element.rows * sum(np.dtype(code).itemsize for code in codes) > self.left:
            found = f"truncated: fewer than the {element.rows:,} {element.name!r} promised"
            raise DataError(self.path, found, _ACCEPTED)
        even = self._even(element) if element.rows else None
        return even or self._row_by_row(element)

    def _even(self, element: _Element) -> _Columns | None:
        """All rows at once, if every list is as long as in the first row; else None."""
        import numpy as np

        start = self.place
        fields: list[tuple] = []
        for number, item in enumerate(element.properties):
            if item.length_code is None:
                self._take(item.code, 1)
                fields.append((f"v{number}", self.order + item.code))
            else:
                fields.append((f"n{number}", self.order + item.length_code))
                fields.append((f"v{number}", self.order + item.code, (len(self._list(item)),)))
        self.place = start
        row = np.dtype(fields)
        if element.rows * row.itemsize > self.left:
            return None
        rows = np.frombuffer(self.body, row, element.rows, start)
        columns = _Columns({}, {})
        for number, item in enumerate(element.properties):
            values = rows[f"v{number}"]
            if item.length_code is None:
                columns.values[item.name] = values
                continue
            lengths = rows[f"n{number}"]
            if (lengths != values.shape[1]).any():
                return None
            columns.lists[item.name] = values.ravel(), lengths.astype(np.int64)
        self.place = start + element.rows * row.itemsize
        return columns

    def _row_by_row(self, element: _Element) -> _Columns:
        import numpy as np

        parts: dict[str, list[np.ndarray]] = {item.name: [] for item in element.properties}
        for _ in range(element.rows):
            for item in element.properties:
                taken = self._take(item.code, 1) if item.length_code is None else self._list(item)
                parts[item.name].append(taken)
        columns = _Columns({}, {})
        for item in element.properties:
            rows = parts[item.name]
            joined = np.concatenate(rows) if rows else np.empty(0, item.code)
            if item.length_code is None:
                columns.values[item.name] = joined
            else:
                columns.lists[item.name] = joined, np.array([len(row) for row in rows], np.int64)
        return columns

    def _list(self, item: _Property) -> np.ndarray:
        (length,) = self._take(item.length_code or item.code, 1)
        if length != int(length):
            raise DataError(self.path, f"a list of length {length}", "whole list lengths")
        return self._take(item.code, int(length))

    def _take(self, code: str, count: int) -> np.ndarray:
        import numpy as np

        dtype = np.dtype(self.order + code)
        if count < 0 or count * dtype.itemsize > self.left:
            raise DataError(self.path, f"truncated, or corrupt: a list of {count}", _ACCEPTED)
        taken = np.frombuffer(self.body, dtype, count, self.place)
        self.place += count * dtype.itemsize
        return taken
