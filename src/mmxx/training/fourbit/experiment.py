"""Does training survive four-bit operands, and which of the paper's ideas does it need?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmxx.lab.run import Run

Arm = Literal[
    "one phase", "one loss scale", "INT4 gradients", "INT4 forward only", "radix 2",
    "radix 2, one loss scale", "LUQ",
]  # fmt: skip
_RIVALS = {
    "two-phases": "one phase", "grad-scale": "one loss scale", "int4-gradients": "INT4 gradients"
}  # fmt: skip
_PROBED = ("one phase", "one loss scale", "INT4 gradients", "radix 2")
_METHOD = ""  # an arm's name: what the sham puts in the method's place


@dataclass(frozen=True)
class Config:
    """Train a character transformer in FP32, with four-bit operands, and with parts left out."""

    recipe: Literal["ibm4", "luq4"] = "ibm4"
    """What the arm "4-bit" trains with: the paper's recipe, or stochastic powers of two (LUQ)."""
    arms: tuple[Arm, ...] = ("one phase", "one loss scale", "INT4 gradients")
    """What is trained beside FP32 and "4-bit"."""
    seeds: int = 1
    """Seeds of each arm."""
    steps: int = 150
    """Steps of each training."""
    batch: int = 16
    """Pieces of text, or pictures, in a batch."""
    lr: float = 3e-3
    """Learning rate of Adam at the start; it falls to 0 along a cosine."""
    length: int = 64
    """Characters that the transformer sees."""
    width: int = 64
    """Width of the transformer."""
    blocks: int = 3
    """Blocks of the transformer."""
    heads: int = 4
    """Attention heads of each block."""
    position_std: float = 1.0
    """Standard deviation of the embedding of places at the start; 1 is torch's own."""
    tests: int = 512
    """Pieces of the text's last tenth that are the test."""
    channels: int = 16
    """Channels of the first convolution, for pictures of one's own."""
    data: Path | None = None
    """A text (.txt), or pictures with labels: a folder of a sub-folder a class, IDX, or .npz."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) in (int, float) and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width={self.width}, got {self.heads}")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms must name each arm once, got {self.arms}")


_ALL = (
    "one phase", "one loss scale", "INT4 gradients", "INT4 forward only", "radix 2",
    "radix 2, one loss scale", "LUQ",
)  # fmt: skip
TINY = Config(arms=_ALL, steps=2, batch=2, length=8, width=8, blocks=1, heads=2, tests=2)
QUICK = Config()
FULL = Config(arms=_ALL, seeds=2, steps=500)


def run(config: Config, run: Run) -> None:
    """Train every arm, and set their losses and their gradients side by side."""
    from mmxx.data import doc_text, load
    from mmxx.training.fourbit import arms

    data: Any = doc_text()
    if config.data is not None:
        data = load(config.data, kinds=("text", "images"), size=32)
    run.source(data.source)
    if data.kind == "text":
        train, task, what = arms.train_text, _text(config, data.text), "character"
    else:
        train, task, what = arms.train_pictures, _pictures(config, run, data), "picture"
    names = ("FP32", "4-bit", *config.arms)
    seeds = list(range(run.seed, run.seed + config.seeds))
    common = {"steps": config.steps, "batch": config.batch, "lr": config.lr, **task}
    items: list[dict[str, Any]] = [
        {**common, "arm": name, "seed": seed, "recipe": _recipe(config, name)}
        | {"probe": {other: _recipe(config, other) for other in ("4-bit", *_PROBED)}
           if name == "4-bit" and seed == run.seed else {}}
        for seed in seeds
        for name in names
    ]  # fmt: skip
    results = run.once("arms", run.map, train, items)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for item, result in zip(items, results, strict=True):
        found[item["arm"]].append(result)
    means = {name: sum(r["score"] for r in rs) / len(rs) for name, rs in found.items()}
    _judge(run, means, seeds)
    _show(run, found, means, what)


@contextmanager
def sham() -> Iterator[None]:
    """One loss scale in GradScale's place."""
    global _METHOD
    before, _METHOD = _METHOD, "one loss scale"
    try:
        yield
    finally:
        _METHOD = before


def _recipe(config: Config, name: str) -> Any:
    from mmxx.training.fourbit.arms import ARMS
    from mmxx.training.fourbit.recipes import RECIPES

    if name != "4-bit":
        return ARMS[name]
    return ARMS[_METHOD] if _METHOD else RECIPES[config.recipe]


def _text(config: Config, text: str) -> dict[str, Any]:
    from mmxx.training.fourbit.arms import encode_text

    least = 20 * (config.length + 1)
    if len(text) < least:
        raise ValueError(
            f"data: the text has {len(text)} characters; {least} or more are needed for "
            f"length={config.length}"
        )
    shape = ("length", "width", "blocks", "heads", "position_std", "tests")
    return {"text": encode_text(text), **{name: getattr(config, name) for name in shape}}


def _pictures(config: Config, run: Run, data: Any) -> dict[str, Any]:
    """The user's pictures, standardised; every fifth, in random order, is for the test."""
    if data.labels is None or len(set(data.labels.tolist())) < 2 or len(data) < 10:
        raise ValueError("data: 10 pictures or more with labels of 2 classes or more are needed")
    order = run.rng("split").permutation(len(data))
    test, train = order[: len(data) // 5], order[len(data) // 5 :]
    pictures = data.as_float()
    pictures = (pictures - pictures[train].mean()) / (pictures[train].std() + 1e-6)
    parts = {name: (pictures[p], data.labels[p]) for name, p in (("train", train), ("test", test))}
    return {**parts, "classes": int(data.labels.max()) + 1, "channels": config.channels}


def _judge(run: Run, means: dict[str, float], seeds: list[int]) -> None:
    ours, exact = means["4-bit"], means["FP32"]
    lost = [name for name, bits in means.items() if not math.isfinite(bits)]
    if lost:
        run.note(f"Training diverged in the arms {', '.join(lost)}.")
    if not (math.isfinite(ours) and math.isfinite(exact)):
        for claim in ("near-fp32", *_RIVALS):
            run.not_measured(claim, "training diverged")
        return
    control = means.get("one loss scale", math.nan)
    run.measure(
        "near-fp32", 100 * (ours / exact - 1), baseline=exact,
        control=100 * (control / exact - 1), seeds=seeds, note=f"{ours:.4f} bits",
    )  # fmt: skip
    for claim, rival in _RIVALS.items():
        if not math.isfinite(means.get(rival, math.nan)):
            reason = "diverged" if rival in means else "was not asked for"
            run.not_measured(claim, f"the arm {rival!r} {reason}")
            continue
        run.measure(claim, means[rival] - ours, baseline=exact, control=means[rival], seeds=seeds)
    if "radix 2" in means:
        side = "below" if means["radix 2"] < ours else "above"
        run.note(
            "With GradScale, powers of 2 instead of 4, in one phase, end "
            f"{abs(ours - means['radix 2']):.3f} bits {side} the paper's format."
        )


def _show(
    run: Run, found: dict[str, list[dict[str, Any]]], means: dict[str, float], what: str
) -> None:
    import numpy as np

    from mmxx.lab.report import figures

    rows = []
    for name, results in found.items():
        first = results[0]
        rows.append(
            {"arm": name, "bits": round(means[name], 4),
             "% over FP32": round(100 * (means[name] / means["FP32"] - 1), 2),
             "% became 0": round(100 * np.mean(first["underflow"]), 1) if first["layers"] else ""}
            | {f"seed {run.seed + k}": round(r["score"], 4) for k, r in enumerate(results)}
        )  # fmt: skip
    run.table(
        "arms", rows,
        f"Bits per {what} of the test, and the part of the gradients' numbers that became 0.",
    )  # fmt: skip
    curves = {}
    for name, results in found.items():
        length = min(len(r["curve"]) for r in results)
        curve = np.mean([r["curve"][:length] for r in results], axis=0)
        window = max(1, length // 15)
        smooth = np.convolve(curve, np.full(window, 1 / window), "valid")
        curves[name] = (np.arange(len(smooth)) + window, smooth)
    figure = figures.curves(curves, xlabel="step", ylabel=f"training loss, bits per {what}")
    run.figure("loss", figure, "The loss of every arm, smoothed, mean over seeds.")
    ours = found["4-bit"][0]
    if ours["scales"] and ours["layers"]:
        scales = np.array(ours["scales"], float).T
        figure = figures.heatmap(
            scales, xlabel="step", ylabel="layer", title="exponent of a layer's scale"
        )
        every = max(1, len(ours["curve"]) // scales.shape[1])
        places = range(0, scales.shape[1], max(1, scales.shape[1] // 6))
        _label(figure, places, [str(every * place) for place in places], ours["layers"])
        run.figure("scales", figure, "GradScale: two to this power multiplies a layer's gradient.")
    if ours["quality"]:
        _show_quality(run, ours["quality"])


def _show_quality(run: Run, quality: dict[str, list[dict[str, Any]]]) -> None:
    """One batch at the end of the first seed's training, under each recipe."""
    import numpy as np

    from mmxx.lab.report import figures
    from mmxx.training.fourbit.tracing import LOWEST

    ours, single = quality["4-bit"], quality["one phase"]
    for name, caption, of in (
        ("gradients", "Cosine of each weight's gradient with that of FP32, on one batch after "
         "training.", lambda row: round(row["cosine"], 4)),
        ("underflow", "How many per cent of each layer's gradient became 0, on the same batch.",
         lambda row: round(100 * row["underflow"], 1)),
    ):  # fmt: skip
        rows = [
            {"layer": row["layer"]} | {arm: of(rows[i]) for arm, rows in quality.items()}
            for i, row in enumerate(ours)
        ]
        run.table(name, rows, caption)
    run.table(
        "bias",
        [
            {"layer": row["layer"], "one phase": round(100 * one["bias"], 2),
             "two phases, input": round(100 * row["input_bias"], 2),
             "two phases, weight": round(100 * row["bias"], 2),
             "two phases, mean": round(50 * (row["bias"] + row["input_bias"]), 2)}
            for row, one in zip(ours, single, strict=True)
        ],
        "By how many per cent a layer's gradient is longer, along itself, once it is rounded.",
    )  # fmt: skip
    counts = np.array([row["histogram"] for row in ours], float)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    seen = np.flatnonzero(shares.max(0) >= 0.1)
    first, last = (seen[0], seen[-1] + 1) if len(seen) else (0, 1)
    figure = figures.heatmap(
        shares[:, first:last], xlabel="exponent of 2 of the gradient's numbers", ylabel="layer",
        title="per cent of a layer's numbers",
    )  # fmt: skip
    places = range(0, last - first, max(1, (last - first) // 8))
    labels = [str(place + first + LOWEST) for place in places]
    _label(figure, places, labels, [row["layer"] for row in ours])
    run.figure(
        "exponents", figure, "Each layer's gradient spans many powers of two, and lies elsewhere."
    )


def _label(figure: Figure, places: range, labels: list[str], layers: list[str]) -> None:
    """Name columns and rows of a heatmap; its cells are told by colour alone."""
    axes = figure.axes[0]
    axes.set_xticks(places, labels)
    axes.set_yticks(range(len(layers)), layers)
    for text in list(axes.texts):
        text.remove()
