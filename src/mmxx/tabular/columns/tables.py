"""The tables of the experiment, as their packages ship them, and files of the user's own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmxx.data import DataError, Source, load, read_table
from mmxx.data.source import read_bytes, sha256, user_source

TABLES = ("diabetes", "anes96", "breast_cancer", "wine", "star98", "digits")
_ACCEPTED = "a table of numbers (.csv .tsv .dat .txt), .npy [rows, columns], or Libsvm text (.svm)"


class NamedTable:
    """Numbers in named columns.

    Attributes:
        X: [rows, columns], finite.
        names: A name for each column.
        source: Where it comes from.
        left_out: Columns of text, which are not in X.
    """

    def __init__(
        self, X: NDArray[np.float64], names: list[str], source: Source, left_out: list[str]
    ) -> None:
        self.X, self.names, self.source, self.left_out = X, names, source, left_out


def shipped(name: str) -> NamedTable:
    """One of `TABLES`, with its columns unscaled.

    Raises:
        ValueError: The name is unknown.
        ModuleNotFoundError: statsmodels is missing; its extra is named.
    """
    if name not in TABLES:
        raise ValueError(f"tables must be among {', '.join(TABLES)}, got {name!r}")
    if name in ("anes96", "star98"):
        return _of_statsmodels(name)
    from sklearn import datasets

    loader = getattr(datasets, f"load_{name}")
    bunch = loader(scaled=False) if name == "diabetes" else loader()
    source = Source(name, "BSD-3-Clause (scikit-learn)", f"scikit-learn, load_{name}")
    return NamedTable(bunch.data, [str(c) for c in bunch.feature_names], source, [])


def _of_statsmodels(name: str) -> NamedTable:
    """Read where it is installed: importing statsmodels would take seconds."""
    spec = find_spec("statsmodels")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{name} needs statsmodels: pip install 'mmxx[tabular]'", name="statsmodels"
        )
    path = Path(spec.submodule_search_locations[0], "datasets", name, f"{name}.csv")
    table = read_table(path)
    X, names = table.matrix(), [column.strip("'") for column in table.numeric]
    licence = "public domain" if name == "anes96" else "used with permission of its author"
    if name == "anes96":  # as its package's own loader does
        X, names = np.column_stack([X, np.log(X[:, 0] + 0.1)]), [*names, "logpopul"]
    return NamedTable(X, names, Source(name, licence, "statsmodels", table.source.sha256), [])


def read(path: Path) -> NamedTable:
    """A table of the user's own.

    Raises:
        DataError: It is no table, or a column has gaps: it is named.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        table = _npy(path)
    elif suffix in (".svm", ".libsvm"):
        table = _svm(path)
    else:
        found = load(path, kinds=("table",))
        names = list(found.numeric)  # pyright: ignore[reportAttributeAccessIssue]
        texts = [name for name in found.names if name not in names]  # pyright: ignore
        table = NamedTable(found.matrix(), names, found.source, texts)  # pyright: ignore
    if not table.X.size:
        raise DataError(path, "no column of numbers", _ACCEPTED)
    bad = [
        name for name, column in zip(table.names, table.X.T, strict=True)
        if not np.isfinite(column).all()
    ]  # fmt: skip
    if bad:
        some = ", ".join(bad[:8]) + (", …" if len(bad) > 8 else "")
        raise DataError(path, f"NaN, inf or gaps in {some}", "finite numbers in every row")
    if not table.X.any():
        raise DataError(path, "zeros only", "a table in which some number is not 0")
    return table


def _npy(path: Path) -> NamedTable:
    content = read_bytes(path, _ACCEPTED)
    try:
        X = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise DataError(path, f"cannot be read ({error})", _ACCEPTED) from error
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        raise DataError(path, f"an array {X.shape} of {X.dtype}", _ACCEPTED)
    return NamedTable(
        X.astype(np.float64), _numbered(X.shape[1]), user_source(path, sha256(content)), []
    )


def _svm(path: Path) -> NamedTable:
    from sklearn.datasets import load_svmlight_file

    content = read_bytes(path, _ACCEPTED)
    try:
        X = load_svmlight_file(str(path), dtype=np.float64)[0]
    except (ValueError, OverflowError) as error:
        raise DataError(path, f"cannot be read ({error})", _ACCEPTED) from error
    if X.shape[0] * X.shape[1] > 2**28:
        raise DataError(path, f"{X.shape[0]:,} × {X.shape[1]:,} values", "2 GiB at most")
    return NamedTable(X.toarray(), _numbered(X.shape[1]), user_source(path, sha256(content)), [])


def _numbered(count: int) -> list[str]:
    return [f"column_{number}" for number in range(1, count + 1)]
