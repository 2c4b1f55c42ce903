"""Four-bit training on two processes ends where one process does, once they share their scales."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mmxx.training.fourbit import (
    Recipe,
    convert,
    pact_parameters,
    sawb_alpha,
    shard,
    synchronise_scales,
)
from mmxx.training.fourbit.conversion import layers_of
from mmxx.training.fourbit.sawb import clipped_at

STEPS = 25


def network():
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 12), torch.nn.ReLU(),
        torch.nn.Linear(12, 3),
    )  # fmt: skip
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.5)
    model.double()
    # A learned clipping value: statistics of a batch would differ from rank to rank.
    convert(model, Recipe(activations="pact", pact_alpha=3.0), skip=("first",))
    return model


def batch(step):
    inputs = torch.cos(torch.arange(48.0, dtype=torch.float64).view(8, 6) * (step + 1))
    return inputs, inputs[:, :3] * 2


def train(model, part=slice(None)):
    """Gradients grow and shrink on the way, so that the scales have to move."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for step in range(-1, STEPS):
        inputs, targets = (tensor[part] for tensor in batch(step % 5))
        optimizer.zero_grad()
        size = 1.3 ** min(step, STEPS - step)
        loss = (model(inputs) - targets).square().mean() * size
        loss.backward()
        synchronise_scales(model)
        if step >= 0:  # the first gradient of each rank sets its own scale
            optimizer.param_groups[0]["lr"] = 0.02 / size
            optimizer.step()


def on_one_rank(rank, world, folder):
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    model = network()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    train(wrapped, slice(rank * 8 // world, (rank + 1) * 8 // world))
    torch.save(model.state_dict(), folder / f"rank-{rank}.pt")
    sharded = network()
    packed = shard(sharded)
    train(sharded, slice(rank * 8 // world, (rank + 1) * 8 // world))
    whole = {name: value.full_tensor() for name, value in sharded.named_parameters()}
    if rank == 0:
        torch.save({"packed": list(packed), "weights": whole}, folder / "sharded.pt")
    dist.destroy_process_group()


def test_two_ranks_end_where_one_process_does(ranks):
    alone = network()
    started = [float(alpha) for alpha in map(torch.Tensor.detach, pact_parameters(alone))]
    train(alone)
    assert [float(alpha) for alpha in map(torch.Tensor.detach, pact_parameters(alone))] != started
    saved = torch.load(ranks / "rank-0.pt", weights_only=True)
    for name, param in alone.named_parameters():
        assert (saved[name] - param).abs().max() < 1e-10, name
    for name, layer in layers_of(alone):
        # the mean over half a batch has gradients twice as large
        assert int(saved[f"{name}.grad_exponent"]) == int(layer.grad_exponent) - 1


def test_sharded_ranks_end_where_one_process_does(ranks):
    alone = network()
    train(alone)
    saved = torch.load(ranks / "sharded.pt", weights_only=True)
    assert saved["packed"] == ["2.weight"]  # three rows of the last layer do not go on two ranks
    for name, param in alone.named_parameters():
        assert (saved["weights"][name] - param).abs().max() < 1e-10, name


def test_the_clipping_value_comes_from_sums():
    for weights in (
        torch.randn(40, generator=torch.Generator().manual_seed(0)),
        torch.full((8,), 3.0),
    ):
        size = weights.double().abs()
        found = clipped_at(
            size.mean().item(), size.square().mean().sqrt().item(), size.max().item()
        )
        assert found == pytest.approx(sawb_alpha(weights), rel=1e-6)
    assert clipped_at(0.0, 0.0, 0.0) == sawb_alpha(torch.zeros(3)) == 1


def test_only_a_converted_model_is_sharded():
    with pytest.raises(ValueError, match="convert it first"):
        shard(torch.nn.Linear(2, 2))


def test_all_ranks_have_one_scale(ranks):
    first, second = (torch.load(ranks / f"rank-{rank}.pt", weights_only=True) for rank in range(2))
    exponents = [name for name in first if name.endswith("grad_exponent")]
    assert len(exponents) == 2
    for name in exponents:
        assert torch.equal(first[name], second[name])


if __name__ == "__main__":
    on_one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
