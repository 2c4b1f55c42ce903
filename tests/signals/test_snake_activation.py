"""Snake the function and the layer: values, slopes, broadcasting, initialisation, refusals."""

from __future__ import annotations

import copy
import inspect
import math
import random
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.signals.snake import Snake, SnakeBeta, convert, snake, snake_init_, snake_variance

SOME_A = (1.0, 0.2, -1.3, 20.0, -50.0, 1e-3)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def naive(x, a):
    """The definition, for a that is not 0."""
    return x + torch.sin(a * x) ** 2 / a


@contextmanager
def untouched_generators():
    def states():
        numpy_state = np.random.get_state()  # noqa: NPY002 - the global state is watched
        return random.getstate(), numpy_state[1].tobytes(), torch.get_rng_state().tolist()

    before = states()
    yield
    assert states() == before


# -- values and slopes -------------------------------------------------------------------------


@pytest.mark.parametrize("a", SOME_A)
def test_values_are_the_closed_forms(a):
    x = torch.linspace(-4, 4, 401, dtype=torch.float64)
    y = snake(x, a)
    assert torch.allclose(y, naive(x, a), rtol=0, atol=1e-12)
    waves = x - torch.cos(2 * a * x) / (2 * a) + 1 / (2 * a)
    assert torch.allclose(y, waves, rtol=0, atol=1e-12)


@pytest.mark.parametrize("a", SOME_A)
def test_slopes_are_the_closed_forms(a):
    x = torch.linspace(-4, 4, 401, dtype=torch.float64).requires_grad_()
    each_a = torch.full_like(x, a).requires_grad_()
    along_x, along_a = torch.autograd.grad(snake(x, each_a).sum(), (x, each_a))
    with torch.no_grad():
        assert torch.allclose(along_x, 1 + torch.sin(2 * a * x), rtol=0, atol=1e-12)
        wanted = (a * x * torch.sin(2 * a * x) - torch.sin(a * x) ** 2) / a**2
        assert torch.allclose(along_a, wanted, rtol=1e-9, atol=1e-12)


def test_slope_lies_between_0_and_2():
    x = drawn(10_000).mul_(10).requires_grad_()
    (slope,) = torch.autograd.grad(snake(x, 3.0).sum(), x)
    assert slope.min() >= 0
    assert slope.max() <= 2
    assert slope.min() < 0.01
    assert slope.max() > 1.99


@pytest.mark.parametrize(
    ("shape", "a_shape"),
    [((7, 5), (5,)), ((7, 5), (7, 1)), ((3, 4, 5), (4, 1)), ((6,), ()), ((3, 4), (1, 1))],
)
def test_gradients_are_those_of_the_plain_formula_summed_over_what_shares_a(shape, a_shape):
    x, weights = drawn(*shape).requires_grad_(), drawn(*shape, seed=1)
    a = (drawn(*a_shape, seed=2).abs() + 0.5).requires_grad_()
    ours = torch.autograd.grad((snake(x, a) * weights).sum(), (x, a))
    plain = torch.autograd.grad((naive(x, a) * weights).sum(), (x, a))
    for one, other in zip(ours, plain, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-12)


def test_only_the_gradient_that_is_wanted():
    x, a = drawn(7, 3), doubles(1.0, 2.0, 3.0)
    both = (x.clone().requires_grad_(), a.clone().requires_grad_())
    snake(*both).square().sum().backward()
    alone = x.clone().requires_grad_()
    snake(alone, a).square().sum().backward()
    assert torch.equal(alone.grad, both[0].grad)
    only_a = a.clone().requires_grad_()
    snake(x, only_a).square().sum().backward()
    assert torch.equal(only_a.grad, both[1].grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_of_zero_is_the_limit(dtype):
    x = drawn(50, dtype=dtype)
    a = torch.zeros(50, dtype=dtype, requires_grad=True)
    y = snake(x, a)
    assert torch.equal(y, x)
    y.sum().backward()
    assert torch.allclose(a.grad, x**2, rtol=1e-6)
    x.requires_grad_()
    snake(x, 0.0).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("a", [1e-3, 1e-9, -1e-9, 1e-14, -1e-20, 1e-30])
def test_a_near_zero_has_no_cancellation(a):
    x = drawn(50, dtype=torch.float32).requires_grad_()
    some = torch.full((50,), a, requires_grad=True)
    y = snake(x, some)
    y.sum().backward()
    assert torch.allclose(y, x + a * x**2, rtol=1e-6, atol=1e-7)
    assert torch.allclose(some.grad, x.detach() ** 2, rtol=1e-4)
    assert torch.allclose(x.grad, 1 + 2 * a * x.detach(), rtol=1e-5)


def test_first_and_second_derivatives_by_finite_differences():
    x = drawn(4, 5).requires_grad_()
    a = doubles(0.0, 0.7, -1.3, 4.0, 1e-4).requires_grad_()
    assert torch.autograd.gradcheck(snake, (x, a))
    assert torch.autograd.gradgradcheck(snake, (x, a))


def test_fused_and_differentiable_backward_agree():
    x, weights = drawn(40, 4).requires_grad_(), drawn(40, 4, seed=1)
    a = doubles(0.0, 0.5, -3.0, 30.0).requires_grad_()
    loss = (snake(x, a) * weights).sum()
    fused = torch.autograd.grad(loss, (x, a), retain_graph=True)
    slow = torch.autograd.grad(loss, (x, a), create_graph=True)
    for one, other in zip(fused, slow, strict=True):
        assert not one.requires_grad
        assert other.requires_grad
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_per_sample_gradients_by_vmap():
    x, a = drawn(6, 3), doubles(0.0, -1.3, 20.0)

    def loss(row, a):
        return snake(row, a).square().sum()

    rows = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), (0, None))(x, a)
    for i in range(len(x)):
        row, each = x[i].clone().requires_grad_(), a.clone().requires_grad_()
        wanted = torch.autograd.grad(loss(row, each), (row, each))
        for got, want in zip(rows, wanted, strict=True):
            assert torch.allclose(got[i], want, rtol=1e-10, atol=1e-12)


# -- precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounded_result_of_single(dtype):
    x = drawn(200, dtype=torch.float32).to(dtype).requires_grad_()
    a = torch.tensor(50.0, requires_grad=True)
    y = snake(x, a)
    wide, wide_a = x.detach().float().requires_grad_(), a.detach().clone().requires_grad_()
    wanted = snake(wide, wide_a)
    assert y.dtype == dtype
    assert torch.equal(y, wanted.to(dtype))
    y.sum().backward()
    wanted.sum().backward()
    assert (x.grad.dtype, a.grad.dtype) == (dtype, torch.float32)
    assert torch.equal(x.grad, wide.grad.to(dtype))
    assert torch.allclose(a.grad, wide_a.grad, rtol=1e-5)


def test_parameters_in_half_precision():
    layer = Snake(3, 2.0).to(torch.bfloat16)
    x = drawn(8, 3).to(torch.bfloat16)
    y = layer(x)
    assert torch.equal(y, snake(x.float(), 2.0).to(torch.bfloat16))
    y.sum().backward()
    assert layer.a.grad.dtype == torch.bfloat16


def test_trains_under_autocast():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), Snake(16, 5.0), nn.Linear(16, 1))
    x = drawn(32, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = net[1](net[0](x))
        loss = net(x).float().square().mean()
    assert hidden.dtype == torch.bfloat16
    loss.backward()
    assert torch.isclose(loss, net(x).square().mean(), rtol=0.05)
    for parameter in net.parameters():
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).any()


# -- the layer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Snake, SnakeBeta])
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 5, 6)])
@pytest.mark.parametrize("from_the_end", [False, True])
def test_channels_at_an_axis_are_a_permuted_plain_call(kind, shape, from_the_end):
    first = doubles(0.5, -2.0, 9.0)
    x = drawn(*shape)
    layer = kind(3, first, dim=1 - len(shape) if from_the_end else 1)
    plain = kind(3, first)
    y = layer(x)
    wanted = plain(x.movedim(1, -1)).movedim(-1, 1)
    assert y.shape == x.shape
    assert torch.equal(y, wanted)
    y.square().sum().backward()
    wanted.square().sum().backward()
    assert layer.a.grad.shape == (3,)
    assert torch.allclose(layer.a.grad, plain.a.grad, rtol=1e-10)


def test_several_feature_axes():
    first = drawn(2, 3).abs() + 0.1
    x = drawn(5, 2, 3)
    assert torch.equal(Snake((2, 3), first)(x), snake(x, first))
    long = drawn(5, 2, 3, 4)
    assert torch.equal(Snake([2, 3], first, dim=2)(long), snake(long, first[..., None]))


def test_one_a_for_all_features():
    x = drawn(5, 7)
    assert torch.equal(Snake(1, 3.0)(x), snake(x, 3.0))


def test_logscale_stores_logarithms_and_gives_the_same_values():
    x = drawn(6, 3)
    first = doubles(0.5, 2.0, 9.0)
    layer, plain = Snake(3, first, logscale=True), Snake(3, first)
    assert torch.allclose(layer.a, first.log())
    assert torch.allclose(layer(x), plain(x), rtol=1e-12)
    layer(x).sum().backward()
    plain(x).sum().backward()
    assert torch.allclose(layer.a.grad, plain.a.grad * first, rtol=1e-10)
    beta = SnakeBeta(3, first, first, logscale=True)
    assert torch.allclose(beta(x), plain(x), rtol=1e-12)


def test_snake_beta_has_a_magnitude_of_its_own():
    x, a, b = drawn(6, 3), doubles(0.5, -2.0, 9.0), doubles(2.0, -1.0, 0.5)
    layer = SnakeBeta(3, a, b)
    assert torch.equal(layer(x), x + torch.sin(a * x) ** 2 / b)
    assert torch.allclose(SnakeBeta(3, a, a)(x), Snake(3, a)(x), rtol=1e-12)
    layer(x).sum().backward()
    assert torch.allclose(layer.a.grad, (x * torch.sin(2 * a * x) / b).sum(0))
    assert torch.allclose(layer.b.grad, -(torch.sin(a * x) ** 2 / b**2).sum(0))
    assert list(layer.state_dict()) == ["a", "b"]


def test_snake_beta_keeps_half_precision():
    x = drawn(9, 3).to(torch.bfloat16)
    y = SnakeBeta(3, 20.0, 4.0)(x)
    assert torch.equal(y, SnakeBeta(3, 20.0, 4.0)(x.float()).to(torch.bfloat16))


def test_signature_and_state_are_those_of_torch_snake():
    positional = list(inspect.signature(Snake).parameters.values())[:3]
    assert [p.name for p in positional] == ["in_features", "a", "trainable"]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in positional)
    layer = Snake(4, 0.5, True)
    assert list(layer.state_dict()) == ["a"]
    assert layer.a.shape == (4,)
    assert layer.a.dtype == torch.float32
    layer.load_state_dict({"a": torch.arange(4.0)})
    assert layer.a.tolist() == [0, 1, 2, 3]


def test_trainable_or_not():
    assert [name for name, _ in Snake(2, 1.0).named_parameters()] == ["a"]
    fixed = Snake(2, 1.0, False)
    assert not list(fixed.parameters())
    assert list(fixed.state_dict()) == ["a"]


def test_exponential_start_comes_from_the_generator():
    def make():
        return Snake(50_000, "exponential", generator=torch.Generator().manual_seed(3))

    with untouched_generators():
        first, again = make().a.detach(), make().a.detach()
    assert torch.equal(first, again)
    assert (first > 0).all()
    assert abs(float(first.mean()) - 1) < 0.02
    assert abs(float((first > 1).float().mean()) - math.exp(-1)) < 0.01


@pytest.mark.parametrize("layer", [Snake(3, 2.0), SnakeBeta(3, 2.0, 5.0, dim=1, logscale=True)])
def test_a_copy_stands_on_its_own(layer):
    x = drawn(2, 3, 3, dtype=torch.float32)
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(x), layer(x))
    with torch.no_grad():
        copied.a += 1
    assert not torch.equal(copied(x), layer(x))
    assert repr(copied) == repr(layer)


def test_a_copy_of_a_tensor_of_first_values():
    first = torch.ones(3)
    layer = Snake(3, first)
    with torch.no_grad():
        layer.a += 1
    assert first.tolist() == [1, 1, 1]


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [math.nan, math.inf, -math.inf])
def test_a_that_is_not_finite_is_refused(a):
    with pytest.raises(ValueError, match="snake: a must be finite"):
        snake(torch.zeros(2), a)
    for given in (a, torch.tensor([1.0, a])):
        with pytest.raises(ValueError, match="Snake: a must be finite"):
            Snake(2, given)
        with pytest.raises(ValueError, match="SnakeBeta: b must be finite"):
            SnakeBeta(2, 1.0, given)
    with pytest.raises(ValueError, match="a must be finite"):
        snake_variance(a)
    with pytest.raises(ValueError, match="a must be finite"):
        snake_init_(nn.Linear(2, 2), a)


@pytest.mark.parametrize("a", [0.0, -1.0])
def test_logscale_needs_positive_a(a):
    with pytest.raises(ValueError, match="a must be positive with logscale"):
        Snake(2, a, logscale=True)


def test_magnitude_of_zero_is_refused():
    with pytest.raises(ValueError, match="b must not be 0"):
        SnakeBeta(2, 1.0, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("kind", [Snake, SnakeBeta])
def test_wrong_channels_name_both_shapes(kind):
    for layer, shape, expected in (
        (kind(3), (2, 5), r"\(3\) features ending at axis -1.*\(2, 5\)"),
        (kind(3), (2, 1), r"\(3\) features ending at axis -1.*\(2, 1\)"),
        (kind(3, dim=1), (2, 4, 3), r"\(3\) features ending at axis 1.*\(2, 4, 3\)"),
        (kind(3, dim=1), (3,), r"\(3\) features ending at axis 1.*\(3,\)"),
        (kind((2, 3)), (7, 3, 2), r"\(2, 3\) features ending at axis -1.*\(7, 3, 2\)"),
        (kind((2, 3)), (3,), r"\(2, 3\) features ending at axis -1.*\(3,\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            layer(torch.zeros(shape))


def test_other_bad_arguments_name_themselves():
    with pytest.raises(ValueError, match=r"a of shape \(4,\) does not broadcast.*\(2, 3\)"):
        snake(torch.zeros(2, 3), torch.ones(4))
    with pytest.raises(ValueError, match=r"a of shape \(2, 3\) does not broadcast.*\(3,\)"):
        snake(torch.zeros(3), torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"x must be.*int64"):
        snake(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"x must be.*complex64"):
        snake(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"a must be.*int64"):
        snake(torch.zeros(3), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="in_features must be"):
        Snake(0)
    with pytest.raises(ValueError, match="in_features must be"):
        Snake(())
    with pytest.raises(ValueError, match="'exponential', got 'uniform'"):
        Snake(2, "uniform")
    with pytest.raises(ValueError, match=r"a of shape \(3,\) does not fit in_features \(2,\)"):
        Snake(2, torch.ones(3))


# -- convert -----------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block, its activation used twice and held under two names."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.act = nn.ReLU()
        self.same = self.act

    def forward(self, x):
        return self.same(self.act(x) + self.body(x))


def test_convert_replaces_in_place_at_every_depth():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ModuleList([Block()])[0], nn.Tanh())
    weights = list(net.parameters())
    assert convert(net, a=2.0) is net
    assert not any(isinstance(m, nn.ReLU) for m in net.modules())
    assert isinstance(net[2].body[1], Snake)
    assert net[2].act is net[2].same
    assert isinstance(net[3], nn.Tanh)
    assert len([m for m in net.modules() if isinstance(m, Snake)]) == 3
    kept = {id(p) for p in net.parameters()}
    assert all(id(p) in kept for p in weights)
    x = drawn(5, 4, dtype=torch.float32)
    first = snake(net[0](x), 2.0)
    inner = snake(net[2].body[0](first), 2.0)
    wanted = torch.tanh(snake(snake(first, 2.0) + inner, 2.0))
    assert torch.allclose(net(x), wanted, rtol=1e-6)


def test_convert_other_kinds():
    net = nn.Sequential(nn.GELU(), nn.SiLU(), nn.ReLU()).eval()
    convert(net, (nn.GELU, nn.SiLU), trainable=False)
    assert [type(m) for m in net] == [Snake, Snake, nn.ReLU]
    assert not list(net.parameters())
    assert not net[0].training
    assert isinstance(convert(nn.ReLU()), Snake)
    double = convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()).double())
    assert double(drawn(3, 2)).dtype == torch.float64


def test_convert_without_anything_to_replace():
    with pytest.raises(ValueError, match="convert: the model holds no module of"):
        convert(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))


# -- variance and initialisation ---------------------------------------------------------------


@pytest.mark.parametrize("a", [0.01, 0.2, 0.56, 1.0, -1.0, 3.0, 30.0])
def test_variance_is_that_of_a_sample(a):
    sample = snake(drawn(400_000, seed=5), a)
    assert float(sample.var()) == pytest.approx(snake_variance(a), rel=0.01)


@pytest.mark.parametrize("a", [0.2, 0.56, 1.0, 3.0])
def test_variance_is_the_integral_and_the_printed_formula(a):
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    weights = weights / weights.sum()
    y = naive(torch.tensor(nodes), a).numpy()
    integral = weights @ (y - weights @ y) ** 2
    assert snake_variance(a) == pytest.approx(integral, rel=1e-9)
    formula = 1 + (1 + math.exp(-8 * a**2) - 2 * math.exp(-4 * a**2)) / (8 * a**2)
    assert snake_variance(a) == pytest.approx(formula, rel=1e-12)


def test_variance_at_the_ends():
    for a in (0.0, 1e-200, 1e200):
        assert snake_variance(a) == 1.0
    grid = np.linspace(0.01, 3, 300)
    values = [snake_variance(a) for a in grid]
    assert max(values) == pytest.approx(1.204, abs=0.001)
    assert grid[int(np.argmax(values))] == pytest.approx(0.56, abs=0.011)


@pytest.mark.parametrize("a", [None, 0.56, 1.0, 20.0])
def test_initial_weights_keep_the_variance(a):
    layer = nn.Linear(400, 300).double()
    with untouched_generators():
        assert snake_init_(layer, a, generator=torch.Generator().manual_seed(1)) is layer
    variance = 1.0 if a is None else snake_variance(a)
    bound = math.sqrt(3 / 400 / variance)
    weights = layer.weight.detach()
    assert float(weights.abs().max()) <= bound
    assert float(weights.abs().max()) > 0.999 * bound
    assert float(weights.var()) == pytest.approx(1 / 400 / variance, rel=0.01)
    assert not layer.bias.any()
    x = drawn(2000, 400, seed=2)
    with torch.no_grad():
        out = layer(x if a is None else snake(x, a))
    assert float(out.var(0).mean()) == pytest.approx(1, rel=0.02)


def test_initial_weights_of_convolutions_count_the_whole_fan_in():
    layer = snake_init_(nn.Conv1d(6, 50, 5, groups=2, bias=False), 1.0)
    bound = math.sqrt(3 / 15 / snake_variance(1.0))
    largest = float(layer.weight.detach().abs().max())
    assert 0.98 * bound < largest <= bound
    first = snake_init_(nn.Linear(5, 5), 1.0, generator=torch.Generator().manual_seed(0))
    again = snake_init_(nn.Linear(5, 5), 1.0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.weight, again.weight)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.LayerNorm(3)])
def test_initialisation_needs_a_matrix(layer):
    with pytest.raises(TypeError, match=f"linear or a convolution, got {type(layer).__name__}"):
        snake_init_(layer, 1.0)


def test_no_warning_at_extreme_a():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = drawn(20, dtype=torch.float32).requires_grad_()
        a = torch.tensor([0.0, 1e-38, 1e4, -1e4] * 5, requires_grad=True)
        y = snake(x, a)
        y.sum().backward()
    for tensor in (y, x.grad, a.grad):
        assert torch.isfinite(tensor).all()
