"""The networks that WLSNet is measured beside: aggregate, then transform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmxx.graphs.wls.network import head


class GINLayer(nn.Module):
    """MLP((1 + ε) x + Σ x_u), with a residual; ε is learned (Xu et al., 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(1))
        self.transform = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        total = torch.zeros_like(x).index_add(0, target, x[source])
        return x + torch.relu(self.norm(self.transform((1 + self.epsilon) * x + total)))


class GCNLayer(nn.Module):
    """W D^{-1/2} (A + I) D^{-1/2} x, with a residual (Kipf and Welling, 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        degree = torch.bincount(target, minlength=len(x)).to(x.dtype) + 1
        scaled = x * degree.rsqrt()[:, None]
        total = scaled.index_add(0, target, scaled[source]) * degree.rsqrt()[:, None]
        return x + torch.relu(self.norm(self.transform(total)))


class RivalNet(nn.Module):
    """Layers of a rival for nodes, as `WLSNet` has them.

    Args:
        kind: "GIN" or "GCN".
        in_dim: Columns of a node.
        out_dim: Outputs of a node.
        hidden: Columns between layers.
        n_iter: Layers.
    """

    def __init__(self, kind: str, in_dim: int, out_dim: int, hidden: int, n_iter: int) -> None:
        super().__init__()
        layer = {"GIN": GINLayer, "GCN": GCNLayer}[kind]
        self.embed = nn.Linear(in_dim, hidden)
        self.layers = nn.ModuleList(layer(hidden) for _ in range(n_iter))
        self.head = head(hidden, out_dim)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, edge_index)
        return self.head(x)
