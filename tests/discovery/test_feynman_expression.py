"""Formulas: the 120 equations, the parser's refusals, simplification, bits, the frontier."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmxx.discovery.feynman import Expr, Pareto, feynman_equations, mdl, pareto
from mmxx.discovery.feynman.bits import error_bits, number_bits
from mmxx.discovery.feynman.simplify import distribute

TABLE = feynman_equations()
NUMPY = {
    "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "tanh": np.tanh, "abs": np.abs,
    "neg": np.negative, "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide,
}  # fmt: skip


def by_numpy(node: Expr, X: np.ndarray) -> np.ndarray:
    """The tree by numpy's own functions."""
    if node.op in ("num", "pi"):
        return np.full(len(X), math.pi if node.op == "pi" else node.value)
    if node.op == "var":
        return X[:, int(node.value)]
    args = [by_numpy(arg, X) for arg in node.args]
    return args[0] ** node.value if node.op == "pow" else NUMPY[node.op](*args)


def test_the_table_is_whole():
    assert len(TABLE) == 120
    assert sum(equation.bonus for equation in TABLE.values()) == 20
    for name, count in {"I.18.12": 3, "I.18.14": 4, "I.38.12": 4, "II.37.1": 3, "III.10.19": 4,
                        "III.19.51": 5, "test_12": 5, "test_13": 5, "test_18": 5,
                        "test_19": 6}.items():  # fmt: skip
        assert len(TABLE[name].names) == count, name


def test_every_equation_is_read_evaluated_printed_and_simplified():
    for equation in TABLE.values():
        expr, names = equation.expr, equation.names
        X, y = equation.sample(1000, np.random.default_rng(0))
        np.testing.assert_allclose(y, by_numpy(expr, X), rtol=1e-12, err_msg=equation.name)
        assert expr.variables == tuple(range(len(names))), equation.name
        assert Expr.parse(expr.text(names), names) == expr
        simple = expr.simplify()
        assert simple.simplify() == simple
        assert Expr.parse(simple.text(names), names).simplify() == simple
        for other in (simple, distribute(expr)):
            np.testing.assert_allclose(other.evaluate(X), y, rtol=1e-7, atol=1e-10)
        assert expr.latex(names).count("{") == expr.latex(names).count("}")


def test_sympy_and_torch_agree():
    sympy, torch = pytest.importorskip("sympy"), pytest.importorskip("torch")
    for name in ("I.10.7", "I.26.2", "II.35.21", "I.44.4", "test_5"):
        equation = TABLE[name]
        X, y = equation.sample(5, np.random.default_rng(1))
        simple = equation.expr.simplify()
        function = sympy.lambdify(
            [sympy.Symbol(n, real=True) for n in equation.names], simple.to_sympy(equation.names)
        )
        np.testing.assert_allclose([function(*row) for row in X], y, rtol=1e-12)
        np.testing.assert_allclose(simple.to_torch(torch.tensor(X)).numpy(), y, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x0 + q", "unknown name 'q'"),
        ("(" * 1_000_000, "at most 10,000 characters"),
        ("(" * 60 + "x0" + ")" * 60, "nesting deeper than 50"),
        ("9**9**9**9", "an exponent must be at most 64"),
        ("x0**x1", "an exponent must be a constant"),
        ("x0**65", "at most 64"),
        ("exp(1000)", "not finite"),
        ("1e999*x0", "not finite"),
        ("sin x0", "needs parentheses"),
        ("x0 +", "ends too early"),
        ("(x0", r"'\)' is missing"),
        ("x0; import os", "cannot read ';'"),
        ("__import__(x0)", "unknown name"),
        ("x0 x1", "unexpected 'x1'"),
    ],
)
def test_what_is_no_formula_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Expr.parse(text)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="variables: mass, speed"):
        Expr.parse("mass*sped", names=["mass", "speed"])


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    for name in ("I.10.7", "I.26.2", "II.35.21", "I.44.4", "test_2", "I.30.5"):
        equation = TABLE[name]
        X, _ = equation.sample(20, rng)
        value, slope = equation.expr.grad(X)
        np.testing.assert_array_equal(value, equation.expr.evaluate(X))
        for k in range(X.shape[1]):
            step = np.zeros(X.shape[1])
            step[k] = 1e-6
            ends = equation.expr.evaluate(X + step), equation.expr.evaluate(X - step)
            np.testing.assert_allclose(
                slope[:, k], (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-6
            )


def test_bits_of_numbers_and_formulas():
    assert number_bits(3.0) == 2
    assert number_bits(2 / 3) == pytest.approx(math.log2(9))
    assert number_bits(math.pi) == 2
    assert number_bits(0.1234567) == pytest.approx(math.log2(0.1234567e14))
    f = Expr.parse("x0*x0 + 3")  # symbols x x * +, of three kinds
    assert mdl(f) == pytest.approx(4 * math.log2(3) + 2)
    assert mdl(f, "distinct") == pytest.approx(3 * math.log2(3) + 2)
    assert mdl(f * f) > mdl(f)
    with pytest.raises(ValueError, match="complexity must be"):
        mdl(f, "length")
    assert error_bits([1.0, -1.0], [1.0, -1.0]) == 0
    assert error_bits([1.0, -1.0], [1.0, -1.0 + 2.0**-30]) == pytest.approx(0.5)


def test_the_frontier_is_that_of_comparing_all():
    points = np.random.default_rng(0).integers(0, 300, (10_000, 2)).astype(float)
    order = np.lexsort((points[:, 1], points[:, 0]))
    best, wanted = math.inf, []
    for complexity, error in points[order]:
        if error < best:
            best = error
            wanted.append((complexity, error))
    found = [tuple(points[k]) for k in pareto(map(tuple, points))]
    assert found == wanted
    front: Pareto[str] = Pareto()
    assert front.add(1, 1, "first")
    assert not front.add(1, 1, "second")
    assert not front.add(0, math.nan, "undefined")
