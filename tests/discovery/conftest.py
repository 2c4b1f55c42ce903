"""What the tests of both systems share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmxx.lab.catalog import Card
from mmxx.lab.errors import Interrupted
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute, reopen


@pytest.fixture
def stopping() -> Callable[[Path, Card, Any, Any], int]:
    """Run an experiment that is stopped at every turn, until it is done; how often it was."""

    def run_on(folder: Path, card: Card, experiment: Any, config: Any) -> int:
        options = Options(seed=0, backend="serial", time_limit=1e-9)
        run, stops = create(folder, card, config, options, "quick"), 0
        while run is not None:
            try:
                execute(run, experiment.run)
                run = None
            except Interrupted:
                stops += 1
                run = reopen(folder, card, experiment.Config, time_limit=1e-9)
        return stops

    return run_on
