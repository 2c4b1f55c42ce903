"""Model files: safetensors with the parameters in the header as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mmxx.graphs.wls.expansion import Exact, Layer, Projected, Sketched
from mmxx.graphs.wls.inputs import Columns
from mmxx.graphs.wls.kernel import WLSKernel
from mmxx.graphs.wls.transformer import AggregationTransformer, WLSTransformer

Arrays = Mapping[str, NDArray[Any]]
_FORMAT = "mmxx wls 1"
_SCALARS = (str, int, float, bool, type(None))
_CLASSES: tuple[type, ...] = (WLSKernel, WLSTransformer, AggregationTransformer)
_CLASSIFIER = "WLSClassifier"  # imported only where one is met: it needs torch


def save_model(model: Any, path: str | PathLike[str]) -> None:
    """Write a fitted transformer, kernel or classifier.

    Args:
        model: A `WLSTransformer`, `WLSKernel`, `AggregationTransformer` or `WLSClassifier`.
        path: The file; an older one is overwritten.

    Raises:
        TypeError: It is something else.
        ValueError: It is not fitted, or has classes that are no text nor numbers.

    Example:
        >>> import tempfile
        >>> import networkx as nx
        >>> graphs = [nx.path_graph(n) for n in range(3, 8)]
        >>> model = WLSTransformer(2, 16, random_state=0).fit(graphs)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, f"{folder}/model.safetensors")
        ...     again = load_model(f"{folder}/model.safetensors")
        >>> bool((again.transform(graphs) == model.transform(graphs)).all())
        True
    """
    name = type(model).__name__
    if name not in (*(c.__name__ for c in _CLASSES), _CLASSIFIER):
        raise TypeError(f"model: {name}; accepted: a transformer, kernel or classifier of wls")
    if not hasattr(model, "columns_"):
        raise ValueError(f"model: this {name} is not fitted")
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {
        "class": name,
        "params": {k: v for k, v in model.get_params().items() if isinstance(v, _SCALARS)},
        "columns": _put_columns(arrays, "columns", model.columns_),
        "edge_columns": _put_columns(arrays, "edge_columns", getattr(model, "edge_columns_", None)),
    }
    for t, layer in enumerate(getattr(model, "layers_", [])):
        for part in ("keep", "send", "bucket", "sign", "pairs"):
            if hasattr(layer, part):
                arrays[f"layers.{t}.{part}"] = getattr(layer, part)
    if name == _CLASSIFIER:
        classes = model.classes_.tolist()
        if not all(isinstance(value, _SCALARS) for value in classes):
            raise ValueError(f"model: classes {classes[:3]}; accepted: text or numbers")
        header |= {"classes": classes, "loss_curve": model.loss_curve_}
        state = model.net_.state_dict()
        arrays |= {f"net.{key}": value.cpu().numpy() for key, value in state.items()}
    if name == "WLSKernel":
        header["gamma"] = model.gamma_
        arrays["vectors"] = model.vectors_
    ready = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    Path(path).write_bytes(save(ready, {"format": _FORMAT, "model": json.dumps(header)}))


def load_model(path: str | PathLike[str]) -> Any:
    """A model that `save_model` wrote. Nothing in the file is run, and shapes are checked.

    Args:
        path: The file.

    Returns:
        A `WLSTransformer`, `WLSKernel`, `AggregationTransformer` or `WLSClassifier`.

    Raises:
        ValueError: It is no such file, is cut short, or its parts do not fit.
    """
    content = Path(path).read_bytes()
    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"not a file of {_FORMAT!r}, but {metadata.get('format')!r}")
        return _restored(json.loads(metadata["model"]), arrays)
    except (SafetensorError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: no model file, or a damaged one: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _restored(header: Any, arrays: Arrays) -> Any:
    known = {c.__name__: c for c in _CLASSES}
    if header["class"] == _CLASSIFIER:
        return _restored_classifier(header, arrays)
    if header["class"] not in known:
        raise ValueError(f"the model is a {header['class']!r}")
    model = known[header["class"]](**header["params"])
    model._check()
    model.columns_ = _take_columns(arrays, "columns", header["columns"])
    if isinstance(model, WLSTransformer):
        model.edge_columns_ = None
        if header["edge_columns"] is not None:
            model.edge_columns_ = _take_columns(arrays, "edge_columns", header["edge_columns"])
        more, widths = model._edge_width(), model._widths()
        model.layers_ = [
            _layer(model, arrays, t, (width, width + more)) for t, width in enumerate(widths[:-1])
        ]
    model._n_features_out = sum(model._widths()[t] for t in model._chosen())
    if isinstance(model, WLSKernel):
        vectors = arrays["vectors"]
        if vectors.ndim != 2 or vectors.shape[1] != model._n_features_out:
            raise ValueError(
                f"vectors of shape {vectors.shape}, {model._n_features_out} columns fit"
            )
        model.vectors_, model.gamma_ = vectors, float(header["gamma"])
        model._n_features_out = len(vectors)
    return model


def _restored_classifier(header: Any, arrays: Arrays) -> Any:
    import torch

    from mmxx.graphs.wls.classifier import WLSClassifier

    model = WLSClassifier(**header["params"])
    model._check()
    model.columns_ = _take_columns(arrays, "columns", header["columns"])
    model.edge_columns_ = None
    if header["edge_columns"] is not None:
        model.edge_columns_ = _take_columns(arrays, "edge_columns", header["edge_columns"])
    model.classes_ = np.array(header["classes"])
    model.loss_curve_ = [float(loss) for loss in header["loss_curve"]]
    model.n_iter_ = len(model.loss_curve_)
    with torch.random.fork_rng(devices=[]):
        model.net_ = model._build()
    state = {
        key.removeprefix("net."): torch.from_numpy(value.copy())
        for key, value in arrays.items() if key.startswith("net.")
    }  # fmt: skip
    model.net_.load_state_dict(state)
    model.net_.to(model.device).eval()
    return model


def _layer(model: WLSTransformer, arrays: Arrays, t: int, widths: tuple[int, int]) -> Layer:
    expansion, dim = model._expansion(), int(model.dim)
    if model.projection == "none":
        return Exact(expansion)
    own, sent = widths

    def part(name: str, shape: tuple[int, int]) -> NDArray[Any]:
        found = arrays[f"layers.{t}.{name}"]
        if found.shape != shape:
            raise ValueError(f"layer {t}: {name} of shape {found.shape}, {shape} fits")
        return found

    keep, send = part("keep", (own, dim)), part("send", (sent, dim))
    if model.projection == "gaussian":
        products = sent * (sent + 1) // 2 if expansion.quadratic else 0
        return Projected(expansion, keep, send, part("pairs", (products, dim)))
    bucket = part("bucket", (2, sent))
    if bucket.dtype != np.int64 or bucket.min() < 0 or bucket.max() >= dim:
        raise ValueError(f"layer {t}: buckets out of range")  # compiled code does not check
    return Sketched(expansion, keep, send, bucket, part("sign", (2, sent)))


def _put_columns(
    arrays: dict[str, NDArray[Any]], name: str, columns: Columns | None
) -> dict[str, str] | None:
    if columns is None:
        return None
    for part in ("labels", "shift", "spread"):
        arrays[f"{name}.{part}"] = getattr(columns, part)
    return {"use": columns.use, "what": columns.what}


def _take_columns(arrays: Arrays, name: str, header: Any) -> Columns:
    labels, shift, spread = (arrays[f"{name}.{part}"] for part in ("labels", "shift", "spread"))
    if shift.ndim != 1 or shift.shape != spread.shape:
        raise ValueError(f"{name}: shapes {shift.shape} and {spread.shape} do not fit")
    return Columns(str(header["use"]), str(header["what"]), labels, shift, spread)
