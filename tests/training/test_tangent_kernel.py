"""The tangent kernel: against derivatives written out, and what it refuses."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from mmxx.training.tangent import NTKLinear, Scaled, jacobian, ntk, ntk_mlp
from mmxx.training.tangent.factors import capture

F = nn.functional


class Attention(nn.Module):
    """Tokens through an embedding and a whole layer of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.layer(self.table(tokens)).mean(1))


class Twice(nn.Module):
    """A layer that is called three times in one run."""

    def __init__(self, layer: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, x):
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(self.layer(x))))))


class Tied(nn.Module):
    """A head with the weight of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.mix(self.table(tokens).mean(1))))


class Loose(nn.Module):
    """Parameters that lie in no layer, and one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.5, -0.5]))
        self.unused = nn.Parameter(torch.ones(3))
        self.layer = nn.Linear(5, 2)

    def forward(self, x):
        return torch.sin(self.scale * self.layer(x))


class Scalar(nn.Module):
    """One output without an axis of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x):
        return self.net(x)[:, 0]


class Exponential(nn.Module):
    """A weight that is computed from another parameter."""

    def forward(self, logarithm):
        return logarithm.exp()


class Computed(nn.Sequential):
    def __init__(self) -> None:
        layer = nn.Linear(4, 3)
        nn.utils.parametrize.register_parametrization(layer, "weight", Exponential())
        super().__init__(layer)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tokens(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def _settled(net: nn.Module) -> nn.Module:
    """Batch normalisation with statistics and weights that are not 0 and 1."""
    for part in net.modules():
        if isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
            for value in (*part.parameters(), *(b for b in part.buffers() if b.ndim)):
                value.data = 0.5 + torch.rand(
                    value.shape, generator=torch.Generator().manual_seed(2)
                )
    return net


NETS = {
    "linear": lambda: (nn.Linear(4, 3), normal(5, 4)),
    "in-place": lambda: (
        nn.Sequential(nn.Linear(7, 9), nn.ReLU(inplace=True), nn.Linear(9, 3, bias=False)),
        normal(5, 7),
    ),
    "ntk": lambda: (
        nn.Sequential(*ntk_mlp((7, 8, 8), nn.SiLU), NTKLinear(8, 2, bias=True, bias_scale=0.3)),
        normal(5, 7),
    ),
    "scalar": lambda: (Scalar(), normal(5, 5)),
    "sequence": lambda: (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Flatten(), nn.Linear(24, 2)),
        normal(5, 6, 3),
    ),
    "conv": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, (3, 2), groups=2, padding="same", padding_mode="reflect"), nn.SiLU(),
            nn.Flatten(), nn.LayerNorm(96), nn.Linear(96, 3), nn.BatchNorm1d(3),
        ),
        normal(5, 2, 8, 8),
    ),
    "conv1d": lambda: (
        nn.Sequential(
            nn.Conv1d(2, 4, 3, dilation=2), nn.BatchNorm1d(4), nn.Tanh(),
            nn.Conv1d(4, 3, 2, padding="valid", bias=False), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        ),
        normal(5, 2, 12),
    ),
    "many-places": lambda: (
        nn.Sequential(nn.Conv2d(1, 2, 2, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 9)),
        normal(5, 1, 8, 8),
    ),
    "attention": lambda: (Attention(), tokens(11, 5, 6)),
    "three-calls": lambda: (Twice(nn.Linear(4, 4), nn.Linear(4, 2)), normal(5, 4)),
    "three-norms": lambda: (Twice(nn.LayerNorm(4), nn.Linear(4, 2)), normal(5, 4)),
    "tied": lambda: (Tied(), tokens(7, 5, 3)),
    "loose": lambda: (Loose(), normal(5, 5)),
    "computed-weight": lambda: (Computed(), normal(5, 4)),
}  # fmt: skip


def make(name: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = NETS[name]()
    if name == "many-places":
        net = nn.Sequential(net, nn.Flatten())
    return _settled(net).double().eval(), x


def written_out(net, x, other):
    """The kernel from the derivatives by every parameter, [N, M, C, C]."""
    values = {name: value.detach() for name, value in net.named_parameters()}

    def call(params, sample):
        return functional_call(net, params, (sample[None],)).reshape(-1)

    parts = [
        torch.cat([j.flatten(2) for j in vmap(jacrev(call), (None, 0))(values, some).values()], 2)
        for some in (x, other)
    ]
    return torch.einsum("ncp,mdp->nmcd", *parts)


def close(one, other, tolerance=1e-12):
    return float((one - other).norm()) <= tolerance * float(other.norm()) + 1e-300


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", NETS)
def test_all_methods_agree_with_the_derivatives_written_out(name):
    net, x = make(name)
    expected = written_out(net, x, x)
    mean = expected.diagonal(dim1=2, dim2=3).mean(2)
    shown = mean if name == "scalar" else expected
    own = torch.stack([shown[i, i] for i in range(len(x))])
    for method in ("auto", "jacobian", "ntvp"):
        for batch in (None, 2):
            options = {"method": method, "batch": batch}
            assert close(ntk(net, x, **options), shown), (method, batch)
            assert close(ntk(net, x[:3], x, **options), shown[:3]), (method, batch)
            assert close(ntk(net, x, trace=True, **options), mean), (method, batch)
            assert close(ntk(net, x, x[1:], trace=True, **options), mean[:, 1:]), (method, batch)
            assert close(ntk(net, x, diagonal=True, **options), own), (method, batch)
        found = ntk(net, x, diagonal=True, trace=True, method=method)
        assert close(found, mean.diagonal())


def test_single_precision_agrees_with_double():
    net, x = make("in-place")
    expected = ntk(net, x)
    assert close(ntk(net.float(), x.float()).double(), expected, 2e-6)


def test_a_saturated_output_passes_for_what_it_is():
    """Its derivatives are nearly rounding alone; those it is checked with are of the same run."""
    net, x = make("in-place")
    net = nn.Sequential(net, nn.Tanh()).float()
    net[0][2].weight.data *= 30
    assert bool((net(x.float()).abs() > 0.9999).any())
    assert torch.isfinite(ntk(net, x.float())).all()


def test_a_linear_layer_has_the_kernel_of_its_inputs():
    x = normal(4, 6)
    net = nn.Linear(6, 3).double()
    expected = torch.einsum("nm,cd->nmcd", x @ x.T + 1, torch.eye(3, dtype=torch.float64))
    assert close(ntk(net, x), expected, 1e-15)
    assert close(ntk(NTKLinear(6, 3).double(), x, trace=True), x @ x.T / 6, 1e-15)


def test_it_is_symmetric_and_has_no_negative_eigenvalue():
    net, x = make("conv")
    kernel = ntk(net, x, batch=2)
    assert torch.equal(kernel, kernel.permute(1, 0, 3, 2)) or close(
        kernel, kernel.permute(1, 0, 3, 2), 1e-15
    )
    whole = kernel.transpose(1, 2).reshape(15, 15)
    assert torch.linalg.eigvalsh(whole).min() > -1e-12 * torch.linalg.eigvalsh(whole).max()


def test_only_the_parameters_that_are_named_count():
    net, x = make("in-place")
    total = torch.zeros((), dtype=torch.float64)
    for name, value in net.named_parameters():
        for method in ("auto", "jacobian", "ntvp"):
            part = ntk(net, x, params={name: value}, method=method)
        total = total + part
    assert close(total, ntk(net, x))
    net[0].bias.requires_grad_(False)
    assert close(ntk(net, x) + ntk(net, x, params={"0.bias": net[0].bias}), total)


def test_parameters_at_other_values():
    net, x = make("in-place")
    moved = copy.deepcopy(net)
    with torch.no_grad():
        moved[2].weight.mul_(3)
    params = {**dict(net.named_parameters()), "2.weight": moved[2].weight}
    assert torch.equal(ntk(net, x, params=params), ntk(moved, x))


def test_the_jacobian_is_that_of_autograd():
    net, x = make("in-place")
    found = jacobian(net, x)
    for n in range(len(x)):
        for c in range(3):
            slopes = torch.autograd.grad(net(x[n : n + 1])[0, c], list(net.parameters()))
            for part, slope in zip(found.values(), slopes, strict=True):
                assert torch.allclose(part[n, c], slope, rtol=1e-12, atol=1e-14)


def test_it_works_without_gradients_and_leaves_none():
    net, x = make("attention")
    with torch.no_grad():
        kernel = ntk(net, x)
    assert not kernel.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(part._forward_hooks for part in net.modules())
    only = {"head.weight": net.head.weight}
    for method in ("auto", "jacobian", "ntvp"):
        assert not ntk(net, x, params=only, method=method).requires_grad


def test_structured_makes_nothing_of_the_size_of_the_weights(monkeypatch):
    """Factors have N · C · (widths) elements, a small part of the Jacobian's N · C · P."""
    net = nn.Sequential(nn.Linear(300, 200), nn.Tanh(), nn.Linear(200, 10))
    x = torch.randn(12, 300, generator=torch.Generator().manual_seed(0))
    values = {name: value.detach() for name, value in net.named_parameters()}
    factors, rest = capture(net, values, x)
    assert not rest
    held = sum(factor.inputs.numel() + factor.deltas.numel() for factor in factors)
    assert held == 12 * (300 + 200) + 120 * (200 + 10)
    assert held < 0.005 * 120 * sum(value.numel() for value in values.values())


# -- blocks ------------------------------------------------------------------------------------


def test_a_result_is_written_where_it_is_asked_for(tmp_path):
    net, x = make("in-place")
    expected = ntk(net, x)
    kept = np.lib.format.open_memmap(tmp_path / "k.npy", "w+", np.float64, (5, 5, 3, 3))
    ntk(net, x, batch=2, out=kept)
    kept.flush()
    assert np.allclose(np.load(tmp_path / "k.npy"), expected, rtol=1e-12)
    single = torch.empty(5, 4, dtype=torch.float32)
    found = ntk(net, x, x[:4], trace=True, batch=3, out=single)
    assert found is single
    assert close(single, ntk(net, x, x[:4], trace=True).float(), 1e-6)


def test_two_workers_give_the_bits_of_one():
    net, x = make("in-place")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for options in ({}, {"trace": True}, {"diagonal": True}):
            alone = ntk(net, x, batch=2, **options)
            assert torch.equal(ntk(net, x, batch=2, map=pool.map, **options), alone)


# -- refusals ----------------------------------------------------------------------------------


def test_a_model_in_training_mode_is_refused():
    for part, what in (
        (nn.BatchNorm1d(4), "0: batch normalisation is in training mode"),
        (nn.Dropout(0.2), "0: dropout is active"),
        (nn.TransformerEncoderLayer(4, 2, 8), "dropout is active"),
    ):
        net = nn.Sequential(part, nn.Linear(4, 2))
        with pytest.raises(ValueError, match=f"{what}.*Call model.eval"):
            ntk(net, torch.ones(3, 4))
    ntk(nn.Sequential(nn.Dropout(0.0), nn.Linear(4, 2)), torch.ones(3, 4))


class Depends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        h = self.layer(x)
        return torch.tanh(h - h.mean(0))


class Outside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return F.linear(torch.tanh(self.layer(x)), self.layer.weight)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.relu(self.one(x))
        out = self.two(h)
        h.add_(1)
        return out + h[:, :2]


def test_a_layer_that_does_not_say_all_is_found_out():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for net in (Depends(), Outside()):
        with pytest.raises(RuntimeError, match=r"layer\.weight, layer\.bias are not those of its"):
            ntk(net, x)
    net = Outside().double()
    expected = written_out(net, x.double(), x.double())
    assert close(ntk(net, x.double(), method="jacobian"), expected)
    with pytest.raises(ValueError, match="the input of two is changed in place"):
        ntk(InPlace(), x)


def test_structured_alone_names_what_it_has_no_rule_for():
    net, x = make("loose")
    with pytest.raises(ValueError, match="no rule for scale, unused; use 'auto'"):
        ntk(net, x, method="structured")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x1": np.ones((3, 4))}, TypeError, "x1 must be a tensor"),
        ({"x1": torch.ones(3, 4, dtype=torch.int64)}, ValueError, "x1 must be floats, got torch.i"),
        ({"x1": torch.ones(3, 4, dtype=torch.float64)}, ValueError, "x1 must be torch.float32"),
        ({"x2": torch.ones(0, 4)}, ValueError, "x2 has no sample"),
        ({"x1": torch.tensor(1.0)}, ValueError, r"x1 must be \[N, ...\]"),
        ({"method": "fast"}, ValueError, "method must be one of auto, structured, jacobian, ntvp"),
        ({"batch": 0}, ValueError, "batch must be 1 or more, got 0"),
        ({"diagonal": True, "x2": torch.ones(3, 4)}, ValueError, "leave x2 out"),
        ({"params": {"3.weight": torch.ones(2, 4)}}, ValueError, "no parameter '3.weight'"),
        ({"params": {"weight": torch.ones(4, 2)}}, ValueError, r"shape \(2, 4\), got \(4, 2\)"),
        ({"params": {}}, ValueError, "no parameter that requires a gradient"),
        ({"out": torch.ones(2, 2)}, ValueError, r"out must be .* of shape \(3, 3, 2, 2\)"),
        ({"model": nn.Flatten(0)}, ValueError, "no parameter that requires"),
        ({"model": nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)))}, ValueError,
         r"model must return \[N\] or \[N, C\] for N samples, got \(1, 2, 2\) for 1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(change, error, message):
    arguments = {"model": nn.Linear(4, 2), "x1": torch.ones(3, 4)} | change
    with pytest.raises(error, match=message):
        ntk(arguments.pop("model"), arguments.pop("x1"), arguments.pop("x2", None), **arguments)


def test_what_does_not_fit_is_refused_with_its_size():
    net = nn.Linear(1, 4000)
    many = torch.ones(1, 1).expand(2000, 1)
    more = torch.ones(1, 1).expand(20000, 1)
    with pytest.raises(MemoryError, match=r"the kernel takes 238,418\.6 GiB, there are .* out="):
        ntk(net, many)
    with pytest.raises(MemoryError, match=r"the Jacobian takes .* GiB"):
        jacobian(net, more)


# -- the network -------------------------------------------------------------------------------


def test_the_signal_keeps_its_size_at_every_width():
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(20, 10, generator=generator))
    for width in (50, 800):
        outputs = torch.stack([
            ntk_mlp((10, width, width, 1), lambda: Scaled(torch.relu, math.sqrt(2)),
                    generator=generator)(x)[:, 0]
            for _ in range(60)
        ])  # fmt: skip
        assert outputs.square().mean().item() == pytest.approx(1, abs=0.35)


def test_the_network_draws_from_its_generator_alone():
    before = torch.get_rng_state()
    nets = [
        ntk_mlp((3, 4, 1), nn.Tanh, head=nn.Tanh(), generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)
    assert isinstance(nets[0][-1], nn.Tanh)
    for options, message in (
        ({"scale": 0.0}, "scale must be above 0"),
        ({"bias_scale": -1.0}, "bias_scale must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            NTKLinear(3, 3, **options)
    with pytest.raises(ValueError, match="out_features must be 1 or more, got 0"):
        NTKLinear(3, 0)
    with pytest.raises(ValueError, match="widths must name input and output"):
        ntk_mlp((3,), nn.Tanh)
