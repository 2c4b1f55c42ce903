"""Trained tickets: sparse products, neurons left out, walls between trainings, the estimator."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from mmxx.sparsity.lottery import (
    LotteryTicketClassifier,
    Masks,
    SparseLinear,
    compact,
    linear_barrier,
    to_sparse,
)
from mmxx.sparsity.lottery.arms import new_statistics


def sparse_network(density, seed=0, bias=True):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(10, 40, bias=bias), nn.ReLU(inplace=True),
            nn.Linear(40, 30, bias=bias), nn.Sigmoid(), nn.Linear(30, 4, bias=bias),
        ).double()  # fmt: skip
    masks = Masks.ones_like(net)
    masks = Masks({n: torch.rand(m.shape, generator=generator) < density for n, m in masks.items()})
    masks.apply(net)
    return net


def inputs(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("shape", [(10,), (7, 10), (2, 3, 10), (0, 10)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_sparse_layer_multiplies_as_the_dense_one(shape, bias):
    dense = sparse_network(0.2, bias=bias)[1]
    sparse = SparseLinear(dense)
    assert sparse.values.numel() == int((dense.weight != 0).sum())
    assert sparse.density == sparse.values.numel() / 400
    assert torch.allclose(sparse(inputs(*shape)), dense(inputs(*shape)), rtol=1e-12, atol=1e-14)


def test_only_sparse_layers_become_sparse():
    net = sparse_network(0.05)
    net[5].weight.data.fill_(1.0)
    small = to_sparse(net)
    assert [type(m) for m in small][1::2] == [SparseLinear, SparseLinear, nn.Linear]
    assert "density=0.0" in repr(small[1])
    assert torch.allclose(small(inputs(8, 10)), net(inputs(8, 10)), rtol=1e-12)
    assert isinstance(net[1], nn.Linear)
    assert isinstance(to_sparse(net[1]), SparseLinear)
    with pytest.raises(ValueError, match="max_density must be above 0 and at most 1, got 0"):
        to_sparse(net, 0)
    with pytest.raises(TypeError, match="layer must be a linear layer, got ReLU"):
        SparseLinear(nn.ReLU())


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_compact_network_computes_the_same(density, bias, seed):
    net = sparse_network(density, seed, bias)
    before = copy.deepcopy(net.state_dict())
    small = compact(net)
    x = inputs(20, 10)
    assert torch.allclose(small(x), net(x), rtol=1e-10, atol=1e-12)
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True)
    )
    for first, second in ((small[1], small[3]), (small[3], small[5])):
        idle = ~(first.weight != 0).any(1) | ~(second.weight != 0).any(0)
        assert not idle.any() or first.out_features == 1
    if density < 0.1:
        assert small[1].out_features < 30


def test_a_network_without_any_weight_is_a_constant():
    net = sparse_network(0.5)
    for layer in (net[1], net[3]):
        layer.weight.data.zero_()
    small = compact(net)
    assert (small[1].out_features, small[3].out_features) == (1, 1)
    assert torch.allclose(small(inputs(5, 10)), net(inputs(5, 10)), rtol=1e-12)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2)), "got Conv2d"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "got BatchNorm1d"),
        (nn.Sequential(nn.ReLU()), "got no linear layer"),
        (nn.Linear(2, 2), "got no linear layer"),
        (nn.Sequential(nn.Linear(2, 2), nn.Flatten()), "got Flatten"),
    ],
)
def test_what_compact_cannot_prove_it_refuses(net, message):
    with pytest.raises(ValueError, match=message):
        compact(net)


def test_the_barrier_of_a_quadratic_and_of_two_mirrored_networks():
    one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    a, b = (torch.cat([m.weight[0], m.bias]).detach() for m in (one, other))
    line = linear_barrier(
        one, other, lambda m: (m.weight.square().sum() + m.bias.square().sum()).item(), n=5
    )
    expected = [float(((1 - t) * a + t * b).square().sum()) for t in (0, 0.25, 0.5, 0.75, 1)]
    assert line.losses == pytest.approx(expected, rel=1e-6)
    assert line.places == (0, 0.25, 0.5, 0.75, 1)
    assert line.height <= abs(expected[0] - expected[-1]) / 2 + 1e-9  # convex: no wall

    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0], [-1.0]])
    net[2].weight.data = torch.tensor([[1.0, 2.0]])
    swapped = copy.deepcopy(net)  # the same function, its neurons in another order
    swapped[0].weight.data = torch.tensor([[-1.0], [1.0]])
    swapped[2].weight.data = torch.tensor([[2.0, 1.0]])
    x = torch.tensor([[1.0], [-1.0]])
    target = net(x).detach()
    line = linear_barrier(net, swapped, lambda m: (m(x) - target).square().mean())
    assert line.losses[0] == line.losses[-1] == 0
    assert line.height == pytest.approx(2.5)  # half way all weights of the first layer cancel


def test_statistics_are_made_anew_in_between_only():
    def make(scale):
        net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
        net[0].weight.data.fill_(scale)
        return net

    x = torch.randn(20, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    seen = []

    def prepare(net):
        new_statistics(net, x)
        seen.append(net[1].running_mean.clone())
        assert torch.allclose(net[1].running_mean, net[0](x).mean((0, 2, 3)), atol=1e-6)

    linear_barrier(make(1.0), make(2.0), lambda net: 0.0, n=4, prepare=prepare)
    assert len(seen) == 2


def test_networks_that_differ_have_no_line():
    with pytest.raises(ValueError, match="the two networks differ in weight, bias"):
        linear_barrier(nn.Linear(2, 1), nn.Linear(3, 2), lambda m: 0)
    with pytest.raises(ValueError, match="n must be 3 or more"):
        linear_barrier(nn.Linear(2, 1), nn.Linear(2, 1), lambda m: 0, n=2)


def test_the_classifier_finds_a_sparse_network():
    X, y = load_digits(n_class=4, return_X_y=True)
    model = LotteryTicketClassifier(hidden=(60, 30), levels=6, max_iter=20, lr=3e-3, random_state=0)
    model.fit(X[:500] / 16, y[:500].astype(str))
    assert model.score(X[500:] / 16, y[500:].astype(str)) > 0.93
    assert model.density_ == model.masks_.density < 0.3
    assert model.losses_.shape == (7,)
    zero = sum(int((m.weight == 0).sum()) for m in model.network_ if isinstance(m, nn.Linear))
    assert zero == model.masks_.total - model.masks_.kept
    assert np.allclose(model.predict_proba(X[:9] / 16).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": ()}, r"hidden must hold positive integers, got \(\)"),
        ({"levels": -1}, "levels must be an integer, 0 or more, got -1"),
        ({"max_iter": 0}, "max_iter must be an integer, 1 or more, got 0"),
        ({"lr": math.inf}, "lr must be a positive number, got inf"),
        ({"rate": 1}, "rate must be above 0 and below 1, got 1"),
        ({"rewind": 10_000}, "a training of 15 steps cannot be rewound to step 10000"),
    ],
)
def test_the_classifier_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        LotteryTicketClassifier(**change).fit(np.eye(4), [0, 1, 0, 1])
