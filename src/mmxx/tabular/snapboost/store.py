"""Models as safetensors with a JSON header: small, and safe to open whoever wrote them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmxx.tabular.snapboost._rows import BINS
from mmxx.tabular.snapboost.ensemble import Ensemble, Learner
from mmxx.tabular.snapboost.fourier import Encoder, Projection
from mmxx.tabular.snapboost.tree import NODE, Tree

Arrays = dict[str, NDArray[Any]]
_KINDS = ("tree", "ridge")
_NODE_FIELDS = tuple(NODE.names or ())
_ENCODER = ("size", "mean", "rate", "gaps", "codes", "variance")


def pack(ensemble: Ensemble) -> Arrays:
    """An ensemble as plain arrays."""
    trees = [one.tree for one in ensemble.learners if one.tree is not None]
    coefs = [one.coef for one in ensemble.learners if one.coef is not None]
    arrays: Arrays = {
        "base": ensemble.base,
        "rate": np.array([ensemble.rate]),
        "learners": np.array(
            [
                [one.round, _KINDS.index(one.kind), one.klass, one.depth]
                + ([0, 0] if one.tree is None else [len(one.tree.nodes), len(one.tree.left_sets)])
                for one in ensemble.learners
            ],
            np.int64,
        ).reshape(-1, 6),
        "coefs": np.array(coefs, np.float64).reshape(len(coefs), -1 if coefs else 0),
        "gains": np.concatenate([np.empty(0), *(tree.gains for tree in trees)]),
        "covers": np.concatenate([np.empty(0), *(tree.covers for tree in trees)]),
        "left_sets": np.packbits(
            np.concatenate([np.empty((0, BINS), np.bool_), *(tree.left_sets for tree in trees)]), 1
        ),
    }
    nodes = np.concatenate([np.empty(0, NODE), *(tree.nodes for tree in trees)])
    arrays |= {f"nodes.{name}": np.ascontiguousarray(nodes[name]) for name in _NODE_FIELDS}
    if ensemble.encoder is not None and ensemble.projection is not None:
        for name in _ENCODER:
            arrays[f"encoder.{name}"] = np.atleast_1d(getattr(ensemble.encoder, name))
        arrays |= {"projection.W": ensemble.projection.W, "projection.b": ensemble.projection.b}
    return arrays


def unpack(arrays: Arrays, columns: int) -> Ensemble:
    """The ensemble again.

    Args:
        arrays: From `pack`.
        columns: How many columns the tables have.

    Raises:
        ValueError: Something is missing, of another shape or type, or points outside.
    """
    read = _Reader(arrays)
    base = read("base", np.float64, (None, 1))
    records = read("learners", np.int64, (None, 6))
    classes = len(base)
    _check(np.isfinite(base).all() and classes >= 1, "base")
    _check(len(records) % classes == 0, "learners")
    order = np.arange(len(records))
    _check((records[:, 0] == order // classes).all(), "learners")
    _check((records[:, 2] == order % classes).all(), "learners")
    _check(bool(np.isin(records[:, 1], (0, 1)).all()), "learners")
    _check(bool((records[:, 3:] >= 0).all() and (records[:, 3:] < 2**31).all()), "learners")
    is_tree = records[:, 1] == 0
    sizes, sets = records[:, 4], records[:, 5]
    _check(bool((sizes[is_tree] > 0).all() and not sizes[~is_tree].any()), "learners")
    count = int(sizes.sum())
    nodes = np.empty(count, NODE)
    for name in _NODE_FIELDS:
        nodes[name] = read(f"nodes.{name}", NODE[name], (count,))
    gains, covers = (read(name, np.float64, (count,)) for name in ("gains", "covers"))
    left_sets = np.unpackbits(read("left_sets", np.uint8, (int(sets.sum()), BINS // 8)), 1) > 0
    encoder, projection = _ridges(read, columns)
    width = 0 if projection is None else len(projection.b) + 1
    shape = (int((~is_tree).sum()), width if not is_tree.all() else None)
    coefs = read("coefs", np.float64, shape)
    _check(bool(np.isfinite(coefs).all()), "coefs")

    learners, node, row, coef = [], 0, 0, 0
    for number, kind, klass, depth, size, used in records.tolist():
        if kind == 1:
            learners.append(Learner(number, "ridge", klass, coef=coefs[coef]))
            coef += 1
            continue
        part = slice(node, node + size)
        tree = Tree(nodes[part], gains[part], covers[part], left_sets[row : row + used])
        _check_tree(tree, columns)
        learners.append(Learner(number, "tree", klass, depth, tree))
        node, row = node + size, row + used
    rate = float(read("rate", np.float64, (1,))[0])
    _check(0 < rate < 2, "rate")
    return Ensemble(base, rate, learners, encoder, projection)


class _Reader:
    """Takes arrays by name, and refuses those of another type or shape."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __call__(self, name: str, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
        array = self._arrays.get(name)
        if array is None:
            raise ValueError(f"the model has no array {name!r}")
        fits = array.ndim == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            raise ValueError(
                f"the model's array {name!r} is {array.dtype} {array.shape}, not "
                f"{np.dtype(dtype)} {shape}"
            )
        return array


def _check(sound: Any, name: str) -> None:
    if not sound:
        raise ValueError(f"the model's {name} hold values out of range")


def _ridges(read: _Reader, columns: int) -> tuple[Encoder | None, Projection | None]:
    if "projection.W" not in read:
        return None, None
    floats = {name: read(f"encoder.{name}", np.float64, (columns,)) for name in _ENCODER[:3]}
    gaps = read("encoder.gaps", np.bool_, (columns,))
    codes = read("encoder.codes", np.int64, (columns,))
    _check(bool((codes >= -1).all() and (codes < BINS).all()), "encoder")
    _check(all(np.isfinite(array).all() for array in floats.values()), "encoder")
    _check(bool((floats["size"] > 0).all()), "encoder")
    variance = float(read("encoder.variance", np.float64, (1,))[0])
    encoder = Encoder(floats["size"], floats["mean"], floats["rate"], gaps, codes, variance)
    b = read("projection.b", np.float32, (None,))
    W = read("projection.W", np.float32, (len(encoder.origins), len(b)))
    _check(bool(len(b) > 0 and np.isfinite(W).all() and np.isfinite(b).all()), "projection")
    return encoder, Projection(W, b)


def _check_tree(tree: Tree, columns: int) -> None:
    """A node's children lie behind it and inside the tree, so that no path has a cycle.

    In depth-first order the left subtree fills the places up to the right child exactly.
    """
    nodes = tree.nodes
    inner = nodes["feature"] >= 0
    _check(bool((nodes["feature"] < columns).all()), "nodes.feature")
    _check(not np.isnan(nodes["threshold"]).any(), "nodes.threshold")
    _check(bool((nodes["left_set"] < len(tree.left_sets)).all()), "nodes.left_set")
    end = [len(nodes)]  # where the subtrees that have begun must end
    for place, (is_inner, right) in enumerate(zip(inner, nodes["right"].tolist(), strict=True)):
        _check(bool(end) and place < end[-1], "nodes.right")
        if is_inner:
            _check(right > 1 and place + right < end[-1], "nodes.right")
            end.append(place + right)
        elif place + 1 == end[-1]:
            end.pop()
        else:
            _check(False, "nodes.right")
    _check(not end, "nodes.right")
