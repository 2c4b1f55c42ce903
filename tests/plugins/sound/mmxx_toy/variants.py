"""Packages that announce a variant of the toy, written where a test wants them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_CARD = """
from dataclasses import replace

from mmxx_toy.card import CARD as TOY

CARD = replace(TOY, name={name!r}, experiment="mmxx_{name}.experiment:run", {changes})
"""
_EXPERIMENT = """
from mmxx_toy import experiment
from mmxx_toy.experiment import FULL, QUICK, TINY, Config, sham

"""
USUAL = "run = experiment.run\n"


def announce(
    folder: Path,
    name: str,
    experiment: str = USUAL,
    *,
    changes: str = "",
    extras: tuple[str, ...] = (),
) -> None:
    """Write the package ``mmxx_<name>`` with a card, an experiment and an entry point.

    Args:
        folder: Where; it must be on the path.
        name: The system's name.
        experiment: Source below the imports of the toy's experiment; it must define ``run``.
        changes: Keyword arguments of the card that differ from the toy's, as source.
        extras: The extras that the package offers.
    """
    package = folder / f"mmxx_{name}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f'"""The variant {name}."""\n')
    (package / "card.py").write_text(_CARD.format(name=name, changes=changes))
    (package / "experiment.py").write_text(_EXPERIMENT + experiment)
    for module in [module for module in sys.modules if module.partition(".")[0] == package.name]:
        del sys.modules[module]  # of another test
    importlib.invalidate_caches()
    metadata = folder / f"mmxx_{name}-0.1.dist-info"
    metadata.mkdir()
    offered = "".join(f"Provides-Extra: {extra}\n" for extra in extras)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: mmxx-{name}\nVersion: 0.1\n{offered}"
    )
    (metadata / "entry_points.txt").write_text(f"[mmxx.systems]\n{name} = mmxx_{name}.card:CARD\n")
