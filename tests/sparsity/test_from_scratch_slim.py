"""Smaller networks: the function of the masked ones, their cost by hand and by a peer."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmxx.sparsity.from_scratch import (
    ChannelGraph,
    Structure,
    cost,
    gating,
    latency,
    macs,
    prune_channels,
    reset,
    scratch_budget,
    search,
    uniform,
)
from mmxx.sparsity.from_scratch.networks import conv_net, depthwise_net, residual_net


class Dense(nn.Module):
    """Concatenation, three dimensions of activations, and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 5, 3, padding=1)
        self.b = nn.Conv2d(5, 4, 3, padding=1)
        self.c = nn.Conv2d(9, 6, 1)
        self.act = nn.PReLU(6)
        self.head = nn.Linear(6 * 16, 7)
        self.out = nn.Linear(7, 3)

    def forward(self, x):
        x = F.relu(self.a(x))
        x = F.relu(torch.cat([x, self.b(x)], dim=1))
        x = F.max_pool2d(self.act(self.c(x)), 2)
        return self.out(F.gelu(self.head(x.flatten(1))))


def multiplied() -> nn.Module:
    """A depthwise convolution that makes two channels of each."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4),
        nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1),
    )  # fmt: skip


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 5, 3, bias=False),
        nn.InstanceNorm2d(5, affine=True), nn.ReLU(),
        nn.ConvTranspose2d(5, 10, 3, groups=5), nn.ReLU(), nn.ConvTranspose2d(10, 2, 2),
    )  # fmt: skip


def one_dimension() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 5, 3), nn.ReLU(),
        nn.AdaptiveMaxPool1d(3), nn.Flatten(), nn.Linear(15, 2),
    )  # fmt: skip


def three_dimensions() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip


NETWORKS = {
    "plain": (lambda: conv_net(3, (6, 8, 8, 8, 6), 4), (3, 8, 8)),
    "residual": (lambda: residual_net(3, (6, 8, 8), 4), (3, 8, 8)),
    "depthwise": (lambda: depthwise_net(3, (6, 8), 4), (3, 8, 8)),
    "concatenated": (Dense, (2, 8, 8)),
    "multiplied": (multiplied, (1, 8, 8)),
    "transposed": (transposed, (1, 6, 6)),
    "1-d": (one_dimension, (2, 20)),
    "3-d": (three_dimensions, (1, 6, 6, 6)),
}


def drawn(name: str, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of random weights and statistics."""
    make, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make()
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return net.eval(), shape


def structure_of(net, shape, seed: int, ratio: float = 0.5, **options) -> Structure:
    graph = ChannelGraph(net, shape)
    scores = torch.rand(graph.size, generator=torch.Generator().manual_seed(seed))
    return search(graph, scores, (1 - ratio) * graph.macs(), **options)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_a_smaller_network_computes_what_the_masked_one_does(name, seed):
    net, shape = drawn(name, seed)
    structure = structure_of(net, shape, seed)
    small = prune_channels(net, structure)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(seed))
    kept = torch.from_numpy(structure.graph.flat(structure.kept)).float()
    with torch.no_grad(), gating(net, structure.graph, kept):
        masked = net(x)
    with torch.no_grad():
        assert (small(x) - masked).abs().max() <= 1e-5
        assert (net(x) - masked).abs().max() > 1e-3  # something is gone
    assert macs(small, shape) == structure.macs <= structure.graph.macs() / 2
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_smaller_network_is_an_ordinary_module(name):
    net, shape = drawn(name)
    small = prune_channels(net, structure_of(net, shape, 1)).train()
    assert type(small) is type(net)
    again = ChannelGraph(small, shape)  # traced, and pruned once more
    smaller = prune_channels(small, uniform(again, 0.8 * again.macs()))
    for model in (small, smaller):
        out = model(torch.randn(4, *shape))
        out.square().mean().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    twin = copy.deepcopy(small)
    twin.load_state_dict(small.state_dict())
    assert f"{small}" != f"{net}"  # what it says of itself is what it is


def test_the_model_is_left_as_it_is_and_shares_nothing():
    net, shape = drawn("residual")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small = prune_channels(net, structure_of(net, shape, 0))
    for tensor in small.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_what_keeps_all_is_the_same_network():
    net, shape = drawn("depthwise")
    graph = ChannelGraph(net, shape)
    same = prune_channels(net, uniform(graph, graph.macs()))
    x = torch.randn(2, *shape)
    assert torch.equal(same(x), net(x))


def test_frozen_parameters_stay_frozen_and_precision_stays():
    net, shape = drawn("plain")
    net = net.double()
    net[0].weight.requires_grad_(False)
    small = prune_channels(net, structure_of(net, shape, 0))
    assert not small[0].weight.requires_grad
    assert small[4].weight.requires_grad
    assert small[0].weight.dtype == small[1].running_mean.dtype == torch.float64


def test_new_weights_are_those_of_a_network_that_is_built_small():
    net, shape = drawn("plain")
    structure = structure_of(net, shape, 3)
    torch.manual_seed(5)
    small = prune_channels(net, structure, weights=False)
    torch.manual_seed(5)
    built = conv_net(3, list(structure.widths.values()), 4)
    assert all(
        torch.equal(a, b)
        for a, b in zip(small.state_dict().values(), built.state_dict().values(), strict=True)
    )
    before = torch.get_rng_state()
    first = prune_channels(
        net, structure, weights=False, generator=torch.Generator().manual_seed(1)
    )
    second = prune_channels(net, structure, generator=None)
    reset(second, torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, small[0].weight)


def test_new_weights_need_modules_that_can_draw_them():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = conv_net(1, (4,), 2)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.layers(x)

    net = Scaled()
    structure = uniform(ChannelGraph(net, (1, 4, 4)), 400)
    prune_channels(net, structure)
    with pytest.raises(ValueError, match=r"the model \(Scaled\) has scale but no reset_parameters"):
        prune_channels(net, structure, weights=False)


def test_another_network_is_refused():
    net, shape = drawn("plain")
    with pytest.raises(ValueError, match="model: it is not the network of this graph"):
        prune_channels(drawn("residual")[0], structure_of(net, shape, 0))


# -- costs -------------------------------------------------------------------------------------


def test_multiply_adds_by_hand():
    net = conv_net(1, (16, 16, 32, 32, 64, 64), 10)
    by_hand = 9 * (64 * 16 + 64 * 16 * 16 + 16 * 16 * 32 + 16 * 32 * 32 + 4 * 32 * 64 + 4 * 64 * 64)
    counted = cost(net, (1, 8, 8))
    assert counted.macs == macs(net, (1, 8, 8)) == by_hand + 640 == 599_680
    assert counted.per_layer["3"] == 9 * 64 * 256
    assert counted.parameters == sum(p.numel() for p in net.parameters())
    assert macs(nn.Conv2d(4, 8, 3, groups=4), (4, 5, 5)) == 9 * 9 * 8
    assert macs(nn.Conv2d(4, 8, 3, groups=2), (4, 5, 5)) == 9 * 9 * 8 * 2
    assert macs(nn.ConvTranspose2d(4, 8, 3, stride=2), (4, 5, 5)) == 25 * 4 * 8 * 9
    assert macs(nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 8, 8)) == 16 * 27 * 8
    assert macs(nn.Linear(7, 3), (5, 7)) == 5 * 21


@pytest.mark.parametrize("name", NETWORKS)
def test_the_formula_is_the_count(name):
    net, shape = drawn(name)
    assert ChannelGraph(net, shape).macs() == macs(net, shape)


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise"])
def test_torch_pruning_counts_the_same_and_what_normalisations_and_activations_do(name):
    pruning = pytest.importorskip("torch_pruning")
    net, shape = drawn(name)
    theirs, parameters = pruning.utils.count_ops_and_params(net, torch.zeros(1, *shape))
    others = 0

    def count(module, args, output):
        """They also count normalisations twice, activations, what pooling reads, and biases."""
        nonlocal others
        if isinstance(module, nn.BatchNorm2d):
            others += 2 * output.numel()
        elif isinstance(module, (nn.ReLU, nn.ReLU6)):
            others += output.numel()
        elif isinstance(module, nn.Linear):
            others += module.out_features
        elif isinstance(module, (nn.MaxPool2d, nn.AdaptiveAvgPool2d)):
            others += args[0].numel()

    for module in net.modules():
        module.register_forward_hook(count)
    net(torch.zeros(1, *shape))
    ours = cost(net, shape)
    assert parameters == ours.parameters
    assert theirs == ours.macs + others


def test_costs_on_inputs_of_another_shape():
    net, _ = drawn("plain")
    graph = ChannelGraph(net, (3, 8, 8))
    larger = graph.at((3, 16, 16))
    assert larger.macs() == macs(net, (3, 16, 16))
    assert larger.groups == graph.groups
    assert graph.at((3, 8, 8)) is graph


def test_latency_gives_seconds_and_the_mode_back():
    net, shape = drawn("plain")
    net[0].train()
    modes = [module.training for module in net.modules()]
    assert 0 < latency(net, shape, batch=2, repeats=2) < 60
    assert modes == [module.training for module in net.modules()]
    with pytest.raises(ValueError, match="repeats must be a whole number of 1 or more, got 0"):
        latency(net, shape, repeats=0)


def test_costs_refuse_what_does_not_run():
    with pytest.raises(ValueError, match=r"does not run on inputs of \(2, 8, 8\)"):
        macs(conv_net(3, (4,), 2), (2, 8, 8))
    with pytest.raises(ValueError, match="input_shape must be the shape of one input"):
        macs(conv_net(3, (4,), 2), (0, 8, 8))


def test_the_budget_of_training_from_scratch():
    assert [scratch_budget(160, ratio) for ratio in (0, 0.5, 0.9)] == [160, 320, 1600]
    for epochs, ratio in itertools.product((1, 7, 30), (0.1, 0.3, 0.7)):
        longer = scratch_budget(epochs, ratio)
        assert longer * (1 - ratio) <= epochs + 1e-6 < (longer + 1) * (1 - ratio) + 1e-6
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\), got 1"):
        scratch_budget(10, 1)
    with pytest.raises(ValueError, match="epochs must be a whole number of 1 or more, got 0"):
        scratch_budget(0, 0.5)
