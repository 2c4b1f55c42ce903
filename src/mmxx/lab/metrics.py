"""The numbers of a run over time: one JSON object a line in ``metrics.jsonl``.

``{"loop": "siren", "step": 12, "t": 0.8, "loss": 0.03}``, where ``t`` is seconds since the
session began. A number that is not finite is written as null, since JSON has no word for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from mmxx.lab.checkpoint import cannot_write, write_bytes


class MetricsWriter:
    """Appends lines; each is handed to the system at once, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def write(self, loop: str | None, step: int, seconds: float, values: dict[str, Any]) -> None:
        """Append one line.

        Raises:
            CannotWriteError: The disk is full or the file cannot be written.
            ValueError: A value has the name of one of the line's own fields.
        """
        for name in ("loop", "t"):
            if name in values:
                raise ValueError(f"log: the name {name!r} is taken, as are 'loop', 'step' and 't'")
        line: dict[str, Any] = {"loop": loop, "step": step, "t": round(seconds, 3)}
        for name, value in values.items():
            number = float(value)
            line[name] = number if math.isfinite(number) else None
        try:
            if self._file is None:
                self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # closing tries once more to write what is left
                self.close()
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file. Writing again opens it again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file, without those that a kill or a full disk tore."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                continue
            line = cast("dict[str, Any]", found if isinstance(found, dict) else {})
            if not isinstance(line.get("step"), int):
                continue
            if line.get("loop") is None or isinstance(line["loop"], str):
                yield line


def keep_lines(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a metrics file with the wanted lines only."""
    if path.is_file():
        kept = [json.dumps(line) + "\n" for line in read(path) if wanted(line)]
        write_bytes(path, "".join(kept).encode())
