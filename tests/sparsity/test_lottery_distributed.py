"""A lottery whose levels train on two processes: the tickets of one process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmxx.sparsity.lottery import LotteryTicket, Masks

X = torch.cos(torch.arange(40 * 6, dtype=torch.float64).view(40, 6))
Y = X[:, :3] * 2
LEVELS = 3


def network():
    net = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 3)).double()
    with torch.no_grad():
        for index, weights in enumerate(net.parameters()):
            weights.copy_(torch.sin(torch.arange(weights.numel()) + index).view_as(weights) / 3)
    return net


def training(rank, world):
    """A train function that takes its part of each batch."""

    def train(model, state, start_step):
        net = nn.parallel.DistributedDataParallel(model) if world > 1 else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        for step in state.steps(12, optimizer=optimizer):
            chosen = state.batch(step, count=len(X), size=8)[rank::world]
            optimizer.zero_grad()
            (net(X[chosen]) - Y[chosen]).square().mean().backward()
            optimizer.step()
        return {}

    return train


def lottery(rank=0, world=1):
    return LotteryTicket(
        network(), training(rank, world), rewind=2, levels=LEVELS, rate=0.4, random_state=0
    ).run()


def on_one_rank(rank, world, folder):
    """What each of the two processes does: its part of every level; then what it ends with."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    done = lottery(rank, world)
    done.tickets[-1].masks.save(folder / f"masks-{rank}.safetensors")
    torch.save(done.trained.state_dict(), folder / f"weights-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    return lottery()


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_find_the_ticket_of_one(ranks, alone, rank):
    masks = Masks.load(ranks / f"masks-{rank}.safetensors")
    mine = alone.tickets[-1].masks
    assert 0.1 < mine.density < 0.4
    assert all(torch.equal(masks[name], mine[name]) for name in mine)


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_train_it_to_the_weights_of_one(ranks, alone, rank):
    weights = torch.load(ranks / f"weights-{rank}.pt", weights_only=True)
    for name, value in alone.trained.state_dict().items():
        assert (weights[name] - value).abs().max() <= 1e-10, name
        if name in alone.tickets[-1].masks:
            assert not weights[name][~alone.tickets[-1].masks[name]].any()


if __name__ == "__main__":
    on_one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
