"""The heterogeneous Newton boosting machine of trees and ridges, round by round."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from mmxx.tabular.snapboost import store
from mmxx.tabular.snapboost.binning import Binner
from mmxx.tabular.snapboost.ensemble import SAMPLE, Ensemble, Learner
from mmxx.tabular.snapboost.fourier import Encoder, Features, Projection, Ridge
from mmxx.tabular.snapboost.losses import CHUNK, Loss
from mmxx.tabular.snapboost.shards import ALONE, Shard
from mmxx.tabular.snapboost.tree import Grower, Map, Rules, add_leaves, add_tree, quantise, unit

Array = NDArray[np.float64]
# Streams of random numbers; each round's rows and columns have one of their own.
_KIND, _DEPTH, _PROJECTION, _BINS, _ROWS, _COLUMNS = range(6)


@dataclass(frozen=True)
class Settings:
    """What a fit is asked for; the names are those of `SnapBoostRegressor`."""

    learning_rate: float = 0.1
    p_tree: float = 0.8
    min_max_depth: int = 1
    max_max_depth: int = 5
    rules: Rules = field(default_factory=Rules)
    max_bins: int = 255
    n_components: int = 100
    gamma: float | str = "scale"
    alpha: float = 1.0
    alpha_scale: str = "mean_hessian"
    fit_intercept: bool = True
    subsample: float = 1.0
    colsample: float = 1.0


@dataclass(frozen=True)
class Rows:
    """Rows with targets.

    Attributes:
        X: float64 [n, d], NaN for missing values, numbers for categories.
        y: float64 [n], targets or numbers of classes.
        w: float64 [n], weights above 0.
    """

    X: Array
    y: Array
    w: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "X", np.ascontiguousarray(self.X))


@njit(cache=True, nogil=True)
def _advance(raw, step, rate, g, h):
    """Add a step to the raw predictions [n]; sums of g b and of h b² for the step b."""
    along, square = 0.0, 0.0
    for i in range(step.size):
        b = step[i]
        raw[i] += rate * b
        along += g[i] * b
        square += h[i] * b * b
    return along, square


class Machine:
    """Boosting one round at a time: call `step` as often as rounds are wanted.

    Args:
        settings: What is asked for.
        loss: The loss.
        rows: What to learn from.
        codes: int64 [d], the number of categories of a categorical column, else -1.
        kinds: int8 [d], as `Grower` takes them.
        seed: Of all random draws. Each thing that is drawn has its own stream, so that none
            depends on another, on the number of threads, or on the validation rows.
        ensemble: Learners to continue from.
        base: Where to begin, [classes, 1].
        validation: Rows to measure the loss on after each round.
        threads: How many tasks to make of large work.
        map: What to spread them with.
        shard: Where rows are shared among machines, which of them this is.
        reference: Rows of all machines, of which bins and scales are measured; by default the
            rows.

    Attributes:
        ensemble: The learners so far.
        train_loss, validation_loss: Mean loss after each round, from 0 rounds on; the latter is
            empty without validation rows.
        cosine: For each round the squared cosine of the angle, in the norm of the curvatures,
            between Newton's direction -g/h and the learner.
        ridge_gain: What ridge rounds took off twice the objective, as a quadratic sees it.
    """

    def __init__(
        self,
        settings: Settings,
        loss: Loss,
        rows: Rows,
        *,
        codes: NDArray[np.int64],
        kinds: NDArray[np.int8],
        seed: int,
        base: Array,
        ensemble: Ensemble | None = None,
        validation: Rows | None = None,
        threads: int = 1,
        map: Map = map,
        shard: Shard = ALONE,
        reference: Rows | None = None,
    ) -> None:
        self._settings, self._loss, self._rows, self._validation = settings, loss, rows, validation
        self._codes, self._kinds, self._seed = codes, kinds, seed
        self._threads, self._map = threads, map
        self._shard, self._reference = shard, reference or rows
        (self._mass,) = shard.total(float(rows.w.sum()))
        self._grower: Grower | None = None
        self._ridge: tuple[Features, Ridge] | None = None
        self._draws: list[tuple[float, float]] = []
        self.ensemble = ensemble or Ensemble(base, settings.learning_rate)
        if self.ensemble.encoder is None and settings.p_tree < 1:
            self.ensemble.encoder, self.ensemble.projection = self._projection()
        self._phi_validation: Any = None
        if validation is not None and settings.p_tree < 1:
            self._phi_validation = self.ensemble.features(validation.X)
        self.train_loss: list[float] = []
        self.validation_loss: list[float] = []
        self.cosine: list[float] = []
        self.ridge_gain = 0.0
        self._begin()

    @property
    def rounds(self) -> int:
        """Rounds so far."""
        return len(self.ensemble.learners) // self.ensemble.classes

    def _begin(self) -> None:
        """Compute the predictions of the learners that there are, as their rounds left them."""
        shape = self.ensemble.classes, len(self._rows.y)
        starts = range(0, shape[1], CHUNK)
        self._chunks = [slice(start, min(start + CHUNK, shape[1])) for start in starts]
        self._raw = np.repeat(self.ensemble.base, shape[1], axis=1)
        self._g, self._h = np.empty(shape), np.empty(shape)
        self._gh = np.empty((shape[1], 2), np.int64)
        self._all_rows = np.arange(shape[1], dtype=np.int32)
        raw = self.ensemble.base
        if self._validation is not None:
            raw = np.repeat(raw, len(self._validation.y), axis=1)
            self._scratch = np.empty_like(raw), np.empty_like(raw)
        self._raw_validation = raw
        for number in range(self.rounds):
            for one in self.ensemble.of_round(number):
                step = np.zeros(shape[1])
                if one.tree is not None:
                    add_tree(step, self._rows.X, one.tree)
                elif one.coef is not None:
                    self._features()[0].add_product(one.coef, step)
                self._raw[one.klass] += self.ensemble.rate * step
            self._advance_validation(number)
        self._evaluate()

    # -- what is drawn -------------------------------------------------------------------------

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=stream))

    def _draw(self, number: int) -> tuple[bool, int]:
        """Whether a round grows trees, and how deep at most."""
        if number >= len(self._draws):
            count = max(128, 2 * number)
            drawn = [self._rng(stream).random(count).tolist() for stream in (_KIND, _DEPTH)]
            self._draws = list(zip(*drawn, strict=True))
        kind, depth = self._draws[number]
        least, most = self._settings.min_max_depth, self._settings.max_max_depth
        return kind < self._settings.p_tree, least + int(depth * (most - least + 1))

    def _drawn_rows(self, number: int) -> NDArray[np.int32]:
        if self._settings.subsample == 1:
            return self._all_rows.copy()
        machine = (self._shard.rank,) if self._shard.machines > 1 else ()
        rng = self._rng(_ROWS, number, *machine)
        return self._some(rng, len(self._rows.y), self._settings.subsample)

    def _some(self, rng: np.random.Generator, count: int, share: float) -> NDArray[np.int32]:
        size = max(1, round(share * count))
        return np.sort(rng.choice(count, size, replace=False, shuffle=False)).astype(np.int32)

    # -- the two kinds of learners -------------------------------------------------------------

    def _trees(self) -> Grower:
        if self._grower is None:
            rows, weights = self._rows, self._reference.w
            binner = Binner.of(
                self._reference.X, None if (weights == weights[0]).all() else weights,
                max_bins=self._settings.max_bins, codes=self._codes, rng=self._rng(_BINS),
                map=self._map,
            )  # fmt: skip
            parts = self._map(binner, np.array_split(rows.X, self._threads))
            self._grower = Grower(
                np.concatenate(list(parts)), binner, self._kinds, self._settings.rules,
                threads=self._threads, map=self._map, allreduce=self._shard.reduce,
            )  # fmt: skip
        return self._grower

    def _projection(self) -> tuple[Encoder, Projection]:
        encoder = Encoder.of(self._reference.X, self._reference.w, self._codes)
        gamma = self._settings.gamma
        gamma = 1 / encoder.variance if isinstance(gamma, str) else gamma
        rng = self._rng(_PROJECTION)
        width = len(encoder.origins)
        return encoder, Projection.draw(width, self._settings.n_components, gamma, rng)

    def ridge_rows(self) -> Array:
        """The rows that ridge rounds learn from: float64 [n, d]."""
        return self._rows.X

    def _features(self) -> tuple[Features, Ridge]:
        if self._ridge is None:
            encoder, projection = self.ensemble.encoder, self.ensemble.projection
            assert encoder is not None
            assert projection is not None
            features = Features(self.ridge_rows(), encoder, projection, self._map)
            ridge = Ridge(
                features, self._settings.alpha,
                relative=self._settings.alpha_scale == "mean_hessian",
                fit_intercept=self._settings.fit_intercept, allreduce=self._shard.reduce,
            )  # fmt: skip
            self._ridge = features, ridge
        return self._ridge

    def _grow(
        self,
        klass: int,
        depth: int,
        rows: NDArray[np.int32],
        columns: NDArray[np.int32],
        step: Array,
    ) -> Learner:
        """Grow a tree, and write what it predicts into ``step``."""
        units = unit(self._size), unit(self._weight)
        g, h = self._g[klass], self._h[klass]
        list(self._map(lambda k: quantise(g[k], h[k], *units, self._gh[k]), self._chunks))
        tree, segments = self._trees().grow(self._gh, units, rows, columns, depth)
        if rows.size < step.size:
            add_tree(step, self._rows.X, tree)
        elif self._threads == 1:
            add_leaves(step, rows, tree.nodes, segments)
        else:
            even = rows.size * np.arange(1, self._threads) // self._threads
            cuts = np.searchsorted(segments[:, 0], even)
            parts = (np.split(of, cuts) for of in (tree.nodes, segments))
            list(self._map(partial(add_leaves, step, rows), *parts))
        return Learner(self.rounds, "tree", klass, depth, tree)

    @property
    def _is_same(self) -> bool:
        """Whether all ridge rounds have the same curvatures and rows."""
        return self._loss.constant and self._settings.subsample == 1

    def _regress(self, klass: int, rows: NDArray[np.int32], step: Array) -> Learner:
        """Solve a ridge regression, and write what it predicts into ``step``."""
        features, ridge = self._features()
        g, h, mass = self._g[klass], self._h[klass], self._mass
        if rows.size < step.size:
            chosen = np.zeros(step.size)
            chosen[rows] = 1.0
            g, h = g * chosen, h * chosen
            (mass,) = self._shard.total(float(self._rows.w[rows].sum()))
        if self._shard.total(float(h.sum()))[0] < self._settings.rules.min_child_weight:
            # as in a tree's leaf: where all are certain, Newton's step has no bound
            return Learner(self.rounds, "ridge", klass, coef=np.zeros(features.width + 1))
        coef = ridge.solve(g, h, mass, same=self._is_same)
        features.add_product(coef, step)
        return Learner(self.rounds, "ridge", klass, coef=coef)

    # -- the loop ------------------------------------------------------------------------------

    def step(self) -> None:
        """One round: draw the kind of learner, fit one for each class, and add them."""
        number = self.rounds
        is_tree, depth = self._draw(number)
        columns = np.arange(self._rows.X.shape[1], dtype=np.int32)
        if self._settings.colsample < 1:
            rng = self._rng(_COLUMNS, number)
            columns = self._some(rng, columns.size, self._settings.colsample)
        found, along, square = [], 0.0, 0.0
        for klass in range(self.ensemble.classes):
            rows, step = self._drawn_rows(number), np.zeros(len(self._rows.y))
            if is_tree:
                found.append(self._grow(klass, depth, rows, columns, step))
            else:
                found.append(self._regress(klass, rows, step))
            g, h = self._g[klass], self._h[klass]
            sums = self._map(
                lambda part, raw=self._raw[klass], step=step, g=g, h=h: _advance(
                    raw[part], step[part], self.ensemble.rate, g[part], h[part]
                ),
                self._chunks,
            )
            for one, other in sums:
                along, square = along + one, square + other
        along, square = self._shard.total(along, square)
        self.ensemble.learners += found
        if not is_tree:
            self.ridge_gain += square
        newton = self._square * square
        self.cosine.append(along * along / newton if newton > 0 else 0.0)
        self._advance_validation(number)
        self._evaluate()

    def _evaluate(self) -> None:
        """The loss of the present predictions, and the gradients of the next round."""
        rows = self._rows
        sums = self._map(
            lambda part: self._loss.evaluate(
                rows.y, rows.w, self._raw, self._g, self._h, part.start, part.stop
            ),
            self._chunks,
        )
        value, self._size, self._weight, self._square = self._shard.total(
            *(float(sum(column)) for column in zip(*sums, strict=True))
        )
        self.train_loss.append(value / self._mass)
        if self._validation is not None:
            rows = self._validation
            found = self._loss.evaluate(
                rows.y, rows.w, self._raw_validation, *self._scratch, 0, len(rows.y)
            )
            value, mass = self._shard.total(found[0], float(rows.w.sum()))
            self.validation_loss.append(value / mass)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the learners and what was measured; the rest follows.

        Ridges whose curvatures never change keep their factorisation, which takes longest.
        """
        return {
            "factor": self._ridge[1].factor if self._ridge and self._is_same else None,
            "ensemble": store.pack(self.ensemble),
            "train_loss": list(self.train_loss),
            "validation_loss": list(self.validation_loss),
            "cosine": list(self.cosine),
            "ridge_gain": self.ridge_gain,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state: the next rounds have the bits of a machine that never stopped."""
        self.ensemble = store.unpack(state["ensemble"], self._rows.X.shape[1])
        self._begin()
        if state.get("factor") is not None:
            self._features()[1].factor = np.asfortranarray(state["factor"])
        self.train_loss = list(state["train_loss"])
        self.validation_loss = list(state["validation_loss"])
        self.cosine = list(state["cosine"])
        self.ridge_gain = state["ridge_gain"]

    def sample(self) -> NDArray[np.float32] | None:
        """Some encoded rows, at which slopes of ridge rounds are measured."""
        encoder = self.ensemble.encoder
        return None if encoder is None else encoder(self._reference.X[:SAMPLE])

    def _advance_validation(self, number: int) -> None:
        if self._validation is not None:
            learners = self.ensemble.of_round(number)
            X = self._validation.X
            self.ensemble.advance(self._raw_validation, X, self._phi_validation, learners)
