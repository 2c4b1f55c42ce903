"""The checks of a card: complete, announced, documented, and light to ask for help."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmxx.lab import catalog
from mmxx.lab.catalog import Card
from mmxx.lab.folder import config_from_json, config_json

if TYPE_CHECKING:
    from mmxx.lab.run import Run

_HEAVY = ("torch", "numpy", "ray", "rdkit", "sklearn", "matplotlib", "lightning_fabric")
_HEADINGS = (
    "In five lines",
    "When to use it",
    "When not",
    "What differs from the paper",
    "Measured",
    "Source",
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WAIT = 300.0  # seconds before a child process of a check is given up


def module_of(card: Card) -> Any:
    return importlib.import_module(card.experiment.partition(":")[0])


def experiment_of(card: Card) -> Callable[[Any, Run], None]:
    module, _, name = card.experiment.partition(":")
    return getattr(importlib.import_module(module), name)


def card_is_complete(card: Card) -> None:
    """Every field speaks, and some claim is judged in the quick tier and marked for the sham."""
    assert card.title.strip(), "Card.title is empty"
    assert len(card.summary.split()) > 3, "Card.summary says nothing"
    assert card.paper.authors, "Card.paper.authors is empty"
    assert card.paper.title.strip(), "Card.paper.title is empty"
    assert card.paper.url.startswith("https://"), "Card.paper.url is no https address"
    assert card.api, "Card.api names nothing"
    assert card.departs, "Card.departs: say where it departs from the paper, or that it does not"
    assert any("quick" in claim.bars for claim in card.claims), "no claim has a quick bar"
    marked = [claim for claim in card.claims if claim.sham]
    assert any("quick" in claim.bars for claim in marked), "no claim with a quick bar has sham=True"
    for claim in card.claims:
        assert claim.where.strip(), f"claim {claim.id} does not cite where the paper says so"


def is_announced(card: Card) -> None:
    """The entry point of that name gives this very card, and its extra exists."""
    found = catalog.systems().get(card.name)
    assert found == card, f"the entry point {card.name!r} of group {catalog.GROUP} gives {found!r}"
    if card.extra is not None:
        points = [p for p in catalog.entry_points(group=catalog.GROUP) if p.name == card.name]
        owner = points[0].dist
        extras = owner.metadata.get_all("Provides-Extra") if owner is not None else None
        assert card.extra in (extras or []), f"its package has no extra {card.extra!r}"


def interface_is_documented(card: Card) -> None:
    """Every public name imports, has a docstring, and the docstring names every parameter."""
    for target in card.api:
        module, _, name = target.partition(":")
        thing = getattr(importlib.import_module(module), name)
        text = inspect.getdoc(thing) or ""
        if inspect.isclass(thing):
            text += inspect.getdoc(thing.__init__) or ""
        assert len(text.split()) > 3, f"{target} has no docstring"
        if not callable(thing):
            continue
        missing = [
            parameter
            for parameter in inspect.signature(thing).parameters
            if not re.search(rf"\b{re.escape(parameter)}\b", text)
        ]
        assert not missing, f"the docstring of {target} does not speak of {', '.join(missing)}"


def configuration_is_sound(card: Card) -> None:
    """TINY, QUICK and FULL are frozen, documented, and survive JSON."""
    module = module_of(card)
    for name in ("TINY", "QUICK", "FULL"):
        config = getattr(module, name)
        assert type(config) is module.Config, f"{name} is no Config"
        written = json.loads(json.dumps(config_json(config)))
        assert config_from_json(module.Config, written) == config, f"{name} changes through JSON"
    field = fields(module.Config)[0].name
    try:
        setattr(module.QUICK, field, None)
    except AttributeError:
        pass
    else:
        raise AssertionError("Config is not frozen")
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(module.Config))).body
    assert isinstance(body, ast.ClassDef)
    documented = {
        ast.unparse(line.target)
        for line, below in itertools.pairwise(body.body)
        if isinstance(line, ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
    for field in fields(module.Config):
        known = field.name in documented
        assert known, f"Config.{field.name} has no docstring below it, which is its help"


def _readme(card: Card) -> Path:
    return Path(str(module_of(card).__file__)).with_name("README.md")


def readme_has_its_headings(card: Card) -> None:
    """The README beside the code has the headings that readers look for, in order."""
    if not _readme(card).is_file():
        raise AssertionError(f"there is no {_readme(card)}")
    found = re.findall(r"^##? (.+)$", _readme(card).read_text(encoding="utf-8"), re.MULTILINE)
    wanted = [heading for heading in found if heading in _HEADINGS]
    assert wanted == list(_HEADINGS), f"README headings must be {_HEADINGS}, got {found}"


def readme_examples_run(card: Card) -> None:
    """The code blocks of the README run, one after the other, with warnings as errors."""
    run_code_blocks(_readme(card))


def run_code_blocks(path: Path, keep: Callable[[str], bool] = bool) -> None:
    """Run the ``python`` blocks of a Markdown file, or those to keep, in one new process."""
    blocks = _BLOCK.findall(path.read_text(encoding="utf-8"))
    assert blocks, f"{path} has no example in Python"
    blocks = [block for block in blocks if keep(block)]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
            cwd=place,
            env={**os.environ, "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
    assert done.returncode == 0, f"{path}: the examples fail:\n{done.stderr[-2000:]}"


def help_is_light(card: Card) -> None:
    """``mmxx run NAME --help`` names the flags and imports nothing heavy."""
    command = [sys.executable, "-X", "importtime", "-m", "mmxx", "run", card.name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, f"--help ends with {done.returncode}: {done.stderr[-500:]}"
    for field in fields(module_of(card).Config):
        flag = "--" + field.name.replace("_", "-")
        assert flag in done.stdout, f"--help does not show {flag}"
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    heavy = sorted(imported & set(_HEAVY))
    assert not heavy, f"--help imports {', '.join(heavy)}"
