"""What the contract builds of Weisfeiler-Leman similarity."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmxx.graphs.wls import (
    AggregationTransformer,
    WLSConv,
    WLSKernel,
    WLSNet,
    WLSTransformer,
    WLSubtreeKernel,
    similarity,
    wl_labels,
)
from mmxx.lab.testing import Case

_RING = np.array([[0, 1, 2, 3, 4, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 0, 1, 2, 3, 4]])


def _attributes() -> tuple[np.ndarray, ...]:
    return (np.random.default_rng(0).normal(size=(5, 3)),)


def _nodes() -> tuple[Tensor, Tensor]:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    return x, torch.from_numpy(_RING)


def _graphs(x: np.ndarray) -> list[Any]:
    return [(_RING, x), (_RING, x[::-1]), (_RING, x * 2)]


def _fitted(make: Any) -> Any:
    """An estimator of graphs as a function of the attributes of three."""

    def call(x: np.ndarray) -> Any:
        return make().fit_transform(_graphs(x))

    return call


def _seeded(make: Any, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(3, 4, **options)


def _estimator(make: Any, name: str) -> Case:
    return Case(partial(_fitted, make), _attributes, "function", name, per_sample=False)


def _module(make: Any, name: str, **options: Any) -> Case:
    build = partial(_seeded, make, **options)
    return Case(build, _nodes, "module", name, per_sample=False)


CASES: list[Case] = [
    _estimator(partial(WLSTransformer, 2, 16, random_state=0), "WLSTransformer"),
    _estimator(partial(WLSTransformer, 2, 16, projection="gaussian", random_state=0), "gaussian"),
    _estimator(partial(WLSKernel, 2, 16, random_state=0), "WLSKernel"),
    *(
        _estimator(partial(AggregationTransformer, name, 2), name)
        for name in ("wwl", "sage", "gcn", "gat")
    ),
    _estimator(partial(WLSubtreeKernel, 2), "WLSubtreeKernel"),
    Case(lambda: lambda x: np.array(similarity(*_graphs(x)[::2], n_iter=2, dim=16)), _attributes,
         "function", "similarity", per_sample=False),
    Case(lambda: lambda x: wl_labels(_graphs(x)[:1], 2), _attributes, "function", "wl_labels",
         per_sample=False),
    _module(WLSConv, "WLSConv"),
    _module(WLSConv, "WLSConv-gate", edge_gate=True, residual=True),
    _module(WLSNet, "WLSNet", hidden=8, n_iter=2),
    _module(WLSNet, "WLSNet-graph", hidden=8, n_iter=1, level="graph", readout="sum"),
]  # fmt: skip
