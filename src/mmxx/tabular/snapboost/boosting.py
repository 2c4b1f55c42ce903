"""What SnapBoost's two estimators share: the fit, round by round, and what was learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from mmxx.tabular.snapboost import inputs, parameters
from mmxx.tabular.snapboost.binning import EDGE_ROWS
from mmxx.tabular.snapboost.ensemble import Ensemble, Learner, workers
from mmxx.tabular.snapboost.losses import CustomLoss, Loss
from mmxx.tabular.snapboost.machine import Machine, Rows
from mmxx.tabular.snapboost.shards import ALONE, Shard
from mmxx.tabular.snapboost.tree import Map

if TYPE_CHECKING:
    from mmxx.tabular.snapboost.attribution import Attribution

Array = NDArray[np.float64]
# weights that are all 0 get an error of our own, which names the argument
_WEIGHTS: Any = {"ensure_non_negative": True, "allow_all_zero_weights": True, "dtype": np.float64}


class SnapBoost(BaseEstimator, ABC):
    """What both estimators share: the parameters and the fit."""

    _machine: ClassVar[type[Machine]] = Machine
    _numeric: ClassVar[bool]  # whether targets are numbers
    _ensemble: Ensemble
    _columns: inputs.Columns
    _loss: Loss
    _sample: NDArray[np.float32] | None
    _seed: int
    n_features_in_: int
    loss: str | CustomLoss
    n_rounds: int
    p_tree: float
    base_score: float | None
    categorical_features: Any
    early_stopping: bool
    n_rounds_no_change: int
    validation_fraction: float
    warm_start: bool
    n_jobs: int | None
    random_state: Any
    verbose: int

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """The settings of the authors' sample code: trees of depth 4 to 8, and no scaling of alpha.

        Args:
            **changes: Parameters to set otherwise.
        """
        return cls(**parameters.PAPER | changes)

    @classmethod
    def product(cls, **changes: Any) -> Self:
        """The settings of IBM's snapml, in which heterogeneity is off.

        Args:
            **changes: Parameters to set otherwise.
        """
        return cls(**parameters.PRODUCT | changes)

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the model.

        Args:
            X: An array [n, d], NaN for missing values, or a data frame of pandas or polars.
            y: Targets [n].
            sample_weight: [n], 0 or more; a weight of 2 counts as two rows, one of 0 as none.
            X_val, y_val, sample_weight_val: Rows on which the loss is measured after each round;
                with ``early_stopping`` they decide.

        Returns:
            Itself.

        Raises:
            ValueError: A parameter out of range, infinity in X, text in a column that is not
                categorical, NaN or infinity in y, or weights that are negative or all 0.
            TypeError: X is sparse.
        """
        with workers(parameters.check(self)) as (threads, spread):
            machine = self.begin(
                X, y, sample_weight, X_val=X_val, y_val=y_val, sample_weight_val=sample_weight_val,
                threads=threads, map=spread,
            )  # fmt: skip
            while not self.is_enough(machine):
                machine.step()
                if self.verbose:
                    self._say(machine)
            return self.end(machine)

    def begin(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        threads: int = 1,
        map: Map = map,
        shard: Shard = ALONE,
    ) -> Machine:
        """What ``fit`` does before the first round, for a loop of one's own.

        Call ``machine.step()`` until `is_enough`, then `end`.

        Args:
            X, y, sample_weight, X_val, y_val, sample_weight_val: As for `fit`.
            threads: How many tasks to make of large work.
            map: What to spread them with.
            shard: Where the rows are shared among machines, which of them this is. Bins, scales
                and the base score are then measured on 200,000 rows of all at most.
        """
        parameters.check(self)
        again = self.warm_start and hasattr(self, "_ensemble")
        columns, matrix, target = inputs.read_training(
            self, X, y, self.categorical_features, numeric=self._numeric
        )
        y_numbers = self._read_targets(target, again)
        weights = _check_sample_weight(sample_weight, matrix, **_WEIGHTS)
        if again:
            columns = self._columns
            matrix = inputs.read(self, X, columns)
        weights = weights * self._class_weights(target)
        used = weights > 0
        if not used.any():
            raise ValueError(
                "sample_weight is zero for every row, so there is nothing to learn from"
            )
        if not used.all():
            matrix, y_numbers, weights = matrix[used], y_numbers[used], weights[used]
        if not again:
            self._columns = columns
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            # that of the first machine
            self._seed = int(shard.gather(np.array([float(seed)]))[0])
            shard.same("the columns and their categories", columns.categories)
            shard.same("the classes", getattr(self, "classes_", np.zeros(0)).tolist())
        rows = Rows(matrix, y_numbers, weights)
        validation = None
        if X_val is not None:
            validation = self._read_validation(X_val, y_val, sample_weight_val)
        elif y_val is not None or sample_weight_val is not None:
            raise ValueError("y_val or sample_weight_val was given without X_val")
        elif self.early_stopping:
            rows, validation = self._split(rows)
        return self._start(rows, validation, again, threads, map, shard)

    @abstractmethod
    def _read_targets(self, y: NDArray[Any], again: bool) -> Array:
        """Targets of ``fit`` as numbers [n]; ``again`` when a fit is continued."""

    @abstractmethod
    def _read_later_targets(self, y: NDArray[Any]) -> Array:
        """Targets of validation rows as numbers [n]."""

    def _class_weights(self, y: NDArray[Any]) -> Any:
        return 1.0

    @abstractmethod
    def _make_loss(self, rows: Rows) -> Loss:
        """The loss for these rows."""

    def _start(
        self, rows: Rows, validation: Rows | None, again: bool, threads: int, map: Map, shard: Shard
    ) -> Machine:
        reference = self._reference(rows, shard)
        self._kept = self._history() if again else ([], [], [], 0.0)
        if not again:
            self._loss = self._make_loss(reference)
        base = self._base(reference)
        return self._machine(
            parameters.settings(self), self._loss, rows, codes=self._columns.codes,
            kinds=parameters.kinds(self, self._columns), seed=self._seed, base=base,
            ensemble=self._ensemble if again else None, validation=validation, threads=threads,
            map=map, shard=shard, reference=reference,
        )  # fmt: skip

    def _reference(self, rows: Rows, shard: Shard) -> Rows:
        """The rows of all machines, as many as bins are measured on."""
        if shard.machines == 1:
            return rows
        most, count = EDGE_ROWS // shard.machines, len(rows.y)
        rng = np.random.default_rng(self._seed)
        chosen = rng.permutation(count)[:most] if count > most else np.arange(count)
        whole = shard.gather(np.column_stack([rows.X, rows.y, rows.w])[chosen])
        return Rows(whole[:, :-2], whole[:, -2], whole[:, -1])

    def _history(self) -> tuple[list[float], list[float], list[float], float]:
        validation = list(self.validation_loss_) if self.validation_loss_ is not None else []
        return (
            list(self.train_loss_[:-1]), validation[:-1], list(self.cosine_), self._ridge_gain,
        )  # fmt: skip

    def _base(self, rows: Rows) -> Array:
        if self.base_score is None:
            return self._loss.base_score(rows.y, rows.w)
        return np.full((self._loss.classes, 1), float(self.base_score))

    def _split(self, rows: Rows) -> tuple[Rows, Rows]:
        """Hold out rows for early stopping; of each class in proportion."""
        indices = np.arange(len(rows.y))
        stratify = None if self._numeric else rows.y
        train, held = train_test_split(
            indices, test_size=self.validation_fraction, random_state=self._seed, stratify=stratify
        )
        parts = (Rows(rows.X[part], rows.y[part], rows.w[part]) for part in (train, held))
        return next(parts), next(parts)

    def _read_validation(self, X: Any, y: Any, sample_weight: Any) -> Rows:
        matrix = inputs.read(self, X, self._columns)
        if y is None:
            raise ValueError("X_val was given without y_val")
        target = np.asarray(y)
        if target.shape != (len(matrix),):
            raise ValueError(f"y_val must have shape ({len(matrix)},), got {target.shape}")
        numbers = self._read_later_targets(target)
        weights = _check_sample_weight(sample_weight, matrix, **_WEIGHTS)
        if not weights.sum() > 0:
            raise ValueError("sample_weight_val is zero for every row")
        return Rows(matrix, numbers, weights)

    def is_enough(self, machine: Machine) -> bool:
        """Whether there are ``n_rounds`` rounds, or none has helped for ``n_rounds_no_change``."""
        if machine.rounds >= self.n_rounds:
            return True
        if not self.early_stopping:
            return False
        losses = [*self._kept[1], *machine.validation_loss]
        return len(losses) - 1 - losses.index(min(losses)) >= self.n_rounds_no_change

    def end(self, machine: Machine) -> Self:
        """What ``fit`` does after the last round: the learned attributes."""
        before = self._kept
        self._ensemble = machine.ensemble
        self.n_rounds_ = machine.rounds
        self.train_loss_ = np.array([*before[0], *machine.train_loss])
        self.cosine_ = np.array([*before[2], *machine.cosine])
        self.validation_loss_ = None
        self.best_round_ = self.n_rounds_
        if machine.validation_loss:
            self.validation_loss_ = np.array([*before[1], *machine.validation_loss])
            if self.early_stopping:
                self.best_round_ = int(np.argmin(self.validation_loss_))
        self._ridge_gain = before[3] + machine.ridge_gain
        self._sample = machine.sample()
        return self

    def _say(self, machine: Machine) -> None:
        text = f"round {machine.rounds}: loss {machine.train_loss[-1]:.6g}"
        if machine.validation_loss:
            text += f", validation {machine.validation_loss[-1]:.6g}"
        print(text)

    # -- what was learned ----------------------------------------------------------------------

    @property
    def learners_(self) -> list[Learner]:
        """The learner of each round and class, in order."""
        return self._ensemble.learners

    @property
    def feature_importances_(self) -> Array:
        """Each column's share in what the rounds took off the objective: [d], of sum 1."""
        check_is_fitted(self)
        return self._ensemble.importances(self.n_features_in_, self._ridge_gain, self._sample)

    @property
    def tree_share_(self) -> float:
        """The share of rounds that grew trees."""
        kinds = [one.kind == "tree" for one in self._ensemble.learners]
        return sum(kinds) / len(kinds)

    @property
    def projection_(self) -> Any:
        """The random Fourier features that all ridge rounds share; None where there are none."""
        return self._ensemble.projection

    def _raw(self, X: Any) -> Array:
        check_is_fitted(self)
        matrix = inputs.read(self, X, self._columns)
        return self._ensemble.raw(matrix, self.best_round_, self.n_jobs)

    def _staged_raw(self, X: Any) -> Iterator[Array]:
        check_is_fitted(self)
        matrix = inputs.read(self, X, self._columns)
        return self._ensemble.staged(matrix, self.best_round_)

    def attributions(self, X: Any, background: Any) -> Attribution:
        """What each column adds to the raw prediction of each row: exact Shapley values.

        A column that does not play has the value that it has in a background row; the mean over
        all of them. The time grows with the product of both numbers of rows.

        Args:
            X: Rows with the columns seen in fit.
            background: Rows to compare with, say a hundred of the training rows.

        Returns:
            Values [n, d] (or [n, d, classes]), the background's mean prediction, and the rows, as
            numbers; ``shap.Explanation(**found._asdict())`` draws them.

        Raises:
            ValueError: The background has no row, or columns are others than in fit.
        """
        from mmxx.tabular.snapboost.attribution import attribute

        check_is_fitted(self)
        rows, others = (inputs.read(self, of, self._columns) for of in (X, background))
        if not len(others):
            raise ValueError("background must have 1 row or more, got none")
        return attribute(self._ensemble, rows, others, self.best_round_, self.n_jobs)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file of safetensors, for `load_model`.

        Raises:
            ValueError: The loss is a function, or a category is no text and no number.
        """
        from mmxx.tabular.snapboost import files

        check_is_fitted(self)
        files.write(self, Path(path))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_rounds_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
