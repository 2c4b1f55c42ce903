"""The review: every system in a process of its own, whatever becomes of it."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from mmxx_toy import experiment as toy
from mmxx_toy.variants import announce

from mmxx.lab import catalog, cli, compute, folder
from mmxx.lab import review as reviews
from mmxx.lab.errors import BadInputError
from mmxx.lab.review import review

ALL = catalog.systems
BROKEN = Path(__file__).parents[1] / "plugins" / "broken"
MEASURES = """
def run(config, run):
    import os
    run.measure("finds-slope", {slope})
    run.measure("beats-mean", 2 + run.rng("x").random())
    run.artifact("threads.txt", os.environ["OMP_NUM_THREADS"])
"""
CRASHES = """
def run(config, run):
    import os, signal
    for step in run.loop("fit", 3, state={}, every=1):
        if step == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
"""
SLOW = """
def run(config, run):
    import signal, time
    for step in run.loop("fit", 4, state={}, every=1):
        if step == 2 and len(run._record["sessions"]) == 1:
            run.artifact("slept.txt", "x")
            if "deaf" in run.card.name:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            while True:
                time.sleep(0.01)
                if run._stop:
                    break
    run.measure("finds-slope", 0.0)
"""


ENDINGS = {
    "holds": MEASURES.format(slope=0.05),
    "crashes": CRASHES,
    "fails": "def run(config, run):\n    raise KeyError('gone')\n",
    "needs": "import a_module_that_nobody_has\n",
    "short": MEASURES.format(slope=0.5),
}


class Review:
    """What a review left and said."""

    def __init__(self, root: Path, code: int, out: str, err: str) -> None:
        self.root, self.code, self.out, self.err = root, code, out, err

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        content = json.loads((self.root / "review.json").read_bytes())
        return {entry["system"]: entry for entry in content["entries"]}

    def endings(self) -> dict[str, tuple[str, str | None]]:
        return {name: (e["status"], e["reason"]) for name, e in self.entries.items()}

    def record(self, name: str) -> dict[str, Any]:
        return json.loads((self.root / name / "run.json").read_bytes())

    def claims(self, name: str) -> Any:
        return json.loads((self.root / name / "claims.json").read_bytes())


@contextmanager
def systems(place: Path, **sources: str) -> Iterator[None]:
    """A catalog of these systems and the broken one, here and in the children."""
    for name, source in sources.items():
        if (place / f"mmxx_{name}").exists():
            continue
        changes = 'extra="torch"' if "nobody_has" in source else ""
        announce(place, name, source, changes=changes, extras=("torch",))
    with pytest.MonkeyPatch.context() as patch:
        for path in (place, BROKEN):
            patch.syspath_prepend(path)
        paths = [str(place), str(BROKEN), os.environ["PYTHONPATH"]]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setattr(
            catalog,
            "systems",
            lambda: {n: e for n, e in ALL().items() if n in sources or n == "snapped"},
        )
        yield


def held(root: Path, **changes: Any) -> Review:
    """A whole review."""
    usual: dict[str, Any] = {"only": [], "tier": "quick", "jobs": 1, "seed": 0, "strict": False}
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = review(root, **{**usual, **changes})
    return Review(root, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Review:
    """A review in which a system ends in every way that one can end by itself."""
    place = tmp_path_factory.mktemp("whole")
    with systems(place / "site", **ENDINGS):
        return held(place / "review")


def test_each_system_is_listed_as_it_ended(whole: Review) -> None:
    assert whole.code == 70
    assert whole.endings() == {
        "crashes": ("crashed", "signal 11"),
        "fails": (
            "failed",
            f"fails failed: KeyError: 'gone' (the traceback is in {whole.root}/fails/log.txt)",
        ),
        "holds": ("done", None),
        "needs": (
            "missing extra",
            "needs needs a_module_that_nobody_has. "
            "Install it with: pip install 'mmxx_needs[torch]'",
        ),
        "short": ("done", None),
        "snapped": ("broken", "RuntimeError: snapped in two"),
    }
    assert [entry["folder"] for entry in whole.entries.values()] == [
        "crashes",
        "fails",
        "holds",
        None,
        "short",
        None,
    ]
    content = json.loads((whole.root / "review.json").read_bytes())
    assert (content["schema"], content["tier"]) == (1, "quick")
    assert content["started"] <= content["ended"]


def test_the_site_shows_every_system(whole: Review) -> None:
    page = (whole.root / "index.html").read_text()
    for text in ("holds/report.html", "short/report.html", "crashes/report.html", "signal 11",
                 "snapped in two", "a_module_that_nobody_has"):  # fmt: skip
        assert text in page
    for name in ("holds", "short", "crashes", "fails"):
        assert (whole.root / name / "report.html").is_file()
    assert whole.out.endswith(f"site: {whole.root}/index.html\n")


def test_the_ends_are_told_as_they_come_and_summed_up(whole: Review) -> None:
    assert whole.err.splitlines() == [
        "crashes: crashed signal 11",
        f"fails: failed {whole.endings()['fails'][1]}",
        "holds: done 2 holds",
        f"needs: missing extra {whole.endings()['needs'][1]}",
        "short: done 1 holds, 1 falls short",
    ]
    rows = [line.split() for line in whole.out.splitlines()[:-1]]
    assert [row[0] for row in rows] == list(whole.entries)
    assert rows[0][1] == "crashed"
    assert rows[0][-2:] == ["signal", "11"]
    assert rows[4][-5:] == ["1", "holds,", "1", "falls", "short"]
    assert rows[5][1:] == ["broken", "RuntimeError:", "snapped", "in", "two"]


def test_a_crashed_run_says_so_in_its_own_record_and_page(whole: Review) -> None:
    found = whole.record("crashes")
    assert (found["status"], found["reason"]) == ("interrupted", "crashed (signal 11)")
    assert "crashed (signal 11)" in (whole.root / "crashes" / "report.html").read_text()


def test_nothing_of_the_children_is_left_about(whole: Review) -> None:
    found = {path.name for path in whole.root.iterdir()} - {".lock"}
    assert found == {"crashes", "fails", "holds", "index.html", "review.json", "short"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, whole: Review) -> Review:
    """The same two sound systems, both at a time, in a review that is strict."""
    root = tmp_path_factory.mktemp("two") / "review"
    with pytest.MonkeyPatch.context() as patch, systems(whole.root.parent / "site", **ENDINGS):
        patch.setattr(compute, "cores", lambda: 4)
        return held(root, only=["holds", "short"], jobs=2, strict=True)


@pytest.fixture
def announced(whole: Review) -> Iterator[None]:
    """The catalog of that review, once more."""
    with systems(whole.root.parent / "site", **ENDINGS):
        yield


def test_several_at_a_time_measure_the_same(whole: Review, two: Review) -> None:
    assert list(two.entries) == ["holds", "short"]
    for name in two.entries:
        assert two.claims(name) == whole.claims(name)
        assert (two.root / name / "artifacts" / "threads.txt").read_text() == "2"


def test_a_strict_review_ends_with_1_where_a_claim_fell_short(two: Review) -> None:
    assert two.code == 1
    assert {status for status, _ in two.endings().values()} == {"done"}


def test_the_command_line_reviews_the_systems_that_it_is_given(
    whole: Review, announced: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "r"
    flags = ["--only", "holds", "--full", "--seed", "3", "--strict", "--out", str(root)]
    assert cli.main(["review", *flags]) == 0
    said = capsys.readouterr().out
    assert said.startswith("holds  done ")
    found = Review(root, 0, "", "")
    assert list(found.entries) == ["holds"]
    assert (found.record("holds")["tier"], found.record("holds")["seed"]) == ("full", 3)
    assert (
        found.claims("holds")["claims"][2]["measured"]
        != whole.claims("holds")["claims"][1]["measured"]
    )
    (root / "notes.txt").write_text("a review's folder may hold more")
    (root / "holds" / "report.html").write_text("stale")
    assert cli.main(["review", *flags]) == 0
    assert len(found.record("holds")["sessions"]) == 1
    assert (root / "holds" / "report.html").read_text() != "stale"


@pytest.mark.parametrize("name", ["thesis.tex", "a-folder"])
def test_a_stranger_s_folder_is_refused_and_left_alone(
    announced: None, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text("years of work") if "." in name else path.mkdir()
    with pytest.raises(BadInputError, match=f"that of a review, and {tmp_path} holds {name}"):
        held(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_review_that_is_under_way_is_not_begun_again(announced: None, tmp_path: Path) -> None:
    holder = folder.lock(tmp_path)
    assert holder is not None
    with pytest.raises(BadInputError, match="is in use by another process"):
        held(tmp_path)
    holder.close()
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_systems_that_are_not_there_or_broken_cannot_be_asked_for(
    announced: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "r")]
    assert cli.main(["review", "--only", "nothing", *out]) == 2
    assert cli.main(["review", "--only", "snapped", *out]) == 2
    said = capsys.readouterr().err
    assert "no system is called 'nothing'" in said
    assert "snapped from mmxx-snapped is broken" in said
    assert not (tmp_path / "r").exists()


# -- stopping ----------------------------------------------------------------------------------


def stop_when(there: Callable[[], bool], number: int = signal.SIGINT) -> threading.Thread:
    """Send this process a signal as soon as something is there."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not there() and time.monotonic() < deadline:
            time.sleep(0.01)
        if there():
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_review_ends_with_75_and_a_second_one_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    root, handlers = tmp_path / "review", [signal.getsignal(n) for n in (2, 15)]
    with systems(tmp_path / "site", later=MEASURES.format(slope=0.05), dawdles=SLOW):
        stopper = stop_when((root / "dawdles" / "artifacts" / "slept.txt").exists, number)
        stopped = held(root)
        stopper.join()
        assert stopped.code == 75
        assert [signal.getsignal(n) for n in (2, 15)] == handlers
        assert stopped.endings()["dawdles"] == (
            "interrupted",
            f"stopped by SIGTERM; go on with: mmxx resume {root}/dawdles",
        )
        assert stopped.endings()["later"] == ("not run", None)
        assert stopped.entries["later"]["folder"] is None
        assert (root / "index.html").is_file()
        if number == signal.SIGTERM:
            return
        again = held(root)
    assert again.code == 0
    assert {status for status, _ in again.endings().values()} == {"done", "broken"}
    sessions = again.record("dawdles")["sessions"]
    assert [session["status"] for session in sessions] == ["interrupted", "done"]
    assert sessions[1]["resumed"]["fit"] >= 2


def test_a_child_that_is_stopped_before_its_run_began_did_not_crash(tmp_path: Path) -> None:
    root = tmp_path / "review"
    source = f"import time\nfrom pathlib import Path\nPath({str(tmp_path / 'here')!r}).touch()\n"
    source += "time.sleep(600)\n"
    with systems(tmp_path / "site", early=source):
        stopper = stop_when((tmp_path / "here").exists)
        stopped = held(root)
        stopper.join()
    assert stopped.code == 75
    assert stopped.endings()["early"] == ("interrupted", "stopped")


def test_a_child_that_does_not_stop_is_ended_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "_STOP", 0.1)
    root = tmp_path / "review"
    with systems(tmp_path / "site", deaf=SLOW):
        stopper = stop_when((root / "deaf" / "artifacts" / "slept.txt").exists)
        stopped = held(root)
        stopper.join()
        assert stopped.code == 75
        assert stopped.endings()["deaf"] == ("interrupted", "stopped")
        assert stopped.record("deaf")["status"] == "interrupted"
        card = catalog.find("deaf")
        assert reviews._resumable(root / "deaf", card, "quick", 0)


def test_a_review_that_fails_leaves_no_child_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[Any] = []

    def fail(root: Path, entry: Any, stop: bool) -> None:
        children.append(entry.child)
        raise ZeroDivisionError

    monkeypatch.setattr(reviews, "_look", fail)
    source = "import time\ntime.sleep(600)\n"
    with systems(tmp_path / "site", endless=source), pytest.raises(ZeroDivisionError):
        held(tmp_path / "review")
    assert [child.returncode for child in children] == [-signal.SIGKILL]


def test_only_an_unfinished_run_with_the_same_settings_is_resumed(tmp_path: Path) -> None:
    def can(change: dict[str, Any], tier: str = "quick", seed: int = 0) -> bool:
        usual = {"schema": 1, "system": "toy", "tier": "quick", "seed": 0, "device": "cpu"}
        usual |= {"devices": 1, "backend": "process", "status": "interrupted"}
        usual |= {"config": folder.config_json(toy.QUICK)}
        (tmp_path / "run.json").write_text(json.dumps({**usual, **change}))
        return reviews._resumable(tmp_path, card, tier, seed)

    card = catalog.find("toy")
    assert not reviews._resumable(tmp_path, card, "quick", 0)
    assert can({})
    assert can({"status": "running"})  # the whole review was killed
    assert not can({"status": "done"})
    assert not can({"status": "failed"})
    assert not can({}, seed=1)
    assert not can({}, tier="full")
    assert can({"tier": "full", "config": folder.config_json(toy.FULL)}, tier="full")
    assert not can({"config": folder.config_json(toy.FULL)})
    assert not can({"config": {}})
    assert not can({"schema": 9})


@pytest.mark.parametrize(
    ("endings", "stopped", "code"),
    [
        ([("done", 0)], False, 0),
        ([("done", 0), ("broken", 0), ("missing extra", 3)], False, 0),
        ([("done", 0), ("failed", 70)], False, 70),
        ([("crashed", -11)], False, 70),
        ([("interrupted", 75)], False, 75),
        ([("interrupted", 75), ("failed", 2)], False, 70),
        ([("failed", 74), ("failed", 70)], False, 74),
        ([("failed", 74), ("done", 0)], True, 75),
        ([], False, 0),
    ],
)
def test_the_exit_code_is_the_gravest(
    tmp_path: Path, endings: list[tuple[str, int]], stopped: bool, code: int
) -> None:
    entries = [reviews._Entry(str(i), "", s, code=c) for i, (s, c) in enumerate(endings)]
    assert reviews._exit_code(tmp_path, entries, stopped=stopped, strict=True) == code


# -- on a terminal -----------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Standard error as a person sees it."""

    def isatty(self) -> bool:
        return True


def test_a_table_follows_the_systems_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    entries = [reviews._Entry("alpha", "Alpha"), reviews._Entry("beta", "Beta", began=0.0)]
    with reviews._live(tmp_path, entries) as show:
        show()
        assert "waiting" in terminal.getvalue()
        entries[0].status = "running"
        show()  # before the child has said anything
        (tmp_path / ".progress-alpha").write_text('["fit", 3, 8]')
        show()
        assert "fit" in terminal.getvalue()
        entries[0].status, entries[0].seconds = "crashed", 3.0
        entries[0].reason = "signal 9"
    end = terminal.getvalue()[-1500:]
    assert "crashed" in end
    assert "signal 9" in end
