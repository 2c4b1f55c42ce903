"""SnapBoost for the contract."""

from __future__ import annotations

from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeRegressor

from mmxx.lab.testing import Case
from mmxx.tabular.snapboost import HNBM, SnapBoostClassifier, SnapBoostRegressor

_FEW = {"n_rounds": 10, "learning_rate": 0.3, "n_components": 20}

CASES: list[Case] = [
    Case(lambda: SnapBoostRegressor(**_FEW), tuple, "estimator", "SnapBoostRegressor"),
    Case(lambda: SnapBoostClassifier(**_FEW), tuple, "estimator", "SnapBoostClassifier"),
    Case(
        lambda: HNBM(
            [DecisionTreeRegressor(max_depth=3, random_state=0), Ridge(0.1)], n_rounds=10,
            learning_rate=0.5,
        ), tuple, "estimator", "HNBM",
    ),
]  # fmt: skip
