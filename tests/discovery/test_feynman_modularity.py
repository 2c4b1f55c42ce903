"""Modules, by an exact function in the network's place; snapping and refining numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mmxx.discovery.feynman import (
    Expr,
    additive,
    compositionality,
    fit_tanh,
    generalized_additivity,
    generalized_symmetries,
    recursion,
    refine,
    separability,
    snap,
    symmetries,
    train,
)  # fmt: skip
from mmxx.discovery.feynman.levenberg import _jacobian
from mmxx.discovery.feynman.modularity import consensus
from mmxx.discovery.feynman.polyfit import monomial, polynomial
from mmxx.discovery.feynman.recursion import Settings, find_modules
from mmxx.discovery.feynman.snap import with_pi
from mmxx.discovery.feynman.solve import Frontier

X = np.random.default_rng(0).uniform(1, 3, (300, 3))


class Exact:
    """A formula where the method expects a network."""

    def __init__(self, text: str) -> None:
        self.formula = Expr.parse(text)

    def value(self, X: np.ndarray) -> np.ndarray:
        return self.formula.evaluate(X)

    def gradient(self, X: np.ndarray) -> np.ndarray:
        return self.formula.grad(X)[1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [("sin(x0-x1)*x2", "minus"), ("exp(-x0-x1)+x2**2*(x0+x1)", "plus"),
     ("(x0/x1)**2+x2*x0/x1", "divide"), ("sin(x0*x1)+x2", "multiply")],
)  # fmt: skip
def test_pairs_are_seen_and_no_others(text, kind):
    oracle = Exact(text)
    found = symmetries(oracle, X, oracle.value(X))
    assert (found[0].kind, found[0].columns) == (kind, (0, 1))
    assert found[0].error < 1e-9
    assert found[1].error > 1e-3


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [("sin(x0*x1)+x2**3", "sum", (0, 1)), ("(x0+x1**2)*exp(-x2)", "product", (0, 1)),
     ("x0+sin(x1*x2)", "sum", (0,))],
)  # fmt: skip
def test_splits_are_seen_and_no_others(text, kind, part):
    oracle = Exact(text)
    found = separability(oracle, X, oracle.value(X))
    assert (found[0].kind, found[0].columns) == (kind, part)
    assert found[0].error < 1e-9
    assert found[1].error > 1e-3


def test_a_generalised_symmetry_stands_out_and_is_named():
    oracle, rng = Exact("x2*sin(x0*sqrt(x1))"), np.random.default_rng(0)
    first, *others = generalized_symmetries(oracle, X, rng, anchors=50, samples=20)
    assert first.columns == (0, 1)
    assert first.error < 1e-10
    assert all(module.signal < 0 for module in others)
    direction = consensus(oracle, X, (0, 1), rng)
    truth = np.column_stack([np.sqrt(X[:, 1]), X[:, 0] / (2 * np.sqrt(X[:, 1]))])
    truth /= np.linalg.norm(truth, axis=1)[:, None]
    np.testing.assert_allclose(np.abs((direction * truth).sum(1)), 1, atol=1e-9)
    found = compositionality(oracle, X, oracle.value(X), (0, 1), rng, max_formulas=20_000)
    assert found is not None
    assert found.error < 1e-9
    assert found.inner.variables == (0, 1)
    wrong = compositionality(oracle, X, oracle.value(X), (0, 2), rng, max_formulas=2000,
                             largest_error=1e-6)  # fmt: skip
    assert wrong is None


def test_generalised_additivity_is_0_where_it_is():
    assert generalized_additivity(Exact("exp(x0**2+sin(x1))+x2"), X, 0, 1) < 1e-9
    assert generalized_additivity(Exact("x0*x1+exp(x0)*x1**2"), X, 0, 1) > 1e-3


@pytest.mark.parametrize(
    ("text", "inner"),
    [("exp(x0**2+sin(x1))*x2", "x0**2+sin(x1)"), ("x2/(1/x0+2*x1**3)", "1/x0+2*x1**3"),
     ("x0*x1*exp(x0)+x2", "x0+log(x0)+log(x1)")],
)  # fmt: skip
def test_the_two_halves_of_a_generalised_sum_are_named(text, inner):
    oracle = Exact(text)
    found = additive(oracle, X, oracle.value(X), 0, 1, np.random.default_rng(0))
    assert (found.kind, found.columns) == ("additivity", (0, 1))
    assert found.error < 1e-9
    ours, truth = found.inner.evaluate(X), Expr.parse(inner).evaluate(X)
    assert abs(np.corrcoef(ours, truth)[0, 1]) > 1 - 1e-12
    none = Exact("x0*x1+exp(x0)*x1**2+x2")
    rng = np.random.default_rng(0)
    assert additive(none, X, none.value(X), 0, 1, rng, largest_error=1e-6) is None


def test_the_search_takes_a_generalised_sum_apart():
    y = Exact("exp(x0**2+sin(x1))").value(X)
    net = Exact("exp(x0**2+sin(x1))")
    net.error = 1e-9
    settings = Settings(max_formulas=1000, max_iter=1, seed=0, modules=("additivity",))
    module = next(find_modules(net, X[:, :2], y, settings))
    assert module.kind == "additivity"
    assert module.inner.text() == "x0**2 + sin(x1)"


def test_networks_learn_and_leave_torch_as_it_was():
    import torch

    y = X[:, 0] * X[:, 1]
    before = torch.get_rng_state()
    nets = train(X, y, steps=100, widths=(32, 32), seed=0), fit_tanh(X, y, steps=60, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    for net, close in zip(nets, (0.2, 1e-3), strict=True):
        assert net.error < close * y.std()
        step = np.array([1e-4, 0, 0])
        slope = (net.value(X + step) - net.value(X - step)) / 2e-4
        np.testing.assert_allclose(net.gradient(X)[:, 0], slope, atol=0.05 * close + 1e-6)


def test_the_network_is_torchs_and_its_jacobian_that_of_autograd():
    import torch

    net = fit_tanh(X[:40], X[:40, 0] / X[:40, 1], steps=2, seed=3)
    weights = torch.from_numpy(net.weights.copy()).requires_grad_(True)

    def said(weights):
        out, at = torch.from_numpy(net._scaled(X[:9])), 0
        for n, (a, b) in enumerate(net.layers):
            out = out @ weights[at : at + a * b].reshape(a, b) + weights[at + a * b :][:b]
            out, at = (out if n == 2 else torch.tanh(out)), at + a * b + b
        return out[:, 0]

    values, slopes = _jacobian(net.weights, net.layers, net._scaled(X[:9]))
    np.testing.assert_allclose(values, said(weights).detach().numpy(), atol=1e-12)
    theirs = torch.autograd.functional.jacobian(said, weights.detach()).numpy()
    np.testing.assert_allclose(slopes, theirs, atol=1e-12)


def test_a_sum_of_logarithms_is_a_product():
    y = Exact("(x0+x1)/(1+x0*x1)")
    x = 2.4 * X[:, :2] - 2.2  # the slopes have poles at 1
    found = additive(y, x, y.value(x), 0, 1, np.random.default_rng(0), largest_error=1e-9)
    assert found.error < 1e-9
    product = ((x + 1) / (x - 1)).prod(1)
    ours = found.inner.evaluate(x)
    assert len(set(np.sign(ours * product))) == 1  # logarithms of sizes would lose the sign
    np.testing.assert_allclose(np.abs(np.log(np.abs(ours))), np.abs(np.log(np.abs(product))))


def test_a_table_that_comes_again_is_not_searched_again(monkeypatch):
    searched = []
    monkeypatch.setattr(
        recursion, "search", lambda frontier, table, *a, **k: searched.append(table)
    )
    settings = Settings(max_formulas=10, max_iter=0, seed=0)
    frontier = Frontier(X, X[:, 0])
    for order in ([0, 1, 2], [2, 0, 1], [0, 1]):
        recursion.solve(frontier, X[:, order], X[:, 0], ("a", "b", "c"), settings)
    assert [table.shape[1] for table in searched] == [3, 2]

    def found(frontier, table, *args, restore, **more):
        frontier.add(restore(Expr.parse("x0/x2")), "found")

    monkeypatch.setattr(recursion, "search", found)
    settings, y = Settings(max_formulas=10, max_iter=0, seed=0), X[:, 0] / X[:, 2]
    recursion.solve(Frontier(X, y), X, y, ("a", "b", "c"), settings)
    turned = Frontier(X[:, ::-1], y)
    recursion.solve(turned, X[:, ::-1], y, ("c", "b", "a"), settings)
    assert turned.best_bits == 0


def test_numbers_are_snapped():
    x = X[:, :1]
    assert snap(Expr.parse("3.00001*x0"), x, 3 * x[:, 0])[-1].text() == "3*x0"
    y = 0.5 * x[:, 0] + 2 / 3
    last = snap(Expr.parse("0.5000001*x0+0.6666668"), x, y)[-1]
    np.testing.assert_allclose(last.numbers(), [0.5, 2 / 3], rtol=1e-15)
    assert with_pi(Expr.parse("0.07957747154594767*x0")).text() == "1/(4*pi)*x0"
    assert with_pi(Expr.parse("0.0795*x0")).text() == "0.0795*x0"


def test_numbers_are_refined():
    y = 1.25 * np.exp(-0.7 * X[:, 0]) + 0.1
    found = refine(Expr.parse("x0*0+1*exp(-0.5*x0)+0.3"), X, y)
    np.testing.assert_allclose(found.evaluate(X), y, atol=1e-9)
    fixed = refine(Expr.parse("1*exp(-0.5*x0)+0.1"), X, y, frozenset({2}))
    assert fixed.numbers()[2] == 0.1


def test_polynomials_keep_what_is_significant():
    y = 2 * X[:, 0] ** 2 - 3 * X[:, 1] * X[:, 2] + 0.5
    assert np.abs(polynomial(X, y, 4).evaluate(X) - y).max() < 1e-9
    noisy = y + 0.01 * np.random.default_rng(1).normal(size=len(y))
    assert len(polynomial(X, noisy, 2).numbers()) == 3
    power = monomial(X, -3 * X[:, 0] ** 1.5 / X[:, 2])
    assert power.variables == (0, 2)
    np.testing.assert_allclose(power.evaluate(X), -3 * X[:, 0] ** 1.5 / X[:, 2])
    assert monomial(X - 2, y) is None
