"""Which sizes to avoid, and is the error of volume sampling what the eigenvalues say?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from mmxx.lab.run import Run

Table = Literal["diabetes", "anes96", "breast_cancer", "wine", "star98", "digits"]

_SHAM = False  # a uniform choice in the k-DPP's place
_SIGMA = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?:med)?")
_PEAKS = {"toy, κ = 10": [20], "toy, κ = 5": [20], "toy, κ = 1": [], "three levels": [20, 40]}
_HEIGHTS = {
    ("toy, κ = 10", 20): 7.607, ("toy, κ = 5", 20): 4.115,
    ("three levels", 20): 20.571, ("three levels", 40): 35.579,
}  # fmt: skip
_REAL_PEAKS = {"diabetes": 9, "anes96": 8}
_LOWER = ((4, 9), (3, 6, 10))


@dataclass(frozen=True)
class Config:
    """Measure how well columns and landmarks can be chosen, on known spectra and real tables."""

    kmax: int = 40
    """Largest number of columns looked at."""
    draws: int = 1000
    """Draws for each comparison with a formula."""
    picks: int = 100
    """Draws of each method on a table."""
    tables: tuple[Table, ...] = ("diabetes", "anes96", "breast_cancer")
    """Tables whose kernels are looked at."""
    compared: tuple[Table, ...] = ("breast_cancer",)
    """Those of them on which the methods are compared."""
    sizes: tuple[int, ...] = (10, 20, 40)
    """Numbers of landmarks at which they are compared."""
    data: Path | None = None
    """Your table: .csv, .npy or Libsvm text; its columns are chosen, or its rows as landmarks."""
    kernel: Literal["linear", "rbf"] = "linear"
    """For your table: linear chooses columns, rbf rows."""
    sigma: str = "1med"
    """Width of your table's rbf kernel: a number, or 10med for ten median distances of two rows."""

    def __post_init__(self) -> None:
        for name in ("kmax", "draws", "picks"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be 2 or more, got {getattr(self, name)}")
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes must be one or more numbers above 0, got {self.sizes}")
        if extra := set(self.compared) - set(self.tables):
            raise ValueError(f"compared must be among the tables, got {', '.join(sorted(extra))}")
        given = _SIGMA.fullmatch(self.sigma)
        if given is None or not float(self.sigma.removesuffix("med")) > 0:
            raise ValueError(
                f"sigma must be a number above 0, or one and 'med', got {self.sigma!r}"
            )


TINY = Config(
    kmax=22, draws=20, picks=3, tables=("diabetes",), compared=("diabetes",), sizes=(3,)
)  # fmt: skip
QUICK = Config()
FULL = Config(
    draws=10_000, picks=1000,
    tables=("diabetes", "anes96", "breast_cancer", "wine", "star98", "digits"),
    compared=("diabetes", "anes96", "breast_cancer", "wine", "star98", "digits"),
    sizes=tuple(range(2, 41, 2)),
)  # fmt: skip

_LAW_SIZES = (5, 20, 30)
_LAW_SPECTRA = ("toy, κ = 10", "three levels")
_ALPHAS = (0.003, 0.02, 0.1)
_RIVALS = (
    "kdpp", "rpcholesky", "projection", "uniform", "leverage", "ridge_leverage", "adaptive",
    "greedy", "pivoted_cholesky", "local_search",
)  # fmt: skip
_SAMPLERS = _RIVALS[:7]
_WIDTHS = (10.0, 0.3)


def run(config: Config, run: Run) -> None:
    """Measure the claims, or report on the user's own table."""
    if config.data is not None:
        _own(config, run)
        return
    curves = _artificial(config, run)
    _law(config, run)
    curves += _real(config, run)
    _judge_curves(config, run, curves)
    _compare(config, run)


@contextmanager
def sham() -> Iterator[None]:
    """Columns drawn uniformly in the place of the k-DPP's."""
    global _SHAM
    _SHAM = True
    try:
        yield
    finally:
        _SHAM = False


# -- known spectra -----------------------------------------------------------------------------


def _artificial(config: Config, run: Run) -> list[np.ndarray]:
    """The paper's spectra: where the curve peaks, how high, and that no subset escapes."""
    import numpy as np

    from mmxx.tabular.columns import spectrum, study

    rows, wrong, off = [], 0, 0.0
    for name, lam in study.spectra().items():
        kmax = min(60, lam.size - 1)
        found, valleys = spectrum.peaks(lam, kmax)
        wrong += len(set(found.tolist()) ^ set(_PEAKS[name]))
        curve, bound = spectrum.approximation_factor(lam, kmax), spectrum.best_phi(lam, kmax)
        heights = [height for (owner, _), height in _HEIGHTS.items() if owner == name]
        off = max([off, *np.abs(curve[_PEAKS[name]] - heights)])
        rows += [
            {"spectrum": name, "k": k, "factor": float(f"{curve[k]:.6g}"),
             "least Φ": float(f"{bound[k]:.6g}"), "k + 1": k + 1,
             "here": "peak" if k in found else "valley" if k in valleys else ""}
            for k in range(1, kmax + 1)
        ]  # fmt: skip
    run.table("spectra", rows, "Expected factor of a k-DPP over the optimum, from eigenvalues.")
    run.measure("peaks", wrong)
    run.measure("peak-heights", float(off))
    least, rows = float("inf"), []
    for ks in _LOWER:
        best = study.best_factors(ks, 0.01)
        for k, before in zip(ks, (0, *ks), strict=False):
            least = min(least, float(best[k]) / (k - before))
        rows += [
            {"peaks asked for": str(ks), "k": k, "best of all subsets": float(f"{best[k]:.5g}")}
            for k in range(1, best.size)
        ]
    run.table("lower-bound", rows, "The least factor that any k columns have.")
    run.measure("lower-bound", least)
    return list(study.spectra().values())


def _law(config: Config, run: Run) -> None:
    """Means over draws beside the formulas."""
    from mmxx.tabular.columns import spectrum, study

    known = study.spectra()
    items = [
        {"lam": known[name], "rotation": [run.seed, 1], "jobs": [("kdpp", k, config.draws)],
         "seed": [run.seed, 2, number], "sham": _SHAM}
        for number, (name, k) in enumerate((n, k) for n in _LAW_SPECTRA for k in _LAW_SIZES)
    ]  # fmt: skip
    results = run.once("law", run.map, study.work, items)
    rows, worst = [], 0.0
    for item, result in zip(items, results, strict=True):
        lam, k = item["lam"], item["jobs"][0][1]
        formula, opt = spectrum.expected_error(lam)[k], spectrum.opt(lam)[k]
        mean, deviation = study.summary(result["errors"][0])
        off = abs(mean - formula) / deviation
        worst = max(worst, off)
        rows.append(
            {"spectrum": next(n for n in known if known[n] is lam), "k": k,
             "formula": float(f"{formula / opt:.5g}"), "mean of draws": float(f"{mean / opt:.5g}"),
             "standard error": float(f"{deviation / opt:.2g}"), "off by": round(float(off), 2)}
        )  # fmt: skip
    for name in _LAW_SPECTRA:
        mine = [(i["jobs"][0][1], r["errors"][0]) for i, r in zip(items, results, strict=True)
                if i["lam"] is known[name]]  # fmt: skip
        opt = spectrum.opt(known[name])
        figure = _draw(known[name], min(60, known[name].size - 1), {k: e / opt[k] for k, e in mine})
        slug = "toy" if name.startswith("toy") else "three-levels"
        run.figure(slug, figure, f"{name}: the factor above the eigenvalues.")
    run.table("law", rows, f"Factors: the formula, and {config.draws:,} draws of the k-DPP.")
    run.measure("closed-form", float(worst), note=f"{config.draws:,} draws each")
    rows, worst = [], 0.0
    for number, alpha in enumerate(_ALPHAS):
        mean, deviation, formula = run.once(
            f"alpha-{number}", study.regularized, known[_LAW_SPECTRA[0]], alpha, config.draws,
            run.seed + number,
        )  # fmt: skip
        off = abs(mean - formula) / deviation
        worst = max(worst, off)
        rows.append(
            {"α": alpha, "α E|S|": float(f"{formula:.5g}"), "mean error": float(f"{mean:.5g}"),
             "off by": round(off, 2)}
        )  # fmt: skip
    run.table("random-size", rows, "A DPP of L/α: its error is α times its size, on average.")
    run.measure("random-size", float(worst))


# -- tables ------------------------------------------------------------------------------------


def _real(config: Config, run: Run) -> list[np.ndarray]:
    """Factor curves of wide and narrow kernels over real tables."""
    from mmxx.lab.report import figures
    from mmxx.tabular.columns import spectrum, study, tables

    found, rows, lines, narrow = [], [], {}, 0
    ratios: dict[str, float] = {}
    for name in config.tables:
        table = tables.shipped(name)
        run.source(table.source)
        median = study.median_distance(table.X)
        for width in _WIDTHS:
            key = f"eigenvalues-{name.replace('_', '-')}-{'wide' if width > 1 else 'narrow'}"
            lam = run.once(key, _eigenvalues, table.X, width * median)
            found.append(lam)
            curve = spectrum.approximation_factor(lam, config.kmax)
            tops, valleys = spectrum.peaks(lam, config.kmax)
            rows.append(
                {"table": name, "σ / median": width, "peaks at k =": study.sizes_of(tops),
                 "valleys at k =": study.sizes_of(valleys)}
                | {f"k = {k}": round(float(curve[k]), 3) for k in (2, 4, 7, 8, 9, 10, 11, 14)}
            )  # fmt: skip
            if width > 1:
                lines[f"{name}, wide"] = (range(1, curve.size), curve[1:])
                if name in _REAL_PEAKS:
                    peak = _REAL_PEAKS[name]
                    ratios[name] = curve[peak] / curve[14] if peak in tops else 1.0
            elif name in _REAL_PEAKS:
                narrow += tops.size
                lines[f"{name}, narrow"] = (range(1, curve.size), curve[1:])
    run.table("real-curves", rows, "Factors of kernels exp(-‖x - y‖²/(2σ²)) over rows of tables.")
    run.figure(
        "real", figures.curves(lines, xlabel="landmarks k", ylabel="expected error / optimum"),
        "Wide kernels have peaks, at gaps between their eigenvalues; narrow ones none.",
    )  # fmt: skip
    missing = [name for name in _REAL_PEAKS if name not in config.tables]
    for claim, value in (
        ("real-peaks", min(ratios.values(), default=0)),
        ("narrow-control", narrow),
    ):
        if missing:
            run.not_measured(claim, f"{', '.join(missing)} was not asked for")
        else:
            run.measure(claim, float(value))
    return found


def _eigenvalues(X: np.ndarray, sigma: float) -> np.ndarray:
    from mmxx.tabular.columns import study
    from mmxx.tabular.columns.gram import DenseGram

    return DenseGram(study.rbf_gram(X, sigma)).spectrum


def _judge_curves(config: Config, run: Run, curves: list[np.ndarray]) -> None:
    """What holds for all spectra: the bound, and convexity."""
    from mmxx.tabular.columns import study

    sizes = [min(config.kmax, lam.size - 2) for lam in curves]
    pairs = list(zip(curves, sizes, strict=True))
    run.measure("bound", min(study.least_bound(lam, kmax) for lam, kmax in pairs))
    run.measure("convex", sum(study.bends(lam, kmax) for lam, kmax in pairs))


def _compare(config: Config, run: Run) -> None:
    """All methods on kernels of the median width."""
    from mmxx.tabular.columns import spectrum, study, tables

    items, owners = [], []
    for name in config.compared:
        X = tables.shipped(name).X
        sigma = study.median_distance(X)
        for k in config.sizes:
            owners.append((name, k))
            items.append(
                {"X": X, "sigma": sigma, "seed": [run.seed, 3, len(items)], "sham": _SHAM,
                 "jobs": [(method, k, _picks(config, method)) for method in _RIVALS]}
            )  # fmt: skip
    results = run.once("methods", run.map, study.work, items)
    rows = []
    for (name, k), result in zip(owners, results, strict=True):
        rows += study.method_rows(name, k, _RIVALS, result)
    run.table("methods", rows, "Errors over the optimum; σ is the median distance of two rows.")
    samplers = [_RIVALS.index(method) for method in _SAMPLERS]
    greedy = _RIVALS.index("greedy")
    better = sum(
        r["errors"][greedy][0] < min(r["errors"][s].mean() for s in samplers) for r in results
    )
    run.note(
        "The k-DPP is the method with the formula, not the best picker of landmarks: greedy, which "
        f"has no guarantee, left less than every sampler in {better} of {len(results)} comparisons."
    )
    if ("breast_cancer", 20) not in owners:
        for claim in ("beats-uniform", "as-predicted"):
            run.not_measured(claim, "breast_cancer at k = 20 was not asked for")
        return
    result = results[owners.index(("breast_cancer", 20))]
    by_method = dict(zip(_RIVALS, result["errors"], strict=True))
    kdpp, uniform = by_method["kdpp"].mean(), by_method["uniform"].mean()
    run.measure("beats-uniform", uniform / kdpp, baseline=uniform)
    run.measure("as-predicted", kdpp / spectrum.expected_error(result["spectrum"], 20)[20])


def _picks(config: Config, method: str) -> int:
    """The k-DPP as often as asked for; its rivals a hundred times at most."""
    return config.picks if method in ("kdpp", "uniform") else min(config.picks, 100)


def _draw(lam: np.ndarray, kmax: int, draws: dict[int, Any] | None = None) -> Figure:
    """Factor, bounds and draws (errors over the optimum by k) above the eigenvalues."""
    import numpy as np
    from matplotlib.figure import Figure

    from mmxx.lab.report.figures import COLOURS
    from mmxx.tabular.columns import spectrum

    sizes = np.arange(1, kmax + 1)
    curve, bound = spectrum.approximation_factor(lam, kmax), spectrum.best_phi(lam, kmax)
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    top.plot(sizes, sizes + 1, color=COLOURS[2], linewidth=0.9, label="k + 1, the worst case")
    top.plot(sizes, np.where(np.isfinite(bound), bound, np.nan)[1:], color=COLOURS[1],
             linewidth=1.2, label="least Φ, the bound's leading term")  # fmt: skip
    top.plot(sizes, curve[1:], color=COLOURS[0], linewidth=1.8, label="volume sampling, formula")
    if draws:
        means = np.array([values.mean() for values in draws.values()])
        low, high = np.array([np.quantile(v, (0.1, 0.9)) for v in draws.values()]).T
        reach = np.maximum([means - low, high - means], 0.0)  # a mean may lie above nine tenths
        top.errorbar(
            list(draws), means, reach, fmt="o", markersize=3.5, linewidth=0.8, color=COLOURS[3],
            label="draws: mean, 10 to 90 %",
        )  # fmt: skip
    tops, _ = spectrum.peaks(lam, kmax)
    for k in tops:
        top.annotate(f"k = {k}", (k, curve[k]), (0, 5), textcoords="offset points", ha="center",
                     fontsize=8)  # fmt: skip
    highest = np.nanmax(curve[1:])
    top.set(ylabel="error / optimum", ylim=(0.9, 1.6 * highest))
    top.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    below.plot(sizes, lam[:kmax] / lam[0], color="#000000", marker=".", markersize=3, linewidth=0.7)
    below.set(xlabel="columns k", ylabel="eigenvalue k", yscale="log")
    for axes in (top, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure


# -- a table of one's own ----------------------------------------------------------------------


def _own(config: Config, run: Run) -> None:
    """Curve, methods and a selection for the user's table."""
    import numpy as np

    from mmxx.tabular.columns import spectrum, study, tables
    from mmxx.tabular.columns.card import CARD

    assert config.data is not None
    table = tables.read(config.data)
    run.source(table.source)
    if table.left_out:
        run.note(f"Columns of text were left out: {', '.join(table.left_out)}.")
    if config.kernel == "rbf":
        run.note(f"The rbf kernel has σ = {config.sigma}; rows are chosen as landmarks.")
    L, names = study.own_gram(table, config.kernel, config.sigma)
    n = len(L)
    if n < 3:
        raise ValueError(f"data: 3 columns to choose from or more are needed, got {n}")
    for claim in CARD.claims:
        if claim.id != "as-predicted":
            run.not_measured(claim.id, "the user's data were run instead")
    kmax = min(config.kmax, n - 1)
    sizes = sorted({k for k in (*config.sizes, kmax) if k <= kmax})
    lam = run.once("eigenvalues", lambda: study.DenseGram(L).spectrum)
    rank = int((spectrum.opt(lam)[:-1] > 1e-10 * lam.sum()).sum())
    if rank < 2:
        raise ValueError("data: every column is a multiple of one: there is nothing to choose")
    sizes = [k for k in sizes if k < rank] or [max(1, min(kmax, rank) // 2)]
    items = [
        {"L": L, "jobs": [(method, k, _picks(config, method)) for method in _RIVALS],
         "seed": [run.seed, 4, number], "sham": _SHAM}
        for number, k in enumerate(sizes)
    ]  # fmt: skip
    results = run.once("methods", run.map, study.work, items)
    opt = spectrum.opt(lam)
    rows = [
        r
        for k, found in zip(sizes, results, strict=True)
        for r in study.method_rows("own", k, _RIVALS, found)
    ]
    run.table("methods", rows, "Errors over the optimum.")
    draws = {k: found["errors"][0] / opt[k] for k, found in zip(sizes, results, strict=True)}
    run.figure("factor", _draw(lam, kmax, draws), "The factor above the eigenvalues.")
    curve = spectrum.approximation_factor(lam, kmax)
    run.table(
        "curve",
        [{"k": k, "expected factor": float(f"{curve[k]:.6g}"), "optimum left": float(
            f"{opt[k] / opt[0]:.4g}")} for k in range(1, kmax + 1) if np.isfinite(curve[k])],
        "Expected factor of a k-DPP, and the share of the trace that the best k directions leave.",
    )  # fmt: skip
    measured = [draws[k].mean() / curve[k] for k in sizes]
    run.measure("as-predicted", max(measured))
    avoid, take = spectrum.peaks(lam, kmax)
    run.note(f"Sizes to avoid: {study.sizes_of(avoid)}; sizes to take: {study.sizes_of(take)}.")
    k = int(take[np.argmin(curve[take])]) if take.size else sizes[len(sizes) // 2]
    run.artifact(
        "selected.csv", study.selection(L, names, k, run.seed), f"{k} chosen by three methods."
    )
