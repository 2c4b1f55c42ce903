"""What the experiment measures: accuracy by nested cross-validation of a kernel machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from mmxx.graphs.wls.expansion import Floats
from mmxx.graphs.wls.kernel import squared_distances
from mmxx.graphs.wls.problems import Fold
from mmxx.graphs.wls.transformer import AggregationTransformer, WLSTransformer

Indices = NDArray[np.int64]
GAMMAS = tuple(10.0**power for power in (-6, -4.5, -3, -1.5, 0, 1.5, 3))
COSTS = (0.1, 10.0, 1000.0)
AUTHORS_GRID = tuple(10.0**power for power in range(-6, 4))
ARMS = ("WLS", "WLS without cat", "WLSLin", "WWL", "GCN", "GraphSAGE", "GAT")
LINEAR = ("WLSLin", "WWL", "GCN", "GraphSAGE", "GAT")


def configurations(
    arm: str, sigmas: tuple[float, ...], readouts: tuple[str, ...], *, every: bool
) -> list[dict[str, Any]]:
    """The settings of an arm among which validation chooses.

    Args:
        arm: One of `ARMS`.
        sigmas: Widths of the rbf kernel.
        readouts: "sum", "mean".
        every: Also those with the node itself added, and three temperatures.
    """
    options: list[dict[str, Any]]
    match arm:
        case "WLS" | "WLS without cat":
            options = [{"sigma": s, "cat_scale": float(arm == "WLS")} for s in sigmas]
        case "WLSLin":
            options = [{"kernel": "linear"}]
        case "WWL":
            options = [{"aggregation": "wwl"}]
        case _:
            name = {"GCN": "gcn", "GraphSAGE": "sage", "GAT": "gat"}[arm]
            heat = (1.0, 10.0, 100.0) if every and arm == "GAT" else (1.0,)
            options = [
                {"aggregation": name, "add_self": add, "temperature": t}
                for add in ((False, True) if every else (False,))
                for t in heat
            ]
    return [option | {"readout": readout} for option in options for readout in readouts]


def vectors(item: dict[str, Any]) -> list[Floats]:
    """The vectors of all graphs after each round: a task for `run.map`.

    The item holds ``graphs``, a ``configuration`` (parameters of a transformer) and a ``seed``. As
    in the paper, attributes are standardised over all graphs, those to be judged by too.
    """
    options, graphs = item["configuration"], item["graphs"]
    if "aggregation" in options:
        model = AggregationTransformer(**options)
    else:
        model = WLSTransformer(**options, random_state=item["seed"])
    return model.fit(graphs).transform_rounds(graphs)


def accuracies(item: dict[str, Any]) -> Floats:
    """Accuracies on validation and test of one configuration and fold: a task for `run.map`.

    The item holds ``rounds`` (matrices [graphs, d]), ``targets``, a ``fold``, ``gammas`` and
    ``costs``.

    Returns:
        [2, rounds, gammas, costs], in percent.
    """
    fold, targets = Fold(*item["fold"]), item["targets"]
    others = np.concatenate([fold.validation, fold.test])
    cut = len(fold.validation)
    found = np.empty((2, len(item["rounds"]), len(item["gammas"]), len(item["costs"])))
    for t, X in enumerate(item["rounds"]):
        within = squared_distances(X[fold.train], X[fold.train])
        across = squared_distances(X[others], X[fold.train])
        for g, gamma in enumerate(item["gammas"]):
            K, K_others = np.exp(-gamma * within), np.exp(-gamma * across)
            for c, cost in enumerate(item["costs"]):
                # a seed that is not used, lest one be drawn from numpy's global generator
                machine = SVC(C=cost, kernel="precomputed", random_state=0)
                machine.fit(K, targets[fold.train])
                right = machine.predict(K_others) == targets[others]
                found[:, t, g, c] = 100 * right[:cut].mean(), 100 * right[cut:].mean()
    return found


def chosen(grids: list[Floats]) -> tuple[float, tuple[int, int, int, int]]:
    """The test accuracy of what is best on validation; of equals, the first.

    Args:
        grids: For each configuration what `accuracies` gives for one fold.

    Returns:
        The accuracy, and (configuration, round, gamma, cost).
    """
    validation = np.stack([grid[0] for grid in grids])
    # rounds first, then configurations: an early round of a later one is no reason to leave it
    c, t, g, k = np.unravel_index(int(validation.argmax()), validation.shape)
    return float(grids[c][1, t, g, k]), (int(c), int(t), int(g), int(k))


def interval(differences: Floats) -> float:
    """Half the width of the 95 % interval of a mean over folds, by Student's t."""
    from scipy.stats import t

    n = len(differences)
    if n < 2:
        return float("nan")
    return float(t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / np.sqrt(n))


def principal(D: Floats, gamma: float) -> Floats:
    """The first two coordinates of kernel PCA, [n, 2], the signs fixed.

    Args:
        D: Squared distances [n, n].
        gamma: The kernel's exponent.
    """
    K = np.exp(-gamma * D)
    K = K - K.mean(0) - K.mean(1)[:, None] + K.mean()
    values, directions = np.linalg.eigh(K)
    best = directions[:, -1:-3:-1] * np.sqrt(np.maximum(values[-1:-3:-1], 0))
    return best * np.where(best[np.abs(best).argmax(0), range(best.shape[1])] < 0, -1, 1)
