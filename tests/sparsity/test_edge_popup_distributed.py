"""Edge-popup on two processes: at every step all choose the same edges, those of one process."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmxx.sparsity.edge_popup import EdgePopup

STEPS = 8


def network(scope):
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3)).double()
    return EdgePopup.convert(model, k=0.4, scope=scope, seed=3)


def train(net, hidden, part):
    """The digest of the masks at each step."""
    optimizer = torch.optim.SGD(hidden.scores(), lr=0.3, momentum=0.9)
    digests = []
    for step in range(STEPS):
        inputs = torch.cos(torch.arange(48.0, dtype=torch.float64).view(8, 6) * (step + 1))
        optimizer.zero_grad()
        (net(inputs[part]) - inputs[part][:, :3] * 2).square().mean().backward()
        optimizer.step()
        digest = hashlib.sha256()
        for mask in hidden.masks().values():
            digest.update(mask.numpy().tobytes())
        digests.append(digest.hexdigest())
    return digests


def on_one_rank(rank, world, folder):
    """What each of the two processes does: train under DDP, and write what it chose."""
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    mine = slice(rank * 8 // world, (rank + 1) * 8 // world)
    found = {}
    for scope in ("layer", "global"):
        hidden = network(scope)
        found[scope] = train(nn.parallel.DistributedDataParallel(hidden), hidden, mine)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def chosen(ranks):
    """The digests of both ranks."""
    return [json.loads((ranks / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_all_processes_choose_what_one_chooses(chosen, scope):
    first, second = (found[scope] for found in chosen)
    assert len(set(first)) == STEPS, "the masks do not change: the test proves little"
    assert first == second
    hidden = network(scope)
    assert train(hidden, hidden, slice(None)) == first


if __name__ == "__main__":
    on_one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
