"""SnapBoost for the contract."""

from __future__ import annotations

from mmxx.lab.testing import Case
from mmxx.tabular.snapboost import SnapBoostClassifier, SnapBoostRegressor

_FEW = {"n_rounds": 10, "learning_rate": 0.3, "n_components": 20}

CASES: list[Case] = [
    Case(lambda: SnapBoostRegressor(**_FEW), tuple, "estimator", "SnapBoostRegressor"),
    Case(lambda: SnapBoostClassifier(**_FEW), tuple, "estimator", "SnapBoostClassifier"),
]
