"""Transform-sum-cat as layers of a network: learned transforms in the place of a kernel's."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Level = Literal["node", "graph"]


def mlp(in_dim: int, out_dim: int, layers: int, scale: int, dropout: float) -> nn.Sequential:
    """Linear, BatchNorm, ReLU and dropout, so many times; hidden layers are ``scale`` as wide."""
    hidden = scale * max(in_dim, out_dim)
    widths = [in_dim, *[hidden] * (layers - 1), out_dim]
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*parts)


def head(in_dim: int, out_dim: int) -> nn.Sequential:
    """The classifier behind the last layer: two hidden layers, each half as wide."""
    half, quarter = max(1, in_dim // 2), max(1, in_dim // 4)
    return nn.Sequential(
        nn.Linear(in_dim, half), nn.ReLU(), nn.Linear(half, quarter), nn.ReLU(),
        nn.Linear(quarter, out_dim),
    )  # fmt: skip


def pool(x: Tensor, batch: Tensor | None, readout: str) -> Tensor:
    """Sum or mean of each graph's rows, [nodes, d] to [graphs, d].

    Args:
        x: [nodes, d].
        batch: The graph of each node [nodes], or None where all are of one.
        readout: "sum" or "mean".
    """
    if batch is None:
        batch = torch.zeros(len(x), dtype=torch.long, device=x.device)
    graphs = int(batch.max()) + 1 if len(batch) else 0
    total = x.new_zeros(graphs, x.shape[1]).index_add(0, batch, x)
    if readout == "sum":
        return total
    return total / torch.bincount(batch, minlength=graphs).clamp(min=1).to(x.dtype)[:, None]


class WLSConv(nn.Module):
    r"""A layer of transform, sum and cat: $\mathrm{cat}(g(x_v), \sum_{u \to v} g(x_u))$.

    g is an MLP that every node's vector goes through before anything is summed. Called as layers of
    PyTorch Geometric are.

    Args:
        in_channels: Columns that go in.
        out_channels: Columns that come out, an even number: half of the node, half of the sum.
        mlp_layers: Layers of g, each Linear, BatchNorm, ReLU and dropout.
        scale: Width of g's hidden layers, times the larger of what goes in and out of g.
        dropout: Share of g's outputs that is set to 0 in training.
        residual: Add the input to g's output, by a linear map where widths differ.
        aggregation: "sum" or "mean" over the edges into a node.
        edge_gate: Weigh each message by a sigmoid of the inner product of projections of both
            ends.
        edge_dim: Columns of edge attributes: messages are then an MLP of these and the sender's.

    Raises:
        ValueError: A parameter is out of range, or edge_gate is given with edge_dim.

    Example:
        >>> layer = WLSConv(3, 8)
        >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> layer(torch.randn(3, 3), path).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        mlp_layers: int = 3,
        scale: int = 2,
        dropout: float = 0.0,
        residual: bool = False,
        aggregation: Literal["sum", "mean"] = "sum",
        edge_gate: bool = False,
        edge_dim: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels), ("mlp_layers", mlp_layers), ("scale", scale),
        ):  # fmt: skip
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        if out_channels < 2 or out_channels % 2:
            raise ValueError(f"out_channels must be even and above 0, got {out_channels}")
        if aggregation not in ("sum", "mean"):
            raise ValueError(f"aggregation must be 'sum' or 'mean', got {aggregation!r}")
        if edge_gate and edge_dim:
            raise ValueError("edge_gate and edge_dim: one of them, got both")
        half = out_channels // 2
        self.aggregation = aggregation
        self.transform = mlp(in_channels, half, mlp_layers, scale, dropout)
        self.shortcut: nn.Module | None = None
        if residual:
            same = in_channels == half
            self.shortcut = nn.Identity() if same else nn.Linear(in_channels, half)
        self.gate_source = nn.Linear(half, half) if edge_gate else None
        self.gate_target = nn.Linear(half, half) if edge_gate else None
        self.edge_transform: nn.Module | None = None
        if edge_dim is not None:
            self.edge_transform = mlp(in_channels + edge_dim, half, mlp_layers, scale, dropout)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
    ) -> Tensor:
        """One round.

        Args:
            x: [nodes, in_channels].
            edge_index: Sources above targets, [2, edges], integers.
            edge_weight: What messages are multiplied by, [edges].
            edge_attr: [edges, edge_dim], needed where the layer has an edge_dim.

        Returns:
            [nodes, out_channels].

        Raises:
            ValueError: edge_attr is missing, or given to a layer without edge_dim.
        """
        if (edge_attr is None) != (self.edge_transform is None):
            lacks = "is missing" if edge_attr is None else "is given, and the layer has no edge_dim"
            raise ValueError(f"edge_attr {lacks}")
        source, target = edge_index
        own = self.transform(x)
        if self.shortcut is not None:
            own = own + self.shortcut(x)
        if self.edge_transform is not None and edge_attr is not None:
            messages = self.edge_transform(torch.cat([x[source], edge_attr], 1))
        elif self.gate_source is not None and self.gate_target is not None:
            messages = self.gate_source(own)[source]
            scores = (messages * self.gate_target(own)[target]).sum(1) / math.sqrt(own.shape[1])
            messages = messages * torch.sigmoid(scores)[:, None]
        else:
            messages = own[source]
        if edge_weight is not None:
            messages = messages * edge_weight[:, None]
        total = torch.zeros_like(own).index_add(0, target, messages)
        if self.aggregation == "mean":
            counts = torch.bincount(target, minlength=len(x)).clamp(min=1)
            total = total / counts.to(total.dtype)[:, None]
        return torch.cat([own, total], 1)


class WLSNet(nn.Module):
    """Layers of `WLSConv`, each with BatchNorm, for nodes or for whole graphs.

    Args:
        in_dim: Columns of a node.
        out_dim: Outputs of a node or graph.
        hidden: Columns between layers, an even number.
        n_iter: Layers.
        level: "node", or "graph" for outputs of the mean or sum over a graph's nodes.
        readout: "mean" or "sum", for "graph".
        mlp_layers: Layers of each transform.
        scale: Width of their hidden layers.
        dropout: Dropout in them.
        residual: Add each transform's input to its output.
        edge_gate: Weigh messages; see `WLSConv`.
        edge_dim: Columns of edge attributes; see `WLSConv`.

    Raises:
        ValueError: A parameter is out of range.

    Example:
        >>> net = WLSNet(3, 2, level="graph", n_iter=2).eval()
        >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> net(torch.ones(3, 3), path, batch=torch.tensor([0, 0, 0])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden: int = 50,
        n_iter: int = 4,
        level: Level = "node",
        readout: Literal["mean", "sum"] = "mean",
        mlp_layers: int = 3,
        scale: int = 2,
        dropout: float = 0.0,
        residual: bool = False,
        edge_gate: bool = False,
        edge_dim: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_dim", in_dim), ("out_dim", out_dim), ("n_iter", n_iter)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        if level not in ("node", "graph"):
            raise ValueError(f"level must be 'node' or 'graph', got {level!r}")
        if readout not in ("mean", "sum"):
            raise ValueError(f"readout must be 'mean' or 'sum', got {readout!r}")
        self.level, self.readout = level, readout
        self.embed = nn.Linear(in_dim, hidden)
        self.layers = nn.ModuleList(
            WLSConv(
                hidden, hidden, mlp_layers=mlp_layers, scale=scale, dropout=dropout,
                residual=residual, edge_gate=edge_gate, edge_dim=edge_dim,
            )
            for _ in range(n_iter)
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(n_iter))
        self.head = head(hidden, out_dim)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        """Outputs of nodes, or of graphs.

        Args:
            x: [nodes, in_dim].
            edge_index: Sources above targets, [2, edges].
            edge_weight: [edges], or None.
            edge_attr: [edges, edge_dim], or None.
            batch: For "graph": the graph of each node, [nodes]; None for a single graph.

        Returns:
            [nodes, out_dim] or [graphs, out_dim].
        """
        x = self.embed(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x, edge_index, edge_weight, edge_attr))
        if self.level == "graph":
            x = pool(x, batch, self.readout)
        return self.head(x)
