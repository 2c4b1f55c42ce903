"""Mapping a function over items in this process, in others, or on a Ray cluster.

The backends give the same bits for any number of workers: results are placed by index, every
task runs on one thread, and what a task draws comes from a seed inside its item. A worker that
dies changes nothing but time: what it had not finished is run again.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from mmxx.lab.errors import BadInputError, CrashedError, MissingExtraError

BACKENDS = ("serial", "process", "ray")
_POOLS = 3  # a first try, and two more after a worker died
_ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
# numba takes its variable only before its first use, so only a new process may be given it
_WORKER = {**_ONE_THREAD, "NUMBA_NUM_THREADS": "1"}

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def cores() -> int:
    """The cores that this process may use, or fewer where ``OMP_NUM_THREADS`` says so."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return min(int(wanted), available or 1)
    return available or 1


class Workers:
    """What the maps of one run share until `close`: worker processes, or a session of Ray.

    A worker takes seconds to start and to import what its tasks need, and a run may map a hundred
    times.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._session = ExitStack()

    def pool(self, workers: int) -> ProcessPoolExecutor:
        """The processes; they are started when there is work for them."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(list(sys.path),),
            )
        return self._pool

    def join(self, ray: Any, workers: int) -> None:
        """Join or start a cluster, unless that is done."""
        self._session.enter_context(_ray_session(ray, workers))

    def close(self) -> None:
        """End the processes at once, and leave the cluster."""
        if self._pool is not None:
            _end(self._pool)
            self._pool = None
        self._session.close()


def map_items(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    backend: str = "process",
    workers: int | None = None,
    progress: Progress | None = None,
    kept: Workers | None = None,
) -> list[Result]:
    """``[fn(item) for item in items]``, in the order of the items.

    Args:
        fn: A function at the top of a module; pure, and 10 ms of work or more.
        items: What it is called with; each carries its own seed.
        backend: "serial", "process" (spawned) or "ray".
        workers: Processes at a time; by default one a core, and no more than there are items.
        progress: Called with (finished, total) after each item.
        kept: Workers to use and to leave running, as many as there are cores; by default they
            are started and ended here.

    Raises:
        BadInputError: The backend is unknown.
        CrashedError: Workers kept dying: an item was tried three times.
        MissingExtraError: The backend is "ray" and Ray is not installed.
    """
    todo = list(items)
    if backend not in BACKENDS:
        raise BadInputError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    workers = min(workers or cores(), max(len(todo), 1))
    report = progress or (lambda finished, total: None)
    if backend == "serial":
        return list(_serial(fn, todo, report))
    map_with = _in_processes if backend == "process" else _on_ray
    if kept is not None:
        return map_with(fn, todo, cores(), report, kept)
    own = Workers()
    try:
        return map_with(fn, todo, workers, report, own)
    finally:
        own.close()


def _serial(
    fn: Callable[[Item], Result], items: Sequence[Item], progress: Progress
) -> Iterator[Result]:
    with one_thread():
        for index, item in enumerate(items):
            yield fn(item)
            progress(index + 1, len(items))


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch, numba and the BLAS of this process to one thread each."""
    restore: list[Callable[[], object]] = []
    torch, numba = (sys.modules.get(name) for name in ("torch", "numba"))
    if torch is not None:
        restore.append(partial(torch.set_num_threads, torch.get_num_threads()))
    if numba is not None:
        # Asked for the first time, numba starts its threads, and may set OpenMP's number anew:
        # torch's is set after that.
        restore.append(partial(numba.set_num_threads, numba.get_num_threads()))
        numba.set_num_threads(1)
    if torch is not None:
        torch.set_num_threads(1)
    if "threadpoolctl" in sys.modules:
        limits = sys.modules["threadpoolctl"].threadpool_limits(limits=1)
        restore.append(limits.restore_original_limits)
    try:
        with _environment(_ONE_THREAD):  # for libraries that are imported only inside
            yield
    finally:
        for undo in reversed(restore):
            undo()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker(path: list[str]) -> None:
    """Set up a worker: the parent's path, one thread, deaf to Ctrl-C, gone with its parent."""
    import signal

    sys.path[:] = path
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _run_one(fn: Callable[[Item], Result], item: Item) -> Result:
    with one_thread():
        return fn(item)


def _in_processes(
    fn: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Progress,
    kept: Workers,
) -> list[Result]:
    results: dict[int, Result] = {}
    for _ in range(_POOLS):
        missing = [index for index in range(len(items)) if index not in results]
        if not missing:
            break
        try:
            pool = kept.pool(workers)
            with _environment(_WORKER):  # no longer than processes start: numba here reads it, too
                futures = {pool.submit(_run_one, fn, items[i]): i for i in missing}
            _collect(futures, results, progress, len(items))
        except BrokenProcessPool:
            kept.close()  # a worker died: the rest in a new pool
        except BaseException:
            kept.close()  # nothing that was begun goes on
            raise
    if len(results) < len(items):
        lost = [index for index in range(len(items)) if index not in results]
        raise CrashedError(
            f"worker processes died {_POOLS} times over {getattr(fn, '__qualname__', fn)}; "
            f"items without a result: {lost[:8]}"
        )
    return [results[index] for index in range(len(items))]


def _collect(
    futures: dict[Future[Result], int],
    results: dict[int, Result],
    progress: Progress,
    total: int,
) -> None:
    broken: BrokenProcessPool | None = None
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            try:
                results[futures[future]] = future.result()
            except BrokenProcessPool as error:
                broken = error
        progress(len(results), total)
    if broken is not None:
        raise broken


def _end(pool: ProcessPoolExecutor) -> None:
    """End a pool at once, whatever its workers are doing."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


def _on_ray(
    fn: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Progress,
    kept: Workers,
) -> list[Result]:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError(
            "the backend 'ray' needs Ray. Install it with: pip install 'mmxx[cluster]'"
        ) from error
    kept.join(ray, workers)
    task = ray.remote(_run_one).options(num_cpus=1, max_retries=_POOLS - 1)
    references = [task.remote(fn, item) for item in items]
    places = {reference: index for index, reference in enumerate(references)}
    results: dict[int, Result] = {}
    waiting = references
    while waiting:
        finished, waiting = ray.wait(waiting, num_returns=1)
        for reference in finished:
            try:
                results[places[reference]] = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except ray.exceptions.RayError as error:
                raise CrashedError(
                    f"Ray lost item {places[reference]} for good: {error}"
                ) from error
        progress(len(results), len(items))
    return [results[index] for index in range(len(items))]


@contextmanager
def _ray_session(ray: Any, workers: int) -> Iterator[None]:
    """The user's cluster where ``RAY_ADDRESS`` is set, else one of our own on 127.0.0.1."""
    if ray.is_initialized():
        yield
        return
    environment = {"RAY_USAGE_STATS_ENABLED": "0", **_WORKER}
    worker_environment = {"env_vars": _WORKER}
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        with _environment(environment):
            if os.environ.get("RAY_ADDRESS"):
                ray.init(log_to_driver=False, runtime_env=worker_environment)
            else:
                ray.init(
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    runtime_env=worker_environment,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,  # a short path: sockets lie below it
                )
        try:
            yield
        finally:
            ray.shutdown()
