"""Edge-popup against written-out formulas, a reference of ten lines, and exhaustive search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.sparsity._common import _score_gradient_plain, score_gradient
from mmxx.sparsity.edge_popup import EdgePopup


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mlp(*widths, dtype=torch.float32):
    layers = []
    for inner, outer in itertools.pairwise(widths):
        layers += [nn.Linear(inner, outer, bias=False, dtype=dtype), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# -- one layer, by hand ------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "other", "slope"), [("drop", 0.0, 1.0), ("flip", -1.0, 2.0)])
def test_a_layer_of_three_by_two_follows_the_formula(rule, other, slope):
    hidden = EdgePopup.convert(nn.Linear(2, 3).double(), k=0.5, rule=rule, seed=4)
    (scores,) = hidden.scores()
    with torch.no_grad():
        scores.copy_(torch.tensor([[0.1, -0.6], [0.3, 0.2], [-0.5, 0.4]]))
    weight = hidden.model.parametrizations.weight.original
    kept = torch.tensor([[0, 1], [0, 0], [1, 1]], dtype=torch.float64)
    inputs = torch.randn(5, 2, generator=generator(), dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    out = hidden(inputs)
    used = weight * (kept + other * (1 - kept))
    assert torch.allclose(out, inputs @ used.T, rtol=0, atol=1e-15)
    (out - target).square().sum().backward()
    error = 2 * (inputs.detach() @ used.T - target)
    by_mask = error.T @ inputs.detach() * weight * slope  # dL/dh = dL/d(w h) w, h = 1 or other
    assert torch.allclose(scores.grad, by_mask * scores.sign(), rtol=1e-13, atol=1e-15)
    assert torch.allclose(inputs.grad, error @ used, rtol=1e-13, atol=1e-15)
    assert weight.grad is None


def test_the_stochastic_rule_follows_the_formula():
    hidden = EdgePopup.convert(
        nn.Linear(2, 3).double(), rule="stochastic", seed=4, generator=generator(7)
    )
    (scores,) = hidden.scores()
    weight = hidden.model.parametrizations.weight.original
    with torch.no_grad():
        scores.copy_(torch.tensor([[0.1, -2.0], [3.0, 0.2], [-0.5, 0.4]]))
    drawn = torch.bernoulli(scores.detach().sigmoid(), generator=generator(7))
    inputs = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    out = hidden(inputs)
    assert torch.allclose(out, inputs @ (weight * drawn).T, rtol=0, atol=1e-15)
    out.square().sum().backward()
    chance = scores.detach().sigmoid()
    expected = (2 * out.detach()).T @ inputs * weight * chance * (1 - chance)
    assert torch.allclose(scores.grad, expected, rtol=1e-13, atol=1e-15)
    hidden.eval()
    sure = (scores.detach() > 0).double()
    assert torch.equal(hidden(inputs), inputs @ (weight * sure).T)
    assert torch.equal(hidden.masks()["weight"], sure.bool())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_gives_the_bits_of_the_plain_gradient(dtype):
    parts = [torch.randn(13, 7, generator=generator(s)).to(dtype) for s in range(3)]
    parts[2][0] = 0.0
    parts[0][1, 0] = math.inf
    found, plain = score_gradient(*parts), _score_gradient_plain(*parts)
    assert torch.equal(found.nan_to_num(7), plain.nan_to_num(7))
    strided = [p.t().contiguous().t() for p in parts]
    assert torch.equal(score_gradient(*strided)[2:], plain[2:])


def test_a_second_derivative_is_refused():
    hidden = EdgePopup.convert(nn.Linear(2, 3), seed=0)
    loss = hidden(torch.ones(1, 2)).square().sum()
    (first,) = torch.autograd.grad(loss, hidden.scores(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


# -- which are kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_are_those_of_argpartition(k, scope):
    hidden = EdgePopup.convert(mlp(9, 14, 5), k=k, scope=scope, seed=2)
    pairs = zip(hidden.masks(), hidden.scores(), strict=True)
    scores = {name: score.detach().abs().numpy() for name, score in pairs}
    pieces = [list(scores)] if scope == "global" else [[name] for name in scores]
    for names in pieces:
        flat = np.concatenate([scores[name].reshape(-1) for name in names])
        assert len(set(flat.tolist())) == len(flat)
        dropped = int((1 - k) * len(flat))
        expected = np.ones(len(flat), bool)
        expected[np.argpartition(flat, dropped)[:dropped] if dropped else []] = False
        found = torch.cat([hidden.masks()[name].flatten() for name in names])
        assert np.array_equal(found.numpy(), expected)


def test_of_equal_scores_those_of_lower_index_are_dropped():
    hidden = EdgePopup.convert(nn.Linear(2, 3), k=0.5)
    with torch.no_grad():
        hidden.scores()[0].copy_(torch.tensor([[0.5, -0.5], [0.5, 2.0], [0.5, -0.5]]))
    assert hidden.masks()["weight"].tolist() == [[False, False], [False, True], [True, True]]


# -- a whole training --------------------------------------------------------------------------


class Subnet(torch.autograd.Function):
    """The rule by sorting, as one writes it down."""

    @staticmethod
    def forward(ctx, magnitudes, k):
        flat = magnitudes.flatten()
        order = flat.sort(stable=True).indices
        mask = torch.ones_like(flat)
        mask[order[: int((1 - k) * flat.numel())]] = 0
        return mask.view_as(magnitudes)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def test_a_training_of_a_hundred_steps_is_that_of_the_reference():
    widths, k = (6, 40, 40, 3), 0.3
    hidden = EdgePopup.convert(mlp(*widths, dtype=torch.float64), k=k, seed=5)
    weights = [hidden.model[i].parametrizations.weight.original.clone() for i in (0, 2, 4)]
    scores = [nn.Parameter(s.detach().clone()) for s in hidden.scores()]
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    ours = torch.optim.SGD(hidden.scores(), **settings)
    theirs = torch.optim.SGD(scores, **settings)
    inputs = torch.randn(64, 6, generator=generator(), dtype=torch.float64)
    labels = inputs[:, :3].argmax(1)
    changed = 0
    before = hidden.masks()
    for _ in range(100):
        for optimizer in (ours, theirs):
            optimizer.zero_grad()
        loss = nn.functional.cross_entropy(hidden(inputs), labels)
        loss.backward()
        values = inputs
        for number, (weight, score) in enumerate(zip(weights, scores, strict=True)):
            values = values @ (weight * Subnet.apply(score.abs(), k)).T
            values = values.relu() if number < 2 else values
        reference = nn.functional.cross_entropy(values, labels)
        reference.backward()
        assert loss.item() == pytest.approx(reference.item(), rel=1e-12)
        ours.step()
        theirs.step()
        for score, other, mask in zip(
            hidden.scores(), scores, hidden.masks().values(), strict=True
        ):
            assert torch.allclose(score, other, rtol=1e-9, atol=1e-12)
            assert torch.equal(mask, Subnet.apply(other.detach().abs(), k).bool())
        changed += hidden.masks() != before
        before = hidden.masks()
    assert changed > 90, "hardly any mask changed: the test proves little"
    assert loss.item() < 0.2


def test_among_all_masks_of_ten_weights_it_finds_one_of_the_best():
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    inputs = torch.randn(60, 3, generator=generator(3), dtype=torch.float64)
    targets = torch.stack([inputs[:, 0], inputs[:, 0] - inputs[:, 1]], 1).tanh()
    for seed in range(5):
        hidden = EdgePopup.convert(net, k=0.5, scope="global", seed=seed, scale=False)
        weights = [hidden.model[i].parametrizations.weight.original for i in (0, 2)]
        losses = []
        for kept in itertools.combinations(range(10), 5):
            mask = torch.zeros(10, dtype=torch.float64)
            mask[list(kept)] = 1
            first, second = weights[0] * mask[:6].view(2, 3), weights[1] * mask[6:].view(2, 2)
            out = (inputs @ first.T).tanh() @ second.T
            losses.append((out - targets).square().mean().item())
        optimizer = torch.optim.SGD(hidden.scores(), lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
        for _ in range(200):
            optimizer.zero_grad()
            (hidden(inputs) - targets).square().mean().backward()
            optimizer.step()
            schedule.step()
        loss = (hidden(inputs) - targets).square().mean().item()
        rank = sum(other < loss - 1e-12 for other in losses)
        assert rank < 0.1 * len(losses), f"seed {seed}: {rank} of {len(losses)} masks are better"
