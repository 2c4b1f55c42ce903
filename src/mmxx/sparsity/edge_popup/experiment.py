"""Is a network that does the task hidden in a random one?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from mmxx.lab.run import Run

_FROZEN = False  # whether the sham keeps the scores as they are
_KINDS = {
    "kaiming normal, scaled": {"init": "kaiming_normal", "scale": True},
    "signed constant, scaled": {"init": "signed_constant", "scale": True},
    "kaiming normal": {"init": "kaiming_normal", "scale": False},
}
_MISLED = {"gradient without sign(s)": "unsigned", "gradient without the weight": "weightless"}


@dataclass(frozen=True)
class Config:
    """Compare a hidden network with a trained one, and with what should fail."""

    k: float = 0.3
    """Fraction of the random weights that the hidden network uses."""
    hidden: tuple[int, ...] = (400, 400)
    """Widths of the hidden layers."""
    epochs: int = 30
    """Epochs of each training on digits, or on your pictures."""
    lr: float = 0.1
    """First learning rate, of scores and of trained weights alike."""
    batch_size: int = 128
    """Pictures in a step, of digits or of yours."""
    seeds: int = 1
    """Seeds of each arm."""
    fractions: tuple[float, ...] = ()
    """Values of k to sweep, for each kind of random weights; it adds the misled gradients."""
    widths: tuple[int, ...] = ()
    """Widths of two hidden layers to sweep, at k = 0.5 of signed constants."""
    width_seeds: int = 3
    """Seeds of each width."""
    conv_width: int = 0
    """Channels of the convolutional network on patches of photographs, or on your pictures; 0
    leaves it out."""
    conv_epochs: int = 40
    """Epochs of each training of the convolutional network."""
    conv_rates: tuple[float, ...] = (0.1, 0.03)
    """Learning rates of the trained convolutional network, whose best counts; the hidden one has
    the first."""
    per_class: tuple[int, int] = (200, 50)
    """Training and test patches of each of the 16 photographs."""
    data: Path | None = None
    """Pictures with labels: IDX, .npz, or a folder with a sub-folder for each class."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            parts = value if isinstance(value, tuple) else (value,)
            for part in parts:
                least = 0 if name == "conv_width" else 1e-12
                if type(part) in (int, float) and part < least:
                    raise ValueError(f"{name} must be above 0, got {value}")
        for k in (self.k, *self.fractions):
            if k > 1:
                raise ValueError(f"k and fractions must be in (0, 1], got {k}")
        for name in ("hidden", "conv_rates"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if len(self.widths) == 1 or list(self.widths) != sorted(set(self.widths)):
            raise ValueError(f"widths must be none, or two or more that rise, got {self.widths}")


TINY = Config(
    hidden=(8,), epochs=1, fractions=(0.5,), widths=(4, 8), width_seeds=1, conv_width=2,
    conv_epochs=1, per_class=(2, 2),
)  # fmt: skip
QUICK = Config(seeds=3)
FULL = Config(
    seeds=3, fractions=(0.1, 0.2, 0.3, 0.5, 0.7, 0.9), widths=(50, 100, 200, 400, 1000),
    width_seeds=10, conv_width=32,
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure on digits, or on the user's pictures; with convolutions on photographs."""
    from mmxx.data import digits, load

    if config.data is None:
        train, test = digits()
        run.source(train.source)
        pictures = _standardised(train.images, train.labels, test.images, test.labels)
    else:
        data: Any = load(config.data, kinds=("images",), size=32 if config.data.is_dir() else None)
        run.source(data.source)
        pictures = _split(run, data)
        if config.conv_width and min(pictures["train"][0].shape[2:]) < 4:
            raise ValueError("data: for convolutions pictures must have 4 pixels or more each way")
    common = pictures | {
        "hidden": config.hidden, "width": 0, "epochs": config.epochs, "lr": config.lr,
        "batch_size": config.batch_size, "k": config.k, "init": "kaiming_normal", "scale": True,
        "frozen": _FROZEN, "gradient": "", "show": False,
    }  # fmt: skip
    _compare(config, run, common)
    _sweep(config, run, common)
    _widen(config, run, common)
    if config.conv_width:
        _convolve(config, run, common)
    else:
        run.not_measured("conv-matches-trained", "convolutions were not asked for")


@contextmanager
def sham() -> Iterator[None]:
    """Scores that stay as they are drawn, in the place of edge-popup."""
    global _FROZEN
    _FROZEN = True
    try:
        yield
    finally:
        _FROZEN = False


# -- data --------------------------------------------------------------------------------------


def _standardised(*parts: Any) -> dict[str, Any]:
    """Training and test pictures with the mean and deviation of the training pixels."""
    pictures, labels, unseen, truth = parts
    mean, deviation = pictures.mean(), pictures.std() + 1e-6

    def ready(images: np.ndarray) -> np.ndarray:
        return ((images - mean) / deviation).transpose(0, 3, 1, 2).astype("float32", order="C")

    return {
        "train": (ready(pictures), labels),
        "test": (ready(unseen), truth),
        "classes": int(labels.max()) + 1,
    }


def _split(run: Run, data: Any) -> dict[str, Any]:
    """The user's pictures; every fifth, in random order, is for the test."""
    if data.labels is None or len(data.classes) < 2 or len(data) < 10:
        raise ValueError("data: 10 pictures or more with labels of 2 classes or more are needed")
    order = run.rng("split").permutation(len(data))
    test, train = order[: len(data) // 5], order[len(data) // 5 :]
    pixels = data.as_float()
    found = _standardised(pixels[train], data.labels[train], pixels[test], data.labels[test])
    return {**found, "classes": len(data.classes)}


def _seeded(run: Run, seeds: int, *arms: dict[str, Any]) -> list[dict[str, Any]]:
    first = run.seed
    return [{**arm, "seed": seed} for arm in arms for seed in range(first, first + seeds)]


def _train(run: Run, name: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from mmxx.sparsity.edge_popup import arms

    return run.once(name, run.map, arms.train, items)


def _mean(results: list[dict[str, Any]], key: str = "score") -> float:
    return sum(result[key] for result in results) / len(results)


def _rows(arms: dict[str, tuple[str, list[dict[str, Any]]]], run: Run) -> list[dict[str, Any]]:
    """Table lines: for each arm what is looked at, and its results."""
    return [
        {"network": arm, "mean": round(_mean(results, key), 2)}
        | {f"seed {run.seed + i}": round(result[key], 2) for i, result in enumerate(results)}
        for arm, (key, results) in arms.items()
    ]


# -- the claims --------------------------------------------------------------------------------


def _compare(config: Config, run: Run, common: dict[str, Any]) -> None:
    """The hidden network beside the trained one."""
    import numpy as np

    from mmxx.lab.report import figures

    items = _seeded(run, config.seeds, {**common, "arm": "dense"}, {**common, "arm": "hidden"})
    items[config.seeds]["show"] = True
    results = _train(run, "compare", items)
    dense, hidden = results[: config.seeds], results[config.seeds :]
    if not all("shuffled" in result for result in hidden):
        for claim in ("matches-trained", "untrained-fails", "weights-untouched"):
            run.not_measured(claim, "a training diverged")
        return
    seeds = [item["seed"] for item in items[: config.seeds]]
    margin = _mean(hidden) - _mean(dense)
    blind = _mean(hidden, "shuffled")
    run.measure("matches-trained", margin, baseline=_mean(dense),
                control=blind - _mean(dense), seeds=seeds)  # fmt: skip
    run.measure("mnist-matches-trained", margin, baseline=_mean(dense),
                control=blind - _mean(dense), seeds=seeds)  # fmt: skip
    run.measure("untrained-fails", _mean(hidden, "untrained"),
                baseline=_mean(dense, "untrained"), control=blind, seeds=seeds)  # fmt: skip
    run.measure("weights-untouched", sum(r["changed"] for r in hidden), seeds=seeds)
    found = {
        "trained": ("score", dense),
        "trained, before training": ("untrained", dense),
        f"hidden, k = {config.k:g}": ("score", hidden),
        "hidden, before training": ("untrained", hidden),
        "hidden, as many edges at random": ("shuffled", hidden),
    }
    run.table("compare", _rows(found, run), "Per cent right on the test pictures.")
    epochs = np.arange(1, config.epochs + 1)
    curves = {
        name: (epochs, np.mean([result["curve"] for result in some], axis=0))
        for name, some in (("trained weights", dense), ("scores of random weights", hidden))
        if all(len(result["curve"]) == config.epochs for result in some)
    }
    drawing = figures.curves(curves, xlabel="epoch", ylabel="training loss", logy=True)
    run.figure("loss", drawing, "Training loss, mean over seeds.")
    ticket = hidden[0]["ticket"].tobytes()
    weights = int(hidden[0]["weights"])
    run.artifact("hidden.ticket", ticket, "The hidden network: a seed, and a bit for each weight.")
    run.note(
        f"The ticket of {weights:,} weights has {len(ticket):,} bytes; in full they take "
        f"{4 * weights:,}."
    )
    run.image(
        "first-layer", _mosaic(hidden[0]["first"], items[0]["train"][0].shape[1:]),
        "What the first 32 units of the hidden network see: red adds, blue subtracts, white edges "
        "are not used. The weights are random; only their choice was learned.",
    )  # fmt: skip


def _mosaic(weights: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The weights [units, features] of a layer as pictures beside one another, [H, W, 3]."""
    import numpy as np

    channels, height, width = shape
    units = weights.reshape(len(weights), channels, height, width).mean(1)
    units = units / (np.abs(units).max() + 1e-12)
    red, blue = np.clip(1 + units, 0, 1), np.clip(1 - units, 0, 1)
    tiles = np.stack([red, np.minimum(red, blue), blue], -1)
    columns = min(8, len(tiles))
    rows = -(-len(tiles) // columns)
    zoom = max(1, 80 // max(height, width))
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 0.6)
    for index, tile in enumerate(tiles):
        top, left = divmod(index, columns)
        top, left = top * (height + 1) + 1, left * (width + 1) + 1
        canvas[top : top + height, left : left + width] = tile
    return canvas.repeat(zoom, 0).repeat(zoom, 1)


def _sweep(config: Config, run: Run, common: dict[str, Any]) -> None:
    """Accuracy over k for each kind of random weights, and the misled gradients."""
    from mmxx.lab.report import figures

    if not config.fractions:
        return
    arms = [
        {**common, "arm": "hidden", **kind, "k": k}
        for kind in _KINDS.values()
        for k in config.fractions
    ]
    arms += [{**common, "arm": "hidden", "gradient": gradient} for gradient in _MISLED.values()]
    results = _train(run, "fractions", _seeded(run, config.seeds, *arms))
    groups = [results[i : i + config.seeds] for i in range(0, len(results), config.seeds)]
    means = [_mean(group) for group in groups]
    count = len(config.fractions)
    series = {
        kind: (config.fractions, means[i * count : (i + 1) * count])
        for i, kind in enumerate(_KINDS)
    }
    drawing = figures.curves(series, xlabel="k, the fraction in use", ylabel="per cent right")
    run.figure("fractions", drawing, "Test accuracy over k, mean over seeds.")
    rows = [
        {"random weights": kind} | {f"k = {k:g}": round(y, 2) for k, y in zip(*found, strict=True)}
        for kind, found in series.items()
    ]
    run.table("fractions", rows, "Per cent right on the test pictures, mean over seeds.")
    misled = {
        name: ("score", group) for name, group in zip(_MISLED, groups[-len(_MISLED) :], strict=True)
    }
    caption = f"What should fail, at k = {config.k:g}: scores that follow another gradient."
    run.table("misled", _rows(misled, run), caption)


def _widen(config: Config, run: Run, common: dict[str, Any]) -> None:
    """Accuracy over width."""
    from mmxx.lab.report import figures

    if not config.widths:
        run.not_measured("width", "no widths were asked for")
        return
    kind = {"arm": "hidden", "k": 0.5, "init": "signed_constant", "scale": False}
    arms = [{**common, **kind, "hidden": (width, width)} for width in config.widths]
    count = config.width_seeds
    results = _train(run, "widths", _seeded(run, count, *arms))
    means = [_mean(results[i : i + count]) for i in range(0, len(results), count)]
    rises = [after - before for before, after in pairwise(means)]
    seeds = range(run.seed, run.seed + count)
    run.measure("width", min(rises), baseline=means[0], seeds=list(seeds),
                note=f"{means[0]:.2f} at {config.widths[0]}, {means[-1]:.2f} at "
                f"{config.widths[-1]}.")  # fmt: skip
    series = {"hidden, k = 0.5, signed constants": (config.widths, means)}
    drawing = figures.curves(series, xlabel="width", ylabel="per cent right", logx=True)
    run.figure("widths", drawing, "Test accuracy over the width of the random network.")
    rows = [
        {"width": w, "mean": round(mean, 2)} for w, mean in zip(config.widths, means, strict=True)
    ]
    run.table("widths", rows, f"Per cent right on the test pictures, mean over {count} seeds.")


def _convolve(config: Config, run: Run, common: dict[str, Any]) -> None:
    """The convolutional network on patches of photographs, or on the user's pictures.

    The trained one counts at its best learning rate.
    """
    from mmxx.data import photo_patches

    where = "your pictures"
    if config.data is None:
        where = "patches of photographs"
        train, test = photo_patches(config.per_class, random_state=run.seed)
        run.source(train.source)
        common = common | _standardised(train.images, train.labels, test.images, test.labels)
    common = common | {
        "width": config.conv_width, "epochs": config.conv_epochs, "batch_size": 64,
        "init": "signed_constant", "lr": config.conv_rates[0],
    }  # fmt: skip
    arms = [{**common, "arm": "dense", "lr": lr} for lr in config.conv_rates]
    items = _seeded(run, config.seeds, {**common, "arm": "hidden"}, *arms)
    results = _train(run, "convolutions", items)
    groups = [results[i : i + config.seeds] for i in range(0, len(results), config.seeds)]
    hidden, dense = groups[0], dict(zip(config.conv_rates, groups[1:], strict=True))
    best = max(_mean(group) for group in dense.values())
    run.measure(
        "conv-matches-trained", _mean(hidden) - best, baseline=best,
        control=_mean(hidden, "untrained") - best,
        seeds=[item["seed"] for item in items[: config.seeds]],
    )  # fmt: skip
    found = {
        f"hidden, k = {config.k:g}": ("score", hidden),
        "hidden, before training": ("untrained", hidden),
        **{f"trained, learning rate {lr:g}": ("score", group) for lr, group in dense.items()},
    }
    run.table("convolutions", _rows(found, run), f"Per cent right on {where}.")
