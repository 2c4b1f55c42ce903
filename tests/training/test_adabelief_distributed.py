"""AdaBelief on two processes: DDP and sharded parameters end where one process does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mmxx.training.adabelief import AdaBelief

STEPS, MORE = 20, 5


def network():
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator))
    return model.double()


def batch(step):
    inputs = torch.cos(torch.arange(48.0, dtype=torch.float64).view(8, 6) * (step + 1))
    return inputs, inputs[:, :3] * 2


def train(model, optimizer, steps, part=slice(None), first=0):
    for step in range(first, first + steps):
        inputs, targets = (tensor[part] for tensor in batch(step))
        optimizer.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        optimizer.step()


def on_one_rank(rank, world, folder):
    """What each of the two processes does; the first writes what it ends with."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    mine = slice(rank * 8 // world, (rank + 1) * 8 // world)

    model = network()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = AdaBelief(wrapped.parameters(), lr=0.01, weight_decay=0.01)
    train(wrapped, optimizer, STEPS, mine)
    if rank == 0:
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(saved, folder / "ddp.pt")

    sharded = network()
    mesh = dist.device_mesh.init_device_mesh("cpu", (world,))
    for layer in (sharded[0], sharded[2], sharded):
        fully_shard(layer, mesh=mesh)
    optimizer = AdaBelief(sharded.parameters(), lr=0.01, weight_decay=0.01)
    train(sharded, optimizer, STEPS, mine)
    first = next(iter(sharded.parameters()))
    assert type(optimizer.state[first]["exp_avg"]) is type(first)
    assert first.to_local().shape != first.shape
    whole = {name: value.full_tensor() for name, value in sharded.state_dict().items()}
    if rank == 0:
        torch.save(whole, folder / "fsdp.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    model = network()
    optimizer = AdaBelief(model.parameters(), lr=0.01, weight_decay=0.01)
    train(model, optimizer, STEPS)
    return model, optimizer


def distance(state, other):
    return max((state[name] - other[name]).abs().max().item() for name in other)


def test_ddp_ends_where_one_process_does(ranks, alone):
    saved = torch.load(ranks / "ddp.pt", weights_only=True)
    assert distance(saved["model"], alone[0].state_dict()) < 1e-10


def test_sharded_parameters_end_where_one_process_does(ranks, alone):
    saved = torch.load(ranks / "fsdp.pt", weights_only=True)
    assert distance(saved, alone[0].state_dict()) < 1e-10


def test_one_process_goes_on_from_the_checkpoint_of_two(ranks):
    saved = torch.load(ranks / "ddp.pt", weights_only=True)
    model = network()
    model.load_state_dict(saved["model"])
    optimizer = AdaBelief(model.parameters())
    optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, MORE, first=STEPS)
    straight = network()
    reference = AdaBelief(straight.parameters(), lr=0.01, weight_decay=0.01)
    train(straight, reference, STEPS + MORE)
    assert distance(model.state_dict(), straight.state_dict()) < 1e-10


if __name__ == "__main__":
    on_one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
