"""Is AdaBelief faster than Adam on six functions, a text and small pictures?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from mmxx.lab.run import Run

_METHOD = "AdaBelief"  # what the sham replaces
_CONTROL = "Adam, eps tuned"
_CLAIMS = {
    "toy": ("toy-steps", "closed-form"),
    "text": ("text-every-rate", "text-mean-gain"),
    "patches": ("cnn-gain",),
}
_EVERY = 20  # steps between two points of a drawn walk


@dataclass(frozen=True)
class Config:
    """Compare AdaBelief with Adam, Adam with a tuned eps, and SGD with momentum."""

    task: Literal["toy", "text", "patches", "all"] = "toy"
    """Six 2-D functions, a character LSTM, a small convolutional network, or all of them."""
    toy_steps: int = 12_000
    """Steps at most on the 2-D functions; they end when Adam has arrived everywhere."""
    constant_steps: int = 3000
    """Steps with a gradient that does not change, against the closed form."""
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    """Learning rates of the adaptive optimizers on text and pictures."""
    sgd_text_rates: tuple[float, ...] = (1.0, 5.0)
    """Learning rates of SGD on text."""
    sgd_patches_rates: tuple[float, ...] = (0.1,)
    """Learning rates of SGD on pictures."""
    eps: tuple[float, ...] = ()
    """Values of AdaBelief's eps to show beside the paper's."""
    seeds: int = 2
    """Seeds of each arm on text and pictures."""
    text_steps: int = 300
    """Steps of each training on text."""
    text_batch: int = 32
    """Pieces of text in a batch."""
    text_length: int = 48
    """Characters that each piece predicts."""
    text_embedding: int = 32
    """Width of a character in the LSTM."""
    text_hidden: int = 96
    """Width of each of the two layers of the LSTM."""
    text_decay: bool = False
    """Let the learning rate fall to a tenth at 50 % and at 75 % of the steps on text."""
    epochs: int = 8
    """Epochs of each training on pictures; the learning rate falls to a tenth at 75 %."""
    width: int = 32
    """Channels of the first two of the four convolutions."""
    per_class: tuple[int, int] = (200, 50)
    """Training and test patches of each of the 16 photographs."""
    data: Path | None = None
    """A text (.txt), or a folder with one sub-folder of pictures for each class."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            parts = value if isinstance(value, tuple) else (value,)
            for part in parts:
                if type(part) in (int, float) and part <= 0:
                    raise ValueError(f"{name} must be above 0, got {value}")
        for name in ("rates", "sgd_text_rates", "sgd_patches_rates"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name one learning rate or more")


TINY = Config(
    task="all", toy_steps=60, constant_steps=20, rates=(1e-3,), sgd_text_rates=(1.0,), seeds=1,
    text_steps=2, text_batch=4, text_length=8, text_embedding=4, text_hidden=8, epochs=1, width=2,
    per_class=(2, 2),
)  # fmt: skip
QUICK = Config()
FULL = Config(task="all", eps=(1e-16,))


def run(config: Config, run: Run) -> None:
    """Measure each task, or the one that the user's data are for."""
    from mmxx.data import doc_text, load

    data: Any = None
    if config.data is None:
        tasks = ("toy", "text", "patches") if config.task == "all" else (config.task,)
    else:
        data = load(config.data, kinds=("text", "images"), size=32)
        run.source(data.source)
        tasks = ("text",) if data.kind == "text" else ("patches",)
    for task in tasks:
        if task == "toy":
            _toy(config, run)
        elif task == "text":
            _text(config, run, data or doc_text())
        else:
            _patches(config, run, _split(run, data) if data else _photos(config, run))
    for task, claims in _CLAIMS.items():
        for claim in claims if task not in tasks else ():
            run.not_measured(claim, f"the task {task} was not asked for")


@contextmanager
def sham() -> Iterator[None]:
    """Adam in AdaBelief's place."""
    global _METHOD
    real, _METHOD = _METHOD, "Adam"
    try:
        yield
    finally:
        _METHOD = real


# -- six functions -----------------------------------------------------------------------------


def _toy(config: Config, run: Run) -> None:
    """Walk on all six functions at once: the rules are element-wise, none sees another."""
    import numpy as np
    import torch

    from mmxx.lab.report.figures import COLOURS
    from mmxx.training.adabelief import arms, toy

    names = {"AdaBelief": _METHOD, "Adam": "Adam", "SGD": "SGD", _CONTROL: _CONTROL}
    where = np.repeat(toy.STARTS[None], len(names), axis=0)
    slopes = np.zeros_like(where)
    optimizers = []
    for number, (label, name) in enumerate(names.items()):
        params = [torch.nn.Parameter(p) for p in _halves(where[number], toy.STEEP)]
        for param, slope in zip(params, _halves(slopes[number], toy.STEEP), strict=True):
            param.grad = slope  # parameters and gradients are views of the two arrays
        groups: Any = params
        if label == "SGD":  # on the steep functions a rate of 1e-3 is too much for it
            groups = [{"params": params[0]}, {"params": params[1], "lr": 1e-4}]
        optimizers.append(arms.optimizer(name, groups, 1e-3, eps=1e-8))
    arrived = np.full((len(names), len(toy.FUNCTIONS)), -1)
    walks = np.full((config.toy_steps // _EVERY + 1, *where.shape), np.nan)
    state = {"where": where, "optimizers": optimizers, "arrived": arrived, "walks": walks}
    loop = run.loop("toy", config.toy_steps + 1, state=state, claims=("toy-steps",))
    for step in loop:
        arrived[(toy.distances(where) < toy.NEAR) & (arrived < 0)] = step  # after so many steps
        if step % _EVERY == 0:
            walks[step // _EVERY] = where
        if step % 500 == 0:
            loss = toy.values(where).sum()
            run.log(step, loss=loss)
            run.check_finite(step, loss=loss)
        if (arrived[1] >= 0).all():
            loop.finish()
        slopes[:] = toy.gradients(where)
        for optimizer in optimizers:
            optimizer.step()
    if not loop.diverged:
        _show_toy(run, list(names), arrived, walks, toy, COLOURS)
    _closed_form(config.constant_steps, run)


def _halves(array: np.ndarray, border: int) -> list[Any]:
    import torch

    return [torch.from_numpy(part) for part in (array[:border], array[border:])]


def _show_toy(
    run: Run, labels: list[str], arrived: np.ndarray, walks: np.ndarray, toy: Any, colours: Any
) -> None:
    import numpy as np

    done = ~np.isnan(walks[:, 0, 0, 0])
    last = (int(done.sum()) - 1) * _EVERY
    steps = np.where(arrived < 0, max(last, int(arrived.max())), arrived)
    ratios = steps / np.maximum(steps[1], 1)
    worst = ratios.max(axis=1)
    run.measure(
        "toy-steps", worst[0], baseline=1.0, control=worst[3],
        note="" if (arrived[0] >= 0).all() else "It had not arrived everywhere when Adam had.",
    )  # fmt: skip
    rows = []
    for index, name in enumerate(toy.FUNCTIONS):
        counts = {
            label: int(arrived[arm, index]) if arrived[arm, index] >= 0 else "not yet"
            for arm, label in enumerate(labels)
        }
        rows.append({"function": name, **counts, "× Adam's": round(float(ratios[0, index]), 3)})
    run.table("steps", rows, f"Steps to come within {toy.NEAR} of the optimum.")
    moments = np.minimum(-(-steps[0] // _EVERY), int(done.sum()) - 1).tolist()
    drawn = {label: walks[done][:, labels.index(label)] for label in ("SGD", "Adam", "AdaBelief")}
    run.figure(
        "walks",
        _draw_walks(drawn, dict(zip(drawn, colours, strict=False)), moments),
        "Walks to the optimum (cross). The dots are where each stands when AdaBelief arrives.",
    )
    beaten = sum(steps[2] < steps[0])
    run.note(f"SGD with momentum arrives before AdaBelief on {beaten} of the 6 functions.")


def _draw_walks(
    walks: Mapping[str, np.ndarray], colours: Mapping[str, str], moments: Sequence[int]
) -> Figure:
    """The walks, each [points, 6, 2], over contour lines of the six functions.

    A dot marks where each one stands at the point whose number ``moments`` gives for the
    function. Walks that share a way are told apart by their width.
    """
    import numpy as np
    from matplotlib.figure import Figure

    from mmxx.training.adabelief.toy import FUNCTIONS, OPTIMA

    figure = Figure(figsize=(8.4, 5.6))
    figure.subplots_adjust(0.04, 0.1, 0.99, 0.95, wspace=0.15, hspace=0.25)
    for index, axes in enumerate(figure.subplots(2, 3).flat):
        name, function = list(FUNCTIONS.items())[index]
        seen = np.concatenate([walk[:, index] for walk in walks.values()] + [OPTIMA[index][None]])
        low, high = seen.min(0), seen.max(0)
        low, high = low - 0.15 * (high - low) - 0.1, high + 0.15 * (high - low) + 0.1
        x, y = np.meshgrid(*(np.linspace(a, b, 60) for a, b in zip(low, high, strict=True)))
        height = np.log10(function(x, y) + 1e-2)
        axes.contour(x, y, height, levels=12, cmap="Greys", linewidths=0.6, alpha=0.6)
        for label, width in zip(walks, (5.5, 3.0, 1.2), strict=False):
            way, colour = walks[label][:, index], colours[label]
            axes.plot(*way.T, color=colour, label=label, linewidth=width, zorder=2)
            axes.plot(*way[moments[index]], "o", color=colour, mec="white", ms=8, zorder=3)
        axes.plot(*OPTIMA[index], "+", color="#c0392f", markersize=11, zorder=4)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=4)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=len(walks), frameon=False, fontsize=9)
    return figure


def _closed_form(steps: int, run: Run) -> None:
    import numpy as np

    from mmxx.training.adabelief import arms, toy

    places = toy.pushed(lambda params: arms.optimizer(_METHOD, params, 1e-3, eps=1e-16), steps)
    expected = toy.closed_form(steps, lr=1e-3, betas=(0.9, 0.999), eps=1e-16)
    run.measure("closed-form", float(np.abs(places / expected - 1).max()))
    lengths = np.round(-np.diff(expected, prepend=0) / 1e-3, 4)
    shown = [step for step in (1, 2, 10, 40, steps) if step <= steps]
    run.table(
        "constant-gradient",
        [{"step": step, "length, × lr": float(lengths[step - 1])} for step in shown],
        "How long AdaBelief's step is while the gradient does not change; Adam's stays 1 × lr.",
    )


# -- text and pictures -------------------------------------------------------------------------


def _text(config: Config, run: Run, data: Any) -> None:
    from mmxx.training.adabelief import arms

    run.source(data.source)
    text = arms.encode(data.text)
    if len(text) < 40 * (config.text_length + 1):
        raise ValueError(
            f"data: the text has {len(text)} characters; {40 * (config.text_length + 1)} or more "
            f"are needed for text_length={config.text_length}"
        )
    common = {"text": text, "decay": config.text_decay} | {
        name: getattr(config, f"text_{name}")
        for name in ("steps", "batch", "length", "embedding", "hidden")
    }
    items = arms.grid(
        _METHOD, config.rates, config.sgd_text_rates, arms.TEXT["eps"], config.eps, common,
        range(run.seed, run.seed + config.seeds),
    )  # fmt: skip
    results = run.once("text", run.map, arms.train_text, items)
    means = _compare(run, "text", items, results, "Bits per character of the last tenth.", min)
    if not all(map(math.isfinite, means.values())):
        for claim in _CLAIMS["text"]:
            run.not_measured(claim, "a training diverged")
        return
    adam = [means["Adam", lr] for lr in config.rates]
    gains, controls = (
        [rival - means[arm, lr] for rival, lr in zip(adam, config.rates, strict=True)]
        for arm in ("AdaBelief", _CONTROL)
    )
    seeds, count = [item["seed"] for item in items[: config.seeds]], len(adam)
    worst = gains.index(min(gains))
    run.measure(
        "text-every-rate", gains[worst], baseline=adam[worst], control=min(controls), seeds=seeds
    )
    run.measure(
        "text-mean-gain", sum(gains) / count, baseline=sum(adam) / count,
        control=sum(controls) / count, seeds=seeds,
    )  # fmt: skip


def _photos(config: Config, run: Run) -> dict[str, Any]:
    from mmxx.data import photo_patches

    train, test = photo_patches(config.per_class, random_state=run.seed)
    run.source(train.source)
    pairs = {"train": (train.images, train.labels), "test": (test.images, test.labels)}
    return {**pairs, "classes": len(train.classes or ())}


def _split(run: Run, data: Any) -> dict[str, Any]:
    """The user's pictures, standardised; every fifth, in random order, is for the test."""
    if data.labels is None or len(data.classes) < 2 or len(data) < 10:
        raise ValueError("data: a folder needs 10 pictures or more in 2 sub-folders or more")
    order = run.rng("split").permutation(len(data))
    test, train = order[: len(data) // 5], order[len(data) // 5 :]
    pictures = data.as_float()
    pictures = (pictures - pictures[train].mean()) / (pictures[train].std() + 1e-6)
    parts = {"train": train, "test": test}
    pairs = {name: (pictures[part], data.labels[part]) for name, part in parts.items()}
    return {**pairs, "classes": len(data.classes)}


def _patches(config: Config, run: Run, pictures: dict[str, Any]) -> None:
    from mmxx.training.adabelief import arms

    common = {**pictures, "epochs": config.epochs, "width": config.width}
    items = arms.grid(
        _METHOD, config.rates, config.sgd_patches_rates, arms.PATCHES["eps"], config.eps, common,
        range(run.seed, run.seed + config.seeds),
    )  # fmt: skip
    results = run.once("patches", run.map, arms.train_patches, items)
    means = _compare(run, "patches", items, results, "Per cent right on the test pictures.", max)
    ours, adam, control = (
        max(means[arm, lr] for lr in config.rates) for arm in ("AdaBelief", "Adam", _CONTROL)
    )
    seeds = [item["seed"] for item in items[: config.seeds]]
    run.measure("cnn-gain", ours - adam, baseline=adam, control=control - adam, seeds=seeds)
    if ours - adam < 1:
        run.note(
            "The gain over Adam that the authors report on CIFAR-10 does not show on pictures this "
            f"small, once each has its best learning rate: {ours:.2f} against {adam:.2f} per cent."
        )


def _compare(
    run: Run, task: str, items: list[Any], results: list[Any], caption: str, better: Any
) -> dict[tuple[str, float], float]:
    """Table and curves; returns the mean over seeds for each optimizer and learning rate."""
    import numpy as np

    from mmxx.lab.report import figures

    scores: dict[tuple[str, float], list[float]] = {}
    curves: dict[tuple[str, float], list[Any]] = {}
    for item, result in zip(items, results, strict=True):
        scores.setdefault((item["arm"], item["lr"]), []).append(result["score"])
        curves.setdefault((item["arm"], item["lr"]), []).append(result["curve"])
    means = {key: float(np.mean(found)) for key, found in scores.items()}
    rows = [
        {"optimizer": arm, "learning rate": lr, "mean": round(means[arm, lr], 4)}
        | {f"seed {run.seed + k}": round(score, 4) for k, score in enumerate(found)}
        for (arm, lr), found in scores.items()
    ]
    run.table(task, rows, caption)
    shown, best = {}, {}
    for arm in dict.fromkeys(item["arm"] for item in items):
        best[arm], lr = better((means[key], key[1]) for key in means if key[0] == arm)
        length = min(map(len, curves[arm, lr]))
        curve = np.mean([losses[:length] for losses in curves[arm, lr]], axis=0)
        window = max(1, length // 30)
        smooth = np.convolve(curve, np.full(window, 1 / window), "valid")
        shown[f"{arm}, {lr:g}"] = (np.arange(len(smooth)) + window, smooth)
    xlabel = "step" if task == "text" else "epoch"
    figure = figures.curves(shown, xlabel=xlabel, ylabel="training loss")
    run.figure(f"{task}-loss", figure, "Training loss at each optimizer's best learning rate.")
    first = better(best, key=lambda arm: best[arm])
    run.note(f"On {task} the best of all is {first} ({best[first]:.4g}); {caption.lower()}")
    return means
