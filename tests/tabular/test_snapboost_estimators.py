"""The estimators: invariants, early stopping, warm starts, tables, model files, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load, save
from scipy.sparse import csr_matrix
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmxx.tabular.snapboost import SnapBoostClassifier, SnapBoostRegressor, load_model
from mmxx.tabular.snapboost.files import from_bytes, to_bytes
from mmxx.tabular.snapboost.fourier import Ridge

FEW = {"n_rounds": 12, "n_components": 20, "p_tree": 0.6, "random_state": 4}


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    X[rng.random((n, 4)) < 0.1] = np.nan
    filled = np.nan_to_num(X)
    y = np.sin(2 * filled[:, 0]) + (filled[:, 1] > 0) + 0.1 * rng.normal(size=n)
    return X, y


X, Y = table()
LABELS = np.array(["low", "mid", "top"])[np.digitize(Y, [0, 1])]


def both(**options):
    """A fitted regressor, and a classifier of three classes."""
    return (
        SnapBoostRegressor(**{**FEW, **options}).fit(X, Y),
        SnapBoostClassifier(**{**FEW, **options}).fit(X, LABELS),
    )


def numbers(model, rows=X):
    return (
        model.predict(rows) if isinstance(model, SnapBoostRegressor) else model.predict_proba(rows)
    )


@pytest.fixture(scope="module")
def fitted():
    return both()


# -- invariants --------------------------------------------------------------------------------


def test_a_weight_is_a_number_of_rows():
    weights = np.random.default_rng(0).integers(0, 4, len(Y))
    once = SnapBoostRegressor(**FEW).fit(X, Y, weights)
    often = SnapBoostRegressor(**FEW).fit(np.repeat(X, weights, 0), np.repeat(Y, weights))
    assert np.abs(once.predict(X) - often.predict(X)).max() < 1e-6


def test_the_order_of_rows_matters_by_rounding_only(fitted):
    order = np.random.default_rng(0).permutation(len(Y))
    other = SnapBoostRegressor(**FEW).fit(X[order], Y[order])
    assert np.abs(other.predict(X) - fitted[0].predict(X)).max() < 1e-6


def test_trees_see_only_the_order_of_a_column():
    trees = {**FEW, "p_tree": 1.0}
    one = SnapBoostRegressor(**trees).fit(X, Y).predict(X)
    assert np.array_equal(one, SnapBoostRegressor(**trees).fit(np.exp(X), Y).predict(np.exp(X)))


def test_threads_change_no_bit():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(70_000, 3))
    y = np.sin(rows[:, 0]) + (rows[:, 1] > 0)
    options = {**FEW, "n_rounds": 6, "max_max_depth": 3, "random_state": 0}
    found = []
    for n_jobs in (1, 2, 4):
        for model in (SnapBoostRegressor, SnapBoostClassifier):
            target = y if model is SnapBoostRegressor else y > 0.5
            one = model(**options, n_jobs=n_jobs).fit(rows, target)
            assert {learner.kind for learner in one.learners_} == {"tree", "ridge"}
            found.append(one.predict(rows[:500]).tobytes() + to_bytes_of_learners(one))
    assert found[:2] == found[2:4] == found[4:]


def to_bytes_of_learners(model):
    from mmxx.tabular.snapboost.store import pack

    return b"".join(array.tobytes() for _, array in sorted(pack(model._ensemble).items()))


def test_staged_predictions_end_where_predictions_are(fitted):
    regressor, classifier = fitted
    stages = list(regressor.staged_predict(X))
    assert len(stages) == 12
    assert stages[-1] == pytest.approx(regressor.predict(X), abs=1e-9)
    *_, last = classifier.staged_predict_proba(X)
    assert last == pytest.approx(classifier.predict_proba(X), abs=1e-9)
    *_, last = classifier.staged_predict(X)
    assert np.array_equal(last, classifier.predict(X))
    *_, last = classifier.staged_decision_function(X)
    assert last == pytest.approx(classifier.decision_function(X), abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"subsample": 0.7, "colsample": 0.5}])
def test_a_warm_start_is_one_longer_fit(options):
    for model, target in ((SnapBoostRegressor, Y), (SnapBoostClassifier, LABELS)):
        long = model(**{**FEW, **options}).fit(X, target)
        short = model(**{**FEW, **options, "n_rounds": 5}).fit(X, target)
        short.set_params(n_rounds=12, warm_start=True).fit(X, target)
        assert to_bytes_of_learners(short) == to_bytes_of_learners(long)
        assert np.array_equal(short.train_loss_, long.train_loss_)
        assert np.array_equal(short.cosine_, long.cosine_)


def test_a_machine_goes_on_from_its_state_without_factorising_again(monkeypatch):
    model = SnapBoostRegressor(**FEW)
    straight = model.begin(X, Y, X_val=X[:50], y_val=Y[:50])
    for _ in range(7):
        straight.step()
    state = straight.state_dict()
    for _ in range(5):
        straight.step()
    again = model.begin(X, Y, X_val=X[:50], y_val=Y[:50])
    monkeypatch.setattr(Ridge, "_factorise", None)
    again.load_state_dict(state)
    for _ in range(5):
        again.step()
    assert again.validation_loss == straight.validation_loss
    assert np.array_equal(again._raw, straight._raw)


def test_it_stops_early_and_predicts_by_the_best_round():
    noise = np.random.default_rng(1).normal(size=len(Y))
    model = SnapBoostRegressor(
        **{**FEW, "n_rounds": 200, "learning_rate": 0.9}, early_stopping=True, n_rounds_no_change=5
    ).fit(X[:100], noise[:100], X_val=X[100:], y_val=noise[100:])
    assert model.n_rounds_ == model.best_round_ + 5
    assert model.best_round_ == np.argmin(model.validation_loss_)
    loss = np.square(model.predict(X[100:]) - noise[100:]).mean()
    assert loss == pytest.approx(model.validation_loss_.min())
    held_out = SnapBoostClassifier(**FEW, early_stopping=True).fit(X, LABELS)
    assert len(held_out.validation_loss_) == held_out.n_rounds_ + 1


def test_importances_know_trees_and_ridges():
    for share in (0.0, 1.0):
        model = SnapBoostRegressor(**{**FEW, "p_tree": share, "n_rounds": 40}).fit(X, Y)
        shares = model.feature_importances_
        assert shares.sum() == pytest.approx(1)
        assert shares[:2].min() > shares[2:].max()


def test_class_weights_and_labels_of_any_type():
    y = np.array([False, True])[(Y > 1.2).astype(int)]
    plain = SnapBoostClassifier(**FEW).fit(X, y)
    heavy = SnapBoostClassifier(**FEW, class_weight="balanced").fit(X, y)
    assert plain.predict(X).dtype == bool
    assert heavy.predict(X).sum() > plain.predict(X).sum()
    assert plain.predict_proba(X).sum(1) == pytest.approx(1)
    assert plain.decision_function(X).shape == (len(y),)


def test_monotone_columns():
    model = SnapBoostRegressor(**{**FEW, "p_tree": 1.0}, monotonic_cst=[0, 1, 0, 0]).fit(X, Y)
    grid = np.zeros((100, 4))
    grid[:, 1] = np.linspace(-3, 3, 100)
    assert np.diff(model.predict(grid)).min() >= 0


@pytest.mark.parametrize(
    ("kind", "target", "first"),
    [(SnapBoostRegressor, Y, np.mean(Y**2)), (SnapBoostClassifier, LABELS, np.log(3))],
)
def test_presets_are_those_of_the_sample_code_and_of_the_product(kind, target, first):
    paper, product = kind.paper(random_state=0), kind.product(n_rounds=3)
    assert type(paper) is type(product) is kind
    assert (paper.min_max_depth, paper.max_max_depth, paper.base_score) == (4, 8, 0.0)
    assert (product.p_tree, product.n_components, product.base_score) == (1.0, 10, None)
    found = paper.set_params(n_rounds=3).fit(X, target)
    assert found.train_loss_[0] == pytest.approx(first)  # of raw predictions that are 0
    assert product.fit(X, target).tree_share_ == 1.0


def test_scikit_learns_tools_work(fitted):
    regressor, _ = fitted
    found = permutation_importance(regressor, X, Y, n_repeats=2, random_state=0)
    assert found.importances_mean[0] > found.importances_mean[3]
    curve = partial_dependence(regressor, np.nan_to_num(X), [0], grid_resolution=5)
    assert curve["average"].shape == (1, 5)
    search = GridSearchCV(SnapBoostRegressor(**FEW), {"p_tree": [0.5, 1.0]}, cv=2).fit(X, Y)
    assert search.best_params_["p_tree"] in (0.5, 1.0)
    assert make_pipeline(StandardScaler(), SnapBoostRegressor(**FEW)).fit(X, Y).score(X, Y) > 0.5


# -- tables ------------------------------------------------------------------------------------


def frame():
    rng = np.random.default_rng(0)
    city = rng.choice(["Bern", "Zug", "Uri"], 150)
    data = pd.DataFrame(
        {
            "city": pd.Categorical(city),
            "size": rng.normal(size=150),
            "rooms": rng.integers(1, 5, 150),
        }
    )
    data.loc[::10, "city"] = np.nan
    return data, (city == "Zug") * 2.0 + 0.1 * data["size"].to_numpy()


def test_data_frames_have_categories_and_names(tmp_path):
    data, y = frame()
    model = SnapBoostRegressor(**{**FEW, "n_rounds": 30}).fit(data, y)
    assert model.feature_names_in_.tolist() == ["city", "size", "rooms"]
    assert model._columns.categories == [["Bern", "Uri", "Zug"], None, None]
    assert model.score(data[data["city"].notna()], y[data["city"].notna()]) > 0.9
    new = data.assign(city=pd.Categorical(["Genf"] * 150))
    missing = data.assign(city=pd.Categorical([np.nan] * 150, categories=["Bern"]))
    assert np.array_equal(model.predict(new), model.predict(missing))
    model.save(tmp_path / "m.safetensors")
    assert np.array_equal(load_model(tmp_path / "m.safetensors").predict(data), model.predict(data))
    codes = data.assign(
        city=[np.nan if pd.isna(c) else "Bern Uri Zug".split().index(c) for c in data["city"]]
    )
    same = SnapBoostRegressor(**{**FEW, "n_rounds": 30}, categorical_features=[0])
    assert np.array_equal(
        same.fit(codes.to_numpy(), y).predict(codes.to_numpy()), model.predict(data)
    )


def test_data_frames_that_do_not_fit_are_refused():
    data, y = frame()
    with pytest.raises(ValueError, match=r"column 'city' holds '(Zug|Bern|Uri)'"):
        SnapBoostRegressor(**FEW).fit(data.assign(city=data["city"].astype(object)), y)
    for unit in ("datetime64[s]", "timedelta64[s]"):
        with pytest.raises(ValueError, match="column 'city' holds times; accepted: numbers"):
            SnapBoostRegressor(**FEW).fit(data.assign(city=np.arange(len(y)).astype(unit)), y)
    named = SnapBoostRegressor(**FEW, categorical_features=["city"])
    named.fit(data.assign(city=data["city"].astype(object)), y)
    with pytest.raises(ValueError, match="names 'town'"):
        SnapBoostRegressor(**FEW, categorical_features=["town"]).fit(data, y)
    wide = pd.DataFrame({"size": np.arange(300.0)})
    with pytest.raises(ValueError, match="column 'size' has 300 categories; at most 255"):
        SnapBoostRegressor(**FEW, categorical_features=["size"]).fit(wide, np.arange(300.0))
    with pytest.raises(ValueError, match="feature names"):
        named.predict(data[["size", "city", "rooms"]])
    far = data.assign(size=np.where(data["size"] > data["size"].median(), np.inf, 0.0))
    for call in (named.predict, lambda X: SnapBoostRegressor(**FEW).fit(X, y)):
        with pytest.raises(ValueError, match="column 'size' contains infinity"):
            call(far)


# -- model files -------------------------------------------------------------------------------


def test_a_saved_model_predicts_the_same_bits(fitted, tmp_path):
    for model in fitted:
        path = tmp_path / "model.safetensors"
        model.save(path)
        again = load_model(path)
        assert np.array_equal(numbers(again), numbers(model))
        assert again.get_params() == model.get_params()
        assert np.array_equal(again.feature_importances_, model.feature_importances_)
        assert np.array_equal(again.cosine_, model.cosine_)
        again.set_params(n_rounds=15, warm_start=True)
        model_long = type(model)(**{**FEW, "n_rounds": 15})
        target = Y if isinstance(model, SnapBoostRegressor) else LABELS
        assert np.array_equal(numbers(again.fit(X, target)), numbers(model_long.fit(X, target)))


def damaged(content, **changes):
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    arrays = {name: array.copy() for name, array in load(content).items()}
    for name, change in changes.items():
        arrays[name.replace("__", ".")] = change(arrays[name.replace("__", ".")])
    return save(arrays, metadata)


def put(place, value):
    def change(array):
        array.reshape(-1)[place] = value
        return array

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes__right": put(0, 0)},
        {"nodes__right": put(0, -1)},
        {"nodes__right": put(0, 10_000)},
        {"nodes__right": put(0, 1)},
        {"nodes__feature": put(0, 99)},
        {"nodes__feature": put(0, -1)},
        {"nodes__left_set": put(0, 5)},
        {"nodes__threshold": put(0, math.nan)},
        {"learners": put(2, 7)},
        {"learners": put(4, -3)},
        {"learners": lambda array: array[:-1]},
        {"rate": put(0, -1.0)},
        {"coefs": put(0, math.inf)},
        {"coefs": lambda array: array[:, :-1].copy()},
        {"encoder__size": put(0, 0.0)},
        {"encoder__codes": put(0, 10_000)},
        {"projection__W": lambda array: array[:-1].copy()},
        {"base": lambda array: array.astype(np.float32)},
    ],
)
def test_a_damaged_model_is_refused(fitted, changes):
    content = damaged(to_bytes(fitted[0]), **changes)
    with pytest.raises(ValueError, match="the model"):
        from_bytes(content)


def test_what_is_no_model_is_refused(fitted, tmp_path):
    content = to_bytes(fitted[0])
    assert np.array_equal(from_bytes(damaged(content)).predict(X), fitted[0].predict(X))
    for wrong in (content[:-9], content[:30], b"PK\x03\x04" + content, b""):
        path = tmp_path / "wrong"
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="wrong: not a model file"):
            load_model(path)
    with pytest.raises(ValueError, match="not a file of"):
        from_bytes(save({"a": np.zeros(1)}))
    own = SnapBoostRegressor(**FEW, loss=lambda y, raw: (raw, raw - y, np.ones_like(y))).fit(X, Y)
    with pytest.raises(ValueError, match="loss is a function"):
        own.save(tmp_path / "own")


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("n_rounds", 0, "a whole number of at least 1"),
        ("n_rounds", 2.5, "a whole number of at least 1"),
        ("learning_rate", 0.0, "a number above 0 and below 2"),
        ("learning_rate", 2.0, "a number above 0 and below 2"),
        ("learning_rate", math.nan, "a number above 0 and below 2"),
        ("p_tree", 1.1, "a number of at least 0 and at most 1"),
        ("max_max_depth", 32, "at least 1 and at most 31"),
        ("max_bins", 256, "at least 2 and at most 255"),
        ("max_bins", 1, "at least 2 and at most 255"),
        ("gamma", 0.0, "above 0"),
        ("gamma", "auto", "above 0"),
        ("alpha", -1.0, "at least 0"),
        ("alpha_scale", "none", "'mean_hessian' or 'absolute'"),
        ("subsample", 0.0, "above 0 and at most 1"),
        ("colsample", 1.5, "above 0 and at most 1"),
        ("l2", -0.1, "at least 0"),
        ("n_components", 0, "at least 1"),
        ("validation_fraction", 1.0, "above 0 and below 1"),
        ("n_jobs", 0, "-1 or a positive"),
        ("loss", "hinge", "squared_error, poisson, quantile"),
        ("quantile", 1.0, "above 0 and below 1"),
        ("base_score", math.inf, "a number"),
        ("categorical_features", "all", "'from_dtype', None"),
        ("monotonic_cst", [1, 0], "for each of 4 columns"),
    ],
)
def test_parameters_out_of_range_name_themselves(name, value, accepted):
    with pytest.raises(ValueError, match=name) as caught:
        SnapBoostRegressor(**{**FEW, name: value}).fit(X, Y)
    assert accepted in str(caught.value)
    assert repr(value) in str(caught.value)


def test_depths_in_the_wrong_order_and_large_rates():
    with pytest.raises(
        ValueError, match="min_max_depth must not exceed max_max_depth, got 5 and 2"
    ):
        SnapBoostRegressor(min_max_depth=5, max_max_depth=2).fit(X, Y)
    with pytest.raises(ValueError, match=r"monotonic_cst needs p_tree=1.*got p_tree=0\.6"):
        SnapBoostRegressor(**FEW, monotonic_cst=[1, 0, 0, 0]).fit(X, Y)
    with pytest.warns(UserWarning, match=r"learning_rate=1.5 is above 1"):
        SnapBoostRegressor(**{**FEW, "learning_rate": 1.5}).fit(X, Y)


@pytest.mark.parametrize(
    ("rows", "y", "options", "message"),
    [
        (X, np.where(Y > 1, np.nan, Y), {}, "NaN"),
        (X, np.where(Y > 1, np.inf, Y), {}, "infinity"),
        (X, Y * 1e160, {}, "y must be finite and within"),
        (X, Y - 10, {"loss": "poisson"}, "y must be 0 or more for loss='poisson'"),
        (np.where(X > 1, np.inf, X), Y, {}, "infinity"),
        (X[:0], Y[:0], {}, "0 sample"),
        (X[:, :0], Y, {}, "0 feature"),
        (X, Y[:-1], {}, "inconsistent"),
    ],
)
def test_bad_tables_are_refused(rows, y, options, message):
    with pytest.raises(ValueError, match=message):
        SnapBoostRegressor(**{**FEW, **options}).fit(rows, y)


def test_bad_weights_classes_and_columns_are_refused(fitted):
    weights = np.ones(len(Y))
    for wrong, message in (
        (-weights, "sample_weight"),
        (weights * np.nan, "NaN"),
        (weights * 0, "sample_weight is zero for every row"),
    ):
        with pytest.raises(ValueError, match=message):
            SnapBoostRegressor(**FEW).fit(X, Y, wrong)
    with pytest.raises(ValueError, match="one class: 'a'"):
        SnapBoostClassifier(**FEW).fit(X, ["a"] * len(Y))
    with pytest.raises(ValueError, match="class 'new', which was not seen"):
        SnapBoostClassifier(**FEW).fit(X, LABELS, X_val=X[:1], y_val=["new"])
    with pytest.raises(ValueError, match="X_val was given without y_val"):
        SnapBoostRegressor(**FEW).fit(X, Y, X_val=X)
    with pytest.raises(ValueError, match="without X_val"):
        SnapBoostRegressor(**FEW).fit(X, Y, y_val=Y)
    with pytest.raises(TypeError, match="toarray"):
        SnapBoostRegressor(**FEW).fit(csr_matrix(np.nan_to_num(X)), Y)
    with pytest.raises(ValueError, match="3 features"):
        fitted[0].predict(X[:, :3])


def test_odd_columns_and_numbers_are_taken():
    odd = np.column_stack(
        [X, np.full(len(Y), 7.0), np.full(len(Y), np.nan), np.where(Y > 1, 1e308, -1e308),
         1 + 1e-12 * (Y > 0.5)]
    )  # fmt: skip
    model = SnapBoostRegressor(**FEW).fit(odd, Y)
    assert np.isfinite(model.predict(odd)).all()
    assert model.feature_importances_[[4, 5]].tolist() == [0, 0]
    last = SnapBoostRegressor(**{**FEW, "p_tree": 1.0, "n_rounds": 80}).fit(odd[:, -1:], Y > 0.5)
    assert last.predict(odd[:, -1:]) == pytest.approx((Y > 0.5) * 1.0, abs=0.01)
    one = SnapBoostRegressor(**FEW).fit(X[:1], Y[:1])
    assert one.predict(X[:1]) == pytest.approx(Y[:1])
