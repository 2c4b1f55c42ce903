"""What the tests map over items: at the top of a module, so that other processes can import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np


def draw(item: tuple[int, int]) -> np.ndarray:
    """Numbers that follow from the item's seed, and a product that depends on summation order."""
    seed, size = item
    x = np.random.default_rng(seed).normal(size=(size, size))
    return np.append(x @ x.T, x.sum())


def draw_slowly(item: tuple[int, int]) -> np.ndarray:
    """As `draw`, long enough for something to happen meanwhile."""
    time.sleep(0.5)
    return draw(item)


def die_once(item: tuple[str, str, int]) -> int:
    """End the process without a word the first time (a marker file remembers), then square."""
    marker, way, value = item
    if marker and not Path(marker).exists():
        Path(marker).touch()
        _die(way)
    return value * value


def die_always(item: tuple[str, int]) -> int:
    """End the process for one of the items, every time."""
    way, value = item
    if way:
        _die(way)
    return value


def _die(way: str) -> NoReturn:
    if way == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process cannot come here")


class OwnError(ValueError):
    """An error of the task's own kind."""


def refuse(item: int) -> int:
    """Raise for the item 2."""
    if item == 2:
        raise OwnError(f"no {item} please")
    return item


def surroundings(item: int) -> dict[str, Any]:
    """What a task sees: its threads and its path."""
    import torch

    numba = sys.modules.get("numba")
    return {
        "item": item,
        "torch": torch.get_num_threads(),
        "numba": None if numba is None else numba.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "NUMBA_NUM_THREADS": os.environ.get("NUMBA_NUM_THREADS"),
        "path": list(sys.path),
    }


def process_number(item: int) -> int:
    """The process that does the work."""
    time.sleep(0.01 * item)
    return os.getpid()


def tell_and_sleep(folder: str) -> None:
    """Say which process this is in a file, then sleep for much longer than any test."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
