"""Levels in a folder: one sub-folder each, whole or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmxx.sparsity._common import Masks

_FORMAT = "mmxx-lottery-1"


def save(folder: str | PathLike[str], level: int, state: Mapping[str, Any]) -> None:
    """Write the last level of a state as ``level-…``, and with level 0 what all begin with.

    Each sub-folder is written beside its place and renamed into it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if level == 0:
        begin = {key: state[key] for key in ("settings", "start", "rewound")}
        _write(folder / "begin", begin, None)
    ticket = state["tickets"][level]
    content = {"metrics": ticket["metrics"], "trained": state["trained"]}
    _write(folder / f"level-{level:03d}", content, Masks(ticket["masks"]))


def load(folder: str | PathLike[str], level: int | None = None) -> dict[str, Any] | None:
    """The state up to a level, or to the last one; None where there is none.

    Raises:
        ValueError: A file is damaged, or the level is not there.
    """
    folder = Path(folder)
    there: list[Path] = []
    while (path := folder / f"level-{len(there):03d}").is_dir() and (folder / "begin").is_dir():
        there.append(path)
    if level is not None:
        if not 0 <= level < len(there):
            raise ValueError(f"{folder} holds {len(there)} levels from 0 on, not level {level}")
        there = there[: level + 1]
    if not there:
        return None
    contents = [_read(path) for path in there]
    tickets = [
        {"masks": dict(Masks.load(path / "masks.safetensors")), "metrics": content["metrics"]}
        for path, content in zip(there, contents, strict=True)
    ]
    return {**_read(folder / "begin"), "trained": contents[-1]["trained"], "tickets": tickets}


def _write(place: Path, tree: Mapping[str, Any], masks: Masks | None) -> None:
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"format": _FORMAT, "tree": _pack(tree, tensors)})
    (beside / "tree.json").write_text(text, encoding="utf-8")
    save_file(tensors, beside / "tensors.safetensors")
    if masks is not None:
        masks.save(beside / "masks.safetensors")
    for path in beside.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(place, ignore_errors=True)  # a level that is trained again, from an earlier one
    beside.rename(place)


def _read(place: Path) -> dict[str, Any]:
    try:
        content = json.loads((place / "tree.json").read_text(encoding="utf-8"))
        if content.get("format") != _FORMAT:
            raise ValueError(f"{place} is of the format {content.get('format')!r}")
        return _unpack(content["tree"], load_file(place / "tensors.safetensors"))
    except (OSError, KeyError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{place} is damaged: {error}") from error


def _pack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree in JSON; its tensors go into the dictionary, by number."""
    if isinstance(tree, Tensor):
        tensors[str(len(tensors))] = tree.detach().cpu().contiguous().clone()
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(tree, Mapping):
        return {"map": [[_pack(k, tensors), _pack(v, tensors)] for k, v in tree.items()]}
    if isinstance(tree, tuple):
        return {"tuple": [_pack(part, tensors) for part in tree]}
    if isinstance(tree, list):
        return [_pack(part, tensors) for part in tree]
    if isinstance(tree, float):
        return {"float": tree.hex()}
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    raise TypeError(
        "what is kept must be made of dictionaries, lists, tuples, numbers, strings, None and "
        f"tensors, got {type(tree).__name__}"
    )


def _unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_unpack(part, tensors) for part in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "map":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    if kind == "tuple":
        return tuple(_unpack(part, tensors) for part in content)
    return float.fromhex(content)
