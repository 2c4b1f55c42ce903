"""Tasks that a program is judged on: teachers that are made up, and data of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Loss = Literal["rms", "accuracy"]
MOST_FEATURES = 64


@dataclass(frozen=True, eq=False)
class Task:
    """Examples to learn from, and examples to be judged on.

    Attributes:
        X: Features in training, float64 [n, F], shown in this order.
        y: Labels, float64 [n]; 0 and 1 for "accuracy".
        X_valid: Features in validation, float64 [m, F].
        y_valid: Labels, float64 [m].
        loss: "rms", or "accuracy", where predictions go through the logistic function.
        epochs: Times that the examples are shown; the best validation of them counts.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, labels that are all equal,
            more than 64 features, or labels other than 0 and 1 for "accuracy".

    Example:
        >>> task = Task([[0.0], [1.0]], [0.0, 2.0], [[2.0], [3.0]], [4.0, 6.0])
        >>> task.features
        1
    """

    X: np.ndarray
    y: np.ndarray
    X_valid: np.ndarray
    y_valid: np.ndarray
    loss: Loss = "rms"
    epochs: int = 1

    def __post_init__(self) -> None:
        for name in ("X", "y", "X_valid", "y_valid"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        for x_name, y_name in (("X", "y"), ("X_valid", "y_valid")):
            _check(x_name, getattr(self, x_name), y_name, getattr(self, y_name), self.loss)
        if self.X.shape[1] != self.X_valid.shape[1]:
            raise ValueError(
                f"X_valid must have {self.X.shape[1]} columns like X, got {self.X_valid.shape[1]}"
            )
        if self.loss not in ("rms", "accuracy"):
            raise ValueError(f"loss must be 'rms' or 'accuracy', got {self.loss!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be 1 or more, got {self.epochs}")

    @property
    def features(self) -> int:
        """F, the number of features."""
        return self.X.shape[1]


def _check(x_name: str, x: np.ndarray, y_name: str, y: np.ndarray, loss: str) -> None:
    if x.ndim != 2 or not 1 <= x.shape[1] <= MOST_FEATURES or not len(x):
        raise ValueError(
            f"{x_name} must be [n, F] with n of 1 or more and F from 1 to {MOST_FEATURES}, got "
            f"shape {x.shape}; project wider data by projected_binary_tasks"
        )
    if y.shape != (len(x),):
        raise ValueError(f"{y_name} must be [{len(x)}] to go with {x_name}, got shape {y.shape}")
    bad = ~(np.isfinite(x).all(1) & np.isfinite(y))
    if bad.any():
        raise ValueError(
            f"{x_name} and {y_name} must be finite, but {bad.sum()} of {len(x)} rows are not, the "
            f"first of them row {int(bad.argmax())}"
        )
    if loss == "accuracy" and not np.isin(y, (0.0, 1.0)).all():
        raise ValueError(f"{y_name} must be 0 or 1 for loss='accuracy', got {np.unique(y)[:5]}")
    if y_name == "y" and len(y) > 1 and (y == y[0]).all():
        what = "one class" if loss == "accuracy" else "one value"
        raise ValueError(f"{y_name} has {what} only, {y[0]:g}: there is nothing to learn")


def linear_regression_tasks(
    count: int, features: int = 4, *, train: int = 100, valid: int = 100, random_state: Any = None
) -> list[Task]:
    """Linear teachers: x ~ N(0, I), y = w·x with w ~ N(0, I) drawn for each task.

    Args:
        count: How many.
        features: F.
        train: Examples in training.
        valid: Examples in validation.
        random_state: Seed, Generator or None; tasks are drawn one after the other, so that fewer of
            them are the first of more.

    Example:
        >>> len(linear_regression_tasks(10, random_state=0))
        10

    Source: Real et al. (2020), section 4.1; the authors' scalar linear regression task.
    """
    return _teachers("linear", count, features, train, valid, random_state)


def affine_tasks(
    count: int, features: int = 4, *, train: int = 100, valid: int = 100, random_state: Any = None
) -> list[Task]:
    """Affine teachers: y = w·x + b with w and b standard normal.

    Args:
        count: How many.
        features: F.
        train: Examples in training.
        valid: Examples in validation.
        random_state: Seed, Generator or None.

    Source: Real et al. (2020), section 4.1: the harder of the linear cases.
    """
    return _teachers("affine", count, features, train, valid, random_state)


def nn_teacher_tasks(
    count: int, features: int = 4, *, train: int = 100, valid: int = 100, random_state: Any = None
) -> list[Task]:
    """Teachers of two layers: y = a·relu(W x) with standard normal weights.

    As in the authors' code, rows 0 and 2 of W, and their weights in a, are zero.

    Args:
        count: How many.
        features: F, and the width of the hidden layer.
        train: Examples in training.
        valid: Examples in validation.
        random_state: Seed, Generator or None.

    Source: Real et al. (2020), section 4.1.
    """
    return _teachers("nn", count, features, train, valid, random_state)


def _teachers(
    kind: str, count: int, features: int, train: int, valid: int, random_state: Any
) -> list[Task]:
    for name, value in {"count": count, "train": train, "valid": valid}.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if not 1 <= features <= MOST_FEATURES:
        raise ValueError(f"features must be 1 to {MOST_FEATURES}, got {features}")
    rng = as_generator(random_state)
    return [_teacher(kind, features, train, valid, rng) for _ in range(count)]


def _teacher(kind: str, features: int, train: int, valid: int, rng: np.random.Generator) -> Task:
    x = rng.standard_normal((train + valid, features))
    w = rng.standard_normal(features)
    if kind == "nn":
        hidden = rng.standard_normal((features, features))
        hidden[:3:2] = 0.0
        w[:3:2] = 0.0
        y = np.maximum(x @ hidden.T, 0.0) @ w
    else:
        y = x @ w + (rng.standard_normal() if kind == "affine" else 0.0)
    return Task(x[:train], y[:train], x[train:], y[train:])


def projected_binary_tasks(
    X: Any,
    y: Any,
    X_valid: Any,
    y_valid: Any,
    *,
    pairs: Sequence[tuple[Any, Any]] | None = None,
    features: int = 16,
    projections: int = 1,
    epochs: int = 1,
    random_state: Any = None,
) -> list[Task]:
    """Two classes of a data set, told apart on random projections of the features.

    Rows are multiplied by a matrix of standard normal numbers, one for each task, and standardised
    on the training rows. The second class of a pair is labelled 1. So that tasks run in step, all
    of them get as many rows as the smallest pair has.

    Args:
        X: Features, [n, D].
        y: Class of each row, [n].
        X_valid: Features to judge on, [m, D].
        y_valid: Their classes, [m].
        pairs: Pairs of classes; None takes all.
        features: F, the dimension projected to.
        projections: Tasks for each pair.
        epochs: Times that the examples are shown.
        random_state: Seed, Generator or None.

    Returns:
        Tasks, those of a pair side by side.

    Raises:
        ValueError: A pair lacks a class in the training or the validation rows.

    Source: Real et al. (2020), section 4: projected binary CIFAR-10.
    """
    X, y, X_valid, y_valid = (np.asarray(part) for part in (X, y, X_valid, y_valid))
    X, X_valid = X.reshape(len(X), -1), X_valid.reshape(len(X_valid), -1)
    classes = np.unique(y)
    if pairs is None:
        pairs = [(a, b) for i, a in enumerate(classes) for b in classes[i + 1 :]]
    rng = as_generator(random_state)
    rows = []
    for a, b in pairs:
        parts = [np.flatnonzero((labels == a) | (labels == b)) for labels in (y, y_valid)]
        for where, labels, part in ((parts[0], y, "y"), (parts[1], y_valid, "y_valid")):
            if len(np.unique(labels[where])) < 2:
                raise ValueError(f"pairs: {part} lacks a class of ({a}, {b})")
        rows.append([rng.permutation(part) for part in parts])
    train, valid = (min(len(pair[k]) for pair in rows) for k in (0, 1))
    tasks = []
    for (_, positive), (some, others) in zip(pairs, rows, strict=True):
        some, others = some[:train], others[:valid]
        for _ in range(projections):
            matrix = rng.standard_normal((X.shape[1], features))
            z, z_valid = X[some] @ matrix, X_valid[others] @ matrix
            mean, deviation = z.mean(0), z.std(0)
            deviation[deviation == 0] = 1.0
            tasks.append(
                Task(
                    (z - mean) / deviation,
                    (y[some] == positive).astype(np.float64),
                    (z_valid - mean) / deviation,
                    (y_valid[others] == positive).astype(np.float64),
                    "accuracy",
                    epochs,
                )
            )
    return tasks


def as_generator(random_state: Any) -> np.random.Generator:
    """A numpy Generator from a seed, a Generator, a RandomState or None."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)


def check_alike(tasks: Sequence[Task]) -> None:
    """Refuse tasks that cannot run in step.

    Raises:
        ValueError: There are none, or two differ in features, numbers of examples, loss or epochs.
    """
    if not tasks:
        raise ValueError("tasks must hold one or more, got none")
    for name, of in (
        ("features", lambda task: task.features),
        ("training examples", lambda task: len(task.y)),
        ("validation examples", lambda task: len(task.y_valid)),
        ("loss", lambda task: task.loss),
        ("epochs", lambda task: task.epochs),
    ):
        first = of(tasks[0])
        for place, task in enumerate(tasks):
            if of(task) != first:
                raise ValueError(
                    f"tasks must be alike in {name}: task 0 has {first}, task {place} {of(task)}"
                )


def each_block(tasks: Sequence[Any], lanes: int) -> Iterator[Sequence[Any]]:
    """Tasks, so many at a time."""
    for start in range(0, len(tasks), lanes):
        yield tasks[start : start + lanes]
