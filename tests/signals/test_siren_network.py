"""The network: its initial law, its equality with the plain form, its derivatives of all kinds."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.func import functional_call, hessian, jacfwd, jvp, stack_module_state, vmap

from mmxx.signals.siren import BatchedSiren, SineLayer, Siren, _sine, batched_siren, uniform_points
from mmxx.signals.siren._sine import sine_and_cosine_layer, sine_layer


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(n: int, dims: int, seed: int = 1) -> Tensor:
    return uniform_points(n, dims, generator=_seeded(seed))


def _small(**changes: object) -> Siren:
    settings = {"hidden_features": 16, "hidden_layers": 2, "generator": _seeded(), **changes}
    return Siren(2, 3, **settings)  # type: ignore[arg-type]


def _colab(net: Siren, coords: Tensor) -> Tensor:
    """The plain form: a linear layer, its result times the frequency, the sine."""
    for layer in net.net:
        if isinstance(layer, SineLayer):
            linear = layer.linear
            coords = torch.sin(layer.omega_0 * (coords @ linear.weight.t() + linear.bias))
        else:
            coords = coords @ layer.weight.t() + layer.bias
    return coords


# torch's own forward mode compiles its decompositions in a way that it warns of.
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["fused", "torch"])
def path(request: pytest.FixtureRequest, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of taking the sines."""
    if request.param == "torch":
        monkeypatch.setattr(_sine, "_FEW_THREADS", 0)
    return request.param


# -- initialisation ----------------------------------------------------------------------------


def _distance(values: np.ndarray, law: Callable[[np.ndarray], np.ndarray]) -> float:
    """Kolmogorov's distance of a sample to a law."""
    values = np.sort(values.ravel()[::7].astype(float))
    below = law(values)
    ranks = np.arange(len(values) + 1) / len(values)
    return float(max((ranks[1:] - below).max(), (below - ranks[:-1]).max()))


def _arcsine(s: np.ndarray) -> np.ndarray:
    return 0.5 + np.arcsin(np.clip(s, -1, 1)) / math.pi


def _sine_of_normal(variance: float) -> Callable[[np.ndarray], np.ndarray]:
    """The distribution of sin z for z of N(0, variance), turn by turn."""

    def law(s: np.ndarray) -> np.ndarray:
        angle, deviation = np.arcsin(np.clip(s, -1, 1)), math.sqrt(variance)
        turns = 2 * math.pi * np.arange(-2, 3)[:, None]
        high, low = (turns + angle) / deviation, (turns - math.pi - angle) / deviation
        return (norm.cdf(high) - norm.cdf(low)).sum(0)

    return law


def test_initial_statistics_at_every_depth() -> None:
    """Phases are normal, of the variance that the weights' law implies, and do not drift.

    A weight matrix adds the mean square of the sines times 2, and a bias, which the frequency
    multiplies too, adds ω² / 3n. The mean square of sin z is (1 - exp(-2 v)) / 2 for a normal z.
    """
    width, omega = 1024, 30.0
    net = Siren(2, 1, hidden_features=width, hidden_layers=7, generator=_seeded(1))
    with torch.no_grad():
        layers = net.activations(_points(384, 2))
    assert len(layers) == 8
    assert _distance(layers[0][1].numpy(), _arcsine) < 0.02
    from_weights = 1.0  # the first sines are of arcsine law, of mean square 1/2
    for index, (phases, sines) in enumerate(layers[1:], start=1):
        layer = net.net[index]
        assert isinstance(layer, SineLayer)
        without_bias = phases - omega * layer.linear.bias.detach()
        assert float(without_bias.std()) == pytest.approx(math.sqrt(from_weights), abs=0.05)
        variance = from_weights + omega**2 / (3 * width)
        assert float(phases.std()) == pytest.approx(math.sqrt(variance), abs=0.05)
        assert _distance(sines.numpy(), _sine_of_normal(variance)) < 0.02
        assert _distance(sines.numpy(), _arcsine) < 0.05
        from_weights = 1 - math.exp(-2 * variance)


def test_initial_bounds() -> None:
    net = Siren(3, 64, hidden_features=128, hidden_layers=1, omega_0=20.0, generator=_seeded())
    first, second, last = (getattr(layer, "linear", layer) for layer in net.net)
    hidden = math.sqrt(6 / 128) / 20
    for linear, bound, fan_in in ((first, 1 / 3, 3), (second, hidden, 128), (last, hidden, 128)):
        weight, bias = linear.weight.detach(), linear.bias.detach()
        for values, limit in ((weight, bound), (bias, 1 / math.sqrt(fan_in))):
            assert 0.9 * limit < float(values.abs().max()) <= limit
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_generator_decides_the_weights_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    one, other = _small(generator=_seeded(5)), _small(generator=_seeded(5))
    different = _small(generator=_seeded(6))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    for a, b, c in zip(one.parameters(), other.parameters(), different.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_without_a_generator_torch_decides() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one = _small(generator=None)
        torch.manual_seed(3)
        other = _small(generator=None)
    assert torch.equal(one.net[0].linear.weight, other.net[0].linear.weight)


# -- equality with the plain form ----------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1.5e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("outermost_linear", [True, False])
def test_equals_the_plain_form(
    path: str, dtype: torch.dtype, tolerance: float, outermost_linear: bool
) -> None:
    net = Siren(
        2,
        3,
        hidden_features=64,
        first_omega_0=20.0,
        outermost_linear=outermost_linear,
        generator=_seeded(),
    ).to(dtype)
    coords = _points(400, 2).to(dtype)
    ours, plain = net(coords), _colab(net, coords)
    if not outermost_linear:  # a further frequency of 30 lies between rounding and the result
        tolerance *= 20
    assert float((ours - plain).detach().abs().max()) <= tolerance
    with torch.no_grad():
        assert float((net(coords) - plain).abs().max()) <= tolerance
    targets = torch.randn(400, 3, generator=_seeded(2)).to(dtype)
    found = torch.autograd.grad((ours - targets).square().mean(), list(net.parameters()))
    expected = torch.autograd.grad((plain - targets).square().mean(), list(net.parameters()))
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.abs().max()))
        assert float((one - other).abs().max()) <= tolerance * scale


def test_activations_are_those_of_the_forward_pass() -> None:
    net, coords = _small(), _points(9, 2)
    layers = net.activations(coords)
    assert len(layers) == 3
    for phases, sines in layers:
        assert torch.equal(sines, torch.sin(phases))
    assert torch.allclose(net.net[-1](layers[-1][1]), net(coords), atol=1e-6)


def test_leading_axes_are_kept(path: str) -> None:
    net, coords = _small(), _points(24, 2)
    flat = net(coords)
    assert torch.allclose(net(coords.reshape(2, 3, 4, 2)).reshape(24, 3), flat, atol=1e-6)
    assert torch.allclose(net(coords[0]), flat[0], atol=1e-6)
    assert net(coords[:0]).shape == (0, 3)
    assert net(coords.t().contiguous().t()).shape == (24, 3)


# -- the fused path ------------------------------------------------------------------------------


def test_fused_sine_and_cosine_are_exact_to_single_precision() -> None:
    from mmxx.signals.siren import _fused

    rng = np.random.default_rng(0)
    quadrants = np.arange(-64, 65) * (math.pi / 4)
    phases = np.concatenate(
        [
            rng.normal(size=4000),
            rng.uniform(-300, 300, 4000),
            rng.uniform(-9e4, 9e4, 4000),
            quadrants,
        ]
    ).astype(np.float32)
    offset = np.array([0.0, 0.5, -0.25], np.float32)
    cosine = np.repeat(phases[:, None], 3, 1)
    phases = (cosine + offset).astype(np.float32)
    sine = np.empty_like(phases)
    assert not _fused.sine_and_cosine(cosine, offset, sine, cosine)
    assert np.abs(sine - np.sin(phases.astype(float))).max() < 1e-6
    assert np.abs(cosine - np.cos(phases.astype(float))).max() < 1e-6
    near = np.abs(phases) < 300
    assert np.abs(sine - np.sin(phases.astype(float)))[near].max() < 2e-7
    large, none = np.full((2, 3), 2e5, np.float32), np.zeros(3, np.float32)
    assert _fused.sine_and_cosine(large, none, np.empty_like(large), large)


def test_fused_products_and_sums() -> None:
    from mmxx.signals.siren import _fused

    a, b = np.random.default_rng(0).normal(size=(2, 300, 7)).astype(np.float32)
    product, sums = np.empty_like(a), np.ones(7, np.float32)
    _fused.product_and_sums(a, b, product, sums)
    assert np.array_equal(product, a * b)
    assert np.allclose(sums, 1 + (a.astype(float) * b).sum(0), atol=1e-4)


@pytest.mark.parametrize(("size", "rows"), [(1.0, 16), (1.0, 50), (100.0, 50), (1e6, 16)])
def test_fused_layer_equals_that_of_torch(
    size: float, rows: int, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of several rows, and also where phases are so large that it gives up."""
    monkeypatch.setattr(_sine, "_PIECE", 8 * rows)
    weight = torch.randn(8, 3, generator=_seeded()).requires_grad_()
    bias = torch.randn(8, generator=_seeded(1)).requires_grad_()
    inputs = (size * torch.randn(50, 3, generator=_seeded(2))).requires_grad_()
    upstream = torch.randn(50, 8, generator=_seeded(3))
    results = []
    for few in (8, 0):
        monkeypatch.setattr(_sine, "_FEW_THREADS", few)
        output = sine_layer(inputs, weight, bias, 2.0)
        grads = torch.autograd.grad(output, (inputs, weight, bias), upstream)
        results.append((output, *grads))
    for fused, plain in zip(*results, strict=True):
        scale = max(1.0, float(plain.detach().abs().max()))
        assert float((fused - plain).detach().abs().max()) <= 2e-6 * scale


def test_cosine_comes_with_the_sine(path: str) -> None:
    layer, inputs = SineLayer(2, 8, generator=_seeded()), _points(20, 2)
    sine, cosine = layer.with_cosine(inputs)
    phases = layer.phases(inputs)
    assert torch.allclose(sine, torch.sin(phases), atol=2e-6)
    assert torch.allclose(cosine, torch.cos(phases), atol=2e-6)
    with torch.no_grad():
        plain_sine, plain_cosine = layer.with_cosine(inputs)
    assert torch.allclose(sine, plain_sine, atol=2e-6)
    assert torch.allclose(cosine, plain_cosine, atol=2e-6)


# -- derivatives ---------------------------------------------------------------------------------


def _doubles() -> tuple[Tensor, Tensor, Tensor]:
    return tuple(
        torch.randn(*size, generator=_seeded(i), dtype=torch.float64).requires_grad_()
        for i, size in enumerate([(4, 2), (3, 2), (3,)])
    )  # type: ignore[return-value]


@forward_mode
def test_first_and_second_derivatives_of_the_layer() -> None:
    def layer(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return sine_layer(x, w, b, 3.0)

    def with_cosine(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return sine_and_cosine_layer(x, w, b, 3.0)

    for function in (layer, with_cosine):
        assert torch.autograd.gradcheck(function, _doubles(), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, _doubles())


def test_only_some_inputs_need_a_gradient(path: str) -> None:
    weight, bias, inputs = torch.randn(3, 2), torch.randn(3), torch.randn(4, 2)
    for chosen in (weight, bias, inputs):
        chosen.requires_grad_()
        (found,) = torch.autograd.grad(sine_layer(inputs, weight, bias, 2.0).sum(), chosen)
        plain = torch.sin(2.0 * (inputs @ weight.t() + bias)).sum()
        (expected,) = torch.autograd.grad(plain, chosen)
        assert torch.allclose(found, expected, atol=1e-5)
        chosen.requires_grad_(False)


def test_a_loss_of_the_gradient_is_differentiated(path: str) -> None:
    """Backward through backward, as a loss of derivatives needs it."""
    net, coords = _small(), _points(30, 2).requires_grad_()

    def of(values: Tensor) -> list[Tensor]:
        (slope,) = torch.autograd.grad(values.sum(), coords, create_graph=True)
        return list(
            torch.autograd.grad(slope.square().mean(), list(net.parameters()), allow_unused=True)
        )

    *found, last_found = of(net(coords))
    *expected, last_expected = of(_colab(net, coords))
    assert last_found is None or not last_found.any()
    assert last_expected is None or not last_expected.any()
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=2e-4, atol=2e-5 * float(other.abs().max()))


@forward_mode
def test_function_transforms() -> None:
    net = _small().double()
    coords = _points(6, 2).double()

    def one(x: Tensor) -> Tensor:
        return net(x[None])[0]

    assert torch.allclose(vmap(one)(coords), net(coords), rtol=0, atol=1e-13)
    direction = torch.randn(6, 2, generator=_seeded(4), dtype=torch.float64)
    value, slope = jvp(net, (coords,), (direction,))
    step = 1e-6
    finite = (net(coords + step * direction) - net(coords - step * direction)) / (2 * step)
    assert torch.allclose(value, net(coords), rtol=0, atol=1e-13)
    assert torch.allclose(slope, finite, atol=1e-6)
    jacobians = vmap(jacfwd(one))(coords)
    assert torch.allclose(
        torch.einsum("ncd,nd->nc", jacobians, direction), slope, rtol=0, atol=1e-12
    )
    curved = vmap(hessian(one))(coords)
    assert torch.allclose(curved, curved.transpose(-1, -2), rtol=0, atol=1e-10)
    expected = vmap(hessian(lambda x: _colab(net, x)))(coords)
    assert torch.allclose(curved, expected, rtol=0, atol=1e-10)


@forward_mode
def test_forward_mode_outside_of_the_transforms() -> None:
    from torch.autograd import forward_ad

    net, coords = _small().double(), _points(6, 2).double()
    direction = torch.ones_like(coords)
    with forward_ad.dual_level():
        dual = net(forward_ad.make_dual(coords, direction))
        slope = forward_ad.unpack_dual(dual).tangent
    assert slope is not None
    assert torch.allclose(slope, jvp(net, (coords,), (direction,))[1], rtol=0, atol=1e-12)


# -- many at once --------------------------------------------------------------------------------


def test_batched_networks_equal_single_ones() -> None:
    networks = [_small(generator=_seeded(seed), first_omega_0=10.0).double() for seed in range(4)]
    fields = BatchedSiren(networks)
    shared = _points(11, 2).double()
    own = torch.stack([_points(11, 2, seed).double() for seed in range(4)])
    for coords, each in ((shared, [shared] * 4), (own, list(own))):
        expected = torch.stack([net(x) for net, x in zip(networks, each, strict=True)])
        assert torch.allclose(fields(coords), expected, rtol=0, atol=1e-13)
    fields(own).square().sum().backward()
    networks[2](own[2]).square().sum().backward()
    single = [p.grad for p in networks[2].parameters()]
    batched = [p.grad[2] for pair in zip(fields.weights, fields.biases, strict=True) for p in pair]
    for one, other in zip(single, batched, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_stacked_parameters_under_vmap_equal_batched_ones() -> None:
    networks = [_small(generator=_seeded(seed)) for seed in range(3)]
    coords = _points(7, 2)
    parameters, buffers = stack_module_state(networks)

    def call(state: dict[str, Tensor], rest: dict[str, Tensor]) -> Tensor:
        return functional_call(networks[0], (state, rest), (coords,))

    assert torch.allclose(
        vmap(call)(parameters, buffers), BatchedSiren(networks)(coords), atol=2e-6
    )


def test_batched_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BatchedSiren([])
    with pytest.raises(ValueError, match="equal shapes"):
        BatchedSiren([_small(), _small(hidden_features=8)])
    with pytest.raises(ValueError, match="equal shapes and frequencies"):
        BatchedSiren([_small(), _small(omega_0=10.0)])
    with pytest.raises(ValueError, match="linear layer"):
        BatchedSiren([_small(outermost_linear=False)])
    with pytest.raises(ValueError, match="one longer than omegas"):
        batched_siren([torch.ones(1, 2, 2)], [torch.zeros(1, 2)], torch.zeros(3, 2), [1.0])


# -- the module as a module ----------------------------------------------------------------------


def test_names_are_those_of_the_authors_notebook() -> None:
    names = list(_small().state_dict())
    assert names == [
        *(f"net.{i}.linear.{kind}" for i in range(3) for kind in ("weight", "bias")),
        "net.3.weight",
        "net.3.bias",
    ]


def test_deep_copy_and_state(path: str) -> None:
    net, coords = _small(), _points(9, 2)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(coords), net(coords))
    other = _small(generator=_seeded(9))
    assert not torch.equal(other(coords), net(coords))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(coords), net(coords))
    with torch.no_grad():
        twin.net[0].linear.weight.zero_()
    assert not torch.equal(twin(coords), net(coords))


def test_autocast_lowers_the_precision_of_hidden_products_only() -> None:
    net, coords = _small(hidden_features=64), _points(200, 2)
    exact = net(coords)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(coords)
        first = net.net[1:-1](net.net[0].phases(coords).float().sin())
    assert first.dtype == torch.float32  # sines are not taken in bfloat16
    assert rough.dtype == torch.float32
    error = float((rough - exact).detach().abs().max())
    assert 0 < error < 0.1 * float(exact.detach().abs().max())
    rough.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_sizes_and_frequencies_are_checked() -> None:
    for name in ("omega_0", "first_omega_0"):
        for bad in (0.0, -30.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name} must be positive"):
                Siren(2, 1, **{name: bad})
    for name in ("in_features", "out_features", "hidden_features"):
        with pytest.raises(ValueError, match=name):
            Siren(**{name: 0})
    with pytest.raises(ValueError, match="hidden_layers"):
        Siren(2, 1, hidden_layers=-1)
    with pytest.raises(ValueError, match="omega_0"):
        SineLayer(2, 2, omega_0=0.0)
    assert "omega_0=30" in repr(SineLayer(2, 2, generator=_seeded()))
