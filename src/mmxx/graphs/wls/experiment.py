"""Is a graph known by its neighbourhoods, transformed before they are summed?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from mmxx.data import Graphs
    from mmxx.graphs.wls.problems import Fold
    from mmxx.lab.run import Run

Arm = Literal["WLS", "WLS without cat", "WLSLin", "WWL", "GCN", "GraphSAGE", "GAT"]
Readout = Literal["sum", "mean"]

_SHAM = False  # the identity in the place of φ


@dataclass(frozen=True)
class Config:
    """Classify graphs by WLS vectors, and by what aggregates before it transforms."""

    graphs: int = 240
    """How many signed trees are made where no data are given."""
    arms: tuple[Arm, ...] = ("WLS", "WLS without cat", "WLSLin", "WWL", "GCN", "GraphSAGE")
    """What is compared; WLS, one that aggregates first, and WLS without cat must be there."""
    n_iter: int = 5
    """Rounds; validation chooses how many are used."""
    dim: int = 200
    """Columns of the random projections."""
    projection: Literal["sketch", "gaussian"] = "sketch"
    """How WLS projects: by TensorSketch, or as the paper does, which takes minutes."""
    sigmas: tuple[float, ...] = (1.0,)
    """Widths of the rbf kernel, of which validation chooses."""
    readouts: tuple[Readout, ...] = ("sum",)
    """Readouts, of which validation chooses."""
    every: bool = False
    """Also the rivals with a node added to its neighbours, and three temperatures of GAT."""
    grid: Literal["reduced", "authors"] = "reduced"
    """γ and C of the kernel machine: 7 × 3 values, or the paper's 10 × 10."""
    parts: int = 10
    """Parts that the graphs are split into; a fold is judged by one and chosen by another."""
    judged: int = 10
    """Folds that are used of them."""
    judged_of_data: int = 3
    """Folds that are used where data are given."""
    seeds: int = 1
    """Seeds, each with its trees and its projections; one where data are given."""
    data: Path | None = None
    """Your graphs with classes: a folder or .zip in the TU format."""
    nodes: Literal["auto", "attributes", "labels", "both", "degree", "constant"] = "auto"
    """What nodes begin with; auto is the first of attributes, labels and degree that is there."""
    folds: Path | None = None
    """For your graphs: where PREFIX_train.index, PREFIX_val.index and PREFIX_test.index lie."""
    patterns: int = 0
    """Graphs in which networks are to find planted patterns; 0 leaves networks out."""
    pattern_steps: int = 500
    """Steps that these are trained for."""
    show: int = 0
    """Number of the graph whose nearest neighbours are listed."""

    def __post_init__(self) -> None:
        for name, least in (
            ("graphs", 30), ("n_iter", 1), ("dim", 1), ("parts", 3), ("judged", 1),
            ("judged_of_data", 1), ("seeds", 1), ("show", 0), ("patterns", 0),
            ("pattern_steps", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)}")
        if not {"WLS", "WLS without cat"} <= set(self.arms) or len(self.arms) < 3:
            raise ValueError(
                "arms must hold WLS, WLS without cat and one that aggregates first, got "
                f"{', '.join(self.arms)}"
            )
        if 0 < self.patterns < 10:
            raise ValueError(f"patterns must be 0, or 10 or more, got {self.patterns}")
        if not self.sigmas or min(self.sigmas) <= 0:
            raise ValueError(f"sigmas must be one or more numbers above 0, got {self.sigmas}")
        if not self.readouts:
            raise ValueError("readouts must be 'sum', 'mean' or both")
        if self.judged > self.parts:
            raise ValueError(f"judged must be at most parts = {self.parts}, got {self.judged}")
        if self.folds is not None and self.data is None:
            raise ValueError("folds are for your graphs: give data too")


TINY = Config(
    graphs=30, n_iter=1, dim=16, parts=3, judged=1, patterns=10, pattern_steps=1,
    arms=("WLS", "WLS without cat", "WLSLin", "WWL", "GCN", "GraphSAGE", "GAT"),
)  # fmt: skip
QUICK = Config()
FULL = Config(
    arms=("WLS", "WLS without cat", "WLSLin", "WWL", "GCN", "GraphSAGE", "GAT"),
    sigmas=(0.1, 1.0, 10.0), readouts=("sum", "mean"), every=True, judged_of_data=10, seeds=3,
    patterns=1000, pattern_steps=1500,
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure accuracies by nested cross-validation, and judge them."""
    import numpy as np

    from mmxx.graphs.wls import study

    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in config.arms}
    seeds = [run.seed + k for k in range(config.seeds if config.data is None else 1)]
    first: tuple[Graphs, Any] | None = None
    for seed in seeds:
        graphs, folds = _problem(config, run, seed)
        for arm in config.arms:
            slug = f"{arm.lower().replace(' ', '-')}-{seed}"
            choices = _configurations(config, arm)
            grids = run.once(slug, _measured, config, run, graphs, folds, choices, seed)
            results[arm] += _judged(folds, choices, grids)
        first = first or (graphs, folds)
    assert first is not None
    _judge(config, run, results, seeds)
    _tell(config, run, results)
    _show(config, run, first[0], results["WLS"])
    if config.patterns and config.data is None:
        _patterns(config, run)
    scores = [line["accuracy"] for line in results["WLS"]]
    run.log(len(scores), accuracy=float(np.mean(scores)))
    if len(scores) > 1:
        lost = study.interval(_difference(results, "WLS", _best_linear(config, results)))
        run.note(
            "Differences are of the same folds. The 95 % interval of WLS beside the best that "
            f"aggregates first is ± {lost:.1f} points over {len(scores)} folds."
        )


@contextmanager
def sham() -> Iterator[None]:
    """The identity in the place of φ: messages are not transformed."""
    global _SHAM
    _SHAM = True
    try:
        yield
    finally:
        _SHAM = False


# -- accuracies --------------------------------------------------------------------------------


def _problem(config: Config, run: Run, seed: int) -> tuple[Graphs, list[Fold]]:
    """The graphs and their folds: trees of that seed, or the user's data."""
    import numpy as np

    from mmxx.data import Graphs, load
    from mmxx.graphs.wls import problems

    if config.data is None:
        rng = np.random.default_rng([seed, 1])
        graphs = problems.signed_trees(rng, config.graphs)
        run.source(graphs.source)
        return graphs, problems.make_folds(_classes(graphs), config.parts, rng, config.judged)
    loaded = load(config.data, ("graphs",))
    assert isinstance(loaded, Graphs)
    run.source(loaded.source)
    targets = _classes(loaded)
    if config.show >= len(loaded):
        raise ValueError(f"show must be a graph from 0 to {len(loaded) - 1}, got {config.show}")
    keep = min(config.judged_of_data, config.parts)
    if config.folds is not None:
        return loaded, problems.read_folds(config.folds, len(loaded), keep)
    rng = np.random.default_rng([run.seed, 2])
    return loaded, problems.make_folds(targets, config.parts, rng, keep)


def _classes(graphs: Graphs) -> np.ndarray:
    import numpy as np

    targets = graphs.targets
    if targets is None or targets.dtype.kind not in "iu" or len(np.unique(targets)) < 2:
        raise ValueError("data: graphs of two classes or more are needed, with integer labels")
    return targets


def _configurations(config: Config, arm: str) -> list[dict[str, Any]]:
    from mmxx.graphs.wls import study

    found = study.configurations(arm, config.sigmas, config.readouts, every=config.every)
    if _SHAM and arm.startswith("WLS"):
        return [{**choice, "kernel": "linear"} for choice in found]
    return found


def _measured(
    config: Config,
    run: Run,
    graphs: Graphs,
    folds: Sequence[Fold],
    choices: Sequence[dict[str, Any]],
    seed: int,
) -> list[list[np.ndarray]]:
    """Accuracies on validation and test, by fold and configuration."""
    from mmxx.graphs.wls import study

    wide = config.grid == "authors"
    items = [_item(config, graphs, choice, seed) for choice in choices]
    rounds = run.map(study.vectors, items)
    tasks = [
        {"rounds": vectors, "targets": graphs.targets, "fold": fold,
         "gammas": study.AUTHORS_GRID if wide else study.GAMMAS,
         "costs": study.AUTHORS_GRID if wide else study.COSTS}
        for fold in folds for vectors in rounds
    ]  # fmt: skip
    found = run.map(study.accuracies, tasks)
    return [found[k : k + len(choices)] for k in range(0, len(found), len(choices))]


def _item(config: Config, graphs: Graphs, choice: dict[str, Any], seed: int) -> dict[str, Any]:
    """A task for `study.vectors`."""
    if "aggregation" not in choice:
        choice = {**choice, "dim": config.dim, "projection": config.projection}
    choice = {**choice, "n_iter": config.n_iter, "nodes": config.nodes}
    return {"graphs": graphs, "configuration": choice, "seed": seed}


def _judged(
    folds: Sequence[Fold], choices: Sequence[dict[str, Any]], grids: list[list[np.ndarray]]
) -> list[dict[str, Any]]:
    """For each fold what validation chose, and how that does; also with the sum alone."""
    from mmxx.graphs.wls import study

    sums = [k for k, choice in enumerate(choices) if choice["readout"] == "sum"]
    found = []
    for fold, by_choice in zip(folds, grids, strict=True):
        accuracy, (c, t, g, k) = study.chosen(by_choice)
        rounds = [study.chosen([grid[:, r : r + 1] for grid in by_choice])[0]
                  for r in range(by_choice[0].shape[1])]  # fmt: skip
        found.append(
            {"accuracy": accuracy, "choice": choices[c], "round": t, "gamma": g, "cost": k,
             "by_round": rounds, "graphs": len(fold.test),
             "sum": study.chosen([by_choice[k] for k in sums])[0] if sums else None}
        )  # fmt: skip
    return found


def _difference(
    results: dict[str, list[dict[str, Any]]], one: str, other: str, what: str = "accuracy"
) -> np.ndarray:
    import numpy as np

    pairs = zip(results[one], results[other], strict=True)
    return np.array([a[what] - b[what] for a, b in pairs])


def _mean(lines: Sequence[dict[str, Any]], what: str = "accuracy") -> float:
    return sum(line[what] for line in lines) / len(lines)


def _best_linear(config: Config, results: dict[str, list[dict[str, Any]]]) -> str:
    from mmxx.graphs.wls import study

    return max((a for a in config.arms if a in study.LINEAR), key=lambda a: _mean(results[a]))


def _judge(
    config: Config, run: Run, results: dict[str, list[dict[str, Any]]], seeds: list[int]
) -> None:
    """The claims, of the trees or of a public file."""
    from mmxx.graphs.wls.card import _BZR, _ENZYMES, _SYNTHIE
    from mmxx.lab.folder import sha256_of

    wls, plain = _mean(results["WLS"]), _mean(results["WLS without cat"])
    linear = _mean(results[_best_linear(config, results)])
    known = {_SYNTHIE: "synthie-", _ENZYMES: "enzymes-", _BZR: "bzr-"}
    prefix = known.get(sha256_of(config.data) or "", "")
    for start in {"", prefix}:
        run.measure(f"{start}accuracy", wls, baseline=linear, control=plain, seeds=seeds)
        if start != "bzr-":  # where it does not help, nor is it said to
            run.measure(f"{start}cat", wls - plain, control=plain, seeds=seeds)
        if start in ("", "synthie-"):
            run.measure(f"{start}beats-linear", wls - linear, baseline=linear, seeds=seeds)
    if prefix in ("enzymes-", "bzr-"):
        if not {"WWL", "GCN"} <= set(config.arms) or "sum" not in config.readouts:
            run.not_measured(f"{prefix}beats-linear", "WWL, GCN or the sum was not asked for")
        else:
            rival = max(_mean(results[arm], "sum") for arm in ("WWL", "GCN"))
            ours = _mean(results["WLS"], "sum")
            run.measure(f"{prefix}beats-linear", ours - rival, baseline=rival, seeds=seeds)


# -- what is shown -----------------------------------------------------------------------------


def _tell(config: Config, run: Run, results: dict[str, list[dict[str, Any]]]) -> None:
    """Tables and pictures of the accuracies."""
    import numpy as np

    from mmxx.graphs.wls import study
    from mmxx.lab.report import figures

    rows, widths = [], {}
    for arm, lines in results.items():
        scores = np.array([line["accuracy"] for line in lines])
        widths[arm] = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
        behind = _difference(results, "WLS", arm)
        half = study.interval(behind)
        rows.append(
            {"arm": arm, "accuracy [%]": round(scores.mean(), 2), "sd of folds": round(
                widths[arm], 2), "WLS ahead by": round(behind.mean(), 2),
             "± (95 %, same folds)": round(half, 2) if len(scores) > 1 else None,
             "folds": len(scores)}
        )  # fmt: skip
    run.table("accuracy", rows, "Nested cross-validation: what validation chose, on the test part.")
    means = {arm: _mean(lines) for arm, lines in results.items()}
    run.figure(
        "accuracy", figures.bars(means, ylabel="accuracy [%]", errors=widths),
        "Accuracy and its standard deviation over folds.",
    )  # fmt: skip
    rounds = {
        arm: (range(config.n_iter + 1), np.mean([line["by_round"] for line in lines], axis=0))
        for arm, lines in results.items()
    }
    run.figure(
        "rounds", figures.curves(rounds, xlabel="round", ylabel="accuracy [%]"),
        "Accuracy of each round alone; round 0 is the attributes, read out.",
    )  # fmt: skip
    picks = [
        {"arm": arm, "fold": number, "accuracy [%]": round(line["accuracy"], 2),
         "round": line["round"], "log10 γ": _power(config, "gamma", line["gamma"]),
         "log10 C": _power(config, "cost", line["cost"]), "graphs judged": line["graphs"],
         "setting": ", ".join(f"{k} {v}" for k, v in line["choice"].items())}
        for arm, lines in results.items() for number, line in enumerate(lines)
    ]  # fmt: skip
    run.table("folds", picks, "What validation chose in each fold.")


def _power(config: Config, what: str, place: int) -> float:
    import math

    from mmxx.graphs.wls import study

    values = study.GAMMAS if what == "gamma" else study.COSTS
    if config.grid == "authors":
        values = study.AUTHORS_GRID
    return round(math.log10(values[place]), 1)


def _show(config: Config, run: Run, graphs: Graphs, lines: list[dict[str, Any]]) -> None:
    """Where graphs lie, by WLS and without a transform, and what is near one of them."""
    import numpy as np

    from mmxx.graphs.wls import study
    from mmxx.graphs.wls.kernel import squared_distances

    best = max(lines, key=lambda line: line["accuracy"])
    gammas = study.AUTHORS_GRID if config.grid == "authors" else study.GAMMAS
    places, D = {}, None
    for name, choice in (
        ("WLS", best["choice"]),
        ("WLSLin", {"kernel": "linear", "readout": best["choice"]["readout"]}),
    ):
        X = study.vectors(_item(config, graphs, choice, run.seed))[best["round"]]
        squared = squared_distances(X, X)
        D = squared if D is None else D
        places[name] = study.principal(squared, gammas[best["gamma"]])
    assert D is not None
    run.figure(
        "map", _map(places, _classes(graphs)),
        f"Kernel PCA of the graphs after round {best['round']}, coloured by class.",
    )  # fmt: skip
    near = np.argsort(D[config.show], kind="stable")[:11]
    targets = _classes(graphs)
    rows = [
        {"graph": int(k), "class": int(targets[k]), "nodes": int(np.diff(graphs.offsets)[k]),
         "distance": float(f"{np.sqrt(D[config.show, k]):.4g}")}
        for k in near
    ]  # fmt: skip
    run.table("nearest", rows, f"The graphs nearest to graph {config.show}, which is the first.")


def _patterns(config: Config, run: Run) -> None:
    """Networks that find the nodes of a planted pattern: a table, without a claim."""
    from mmxx.graphs.wls import patterns
    from mmxx.lab.report import figures

    items = [
        {"arm": arm, "graphs": config.patterns, "steps": config.pattern_steps, "lr": 3e-3,
         "seed": run.seed}
        for arm in patterns.NETS
    ]  # fmt: skip
    found = dict(zip(patterns.NETS, run.once("patterns", run.map, patterns.trained, items),
                     strict=True))  # fmt: skip
    rows = [
        {"network": arm, "accuracy [%]": round(float(result["accuracy"]), 2),
         "parameters": result["parameters"]}
        for arm, result in found.items()
    ]  # fmt: skip
    run.table("patterns", rows, "Nodes of planted patterns that were found, mean of both classes.")
    lines = {
        arm: (range(0, 10 * len(result["loss"]), 10), result["loss"])
        for arm, result in found.items()
    }
    run.figure(
        "patterns", figures.curves(lines, xlabel="step", ylabel="cross-entropy"),
        "Training to find planted patterns.",
    )  # fmt: skip


def _map(places: dict[str, np.ndarray], targets: np.ndarray) -> Figure:
    import numpy as np
    from matplotlib.figure import Figure

    from mmxx.lab.report.figures import COLOURS

    figure = Figure(figsize=(5.2, 2.7), layout="constrained")
    shapes = "o^sDv<>PX*"
    both = figure.subplots(1, len(places))
    for axes, (name, points) in zip(both, places.items(), strict=True):
        for k, label in enumerate(np.unique(targets)):
            x, y = points[targets == label].T
            axes.scatter(x, y, s=9, color=COLOURS[k % len(COLOURS)], marker=shapes[k % 10],
                         alpha=0.8, linewidth=0, label=str(label))  # fmt: skip
        axes.set_title(name, fontsize=10, loc="left")
        axes.set(xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(False)
    both[-1].legend(frameon=False, fontsize=8, title="class", title_fontsize=8, loc="center left",
                bbox_to_anchor=(1, 0.5))  # fmt: skip
    return figure
