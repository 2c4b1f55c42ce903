"""The documentation is followed literally."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmxx.lab.testing import run_code_blocks

ROOT = Path(__file__).parents[1]
_FILE = re.compile(
    r"^(?P<fence>`{3,})\{code-block\} \w+\n:caption: (?P<path>\S+)\n\n(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture(autouse=True)
def uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children run what other tests cover, and start faster without a record of it."""
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)


def test_a_system_made_from_the_page_passes_the_contract(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "add_a_system.md").read_text(encoding="utf-8")
    written = []
    for block in _FILE.finditer(page):
        path = tmp_path / "package" / block["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["text"], encoding="utf-8")
        written.append(block["path"])
    assert len(written) == 7, written

    place = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(place), str(tmp_path / "package")], check=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]),
        "PYTHONSAFEPATH": "1",
    }
    listed = subprocess.run(
        [sys.executable, "-m", "mmxx", "list"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Geometric median" in listed.stdout
    tests = tmp_path / "package" / "tests"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        cwd=tests,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def _is_here(block: str) -> bool:
    """Whether all that a block imports of ours is there: a system may have been taken out."""
    try:
        return all(
            find_spec(name) for name in re.findall(r"^from (mmxx[\w.]*) import", block, re.M)
        )
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/guide.md"])
def test_the_examples_run(page: str) -> None:
    run_code_blocks(ROOT / page, _is_here)


def test_the_pages_build_without_a_warning_and_without_the_network(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    out = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "-d", str(tmp_path / "t")]
    done = subprocess.run([*command, str(ROOT / "docs"), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = re.compile(r"""(?:src|<link[^>]*href)=["'](?:https?:)?//""")
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not loaded.search(text), f"{page.name} loads something from another host"
    pages = list((out / "systems").glob("*.html"))
    assert any("<math" in page.read_text(encoding="utf-8") for page in pages)
