"""SnapBoost beside HistGradientBoosting, LightGBM and the package snapboost, one thread each.

Normal columns, squared error, depth 6, 255 bins, the same rounds, no early stopping; CPU seconds of
fits with binning, the least of several turns after a first one that compiles. Optional packages are
left out where they are missing. Ratios are to our own fit with trees only.

Two threads are measured twice: by the clock, which others on the machine slow down, and by laying
the CPU seconds of one thread's tasks out on two, which is what two cores could do at best.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from mmxx.tabular.snapboost import SnapBoostRegressor, sample_space, tune

DEPTH, COLUMNS = 6, 28


def seconds(
    work: Callable[[], Any], turns: int, clock: Callable[[], float] = time.process_time
) -> float:
    """The least time of several turns."""
    found = []
    for _ in range(turns):
        start = clock()
        work()
        found.append(clock() - start)
    return min(found)


class OnTwoCores:
    """A map that runs calls one by one, and adds up what two cores at once would save.

    Attributes:
        saved: CPU seconds.
    """

    def __init__(self) -> None:
        self.saved, self._inside = 0.0, False

    def __call__(self, work: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        """What ``map`` would give."""
        outer, self._inside = not self._inside, True
        busy, found = [0.0, 0.0], []
        for these in zip(*arguments, strict=False):
            start = time.process_time()
            found.append(work(*these))
            busy[busy.index(min(busy))] += time.process_time() - start
        if outer:
            self.saved += min(busy)
            self._inside = False
        return found


def laid_out(X: np.ndarray, y: np.ndarray, rounds: int) -> float:
    """Seconds that trees only would take on two cores."""
    model, on_two = ours(rounds), OnTwoCores()
    start = time.process_time()
    machine = model.begin(X, y, threads=2, map=on_two)
    while not model.is_enough(machine):
        machine.step()
    model.end(machine)
    return time.process_time() - start - on_two.saved


def table(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A target of products, waves and noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, COLUMNS))
    y = X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + (X[:, 3] > 0.5) + 0.3 * rng.normal(size=rows)
    return X, y


def ours(rounds: int, **options: Any) -> SnapBoostRegressor:
    """Trees of depth 6 only, unless the options say otherwise."""
    options = {"p_tree": 1.0, "min_max_depth": DEPTH} | options
    return SnapBoostRegressor(n_rounds=rounds, max_max_depth=DEPTH, random_state=0, **options)


def lightgbm(rounds: int) -> Any:
    """LightGBM with 64 leaves, or None."""
    try:
        module = importlib.import_module("lightgbm")
    except ImportError:
        return None
    return module.LGBMRegressor(
        n_estimators=rounds, max_depth=DEPTH, num_leaves=2**DEPTH, min_child_samples=1,
        max_bin=255, n_jobs=1, verbose=-1,
    )  # fmt: skip


def compare(rows: int, rounds: int, turns: int) -> None:
    """Fit times of all."""
    X, y = table(rows)
    # in turn, so that both see the machine in the same mood
    both = [
        (seconds(lambda: ours(rounds).fit(X, y), 1), laid_out(X, y, rounds)) for _ in range(turns)
    ]
    reference, on_two = (min(times) for times in zip(*both, strict=True))
    mixed = {"p_tree": 0.8, "min_max_depth": 1}
    print(f"\n{rows:,} rows, {COLUMNS} columns, {rounds} rounds")
    show("ours, trees only", reference, reference)
    show(
        "ours, 80 % trees of depth 1 to 6",
        seconds(lambda: ours(rounds, **mixed).fit(X, y), turns),
        reference,
    )
    show("trees only, two cores, laid out", on_two, reference)
    show(
        "trees only, two threads, by the clock",
        seconds(lambda: ours(rounds, n_jobs=2).fit(X, y), turns, time.perf_counter),
        reference,
    )
    theirs = HistGradientBoostingRegressor(
        max_iter=rounds, max_depth=DEPTH, max_leaf_nodes=None, min_samples_leaf=1, max_bins=255,
        early_stopping=False,
    )  # fmt: skip
    show("HistGradientBoosting", seconds(lambda: theirs.fit(X, y), turns), reference)
    model = lightgbm(rounds)
    if model is None:
        print("LightGBM is not installed: left out (pip install lightgbm)")
    else:
        show("LightGBM", seconds(lambda: model.fit(X, y), turns), reference)


def beside_the_package(rows: int, rounds: int) -> None:
    """The package snapboost, with exact trees, at a size that it can do."""
    X, y = table(rows)
    mixed = {"p_tree": 0.8, "min_max_depth": 1}
    reference = seconds(lambda: ours(rounds, **mixed).fit(X, y), 2)
    print(f"\n{rows:,} rows, {COLUMNS} columns, {rounds} rounds, 80 % trees of depth 1 to 6")
    show("ours", reference, reference)
    try:
        module = importlib.import_module("snapboost")
    except ImportError:
        print("snapboost is not installed: left out (pip install snapboost)")
        return
    model = module.SnapBoostRegressor(
        num_iterations=rounds, learning_rate=0.1, p_tree=0.8, min_max_depth=1, max_max_depth=DEPTH,
        n_components=100, random_state=0,
    )  # fmt: skip
    show("snapboost (PyPI)", seconds(lambda: model.fit(X, y), 1), reference)


def tuning(rows: int, rounds: int) -> None:
    """Successive halving of nine settings over the paper's space, with ridges and without."""
    X, y = table(rows)
    model = SnapBoostRegressor(n_rounds=rounds)

    def one_depth(rng: np.random.Generator) -> dict[str, Any]:
        drawn = sample_space(rng)
        return drawn | {"p_tree": 1.0, "min_max_depth": drawn["max_max_depth"]}

    def timed(space: Callable[[Any], dict[str, Any]]) -> float:
        options: dict[str, Any] = {"n_candidates": 9, "cv": 3, "random_state": 0, "space": space}
        return seconds(lambda: tune(model, X, y, **options), 2)

    print(f"\ntuning: nine settings, three folds, {rows:,} rows, {rounds} rounds at most")
    reference = timed(one_depth)
    show("trees of one depth", reference, reference)
    show("the mixture", timed(sample_space), reference)


def main(argv: Sequence[str] | None = None) -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3, help="the least counts")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    X, y = table(2000)
    first = seconds(lambda: ours(3, p_tree=0.5).fit(X, y), 1)
    print(f"the first fit, with compiled code from the cache or without: {first:.1f} s")
    compare(options.rows, options.rounds, options.turns)
    beside_the_package(20_000, 100)
    tuning(20_000, 100)
    X, y = table(100_000)
    model = ours(100).fit(X[:20_000], y[:20_000])
    print(f"\npredicting 100,000 rows by 100 trees: {seconds(lambda: model.predict(X), 3):.2f} s")
    rng = np.random.default_rng(0)
    calibration = seconds(lambda: np.sort(rng.random(1_000_000)), 3)
    print(f"calibration: a million doubles sorted in {1e3 * calibration:.1f} ms")


def show(label: str, value: float, reference: float) -> None:
    """Print a line as soon as it is known."""
    print(f"{label:44}{value:10.2f} s{value / reference:10.2f}", flush=True)


if __name__ == "__main__":
    main()
