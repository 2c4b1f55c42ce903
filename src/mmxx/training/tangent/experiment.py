"""Is the tangent kernel of wide networks constant, and what makes it change?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from mmxx.lab.run import Run

_LINEAR = "linear"  # the output of the arm of that name, which the sham replaces
_AT = 1024  # the width at which arms are compared
_NAMES = {"linear": "linear output", "tanh": "tanh output", "bottleneck": "bottleneck"}
_TRAINED = (
    "hessian-shrinks", "kernel-constant", "tanh-flat", "tanh-changes", "bottleneck-flat",
    "bottleneck-changes", "output-decides",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Train networks of growing width with a linear output, a tanh output and a bottleneck."""

    widths: tuple[int, ...] = (64, 256, 1024)
    """Widths of the two hidden layers."""
    narrow: int = 1
    """Width of the bottleneck between the two."""
    narrow_networks: int = 8
    """Networks with a bottleneck for each seed: how they train depends much on luck."""
    samples: int = 40
    """Samples to train on, of two classes."""
    test_samples: int = 40
    """Samples on which networks are compared with their linearisation."""
    steps: int = 400
    """Steps of gradient descent on all samples."""
    rate: float = 1.0
    """Learning rate, relative to the number of samples over the kernel's largest eigenvalue."""
    points: int = 10
    """Moments of the training at which the kernel is measured."""
    hessian_samples: int = 4
    """Samples over which the norm of the Hessian is the largest."""
    hessian_width: int = 4096
    """Widest network of which the Hessian is measured."""
    seeds: int = 1
    """Seeds of each network."""
    limit_widths: tuple[int, ...] = (64, 256, 1024, 4096)
    """Widths of the networks of one hidden layer."""
    draws: int = 16
    """Networks of one hidden layer for each width and seed."""
    digits: tuple[int, int] = (3, 8)
    """The two digits."""
    data: Path | None = None
    """A table whose last column is to be predicted (.csv), or labelled pictures (.npz, folder)."""

    def __post_init__(self) -> None:
        for name in ("widths", "limit_widths"):
            given = getattr(self, name)
            if len(set(given)) < 2 or min(given) < 1:
                raise ValueError(f"{name} must name two widths or more, each above 0, got {given}")
        for name in (
            "narrow", "narrow_networks", "test_samples", "steps", "hessian_samples", "seeds",
            "draws", "hessian_width",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("samples", "points"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be 2 or more, got {getattr(self, name)}")
        if not 0 < self.rate < 2:
            raise ValueError(f"rate must be above 0 and below 2, got {self.rate}")
        one, other = self.digits
        if one == other or not {one, other} <= set(range(10)):
            raise ValueError(f"digits must be two different digits, got {self.digits}")


TINY = Config(
    widths=(8, 16), narrow_networks=1, samples=6, test_samples=4, steps=3, points=2,
    hessian_samples=1, limit_widths=(8, 16), draws=1,
)  # fmt: skip
QUICK = Config()
FULL = Config(
    widths=(64, 256, 1024, 4096, 8192), seeds=3, steps=100, points=6,
    limit_widths=(64, 256, 1024, 4096, 16384, 65536),
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure how Hessian and kernel change with the width, in each arm."""
    x, y, xt = _data(config, run)
    _trained(config, run, {"x": x, "y": y, "xt": xt})
    _one_layer(config, run, x)


@contextmanager
def sham() -> Iterator[None]:
    """A tanh output in the place of the linear one."""
    global _LINEAR
    real, _LINEAR = _LINEAR, "tanh"
    try:
        yield
    finally:
        _LINEAR = real


# -- data --------------------------------------------------------------------------------------


def _data(config: Config, run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples of length 1, targets, and test samples, all float32."""
    import numpy as np

    from mmxx.data import digits, load

    if config.data is None:
        train, _ = digits()
        run.source(train.source)
        x, labels = train.images.reshape(len(train), -1), train.labels
        classes: tuple[Any, Any] = config.digits
    else:
        loaded: Any = load(config.data, kinds=("table", "images"))
        run.source(loaded.source)
        x, labels = _of_table(loaded) if loaded.kind == "table" else _of_images(loaded)
        found, counts = np.unique(labels, return_counts=True)
        if len(found) < 2:
            raise ValueError("data: there is one class only; two are needed")
        classes = tuple(np.sort(found[np.argsort(-counts, kind="stable")[:2]]))
    rng, need = run.rng("samples"), (config.samples + config.test_samples + 1) // 2
    chosen = []
    for label in classes:
        where = np.flatnonzero(labels == label)
        if len(where) < need:
            raise ValueError(
                f"data: {need} samples of each of two classes are needed for "
                f"samples={config.samples} and test_samples={config.test_samples}; class {label} "
                f"has {len(where)}"
            )
        chosen.append(rng.permutation(where)[:need])
    order = np.stack(chosen, 1).ravel()  # the two classes take turns
    targets = np.tile([1.0, -1.0], need)
    x = x[order].astype(np.float32)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("data: a sample is 0 in all columns, and cannot be scaled to length 1")
    x, n = x / lengths, config.samples
    return x[:n], targets[:n].astype(np.float32), x[n : n + config.test_samples]


def _of_table(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """Columns, standardised, and the last one's classes: its halves if it has many values."""
    import numpy as np

    columns = [name for name in table.numeric if name != table.names[-1]]
    if not columns:
        raise ValueError("data: the table needs a column of numbers before the last")
    x, last = table.matrix(columns), table[table.names[-1]]
    there = np.isfinite(x).all(1)
    if last.dtype.kind == "f":
        there &= np.isfinite(last)
    x, last = x[there], last[there]
    if not len(x):
        raise ValueError("data: no row of the table is complete")
    spread = x.std(0)
    if last.dtype.kind == "f" and len(np.unique(last)) > 10:
        last = last > np.median(last)
    return (x - x.mean(0)) / np.where(spread > 0, spread, 1), last


def _of_images(images: Any) -> tuple[np.ndarray, np.ndarray]:
    if images.labels is None:
        raise ValueError("data: the pictures need labels, as sub-folders or in the .npz file")
    return images.as_float().reshape(len(images), -1), images.labels


# -- three arms --------------------------------------------------------------------------------


def _trained(config: Config, run: Run, data: dict[str, Any]) -> None:
    from mmxx.training.tangent import arms

    seeds = list(range(run.seed, run.seed + config.seeds))
    common = {**data} | {name: getattr(config, name) for name in ("steps", "rate", "points")}
    items: list[dict[str, Any]] = [
        {**common, "arm": arm, "width": width, "seed": seed * 1000 + number}
        | {"narrow": config.narrow if arm == "bottleneck" else 0}
        | {"head": {"linear": _LINEAR, "tanh": "tanh", "bottleneck": "linear"}[arm]}
        | {"samples": config.hessian_samples if width <= config.hessian_width else 0}
        for width in sorted(set(config.widths), reverse=True)  # the long ones first
        for arm in _NAMES
        for seed in seeds
        for number in range(config.narrow_networks if arm == "bottleneck" else 1)
    ]
    results = run.once("train", run.map, arms.train, items)
    found: dict[tuple[str, int], list[Any]] = {}
    for item, result in zip(items, results, strict=True):
        found.setdefault((item["arm"], item["width"]), []).append(result)
    wild = [item for item, result in zip(items, results, strict=True) if not result["ok"]]
    if wild:
        first = wild[0]
        reason = (
            f"{len(wild)} of {len(items)} trainings diverged, the first with {_NAMES[first['arm']]}"
            f" at width {first['width']}"
        )
        for claim in _TRAINED:
            run.not_measured(claim, reason)
        return
    _judge(config, run, found, seeds)
    _show(config, run, found)


def _judge(config: Config, run: Run, found: dict[Any, list[Any]], seeds: list[int]) -> None:
    from mmxx.training.tangent import arms

    widths = sorted(set(config.widths))
    changes, norms = _means(found, widths)
    measured = [w for w in widths if w <= config.hessian_width]
    flat = {
        arm: arms.slope(measured, norms[arm]) if len(measured) > 1 else float("nan")
        for arm in _NAMES
    }
    slopes = {arm: arms.slope(widths, changes[arm]) for arm in _NAMES}
    run.measure(
        "hessian-shrinks", flat["linear"], baseline=flat["tanh"], control=flat["bottleneck"],
        seeds=seeds,
    )  # fmt: skip
    run.measure(
        "kernel-constant", slopes["linear"], baseline=slopes["tanh"],
        control=slopes["bottleneck"], seeds=seeds,
    )  # fmt: skip
    run.measure("tanh-flat", abs(slopes["tanh"]), seeds=seeds)
    run.measure("bottleneck-flat", abs(slopes["bottleneck"]), seeds=seeds)
    if _AT in widths:
        at = {arm: changes[arm][widths.index(_AT)] for arm in _NAMES}
        run.measure("tanh-changes", at["tanh"], baseline=at["linear"], seeds=seeds)
        run.measure("bottleneck-changes", at["bottleneck"], baseline=at["linear"], seeds=seeds)
        run.measure("output-decides", at["tanh"] / at["linear"], baseline=1.0, seeds=seeds)
    else:
        for claim in ("tanh-changes", "bottleneck-changes", "output-decides"):
            run.not_measured(claim, f"width {_AT} is not among the widths")


def _means(
    found: dict[Any, list[Any]], widths: list[int]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Geometric means over seeds: the kernel's change, and the norm of the Hessian, by arm."""
    from mmxx.training.tangent import arms

    changes: dict[str, list[float]] = {arm: [] for arm in _NAMES}
    norms: dict[str, list[float]] = {arm: [] for arm in _NAMES}
    for arm in _NAMES:
        for width in widths:
            some = found[arm, width]
            changes[arm].append(arms.log_mean([result["drift"][-1] for result in some]))
            if some[0]["hessian"] is not None:
                norms[arm].append(arms.log_mean([result["hessian"] for result in some]))
    return changes, norms


def _show(config: Config, run: Run, found: dict[Any, list[Any]]) -> None:
    import numpy as np

    from mmxx.lab.report import figures
    from mmxx.training.tangent import arms

    widths = sorted(set(config.widths))
    changes, norms = _means(found, widths)
    spread = {
        arm: [
            [edge([result["drift"][-1] for result in found[arm, width]]) for width in widths]
            for edge in (min, max)
        ]
        for arm in _NAMES
    }
    rows, shown = [], len(next(iter(norms.values())))
    for arm, name in _NAMES.items():
        for place, width in enumerate(widths):
            some = found[arm, width]
            rows.append({
                "arm": name, "width": width, "networks": len(some),
                "norm of Hessian": round(norms[arm][place], 4) if place < shown else "",
                "change of kernel": round(changes[arm][place], 5),
                "least": round(spread[arm][0][place], 5), "most": round(spread[arm][1][place], 5),
                "loss": round(arms.log_mean([result["loss"][-1] for result in some]), 6),
                "off linearised": round(arms.log_mean([result["gap"] for result in some]), 5),
                "least eigenvalue": round(float(np.mean([r["smallest"] for r in some])), 6),
            })  # fmt: skip
    run.table(
        "arms", rows,
        "Geometric means over networks. Change of the kernel from beginning to end of training; "
        "off linearised: root mean square difference at test samples after training.",
    )  # fmt: skip
    figure = figures.curves(
        {name: (widths, changes[arm]) for arm, name in _NAMES.items()},
        bands={name: (widths, spread[arm][0], spread[arm][1]) for arm, name in _NAMES.items()},
        xlabel="width", ylabel="relative change of the kernel", logx=True, logy=True,
    )  # fmt: skip
    _plain(figure, widths)
    run.figure(
        "change", figure, "How much training changes the tangent kernel; bands from least to most."
    )
    figure = figures.curves(
        {name: (widths[:shown], norms[arm]) for arm, name in _NAMES.items()},
        xlabel="width", ylabel="norm of the Hessian", logx=True, logy=True,
    )  # fmt: skip
    _plain(figure, widths[:shown])
    run.figure("hessian", figure, "The norm of the Hessian at the beginning.")
    last = widths[-1]
    curves = {}
    for arm, name in _NAMES.items():
        drifts = np.array([result["drift"] for result in found[arm, last]])
        curves[name] = (found[arm, last][0]["steps"], np.median(drifts, 0))
    figure = figures.curves(curves, xlabel="step", ylabel="relative change of the kernel")
    run.figure("training", figure, f"The change during training, at width {last}; medians.")
    figure = figures.curves(
        {
            name: (widths, [arms.log_mean([r["gap"] for r in found[arm, w]]) for w in widths])
            for arm, name in _NAMES.items()
        },
        xlabel="width", ylabel="difference from linearised", logx=True, logy=True,
    )  # fmt: skip
    _plain(figure, widths)
    run.figure("linearised", figure, "Trained networks beside their linearisation, test samples.")


def _plain(figure: Figure, widths: list[int]) -> None:
    """Logarithmic axes with the widths themselves, and decimal numbers, at their ticks."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes = figure.axes[0]
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


# -- one hidden layer --------------------------------------------------------------------------


def _one_layer(config: Config, run: Run, x: np.ndarray) -> None:
    import numpy as np

    from mmxx.lab.report import figures
    from mmxx.training.tangent import arms

    widths = sorted(set(config.limit_widths))
    seeds = list(range(run.seed, run.seed + config.seeds))
    items = [
        {"width": width, "seed": seed, "draws": config.draws, "x": x}
        for width in reversed(widths)
        for seed in seeds
    ]
    results = run.once("draw", run.map, arms.draw, items)
    errors, norms = [], []
    for width in widths:
        pairs = zip(items, results, strict=True)
        some = [result for item, result in pairs if item["width"] == width]
        errors.append(float(np.sqrt(np.mean(np.square([r["error"] for r in some])))))
        norms.append(arms.log_mean(np.ravel([r["hessian"] for r in some]).tolist()))
    rate, fall = arms.slope(widths, errors), arms.slope(widths, norms)
    run.measure("limit-rate", rate, seeds=seeds)
    run.table(
        "one-layer",
        [
            {"width": w, "norm of Hessian": round(h, 5), "off the limit": round(e, 5)}
            for w, h, e in zip(widths, norms, errors, strict=True)
        ],
        "Networks of one hidden layer: the norm of the Hessian by its closed form (SiLU), and the "
        "relative distance of the kernel from that of infinite width (ReLU).",
    )
    figure = figures.curves(
        {"norm of the Hessian": (widths, norms), "distance from the limit": (widths, errors)},
        xlabel="width", ylabel="norm, relative distance", logx=True, logy=True,
    )  # fmt: skip
    _plain(figure, widths)
    run.figure("one-layer", figure, "One hidden layer, without training.")
    run.note(
        f"With one hidden layer the norm of the Hessian, by its closed form, falls with exponent "
        f"{fall:.3f}."
    )
