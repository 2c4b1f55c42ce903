"""SnapBoost as scikit-learn estimators: for regression and for classification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from mmxx.tabular.snapboost import parameters
from mmxx.tabular.snapboost.boosting import SnapBoost
from mmxx.tabular.snapboost.losses import CustomLoss, Loss
from mmxx.tabular.snapboost.machine import Rows

Array = NDArray[np.float64]
_LARGEST = 1e150  # of a target: its square must be a number


class SnapBoostRegressor(RegressorMixin, SnapBoost):
    r"""Boosting for regression whose rounds are trees of random depth or ridge regressions.

    Each round draws what it will be: with probability ``p_tree`` a regression tree, whose greatest
    depth is drawn too, else a ridge regression on random Fourier features that all rounds share.
    Either way it is fitted to Newton's direction, and added at the learning rate.

    Args:
        loss: "squared_error"; "poisson", for counts, with the logarithm of the mean as raw
            prediction; "quantile"; or a function ``(y, raw) -> (values, gradients, curvatures)``
            of arrays [n].
        n_rounds: Rounds.
        learning_rate: What each learner is multiplied by, above 0 and below 2.
        p_tree: Probability of a tree.
        min_max_depth, max_max_depth: Between these a tree's greatest depth is drawn, 1 to 31.
        l2: Penalty on the squares of leaf values.
        min_child_weight: Least sum of weighted curvatures in a leaf, and for a ridge.
        min_samples_leaf: Least rows in a leaf.
        max_bins: Bins of a column at most, 2 to 255; missing values have one more.
        n_components: Random Fourier features.
        gamma: Of the kernel $\exp(-\gamma\|x - x'\|^2)$ on standardised columns; "scale" is one
            over the sum of their variances: 1/d for d numeric columns.
        alpha: Penalty on the squares of ridge coefficients, 0 or more.
        alpha_scale: "mean_hessian" multiplies it by the mean curvature, so that late rounds of
            other losses than the squared one are not penalised ever more; "absolute" does not.
        fit_intercept: Whether a ridge has an intercept.
        subsample, colsample: Shares of rows and, for trees, of columns that a round may use.
        base_score: Where the raw prediction begins; by default the best constant.
        categorical_features: "from_dtype" (the categorical columns of a data frame), None, or
            names, numbers or a mask of columns.
        monotonic_cst: For each column 1, -1 or 0: whether the prediction must not fall, or rise,
            along it. Needs ``p_tree=1``.
        early_stopping: Whether to stop when ``n_rounds_no_change`` rounds have not lowered the
            loss on X_val, or on held-out rows; then the best rounds predict.
        n_rounds_no_change: See above.
        validation_fraction: Share of the rows held out, where there is no X_val.
        warm_start: Whether to continue the last fit up to ``n_rounds``.
        n_jobs: Threads; -1 for all processors. The result is the same for every number.
        random_state: Seed or RandomState.
        verbose: 1 prints the loss of each round.
        quantile: Which quantile, for that loss.

    Attributes:
        learners_: The learner of each round: kind, depth, tree or coef.
        n_rounds_: Rounds made.
        best_round_: Rounds that predict.
        train_loss_, validation_loss_: Mean loss before the first and after each round.
        cosine_: For each round the squared cosine of the angle between Newton's direction and
            the learner: how well the round's kind can follow.
        feature_importances_: Each column's share in what the rounds took off the objective.
        tree_share_: Share of rounds that grew trees.
        projection_: The random Fourier features.
        n_features_in_: Columns seen in fit.

    Source: Parnell et al. (2020), arXiv 2006.09745.

    Example:
        >>> X = np.random.default_rng(0).uniform(size=(400, 3))
        >>> y = np.sin(6 * X[:, 0]) + (X[:, 1] > 0.5)
        >>> model = SnapBoostRegressor(random_state=0).fit(X[:300], y[:300])
        >>> bool(model.score(X[300:], y[300:]) > 0.95)
        True
    """

    _numeric = True
    quantile: float

    def __init__(
        self,
        *,
        loss: str | CustomLoss = "squared_error",
        n_rounds: int = 100,
        learning_rate: float = 0.1,
        p_tree: float = 0.8,
        min_max_depth: int = 1,
        max_max_depth: int = 5,
        l2: float = 0.0,
        min_child_weight: float = 1.0,
        min_samples_leaf: int = 1,
        max_bins: int = 255,
        n_components: int = 100,
        gamma: float | str = "scale",
        alpha: float = 1.0,
        alpha_scale: str = "mean_hessian",
        fit_intercept: bool = True,
        subsample: float = 1.0,
        colsample: float = 1.0,
        base_score: float | None = None,
        categorical_features: Any = "from_dtype",
        monotonic_cst: ArrayLike | None = None,
        early_stopping: bool = False,
        n_rounds_no_change: int = 10,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        quantile: float = 0.5,
    ) -> None:
        parameters.store(self, locals())

    def _read_targets(self, y: NDArray[Any], again: bool) -> Array:
        return self._read_later_targets(y)

    def _read_later_targets(self, y: NDArray[Any]) -> Array:
        numbers = np.asarray(y, np.float64)
        if not np.isfinite(numbers).all() or np.abs(numbers).max() > _LARGEST:
            raise ValueError(f"y must be finite and within ±{_LARGEST:g}")
        if self.loss == "poisson" and numbers.min() < 0:
            raise ValueError(f"y must be 0 or more for loss='poisson', got {numbers.min():g}")
        return numbers

    def _make_loss(self, rows: Rows) -> Loss:
        loss = Loss(self.loss, quantile=self.quantile)
        if self.loss != "quantile":
            return loss
        rest = np.abs(rows.y - loss.base_score(rows.y, rows.w)[0])
        spread = float(rows.w @ rest / rows.w.sum())
        return Loss(self.loss, quantile=self.quantile, spread=spread or 1.0)

    def _means(self, raw: Array) -> Array:
        return np.exp(raw[0]) if self.loss == "poisson" else raw[0].copy()

    def predict(self, X: Any) -> Array:
        """Predict targets: [n].

        Args:
            X: Rows with the columns seen in fit.

        Raises:
            ValueError: X has other columns, or infinity.
        """
        return self._means(self._raw(X))

    def staged_predict(self, X: Any) -> Iterator[Array]:
        """The predictions after each round: [n] each; the last is that of ``predict``.

        Args:
            X: Rows with the columns seen in fit.
        """
        for raw in self._staged_raw(X):
            yield self._means(raw)


class SnapBoostClassifier(ClassifierMixin, SnapBoost):
    """Boosting for classification whose rounds are trees of random depth or ridge regressions.

    Two classes have one learner a round, K classes K, of the kind and depth that it drew.

    Args:
        loss: "log_loss".
        class_weight: None, "balanced", or a dictionary of weights by class.
        n_rounds: Rounds.
        learning_rate: What each learner is multiplied by, above 0 and below 2.
        p_tree: Probability of a tree.
        min_max_depth, max_max_depth: Between these a tree's greatest depth is drawn, 1 to 31.
        l2, min_child_weight, min_samples_leaf, max_bins: As for `SnapBoostRegressor`.
        n_components, gamma, alpha, alpha_scale, fit_intercept: As for `SnapBoostRegressor`.
        subsample, colsample, base_score, categorical_features: As for `SnapBoostRegressor`.
        monotonic_cst: As for `SnapBoostRegressor`; for two classes.
        early_stopping, n_rounds_no_change, validation_fraction: As for `SnapBoostRegressor`.
        warm_start, n_jobs, random_state, verbose: As for `SnapBoostRegressor`.

    Attributes:
        classes_: The labels, sorted, of any type.
        learners_, n_rounds_, best_round_: As for `SnapBoostRegressor`.
        train_loss_, validation_loss_, cosine_: As for `SnapBoostRegressor`.
        feature_importances_, tree_share_, projection_: As for `SnapBoostRegressor`.

    Source: Parnell et al. (2020), arXiv 2006.09745.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(300, 2))
        >>> y = np.where(np.hypot(*X.T) < 1, "in", "out")
        >>> model = SnapBoostClassifier(random_state=0).fit(X[:200], y[:200])
        >>> model.predict(np.array([[0.0, 0.0], [3.0, 0.0]])).tolist()
        ['in', 'out']
    """

    _numeric = False
    classes_: NDArray[Any]
    class_weight: Any

    def __init__(
        self,
        *,
        loss: str = "log_loss",
        n_rounds: int = 100,
        learning_rate: float = 0.1,
        p_tree: float = 0.8,
        min_max_depth: int = 1,
        max_max_depth: int = 5,
        l2: float = 0.0,
        min_child_weight: float = 1.0,
        min_samples_leaf: int = 1,
        max_bins: int = 255,
        n_components: int = 100,
        gamma: float | str = "scale",
        alpha: float = 1.0,
        alpha_scale: str = "mean_hessian",
        fit_intercept: bool = True,
        subsample: float = 1.0,
        colsample: float = 1.0,
        base_score: float | None = None,
        categorical_features: Any = "from_dtype",
        monotonic_cst: ArrayLike | None = None,
        early_stopping: bool = False,
        n_rounds_no_change: int = 10,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        class_weight: Any = None,
    ) -> None:
        parameters.store(self, locals())

    def _read_targets(self, y: NDArray[Any], again: bool) -> Array:
        if again:
            return self._read_later_targets(y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y must have two classes or more, got one class: {self.classes_.tolist()[0]!r}"
            )
        return numbers.astype(np.float64)

    def _read_later_targets(self, y: NDArray[Any]) -> Array:
        new = [label for label in np.unique(y).tolist() if label not in self.classes_]
        if new:
            raise ValueError(f"y holds the class {new[0]!r}, which was not seen in fit")
        return np.searchsorted(self.classes_, y).astype(np.float64)

    def _class_weights(self, y: NDArray[Any]) -> Any:
        return 1.0 if self.class_weight is None else compute_sample_weight(self.class_weight, y)

    def _make_loss(self, rows: Rows) -> Loss:
        present = np.unique(rows.y)
        if len(present) < 2:
            raise ValueError(
                "y must have two classes or more among rows of weight above 0, got one class"
            )
        return Loss("log_loss", len(self.classes_) if len(self.classes_) > 2 else 1)

    def decision_function(self, X: Any) -> Array:
        """Raw predictions: [n] for two classes, [n, classes] for more.

        Args:
            X: Rows with the columns seen in fit.
        """
        raw = self._raw(X)
        return raw[0] if len(raw) == 1 else raw.T

    def staged_decision_function(self, X: Any) -> Iterator[Array]:
        """The raw predictions after each round.

        Args:
            X: Rows with the columns seen in fit.
        """
        for raw in self._staged_raw(X):
            yield raw[0].copy() if len(raw) == 1 else raw.T.copy()

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes: [n, classes].

        Args:
            X: Rows with the columns seen in fit.
        """
        return _probabilities(self._raw(X))

    def staged_predict_proba(self, X: Any) -> Iterator[Array]:
        """The probabilities after each round.

        Args:
            X: Rows with the columns seen in fit.
        """
        for raw in self._staged_raw(X):
            yield _probabilities(raw)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row: [n].

        Args:
            X: Rows with the columns seen in fit.
        """
        return self._labels(self._raw(X))

    def staged_predict(self, X: Any) -> Iterator[NDArray[Any]]:
        """The most probable classes after each round.

        Args:
            X: Rows with the columns seen in fit.
        """
        for raw in self._staged_raw(X):
            yield self._labels(raw)

    def _labels(self, raw: Array) -> NDArray[Any]:
        numbers = (raw[0] > 0).astype(int) if len(raw) == 1 else raw.argmax(0)
        return self.classes_[numbers]


def _probabilities(raw: Array) -> Array:
    if len(raw) == 1:
        raw = np.concatenate([np.zeros_like(raw), raw])
    odds = np.exp(raw - raw.max(0))
    return (odds / odds.sum(0)).T
