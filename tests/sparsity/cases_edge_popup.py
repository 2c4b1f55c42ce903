"""Edge-popup for the contract."""

from __future__ import annotations

from functools import partial

import torch

from mmxx.lab.testing import Case
from mmxx.sparsity.edge_popup import EdgePopup, EdgePopupClassifier


def _net(**settings: object) -> torch.nn.Module:
    net = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.ReLU(), torch.nn.Linear(12, 2))
    return EdgePopup.convert(net, seed=1, **settings)  # type: ignore[arg-type]


def _normal(*shape: int) -> tuple[torch.Tensor]:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)),)


CASES = [
    Case(_net, partial(_normal, 6, 4), "module", "EdgePopup"),
    Case(partial(_net, k=0.3, scope="global"), partial(_normal, 6, 4), "module", "global"),
    Case(partial(_net, rule="flip"), partial(_normal, 6, 4), "module", "flip"),
    Case(lambda: _net(rule="stochastic").eval(), partial(_normal, 6, 4), "module", "stochastic"),
    Case(
        lambda: EdgePopupClassifier(hidden=(30,), max_iter=20, random_state=0),
        tuple,
        "estimator",
        "EdgePopupClassifier",
    ),
]
