r"""Effects: what an intervention does to the odds, example by example, and their averages.

Everything is kept as logarithms until the end: odds ratios are heavy-tailed, and a probability
may be too small for a number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmxx.data.source import DataError, read_bytes
from mmxx.language.mediation.averages import Array, Interval, Mean, Summary, interval

_FORMAT = "mmxx mediation effects 1"
_ARRAYS = ("log_y0", "log_yx", "log_nie", "log_nde", "weights")


@dataclass(frozen=True)
class Effects:
    """The effects of one intervention on N examples.

    Attributes:
        kind: "total", "heads", "layers", "model", "neurons", "sets" or "residual".
        log_y0: log odds log y_null(u), [N].
        log_yx: log odds after the text was changed, [N].
        log_nie: log(1 + natural indirect effect), [N, ...]: the input as it was, the mediator as
            the change of the text would make it. For heads [N, L, H].
        log_nde: log(1 + natural direct effect), [N, ...]: the text changed, the mediator kept.
        weights: Weight of each example, [N].
        labels: For each further axis what its entries are called.
        meta: What the examples carried, N dictionaries.
        layer: For heads, the same with all heads of a layer at once, [N, L].
        model: For heads, the same with all heads of the model at once, [N].
    """

    kind: str
    log_y0: Array
    log_yx: Array
    log_nie: Array | None = None
    log_nde: Array | None = None
    weights: Array | None = None
    labels: tuple[tuple[str, ...], ...] = ()
    meta: tuple[dict[str, Any], ...] = ()
    layer: Effects | None = None
    model: Effects | None = None

    def __len__(self) -> int:
        return len(self.log_y0)

    @property
    def y0(self) -> Array:
        """Odds without intervention, [N]."""
        return np.exp(self.log_y0)

    @property
    def yx(self) -> Array:
        """Odds after the text was changed, [N]."""
        return np.exp(self.log_yx)

    @property
    def log_te(self) -> Array:
        """log(1 + total effect), [N]."""
        return self.log_yx - self.log_y0

    @property
    def te(self) -> Array:
        """Total effect, yx / y0 - 1, [N]."""
        return np.expm1(self.log_te)

    @property
    def nie(self) -> Array:
        """Natural indirect effects, relative, [N, ...]."""
        return np.expm1(self._measured("log_nie"))

    @property
    def nde(self) -> Array:
        """Natural direct effects, relative, [N, ...]."""
        return np.expm1(self._measured("log_nde"))

    def _measured(self, name: str) -> Array:
        found = getattr(self, name)
        if found is None:
            raise ValueError(f"effects of kind {self.kind!r} hold no {name[4:]}")
        return found

    def mean(
        self, kind: Mean = "ratio", ci: float = 0.95, *, draws: int = 1000, random_state: int = 0
    ) -> Summary:
        """Averages over the examples, with percentile bootstrap intervals over examples.

        Args:
            kind: "ratio", the mean of the relative effects, as in the paper; "log", their
                geometric mean; "median". One example can dominate the first.
            ci: Coverage of the intervals, in (0, 1).
            draws: Bootstrap draws; 0 for intervals of no width.
            random_state: Seed of the draws.

        Raises:
            ValueError: ``kind`` or ``ci`` is out of range, or there is no example.
        """
        if kind not in ("ratio", "log", "median"):
            raise ValueError(f"kind must be 'ratio', 'log' or 'median', got {kind!r}")
        if not 0 < ci < 1:
            raise ValueError(f"ci must lie between 0 and 1, got {ci}")
        if not len(self):
            raise ValueError("effects of no example have no mean")
        weights = np.ones(len(self)) if self.weights is None else self.weights
        drawn = np.random.default_rng(random_state).integers(len(self), size=(draws, len(self)))

        def average(logs: Array | None) -> Interval | None:
            return None if logs is None else interval(logs, weights, drawn, kind, ci)

        total = interval(self.log_te, weights, drawn, kind, ci)
        return Summary(total, average(self.log_nie), average(self.log_nde))

    def per_layer(self, kind: Mean = "ratio") -> list[dict[str, Any]]:
        """One row for each layer: the layer as a whole, where it was measured, and its parts.

        The parts of a layer are its heads or neurons. Their effects need not add up to that of
        the layer; ``concentration`` is the share of the sum of |NIE| that the largest tenth of
        the parts holds.
        """
        parts = self.mean(kind, draws=0).nie
        if parts is None or parts.value.ndim != 2:
            raise ValueError(f"effects of kind {self.kind!r} are not arranged by layers")
        whole = None if self.layer is None else self.layer.mean(kind, draws=0)
        rows = []
        for index, values in enumerate(parts.value):
            size = np.sort(np.abs(values))[::-1]
            top = size[: max(len(size) // 10, 1)].sum() / size.sum() if size.sum() else 0.0
            row: dict[str, Any] = {"layer": self.labels[0][index]}
            if whole is not None and whole.nie is not None:
                row["NIE of the layer"] = float(whole.nie.value[index])
            if whole is not None and whole.nde is not None:
                row["NDE of the layer"] = float(whole.nde.value[index])
            row |= {
                "largest NIE": float(values.max()),
                "mean NIE": float(values.mean()),
                "concentration": float(top),
            }
            rows.append(row)
        return rows

    def ranking(
        self, k: int | None = None, kind: Mean = "ratio", *, tests: bool = True
    ) -> list[dict[str, Any]]:
        """The mediators by mean NIE, the largest first, with intervals and a paired test.

        ``p against the next`` is that of Wilcoxon's signed-rank test, over examples, between a
        mediator's log(1 + NIE) and the next one's; NaN where they are equal throughout.

        Args:
            k: How many; by default all.
            kind: The average to rank by.
            tests: Whether to test; it takes a while for thousands of mediators.
        """
        from scipy.stats import wilcoxon

        summary = self.mean(kind)
        logs = self._measured("log_nie").reshape(len(self), -1)
        assert summary.nie is not None
        means, low, high = (part.reshape(-1) for part in summary.nie)
        names = [" ".join(parts) for parts in _product(self.labels)]
        order = np.argsort(-means, kind="stable")
        direct = None if summary.nde is None else summary.nde.value.reshape(-1)
        rows = []
        for place, index in enumerate(order[:k]):
            p = float("nan")
            if tests and place + 1 < len(order):
                gap = logs[:, index] - logs[:, order[place + 1]]
                test: Any = wilcoxon(gap) if len(gap) > 1 and gap.any() else None
                p = p if test is None else float(test.pvalue)
            rows.append(
                {
                    "mediator": names[index],
                    "NIE": float(means[index]),
                    "low": float(low[index]),
                    "high": float(high[index]),
                    "NDE": float("nan") if direct is None else float(direct[index]),
                    "p against the next": p,
                }
            )
        return rows

    def kept(self, quantile: float = 0.25) -> NDArray[np.bool_]:
        """The paper's filter: which examples have an effect worth explaining, [N].

        Those whose odds yx / y0 exceed the given quantile of all that exceed 1.
        """
        if not 0 <= quantile < 1:
            raise ValueError(f"quantile must lie in [0, 1), got {quantile}")
        ratio = np.exp(self.log_te)
        risen = ratio[ratio > 1]
        if not risen.size:
            return np.zeros(len(self), bool)
        return ratio > np.quantile(risen, quantile)

    def take(self, which: ArrayLike) -> Effects:
        """The effects of some of the examples, by a mask or by indices."""
        chosen = np.asarray(which)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.intp)
        arrays = {
            name: value[chosen] for name in _ARRAYS if (value := getattr(self, name)) is not None
        }
        return replace(
            self,
            **arrays,
            meta=tuple(self.meta[index] for index in chosen) if self.meta else (),
            layer=None if self.layer is None else self.layer.take(chosen),
            model=None if self.model is None else self.model.take(chosen),
        )

    def correlation(self, key: str) -> float:
        """Pearson's correlation of log(1 + TE) with a number that the examples carry in ``meta``.

        The paper sets effects beside the occupation's share of women in labour statistics.

        Raises:
            ValueError: Fewer than two examples carry the number, or all carry the same.
        """
        held = [(m[key], te) for m, te in zip(self.meta, self.log_te, strict=True) if key in m]
        x, y = np.array(held, np.float64).T if held else (np.empty(0), np.empty(0))
        if len(held) < 2 or x.std() == 0 or y.std() == 0:
            raise ValueError(f"correlation: {len(held)} examples carry a varying {key!r}; needs 2")
        return float(np.corrcoef(x, y)[0, 1])

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns, one row for each example and mediator, as ``pandas.DataFrame`` takes them."""
        logs = [value for value in (self.log_nie, self.log_nde) if value is not None]
        shape = logs[0].shape[1:] if logs else ()
        names = list(_product(self.labels)) if shape else [()]
        rows = len(names)
        frame: dict[str, list[Any]] = {"example": np.repeat(np.arange(len(self)), rows).tolist()}
        for axis, title in enumerate(_axes(self.kind, len(shape))):
            frame[title] = [name[axis] for name in names] * len(self)
        frame["te"] = np.repeat(self.te, rows).tolist()
        if self.log_nie is not None:
            frame["nie"] = self.nie.reshape(-1).tolist()
        if self.log_nde is not None:
            frame["nde"] = self.nde.reshape(-1).tolist()
        return frame

    # -- files -----------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """As a safetensors file whose header holds the names as JSON."""
        from safetensors.numpy import save

        tensors, described = _pack(self, "")
        described["format"] = _FORMAT
        return save(tensors, {"effects": json.dumps(described)})

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_bytes` to a file."""
        Path(path).write_bytes(self.to_bytes())

    @staticmethod
    def from_bytes(content: bytes) -> Effects:
        """The effects that `to_bytes` wrote.

        Raises:
            ValueError: They are something else.
        """
        from safetensors.numpy import load

        try:
            tensors = load(content)
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            described = json.loads(header["__metadata__"]["effects"])
            if described["format"] != _FORMAT:
                raise ValueError(f"format {described['format']!r}")
            return _unpack(tensors, described, "")
        except Exception as error:  # safetensors and JSON raise each their own
            raise ValueError(f"no effects in it ({error})") from error

    @staticmethod
    def load(path: str | PathLike[str]) -> Effects:
        """Effects from a file of `save`.

        Raises:
            DataError: The file is missing, broken, or holds something else.
        """
        accepted = "a file that Effects.save wrote"
        content = read_bytes(Path(path), accepted)
        try:
            return Effects.from_bytes(content)
        except ValueError as error:
            raise DataError(path, str(error), accepted) from error

    @staticmethod
    def from_original(path: str | PathLike[str]) -> Effects:
        """The authors' own results on attention, from a JSON file of their repository.

        Raises:
            DataError: The file has no ``results`` with the fields of their attention experiments.
        """
        accepted = "a result of the authors' attention experiments, JSON"
        content = read_bytes(Path(path), accepted)
        try:
            results = json.loads(content)["results"]
            odds = np.array([[r["odds_base"], r["odds_alt"]] for r in results], np.float64)
            levels = {
                level: [
                    np.log1p(np.array([r[f"{way}_effect_{level}"] for r in results], np.float64))
                    for way in ("indirect", "direct")
                ]
                for level in ("head", "layer", "model")
            }
            keep = ("base_string1", "base_string2", "candidate1", "candidate2")
            meta = tuple({key: r[key] for key in keep if key in r} for r in results)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(path, f"{type(error).__name__}: {error}", accepted) from error
        y0, yx = np.log(odds).T
        _, layers, heads = levels["head"][0].shape
        parts = Effects("model", y0, yx, levels["model"][0], levels["model"][1], meta=meta)
        one: dict[str, Any] = {"labels": (numbered(layers),), "meta": meta}
        layer = Effects("layers", y0, yx, levels["layer"][0], levels["layer"][1], **one)
        indirect, direct = levels["head"]
        return Effects(
            "heads", y0, yx, indirect, direct, labels=(numbered(layers), numbered(heads)),
            meta=meta, layer=layer, model=parts,
        )  # fmt: skip


def joined(parts: Sequence[Effects]) -> Effects:
    """The effects of the examples of several, one after the other.

    Raises:
        ValueError: There is none, or they are of different mediators.
    """
    if not parts:
        raise ValueError("joined: no effects were given")
    first = parts[0]
    if any((part.kind, part.labels) != (first.kind, first.labels) for part in parts):
        raise ValueError("joined: the effects are of different mediators")

    def together(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    def level(name: str) -> Effects | None:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else joined(found)

    return replace(
        first,
        **{name: together(name) for name in _ARRAYS},
        meta=sum((part.meta for part in parts), ()),
        layer=level("layer"),
        model=level("model"),
    )


def across(parts: Sequence[Effects]) -> Effects:
    """The effects of the same examples through several groups of layers, one after the other.

    What all heads of the model do together is taken from the first.

    Raises:
        ValueError: There is none, or they are not of one kind arranged by layers.
    """
    if not parts or any(part.kind != parts[0].kind or not part.labels for part in parts):
        raise ValueError("across: effects of one kind, arranged by layers, are needed")
    first = parts[0]

    def together(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found, 1)

    levels = [part.layer for part in parts if part.layer is not None]
    layers = tuple(name for part in parts for name in part.labels[0])
    return replace(
        first, log_nie=together("log_nie"), log_nde=together("log_nde"),
        labels=(layers, *first.labels[1:]), layer=across(levels) if levels else None,
    )  # fmt: skip


def numbered(count: int) -> tuple[str, ...]:
    """The labels "0", "1", …"""
    return tuple(str(index) for index in range(count))


def _product(labels: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    names: list[tuple[str, ...]] = [()]
    for axis in labels:
        names = [(*name, entry) for name in names for entry in axis]
    return names


def _axes(kind: str, count: int) -> tuple[str, ...]:
    known = {
        "heads": ("layer", "head"), "layers": ("layer",), "neurons": ("layer", "neuron"),
        "sets": ("set",), "residual": ("layer", "position"),
    }  # fmt: skip
    return known.get(kind, ())[:count]


def _pack(effects: Effects, prefix: str) -> tuple[dict[str, Array], dict[str, Any]]:
    tensors = {
        prefix + name: np.ascontiguousarray(value)
        for name in _ARRAYS
        if (value := getattr(effects, name)) is not None
    }
    described: dict[str, Any] = {
        "kind": effects.kind,
        "labels": effects.labels,
        "meta": effects.meta,
    }
    for level in ("layer", "model"):
        inner = getattr(effects, level)
        if inner is not None:
            more, described[level] = _pack(inner, f"{prefix}{level}.")
            tensors |= more
    return tensors, described


def _unpack(tensors: dict[str, Any], described: dict[str, Any], prefix: str) -> Effects:
    arrays = {name: tensors[prefix + name] for name in _ARRAYS if prefix + name in tensors}
    levels = {
        level: _unpack(tensors, described[level], f"{prefix}{level}.")
        for level in ("layer", "model")
        if level in described
    }
    labels = tuple(tuple(axis) for axis in described["labels"])
    known: dict[str, Any] = {**arrays, **levels}
    return Effects(described["kind"], labels=labels, meta=tuple(described["meta"]), **known)
