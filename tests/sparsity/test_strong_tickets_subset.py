"""Subset sums and golden decompositions: against brute force, integer programming and proofs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmxx.sparsity.strong_tickets import (
    _search,
    brute_force,
    covering_counts,
    golden_decomposition,
    subset_sum,
)
from mmxx.sparsity.strong_tickets.draws import child, hyperbolic, key, uniform
from mmxx.sparsity.strong_tickets.golden import RATIO, bins_for, golden_borders


def instance(rng, n):
    numbers = rng.uniform(-1, 1, n)
    low, high = np.minimum(numbers, 0).sum(), np.maximum(numbers, 0).sum()
    return rng.uniform(low, high), numbers


# -- subset sum --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12, 16])
def test_the_optimum_is_that_of_all_subsets(n):
    rng = np.random.default_rng(n)
    for _ in range(25):
        target, numbers = instance(rng, n)
        chosen, error = subset_sum(target, numbers)
        _, least = brute_force(target, numbers)
        assert abs(error - least) < 1e-12
        assert abs(abs(numbers[chosen].sum() - target) - error) < 1e-12


@pytest.mark.parametrize("most", [0, 1, 2, 4, 8])
def test_the_optimum_of_a_few_items_is_that_of_all_such_subsets(most):
    rng = np.random.default_rng(most)
    for _ in range(20):
        target, numbers = instance(rng, 9)
        chosen, error = subset_sum(target, numbers, max_items=most)
        sums = [sum(part) for k in range(most + 1) for part in itertools.combinations(numbers, k)]
        assert chosen.sum() <= most
        assert abs(error - min(abs(total - target) for total in sums)) < 1e-12


def test_the_optimum_is_that_of_integer_programming():
    """50 instances over the reference's interval; the solver's own tolerance is about 1e-6."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rng = np.random.default_rng(0)
    for _ in range(50):
        numbers = rng.uniform(-0.46, 0.54, 12)
        target = rng.uniform(-0.3, 0.3)
        # minimise t where -t <= a.x - w <= t
        rows = np.block([[numbers, -1.0], [numbers, 1.0]])
        limits = LinearConstraint(rows, [-np.inf, target], [target, np.inf])
        solved = milp(
            np.r_[np.zeros(12), 1.0], integrality=np.r_[np.ones(12), 0],
            bounds=Bounds(np.zeros(13), np.r_[np.ones(12), np.inf]), constraints=limits,
            options={"mip_rel_gap": 0.0},
        )  # fmt: skip
        theirs = abs(numbers[solved.x[:12].round().astype(bool)].sum() - target)
        _, ours = subset_sum(target, numbers)
        assert ours <= theirs + 1e-12
        assert theirs <= ours + 1e-5


def test_a_search_with_a_tolerance_ends_within_it_or_at_the_optimum():
    rng = np.random.default_rng(0)
    targets, numbers = rng.uniform(-0.5, 0.5, 300), rng.uniform(-1, 1, (300, 17))
    numbers[:, :2] = 0.6, -0.6  # so that all targets are within reach
    _, least = subset_sum(targets, numbers)
    for tol in (1e-3, 1e-2, 0.5):
        _, error = subset_sum(targets, numbers, tol=tol)
        assert (error <= np.maximum(least + 1e-12, tol)).all()
    shared = subset_sum(targets, numbers[0], tol=1e-3)[1]
    assert (shared <= np.maximum(subset_sum(targets, numbers[0])[1] + 1e-12, 1e-3)).all()


def test_numbers_broadcast_over_targets():
    rng = np.random.default_rng(0)
    targets = rng.uniform(-0.5, 0.5, (3, 4, 2))
    for shape in ((9,), (2, 9), (4, 1, 9), (3, 1, 1, 9), (1, 4, 2, 9), (3, 4, 2, 9)):
        numbers = rng.uniform(-1, 1, shape)
        numbers[..., :2] = 0.6, -0.6
        chosen, error = subset_sum(targets, numbers)
        assert chosen.shape == (3, 4, 2, 9)
        whole = np.broadcast_to(numbers, (3, 4, 2, 9))
        for place in np.ndindex(3, 4, 2):
            assert abs(error[place] - brute_force(targets[place], whole[place])[1]) < 1e-12
    chosen, error = subset_sum(0.25, [0.25, 3.0])
    assert chosen.tolist() == [True, False]
    assert error.shape == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((math.nan, [1.0]), r"w must be finite, got nan at \(\)"),
        (([0.1, 0.2], [1.0, math.inf]), r"a must be finite, got inf at \(1,\)"),
        ((0.1, []), r"a must be \[..., n\] with n of 1 or more, got shape \(0,\)"),
        (([0.1, 0.2], np.ones((3, 4))), r"broadcast to \(2, 'n'\), got shape \(3, 4\)"),
        ((0.1, np.ones((3, 4))), r"broadcast to \('n',\), got shape \(3, 4\)"),
        ((0.1, [1.0], -1.0), "tol must be 0 or more, got -1.0"),
        ((0.1, [1.0], 0.0, -1), "max_items must be 0 or more, got -1"),
        ((0.1, np.ones(45)), r"a has n=45: .* about 536,870,912 bytes; at most 44 are accepted"),
        (([0.1, 7.0], [1.0, 2.0, -1.0]), r"w\[1\] = 7 .* reach -1 to 3; about 7 such numbers"),
        ((-0.1, [1.0]), r"w = -0.1 is out of reach: .* reach 0 to 1; other numbers"),
    ],
)
def test_what_cannot_be_searched_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        subset_sum(*arguments)


def test_brute_force_refuses_many_numbers():
    with pytest.raises(ValueError, match="a must have 20 numbers at most, got 21"):
        brute_force(0.1, np.ones(21))


# -- how many numbers cover --------------------------------------------------------------------


def test_a_set_covers_when_all_targets_of_a_fine_grid_are_near():
    rng = np.random.default_rng(0)
    eps = np.array([0.3, 0.1, 0.03])
    grid = np.linspace(-0.5, 0.5, 4001)
    for _ in range(20):
        numbers = rng.uniform(-1, 1, 11)
        expected = []
        for tolerance in eps:
            for n in range(1, 12):
                choices = np.array(list(itertools.product([0, 1], repeat=n)))
                sums = np.sort(choices @ numbers[:n])
                place = np.searchsorted(sums, grid).clip(1, len(sums) - 1)
                off = np.minimum(abs(grid - sums[place - 1]), abs(grid - sums[place]))
                if off.max() <= tolerance:
                    break
            else:
                n = 12
            expected.append(n)
        assert covering_counts(numbers, eps).tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(29), [0.1]), r"n from 1 to 28, got \(29,\)"),
        ((np.ones(3), [0.1, 0.0]), "eps must be a list of numbers above 0"),
    ],
)
def test_covering_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        covering_counts(*arguments)


# -- the golden ratio --------------------------------------------------------------------------


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    target=st.floats(0, 1),
    parts=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=25),
    negative=st.booleans(),
)
def test_one_number_in_each_bin_leaves_what_is_proved(target, parts, negative):
    bins, borders = len(parts), golden_borders(len(parts))
    numbers = borders[:-1] - np.array(parts) * (borders[:-1] - borders[1:])
    numbers = np.minimum(np.maximum(numbers, np.nextafter(borders[1:], 2)), borders[:-1])
    sign = -1.0 if negative else 1.0
    chosen, left = golden_decomposition(sign * target, sign * numbers, bins)
    assert left <= RATIO ** (bins - 1) * (1 + 1e-9)
    assert abs(abs(target - numbers[chosen].sum()) - left) < 1e-12


def test_the_worst_case_is_nearly_reached():
    """The first number just too large, all others at the lower ends of their bins."""
    numbers = golden_borders(12)[1:] * (1 + 1e-9)
    numbers[0] = 1.0
    _, left = golden_decomposition(1 - 1e-9, numbers, 12)
    assert 0.99 * RATIO**11 < left <= RATIO**11


def test_the_first_number_in_each_bin_counts_and_other_signs_do_not():
    numbers = [-0.7, 0.9, 0.65, 0.3, 2.0, 0.25]
    chosen, left = golden_decomposition(0.97, numbers, bins=4)
    assert chosen.tolist() == [False, True, False, False, False, False]
    assert left == pytest.approx(0.07)
    chosen, left = golden_decomposition(-0.97, numbers, bins=4)
    assert chosen.tolist() == [True] + [False] * 5


def test_enough_bins_are_taken():
    for eps, scale in ((0.01, 1.0), (0.3, 0.1), (1e-6, 2.5)):
        bins = bins_for(eps, scale)
        assert scale * RATIO ** (bins - 1) <= eps * (1 + 1e-9)
        assert bins == 1 or scale * RATIO ** (bins - 2) > eps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((math.nan, [1.0], 3), "w and b must be finite"),
        ((0.5, [1.0], 0), "bins must be 1 or more and scale above 0, got 0 and 1.0"),
        ((1.5, [1.0], 3), "w must be 1.0 at most, the scale, got 1.5"),
        (([0.5, 0.1], np.ones((2, 2, 3)), 3), r"b must be \[n\] or \(2, 'n'\), got shape"),
    ],
)
def test_what_cannot_be_decomposed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        golden_decomposition(*arguments)


# -- random weights ----------------------------------------------------------------------------


def test_the_bits_are_those_of_splitmix64():
    """The published first outputs of SplitMix64 for the seed 1234567."""
    state = np.array(1234567, np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert child(state, np.arange(3)).tolist() == expected


def test_weights_stay_what_they_are():
    """A ticket is a seed: these numbers must never change."""
    keys = child(key(7, 1, 2), np.arange(4))
    assert uniform(keys).tolist() == WEIGHTS["uniform"]
    assert hyperbolic(keys, -3, 3).tolist() == WEIGHTS["hyperbolic"]


WEIGHTS = {
    "uniform": [-0.16010910272598267, 0.7495359778404236, 0.31637042760849, 0.263316810131073],
    "hyperbolic": [
        -1.409498691558838, -0.3232288956642151, -0.15221744775772095, -2.7923617362976074,
    ],
}  # fmt: skip


def test_uniform_weights_are_uniform():
    from scipy.stats import kstest

    values = uniform(child(key(0), np.arange(20_000)))
    assert kstest(values, "uniform", args=(-1, 2)).pvalue > 0.01
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02
    assert values.dtype == np.float32


def test_hyperbolic_weights_have_the_density_one_over_w():
    from scipy.stats import kstest

    values = hyperbolic(child(key(0), np.arange(20_000)), -5, 2)
    assert kstest(np.log2(np.abs(values)), "uniform", args=(-5, 7)).pvalue > 0.01
    assert abs((values > 0).mean() - 0.5) < 0.02


def test_products_of_hyperbolic_weights_hit_every_bin_equally_often():
    octaves = 6
    keys = key(1), key(2)
    inner = hyperbolic(child(keys[0], np.arange(200_000)), -octaves, 0)
    outer = hyperbolic(child(keys[1], np.arange(200_000)), -octaves, octaves)
    depth = np.log(np.abs(inner * outer.astype(float))) / math.log(RATIO)
    counts, _ = np.histogram(depth, bins=np.arange(9))  # 8 bins, 6 octaves reach to bin 8.6
    expected = 200_000 * math.log2(1 / RATIO) / (2 * octaves)
    assert np.abs(counts / expected - 1).max() < 0.03


def test_the_sorted_sums_are_all_sums():
    rng = np.random.default_rng(0)
    for n in range(7):
        items = rng.uniform(-1, 1, n)
        sums, codes = np.empty(2**n + 1), np.empty(2**n + 1, np.int64)
        _search._sorted_sums(items, sums, codes, sums.copy(), codes.copy())
        bits = codes[:-1, None] >> np.arange(n) & 1
        assert sorted(codes[:-1]) == list(range(2**n))
        assert np.allclose(sums[:-1], bits @ items)
        assert (np.diff(sums[:-1]) >= 0).all()
