"""Losses, Fourier ridges and the loop: by formulas, by invariants, and beside the theory."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeRegressor

from mmxx.tabular.snapboost import HNBM, Shard, SnapBoostClassifier, SnapBoostRegressor
from mmxx.tabular.snapboost.fourier import Encoder, Features, Projection, Ridge
from mmxx.tabular.snapboost.losses import Loss

PARITY = json.loads((Path(__file__).parents[1] / "parity" / "snapboost.json").read_text())


def table(n=240, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    y = np.sin(2 * X[:, 0]) + (X[:, 1] > 0) + 0.1 * rng.normal(size=n)
    return X, y


# -- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "y", "halves"),
    [
        (Loss("squared_error"), [0.3, -2.0, 5.0], 0.5),
        (Loss("log_loss"), [0.0, 1.0, 1.0], 1.0),
        (Loss("poisson"), [0.0, 1.0, 0.0], 1.0),
        (Loss("log_loss", 3), [0.0, 2.0, 1.0], 1.0),
    ],
)
def test_gradients_and_curvatures_are_those_of_the_values(loss, y, halves):
    """The value of squared_error is twice the objective. Poisson: rows below their mean."""
    y, w = np.array(y), np.array([1.0, 2.0, 0.5])
    raw = np.random.default_rng(0).normal(size=(loss.classes, 3)) + (loss.name == "poisson")
    g, h = np.empty_like(raw), np.empty_like(raw)

    def value(shift, k, i):
        moved = raw.copy()
        moved[k, i] += shift
        return halves * loss.evaluate(y, w, moved, np.empty_like(g), np.empty_like(h), 0, 3)[0]

    sums = loss.evaluate(y, w, raw, g, h, 0, 3)
    factor = loss.classes / (loss.classes - 1) if loss.classes > 1 else 1.0
    for k in range(loss.classes):
        for i in range(3):
            low, middle, high = (value(shift, k, i) for shift in (-1e-4, 0.0, 1e-4))
            assert g[k, i] == pytest.approx((high - low) / 2e-4, abs=1e-6)
            assert h[k, i] == pytest.approx(factor * (high - 2 * middle + low) / 1e-8, abs=1e-5)
    assert sums[1:3] == pytest.approx((np.abs(g).sum(), h.sum()))
    assert sums[3] == pytest.approx((g**2 / h).sum())
    if loss.classes > 1:
        assert np.abs(g.sum(0)).max() < 1e-12


@pytest.mark.parametrize("name", ["squared_error", "log_loss", "poisson"])
def test_the_base_score_has_no_gradient(name):
    y, w = np.array([0.0, 1.0, 1.0, 0.0, 1.0]), np.array([1.0, 2.0, 1.0, 0.5, 3.0])
    loss = Loss(name)
    raw = np.repeat(loss.base_score(y, w), 5, axis=1)
    g, h = np.empty_like(raw), np.empty_like(raw)
    loss.evaluate(y, w, raw, g, h, 0, 5)
    if name == "poisson":
        assert raw[0, 0] == pytest.approx(np.log(np.average(y, weights=w)))
    assert g.sum() == pytest.approx(0, abs=1e-12)


def test_quantile_and_poisson_fits_are_what_they_say():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(1500, 1))
    y = 100 * X[:, 0] + 50 * (1 + X[:, 0]) * rng.normal(size=1500)
    for q in (0.1, 0.8):
        model = SnapBoostRegressor(loss="quantile", quantile=q, max_max_depth=3, random_state=0)
        below = y < model.fit(X, y).predict(X)
        assert below.mean() == pytest.approx(q, abs=0.03)
        assert below[X[:, 0] > 0.5].mean() == pytest.approx(q, abs=0.05)
    mean = np.exp(3 * X[:, 0])
    model = SnapBoostRegressor(loss="poisson", random_state=0).fit(X, rng.poisson(mean))
    assert np.mean(np.abs(model.predict(X) / mean - 1)) < 0.15
    assert np.mean(model.predict(X) / mean) == pytest.approx(1, abs=0.05)


def test_a_loss_of_ones_own_is_used():
    X, y = table()

    def squared(y, raw):
        return (raw - y) ** 2, raw - y, np.ones_like(y)

    own = SnapBoostRegressor(loss=squared, base_score=0.0, n_rounds=20, random_state=0)
    named = SnapBoostRegressor(base_score=0.0, n_rounds=20, random_state=0)
    assert np.allclose(own.fit(X, y).predict(X), named.fit(X, y).predict(X), atol=1e-9)
    own.set_params(loss=lambda y, raw: (raw - y, raw - y, np.zeros_like(y)))
    with pytest.raises(ValueError, match="loss must return"):
        own.fit(X, y)


# -- Fourier features and ridges ---------------------------------------------------------------


def as_it_is(Z):
    return Z


def features(n=60, components=30, gamma=0.5, seed=0):
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, 3)).astype(np.float32)
    projection = Projection.draw(3, components, gamma, rng)
    return Z, projection(Z), Features(Z, as_it_is, projection)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 40.0])
@pytest.mark.parametrize("intercept", [False, True])
def test_a_ridge_solves_the_normal_equations(alpha, intercept):
    _, phi, kept = features()
    rng = np.random.default_rng(1)
    g, h = rng.normal(size=60), rng.uniform(0.1, 2, 60)
    ridge = Ridge(kept, alpha, relative=False, fit_intercept=intercept)
    beta = ridge.solve(g, h, 60.0)
    design = np.column_stack([phi.astype(np.float64), np.full(60, float(intercept))])
    rows = np.sqrt(h)[:, None] * design
    penalty = np.sqrt(alpha) * np.eye(31)[:30]
    target = np.r_[-g / np.sqrt(h), np.zeros(30)]
    wanted = np.linalg.lstsq(np.r_[rows, penalty], target, rcond=None)[0]
    assert np.abs(design @ (beta - wanted)).max() < 1e-8
    assert np.abs(beta - wanted).max() < 1e-6
    out = np.zeros(60)
    kept.add_product(beta, out)
    assert out == pytest.approx(design @ beta, abs=1e-9)
    scaled = Ridge(kept, alpha, relative=True, fit_intercept=intercept).solve(g, h, 60.0)
    absolute = Ridge(kept, alpha * h.mean(), relative=False, fit_intercept=intercept)
    assert scaled == pytest.approx(absolute.solve(g, h, 60.0), abs=1e-9)


def test_without_a_penalty_and_with_more_features_than_rows_the_norm_is_least():
    _, phi, kept = features(n=10, components=40)
    g = np.random.default_rng(0).normal(size=10)
    beta = Ridge(kept, 0.0, fit_intercept=False).solve(g, np.ones(10), 10.0)
    wanted = np.linalg.lstsq(phi.astype(np.float64), -g, rcond=None)[0]
    assert beta[:40] == pytest.approx(wanted, abs=1e-5)


def test_the_features_approach_the_kernel_and_the_ridge_kernel_ridge():
    Z, phi, _ = features(n=50, components=20_000, gamma=0.3)
    phi = phi.astype(np.float64)
    kernel = rbf_kernel(Z, gamma=0.3)
    assert np.abs(phi @ phi.T - kernel).max() < 0.04
    Z, _, kept = features(n=50, components=4000, gamma=0.3)
    rng = np.random.default_rng(1)
    y, h = np.sin(Z[:, 0]), rng.uniform(0.5, 2, 50)
    beta = Ridge(kept, 0.5, relative=False, fit_intercept=False).solve(-h * y, h, 50.0)
    out = np.zeros(50)
    kept.add_product(beta, out)
    theirs = KernelRidge(alpha=0.5, kernel="rbf", gamma=0.3).fit(Z, y, sample_weight=h).predict(Z)
    assert np.linalg.norm(out - theirs) < 0.02 * np.linalg.norm(theirs)


def test_features_computed_anew_are_those_that_are_kept(monkeypatch):
    _, _, kept = features()
    monkeypatch.setattr("mmxx.tabular.snapboost.fourier.KEEP_BYTES", 0)
    _, _, anew = features()
    h = np.random.default_rng(0).uniform(size=60)
    assert np.array_equal(kept.gram(h), anew.gram(h))
    assert np.array_equal(kept.transposed(h), anew.transposed(h))


def test_large_tables_take_single_precision_where_the_penalty_covers_it(monkeypatch):
    Z, _, kept = features(n=3000, components=60)
    g, h = np.sin(2 * Z[:, 0]) + Z[:, 1], np.ones(3000)

    def values(alpha):
        out = np.zeros(3000)
        kept.add_product(Ridge(kept, alpha).solve(g, h, 3000.0), out)
        return out

    least = 1e-4 * 3000 / 60
    exact = [values(least * factor) for factor in (0.99, 1.01)]
    monkeypatch.setattr("mmxx.tabular.snapboost.fourier._MUCH", 0)
    assert np.array_equal(values(least * 0.99), exact[0])
    single = values(least * 1.01)
    assert not np.array_equal(single, exact[1])
    assert np.linalg.norm(single - exact[1]) < 1e-4 * np.linalg.norm(exact[1])
    h = np.full(3000, 1e-60)
    assert kept.gram(h, single=True) == pytest.approx(kept.gram(h), rel=1e-4, abs=1e-62)


def test_shards_solve_the_ridge_of_all_rows():
    """Sums over two halves, handed in as a machine's others would."""
    Z, _, whole = features()
    rng = np.random.default_rng(1)
    g, h = rng.normal(size=60), rng.uniform(0.1, 2, 60)
    projection = whole._projection
    other = Features(Z[30:], as_it_is, projection)
    sums = iter([other.gram(h[30:]), other.transposed(g[30:])])
    half = Ridge(
        Features(Z[:30], as_it_is, projection), 1.0, allreduce=lambda array: array + next(sums)
    )
    beta = half.solve(g[:30], h[:30], 60.0)
    assert beta == pytest.approx(Ridge(whole, 1.0).solve(g, h, 60.0), abs=1e-9)


def test_columns_are_standardised_with_weights_gaps_and_categories():
    X = np.array([[1.0, 5, 0], [np.nan, 5, 1], [3.0, 5, 2], [1e308, 5, np.nan]])
    w = np.array([1.0, 1.0, 3.0, 0.0001])
    codes = np.array([-1, -1, 3])
    encoder = Encoder.of(X[:3], w[:3], codes)
    Z = encoder(X)
    assert encoder.origins.tolist() == [0, 1, 0, 2, 2, 2]
    assert np.average(Z[[0, 2], 0], weights=[1, 3]) == pytest.approx(0, abs=1e-6)
    assert np.average(Z[[0, 2], 0] ** 2, weights=[1, 3]) == pytest.approx(1, abs=1e-6)
    assert Z[1].tolist() == [0, 0, 1, 0, 1, 0]
    assert np.isfinite(Z).all()
    assert np.isfinite(Encoder.of(X, w, codes)(X)).all()


class Together:
    """The sum over machines that are threads."""

    def __init__(self, machines):
        self.barrier, self.parts = threading.Barrier(machines), [None] * machines

    def shard(self, rank):
        def allreduce(array):
            self.parts[rank] = array
            self.barrier.wait()
            total = np.sum(self.parts, axis=0)
            self.barrier.wait()
            return total

        return Shard(allreduce, rank, len(self.parts))


def learnt(model, X, y, shard):
    machine = model.begin(X, y, shard=shard)
    while not model.is_enough(machine):
        machine.step()
    return model.end(machine)


@pytest.mark.parametrize("loss", ["squared_error", "quantile", "log_loss"])
def test_four_machines_learn_the_model_of_one(loss):
    X, y = table(400)
    X[::9, 2] = np.nan
    options = {"n_rounds": 12, "p_tree": 0.6, "n_components": 15, "random_state": 2}
    make = SnapBoostClassifier if loss == "log_loss" else SnapBoostRegressor
    y = np.digitize(y, [0, 1]) if loss == "log_loss" else y
    alone = make(loss=loss, **options).fit(X, y)
    together = Together(4)
    with ThreadPoolExecutor(4) as pool:
        models = list(
            pool.map(
                lambda k: learnt(make(loss=loss, **options), X[k::4], y[k::4], together.shard(k)),
                range(4),
            )
        )
    for model in models:
        assert model.train_loss_ == pytest.approx(alone.train_loss_, rel=1e-9)
        assert model.cosine_ == pytest.approx(alone.cosine_, rel=1e-6)
        for one, other in zip(model.learners_, alone.learners_, strict=True):
            assert (one.kind, one.leaves) == (other.kind, other.leaves)
            if one.tree is not None:
                assert np.array_equal(one.tree.nodes["feature"], other.tree.nodes["feature"])
        assert np.array_equal(model.predict(X), models[0].predict(X))
        assert np.array_equal(model.feature_importances_, models[0].feature_importances_)


def test_machines_that_do_not_fit_together_are_refused():
    X, y = table(80)
    labels = np.where(y > 0, "high", "low")
    labels[1::2] = np.where(y[1::2] > 0, "high", "deep")
    together = Together(2)

    def machine(k):
        model = SnapBoostClassifier(random_state=0)
        with pytest.raises(ValueError, match="the classes must be the same on all machines"):
            learnt(model, X[k::2], labels[k::2], together.shard(k))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(machine, range(2)))
    with pytest.raises(ValueError, match="rank must be 0 to machines - 1, got 2 of 2"):
        together.shard(2)


# -- the loop ----------------------------------------------------------------------------------


def test_squared_error_falls_by_the_square_of_each_step():
    """|r_m|² = |r_{m-1}|² - (2ε - ε²)|b_m|², for learners that are projections."""
    X, y = table()
    rate = 0.3
    model = SnapBoostRegressor(
        n_rounds=40, learning_rate=rate, p_tree=0.5, alpha=0.0, n_components=20, random_state=1
    ).fit(X, y)
    kinds = [one.kind for one in model.learners_]
    assert {"tree", "ridge"} == set(kinds)
    staged = np.array([np.full(len(y), y.mean()), *(raw.copy() for raw in model.staged_predict(X))])
    steps = np.diff(staged, axis=0) / rate
    before = np.square(staged[:-1] - y).sum(1)
    after = np.square(staged[1:] - y).sum(1)
    wanted = before - (2 * rate - rate**2) * np.square(steps).sum(1)
    assert after == pytest.approx(wanted, rel=1e-6)
    exact = [k for k, kind in enumerate(kinds) if kind == "tree"]
    assert np.abs(after - wanted)[exact].max() < 1e-9 * before[0]
    assert model.cosine_ == pytest.approx(np.square(steps).sum(1) / before, rel=1e-5)
    assert model.train_loss_ * len(y) == pytest.approx([*before, after[-1]])


def test_the_log_loss_falls_as_the_theorem_says():
    """ε = μ/S with curvatures between μ and S: a round gains ε cos²θ/2 of |g/h|² at least."""
    X, y = table()
    y = (y > 0.5) * 1.0
    rate = 0.105 / 0.25
    model = SnapBoostClassifier(
        n_rounds=12, learning_rate=rate, p_tree=0.6, l2=0.0, min_child_weight=0.0,
        max_max_depth=2, random_state=0,
    ).fit(X, y)  # fmt: skip
    raws = [np.full(len(y), np.log(y.mean() / (1 - y.mean()))), *model.staged_decision_function(X)]
    checked = 0
    for k, raw in enumerate(raws[:-1]):
        if np.abs([raw, raws[k + 1]]).max() > 2:
            break
        p = expit(raw)
        newton = np.sum((p - y) ** 2 / (p * (1 - p)))
        least = rate / 2 * model.cosine_[k] * newton
        assert (model.train_loss_[k] - model.train_loss_[k + 1]) * len(y) >= 0.999 * least
        checked += 1
    assert checked >= 2


def test_two_classes_are_the_same_by_softmax():
    rng = np.random.default_rng(0)
    y, w = rng.integers(0, 2, 50) * 1.0, rng.uniform(0.5, 2, 50)
    one, two = Loss("log_loss"), Loss("log_loss", 2)
    raw = rng.normal(size=50)
    both = np.stack([-raw / 2, raw / 2])
    g, h = np.empty((1, 50)), np.empty((1, 50))
    G, H = np.empty((2, 50)), np.empty((2, 50))
    value = one.evaluate(y, w, raw[None], g, h, 0, 50)[0]
    assert two.evaluate(y, w, both, G, H, 0, 50)[0] == pytest.approx(value)
    # a step moves both raw predictions, so that half of Newton's step each is all of it
    assert -G[1] / H[1] + G[0] / H[0] == pytest.approx(-g[0] / h[0], abs=1e-6)


def test_draws_have_streams_of_their_own():
    X, y = table()
    mixed = SnapBoostRegressor(n_rounds=60, p_tree=0.5, random_state=3).fit(X, y)
    trees = SnapBoostRegressor(n_rounds=60, p_tree=1.0, random_state=3).fit(X, y)
    for one, other in zip(mixed.learners_, trees.learners_, strict=True):
        assert one.kind == "ridge" or one.depth == other.depth
    depths = [one.depth for one in trees.learners_]
    assert set(depths) == {1, 2, 3, 4, 5}
    assert all(one.leaves <= 2**one.depth for one in trees.learners_)
    assert 0.3 < mixed.tree_share_ < 0.7
    with_ridge = SnapBoostRegressor(n_rounds=9, p_tree=1.0, n_components=7, random_state=3)
    assert np.array_equal(
        with_ridge.fit(X, y).predict(X), trees.set_params(n_rounds=9).fit(X, y).predict(X)
    )


def their_learners():
    trees = [DecisionTreeRegressor(max_depth=depth, random_state=42) for depth in range(4, 9)]
    return [*trees, KernelRidge(alpha=1.0, kernel="rbf", gamma=1.0)], [0.16] * 5 + [0.2]


def twice_squared(y, raw):
    return (raw - y) ** 2, 2 * (raw - y), np.full(len(y), 2.0)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_general_machine_prints_what_the_sample_code_prints(task):
    make = make_regression if task == "regression" else make_classification
    parts = train_test_split(
        *make(n_samples=1000, n_features=20, random_state=42), test_size=0.2, random_state=42
    )
    learners, shares = their_learners()
    loss = twice_squared if task == "regression" else "log_loss"
    model = HNBM(learners, shares, loss=loss, random_state=42).fit(parts[0], parts[2])
    raw, y = model.predict(parts[1]), parts[3]
    if task == "regression":
        found = np.sqrt(np.mean((raw - y) ** 2))
    else:
        found = np.mean(np.logaddexp(0, raw) - y * raw)
    # deep trees magnify the last bit of a kernel ridge, which depends on the machine
    assert found == pytest.approx(PARITY[task], rel=0.015)


def test_the_general_machine_is_the_algorithm_of_the_paper():
    X, y = make_classification(n_samples=300, n_features=8, random_state=1)
    learners, shares = their_learners()
    rng, raw = np.random.RandomState(7), np.zeros(300)
    for _ in range(20):
        p = expit(raw)
        learner = clone(learners[rng.choice(6, p=shares)])
        learner.fit(X, (y - p) / (p * (1 - p)), sample_weight=p * (1 - p))
        raw += 0.1 * learner.predict(X)
    model = HNBM(learners, shares, loss="log_loss", n_rounds=20, random_state=7).fit(X, y)
    assert np.abs(model.predict(X) - raw).max() < 1e-10
    assert set(model.choices_) > {5}


def test_the_general_machine_refuses_what_does_not_fit():
    X, y = table(30)
    learners, _ = their_learners()
    with pytest.raises(ValueError, match="probabilities must be 6 numbers of sum 1"):
        HNBM(learners, [0.5, 0.5]).fit(X, y)
    with pytest.raises(ValueError, match="learners must hold"):
        HNBM([]).fit(X, y)
    with pytest.raises(ValueError, match="loss must be one of"):
        HNBM(learners, loss="hinge").fit(X, y)
    with pytest.raises(ValueError, match="0 and 1 only"):
        HNBM(learners, loss="log_loss").fit(X, y)
    with pytest.raises(ValueError, match="learning_rate must be a number above 0"):
        HNBM(learners, learning_rate=0).fit(X, y)
