"""What the experiment measures, in pure functions: spectra, draws beside the formula, methods."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from mmxx.tabular.columns import pivoting, spectrum
from mmxx.tabular.columns.gram import ColumnGram, DenseGram, Floats, Gram, Indices, KernelMatrix
from mmxx.tabular.columns.methods import is_random, residual_diagonal, select
from mmxx.tabular.columns.sampling import sample_dpp, sample_kdpp
from mmxx.tabular.columns.tables import NamedTable

_LARGE = 5000  # rows beyond which the eigenvalues of a kernel take minutes


def spectra() -> dict[str, Floats]:
    """The paper's artificial spectra: singular values 1, then 1/κ; and three levels."""
    toy = {
        f"toy, κ = {kappa}": np.r_[np.ones(20), np.full(30, kappa**-2.0)] for kappa in (10, 5, 1)
    }
    return toy | {"three levels": np.r_[np.ones(20), np.full(20, 1e-4), np.full(160, 1e-8)]}


def rotated(lam: Floats, rng: np.random.Generator) -> Floats:
    """A kernel matrix of these eigenvalues, with random eigenvectors."""
    q, r = np.linalg.qr(rng.normal(size=(lam.size, lam.size)))
    q *= np.sign(r.diagonal())
    gram = (q * lam) @ q.T
    return (gram + gram.T) / 2


def median_distance(X: Floats) -> float:
    """Median distance of two rows."""
    return float(np.median(pdist(X)))


def rbf_gram(X: Floats, sigma: float) -> Floats:
    """exp(−‖x − y‖²/(2σ²)) over the rows of X."""
    return KernelMatrix(X, gamma=1 / (2 * sigma**2)).dense()


# -- draws -------------------------------------------------------------------------------------


def many(gram: Gram, k: int, method: str, count: int, rng: RandomState) -> list[Indices]:
    """So many choices of k columns; one where the method does not draw."""
    if method == "kdpp":
        return list(sample_kdpp(gram, k, size=count, random_state=rng))
    repeats = count if is_random(method) else 1
    return [select(gram, k, method, rng) for _ in range(repeats)]


def errors(gram: Gram, choices: Iterable[Indices]) -> Floats:
    """The error of each choice."""
    return np.array([residual_diagonal(gram, choice).sum() for choice in choices])


def work(item: dict[str, Any]) -> dict[str, Any]:
    """The errors of some choices from one kernel matrix: a task for `run.map`.

    The item holds a spectrum ``lam`` with the seed of its ``rotation``, or rows ``X`` with
    ``sigma`` (a kernel), or ``L``; ``jobs``, a list of (method, k, draws); ``seed``; and whether a
    uniform choice stands in for the k-DPP (``sham``).
    """
    if "lam" in item:
        L = rotated(item["lam"], np.random.default_rng(item["rotation"]))
    else:
        L = item["L"] if "L" in item else rbf_gram(item["X"], item["sigma"])
    gram = DenseGram(L)
    found = []
    for number, (method, k, count) in enumerate(item["jobs"]):
        rng = RandomState([*item["seed"], number])
        used = "uniform" if item["sham"] and method == "kdpp" else method
        found.append(errors(gram, many(gram, k, used, count, rng)))
    return {"spectrum": gram.spectrum, "errors": found}


def regularized(lam: Floats, alpha: float, draws: int, seed: int) -> tuple[float, float, float]:
    """Errors and sizes of DPP(L/α): (mean error, its standard error, α E|S|)."""
    gram = DenseGram(rotated(lam, np.random.default_rng(seed)))
    subsets = sample_dpp(gram, alpha=alpha, size=draws, random_state=seed)
    trace = float(lam.sum())
    found = np.array([residual_diagonal(gram, s).sum() if s.size else trace for s in subsets])
    mean, deviation = summary(found)
    return mean, deviation, alpha * spectrum.effective_dimension(lam, alpha)


def summary(values: Floats) -> tuple[float, float]:
    """Mean, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


# -- curves ------------------------------------------------------------------------------------


def least_bound(lam: Floats, kmax: int) -> float:
    """min over k of min(k + 1, Φ)/f: 1 or more where no factor is above its bound."""
    factors = spectrum.approximation_factor(lam, kmax)[1:]
    bounds = np.minimum(spectrum.best_phi(lam, kmax)[1:], np.arange(2, kmax + 2))
    # at a factor of k + 1 rounding decides: one part in 10¹² is given
    return float(np.nanmin(bounds * (1 + 1e-12) / factors))


def bends(lam: Floats, kmax: int) -> int:
    """At how many k the expected error is not convex."""
    curve = spectrum.expected_error(lam, kmax)
    second = curve[2:] - 2 * curve[1:-1] + curve[:-2]
    return int((second < -1e-12 * curve[1:-1]).sum())


def best_factors(ks: tuple[int, ...], eta: float) -> Floats:
    """The least factor of any subset on the lower bound's matrix, k = 1 … n - 1, [n]."""
    L = spectrum.lower_bound_gram(ks, eta)
    gram = DenseGram(L)
    tails = spectrum.opt(gram.spectrum)
    found = np.full(gram.n, np.nan)
    for k in range(1, gram.n):
        choice = pivoting.exhaustive(gram, k)
        found[k] = residual_diagonal(gram, choice).sum() / tails[k]
    return found


def sizes_of(peaks: NDArray[np.int64]) -> str:
    """Sizes in words."""
    return ", ".join(map(str, peaks.tolist())) or "none"


# -- methods, and a table of one's own ---------------------------------------------------------


def method_rows(
    table: str, k: int, methods: Sequence[str], result: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of a report: the factors of each method's choices, from a result of `work`."""
    opt = spectrum.opt(result["spectrum"])[k]
    formula = spectrum.approximation_factor(result["spectrum"], k)[k]
    return [
        {"table": table, "k": k, "method": method, "draws": len(found),
         "mean": float(f"{found.mean() / opt:.4g}"), "worst": float(f"{found.max() / opt:.4g}"),
         "formula": float(f"{formula:.4g}") if method == "kdpp" else ""}
        for method, found in zip(methods, result["errors"], strict=True)
    ]  # fmt: skip


def own_gram(table: NamedTable, kernel: str, sigma: str) -> tuple[Floats, list[str]]:
    """The kernel matrix of a user's table, and the names of what is chosen: columns, or rows.

    Args:
        table: What `tables.read` found.
        kernel: "linear" for columns, "rbf" for rows.
        sigma: Width of the latter: a number, or one of median distances, "10med".

    Raises:
        ValueError: There are too many rows or columns, or the median distance is 0.
    """
    rows = len(table.X)
    if kernel == "linear":
        return ColumnGram(table.X).dense(), table.names
    if rows > _LARGE:
        raise ValueError(
            f"data: kernel=rbf over {rows:,} rows takes minutes and {8 * rows**2:,} bytes; "
            f"accepted: {_LARGE:,} rows at most. DPPNystroem takes more"
        )
    width = float(sigma.removesuffix("med"))
    if sigma.endswith("med"):
        width *= median_distance(table.X) if rows > 1 else 0.0
    if not width > 0:
        raise ValueError(f"sigma={sigma}: the median distance of two rows is 0; give a number")
    return rbf_gram(table.X, width), [f"row {number}" for number in range(1, rows + 1)]


def selection(L: Floats, names: list[str], k: int, seed: int) -> str:
    """A CSV of what three methods choose: method, order, index, name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("method", "order", "index", "name"))
    for method in ("greedy", "rpcholesky", "kdpp"):
        chosen = select(DenseGram(L), k, method, RandomState(seed))
        writer.writerows((method, o, int(i), names[i]) for o, i in enumerate(chosen, 1))
    return text.getvalue()
