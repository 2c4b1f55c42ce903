"""The numbers of a run over time: one JSON object a line in ``metrics.jsonl``.

``{"loop": "siren", "step": 12, "t": 0.8, "loss": 0.03}``, where ``t`` is seconds since the
session began. A number that is not finite is written as null, since JSON has no word for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

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
        """
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
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file. Writing again opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file, without those that a kill or a full disk tore."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "step" in line:
                yield line


def keep_lines(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a metrics file with the wanted lines only."""
    if path.is_file():
        kept = [json.dumps(line) + "\n" for line in read(path) if wanted(line)]
        write_bytes(path, "".join(kept).encode())
