"""What every test shares: a third-party system on the path, and no thread to spare."""

from __future__ import annotations

import os
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
