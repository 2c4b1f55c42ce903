"""The estimators' parameters: storing, checking, and what they mean to the machine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmxx.tabular.snapboost.inputs import Columns, check_number
from mmxx.tabular.snapboost.machine import Settings
from mmxx.tabular.snapboost.tree import CATEGORY, Rules

# The defaults of IBM's sample code and of its product, snapml
PAPER = {
    "n_rounds": 100, "learning_rate": 0.1, "p_tree": 0.8, "min_max_depth": 4, "max_max_depth": 8,
    "gamma": 1.0, "alpha": 1.0, "alpha_scale": "absolute", "fit_intercept": False,
    "base_score": 0.0,
}  # fmt: skip
PRODUCT = {
    "n_rounds": 100, "learning_rate": 0.1, "p_tree": 1.0, "min_max_depth": 1, "max_max_depth": 5,
    "gamma": 1.0, "alpha": 1.0, "alpha_scale": "absolute", "n_components": 10,
    "fit_intercept": False,
}  # fmt: skip
_LOSSES = ("squared_error", "poisson", "quantile")
_WHOLE = {
    "n_rounds": (1, math.inf),
    "min_max_depth": (1, 31),
    "max_max_depth": (1, 31),
    "min_samples_leaf": (1, math.inf),
    "max_bins": (2, 255),
    "n_components": (1, math.inf),
    "n_rounds_no_change": (1, math.inf),
    "verbose": (0, math.inf),
}


def store(estimator: Any, given: Mapping[str, Any]) -> None:
    """Keep the arguments of a constructor, as they are."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)


def check(estimator: Any) -> int | None:
    """Refuse parameters out of range; returns ``n_jobs``.

    Raises:
        ValueError: It names the parameter, its value and what is accepted.
    """
    get = estimator.get_params(deep=False).__getitem__
    for name, (low, high) in _WHOLE.items():
        check_number(name, get(name), low, high, whole=True)
    check_number("learning_rate", get("learning_rate"), 0, 2, open_low=True, open_high=True)
    check_number("p_tree", get("p_tree"), 0, 1)
    for name in ("l2", "min_child_weight", "alpha"):
        check_number(name, get(name), 0)
    for name in ("subsample", "colsample"):
        check_number(name, get(name), 0, 1, open_low=True)
    check_number(
        "validation_fraction", get("validation_fraction"), 0, 1, open_low=True, open_high=True
    )
    if get("gamma") != "scale":
        check_number("gamma, unless it is 'scale',", get("gamma"), 0, open_low=True)
    if get("base_score") is not None:
        check_number("base_score, unless it is None,", get("base_score"), -math.inf)
    if get("min_max_depth") > get("max_max_depth"):
        raise ValueError(
            f"min_max_depth must not exceed max_max_depth, got {get('min_max_depth')} and "
            f"{get('max_max_depth')}"
        )
    if get("alpha_scale") not in ("mean_hessian", "absolute"):
        raise ValueError(
            f"alpha_scale must be 'mean_hessian' or 'absolute', got {get('alpha_scale')!r}"
        )
    if get("n_jobs") is not None:
        check_number("n_jobs, unless it is None,", get("n_jobs"), -1, whole=True)
        if get("n_jobs") == 0:
            raise ValueError("n_jobs must be None, -1 or a positive whole number, got 0")
    _check_loss(estimator, get("loss"))
    if get("learning_rate") > 1:
        warnings.warn(
            f"learning_rate={get('learning_rate')} is above 1: rounds go past their target",
            stacklevel=4,
        )
    return get("n_jobs")


def _check_loss(estimator: Any, loss: Any) -> None:
    if not estimator._numeric:
        if loss != "log_loss":
            raise ValueError(f"loss must be 'log_loss', got {loss!r}")
        return
    if not callable(loss) and loss not in _LOSSES:
        raise ValueError(f"loss must be one of {', '.join(_LOSSES)} or a function, got {loss!r}")
    check_number("quantile", estimator.quantile, 0, 1, open_low=True, open_high=True)


def settings(estimator: Any) -> Settings:
    """The parameters for the machine."""
    get = estimator.get_params(deep=False)
    rules = Rules(**{name: get[name] for name in ("l2", "min_child_weight", "min_samples_leaf")})
    names = set(Settings.__dataclass_fields__) - {"rules"}
    return Settings(rules=rules, **{name: get[name] for name in names})


def kinds(estimator: Any, columns: Columns) -> NDArray[np.int8]:
    """What each column is to a tree: int8 [d].

    Raises:
        ValueError: ``monotonic_cst`` does not fit the columns, or not the rounds.
    """
    found = np.where(columns.codes >= 0, CATEGORY, 0).astype(np.int8)
    given = estimator.monotonic_cst
    if given is None:
        return found
    signs = np.asarray(given)
    if signs.shape != found.shape or not np.isin(signs, (-1, 0, 1)).all():
        raise ValueError(
            f"monotonic_cst must hold -1, 0 or 1 for each of {len(found)} columns, got {given!r}"
        )
    if estimator.p_tree < 1:
        raise ValueError(
            f"monotonic_cst needs p_tree=1, since ridge rounds are not monotone, got "
            f"p_tree={estimator.p_tree}"
        )
    if len(getattr(estimator, "classes_", ())) > 2:
        raise ValueError("monotonic_cst is for two classes at most")
    if ((found == CATEGORY) & (signs != 0)).any():
        raise ValueError("monotonic_cst must be 0 for categorical columns")
    return np.where(signs != 0, signs, found).astype(np.int8)
