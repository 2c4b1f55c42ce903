"""The estimator and the experiment: formulas found, units, columns, bad input, sham, backends."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

from mmxx.discovery.feynman import AIFeynmanRegressor, Expr, experiment, make
from mmxx.discovery.feynman.card import CARD
from mmxx.discovery.feynman.equations import feynman_equations
from mmxx.discovery.feynman.experiment import TINY, Config
from mmxx.discovery.feynman.real import FILES, fit, measurements
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.lab.testing import assert_same, outcome

X = np.random.default_rng(0).uniform(1, 3, (120, 3))


def regressor(**settings) -> AIFeynmanRegressor:
    return AIFeynmanRegressor(
        **{"max_formulas": 20_000, "network": False, "random_state": 0, **settings}
    )


def test_units_find_what_brute_force_cannot():
    table, y = make("II.34.29b", n=200)
    model = regressor(units=["1", "J s", "J s", "J m^2/(V s)", "V s/m^2"], target_units="J")
    model.fit(table, y)
    assert model.best_.error_bits < 1
    np.testing.assert_allclose(model.predict(table), y, rtol=1e-9)
    text = model.model(["g", "h", "Jz", "mom", "B"])
    np.testing.assert_allclose(
        Expr.parse(text, ["g", "h", "Jz", "mom", "B"]).evaluate(table), y, rtol=1e-9
    )
    bits = [(f.complexity, f.error_bits) for f in model.frontier_]
    assert bits == sorted(bits)
    assert all(a[1] > b[1] for a, b in itertools.pairwise(bits))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_of_y_does_not_matter(scale):
    y = scale * X[:, 0] * np.exp(-X[:, 1])
    model = regressor().fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, rtol=1e-9)


def test_a_network_takes_a_sum_apart():
    y = np.sin(3 * X[:, 0]) * X[:, 0] + np.exp(-X[:, 1]) * X[:, 1] ** 2.5
    model = regressor(network=True, max_iter=150, max_formulas=3000).fit(X[:, :2], y)
    tree = str(model.decomposition_)
    assert tree.startswith("f(x0, x1)")
    assert math.isfinite(model.decomposition_.network_error)


def test_a_network_of_ones_own_is_copied_and_trained():
    from torch import nn

    own = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
    before = own[0].weight.clone()
    y = np.sin(3 * X[:, 0]) * X[:, 0] + np.exp(-X[:, 1]) * X[:, 1] ** 2.5
    options = {"max_iter": 200, "max_formulas": 1000, "polyfit_degree": 0}
    model = regressor(network=own, **options).fit(X[:, :2], y)
    assert (own[0].weight == before).all()
    other = regressor(network=True, **options).fit(X[:, :2], y)
    assert model.decomposition_.network_error < 0.5
    assert model.decomposition_.network_error != other.decomposition_.network_error
    with pytest.raises(ValueError, match=r"network must take \[rows, 3\], got Sequential"):
        regressor(network=own, **options).fit(X, y)
    with pytest.raises(ValueError, match=r"network must give \[rows, 1\], got \[2, 16\]"):
        regressor(network=own[0], **options).fit(X[:, :2], y)


def test_threads_find_the_same():
    y = np.tanh(X[:, 0]) * X[:, 1] ** 1.3
    one, two = (regressor(n_jobs=n, max_formulas=900_000).fit(X, y) for n in (None, 2))
    assert [f.text for f in one.frontier_] == [f.text for f in two.frontier_]


def test_rows_that_are_not_finite_may_be_dropped():
    table, y = X.copy(), X[:, 0] * np.exp(-X[:, 1])
    table[3, 1], y = np.nan, np.where(np.arange(len(y)) == 7, np.inf, y)
    weights = np.ones(len(y))
    model = regressor(missing="drop").fit(table, y, weights)
    assert model.best_.error_bits < 1
    assert model.notes_[0] == "2 of 120 rows were left out: not finite"


def test_constant_and_repeated_columns_and_a_constant_y():
    table = np.column_stack([X[:, 0], np.ones(len(X)), X[:, 0], X[:, 1]])
    model = regressor().fit(table, X[:, 0] * X[:, 1])
    assert "x1 is constant and was left out" in model.notes_
    assert "x2 repeats x0 and was left out" in model.notes_
    np.testing.assert_allclose(model.predict(table), X[:, 0] * X[:, 1])
    assert regressor().fit(X, np.full(len(X), 7.0)).model() == "7"


def test_what_units_leave_constant_is_found():
    X, y = make("I.12.5", 50)  # a charge times a field
    units = feynman_equations()["I.12.5"].units
    assert units is not None
    model = AIFeynmanRegressor(max_formulas=10, units=list(units[:-1]), target_units=units[-1])
    assert np.allclose(model.fit(X, y).predict(X), y)


def test_values_that_span_many_orders():
    X, y = make("test_9", 200)  # a power radiated: squares of its inverse's slopes overflow
    model = AIFeynmanRegressor(max_formulas=10, random_state=0).fit(X, y)
    assert model.score(X, y) > 0


def test_weights_and_few_rows():
    y = X[:, 0] ** 2
    wrong = y.copy()
    wrong[:60] = 0
    weights = np.r_[np.zeros(60), np.ones(60)]
    model = regressor().fit(X, wrong, sample_weight=weights)
    np.testing.assert_allclose(model.predict(X), y)
    assert np.isfinite(regressor().fit(X[:4], y[:4]).predict(X)).any()


def test_undefined_rows_are_nan_only_there():
    model = regressor().fit(X[:, :1], np.sqrt(X[:, 0] - 1))
    predicted = model.predict([[2.0], [0.5]])
    assert predicted[0] == pytest.approx(1)
    assert math.isnan(predicted[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operators": "+?"}, "operators must be"),
        ({"polyfit_degree": -1}, "polyfit_degree must be a whole number of 0 or more, got -1"),
        ({"max_formulas": -1}, "max_formulas must be"),
        ({"max_seconds": 0.0}, "max_seconds must be"),
        ({"nu": -1.0}, "nu must be positive"),
        ({"noise": -1.0}, "noise must be"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"complexity": "x"}, "complexity must be one of"),
        ({"selection": "x"}, "selection must be one of"),
        ({"modularity": ("x",)}, "modularity must be some of"),
        ({"units": ["m", "s"], "target_units": "m"}, "units must be 3"),
        ({"units": ["m", "s", "m"]}, "target_units must be given"),
        ({"units": ["m", "s", "m"], "target_units": "kg"}, "nothing carries kg"),
        ({"units": {"x0": "m"}, "target_units": "m"}, "missing: x1, x2"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        regressor(**settings).fit(X, X[:, 0] * np.sin(X[:, 1]))


def test_rows_that_are_not_finite_are_counted():
    bad = X.copy()
    bad[[3, 7]] = np.nan
    with pytest.raises(ValueError, match="in 2 of 120 rows, the first is row 3"):
        regressor().fit(bad, X[:, 0])
    with pytest.raises(ValueError, match="names, got 2"):
        regressor().fit(X, X[:, 0]).model(["a", "b"])


def test_no_warning_on_what_has_no_logarithm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regressor(max_formulas=2000).fit(X - 2, -np.abs(X[:, 0]) - X[:, 1] ** 2)


def test_measurements_are_read_and_kepler_and_langmuir_are_found():
    assert [len(measurements(name)[1]) for name in FILES] == [8, 12, 4, 10, 17]
    rows = fit(("planets", 1000))
    assert any("**(3/2)" in row["formula"] and row["relative error"] < 0.01 for row in rows)
    rows = fit(("adsorption A", 1000))
    assert any(re.fullmatch(r"q = \d+/\(\d+/p\+\d+\)", row["formula"]) for row in rows)


@pytest.mark.parametrize("law", ["3.7*a/(1.3+a)", "1/(1/a+2/b)", "1/a+sqrt(2)/(a*b)"])
def test_polynomials_of_reciprocals_are_found(law):
    y = Expr.parse(law, ["a", "b"]).evaluate(X[:, :2])
    model = regressor(max_formulas=0).fit(X[:, :2], y)
    np.testing.assert_allclose(model.predict(X[:, :2]), y, rtol=1e-9)


# -- the experiment ----------------------------------------------------------------------------

SMALL = replace(
    TINY, equations=1, networks=0, demonstrations=0, bonus=0, real=False, max_formulas=70_000,
    noisy_formulas=70_000, rows=200,
)  # fmt: skip


def measure(folder, config, tier="quick", backend="serial"):
    run = create(folder, CARD, config, Options(seed=0, backend=backend), tier)
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}


def test_backends_agree_and_the_sham_falls_short(tmp_path):
    found = measure(tmp_path / "serial", SMALL)
    assert found["recovers"]["measured"] == 100
    assert found["noise"]["measured"] == 100
    measure(tmp_path / "process", SMALL, backend="process")
    assert_same(outcome(tmp_path / "serial"), outcome(tmp_path / "process"))
    with experiment.sham():
        shammed = measure(tmp_path / "sham", SMALL)
    assert shammed["recovers"]["verdict"] == "falls short"
    assert shammed["noise-rule"]["verdict"] == "falls short"


def test_what_was_found_survives_a_stop(tmp_path, capsys, stopping):
    rows = [f"{a:.6f},{b:.6f},{a + b * np.exp(a):.9f}" for a, b in X[:60, :2]]
    (tmp_path / "mine.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    config = replace(SMALL, data=tmp_path / "mine.csv", max_formulas=410_000)
    measure(tmp_path / "whole", config)
    assert "bits off, y = " in capsys.readouterr().err
    assert stopping(tmp_path / "stopped", CARD, experiment, config) >= 1
    assert_same(outcome(tmp_path / "whole"), outcome(tmp_path / "stopped"))


def test_ones_own_table(tmp_path):
    rows = [f"{a:.6f},{b:.6f},{a * b**2 / 2:.9f}" for a, b in X[:60, :2]]
    path, units = tmp_path / "mine.csv", tmp_path / "units.csv"
    path.write_text("m,speed,E\n" + "\n".join(rows) + "\n")
    units.write_text("name,unit\nm,kg\nspeed,m/s\nE,J\n")
    config = replace(SMALL, data=path, units=units)
    found = measure(tmp_path / "run", config)
    assert all(line["verdict"] == "not measured" for line in found.values())
    record = (tmp_path / "run" / "run.json").read_text()
    assert "m*speed**2" in record
    assert (tmp_path / "run" / "artifacts" / "formula.tex").read_text().strip()
    with pytest.raises(ValueError, match="target must be one of m, speed, E, got 'x'"):
        measure(tmp_path / "bad", replace(config, target="x"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"equations": 0}, "equations must be at least 1, got 0"),
        ({"rows": 5}, "rows must be at least 20"),
        ({"bonus": 21}, "bonus must be at most 20"),
        ({"noise": (0.1,)}, "noise must"),
        ({"units": "u.csv"}, "units needs data"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
