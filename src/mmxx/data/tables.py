"""Tables of numbers and text: CSV, tab- or semicolon-separated, white space, one value a line."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmxx.data.source import DataError, Decoding, Source, read_bytes, sha256, user_source
from mmxx.data.text import decode

if TYPE_CHECKING:
    import numpy as np

_ACCEPTED = "a table: fields parted by , ; tab or white space, or one value a line"
_MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "n", ".", "?", "-"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_COMMENT = re.compile(r"(?:^|\s)#(?:\s.*)?$")
_SAMPLE_ROWS = 50


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Named columns of equal length.

    Attributes:
        names: Name of each column, unique, in the file's order.
        columns: The values of each column, [rows]: float64 with nan for the missing ones where
            every other cell is a number, else objects of type str.
        source: Where it comes from.

    Example:
        >>> from mmxx.data import Table, Source
        >>> import numpy as np
        >>> table = Table(("t", "y"), (np.arange(3.0), np.ones(3)), Source("a", "mine", "here"))
        >>> table["y"]
        array([1., 1., 1.])
        >>> len(table), table.numeric
        (3, ('t', 'y'))
    """

    kind: ClassVar[str] = "table"
    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    source: Source

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.columns[0])

    def __getitem__(self, name: str) -> np.ndarray:
        """The column of that name.

        Raises:
            KeyError: If there is none; the message lists those there are.
        """
        if name not in self.names:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.names)}")
        return self.columns[self.names.index(name)]

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the columns of numbers."""
        return tuple(
            name
            for name, column in zip(self.names, self.columns, strict=True)
            if column.dtype.kind == "f"
        )

    def matrix(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Columns of numbers side by side.

        Args:
            names: Which; all columns of numbers by default.

        Returns:
            float64 [rows, columns], nan for the missing ones.

        Raises:
            KeyError: If a name is unknown.
            ValueError: If a column is text.
        """
        import numpy as np

        names = self.numeric if names is None else names
        for name in names:
            if self[name].dtype.kind != "f":
                raise ValueError(f"column {name!r} holds text; numbers: {', '.join(self.numeric)}")
        return (
            np.column_stack([self[name] for name in names]) if names else np.empty((len(self), 0))
        )


def read_table(path: str | PathLike[str], *, header: bool | None = None) -> Table:
    """Reads a table from a text file.

    Fields are parted by whichever of ``,``, ``;`` and tab parts the first rows evenly, else by
    white space, else there is one field a line. A column is numeric if all its cells are numbers
    or missing (blank, ``NA``, ``N/A``, ``#N/A``, ``nan``, ``null``, ``none``, ``N``, ``.``, ``?``,
    ``-``) and not every one of them is a marker. Blank lines are skipped; so are lines that start
    with ``#`` and a space above the table and, where white space parts the fields, comments
    after `` # ``; the last such line above the table is its header if it has as many fields.
    Columns of the same name get ``_2``, ``_3``, ... .

    Args:
        path: The file, in UTF-8.
        header: Whether the first row holds names; None decides: it does if none of its cells is a
            number. Columns without a name are called ``column_1``, ``column_2``, ... .

    Returns:
        The `Table`.

    Raises:
        DataError: If the file is missing, empty, not text, has no rows, or rows of unequal length.
    """
    path = Path(path)
    content = read_bytes(path, _ACCEPTED)
    with Decoding(path, _ACCEPTED):
        return parse_table(content, path, user_source(path, sha256(content)), header=header)


def parse_table(
    content: bytes, path: object, source: Source, *, header: bool | None = None
) -> Table:
    """The `Table` in the bytes of a file; see `read_table`."""
    body, comment = _without_preamble(decode(content, path, _ACCEPTED))
    delimiter = _delimiter(body)
    rows = _rows(body, delimiter)
    if not rows:
        raise DataError(path, "no rows", _ACCEPTED)
    if "\n" in rows[-1][-1] and body.count('"') % 2:
        raise DataError(path, "a quote that is never closed", _ACCEPTED)
    first = rows[0]
    width = len(first)
    if header or (header is None and _is_header(first)):
        names, rows = first, rows[1:]
    else:
        named = next(iter(_rows(comment, delimiter)), [])
        names = named if len(named) == width and _is_header(named) else [""] * width
    if not rows:
        raise DataError(path, f"a header of {width} names and no rows", _ACCEPTED)
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise DataError(
                path, f"data row {number} has {len(row)} fields where the first row has {width}",
                _ACCEPTED,
            )  # fmt: skip
    columns = tuple(_column(cells) for cells in zip(*rows, strict=True))
    return Table(_unique(names), columns, source)


def _without_preamble(text: str) -> tuple[str, str]:
    """The text from the first line that is no comment on, and the last comment above it."""
    comment, start = "", 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end].strip()
        if line and line != "#" and not line.startswith("# "):
            break
        comment = line[2:] if line.startswith("# ") else comment
        start = end + 1
    return text[start:], comment


def _delimiter(body: str) -> str | None:
    """``,``, ``;`` or tab, a blank for white space, None for one field a line."""
    best, fields = None, 1
    for delimiter in (",", ";", "\t", " "):
        rows = _rows(body, delimiter, limit=_SAMPLE_ROWS)
        width = Counter(map(len, rows)).most_common(1)[0][0] if rows else 1
        agree = sum(len(row) == width for row in rows)
        # Blanks separate only where nothing else does: dates and names hold them too.
        if width > fields and 2 * agree > len(rows) and not (delimiter == " " and best):
            best, fields = delimiter, width
    return best


def _rows(body: str, delimiter: str | None, limit: int | None = None) -> list[list[str]]:
    if delimiter is None or delimiter == " ":
        rows: Iterable[list[str]] = (
            [line.strip()] if delimiter is None else _COMMENT.sub("", line).split()
            for line in body.split("\n")
        )
    else:
        rows = csv.reader(
            io.StringIO(body, newline=""),
            delimiter=delimiter,
            skipinitialspace=True,
        )
    kept: list[list[str]] = []
    for row in rows:
        if limit is not None and len(kept) == limit:
            break
        cells = [cell.strip() for cell in row]
        if any(cells) or len(cells) > 1:
            kept.append(cells)
    return kept


def _is_header(cells: Sequence[str]) -> bool:
    words = [cell for cell in cells if cell.lower() not in _MISSING]
    return bool(words) and not any(_NUMBER.fullmatch(word) for word in words)


def _column(cells: Sequence[str]) -> np.ndarray:
    import numpy as np

    numbers = [cell for cell in cells if cell.lower() not in _MISSING]
    if all(map(_NUMBER.fullmatch, numbers)) and (numbers or not any(cells)):
        return np.array(
            [float("nan") if cell.lower() in _MISSING else float(cell) for cell in cells]
        )
    return np.array(cells, dtype=object)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    taken = set(names)
    unique: list[str] = []
    for index, name in enumerate(names, 1):
        candidate, copy = name or f"column_{index}", 2
        while candidate in unique or (candidate != name and candidate in taken):
            candidate, copy = f"{name or f'column_{index}'}_{copy}", copy + 1
        unique.append(candidate)
    return tuple(unique)


_DATE = re.compile(r"(\d{4})(?:[-/.](\d{1,2})(?:[-/.](\d{1,2}))?|(\d{2})(\d{2}))?")
_WORDY = re.compile(r"(\d{1,2})[- ]([a-z]{3})[a-z]*[- ](\d{4})")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def decimal_years(dates: Iterable[str]) -> np.ndarray:
    """Dates as years with decimals: 2 July 2001 is near 2001.5.

    Args:
        dates: Each as ``2001-07-02`` (also ``/`` or ``.``), ``20010702``, ``2001-07``, ``2001`` or
            ``2-jul-2001``, with or without a time of day after ``T`` or a blank, which is ignored.
            A month means its first day, a year the first of January.

    Returns:
        float64 [dates], nan for blank ones.

    Raises:
        ValueError: If one is none of these; day/month/year in digits is ambiguous and refused.

    Example:
        >>> decimal_years(["2001-01-01", "20010702", "11-aug-2003"]).round(3).tolist()
        [2001.0, 2001.499, 2003.608]
    """
    import numpy as np

    return np.array([_decimal_year(str(date).strip()) for date in dates], dtype=np.float64)


def _decimal_year(date: str) -> float:
    if not date:
        return float("nan")
    text = date.lower()
    try:
        if wordy := _WORDY.match(text):
            day = datetime.date(int(wordy[3]), _MONTHS.index(wordy[2]) + 1, int(wordy[1]))
        elif plain := _DATE.fullmatch(re.split(r"[t ]", text, maxsplit=1)[0]):
            month, number = plain[2] or plain[4] or 1, plain[3] or plain[5] or 1
            day = datetime.date(int(plain[1]), int(month), int(number))
        else:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"dates: {date!r} is no date; accepted are 2001-07-02, 20010702, 2001-07, 2001 and "
            "2-jul-2001"
        ) from None
    start, end = datetime.date(day.year, 1, 1), datetime.date(day.year, 12, 31)
    return day.year + (day - start).days / ((end - start).days + 1)
