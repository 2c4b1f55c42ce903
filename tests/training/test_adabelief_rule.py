"""AdaBelief's arithmetic, against the equations in numpy and a closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from mmxx.training.adabelief import AdaBelief, rule
from mmxx.training.adabelief.rule import noise_key, round_at_random

PATHS = {
    "single": {"fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
FLAGS = ("weight_decouple", "fixed_decay", "rectify", "degenerated_to_sgd", "amsgrad", "maximize")


def oracle(theta, gradients, *, lr, betas, eps, weight_decay, **flag):
    """The equations, one after the other, in float64."""
    beta1, beta2 = betas
    theta = theta.copy()
    m, s, s_max = (np.zeros_like(theta) for _ in range(3))
    for t, gradient in enumerate(gradients, 1):
        g = -gradient if flag["maximize"] else gradient
        if not flag["weight_decouple"]:
            g = g + weight_decay * theta
        elif flag["fixed_decay"]:
            theta = theta * (1 - weight_decay)
        else:
            theta = theta * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        s_max = np.maximum(s_max, s)
        below = s_max if flag["amsgrad"] else s
        m_hat = m / (1 - beta1**t)
        if not flag["rectify"]:
            theta = theta - lr * m_hat / (np.sqrt(below / (1 - beta2**t)) + eps)
            continue
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        if rho >= 5:
            r = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            theta = theta - lr * math.sqrt((1 - beta2**t) * r) * m_hat / (np.sqrt(below) + eps)
        elif flag["degenerated_to_sgd"]:
            theta = theta - lr * m_hat
    return theta


def fit(theta, gradients, dtype=torch.float64, **options):
    """The same by the optimizer; returns the parameter and the optimizer."""
    param = torch.nn.Parameter(torch.tensor(theta, dtype=dtype))
    optimizer = AdaBelief([param], **options)
    for gradient in gradients:
        param.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
    return param.detach(), optimizer


@pytest.mark.parametrize("path", PATHS)
def test_every_combination_of_flags_follows_the_equations(path):
    rng = np.random.default_rng(1)
    theta = rng.normal(size=(3, 5))
    gradients = rng.normal(size=(40, 3, 5)) + 0.3
    for values in itertools.product((False, True), repeat=len(FLAGS)):
        flags = dict(zip(FLAGS, values, strict=True))
        options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.02, **flags}
        wanted = oracle(theta, gradients, **options)
        got, _ = fit(theta, gradients, **options, **PATHS[path])
        assert np.abs(got.numpy() - wanted).max() < 1e-12, flags


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rectify", [False, True])
def test_200_steps_at_the_defaults_follow_the_equations(path, rectify):
    rng = np.random.default_rng(2)
    theta, gradients = rng.normal(size=33), rng.normal(size=(200, 33))
    flags = dict.fromkeys(FLAGS, False) | {"rectify": rectify, "degenerated_to_sgd": True}
    options = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-16, "weight_decay": 0.0}
    wanted = oracle(theta, gradients, **options, **flags)
    got, _ = fit(theta, gradients, rectify=rectify, **PATHS[path])
    assert np.abs(got.numpy() - wanted).max() < 1e-12
    got, _ = fit(theta, gradients, torch.float32, rectify=rectify, **PATHS[path])
    assert np.abs(got.numpy() - wanted).max() < 5e-7 * np.abs(wanted).max()


def closed_form_steps(g, steps, lr, beta1, beta2, eps):
    """Steps for the constant gradient g: s sums a geometric series of residuals beta1^t g."""
    t = np.arange(1, steps + 1)
    s = (1 - beta2) * g**2 * beta1**2 * (beta2**t - beta1 ** (2 * t)) / (beta2 - beta1**2)
    s += eps * (1 - beta2**t) / (1 - beta2)
    return lr * g / (np.sqrt(s / (1 - beta2**t)) + eps)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("g", [1.0, -0.03])
def test_a_constant_gradient_has_the_closed_form(path, g):
    wanted = closed_form_steps(g, 3000, 1e-3, 0.9, 0.999, 1e-16)
    if g == 1:
        first = [wanted[t - 1] / 1e-3 for t in (1, 2, 10, 40, 3000)]
        assert first == pytest.approx([1.1111, 1.1680, 1.6354, 3.0870, 66.8], rel=1e-3)
    param = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = AdaBelief([param], rectify=False, **PATHS[path])
    where = [0.0]
    for _ in range(3000):
        param.grad = torch.full_like(param, g)
        optimizer.step()
        where.append(param.item())
    assert np.abs(-np.array(where[1:]) / np.cumsum(wanted) - 1).max() < 1e-12


@pytest.mark.parametrize("path", PATHS)
def test_without_eps_the_scale_of_the_gradient_does_not_matter(path):
    rng = np.random.default_rng(3)
    theta, gradients = rng.normal(size=20), rng.normal(size=(30, 20))
    options = {"eps": 0.0, "rectify": False, "lr": 0.1, **PATHS[path]}
    one, _ = fit(theta, gradients, **options)
    other, _ = fit(theta, gradients * 2.0**-30, **options)
    assert torch.equal(one, other)
    third, _ = fit(theta, gradients * 1e3, **options)
    assert torch.allclose(one, third, rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", ["single", "foreach"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_kernel_agrees_with_the_torch_paths(path, dtype, amsgrad):
    rng = np.random.default_rng(4)
    shapes = [(5000,), (3, 7), (), (0,), (2, 3, 4)]
    results = []
    for name in ("fused", path):
        rng = np.random.default_rng(4)
        params = [torch.nn.Parameter(torch.tensor(rng.normal(size=s)).to(dtype)) for s in shapes]
        optimizer = AdaBelief(params, 0.01, amsgrad=amsgrad, weight_decay=0.1, **PATHS[name])
        for _ in range(30):
            for param in params:
                param.grad = torch.tensor(rng.normal(size=param.shape)).to(dtype)
            optimizer.step()
        results.append([param.detach().to(torch.float64) for param in params])
    limit = {torch.float64: 1e-14, torch.float32: 2e-6}.get(dtype, 2 * torch.finfo(dtype).eps)
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=limit, atol=limit)


def test_one_tensor_and_its_slices_get_the_same_bits():
    rng = np.random.default_rng(5)
    theta, gradients = rng.normal(size=10_000), rng.normal(size=(8, 10_000))
    whole, _ = fit(theta, gradients, torch.float32, fused=True, lr=0.1)
    cuts = [0, 1, 18, 2049, 7777, 10_000]
    params = [
        torch.nn.Parameter(torch.tensor(theta[a:b], dtype=torch.float32))
        for a, b in itertools.pairwise(cuts)
    ]
    optimizer = AdaBelief(params, fused=True, lr=0.1)
    for gradient in gradients:
        for param, (a, b) in zip(params, itertools.pairwise(cuts), strict=True):
            param.grad = torch.tensor(gradient[a:b], dtype=torch.float32)
        optimizer.step()
    assert torch.equal(whole, torch.cat([param.detach() for param in params]))


def test_a_small_residual_survives_in_16_bits():
    """In bfloat16 the difference of g and m would round to 0; the state is float32."""
    param = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = AdaBelief([param], lr=0.1)
    for step in range(20):
        param.grad = torch.full_like(param, 1.0 if step % 2 else 1.0078125)
        optimizer.step()
    assert optimizer.state[param]["exp_avg_var"].dtype is torch.float32
    assert (optimizer.state[param]["exp_avg_var"] > 0).all()
    assert (param < 0.5).all()


@pytest.mark.parametrize("path", PATHS)
def test_stochastic_rounding_keeps_steps_below_the_spacing(path):
    """Near 1 bfloat16 is spaced by 2^-8 below and 2^-7 above: a step of 1e-4 rounds away."""
    moved = {}
    for at_random in (False, True):
        param = torch.nn.Parameter(torch.full((4096,), 2.0, dtype=torch.bfloat16))
        wide = torch.nn.Parameter(torch.full((1,), 2.0))
        optimizer = AdaBelief(
            [{"params": [param]}, {"params": [wide]}],
            lr=1e-4,
            rectify=False,
            eps=1e-3,
            stochastic_rounding=at_random,
            **PATHS[path],
        )
        for _ in range(50):
            param.grad, wide.grad = torch.ones_like(param), torch.ones_like(wide)
            optimizer.step()
        moved[at_random] = 2 - param.float().mean().item()
    assert moved[False] == 0
    assert moved[True] == pytest.approx(2 - wide.item(), rel=0.05)


def test_every_path_rounds_at_random_alike():
    results = []
    for options in PATHS.values():
        param = torch.nn.Parameter(torch.linspace(-3, 3, 5001).to(torch.bfloat16))
        optimizer = AdaBelief([param], lr=1e-3, stochastic_rounding=True, **options)
        for step in range(12):
            param.grad = torch.cos(torch.arange(5001.0) * (step + 1)).to(torch.bfloat16)
            optimizer.step()
        results.append(param.detach())
    assert (results[0] != results[2]).sum() <= 5  # a last bit of the float32 state may differ
    assert (results[0] != results[1]).sum() <= 5


def test_random_rounding_is_unbiased_and_spares_what_is_exact():
    x = torch.full((200_000,), 1.0 + 0.3 * 2**-7)
    y = round_at_random(x, noise_key(3, 0)).float()
    assert set(y.unique().tolist()) == {1.0, 1.0 + 2**-7}
    assert (y.mean() - 1).item() / 2**-7 == pytest.approx(0.3, abs=0.005)
    other = round_at_random(x, noise_key(4, 0)).float()
    up = 1 + 2**-7
    both = ((y == up) & (other == up)).float().mean().item()
    assert both == pytest.approx(0.09, abs=0.005)  # independent from step to step
    exact = torch.tensor([0.0, -0.0, 1.5, -(2.0**100), math.inf, -math.inf, math.nan])
    assert torch.equal(
        round_at_random(exact, 12345).view(torch.int16), exact.to(torch.bfloat16).view(torch.int16)
    )


def test_the_first_step_is_longer_than_lr():
    got, _ = fit(np.zeros(1), np.ones((1, 1)), rectify=False, lr=1.0)
    assert got.item() == pytest.approx(-1 / 0.9, rel=1e-12)


def test_amsgrad_acts_with_rectify():
    rng = np.random.default_rng(6)
    gradients = np.concatenate([rng.normal(size=(30, 4)) * 10, rng.normal(size=(30, 4))])
    without, _ = fit(np.zeros(4), gradients, betas=(0.9, 0.9), amsgrad=False)
    with_it, _ = fit(np.zeros(4), gradients, betas=(0.9, 0.9), amsgrad=True)
    assert not torch.allclose(without, with_it, rtol=1e-3)


def test_the_compiled_multi_tensor_update_agrees_and_is_compiled_twice(monkeypatch):
    """Once along the mean and once rectified: rates are tensors, so no step compiles anew."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(
        rule._update_by_tensors, backend=backend, dynamic=False, fullgraph=True
    )
    monkeypatch.setattr(rule, "_compiled", lambda: compiled)
    finals = []
    for update in (lambda b, r: rule.foreach(b, r, compiled=True), rule.single_tensor):
        rng = np.random.default_rng(7)
        params = [torch.tensor(rng.normal(size=(3, 2))) for _ in range(4)]
        states = [
            {"exp_avg": torch.zeros_like(p), "exp_avg_var": torch.zeros_like(p)} for p in params
        ]
        for step in range(1, 21):
            grads = [torch.tensor(rng.normal(size=(3, 2))) for _ in range(4)]
            options = rule.Rule(
                lr=0.1 / step,
                betas=(0.9, 0.99),
                eps=1e-16,
                decay=1 - 0.01 / step,
                pull=0.1,
                scale=0.5,
                rectify=True,
                degenerated_to_sgd=True,
                amsgrad=False,
                stochastic_rounding=False,
            )
            update(rule.Batch(params, grads, states, [step] * 4, range(4)), options)
        finals.append(torch.stack(params))
    assert len(graphs) == 2
    assert torch.allclose(*finals, rtol=1e-12)
