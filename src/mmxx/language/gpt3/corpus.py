"""Text that lies on every machine: Python's manual and the docstrings of its library."""

from __future__ import annotations

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from mmxx.data import doc_text

_LEFT_OUT = {"site-packages", "test", "tests", "idle_test"}
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def library_docs() -> Iterator[str]:
    """Documents: the manual's topics, then the docstrings of each file of the standard library.

    They differ from version to version of Python.
    """
    yield from (topic for topic in doc_text().text.split("\n\n\n") if topic.strip())
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(folder.rglob("*.py")):
        if not _LEFT_OUT & set(path.relative_to(folder).parts):
            yield from filter(None, ["\n\n".join(_docstrings(path))])


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes in a file that is only read
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # files that are there to be wrong
        return
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
            yield inspect.cleandoc(text)
