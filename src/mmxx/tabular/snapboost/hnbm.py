"""The general machine of the paper: any regressors, one of which is drawn in each round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mmxx.tabular.snapboost.inputs import check_number
from mmxx.tabular.snapboost.losses import CustomLoss, Loss

Array = NDArray[np.float64]
_LOSSES = ("squared_error", "log_loss", "poisson")


class HNBM(RegressorMixin, BaseEstimator):
    """The heterogeneous Newton boosting machine over regressors of scikit-learn (algorithm 1).

    Each round draws one of the learners, fits a clone of it to -g/h with the weights h, and adds
    its prediction times the learning rate. No line search, and no choice of the best.

    Args:
        learners: Regressors whose ``fit`` takes ``sample_weight``.
        probabilities: With which each is drawn; all the same by default.
        loss: "squared_error", "log_loss" (y of 0 and 1, predictions are raw), "poisson", or a
            function ``(y, raw) -> (values, gradients, curvatures)``.
        n_rounds: Rounds.
        learning_rate: What each learner is multiplied by, above 0 and below 2.
        base_score: Where the raw prediction begins.
        random_state: Seed or RandomState; a number is drawn from it for each round.

    Attributes:
        estimators_: The fitted learner of each round.
        choices_: int64 [n_rounds], which of the learners each is.
        cosine_: For each round the squared cosine of the angle between Newton's direction and
            the learner.
        n_features_in_: Columns seen in fit.

    Source: Parnell et al. (2020), arXiv 2006.09745, section 3.

    Example:
        >>> from sklearn.linear_model import Ridge
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> y = X[:, 0] + (X[:, 1] > 0)
        >>> model = HNBM([DecisionTreeRegressor(max_depth=2), Ridge()], random_state=0).fit(X, y)
        >>> bool(np.mean((model.predict(X) - y) ** 2) < 0.01)
        True
    """

    n_features_in_: int

    def __init__(
        self,
        learners: Sequence[Any],
        probabilities: Sequence[float] | None = None,
        *,
        loss: str | CustomLoss = "squared_error",
        n_rounds: int = 100,
        learning_rate: float = 0.1,
        base_score: float = 0.0,
        random_state: Any = None,
    ) -> None:
        self.learners = learners
        self.probabilities = probabilities
        self.loss = loss
        self.n_rounds = n_rounds
        self.learning_rate = learning_rate
        self.base_score = base_score
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> HNBM:
        """Fit one learner a round.

        Args:
            X: [n, d].
            y: Targets [n].
            sample_weight: [n], 0 or more.

        Raises:
            ValueError: A parameter out of range, or probabilities that do not fit the learners.
        """
        shares = self._check()
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        y = np.asarray(y, np.float64)
        if self.loss == "log_loss" and not np.isin(y, (0, 1)).all():
            raise ValueError("y must hold 0 and 1 only for loss='log_loss'")
        w = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        rng = check_random_state(self.random_state)
        loss = Loss(self.loss)
        raw = np.full((1, len(y)), float(self.base_score))
        g, h = np.empty_like(raw), np.empty_like(raw)
        self.estimators_, choices, cosines = [], [], []
        for _ in range(self.n_rounds):
            square = loss.evaluate(y, w, raw, g, h, 0, len(y))[3]
            choice = int(rng.choice(len(self.learners), p=shares))
            learner: Any = clone(self.learners[choice])
            learner.fit(
                X, -np.divide(g[0], h[0], where=h[0] > 0, out=np.zeros_like(y)), sample_weight=h[0]
            )
            step = learner.predict(X)
            raw[0] += step * self.learning_rate
            norm = float(h[0] @ np.square(step)) * square
            cosines.append(float(g[0] @ step) ** 2 / norm if norm > 0 else 0.0)
            choices.append(choice)
            self.estimators_.append(learner)
        self.choices_, self.cosine_ = np.array(choices), np.array(cosines)
        return self

    def predict(self, X: Any) -> Array:
        """Raw predictions: [n].

        Args:
            X: [n, d].
        """
        check_is_fitted(self)
        X = np.asarray(validate_data(self, X, dtype=np.float64, reset=False))
        raw = np.full(len(X), float(self.base_score))
        for learner in self.estimators_:
            raw += self.learning_rate * learner.predict(X)
        return raw

    def _check(self) -> Array | None:
        check_number("n_rounds", self.n_rounds, 1, whole=True)
        check_number("learning_rate", self.learning_rate, 0, 2, open_low=True, open_high=True)
        if not callable(self.loss) and self.loss not in _LOSSES:
            raise ValueError(
                f"loss must be one of {', '.join(_LOSSES)} or a function, got {self.loss!r}"
            )
        if not len(self.learners):
            raise ValueError("learners must hold one regressor or more, got none")
        if self.probabilities is None:
            return None
        shares = np.asarray(self.probabilities, np.float64)
        if (
            shares.shape != (len(self.learners),)
            or (shares < 0).any()
            or abs(shares.sum() - 1) > 1e-9
        ):
            raise ValueError(
                f"probabilities must be {len(self.learners)} numbers of sum 1, got "
                f"{self.probabilities!r}"
            )
        return shares
