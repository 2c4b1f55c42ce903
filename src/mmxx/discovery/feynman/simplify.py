"""Simplifying formulas: constants folded, identities, one order for sums and products."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mmxx.discovery.feynman.expression import Expr, num


def simplify(expr: Expr) -> Expr:
    """An equal formula that is no longer, wherever the first is defined.

    Sums are flattened and equal terms collected, products become powers of their factors in one
    order; sqrt(x)**2, exp(log(x)), 0*x and the like go. Numbers are folded as float64, except
    with pi, which stays exact.
    """
    args = tuple(simplify(arg) for arg in expr.args)
    node = Expr(expr.op, args, expr.value)
    if args and all(arg.op == "num" for arg in args):
        value = float(node.evaluate([[]])[0])
        if math.isfinite(value) and (expr.op in ("+", "-", "*", "/", "pow") or value.is_integer()):
            return num(value)
    match expr.op:
        case "neg":
            return _product([num(-1.0), args[0]])
        case "+":
            return _sum(args)
        case "-":
            return _sum([args[0], _product([num(-1.0), args[1]])])
        case "*":
            return _product(args)
        case "/":
            return _product([args[0], _power(args[1], -1.0)])
        case "pow":
            return _product([_power(args[0], expr.value)])
        case "sqrt":
            inner = args[0]
            if inner.op == "pow" and inner.value == 2:
                return Expr("abs", inner.args)
        case "exp":
            if args[0].op == "log":
                return args[0].args[0]
        case "log":
            if args[0].op == "exp":
                return args[0].args[0]
        case "abs":
            if args[0].op in ("abs", "exp", "sqrt") or _is_even_power(args[0]):
                return args[0]
    return node


def _is_even_power(node: Expr) -> bool:
    return node.op == "pow" and node.value % 2 == 0


def _key(node: Expr) -> tuple:
    """One order for all formulas: numbers, pi, variables, then the rest."""
    rank = {"num": 0, "pi": 1, "var": 2}.get(node.op, 3)
    return rank, node.op if rank == 3 else "", node.value, tuple(_key(arg) for arg in node.args)


def _terms(node: Expr) -> Iterable[Expr]:
    """The terms of a sum; a difference has a term with a minus."""
    if node.op == "+":
        for arg in node.args:
            yield from _terms(arg)
    elif node.op == "-":
        yield from _terms(node.args[0])
        for term in _terms(node.args[1]):
            yield _product([num(-1.0), term])
    else:
        yield node


def _factors(node: Expr) -> Iterable[tuple[Expr, float]]:
    """The factors of a product, each with its exponent."""
    if node.op == "*":
        for arg in node.args:
            yield from _factors(arg)
    elif node.op == "/":
        yield from _factors(node.args[0])
        for base, exponent in _factors(node.args[1]):
            yield base, -exponent
    elif node.op == "neg":
        yield num(-1.0), 1.0
        yield from _factors(node.args[0])
    elif node.op == "pow":
        yield node.args[0], node.value
    else:
        yield node, 1.0


def _power(node: Expr, exponent: float) -> Expr:
    if exponent == 1:
        return node
    if node.op == "num":
        if node.value == 0 and exponent < 0:
            return Expr("pow", (node,), exponent)
        value = float(Expr("pow", (node,), exponent).evaluate([[]])[0])
        return num(value) if math.isfinite(value) else Expr("pow", (node,), exponent)
    if node.op == "pow" and node.value.is_integer() and exponent.is_integer():
        return _power(node.args[0], node.value * exponent)
    if node.op == "sqrt" and exponent.is_integer() and exponent % 2 == 0:
        return _power(node.args[0], exponent / 2)
    if node.op == "abs" and exponent % 2 == 0:
        return _power(node.args[0], exponent)
    if node.op in ("*", "/") and exponent.is_integer():
        return _product([_power(base, e * exponent) for base, e in _factors(node)])
    return Expr("pow", (node,), exponent)


def _product(args: Iterable[Expr]) -> Expr:
    number, exponents = 1.0, {}
    for arg in args:
        for base, exponent in _factors(arg):
            if base.op == "num" and (base.value != 0 or exponent > 0):
                number *= (
                    base.value**exponent
                    if base.value > 0 or exponent == 1
                    else float(Expr("pow", (base,), exponent).evaluate([[]])[0])
                )
            else:
                exponents[base] = exponents.get(base, 0.0) + exponent
    if number == 0:
        return num(0.0)
    if not math.isfinite(number):
        exponents[num(number)] = 1.0
        number = 1.0
    above, below = [], []
    for base in sorted(exponents, key=_key):
        exponent = exponents[base]
        if exponent > 0:
            above.append(_power(base, exponent))
        elif exponent < 0:
            below.append(_power(base, -exponent))
    negative, number = number < 0, abs(number)
    if number != 1 and number < 1 and (1 / number).is_integer() and below:
        below.insert(0, num(1 / number))
        number = 1.0
    if number != 1 or not above:
        above.insert(0, num(-number if negative else number))
        negative = False
    product = _chain("*", above)
    if below:
        product = product / _chain("*", below)
    if not negative:
        return product
    return -product


def _chain(op: str, args: list[Expr]) -> Expr:
    chained = args[0]
    for arg in args[1:]:
        chained = Expr(op, (chained, arg))
    return chained


def _sum(args: Iterable[Expr]) -> Expr:
    number, weights = 0.0, {}
    for arg in args:
        for term in _terms(arg):
            weight, rest = _split(term)
            if rest is None:
                number += weight
            else:
                weights[rest] = weights.get(rest, 0.0) + weight
    terms = [
        (weight, rest)
        for rest, weight in sorted(weights.items(), key=lambda item: _key(item[0]))
        if weight != 0
    ]
    if number != 0 or not terms:
        terms.append((number, num(1.0)))
    terms.sort(key=lambda term: term[0] < 0)  # a leading minus only where all have one
    weight, rest = terms[0]
    total = _product([num(weight), rest])
    for weight, rest in terms[1:]:
        term = _product([num(abs(weight)), rest])
        total = total - term if weight < 0 else total + term
    return total


def _split(term: Expr) -> tuple[float, Expr | None]:
    """A term as number times the rest; no rest for a mere number."""
    if term.op == "num":
        return term.value, None
    weight, others = 1.0, []
    for base, exponent in _factors(term):
        if base.op == "num" and (base.value > 0 or exponent == 1):
            weight *= base.value**exponent
        else:
            others.append(_power(base, exponent))
    if weight == 0 or not math.isfinite(weight):
        return (0.0, None) if weight == 0 else (1.0, term)
    return weight, _product(others)


def distribute(expr: Expr) -> Expr:
    """A product with a sum, or with the root of one, multiplied out; common factors before it.

    Under a root it holds where the other factors are not negative.
    """
    expr = expr.simplify()
    if expr.op == "neg":
        return simplify(-distribute(expr.args[0]))
    factors = list(_factors(expr)) if expr.op in ("*", "/") else [(expr, 1.0)]
    for place, (base, exponent) in enumerate(factors):
        others = [_power(b, e) for k, (b, e) in enumerate(factors) if k != place]
        if base.op in "+-" and base.args and exponent == 1:
            return _common([_product([*others, term]) for term in _terms(base)])
        if base.op == "sqrt" and exponent == 1 and base.args[0].op in ("+", "-"):
            inner = distribute(_product([*(_power(other, 2.0) for other in others), base.args[0]]))
            return simplify(Expr("sqrt", (inner,)))
    return expr


def _common(terms: list[Expr]) -> Expr:
    """A sum with what all its terms share before it."""
    parts = [{base: e for base, e in _factors(t) if base.op != "num"} for t in terms]
    weights = [_split(t)[0] for t in terms]
    shared = {
        base: min(part.get(base, 0.0) for part in parts)
        for base in parts[0]
        if all(part.get(base, 0.0) > 0 for part in parts)
        or all(part.get(base, 0.0) < 0 for part in parts)
    }
    weight = abs(weights[0]) if len({abs(w) for w in weights}) == 1 and weights[0] else 1.0
    outside = [num(weight), *(_power(base, e) for base, e in shared.items())]
    inside = _sum(_product([t, _power(_product(outside), -1.0)]) for t in terms)
    return _product([*outside, inside])
