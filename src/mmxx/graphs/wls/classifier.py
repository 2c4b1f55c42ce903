"""WLSClassifier: a WLSNet for sets of graphs, trained as scikit-learn's estimators are."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mmxx.data.graph_objects import as_graphs
from mmxx.data.graphs import Graphs
from mmxx.graphs.wls import inputs
from mmxx.graphs.wls.expansion import Floats
from mmxx.graphs.wls.inputs import Columns
from mmxx.graphs.wls.network import WLSNet

_LEAST_LR = 1e-5  # training ends where the rate has fallen to it
_PATIENCE, _FACTOR = 10, 0.5
_PREDICTED = 256  # graphs at a time


class WLSClassifier(ClassifierMixin, BaseEstimator):
    """A network of transform-sum-cat layers that classifies graphs.

    Trained by Adam; the rate is halved where the loss has not fallen for ten passes, and training
    ends where the rate is below 1e-5.

    Args:
        n_iter: Layers.
        hidden: Columns between layers, an even number.
        mlp_layers: Layers of each transform.
        scale: Width of their hidden layers.
        dropout: Dropout in them.
        residual: Add each transform's input to its output.
        edge_gate: Weigh messages by their ends.
        readout: "mean" or "sum" over the nodes of a graph.
        nodes: What a node begins with; see `WLSTransformer`.
        edges: "attributes" or "labels" to make messages of an edge's columns too.
        max_iter: Passes over the graphs, at most.
        batch_size: Graphs in a step.
        lr: First learning rate.
        validation_fraction: Share of the graphs whose loss decides on the rate; the best weights by
            it are kept. With 0 the loss in training decides.
        device: Where to train: "cpu" or "cuda".
        random_state: Seed or RandomState for weights, batches, dropout and the share held out.

    Attributes:
        classes_: The classes.
        net_: The trained `WLSNet`.
        columns_: How attributes of nodes are standardised.
        edge_columns_: The same for edges, or None.
        n_iter_: Passes made.
        loss_curve_: The loss of each pass.

    Example:
        >>> import networkx as nx
        >>> graphs = [make(n) for make in (nx.cycle_graph, nx.star_graph) for n in range(4, 12)]
        >>> y = [0] * 8 + [1] * 8
        >>> model = WLSClassifier(n_iter=2, hidden=8, max_iter=30, lr=1e-2, random_state=0)
        >>> model.fit(graphs, y).score(graphs, y)
        1.0
    """

    classes_: NDArray[Any]
    net_: WLSNet
    columns_: Columns
    edge_columns_: Columns | None

    def __init__(
        self,
        n_iter: int = 4,
        hidden: int = 50,
        *,
        mlp_layers: int = 3,
        scale: int = 2,
        dropout: float = 0.0,
        residual: bool = False,
        edge_gate: bool = False,
        readout: Literal["mean", "sum"] = "mean",
        nodes: inputs.Nodes = "auto",
        edges: inputs.Edges = "none",
        max_iter: int = 200,
        batch_size: int = 32,
        lr: float = 1e-3,
        validation_fraction: float = 0.0,
        device: str = "cpu",
        random_state: int | RandomState | None = None,
    ) -> None:
        self.n_iter = n_iter
        self.hidden = hidden
        self.mlp_layers = mlp_layers
        self.scale = scale
        self.dropout = dropout
        self.residual = residual
        self.edge_gate = edge_gate
        self.readout = readout
        self.nodes = nodes
        self.edges = edges
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> WLSClassifier:
        """Train.

        Args:
            X: `mmxx.data.Graphs`, or a sequence of graphs that `mmxx.data.as_graphs` takes.
            y: The class of each, or None for the graphs' targets.

        Returns:
            Itself.

        Raises:
            ValueError: A parameter is out of range, a graph cannot be used, or there are other
                numbers of classes and graphs, or fewer than two classes.
        """
        self._check()
        data = as_graphs(X)
        targets = data.targets if y is None else np.asarray(y)
        if targets is None or targets.shape != (len(data),):
            shape = None if targets is None else targets.shape
            raise ValueError(f"y must be [{len(data)}], a class for each graph, got {shape}")
        check_classification_targets(targets)
        self.classes_, labels = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold two classes or more, got {len(self.classes_)}")
        self.columns_ = inputs.fit_columns(data, self.nodes)
        self.edge_columns_ = None
        if self.edges != "none":
            self.edge_columns_ = inputs.fit_columns(data, self.edges, "edge")
        random = cast("RandomState", check_random_state(self.random_state))
        rng = np.random.default_rng(random.randint(2**31 - 1, size=4))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            self._train(data, labels, rng)
        return self

    def _train(self, data: Graphs, labels: NDArray[Any], rng: np.random.Generator) -> None:
        self.net_ = self._build().to(self.device)
        order = rng.permutation(len(data))
        held = order[: round(self.validation_fraction * len(data))]
        rest = order[len(held) :]
        optimizer = torch.optim.Adam(self.net_.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=_FACTOR, patience=_PATIENCE
        )
        self.loss_curve_: list[float] = []
        best, kept = np.inf, None
        while len(self.loss_curve_) < self.max_iter:
            total = 0.0
            for batch in _batches(rng.permutation(rest), self.batch_size):
                loss = self._loss(data, labels, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
            judged = total / len(rest)
            if len(held):
                self.net_.eval()
                with torch.no_grad():
                    judged = self._loss(data, labels, held).item()
                self.net_.train()
                if judged < best:
                    best = judged
                    kept = {name: v.clone() for name, v in self.net_.state_dict().items()}
            if not np.isfinite(judged):
                raise ValueError(f"training diverged: the loss is {judged}; a smaller lr is needed")
            self.loss_curve_.append(judged)
            schedule.step(judged)
            if optimizer.param_groups[0]["lr"] < _LEAST_LR:
                break
        if kept is not None:
            self.net_.load_state_dict(kept)
        self.net_.eval()
        self.n_iter_ = len(self.loss_curve_)

    def _build(self) -> WLSNet:
        columns = self.edge_columns_
        readout = cast("Literal['mean', 'sum']", self.readout)
        return WLSNet(
            len(self.columns_.shift), len(self.classes_), hidden=self.hidden, n_iter=self.n_iter,
            level="graph", readout=readout, mlp_layers=self.mlp_layers, scale=self.scale,
            dropout=self.dropout, residual=self.residual, edge_gate=self.edge_gate,
            edge_dim=None if columns is None else len(columns.shift),
        )  # fmt: skip

    def _loss(self, data: Graphs, labels: NDArray[Any], chosen: NDArray[np.int64]) -> Tensor:
        wanted = torch.from_numpy(labels[chosen]).to(self.device)
        return nn.functional.cross_entropy(self._outputs(data.subset(chosen)), wanted)

    def _outputs(self, part: Graphs) -> Tensor:
        def tensor(values: Floats | None) -> Tensor | None:
            if values is None:
                return None
            return torch.from_numpy(values).to(self.device, torch.float32)

        x = tensor(self.columns_.of(part))
        edges = None if self.edge_columns_ is None else self.edge_columns_.of(part)
        index, batch = (torch.from_numpy(v).to(self.device) for v in (part.edge_index, part.owner))
        return self.net_(x, index, tensor(part.edge_weight), tensor(edges), batch)

    def predict_proba(self, X: Any) -> Floats:
        """The chance of each class.

        Args:
            X: As for `fit`, with the same attributes.

        Returns:
            [graphs, classes].
        """
        check_is_fitted(self)
        data = as_graphs(X)
        numbers = np.arange(len(data))
        with torch.no_grad():
            found = [
                torch.softmax(self._outputs(data.subset(numbers[k : k + _PREDICTED])), 1).cpu()
                for k in range(0, len(data), _PREDICTED)
            ]
        return torch.cat(found).numpy().astype(np.float64)

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each graph.

        Args:
            X: As for `fit`, with the same attributes.

        Returns:
            [graphs].
        """
        chances = self.predict_proba(X)
        return self.classes_[chances.argmax(1)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The share of graphs whose class is found.

        Args:
            X: As for `fit`.
            y: Their classes, or None for the graphs' targets.
            sample_weight: A weight for each graph.
        """
        data = as_graphs(X)
        truth = data.targets if y is None else y
        if truth is None:
            raise ValueError("y must be given: the graphs have no targets")
        return float(super().score(data, truth, sample_weight))

    def _check(self) -> None:
        inputs.check_use(self.nodes, self.edges)
        for name in ("n_iter", "hidden", "max_iter", "batch_size"):
            inputs.check_whole(name, getattr(self, name), 1)
        inputs.check_positive("lr", self.lr)
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction must be from 0 to below 1, got {self.validation_fraction!r}"
            )


def _batches(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Parts of nearly equal size, so that no batch is a single graph of a single node."""
    return np.array_split(order, max(1, round(len(order) / size)))
