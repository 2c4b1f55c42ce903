"""The trainings of this room on two processes, as ``--devices 2`` starts them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lottery", "from_scratch"])
def test_two_devices_measure_what_one_does(tmp_path, name):
    pytest.importorskip("lightning_fabric")
    experiment = pytest.importorskip(f"mmxx.sparsity.{name}.experiment")
    claims = importlib.import_module(f"mmxx.sparsity.{name}.card").CARD.claims
    settings = {key: value for key, value in asdict(experiment.TINY).items() if value is not None}
    (tmp_path / "tiny.json").write_text(json.dumps(settings))
    scores = {}
    for devices in ("1", "2"):
        out = tmp_path / devices
        command = [sys.executable, "-m", "mmxx", "run", name, "--config", "tiny.json"]
        command += ["--devices", devices, "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=300, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-3000:]
        record = json.loads((out / "run.json").read_bytes())
        assert (record["status"], record["devices"]) == ("done", int(devices))
        lines = json.loads((out / "claims.json").read_bytes())["claims"]
        assert {line["id"] for line in lines} <= {claim.id for claim in claims}
        scores[devices] = {p.name: p.read_text().splitlines() for p in (out / "tables").iterdir()}
    one, two = scores["1"], scores["2"]
    assert {name: len(lines) for name, lines in one.items()} == {
        name: len(lines) for name, lines in two.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lottery", "from_scratch"])
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, name):
    pytest.importorskip("lightning_fabric")
    pytest.importorskip(f"mmxx.sparsity.{name}.experiment")
    command = [sys.executable, "-m", "mmxx", "run", name, "--devices", "2", "--batch", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 2
    assert "--devices must divide a batch of 7 equally, and 2 does not" in done.stderr
