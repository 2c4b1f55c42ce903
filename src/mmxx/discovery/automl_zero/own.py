"""A table of one's own: an algorithm evolved for it, scored beside others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mmxx.discovery.automl_zero.library import LINEAR, NEURAL_NET


class Own(NamedTuple):
    """A table to evolve an algorithm for.

    Attributes:
        X: Features, float64 [n, columns].
        y: Target, float64 [n], or class numbers int64 [n].
        classify: Whether the target is classes.
        seed: Of split and search.
        steps: Training examples shown in the search.
    """

    X: np.ndarray
    y: np.ndarray
    classify: bool
    seed: int
    steps: int


def read_table(table: Any, target: str, seed: int, steps: int) -> tuple[Own, list[str]]:
    """Features and target of a table, and remarks.

    Raises:
        ValueError: No such column, no column of numbers besides it, fewer than 40 whole rows, or a
            target that is constant.
    """
    name = target or table.names[-1]
    if name not in table.names:
        raise ValueError(f"target must be one of {', '.join(table.names)}, got {name!r}")
    features = [column for column in table.numeric if column != name]
    if not features:
        raise ValueError(f"data: besides {name!r} there must be a column of numbers")
    X, y = table.matrix(features), table[name]
    numbers = y.dtype.kind == "f"
    whole = np.isfinite(X).all(1) & (np.isfinite(y) if numbers else np.array(y != "", bool))
    notes = [f"The target is {name}, the features are {', '.join(features)}."]
    text = [column for column in table.names if column not in (*features, name)]
    if text:
        notes.append(f"Columns that hold text were left out: {', '.join(text)}.")
    if not whole.all():
        notes.append(f"{int((~whole).sum())} of {len(whole)} rows had gaps and were left out.")
    X, y = X[whole], y[whole]
    if len(X) < 40:
        raise ValueError(f"data must have 40 rows without gaps or more, got {len(X)}")
    values, codes = np.unique(y if numbers else y.astype(str), return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"target: {name!r} is constant: there is nothing to learn")
    if not numbers and len(values) > len(y) // 4:
        raise ValueError(f"target: {name!r} has {len(values)} different words in {len(y)} rows")
    classify = not numbers or len(values) <= 10
    return Own(X, codes.astype(np.int64) if classify else y, classify, seed, steps), notes


def score(item: Own, search: Any) -> dict[str, Any]:
    """Evolve for three quarters of the rows, and score on the last quarter, beside others.

    Args:
        item: The table.
        search: See `AutoMLZeroClassifier.fit`.
    """
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mmxx.discovery.automl_zero.estimators import AutoMLZeroClassifier, AutoMLZeroRegressor

    ours = AutoMLZeroClassifier if item.classify else AutoMLZeroRegressor
    parts = train_test_split(item.X, item.y, test_size=0.25, random_state=item.seed)
    x, x_test, y, y_test = parts
    evolved = ours(max_train_steps=item.steps, random_state=item.seed)
    plain = LogisticRegression(max_iter=1000) if item.classify else RidgeCV()
    evolved.fit(x, y, search=search)
    models = {
        "network, by hand": ours(program=NEURAL_NET, random_state=item.seed),
        "linear, by hand": ours(program=LINEAR, random_state=item.seed),
        f"scikit-learn's {type(plain).__name__}": make_pipeline(StandardScaler(), plain),
        "no features": DummyClassifier() if item.classify else DummyRegressor(),
    }
    scores = [{"model": "evolved", "score": float(evolved.score(x_test, y_test))}]
    scores += [
        {"model": name, "score": float(model.fit(x, y).score(x_test, y_test))}
        for name, model in models.items()
    ]
    program = evolved.program_.pruned().normalized()
    return {
        "scores": scores, "what": "accuracy" if item.classify else "R²",
        "program": program.text(), "json": program.to_json(), "python": program.to_python(),
    }  # fmt: skip
