"""Units and dimensional analysis, for all equations."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mmxx.discovery.feynman import Expr, dimensional_reduce, feynman_equations, parse_unit
from mmxx.discovery.feynman.units import check_units


def test_units_are_read():
    assert parse_unit("kg m / s^2") == parse_unit("N")
    assert parse_unit("J/(s m^2)") == parse_unit("kg/s**3") == parse_unit([0, -3, 1, 0, 0])
    assert parse_unit("J/V/V") == parse_unit("F")
    assert parse_unit("1") == (0,) * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("furlong", "unknown unit 'furlong'; known"), ("m)", "too many"),
     ("m/(s", "missing"), ("^2", "power of nothing"), ("m$", "cannot read"), ([1, 2], "5 powers")],
)  # fmt: skip
def test_what_is_no_unit_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_unit(text)


def test_every_equation_reduces_to_what_its_rank_leaves():
    for equation in feynman_equations().values():
        if equation.units is None:
            continue
        units = [parse_unit(unit) for unit in equation.units]
        reduction = dimensional_reduce(equation.units[:-1], equation.units[-1])
        matrix = np.array([[float(p) for p in unit] for unit in units[:-1]])
        rank = np.linalg.matrix_rank(matrix)
        assert len(reduction.groups) == len(equation.names) - rank, equation.name

        def carried(powers, units=units):
            return tuple(
                sum((p * unit[d] for p, unit in zip(powers, units, strict=False)), Fraction(0))
                for d in range(5)
            )

        assert carried(reduction.target) == units[-1], equation.name
        assert all(carried(group) == (0,) * 5 for group in reduction.groups)
        if reduction.groups:
            assert np.linalg.matrix_rank(np.array(reduction.groups)) == len(reduction.groups)


def test_a_reduction_is_undone():
    equation = feynman_equations()["I.10.7"]
    X, y = equation.sample(50, np.random.default_rng(0))
    reduction = dimensional_reduce(equation.units[:-1], equation.units[-1]).oriented(X)
    table, values = reduction.apply(X, y)
    formula = Expr.parse("1/sqrt(1-x0**2)")
    np.testing.assert_allclose(formula.evaluate(table), values)
    np.testing.assert_allclose(reduction.restore(formula).evaluate(X), y)


def test_what_units_cannot_make_is_refused():
    with pytest.raises(ValueError, match="nothing carries K"):
        dimensional_reduce(["m", "s"], "K")
    with pytest.raises(ValueError, match="cannot be made"):
        dimensional_reduce(["m/s"], "m")
    with pytest.raises(ValueError, match=r"unknown: z; missing: y"):
        check_units({"x": "m", "z": "s"}, ["x", "y"])
