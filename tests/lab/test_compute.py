"""Mapping: equal bits everywhere, whatever happens to the workers."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from mmxx_toy import tasks

from mmxx.lab import compute
from mmxx.lab.compute import map_items
from mmxx.lab.errors import BadInputError, CrashedError, Interrupted, MissingExtraError

ITEMS = [(seed, 30) for seed in range(5)]


def same(one: list[Any], other: list[Any]) -> bool:
    return [part.tobytes() for part in one] == [part.tobytes() for part in other]


@pytest.fixture
def expected() -> list[Any]:
    return map_items(tasks.draw, ITEMS, backend="serial")


@pytest.fixture(autouse=True)
def no_process_is_left() -> Any:
    yield
    deadline = time.monotonic() + 30  # the pool's own thread may still be noting an end
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_bits_of_this_process(
    workers: int, expected: list[Any]
) -> None:
    assert same(map_items(tasks.draw, ITEMS, workers=workers), expected)


def test_results_stand_in_the_order_of_the_items() -> None:
    assert map_items(abs, (n for n in (-3, 2, -1)), backend="serial") == [3, 2, 1]


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_no_items_give_no_results(backend: str) -> None:
    assert map_items(tasks.draw, [], backend=backend) == []


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BadInputError, match="one of serial, process, ray, got 'dask'"):
        map_items(tasks.draw, ITEMS, backend="dask")


@pytest.mark.parametrize("way", ["exit", "kill"])
def test_a_worker_that_dies_once_changes_nothing(tmp_path: Path, way: str) -> None:
    marker = tmp_path / "died"
    items = [("", way, 0), (str(marker), way, 3), ("", way, 4)]
    assert map_items(tasks.die_once, items, workers=2) == [0, 9, 16]
    assert marker.exists()


def test_an_item_that_kills_every_worker_is_named() -> None:
    with pytest.raises(CrashedError) as caught:
        map_items(tasks.die_always, [("", 0), ("exit", 1)], workers=1)
    assert str(caught.value) == (
        "worker processes died 3 times over die_always; items without a result: [1]"
    )


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_an_error_of_the_function_keeps_its_type_and_words(backend: str) -> None:
    with pytest.raises(tasks.OwnError, match="no 2 please"):
        map_items(tasks.refuse, [1, 2, 3], backend=backend, workers=1)


def test_a_task_has_one_thread_in_this_process_and_gives_back_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (seen,) = map_items(tasks.surroundings, [0], backend="serial")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (seen["torch"], seen["numba"], seen["OMP_NUM_THREADS"]) == (1, 1, "1")
    assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_the_blas_of_this_process_has_one_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    limited: list[Any] = []

    class Pools:
        """Stands for threadpoolctl's limit, which one core would not show."""

        def __init__(self, limits: int) -> None:
            limited.append(limits)

        def restore_original_limits(self) -> None:
            limited.append("restored")

    threadpoolctl = importlib.import_module("threadpoolctl")
    monkeypatch.setattr(threadpoolctl, "threadpool_limits", Pools)

    def fail(item: int) -> float:
        assert limited == [1]
        return item / 0

    with pytest.raises(ZeroDivisionError):
        map_items(fail, [1], backend="serial")
    assert limited == [1, "restored"]


def test_a_worker_has_one_thread_and_the_path_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    here: list[str | None] = []

    def progress(finished: int, total: int) -> None:
        here.append(os.environ.get("NUMBA_NUM_THREADS"))

    (seen,) = map_items(tasks.surroundings, [0], progress=progress)
    assert here == [None]  # else what numba compiles in this process meanwhile would fail
    assert (seen["torch"], seen["OMP_NUM_THREADS"], seen["NUMBA_NUM_THREADS"]) == (1, "1", "1")
    assert seen["path"] == sys.path


def test_progress_is_told_after_every_item() -> None:
    told: list[tuple[int, int]] = []
    map_items(abs, [1, 2, 3], backend="serial", progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    map_items(tasks.process_number, [1, 2, 3], workers=2, progress=lambda *at: told.append(at))
    assert told[-1] == (3, 3)
    assert told == sorted(told)


def test_work_is_spread_over_the_workers_and_no_further() -> None:
    found = set(map_items(tasks.process_number, [2, 2, 2, 2, 2, 2], workers=2))
    assert len(found) <= 2
    assert os.getpid() not in found


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted])
def test_an_interruption_ends_the_workers_at_once(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """The work would take ten minutes; it stops when the tasks have begun."""

    def stop(number: int, frame: Any) -> None:
        raise error("stop")

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        with pytest.raises(error):
            map_items(tasks.tell_and_sleep, [str(tmp_path)] * 4, workers=2)
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_workers_leave_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "if __name__ == '__main__':\n"
        "    import sys\n"
        "    from mmxx_toy import tasks\n"
        "    from mmxx.lab.compute import map_items\n"
        "    map_items(tasks.tell_and_sleep, [sys.argv[1]], workers=1)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    place = tmp_path / "workers"
    place.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(place)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(place.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    (worker,) = (int(path.name) for path in place.iterdir())
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_alive(worker)


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_kept_workers_are_used_again_and_replaced_when_one_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "cores", lambda: 1)
    kept = compute.Workers()
    try:
        first = map_items(tasks.process_number, [2, 2], kept=kept)
        assert map_items(tasks.process_number, [2], kept=kept) == first[:1]
        items = [(str(tmp_path / "died"), "kill", 3)]
        assert map_items(tasks.die_once, items, kept=kept) == [9]
        assert map_items(tasks.process_number, [2], kept=kept) != first[:1]
    finally:
        kept.close()


def test_after_an_error_no_worker_is_kept() -> None:
    kept = compute.Workers()
    (first,) = map_items(tasks.process_number, [2], kept=kept)
    with pytest.raises(tasks.OwnError):
        map_items(tasks.refuse, [2], kept=kept)
    assert multiprocessing.active_children() == []
    assert map_items(tasks.process_number, [2], kept=kept) != [first]
    kept.close()


# -- cores -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "allowed"), [("1", 1), ("1000", None), ("0", None), ("many", None), ("", None)]
)
def test_the_number_of_cores_obeys_omp_num_threads(
    monkeypatch: pytest.MonkeyPatch, wanted: str, allowed: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert compute.cores() == (allowed or len(os.sched_getaffinity(0)))


def test_there_are_as_many_workers_as_cores_and_no_more_than_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def note(fn: Any, items: Any, workers: int, *more: Any) -> list[Any]:
        asked.append(workers)
        return []

    monkeypatch.setattr(compute, "cores", lambda: 4)
    monkeypatch.setattr(compute, "_in_processes", note)
    map_items(abs, range(9))
    map_items(abs, range(3))
    map_items(abs, range(3), workers=2)
    assert asked == [4, 3, 2]


def test_one_thread_is_one_where_numba_has_not_started_its_own() -> None:
    """Starting them, on OpenMP, sets the number of torch's threads too."""
    code = (
        "import numba, torch\n"
        "from mmxx.lab.compute import one_thread\n"
        "before = torch.get_num_threads()\n"
        "with one_thread():\n"
        "    assert torch.get_num_threads() == 1, torch.get_num_threads()\n"
        "    assert numba.get_num_threads() == 1\n"
        "assert torch.get_num_threads() == before\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]


# -- Ray ---------------------------------------------------------------------------------------


def test_ray_that_is_not_installed_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mmxx\[cluster\]'"):
        map_items(tasks.draw, ITEMS, backend="ray")


class Ray:
    """Ray's few calls that we use, in this process: what is asked of it, and what it answers."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                super().__init__("a task failed")
                self.cause = cause

            def as_instanceof_cause(self) -> Exception:
                return self.cause

    def __init__(self) -> None:
        self.started: dict[str, Any] | None = None
        self.environment: dict[str, str | None] = {}
        self.running = False
        self.ended = 0
        self.options: dict[str, Any] = {}

    def is_initialized(self) -> bool:
        return self.running

    def init(self, **how: Any) -> None:
        names = ("RAY_USAGE_STATS_ENABLED", "NUMBA_NUM_THREADS")
        self.environment = {name: os.environ.get(name) for name in names}
        self.started, self.running = how, True

    def shutdown(self) -> None:
        self.running, self.ended = False, self.ended + 1

    def remote(self, fn: Any) -> Any:
        ray = self

        class Task:
            def options(self, **options: Any) -> Task:
                ray.options = options
                return self

            def remote(self, *arguments: Any) -> Any:
                return lambda: fn(*arguments)

        return Task()

    def wait(self, waiting: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return waiting[-num_returns:], waiting[:-num_returns]  # the last is ready first

    def get(self, reference: Any) -> Any:
        try:
            return reference()
        except tasks.OwnError as error:
            raise self.exceptions.RayTaskError(error) from None
        except MemoryError:
            raise self.exceptions.RayError("its node is gone") from None


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    stand_in = Ray()
    monkeypatch.setitem(sys.modules, "ray", stand_in)  # type: ignore[arg-type]
    return stand_in


def test_ray_is_started_on_this_machine_without_a_dashboard_and_ended(
    ray: Ray, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    told: list[tuple[int, int]] = []

    def progress(finished: int, total: int) -> None:
        told.append((finished, total))
        assert "NUMBA_NUM_THREADS" not in os.environ

    found = map_items(tasks.draw, ITEMS, backend="ray", workers=2, progress=progress)
    assert same(found, expected)
    assert told == [(n, 5) for n in range(1, 6)]
    assert ray.started is not None
    assert ray.started["_node_ip_address"] == "127.0.0.1"
    assert ray.started["include_dashboard"] is False
    assert ray.started["num_cpus"] == 2
    assert ray.started["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"
    assert ray.environment == {"RAY_USAGE_STATS_ENABLED": "0", "NUMBA_NUM_THREADS": "1"}
    assert ray.options == {"num_cpus": 1, "max_retries": 2}
    assert ray.ended == 1
    assert not Path(ray.started["_temp_dir"]).exists()
    assert "NUMBA_NUM_THREADS" not in os.environ


def test_a_cluster_of_the_user_s_is_joined(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert map_items(abs, [-1, 2], backend="ray") == [1, 2]
    assert ray.started is not None
    assert not {"num_cpus", "_node_ip_address", "_temp_dir"} & set(ray.started)
    assert ray.ended == 1


def test_a_session_of_ray_is_kept_too(ray: Ray, expected: list[Any]) -> None:
    kept = compute.Workers()
    for _ in range(2):
        assert same(map_items(tasks.draw, ITEMS, backend="ray", kept=kept), expected)
    assert ray.running
    kept.close()
    assert ray.ended == 1


def test_a_session_that_runs_already_is_used_and_left_alone(ray: Ray) -> None:
    ray.running = True
    assert map_items(abs, [-1], backend="ray") == [1]
    assert ray.started is None
    assert ray.ended == 0


def test_an_error_of_the_function_keeps_its_type_on_ray(ray: Ray) -> None:
    with pytest.raises(tasks.OwnError, match="no 2 please"):
        map_items(tasks.refuse, [1, 2, 3], backend="ray")
    assert ray.ended == 1


def test_an_item_that_ray_cannot_finish_is_named(ray: Ray) -> None:
    def lose(item: int) -> int:
        if item == 5:
            raise MemoryError
        return item

    with pytest.raises(CrashedError, match="Ray lost item 1 for good: its node is gone"):
        map_items(lose, [4, 5], backend="ray")
    assert ray.ended == 1


@pytest.mark.slow
def test_ray_gives_the_same_bits_and_leaves_no_process(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = tmp_path / "on_ray.py"
    script.write_text(
        "if __name__ == '__main__':\n"
        "    import sys\n"
        "    from mmxx_toy import tasks\n"
        "    from mmxx.lab.compute import map_items\n"
        "    items = [(seed, 30) for seed in range(5)]\n"
        "    expected = [a.tobytes() for a in map_items(tasks.draw, items, backend='serial')]\n"
        "    for workers in (1, 2, 3):\n"
        "        found = map_items(tasks.draw, items, backend='ray', workers=workers)\n"
        "        assert [a.tobytes() for a in found] == expected, workers\n"
        "    dying = [('', 'kill', 2), (sys.argv[1], 'kill', 3)]\n"
        "    assert map_items(tasks.die_once, dying, backend='ray', workers=2) == [4, 9]\n"
        "    try:\n"
        "        map_items(tasks.refuse, [1, 2], backend='ray', workers=1)\n"
        "    except tasks.OwnError as error:\n"
        "        assert 'no 2 please' in str(error)\n"
        "        print('all equal')\n"
    )
    before = _rays()
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "died")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert done.stdout.strip().endswith("all equal"), done.stderr[-3000:]
    assert (tmp_path / "died").exists()
    deadline = time.monotonic() + 30
    while _rays() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _rays() - before


LOSE_A_NODE = """
if __name__ == "__main__":
    import os, threading, time

    import ray
    from mmxx_toy import tasks
    from ray.cluster_utils import Cluster

    from mmxx.lab.compute import map_items

    items = [(seed, 30) for seed in range(16)]
    expected = [a.tobytes() for a in map_items(tasks.draw, items, backend="serial")]
    how = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=how)
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    nodes = []

    def lose(done, total):
        if done == 4:
            nodes.append(sum(node["Alive"] for node in ray.nodes()))
            threading.Thread(
                target=cluster.remove_node, args=(other,), kwargs={"allow_graceful": False}
            ).start()

    found = map_items(tasks.draw_slowly, items, backend="ray", progress=lose)
    assert nodes == [2], nodes
    assert [a.tobytes() for a in found] == expected
    cluster.shutdown()
    print("all equal")
"""


@pytest.mark.slow
def test_a_node_of_the_user_s_cluster_that_is_lost_costs_only_time(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = tmp_path / "cluster.py"
    script.write_text(LOSE_A_NODE)
    before = _rays()
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=500
    )
    assert done.stdout.strip().endswith("all equal"), done.stderr[-3000:]
    deadline = time.monotonic() + 30
    while _rays() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _rays() - before


def _rays() -> set[int]:
    """The processes of Ray that run on this machine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "raylet" in words or "gcs_server" in words or words.startswith("ray::"):
            found.add(int(path.parent.name))
    return found


def test_draws_of_the_items_differ(expected: list[Any]) -> None:
    assert len({part.tobytes() for part in expected}) == len(ITEMS)
    assert expected[0].dtype == np.float64
