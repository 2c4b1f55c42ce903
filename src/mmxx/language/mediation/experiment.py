"""How much of a planted bias goes through which heads and neurons, or of the user's own model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmxx.lab.run import Run
    from mmxx.language.mediation.arms import Arm
    from mmxx.language.mediation.effects import Effects

_SHAM = False  # whether the unbiased corpus and a random ranking stand in the method's place
_PLANTED, _CONTROL, _RANDOM = "s = 1", "s = 0", "random weights"
_ENOUGH = 0.2  # of the total effect: below it, the heads' route is too narrow to rank heads


@dataclass(frozen=True)
class Config:
    """Plant a bias and find it in heads and neurons, or analyse a model and texts of your own."""

    strengths: tuple[float, ...] = (1.0, 0.0)
    """Strengths of the planted bias; 1 and 0, the control, must be among them."""
    seeds: int = 1
    """Trainings for each strength."""
    steps: int = 800
    """Steps of training at strength 1."""
    weak_steps: int = 900
    """Steps at strengths between 0 and 1, which take longer to learn."""
    null_steps: int = 250
    """Steps at strength 0."""
    batch: int = 128
    """Sentences of a step."""
    layers: int = 2
    """Blocks of the GPT, of four heads each."""
    width: int = 64
    """Width of its residual stream."""
    pairs: int = 150
    """Pairs of sentences for the heads."""
    top: int = 4
    """Mediators that are taken by rank and greedily."""
    model: Path | None = None
    """A folder with a causal language model and its tokenizer, as transformers saves them."""
    data: Path | None = None
    """Texts: professions.json, a word list, a file of WinoBias or its folder, Winogender's folder,
    or lines of JSON (.jsonl); needs a model. Without it, thirty professions."""
    templates: Path | None = None
    """Sentences for the professions, one a line, with {} in the word's place."""
    direction: Literal["dataset", "model", "man", "woman"] = "dataset"
    """Whose stereotype decides whether a profession becomes "man" or "woman"."""
    split: Literal["dev", "test"] = "dev"
    """Which part of a folder of WinoBias."""
    filter: float = 0.25
    """Examples of one's own: leave out those below this quantile of the effects above 0."""
    kind: Literal["heads", "neurons", "both"] = "both"
    """Which mediators of one's own model; neurons need texts that differ in one token."""

    def __post_init__(self) -> None:
        least = {"seeds": 1, "steps": 1, "weak_steps": 1, "null_steps": 1, "batch": 1, "layers": 1,
                 "width": 8, "pairs": 2, "top": 3}  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be {low} or more, got {getattr(self, name)}")
        if self.width % 8:
            raise ValueError(f"width must be a multiple of 8, got {self.width}")
        if self.top > 4 * self.layers:
            raise ValueError(f"top must be {4 * self.layers} heads or fewer, got {self.top}")
        if not {0.0, 1.0} <= set(self.strengths) or len(set(self.strengths)) < len(self.strengths):
            raise ValueError(f"strengths must hold 1 and 0, each once, got {self.strengths}")
        if any(not 0 <= strength <= 1 for strength in self.strengths):
            raise ValueError(f"strengths must lie in [0, 1], got {self.strengths}")
        if not 0 <= self.filter < 1:
            raise ValueError(f"filter must lie in [0, 1), got {self.filter}")
        if self.model is None and (self.data is not None or self.templates is not None):
            raise ValueError("data and templates need a model: the folder of a language model")


TINY = Config(
    strengths=(1.0, 0.5, 0.0), steps=5, weak_steps=2, null_steps=2, batch=8, layers=1, width=16,
    pairs=4, top=3,
)  # fmt: skip
QUICK = Config()
FULL = Config(
    strengths=(1.0, 0.5, 0.0), seeds=3, steps=2000, weak_steps=2000, null_steps=450, top=8,
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure the claims on planted biases, or analyse the model that the user brings."""
    if config.model is not None:
        from mmxx.language.mediation.card import CARD

        for claim in CARD.claims:
            run.not_measured(claim.id, "the user's own model was run instead")
        _own(config, run)
        return
    _by_hand(run)
    arms = _arms(config, run)
    from mmxx.language.mediation.arms import work

    results = run.once("arms", run.map, work, list(arms))
    _judge_bias(config, run, arms, results)
    _judge_heads(config, run, arms, results)
    _show_neurons(run, arms, results)
    _greedy(config, run, arms, results)


@contextmanager
def sham() -> Iterator[None]:
    """A corpus without a bias, and heads ranked at random."""
    global _SHAM
    before, _SHAM = _SHAM, True
    try:
        yield
    finally:
        _SHAM = before


# -- planted biases ----------------------------------------------------------------------------


def _arms(config: Config, run: Run) -> list[Arm]:
    from mmxx.language.mediation.arms import Arm

    steps = {1.0: config.steps, 0.0: config.null_steps}
    arms = [
        Arm(
            strength=strength, name=f"s = {strength:g}", seed=run.seed + number,
            steps=steps.get(strength, config.weak_steps), batch=config.batch,
            layers=config.layers, width=config.width, pairs=config.pairs, sets=config.top,
            shuffled=_SHAM,
        )
        for strength in config.strengths
        for number in range(config.seeds)
    ]  # fmt: skip
    return [*arms, replace(arms[0], name=_RANDOM, steps=0)]


def _by_hand(run: Run) -> None:
    """Networks whose effects are known: the largest error."""
    from mmxx.language.mediation import handset

    found = run.once("by-hand", handset.errors)
    run.table("by-hand", found["rows"], "Networks set by hand: log effects, measured and known.")
    run.measure("known-networks", found["largest"])


def _judge_bias(config: Config, run: Run, arms: list[Arm], results: list[dict[str, Any]]) -> None:
    """Professions against "woman": is the total effect that of the planted bias?"""
    import numpy as np

    rows, shown, ideal = [], {}, None
    correlations: dict[str, list[float]] = {}
    for arm, result in zip(arms, results, strict=True):
        effects = _effects(result["neurons"])
        bias = np.array([entry["bias"] for entry in effects.meta])
        r = effects.correlation("bias")
        correlations.setdefault(arm.name, []).append(r)
        rows.append(
            {
                "arm": arm.name, "seed": arm.seed,
                "mean log(1 + TE)": round(float(effects.log_te.mean()), 4),
                "ideal": round(float(np.mean(result["ideal professions"])), 4),
                "correlation with the bias": round(r, 4),
                "loss": round((result["losses"] or [float("nan")])[-1], 4),
            }
        )  # fmt: skip
        if arm.seed == run.seed:
            shown[arm.name] = (bias, effects.log_te)
            if arm.name == _PLANTED:
                ideal = (bias, np.asarray(result["ideal professions"]))
    run.table("professions", rows, 'Professions replaced by "woman"; the response is she over he.')
    run.figure(
        "bias",
        _scatter(shown, "planted log odds of she", "log(1 + TE)", ideal),
        'Each profession, first seed: the more a profession is his, the more "woman" changes.',
    )
    seeds = [run.seed + number for number in range(config.seeds)]
    weakest = {name: max(values) for name, values in correlations.items()}
    found, note = weakest[_CONTROL if _SHAM else _PLANTED], "the weakest seed"
    run.measure("bias-is-found", found, control=weakest[_CONTROL], seeds=seeds, note=note)


def _judge_heads(config: Config, run: Run, arms: list[Arm], results: list[dict[str, Any]]) -> None:
    """Pairs of sentences, she against he: how the effect divides, and how few heads hold it."""
    from mmxx.language.mediation.arms import sentence_row

    effects = [_effects(result["heads"]) for result in results]
    rows = [sentence_row(*each) for each in zip(arms, results, effects, strict=True)]
    run.table(
        "sentences", rows, "Pairs of sentences, log units; top 3 as shares of the NIE of all heads."
    )
    planted = [row for row in rows if row["arm"] == _PLANTED]
    nothing = [row for row in rows if row["arm"] == _CONTROL]
    wide = [row for row in planted if row["NIE, all heads"] >= _ENOUGH * row["mean log(1 + TE)"]]
    place = rows.index((wide or planted)[0])
    _show_heads(run, effects[place], results[place])

    seeds = [run.seed + number for number in range(config.seeds)]
    worst = {"seeds": seeds, "note": "the worst seed"}
    total, indirect = (
        max(abs(row[column]) for row in nothing)
        for column in ("mean log(1 + TE)", "NIE, all heads")
    )
    run.measure("control-total", total, **worst)
    run.measure("control-indirect", indirect, **worst)
    run.measure(
        "additive", min(row["correlation of TE with NIE + NDE"] for row in planted), **worst
    )
    for claim, column in (
        ("closed-form", "correlation with the ideal"),
        ("closed-form-slope", "slope over the ideal"),
    ):
        run.measure(claim, sum(row[column] for row in planted) / len(planted), seeds=seeds)
    if len(wide) < len(planted):
        run.note(
            f"In {len(planted) - len(wide)} of {len(planted)} trainings the effect took the value "
            "route: all heads together mediate less than a fifth of it."
        )
    if not wide:
        for claim in ("few-heads", "few-heads-margin"):
            run.not_measured(claim, "the effect took the value route")
        return
    ours, looking, control = (
        f"top 3 by {name}" for name in ("indirect effect", "attention change", "random")
    )
    run.measure(
        "few-heads", min(row[ours] for row in wide),
        baseline=min(row[looking] for row in wide), control=max(row[control] for row in wide),
        seeds=seeds, note="the worst seed; the baseline ranks by the change of attention",
    )  # fmt: skip
    run.measure("few-heads-margin", min(row[ours] - row[control] for row in wide), **worst)


def _show_heads(run: Run, effects: Effects, result: dict[str, Any]) -> None:
    """Heat maps, the ranking, and what is left without the top heads, of one training."""
    run.figure("heads", _heat_maps(effects), "log(1 + effect) of each head, mean over the pairs.")
    run.table(
        "ranking",
        effects.ranking(8, "log"),
        "Heads by NIE, geometric means, with 95% intervals over pairs.",
    )
    run.table("layers", effects.per_layer("log"), "Layers by NIE and NDE, geometric means.")
    caption = "Log units. Held at what they do in the unchanged text, what of TE is left; "
    caption += "silenced, or given their mean attention, what becomes of the unchanged odds."
    run.table("what-if", result["what if"], caption)
    run.artifact("effects-heads.safetensors", effects.to_bytes(), "For Effects.load.")


def _show_neurons(run: Run, arms: list[Arm], results: list[dict[str, Any]]) -> None:
    """How the neurons' effects are spread over layers."""
    from mmxx.language.mediation.arms import top_share

    effects = _effects(results[0]["neurons"])
    rows = effects.per_layer("log")
    for row, together in zip(rows, results[0]["layerwise"], strict=True):
        row["NIE of its top 5%"] = together
    rows[0]["layer"] = "words"
    run.table("neurons", rows, f"Neurons at the profession, {arms[0].name}, "
              "first seed; concentration: the share of |NIE| in a layer's top tenth.")  # fmt: skip
    run.artifact("effects-neurons.safetensors", effects.to_bytes(), "For Effects.load.")
    shares = [
        f"{top_share(_effects(result['neurons'])):.0%} with {arm.name}"
        for arm, result in zip(arms, results, strict=True)
        if arm.seed == run.seed
    ]
    run.note("The top 5% of neurons hold of the sum of |NIE|: " + ", ".join(shares) + ".")


def _greedy(config: Config, run: Run, arms: list[Arm], results: list[dict[str, Any]]) -> None:
    """Greedy selection of heads in the first training, a step a time, beside the rankings."""
    from mmxx.language.mediation import Mediation
    from mmxx.language.mediation.arms import examples, network

    mediation = Mediation(network(arms[0], results[0]["state"]), batch_size=2048)
    lines = {f"by {name}": values for name, values in results[0]["sets"].items()}
    lines["at random"] = lines.pop("by random")
    _select(config, run, mediation, examples(arms[0]).sentences, mediation, map, lines)


def _select(
    config: Config, run: Run, mediation: Any, examples: list[Any], source: Any, map: Any,
    lines: dict[str, list[float]],
) -> None:  # fmt: skip
    """Take heads greedily, and draw what sets of heads mediate together."""
    import numpy as np
    import torch

    from mmxx.lab.report.figures import curves
    from mmxx.language.mediation.selection import Task, every, greedy_step, measure

    pairs = every(mediation, "heads")
    whole = run.once("all-heads", measure, Task(mediation, examples, [pairs], "heads", "log"))[0]
    whole = float(np.log1p(whole))
    top = min(config.top, len(pairs))
    order = torch.full((top, 2), -1)
    effect = torch.zeros(top, dtype=torch.float64)
    for step in run.loop("greedy", top, state={"order": order, "effect": effect}, every=1):
        chosen = [(int(layer), int(head)) for layer, head in order[:step]]
        best, reached = greedy_step(source, examples, chosen, pairs, average="log", map=map)
        order[step], effect[step] = torch.tensor(best), np.log1p(reached)
        run.log(step, effect=effect[step])
    rows = [
        {
            "step": step + 1, "layer": int(order[step, 0]), "head": int(order[step, 1]),
            "mean log(1 + NIE) of all taken": float(effect[step]),
            "share of all heads": float(effect[step]) / whole if whole else float("nan"),
        }
        for step in range(top)
    ]  # fmt: skip
    run.table("greedy", rows, "Heads taken greedily: the one that adds most to the joint effect.")
    lines = {"greedily": effect.tolist(), **lines}
    drawn: dict[str, tuple[Any, Any]] = {
        name: (np.arange(1, 1 + len(values)), values) for name, values in lines.items()
    }
    drawn["all heads"] = (np.arange(1, 1 + top), np.full(top, whole))
    figure = curves(drawn, xlabel="heads intervened on together", ylabel="mean log(1 + NIE)")
    run.figure("sets", figure, "Heads taken greedily, by rank, and all; at random where shown.")


# -- a model of one's own ----------------------------------------------------------------------


def _own(config: Config, run: Run) -> None:
    from functools import partial

    from mmxx.lab.errors import BadInputError
    from mmxx.lab.report.figures import bars
    from mmxx.language.mediation import own

    assert config.model is not None
    load = partial(own.load, str(config.model))
    try:
        mediation = load()
    except (ValueError, TypeError) as error:
        raise BadInputError(str(error)) from error
    examples = own.read(config.data, config.templates, config.direction, config.split, mediation)
    if examples.skipped:
        run.artifact(
            "skipped.txt", "\n".join(examples.skipped) + "\n", "What was left out, and why."
        )
        run.note(f"{len(examples.skipped)} entries were left out; skipped.txt says why.")
    if not examples:
        first = examples.skipped[0] if examples.skipped else "there is none"
        raise BadInputError(f"no text can be measured with this model; the first: {first}")
    total = _effects(run.once("total", own.total, mediation, examples))
    kept = total.kept(config.filter) if config.filter else [True] * len(examples)
    filtered = [example for example, keep in zip(examples, kept, strict=True) if keep]
    run.note(f"{len(examples)} examples; the heads' after the filter are {len(filtered)}.")
    for key in ("stereotypical", "women"):
        if any(key in entry for entry in total.meta):
            x = [entry[key] for entry in total.meta]
            figure = _scatter({"examples": (x, total.log_te)}, key, "log(1 + TE)")
            caption = f"Correlation {total.correlation(key):.3f}." if len(set(x)) > 1 else ""
            run.figure(f"te-{key}", figure, caption)
    kinds: dict[Literal["heads", "neurons"], list[Any]]
    kinds = {"heads": filtered, "neurons": list(examples)}
    for kind, some in kinds.items():
        if config.kind not in (kind, "both") or not some:
            continue
        layers = len(mediation.parts.blocks) + (kind == "neurons")
        items = own.tasks(load, some, kind, layers)
        found = own.gathered(run.once(kind, run.map, own.measure, items), layers)
        run.artifact(f"effects-{kind}.safetensors", found.to_bytes(), "For Effects.load.")
        run.artifact(f"effects-{kind}.csv", own.as_csv(found), "Means of each mediator.")
        run.table(f"{kind}-ranking", found.ranking(20), "By mean NIE, with 95% intervals.")
        run.table(f"{kind}-layers", found.per_layer())
        run.table(f"{kind}-effects", own.averages(found), "The total, and all mediators together.")
        if kind == "heads":
            run.figure(kind, _heat_maps(found), "log(1 + effect) of each head, mean.")
            ranked = run.once("by-rank", own.by_rank, mediation, some, found, config.top)
            _select(config, run, mediation, some, load, run.map, {"by indirect effect": ranked})
            continue
        largest = {f"layer {row['layer']}": row["largest NIE"] for row in found.per_layer("log")}
        run.figure(kind, bars(largest, ylabel="largest NIE of a neuron, geometric mean"))


# -- drawings ----------------------------------------------------------------------------------


def _heat_maps(effects: Effects) -> Figure:
    """NIE and NDE, heads × layers, in one range of colours."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    assert effects.log_nie is not None
    assert effects.log_nde is not None
    panels = {"indirect": effects.log_nie.mean(0), "direct": effects.log_nde.mean(0)}
    most = max(float(np.abs(values).max()) for values in panels.values()) or 1.0
    layers, heads = panels["indirect"].shape
    figure = Figure(
        figsize=(5.2, min(max(2.6 * layers / heads, 1.6), 6) + 0.7), layout="constrained"
    )
    image = None
    axes = figure.subplots(1, 2, sharey=True)
    for place, (name, values) in zip(axes, panels.items(), strict=True):
        image = place.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        place.set_title(name, fontsize=9)
        place.set_xlabel("head", fontsize=9)
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
        place.yaxis.set_major_locator(MaxNLocator(integer=True))
        place.tick_params(labelsize=8)
        place.spines[:].set_visible(False)
    axes[0].set_ylabel("layer", fontsize=9)
    assert image is not None
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    bar.set_label("log(1 + effect)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _scatter(
    points: dict[str, tuple[Any, Any]], xlabel: str, ylabel: str, ideal: Any = None
) -> Figure:
    from matplotlib.figure import Figure

    from mmxx.lab.report.figures import COLOURS

    figure = Figure(figsize=(5.2, 3.3), layout="constrained")
    axes = figure.subplots()
    for (label, (x, y)), colour in zip(points.items(), COLOURS, strict=False):
        axes.scatter(x, y, s=16, color=colour, label=label, linewidth=0)
    if ideal is not None:
        axes.plot(*ideal, color="#000000", linewidth=0.7, label="closed form, s = 1")
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


# -- small things ------------------------------------------------------------------------------


def _effects(content: Any) -> Effects:
    from mmxx.language.mediation.effects import Effects

    return Effects.from_bytes(content.tobytes())
