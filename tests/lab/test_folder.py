"""The run folder: its name, its lock, and JSON that reads back the same."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmxx_toy import experiment
from mmxx_toy.card import CARD

from mmxx.lab import folder
from mmxx.lab.errors import BadInputError, CannotWriteError
from mmxx.lab.folder import Options, config_from_json, config_json

# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"device": "tpu"}, "device must be cpu, cuda or auto, got 'tpu'"),
        ({"devices": 0}, "devices must be 1 or more, got 0"),
        ({"backend": "dask"}, "backend must be one of serial, process, ray, got 'dask'"),
        ({"time_limit": 0.0}, "time_limit must be above 0 seconds, got 0.0"),
        ({"time_limit": float("nan")}, "time_limit must be above 0 seconds, got nan"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(message)):
        Options(**changes)


# -- the folder --------------------------------------------------------------------------------


def test_without_a_path_a_run_lies_below_runs_under_a_name_of_its_own(in_tmp: Path) -> None:
    one, other = folder.new(None, "toy"), folder.new(None, "toy")
    assert one.is_dir()
    assert one != other
    assert re.fullmatch(r"runs/toy-\d{8}-\d{6}-[0-9a-f]{4}", one.as_posix())


def test_an_empty_folder_and_one_that_holds_only_a_lock_are_taken(tmp_path: Path) -> None:
    assert folder.new(tmp_path, "toy") == tmp_path
    (tmp_path / ".lock").touch()
    assert folder.new(tmp_path, "toy") == tmp_path
    assert folder.new(tmp_path / "a" / "b", "toy").is_dir()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInputError, match="--out must be a new or empty folder"):
        folder.new(tmp_path, "toy")
    with pytest.raises(BadInputError, match="--out must be a new or empty folder"):
        folder.new(tmp_path / "thesis.tex", "toy")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_with_a_run_points_to_resume(tmp_path: Path) -> None:
    folder.write_json(tmp_path / "run.json", record())
    with pytest.raises(BadInputError, match="already holds a run of toy; go on with it by 'mmxx "):
        folder.new(tmp_path, "toy")


def test_a_run_that_failed_before_it_made_anything_leaves_its_folder_free(tmp_path: Path) -> None:
    folder.write_json(tmp_path / "run.json", record() | {"status": "failed"})
    (tmp_path / "log.txt").write_text("ValueError: no such column")
    assert folder.new(tmp_path, "toy") == tmp_path
    assert not any(tmp_path.iterdir())
    folder.write_json(tmp_path / "run.json", record() | {"status": "failed"})
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(BadInputError, match="already holds a run of toy"):
        folder.new(tmp_path, "toy")


@pytest.mark.parametrize("path", ["file/run", "n" * 300, "n" * 300 + "/run"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="cannot write"):
        folder.new(tmp_path / path, "toy")


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from mmxx.lab import folder\n"
        "held = folder.lock(pathlib.Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BadInputError, match="is in use by another process"):
            folder.lock(tmp_path)
        other.communicate("\n")
    held = folder.lock(tmp_path)
    assert held is not None
    with pytest.raises(BadInputError, match="is in use by another process"):
        folder.lock(tmp_path)
    held.close()
    again = folder.lock(tmp_path)
    assert again is not None
    again.close()


def test_a_folder_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match=r"\.lock|none"):
        folder.lock(tmp_path / "none")


# -- the record --------------------------------------------------------------------------------


def record(**changes: Any) -> dict[str, Any]:
    usual = {"schema": 1, "system": "toy", "tier": "quick", "seed": 0, "status": "done"}
    usual |= {"config": {}, "device": "cpu", "devices": 1, "backend": "serial"}
    return {**usual, **changes}


def test_a_record_reads_back(tmp_path: Path) -> None:
    folder.write_json(tmp_path / "run.json", record(title="naïve — ∇²"))
    assert folder.read_record(tmp_path) == record(title="naïve — ∇²")
    assert "naïve — ∇²" in (tmp_path / "run.json").read_text(encoding="utf-8")


def test_a_folder_without_a_record_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"holds no run: there is no run\.json in it"):
        folder.read_record(tmp_path)
    with pytest.raises(BadInputError, match=r"holds no run|cannot be read"):
        folder.read_record(tmp_path / "none" / "at all")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        json.dumps(record(schema=2)).encode(),
        json.dumps(record(system=None)).encode(),
        json.dumps({"schema": 1, "system": "toy"}).encode(),
        json.dumps(record(tier="slow")).encode(),
        json.dumps(record(seed="0")).encode(),
        json.dumps(record(sessions=[1])).encode(),
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(BadInputError, match=r"run\.json cannot be read: "):
        folder.read_record(tmp_path)


def test_json_has_no_nan_and_a_refused_write_harms_nothing(tmp_path: Path) -> None:
    folder.write_json(tmp_path / "x.json", {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json(tmp_path / "x.json", {"x": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"x": 1}


def test_a_card_is_kept_as_json_so_that_a_report_needs_no_code() -> None:
    content = folder.card_json(CARD)
    assert json.loads(json.dumps(content)) == content
    assert content["claims"][0]["bars"]["quick"] == {"op": "<=", "value": 0.1}
    assert content["paper"]["authors"] == ["C. F. Gauss"]
    assert content["scale"] == ["map"]


# -- configurations ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """One field of every kind that an experiment may have."""

    count: int = 1
    rate: float = 0.5
    name: str = "x"
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    pair: tuple[float, str] = (0.0, "")
    nested: tuple[tuple[int, ...], ...] = ()
    maybe: int | None = None
    rates: tuple[float, ...] | None = None
    data: Path | None = None


CONFIGS = st.builds(
    Config,
    count=st.integers(),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    name=st.text(),
    flag=st.booleans(),
    kind=st.sampled_from(["a", "b"]),
    sizes=st.lists(st.integers()).map(tuple),
    pair=st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.text()),
    nested=st.lists(st.lists(st.integers(), max_size=3).map(tuple), max_size=3).map(tuple),
    maybe=st.none() | st.integers(),
    rates=st.none() | st.lists(st.floats(0, 1)).map(tuple),
    data=st.none() | st.sampled_from([Path("a/b.txt"), Path("/x y.png")]),
)


@given(CONFIGS)
@settings(deadline=None)
def test_a_configuration_survives_json(config: Config) -> None:
    written = json.loads(json.dumps(config_json(config), allow_nan=False))
    back = config_from_json(Config, written)
    assert back == config
    assert repr(back) == repr(config)  # 1 and 1.0 and True are told apart


def test_a_whole_number_is_a_float_where_a_float_is_wanted() -> None:
    config = config_from_json(Config, {"rate": 2, "rates": [1, 0.5]})
    assert repr((config.rate, config.rates)) == "(2.0, (1.0, 0.5))"


def test_what_is_not_given_keeps_its_default() -> None:
    assert config_from_json(Config, {"count": 3}) == Config(count=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a configuration is a JSON object, got list"),
        (None, "a configuration is a JSON object, got NoneType"),
        ({"speed": 1, "depth": 2}, "has no depth, speed; it has: count, data, flag, kind, maybe"),
        ({"count": "3"}, "expected int, got '3'"),
        ({"count": 3.0}, "expected int, got 3.0"),
        ({"count": True}, "expected int, got True"),
        ({"count": None}, "expected int, got None"),
        ({"rate": True}, "expected float, got True"),
        ({"flag": 1}, "expected bool, got 1"),
        ({"name": 1}, "expected str, got 1"),
        ({"kind": "c"}, "expected one of 'a', 'b', got 'c'"),
        ({"sizes": "12"}, "expected a list, got '12'"),
        ({"sizes": 12}, "expected a list, got 12"),
        ({"sizes": ["1"]}, "expected int, got '1'"),
        ({"pair": [1.0]}, "is refused: "),
        ({"maybe": "x"}, "expected int, got 'x'"),
        ({"data": 3}, "is refused: "),
    ],
)
def test_a_configuration_of_wrong_kind_is_refused(content: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(message)):
        config_from_json(Config, content)


def test_a_value_that_the_experiment_refuses_is_refused_in_its_words() -> None:
    with pytest.raises(BadInputError, match="is refused: steps must be 0 or more, got -1"):
        config_from_json(experiment.Config, {"steps": -1})


def test_a_configuration_s_hash_depends_on_every_field_and_on_the_data() -> None:
    known = {
        folder.config_hash(config, data)
        for config, data in [
            (Config(), None),
            (Config(), "ab"),
            (Config(count=2), None),
            (Config(sizes=(1,)), None),
        ]
    }
    assert len(known) == 4
    assert folder.config_hash(Config(), None) == folder.config_hash(Config(), None)
    moved = [Config(data=Path(name)) for name in ("a.txt", "b.txt")]
    assert len({folder.config_hash(config, "the same bytes") for config in moved}) == 1


# -- cells -------------------------------------------------------------------------------------


def in_csv(value: Any) -> str:
    """What a spreadsheet reads."""
    text = io.StringIO()
    csv.writer(text).writerow([folder.cell(value), "end"])
    ((found, end),) = csv.reader(io.StringIO(text.getvalue()))
    assert end == "end"
    return found


@given(st.sampled_from(["", *"=+-@\t\r"]), st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_in_a_cell_is_a_formula_and_none_is_lost(start: str, rest: str) -> None:
    text = start + rest
    found = in_csv(text)
    assert found[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert found in (text, "'" + text)


@given(st.floats())
def test_a_number_keeps_its_sign_and_every_digit(value: float) -> None:
    assert repr(float(in_csv(value))) == repr(value)
    assert in_csv(np.float64(value)) == in_csv(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-3, "-3"),
        (True, "True"),
        (None, ""),
        (np.int64(-3), "-3"),
        (np.float32(0.1), repr(float(np.float32(0.1)))),
        (torch.tensor(0.5), "0.5"),
        (np.array(2.5), "2.5"),
        ("=SUM(A1)", "'=SUM(A1)"),
        ("-1+1", "'-1+1"),
        ("@cmd", "'@cmd"),
        ("\t=1", "'\t=1"),
        (np.str_("+1"), "'+1"),
        (Path("=1"), "'=1"),
        ("plain = text", "plain = text"),
        ((1, 2), "(1, 2)"),
    ],
)
def test_cells_of_every_kind(value: Any, text: str) -> None:
    assert in_csv(value) == text


# -- the machine -------------------------------------------------------------------------------


def test_a_file_s_sha256_is_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "big"
    content = os.urandom(3 * (1 << 20) + 17)
    path.write_bytes(content)
    assert folder.sha256_of(path) == hashlib.sha256(content).hexdigest()
    assert folder.sha256_of(tmp_path) is None
    assert folder.sha256_of(tmp_path / "none") is None
    assert folder.sha256_of(None) is None


def test_versions_name_what_decides_the_bits() -> None:
    found = folder.versions()
    assert found["numpy"] == np.__version__
    assert found["torch"] == torch.__version__
    assert set(found) >= {"python", "mmxx"}


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_SHOWN_VERSIONS", ("numpy", "no-such-package"))
    assert set(folder.versions()) == {"python", "numpy"}


def test_the_host_is_described_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    found = folder.host()
    assert set(found) == {"system", "machine", "processor", "cores", "threads"}
    assert platform.node() not in json.dumps(found).replace(platform.machine(), "")
    monkeypatch.setattr(Path, "read_text", _refuse)
    assert folder.host()["processor"] == platform.processor()


def _refuse(*_: Any, **__: Any) -> str:
    raise PermissionError


def test_the_time_is_in_utc_to_the_second() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", folder.now())
