"""The two estimators: what they promise, data frames, sparse input, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics.pairwise import rbf_kernel

from mmxx.tabular.columns import ColumnSubsetSelector, DPPNystroem, nystroem_error, spectrum


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 4)) @ rng.normal(size=(4, 10)) + 0.1 * rng.normal(size=(60, 10))


# -- the selector ------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"center": True}, {"center": True, "scale": True}])
def test_the_columns_come_back_as_their_projection(X, settings):
    X = X + 3.0
    model = ColumnSubsetSelector(4, random_state=0, **settings).fit(X)
    mean = X.mean(0) if "center" in settings else 0.0
    scale = X.std(0) if "scale" in settings else 1.0
    Z = (X - mean) / scale
    q, _ = np.linalg.qr(Z[:, model.support_])
    back = model.inverse_transform(model.transform(X))
    assert back == pytest.approx(q @ (q.T @ Z) * scale + mean, abs=1e-10)
    assert model.error_ == pytest.approx(np.linalg.norm(Z - q @ (q.T @ Z)) ** 2, rel=1e-9)
    lam = np.linalg.svd(Z, compute_uv=False) ** 2
    assert model.opt_ == pytest.approx(lam[4:].sum())
    assert model.factor_ == pytest.approx(model.error_ / model.opt_)
    assert model.expected_factor_ == pytest.approx(spectrum.approximation_factor(lam, 4)[4])
    assert model.transform(X) == pytest.approx(Z[:, model.support_] @ model.coef_[:, model.support_]
                                               * (scale * np.ones(10))[model.support_]
                                               + (mean * np.ones(10))[model.support_])  # fmt: skip


def test_wide_tall_and_sparse_tables_agree(X):
    for table in (X, X.T):
        dense = ColumnSubsetSelector(5, method="greedy").fit(table)
        sparse = ColumnSubsetSelector(5, method="greedy").fit(csr_array(table))
        assert np.array_equal(dense.selected_, sparse.selected_)
        assert dense.error_ == pytest.approx(sparse.error_)
        assert dense.error_ == pytest.approx(nystroem_error(A=table, indices=dense.selected_))
        kept = sparse.transform(csr_array(table))
        assert sparse.inverse_transform(kept) == pytest.approx(
            dense.inverse_transform(dense.transform(table))
        )
    scaled = ColumnSubsetSelector(3, method="greedy", scale=True)
    assert scaled.fit(csr_array(X)).error_ == pytest.approx(scaled.fit(X * 1.0).error_)


def test_more_draws_leave_less(X):
    errors = [ColumnSubsetSelector(4, n_draws=n, random_state=0).fit(X).error_ for n in (1, 30)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("k", "size"), [(None, 5), (0.35, 3), (0.01, 1), (7, 7), (10, 10)])
def test_sizes(X, k, size):
    model = ColumnSubsetSelector(k, random_state=0).fit(X)
    assert model.support_.sum() == size == len(set(model.selected_.tolist()))
    if size == 10:
        assert model.error_ == pytest.approx(0, abs=1e-9)
        assert np.isnan(model.factor_)


def test_the_valley_after_the_peak():
    lam = np.r_[np.ones(6), np.full(6, 1e-4), np.full(12, 1e-8)]
    A = np.sqrt(lam)[:, None] * np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0]
    curve = spectrum.approximation_factor(lam, 23)
    _, valleys = spectrum.peaks(lam, 23)
    model = ColumnSubsetSelector("valley", random_state=0).fit(A)
    assert model.support_.sum() == valleys[np.argmin(curve[valleys])]
    assert ColumnSubsetSelector("valley").fit(np.eye(6)).support_.sum() == 3
    assert ColumnSubsetSelector("valley").fit(np.ones((3, 1))).support_.sum() == 1


def test_names_of_a_data_frame(X):
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(10)])
    model = ColumnSubsetSelector(3, method="greedy").fit(frame)
    expected = [f"c{i}" for i in sorted(model.selected_)]
    assert model.get_feature_names_out().tolist() == expected
    assert model.set_output(transform="pandas").transform(frame).columns.tolist() == expected


def test_constant_and_duplicate_columns_are_taken():
    X = np.random.default_rng(0).normal(size=(30, 3))
    X = np.column_stack([X, X, np.ones(30)])
    for seed in range(20):
        chosen = ColumnSubsetSelector(4, random_state=seed).fit(X).selected_ % 3
        assert len(set(chosen[chosen < 3])) == 3
    with pytest.warns(UserWarning, match="6 columns are selected where X has the numerical rank 4"):
        model = ColumnSubsetSelector(6, random_state=0).fit(X)
    assert model.error_ == pytest.approx(0, abs=1e-9)
    assert model.inverse_transform(model.transform(X)) == pytest.approx(X)


def test_one_row_is_enough():
    model = ColumnSubsetSelector(1, random_state=0).fit([[1.0, 2.0, 3.0]])
    assert model.inverse_transform(model.transform([[1.0, 2.0, 3.0]])) == pytest.approx(
        np.array([[1.0, 2.0, 3.0]])
    )


@pytest.mark.parametrize(
    ("settings", "table", "message"),
    [
        ({"n_features_to_select": 0}, np.eye(3), r"got 0 with n_features = 3"),
        ({"n_features_to_select": 4}, np.eye(3), r"in 1 … n_features.*got 4 with n_features = 3"),
        ({"n_features_to_select": 2}, np.ones((3, 1)), r"n_features = 1"),
        ({"n_features_to_select": 1.5}, np.eye(3), "got 1.5"),
        ({"n_features_to_select": "peak"}, np.eye(3), "got 'peak'"),
        ({"n_features_to_select": True}, np.eye(3), "got True"),
        ({"method": "best"}, np.eye(3), "method must be one of uniform, leverage.*got 'best'"),
        ({"n_draws": 0}, np.eye(3), "n_draws must be 1 or more, got 0"),
        ({}, np.zeros((3, 3)), "X is zero throughout, with n_samples = 3"),
        ({"center": True}, [[1.0, 2.0]], "zero throughout once centred, with n_samples = 1"),
        ({"center": True}, csr_array(np.eye(3)), "center=True would fill a sparse X"),
        ({}, pd.DataFrame({"a": [1.0, 2], "b": [1.0, np.nan]}), "column 'b' contains NaN"),
        ({}, pd.DataFrame({"a": [1.0, 2], "b": [1.0, np.inf]}), "column 'b' contains inf"),
        ({}, pd.DataFrame({"a": [1.0, 2], "b": ["x", "y"]}), "column 'b' holds text"),
        ({}, np.array([[1.0, np.nan]]), "NaN"),
        ({"method": "exhaustive"}, np.eye(30), "155,117,520 subsets"),
    ],
)
def test_what_cannot_be_selected_from_is_refused(settings, table, message):
    with pytest.raises(ValueError, match=message):
        ColumnSubsetSelector(**settings).fit(table)


def test_another_number_of_columns_is_refused_on_the_way_back(X):
    model = ColumnSubsetSelector(3, random_state=0).fit(X)
    with pytest.raises(ValueError, match="X must have the 3 selected columns, got 10"):
        model.inverse_transform(X)


# -- the feature map ---------------------------------------------------------------------------


def test_all_points_as_landmarks_give_the_kernel(X):
    with pytest.warns(UserWarning, match="n_components = 100 is more than n_samples = 60"):
        model = DPPNystroem(gamma=0.05, random_state=0).fit(X)
    mapped = model.transform(X)
    assert mapped @ mapped.T == pytest.approx(rbf_kernel(X, gamma=0.05), abs=1e-8)
    assert model.trace_error_ == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("kernel", ["rbf", "linear", "polynomial", "laplacian"])
def test_uniform_is_scikit_learns(X, kernel):
    ours = DPPNystroem(kernel, n_components=7, method="uniform", random_state=3).fit(X)
    theirs = Nystroem(kernel, n_components=7, random_state=3).fit(X)
    assert np.array_equal(ours.component_indices_, theirs.component_indices_)
    new = X[:9] + 0.1
    mapped, expected = (model.transform(new) for model in (ours, theirs))
    assert mapped @ mapped.T == pytest.approx(expected @ expected.T, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "method", ["rpcholesky", "kdpp", "projection", "greedy", "adaptive", "ridge_leverage"]
)
def test_its_error_is_what_is_left_of_the_kernel(X, method):
    model = DPPNystroem(gamma=0.05, n_components=9, method=method, random_state=0).fit(X)
    mapped = model.transform(X)
    K = rbf_kernel(X, gamma=0.05)
    assert model.trace_error_ == pytest.approx(np.trace(K - mapped @ mapped.T), rel=1e-8)
    assert model.trace_error_ == pytest.approx(nystroem_error(K, model.component_indices_))
    assert mapped.shape == (60, 9)


def test_a_kernel_that_is_a_function_and_one_of_low_rank():
    X = np.random.default_rng(0).normal(size=(30, 2))
    model = DPPNystroem(
        lambda x, y, power: float(x @ y) ** power, kernel_params={"power": 2}, n_components=3,
        random_state=0,
    )  # fmt: skip
    mapped = model.fit_transform(X)
    assert mapped @ mapped.T == pytest.approx((X @ X.T) ** 2, abs=1e-8)
    with pytest.warns(UserWarning, match="more than the numerical rank of the kernel, 2,"):
        assert DPPNystroem("linear", n_components=5, random_state=0).fit_transform(X).shape[1] == 2


def test_single_precision_and_sparse_input(X):
    single = DPPNystroem(gamma=0.05, n_components=9, random_state=0).fit_transform(
        X.astype(np.float32)
    )
    assert single.dtype == np.float32
    model = DPPNystroem(gamma=0.05, n_components=9, random_state=0)
    assert model.fit_transform(csr_array(X)) == pytest.approx(model.fit_transform(X), abs=1e-8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 0.0}, r"gamma must be above 0 \(1/\(2σ²\).*got 0.0"),
        ({"gamma": -1.0}, "gamma must be above 0"),
        ({"n_components": 0}, "n_components must be 1 or more, got 0"),
        ({"method": "kmeans"}, "method must be one of uniform.*got 'kmeans'"),
        ({"kernel": "precomputed"}, "kernel='precomputed' has no landmarks"),
        ({"kernel": lambda x, y: 1.0, "gamma": 1.0}, "hand those of a function over"),
    ],
)
def test_settings_out_of_range_are_refused(X, settings, message):
    with pytest.raises(ValueError, match=message):
        DPPNystroem(**settings).fit(X)
