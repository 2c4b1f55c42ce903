"""EdgePopupClassifier: a hidden network as a scikit-learn estimator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn.utils import skip_init

from mmxx.sparsity.edge_popup.edge_popup import EdgePopup
from mmxx.sparsity.edge_popup.hidden import DivergedError
from mmxx.sparsity.edge_popup.ticket import Ticket


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths, without biases and with ReLU between, not yet initialised.

    Args:
        widths: Two or more, from inputs to outputs.

    Example:
        >>> [tuple(p.shape) for p in perceptron((4, 8, 3)).parameters()]
        [(8, 4), (3, 8)]
    """
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [skip_init(nn.Linear, inner, outer, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit_scores(
    net: nn.Module,
    parameters: Iterable[nn.Parameter],
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    batch_size: int = 128,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Train by SGD with momentum and a cosine to 0, as the paper trains scores and weights.

    Args:
        net: Gives logits [N, classes].
        parameters: What is trained: the scores of a hidden network, or all of a common one.
        inputs: [N, ...].
        labels: int64 [N].
        epochs: Passes over all samples.
        lr: First learning rate.
        momentum: Of SGD.
        weight_decay: Of SGD, on what is trained.
        batch_size: Samples in a step.
        generator: Draws the order; by default torch's own.

    Returns:
        The mean cross-entropy of each epoch; it ends early, with NaN or infinity, where training
        diverges.
    """
    trained = list(parameters)
    optimizer = torch.optim.SGD(
        trained, lr, momentum=momentum, weight_decay=weight_decay, fused=True
    )
    steps = epochs * math.ceil(len(inputs) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    curve: list[float] = []
    for _ in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(inputs), generator=generator).split(batch_size):
            try:
                loss = nn.functional.cross_entropy(net(inputs[chosen]), labels[chosen])
            except DivergedError:
                return [*curve, math.nan]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        finite = all(bool(parameter.isfinite().all()) for parameter in trained)
        curve.append(total / len(inputs) if finite else math.nan)
        if not math.isfinite(curve[-1]):
            break
    net.eval()
    return curve


class EdgePopupClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that is hidden in a random network: no weight is ever trained.

    The layers have no biases; a column of ones after the inputs stands for them.

    Args:
        hidden: Widths of the hidden layers.
        k: Fraction of the weights that is used, in (0, 1].
        init: ``"kaiming_normal"`` or ``"signed_constant"``.
        scale: Multiply the weights by the square root of 1/k.
        scope: ``"layer"`` keeps k of every layer, ``"global"`` of all together.
        standardize: Bring each column to mean 0 and variance 1 first.
        max_iter: Epochs.
        lr: First learning rate of the scores, falling to 0 by a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD, on the scores.
        batch_size: Samples in a step.
        random_state: Seed or RandomState for the weights and the order of samples.

    Attributes:
        classes_: The classes, sorted.
        network_: The network found, on scaled columns and a last one of ones: plain layers.
        ticket_: The same as a seed and a bit for each weight; ``ticket_.save(path)`` writes it.
        loss_curve_: Mean cross-entropy of each epoch.
        n_features_in_: Columns seen in fit.
        n_iter_: Epochs made.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = EdgePopupClassifier(hidden=(100,), random_state=0).fit(X, y)
        >>> model.score(X, y) > 0.9
        True
        >>> round(model.ticket_.masks.density, 2)
        0.3
    """

    n_features_in_: int

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (400, 400),
        k: float = 0.3,
        init: str = "kaiming_normal",
        scale: bool = True,
        scope: str = "layer",
        standardize: bool = True,
        max_iter: int = 100,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        batch_size: int = 128,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden = hidden
        self.k = k
        self.init = init
        self.scale = scale
        self.scope = scope
        self.standardize = standardize
        self.max_iter = max_iter
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> EdgePopupClassifier:
        """Find the network.

        Args:
            X: [n, columns].
            y: [n], two classes or more.

        Returns:
            Itself.

        Raises:
            ValueError: A parameter is out of range, X or y does not fit, there is one class
                only, or training diverges.
        """
        self._check_parameters()
        checked = validate_data(self, cast(Any, X), cast(Any, y), dtype=np.float64)
        values, labels = cast("tuple[NDArray[np.float64], NDArray[Any]]", checked)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have 2 classes or more, got 1 class: {self.classes_[0]!r}")
        self._mean, self._deviation = np.zeros(values.shape[1]), np.ones(values.shape[1])
        if self.standardize:
            self._mean, deviation = values.mean(0), values.std(0)
            self._deviation = np.where(deviation > 0, deviation, 1.0)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        net = EdgePopup.convert(
            perceptron((values.shape[1] + 1, *self.hidden, len(self.classes_))),
            k=self.k, init=self.init, scale=self.scale, scope=self.scope, seed=seed,
        )  # fmt: skip
        self.loss_curve_ = fit_scores(
            net, net.scores(), self._inputs(values), torch.from_numpy(codes.astype(np.int64)),
            epochs=self.max_iter, lr=self.lr, momentum=self.momentum,
            weight_decay=self.weight_decay, batch_size=self.batch_size,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        if not math.isfinite(self.loss_curve_[-1]):
            raise ValueError(
                f"training diverged in epoch {len(self.loss_curve_)}; lr={self.lr} is too large "
                "for these data" + ("" if self.standardize else ", or standardize=True is needed")
            )
        self.n_iter_ = len(self.loss_curve_)
        self.network_ = net.finalize()
        self.ticket_: Ticket = net.ticket()
        return self

    def _inputs(self, values: NDArray[np.float64]) -> Tensor:
        scaled = (values - self._mean) / self._deviation
        return torch.from_numpy(np.pad(scaled, ((0, 0), (0, 1)), constant_values=1.0)).float()

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """The probability of each class, [n, classes].

        Args:
            X: [n, columns].
        """
        check_is_fitted(self)
        values = validate_data(self, cast(Any, X), reset=False, dtype=np.float64)
        with torch.no_grad():
            logits = self.network_(self._inputs(cast("NDArray[np.float64]", values)))
        return logits.double().softmax(1).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each sample, [n].

        Args:
            X: [n, columns].
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def _check_parameters(self) -> None:
        hidden = list(self.hidden) if isinstance(self.hidden, Iterable) else [0]
        if not all(isinstance(width, Integral) and width >= 1 for width in hidden):
            raise ValueError(f"hidden must hold positive integers, got {self.hidden!r}")
        for name in ("max_iter", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        for name, low, high in (
            ("lr", 0, math.inf), ("momentum", 0, 1), ("weight_decay", 0, math.inf),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, Real) or not low <= float(value) < high:
                raise ValueError(f"{name} must be in [{low}, {high:g}), got {value!r}")
