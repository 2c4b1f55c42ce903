"""Does a model learn tasks from its context, and does the gain grow with its size?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mmxx.lab.run import Run

_CONTEXT = True  # whether the examples in a context are of one task: the sham takes that away
_ASKED = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Config:
    """Train models of several sizes, and ask them after 0 to 16 examples."""

    widths: tuple[int, ...] = (16, 64)
    """Widths of the models; the last one is the one that a text of one's own is learnt with."""
    layers: int = 2
    """Layers of each."""
    heads: int = 4
    """Attention heads of each layer."""
    steps: int = 400
    """Steps of each training."""
    batch: int = 64
    """Documents, or rows of text, in a batch."""
    lr: float = 3e-3
    """The highest learning rate; it falls to a tenth along a cosine."""
    seeds: int = 1
    """Seeds of each model."""
    pairs: int = 16
    """Pairs before the last one in a document."""
    novel_words: bool = False
    """Let a quarter of the documents map novel words."""
    incoherent: bool = False
    """Train the widest model on documents in random languages as well."""
    tests: int = 500
    """Documents that each model is asked about."""
    text_widths: tuple[int, ...] = ()
    """Widths of the models that read real text, for the power law."""
    text_documents: int | None = None
    """Documents of Python's own documentation that are that text; all by default."""
    data: Path | None = None
    """A text of one's own to learn, or to look for tasks in: .txt, .jsonl, or a folder of them."""
    weights: Path | None = None
    """A folder of GPT-2 weights with its tokenizer, to ask instead of training."""
    tasks: tuple[Path, ...] = ()
    """Tasks as JSONL: context and completion, or context, choices and answer."""
    shots: tuple[int, ...] = (0, 1, 10)
    """Examples before each question of a task."""
    questions: int = 100
    """Questions of each task made by rule, where weights are asked and no tasks are given."""
    preset: str | None = None
    """Size of the model for a text of one's own, from small to 175b as in table 2.1."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of its training; fp16 on a GPU only."""
    micro_batch: int | None = None
    """Rows of a forward pass of its training; by default all of a device's part."""
    shard: bool = False
    """Divide its parameters and moments among several devices, by FSDP2."""
    checkpointing: bool = False
    """Keep less of its forward pass in memory, and compute that again in the backward pass."""
    n_ctx: int = 128
    """Tokens that a model of text sees."""
    vocabulary: int = 1024
    """Tokens of the vocabulary that is learnt from a text."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            for part in value if isinstance(value, tuple) else (value,):
                if type(part) in (int, float) and name != "shots" and not 0 < part < math.inf:
                    raise ValueError(f"{name} must be above 0, got {value}")
        if min(self.shots, default=0) < 0:
            raise ValueError(f"shots must be 0 or more, got {self.shots}")
        if not self.widths or not self.shots:
            raise ValueError("widths and shots must hold one number or more")
        for width in (*self.widths, *self.text_widths):
            if width % self.heads or width % 2:
                raise ValueError(
                    f"widths must be even and multiples of heads={self.heads}, got {width}"
                )
        if 0 < len(self.text_widths) < 4:
            raise ValueError(f"text_widths must be four or more for a fit, got {self.text_widths}")
        if self.pairs < 4:
            raise ValueError(f"pairs must be 4 or more, got {self.pairs}")
        if self.vocabulary < 257:
            raise ValueError(f"vocabulary must be 257 or more, got {self.vocabulary}")
        if self.tasks and self.data is None and self.weights is None:
            raise ValueError("tasks need a model: give --weights, or --data to train one")
        if self.shard and (self.data is None or self.weights is not None):
            raise ValueError("shard is for a text that is learnt: give --data, and no --weights")
        if self.shard and self.precision == "fp16":
            raise ValueError("shard takes precision fp32 or bf16, got fp16")


TINY = Config(
    widths=(4, 8), steps=2, batch=4, heads=2, pairs=4, novel_words=True, incoherent=True, tests=4,
    text_widths=(2, 4, 6, 8), text_documents=6, n_ctx=32, vocabulary=264,
)  # fmt: skip
QUICK = Config()
FULL = Config(
    widths=(8, 16, 32, 48, 64), steps=1000, seeds=2, novel_words=True, incoherent=True,
    text_widths=(12, 16, 24, 32, 48, 64),
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure the claims, or use a text or weights of the user's."""
    if config.data is not None or config.weights is not None:
        _own(config, run)
        return
    _documents(config, run)
    if config.text_widths:
        _text(config, run)


def _own(config: Config, run: Run) -> None:
    from mmxx.lab.errors import BadInputError
    from mmxx.language.gpt3 import own

    for claim in run.card.claims:
        run.not_measured(claim.id, "measured on documents whose best reader is known")
    try:
        given = own.Inputs.read(config, run.rng("tasks"))
    except (ValueError, OSError) as error:
        raise BadInputError(str(error)) from error
    own.measure(config, run, given)


@contextmanager
def sham() -> Iterator[None]:
    """Examples of random tasks in place of one task's."""
    global _CONTEXT
    _CONTEXT = False
    try:
        yield
    finally:
        _CONTEXT = True


# -- documents whose best reader is known ------------------------------------------------------


def _documents(config: Config, run: Run) -> None:
    from mmxx.language.gpt3 import arms

    mixture = {"T": 2.0, "N": 1.0, "S": 1.0} if config.novel_words else {"T": 2.0, "S": 1.0}
    common = {
        "layers": config.layers, "heads": config.heads, "steps": config.steps,
        "batch": config.batch, "lr": config.lr, "shots": config.pairs, "mixture": mixture,
        "tests": config.tests, "context": _CONTEXT,
    }  # fmt: skip
    seeds = list(range(run.seed, run.seed + config.seeds))
    items: list[dict[str, Any]] = [
        {**common, "width": width, "seed": seed, "coherent": True}
        for width in sorted(config.widths, reverse=True)  # the longest first
        for seed in seeds
    ]
    if config.incoherent:
        items.append({**common, "width": max(config.widths), "seed": run.seed, "coherent": False})
    results = run.once("arms", run.map, arms.train_documents, items)
    for result in results:
        lost = [loss for loss in result["curve"] if not math.isfinite(loss)]
        if lost:
            for claim in run.card.claims:
                run.not_measured(claim.id, "a training diverged")
            return
    found: dict[int, list[dict[str, Any]]] = {width: [] for width in config.widths}
    control = None
    for item, result in zip(items, results, strict=True):
        if item["coherent"]:
            found[item["width"]].append(result)
        else:
            control = result
    _judge(config, run, found, control, seeds)
    _show(config, run, found, control)


def _judge(
    config: Config,
    run: Run,
    found: dict[int, list[dict[str, Any]]],
    control: dict[str, Any] | None,
    seeds: list[int],
) -> None:
    from mmxx.language.gpt3.arms import by_shots
    from mmxx.language.gpt3.documents import bayes_accuracy

    last, largest = config.pairs, found[max(config.widths)]
    ours, mixed = by_shots(largest, "translation"), by_shots(largest, "shuffled")
    zero, pairs = float(ours[0]), float(by_shots(largest, "pairs")[last])
    run.measure(
        "few-shot", ours[last], baseline=zero, control=mixed[last], seeds=seeds,
        note=f"the table of pairs, without context: {pairs:.3f}",
    )  # fmt: skip
    run.measure(
        "few-over-zero", ours[last] - zero, baseline=zero, control=mixed[last] - mixed[0],
        seeds=seeds,
    )  # fmt: skip
    run.measure("one-shot", ours[1], baseline=zero, control=mixed[1], seeds=seeds)
    run.measure("examples-of-no-task", mixed[last], baseline=ours[last], seeds=seeds)
    for claim, width in (("small-model", 16), ("middle-model", 32)):
        if width not in found:
            run.not_measured(claim, f"no model of width {width} was asked for")
            continue
        curve = by_shots(found[width], "translation")
        run.measure(claim, curve[last] - curve[0], baseline=ours[last] - zero, seeds=seeds)
    if control is not None:
        run.measure("coherent-text", control["translation"][last], baseline=ours[last])
    above = []
    for results in found.values():
        curve = by_shots(results, "translation")
        for shots in (k for k in _ASKED if k <= last):
            best = bayes_accuracy(shots)
            error = math.sqrt(best * (1 - best) / (config.tests * len(results)))
            above.append((float(curve[shots]) - best) / error)
    run.measure("not-above-best", max(above), seeds=seeds)


def _show(
    config: Config,
    run: Run,
    found: dict[int, list[dict[str, Any]]],
    control: dict[str, Any] | None,
) -> None:
    import numpy as np

    from mmxx.lab.report import figures
    from mmxx.language.gpt3.arms import by_shots
    from mmxx.language.gpt3.documents import Documents, bayes_accuracy, render

    shots = list(range(config.pairs + 1))
    shown = [k for k in _ASKED if k <= config.pairs]
    rows, curves = [], {}
    for width, results in sorted(found.items()):
        curve = by_shots(results, "translation")
        curves[f"width {width}"] = (shots, curve)
        rows.append(_row(f"width {width}", results[0]["params"], curve, shown) | _skills(results))
    largest = found[max(found)]
    none = dict.fromkeys(_skills(largest), "")
    lines = {
        "pairs of random languages": by_shots(largest, "shuffled"),
        "table of pairs, no context": by_shots(largest, "pairs"),
        "best possible": np.array([bayes_accuracy(k) for k in shots]),
    }
    if control is not None:
        lines["trained on incoherent documents"] = np.array(control["translation"])
    for name, curve in lines.items():
        curves[name] = (shots, curve)
        rows.append(_row(name, "", curve, shown) | none)
    run.table(
        "shots", rows,
        f"Part of {config.tests} documents whose next translation is right, by the pairs before "
        f"it; mean of {config.seeds} seeds. Novel words: after {config.pairs} pairs. Repeated "
        "strings: letters from the ninth on.",
    )  # fmt: skip
    figure = figures.curves(curves, xlabel="examples in the context", ylabel="right")
    run.figure("shots", figure, "Accuracy by the number of examples, for models of each size.")
    params = [found[width][0]["params"] for width in sorted(found)]
    sizes = {
        f"{k} examples": (params, [by_shots(found[w], "translation")[k] for w in sorted(found)])
        for k in shown
    }
    figure = figures.curves(
        sizes, logx=True, xlabel="parameters without embeddings", ylabel="right"
    )
    run.figure("sizes", figure, "The gain from examples grows with the model.")
    losses = {}
    for width, results in sorted(found.items()):
        curve = np.mean([result["curve"] for result in results], axis=0)
        window = max(1, len(curve) // 20)
        smooth = np.convolve(curve, np.full(window, 1 / window), "valid")
        losses[f"width {width}"] = (np.arange(len(smooth)) + window, smooth)
    figure = figures.curves(losses, xlabel="step", ylabel="training loss, nats per token")
    run.figure("loss", figure, "Training loss, smoothed, mean over seeds.")
    texts = Documents(config.pairs, seed=run.seed).rows(0, 6)
    run.artifact(
        "documents.txt", "\n".join(render(row) for row in texts) + "\n", "Documents as trained on"
    )


def _row(name: str, params: Any, curve: Any, shown: list[int]) -> dict[str, Any]:
    return {"reader": name, "parameters": params} | {
        f"{k} pairs": round(float(curve[k]), 3) for k in shown
    }


def _skills(results: list[dict[str, Any]]) -> dict[str, float]:
    import numpy as np

    novel = np.mean([result["novel"][-1] for result in results])
    repeated = np.mean([result["repeated"] for result in results])
    return {"novel words": round(float(novel), 3), "repeated strings": round(float(repeated), 3)}


# -- real text ---------------------------------------------------------------------------------


def _text(config: Config, run: Run) -> None:
    from mmxx.lab.report import figures
    from mmxx.language.gpt3 import arms, own, scaling_fit

    docs, source = own.documentation(config.text_documents)
    run.source(source)
    text = own.planted_text(config, docs, run.rng("text"))
    items = [
        {"width": width, "layers": config.layers, "heads": config.heads, "seed": run.seed,
         "batch": 16, "lr": config.lr, "n_ctx": config.n_ctx, **text["items"]}
        for width in sorted(config.text_widths, reverse=True)
    ]  # fmt: skip
    results = run.once("texts", run.map, arms.train_text, items)[::-1]
    compute = [result["compute"] for result in results]
    losses = [result["loss"] for result in results]
    if not all(map(math.isfinite, losses)):
        for claim in ("power-law", "extrapolates"):
            run.not_measured(claim, "a training diverged")
        return
    fit = scaling_fit(compute, losses)
    smaller = scaling_fit(compute[:-1], losses[:-1])
    with_floor = scaling_fit(compute, losses, floor=True)
    predicted = float(smaller.predict(compute[-1]))
    falls = all(b < a for a, b in itertools.pairwise(losses))
    note = f"loss = {fit.c:.2f} · C^-{fit.alpha:.3f}; it falls with every size: {falls}"
    run.measure("power-law", fit.r2, note=note)
    run.measure("extrapolates", 100 * abs(predicted / losses[-1] - 1))
    run.table(
        "scaling",
        [
            {"width": width, "parameters": r["params"], "tokens": r["tokens"],
             "compute": r["compute"], "loss": round(r["loss"], 4),
             "fitted": round(float(fit.predict(r["compute"])), 4)}
            for width, r in zip(sorted(config.text_widths), results, strict=True)
        ],
        f"Loss on held-out documents in nats per token; exponent {fit.alpha:.3f} (95 %: "
        f"{fit.interval[0]:.3f} to {fit.interval[1]:.3f}), with a floor of {with_floor.floor:.2f} "
        f"it is {with_floor.alpha:.3f}. Predicted for the largest by the others: {predicted:.3f}.",
    )  # fmt: skip
    series = {
        "models": (compute, losses),
        "power law": (compute, [float(fit.predict(c)) for c in compute]),
    }
    figure = figures.curves(
        series, logx=True, logy=True, xlabel="compute 6 N D, operations", ylabel="loss"
    )
    run.figure("scaling", figure, "Loss on held-out text against compute.")
    report = text["index"].report(text["task"], results[-1]["scores"])
    hit = int((report.dirty & text["planted"]).sum())
    run.table(
        "contamination", [report.row()],
        f"{int(text['planted'].sum())} of {len(report.dirty)} questions were planted in the text; "
        f"{hit} of them were found, and {int(report.dirty.sum()) - hit} that stand in both parts "
        "of the text of themselves. Scores are log p per token of the answers, by the largest "
        "model.",
    )  # fmt: skip
