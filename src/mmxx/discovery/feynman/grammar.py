"""Reading and writing formulas: an operator-precedence parser, infix text, LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from mmxx.discovery.feynman.expression import BINARY, PI, UNARY, Expr, num, var

MAX_LENGTH = 10_000
MAX_DEPTH = 50
MAX_EXPONENT = 64
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<symbol>\*\*|[-+*/^()~]))",
    re.ASCII,
)
_ALIASES = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}
FUNCTIONS = tuple(sorted((set(UNARY) - {"neg"}) | set(_ALIASES)))
RESERVED = frozenset({*FUNCTIONS, "pi"})
_POWER = {"+": 10, "-": 10, "*": 20, "/": 20, "neg": 25, "pow": 30}
_ATOM = 40


class ParseError(ValueError):
    """A text that is no formula, with the place."""


def parse(text: str, names: Sequence[str] | None = None) -> Expr:
    """Read a formula; nothing is evaluated as code.

    Args:
        text: Numbers, ``+ - * / **`` (or ``^``), ``~`` for unary minus, parentheses, ``pi``, and
            functions: `FUNCTIONS`. Powers have constant exponents of at most 64.
        names: The variables, column by column. Without them x0, x1, … are the variables.

    Returns:
        The formula.

    Raises:
        ParseError: An unknown name (the known ones are listed), a syntax error with its place,
            more than 10,000 characters, nesting deeper than 50, or a constant that is not finite.

    Example:
        >>> parse("2*sin(x0)**2").text()
        '2*sin(x0)**2'
    """
    if len(text) > MAX_LENGTH:
        raise ParseError(f"text: at most {MAX_LENGTH:,} characters are read, got {len(text):,}")
    return _Parser(text, names).whole()


class _Parser:
    def __init__(self, text: str, names: Sequence[str] | None) -> None:
        self.text = text
        self.names = None if names is None else {name: i for i, name in enumerate(names)}
        self.at = 0
        self.depth = 0
        self.kind, self.word = "", ""
        self._advance()

    def whole(self) -> Expr:
        found = self._expression(0)
        if self.kind:
            raise self._error(f"unexpected {self.word!r}")
        return found

    def _error(self, what: str) -> ParseError:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return ParseError(f"text: {what} before place {self.at} in {shown!r}")

    def _advance(self) -> None:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            rest = self.text[self.at :].strip()
            self.kind, self.word = "", ""
            if rest:
                raise self._error(f"cannot read {rest[0]!r}")
            return
        self.at = match.end()
        self.kind = str(match.lastgroup)
        self.word = match[self.kind]

    def _expression(self, power: int) -> Expr:
        """All that binds tighter than ``power`` (Pratt, 1973)."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"nesting deeper than {MAX_DEPTH}")
        left = self._prefix()
        while self.kind == "symbol" and self.word not in ("(", ")", "~"):
            op = "pow" if self.word in ("**", "^") else self.word
            if _POWER[op] <= power:
                break
            self._advance()
            if op == "pow":
                left = Expr("pow", (left,), self._exponent())
            else:
                left = Expr(op, (left, self._expression(_POWER[op])))
        self.depth -= 1
        return _bounded(left, self)

    def _prefix(self) -> Expr:
        kind, word = self.kind, self.word
        if not kind:
            raise self._error("the formula ends too early")
        self._advance()
        if kind == "number":
            if not math.isfinite(float(word)):
                raise self._error(f"{word!r} is not finite")
            return num(float(word))
        if kind == "name":
            return self._name(word)
        if word in "-~":
            inner = self._expression(_POWER["neg"])
            return num(-inner.value) if inner.op == "num" else -inner
        if word == "+":
            return self._expression(_POWER["neg"])
        if word == "(":
            inner = self._expression(0)
            self._close()
            return inner
        raise self._error(f"unexpected {word!r}")

    def _name(self, word: str) -> Expr:
        if self.names is not None and word in self.names:
            return var(self.names[word])
        if word == "pi":
            return PI
        if word in RESERVED:
            if self.word != "(":
                raise self._error(f"the function {word!r} needs parentheses")
            self._advance()
            inner = self._expression(0)
            self._close()
            return Expr(_ALIASES.get(word, word), (inner,))
        if self.names is None and re.fullmatch(r"x\d{1,4}", word):
            return var(int(word[1:]))
        known = "x0, x1, …" if self.names is None else ", ".join(self.names)
        raise self._error(
            f"unknown name {word!r}; variables: {known}; functions: {', '.join(FUNCTIONS)};"
        )

    def _exponent(self) -> float:
        inner = self._expression(_POWER["neg"])  # right-associative
        if inner.variables:
            raise self._error("an exponent must be a constant")
        value = float(inner.evaluate([[]])[0])
        if not abs(value) <= MAX_EXPONENT:
            raise self._error(f"an exponent must be at most {MAX_EXPONENT}, got {value:g}")
        return value

    def _close(self) -> None:
        if self.word != ")":
            raise self._error("a ')' is missing")
        self._advance()


def _bounded(node: Expr, parser: _Parser) -> Expr:
    """The node, unless it is a constant that is not finite."""
    if not node.variables and not math.isfinite(node.evaluate([[]])[0]):
        raise parser._error("a constant that is not finite")
    return node


# -- writing -----------------------------------------------------------------------------------


def infix(node: Expr, names: Sequence[str] | None = None) -> str:
    """A formula as text that `parse` reads back."""

    def write(node: Expr, power: int) -> str:
        if node.op == "num":
            text, own = _number(node.value), _ATOM if node.value >= 0 else _POWER["neg"]
        elif node.op == "pi":
            text, own = "pi", _ATOM
        elif node.op == "var":
            index = int(node.value)
            text, own = (names[index] if names else f"x{index}"), _ATOM
        elif node.op in BINARY:
            own = _POWER[node.op]
            text = f"{write(node.args[0], own)}{node.op}{write(node.args[1], own + 1)}"
        elif node.op == "pow":
            own = _POWER["pow"]
            exponent = _number(node.value)
            exponent = exponent if exponent.isdigit() else f"({_fraction(node.value)})"
            text = f"{write(node.args[0], own + 1)}**{exponent}"
        elif node.op == "neg":
            own = _POWER["neg"]
            text = f"-{write(node.args[0], own)}"
        else:
            text, own = f"{node.op}({write(node.args[0], 0)})", _ATOM
        return text if own >= power else f"({text})"

    return _spaced(node, write)


def _spaced(node: Expr, write) -> str:
    """Sums at the top are written with spaces, as people do."""
    if node.op in "+-" and node.args:
        return (
            f"{_spaced(node.args[0], write)} {node.op} {write(node.args[1], _POWER[node.op] + 1)}"
        )
    return write(node, 0)


def _number(value: float) -> str:
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def _fraction(value: float) -> str:
    """An exponent: 1.5 is written 3/2, which is read back as the same float."""
    near = Fraction(value).limit_denominator(64)
    return str(near) if near.numerator / near.denominator == value else repr(value)


def latex(node: Expr, names: Sequence[str] | None = None) -> str:
    """A formula as LaTeX."""

    def write(node: Expr, power: int = 0) -> str:
        args, own = node.args, _POWER.get(node.op, _ATOM)
        match node.op:
            case "num":
                text, own = _latex_number(node.value), _ATOM if node.value >= 0 else 25
            case "pi":
                text = r"\pi"
            case "var":
                index = int(node.value)
                text = _latex_name(names[index]) if names else f"x_{{{index}}}"
            case "+" | "-":
                text = f"{write(args[0], 10)} {node.op} {write(args[1], 11)}"
            case "*":
                text = rf"{write(args[0], 20)} \, {write(args[1], 21)}"
            case "/":
                text, own = rf"\frac{{{write(args[0])}}}{{{write(args[1])}}}", 30
            case "neg":
                text = f"-{write(args[0], 25)}"
            case "pow":
                text = f"{{{write(args[0], 31)}}}^{{{_fraction(node.value)}}}"
            case "sqrt":
                text = rf"\sqrt{{{write(args[0])}}}"
            case "abs":
                text = rf"\left|{write(args[0])}\right|"
            case "asin" | "acos" | "atan":
                text = rf"\arc{node.op[1:]}\left({write(args[0])}\right)"
            case _:
                text = rf"\{node.op}\left({write(args[0])}\right)"
        return text if own >= power else rf"\left({text}\right)"

    return write(node)


def _latex_number(value: float) -> str:
    near = Fraction(value).limit_denominator(1000)
    if near.denominator > 1 and near.numerator / near.denominator == value:
        sign = "-" if value < 0 else ""
        return rf"{sign}\frac{{{abs(near.numerator)}}}{{{near.denominator}}}"
    text = _number(value) if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    mantissa, _, exponent = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa


def _latex_name(name: str) -> str:
    head, _, tail = name.partition("_")
    head = rf"\{head}" if head in _GREEK else head
    head = head if len(head) == 1 or head.startswith("\\") else rf"\mathrm{{{head}}}"
    tail = tail.replace("_", ",")
    return rf"{head}_{{\mathrm{{{tail}}}}}" if tail else head


_GREEK = frozenset("alpha beta gamma delta epsilon theta kappa mu rho sigma tau chi omega".split())
