"""Reading JSON that cannot be trusted, and showing what it holds as people write it.

A run folder may be half written, damaged or someone else's: any key may be missing and any
value of another type. Nothing here raises for that.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NARROW = "\u202f"  # a narrow space that does not break


def load(path: Path, problems: list[str]) -> dict[str, Any]:
    """The object in a JSON file; an empty one, and a line in ``problems``, where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path.name} is not there")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        problems.append(f"{path.name} is damaged: {error}")
    else:
        if isinstance(found, dict):
            return found
        problems.append(f"{path.name} is damaged: it holds no object")
    return {}


def at(value: Any, *keys: str) -> Any:
    """What lies under the keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(value: Any, *keys: str) -> str:
    """What lies under the keys as text; nothing is empty, and a tree is shown as JSON."""
    found = at(value, *keys)
    if found is None or isinstance(found, str):
        return found or ""
    return json.dumps(found, ensure_ascii=False)


def texts(value: Any, *keys: str) -> list[str]:
    """The items of the list under the keys, each as text."""
    found = at(value, *keys)
    return [text(item) for item in found] if isinstance(found, list) else []


def dicts(value: Any, *keys: str) -> list[dict[str, Any]]:
    """The objects in the list under the keys."""
    found = at(value, *keys)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def pairs(value: Any, *keys: str) -> list[tuple[str, Any]]:
    """The keys and values of the object under the keys."""
    found = at(value, *keys)
    return list(found.items()) if isinstance(found, dict) else []


def real(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def inside(folder: Path, name: str) -> tuple[Path, str] | None:
    """The file of that name and a relative link to it, if it lies in the folder."""
    try:
        home = folder.resolve()
        path = (home / name).resolve()
        if path.is_relative_to(home) and path.is_file():
            return path, quote(os.fsencode(path.relative_to(home).as_posix()))
    except (OSError, ValueError, RuntimeError):
        pass  # a null byte, a name too long, a loop of links: no file of the folder either way
    return None


def number(value: float, digits: int = 4) -> str:
    """A number as people write it: ``digits`` significant ones, 12 345, 3.2×10⁻⁷."""
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e7:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        shown = f"{value:,.{decimals}f}"
        if "." in shown:
            shown = shown.rstrip("0").rstrip(".")
        shown = shown.replace(",", "" if abs(value) < 1e4 else _NARROW)
    else:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        shown = f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return shown.replace("-", "−")


def duration(value: Any) -> str:
    """Seconds as ``12.3 s``, ``4 min 10 s`` or ``2 h 5 min``; empty for anything else."""
    seconds = real(value)
    if seconds is None or seconds < 0:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{number(minutes // 60)} h {minutes % 60} min"


def moment(value: Any) -> str:
    """``2026-11-21T09:30:05.123+00:00`` as ``2026-11-21 09:30:05 UTC``."""
    shown = re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?", r"\1 \2", text(value))
    return re.sub(r"(\d)(\+00:00|Z)$", r"\1 UTC", shown)


def size(count: int) -> str:
    """Bytes as ``812 B``, ``45 kB`` or ``1.2 MB``."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{number(count / 10**power, 2)} {unit}"
    return f"{count} B"


def plural(count: int, word: str) -> str:
    """``1 claim``, ``2 claims``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
