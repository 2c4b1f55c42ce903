"""The numbers of a run over time."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmxx.lab import metrics
from mmxx.lab.errors import CannotWriteError
from mmxx.lab.metrics import MetricsWriter

LINES = st.lists(
    st.tuples(
        st.sampled_from(["fit", "other", None]),
        st.integers(0, 10**9),
        st.dictionaries(
            st.text(st.characters(codec="utf-8"), min_size=1).filter(
                lambda name: name not in ("loop", "step", "t")
            ),
            st.floats(),
            max_size=3,
        ),
    ),
    max_size=8,
)


def written(path: Path, lines: list[tuple[str | None, int, dict[str, Any]]]) -> list[Any]:
    writer = MetricsWriter(path)
    for loop, step, values in lines:
        writer.write(loop, step, 0.5, values)
    writer.close()
    return [
        {"loop": loop, "step": step, "t": 0.5}
        | {name: value if math.isfinite(value) else None for name, value in values.items()}
        for loop, step, values in lines
    ]


@given(LINES)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_and_what_is_not_finite_is_null(lines: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        expected = written(path, lines)
        assert list(metrics.read(path)) == expected
        if lines:
            json.loads(path.read_text(encoding="utf-8").splitlines()[0], parse_constant=pytest.fail)


@given(LINES.filter(bool), st.data())
@settings(max_examples=40, deadline=None)
def test_a_torn_file_gives_every_whole_line_and_no_other(lines: list[Any], data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        expected = written(path, lines)
        content = path.read_bytes()
        end = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:end])
        whole = content[:end].count(b"\n")
        found = list(metrics.read(path))
        # a line that lacks nothing but its line feed is whole too
        assert found in (expected[:whole], expected[: whole + 1])
        assert len(found) == whole or content[end : end + 1] == b"\n"


def test_lines_that_are_no_metrics_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "x": 2}\n[1]\nnot json\n\xff\xfe\n{"x": 1}\n\n{"step": 2}\n')
    assert [line["step"] for line in metrics.read(path)] == [1, 2]


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert list(metrics.read(tmp_path / "none.jsonl")) == []
    metrics.keep_lines(tmp_path / "none.jsonl", lambda line: True)
    assert not (tmp_path / "none.jsonl").exists()


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.write("fit", 0, 1.23456, {"a": np.float32(0.5), "b": torch.tensor(2), "c": True})
    writer.close()
    (line,) = metrics.read(tmp_path / "m.jsonl")
    assert line == {"loop": "fit", "step": 0, "t": 1.235, "a": 0.5, "b": 2.0, "c": 1.0}


@pytest.mark.parametrize("name", ["loop", "t"])
def test_a_value_cannot_take_the_name_of_a_line_s_own_field(tmp_path: Path, name: str) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match=f"{name!r} is taken"):
        writer.write("fit", 0, 0.0, {name: 1.0})


def test_a_line_is_on_the_disk_before_the_next_one(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl")
    for step in range(3):
        writer.write(None, step, 0.0, {})
        assert len(list(metrics.read(tmp_path / "m.jsonl"))) == step + 1
    writer.close()
    writer.write(None, 3, 0.0, {})
    writer.close()
    writer.close()
    assert [line["step"] for line in metrics.read(tmp_path / "m.jsonl")] == [0, 1, 2, 3]


def test_keeping_lines_drops_the_others_and_what_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    written(path, [("fit", step, {"loss": 0.1}) for step in range(5)])
    path.write_bytes(path.read_bytes() + b'{"loop": "fit", "st')
    metrics.keep_lines(path, lambda line: line["step"] < 3)
    assert [line["step"] for line in metrics.read(path)] == [0, 1, 2]
    assert path.read_bytes().endswith(b"}\n")
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_file_that_cannot_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "missing" / "m.jsonl")
    with pytest.raises(CannotWriteError, match=r"cannot write .*m\.jsonl: No such file"):
        writer.write("fit", 0, 0.0, {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told_at_the_line_that_does_not_fit() -> None:
    writer = MetricsWriter(Path("/dev/full"))
    with pytest.raises(CannotWriteError, match="No space left on device"):
        writer.write("fit", 0, 0.0, {})
