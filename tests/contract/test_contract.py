"""The contract, over every system that is installed and the plug-in that the tests bring."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmxx.lab.catalog import Card, systems
from mmxx.lab.testing import Case, Check, checks

TESTS = Path(__file__).parents[1]


def _cases(name: str) -> list[Case]:
    """The cases of one of our systems, from ``tests/<room>/cases_<name>.py``."""
    for path in TESTS.glob(f"*/cases_{name}.py"):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.CASES
    return []


def _checks() -> Iterator[Any]:
    for name, card in systems().items():
        assert isinstance(card, Card), f"{name} is broken: {card}"
        for check in checks(card, _cases(name)):
            yield pytest.param(check, id=f"{name}-{check.name}")


@pytest.mark.no_cover  # what it runs is covered by tests of its own, and goes faster untraced
@pytest.mark.parametrize("check", list(_checks()))
def test_contract(check: Check, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)  # nor are its children traced
    check()
    assert not list(in_tmp.iterdir()), "the check left something in the working folder"
