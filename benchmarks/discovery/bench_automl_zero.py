"""Programs a second of the demonstration's search, beside the authors' C++.

The original needs bazel and is in no registry: its rates are recorded on another machine, beside
a calibration loop of ours. CPU seconds of one thread, the best of several turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mmxx.discovery.automl_zero import (
    FEC,
    OPS,
    Instruction,
    Program,
    RandomSearch,
    RegularizedEvolution,
    evaluate,
    evaluation,
    linear_regression_tasks,
)
from mmxx.discovery.automl_zero.ops import DATA, FIRST_OUT
from mmxx.discovery.automl_zero.reference import trace
from mmxx.discovery.automl_zero.studies import DEMO

# google-research/automl_zero, first public version, g++ 12 -O2, memory of 4/5/1 addresses; one
# process, 60 million training examples of the same search
RECORDED = {"with the cache": 29_400, "without": 19_400}
TASKS = linear_regression_tasks(10, random_state=0)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what came of it."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def rate(search: RegularizedEvolution, steps: int, turns: int) -> tuple[float, float, Any]:
    """Programs and training examples a second, the best of several seeds, and counts."""
    best = (0.0, 0.0, {})
    for seed in range(turns):
        spent, found = seconds(
            lambda seed=seed: search.run(
                TASKS, max_train_steps=steps, target_fitness=1.0, random_state=seed
            )
        )
        best = max(
            best, (found.stats["programs"] / spent, found.stats["steps"] / spent, found.stats),
            key=lambda one: one[0],
        )  # fmt: skip
    return best


def costs(features: int = 16, tasks: int = 8) -> dict[str, float]:
    """Nanoseconds of every operation on one task, among others of its kind in Learn."""
    some = linear_regression_tasks(tasks, features, train=400, valid=1, random_state=0)
    found = {}
    for number, op in enumerate(OPS):
        held = {"element": (0.5, 0.1), "cell": (0.5, 0.5, 0.1)}.get(op.data, (0.1,) * DATA[op.data])
        one = Instruction(number, 2, 2, FIRST_OUT.get(op.out, 0) + 1, held)
        times = []
        for count in (0, 40):  # Predict is empty, so that no task ends
            program = Program((), (), [one] * count)
            work = partial(evaluation.trace, program, some, prune=False)
            times.append(min(seconds(work)[0] for _ in range(3)))
        found[op.name] = 1e9 * (times[1] - times[0]) / (40 * 400 * tasks)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print rates and ratios, and with --costs what each operation takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30_000_000, help="training examples a search")
    parser.add_argument("--turns", type=int, default=3, help="seeds; the fastest counts")
    parser.add_argument("--costs", action="store_true", help="time every operation, too")
    options = parser.parse_args(argv)
    evolution = RegularizedEvolution(DEMO)
    evolution.run(TASKS, max_programs=10)  # compiled before the clock starts

    print("The demonstration: F = 4, 10 tasks of 100 + 100 examples, one thread, CPU seconds")
    print(f"{'':34}{'programs/s':>12}{'examples/s':>14}{'hits':>7}{'× C++':>8}")
    rates = {}
    for name, fec in (("with the cache", FEC()), ("without", None)):
        search = RegularizedEvolution(DEMO, fec=fec)
        programs, examples, stats = rate(search, options.steps, options.turns)
        rates[name] = programs
        hits = stats["fec_hits"] / stats["programs"]
        ratio = programs / RECORDED[name]
        print(f"ours, {name:28}{programs:12,.0f}{examples:14,.0f}{hits:7.0%}{ratio:8.2f}")
    programs, examples, stats = rate(RandomSearch(DEMO, fec=None), options.steps, options.turns)
    print(f"{'ours, random search, without':34}{programs:12,.0f}{examples:14,.0f}")
    for name, programs in RECORDED.items():
        print(f"{'C++, ' + name + ' (other machine)':34}{programs:12,.0f}")
    gain = rates["with the cache"] / rates["without"]
    print(f"the cache: {gain:.2f} × programs a second")
    best = evolution.run(TASKS, max_programs=2000).best
    slow = min(seconds(lambda: [trace(best, task) for task in TASKS])[0] for _ in range(2))
    fast = min(seconds(lambda: [evaluate(best, TASKS) for _ in range(100)])[0] for _ in range(2))
    print(f"one program in plain numpy: {slow:.3f} s, {100 * slow / fast:,.0f} × the compiled one")
    calibration = min(seconds(lambda: np.sort(np.random.default_rng(0).random(1_000_000)))[0]
                      for _ in range(3))  # fmt: skip
    print(f"calibration: a million doubles drawn and sorted in {1e3 * calibration:.1f} ms")
    if options.costs:
        for name, value in costs().items():
            print(f"{name:28}{value:10.1f} ns")


if __name__ == "__main__":
    main()
