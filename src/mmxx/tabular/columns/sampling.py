r"""Exact and approximate draws of determinantal point processes.

A k-DPP takes the subset S of k columns with probability $\det(L_S)/e_k(\lambda)$, which is volume
sampling; the DPP of L/α takes subsets of any size with probability
$\det(L_S/\alpha)/\det(I + L/\alpha)$.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mmxx.tabular.columns._kernels import project, uniforms
from mmxx.tabular.columns.candidates import intermediate
from mmxx.tabular.columns.draws import (
    Random,
    check_drawn,
    checked_eigen,
    dual,
    exact,
    mcmc,
    primal,
    seeds_of,
)
from mmxx.tabular.columns.gram import Indices, as_gram

Method = Literal["exact", "dual", "mcmc", "intermediate"]
_DRAW = {"exact": primal, "dual": dual, "mcmc": mcmc, "intermediate": intermediate}


def sample_kdpp(
    L: Any = None,
    k: int = 1,
    *,
    A: Any = None,
    eigen: tuple[ArrayLike, ArrayLike] | None = None,
    size: int = 1,
    method: Method = "exact",
    n_steps: int | None = None,
    random_state: Random = None,
    return_info: bool = False,
) -> Any:
    """Draw subsets of k columns by volume.

    One of L, A and eigen says of what.

    Args:
        L: Kernel matrix [n, n], symmetric and positive semidefinite, or a `KernelMatrix`.
        k: Columns in a subset, at most the numerical rank.
        A: Table [d, n] whose columns are chosen: an array, a memory map, a sparse matrix, or a
            list of these side by side.
        eigen: Eigenvalues [r] and orthonormal eigenvectors [n, r] of L, in any order, for "exact".
            Of the vectors only those that a draw takes are read.
        size: Subsets to draw; they share one decomposition.
        method: "exact" decomposes L. "dual" decomposes AAᵀ and never makes anything n × n, for
            d ≪ n. "mcmc" swaps columns from a randomly pivoted Cholesky start; one chain runs
            through all draws. "intermediate" draws a small set of candidates by estimated ridge
            leverage, accepts it or not, and a k-DPP of it: exact, with a few hundred columns of L.
        n_steps: Swaps proposed before each draw of "mcmc"; n k ln n by default.
        random_state: Seed, RandomState or Generator.
        return_info: Also return a `SampleInfo`.

    Returns:
        Indices in the order in which they were drawn, int64 [size, k]; with ``return_info`` a pair
        of these and a `SampleInfo`.

    Raises:
        ValueError: An argument is out of range, L is not symmetric or not positive semidefinite,
            eigenvectors are not orthonormal, or k exceeds the numerical rank.

    Source: Kulesza and Taskar (2011) for "exact"; Anari, Oveis Gharan and Rezaei (2016) for "mcmc";
        Dereziński, Calandriello and Valko (2019) for "intermediate".

    Example:
        >>> sample_kdpp(np.eye(4), 2, size=3, random_state=0).shape
        (3, 2)
    """
    if method not in _DRAW:
        raise ValueError(f"method must be one of {', '.join(_DRAW)}, got {method!r}")
    for name, value in (("k", k), ("size", size), ("n_steps", n_steps)):
        if value is not None and not (isinstance(value, (int, np.integer)) and value > 0):
            raise ValueError(f"{name} must be a whole number above 0, got {value!r}")
    if eigen is not None:
        if L is not None or A is not None or method != "exact":
            raise ValueError("eigen stands for L and A, and is for method='exact' alone")
        found = exact(*checked_eigen(*eigen), k, seeds_of(random_state, size))
    else:
        gram = as_gram(L, A)
        if k > gram.n:
            raise ValueError(f"k must be at most the number of columns, {gram.n}, got {k}")
        found = _DRAW[method](gram, k, seeds_of(random_state, size), n_steps)
    return found if return_info else found[0]


def sample_dpp(
    L: Any = None,
    *,
    A: Any = None,
    alpha: float = 1.0,
    size: int = 1,
    random_state: Random = None,
) -> list[Indices]:
    """Draw subsets of any size from the DPP with kernel L/α.

    `spectrum.alpha_for_size` finds the α for an average size.

    Args:
        L: Kernel matrix [n, n], or a `KernelMatrix`.
        A: Table [d, n] in its place; see `sample_kdpp`.
        alpha: Above 0; the larger, the smaller the subsets.
        size: Subsets to draw.
        random_state: Seed, RandomState or Generator.

    Returns:
        A list of int64 arrays, some of which may be empty.

    Raises:
        ValueError: An argument is out of range, or L is not symmetric positive semidefinite.

    Example:
        >>> [len(s) for s in sample_dpp(np.eye(4), alpha=1e-9, size=2, random_state=0)]
        [4, 4]
    """
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    values, vectors = as_gram(L, A).eigen
    draws = []
    for seed in seeds_of(random_state, size):
        chosen = np.flatnonzero(uniforms(seed, 0, values.size) * (values + alpha) < values)
        indices = np.empty(chosen.size, np.int64)
        if chosen.size:
            check_drawn(project(vectors, chosen, seed, indices))
        draws.append(indices)
    return draws
