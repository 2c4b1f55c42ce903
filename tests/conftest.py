"""What every test shares: a third-party system on the path, and no thread to spare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOUND = HERE / "plugins" / "sound"
BROKEN = HERE / "plugins" / "broken"

# Children inherit both: a package with an entry point, and quiet defaults.
sys.path.insert(0, str(SOUND))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(SOUND), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the test's own file left, run as two processes of a group: ``FILE rank 2 folder``."""
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    place = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    group = [
        subprocess.Popen(
            [sys.executable, str(request.path), str(rank), "2", str(place)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in group:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
    return place
