"""Do random weights tell which channels a network needs, as well as trained ones or better?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmxx.lab.run import Run
    from mmxx.sparsity.from_scratch import Structure

_START = "random"  # what the sham replaces
_HALF, _TENTH = 0.5, 0.9
_RANDOM, _TRAINED, _UNIFORM, _DRAWN = (
    "gates on random weights", "gates on trained weights", "uniform width", "widths at random",
)  # fmt: skip
_CLAIMS = {
    "digits": ("half", "tenth-pretrained", "tenth-full", "diverse", "burden"),
    "patches": ("patches-half", "patches-tenth-pretrained", "patches-tenth-full"),
}


@dataclass(frozen=True)
class Config:
    """Find structures on random weights, and train them beside the full network and controls."""

    task: Literal["digits", "patches", "all"] = "digits"
    """Handwritten digits, patches of photographs, or both."""
    widths: tuple[int, ...] = (16, 16, 32, 32, 64, 64)
    """Channels of each convolution of the full network."""
    expansion: float = 1.5
    """How much wider the network is on which gates are learnt."""
    ratios: tuple[float, ...] = (_HALF,)
    """Shares of the full network's multiply-adds to take away; the claims are about 0.5 and 0.9."""
    epochs: int = 15
    """Epochs of the full network on digits, or on the user's pictures."""
    patches_epochs: int = 16
    """Epochs of the full network on patches."""
    budget: tuple[Literal["digits", "patches"], ...] = ()
    """Tasks on which smaller networks train for more epochs, to cost as much as the full one."""
    gate_epochs: int = 5
    """Epochs of learning gates."""
    gate_lr: float = 0.05
    """Learning rate of the gates."""
    batch: int = 64
    """Pictures in a batch."""
    seeds: int = 1
    """Seeds of each training."""
    gate_seeds: int = 1
    """Seeds of each gate learning: with two or more, structures are compared from seed to seed."""
    random_control: bool = False
    """Train structures of widths drawn at random, too."""
    per_class: tuple[int, int] = (100, 50)
    """Training and test patches of each of the 16 photographs."""
    size: int = 16
    """Side to which the user's pictures are brought."""
    data: Path | None = None
    """Labelled pictures: a folder with a sub-folder for each class, an IDX or an .npz file."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            parts = value if isinstance(value, tuple) else (value,)
            for part in parts:
                if type(part) in (int, float) and not part > 0:
                    raise ValueError(f"{name} must be above 0, got {value}")
        if not self.widths:
            raise ValueError("widths must name one convolution or more")
        if not self.ratios or not all(ratio < 1 for ratio in self.ratios):
            raise ValueError(f"ratios must be one or more between 0 and 1, got {self.ratios}")
        if self.gate_seeds < self.seeds:
            raise ValueError(
                f"gate_seeds must be no fewer than seeds={self.seeds}, got {self.gate_seeds}"
            )
        if self.size < 4:
            raise ValueError(f"size must be 4 or more, got {self.size}")


TINY = Config(
    task="all", widths=(4, 4, 4, 4, 8, 8), ratios=(_TENTH,), epochs=1, patches_epochs=1,
    gate_epochs=1, gate_seeds=2, batch=512, random_control=True, per_class=(8, 2),
)  # fmt: skip
QUICK = Config()
FULL = Config(
    task="all", ratios=(_HALF, _TENTH), budget=("digits", "patches"), seeds=3, gate_seeds=3,
    random_control=True,
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure both tasks, or the user's pictures."""
    from mmxx.data import load

    if config.data is not None:
        pictures = load(config.data, kinds=("images",), size=config.size)
        run.source(pictures.source)
        _task(config, run, "digits", _split(run, pictures))
        asked = ("digits",)
    else:
        asked = ("digits", "patches") if config.task == "all" else (config.task,)
        for task in asked:
            _task(config, run, task, _pictures(config, run, task))
    _shrink(run)
    for task, claims in _CLAIMS.items():
        for claim in claims if task not in asked else ():
            run.not_measured(claim, f"the task {task} was not asked for")


@contextmanager
def sham() -> Iterator[None]:
    """Gates are learnt on the trained network in place of the random one."""
    global _START
    real, _START = _START, "pretrained"
    try:
        yield
    finally:
        _START = real


# -- data --------------------------------------------------------------------------------------


def _pictures(config: Config, run: Run, task: str) -> dict[str, Any]:
    from mmxx.data import digits, photo_patches

    if task == "digits":
        train, test = digits()
    else:
        train, test = photo_patches(config.per_class, random_state=run.seed)
    run.source(train.source)
    pairs = {"train": (train.images, train.labels), "test": (test.images, test.labels)}
    return _channels_first(pairs, len(train.classes or ()))


def _split(run: Run, data: Any) -> dict[str, Any]:
    """The user's pictures, standardised; every fifth, in random order, is for the test."""
    if data.labels is None or len(data.classes) < 2 or len(data) < 10:
        raise ValueError("data: labelled pictures are needed, 10 or more of 2 classes or more")
    order = run.rng("split").permutation(len(data))
    parts = {"test": order[: len(data) // 5], "train": order[len(data) // 5 :]}
    pictures = data.as_float()
    seen = pictures[parts["train"]]
    pictures = (pictures - seen.mean()) / (seen.std() + 1e-6)
    pairs = {name: (pictures[part], data.labels[part]) for name, part in parts.items()}
    return _channels_first(pairs, len(data.classes))


def _channels_first(pairs: dict[str, Any], classes: int) -> dict[str, Any]:
    import numpy as np

    moved = {
        name: (np.ascontiguousarray(np.moveaxis(x, -1, 1)), y) for name, (x, y) in pairs.items()
    }
    return {**moved, "classes": classes, "shape": moved["train"][0].shape[1:]}


# -- one task ----------------------------------------------------------------------------------


def _task(config: Config, run: Run, task: str, pictures: dict[str, Any]) -> None:
    """Learn gates, search, train every arm, and show it."""
    import numpy as np
    import torch

    from mmxx.lab.errors import BadInputError
    from mmxx.sparsity.from_scratch import (
        ChannelGraph,
        arms,
        macs,
        random_widths,
        scratch_budget,
        uniform,
    )  # fmt: skip
    from mmxx.sparsity.from_scratch.networks import conv_net
    from mmxx.sparsity.from_scratch.structure import search

    team = {"team": run} if run.together else {}
    # refused now where processes cannot share it
    run.part(torch.empty(min(config.batch, len(pictures["train"][0]))))
    epochs = config.epochs if task == "digits" else config.patches_epochs
    common = {
        **pictures, "widths": config.widths, "expansion": config.expansion, "batch": config.batch,
        "gate_epochs": config.gate_epochs, "gate_lr": config.gate_lr, "epochs": epochs,
    }  # fmt: skip
    shape, classes = pictures["shape"], pictures["classes"]
    full_macs = macs(conv_net(shape[0], config.widths, classes), shape)
    graph = ChannelGraph(arms.wide_net(common), shape)
    least = graph.macs(np.ones(len(graph.groups)))  # a channel a layer
    if (1 - max(config.ratios)) * full_macs < least:
        most = int(1e3 * (1 - least / full_macs)) / 1e3
        raise BadInputError(
            f"ratios must be {most:g} or less for these widths and pictures: one channel a layer "
            f"leaves {least:,} of {full_macs:,} multiply-adds; got {max(config.ratios):g}"
        )
    seeds = list(range(run.seed, run.seed + config.gate_seeds))
    starts = {_RANDOM: _START, _TRAINED: "pretrained"}
    items = [{**common, "seed": s, "start": start} for start in starts.values() for s in seeds]
    learnt = run.once(f"{task}-gates", run.map, arms.learn, items)

    structures: dict[tuple[str, float, int], Structure] = {}
    for ratio in config.ratios:
        target = (1 - ratio) * full_macs
        for number, arm in enumerate(starts):
            for k, s in enumerate(seeds):
                gates = learnt[number * len(seeds) + k]["gates"]
                structures[arm, ratio, s] = search(graph, gates, target)
        for s in seeds[: config.seeds]:
            structures[_UNIFORM, ratio, s] = uniform(graph, target)
            if config.random_control:
                generator = torch.Generator().manual_seed(s)
                structures[_DRAWN, ratio, s] = random_widths(graph, target, generator=generator)

    keys: list[tuple[str, float, int]] = [("full network", 0.0, s) for s in seeds[: config.seeds]]
    keys += [key for key in structures if key[2] in seeds[: config.seeds]]
    items = [
        {
            **common, **team, "seed": s,
            "widths": list(structures[arm, ratio, s].widths.values()) if ratio else config.widths,
            "epochs": scratch_budget(epochs, ratio) if task in config.budget else epochs,
        }
        for arm, ratio, s in keys
    ]  # fmt: skip
    results = run.each(f"{task}-training", arms.train, items)
    scores = {key: result["score"] for key, result in zip(keys, results, strict=True)}
    lengths = {key: item["epochs"] for key, item in zip(keys, items, strict=True)}
    _show(config, run, task, full_macs, scores, lengths, structures)
    by_arm = dict(zip([(arm, s) for arm in starts for s in seeds], learnt, strict=True))
    _show_gates(run, task, by_arm)
    if task == "digits":
        _measure_finding(config, run, by_arm, structures)


def _show(
    config: Config, run: Run, task: str, full_macs: int, scores: dict[Any, float],
    lengths: dict[Any, int], structures: dict[tuple[str, float, int], Structure],
) -> None:  # fmt: skip
    """Claims, the table of all arms, and the structures."""
    from mmxx.lab.report import figures

    seeds = list(range(run.seed, run.seed + config.seeds))
    arms = list(dict.fromkeys((arm, ratio) for arm, ratio, _ in scores))
    mean = {key: sum(scores[*key, s] for s in seeds) / len(seeds) for key in arms}
    full = mean["full network", 0.0]
    rows = []
    for arm, ratio in arms:
        found = structures.get((arm, ratio, seeds[0]))
        rows.append(
            {"arm": arm, "taken away": f"{ratio:.0%}", "mean": round(mean[arm, ratio], 2)}
            | {f"seed {s}": round(scores[arm, ratio, s], 2) for s in seeds}
            | {"multiply-adds": found.macs if found else full_macs}
            | {"epochs": lengths[arm, ratio, seeds[0]]}
            | {f"widths, seed {seeds[0]}": _words(found.widths if found else config.widths)}
        )
    run.table(task, rows, "Per cent right on the test pictures.")
    _measure(config, run, task, mean, full, structures)

    taken = sorted(config.ratios)
    lines = {
        arm: ([0.0, *(100 * ratio for ratio in taken)], [full, *(mean[arm, r] for r in taken)])
        for arm in dict.fromkeys(arm for arm, ratio in arms if ratio)
    }
    lines["full network"] = ([0.0, 100 * taken[-1]], [full, full])
    run.figure(
        f"{task}-accuracy",
        figures.curves(lines, xlabel="multiply-adds taken away [%]", ylabel="test accuracy [%]"),
        "Accuracy of networks trained from new weights, mean over seeds.",
    )
    run.figure(
        f"{task}-structures",
        _draw(structures),
        "Channels that stay, one line a structure; grey is the widened network.",
    )
    chosen = {
        f"{arm}, {ratio:.0%}, seed {s}": x.widths for (arm, ratio, s), x in structures.items()
    }
    run.artifact(f"{task}-structures.json", json.dumps(chosen, indent=1), "All widths found.")


def _measure(
    config: Config, run: Run, task: str, mean: dict[Any, float], full: float,
    structures: dict[tuple[str, float, int], Structure],
) -> None:  # fmt: skip
    """Judge the accuracies; the uniform control stands beside, whatever it says."""
    seeds = list(range(run.seed, run.seed + config.seeds))
    half, tenth_pretrained, tenth_full, *_ = _CLAIMS[task]
    for claim, ratio, rival in (
        (half, _HALF, None), (tenth_pretrained, _TENTH, _TRAINED), (tenth_full, _TENTH, None),
    ):  # fmt: skip
        if ratio not in config.ratios:
            run.not_measured(claim, f"{ratio} is not among the ratios")
            continue
        base = full if rival is None else mean[rival, ratio]
        run.measure(
            claim, mean[_RANDOM, ratio] - base, baseline=base,
            control=mean[_UNIFORM, ratio] - base, seeds=seeds,
        )  # fmt: skip
    for ratio in config.ratios:
        ours, plain = mean[_RANDOM, ratio], mean[_UNIFORM, ratio]
        verdict = "no better than" if ours <= plain else "better than"
        run.note(
            f"On {task}, at {ratio:.0%} taken away, the structure found is {verdict} one uniform "
            f"width for all layers: {ours:.2f} against {plain:.2f} per cent."
        )


def _measure_finding(
    config: Config, run: Run, learnt: dict[tuple[str, int], dict[str, Any]],
    structures: dict[tuple[str, float, int], Structure],
) -> None:  # fmt: skip
    """How much work finding a structure is, and how much structures differ from seed to seed."""
    from mmxx.sparsity.from_scratch import spread

    seeds = list(range(run.seed, run.seed + config.gate_seeds))
    # both pass the same pictures through the same network; weights cost a third pass
    work = {
        arm: sum(3 * learnt[arm, s]["trained"] + 2 * len(learnt[arm, s]["history"]) for s in seeds)
        for arm in (_RANDOM, _TRAINED)
    }
    run.measure("burden", work[_RANDOM] / work[_TRAINED], baseline=1.0, seeds=seeds)
    if config.gate_seeds < 2:
        run.not_measured("diverse", "gates were learnt on one seed")
        return
    found = {
        arm: sum(spread([structures[arm, r, s] for s in seeds]) for r in config.ratios)
        / len(config.ratios)
        for arm in (_RANDOM, _TRAINED)
    }
    if found[_TRAINED] > 0:
        ratio = found[_RANDOM] / found[_TRAINED]
        run.measure("diverse", ratio, baseline=found[_TRAINED], seeds=seeds)
    else:
        run.not_measured("diverse", "structures from trained weights do not differ at all")


def _words(widths: Any) -> str:
    return " ".join(map(str, widths.values() if isinstance(widths, dict) else widths))


def _draw(structures: dict[tuple[str, float, int], Structure]) -> Figure:
    """The widths of structures, layer by layer, one picture for each ratio."""
    from matplotlib.figure import Figure

    from mmxx.lab.report.figures import COLOURS

    groups = next(iter(structures.values())).graph.groups.values()
    colours = dict(zip(dict.fromkeys(arm for arm, _, _ in structures), COLOURS, strict=False))
    ratios = list(dict.fromkeys(ratio for _, ratio, _ in structures))
    figure = Figure(figsize=(8.4, 3.2))
    figure.subplots_adjust(0.07, 0.15, 0.99, 0.78, wspace=0.15)
    for axes, shown in zip(figure.subplots(1, len(ratios), squeeze=False)[0], ratios, strict=True):
        places = range(1, len(groups) + 1)
        axes.bar(places, [group.size for group in groups], color="#8884", width=0.8)
        for (arm, ratio, _), structure in structures.items():
            if ratio == shown:
                widths = list(structure.widths.values())
                axes.plot(places, widths, "o-", color=colours[arm], ms=3.5, lw=1.2, label=arm)
        axes.set_title(f"{shown:.0%} of the multiply-adds taken away", fontsize=9)
        axes.set(xlabel="convolution", xticks=list(places))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("channels")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    lines = dict(zip(labels, handles, strict=True))
    figure.legend(lines.values(), lines, loc="upper left", ncols=4, frameon=False, fontsize=8.5)
    return figure


def _show_gates(run: Run, task: str, learnt: dict[tuple[str, int], dict[str, Any]]) -> None:
    """How gate learning went."""
    rows = [
        {
            "gates": arm, "seed": s,
            "network before": "random" if result["accuracy"] is None
            else f"{result['accuracy']:.2f} % right",
            "loss at first": round(result["history"][0]["loss"], 3),
            "loss at last": round(result["history"][-1]["loss"], 3),
            "mean gate": round(result["history"][-1]["mean"], 3),
            "not 0": f"{result['history'][-1]['share']:.0%}",
        }
        for (arm, s), result in learnt.items()
    ]  # fmt: skip
    run.table(f"{task}-gates", rows, "Learning gates; the loss is the mean of an epoch.")


def _shrink(run: Run) -> None:
    """Half the multiply-adds of three kinds of networks, and the outputs of the masked ones."""
    from mmxx.sparsity.from_scratch import arms

    found = {name: arms.shrink(name, _HALF, run.seed) for name in arms.SHRUNK}
    run.measure("shrinks", max(f["macs"][1] / f["macs"][0] for f in found.values()))
    run.measure("same-function", max(f["difference"] for f in found.values()))
    rows = [
        {
            "network": name, "multiply-adds": f["macs"][0], "after": f["macs"][1],
            "parameters": f["parameters"][0], "parameters after": f["parameters"][1],
            "difference of outputs": f["difference"],
        }
        for name, f in found.items()
    ]  # fmt: skip
    run.table("shrunk", rows, "Random channels taken out of three kinds of networks.")
