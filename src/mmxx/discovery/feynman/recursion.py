"""Recursion over modules: a network shows how a function is made, and smaller tables are solved."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmxx.discovery.feynman import additivity, modularity
from mmxx.discovery.feynman.bits import PRECISION, rms
from mmxx.discovery.feynman.expression import Expr, var
from mmxx.discovery.feynman.levenberg import TanhNetwork, fit_tanh
from mmxx.discovery.feynman.modularity import Module
from mmxx.discovery.feynman.snap import MOST_NUMBERS, refine
from mmxx.discovery.feynman.solve import EXACT, PLAN, PLAN_OF_ONE, Frontier, Watch, search

if TYPE_CHECKING:
    from mmxx.discovery.feynman.network import Network

Array = NDArray[np.float64]
# Times the network's error that a module may err (ours). A true pair or formula differs by the
# errors of two values, a true split by those of four; more would let through what is only near.
_ACCEPT_SPLIT = 4.0
_ACCEPT = 3.0
_ACCURATE = 0.1  # a network worse than this, in units of y's root mean square, shows nothing
_SIGNAL = 0.5  # decimal orders of magnitude that a generalised symmetry must stand out
_ADDITIVE = 0.1  # how far slopes may be from those of a sum; the formula is verified
_BRANCHES = 2  # modules of the first table that are tried
_DEEPEST = 3
_PAIRED = 4  # formulas of each part that are combined
_OWN_STEPS = 10  # of Adam and L-BFGS, for one of Levenberg and Marquardt
_LOOSE = 1.0  # bits by which such a formula may be worse than the best of its part


@dataclass
class Node:
    """What was done with a table: a tree, printed by ``str``.

    Attributes:
        names: Of the table's variables.
        module: How it was taken apart, or None.
        network_error: Error of its network in units of y's root mean square; NaN without one.
        children: The smaller tables.
    """

    names: tuple[str, ...]
    module: Module | None = None
    network_error: float = math.nan
    children: list[Node] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The variables, and how they were taken apart."""
        made = ""
        if self.module is not None:
            part = ", ".join(self.names[k] for k in self.module.columns)
            made = f": {self.module.kind} of {part} (error {self.module.error:.2g})"
        return f"f({', '.join(self.names)}){made}"

    def __str__(self) -> str:
        lines = [self.title]
        for child in self.children:
            lines += ["  " + line for line in str(child).splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Settings:
    """What the recursion needs to know; see `AIFeynmanRegressor`.

    Attributes:
        floor: Bits of error that noise leaves.
        network: Whether there is one; or a module for the first table.
        searched: Whether the first table was searched already.
        until: Seconds that are left.
        watch: Called with the frontier of the whole table whenever it may have changed.
        memo: What was found for each table that was solved.
    """

    max_formulas: int
    max_iter: int
    seed: int
    operators: Any = "14ops"
    nu: float = 0.5
    degree: int = 4
    transforms: bool = True
    modules: tuple[str, ...] = modularity.KINDS
    floor: float = 0.0
    network: Any = True
    searched: bool = False
    until: Callable[[], float | None] = lambda: None
    map: Callable[..., Any] = builtins.map
    watch: Watch = lambda frontier: None
    memo: dict[bytes, list[Expr]] = field(default_factory=dict)


def solve(
    frontier: Frontier,
    X: Array,
    y: Array,
    names: tuple[str, ...],
    settings: Settings,
    restore: Callable[[Expr], Expr] = lambda expr: expr,
    depth: int = 0,
) -> Node:
    """Search a table; where that is not enough, take it apart and search the parts.

    Args:
        frontier: Judges every formula on the original table.
        X: [rows, columns].
        y: [rows].
        names: Of the columns.
        settings: Of the search.
        restore: From a formula of this table to one of the original.
        depth: Of the recursion.
    """
    key, order = _key(X, y)
    known = settings.memo.get(key)
    if known is not None:  # two ways of taking a table apart may meet in a smaller one
        for expr in known:
            frontier.add(restore(expr.substitute([var(k) for k in order])), "known from before")
        frontier.polish()
        return Node(names)
    found: list[Expr] = settings.memo.setdefault(key, [])
    places = np.argsort(order)

    def noted(expr: Expr) -> Expr:
        found.append(expr.substitute([var(int(k)) for k in places]))
        return restore(expr)

    alone = depth > 0 and X.shape[1] == 1  # a part that is soon searched
    halves = 0 if alone else depth
    share = max(1, settings.max_formulas // 2**halves) if settings.max_formulas else 0
    if depth or not settings.searched:
        search(
            frontier, X, y, max_formulas=share, operators=settings.operators, nu=settings.nu,
            degree=settings.degree, transforms=settings.transforms,
            plan=PLAN_OF_ONE if alone else PLAN, restore=noted,
            until=settings.until, map=settings.map, watch=settings.watch,
        )  # fmt: skip
    node = Node(names)
    enough = max(EXACT, settings.floor + 1)
    if not settings.network or X.shape[1] < 2 or depth == _DEEPEST or settings.max_iter < 1:
        return node
    if frontier.best_bits < enough or settings.until() == 0:
        return node
    net = _network(X, y, settings, depth)
    node.network_error = net.error / rms(y)
    if node.network_error > _ACCURATE:
        return node
    best = math.inf
    for module in itertools.islice(
        find_modules(net, X, y, settings), _BRANCHES if not depth else 1
    ):
        if module.inner is not None:
            smaller, rename, back = _replaced(X, names, module)
            children = [
                solve(
                    frontier, smaller, y, rename, settings,
                    lambda e, back=back: noted(back(e)), depth + 1,
                )
            ]  # fmt: skip
        else:
            children = _apart(frontier, net, X, y, names, module, settings, noted, depth)
        frontier.polish()
        if frontier.best_bits < best:
            best, node.module, node.children = frontier.best_bits, module, children
        settings.watch(frontier)
        if best < enough or settings.until() == 0:
            break
    return node


def _key(X: Array, y: Array) -> tuple[bytes, list[int]]:
    """A hash of a table, whatever the order of its columns, and the order that it stands for."""
    hashes = [sha256(np.ascontiguousarray(column).tobytes()).digest() for column in X.T]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    whole = b"".join([*(hashes[k] for k in order), np.ascontiguousarray(y).tobytes()])
    return sha256(whole).digest(), order


def _network(X: Array, y: Array, settings: Settings, depth: int) -> Network | TanhNetwork:
    """One of the user's for the whole table, else our own."""
    if depth or settings.network is True:
        return fit_tanh(X, y, steps=settings.max_iter, seed=settings.seed)
    from mmxx.discovery.feynman.network import train

    steps = _OWN_STEPS * settings.max_iter
    return train(X, y, steps=steps, seed=settings.seed, module=settings.network)


def find_modules(
    net: Network | TanhNetwork, X: Array, y: Array, settings: Settings
) -> Iterator[Module]:
    """Modules that err no more than the network lets expect; simple ones that err least first.

    What is near cannot be told from what is true where the network is no better, so that more
    than one is worth trying.
    """
    rng = np.random.default_rng(settings.seed)
    error = max(net.error / rms(y), 1e-6)
    candidates: list[tuple[float, Module]] = []
    if "symmetry" in settings.modules:
        found = modularity.symmetries(net, X, y)
        candidates += [(module.error / (_ACCEPT * error), module) for module in found]
    if "separability" in settings.modules:
        found = modularity.separability(net, X, y)
        candidates += [(module.error / (_ACCEPT_SPLIT * error), module) for module in found]
    good = [pair for pair in candidates if pair[0] < 1]
    for _, module in sorted(good, key=lambda pair: pair[0]):
        yield module
    budget = max(1000, settings.max_formulas // 10)
    tries: list[tuple[int, ...]] = []
    if X.shape[1] > 2 and {"generalized", "additivity"} & set(settings.modules):
        found = modularity.generalized_symmetries(net, X, rng, anchors=100, samples=30)
        tries += [module.columns for module in found[:2] if module.signal > _SIGNAL]
    pairs = [part for part in tries if len(part) == 2] if X.shape[1] > 2 else [(0, 1)]
    if "generalized" not in settings.modules:
        tries = []
    if "composition" in settings.modules:
        tries.append(tuple(range(X.shape[1])))
    for part in tries:
        module = modularity.compositionality(
            net, X, y, part, rng, max_formulas=budget, largest_error=_ACCEPT * error
        )
        if module is not None and module.inner is not None and module.inner.op != "var":
            yield module
    for i, j in pairs if "additivity" in settings.modules else []:
        if additivity.generalized_additivity(net, X, i, j) < _ADDITIVE:
            module = additivity.additive(
                net,
                X,
                y,
                i,
                j,
                rng,
                operators=settings.operators,
                largest_error=_ACCEPT * error,
            )
            if module is not None:
                yield module


def _replaced(
    X: Array, names: tuple[str, ...], module: Module
) -> tuple[Array, tuple[str, ...], Callable[[Expr], Expr]]:
    """The table with the module's formula in the place of its variables."""
    assert module.inner is not None
    inner = module.inner
    others = [k for k in range(X.shape[1]) if k not in module.columns]
    table = np.column_stack([inner.evaluate(X), X[:, others]])
    rename = (f"({inner.text(names)})", *(names[k] for k in others))
    replacements = [inner, *(var(k) for k in others)]
    return table, rename, lambda expr: expr.substitute(replacements)


def _apart(
    frontier: Frontier, net: Network | TanhNetwork, X: Array, y: Array, names: tuple[str, ...],
    module: Module, settings: Settings, restore: Callable[[Expr], Expr], depth: int,
) -> list[Node]:  # fmt: skip
    """Solve both parts of a sum or product, and combine their formulas."""
    part = list(module.columns)
    others = [k for k in range(X.shape[1]) if k not in part]
    first, second, centre = modularity.parts(net, X, part)
    # what of a product passes through 0 cannot be divided by
    second = second - centre if module.kind == "sum" else second / (centre or 1.0)
    found, nodes = [], []
    noise = net.error / rms(y) / PRECISION
    settings = replace(
        settings, floor=max(settings.floor, math.log2(1 + noise)), watch=lambda frontier: None
    )
    for columns, target in ((part, first), (others, second)):
        table = X[:, columns]
        own = Frontier(table, target, frontier.kind)
        nodes.append(
            solve(own, table, target, tuple(names[k] for k in columns), settings, depth=depth + 1)
        )
        replacements = [var(k) for k in columns]
        # the part's values err as the network does: what is longer follows its errors
        good = [f for f in own if f.error_bits <= own.best_bits + _LOOSE]
        found.append([f.expr.substitute(replacements) for f in good[:_PAIRED]])
    for a in found[0]:
        for b in found[1]:
            both = restore(a + b if module.kind == "sum" else a * b)
            frontier.add(both, f"{module.kind} of two parts")
            if len(both.numbers()) <= MOST_NUMBERS:
                refined = refine(both, frontier.X, frontier.y, weights=frontier.weights)
                frontier.add(refined, f"{module.kind} of two parts")
    return nodes
