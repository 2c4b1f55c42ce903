"""The run folder: how it is named, locked, and written as JSON that reads back the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import secrets
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from mmxx.lab import checkpoint, compute
from mmxx.lab.catalog import Card
from mmxx.lab.errors import BadInputError

try:
    import fcntl
except ImportError:  # pragma: no cover - not a POSIX system: a folder is not locked there
    fcntl = None

SCHEMA = 1
_SHOWN_VERSIONS = ("mmxx", "numpy", "scipy", "torch", "numba", "scikit-learn")
_BLOCK = 1 << 20
_REFUSED = {"run.json", "claims.json", "log.txt", "report.html"}  # all that a refused run leaves
_RECORDED: dict[str, Any] = {  # what a run is resumed by
    "system": str,
    "tier": str,
    "seed": int,
    "status": str,
    "config": dict,
    "device": str,
    "devices": int,
    "backend": str,
}
_RECORDED_LATER: dict[str, Any] = {"versions": dict, "sessions": list, "seconds": (int, float)}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run is done, as opposed to what it does: the flags that every system has."""

    seed: int = 0
    device: str = "cpu"
    devices: int = 1
    backend: str = "process"
    time_limit: float | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise BadInputError(f"seed must be 0 or more, got {self.seed}")
        if self.device not in ("cpu", "cuda", "auto"):
            raise BadInputError(f"device must be cpu, cuda or auto, got {self.device!r}")
        if self.devices < 1:
            raise BadInputError(f"devices must be 1 or more, got {self.devices}")
        if self.backend not in compute.BACKENDS:
            raise BadInputError(
                f"backend must be one of {', '.join(compute.BACKENDS)}, got {self.backend!r}"
            )
        if self.time_limit is not None and not self.time_limit > 0:
            raise BadInputError(f"time_limit must be above 0 seconds, got {self.time_limit}")


def new(path: Path | None, system: str) -> Path:
    """Make the folder of a new run; without a path, one below ``./runs``.

    The folder of a run that failed before it had made anything may be used again.

    Raises:
        BadInputError: It holds something already.
        CannotWriteError: It cannot be made.
    """
    if path is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        path = Path("runs") / f"{system}-{stamp}-{secrets.token_hex(2)}"
    names = set(os.listdir(path)) if os.path.isdir(path) else set[str]()
    # a run that was killed before it began may have left these
    found = {n for n in names if n != ".lock" and not n.startswith(".tmp-")}
    if "run.json" in found:
        record = read_record(path)
        if record["status"] != "failed" or not found <= _REFUSED:
            raise BadInputError(
                f"{path} already holds a run of {record['system']}; go on with it by "
                f"'mmxx resume {path}', or choose another folder"
            )
    elif found or (os.path.exists(path) and not os.path.isdir(path)):
        raise BadInputError(f"--out must be a new or empty folder, and {path} is not")
    make(path)
    try:
        for name in found:
            (path / name).unlink()
    except OSError as error:
        raise checkpoint.cannot_write(path, error) from error
    return path


def make(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        CannotWriteError: The system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise checkpoint.cannot_write(path, error) from error


def lock(path: Path) -> IO[str] | None:
    """Hold the folder until the returned file is closed or the process ends.

    Raises:
        BadInputError: Another process holds it.
        CannotWriteError: The folder cannot be written.
    """
    try:
        file = open(path / ".lock", "a")  # noqa: SIM115 - held for the life of the run
    except OSError as error:
        raise checkpoint.cannot_write(path, error) from error
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise BadInputError(f"{path} is in use by another process") from error
    return file


def read_record(path: Path) -> dict[str, Any]:
    """What ``run.json`` says.

    Raises:
        BadInputError: There is no run in the folder, or its record is damaged.
    """
    try:
        record = json.loads((path / "run.json").read_bytes())
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}, expected {SCHEMA}")
        if missing := sorted(set(_RECORDED) - set(record)):
            raise ValueError(f"it does not say {', '.join(missing)}")
        for key, kind in {**_RECORDED, **_RECORDED_LATER}.items():
            if key in record and not isinstance(record[key], kind):
                raise ValueError(f"its {key} is {record[key]!r}")
        if record["tier"] not in ("tiny", "quick", "full"):
            raise ValueError(f"its tier is {record['tier']!r}")
        if not all(isinstance(session, dict) for session in record.get("sessions", ())):
            raise ValueError("its sessions are damaged")
    except FileNotFoundError:
        raise BadInputError(f"{path} holds no run: there is no run.json in it") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInputError(f"{path / 'run.json'} cannot be read: {error}") from error
    return record


def read_claims(path: Path) -> list[dict[str, Any]]:
    """The lines of ``claims.json``.

    Raises:
        BadInputError: It is missing or damaged.
    """
    try:
        lines = json.loads((path / "claims.json").read_bytes())["claims"]
        if not all(isinstance(line["verdict"], str) for line in lines):
            raise ValueError("a line has no verdict")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInputError(f"{path / 'claims.json'} cannot be read: {error}") from error
    return lines


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; NaN and infinity are refused."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # a path that is no UTF-8 becomes an escape of JSON
    checkpoint.write_bytes(path, text.encode(errors="backslashreplace") + b"\n")


def config_json(config: Any) -> dict[str, Any]:
    """A configuration as JSON: paths as text, tuples as lists.

    Raises:
        BadInputError: A number is not finite.
    """
    names = [field.name for field in dataclasses.fields(config)]
    content = {name: _plain(getattr(config, name)) for name in names}
    for name, value in content.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise BadInputError(f"{name} must be finite, got {value}") from None
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def config_from_json(config_type: type, content: Any) -> Any:
    """The configuration that `config_json` wrote.

    Raises:
        BadInputError: A name is unknown, or a value is refused.
    """
    if not isinstance(content, Mapping):
        raise BadInputError(f"a configuration is a JSON object, got {type(content).__name__}")
    hints = typing.get_type_hints(config_type)
    fields = {field.name for field in dataclasses.fields(config_type)}
    unknown = sorted(set(content) - fields)
    if unknown:
        raise BadInputError(
            f"the configuration has no {', '.join(unknown)}; it has: {', '.join(sorted(fields))}"
        )
    try:
        return config_type(**{name: _typed(hints[name], v) for name, v in content.items()})
    except (ValueError, TypeError) as error:
        raise BadInputError(f"the configuration is refused: {error}") from error


def _typed(hint: Any, value: Any) -> Any:
    """Bring a JSON value back to the type of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        chosen = [a for a in arguments if a is not type(None)]
        return None if value is None else _typed(chosen[0], value)
    if hint is Path:
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is typing.Literal and value not in arguments:
        raise ValueError(f"expected one of {', '.join(map(repr, arguments))}, got {value!r}")
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {value!r}")
        inner = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(_typed(a, v) for a, v in zip(inner, value, strict=True))
    wrong = isinstance(hint, type) and not isinstance(value, hint)
    if wrong or (hint is int and isinstance(value, bool)):
        raise TypeError(f"expected {hint.__name__}, got {value!r}")
    return value


def config_hash(config: Any, data_sha256: str | None) -> str:
    """A short name of everything that decides a run's bits, but the seed."""
    content = {**config_json(config), "data": data_sha256}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def card_json(card: Card) -> dict[str, Any]:
    """A card as JSON, so that a report needs nothing but its folder."""
    content = dataclasses.asdict(card)
    content["scale"] = sorted(card.scale)
    return json.loads(json.dumps(content))


def sha256_of(path: Path | None) -> str | None:
    """sha256 of a file's bytes; None where there is no path, or it is no file."""
    if path is None or not Path(path).is_file():
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cell(value: Any) -> Any:
    """A value for a CSV table; text that a spreadsheet would run as a formula is quoted."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch scalar
        value = value.item()
    if value is None or isinstance(value, (int, float)):
        return repr(value) if isinstance(value, float) else value
    text = str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def versions() -> dict[str, str]:
    """Python and the packages that decide the bits."""
    found = {"python": platform.python_version()}
    for name in _SHOWN_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def host() -> dict[str, Any]:
    """The machine, without its name or its user's."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": compute.cores(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
