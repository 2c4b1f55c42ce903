"""Does AI Feynman find the formulas behind tables, with units, without, and in noise?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmxx.discovery.feynman.arms import Task
    from mmxx.discovery.feynman.own import Own
    from mmxx.discovery.feynman.regressor import AIFeynmanRegressor
    from mmxx.discovery.feynman.search import Map
    from mmxx.discovery.feynman.solve import Formula
    from mmxx.lab.run import Run

_AT_ONCE, _NETWORKS_AT_ONCE = 20, 4  # tasks between two checkpoints
_NEVER = 1_000_000
_SHAM = False  # whether the baselines stand in the method's place


@dataclass(frozen=True)
class Config:
    """Find the formulas behind equations of physics, or behind your own table."""

    equations: int = 12
    """How many: 12 chosen ones, then others in the table's order with at most six variables."""
    rows: int = 1000
    """Rows of each table."""
    seeds: int = 1
    """Repetitions of every arm."""
    max_formulas: int = 6_000_000
    """Formulas that brute force may try on clean data, for each equation and arm."""
    noisy_formulas: int = 6_000_000
    """The same for each level of noise."""
    noise: tuple[float, ...] = (0.01,)
    """Standard deviations of the noise on y, in units of its root mean square."""
    whole: bool = False
    """Compare with the whole search without units instead of brute force alone."""
    networks: int = 0
    """Equations, clean or in noise of 0.01, that a network may help with; then the bonus ones."""
    steps: int = 150
    """Steps of each network, by Levenberg and Marquardt."""
    demonstrations: int = 1
    """Networks that are to show a generalised symmetry."""
    bonus: int = 0
    """Of the 20 bonus equations."""
    real: bool = False
    """Whether to fit Kepler's and Langmuir's measurements."""
    densities: int = 0
    """Probability densities to find from samples, of 3."""
    flow_steps: int = 400
    """Steps of the normalising flow that learns a density."""
    data: Path | None = None
    """A table of one's own."""
    density: bool = False
    """Whether its rows are samples of a density, whose formula is looked for."""
    target: str = ""
    """Its column to predict; by default the last column of numbers."""
    units: Path | None = None
    """A table of units for it: a column of names, one of units ("kg m/s^2")."""

    def __post_init__(self) -> None:
        least = {
            "equations": 1, "rows": 20, "seeds": 1, "max_formulas": 1, "noisy_formulas": 1,
            "networks": 0, "steps": 1, "demonstrations": 0, "bonus": 0, "densities": 0,
            "flow_steps": 1,
        }  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name, high in (("bonus", 20), ("densities", 3)):
            if getattr(self, name) > high:
                raise ValueError(f"{name} must be at most {high}, got {getattr(self, name)}")
        if any(not 0 < level < 10 for level in self.noise) or 0.01 not in self.noise:
            raise ValueError(f"noise must be between 0 and 10, and have 0.01, got {self.noise}")
        if self.density and (self.data is None or self.target or self.units is not None):
            raise ValueError("density needs data, and takes neither target nor units")
        if self.units is not None and self.data is None:
            raise ValueError(f"units needs data, got units {self.units} without data")


TINY = Config(
    equations=1, rows=40, max_formulas=5000, noisy_formulas=5000, networks=1, steps=10, bonus=1,
    real=True, densities=1, flow_steps=5,
)  # fmt: skip
QUICK = Config()
FULL = Config(
    equations=40, max_formulas=12_000_000, noise=(1e-4, 1e-3, 1e-2, 1e-1), whole=True, networks=15,
    demonstrations=3, bonus=20, real=True, densities=3,
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure the claims, or search for the formula behind the user's table."""
    if config.data is not None:
        _own(config, run)
        return
    from mmxx.discovery.feynman import arms

    names = arms.chosen(config.equations)
    seeds = [run.seed + s for s in range(config.seeds)]
    without = "without" if config.whole else "brute force"

    def clean(name: str, arm: str, seed: int) -> Task:
        return arms.Task(name, arm, config.rows, 0.0, seed, config.max_formulas)

    made = [
        *(clean(name, arm, seed) for arm in ("units", without, "polynomial")
          for seed in seeds for name in names),
        *(arms.Task(name, "units", config.rows, level, seed, config.noisy_formulas)
          for level in config.noise for seed in seeds for name in names),
        *(clean(f"test_{k + 1}", "without", run.seed) for k in range(config.bonus)),
        *(arms.Task("", "module", max(2 * config.rows, 100), 0.0, run.seed + k, 1, config.steps)
          for k in range(config.demonstrations)),
    ]  # fmt: skip
    tasks = sorted(made, key=lambda task: task.arm != "module")  # the longest first
    found = dict(zip(tasks, _in_rounds(run, "arms", tasks, _AT_ONCE, "recovery"), strict=True))
    if config.networks:
        found |= _with_networks(config, run, found)
    results = [(task, found[task]) for task in made]
    _recovery(run, names, seeds, results, without)
    _noise(config, run, names, seeds, results)
    _pictures(run, names, results, without)
    _modules(run, results)
    if config.bonus:
        rows = [
            {"equation": task.name, "found": result["found"] or "-", "best": result["best"],
             "bits": result["bits"]}
            for task, result in results if task.name.startswith("test_")
        ]  # fmt: skip
        solved = sum(row["found"] != "-" for row in rows)
        run.table("bonus", rows, f"Bonus equations without units: {solved} of {len(rows)} found.")
    if config.real:
        _real(config, run)
    if config.densities:
        _densities(config, run)


@contextmanager
def sham() -> Iterator[None]:
    """A polynomial in the search's place, and the largest error in the mean bits'."""
    global _SHAM
    before, _SHAM = _SHAM, True
    try:
        yield
    finally:
        _SHAM = before


def _in_rounds(
    run: Run, name: str, tasks: list[Task], at_once: int, table: str
) -> list[dict[str, Any]]:
    """What comes of each task, some of them at a time, each time shown and kept."""
    from mmxx.discovery.feynman.arms import work

    results: list[dict[str, Any]] = []
    for step in run.loop(name, -(-len(tasks) // at_once), state={"results": results}, every=1):
        results += run.map(work, tasks[step * at_once : (step + 1) * at_once])
        rows = [
            {"equation": task.name, "arm": task.arm, "noise": task.noise, "seed": task.seed,
             "found": result["found"] or "-", "best": result["best"], "bits": result["bits"]}
            for task, result in zip(tasks, results, strict=False) if task.arm != "module"
        ]  # fmt: skip
        found = sum(row["found"] != "-" for row in rows)
        run.show(f"{name}: {found} of {len(rows)} found, {len(tasks) - len(results)} to go")
        run.table(table, rows, "What was found so far.")
    return results


def _with_networks(
    config: Config, run: Run, found: dict[Task, dict[str, Any]]
) -> dict[Task, dict[str, Any]]:
    """The tasks that were not solved, once more with a network."""
    from dataclasses import replace

    left = [task for task, result in found.items() if not result.get("found", True)]
    hard = [task for task in left if task.arm == "units" and task.noise in (0.0, 0.01)]
    bonus = [task for task in left if task.name.startswith("test_")]
    open_ = hard[: config.networks] + bonus
    most = dict.fromkeys(bonus, config.noisy_formulas)  # they are many
    again = [
        replace(t, steps=config.steps, max_formulas=most.get(t, t.max_formulas)) for t in open_
    ]
    results = _in_rounds(run, "networks", again, _NETWORKS_AT_ONCE, "networks")
    rows = [
        {"equation": task.name, "noise": task.noise, "found": result["found"] or "-",
         "taken apart": result["tree"]}
        for task, result in zip(open_, results, strict=True)
    ]  # fmt: skip
    run.table("networks", rows, "Equations that were left, with a network.")
    return {
        task: found[task] | {key: result[key] for key in ("found", "best", "bits")}
        for task, result in zip(open_, results, strict=True)
        if result["found"]
    }


def _recovery(
    run: Run, names: list[str], seeds: list[int], results: list[tuple[Task, Any]], without: str
) -> None:
    counts = dict.fromkeys(("units", without, "polynomial"), 0)
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for task, result in results:
        if task.noise or task.arm not in counts or task.name not in names:
            continue
        counts[task.arm] += bool(result["found"])
        row = rows.setdefault((task.name, task.seed), {"equation": task.name, "seed": task.seed})
        row[task.arm] = result["found"] or "-"
        if task.arm != "polynomial":
            row[f"{task.arm}, formulas"] = result["seen"]
    each = {arm: count / len(seeds) for arm, count in counts.items()}
    method = "polynomial" if _SHAM else "units"
    share = 100 / len(names)
    run.measure(
        "recovers", share * each[method], baseline=share * each[without],
        control=share * each["polynomial"], seeds=seeds,
    )  # fmt: skip
    run.measure(
        "units-help", each[method] - each[without], baseline=each[without],
        control=each["polynomial"], seeds=seeds,
    )  # fmt: skip
    run.measure("polynomial-fails", each["polynomial"], seeds=seeds)
    run.table("recovery", list(rows.values()), "Clean data: what was found, or a dash.")


def _noise(
    config: Config, run: Run, names: list[str], seeds: list[int], results: list[tuple[Task, Any]]
) -> None:
    from statistics import median

    noisy = {(task.name, task.seed, task.noise): result for task, result in results if task.noise}
    rule = "rule_2019" if _SHAM else "found"
    levels = sorted(config.noise)
    rows = []
    tolerated: dict[str, list[float]] = {"found": [], "rule_2019": []}
    clean = {(task.name, task.seed) for task, result in results
             if task.arm == "units" and not task.noise and result["found"]}  # fmt: skip
    for name in names:
        for seed in seeds:
            row: dict[str, Any] = {"equation": name, "seed": seed}
            for level in levels:
                result = noisy[name, seed, level]
                row[f"{level:g}"] = result["found"] or "-"
                row[f"{level:g}, largest error"] = result["rule_2019"] or "-"
                row[f"{level:g}, on the way"] = "yes" if result["ever_2019"] else "no"
            rows.append(row)
            if (name, seed) in clean:
                for key, found in tolerated.items():
                    kept = [level for level in levels if noisy[name, seed, level][key]]
                    found.append(max(kept, default=levels[0] / 10))
    run.table(
        "noise", rows,
        "What was found in noise by mean bits; whether the formula of least largest error is the "
        "truth; and whether one on the way to it was.",
    )  # fmt: skip
    counts = {
        key: sum(bool(noisy[name, seed, 0.01][key]) for name in names for seed in seeds)
        for key in ("found", "rule_2019")
    }
    total = len(names) * len(seeds)
    run.measure(
        "noise", 100 * counts[rule] / total, baseline=100 * counts["rule_2019"] / total,
        seeds=seeds,
    )  # fmt: skip
    if counts[rule]:
        run.measure("noise-rule", counts["rule_2019"] / counts[rule], seeds=seeds)
    else:
        run.measure("noise-rule", 1.0, seeds=seeds, note="nothing was found by the method")
    if tolerated["found"]:
        ours, theirs = median(tolerated[rule]), median(tolerated["rule_2019"])
        run.measure("noise-level", ours / theirs, baseline=theirs, seeds=seeds)


def _pictures(run: Run, names: list[str], results: list[tuple[Task, Any]], without: str) -> None:
    """What each arm found, and frontiers in noise with the truth on them."""
    from mmxx.lab.report.figures import bars, curves

    found: dict[str, list[bool]] = {}
    shown: dict[str, Any] = {}
    for task, result in results:
        if task.name not in names:
            continue
        arm = "units, polynomials, brute force" if task.arm == "units" else task.arm
        if task.noise:
            found.setdefault(f"{arm}, noise {task.noise:g}", []).append(bool(result["found"]))
            key = f"noise {task.noise:g}, least largest error"
            found.setdefault(key, []).append(bool(result["rule_2019"]))
            if result["place"] > 1 and task.noise == 0.01:
                shown.setdefault(task.name, result)
        elif task.arm in ("units", without, "polynomial"):
            found.setdefault(f"{arm}, clean", []).append(bool(result["found"]))
    shares = {label: 100 * sum(each) / len(each) for label, each in found.items()}
    run.figure("found", bars(shares, ylabel="equations found, %"), "What each arm finds.")
    lines: dict[str, tuple[Any, Any]] = {}
    for name in list(shown)[:3]:
        points, place = shown[name]["frontier"], shown[name]["place"]
        lines[name] = [bits for bits, _ in points], [error for _, error in points]
        lines[f"{name}: the truth"] = points[place][:1], points[place][1:]
    if lines:
        figure = curves(lines, xlabel="complexity / bits", ylabel="mean error / bits")
        run.figure(
            "frontiers", figure,
            "Frontiers in noise of one per cent; a dot is the formula that was looked for. What is "
            "longer follows the noise.",
        )  # fmt: skip


def _modules(run: Run, results: list[tuple[Task, Any]]) -> None:
    found = [(task, result) for task, result in results if task.arm == "module"]
    if not found:
        return
    rows = [
        {"seed": task.seed, "network's error": result["error"]}
        | {f"signal of {key}": value for key, value in sorted(result["signals"].items())}
        for task, result in found
    ]
    run.table("modules", rows, "z sqrt(x² + y²): signals in decimal orders of magnitude.")
    right = sum(result["set"] == [0, 1] for _, result in found)
    run.measure("modularity", right / len(found), seeds=[task.seed for task, _ in found])


def _real(config: Config, run: Run) -> None:
    """Measurements of planets, stars and adsorption."""
    from mmxx.discovery.feynman import real

    tasks = [(name, max(1, config.max_formulas // 10)) for name in real.FILES]
    rows = [row for part in run.once("real", run.map, real.fit, tasks) for row in part]
    run.table("real", rows, "Real measurements: the frontier of each table, without a network.")


def _densities(config: Config, run: Run) -> None:
    """Formulas of densities, from samples."""
    from mmxx.discovery.feynman.arms import DENSITIES, Samples, density

    rest = 5 * config.rows, run.seed, config.flow_steps, config.max_formulas // 10 + 1
    tasks = [Samples(name, *rest) for name in list(DENSITIES)[: config.densities]]
    rows = run.once("densities", run.map, density, tasks)
    run.table("densities", rows, "Densities that a flow learnt, and the formula nearest to each.")


def _own(config: Config, run: Run) -> None:
    """The frontier of the user's table."""
    from mmxx.data import load
    from mmxx.discovery.feynman import own
    from mmxx.lab.report.figures import curves

    assert config.data is not None
    for claim in run.card.claims:
        run.not_measured(claim.id, "user data: their formula is not known")
    table: Any = load(config.data, kinds=("table",))
    run.source(table.source)
    if config.density:
        item = own.read_samples(table, config.flow_steps, run.seed)
    else:
        units = None if config.units is None else load(config.units, kinds=("table",))
        item = own.read_table(table, config.target, units)
    for note in item.notes:
        run.note(note)
    model = _fit(config, run, item)
    best = model.best_
    run.note(f"{item.target} = {best.text}")
    run.table(
        "frontier", _rows(model.frontier_), "Formulas of which no other is shorter and better."
    )
    run.artifact("formula.tex", best.latex() + "\n", "The chosen formula.")
    tree = str(model.decomposition_)
    run.artifact("decomposition.txt", tree + "\n", "How the function was taken apart.")
    points = [(f.complexity, f.error_bits) for f in model.frontier_]
    x, bits = zip(*points, strict=True)
    lines = {"frontier": (x, bits), "chosen": ([best.complexity], [best.error_bits])}
    figure = curves(lines, xlabel="complexity / bits", ylabel="mean error / bits")
    run.figure("pareto", figure, "Bits of error against bits of the formula.")
    run.figure("decomposition", _tree(tree), "How the function was taken apart.")


def _fit(config: Config, run: Run, item: Own) -> AIFeynmanRegressor:
    """Fit, showing the best so far; what was found before a stop is read, not searched again."""
    from dataclasses import replace

    model = item.regressor(
        max_formulas=config.max_formulas, network=config.networks > 0, max_iter=config.steps,
        random_state=run.seed,
    )  # fmt: skip
    least = math.inf

    def watch(formulas: list[Formula]) -> None:
        nonlocal least
        formulas = [replace(f, names=item.names) for f in formulas]
        best = min(formulas, key=lambda f: f.error_bits, default=None)
        if best is not None and best.error_bits < least:
            least = best.error_bits
            run.show(
                f"best so far: {best.error_bits:.2f} bits off, {item.target} = {best.text:.80}"
            )
            run.table("frontier", _rows(formulas), "The frontier so far.")

    with _kept(run) as map:
        model.fit(item.X, item.y, map=map, watch=watch)
    model.frontier_ = [replace(f, names=item.names) for f in model.frontier_]
    model.best_ = replace(model.best_, names=item.names)
    for note in model.notes_:
        run.note(note)
    return model


def _rows(formulas: list[Formula]) -> list[dict[str, Any]]:
    return [
        {"formula": f.text, "complexity, bits": f.complexity, "error, bits": f.error_bits,
         "rms error": f.rmse, "found by": f.provenance}
        for f in formulas
    ]  # fmt: skip


@contextmanager
def _kept(run: Run) -> Iterator[Map]:
    """``run.map`` whose results are kept: a search that was stopped reads them, and goes on."""
    from mmxx.discovery.feynman.search import as_tree, from_tree

    journal: list[Any] = []
    loop = run.loop("search", _NEVER, state={"journal": journal}, every=1)
    steps, calls = iter(loop), itertools.count()
    next(steps, None)  # read what was kept

    def kept(fn: Callable[..., Any], items: Iterable[Any]) -> Any:
        call = next(calls)
        if call == len(journal):
            journal.append([as_tree(result) for result in run.map(fn, items)])
            next(steps)  # kept; and stopped here where that was asked for
        return [from_tree(tree) for tree in journal[call]]

    yield kept
    loop.finish()
    next(steps, None)


def _tree(text: str) -> Any:
    from matplotlib.figure import Figure

    lines = text.splitlines()
    figure = Figure(figsize=(5.2, 0.4 + 0.25 * len(lines)))
    for k, line in enumerate(lines):
        level = (len(line) - len(line.lstrip())) / 2
        figure.text(0.02 + 0.06 * level, 1 - (k + 1) / (len(lines) + 1), line.strip(), fontsize=8,
                    parse_math=False)  # fmt: skip
    return figure
