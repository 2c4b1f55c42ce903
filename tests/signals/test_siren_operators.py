"""Derivatives by the coordinates: against closed forms, torch.func and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.func import hessian as func_hessian

from mmxx.signals.siren import (
    CoordinateMLP,
    Siren,
    divergence,
    gradient,
    hessian,
    jacobian,
    laplacian,
    uniform_points,
    value_gradient,
    value_gradient_diagonal,
    value_gradient_hessian,
    value_gradient_laplacian,
)

SWEEPS = {
    "gradient": value_gradient,
    "laplacian": value_gradient_laplacian,
    "diagonal": value_gradient_diagonal,
    "hessian": value_gradient_hessian,
}
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def _points(n: int, dims: int, seed: int = 1) -> Tensor:
    return uniform_points(n, dims, generator=torch.Generator().manual_seed(seed)).double()


def _net(dims: int, channels: int, *, last: bool = True, omega: float = 5.0) -> Siren:
    net = Siren(
        dims,
        channels,
        hidden_features=12,
        hidden_layers=2,
        omega_0=omega,
        first_omega_0=omega,
        outermost_linear=last,
        generator=torch.Generator().manual_seed(0),
    )
    return net.double()


class _Wave(nn.Module):
    """sin(a x + b y) and cos(b x - a y), whose derivatives are known."""

    a, b = 1.7, -0.6

    def forward(self, p: Tensor) -> Tensor:
        x, y = p.unbind(1)
        return torch.stack(
            [torch.sin(self.a * x + self.b * y), torch.cos(self.b * x - self.a * y)], dim=1
        )

    def first(self, p: Tensor) -> Tensor:
        x, y = p.unbind(1)
        u, v = self.a * x + self.b * y, self.b * x - self.a * y
        rows = [[self.a * u.cos(), self.b * u.cos()], [-self.b * v.sin(), self.a * v.sin()]]
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    def second(self, p: Tensor) -> Tensor:
        x, y = p.unbind(1)
        a, b = self.a, self.b
        u, v = (a * x + b * y).sin(), (b * x - a * y).cos()
        outer = torch.tensor(
            [[[a * a, a * b], [a * b, b * b]], [[b * b, -a * b], [-a * b, a * a]]],
            dtype=torch.float64,
        )
        return -torch.stack([u, v], dim=1)[..., None, None] * outer


def test_operators_of_a_wave() -> None:
    wave, p = _Wave(), _points(20, 2).requires_grad_()
    values, first, second = wave(p), wave.first(p), wave.second(p)
    assert torch.allclose(gradient(values[:, :1], p), first[:, 0], rtol=0, atol=1e-14)
    assert torch.allclose(jacobian(values, p), first, rtol=0, atol=1e-14)
    assert torch.allclose(hessian(values, p), second, rtol=0, atol=1e-14)
    trace = first.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    assert torch.allclose(divergence(values, p), trace, rtol=0, atol=1e-14)
    size = _Wave.a**2 + _Wave.b**2
    assert torch.allclose(laplacian(values[:, 1:], p), -size * values[:, 1:], rtol=0, atol=1e-13)


def test_operators_can_be_nested() -> None:
    """The biharmonic of a wave is the fourth power of its wave vector times it."""
    wave, p = _Wave(), _points(5, 2).requires_grad_()
    values = wave(p)[:, :1]
    size = _Wave.a**2 + _Wave.b**2
    assert torch.allclose(laplacian(laplacian(values, p), p), size**2 * values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SWEEPS)
def test_any_module_is_differentiated(name: str) -> None:
    wave, p = _Wave(), _points(20, 2)
    _compare(name, SWEEPS[name](wave, p), wave(p), wave.first(p), wave.second(p), 1e-13)
    assert not p.requires_grad


def test_one_sine_layer_has_a_closed_form() -> None:
    """A SIREN of one neuron is sin(ω(ax + by + c)) itself."""
    net = Siren(2, 1, hidden_features=1, hidden_layers=0, first_omega_0=4.0).double()
    with torch.no_grad():
        net.net[0].linear.weight.copy_(torch.tensor([[0.3, -0.8]]))
        net.net[0].linear.bias.fill_(0.2)
        net.net[1].weight.fill_(1.0)
        net.net[1].bias.fill_(0.0)
    p = _points(15, 2)
    slope = 4 * torch.tensor([0.3, -0.8], dtype=torch.float64)
    phase = (p @ slope + 0.8)[:, None]
    first = phase.cos()[:, None] * slope
    second = -phase.sin()[..., None, None] * slope[:, None] * slope
    for name, sweep in SWEEPS.items():
        _compare(name, sweep(net, p), phase.sin(), first, second, 1e-6)  # weights were float32


def _compare(
    name: str,
    found: tuple[Tensor, ...],
    values: Tensor,
    first: Tensor,
    second: Tensor,
    tolerance: float,
) -> None:
    expected = [values, first]
    diagonal = second.diagonal(dim1=2, dim2=3)
    rest = {"laplacian": diagonal.sum(-1), "diagonal": diagonal, "hessian": second}
    if name in rest:
        expected.append(rest[name])
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).detach().abs().max()) <= tolerance


@forward_mode
@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize(
    ("dims", "channels", "last"), [(1, 1, True), (2, 1, True), (3, 2, True), (2, 3, False)]
)
def test_sweeps_equal_torch_func(name: str, dims: int, channels: int, last: bool) -> None:
    net, p = _net(dims, channels, last=last), _points(9, dims)

    def one(x: Tensor) -> Tensor:
        return net(x[None])[0]

    first, second = vmap(jacrev(one))(p), vmap(func_hessian(one))(p)
    _compare(name, SWEEPS[name](net, p), net(p), first, second, 1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_sweeps_equal_autograd(dims: int) -> None:
    net, p = _net(dims, dims), _points(9, dims).requires_grad_()
    values = net(p)
    first, second = jacobian(values, p), hessian(values, p)
    for name, sweep in SWEEPS.items():
        _compare(name, sweep(net, p), values, first, second, 1e-10)
    trace = first.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    assert torch.allclose(divergence(values, p), trace, rtol=0, atol=1e-11)
    diagonal = second[:, 0].diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    assert torch.allclose(laplacian(net(p)[:, :1], p), diagonal, rtol=0, atol=1e-10)


def test_sweeps_equal_finite_differences() -> None:
    net, p, step = _net(2, 2), _points(9, 2), 1e-4
    _, first, second = value_gradient_hessian(net, p)
    eye = torch.eye(2, dtype=torch.float64) * step
    with torch.no_grad():
        for i in range(2):
            slope = (net(p + eye[i]) - net(p - eye[i])) / (2 * step)
            assert float((first[..., i] - slope).abs().max()) < 1e-5
            for j in range(2):
                bend = (
                    net(p + eye[i] + eye[j])
                    - net(p + eye[i] - eye[j])
                    - net(p - eye[i] + eye[j])
                    + net(p - eye[i] - eye[j])
                ) / (4 * step**2)
                assert float((second[..., i, j] - bend).abs().max()) < 1e-4
        coarse = value_gradient(net, p + eye[0])[1] - value_gradient(net, p - eye[0])[1]
        assert float((coarse / (2 * step) - second[..., 0]).abs().max()) < 1e-5


def test_sweeps_in_single_precision_are_close_to_double() -> None:
    net, p = _net(2, 1, omega=30.0), _points(50, 2)
    exact = value_gradient_laplacian(net, p)
    rough = value_gradient_laplacian(net.float(), p.float())
    for one, other in zip(rough, exact, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).detach().abs().max()) < 1e-4 * float(other.detach().abs().max())


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("kind", ["siren", "mlp"])
def test_losses_of_derivatives_have_right_gradients(name: str, kind: str) -> None:
    """By all parameters, against finite differences of the loss."""
    generator = torch.Generator().manual_seed(0)
    shape = {"hidden_features": 4, "hidden_layers": 1, "generator": generator}
    net: nn.Module
    if kind == "siren":
        net = Siren(2, 2, omega_0=2.0, first_omega_0=2.0, **shape)
    else:
        net = CoordinateMLP(2, 2, activation="tanh", **shape)
    net = net.double()
    p = _points(4, 2)
    names = [key for key, _ in net.named_parameters()]

    def loss(*parameters: Tensor) -> Tensor:
        parts = _swapped(net, dict(zip(names, parameters, strict=True)), SWEEPS[name], p)
        return torch.stack([part.square().mean() for part in parts]).sum()

    start = tuple(q.detach().clone().requires_grad_() for q in net.parameters())
    assert torch.autograd.gradcheck(loss, start, atol=1e-6)


def _swapped(
    net: nn.Module,
    parameters: dict[str, Tensor],
    sweep: Callable[[nn.Module, Tensor], tuple[Tensor, ...]],
    p: Tensor,
) -> tuple[Tensor, ...]:
    """The sweep of the network with other parameters, differentiable by these."""

    class Swept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, coords: Tensor) -> tuple[Tensor, ...]:
            return sweep(self.inner, coords)

    state = {f"inner.{name}": value for name, value in parameters.items()}
    return functional_call(Swept(), state, (p,))


def test_no_points_and_no_gradient_graph() -> None:
    net = _net(2, 3)
    with torch.no_grad():
        for name, sweep in SWEEPS.items():
            parts = sweep(net, _points(5, 2))
            none = sweep(net, _points(5, 2)[:0])
            assert not any(part.requires_grad for part in parts), name
            assert [len(part) for part in none] == [0] * len(none)


def test_constant_fields_have_zero_derivatives() -> None:
    p = _points(4, 2).requires_grad_()
    values = torch.ones(4, 2, dtype=torch.float64)
    assert not jacobian(values, p).any()
    assert not divergence(values, p).any()
    assert not laplacian(p.sum(1, keepdim=True), p).any()


def test_shapes_are_checked() -> None:
    p = _points(4, 2)
    with pytest.raises(ValueError, match="requires_grad=True"):
        gradient(p[:, :1], p)
    p.requires_grad_()
    with pytest.raises(ValueError, match="use jacobian"):
        gradient(p * 2, p)
    with pytest.raises(ValueError, match="equal N"):
        jacobian(p[:2], p)
    with pytest.raises(ValueError, match="equal N"):
        hessian(p[:, 0], p)
    with pytest.raises(ValueError, match="shape of coords"):
        divergence(p[:, :1] * 2, p)
    with pytest.raises(ValueError, match=r"\[N, d\]"):
        value_gradient(_net(2, 1), p[0])
    with pytest.raises(ValueError, match=r"\[N, d\]"):
        value_gradient_hessian(_net(2, 1), p[0])
