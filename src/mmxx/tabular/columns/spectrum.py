r"""What the eigenvalues alone say: expected errors, bounds, and the sizes to avoid.

The columns of A, or a kernel matrix L = AᵀA, have eigenvalues λ_1 ≥ … ≥ λ_n ≥ 0. A subset S of k
columns has the error Er(S) = ‖A − P_S A‖²_F, which is tr(L − L̂) for the Nyström approximation L̂;
none is below OPT_k = Σ_{i>k} λ_i. What is called a factor is Er(S)/OPT_k.

Functions that return a curve return it for k = 0 … kmax, so that place k belongs to k. Eigenvalues
may come in any order.

Source: Dereziński, Khanna and Mahoney, "Improved guarantees and a multiple-descent curve for
Column Subset Selection and the Nyström method" (NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.signal import find_peaks

from mmxx.tabular.columns._kernels import last_ratios

Curve = NDArray[np.float64]

_VISIBLE = 1e-10  # a tail below this part of the trace is rounding, and so is its factor


def _sorted(lam: ArrayLike) -> Curve:
    """Eigenvalues in descending order.

    Raises:
        ValueError: They are no vector, or not finite, or negative, or all zero.
    """
    values = np.asarray(lam, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"lam must be a vector of eigenvalues, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("lam must be finite, got NaN or inf")
    if values.min() < 0:
        raise ValueError(f"lam must be 0 or more, got {values.min():g}")
    if not values.any():
        raise ValueError("lam is zero throughout: there is nothing to approximate")
    return -np.sort(-values)


def _check_k(name: str, k: int, least: int, most: int) -> None:
    if not least <= k <= most:
        raise ValueError(f"{name} must be in {least} … {most}, got {k}")


def _ratios(lam: Curve, kmax: int) -> Curve:
    """e_l/e_{l-1} of eigenvalues scaled to λ_1 = 1, l = 1 … kmax in place l."""
    scaled = lam / lam[0]
    return last_ratios(scaled[scaled > 0], kmax)


def log_esp(lam: ArrayLike, kmax: int) -> Curve:
    """Logarithms of the elementary symmetric polynomials of the eigenvalues, in O(n kmax).

    Args:
        lam: Eigenvalues [n], 0 or more.
        kmax: Highest degree.

    Returns:
        log e_k for k = 0 … kmax, [kmax + 1]; -inf where e_k is 0.

    Example:
        >>> np.exp(log_esp([1.0, 2.0, 3.0], 3)).round(6).tolist()
        [1.0, 6.0, 11.0, 6.0]
    """
    values = _sorted(lam)
    _check_k("kmax", kmax, 0, values.size)
    with np.errstate(divide="ignore"):
        steps = np.log(_ratios(values, kmax)[1:]) + np.log(values[0])
    return np.concatenate([[0.0], np.cumsum(steps)])


def expected_error(lam: ArrayLike, kmax: int | None = None) -> Curve:
    r"""Expected Er(S) of the k-DPP (volume sampling): $(k+1)\,e_{k+1}/e_k$, exactly.

    Args:
        lam: Eigenvalues [n], 0 or more.
        kmax: Largest k; n - 1 by default.

    Returns:
        The error for k = 0 … kmax, [kmax + 1]; 0 from the rank on. At k = 0 it is the trace.

    Source: Sec. 2, by the lemma of Deshpande et al. (2006).

    Example:
        >>> expected_error([3.0, 2.0, 1.0]).round(6).tolist()
        [6.0, 3.666667, 1.636364]
    """
    values = _sorted(lam)
    kmax = values.size - 1 if kmax is None else kmax
    _check_k("kmax", kmax, 0, values.size)
    return np.arange(1, kmax + 2) * _ratios(values, kmax + 1)[1:] * values[0]


def opt(lam: ArrayLike) -> Curve:
    """The least possible error OPT_k = Σ_{i>k} λ_i for k = 0 … n, [n + 1].

    The tail is summed from its smallest end: the trace less the first k would be rounding.

    Args:
        lam: Eigenvalues [n], 0 or more.

    Example:
        >>> opt([3.0, 2.0, 1.0]).tolist()
        [6.0, 3.0, 1.0, 0.0]
    """
    values = _sorted(lam)
    return np.concatenate([np.cumsum((values / values[0])[::-1])[::-1] * values[0], [0.0]])


def approximation_factor(lam: ArrayLike, kmax: int | None = None) -> Curve:
    """Expected factor of the k-DPP over the best rank-k approximation.

    Args:
        lam: Eigenvalues [n], 0 or more.
        kmax: Largest k; n - 1 by default.

    Returns:
        E[Er(S)]/OPT_k for k = 0 … kmax, [kmax + 1], between 1 and k + 1; NaN where OPT_k is below
        1e-10 of the trace and rounding would make the curve.

    Example:
        >>> approximation_factor(np.ones(5)).round(12).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    errors = expected_error(lam, kmax)
    tails = opt(lam)[: errors.size]
    visible = tails > _VISIBLE * tails[0]
    return np.divide(errors, tails, out=np.full(errors.size, np.nan), where=visible)


def stable_rank(lam: ArrayLike, s: int) -> float:
    r"""Stable rank of order s: $\sum_{i>s} \lambda_i / \lambda_{s+1}$; 0 where λ_{s+1} is 0.

    Args:
        lam: Eigenvalues [n], 0 or more.
        s: Order, 0 … n - 1.

    Example:
        >>> stable_rank([9.0, 1.0, 1.0, 1.0], 1)
        3.0
    """
    values = _sorted(lam)
    _check_k("s", s, 0, values.size - 1)
    return float(opt(values)[s] / values[s]) if values[s] > 0 else 0.0


def phi(lam: ArrayLike, s: int, k: ArrayLike) -> Curve:
    r"""Leading term of the paper's bound on the factor, for one order s.

    $\Phi_s(k) = (1 + \frac{s}{k-s}) \sqrt{1 + \frac{2(k-s)}{t_s - k}}$ with $t_s$ = s plus the
    stable rank of order s. The theorem has a further $(1 + 2\epsilon)^2$: see `theorem_bound`.

    Args:
        lam: Eigenvalues [n], 0 or more.
        s: Order, 0 … n - 1.
        k: Sizes, of any shape.

    Returns:
        Φ_s(k) in the shape of k; inf where not s < k < t_s.

    Source: Theorem 1.

    Example:
        >>> phi(np.ones(20), 0, [1, 10]).round(3).tolist()
        [1.051, 1.732]
    """
    sizes = np.asarray(k, dtype=np.float64)
    above, below = sizes - s, s + stable_rank(lam, s) - sizes
    inside = (above > 0) & (below > 0)
    above, below = np.where(inside, above, 1.0), np.where(inside, below, 1.0)
    return np.where(inside, (1 + s / above) * np.sqrt(1 + 2 * above / below), np.inf)


def best_phi(lam: ArrayLike, kmax: int) -> Curve:
    """The least Φ_s(k) over all orders s, for k = 0 … kmax, [kmax + 1]; inf where none applies.

    Args:
        lam: Eigenvalues [n], 0 or more.
        kmax: Largest k.

    Example:
        >>> best_phi(np.r_[np.ones(20), np.full(30, 0.01)], 25)[[20, 21]].round(2).tolist()
        [11.59, 21.71]
    """
    values = _sorted(lam)
    _check_k("kmax", kmax, 0, values.size)
    sizes = np.arange(kmax + 1)
    orders = range(min(kmax + 1, values.size))
    return np.min([phi(values, s, sizes) for s in orders], axis=0)


def theorem_bound(lam: ArrayLike, k: int, eps: float = 0.5) -> float:
    r"""The theorem's bound on the factor that some k columns reach, with its $\epsilon$.

    $(1+2\epsilon)^2\,\Phi_s(k)$, the least over the orders s with
    $s + \frac{7}{\epsilon^4} \ln^2 \frac{1}{\epsilon} \le k \le t_s - 1$.

    Args:
        lam: Eigenvalues [n], 0 or more.
        k: How many columns.
        eps: In (0, 1/2].

    Returns:
        The bound, or k + 1, which always holds, where it is smaller.

    Source: Theorem 1.

    Example:
        >>> theorem_bound(np.ones(10), 3)
        4.0
    """
    values = _sorted(lam)
    _check_k("k", k, 0, values.size)
    if not 0 < eps <= 0.5:
        raise ValueError(f"eps must be in (0, 0.5], got {eps}")
    room = 7 / eps**4 * np.log(1 / eps) ** 2
    found = [
        (1 + 2 * eps) ** 2 * float(phi(values, s, k))
        for s in range(max(int(np.floor(k - room)) + 1, 0))
        if k <= s + stable_rank(values, s) - 1
    ]
    return min([k + 1.0, *found])


def effective_dimension(lam: ArrayLike, alpha: float) -> float:
    """Expected size of the DPP with kernel L/α: Σ λ/(λ + α).

    Its expected error is α times that (Lemma 2's identity E[I − P_S] = α(AAᵀ + αI)⁻¹).

    Args:
        lam: Eigenvalues [n], 0 or more.
        alpha: Above 0.

    Example:
        >>> effective_dimension([1.0, 1.0], 1.0)
        1.0
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    values = _sorted(lam)
    return float((values / (values + alpha)).sum())


def alpha_for_size(lam: ArrayLike, k: float) -> float:
    """The α with which the DPP of L/α has k elements on average.

    Args:
        lam: Eigenvalues [n], 0 or more.
        k: Above 0 and below the number of eigenvalues above 0.

    Example:
        >>> round(alpha_for_size([1.0, 1.0], 1.0), 6)
        1.0
    """
    values = _sorted(lam)
    scaled = values[values > 0] / values[0]
    if not 0 < k < scaled.size:
        raise ValueError(f"k must be above 0 and below the rank {scaled.size}, got {k}")

    def surplus(log_alpha: float) -> float:
        return float((scaled / (scaled + np.exp(log_alpha))).sum()) - k

    # all eigenvalues at the smallest would need the least α, all at the largest the most
    odds = np.log(scaled.size / k - 1)
    ends = np.log(scaled[-1]) + odds - 1, odds + 1
    return float(np.exp(brentq(surplus, *ends, xtol=1e-13, rtol=1e-13)) * values[0])  # pyright: ignore


def peaks(
    lam: ArrayLike, kmax: int, prominence: float = 1.15
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sizes to avoid and sizes to take: the peaks of the expected factor, and the valleys after.

    Args:
        lam: Eigenvalues [n], 0 or more.
        kmax: Largest k looked at; the one after it is looked at as a neighbour.
        prominence: A peak stands out from the higher of its two valleys by this ratio at least.

    Returns:
        (peaks, valleys): after each peak the size of least factor before the next one, or up to
        kmax. Before the first peak the curve only rises.

    Example:
        >>> peaks(np.r_[np.ones(20), np.full(30, 0.01)], 40)[0].tolist()
        [20]
    """
    if not prominence > 1:
        raise ValueError(f"prominence must be a ratio above 1, got {prominence}")
    values = _sorted(lam)
    _check_k("kmax", kmax, 1, values.size)
    curve = np.log(approximation_factor(values, min(kmax + 1, values.size - 1)))
    curve = curve[: int(np.isfinite(curve).sum())]  # the tail only shrinks: a beginning is visible
    tops, _ = find_peaks(curve, prominence=np.log(prominence))
    tops = tops[tops <= kmax]
    if not tops.size:
        return tops, tops
    borders = [*tops, min(kmax + 1, curve.size)]
    after = [low + int(np.argmin(curve[low:high])) for low, high in pairwise(borders) if low < high]
    return tops, np.array(after, dtype=tops.dtype)


def lower_bound_gram(ks: Sequence[int], eta: float = 0.01) -> Curve:
    r"""A kernel matrix on which *every* subset of size $k_i$ has a factor near $k_i - k_{i-1}$.

    Block-diagonal; block i is $c_i (I - 11^T/m_i + \eta\,11^T/m_i)$, a regular simplex squeezed
    along its height, with $m_1 = k_1 + 1$, then $m_i = k_i - k_{i-1}$, and $c_{i+1} = c_i \eta^2$.

    Args:
        ks: Increasing sizes, each 1 or more, at which the curve shall peak.
        eta: In (0, 1); the smaller, the nearer.

    Returns:
        L, [n, n] with n = ks[-1] + 1.

    Source: the lower bound of Sec. 3; this construction is ours.

    Example:
        >>> lower_bound_gram((4, 9)).shape
        (10, 10)
    """
    sizes = np.diff([0, *ks])
    if not len(ks) or sizes.min() < 1:
        raise ValueError(f"ks must be increasing sizes of 1 or more, got {list(ks)}")
    if not 0 < eta < 1:
        raise ValueError(f"eta must be in (0, 1), got {eta}")
    sizes[0] += 1
    gram = np.zeros((ks[-1] + 1, ks[-1] + 1))
    start = 0
    for place, size in enumerate(sizes):
        block = slice(start, start + size)
        gram[block, block] = eta ** (2 * place) * (np.eye(int(size)) - (1 - eta) / size)
        start += size
    return gram
