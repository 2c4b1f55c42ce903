"""What a run or a call touches outside of itself: files, sockets, random generators."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def global_states() -> tuple[Any, ...]:
    torch = sys.modules.get("torch")
    state = np.random.get_state()  # noqa: NPY002 - the global state is what is watched
    return (
        random.getstate(),
        tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in state),
        None if torch is None else torch.get_rng_state().numpy().tobytes(),
    )


def same_states(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    # torch may have been imported in between; its generator then counts from there on
    pairs = zip(one, other, strict=True)
    return all(a == b for a, b in pairs if a is not None)


_watching: list[Callable[[str, tuple[Any, ...]], None]] = []
_hooked: list[object] = []
# of each event: the place of the address
_TALKS = {
    "socket.connect": 1,
    "socket.bind": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
# of each event: the place of the path that changes, and of the folder it is relative to
_WRITES = {
    "os.mkdir": (0, 2),
    "os.rename": (1, 3),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.symlink": (1, 2),
    "os.link": (1, 3),
    "os.truncate": (0, None),
}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    for watcher in _watching:
        watcher(event, arguments)


@contextmanager
def watched(folder: Path) -> Iterator[set[str]]:
    """Collect every write outside of a folder and every use of a socket."""
    if _audit not in _hooked:
        sys.addaudithook(_audit)  # cannot be taken off again
        _hooked.append(_audit)
    allowed = [str(folder.resolve()), str(folder.absolute()), os.path.dirname(os.devnull)]
    allowed += [os.environ[n] for n in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR") if n in os.environ]
    seen: set[str] = set()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _TALKS:
            seen.add(f"{event} {arguments[_TALKS[event]]!r}")
            return
        if event == "open":
            path, mode, flags = arguments
            if not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or "w" in (mode or "")):
                return
            base = -1
        elif event in _WRITES:
            what, relative = _WRITES[event]
            path, base = arguments[what], -1 if relative is None else arguments[relative]
        else:
            return
        if not isinstance(path, (str, bytes, Path)):
            return
        above = os.readlink(f"/proc/self/fd/{base}") if base != -1 else os.getcwd()
        where = os.path.normpath(os.path.join(above, os.fsdecode(path)))
        inside = any(where == root or where.startswith(root + os.sep) for root in allowed)
        if "__pycache__" not in where and not inside:
            seen.add(f"{event} {where}")

    _watching.append(watch)
    try:
        yield seen
    finally:
        _watching.remove(watch)
