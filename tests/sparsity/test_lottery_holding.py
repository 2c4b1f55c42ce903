"""Inside a mask nothing moves that is dropped, under any optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmxx.sparsity.lottery import Masks, hold
from mmxx.sparsity.lottery.holding import mask_state, moved
from mmxx.training.adabelief import AdaBelief

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.1),
    "AdaBelief": lambda p: AdaBelief(p, lr=0.1, weight_decay=0.1),
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)
        )


def half(model):
    generator = torch.Generator().manual_seed(1)
    masks = Masks.ones_like(model)
    return Masks({n: torch.rand(m.shape, generator=generator) < 0.5 for n, m in masks.items()})


def loss(model, seed):
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (model(x) - 1).square().mean()


def train(model, optimizer, steps, check=lambda: None):
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, 2 * step).backward()
        loss(model, 2 * step + 1).backward()  # gradients accumulate
        optimizer.step()
        check()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_dropped_weights_are_exactly_zero_after_every_step(name):
    model = network()
    masks = half(model)
    start = copy.deepcopy(model)

    def check():
        assert moved(model, masks) == []
        for key, mask in masks.items():
            assert not model.get_parameter(key)[~mask].any()

    with hold(model, masks):
        train(model, OPTIMIZERS[name](model.parameters()), 6, check)
    for key, mask in masks.items():
        assert (model.get_parameter(key) != start.get_parameter(key))[mask].all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_of_a_dense_training_is_forgotten_where_weights_are_dropped(name):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, 3)
    masks = half(model)
    with hold(model, masks) as held:
        mask_state(optimizer, held)
        train(model, optimizer, 3)
    assert moved(model, masks) == []


def test_without_that_momentum_moves_them():
    model = network()
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    train(model, optimizer, 3)
    masks = half(model)
    with hold(model, masks):
        train(model, optimizer, 1)
    assert moved(model, masks) == list(masks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_any_kind_are_masked(dtype, order):
    layer = nn.Conv2d(3, 4, 3).to(dtype).to(memory_format=order)
    kept = torch.arange(4 * 3 * 9).view(4, 3, 3, 3) % 3 > 0
    grad = torch.randn(kept.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    with hold(layer, Masks({"weight": kept})):
        (layer.weight * grad).sum().backward()
    assert torch.equal(layer.weight.grad, grad * kept)


def test_full_masks_change_no_bit_and_hold_nothing():
    one, other = network(), network()
    with hold(one, Masks.ones_like(one)) as held:
        assert not held
        train(one, OPTIMIZERS["Adam"](one.parameters()), 4)
    train(other, OPTIMIZERS["Adam"](other.parameters()), 4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_afterwards_the_network_is_free_again():
    model = network()
    masks = half(model)
    with hold(model, masks):
        train(model, OPTIMIZERS["SGD"](model.parameters()), 1)
    train(model, OPTIMIZERS["SGD"](model.parameters()), 1)
    assert moved(model, masks) == list(masks)
    copy.deepcopy(model)


def test_masks_of_another_network_are_refused():
    model = network()
    masks = Masks({"4.weight": torch.ones(2, 2) > 0, "9.weight": torch.ones(2) > 0})
    with (
        pytest.raises(ValueError, match=r"9\.weight is missing; 4\.weight has shape"),
        hold(model, masks),
    ):
        pass
