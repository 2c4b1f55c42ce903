"""A lottery whose levels train on two processes: the tickets of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmxx.sparsity.lottery import LotteryTicket, Masks, Supervised

X = torch.cos(torch.arange(40 * 6, dtype=torch.float64).view(40, 6))
Y = X[:, :3].argmax(1)
LEVELS = 3


class Ranks:
    """The processes of torch.distributed, as a team."""

    def distribute(self, net, optimizer):
        return nn.parallel.DistributedDataParallel(net), optimizer

    def part(self, batch):
        return batch[torch.distributed.get_rank() :: torch.distributed.get_world_size()]

    def mean(self, loss):
        every = [torch.zeros_like(loss) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(every, loss)
        return torch.stack(every).mean().item()


def network():
    net = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 3)).double()
    with torch.no_grad():
        for index, weights in enumerate(net.parameters()):
            weights.copy_(torch.sin(torch.arange(weights.numel()) + index).view_as(weights) / 3)
    return net


def lottery(**more):
    train = Supervised(
        X, Y, X, Y, epochs=3, batch_size=8, lr=0.01,
        optimizer=lambda params, lr: torch.optim.AdamW(params, lr=lr, weight_decay=0.1), **more,
    )  # fmt: skip
    return LotteryTicket(network(), train, rewind=2, levels=LEVELS, rate=0.4, random_state=0).run()


def on_one_rank(rank, world, folder):
    """What each of the two processes does: its part of every level; then what it ends with."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    done = lottery(team=Ranks())
    done.tickets[-1].masks.save(folder / f"masks-{rank}.safetensors")
    (folder / f"metrics-{rank}.json").write_text(json.dumps(done.tickets[-1].metrics))
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


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_say_of_it_what_one_says(ranks, alone, rank):
    metrics = json.loads((ranks / f"metrics-{rank}.json").read_text())
    mine = alone.tickets[-1].metrics
    assert metrics["loss"] == pytest.approx(mine["loss"], rel=1e-9)
    assert {**metrics, "loss": 0} == {**mine, "loss": 0}


if __name__ == "__main__":
    on_one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
