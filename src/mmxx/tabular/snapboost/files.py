"""Model files: safetensors with the estimator's parameters in the header as JSON."""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mmxx.tabular.snapboost import store
from mmxx.tabular.snapboost.boosting import SnapBoost
from mmxx.tabular.snapboost.estimators import SnapBoostClassifier, SnapBoostRegressor
from mmxx.tabular.snapboost.inputs import MAX_CATEGORIES, Columns
from mmxx.tabular.snapboost.losses import Loss

_FORMAT = "mmxx snapboost 1"
_CLASSES: dict[str, type[SnapBoostClassifier] | type[SnapBoostRegressor]] = {
    "SnapBoostClassifier": SnapBoostClassifier,
    "SnapBoostRegressor": SnapBoostRegressor,
}
_SCALARS = (str, int, float, bool, type(None))
_LEARNED = ("train_loss_", "validation_loss_", "cosine_", "_sample")


def write(model: SnapBoost, path: Path) -> None:
    """Write a fitted model."""
    path.write_bytes(to_bytes(model))


def to_bytes(model: SnapBoost) -> bytes:
    """A fitted model as the bytes of a file."""
    if not isinstance(model.loss, str):
        raise ValueError("loss is a function, which no file holds; name it to save the model")
    header = {
        "class": type(model).__name__,
        "params": {
            name: value for name, value in model.get_params().items() if isinstance(value, _SCALARS)
        },
        "columns": _listed(model._columns.categories, "category"),
        "names": _listed(list(getattr(model, "feature_names_in_", [])), "column"),
        "classes": _listed(list(getattr(model, "classes_", [])), "class"),
        "best_round": model.best_round_,
        "seed": model._seed,
        "ridge_gain": model._ridge_gain,
        "spread": model._loss.spread,
    }
    arrays = store.pack(model._ensemble)
    for name in _LEARNED:
        value = getattr(model, name)
        if value is not None:
            arrays[name] = np.ascontiguousarray(value)
    return save(arrays, {"format": _FORMAT, "model": json.dumps(header)})


def _listed(values: Any, what: str) -> Any:
    """Values as JSON has them."""
    if isinstance(values, list):
        return [_listed(value, what) for value in values]
    value = values.item() if isinstance(values, np.generic) else values
    if not isinstance(value, _SCALARS):
        raise ValueError(f"a {what} is {value!r}; only text and numbers can be saved")
    return value


def load_model(path: str | PathLike[str]) -> SnapBoostRegressor | SnapBoostClassifier:
    """A model that ``save`` wrote. Nothing in the file is run, and everything is checked.

    Args:
        path: The file.

    Raises:
        ValueError: It is no such file, is cut short, or holds values out of range.

    Example:
        >>> import tempfile
        >>> X = np.arange(20.0)[:, None]
        >>> model = SnapBoostRegressor(n_rounds=3, random_state=0).fit(X, X[:, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     again = load_model(f"{folder}/model.safetensors")
        >>> bool((again.predict(X) == model.predict(X)).all())
        True
    """
    try:
        return from_bytes(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_bytes(content: bytes) -> SnapBoostRegressor | SnapBoostClassifier:
    """A model from the bytes of a file; see `load_model`."""
    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"not a file of {_FORMAT!r}, but {metadata.get('format')!r}")
        header = json.loads(metadata["model"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"not a model file, or cut short: {error}") from error
    try:
        return _restore(header, arrays)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the model's header is damaged: {error!r}") from error


def _restore(header: Any, arrays: store.Arrays) -> SnapBoostRegressor | SnapBoostClassifier:
    if header["class"] not in _CLASSES:
        raise ValueError(f"the model is a {header['class']!r}")
    model = _CLASSES[header["class"]](**header["params"])
    categories = header["columns"]
    for one in categories:
        if one is not None and not (isinstance(one, list) and len(one) <= MAX_CATEGORIES):
            raise ValueError("the model's columns hold values out of range")
    model._columns = Columns(categories)
    model.n_features_in_ = len(categories)
    model._ensemble = store.unpack(arrays, len(categories))
    if header["names"]:
        names = np.array(header["names"], dtype=object)
        if len(names) != len(categories):
            raise ValueError("the model's names do not fit its columns")
        setattr(model, "feature_names_in_", names)  # noqa: B010 - not every model has it
    classes = 1
    if isinstance(model, SnapBoostClassifier):
        model.classes_ = np.array(header["classes"])
        classes = len(model.classes_) if len(model.classes_) > 2 else 1
    if model._ensemble.classes != classes:
        raise ValueError("the model's learners do not fit its classes")
    model._loss = Loss(
        str(model.loss), classes, float(getattr(model, "quantile", 0.5)), float(header["spread"])
    )
    model.n_rounds_ = len(model._ensemble.learners) // classes
    model.best_round_ = int(header["best_round"])
    if not 0 <= model.best_round_ <= model.n_rounds_:
        raise ValueError(f"the model's best_round is {model.best_round_} of {model.n_rounds_}")
    model._seed, model._ridge_gain = int(header["seed"]), float(header["ridge_gain"])
    if not math.isfinite(model._ridge_gain):
        raise ValueError("the model's ridge_gain is not finite")
    for name in _LEARNED:
        setattr(model, name, arrays.get(name))
    return model
