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

# Two ranks of a group, forked when all that both import is there.
_PAIR = """
import os, runpy, sys
import torch._dynamo
file, place = sys.argv[1:]
runpy.run_path(file)
child = os.fork()
sys.argv = [file, "0" if child else "1", "2", place]
runpy.run_path(file, run_name="__main__")
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


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
    done = subprocess.run(
        [sys.executable, "-c", _PAIR, str(request.path), str(place)],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return place
