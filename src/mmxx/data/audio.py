"""Sound: RIFF WAVE files."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmxx.data.source import DataError, Decoding, Source, read_bytes, sha256, user_source

if TYPE_CHECKING:
    import numpy as np

_ACCEPTED = "a WAV file of 8, 16, 24 or 32-bit integers or 32 or 64-bit floats"
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_CODINGS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}
# What follows the format code in the sub-format field of an extensible header.
_SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """A recording.

    Attributes:
        samples: float32 [samples, channels]; integers are scaled to [-1, 1), floats are as they
            were.
        rate: Samples per second.
        source: Where it comes from.
    """

    kind: ClassVar[str] = "audio"
    samples: np.ndarray
    rate: int
    source: Source

    def mono(self) -> np.ndarray:
        """The mean of the channels, float32 [samples]."""
        return self.samples.mean(axis=1, dtype="float32")


def read_audio(path: str | PathLike[str]) -> Audio:
    """Reads a WAV file.

    Args:
        path: A RIFF WAVE file: PCM of 8 (unsigned), 16, 24 or 32 bits or floats of 32 or 64 bits,
            any number of channels, with a plain or an extensible header.

    Returns:
        The `Audio`.

    Raises:
        DataError: If the file is missing, empty, truncated or corrupt, compressed or otherwise
            coded, without samples, or has samples that are not finite.
    """
    path = Path(path)
    content = read_bytes(path, _ACCEPTED)
    with Decoding(path, _ACCEPTED):
        samples, rate = _parse(content, path)
    return Audio(samples, rate, user_source(path, sha256(content)))


def _parse(content: bytes, path: Path) -> tuple[np.ndarray, int]:
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise DataError(path, "no RIFF WAVE file", _ACCEPTED)
    chunks: dict[bytes, bytes] = {}
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        found = f"truncated: {len(content)} bytes of the {end} that the header promises"
        raise DataError(path, found, _ACCEPTED)
    place = 12
    while place + 8 <= end and b"data" not in chunks:
        name, size = struct.unpack_from("<4sI", content, place)
        if place + 8 + size > len(content):
            found = f"truncated: chunk {name!r} promises {size} bytes"
            raise DataError(path, found, _ACCEPTED)
        chunks.setdefault(name, content[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    for name in (b"fmt ", b"data"):
        if name not in chunks:
            raise DataError(path, f"no {name.decode().strip()!r} chunk", _ACCEPTED)
    code, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if code == _EXTENSIBLE and chunks[b"fmt "][26:40] == _SUBFORMAT:
        code = int.from_bytes(chunks[b"fmt "][24:26], "little")
    if (code, bits) not in _CODINGS:
        raise DataError(path, f"format code {code} with {bits} bits per sample", _ACCEPTED)
    if channels < 1 or rate < 1 or block != channels * bits // 8:
        found = f"{channels} channels, {rate} samples per second, blocks of {block} bytes"
        raise DataError(path, found, "at least one of each, and blocks of one sample per channel")
    data = chunks[b"data"]
    if not data:
        raise DataError(path, "no samples", "at least one sample")
    if len(data) % block:
        raise DataError(path, f"truncated: {len(data)} bytes in blocks of {block}", _ACCEPTED)
    samples = _scaled(data, code, bits).reshape(-1, channels)
    _check_finite(samples, path)
    return samples, rate


def _scaled(data: bytes, code: int, bits: int) -> np.ndarray:
    import numpy as np

    if code == _FLOAT:
        with np.errstate(over="ignore"):  # beyond float32: caught as not finite
            return np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if bits == 24:
        # Three bytes in the upper part of a 32-bit integer.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] >> 8).astype(np.float32) / 2**23
    return np.frombuffer(data, f"<i{bits // 8}").astype(np.float32) / 2 ** (bits - 1)


def _check_finite(samples: np.ndarray, path: Path) -> None:
    import numpy as np

    bad = np.count_nonzero(~np.isfinite(samples))
    if bad:
        raise DataError(path, f"{bad} samples that are not finite", "finite samples")
