"""scikit-learn faces: a learning algorithm is evolved for the data, and then learns from them."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mmxx.discovery.automl_zero.evaluation import train
from mmxx.discovery.automl_zero.library import LINEAR, NEURAL_NET
from mmxx.discovery.automl_zero.ops import OPS
from mmxx.discovery.automl_zero.program import Program
from mmxx.discovery.automl_zero.results import SearchResult
from mmxx.discovery.automl_zero.search import RegularizedEvolution
from mmxx.discovery.automl_zero.space import FEC, SearchSpace
from mmxx.discovery.automl_zero.tasks import MOST_FEATURES, Task

#: What finds a program, called as `RegularizedEvolution.run` is.
Search = Callable[..., SearchResult]
_STARTS = {"neural_net": NEURAL_NET, "linear": LINEAR}
_LARGE = 4.0  # standard deviations: features beyond are cut, so that gradients stay bounded
_CANDIDATES, _LEAST_ROWS = 10, 20


class _Evolved(BaseEstimator):
    """What both estimators do."""

    n_features_in_: int
    _loss = "rms"

    def __init__(
        self,
        *,
        program: str | Program = "evolve",
        initial: str = "best",
        n_components: int = 16,
        n_projections: int = 1,
        epochs: int = 10,
        max_train_steps: int = 20_000_000,
        population_size: int = 100,
        tournament_size: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.program = program
        self.initial = initial
        self.n_components = n_components
        self.n_projections = n_projections
        self.epochs = epochs
        self.max_train_steps = max_train_steps
        self.population_size = population_size
        self.tournament_size = tournament_size
        self.random_state = random_state

    def _check_parameters(self) -> None:
        if not isinstance(self.program, Program) and self.program != "evolve":
            raise ValueError(f"program must be 'evolve' or a Program, got {self.program!r}")
        if self.initial not in ("best", *_STARTS):
            raise ValueError(
                f"initial must be 'best', 'neural_net' or 'linear', got {self.initial!r}"
            )
        for name in (
            "n_components", "n_projections", "epochs", "max_train_steps", "population_size",
            "tournament_size",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.n_components > MOST_FEATURES:
            raise ValueError(
                f"n_components must be {MOST_FEATURES} at most, got {self.n_components}"
            )

    # -- features ------------------------------------------------------------------------------

    def _fit_features(self, X: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Standardise, and project where there are more than 64 columns; a table a projection."""
        self._mean, self._scale = X.mean(0), _deviation(X)
        wide = X.shape[1] > MOST_FEATURES
        shape = (X.shape[1], self.n_components)
        count = self.n_projections if wide else 1
        self._matrices = [rng.standard_normal(shape) for _ in range(count)] if wide else [None]
        self._frames: list[tuple[Any, Any]] = []
        for matrix in self._matrices:
            z = self._standard(X) if matrix is None else self._standard(X) @ matrix
            self._frames.append((z.mean(0), _deviation(z)))
        return self._features(X)

    def _standard(self, X: np.ndarray) -> np.ndarray:
        return (X - self._mean) / self._scale

    def _features(self, X: np.ndarray) -> list[np.ndarray]:
        found = []
        for matrix, (mean, scale) in zip(self._matrices, self._frames, strict=True):
            z = self._standard(X) if matrix is None else self._standard(X) @ matrix
            found.append(np.clip((z - mean) / scale, -_LARGE, _LARGE))
        return found

    # -- fitting -------------------------------------------------------------------------------

    def _fit(self, X: np.ndarray, targets: np.ndarray, search: Search) -> None:
        """Choose or evolve the program, and show it all rows; targets [n, columns]."""
        random = check_random_state(self.random_state)
        rng = np.random.default_rng(random.randint(2**31 - 1))
        tables = self._fit_features(X, rng)
        self._seed = int(rng.integers(2**31))
        order = rng.permutation(len(X))
        self.search_: SearchResult | None = None
        if isinstance(self.program, Program):
            self.program_ = self.program
        else:
            self.program_ = self._evolved([z[order] for z in tables], targets[order], search)
        self._trained = [
            train(
                self.program_, z[order], targets[order], loss=self._loss, epochs=self.epochs,
                random_state=self._seed,
            )
            for z in tables
        ]  # fmt: skip

    def _evolved(self, tables: list[np.ndarray], targets: np.ndarray, search: Search) -> Program:
        """The start, or what evolution made of it, whichever does better on rows held out.

        Half of the rows are shown and a quarter validates in the search. Its finds are chosen among
        on the last quarter, trained and asked as they will be in use.
        """
        head, split = len(targets) // 2, len(targets) - len(targets) // 4
        starts = list(_STARTS.values()) if self.initial == "best" else [_STARTS[self.initial]]
        tasks = [
            task
            for z in tables
            for column in targets.T
            if (task := self._task(z[:split], column[:split], head))
        ]
        if not tasks or len(targets) < _LEAST_ROWS:
            return starts[-1]  # too little to judge by
        start = max(starts, key=lambda program: self._held_out(program, tables, targets, split))
        ops = tuple(op.name for op in OPS)
        sizes = [len(part) for part in start.parts]
        shown = len(tasks[0].y_valid)
        evolution = RegularizedEvolution(
            SearchSpace(
                scalars=8, vectors=12, matrices=3, setup_ops=ops, predict_ops=ops, learn_ops=ops,
                sizes=(sizes[0], sizes[1], sizes[2]), size_min=(1, 1, 1), size_max=(22, 22, 46),
            ),
            population_size=self.population_size,
            tournament_size=min(self.tournament_size, self.population_size),
            mutations=("insert", "remove", "randomize_component", "alter"),
            initial=start,
            fec=FEC(train=min(10, head), valid=min(10, shown)),
        )  # fmt: skip
        self.search_ = search(
            evolution, tasks, max_train_steps=self.max_train_steps, target_fitness=1.0,
            random_state=self._seed,
        )  # fmt: skip
        finds = [start, *(step.program for step in self.search_.history[-_CANDIDATES:])]
        return max(finds, key=lambda program: self._held_out(program, tables, targets, split))

    def _held_out(
        self, program: Program, tables: list[np.ndarray], targets: np.ndarray, split: int
    ) -> float:
        """How well a program that has seen the rows before ``split`` does on those after."""
        said = [
            train(
                program, z[:split], targets[:split], loss=self._loss, epochs=self.epochs,
                random_state=self._seed,
            ).predict(z[split:], self._seed)
            for z in tables
        ]  # fmt: skip
        return self._merit(_finite(said), targets[split:])

    def _task(self, z: np.ndarray, column: np.ndarray, head: int) -> Task | None:
        if (column[:head] == column[0]).all():
            return None
        loss = "accuracy" if self._loss == "accuracy" else "rms"
        return Task(z[:head], column[:head], z[head:], column[head:], loss, self.epochs)

    def _checked(self, X: Any, y: Any, **rules: Any) -> tuple[np.ndarray, np.ndarray]:
        """Rows float64 [n, columns] and y [n], as scikit-learn checks them."""
        checked = validate_data(self, X, y, dtype=cast("Any", np.float64), **rules)
        return cast("tuple[np.ndarray, np.ndarray]", checked)

    def _say(self, X: ArrayLike) -> np.ndarray:
        """``s1`` for every row and column, the mean over projections, [n, columns]."""
        check_is_fitted(self, "program_")
        checked = validate_data(self, cast("Any", X), reset=False, dtype=cast("Any", np.float64))
        rows = cast("np.ndarray", checked)
        said = [
            trained.predict(z, self._seed)
            for trained, z in zip(self._trained, self._features(rows), strict=True)
        ]
        return _finite(said)

    def _merit(self, said: np.ndarray, targets: np.ndarray) -> float:
        """Larger is better; predictions and targets [n, columns]."""
        with np.errstate(over="ignore"):  # of a program whose predictions grow without bound
            return -float(np.square(said - targets).mean())


def _finite(said: list[np.ndarray]) -> np.ndarray:
    return np.mean(np.nan_to_num(said, nan=0.0, posinf=1e6, neginf=-1e6), axis=0)


def _deviation(z: np.ndarray) -> np.ndarray:
    deviation = z.std(0)
    return np.where(deviation > 1e-12 * (1 + abs(z.mean(0))), deviation, 1.0)


class AutoMLZeroClassifier(ClassifierMixin, _Evolved):
    """A classifier whose learning algorithm is evolved for the data.

    Evolution starts from a hand-written algorithm and is judged on a quarter of the shuffled rows;
    of its finds and the start, that stays which does best on another quarter, held out. More than
    two classes are told apart one against the rest, by one program.

    Args:
        program: "evolve", or a `Program` to use as it is.
        initial: Where evolution begins: "neural_net", "linear", or "best" of the two on validation.
        n_components: Dimension that more than 64 features are projected to, by random matrices.
        n_projections: How many such projections; predictions are averaged.
        epochs: Times that the rows are shown.
        max_train_steps: Budget of evolution: examples shown, summed over tasks.
        population_size: Individuals.
        tournament_size: How many are drawn for each birth.
        random_state: Seed or RandomState.

    Attributes:
        program_: The program that was chosen.
        search_: The `SearchResult`, or None where nothing was evolved.
        classes_: The classes.
        n_features_in_: Columns seen in fit.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = AutoMLZeroClassifier(max_train_steps=100_000, random_state=0).fit(X, y)
        >>> model.score(X, y) > 0.8
        True

    Source: Real et al. (2020), section 4.2.
    """

    _loss = "accuracy"

    def _merit(self, said: np.ndarray, targets: np.ndarray) -> float:
        if said.shape[1] == 1:
            return float(((said > 0) == (targets > 0.5)).mean())
        return float((said.argmax(1) == targets.argmax(1)).mean())

    def fit(self, X: ArrayLike, y: ArrayLike, *, search: Search = RegularizedEvolution.run) -> Self:
        """Evolve and train.

        Args:
            X: Features, [n, columns].
            y: Classes, [n].
            search: What evolves, called as ``RegularizedEvolution.run``; one that keeps its state
                can be stopped and go on.

        Raises:
            ValueError: A parameter out of range, one class only, or values that are not finite.
        """
        self._check_parameters()
        rows, y = self._checked(X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y must hold two classes or more, got one class: {self.classes_[0]!r}"
            )
        wanted = [1] if len(self.classes_) == 2 else range(len(self.classes_))
        self._fit(rows, np.stack([labels == k for k in wanted], axis=1).astype(np.float64), search)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities of the classes, [n, classes]."""
        said = 1 / (1 + np.exp(-np.clip(self._say(X), -500, 500)))
        if said.shape[1] == 1:
            return np.hstack([1 - said, said])
        total = said.sum(1, keepdims=True)
        return np.where(total > 0, said / np.where(total > 0, total, 1), 1 / said.shape[1])

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The likeliest class of each row, [n]."""
        check_is_fitted(self, "program_")
        return self.classes_[self.predict_proba(X).argmax(1)]


class AutoMLZeroRegressor(RegressorMixin, _Evolved):
    """A regressor whose learning algorithm is evolved for the data.

    As `AutoMLZeroClassifier`, judged by the root mean square error of the standardised target.

    Args:
        program: "evolve", or a `Program` to use as it is.
        initial: Where evolution begins: "neural_net", "linear", or "best" of the two on validation.
        n_components: Dimension that more than 64 features are projected to, by random matrices.
        n_projections: How many such projections; predictions are averaged.
        epochs: Times that the rows are shown.
        max_train_steps: Budget of evolution: examples shown, summed over tasks.
        population_size: Individuals.
        tournament_size: How many are drawn for each birth.
        random_state: Seed or RandomState.

    Attributes:
        program_: The program that was chosen.
        search_: The `SearchResult`, or None where nothing was evolved.
        n_features_in_: Columns seen in fit.

    Source: Real et al. (2020), section 4.1.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, *, search: Search = RegularizedEvolution.run) -> Self:
        """Evolve and train.

        Args:
            X: Features, [n, columns].
            y: Targets, [n].
            search: As in `AutoMLZeroClassifier.fit`.

        Raises:
            ValueError: A parameter out of range, or values that are not finite.
        """
        self._check_parameters()
        rows, target = self._checked(X, y, y_numeric=True)
        self._center, self._unit = float(target.mean()), float(target.std()) or 1.0
        self._fit(rows, ((target - self._center) / self._unit)[:, None], search)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predictions, [n]."""
        return self._say(X)[:, 0] * self._unit + self._center
