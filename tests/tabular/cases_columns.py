"""Choosing columns, for the contract."""

from __future__ import annotations

from functools import partial

import numpy as np

from mmxx.lab.testing import Case
from mmxx.tabular.columns import (
    ColumnSubsetSelector,
    DPPNystroem,
    nystroem_error,
    sample_dpp,
    sample_kdpp,
    spectrum,
)


def gram() -> tuple[np.ndarray]:
    A = np.random.default_rng(0).normal(size=(12, 9))
    return (A.T @ A,)


CASES = [
    Case(lambda: ColumnSubsetSelector(2), tuple, "estimator", "ColumnSubsetSelector"),
    Case(lambda: DPPNystroem(n_components=3), tuple, "estimator", "DPPNystroem"),
    Case(lambda: partial(sample_kdpp, k=3, size=4, random_state=0), gram, "function",
         "sample_kdpp", per_sample=False),
    Case(lambda: partial(sample_dpp, alpha=2.0, size=4, random_state=0), gram, "function",
         "sample_dpp", per_sample=False),
    Case(lambda: lambda L: np.array(nystroem_error(L, [0, 4])), gram, "function",
         "nystroem_error", per_sample=False),
    Case(lambda: lambda L: spectrum.expected_error(L.diagonal(), 4), gram, "function",
         "expected_error", per_sample=False),
]  # fmt: skip
