"""The front page and the start of the guide show SIREN: what they show runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmxx.lab.testing import run_code_blocks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_examples_run(page: str) -> None:
    run_code_blocks(ROOT / page)
