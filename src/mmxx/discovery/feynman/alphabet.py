"""The symbols of formulas in postfix order, the shapes that they make, and their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman.expression import CONSTANTS, LETTERS

Array = NDArray[np.float64]

#: The authors' sets of symbols (variables come on top).
ALPHABETS = {
    "7ops": "+*D>~R0",
    "10ops": "0~*DJORPEL",
    "14ops": "+*-D><~IRPSCLE",
    "19ops": "+*-D><~IRPLESCANT01",
}
MAX_VARIABLES = 26
_BINARY = frozenset("+-*D")


class Template(NamedTuple):
    """Postfix strings of one shape: what each position takes, and where its operands are."""

    arity: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]


@lru_cache
def templates(length: int) -> tuple[Template, ...]:
    """All shapes of a length, as arity strings in their order.

    There are Motzkin(length - 1) of them: 1, 1, 2, 4, 9, 21, 51, 127, 323, 835, …

    Example:
        >>> ["".join(map(str, t.arity)) for t in templates(3)]
        ['002', '011']
    """
    found = []

    def extend(arity: tuple[int, ...], depth: int) -> None:
        left = length - len(arity)
        if depth - 1 > left:
            return  # too few binary operations can follow
        if not left:
            found.append(_wired(arity))
            return
        for a in range(min(depth, 2) + 1):
            extend((*arity, a), depth + 1 - a)

    extend((), 0)
    return tuple(found)


def _wired(arity: tuple[int, ...]) -> Template:
    stack: list[int] = []
    left, right = [], []
    for position, a in enumerate(arity):
        operands = [stack.pop() for _ in range(a)][::-1] or [position]
        left.append(operands[0])
        right.append(operands[-1])
        stack.append(position)
    return Template(arity, tuple(left), tuple(right))


@dataclass(frozen=True)
class Alphabet:
    """Symbols in their order, by what they take.

    Attributes:
        letters: Symbols that take 0, 1 and 2 operands; variables are a, b, c, …
        n_variables: How many variables there are.
    """

    letters: tuple[str, str, str]
    n_variables: int

    @classmethod
    def make(cls, operators: str | Sequence[str], n_variables: int) -> Alphabet:
        """An alphabet by name, or of the symbols given.

        Raises:
            ValueError: An unknown symbol (the known ones are listed), or too many variables.
        """
        symbols = ALPHABETS.get(operators, operators) if isinstance(operators, str) else operators
        known = [*LETTERS, *CONSTANTS]
        unknown = [symbol for symbol in symbols if symbol not in known]
        if unknown or len(set(symbols)) < len(symbols):
            raise ValueError(
                f"operators must be one of {', '.join(ALPHABETS)} or different symbols of "
                f"{' '.join(known)}, got {operators!r}"
            )
        if not 1 <= n_variables <= MAX_VARIABLES:
            raise ValueError(f"brute force takes 1 to {MAX_VARIABLES} variables, got {n_variables}")
        variables = "".join(chr(ord("a") + k) for k in range(n_variables))
        nullary = "".join(s for s in symbols if s in CONSTANTS) + variables
        binary = "".join(s for s in symbols if s in _BINARY)
        unary = "".join(s for s in symbols if s in LETTERS and s not in _BINARY)
        return cls((nullary, unary, binary), n_variables)

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """Leaf or opcode of each symbol, [3, most symbols]."""
        table = np.zeros((3, max(map(len, self.letters))), np.int64)
        table[0, : len(self.letters[0])] = np.arange(len(self.letters[0]))
        for a in (1, 2):
            table[a, : len(self.letters[a])] = [LETTERS[letter] for letter in self.letters[a]]
        return table

    def leaves(self, columns: Array) -> Array:
        """Values of the nullary symbols, [symbols, rows], of the variables [variables, rows]."""
        constants = [CONSTANTS[letter] for letter in self.letters[0] if letter in CONSTANTS]
        rows = columns.shape[1]
        return np.vstack([*(np.full((1, rows), c) for c in constants), columns])

    def radix(self, template: Template) -> list[int]:
        """How many symbols each position can be."""
        return [len(self.letters[a]) for a in template.arity]

    def size(self, template: Template) -> int:
        """How many formulas the template has."""
        return math.prod(self.radix(template))

    def count(self, length: int) -> int:
        """How many formulas there are up to a length."""
        return sum(self.size(t) for n in range(1, length + 1) for t in templates(n))

    def formula(self, template: Template, index: int) -> str:
        """The postfix string at an index that counts with the last position fastest."""
        letters = []
        for a, radix in zip(template.arity[::-1], self.radix(template)[::-1], strict=True):
            index, digit = divmod(index, radix)
            letters.append(self.letters[a][digit])
        return "".join(reversed(letters))

    def rank(self, formula: str) -> int:
        """The place of a formula in the authors' order, from 1: its bits are log2 of it.

        Lengths first, then templates, then symbols with the first position fastest.

        Raises:
            ValueError: A symbol that is not in the alphabet, or not one formula.
        """
        arity = []
        for letter in formula:
            of = [a for a in range(3) if letter in self.letters[a]]
            if not of:
                raise ValueError(f"formula: {letter!r} is not in {''.join(self.letters)}")
            arity.append(of[0])
        shapes = templates(len(formula))
        place = next((i for i, t in enumerate(shapes) if t.arity == tuple(arity)), None)
        if place is None:
            raise ValueError(f"formula: {formula!r} is not one formula")
        before = self.count(len(formula) - 1) + sum(self.size(t) for t in shapes[:place])
        weight, within = 1, 0
        for letter, a in zip(formula, arity, strict=True):
            within += weight * self.letters[a].index(letter)
            weight *= len(self.letters[a])
        return before + within + 1
