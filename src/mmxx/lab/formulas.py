"""The formulas of a card's prose as a terminal can show them."""

from __future__ import annotations

import re

# What a formula stands between follows pandoc: no blank inside the dollars, no digit after.
FORMULA = re.compile(r"\$(?=\S)([^$\n]{0,500}?\S)\$(?!\d)")

_GREEK = dict(
    zip(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
        "upsilon phi chi psi omega".split(),
        "αβγδεζηθικλμνξπρστυφχψω",
        strict=True,
    )
)
_SYMBOLS = {
    **_GREEK,
    **{name.capitalize(): letter.upper() for name, letter in _GREEK.items()},
    **{name: name for name in "sin cos tan exp log max min".split()},
    "sqrt": "√",
    "pm": "±",
    "cdot": "·",
    "times": "×",
    "in": "∈",
    "nabla": "∇",
    "sum": "Σ",
    "le": "≤",
    "ge": "≥",
    "ne": "≠",
    "approx": "≈",
    "infty": "∞",
    "to": "→",
    "partial": "∂",
}


def plain(text: str) -> str:
    """Text with its ``$...$`` formulas in letters and signs.

    A formula that uses more of LaTeX than cards do stays as it was written.

    Example:
        >>> plain(r"Steps fall as $1/\\sqrt m$, $\\sin(\\omega_0 x)$ stays, and $e_{k+1}$ too.")
        'Steps fall as 1/√m, sin(ω_0 x) stays, and e_(k+1) too.'
    """
    return FORMULA.sub(lambda match: _readable(match[1]) or match[0], text)


def _readable(latex: str) -> str | None:
    found = latex.replace(r"\,", " ")
    found = re.sub(r"\\tilde ?(\w)", "\\1\u0303", found)
    found = re.sub(r"\\sqrt ?(\w)", r"√\1", found)
    found = re.sub(r"\\([a-zA-Z]+)", lambda m: _SYMBOLS.get(m[1], m[0]), found)
    found = re.sub(r"\{(-?\w+)\}", r"\1", found)
    found = found.replace("{", "(").replace("}", ")")
    return None if "\\" in found else found
