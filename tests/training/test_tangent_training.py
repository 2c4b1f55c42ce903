"""Linearised networks, what a kernel says of training, and how it changes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from mmxx.training.tangent import (
    Taylor,
    kernel_drift,
    linearize,
    ntk,
    pl_star,
    taylor,
    training_outputs,
)


def small(seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    generator = torch.Generator().manual_seed(1)
    return net, torch.randn(4, 3, generator=generator, dtype=torch.float64)


def descend(net: nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float, steps: int) -> None:
    for _ in range(steps):
        loss = (net(x) - y).square().sum() / (2 * len(x))
        slopes = torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad])
        with torch.no_grad():
            for p, slope in zip(
                [p for p in net.parameters() if p.requires_grad], slopes, strict=True
            ):
                p -= lr * slope


def test_the_kernel_of_a_linearised_network_does_not_change_at_all():
    net, x = small()
    line = linearize(net)
    before = ntk(line, x)
    assert torch.allclose(before, ntk(net, x), rtol=1e-12)
    descend(line, x, torch.ones(4, 2, dtype=torch.float64), 0.3, 20)
    assert not torch.equal(line.theta[0], line.base[0].weight)
    assert torch.equal(ntk(line, x), before)


def test_training_the_linearised_network_is_the_closed_form():
    net, x = small()
    y = torch.ones(4, 2, dtype=torch.float64)
    kernel, start = ntk(net, x), net(x).detach()
    other = x + 0.5
    cross, cross_start = ntk(net, other, x), net(other).detach()
    line = linearize(net)
    for steps in (1, 7, 40):
        line = linearize(net)
        descend(line, x, y, 0.2, steps)
        found = training_outputs(kernel, start, y, [0, steps], lr=0.2)
        assert torch.allclose(found[0], start)
        assert torch.allclose(found[1], line(x), rtol=1e-10, atol=1e-12)
        there = training_outputs(
            kernel, start, y, [steps], lr=0.2, cross=cross, cross_outputs=cross_start
        )
        assert torch.allclose(there[0], line(other), rtol=1e-10, atol=1e-10)


def test_small_steps_are_gradient_flow():
    net, x = small()
    y, start = torch.ones(4, 2, dtype=torch.float64), net(x).detach()
    kernel = ntk(net, x)
    flow = training_outputs(kernel, start, y, [3.0], lr=1.0, flow=True)
    matrix = kernel.transpose(1, 2).reshape(8, 8)
    expected = y + (torch.matrix_exp(-matrix * 3 / 4) @ (start - y).reshape(8)).view(4, 2)
    assert torch.allclose(flow[0], expected, rtol=1e-10)
    errors = [
        (training_outputs(kernel, start, y, [3 * k], lr=1 / k) - flow).abs().max().item()
        for k in (100, 1000)
    ]
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)


def test_a_kernel_for_all_outputs_and_one_that_is_singular():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 2.0], [3.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    found = training_outputs(
        x @ x.T, torch.zeros_like(y), y, [10_000], lr=0.1, cross=x @ x.T,
        cross_outputs=torch.zeros_like(y),
    )  # fmt: skip
    expected = torch.tensor([[2.0, 2.0], [2.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(found[0], expected)  # two equal samples meet in the middle
    with pytest.warns(UserWarning, match="the kernel is singular.*Does a sample occur twice"):
        assert pl_star(x @ x.T).singular


def test_the_gradient_is_as_long_as_the_condition_says():
    net, x = small()
    y = torch.zeros(4, 2, dtype=torch.float64)
    constant, largest, singular = pl_star(ntk(net, x))
    assert not singular
    loss = (net(x) - y).square().sum() / 2
    slopes = torch.autograd.grad(loss, list(net.parameters()))
    half = sum(slope.square().sum() for slope in slopes) / 2
    assert constant * loss <= half <= largest * loss


def test_the_terms_of_the_expansion_leave_an_error_of_the_next_order():
    net, x = small()
    for order in (0, 1, 2, 3):
        errors = []
        for size in (1e-1, 5e-2):
            moved, expanded = copy.deepcopy(net), taylor(net, order)
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for p, q in zip(moved.parameters(), expanded.theta, strict=True):
                    step = size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
                    p += step
                    q += step
            errors.append((moved(x) - expanded(x)).norm().item())
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.35)


def test_an_expansion_of_some_parameters_elsewhere():
    net, x = small()
    head = {"2.weight": torch.ones(2, 6, dtype=torch.float64)}
    line = linearize(net, head)
    assert line.names == ("2.weight",)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed[2].weight.fill_(1)
    assert torch.equal(line(x), changed(x))
    assert [tuple(p.shape) for p in line.parameters() if p.requires_grad] == [(2, 6)]
    assert not torch.equal(net[2].weight, head["2.weight"])  # it works on a copy
    line.train()
    assert line.training
    assert not line.base.training
    with pytest.raises(ValueError, match="order must be 0 or more, got -1"):
        Taylor(net, -1)
    with pytest.raises(ValueError, match="dropout is active"):
        linearize(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))


def test_the_drift_is_measured_from_the_first_moment():
    net, x = small()
    states = [copy.deepcopy(net.state_dict())]
    for _ in range(2):
        descend(net, x, torch.ones(4, 2, dtype=torch.float64), 0.5, 5)
        states.append(copy.deepcopy(net.state_dict()))
    for trace in (True, False):
        kernels = []
        for state in states:
            net.load_state_dict(state)
            kernels.append(ntk(net, x, trace=trace))
        found = kernel_drift(net, x, states, trace=trace)
        assert found[0] == 0
        for k in (1, 2):
            expected = (kernels[k] - kernels[0]).norm() / kernels[0].norm()
            assert found[k] == pytest.approx(expected.item(), rel=1e-12)
    with pytest.raises(ValueError, match="trajectory is empty"):
        kernel_drift(net, x, [])
    with pytest.raises(ValueError, match=r"trajectory\[0\] lacks 0\.bias"):
        kernel_drift(net, x, [{"0.weight": net[0].weight, "2.weight": net[2].weight}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0, got 0"),
        ({"targets": torch.ones(3)}, r"must have one shape \[N\] or \[N, C\]"),
        ({"kernel": torch.eye(3)}, r"and the kernel \[N, N, ...\]"),
        ({"cross": torch.ones(1, 2)}, "cross and cross_outputs go together"),
        ({"kernel": torch.ones(2, 2, 2, 2)}, "does not go with outputs of shape"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"kernel": torch.eye(2), "outputs": torch.zeros(2), "targets": torch.ones(2)}
    arguments |= {"lr": 0.1} | change
    with pytest.raises(ValueError, match=message):
        training_outputs(**arguments, steps=[1])
    with pytest.raises(ValueError, match=r"kernel must be \[N, N\]"):
        pl_star(torch.ones(2, 3))
