"""Rules of the house that no single test of a part could hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mmxx
from mmxx.lab.catalog import Card, systems

SOURCE = Path(mmxx.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = {"torch", "numpy", "scipy", "ray", "numba", "sklearn", "matplotlib", "lightning_fabric"}
CARDS = [entry for entry in systems().values() if isinstance(entry, Card)]

# What runs code that it reads, or a shell
FORBIDDEN = frozenset(
    "pickle dill cloudpickle shelve marshal joblib eval exec compile __import__ os.system os.popen "
    "yaml.load sympy.sympify sympify".split()
)
MOST_LINES = 450
LONGER = {"lab/run.py", "lab/cli.py"}  # one handle, one parser


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def loaded_after(code: str) -> set[str]:
    """The modules that a new process has loaded after running some code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n', *sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("\n")[0].rpartition("\n")[2].split())


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return loaded_after("")


# -- what is imported --------------------------------------------------------------------------


def test_importing_mmxx_imports_nothing_but_itself(bare: set[str]) -> None:
    assert loaded_after("import mmxx") - bare == {"mmxx"}


def test_listing_imports_nothing_heavy_and_no_parser_of_flags() -> None:
    loaded = loaded_after("from mmxx.lab.cli import main\nassert main(['list']) == 0")
    assert "mmxx.lab.catalog" in loaded
    top = {name.partition(".")[0] for name in loaded}
    assert not top & (HEAVY | {"tyro", "rich", "jinja2"})


@pytest.mark.parametrize("card", CARDS, ids=[card.name for card in CARDS])
def test_a_system_is_imported_without_what_it_computes_with(card: Card) -> None:
    experiment = card.experiment.partition(":")[0]
    package = experiment.rpartition(".")[0]
    loaded = loaded_after(f"import {package}, {package}.card, {experiment}")
    assert experiment in loaded
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


@pytest.mark.parametrize("card", CARDS, ids=[card.name for card in CARDS])
def test_a_card_imports_only_the_catalog(card: Card) -> None:
    experiment = card.experiment.partition(":")[0]
    card_file = Path(str(__import__(experiment, fromlist=["x"]).__file__)).with_name("card.py")
    imported = {name for name, _ in imports(parsed(card_file))}
    assert imported <= {"mmxx.lab.catalog", "__future__"}


# -- what is written ---------------------------------------------------------------------------


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.expr) -> str:
    """The name that is called, as ``torch.load``; empty where it is computed."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The modules that are imported, and the names taken from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def faults(tree: ast.AST) -> Iterator[str]:
    """What a file must not do, wherever it does it."""
    for module, name in imports(tree):
        for found in (module.partition(".")[0], f"{module}.{name}"):
            if found in FORBIDDEN:
                yield f"imports {found}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in FORBIDDEN:
            yield f"line {node.lineno} calls {called}"
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            given = (keyword.arg, value)
            if given in (("weights_only", False), ("shell", True), ("allow_pickle", True)):
                yield f"line {node.lineno} says {keyword.arg}={value}"
        if called == "torch.load" and "weights_only" not in {k.arg for k in node.keywords}:
            yield f"line {node.lineno} calls torch.load without weights_only=True"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "from yaml import load",
        "from os import system",
        "eval('1')",
        "exec('x = 1')",
        "yaml.load(text)",
        "torch.load(path, weights_only=False)",
        "torch.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert list(faults(ast.parse(code)))


def test_the_search_lets_pass_what_only_sounds_alike() -> None:
    code = (
        "model.eval()\nre.compile('x')\ntorch.compile(f)\nyaml.safe_load(t)\n'pickle'\n# eval()\n"
    )
    code += "torch.load(path, weights_only=True)\nsubprocess.run(['ls'])\nsession.exec(1)\n"
    assert not list(faults(ast.parse(code)))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_runs_what_it_reads(path: Path) -> None:
    assert not list(faults(parsed(path)))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert (lines > MOST_LINES) == (name_of(path) in LONGER), f"{name_of(path)} has {lines} lines"
