"""Formulas as data: a tree that is parsed, evaluated, derived and printed, never run as code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmxx.discovery.feynman import _program as program

if TYPE_CHECKING:
    import sympy
    import torch

Array = NDArray[np.float64]

UNARY = {
    "neg": program.NEG, "sqrt": program.SQRT, "exp": program.EXP, "log": program.LOG,
    "sin": program.SIN, "cos": program.COS, "tan": program.TAN, "asin": program.ASIN,
    "acos": program.ACOS, "atan": program.ATAN, "tanh": program.TANH, "abs": program.ABS,
}  # fmt: skip
BINARY = {"+": program.ADD, "-": program.SUB, "*": program.MUL, "/": program.DIV}
#: The letters of the reference's alphabet, by what they take.
LETTERS = {
    ">": program.SUCC, "<": program.PRED, "~": program.NEG, "I": program.INV, "O": program.TWICE,
    "J": program.ODD, "L": program.LOG, "E": program.EXP, "S": program.SIN, "C": program.COS,
    "A": program.ABS, "N": program.ASIN, "T": program.ATAN, "R": program.SQRT,
    "+": program.ADD, "-": program.SUB, "*": program.MUL, "D": program.DIV,
}  # fmt: skip
CONSTANTS = {"0": 0.0, "1": 1.0, "P": math.pi}


@dataclass(frozen=True, eq=True)
class Expr:
    """A formula: a number, a variable, or an operation on formulas.

    Built by `num`, `var`, `Expr.parse`, `Expr.from_rpn` and Python's operators. Variables are
    columns, counted from 0; names are given where it is printed.

    Attributes:
        op: ``"num"``, ``"pi"``, ``"var"``, ``"pow"``, a key of `UNARY`, or one of ``+ - * /``.
        args: What it operates on.
        value: The number of a "num", the exponent of a "pow", the column of a "var".

    Example:
        >>> f = Expr.parse("m*v**2/2", names=["m", "v"])
        >>> f.evaluate([[2.0, 3.0]])
        array([9.])
        >>> f.text(["m", "v"])
        'm*v**2/2'
    """

    op: str
    args: tuple[Expr, ...] = ()
    value: float = 0.0

    # -- making ---------------------------------------------------------------------------

    @staticmethod
    def parse(text: str, names: Sequence[str] | None = None) -> Expr:
        """Read a formula; see `mmxx.discovery.feynman.grammar.parse`."""
        from mmxx.discovery.feynman.grammar import parse

        return parse(text, names)

    @staticmethod
    def from_rpn(rpn: str) -> Expr:
        """A formula of the reference's alphabet in postfix order; a, b, c … are the variables.

        Raises:
            ValueError: An unknown letter, or not one formula.

        Example:
            >>> Expr.from_rpn("ab+C").text(["u", "v"])
            'cos(u + v)'
        """
        stack: list[Expr] = []
        for letter in rpn:
            if letter in CONSTANTS:
                stack.append(PI if letter == "P" else num(CONSTANTS[letter]))
            elif letter in LETTERS:
                need = 2 if letter in "+-*D" else 1
                if len(stack) < need:
                    raise ValueError(f"rpn: {letter!r} finds too little before it in {rpn!r}")
                args = [stack.pop() for _ in range(need)][::-1]
                stack.append(_from_letter(letter, args))
            elif "a" <= letter <= "z":
                stack.append(var(ord(letter) - ord("a")))
            else:
                raise ValueError(f"rpn: unknown letter {letter!r} in {rpn!r}")
        if len(stack) != 1:
            raise ValueError(f"rpn: {rpn!r} is {len(stack)} formulas, not one")
        return stack[0]

    def __add__(self, other: Expr | float) -> Expr:
        return Expr("+", (self, _lift(other)))

    def __sub__(self, other: Expr | float) -> Expr:
        return Expr("-", (self, _lift(other)))

    def __mul__(self, other: Expr | float) -> Expr:
        return Expr("*", (self, _lift(other)))

    def __truediv__(self, other: Expr | float) -> Expr:
        return Expr("/", (self, _lift(other)))

    def __pow__(self, exponent: float) -> Expr:
        return Expr("pow", (self,), float(exponent))

    def __neg__(self) -> Expr:
        return Expr("neg", (self,))

    # -- walking --------------------------------------------------------------------------

    def walk(self) -> Iterator[Expr]:
        """All nodes in postfix order."""
        for arg in self.args:
            yield from arg.walk()
        yield self

    @cached_property
    def variables(self) -> tuple[int, ...]:
        """The columns it uses, ascending."""
        return tuple(sorted({int(node.value) for node in self.walk() if node.op == "var"}))

    def numbers(self) -> list[float]:
        """Its numbers in postfix order: what `with_numbers` replaces. Exponents stay."""
        return [node.value for node in self.walk() if node.op == "num"]

    def with_numbers(self, values: Sequence[float]) -> Expr:
        """The same formula with other numbers, in postfix order."""
        left = iter(values)

        def again(node: Expr) -> Expr:
            if node.op == "num":
                return num(next(left))
            return Expr(node.op, tuple(again(arg) for arg in node.args), node.value)

        return again(self)

    def substitute(self, replacements: Sequence[Expr]) -> Expr:
        """The formula with ``replacements[k]`` in the place of variable k."""
        if self.op == "var":
            return replacements[int(self.value)]
        return Expr(self.op, tuple(arg.substitute(replacements) for arg in self.args), self.value)

    # -- computing ------------------------------------------------------------------------

    @cached_property
    def _program(self) -> tuple[NDArray[np.int64], Array]:
        codes, numbers = [], []
        for node in self.walk():
            numbers.append(math.pi if node.op == "pi" else node.value)
            codes.append(_code(node.op))
        return np.array(codes, np.int64), np.array(numbers)

    def evaluate(self, X: ArrayLike) -> Array:
        """Its values.

        Args:
            X: The variables, [rows, columns].

        Returns:
            float64 [rows]; NaN or infinite where the formula is undefined.

        Raises:
            ValueError: It uses a column that X does not have.
        """
        return self.evaluate_columns(self._columns(X))

    def evaluate_columns(self, columns: Array) -> Array:
        """`evaluate` for variables that lie as [columns, rows], C order."""
        out = np.empty(columns.shape[1])
        program.evaluate(*self._program, columns, out)
        return out

    def grad(self, X: ArrayLike) -> tuple[Array, Array]:
        """Values [rows] and derivatives by the variables [rows, columns]."""
        columns = self._columns(X)
        codes, numbers = self._program
        slots = np.where(codes == program.VAR, numbers, -1).astype(np.int64)
        return self._dual(slots, columns, len(columns))

    def number_grad(self, X: ArrayLike) -> tuple[Array, Array]:
        """Values [rows] and derivatives by `numbers` [rows, numbers]."""
        columns = self._columns(X)
        is_number = np.array([node.op == "num" for node in self.walk()])
        slots = np.where(is_number, np.cumsum(is_number) - 1, -1).astype(np.int64)
        return self._dual(slots, columns, int(is_number.sum()))

    def _dual(self, slots: NDArray[np.int64], columns: Array, count: int) -> tuple[Array, Array]:
        out, gradient = np.empty(columns.shape[1]), np.empty((count, columns.shape[1]))
        program.evaluate_dual(*self._program, slots, columns, out, gradient)
        return out, gradient.T

    def _columns(self, X: ArrayLike) -> Array:
        matrix = np.asarray(X, dtype=np.float64)
        if matrix.ndim != 2 or (self.variables and self.variables[-1] >= matrix.shape[1]):
            need = self.variables[-1] + 1 if self.variables else 0
            raise ValueError(f"X must be [rows, {need} columns or more], got {matrix.shape}")
        return np.ascontiguousarray(matrix.T)

    # -- showing --------------------------------------------------------------------------

    def text(self, names: Sequence[str] | None = None) -> str:
        """As Python and SRBench write it: ``**`` for powers, ``log``, ``exp``, ``sqrt``."""
        from mmxx.discovery.feynman.grammar import infix

        return infix(self, names)

    def latex(self, names: Sequence[str] | None = None) -> str:
        """As LaTeX, without dollar signs."""
        from mmxx.discovery.feynman.grammar import latex

        return latex(self, names)

    def simplify(self) -> Expr:
        """Constants folded, identities applied, sums and products in one order."""
        from mmxx.discovery.feynman.simplify import simplify

        return simplify(self)

    def complexity(self, kind: str = "symbols") -> float:
        """Its description length in bits; see `mmxx.discovery.feynman.bits.mdl`."""
        from mmxx.discovery.feynman.bits import mdl

        return mdl(self, kind)

    def to_sympy(self, names: Sequence[str] | None = None) -> sympy.Expr:
        """The same as a sympy expression, with real symbols."""
        import sympy

        functions: dict[str, Any] = {
            "neg": lambda a: -a, "abs": sympy.Abs, "+": lambda a, b: a + b,
            "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
        }  # fmt: skip

        def build(node: Expr) -> Any:
            if node.op == "num":
                return (
                    sympy.Integer(int(node.value))
                    if node.value.is_integer()
                    else sympy.Float(node.value, 17)
                )
            if node.op == "pi":
                return sympy.pi
            if node.op == "var":
                index = int(node.value)
                return sympy.Symbol(names[index] if names else f"x{index}", real=True)
            args = [build(arg) for arg in node.args]
            if node.op == "pow":
                return args[0] ** sympy.nsimplify(node.value)
            return functions.get(node.op, getattr(sympy, node.op, sympy.Symbol))(*args)

        return build(self)

    def to_torch(self, X: torch.Tensor) -> torch.Tensor:
        """Its values for a tensor [rows, columns], differentiable."""
        import torch

        if self.op in ("num", "pi"):
            return torch.full_like(X[:, 0], math.pi if self.op == "pi" else self.value)
        if self.op == "var":
            return X[:, int(self.value)]
        args = [arg.to_torch(X) for arg in self.args]
        if self.op == "pow":
            return args[0] ** self.value
        words = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
        return getattr(torch, words.get(self.op, self.op))(*args)


def num(value: float) -> Expr:
    """A number."""
    return Expr("num", (), float(value))


def var(index: int) -> Expr:
    """The variable in column ``index``."""
    return Expr("var", (), float(index))


PI = Expr("pi")


def _lift(value: Expr | float) -> Expr:
    return value if isinstance(value, Expr) else num(value)


def _code(op: str) -> int:
    if op in ("num", "pi"):
        return program.CONST
    if op == "var":
        return program.VAR
    if op == "pow":
        return program.POW
    return UNARY[op] if op in UNARY else BINARY[op]


def _from_letter(letter: str, args: Sequence[Expr]) -> Expr:
    if letter in "+-*D":
        return Expr("/" if letter == "D" else letter, tuple(args))
    (a,) = args
    match letter:
        case ">":
            return a + 1
        case "<":
            return a - 1
        case "I":
            return num(1) / a
        case "O":
            return num(2) * a
        case "J":
            return num(2) * a + 1
        case _:
            names = {code: name for name, code in UNARY.items()}
            return Expr(names[LETTERS[letter]], (a,))
