"""Where data come from, and the one error for files that cannot be used.

Standard library only, so that the command line can import it at no cost.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MAX_FILE_BYTES = 2**31
"""A file larger than this is refused before it is read."""
MAX_DECODED_BYTES = 2**31
"""Data that would unpack to more than this are refused before they are unpacked."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where data come from.

    Attributes:
        name: Short name: that of an embedded source, or the file's name.
        licence: The licence, or what is known of it.
        origin: In words: the package and file it ships in, whose it is, or the user's path.
        sha256: Hex digest of the file's bytes as they lie on disk; for generated data, and for
            those that change with the version of a dependency, the digest of the bytes made on
            this machine: a record, never a thing to assert. None where there are no bytes.
        generated: Whether the data were computed here rather than read.
    """

    name: str
    licence: str
    origin: str
    sha256: str | None = None
    generated: bool = False


class DataError(ValueError):
    """A file cannot be used: missing, empty, truncated, corrupt, too large, or of another kind.

    Attributes:
        path: The file or folder, as it was given.
        found: What was found there.
        accepted: What would have been accepted.
    """

    def __init__(self, path: object, found: str, accepted: str) -> None:
        super().__init__(str(path), found, accepted)
        self.path, self.found, self.accepted = str(path), found, accepted

    def __str__(self) -> str:
        return f"{self.path}: {self.found}; accepted: {self.accepted}"


def sha256(content: bytes | memoryview) -> str:
    """The hex digest of some bytes."""
    return hashlib.sha256(content).hexdigest()


def user_source(path: Path, digest: str | None) -> Source:
    """The source of a file or folder that the user handed in."""
    return Source(path.name, "not stated (the user's own file)", str(path), digest)


def read_bytes(path: Path, accepted: str) -> bytes:
    """The bytes of a plain, non-empty file of at most `MAX_FILE_BYTES`.

    Raises:
        DataError: If there is no such file, or it is a folder, empty, too large or unreadable.
    """
    with Decoding(path, accepted):
        if not path.exists():
            raise DataError(path, "no such file", accepted)
        if not path.is_file():
            raise DataError(path, "a folder" if path.is_dir() else "not a plain file", accepted)
        size = path.stat().st_size
        if size == 0:
            raise DataError(path, "an empty file", accepted)
        if size > MAX_FILE_BYTES:
            raise DataError(path, f"{size:,} bytes", f"at most {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes()


class Decoding:
    """A ``with`` block in which whatever a decoder raises on a broken file becomes a `DataError`.

    Decoders raise what they like on bytes that they did not foresee (Pillow alone: OSError,
    SyntaxError, ValueError, struct.error, zlib.error, ...), so the net is wide.
    """

    def __init__(self, path: object, accepted: str) -> None:
        self.path, self.accepted = path, accepted

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, DataError):
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(self.path, f"cannot be read ({reason})", self.accepted) from error
