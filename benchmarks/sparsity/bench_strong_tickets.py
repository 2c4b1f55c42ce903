"""A ticket for a 784-500-10 network beside integer programming, weight by weight.

The authors solve every weight by Gurobi, which needs a licence: their log is a recorded figure. In
this process, scipy's solver (HiGHS) and, where it is installed, OR-tools solve a few of the same
weights to the same tolerance. CPU seconds of one thread, the least of several turns.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmxx.sparsity.strong_tickets import StrongTicket, arms, subset_sum

EPS, NUMBERS, LOW, HIGH = 0.01, 21, -0.46423155069351196, 0.5407021641731262
RECORDED = (
    77_266.02  # s, subset-sum/results/paper/fc2_approx.out of acnagle/optimal-lottery-tickets
)
WEIGHTS = 397_000


def seconds(work: Callable[[], Any], turns: int) -> float:
    """The least CPU time of several turns."""
    found = []
    for _ in range(turns):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def network(path: Path | None) -> nn.Sequential:
    """The user's file, or random weights of the authors' shape and range."""
    if path is not None:
        return arms.read_model(path)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 500, bias=False), nn.ReLU(), nn.Linear(500, 10, bias=False))
    for layer in (net[0], net[2]):
        nn.init.normal_(layer.weight, std=0.04)
        with torch.no_grad():
            layer.weight[0, 0], layer.weight[0, 1] = LOW, HIGH
    return net


def highs(w: float, a: np.ndarray) -> None:
    """One weight by scipy's integer programming: least t with -t <= a.m - w <= t, within EPS."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    n = len(a)
    rows = np.block([[a, -1.0], [a, 1.0]])
    milp(
        np.r_[np.zeros(n), 1.0], integrality=np.r_[np.ones(n), 0],
        bounds=Bounds(np.zeros(n + 1), np.r_[np.ones(n), EPS]),
        constraints=LinearConstraint(rows, [-np.inf, w], [w, np.inf]),
        options={"mip_rel_gap": 0.01},
    )  # fmt: skip


def cp_sat(cp_model: Any, w: float, a: np.ndarray) -> None:
    """One weight by OR-tools, in units of 1e-6."""
    model = cp_model.CpModel()
    chosen = [model.NewBoolVar(str(k)) for k in range(len(a))]
    scaled = np.round(a * 1e6).astype(int)
    total = sum(int(x) * m for x, m in zip(scaled, chosen, strict=True))
    off = model.NewIntVar(0, int(EPS * 1e6), "off")
    model.Add(total - round(w * 1e6) <= off)
    model.Add(round(w * 1e6) - total <= off)
    model.Minimize(off)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.relative_gap_limit = 0.01
    solver.Solve(model)


def main(argv: Sequence[str] | None = None) -> None:
    """Print seconds for the whole network, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a safetensors file of linear layers")
    parser.add_argument("--instances", type=int, default=4, help="weights that the peers solve")
    parser.add_argument("--turns", type=int, default=2, help="of ours; the least counts")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    target = network(options.model)
    count = sum(p.numel() for p in target.parameters())
    rng = np.random.default_rng(0)
    numbers = rng.uniform(LOW, HIGH, NUMBERS)
    targets = rng.normal(0, 0.04, options.instances)
    subset_sum(0.1, numbers, tol=1e-5)  # compiled before the clock starts

    def whole(work: Callable[[], Any], weights: int, turns: int) -> float:
        return seconds(work, turns) / weights * count

    print(f"{count:,} weights, {NUMBERS} coefficients, eps {EPS}; one thread, CPU seconds")
    print(f"{'':44}{'s':>12}{'× the first':>14}")
    reference = seconds(lambda: StrongTicket.construct(target, EPS, share="row"), options.turns)
    show("ours, shared by a row", reference, reference)
    own = seconds(lambda: StrongTicket.construct(target, EPS), options.turns)
    show("ours, products of their own", own, reference)
    one_by_one = whole(
        lambda: [subset_sum(w, numbers) for w in targets], len(targets), options.turns
    )
    show("ours, each optimum on its own", one_by_one, reference)
    theirs = whole(lambda: [highs(w, numbers) for w in targets], len(targets), 1)
    show("scipy milp (HiGHS), from a few", theirs, reference)
    try:
        cp_model = importlib.import_module("ortools.sat.python.cp_model")
    except ImportError:
        print("OR-tools is not installed: left out (pip install ortools)")
    else:
        theirs = whole(lambda: [cp_sat(cp_model, w, numbers) for w in targets], len(targets), 1)
        show("OR-tools CP-SAT, from a few", theirs, reference)
    show("Gurobi, 36 cores (recorded, other machine)", RECORDED * count / WEIGHTS, reference)
    calibration = seconds(lambda: np.sort(rng.random(1_000_000)), 3)
    print(f"calibration: a million doubles sorted in {1e3 * calibration:.1f} ms")


def show(label: str, value: float, reference: float) -> None:
    """Print a line as soon as it is known: some take long."""
    print(f"{label:44}{value:12.2f}{value / reference:14.1f}", flush=True)


if __name__ == "__main__":
    main()
