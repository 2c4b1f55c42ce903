"""Checkpoints that survive: atomic, checksummed, pickle-free, bit-exact.

A checkpoint is a folder ``step-000000400`` with three files: ``tensors.safetensors`` (every
tensor and array), ``state.json`` (everything else; floats as hexadecimal, so that no bit is
lost) and ``manifest.json`` (owner, step, size and sha256 of the two, and of itself).

It is written into a temporary folder beside its target, flushed to the disk, and renamed into
place: a process killed at any moment leaves either a whole checkpoint or none, and never harms
an older one. The temporary folder lies beside the target, not under ``$TMPDIR``, because a
rename across file systems is a copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmxx.lab.errors import BadInputError, CannotWriteError

SCHEMA = 1
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_KEEP = 2  # the newest, and one to fall back on
_DTYPES = frozenset(  # those of safetensors that numpy or torch compute with
    "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64 complex64 "
    "bfloat16 float8_e4m3fn float8_e5m2".split()
)


class UnsupportedError(TypeError):
    """A value in the state cannot be written without pickle."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: what was saved, and the newer ones that had to be skipped."""

    step: int
    tree: Any
    done: bool
    skipped: tuple[str, ...] = field(default=())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside its target, flushed, then renamed.

    Raises:
        CannotWriteError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        _write_flushed(temporary, content)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # on a read-only disk even what is not there cannot be removed
            temporary.unlink()
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CannotWriteError:
    """The error for a path that could not be written, in the system's words."""
    return CannotWriteError(f"cannot write {path}: {error.strerror or error}")


def save(folder: Path, step: int, tree: Any, *, owner: Mapping[str, str], done: bool) -> Path:
    """Write ``tree`` as the checkpoint of ``step`` in ``folder`` and drop all but the last two.

    Args:
        folder: Where the checkpoints of one loop lie; made if it does not exist.
        step: Steps completed.
        tree: Dictionaries, lists, tuples, numbers, strings, None, tensors and arrays.
        owner: What the checkpoint belongs to; `latest` refuses those of another owner.
        done: Whether the loop is finished.

    Raises:
        UnsupportedError: The tree holds something else; the message names its place.
        CannotWriteError: The disk is full or the folder cannot be written. Nothing is left
            behind, and older checkpoints are untouched.
    """
    tensors: dict[str, Any] = {}
    state = {"done": done, "tree": _encode(tree, "state", tensors, {})}
    files = {
        _TENSORS: _pack(tensors),
        _STATE: json.dumps(state, indent=None, separators=(",", ":")).encode(),
    }
    manifest = {
        "schema": SCHEMA,
        "owner": dict(owner),
        "step": step,
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    manifest["sha256"] = _own_hash(manifest)
    files[_MANIFEST] = json.dumps(manifest, indent=1).encode()

    target = folder / f"step-{step:09d}"
    temporary = folder / f".tmp-{os.getpid()}-{target.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, content in files.items():
            _write_flushed(temporary / name, content)
        _flush_folder(temporary)
        if target.exists():  # left by a run that had to fall back behind it
            stale = folder / f".tmp-stale-{target.name}"
            shutil.rmtree(stale, ignore_errors=True)
            os.replace(target, stale)
        os.replace(temporary, target)
        _flush_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise cannot_write(target, error) from error
    sweep(folder)
    # whatever is newer did not verify, else the run had gone on from there
    older = [path for path in _steps(folder) if path.name <= target.name]
    for path in set(_steps(folder)) - set(older[-_KEEP:]):
        shutil.rmtree(path, ignore_errors=True)
    return target


def latest(folder: Path, *, owner: Mapping[str, str]) -> Checkpoint | None:
    """The newest checkpoint in ``folder`` that verifies, or None where there is none.

    Raises:
        BadInputError: The newest whole checkpoint belongs to another system, configuration,
            seed or loop.
    """
    skipped: list[str] = []
    for path in reversed(_steps(folder)):
        try:
            manifest, files = _verified(path)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            skipped.append(f"{path.name} ({error})")
            continue
        if manifest["owner"] != dict(owner):
            raise BadInputError(_foreign(path, manifest["owner"], owner))
        state = json.loads(files[_STATE])
        tree = _decode(state["tree"], _unpack(files[_TENSORS]))
        return Checkpoint(manifest["step"], tree, state["done"], tuple(skipped))
    if skipped:
        return Checkpoint(0, None, False, tuple(skipped))
    return None


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the last state of each loop below a run's ``checkpoints``.

    The state of torch's default generator is left out, for a process saves it only if
    something, be it another run, has imported torch.
    """
    found: dict[str, str] = {}
    for loop in sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []:
        steps = _steps(loop)
        if steps:
            found[loop.name] = _digest(*_verified(steps[-1])[1].values())
    return found


def _digest(tensors: bytes, state: bytes) -> str:
    tree = json.loads(state)["tree"]
    if isinstance(tree, dict):
        tree.pop("torch", None)
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    start = 8 + int.from_bytes(tensors[:8], "little")
    header = json.loads(tensors[8:start])
    for name in sorted(set(header) - {"__metadata__", "state.torch"}):
        entry = header[name]
        digest.update(f"{name} {entry['dtype']} {entry['shape']}".encode())
        first, last = entry["data_offsets"]
        digest.update(tensors[start + first : start + last])
    return digest.hexdigest()


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def sweep(folder: Path) -> None:
    """Remove what a killed process left unfinished, anywhere below a folder."""
    for path in list(folder.rglob(".tmp-*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _write_flushed(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and needs no flush
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_hash(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _verified(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    manifest = json.loads((path / _MANIFEST).read_bytes())
    if not isinstance(manifest, dict) or manifest.get("sha256") != _own_hash(manifest):
        raise ValueError("its manifest is damaged")
    files: dict[str, bytes] = {}
    for name in (_TENSORS, _STATE):
        files[name] = (path / name).read_bytes()
        if hashlib.sha256(files[name]).hexdigest() != manifest["files"][name]["sha256"]:
            raise ValueError(f"{name} is damaged")
    return manifest, files


def _foreign(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    for key, value in wanted.items():
        if found.get(key) != value:
            return f"{path} belongs to {key} {found.get(key)!r}, not to {value!r}"
    return f"{path} belongs to another run: {dict(found)!r}"


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor: recognised without importing torch."""
    return any(
        f"{kind.__module__}.{kind.__name__}" in ("torch.Tensor", "torch.nn.parameter.Parameter")
        for kind in type(value).__mro__
    )


def _encode(value: Any, place: str, tensors: dict[str, Any], seen: dict[Any, str]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic) and value.dtype.name in _DTYPES:
        return {"~": "scalar", "v": _put(np.asarray(value), place, tensors, seen, ())}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return {"~": "float", "v": float(value).hex()}
    if isinstance(value, (list, tuple)):
        items = [_encode(v, f"{place}[{i}]", tensors, seen) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"~": "tuple", "v": items}
    if isinstance(value, Mapping):
        pairs = [
            [_encode(k, f"{place} key", tensors, seen), _encode(v, f"{place}.{k}", tensors, seen)]
            for k, v in value.items()
        ]
        if all(isinstance(k, str) and k != "~" for k in value):
            return dict(pairs)
        return {"~": "dict", "v": pairs}
    if is_tensor(value) and _can_hold(value):
        tensor: Any = value
        data = tensor.detach().cpu().resolve_conj().resolve_neg()
        return {"~": "tensor", "v": _put(data, place, tensors, seen, tuple(data.stride()))}
    if isinstance(value, np.ndarray) and value.dtype.name in _DTYPES:
        return {"~": "array", "v": _put(value, place, tensors, seen, value.strides)}
    dtype = f" of {value.dtype}" if hasattr(value, "dtype") else ""
    raise UnsupportedError(
        f"{place} is a {type(value).__name__}{dtype}; a checkpoint holds dictionaries, lists, "
        "tuples, numbers, strings, None, and dense tensors and arrays of what safetensors knows"
    )


def _can_hold(tensor: Any) -> bool:
    dense = str(tensor.layout) == "torch.strided" and tensor.device.type != "meta"
    return dense and str(tensor.dtype).removeprefix("torch.") in _DTYPES


def _put(
    value: Any, place: str, tensors: dict[str, Any], seen: dict[Any, str], strides: tuple[int, ...]
) -> str:
    """Store an array once, however often it stands in the tree (tied weights)."""
    if isinstance(value, np.ndarray):
        address = value.__array_interface__["data"][0]
    else:
        address = value.data_ptr()
    identity = (address, tuple(value.shape), str(value.dtype), strides)
    if identity in seen and 0 not in value.shape:
        return seen[identity]
    name = place
    while name in tensors:  # {"a": {"b": x}, "a.b": y}
        name += "'"
    tensors[name] = value
    seen[identity] = name
    return name


def _pack(tensors: dict[str, Any]) -> bytes:
    if any(is_tensor(value) for value in tensors.values()):
        import safetensors.torch
        import torch

        return safetensors.torch.save(
            {
                # clone: safetensors refuses tensors that share memory
                name: (value if is_tensor(value) else torch.from_numpy(_native(value)))
                .contiguous()
                .clone()
                for name, value in tensors.items()
            },
            metadata={"kind": "torch"},
        )
    import safetensors.numpy

    arrays = {name: _native(value) for name, value in tensors.items()}
    return safetensors.numpy.save(arrays, metadata={"kind": "numpy"})


def _native(value: np.ndarray) -> np.ndarray:
    return np.array(value, dtype=value.dtype.newbyteorder("="), order="C")


def _unpack(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    kind = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("kind")
    if kind == "torch":
        import safetensors.torch

        return safetensors.torch.load(content)
    import safetensors.numpy

    return safetensors.numpy.load(content)


def _decode(value: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("~")
    if kind is None:
        return {k: _decode(v, tensors) for k, v in value.items()}
    content = value["v"]
    if kind == "float":
        return float.fromhex(content)
    if kind == "tuple":
        return tuple(_decode(v, tensors) for v in content)
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    stored = tensors[content]
    if kind == "tensor":
        return stored
    array: np.ndarray = stored if isinstance(stored, np.ndarray) else stored.numpy()
    return array[()] if kind == "scalar" else array.copy()


def capture(value: Any) -> Any:
    """What must be saved of a live object, as a tree for `save`.

    Accepted are objects with ``state_dict`` and ``load_state_dict``, torch and numpy
    generators, tensors, arrays, and dictionaries and lists of these and of plain values.
    """
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return value.state_dict()
    if isinstance(value, np.random.Generator):
        return dict(value.bit_generator.state)
    if hasattr(value, "get_state") and hasattr(value, "set_state"):  # a torch.Generator
        return value.get_state()
    if isinstance(value, dict):
        return {k: capture(v) for k, v in value.items()}
    if isinstance(value, list):
        return [capture(v) for v in value]
    return value


def restore(value: Any, tree: Any, place: str = "state") -> None:
    """Bring a live object back, in place, to the state that `capture` saw.

    Raises:
        UnsupportedError: The object cannot be changed in place; the message says what to use.
    """
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        value.load_state_dict(tree)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = tree
    elif hasattr(value, "get_state") and hasattr(value, "set_state"):
        value.set_state(tree)
    elif is_tensor(value):
        value.detach().copy_(tree)
    elif isinstance(value, np.ndarray):
        value[...] = tree
    elif isinstance(value, dict):
        for key in [key for key in value if key not in tree]:
            del value[key]
        for key, saved in tree.items():
            if _fits(value.get(key), saved):
                restore(value[key], saved, f"{place}.{key}")
            else:
                value[key] = saved
    elif isinstance(value, list):
        del value[len(tree) :]
        for index, saved in enumerate(tree):
            if index < len(value) and _fits(value[index], saved):
                restore(value[index], saved, f"{place}[{index}]")
            else:
                value[index : index + 1] = [saved]
    else:
        raise UnsupportedError(not_live(place, value))


def _fits(value: Any, saved: Any) -> bool:
    """Whether a part of a dictionary or list can take what was saved without being replaced."""
    if isinstance(value, np.ndarray) or is_tensor(value):
        alike = isinstance(saved, np.ndarray) if isinstance(value, np.ndarray) else is_tensor(saved)
        return alike and value.shape == saved.shape and value.dtype == saved.dtype
    if isinstance(value, (dict, list)):
        return isinstance(saved, dict if isinstance(value, dict) else list)
    return is_live(value)


def not_live(place: str, value: object) -> str:
    """Why a value cannot be part of a loop's state."""
    return (
        f"{place} is a {type(value).__name__}, which cannot be restored in place; "
        "put it into a dictionary or a list"
    )


def is_live(value: object) -> bool:
    """Whether `restore` can change the object in place."""
    return (
        (hasattr(value, "state_dict") and hasattr(value, "load_state_dict"))
        or (hasattr(value, "get_state") and hasattr(value, "set_state"))
        or isinstance(value, (np.random.Generator, np.ndarray, dict, list))
        or is_tensor(value)
    )
