"""Does evolution find learning algorithms, where random search and no selection do not?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mmxx.discovery.automl_zero.studies import Arm, Find, Study
    from mmxx.lab.run import Run

_OWN_TURN = 5_000_000  # training examples between two checkpoints of a search on one's own table
_SELECTS = True  # the sham: evolution whose parents are drawn blindly
_CLAIMS = {
    "fixed": ("needs-selection", "five-times"), "nn": ("repairs",),
    "digits": ("improves-on-digits",),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Evolve linear regression from random programs; --full adds harder tasks, and digits."""

    tasks: tuple[Literal["fixed", "linear", "affine", "nn", "digits"], ...] = ("fixed", "linear")
    """Easy space with all arms; the authors' demonstration; with a bias; repair; digits."""
    discover: Literal["fixed", "linear"] = "fixed"
    """Which of the two judges whether linear regression is discovered."""
    population: int = 0
    """Individuals; 0 is the authors' number, 1,000, and 100 for digits."""
    fixed_seeds: int = 1
    """Repetitions of the easy space."""
    fixed_restarts: int = 30
    """Searches of each arm at most; a repetition ends at its first success."""
    fixed_steps: int = 10_000_000
    """Training examples of each search."""
    linear_seeds: int = 1
    """Repetitions of the demonstration."""
    linear_restarts: int = 1
    """Its searches at most."""
    linear_steps: int = 20_000_000
    """Training examples of each."""
    affine_seeds: int = 4
    """Repetitions with a bias."""
    affine_restarts: int = 2
    """Searches at most."""
    affine_steps: int = 50_000_000
    """Training examples of each."""
    nn_seeds: int = 4
    """Repetitions of the repair of a damaged network."""
    nn_steps: int = 100_000_000
    """Training examples of each."""
    digits_steps: int = 150_000_000
    """Training examples of the search on digits."""
    digits_pairs: int = 10
    """Pairs of digits that the search sees."""
    digits_projections: int = 10
    """Projections of each pair in selecting and reporting."""
    islands: int = 1
    """Populations that exchange programs, for the demonstration; 1 is without."""
    data: Path | None = None
    """A table of one's own: an algorithm is evolved for it, beside the hand-written ones."""
    target: str = ""
    """Its column to predict; by default the last. Numbers of more than ten values are regressed."""
    data_steps: int = 20_000_000
    """Training examples of the search on it."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "population" else 1
            if type(value) is int and value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must name one or more, each once, got {self.tasks}")
        if not 1 <= self.digits_pairs <= 36:
            raise ValueError(f"digits_pairs must be 1 to 36, got {self.digits_pairs}")
        if self.islands > 1 and 0 < self.population < 2:
            raise ValueError(f"population must be 2 or more with islands, got {self.population}")


_EVERYTHING = ("fixed", "linear", "affine", "nn", "digits")
TINY = Config(
    tasks=_EVERYTHING, population=50, fixed_restarts=1, fixed_steps=20_000, linear_steps=20_000,
    affine_seeds=1, affine_restarts=1, affine_steps=20_000, nn_seeds=1, nn_steps=60_000,
    digits_steps=40_000, digits_pairs=1, digits_projections=1, islands=2, data_steps=20_000,
)  # fmt: skip
QUICK = Config()
FULL = Config(
    tasks=_EVERYTHING, discover="linear", fixed_seeds=20, fixed_restarts=10, linear_seeds=8,
    linear_restarts=16, linear_steps=100_000_000,
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure the claims, or evolve an algorithm for the table that the user brings."""
    if config.data is not None:
        for claim in (
            "discovers",
            "needs-selection",
            "five-times",
            "repairs",
            "improves-on-digits",
        ):
            run.not_measured(claim, "the user's data were run instead")
        _own(config, run)
        return
    from mmxx.discovery.automl_zero import studies

    for task, claims in _CLAIMS.items():
        for claim in claims if task not in config.tasks else ():
            run.not_measured(claim, f"{task} was not run")
    if config.discover not in config.tasks:
        run.not_measured("discovers", f"{config.discover} was not run")
    parts, pictures = _studies(config, run), None
    if "digits" in config.tasks:
        pictures = _pictures(run)
        parts = [
            studies.digit_study(
                *pictures, _arm("evolution"), run.seed, config.digits_steps, config.digits_pairs,
                config.population,
            ),
            *parts,
        ]  # fmt: skip
    items, finds = _searched(run, parts)
    if pictures is not None:
        items, (on_digits, *finds) = items[1:], finds
        _digits(config, run, pictures, on_digits)
    _tell(run, items, finds)
    _judge_linear(config, run, items, finds)
    if "nn" in config.tasks:
        _judge_repair(run, items, finds)
    if config.islands > 1:
        _islands(config, run)


@contextmanager
def sham() -> Iterator[None]:
    """Evolution without selection in evolution's place: tournaments of one."""
    global _SELECTS
    _SELECTS = False
    try:
        yield
    finally:
        _SELECTS = True


def _arm(arm: Arm) -> Arm:
    return "no selection" if arm == "evolution" and not _SELECTS else arm


def _studies(config: Config, run: Run) -> list[Study]:
    """All searches, the long ones first, restarts of the easy space in parts of ten.

    The arms of a seed stand beside one another.
    """
    from mmxx.discovery.automl_zero.studies import ARMS, Study

    items: list[Study] = []
    plan = (
        ("linear", "demo", config.linear_seeds, config.linear_restarts, config.linear_steps),
        ("affine", "affine", config.affine_seeds, config.affine_restarts, config.affine_steps),
        ("nn", "repair", config.nn_seeds, 1, config.nn_steps),
        ("fixed", "fixed", config.fixed_seeds, config.fixed_restarts, config.fixed_steps),
    )
    for task, name, seeds, restarts, steps in plan:
        if task in config.tasks:
            arms: tuple[Arm, ...] = ARMS if task in ("fixed", "affine") else ("evolution",)
            items += [
                Study(name, _arm(arm), run.seed + seed, part, steps, config.population)
                for seed in range(seeds)
                for arm in arms
                for part in _parts(restarts, 10 if task == "fixed" else restarts)
            ]
    return items


def _parts(count: int, most: int) -> list[range]:
    return [range(start, min(start + most, count)) for start in range(0, count, most)]


def _searched(run: Run, parts: list[Study]) -> tuple[list[Study], list[Find]]:
    """All studies, round by round; after each the best programs are shown and kept."""
    from mmxx.discovery.automl_zero.turns import Searches, advance

    searches = Searches(parts)
    loop = run.loop("searches", searches.rounds, state={"searches": searches}, every=1)
    for _ in loop:
        searches.absorb(run.map(advance, searches.turns()))
        run.show(f"best so far: {searches.told()}")
        for name, (_, program) in searches.best().items():
            run.artifact(f"{name}-raw.txt", program, "The best program so far.")
        if not searches.turns():
            loop.finish()
    return searches.merged()


def _by_arm(name: str, items: list[Study], finds: list[Find]) -> dict[str, list[Find]]:
    """The finds of a study; under the sham two arms bear one name, of which the first is ours."""
    from mmxx.discovery.automl_zero.studies import ARMS

    ours = [f for item, f in zip(items, finds, strict=True) if item.name == name]
    return {arm: ours[place :: len(ARMS)] for place, arm in enumerate(ARMS)}


def _tell(run: Run, items: list[Study], finds: list[Find]) -> None:
    """The table of all searches, and the best program of the first evolution of each kind."""
    rows = [
        {
            "study": item.name, "arm": item.arm, "seed": item.seed, "success": find.success,
            "restart": find.restart, "search fitness": find.result.fitness,
            "selection fitness": find.select, "final fitness": find.final,
            "programs": find.programs, "training examples": find.steps,
            "cache hits": find.result.stats["fec_hits"],
        }
        for item, find in zip(items, finds, strict=True)
    ]  # fmt: skip
    if rows:
        run.table("searches", rows, "Every search, by the best of its restarts.")
    told: set[str] = set()
    for item, find in sorted(zip(items, finds, strict=True), key=lambda pair: -pair[1].select):
        if item.arm != "random" and item.name not in told:
            told.add(item.name)
            _artifacts(run, item, find)


def _artifacts(run: Run, item: Study, find: Find) -> None:
    """A program as text, raw and pruned, as JSON and Python; and how it came about."""
    import numpy as np

    from mmxx.discovery.automl_zero import studies
    from mmxx.lab.report.figures import bars, curves

    best, name = find.result.best, item.name
    short = best.pruned(studies.search_tasks(item, find.restart)[:4]).normalized()
    run.artifact(f"{name}-raw.txt", best.text(), "The best program as it was found.")
    run.artifact(
        f"{name}.txt", short.text(), "Without what does not matter, addresses in order of use."
    )
    run.artifact(f"{name}.json", best.pruned().to_json(), "For Program.from_json.")
    run.artifact(f"{name}.py", short.to_python(), "Runs with numpy alone.")
    lineage = [
        {**entry._asdict(), "fitness": float(f"{entry.fitness:.6g}")}
        for entry in find.result.lineage
    ]
    run.table(f"lineage-{name}", lineage, "Births that improved the best program's line.")
    ops: dict[str, int] = {}
    for instruction in short:
        ops[instruction.kind.name] = ops.get(instruction.kind.name, 0) + 1
    if ops:
        counts = [{"operation": op, "times": times} for op, times in sorted(ops.items())]
        run.table(f"operations-{name}", counts, "Operations of the best program, pruned.")
        run.figure(
            f"operations-{name}", bars({op: ops[op] for op in sorted(ops)}, ylabel="times"),
            f"{name}: operations of the best program, pruned.",
        )  # fmt: skip
    history = find.result.history
    x = np.array([entry.programs for entry in history] + [find.result.stats["programs"]])
    y = np.array([entry.fitness for entry in history] + [find.result.fitness])
    figure = curves(
        {"the best so far": (x, y)}, xlabel="programs", ylabel="fitness on the search's tasks",
        logx=True,
    )  # fmt: skip
    run.figure(f"fitness-{name}", figure, f"{name}: the restart that was best.")


def _judge_linear(config: Config, run: Run, items: list[Study], finds: list[Find]) -> None:
    """Shares of success, arm beside arm."""
    from mmxx.discovery.automl_zero import studies
    from mmxx.lab.report.figures import bars

    shares: dict[str, float] = {}
    for name in ("fixed", "affine"):
        arms = _by_arm(name, items, finds)
        if not arms["evolution"]:
            continue
        rows = []
        for arm, found in arms.items():
            hits, count = sum(f.success for f in found), len(found)
            low, high = studies.wilson(hits, count)
            rows.append(
                {
                    "arm": arm, "successes": hits, "seeds": count, "share": hits / count,
                    "from": low, "to": high, "median programs": studies.median_programs(found),
                    "mean selection fitness": sum(f.select for f in found) / count,
                }
            )  # fmt: skip
        run.table(
            f"success-{name}", rows, f"{name}: seeds that succeed, with 95 per cent intervals."
        )
        values = {row["arm"]: row["share"] for row in rows}
        errors = {row["arm"]: (row["to"] - row["from"]) / 2 for row in rows}
        figure = bars(values, ylabel="share of seeds that succeed", errors=errors)
        run.figure(f"success-{name}", figure, f"{name}: half widths of Wilson's intervals.")
        if name == "fixed":
            shares = values
            _measure_fixed(config, run, rows)
    demo = [f for item, f in zip(items, finds, strict=True) if item.name == "demo"]
    if config.discover == "linear" and demo:
        share = sum(f.success for f in demo) / len(demo)
        seeds = [run.seed + s for s in range(len(demo))]
        run.measure("discovers", share, seeds=seeds, note="the authors' demonstration")
    elif config.discover == "fixed" and shares:
        seeds = [run.seed + s for s in range(config.fixed_seeds)]
        run.measure(
            "discovers", shares["evolution"], baseline=shares["random"],
            control=shares["no selection"], seeds=seeds,
        )  # fmt: skip


def _measure_fixed(config: Config, run: Run, rows: list[dict[str, Any]]) -> None:
    ours, random, blind = rows
    seeds = [run.seed + s for s in range(config.fixed_seeds)]
    margin = ours["share"] - max(random["share"], blind["share"])
    shares = {"baseline": random["share"], "control": blind["share"], "seeds": seeds}
    run.measure("needs-selection", margin, **shares)
    ratio = ours["successes"] / max(1, random["successes"])
    run.measure(
        "five-times", ratio, **shares,
        note=f"{ours['successes']} against {random['successes']} of {ours['seeds']} seeds",
    )  # fmt: skip


def _judge_repair(run: Run, items: list[Study], finds: list[Find]) -> None:
    """The repaired network beside the whole and the damaged one."""
    from mmxx.discovery.automl_zero import DAMAGED_NEURAL_NET, NEURAL_NET, evaluate, studies

    rows = []
    for item, find in zip(items, finds, strict=True):
        if item.name == "repair":
            tasks = studies.judging_tasks(item, 1)
            whole, damaged = evaluate([NEURAL_NET, DAMAGED_NEURAL_NET], tasks).mean(1).tolist()
            rows.append(
                {
                    "seed": item.seed, "evolved": find.final, "whole": whole, "damaged": damaged,
                    "repaired": find.final >= 0.95 * whole,
                }
            )  # fmt: skip
    run.table(
        "repair", rows, "Fitness on 100 tasks of two-layer teachers that nothing was chosen by."
    )
    share = sum(row["repaired"] for row in rows) / len(rows)
    note = f"fitness of the whole network {rows[0]['whole']:.3f}, damaged {rows[0]['damaged']:.3f}"
    run.measure("repairs", share, seeds=[row["seed"] for row in rows], note=note)


def _pictures(run: Run) -> tuple[Any, Any]:
    """Images, float64 [n, 64], and labels, int [n], of all digits."""
    import numpy as np

    from mmxx.data import digits

    train, test = digits()
    run.source(train.source)
    images = np.concatenate([train.images, test.images]).reshape(-1, 64).astype(np.float64)
    assert train.labels is not None
    assert test.labels is not None
    return images, np.concatenate([train.labels, test.labels])


def _digits(config: Config, run: Run, pictures: tuple[Any, Any], find: Find) -> None:
    """What evolved from the network on pairs of digits, on pairs that were held out."""
    from mmxx.discovery.automl_zero import studies

    found = run.once(
        "digits", studies.judge_digits, *pictures, run.seed, config.digits_pairs,
        config.digits_projections, find.result,
    )  # fmt: skip
    run.artifact("digits-raw.txt", find.result.best.text(), "The best on the search's tasks.")
    run.table(
        "digits",
        [{"algorithm": name, "accuracy": value} for name, value in found["accuracy"].items()],
        "Mean accuracy on the nine held-out pairs.",
    )
    run.artifact("digits.txt", found["program"], "The chosen program, pruned.")
    accuracy = found["accuracy"]
    run.measure(
        "improves-on-digits", 100 * (accuracy["evolved"] - accuracy["network"]),
        baseline=100 * accuracy["network"],
        note=f"evolved {accuracy['evolved']:.2%}, linear {accuracy['linear']:.2%}, "
        f"a support vector machine {accuracy['support vector machine']:.2%}",
    )  # fmt: skip


def _islands(config: Config, run: Run) -> None:
    """The demonstration's budget on several islands."""
    from mmxx.discovery.automl_zero import studies

    def rounds(epochs: int, state: dict[str, Any]) -> Iterator[int]:
        for epoch in run.loop("islands", epochs, state={"state": state}, every=1):
            yield epoch
            run.show(f"islands: fitness {state['best']:.6f} after epoch {epoch + 1}")

    found = studies.on_islands(
        run.seed, config.islands, config.linear_steps, config.population, map=run.map,
        rounds=rounds,
    )  # fmt: skip
    run.table("islands", [found], "The demonstration on islands that exchange programs.")


def _own(config: Config, run: Run) -> None:
    """An algorithm for the user's table."""
    from mmxx.data import load
    from mmxx.discovery.automl_zero import own

    assert config.data is not None
    table: Any = load(config.data, kinds=("table",))
    run.source(table.source)
    item, notes = own.read_table(table, config.target, run.seed, config.data_steps)
    for note in notes:
        run.note(note)
    found = own.score(item, _in_turns(run))
    run.table("scores", found["scores"], f"On a quarter of the rows, held out: {found['what']}.")
    run.artifact("own.txt", found["program"], "The chosen program, pruned.")
    run.artifact("own.json", found["json"], "For Program.from_json.")
    run.artifact("own.py", found["python"], "Runs with numpy alone.")


def _in_turns(run: Run) -> Any:
    """What evolves for the user's table: it can be stopped and go on, and tells the best so far."""

    def search(
        evolution: Any, tasks: Any, *, max_train_steps: int, target_fitness: float,
        random_state: int,
    ) -> Any:  # fmt: skip
        state, count = evolution.start(tasks), -(-max_train_steps // _OWN_TURN)
        loop = run.loop("evolution", count, state=state.arrays(), every=1)
        for turn in loop:
            evolution.step(
                state, tasks, steps=min(max_train_steps, (turn + 1) * _OWN_TURN),
                target_fitness=target_fitness, random_state=random_state,
            )  # fmt: skip
            run.show(f"best so far: fitness {state.fitness:.6f} after {state.programs} programs")
            best = evolution.result(state).best
            run.artifact("own-raw.txt", best.text(), "The best on the rows of the search.")
            if state.fitness >= target_fitness:
                loop.finish()
        return evolution.result(state)

    return search
