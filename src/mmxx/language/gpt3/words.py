"""Words as numbers: lower case, no punctuation, cut at white space, hashed in one pass."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

_SPACE, _DROPPED = 0, 1  # what the table says of white space and of punctuation


@cache
def _table() -> np.ndarray:
    """What becomes of the first 65,536 characters: their lower case, or one of two marks."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for code in range(1 << 16):
        letter = chr(code)
        lower = letter.lower()
        if letter.isspace():
            table[code] = _SPACE
        elif unicodedata.category(letter)[0] in "PC":
            table[code] = _DROPPED
        elif len(lower) == 1:
            table[code] = ord(lower)
    return table


def letters(text: str) -> np.ndarray:
    """The characters of a text as numbers, uint32 [n]."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


def hashed(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The words of a text.

    Args:
        text: The text.

    Returns:
        For each word a hash of 64 bits, the place of its first character, and the place after
        its last one, each [words].
    """
    return _hashed(letters(text), _table())


def spelled(text: str) -> list[str]:
    """The same words as strings, in order.

    Args:
        text: The text.
    """
    _, starts, ends = hashed(text)
    table = _table()
    found = []
    for start, end in zip(starts, ends, strict=True):
        codes = [int(table[ord(c)]) if ord(c) < len(table) else ord(c) for c in text[start:end]]
        found.append("".join(chr(code) for code in codes if code > _DROPPED))
    return found


@njit(cache=True, nogil=True)
def _hashed(codes, table):
    count = len(codes) // 2 + 1
    hashes = np.empty(count, np.uint64)
    starts = np.empty(count, np.int64)
    ends = np.empty(count, np.int64)
    words = 0
    value = np.uint64(14695981039346656037)  # FNV-1a, a character at a time
    start = np.int64(-1)
    for i in range(len(codes) + 1):
        code = np.uint32(0)
        if i < len(codes):
            code = codes[i]
            if code < len(table):
                code = table[code]
        if code == 0:
            if start >= 0:
                hashes[words] = mixed(value)
                starts[words] = start
                ends[words] = i
                words += 1
                start = np.int64(-1)
                value = np.uint64(14695981039346656037)
        elif code > 1:
            if start < 0:
                start = np.int64(i)
            value = (value ^ np.uint64(code)) * np.uint64(1099511628211)
    return hashes[:words], starts[:words], ends[:words]


@njit(cache=True, nogil=True)
def mixed(value):
    """A number of 64 bits whose every bit depends on all bits of another (splitmix64's end)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def runs(hashes, length):
    """A hash of every run of ``length`` words, [words - length + 1]; rolling.

    With h of a word, a run is the sum of h_i times an odd number to the power of its place from
    the right, modulo 2^64, mixed.
    """
    base = np.uint64(0x9E3779B97F4A7C15)
    count = max(len(hashes) - length + 1, 0)
    found = np.empty(count, np.uint64)
    if count == 0:
        return found
    top = np.uint64(1)
    for _ in range(length - 1):
        top *= base
    value = np.uint64(0)
    for i in range(len(hashes)):
        if i >= length:
            value -= hashes[i - length] * top
        value = value * base + hashes[i]
        if i >= length - 1:
            found[i - length + 1] = mixed(value)
    return found
