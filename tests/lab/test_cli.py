"""The command line: every command, and every way in which one ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmxx_toy import experiment as toy
from mmxx_toy.variants import announce

from mmxx import __version__
from mmxx.lab import catalog, cli, folder
from mmxx.lab.catalog import Card, Claim, between
from mmxx.lab.testing import assert_same, outcome

BROKEN = Path(__file__).parents[1] / "plugins" / "broken"
SWIFT = """
def run(config, run):
    run.measure("finds-slope", config.noise, baseline=2, control=1.5, note="a remark")
    run.measure("beats-mean", 3.0)
    run.measure("full-only", 1.0)
    for step in run.loop("fit", config.steps, state={}, every=1000):
        run.log(step, loss=1.0)
"""


@pytest.fixture(autouse=True)
def surroundings(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, and caches that no test moves."""
    usual = Path("~/.cache").expanduser() / "mmxx"
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", str(usual / "numba")))
    monkeypatch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR", str(usual / "matplotlib")))
    monkeypatch.delenv("MMXX_PROGRESS", raising=False)


class Said:
    """What a command left: its exit code and its words."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def mmxx(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def call(*arguments: Any) -> Said:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Said(code, *capsys.readouterr())

    return call


Mmxx = Callable[..., Said]


@pytest.fixture
def swift(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system like the toy that measures what it is told to, at once."""
    announce(in_tmp / "site", "swift", SWIFT)
    monkeypatch.syspath_prepend(in_tmp / "site")
    return "swift"


@pytest.fixture
def variant(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Announce a variant of the toy; return its package's folder."""
    monkeypatch.syspath_prepend(in_tmp / "site")

    def make(name: str, *arguments: Any, **more: Any) -> Path:
        announce(in_tmp / "site", name, *arguments, **more)
        return in_tmp / "site" / f"mmxx_{name}"

    return make


def record(path: str | Path) -> dict[str, Any]:
    return json.loads((Path(path) / "run.json").read_bytes())


# -- list and show -----------------------------------------------------------------------------


def test_list_has_a_line_for_each_system(mmxx: Mmxx) -> None:
    said = mmxx("list")
    assert said.code == 0
    assert re.search(r"^toy +Toy line \(Perthes und Besser 1809\)$", said.out, re.M)
    assert len(said.out.splitlines()) == len(catalog.systems())


def test_list_tells_what_is_broken(mmxx: Mmxx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BROKEN)
    assert "broken: RuntimeError: snapped in two (from mmxx-snapped)" in mmxx("list").out
    content = json.loads(mmxx("list", "--json").out)
    assert content["snapped"]["broken"] == "RuntimeError: snapped in two"
    assert content["toy"] == folder.card_json(catalog.find("toy"))


def test_list_of_nothing_is_empty(mmxx: Mmxx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "entry_points", lambda group: [])
    assert (mmxx("list").code, mmxx("list").out) == (0, "")
    assert json.loads(mmxx("list", "--json").out) == {}


def test_show_tells_the_claims_with_their_bars(mmxx: Mmxx) -> None:
    said = mmxx("show", "toy")
    assert said.code == 0
    assert said.out.splitlines() == [
        "Toy line",
        "Theoria motus. C. F. Gauss. Perthes und Besser 1809. https://example.org/gauss",
        "",
        "Fits y = ax + b by gradient descent. For tests of the lab.",
        "",
        "Claims",
        "  finds-slope: The slope is found.",
        "    paper: 2 (Section 3); bar: quick ≤ 0.1, full ≤ 0.05 error of the slope",
        "    scaled: 40 points",
        "  full-only (full only): With more steps it is found better.",
        "    paper: no figure (Section 4); bar: full ≥ 1",
        "  beats-mean: A line is better than a constant.",
        "    paper: no figure (Table 1); bar: quick ≥ 2, full ≥ 2 × the constant's error",
        "",
        "Interface",
        "  mmxx_toy.line.fit_line",
        "",
        "What differs from the paper",
        "  Gauss solved the normal equations.",
    ]


def test_show_tells_what_to_install(mmxx: Mmxx, variant: Callable[..., Path]) -> None:
    variant("wants_more", changes='extra="torch"', extras=("torch",))
    assert mmxx("show", "wants-more").out.endswith("Needs: pip install 'mmxx_wants_more[torch]'\n")


def test_version_and_help_and_nothing(mmxx: Mmxx) -> None:
    assert mmxx("--version").out == f"mmxx {__version__}\n"
    said = mmxx("--help")
    assert said.code == 0
    for command in ("list", "show", "run", "resume", "report", "review", "bench", "doctor"):
        assert f"\n    {command} " in said.out
    assert mmxx().code == 2
    assert mmxx("fly").code == 2
    assert mmxx("list", "--nonsense").code == 2
    assert mmxx("run").code == 2


def test_the_module_is_the_command_line() -> None:
    command = [sys.executable, "-m", "mmxx", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"mmxx {__version__}\n"


# -- run ---------------------------------------------------------------------------------------


def test_run_measures_and_says_where_the_report_is(mmxx: Mmxx, swift: str) -> None:
    said = mmxx("run", swift, "--noise", "0.05", "--seed", "7", "--out", "r")
    assert said.code == 0
    assert said.out.splitlines() == [
        "finds-slope: holds at quick scale",
        "  measured 0.05, baseline 2, control 1.5, paper 2, bar ≤ 0.1 error of the slope",
        "  a remark",
        "beats-mean: holds at quick scale",
        "  measured 3, bar ≥ 2 × the constant's error",
        "report: r/report.html",
    ]
    assert said.err == "fit: 200 of 200\n"
    found = record("r")
    assert (found["seed"], found["tier"], found["status"]) == (7, "quick", "done")
    assert found["argv"] == "mmxx run swift --noise 0.05 --seed 7 --out r".split()
    assert Path("r/report.html").is_file()


def test_without_a_place_a_run_lies_below_runs(mmxx: Mmxx, swift: str) -> None:
    said = mmxx("run", swift)
    (path,) = Path("runs").iterdir()
    assert path.name.startswith("swift-")
    assert said.out.endswith(f"report: {path}/report.html\n")


def test_a_run_with_every_service(mmxx: Mmxx) -> None:
    said = mmxx("run", "toy", "--backend", "serial", "--out", "r")
    assert said.code == 0
    assert "finds-slope: holds at quick scale" in said.out
    assert "beats-mean: holds at quick scale" in said.out
    assert sorted(path.name for path in Path("r").iterdir()) == sorted(
        "run.json claims.json metrics.jsonl report.html checkpoints tables figures artifacts "
        ".lock".split()
    )


def test_full_chooses_the_settings_of_the_full_tier(mmxx: Mmxx, swift: str) -> None:
    assert mmxx("run", swift, "--full", "--out", "r").code == 0
    found = record("r")
    assert (found["tier"], found["config"]["steps"]) == ("full", toy.FULL.steps)
    assert found["notes"] == []
    claims = json.loads(Path("r/claims.json").read_bytes())["claims"]
    assert [line["id"] for line in claims] == ["finds-slope", "full-only", "beats-mean"]
    said = mmxx("run", swift, "--full", "--noise", "0.07", "--out", "s")
    assert "full-only: holds at full scale" in said.out
    assert record("s")["config"]["steps"] == toy.FULL.steps


def test_settings_that_differ_from_the_tier_s_are_remarked_on(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--noise", "0.5", "--steps", "3", "--out", "r")
    assert record("r")["notes"] == [
        "Settings differ from the quick tier, for which the bars were set: steps = 3, noise = 0.5."
    ]
    mmxx("run", swift, "--out", "s")
    assert record("s")["notes"] == []


def test_the_smallest_settings_are_a_tier_of_their_own(mmxx: Mmxx, swift: str) -> None:
    Path("tiny.json").write_text(json.dumps(folder.config_json(toy.TINY)))
    said = mmxx("run", swift, "--config", "tiny.json", "--out", "r")
    assert record("r")["tier"] == "tiny"
    assert record("r")["notes"] == []
    assert said.out.count("not measured") == 3
    assert "at tiny scale" not in said.out


def test_a_run_s_own_record_repeats_it_bit_for_bit(mmxx: Mmxx) -> None:
    first = ["run", "toy", "--seed", "5", "--steps", "30", "--sizes", "5", "9", "7"]
    assert mmxx(*first, "--backend", "serial", "--out", "one").code == 0
    again = ["run", "toy", "--config", "one/run.json", "--backend", "serial", "--out", "two"]
    assert mmxx(*again).code == 0
    assert_same(outcome(Path("one")), outcome(Path("two")))
    assert record("two")["config"] == record("one")["config"]
    assert record("two")["seed"] == 5
    assert mmxx(*again[:-1], "three", "--seed", "6").code == 0
    assert record("three")["seed"] == 6
    assert outcome(Path("three")).digests != outcome(Path("one")).digests


def test_a_record_of_the_full_tier_is_of_the_full_tier(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--full", "--out", "one")
    mmxx("run", swift, "--config", "one/run.json", "--out", "two")
    assert record("two")["tier"] == "full"


def test_the_help_of_a_run_names_its_flags(mmxx: Mmxx) -> None:
    said = mmxx("run", "toy", "--help")
    assert said.code == 0
    for flag in ("--steps", "--sizes", "--full", "--seed", "--config", "--time-limit"):
        assert flag in said.out
    assert "Steps of gradient descent." in said.out


# -- exit code 1 -------------------------------------------------------------------------------


def test_a_claim_that_falls_short_is_a_finding_and_an_error_only_where_strict(
    mmxx: Mmxx, swift: str
) -> None:
    said = mmxx("run", swift, "--noise", "0.5", "--out", "r")
    assert said.code == 0
    assert "finds-slope: falls short at quick scale" in said.out
    assert mmxx("run", swift, "--noise", "0.5", "--strict", "--out", "s").code == 1
    assert mmxx("run", swift, "--noise", "0.05", "--strict", "--out", "t").code == 0
    assert mmxx("resume", "s").code == 0
    assert mmxx("resume", "s", "--strict").code == 1
    assert mmxx("resume", "t", "--strict").code == 0


# -- exit code 2 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show tog", "mmxx: no system is called 'tog'; did you mean toy?"),
        ("run tog --steps 3", "did you mean toy?"),
        ("run swift --stepps 3", "--stepps"),
        ("run swift --steps many", "many"),
        ("run swift --steps -1", "steps must be 0 or more, got -1"),
        ("run swift --backend dask", "dask"),
        ("run swift --device tpu", "tpu"),
        ("run swift --seed -1", "mmxx: seed must be 0 or more, got -1"),
        ("run swift --devices 0", "mmxx: devices must be 1 or more, got 0"),
        ("run swift --time-limit 0", "mmxx: time_limit must be above 0 seconds, got 0.0"),
        ("run swift --out taken", "mmxx: --out must be a new or empty folder, and taken is not"),
        ("run swift --data none.txt", "mmxx: --data none.txt: there is no such file or folder"),
        ("run swift --config none.json", "mmxx: --config none.json cannot be read: "),
        ("run swift --config taken/torn.json", "torn.json cannot be read: "),
        ("run swift --config taken/list.json", "a configuration is a JSON object, got list"),
        ("run swift --config taken/alien.json", "is of a run of alien, not swift"),
        ("run swift --config taken/typo.json", "the configuration has no stepps; it has: data"),
        ("run swift --config taken/text.json", "expected int, got 'many'"),
        ("run swift --config taken/negative.json", "steps must be 0 or more, got -2"),
        ("run swift --config taken/bare.json", "a configuration is a JSON object, got NoneType"),
        ("run swift --config taken/seed.json", "seed must be a whole number, got 'x'"),
        ("run swift --full --config taken/good.json", "--full and --config both choose"),
        ("run swift --config", "expected one argument"),
        ("resume nowhere", "mmxx: nowhere holds no run: there is no run.json in it"),
        ("resume taken --time-limit x", "invalid float value"),
        ("report nowhere", "mmxx: nowhere holds neither a run nor a review"),
        ("review --jobs 0", "mmxx: --jobs must be 1 or more, got 0"),
        ("review --only tog", "did you mean toy?"),
        ("bench tog", "did you mean toy?"),
    ],
)
def test_bad_input_is_told_in_one_message(
    mmxx: Mmxx, swift: str, arguments: str, message: str
) -> None:
    files = {
        "torn": "{",
        "list": "[]",
        "alien": '{"system": "alien"}',
        "typo": '{"stepps": 3}',
        "text": '{"steps": "many"}',
        "negative": '{"steps": -2}',
        "bare": '{"system": "swift"}',
        "seed": '{"system": "swift", "seed": "x", "config": {}}',
        "good": '{"steps": 3}',
    }
    Path("taken").mkdir()
    for name, content in files.items():
        Path(f"taken/{name}.json").write_text(content)
    said = mmxx(*arguments.split())
    assert said.code == 2
    assert message in said.err + said.out
    assert "Traceback" not in said.err
    assert sorted(path.name for path in Path().iterdir()) == ["site", "taken"]


def test_a_run_folder_in_use_is_refused(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--time-limit", "1e-9", "--out", "r")
    code = (
        "import sys, pathlib\n"
        "from mmxx.lab import folder\n"
        "held = folder.lock(pathlib.Path('r'))\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = mmxx("resume", "r")
        other.communicate("\n")
    assert (said.code, said.err) == (2, "mmxx: r is in use by another process\n")
    assert mmxx("resume", "r").code == 0


def test_a_run_folder_that_holds_a_run_points_to_resume(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--out", "r")
    said = mmxx("run", swift, "--out", "r")
    assert said.code == 2
    assert "go on with it by 'mmxx resume r'" in said.err


def test_data_of_the_user_s_that_do_not_fit_are_bad_input(mmxx: Mmxx) -> None:
    Path("mine.txt").write_text("a poem\n")
    said = mmxx("run", "toy", "--data", "mine.txt", "--backend", "serial", "--out", "r")
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("mmxx: --data mine.txt: could not convert")
    assert record("r")["status"] == "failed"


def test_data_of_the_user_s_are_measured_and_not_judged(mmxx: Mmxx) -> None:
    Path("mine.txt").write_text("\n".join(f"{x} {2 * x + 1}" for x in range(-5, 6)))
    said = mmxx(
        "run", "toy", "--data", "mine.txt", "--backend", "serial", "--steps", "5", "--out", "r",
        "--strict",
    )  # fmt: skip
    assert said.code == 0
    assert said.out.count("not measured") == 2
    assert said.out.count("user data") == 2
    assert record("r")["notes"] == [
        "Settings differ from the quick tier, for which the bars were set: steps = 5.",
        "A toy & nothing more.",
    ]


def test_an_interval_s_bar_is_told_by_its_ends(mmxx: Mmxx, variant: Callable[..., Path]) -> None:
    claim = Claim("near", "It is near.", "Table 2", 0.5, {"quick": between(0, 1)})
    package = variant("ranged", "def run(config, run):\n    run.measure('near', 2)\n")
    (package / "card.py").write_text(
        "from dataclasses import replace\n"
        "from mmxx.lab.catalog import Claim, between, Bar\n"
        "from mmxx_toy.card import CARD as TOY\n"
        f"CARD = replace(TOY, name='ranged', experiment='mmxx_ranged.experiment:run', "
        f"claims=({claim!r},))\n"
    )
    said = mmxx("run", "ranged", "--out", "r")
    assert said.out.splitlines()[:2] == [
        "near: falls short at quick scale",
        "  measured 2, paper 0.5, bar 0 to 1",
    ]


# -- exit code 3 -------------------------------------------------------------------------------

NEEDS = "import a_module_that_nobody_has\n\ndef fit():\n    pass\n"


def test_a_missing_extra_is_told_before_any_work(mmxx: Mmxx, variant: Callable[..., Path]) -> None:
    api = 'api=("mmxx_needy.method:fit",), extra="torch"'
    package = variant("needy", changes=api, extras=("torch",))
    (package / "method.py").write_text(NEEDS)
    said = mmxx("run", "needy", "--out", "r")
    assert (said.code, said.out) == (3, "")
    assert said.err == (
        "mmxx: needy needs a_module_that_nobody_has. "
        "Install it with: pip install 'mmxx_needy[torch]'\n"
    )
    assert not Path("r").exists()
    assert mmxx("run", "needy", "--help").code == 0
    assert mmxx("show", "needy").code == 0


@pytest.mark.parametrize("where", ["at the top", "in the run"])
def test_a_missing_extra_of_an_experiment_is_a_missing_extra_too(
    mmxx: Mmxx, variant: Callable[..., Path], where: str
) -> None:
    top = "import a_module_that_nobody_has\n"
    inside = f"def run(config, run):\n    {top}"
    name = "needy_top" if where == "at the top" else "needy_run"
    variant(name, top if where == "at the top" else inside, changes='extra="torch"')
    said = mmxx("run", name, "--out", "r")
    assert said.code == 3
    assert said.err.endswith(
        f"{name} needs a_module_that_nobody_has. "
        f"Install it with: pip install 'mmxx_{name}[torch]'\n"
    )


@pytest.mark.parametrize(
    ("name", "source", "changes"),
    [
        ("own_module", "def run(config, run):\n    import mmxx_own_module.gone\n", 'extra="torch"'),
        ("no_extra", "def run(config, run):\n    import a_module_that_nobody_has\n", ""),
    ],
)
def test_a_module_that_no_extra_brings_is_a_crash(
    mmxx: Mmxx, variant: Callable[..., Path], name: str, source: str, changes: str
) -> None:
    variant(name, source, changes=changes)
    said = mmxx("run", name, "--out", "r")
    assert said.code == 70
    assert f"mmxx: {name}: No module named" in said.err


def test_a_backend_that_is_not_installed_is_a_missing_extra(
    mmxx: Mmxx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = mmxx("run", "toy", "--backend", "ray", "--out", "r")
    assert said.code == 3
    assert "pip install 'mmxx[cluster]'" in said.err


# -- exit codes 70, 74 and 75 ------------------------------------------------------------------


def test_an_experiment_that_fails_is_told_in_a_line_with_the_traceback_in_the_log(
    mmxx: Mmxx, variant: Callable[..., Path]
) -> None:
    variant("clumsy", "def run(config, run):\n    raise ValueError('stumbled')\n")
    said = mmxx("run", "clumsy", "--out", "r")
    assert said.code == 70
    assert said.err == (
        "mmxx: clumsy failed: ValueError: stumbled (the traceback is in r/log.txt)\n"
    )
    assert "Traceback" in Path("r/log.txt").read_text()
    assert record("r")["status"] == "failed"


def test_what_nobody_foresaw_is_a_traceback_and_not_a_claim_that_fell_short(
    mmxx: Mmxx, variant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    variant("unreadable", "raise KeyError('at import')\n")
    said = mmxx("run", "unreadable", "--out", "r")
    assert said.code == 70
    assert "Traceback" in said.err
    assert "KeyError: 'at import'" in said.err

    def fail() -> dict[str, Card]:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(catalog, "systems", fail)
    said = mmxx("list")
    assert said.code == 70
    assert "ZeroDivisionError: by nothing" in said.err


@pytest.mark.parametrize("path", ["file/run", "n" * 300])
def test_a_place_that_cannot_be_written_is_told(mmxx: Mmxx, swift: str, path: str) -> None:
    Path("file").touch()
    said = mmxx("run", swift, "--out", path)
    assert said.code == 74
    assert said.err.startswith(f"mmxx: cannot write {path}: ")


def test_a_time_limit_ends_with_75_and_says_how_to_go_on(mmxx: Mmxx, swift: str) -> None:
    said = mmxx("run", swift, "--time-limit", "1e-9", "--out", "r")
    assert (said.code, said.out) == (75, "")
    assert said.err == ("mmxx: the time limit of 1e-09 s was reached; go on with: mmxx resume r\n")
    assert record("r")["status"] == "interrupted"
    assert mmxx("resume", "r", "--time-limit", "1e-9").code == 75
    said = mmxx("resume", "r")
    assert said.code == 0
    assert said.out.endswith("report: r/report.html\n")
    found = record("r")
    assert [session["status"] for session in found["sessions"]] == [
        "interrupted",
        "interrupted",
        "done",
    ]
    assert found["sessions"][2]["resumed"] == {"fit": 2}
    mmxx("run", swift, "--out", "straight")
    assert_same(outcome(Path("straight")), outcome(Path("r")))


def test_a_resumed_run_remarks_on_its_settings_again(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--steps", "3", "--time-limit", "1e-9", "--out", "r")
    mmxx("resume", "r")
    (note,) = record("r")["notes"]
    assert note.endswith("steps = 3.")


def test_a_run_that_is_done_is_not_done_again(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--out", "r")
    before = Path("r/run.json").read_bytes()
    said = mmxx("resume", "r")
    assert (said.code, said.out) == (0, "r is done; its report is r/report.html\n")
    assert Path("r/run.json").read_bytes() == before
    page = Path("r/report.html").read_bytes()
    Path("r/report.html").unlink()
    assert mmxx("resume", "r").code == 0
    assert Path("r/report.html").read_bytes() == page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_with_75(
    mmxx: Mmxx, variant: Callable[..., Path], number: signal.Signals
) -> None:
    name = f"stopped_by_{number.name.lower()}"
    variant(
        name,
        "def run(config, run):\n"
        "    import os, time\n"
        "    for step in run.loop('fit', 4, state={}):\n"
        "        if step == 1 and not run.folder.joinpath('sent').exists():\n"
        "            run.folder.joinpath('sent').touch()\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "            time.sleep(0.01)\n",
    )
    said = mmxx("run", name, "--out", "r")
    assert said.code == 75
    assert said.err == f"mmxx: stopped by {number.name}; go on with: mmxx resume r\n"
    assert mmxx("resume", "r").code == 0


def test_ctrl_c_before_a_run_begins_ends_with_75(
    mmxx: Mmxx, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> dict[str, Card]:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "systems", interrupted)
    assert mmxx("list").code == 75


# -- report, bench, doctor ---------------------------------------------------------------------


def test_a_report_is_made_again_from_the_folder(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--out", "r")
    page = Path("r/report.html").read_bytes()
    Path("r/report.html").unlink()
    said = mmxx("report", "r")
    assert (said.code, said.out) == (0, "r/report.html\n")
    assert Path("r/report.html").read_bytes() == page


def test_a_review_s_page_is_made_again_from_the_folder(mmxx: Mmxx, swift: str) -> None:
    mmxx("run", swift, "--out", "review/swift")
    entry = {"system": "swift", "title": "Swift", "folder": "swift", "status": "done"}
    entry |= {"reason": None, "seconds": 1.0}
    content = {"schema": 1, "tier": "quick", "started": folder.now(), "ended": folder.now()}
    Path("review/review.json").write_text(json.dumps({**content, "seconds": 1, "entries": [entry]}))
    said = mmxx("report", "review")
    assert (said.code, said.out) == (0, "review/index.html\n")
    assert "swift/report.html" in Path("review/index.html").read_text()


@pytest.fixture
def checkout(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line as if it lay in a checkout of its own."""
    root = in_tmp / "checkout"
    monkeypatch.setattr(cli, "__file__", str(root / "src" / "mmxx" / "lab" / "cli.py"))
    return root / "benchmarks"


def test_benchmarks_outside_of_a_checkout_are_refused(mmxx: Mmxx, checkout: Path) -> None:
    said = mmxx("bench")
    assert said.code == 2
    assert "needs a checkout of the project: benchmarks/ is not there" in said.err


def test_benchmarks_run_one_after_the_other(
    checkout: Path, capfd: pytest.CaptureFixture[str], swift: str
) -> None:
    (checkout / "room").mkdir(parents=True)
    (checkout / "room" / "bench_toy.py").write_text("print('toy: 1.5 times')\n")
    (checkout / "room" / "bench_swift.py").write_text("raise SystemExit(4)\n")

    def bench(*names: str) -> tuple[int, list[str]]:
        code = cli.main(["bench", *names])
        return code, capfd.readouterr().out.splitlines()

    assert bench("toy") == (0, ["== toy ==", "toy: 1.5 times"])
    assert bench() == (70, ["== swift ==", "== toy ==", "toy: 1.5 times"])
    assert bench("swift")[0] == 70
    (checkout / "room" / "bench_swift.py").unlink()
    assert cli.main(["bench", "swift"]) == 2
    assert "there is no benchmark of swift" in capfd.readouterr().err


def test_the_doctor_tells_what_is_installed_and_what_is_broken(
    mmxx: Mmxx, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata as metadata

    def version(name: str) -> str:
        if name == "numba":
            raise metadata.PackageNotFoundError(name)
        if name == "tyro":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    real = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.syspath_prepend(BROKEN)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    said = mmxx("doctor")
    assert said.code == 0
    assert said.out.startswith(f"mmxx {__version__}, Python {sys.version.split()[0]}, ")
    assert "OMP_NUM_THREADS: 3" in said.out
    assert f"\n  numpy: {real('numpy')}\n" in said.out
    assert "\n  numba: not installed: pip install 'mmxx[torch]'\n" in said.out
    assert "\n  tyro: not installed\n" in said.out
    assert "\nbroken: snapped from mmxx-snapped: RuntimeError: snapped in two\n" in said.out
    sound = sum(isinstance(entry, Card) for entry in catalog.systems().values())
    broken = len(catalog.systems()) - sound
    assert said.out.endswith(f"systems: {sound} sound, {broken} broken\n")
    assert "pytest" not in said.out


# -- the surroundings --------------------------------------------------------------------------


def test_caches_lie_in_the_user_s_cache_folder(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, mmxx: Mmxx
) -> None:
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_tmp / "cache"))
    mmxx("--version")
    assert os.environ["NUMBA_CACHE_DIR"] == str(in_tmp / "cache" / "mmxx" / "numba")
    assert os.environ["MPLCONFIGDIR"] == str(in_tmp / "cache" / "mmxx" / "matplotlib")


def test_caches_that_the_user_chose_are_kept(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, mmxx: Mmxx
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/chosen")
    monkeypatch.delenv("MPLCONFIGDIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_tmp / "cache"))
    mmxx("--version")
    assert os.environ["NUMBA_CACHE_DIR"] == "/chosen"
    assert os.environ["MPLCONFIGDIR"] == str(in_tmp / "cache" / "mmxx" / "matplotlib")


@pytest.mark.parametrize("trouble", ["a file in the way", "read-only", "no home"])
def test_without_a_cache_folder_a_temporary_one_is_used(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, mmxx: Mmxx, trouble: str
) -> None:
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name)
    (in_tmp / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(in_tmp / "temporary"))
    (in_tmp / "file").touch()
    if trouble == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

        def homeless(path: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "expanduser", homeless)
    else:
        place = "file" if trouble == "a file in the way" else "cache"
        monkeypatch.setenv("XDG_CACHE_HOME", str(in_tmp / place))
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    mmxx("--version")
    base = in_tmp / "temporary" / f"mmxx-{os.getuid()}"
    assert os.environ["NUMBA_CACHE_DIR"] == str(base / "numba")
    assert base.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("owner", ["another user's", "open to all", "a link"])
def test_a_temporary_cache_that_others_can_fill_is_not_used(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, mmxx: Mmxx, owner: str
) -> None:
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name)
    (in_tmp / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_tmp / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(in_tmp))
    user = os.getuid()
    if owner == "another user's":
        user += 1
        monkeypatch.setattr(os, "getuid", lambda: user)
    prepared = in_tmp / f"mmxx-{user}"
    if owner == "a link":
        (in_tmp / "elsewhere").mkdir(mode=0o700)
        prepared.symlink_to(in_tmp / "elsewhere")
    else:
        prepared.mkdir()
        prepared.chmod(0o777 if owner == "open to all" else 0o700)
    mmxx("--version")
    used = Path(os.environ["NUMBA_CACHE_DIR"]).parent
    assert used.parent == in_tmp
    assert used != prepared
    assert used.stat().st_mode & 0o777 == 0o700


def test_progress_goes_to_the_file_that_the_review_reads(
    mmxx: Mmxx, swift: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMXX_PROGRESS", "progress")
    said = mmxx("run", swift, "--out", "r")
    assert json.loads(Path("progress").read_text()) == ["fit", 200, 200]
    assert said.err == ""
    assert not Path("progress.tmp").exists()


class Terminal(io.StringIO):
    """Standard error as a person sees it."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(
    swift: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["run", swift, "--out", "r"]) == 0
    assert re.search(r"Toy line · fit.*200/200", terminal.getvalue())


def test_a_reader_who_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        for command in (["list"], ["list", "--json"], ["show", "toy"]):
            done = subprocess.run(
                [sys.executable, "-m", "mmxx", *command],
                stdout=write,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        os.close(write)
