"""Plain text."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import ClassVar

from mmxx.data.source import DataError, Source, read_bytes, sha256, user_source

_ACCEPTED = "text in UTF-8"


@dataclass(frozen=True, slots=True)
class Text:
    """A text.

    Attributes:
        text: The characters; line ends are ``\\n``.
        source: Where it comes from.
    """

    kind: ClassVar[str] = "text"
    text: str
    source: Source


def decode(content: bytes, path: object, accepted: str = _ACCEPTED) -> str:
    """The text in UTF-8 bytes, without a leading byte-order mark, line ends as ``\\n``.

    Raises:
        DataError: If the bytes are not UTF-8, or hold a NUL.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"not text: byte {error.start} is no UTF-8", accepted) from None
    if "\0" in text:
        raise DataError(path, f"not text: a NUL at character {text.index(chr(0))}", accepted)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: str | PathLike[str]) -> Text:
    """Reads a text file.

    Args:
        path: A file in UTF-8, with or without a byte-order mark.

    Returns:
        Its `Text`, line ends normalised to ``\\n``.

    Raises:
        DataError: If the file is missing, empty (or nothing but white space) or not text.
    """
    path = Path(path)
    content = read_bytes(path, _ACCEPTED)
    text = decode(content, path)
    if not text.strip():
        raise DataError(path, "nothing but white space", _ACCEPTED)
    return Text(text, user_source(path, sha256(content)))
