"""GPT on two processes: DDP and FSDP2, with micro-batches, end where one process does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mmxx.language.gpt3 import (
    GPT,
    GPTConfig,
    Schedule,
    Training,
    WholeState,
    shard,
    train,
    validation_loss,
    whole_state,
)

PLAN = {"tokens": 8 * 8 * 12, "batch_tokens": 8 * 8, "lr": 0.02, "warmup_tokens": 200}
HALF = 6


class Text:
    """Rows that count on and on."""

    n_ctx = 8

    def rows(self, start, count):
        first = torch.arange(start, start + count)[:, None]
        return (first * 3 + torch.arange(self.n_ctx + 1) * (1 + first % 4)) % 13


def model():
    config = GPTConfig(2, 16, 2, n_ctx=8, vocab_size=13, window=3, init_std=0.2)
    return GPT(config, generator=torch.Generator().manual_seed(0)).double()


def part_of(rank, world):
    return lambda rows: rows[rank * len(rows) // world : (rank + 1) * len(rows) // world]


def plain_descent(net, part):
    """SGD in single precision."""
    plan = Schedule(**PLAN, n_ctx=8)
    training = Training(net, Text(), plan, part=part, micro_batch=2)
    training.optimizer = torch.optim.SGD(training.model.parameters(), lr=0.1)
    for step in range(plan.steps):
        training.step(step)


def in_two_halves(part, rank, folder):
    """A sharded training that ends half way; a new model and a new optimizer go on from it."""
    plan = Schedule(**PLAN, n_ctx=8, rows_multiple=4)
    net = model()
    for steps in (range(HALF), range(HALF, plan.steps)):
        net = model()
        shard(net)
        training = Training(net, Text(), plan, part=part, micro_batch=2)
        whole = WholeState(net, training)
        assert whole.state_dict()["optimizer"] is None  # as a run saves before its first step
        if steps.start:
            whole.load_state_dict(torch.load(folder / "whole.pt", weights_only=True))
        for step in steps:
            training.step(step)
        validation_loss(net, Text(), 2)  # gathers weights
        state = whole.state_dict()
        if rank == 0:
            torch.save(state, folder / "whole.pt")
        torch.distributed.barrier()
    assert net.blocks[0].mlp.fc.weight.to_local().shape[0] == 32
    return whole_state(net)


def on_one_rank(rank, world, folder):
    """What each of the two processes does; the first writes what it ends with."""
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    part = part_of(rank, world)
    wrapped = torch.nn.parallel.DistributedDataParallel(model())
    state = {}
    steps = train(wrapped, Text(), part=part, micro_batch=2, rows_multiple=4, state=state, **PLAN)
    for step in steps:
        if step.step + 1 == HALF and rank == 0:
            weights = {k: v.clone() for k, v in wrapped.module.state_dict().items()}
            torch.save({"model": weights, "state": state}, folder / "half.pt")
    found = {"ddp": wrapped.module.state_dict()}
    found["fsdp"] = in_two_halves(part, rank, folder)
    single = model().float()
    plain_descent(torch.nn.parallel.DistributedDataParallel(single), part)
    found["sgd"] = single.state_dict()
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    net = model()
    list(train(net, Text(), **PLAN))
    return net


def distance(state, other):
    return max((state[name] - other[name]).abs().max().item() for name in other)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_end_where_one_process_does(ranks, alone, kind):
    found = torch.load(ranks / "found.pt", weights_only=True)[kind]
    assert found.keys() == alone.state_dict().keys()
    assert distance(found, alone.state_dict()) < 1e-10
    assert distance(found, model().state_dict()) > 1e-2


def test_plain_descent_in_single_precision(ranks):
    net = model().float()
    plain_descent(net, None)
    found = torch.load(ranks / "found.pt", weights_only=True)["sgd"]
    assert distance(found, net.state_dict()) < 1e-6


def test_one_process_goes_on_from_the_state_of_two(ranks, alone):
    saved = torch.load(ranks / "half.pt", weights_only=True)
    assert saved["state"]["step"] == HALF
    net = model()
    net.load_state_dict(saved["model"])
    rest = list(train(net, Text(), state=saved["state"], **PLAN))
    assert [step.step for step in rest] == list(range(HALF, 12))
    assert distance(net.state_dict(), alone.state_dict()) < 1e-10


if __name__ == "__main__":
    on_one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
