"""Networks that find planted patterns: what the experiment's full tier trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.data.graphs import Graphs
from mmxx.graphs.wls._rivals import RivalNet
from mmxx.graphs.wls.network import WLSNet
from mmxx.graphs.wls.problems import Indices, planted_patterns, weighted_accuracy

NETS = {"WLSNet": 50, "GIN": 110, "GCN": 146}
"""Columns between layers, as in the paper: 4 layers have about 100,000 parameters or fewer."""


def as_tensors(graphs: Graphs, chosen: Indices) -> tuple[Tensor, Tensor]:
    """Signals [nodes, 3] and edges [2, edges] of some graphs."""
    part = graphs.subset(chosen)
    labels = torch.from_numpy(np.asarray(part.node_labels))
    return nn.functional.one_hot(labels, 3).float(), torch.from_numpy(part.edge_index)


def build(arm: str) -> nn.Module:
    """The network of that name, for three signals and two classes."""
    if arm == "WLSNet":
        return WLSNet(3, 2, hidden=NETS[arm])
    return RivalNet(arm, 3, 2, NETS[arm], 4)


def trained(item: dict[str, Any]) -> dict[str, Any]:
    """Train a network and find the patterns of graphs that it has not seen: a task for `run.map`.

    The item holds an ``arm`` of `NETS`, ``graphs``, ``steps``, ``lr`` and ``seed``. Of the graphs
    four fifths are trained on, in batches of 16, by Adam with a cosine.

    Returns:
        The mean over both classes of the share found, in percent, of the graphs held out
        ("accuracy"), the number of "parameters", and the losses "loss" of every tenth step.
    """
    rng = np.random.default_rng([item["seed"], 3])
    graphs, planted = planted_patterns(rng, item["graphs"])
    truth = np.split(planted, graphs.offsets[1:-1])
    held = len(graphs) // 5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        net = build(item["arm"])
    optimizer = torch.optim.Adam(net.parameters(), lr=item["lr"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, item["steps"])
    weight = torch.tensor([planted.mean(), 1 - planted.mean()], dtype=torch.float32)
    losses = []
    for step in range(item["steps"]):
        batch = rng.choice(np.arange(held, len(graphs)), min(16, len(graphs) - held), replace=False)
        labels = torch.from_numpy(np.concatenate([truth[k] for k in batch]))
        loss = nn.functional.cross_entropy(net(*as_tensors(graphs, batch)), labels, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        found = net(*as_tensors(graphs, np.arange(held))).argmax(1).numpy()
    accuracy = weighted_accuracy(found, np.concatenate(truth[:held]), (0, 1))
    count = sum(p.numel() for p in net.parameters())
    return {"accuracy": accuracy, "parameters": count, "loss": losses}
