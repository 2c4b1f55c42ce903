"""LotteryTicketClassifier: a sparse network as a scikit-learn estimator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from mmxx.sparsity._common import Masks
from mmxx.sparsity.lottery.networks import fully_connected
from mmxx.sparsity.lottery.supervised import Supervised
from mmxx.sparsity.lottery.tickets import LotteryTicket


class LotteryTicketClassifier(ClassifierMixin, BaseEstimator):
    """A sparse fully connected classifier, found by iterative magnitude pruning.

    It trains, prunes and rewinds ``levels`` times; the last ticket, trained, is the classifier.
    Bring columns to similar scales first, as for any neural network.

    Args:
        hidden: Widths of the hidden layers.
        levels: How often to prune; ten leave a tenth of the weights.
        rate: Share of the remaining weights that each level drops.
        output_rate: That of the last layer, where the scope is "layer".
        scope: "layer": each layer loses its share; "global": all layers together.
        rewind: The step to rewind to.
        min_per_unit: Weights that each neuron keeps, so that small layers are not emptied.
        max_iter: Epochs of each training.
        batch_size: Samples in a batch.
        lr: Learning rate of Adam.
        random_state: Seed or RandomState.

    Attributes:
        classes_: The classes seen in fit.
        masks_: What is kept, `Masks`.
        density_: Share of the weights that is kept.
        network_: The trained network.
        losses_: Training loss in the last epoch of each level, [levels + 1].
        n_features_in_: Columns seen in fit.
        n_iter_: Epochs of each training.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(200, 4))
        >>> model = LotteryTicketClassifier(hidden=(40,), levels=4, random_state=0)
        >>> model = model.fit(X, X[:, 0] > 0)
        >>> round(model.density_, 2), model.predict(X[:3]).shape
        (0.5, (3,))
    """

    n_features_in_: int

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (300, 100),
        levels: int = 10,
        rate: float = 0.2,
        output_rate: float = 0.1,
        scope: Literal["layer", "global"] = "layer",
        rewind: int = 0,
        min_per_unit: int = 1,
        max_iter: int = 15,
        batch_size: int = 60,
        lr: float = 1.2e-3,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden = hidden
        self.levels = levels
        self.rate = rate
        self.output_rate = output_rate
        self.scope: Literal["layer", "global"] = scope
        self.rewind = rewind
        self.min_per_unit = min_per_unit
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> LotteryTicketClassifier:
        """Find and train a ticket.

        Args:
            X: [n, columns].
            y: Classes [n].

        Returns:
            Itself.

        Raises:
            ValueError: A parameter out of range, NaN or infinity in X, or y no classes.
        """
        self._check_parameters()
        data = validate_data(self, cast("Any", X), cast("Any", y), dtype=np.float32)
        inputs, labels = cast("tuple[NDArray[np.float32], NDArray[Any]]", data)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = fully_connected((inputs.shape[1], *self.hidden, len(self.classes_)))
        train = Supervised(
            torch.from_numpy(np.array(inputs)),  # a copy: torch shares no memory that is read-only
            torch.from_numpy(codes.astype(np.int64)),
            epochs=int(self.max_iter),
            batch_size=int(self.batch_size),
            lr=float(self.lr),
        )
        lottery = LotteryTicket(
            network, train, rate=self.rate, output_rate=self.output_rate, scope=self.scope,
            rewind=int(self.rewind), levels=int(self.levels), min_per_unit=int(self.min_per_unit),
            random_state=seed,
        ).run()  # fmt: skip
        assert lottery.trained is not None
        self.network_: nn.Module = lottery.trained
        self.masks_: Masks = lottery.tickets[-1].masks
        self.density_ = self.masks_.density
        self.losses_ = np.array([ticket.metrics["loss"] for ticket in lottery.tickets])
        self.n_iter_ = int(self.max_iter)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Probabilities of the classes, [m, classes], of X [m, columns]."""
        check_is_fitted(self)
        data = validate_data(self, cast("Any", X), reset=False, dtype=np.float32)
        with torch.no_grad():
            logits: Tensor = self.network_(torch.from_numpy(np.array(data)))
        return logits.softmax(1).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each row of X [m, columns]."""
        best = self.predict_proba(X).argmax(1)  # first: it says so where nothing was fitted
        return self.classes_[best]

    def _check_parameters(self) -> None:
        hidden = list(self.hidden) if isinstance(self.hidden, Iterable) else []
        if not hidden or not all(isinstance(w, Integral) and w >= 1 for w in hidden):
            raise ValueError(f"hidden must hold positive integers, got {self.hidden!r}")
        for name, least in (
            ("levels", 0), ("rewind", 0), ("min_per_unit", 0), ("max_iter", 1), ("batch_size", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} must be an integer, {least} or more, got {value!r}")
        if not isinstance(self.lr, Real) or not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a positive number, got {self.lr!r}")
