"""Norms of Hessians: against dense ones and the closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp

from mmxx.training.tangent import (
    Scaled,
    hessian_norm,
    hessian_product,
    ntk_mlp,
    two_layer_hessian_norm,
)
from mmxx.training.tangent.functional import load_forward_mode
from mmxx.training.tangent.hessian import spectral_norm


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def small() -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 2))
    return net.double(), torch.randn(4, 3, generator=generator(), dtype=torch.float64)


def flat_function(net: nn.Module, x: torch.Tensor, output: int):
    """One output at one sample as a function of all parameters in a row, and these."""
    values = {name: value.detach() for name, value in net.named_parameters()}

    def call(flat):
        parts = flat.split([value.numel() for value in values.values()])
        pairs = zip(values.items(), parts, strict=True)
        params = {name: part.view_as(value) for (name, value), part in pairs}
        return functional_call(net, params, (x[None],))[0, output]

    return call, torch.cat([value.flatten() for value in values.values()])


def dense(net: nn.Module, x: torch.Tensor, output: int) -> torch.Tensor:
    call, flat = flat_function(net, x, output)
    return torch.autograd.functional.hessian(call, flat)


def test_the_norm_is_the_largest_eigenvalue_of_the_dense_hessian():
    net, x = small()
    for output in (0, 1):
        expected = max(torch.linalg.eigvalsh(dense(net, one, output)).abs().max() for one in x)
        value, residual = hessian_norm(net, x, output=output, tol=1e-8)
        assert value == pytest.approx(float(expected), rel=1e-10)
        assert residual <= 1e-8 * value


def test_the_residual_bounds_the_distance_to_an_eigenvalue():
    net, x = small()
    eigenvalues = torch.linalg.eigvalsh(dense(net, x[0], 0)).abs()
    for tol in (0.3, 0.03):
        value, residual = hessian_norm(net, x[:1], tol=tol)
        assert float((eigenvalues - value).abs().min()) <= residual + 1e-12


def test_a_product_is_that_of_forward_over_reverse():
    net, x = small()
    call, flat = flat_function(net, x[0], 1)
    direction = torch.randn(len(flat), generator=generator(), dtype=torch.float64)
    load_forward_mode()
    expected = jvp(grad(call), (flat,), (direction,))[1]
    assert torch.allclose(expected, dense(net, x[0], 1) @ direction, rtol=1e-10, atol=1e-13)
    values = dict(net.named_parameters())
    parts = direction.split([value.numel() for value in values.values()])
    pairs = zip(values.items(), parts, strict=True)
    named = {name: part.view_as(value) for (name, value), part in pairs}
    found = hessian_product(net, x[0], named, output=1)
    assert torch.allclose(torch.cat([p.flatten() for p in found.values()]), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="direction must have the names and shapes"):
        hessian_product(net, x[0], {"0.weight": named["0.weight"]})


def test_a_part_of_the_parameters_has_its_block():
    net, x = small()
    whole = dense(net, x[0], 0)
    size = net[0].weight.numel()
    expected = torch.linalg.eigvalsh(whole[:size, :size]).abs().max()
    found = hessian_norm(net, x[:1], params={"0.weight": net[0].weight}, tol=1e-8).value
    assert found == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("act", [nn.SiLU(), nn.Tanh(), Scaled(torch.erf, 1.3)])
def test_the_closed_form_of_two_layers(act):
    net = ntk_mlp((5, 40, 1), lambda: act, generator=generator()).double()
    x = torch.randn(3, 5, generator=generator(), dtype=torch.float64)
    exact = two_layer_hessian_norm(net[0].weight, net[2].weight[0], x, act)
    for one, expected in zip(x, exact.tolist(), strict=True):
        found = float(torch.linalg.eigvalsh(dense(net, one, 0)).abs().max())
        assert found == pytest.approx(expected, rel=1e-12)
        assert hessian_norm(net, one[None], tol=1e-7).value == pytest.approx(expected, rel=1e-9)
    halved = two_layer_hessian_norm(net[0].weight, net[2].weight[0], x, act, scale=0.5)
    assert torch.allclose(halved, exact * 40**0.5 / 2)


def test_a_kink_has_no_second_derivative_in_the_closed_form():
    weight, head = torch.tensor([[1.0, 0.0]]), torch.tensor([5.0])
    x = torch.tensor([[2.0, 0.0]])
    assert two_layer_hessian_norm(weight, head, x, torch.relu).item() == 2.0


def test_lanczos_finds_the_largest_of_many_in_several_rounds():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.linspace(-1, 1, 300), [-1.02]])
    basis = np.linalg.qr(rng.normal(size=(301, 301)))[0]
    matrix = torch.tensor(basis * values @ basis.T)
    start = torch.tensor(rng.normal(size=301))
    products = []

    def product(vector):
        products.append(1)
        return matrix @ vector

    value, residual = spectral_norm(product, start, tol=1e-6, max_products=1000)
    assert value == pytest.approx(1.02, rel=1e-9)
    assert residual < 1.1e-6
    assert len(products) > 32  # more than two rounds of 16
    with pytest.warns(UserWarning, match="after 5 products the residual is .* above tol=1e-06"):
        spectral_norm(product, start, tol=1e-6, max_products=5)


def test_a_linear_model_is_not_curved():
    assert hessian_norm(nn.Linear(3, 1), torch.ones(2, 3)) == (0.0, 0.0)


def test_kinks_are_warned_of():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.warns(UserWarning, match="ReLU is piecewise linear"):
        hessian_norm(net, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(0, 3)}, "x has no sample"),
        ({"output": 2}, "output must be 0 to 1, got 2"),
        ({"output": -1}, "output must be 0 to 1, got -1"),
        ({"tol": 0.0}, "tol must be between 0 and 1, got 0"),
        ({"max_products": 0}, "max_products must be 1 or more"),
        ({"x": torch.ones(1, 3, dtype=torch.int64)}, "x must be floats"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"x": torch.ones(1, 3)} | change
    with pytest.raises(ValueError, match=message):
        hessian_norm(nn.Linear(3, 2), arguments.pop("x"), **arguments)
    with pytest.raises(ValueError, match=r"weight must be \[m, d\], head \[m\]"):
        two_layer_hessian_norm(torch.ones(3, 2), torch.ones(2), torch.ones(1, 2), torch.tanh)


def test_the_global_generator_stays():
    net, x = small()
    before = torch.get_rng_state()
    hessian_norm(net, x)
    assert torch.equal(before, torch.get_rng_state())
