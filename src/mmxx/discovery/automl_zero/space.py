"""Which programs a search may find, and how it spares itself work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmxx.discovery.automl_zero.ops import COMPONENTS, FIRST_OUT, MOST_ADDRESSES, OPS, number_of

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class SearchSpace:
    """Which programs there are.

    Args:
        scalars: Scalar addresses, the label and the prediction among them.
        vectors: Vector addresses, the features among them.
        matrices: Matrix addresses.
        setup_ops: Operations allowed in Setup, by name or number; a component without any is never
            changed.
        predict_ops: Those allowed in Predict.
        learn_ops: Those allowed in Learn.
        sizes: Instructions of Setup, Predict and Learn at the start.
        size_min: What removal stops at; by default ``sizes``.
        size_max: Insertion stops one below it, as in the authors' code; by default ``sizes``.

    Raises:
        ValueError: Sizes without operations, an operation without addresses of its types, fewer
            than two scalars, or a least size above the largest.

    Example:
        >>> space = SearchSpace(
        ...     scalars=4,
        ...     vectors=3,
        ...     matrices=0,
        ...     setup_ops=["scalar_const"],
        ...     predict_ops=["inner_product"],
        ...     learn_ops=["scalar_difference"],
        ...     sizes=(2, 1, 2),
        ... )

    Source: Real et al. (2020), section 3.1.
    """

    scalars: int = 4
    vectors: int = 5
    matrices: int = 1
    setup_ops: Iterable[str | int] = ()
    predict_ops: Iterable[str | int] = ()
    learn_ops: Iterable[str | int] = ()
    sizes: Sizes = (10, 2, 8)
    size_min: Sizes | None = None
    size_max: Sizes | None = None

    def __post_init__(self) -> None:
        for name in COMPONENTS:
            ops = tuple(number_of(op) for op in getattr(self, f"{name}_ops"))
            object.__setattr__(self, f"{name}_ops", ops)
        if self.scalars < 2:
            raise ValueError(
                f"scalars must be 2 or more, the label and the prediction, got {self.scalars}"
            )
        if self.vectors < 1 or self.matrices < 0:
            raise ValueError(
                f"vectors must be 1 or more and matrices 0 or more, got {self.vectors} and "
                f"{self.matrices}"
            )
        for name in ("scalars", "vectors", "matrices"):
            if getattr(self, name) > MOST_ADDRESSES:
                raise ValueError(
                    f"{name} must be {MOST_ADDRESSES} at most, got {getattr(self, name)}"
                )
        for name in ("sizes", "size_min", "size_max"):
            given = getattr(self, name)
            if given is not None and (len(given) != 3 or min(given) < 0 or max(given) > 250):
                raise ValueError(f"{name} must be three numbers from 0 to 250, got {given}")
        object.__setattr__(self, "size_min", self.size_min or self.sizes)
        object.__setattr__(self, "size_max", self.size_max or self.sizes)
        self._check_sizes()
        self._check_ops()

    def _check_sizes(self) -> None:
        low, high = self.size_min, self.size_max
        assert low is not None
        assert high is not None
        for n, name in enumerate(COMPONENTS):
            if low[n] > high[n]:
                raise ValueError(
                    f"size_min of {name}, {low[n]}, must not exceed size_max, {high[n]}"
                )

    def _check_ops(self) -> None:
        there = {"s": self.scalars, "v": self.vectors, "m": self.matrices, "": 99}
        names = {"s": "scalars", "v": "vectors", "m": "matrices"}
        if not any(self.ops):
            raise ValueError("setup_ops, predict_ops and learn_ops are all empty: nothing can vary")
        for name, ops in zip(COMPONENTS, self.ops, strict=True):
            for op in (OPS[number] for number in ops):
                for type_, least in (
                    (op.in1, 1), (op.in2, 1), (op.out, FIRST_OUT.get(op.out, 0) + 1),
                ):  # fmt: skip
                    if there[type_] < least:
                        raise ValueError(
                            f"{name}_ops: {op.name} needs {names[type_]} of {least} or more, got "
                            f"{names[type_]}={there[type_]}"
                        )

    @property
    def ops(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the allowed operations of the three components."""
        return self.setup_ops, self.predict_ops, self.learn_ops  # pyright: ignore[reportReturnType]

    @property
    def memory(self) -> Sizes:
        """Scalars, vectors, matrices."""
        return self.scalars, self.vectors, self.matrices


@dataclass(frozen=True)
class FEC:
    """The functional equivalence cache: programs that err alike on a few examples share a fitness.

    Args:
        train: Examples of the probe in training, on every task.
        valid: Examples of the probe in validation.
        cache_size: Fitnesses kept; rounded up to a power of two unless it is exact.
        forget_every: Sights after which one is forgotten, so that a lucky one dies.
        exact: Whether the longest unused of all is dropped, as by the authors, instead of the
            longest unused of a bucket of eight, which takes less memory.

    Raises:
        ValueError: One of them is below 1.

    Source: Real et al. (2020), section 3.3.
    """

    train: int = 10
    valid: int = 10
    cache_size: int = 100_000
    forget_every: int = 100
    exact: bool = False

    def __post_init__(self) -> None:
        for name in ("train", "valid", "cache_size", "forget_every"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")


@dataclass(frozen=True)
class Hurdle:
    """Judge on a first part of the tasks, and go on only with those at a quantile or above.

    Args:
        quantile: Of the first part's recent fitnesses.
        tasks: How many are the first part; None for half of them.
        every: Births between two computations of the quantile, from so many recent ones.

    Raises:
        ValueError: The quantile is not between 0 and 1, or a number is below 1.

    Source: Real et al. (2020), section 3.3.
    """

    quantile: float = 0.75
    tasks: int | None = None
    every: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile must lie between 0 and 1, got {self.quantile}")
        if self.every < 1 or (self.tasks is not None and self.tasks < 1):
            raise ValueError(f"every and tasks must be 1 or more, got {self.every}, {self.tasks}")
