"""The 65 operations: what each reads, writes and holds, how it is written, what it costs.

A memory has scalars ``s0 …``, vectors ``v0 …`` of length F and matrices ``m0 …`` of F × F, all
float64. ``s0`` is the label, ``s1`` the prediction, ``v0`` the features; no instruction writes
``s0`` or ``v0``. Arithmetic is plain IEEE: nothing is protected, NaN and infinity flow on.

Source: Real et al. (2020), supplement; the numbering is that of the authors' code.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

COMPONENTS = ("setup", "predict", "learn")
FIRST_OUT = {"s": 1, "v": 1, "m": 0}
"""The first address of each type that an instruction may write."""
MOST_ADDRESSES = 60
"""Addresses of one type at most: sets of them are kept in the bits of a word."""
DATA = {"const": 1, "element": 2, "cell": 3, "uniform": 2, "gaussian": 2, "": 0}
"""What an instruction holds, and in how many numbers."""


class Op(NamedTuple):
    """One operation.

    Attributes:
        name: Lower case, unique.
        in1: Type of the first input: "s", "v", "m" or "" for none.
        in2: Type of the second.
        out: Type of the output.
        data: What it holds: a key of `DATA`.
        kernel: Which loop of the interpreter computes it.
        form: How it is written: ``{o}``, ``{a}``, ``{b}`` are addresses, ``{x}``, ``{y}``, ``{z}``
            numbers.
    """

    name: str
    in1: str
    in2: str
    out: str
    data: str
    kernel: str
    form: str


def _op(name: str, signature: str, kernel: str, form: str, data: str = "") -> Op:
    """An operation from a signature such as ``sv>v``."""
    ins, out = signature.split(">")
    in1, in2 = (*ins, "", "")[:2]
    return Op(name, in1, in2, out, data, kernel, f"{out}{{o}} = {form}")


_WHAT = {"s": "scalar", "v": "vector", "m": "matrix"}
_SHAPE = {"s": "", "v": ", n_features", "m": ", (n_features, n_features)"}


def _both(kind: str, verb: str, kernel: str, form: str) -> Op:
    return _op(f"{_WHAT[kind]}_{verb}", f"{kind}{kind}>{kind}", kernel, form.replace("_", kind))


def _one(kind: str, verb: str, kernel: str, form: str) -> Op:
    return _op(f"{_WHAT[kind]}_{verb}", f"{kind}>{kind}", kernel, form.replace("_", kind))


def _arithmetic(kind: str) -> list[Op]:
    return [
        _both(kind, "sum", "add", "_{a} + _{b}"),
        _both(kind, "difference", "subtract", "_{a} - _{b}"),
        _both(kind, "product", "multiply", "_{a} * _{b}"),
        _both(kind, "quotient", "divide", "_{a} / _{b}"),
    ]


def _draws(law: str, low: str, high: str) -> list[Op]:
    return [
        _op(f"{_WHAT[kind]}_{law}", f">{kind}", law, f"{law}({low}, {high}{shape})", law)
        for kind, shape in _SHAPE.items()
    ]


OPS: tuple[Op, ...] = (
    Op("no_op", "", "", "", "", "none", "NoOp()"),
    *_arithmetic("s"),
    _one("s", "abs", "abs", "abs(_{a})"),
    _one("s", "reciprocal", "reciprocal", "1 / _{a}"),
    *(
        _one("s", name, name, f"{name}(_{{a}})")
        for name in ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "exp", "log")
    ),
    _one("s", "heaviside", "step_at_zero", "heaviside(_{a}, 1.0)"),
    _one("v", "heaviside", "step", "heaviside(_{a}, 1.0)"),
    _one("m", "heaviside", "step", "heaviside(_{a}, 1.0)"),
    _op("scalar_vector_product", "sv>v", "scale", "s{a} * v{b}"),
    _op("scalar_broadcast", "s>v", "broadcast", "bcast(s{a})"),
    _one("v", "reciprocal", "reciprocal", "1 / _{a}"),
    _op("vector_norm", "v>s", "norm", "norm(v{a})"),
    _one("v", "abs", "abs", "abs(_{a})"),
    *_arithmetic("v"),
    _op("inner_product", "vv>s", "dot", "dot(v{a}, v{b})"),
    _op("outer_product", "vv>m", "outer", "outer(v{a}, v{b})"),
    _op("scalar_matrix_product", "sm>m", "scale", "s{a} * m{b}"),
    _one("m", "reciprocal", "reciprocal", "1 / _{a}"),
    _op("matrix_vector_product", "mv>v", "matvec", "dot(m{a}, v{b})"),
    _op("column_broadcast", "v>m", "columns", "bcast(v{a}, axis=0)"),
    _op("row_broadcast", "v>m", "rows", "bcast(v{a}, axis=1)"),
    _op("matrix_norm", "m>s", "norm", "norm(m{a})"),
    _op("column_norms", "m>v", "column_norms", "norm(m{a}, axis=0)"),
    _op("row_norms", "m>v", "row_norms", "norm(m{a}, axis=1)"),
    _op("transpose", "m>m", "transpose", "transpose(m{a})"),
    _one("m", "abs", "abs", "abs(_{a})"),
    *_arithmetic("m"),
    _op("matrix_matrix_product", "mm>m", "matmul", "matmul(m{a}, m{b})"),
    *(_both(kind, "minimum", "minimum", "minimum(_{a}, _{b})") for kind in "svm"),
    *(_both(kind, "maximum", "maximum", "maximum(_{a}, _{b})") for kind in "svm"),
    _op("vector_mean", "v>s", "mean", "mean(v{a})"),
    _op("matrix_mean", "m>s", "mean", "mean(m{a})"),
    _op("row_means", "m>v", "row_means", "mean(m{a}, axis=1)"),
    _op("row_deviations", "m>v", "row_deviations", "std(m{a}, axis=1)"),
    _op("vector_deviation", "v>s", "deviation", "std(v{a})"),
    _op("matrix_deviation", "m>s", "deviation", "std(m{a})"),
    _op("scalar_const", ">s", "const", "{x}", "const"),
    Op("vector_element", "", "", "v", "element", "element", "v{o}[{x}] = {y}"),
    Op("matrix_cell", "", "", "m", "cell", "element", "m{o}[{x}, {y}] = {z}"),
    *_draws("uniform", "{x}", "{y}"),
    *_draws("gaussian", "{x}", "{y}"),
)  # fmt: skip
"""All operations, in the order of their numbers."""

NUMBER = {op.name: number for number, op in enumerate(OPS)}
"""The number of each operation by its name."""
KERNELS = tuple(dict.fromkeys(op.kernel for op in OPS))
RANDOM = frozenset(n for n, op in enumerate(OPS) if op.data in ("uniform", "gaussian"))
"""Numbers of the operations that draw."""

_TYPE = {"": -1, "s": 0, "v": 1, "m": 2}
_DATA_CODE = {kind: code for code, kind in enumerate(DATA)}
IN1, IN2, OUT = (
    np.array([_TYPE[op[field]] for op in OPS], np.int64) for field in (1, 2, 3)
)  # compiled code takes them as constants
HOLDS = np.array([_DATA_CODE[op.data] for op in OPS], np.int64)
KERNEL = np.array([KERNELS.index(op.kernel) for op in OPS], np.int64)
"""Of each operation the types of inputs and output (-1 none, 0 s, 1 v, 2 m), data and loop."""
COST = np.array([
    0.0, 1.0, 0.8, 1.0, 1.3, 0.9, 1.3, 7.5, 8.6, 7.7, 2.4, 3.3, 7.8, 4.2, 3.3, 0.8, 4.4, 12.8,
    5.3, 3.0, 17.1, 9.1, 3.1, 5.4, 5.1, 5.2, 18.1, 5.0, 43.3, 49.1, 34.8, 108, 36.6, 16.7, 114,
    142, 141, 57.4, 14.3, 18.5, 18.7, 19.5, 35.8, 692, 0.8, 7.0, 19.9, 0.8, 7.7, 19.3, 11.7,
    119, 175, 171, 10.8, 118, 0.4, 0.7, 0.7, 8.4, 26.4, 225, 39.3, 405, 5921,
], np.float64)  # fmt: skip
"""What each operation costs, in nanoseconds for one task at F = 16.

As the benchmark prints with ``--costs``; only their ratios matter.
"""


def number_of(op: str | int) -> int:
    """The number of an operation that is named or numbered.

    Raises:
        ValueError: There is none such.
    """
    if isinstance(op, str):
        if op not in NUMBER:
            raise ValueError(f"op: {op!r} is unknown; accepted: {', '.join(NUMBER)}")
        return NUMBER[op]
    if not 0 <= int(op) < len(OPS):
        raise ValueError(f"op must be 0 to {len(OPS) - 1}, got {op}")
    return int(op)
