"""Subset sum: which of n given numbers add up to a target, as nearly as possible."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmxx.sparsity.strong_tickets import _search

MOST = 44
"""The most numbers to choose from: the two halves' sums would else not fit into memory."""
MOST_LISTED = 28
"""The most numbers of which `covering_counts` lists all sums."""
_FEW = 20


def subset_sum(
    w: Any, a: Any, tol: float = 0.0, max_items: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The subset of some numbers whose sum is nearest to each target.

    Meet in the middle (Horowitz and Sahni, 1974): the $2^{n/2}$ sums of either half are listed in
    ascending order, and two pointers walk through both. With ``tol=0`` the result is the optimum.
    A random set of $n = O(\\log 1/\\epsilon)$ numbers has a subset within $\\epsilon$ of any target
    with high probability (Lueker, 1998), which is what a strong lottery ticket rests on.

    Args:
        w: Targets, of any shape.
        a: What they choose from: [n] for all alike, or ``[*shape, n]`` where ``shape`` broadcasts
            to that of ``w``. Targets that share their numbers (an axis of 1) are found much faster.
        tol: End the search for a target once its error is this or less; 0 finds the optimum.
        max_items: Choose at most so many numbers; None chooses any number.

    Returns:
        The choice, bool ``[*w.shape, n]``, and the absolute errors, float64 ``[*w.shape]``.

    Raises:
        ValueError: Something is not finite, ``a`` does not broadcast, n exceeds 44, ``tol`` or
            ``max_items`` is negative, or a target lies outside of what all subsets reach.

    Example:
        >>> chosen, error = subset_sum([0.5, -0.1], [0.4, 0.3, -0.4, 0.1])
        >>> chosen.astype(int).tolist()
        [[1, 0, 0, 1], [0, 1, 1, 0]]

    Source: Pensia et al. (2020), section 3; the reference solves each by integer programming.
    """
    targets = np.asarray(w, np.float64)
    numbers = np.asarray(a, np.float64)
    most = _checked(targets, numbers, tol, max_items)
    n, lead = numbers.shape[-1], numbers.shape[:-1]
    lead = (1,) * (targets.ndim - len(lead)) + lead
    axes = targets.ndim
    while axes and lead[axes - 1] == 1:
        axes -= 1  # the targets along the last axes share their numbers
    groups = np.broadcast_to(numbers.reshape(*lead, n), (*targets.shape[:axes], *lead[axes:], n))
    groups = np.ascontiguousarray(groups.reshape(-1, n))
    flat = np.ascontiguousarray(targets.reshape(len(groups), -1))
    _check_reach(flat, groups, tol, targets.shape)
    codes, errors = solve(flat, groups, tol, most)
    return unpack(codes, n).reshape(*targets.shape, n), errors.reshape(targets.shape)


def solve(
    targets: np.ndarray, numbers: np.ndarray, tol: float, most: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """As `subset_sum`, without checks, for float64 [G, M] and [G, n]: bits int64, errors [G, M]."""
    codes, errors = np.empty(targets.shape, np.int64), np.empty(targets.shape)
    _search.search(targets, numbers, tol, most, codes, errors)
    return codes, errors


def unpack(codes: np.ndarray, n: int) -> np.ndarray:
    """The lowest n bits of each code: bool ``[*codes.shape, n]``."""
    return (codes[..., None] >> np.arange(n) & 1).astype(bool)


def _checked(targets: np.ndarray, numbers: np.ndarray, tol: float, max_items: int | None) -> int:
    for name, values in (("w", targets), ("a", numbers)):
        if not np.isfinite(values).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise ValueError(f"{name} must be finite, got {values[place]} at {place}")
    if numbers.ndim == 0 or numbers.shape[-1] == 0:
        raise ValueError(f"a must be [..., n] with n of 1 or more, got shape {numbers.shape}")
    check_count("a has n", numbers.shape[-1])
    try:
        fits = np.broadcast_shapes(targets.shape, numbers.shape[:-1]) == targets.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"a must be [n] or broadcast to {(*targets.shape, 'n')}, got shape {numbers.shape}"
        )
    if not 0 <= tol < np.inf:
        raise ValueError(f"tol must be 0 or more, got {tol}")
    if max_items is not None and max_items < 0:
        raise ValueError(f"max_items must be 0 or more, got {max_items}")
    return MOST if max_items is None else max_items


def check_count(name: str, n: int) -> None:
    """Refuse more numbers than the halves' sums fit into memory for, with the bytes."""
    if n > MOST:
        need = 2 * 2 * 16 * 2 ** ((n + 1) // 2)
        raise ValueError(
            f"{name}={n}: the sums of the two halves would take about {need:,} bytes; "
            f"at most {MOST} are accepted"
        )


def _check_reach(
    targets: np.ndarray, numbers: np.ndarray, tol: float, shape: tuple[int, ...]
) -> None:
    low = np.minimum(numbers, 0).sum(1)[:, None]
    high = np.maximum(numbers, 0).sum(1)[:, None]
    slack = tol + 1e-12 * (high - low)
    out = (targets < low - slack) | (targets > high + slack)
    if not out.any():
        return
    group, k = (int(i) for i in np.argwhere(out)[0])
    value, n = targets[group, k], numbers.shape[1]
    reach = high[group, 0] if value > 0 else low[group, 0]
    needed = f"about {int(np.ceil(n * value / reach))} such numbers" if reach else "other numbers"
    place = tuple(int(i) for i in np.unravel_index(group * targets.shape[1] + k, shape))
    raise ValueError(
        f"w{list(place) if place else ''} = {value:g} is out of reach: subsets of its {n} numbers "
        f"reach {low[group, 0]:g} to {high[group, 0]:g}; {needed} would be needed"
    )


def brute_force(w: float, a: Any) -> tuple[np.ndarray, float]:
    """As `subset_sum` for one target, by trying all $2^n$ subsets: the oracle.

    Args:
        w: The target.
        a: The numbers, [n] with n of 20 at most.

    Raises:
        ValueError: There are more numbers.

    Example:
        >>> brute_force(0.5, [0.4, 0.3, -0.4, 0.1])[0].astype(int).tolist()
        [1, 0, 0, 1]
    """
    numbers = np.asarray(a, np.float64)
    if numbers.size > _FEW:
        raise ValueError(f"a must have {_FEW} numbers at most, got {numbers.size}")
    choices = unpack(np.arange(2**numbers.size), numbers.size)
    errors = np.abs(choices @ numbers - w)
    best = int(errors.argmin())
    return choices[best], float(errors[best])


def covering_counts(a: Any, eps: Any, half_width: float = 0.5) -> np.ndarray:
    r"""How many of some numbers, in their order, it takes to come near every target.

    Exact: the subset sums of the first n cover $[-h, h]$ to within $\epsilon$ if no two neighbours
    among them are more than $2\epsilon$ apart there, and the outermost are near enough.

    Args:
        a: Sets of numbers, [n] or [sets, n] with n of 28 at most.
        eps: Tolerances, [e].
        half_width: $h$, so that the targets are all of $[-h, h]$.

    Returns:
        int64 [e] or [sets, e], the least count for each tolerance; n + 1 where all the numbers do
        not suffice.

    Raises:
        ValueError: There are more numbers, a shape does not fit, or a tolerance is not positive.

    Example:
        >>> covering_counts([0.5, -0.5, 0.25], [0.25, 0.125])
        array([2, 4])
    """
    numbers, tolerances = np.asarray(a, np.float64), np.asarray(eps, np.float64)
    if numbers.ndim not in (1, 2) or not 1 <= numbers.shape[-1] <= MOST_LISTED:
        raise ValueError(
            f"a must be [n] or [sets, n] with n from 1 to {MOST_LISTED}, got {numbers.shape}"
        )
    if tolerances.ndim != 1 or not (tolerances > 0).all():
        raise ValueError(f"eps must be a list of numbers above 0, got {eps}")
    sets = np.ascontiguousarray(np.atleast_2d(numbers))
    counts = np.empty((len(sets), len(tolerances)), np.int64)
    _search.covering_counts(sets, half_width, tolerances, counts)
    return counts.reshape(*numbers.shape[:-1], -1)
