"""What eigenvalues say: against brute force, exact rationals and closed forms."""

from __future__ import annotations

import doctest
import importlib
import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from mmxx.tabular.columns import nystroem_error, spectrum
from mmxx.tabular.columns.study import bends, best_factors, least_bound, spectra

K = np.arange(41)


def exact_esp(values):
    e = [Fraction(1)] + [Fraction(0)] * len(values)
    for value in values:
        for k in range(len(values), 0, -1):
            e[k] += Fraction(value) * e[k - 1]
    return e


def test_polynomials_of_whole_numbers_against_rationals():
    values = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    exact = exact_esp(values)
    assert np.exp(spectrum.log_esp(values, 12)) == pytest.approx(
        [float(e) for e in exact], rel=1e-13
    )
    error = [float((k + 1) * exact[k + 1] / exact[k]) for k in range(12)]
    assert spectrum.expected_error(values) == pytest.approx(error, rel=1e-13)
    assert spectrum.log_esp([2.0, 0.0], 2).tolist() == [0.0, np.log(2.0), -np.inf]


def test_the_formula_is_the_mean_over_all_subsets():
    A = np.random.default_rng(0).normal(size=(8, 8))
    L = A.T @ A
    lam = np.linalg.eigvalsh(L)
    subsets = list(itertools.combinations(range(8), 3))
    volumes = np.array([np.linalg.det(L[np.ix_(s, s)]) for s in subsets])
    errors = np.array([nystroem_error(L, s) for s in subsets])
    mean = (volumes * errors).sum() / volumes.sum()
    assert spectrum.expected_error(lam)[3] == pytest.approx(mean, rel=1e-10)
    projected = [_left(A, list(s)) for s in subsets]
    assert errors == pytest.approx(projected, rel=1e-9)


def _left(A, s):
    q, _ = np.linalg.qr(A[:, s])
    return np.linalg.norm(A - q @ (q.T @ A)) ** 2


def test_a_geometric_spectrum():
    d = 0.05
    factor = spectrum.approximation_factor((1 - d) ** np.arange(3000), 40)
    assert factor == pytest.approx((K + 1) * d / (1 - (1 - d) ** (K + 1)), rel=1e-9)


def test_the_inverse_squares():
    # the part of the spectrum beyond n goes with 1/n
    n = 400_000
    error = spectrum.expected_error(1 / np.arange(1, n + 1.0) ** 2, 40)
    assert error == pytest.approx(np.pi**2 / (2 * (2 * K + 3)), abs=1.2 * (K.max() + 1) / n)
    power = spectrum.approximation_factor(1 / np.arange(1, 2001.0) ** 4, 200)[200]
    assert power == pytest.approx(4.521, abs=5e-4)


def test_flat_spectra_have_factor_one_and_simplices_the_worst():
    flat = spectrum.approximation_factor(np.full(50, 0.3))
    assert flat == pytest.approx(np.ones(50), rel=1e-12)
    simplex = spectrum.approximation_factor(np.r_[np.ones(6), 1e-9])
    assert simplex[6] == pytest.approx(7, rel=1e-7)


@pytest.mark.parametrize("exponent", [-300, 300])
def test_scale_changes_no_factor(exponent):
    lam = np.exp(-0.05 * np.arange(200))
    scaled = spectrum.approximation_factor(lam * 10.0**exponent, 40)
    assert scaled == pytest.approx(spectrum.approximation_factor(lam, 40), rel=1e-11)
    assert np.isfinite(spectrum.log_esp(lam * 10.0**exponent, 200)).all()


def test_the_tail_is_summed_and_hidden_where_it_is_rounding():
    lam = np.r_[1.0, np.full(3, 1e-17)]
    assert spectrum.opt(lam)[1] == pytest.approx(3e-17, rel=1e-12)
    assert np.isnan(spectrum.approximation_factor(lam, 2)[1:]).all()
    assert spectrum.opt(lam[::-1])[0] == 1.0


def test_the_papers_spectra_have_these_factors():
    curves = {name: spectrum.approximation_factor(lam, 45) for name, lam in spectra().items()}
    toy = curves["toy, κ = 10"][[10, 19, 20, 21, 30]]
    assert toy == pytest.approx([1.025, 2.186, 7.607, 6.381, 2.696], abs=5e-4)
    assert curves["toy, κ = 5"][20] == pytest.approx(4.115, abs=5e-4)
    three = curves["three levels"][[19, 20, 21, 30, 39, 40]]
    assert three == pytest.approx([1.019, 20.571, 10.924, 2.821, 2.283, 35.579], abs=6e-4)


def test_peaks_and_the_valleys_after_them():
    known = spectra()
    tops, valleys = spectrum.peaks(known["three levels"], 50)
    assert tops.tolist() == [20, 40]
    assert valleys.tolist() == [38, 50]
    assert spectrum.peaks(known["toy, κ = 1"], 40)[0].size == 0
    assert spectrum.peaks(known["toy, κ = 10"], 40, prominence=8)[0].size == 0
    assert spectrum.peaks(known["toy, κ = 10"], 20)[0].tolist() == [20]


def test_the_bounds_leading_term():
    lam = spectra()["three levels"]
    assert spectrum.best_phi(lam, 50)[[21, 30, 50]] == pytest.approx([22.08, 5.19, 5.32], abs=5e-3)
    sr = spectrum.stable_rank(lam, 0)
    assert spectrum.phi(lam, 0, [5])[0] == pytest.approx(np.sqrt(1 + 10 / (sr - 5)))
    assert np.isinf(spectrum.phi(lam, 10, [10, 9])).all()
    assert np.isinf(spectrum.phi(lam, 0, 30.0))


def test_the_theorem_needs_room_and_is_never_above_the_worst_case():
    lam = np.r_[np.ones(60), np.full(3000, 1e-3)]
    room = 7 * 2**4 * np.log(2) ** 2  # 53.8
    allowed = range(int(100 - room) + 1)
    expected = 4 * min(spectrum.phi(lam, s, 100) for s in allowed)
    assert spectrum.theorem_bound(lam, 100, 0.5) == min(expected, 101)
    assert spectrum.theorem_bound(lam, 120, 0.5) < 4.8 * spectrum.best_phi(lam, 120)[120]
    assert spectrum.theorem_bound(np.ones(10), 3) == 4.0


def test_no_spectrum_breaks_the_leading_term_or_convexity():
    rng = np.random.default_rng(0)
    for _ in range(60):
        lam = np.exp(-rng.exponential(3.0, size=30)) ** rng.uniform(0.2, 4)
        assert least_bound(lam, 28) >= 0.98
        assert bends(lam, 28) == 0
        assert (np.diff(spectrum.expected_error(lam)) < 0).all()


def test_a_curve_that_bends_is_seen(monkeypatch):
    curve = np.array([5.0, 4.0, 3.5, 2.0, 1.9])
    monkeypatch.setattr(spectrum, "expected_error", lambda lam, kmax: curve)
    assert bends(np.ones(9), 4) == 1


def test_sizes_of_a_dpp():
    lam = np.array([5.0, 1.0, 0.2, 1e-9])
    for k in (0.5, 1.0, 2.9, 3.999):
        assert spectrum.effective_dimension(lam, spectrum.alpha_for_size(lam, k)) == pytest.approx(
            k
        )
    assert spectrum.effective_dimension(lam, 1.0) == pytest.approx(5 / 6 + 1 / 2 + 1 / 6, rel=1e-8)


@pytest.mark.parametrize(
    ("ks", "heights"), [((4, 9), (4.661, 4.808)), ((3, 6, 10), (3.827, 2.884, 3.883))]
)
def test_every_subset_of_the_lower_bound_peaks(ks, heights):
    best = best_factors(ks, 0.01)
    assert best[list(ks)] == pytest.approx(heights, abs=5e-4)
    others = np.delete(best, [0, *ks])
    assert others.max() <= 1.015


def test_exhaustive_is_the_least_of_all():
    from mmxx.tabular.columns.gram import DenseGram
    from mmxx.tabular.columns.pivoting import exhaustive

    A = np.random.default_rng(3).normal(size=(6, 8))
    L = A.T @ A
    for k in (1, 2, 4, 6):
        best = min(nystroem_error(L, s) for s in itertools.combinations(range(8), k))
        assert nystroem_error(L, exhaustive(DenseGram(L), k)) == pytest.approx(best, abs=1e-10)
    assert comb(8, 4) == 70


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum.log_esp([1.0, -1.0], 1), "lam must be 0 or more, got -1"),
        (lambda: spectrum.log_esp([1.0, np.nan], 1), "lam must be finite"),
        (lambda: spectrum.log_esp([[1.0]], 1), r"lam must be a vector.*\(1, 1\)"),
        (lambda: spectrum.opt([0.0, 0.0]), "lam is zero throughout"),
        (lambda: spectrum.log_esp([1.0], 2), r"kmax must be in 0 … 1, got 2"),
        (lambda: spectrum.stable_rank([1.0], 1), r"s must be in 0 … 0, got 1"),
        (lambda: spectrum.theorem_bound([1.0], 1, 0.6), r"eps must be in \(0, 0.5\], got 0.6"),
        (lambda: spectrum.effective_dimension([1.0], 0.0), "alpha must be above 0, got 0"),
        (lambda: spectrum.alpha_for_size([1.0, 0.0], 1), "below the rank 1, got 1"),
        (lambda: spectrum.peaks([1.0, 1.0], 1, 1.0), "prominence must be a ratio above 1"),
        (lambda: spectrum.lower_bound_gram((4, 4)), r"ks must be increasing.*\[4, 4\]"),
        (lambda: spectrum.lower_bound_gram((4,), 1.0), r"eta must be in \(0, 1\), got 1.0"),
    ],
)
def test_what_is_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["spectrum", "gram", "sampling", "selector", "nystroem"])
def test_the_examples_say_what_they_give(name):
    module = importlib.import_module(f"mmxx.tabular.columns.{name}")
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
