"""Redundant and wide networks whose scores choose: what they compute, what learns."""

from __future__ import annotations

import pytest
import torch

from mmxx.sparsity.strong_tickets import arms
from mmxx.sparsity.strong_tickets.redundant import (
    Chosen,
    Copies,
    Linear,
    redundant_net,
    weights_of,
    wide_net,
)

SIZES = (6, 5, 3)


def test_copies_and_a_layer_are_one_layer_of_sums_of_products():
    generator = torch.Generator().manual_seed(0)
    copies = Copies(4, 3, 0.5, generator, rectified=False)
    linear = Linear(12, 2, 0.5, generator)
    first, second = copies.used(), linear.used().view(2, 4, 3)
    assert int((first != 0).sum()) == copies.count == 6
    x = torch.randn(7, 4, generator=generator)
    dense = torch.einsum("ik,jik->ji", first, second)
    torch.testing.assert_close(linear(copies(x)), x @ dense.T)


def test_with_relu_each_sign_of_an_input_has_its_own_products():
    generator = torch.Generator().manual_seed(1)
    copies = Copies(4, 6, 1.0, generator, rectified=True)
    linear = Linear(24, 2, 1.0, generator)
    first, second = copies.weight, linear.weight.view(2, 4, 6)
    x = torch.rand(7, 4, generator=generator)
    up = torch.einsum("ik,jik->ji", first.clamp(min=0), second)
    down = torch.einsum("ik,jik->ji", first.clamp(max=0), second)
    torch.testing.assert_close(linear(copies(x)), x @ up.T)
    torch.testing.assert_close(linear(copies(-x)), -x @ down.T)


@pytest.mark.parametrize("make", [redundant_net, wide_net])
def test_scores_learn_and_weights_stay(make):
    net = make(SIZES, 4, 0.5, torch.Generator().manual_seed(2))
    layers = [module for module in net.modules() if isinstance(module, Chosen)]
    assert [name for name, _ in net.named_parameters() if not name.endswith("scores")] == []
    before = [layer.weight.clone() for layer in layers]
    net(torch.ones(3, 6)).square().sum().backward()
    torch.optim.SGD(net.parameters(), 1.0).step()
    for layer, weight in zip(layers, before, strict=True):
        assert layer.scores.grad is not None
        assert bool((layer.scores.grad != 0).any())
        assert torch.equal(layer.weight, weight)


def test_wide_networks_have_as_many_weights_within_half_a_unit():
    generator = torch.Generator()
    redundant, wide = (weights_of(f(SIZES, 4, 0.5, generator)) for f in (redundant_net, wide_net))
    assert abs(redundant - wide) <= (SIZES[0] + SIZES[2]) / 2


def test_edge_popup_learns_in_all_three():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(300, 1, 4, 4, generator=generator)
    labels = ((x.flatten(1) - 0.5) @ torch.randn(16, 3, generator=generator)).argmax(1)
    data = arms.Split(x, labels)
    for arm in ("redundant", "rectified", "wide"):
        item = {"train": data, "test": data, "arm": arm, "hidden": 16, "copies": 5, "share": 0.6}
        found = arms.work(item | {"kind": "popped", "epochs": 15, "seed": 0})
        most = 100 * float(data.y.bincount().max()) / 300
        assert found["right"] > most + 10, arm
        assert found == arms.work(item | {"kind": "popped", "epochs": 15, "seed": 0})
