"""Draws against the exact law; choices against brute force; what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.random import RandomState
from scipy.sparse import csc_array
from scipy.stats import chisquare

from mmxx.tabular.columns import KernelMatrix, nystroem_error, sample_dpp, sample_kdpp, spectrum
from mmxx.tabular.columns.gram import ColumnGram, DenseGram
from mmxx.tabular.columns.methods import METHODS, select
from mmxx.tabular.columns.pivoting import rpcholesky
from mmxx.tabular.columns.study import regularized, spectra

SUBSETS = list(itertools.combinations(range(8), 3))


@pytest.fixture(scope="module")
def A():
    return np.random.default_rng(0).normal(size=(5, 8)) * np.array([3, 2, 1, 0.5, 0.2])[:, None]


@pytest.fixture(scope="module")
def volumes(A):
    L = A.T @ A
    found = np.array([np.linalg.det(L[np.ix_(s, s)]) for s in SUBSETS])
    return found / found.sum()


def p_value(draws, expected):
    places = {subset: place for place, subset in enumerate(SUBSETS)}
    ordered = map(tuple, np.sort(draws, axis=1).tolist())
    counts = np.bincount([places[s] for s in ordered], minlength=len(SUBSETS))
    return chisquare(counts, expected * len(draws)).pvalue


@pytest.mark.parametrize(
    ("method", "size", "steps"),
    [
        ("exact", 200_000, None),
        ("dual", 10_000, None),
        ("mcmc", 10_000, 150),
        ("intermediate", 4000, None),
        pytest.param("dual", 200_000, None, marks=pytest.mark.slow),
        pytest.param("mcmc", 200_000, 150, marks=pytest.mark.slow),
        pytest.param("intermediate", 100_000, None, marks=pytest.mark.slow),
    ],
)
def test_draws_have_the_law_of_volumes(A, volumes, method, size, steps):
    draws, info = sample_kdpp(
        A=A, k=3, method=method, size=size, n_steps=steps, random_state=1, return_info=True
    )
    assert p_value(draws, volumes) > 1e-3
    assert info.exact == (method != "mcmc")
    assert 0 < info.acceptance <= 1


def test_a_uniform_choice_has_not(volumes):
    rng = np.random.default_rng(0)
    draws = np.array([rng.permutation(8)[:3] for _ in range(2000)])
    assert p_value(draws, volumes) < 1e-9


def test_marginals_of_a_dpp(A):
    L = A.T @ A
    K = L @ np.linalg.inv(L + 0.7 * np.eye(8))
    draws = sample_dpp(L, alpha=0.7, size=20_000, random_state=0)
    together = np.zeros((8, 8))
    for draw in draws:
        together[np.ix_(draw, draw)] += 1 / len(draws)
    pairs = np.outer(K.diagonal(), K.diagonal()) - K**2
    expected = np.where(np.eye(8, dtype=bool), np.diag(K.diagonal()), pairs)
    assert together == pytest.approx(expected, abs=4.5 * 0.5 / np.sqrt(20_000))
    mean, deviation, formula = regularized(spectra()["toy, κ = 10"], 0.02, 300, 0)
    assert abs(mean - formula) < 4 * deviation


def test_the_dual_draws_what_the_primal_draws(A):
    primal = sample_kdpp(A.T @ A, 3, size=50, random_state=3)
    assert np.array_equal(primal, sample_kdpp(A=A, k=3, method="dual", size=50, random_state=3))
    assert np.array_equal(primal, sample_kdpp(A=A, k=3, size=50, random_state=3))
    sparse = sample_kdpp(A=csc_array(A), k=3, method="dual", size=50, random_state=3)
    assert np.array_equal(primal, sparse)


def test_chunks_and_a_memory_map_give_the_same_bits(tmp_path):
    A = np.random.default_rng(1).normal(size=(6, 9001))
    whole = ColumnGram(A)
    np.save(tmp_path / "A.npy", A)
    parts = np.split(A, [1000, 4097, 8000], axis=1)
    for other in (ColumnGram(parts), ColumnGram(np.load(tmp_path / "A.npy", mmap_mode="r"))):
        assert all(np.array_equal(a, b) for a, b in zip(whole.rows, other.rows, strict=True))
        assert np.array_equal(whole.diagonal(), other.diagonal())
        chosen = np.array([8500, 3, 4097])
        assert np.array_equal(whole.take(chosen), other.take(chosen))
        one, two = (
            sample_kdpp(A=a, k=4, method="dual", size=3, random_state=0) for a in (A, parts)
        )
        assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("lam", "k"),
    [
        (1e6 * np.linspace(1, 2, 400), 100),
        (np.exp(-0.05 * np.arange(500)), 300),
        (np.arange(1, 601.0) ** -1.5, 200),
    ],
)
def test_hard_spectra_give_different_indices(lam, k):
    U = np.linalg.qr(np.random.default_rng(0).normal(size=(lam.size, lam.size)))[0]
    draws = sample_kdpp(eigen=(lam, U), k=k, size=2, random_state=0)
    assert all(len(set(draw)) == k for draw in draws.tolist())


def test_a_decomposition_may_come_in_any_order_and_layout():
    X = np.random.default_rng(0).normal(size=(30, 3))
    lam, U = np.linalg.eigh(KernelMatrix(X, gamma=0.3).dense())
    order = np.random.default_rng(1).permutation(30)
    many, one = (sample_kdpp(eigen=(lam, U), k=5, size=s, random_state=2) for s in (40, 1))
    for vectors in (np.asfortranarray(U[:, order]), U[:, order], U[::-1, order][::-1]):
        for size, wanted in ((40, many), (1, one)):
            drawn = sample_kdpp(eigen=(lam[order], vectors), k=5, size=size, random_state=2)
            assert np.array_equal(drawn, wanted)


def test_duplicates_are_never_drawn_together():
    A = np.random.default_rng(0).normal(size=(4, 10))
    A[:, 5:] = A[:, :5]
    draws = sample_kdpp(A=A, k=4, size=2000, random_state=0)
    assert all(len({i % 5 for i in draw}) == 4 for draw in draws.tolist())


def test_generators_of_either_kind_and_their_repetition():
    L = np.diag(np.arange(1.0, 9))
    for make in (np.random.default_rng, RandomState, int):
        one, two, other = (sample_kdpp(L, 3, size=9, random_state=make(s)) for s in (5, 5, 6))
        assert np.array_equal(one, two)
        assert not np.array_equal(one, other)


def test_candidates_first_on_a_kernel_that_is_never_made():
    X = np.random.default_rng(0).normal(size=(30_000, 2))
    kernel = KernelMatrix(X, gamma=0.02)
    draws, info = sample_kdpp(
        kernel, 6, method="intermediate", size=2, random_state=0, return_info=True
    )
    assert info.exact
    assert info.candidates < 1000
    assert all(len(set(draw)) == 6 for draw in draws.tolist())


def test_candidates_that_are_refused_throughout_are_said(monkeypatch):
    from mmxx.tabular.columns import candidates

    monkeypatch.setattr(candidates, "_TRIES", 1)
    monkeypatch.setattr(candidates, "_log_det", lambda small: -np.inf)
    with pytest.warns(UserWarning, match="2 of 2 draws are approximate"):
        _, info = sample_kdpp(
            np.eye(9), 3, method="intermediate", size=2, random_state=0, return_info=True
        )
    assert not info.exact


# -- choices -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel():
    X = np.random.default_rng(2).normal(size=(120, 3))
    return KernelMatrix(X, gamma=0.3).dense()


def test_randomly_pivoted_cholesky_in_batches_has_the_law_of_one_at_a_time(volumes):
    A = np.random.default_rng(0).normal(size=(5, 8)) * np.array([3, 2, 1, 0.5, 0.2])[:, None]
    gram = DenseGram(A.T @ A)
    law = dict.fromkeys(SUBSETS, 0.0)
    for order in itertools.permutations(range(8), 3):
        p, left = 1.0, gram.dense()
        for i in order:
            p *= left[i, i] / left.trace()
            left -= np.outer(left[i], left[i]) / left[i, i]
        law[tuple(sorted(order))] += p
    rng = RandomState(0)
    draws = np.array([rpcholesky(gram, 3, rng, batch=6)[0] for _ in range(4000)])
    assert p_value(draws, np.array(list(law.values()))) > 1e-3
    assert p_value(draws, volumes) < 1e-3


def test_its_factor_is_that_of_the_approximation(kernel):
    pivots, factor = rpcholesky(DenseGram(kernel), 20, RandomState(0), batch=5)
    exact = kernel[:, pivots] @ np.linalg.solve(kernel[np.ix_(pivots, pivots)], kernel[pivots])
    assert factor @ factor.T == pytest.approx(exact, abs=1e-8)


def test_greedy_is_the_best_next_column(kernel):
    chosen = select(DenseGram(kernel), 8, "greedy", RandomState(0)).tolist()
    for count in range(4):
        before = chosen[:count]
        errors = [nystroem_error(kernel, [*before, j]) for j in range(120) if j not in before]
        assert nystroem_error(kernel, chosen[: count + 1]) == pytest.approx(min(errors), rel=1e-9)


def test_no_swap_improves_a_local_search(kernel):
    chosen = select(DenseGram(kernel), 4, "local_search", RandomState(0))
    error = nystroem_error(kernel, chosen)
    swaps = [
        nystroem_error(kernel, [*np.delete(chosen, place), j])
        for place in range(4) for j in range(0, 120, 3) if j not in chosen
    ]  # fmt: skip
    assert min(swaps) >= error * (1 - 1e-8)
    assert error <= nystroem_error(kernel, select(DenseGram(kernel), 4, "greedy", RandomState(0)))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "exhaustive"])
def test_every_method_chooses_k_columns_and_none_beats_the_optimum(kernel, method):
    gram = DenseGram(kernel)
    opt = spectrum.opt(gram.spectrum)
    for k in (1, 7):
        chosen = select(gram, k, method, RandomState(0))
        assert len(set(chosen.tolist())) == k
        assert nystroem_error(kernel, chosen) >= opt[k]
    errors = [nystroem_error(kernel, chosen[:k]) for k in range(1, 8)]
    assert (np.diff(errors) <= 0).all()


def test_pivots_are_those_of_qr():
    A = np.random.default_rng(0).normal(size=(20, 15))
    by_qr = select(ColumnGram(A), 6, "pivoted_qr", RandomState(0))
    assert np.array_equal(by_qr, select(ColumnGram(A), 6, "pivoted_cholesky", RandomState(0)))


@pytest.mark.parametrize("method", ["uniform", "rpcholesky", "kdpp", "greedy"])
def test_rotation_and_permutation_change_no_factor(method):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(9, 12)) * 2.0 ** -np.arange(12)
    Q = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    chosen = select(ColumnGram(A), 4, method, RandomState(0))
    assert np.array_equal(chosen, select(ColumnGram(Q @ A), 4, method, RandomState(0)))
    order = rng.permutation(12)
    moved = np.argsort(order)[chosen]
    assert nystroem_error(A=A[:, order], indices=moved) == pytest.approx(
        nystroem_error(A=A, indices=chosen), rel=1e-9
    )


# -- refusals ----------------------------------------------------------------------------------

EYE = np.eye(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_kdpp(EYE, 0), "k must be a whole number above 0, got 0"),
        (lambda: sample_kdpp(EYE, 5), "k must be at most the number of columns, 4, got 5"),
        (lambda: sample_kdpp(EYE, 2, size=0), "size must be a whole number above 0, got 0"),
        (lambda: sample_kdpp(EYE, 2, method="vfx"), "method must be one of exact, dual"),
        (lambda: sample_kdpp(np.ones((4, 4)), 2), r"k = 2 exceeds the numerical rank 1 \(eigen"),
        (lambda: sample_kdpp(np.zeros((4, 4)), 1), "k = 1 exceeds the numerical rank 0"),
        (lambda: sample_kdpp(np.ones((4, 4)), 2, method="mcmc"), "exceeds the numerical rank"),
        (lambda: sample_kdpp(np.ones((4, 4)), 2, method="intermediate"), "the numerical rank 1"),
        (lambda: sample_kdpp(A=np.ones((2, 4)), k=2, method="dual"), "the numerical rank 1"),
        (lambda: sample_kdpp(EYE, 2, method="dual"), "method='dual' needs A="),
        (lambda: sample_kdpp(EYE, 2, A=EYE), "exactly one of L"),
        (lambda: sample_kdpp(k=2), "exactly one of L"),
        (lambda: sample_kdpp(np.ones((3, 4)), 2), r"L must be a square matrix, got shape \(3, 4\)"),
        (lambda: sample_kdpp(np.triu(np.ones((3, 3))), 2), "its largest asymmetry is 1"),
        (lambda: sample_kdpp(np.diag([1.0, -0.5]), 1), "negative eigenvalue is -0.5"),
        (lambda: sample_kdpp(np.array([[1.0, 2], [2, 1]]), 1), "negative eigenvalue is -1"),
        (lambda: sample_kdpp(np.diag([1.0, np.nan]), 1), "L must be finite"),
        (lambda: sample_kdpp(EYE * 1j, 1), "L must be real"),
        (lambda: sample_kdpp(A=np.array([[1.0, np.inf]]), k=1), "inf in column 1"),
        (lambda: sample_kdpp(A=np.array([["a", "b"]]), k=1), "A must hold numbers"),
        (lambda: sample_kdpp(A=[EYE, np.ones((3, 2))], k=1), r"one number of rows, got \[4, 3\]"),
        (lambda: sample_kdpp(eigen=([1.0], EYE), k=1), "eigen must be values"),
        (lambda: sample_kdpp(eigen=([-1.0, 1, 1, 1], EYE), k=1), "eigenvalues must be 0 or more"),
        (lambda: sample_kdpp(eigen=([np.nan, 1, 1, 1], EYE), k=1), "eigenvalues must be finite"),
        (lambda: sample_kdpp(eigen=(np.ones(4), EYE * np.nan), k=1), "finite and orthonormal"),
        (lambda: sample_kdpp(eigen=(np.ones(4), EYE + 1), k=3), "finite and orthonormal"),
        (lambda: sample_kdpp(eigen=(np.ones(2), np.full((4, 2), 0.5)), k=2), "and orthonormal"),
        (lambda: sample_kdpp(eigen=(np.ones(4), EYE), k=1, method="dual"), "eigen stands for"),
        (lambda: sample_dpp(EYE, alpha=0), "alpha must be above 0, got 0"),
        (lambda: nystroem_error(EYE, []), "indices must be a list of whole numbers"),
        (lambda: nystroem_error(EYE, [4]), r"indices must be in 0 … 3, got 4"),
        (lambda: KernelMatrix(EYE, gamma=0.0), r"gamma must be above 0.*got 0.0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_kernel_too_large_to_be_dense_is_refused_before_it_is_made():
    with pytest.raises(ValueError, match=r"n = 20,001.*3,200,320,008 bytes.*A=.*intermediate"):
        sample_kdpp(KernelMatrix(np.zeros((20_001, 1)), gamma=1.0), 2)


def test_too_many_subsets_are_refused():
    with pytest.raises(ValueError, match=r"10 of 40 columns are 847,660,528 subsets"):
        select(DenseGram(np.eye(40)), 10, "exhaustive", RandomState(0))


def test_rounding_below_zero_and_sparse_matrices_are_taken():
    L = np.diag([1.0, 0.5, -1e-12])
    assert set(sample_kdpp(L, 2, random_state=0)[0].tolist()) == {0, 1}
    assert sample_kdpp(csc_array(np.eye(5)), 2, random_state=0).shape == (1, 2)
