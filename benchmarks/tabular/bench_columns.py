"""Time draws beside DPPy and landmarks beside scikit-learn's Nystroem, on one thread.

Draws are timed after the eigendecomposition, which both need; DPPy, should it be installed, in its
cached case. CPU seconds, the least of several turns. The calibration loop says how fast this core
is: x = x a + b on 16 doubles.
"""

from __future__ import annotations

import argparse
import importlib
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.random import RandomState
from sklearn.kernel_approximation import Nystroem

from mmxx.tabular.columns import DPPNystroem, KernelMatrix, sample_kdpp
from mmxx.tabular.columns.gram import DenseGram
from mmxx.tabular.columns.pivoting import greedy, rpcholesky

DRAWS = ((300, 20), (1000, 50), (2000, 100))
HARD = {
    "1e6 linspace(1, 2, 400), k = 100": (1e6 * np.linspace(1, 2, 400), 100),
    "exp(-0.05 i), n = 784, k = 300": (np.exp(-0.05 * np.arange(784)), 300),
    "i^-1.5, n = 2000, k = 200": (np.arange(1, 2001.0) ** -1.5, 200),
}


def seconds(work: Callable[[], Any], turns: int) -> float:
    """The least CPU time of several turns, after one that does not count."""
    work()
    found = []
    for _ in range(turns):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


@njit(cache=True)
def calibrate(rounds: int) -> float:
    """The loop that other machines' figures are scaled by."""
    x = np.linspace(0.0, 1.0, 16)
    for _ in range(rounds):
        for place in range(16):
            x[place] = x[place] * 0.999999 + 1e-6
    return x.sum()


def orthonormal(n: int, rng: np.random.Generator) -> np.ndarray:
    """Random orthonormal vectors [n, n]."""
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def peer(lam: np.ndarray, vectors: np.ndarray) -> Any:
    """DPPy's process of that decomposition, or None."""
    try:
        module = importlib.import_module("dppy.finite_dpps")
    except ModuleNotFoundError:
        return None
    return module.FiniteDPP("likelihood", L_eig_dec=(lam, vectors))


def draws(turns: int, rng: np.random.Generator) -> None:
    """Per draw beside DPPy, and spectra that break it."""
    print(f"\n{'k-DPP, ms a draw':24} {'50 draws':>9} {'one':>9} {'DPPy':>9} {'ratios':>13}")
    for n, k in DRAWS:
        X = rng.normal(size=(n, 10))
        lam, vectors = np.linalg.eigh(KernelMatrix(X, gamma=0.05).dense())
        lam = np.maximum(lam, 0.0)
        many = 50
        draw = partial(sample_kdpp, eigen=(lam, vectors), k=k)
        ours = seconds(partial(draw, size=many), turns) / many
        once = seconds(draw, turns)
        line = f"{f'n = {n}, k = {k}':24} {1e3 * ours:9.3f} {1e3 * once:9.3f}"
        theirs = peer(lam, vectors)
        if theirs is None:
            print(f"{line}   (pip install dppy: left out)")
            continue
        other = seconds(partial(theirs.sample_exact_k_dpp, size=k), turns)
        print(f"{line} {1e3 * other:9.3f} {other / ours:6.1f} {other / once:6.1f}")
    print(f"\n{'hard spectra':34} {'mmxx':>20}   DPPy")
    for name, (lam, k) in HARD.items():
        vectors = orthonormal(lam.size, rng)
        found = len(set(sample_kdpp(eigen=(lam, vectors), k=k)[0].tolist()))
        theirs, said = peer(lam, vectors), "not installed"
        if theirs is not None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    said = f"{len(set(theirs.sample_exact_k_dpp(size=k)))} different columns"
            except Exception as error:  # whatever it raises is the finding
                said = f"{type(error).__name__}: {error}".splitlines()[0][:60]
        print(f"{name:34} {found:10d} different   {said}")


def large(turns: int, rng: np.random.Generator, most: int) -> None:
    """Many columns of few rows, and what they take in memory."""
    print(f"\n{'dual, d = 40, k = 20':34} {'s a draw':>9} {'peak bytes / 8n':>16} {'bar':>5}")
    for n in (100_000, 1_000_000):
        if n > most:
            continue
        A = rng.normal(size=(40, n)) * 0.9 ** np.arange(40)[:, None]
        took = seconds(partial(sample_kdpp, A=A, k=20, method="dual"), max(turns // 5, 1))
        tracemalloc.start()
        sample_kdpp(A=A, k=20, method="dual")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{f'n = {n:,}':34} {took:9.3f} {peak / (8 * n):16.2f} {28:5d}")


def landmarks(turns: int, rng: np.random.Generator) -> None:
    """Randomly pivoted Cholesky, greedy, and the estimator beside scikit-learn's."""
    print(f"\n{'landmarks':44} {'s':>8} {'ratio':>7}")
    for n in (10_000, 20_000, 40_000):
        gram = KernelMatrix(rng.normal(size=(n, 10)), gamma=0.05)
        took = seconds(partial(rpcholesky, gram, 200, RandomState(0)), max(turns // 5, 2))
        print(f"{f'RPCholesky, n = {n:,}, k = 200':44} {took:8.3f}")
    gram = DenseGram(KernelMatrix(rng.normal(size=(2000, 10)), gamma=0.05).dense())
    took = seconds(partial(greedy, gram, 100), max(turns // 5, 2))
    print(f"{'greedy, n = 2,000, k = 100':44} {took:8.3f}")
    X = rng.normal(size=(20_000, 10))
    settings = {"gamma": 0.05, "n_components": 200, "random_state": 0}
    theirs = seconds(partial(Nystroem(**settings).fit_transform, X), turns)
    for method in ("uniform", "rpcholesky"):
        model = DPPNystroem(method=method, **settings)
        took = seconds(partial(model.fit_transform, X), turns)
        print(
            f"{f'DPPNystroem({method}), n = 20,000, k = 200':44} {took:8.3f} {took / theirs:7.2f}"
        )
    print(f"{'scikit-learn Nystroem':44} {theirs:8.3f} {1:7.2f}")


def main(argv: list[str] | None = None) -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=10, help="turns of each job")
    parser.add_argument("--most", type=int, default=1_000_000, help="columns of the dual at most")
    flags = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    print(f"calibration loop, 10^8 rounds: {10 * seconds(lambda: calibrate(10**7), 2):.2f} s")
    draws(flags.turns, rng)
    large(flags.turns, rng, flags.most)
    landmarks(flags.turns, rng)


if __name__ == "__main__":
    main()
