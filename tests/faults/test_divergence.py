"""A loss that becomes NaN: the loop stops, the last good state stays, the verdict says why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from mmxx.lab import checkpoint, claims
from mmxx.lab.catalog import Card
from mmxx.lab.run import Run
from mmxx.lab.testing import run_tiny

Command = Callable[..., CompletedProcess[str]]
Loads = Callable[[Path, str], checkpoint.Checkpoint | None]


@pytest.mark.parametrize(("step", "kept"), [(12, 7), (7, 7), (0, 0)])
def test_a_loss_of_nan_stops_the_loop(
    tmp_path: Path, mmxx: Command, loads: Loads, step: int, kept: int
) -> None:
    folder = tmp_path / "run"
    flags = ("--nan-at", str(step), "--backend", "serial", "--out", folder)
    done = mmxx("run", "toy", *flags)
    assert done.returncode == 0, done.stderr
    reason = f"loss became nan at step {step} of fit"
    assert f"mmxx: warning: {reason}" in done.stderr
    lines = json.loads((folder / "claims.json").read_bytes())["claims"]
    assert [(line["verdict"], line["note"], line["measured"]) for line in lines] == [
        (claims.NOT_MEASURED, reason, None)
    ] * 2
    found = loads(folder, "fit")
    assert found is not None
    assert (found.step, found.done, found.skipped) == (kept, False, ())
    assert np.isfinite(found.tree["state"]["weights"]).all()
    losses = found.tree["state"]["history"]["loss"]
    assert len(losses) == kept
    assert all(map(math.isfinite, losses))
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"] is None
    assert reason in (folder / "report.html").read_text()


def test_every_system_survives_a_loop_that_diverges(
    tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss that a system checks is a NaN, and all that comes after is sound."""
    checks: list[int] = []
    real = Run.check_finite

    def spoilt(run: Run, step: int, **values: Any) -> bool:
        checks.append(step)
        if len(checks) == 1:
            values[next(iter(values))] = math.nan
        return real(run, step, **values)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "check_finite", spoilt)
        found = run_tiny(card, tmp_path / "run")
    if not checks:
        pytest.skip(f"{card.name} has no loss that can diverge")
    assert "became nan at step" in (tmp_path / "run" / "log.txt").read_text()
    record = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert (record["status"], record["reason"]) == ("done", None)
    for line in found.claims:
        if "became nan" in line["note"]:
            assert (line["verdict"], line["measured"]) == (claims.NOT_MEASURED, None)
