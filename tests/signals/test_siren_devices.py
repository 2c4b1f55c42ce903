"""Two processes on halves of the points make the steps that one makes on all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from dataclasses import replace

import torch
from mmxx_toy.card import CARD
from safetensors.torch import save_file

from mmxx.lab.devices import Team
from mmxx.signals.siren import Siren, grid
from mmxx.signals.siren.fitting import fit_step
from mmxx.signals.siren.losses import mse_loss

torch.set_num_threads(1)
devices, out = int(sys.argv[1]), sys.argv[2]
coords = grid((16, 16))
targets = torch.sin(3 * coords[:, :1]) * coords[:, 1:]
net = Siren(2, 1, hidden_features=32, generator=torch.Generator().manual_seed(0))
optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
team = Team(replace(CARD, scale=frozenset({"ddp"})), devices, "cpu") if devices > 1 else None
trained = net
if team is not None:
    trained, optimizer = team.set_up(net, optimizer)
    coords, targets = team.part(coords), team.part(targets)
    assert team.size == devices
    assert team.share(team.rank) == 0
for _ in range(20):
    fit_step(trained, optimizer, coords, targets, mse_loss)
if team is None or team.rank == 0:
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, out)
if team is not None:
    team.wait()
    team.close()
"""


def _train(tmp_path: Path, devices: int, launcher: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    script, out = tmp_path / "train.py", tmp_path / f"{devices}{len(launcher)}.safetensors"
    script.write_text(SCRIPT)
    command = [sys.executable, *launcher, str(script), str(devices), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out)


def _farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_two_devices_take_the_steps_of_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    alone, together = _train(tmp_path, 1), _train(tmp_path, 2)
    assert _farthest(alone, together) <= 1e-6


@pytest.mark.slow
def test_the_processes_of_torchrun_are_joined(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert _farthest(_train(tmp_path, 1), _train(tmp_path, 2, torchrun)) <= 1e-6


@pytest.mark.slow
def test_the_command_line_trains_on_two_devices(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    figures = {}
    for devices in ("1", "2"):
        out = tmp_path / devices
        command = [sys.executable, "-m", "mmxx", "run", "siren", "--devices", devices]
        command += ["--size", "16", "--hidden", "16", "--steps", "5", "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=300, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-3000:]
        record = json.loads((out / "run.json").read_bytes())
        assert (record["status"], record["devices"]) == ("done", int(devices))
        claims = json.loads((out / "claims.json").read_bytes())["claims"]
        figures[devices] = [claim["measured"] for claim in claims]
    assert figures["1"] == pytest.approx(figures["2"], rel=1e-3)
