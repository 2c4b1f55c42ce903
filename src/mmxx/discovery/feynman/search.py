"""Brute force: formulas in order of length, as postfix strings over an alphabet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmxx.discovery.feynman import _gradient, _sweep
from mmxx.discovery.feynman.alphabet import Alphabet, Template, templates
from mmxx.discovery.feynman.bits import PRECISION, Pareto, rms
from mmxx.discovery.feynman.expression import Expr, num

Array = NDArray[np.float64]
Map = Callable[..., Iterable[Any]]

MODES = {"*": _sweep.TIMES, "+": _sweep.PLUS, "none": _sweep.PLAIN, "gradient": _sweep.GRADIENT}
_ASKED = 5  # rows that the first guess of a constant is taken from
_LONGEST = 14  # symbols: beyond what any machine reaches
_SLICE = 200_000  # formulas between two looks at the clock
_PART = 400_000  # formulas of a part that a worker gets, some 50 ms
_AT_ONCE = 8  # parts that are compared with the same best; a round is three million formulas
_NEVER = 1e6  # a nu beyond which nothing is rejected


@dataclass(frozen=True)
class Cursor:
    """Where a sweep stands: what to hand in to go on, and what its test remembers.

    Attributes:
        length, template, index: The next formula.
        best, sigma: Mean bits of the best so far, and their deviation.
        worst: Bits of the least largest error so far; 0 where it is not followed.
        seen: Formulas so far.
    """

    length: int = 1
    template: int = 0
    index: int = 0
    best: float = math.inf
    sigma: float = 0.0
    worst: float = 0.0
    seen: int = 0


@dataclass(frozen=True)
class Hit:
    """A formula that was better than all before it.

    Attributes:
        rpn: The postfix string.
        rank: Its place in the authors' order.
        bits: Mean bits of its error on all rows.
        constant: c of y = c f, or of y = f + c; 1 where none is fitted.
        largest: Bits of its largest error.
        mode: "*", "+", "none" or "gradient".
    """

    rpn: str
    rank: int
    bits: float
    constant: float
    largest: float
    mode: str

    @property
    def expr(self) -> Expr:
        """The formula with its constant."""
        core = Expr.from_rpn(self.rpn)
        if self.mode == "*":
            return num(self.constant) * core
        return core + self.constant if self.mode == "+" else core


@dataclass
class Sweep:
    """What a sweep found.

    Attributes:
        hits: Each formula that became the best by mean bits, or by its largest error.
        cursor: Where to go on.
        exact: Whether it ended at an exact formula.
        timed_out: Whether it ended at ``max_seconds``.
    """

    hits: list[Hit] = field(default_factory=list)
    cursor: Cursor = field(default_factory=Cursor)
    exact: bool = False
    timed_out: bool = False

    def add(self, hits: Sequence[tuple[Hit, float]], cursor: Cursor, enough: float) -> None:
        """Add what a part of the sweep found, and where it ended."""
        self.hits += [hit for hit, _ in hits]
        self.cursor = cursor
        self.exact = cursor.best < enough

    @property
    def frontier(self) -> list[Hit]:
        """The hits of which no other is earlier in the order and better."""
        front: Pareto[Hit] = Pareto()
        for hit in self.hits:
            front.add(math.log2(hit.rank), hit.bits, hit)
        return [hit for _, _, hit in front]


def brute_force(
    X: ArrayLike,
    y: ArrayLike,
    operators: str | Sequence[str] = "14ops",
    *,
    mode: str = "*",
    max_formulas: int | None = 1_000_000,
    max_seconds: float | None = None,
    max_length: int | None = None,
    nu: float = 0.5,
    scale: float | None = None,
    enough: float = 1.0,
    largest: bool = False,
    start: Cursor | None = None,
    map: Map | None = None,
    watch: Callable[[list[Hit]], None] | None = None,
) -> Sweep:
    r"""Try all formulas in order of length, each on as few rows as show that it is worse.

    Args:
        X: The variables, [rows, columns].
        y: [rows]; for the mode "gradient" the directions of the gradient, [rows, columns].
        operators: "7ops", "10ops", "14ops", "19ops", or symbols of the authors' alphabet.
        mode: "*" fits y = c f, "+" fits y = f + c, with the median of what each row asks for;
            "none" fits nothing; "gradient" compares directions of gradients, which finds h of
            y = g(h(x)) whatever g is.
        max_formulas: How many to try; None: no limit.
        max_seconds: When to stop; None: no limit.
        max_length: Symbols of the longest formula.
        nu: A formula is rejected after j rows when
            $\sqrt j (\bar b - b_{best}) / \sigma_{best} > \nu$.
        scale: The root mean square of y by which errors are measured; that of y by default.
        enough: Mean bits that end the search.
        largest: Also keep the formulas of least largest error, as the method's 2019 version did.
        start: A cursor of an earlier sweep, to go on from.
        map: What to spread the sweep with, called as ``map(fn, items)``, in parts of 400,000
            formulas, eight at a time, after the first 200,000. All eight begin with the best
            before them, so that the result depends neither on the map nor on its workers; it may
            differ from that without a map, where nothing is forgotten.
        watch: Called with what was found since the last time, as soon as there is something.

    Returns:
        The formulas found, and a cursor.

    Raises:
        ValueError: Unknown symbols or mode, shapes that do not fit, or no limit at all.

    Source: Udrescu et al. (2020), section 2; the order is that of the authors' program.

    Example:
        >>> x = np.linspace(1, 2, 50)[:, None]
        >>> found = brute_force(x, 3 * np.cos(x[:, 0] ** 2))
        >>> found.hits[-1].rpn, round(found.hits[-1].constant, 9)
        ('aa*C', 3.0)
    """
    columns = np.ascontiguousarray(np.asarray(X, np.float64).T)
    target = np.ascontiguousarray(np.asarray(y, np.float64).T)
    _check(columns, target, mode, max_formulas, max_seconds, max_length, nu)
    if mode != "gradient":
        order = spread(target)
        columns, target = np.ascontiguousarray(columns[:, order]), target[order]
    alphabet = Alphabet.make(operators, len(columns))
    unit = 1.0 if mode == "gradient" else rms(target) if scale is None else scale
    longest = min(max_length or _LONGEST, _LONGEST)
    problem = _Problem(alphabet, columns, target, mode, 1 / (unit * PRECISION), nu, enough, longest)
    sweep = Sweep(cursor=start or problem.begin(largest))
    stop = math.inf if max_formulas is None else sweep.cursor.seen + max_formulas
    until = math.inf if max_seconds is None else time.monotonic() + max_seconds
    told = 0
    while sweep.cursor.seen < stop and sweep.cursor.length <= longest and not sweep.exact:
        if time.monotonic() >= until:
            sweep.timed_out = True
            break
        if map is None or sweep.cursor.seen < _SLICE:  # the first ones find much
            sweep.add(*problem.scan(sweep.cursor, stop), enough)
        else:
            _round(problem, sweep, stop, map)
        if watch is not None and len(sweep.hits) > told:
            watch(sweep.hits[told:])
            told = len(sweep.hits)
    return sweep


def _round(problem: _Problem, sweep: Sweep, stop: float, map: Map) -> None:
    """Some parts of a sweep, all against the best before them, merged in their order."""
    before, parts = sweep.cursor, []
    at = before
    while len(parts) < _AT_ONCE and at.seen < stop and at.length <= problem.longest:
        upto = min(at.seen + _PART, stop)
        parts.append(_Part(problem, at, upto))
        at = problem.advanced(at, upto)
    for hits, after in map(_scan_part, parts):
        mine = sweep.cursor
        better = []
        for hit, sigma in hits:
            if hit.bits < mine.best or hit.largest < mine.worst:
                better.append(hit)
                worst = min(mine.worst, hit.largest)
                best = (hit.bits, sigma) if hit.bits < mine.best else (mine.best, mine.sigma)
                mine = replace(mine, best=best[0], sigma=best[1], worst=worst)
        place = replace(after, best=mine.best, sigma=mine.sigma, worst=mine.worst)
        sweep.add([(hit, 0.0) for hit in better], place, problem.enough)
        if sweep.exact:
            return


class _Part(NamedTuple):
    """What a worker gets: a part of a sweep."""

    problem: _Problem
    start: Cursor
    stop: float


def _scan_part(part: _Part) -> tuple[list[tuple[Hit, float]], Cursor]:
    """The hits of a part, each with the deviation of its bits, and where it ended."""
    problem, at, _ = part
    found: list[tuple[Hit, float]] = []
    while at.seen < part.stop and at.length <= problem.longest and at.best >= problem.enough:
        hits, at = problem.scan(at, part.stop)
        found += hits
    return found, at


def as_tree(result: Any) -> Any:
    """What a worker found, as lists and dictionaries that a file can hold."""
    if isinstance(result, list | tuple):
        return [as_tree(part) for part in result]
    return vars(result) if isinstance(result, Hit | Cursor) else result


def from_tree(tree: Any) -> Any:
    """What `as_tree` wrote."""
    if isinstance(tree, list):
        return [from_tree(part) for part in tree]
    if isinstance(tree, dict):
        return Hit(**tree) if "rpn" in tree else Cursor(**tree)
    return tree


def spread(y: Array) -> NDArray[np.int64]:
    """An order of the rows of which every beginning is spread evenly over the values of y.

    Ranks in van der Corput's order (1935): the first rows stand for all, so that fewer of them
    show that a formula is worse. The row of the largest size stands sixth, just after those that
    the constant is taken from: most formulas have their largest error there.
    """
    ranks = np.arange(len(y))
    bits = max(1, int(len(y) - 1).bit_length())
    reverse = sum(((ranks >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
    order = np.argsort(y, kind="stable")[np.argsort(reverse, kind="stable")]
    if len(y) > _ASKED:
        farthest = int(np.argmax(np.abs(y[order])))
        order[[_ASKED, farthest]] = order[[farthest, _ASKED]]
    return order


@dataclass(frozen=True)
class _Problem:
    """What a sweep looks at."""

    alphabet: Alphabet
    columns: Array  # [variables, rows]
    y: Array  # [rows], or [variables, rows] for gradients
    mode: str
    scale: float
    nu: float
    enough: float
    longest: int  # symbols

    @cached_property
    def _leaves(self) -> Array:
        return self.alphabet.leaves(self.columns)

    def begin(self, largest: bool) -> Cursor:
        """The cursor of a new sweep: what is to be beaten is the best constant, or chance."""
        if self.mode == "gradient":
            return Cursor(best=1 - math.log2(PRECISION), sigma=1.0)
        centre = {"*": np.median(self.y), "+": np.median(self.y)}.get(self.mode, 0.0)
        bits = np.log2(np.maximum(np.abs(self.y - centre) * self.scale, 1.0))
        worst = float(bits.max()) if largest else 0.0
        return Cursor(best=float(bits.mean()), sigma=float(bits.std()), worst=worst)

    def advanced(self, cursor: Cursor, seen: float) -> Cursor:
        """The cursor when so many formulas were seen, as if nothing had been found."""
        while cursor.seen < seen and cursor.length <= self.longest:
            size = self.alphabet.size(templates(cursor.length)[cursor.template])
            cursor = self._moved(cursor, int(min(size, cursor.index + seen - cursor.seen)))
        return cursor

    def _moved(self, cursor: Cursor, index: int) -> Cursor:
        """The cursor at an index of its template, or at the next template where that ends."""
        shapes = templates(cursor.length)
        moved = replace(cursor, index=index, seen=cursor.seen + index - cursor.index)
        if index < self.alphabet.size(shapes[cursor.template]):
            return moved
        if cursor.template + 1 < len(shapes):
            return replace(moved, template=cursor.template + 1, index=0)
        return replace(moved, length=cursor.length + 1, template=0, index=0)

    def scan(self, cursor: Cursor, stop: float) -> tuple[list[tuple[Hit, float]], Cursor]:
        """Go on with the cursor's template, for a slice at most.

        Returns:
            The hits, each with the deviation of its bits, and where it stands.
        """
        template = templates(cursor.length)[cursor.template]
        size = self.alphabet.size(template)
        upto = int(min(size, cursor.index + min(_SLICE, stop - cursor.seen)))
        shape = [np.array(part, np.int64) for part in template]
        index, value = np.empty(64, np.int64), np.empty((64, 4))
        test = (self.scale, cursor.index, upto, min(self.nu, _NEVER), cursor.best, cursor.sigma)
        rest = (cursor.worst, self.enough, index, value)
        radix = np.array(self.alphabet.radix(template), np.int64)
        given = (*shape, radix, self.alphabet.table, self._leaves, self.y)
        if self.mode == "gradient":
            first = len(self._leaves) - len(self.columns)
            compare: Any = _gradient.scan
            written, at, best, sigma = compare(*given, first, *test[1:], *rest[1:])
            worst = 0.0
        else:
            fit: Any = _sweep.scan
            written, at, best, sigma, worst = fit(*given, MODES[self.mode], *test, *rest)
        hits = [
            (self._hit(template, int(i), v), float(v[1]))
            for i, v in zip(index[:written], value, strict=False)
        ]
        return hits, self._moved(replace(cursor, best=best, sigma=sigma, worst=worst), int(at))

    def _hit(self, template: Template, index: int, value: Array) -> Hit:
        rpn = self.alphabet.formula(template, index)
        bits, _, constant, largest = map(float, value)
        return Hit(rpn, self.alphabet.rank(rpn), bits, constant, largest, self.mode)


def _check(
    columns: Array,
    y: Array,
    mode: str,
    max_formulas: int | None,
    max_seconds: float | None,
    max_length: int | None,
    nu: float,
) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    shape = columns.shape if mode == "gradient" else columns.shape[1:]
    if columns.ndim != 2 or y.shape != shape or not y.size:
        raise ValueError(
            f"X must be [rows, columns] and y fit it, got {columns.T.shape} and {y.T.shape}"
        )
    if max_formulas is None and max_seconds is None and max_length is None:
        raise ValueError("max_formulas, max_seconds or max_length must be given, got None for all")
    for name, value in (("max_formulas", max_formulas), ("max_length", max_length)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be positive, got {max_seconds}")
    if not nu > 0:
        raise ValueError(f"nu must be positive, got {nu}")
