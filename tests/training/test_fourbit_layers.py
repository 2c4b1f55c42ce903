"""Layers with four-bit operands: their three products, their scales, what they save."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.training.fourbit import (
    PACT,
    RECIPES,
    Int4Sym,
    Log2FP4,
    QuantConv2d,
    QuantEmbedding,
    QuantLinear,
    Radix4FP4,
    Recipe,
    decode,
    encode,
    export_int4,
    gemm,
    pack,
    quantize,
    rounding,
    sawb_alpha,
    stats,
    unpack,
)
from mmxx.training.fourbit.operators import fitting_exponent, next_exponent
from mmxx.training.fourbit.products import to_1_6_9


def normal(*shape, seed=0, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype) * scale


def int4(x):
    """Whole levels by way of packed codes, and the size of a level."""
    alpha = sawb_alpha(x)
    codes = unpack(pack(encode(x, Int4Sym(), 7 / alpha)), tuple(x.shape))
    levels = codes.to(torch.int32)
    return torch.where(levels > 7, levels - 16, levels), alpha / 7


def backward(layer, x, delta):
    x = x.clone().requires_grad_()
    z = layer(x)
    z.backward(delta)
    return z.detach(), x.grad, layer.weight.grad


@pytest.mark.parametrize("features", [(64, 48), (33, 7), (1, 1)])
def test_products_equal_integer_products_of_packed_codes(features):
    """INT4 by INT4 summed in int32 and scaled; INT4 by FP4 summed exactly in float64."""
    inner, outer = features
    layer = QuantLinear(inner, outer, bias=False)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    x, delta = normal(50, inner), normal(50, outer, seed=2, scale=1e-4)
    z, grad_x, grad_weight = backward(layer, x, delta)
    (a, a_step), (w, w_step) = int4(x), int4(layer.weight.detach())
    scale = torch.tensor(a_step) * torch.tensor(w_step)
    assert torch.equal(z, (a @ w.t()).float() * scale)
    exponent = fitting_exponent(1.6 * 64, float(delta.abs().max()))
    even, odd = (
        decode(encode(delta, Radix4FP4(), 2.0**exponent, phase), Radix4FP4(), 2.0**exponent, phase)
        for phase in ("even", "odd")
    )
    exact = (even.double() @ w.double()).float()  # few bits: the sum is exact in float32
    assert torch.equal(grad_x, exact * torch.tensor(w_step))
    assert torch.equal(grad_weight, (odd.double().t() @ a.double()).float() * torch.tensor(a_step))
    assert not torch.equal(even, odd)


def test_the_bias_is_added_and_learns_in_full_precision():
    layer = QuantLinear(8, 4)
    x, delta = normal(10, 8), normal(10, 4, seed=1)
    bare = QuantLinear(8, 4, bias=False)
    bare.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "bias"})
    assert torch.equal(layer(x), bare(x) + layer.bias)
    layer(x).backward(delta)
    assert torch.allclose(layer.bias.grad, delta.sum(0))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
        {"kernel_size": 3, "padding": "same", "groups": 2},
        {"kernel_size": 1, "padding": "valid", "bias": False},
    ],
)
def test_a_convolution_is_that_of_rounded_operands(options):
    layer = QuantConv2d(4, 6, **options)
    x = normal(3, 4, 9, 8)
    shape = layer(x).shape
    delta = normal(*shape, seed=1, scale=1e-3)
    layer = QuantConv2d(4, 6, **options)
    z, grad_x, grad_weight = backward(layer, x, delta)
    plain = nn.Conv2d(4, 6, **options)
    exponent = fitting_exponent(1.6 * 64, float(delta.abs().max()))
    weight = layer.weight.detach()
    with torch.no_grad():
        plain.weight.copy_(quantize(weight, Int4Sym(), 7 / sawb_alpha(weight)))
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    inner = quantize(x, Int4Sym(), 7 / sawb_alpha(x)).requires_grad_()
    out = plain(inner)
    assert torch.allclose(z, out, rtol=1e-4, atol=1e-5)
    even = quantize(delta, Radix4FP4(), 2.0**exponent)
    odd = quantize(delta, Radix4FP4(), 2.0**exponent, "odd")
    (for_x,) = torch.autograd.grad(out, inner, even, retain_graph=True)
    (for_weight,) = torch.autograd.grad(out, plain.weight, odd)
    assert torch.allclose(grad_x, for_x, rtol=1e-4, atol=1e-7)
    assert torch.allclose(grad_weight, for_weight, rtol=1e-4, atol=1e-5)


def nearest_float8(x, exponent_bits, mantissa_bits, largest):
    """The nearest 8-bit float by looking at all, ties to the even code, after the best scale."""
    bias = 2 ** (exponent_bits - 1) - 1
    steps = 2**mantissa_bits
    values = [m / steps * 2.0 ** (1 - bias) for m in range(steps)]
    values += [
        (1 + m / steps) * 2.0 ** (e - bias)
        for e in range(1, 2**exponent_bits)
        for m in range(steps)
    ]
    table = torch.tensor([v for v in values if v <= largest], dtype=torch.float64)
    scale = 2.0 ** math.floor(math.log2(largest / float(x.abs().max())))
    distance = (x.double().abs().flatten()[:, None] * scale - table).abs()
    odd = torch.arange(len(table)) % 2
    best = (distance == distance.min(1, keepdim=True).values).double() * (2 - odd)
    return torch.copysign(table[best.argmax(1)].view(x.shape) / scale, x.double()).to(x.dtype)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "groups": 2, "bias": False}])
def test_a_convolution_of_one_pixel_can_have_eight_bits(options):
    recipe = Recipe(activations="pact", eight_bit_1x1=True)
    layer = QuantConv2d(4, 6, 1, recipe=recipe, **options)
    assert layer.pact_alpha is None
    x = normal(3, 4, 5, 6)
    delta = normal(*layer(x).shape, seed=1, scale=1e-3)
    delta.view(-1)[:2] = torch.tensor([0.0, 1e-14])
    z, grad_x, grad_weight = backward(layer, x, delta)
    plain = nn.Conv2d(4, 6, 1, **options)
    with torch.no_grad():
        plain.weight.copy_(nearest_float8(layer.weight.detach(), 4, 3, 448))
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    inner = nearest_float8(x, 4, 3, 448).requires_grad_()
    out = plain(inner)
    assert torch.allclose(z, out, rtol=1e-5, atol=1e-6)
    rounded = nearest_float8(delta, 5, 2, 57344)
    for_x, for_weight = torch.autograd.grad(out, (inner, plain.weight), rounded)
    assert torch.allclose(grad_x, for_x, rtol=1e-5, atol=1e-9)
    assert torch.allclose(grad_weight, for_weight, rtol=1e-5, atol=1e-8)
    assert layer.grad_counts.tolist() == [1, delta.numel(), 1, 0]


def test_eight_bits_are_for_one_pixel_only():
    recipe = Recipe(eight_bit_1x1=True)
    wide, narrow = QuantConv2d(4, 6, 3, recipe=recipe), QuantConv2d(4, 6, 1, recipe=recipe)
    assert (wide.has_eight_bits, narrow.has_eight_bits) == (False, True)
    assert not QuantConv2d(4, 6, 1).has_eight_bits
    names = set(export_int4(nn.Sequential(wide, narrow)))
    assert "0.weight.int4" in names
    assert "1.weight" in names
    with pytest.warns(RuntimeWarning, match=r"the gradient of layer 'QuantConv2d' has a NaN"):
        grads = backward(narrow, normal(2, 4, 3, 3), torch.full((2, 6, 3, 3), math.inf))
    assert bool(grads[1].isnan().all())
    with pytest.raises(ValueError, match=r"input must be of a floating type, got torch\.int64"):
        narrow(torch.ones(1, 4, 2, 2, dtype=torch.int64))


def test_a_sample_alone_is_convolved_as_torch_does():
    layer = QuantConv2d(2, 3, 3)
    x = normal(2, 6, 6)
    assert layer(x).shape == (3, 4, 4)
    assert torch.equal(layer(x), layer(x[None])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_embedding_looks_up_rounded_rows(dtype):
    layer = QuantEmbedding(11, 6, padding_idx=2, dtype=dtype)
    indices = torch.tensor([[1, 5, 2], [5, 5, 10]])
    rows = layer(indices)
    weight = layer.weight.detach()
    table = quantize(weight, Int4Sym(), 7 / sawb_alpha(weight))
    assert torch.allclose(rows, table[indices], rtol=1e-5)
    delta = normal(2, 3, 6, scale=0.01, dtype=dtype)
    rows.backward(delta)
    scale = 2.0 ** fitting_exponent(1.6 * 64, float(delta.abs().max()))
    odd = quantize(delta, Radix4FP4(), scale, "odd")
    want = torch.zeros_like(weight).index_add_(0, indices.flatten(), odd.flatten(0, 1))
    want[2] = 0
    assert torch.allclose(layer.weight.grad, want)


def test_pact_in_a_layer_is_pact_before_it():
    recipe = Recipe(activations="pact", gradients=None, pact_alpha=1.3)
    layer = QuantLinear(9, 5, recipe=recipe)
    x, delta = normal(7, 9), normal(7, 5, seed=1)
    z, grad_x, grad_weight = backward(layer, x, delta)
    clip = PACT(1.3)
    inner = x.clone().requires_grad_()
    weight = layer.weight.detach()
    rounded = quantize(weight, Int4Sym(), 7 / sawb_alpha(weight)).requires_grad_()
    out = nn.functional.linear(clip(inner), rounded, layer.bias.detach())
    out.backward(delta)
    assert torch.allclose(z, out, rtol=1e-5, atol=1e-6)
    assert torch.allclose(grad_x, inner.grad, rtol=1e-5, atol=1e-6)
    assert torch.allclose(grad_weight, rounded.grad, rtol=1e-5, atol=1e-6)
    assert torch.allclose(layer.pact_alpha.grad, clip.alpha.grad, rtol=1e-5)


def test_nothing_rounded_is_the_layer_of_torch():
    recipe = Recipe(weights=None, activations=None, gradients=None)
    for layer, x in (
        (QuantLinear(6, 4, recipe=recipe), normal(5, 6)),
        (QuantConv2d(2, 3, 3, padding=1, recipe=recipe), normal(2, 2, 5, 5)),
    ):
        z, grad_x, grad_weight = backward(layer, x, torch.ones_like(layer(x)))
        layer.weight.grad = None
        with gemm(exact=True):
            exact = backward(layer, x, torch.ones_like(layer(x)))
        for one, other in zip((z, grad_x, grad_weight), exact, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
        assert int(layer.grad_counts[0]) == 0


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(scale="stateless"),
        Recipe(scale=2.0**10),
        Recipe(gradients=Int4Sym(), scale="max", two_phases=False),
        Recipe(gradients=Int4Sym(), two_phases=False),
        Recipe(gradients=Log2FP4(), scale="max", two_phases=False),
        Recipe(gradients=Radix4FP4(), scale="max", two_phases=False),
        RECIPES["luq4"],
        Recipe(gradients=Log2FP4(stochastic=True), two_phases=False),
    ],
    ids=str,
)
def test_each_recipe_rounds_as_its_format_does(recipe):
    """With an identity for a weight and input, the gradients are the rounded gradient."""
    layer = QuantLinear(16, 16, bias=False, recipe=replace(recipe, weights=None, activations=None))
    with torch.no_grad():
        layer.weight.copy_(torch.eye(16))
    delta = normal(16, 16, scale=3e-3)
    peak, top = float(delta.abs().max()), recipe.gradients.top
    scale = {
        "stateless": 2.0 ** math.floor(math.log2(top / peak)),
        "max": top / peak,
        "adaptive": 2.0 ** fitting_exponent(top * recipe.gradients.fullest, peak),
    }.get(recipe.scale, recipe.scale)
    torch.manual_seed(4)
    _, grad_x, grad_weight = backward(layer, torch.eye(16), delta)
    torch.manual_seed(4)
    want = quantize(delta, recipe.gradients, scale)
    assert torch.allclose(grad_x, want, rtol=1e-5, atol=0)
    if recipe.two_phases:
        assert torch.equal(grad_weight.t(), quantize(delta, recipe.gradients, scale, "odd"))
    elif recipe.samples == 1:
        assert torch.equal(grad_weight.t(), grad_x)
    else:
        more = quantize(delta, recipe.gradients, scale)
        assert torch.allclose(grad_weight.t(), (want + more) / 2, rtol=1e-5)
        assert not torch.equal(want, more)


def test_samples_bring_the_mean_closer_to_the_gradient():
    recipe = replace(RECIPES["luq4"], weights=None, activations=None)
    delta = normal(32, 32, scale=1e-3)
    errors = []
    for samples in (1, 16):
        layer = QuantLinear(32, 32, bias=False, recipe=replace(recipe, samples=samples))
        _, _, grad = backward(layer, torch.eye(32), delta)
        errors.append(float((grad.t() - delta).square().mean()))
    assert errors[1] < errors[0] / 8


# -- scales ------------------------------------------------------------------------------------


def test_the_scale_keeps_the_largest_gradient_in_its_range():
    layer = QuantLinear(4, 3)
    size = 1e-7
    for step in range(60):
        size *= 1.7 if step < 30 else 0.6
        layer(normal(5, 4)).backward(normal(5, 3, seed=step).clamp(-1, 1).sign() * size)
        scaled = size * 2.0 ** int(layer.grad_exponent)
        assert 0.8 * 64 < scaled <= 1.6 * 64
    assert layer.grad_counts.tolist()[:2] == [60, 60 * 15]


def test_the_scale_moves_by_one_step_at_a_time():
    assert next_exponent(5, 102.4, 102.4 / 32) == 5
    assert next_exponent(5, 102.4, 102.5 / 32) == 4
    assert next_exponent(5, 102.4, 51.2 / 32) == 6
    assert next_exponent(5, 102.4, 51.3 / 32) == 5
    assert next_exponent(5, 102.4, 1e30) == 4
    assert next_exponent(-60, 102.4, 1e30) == -60
    assert next_exponent(60, 102.4, 1e-30) == 60
    assert next_exponent(7, 102.4, 0.0) == 7
    assert fitting_exponent(102.4, 0.0) == 0
    assert fitting_exponent(102.4, 1e-38) == 60
    assert fitting_exponent(102.4, 1e38) == -60


def test_a_gradient_of_zeros_moves_nothing():
    layer = QuantLinear(4, 3)
    layer(normal(5, 4)).backward(torch.full((5, 3), 1e-3))
    before = int(layer.grad_exponent)
    for _ in range(200):
        layer(normal(5, 4)).backward(torch.zeros(5, 3))
    assert int(layer.grad_exponent) == before
    fresh = QuantLinear(4, 3)
    fresh(normal(5, 4)).backward(torch.zeros(5, 3))
    assert int(fresh.grad_exponent) == 0
    assert fresh.weight.grad.abs().max() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_named_and_passes_on(bad):
    layer = QuantLinear(4, 3, label="blocks.1.up")
    layer(normal(5, 4)).backward(normal(5, 3))
    state = copy.deepcopy(layer.state_dict())
    layer.zero_grad()
    delta = normal(5, 3)
    delta[2, 1] = bad
    with pytest.warns(RuntimeWarning, match="gradient of layer 'blocks.1.up' has a NaN or an inf"):
        layer(normal(5, 4)).backward(delta)
    assert layer.weight.grad.isnan().all()
    assert torch.equal(layer.grad_exponent, state["grad_exponent"])
    assert torch.equal(layer.grad_counts, state["grad_counts"])


def test_an_input_that_is_not_finite_passes_on():
    layer = QuantLinear(4, 3)
    for bad in (math.nan, math.inf):
        x = normal(5, 4)
        x[1, 2] = bad
        assert layer(x)[1].isnan().all()
        assert float(layer.running_alpha) == 0


def test_counts_tell_underflow_and_overflow():
    layer = QuantLinear(2, 4, recipe=Recipe(scale=1.0))
    layer(normal(1, 2)).backward(torch.tensor([[1e-3, 1.0, 200.0, 0.0]]))
    row = stats(nn.Sequential(layer))[0]
    assert (row["passes"], row["underflow"], row["overflow"]) == (1, 0.25, 0.25)
    assert math.isnan(row["cosine"])


def test_tracing_compares_the_gradient_with_what_it_becomes():
    layer = QuantLinear(6, 8)
    delta = normal(20, 8, scale=1e-2)
    with gemm(trace=True):
        layer(normal(20, 6)).backward(delta)
    layer(normal(20, 6)).backward(delta)  # not traced
    scale = 2.0 ** fitting_exponent(102.4, float(delta.abs().max()))
    odd, even = (quantize(delta, Radix4FP4(), scale, phase).flatten() for phase in ("odd", "even"))
    true = delta.flatten()
    row = stats(layer)[0]
    assert row["cosine"] == pytest.approx(float(nn.functional.cosine_similarity(true, odd, 0)))
    assert row["bias"] == pytest.approx(float(true.dot(odd) / true.dot(true)) - 1, abs=1e-5)
    assert row["input_bias"] == pytest.approx(float(true.dot(even) / true.dot(true)) - 1, abs=1e-5)
    assert sum(layer.traced.histogram) == delta.numel()
    among = (true.abs() >= 2**-8) & (true.abs() < 2**-7)
    assert layer.traced.histogram[-8 + 48] == int(among.sum())
    assert len(layer.traced.exponents) == 1


# -- what is kept ------------------------------------------------------------------------------


def saved_bytes(layer, x):
    """Bytes that autograd keeps for the backward pass, parameters and buffers apart."""
    own = {t.data_ptr() for t in (*layer.parameters(), *layer.buffers())}
    found = []

    def keep(tensor):
        if tensor.data_ptr() not in own:
            found.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        layer(x)
    return sum(found)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_what_waits_for_the_backward_pass_is_an_eighth(kind):
    if kind == "linear":
        plain, ours, x = nn.Linear(64, 32), QuantLinear(64, 32), normal(128, 64)
    else:
        plain, ours = nn.Conv2d(8, 4, 3), QuantConv2d(8, 4, 3)
        x = normal(2, 8, 16, 16)
    x.requires_grad_()
    assert saved_bytes(plain, x) == 4 * x.numel()
    assert x.numel() / 2 <= saved_bytes(ours, x) <= 0.14 * 4 * x.numel()


def test_evaluation_clips_where_training_did_on_average():
    layer = QuantLinear(16, 4, bias=False)
    first, second = normal(32, 16), 3 * normal(32, 16, seed=1)
    layer(first)
    assert float(layer.running_alpha) == pytest.approx(sawb_alpha(first))
    layer(second)
    mean = 0.9 * sawb_alpha(first) + 0.1 * sawb_alpha(second)
    assert float(layer.running_alpha) == pytest.approx(mean)
    layer.eval()
    together, alone = layer(second), layer(second[:1])
    assert torch.allclose(together[:1], alone, rtol=1e-6)
    x = quantize(second, Int4Sym(), 7 / mean)
    weight = layer.weight.detach()
    want = x @ quantize(weight, Int4Sym(), 7 / sawb_alpha(weight)).t()
    assert torch.allclose(together, want, rtol=1e-4, atol=1e-4)
    assert float(layer.running_alpha) == pytest.approx(mean)


def test_both_ways_of_computing_train_alike(monkeypatch):
    def trained():
        torch.manual_seed(0)
        net = nn.Sequential(QuantLinear(12, 16), nn.Tanh(), QuantLinear(16, 3))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(15):
            optimizer.zero_grad()
            net(normal(9, 12, seed=step)).square().mean().backward()
            optimizer.step()
        return net

    compiled = trained()
    monkeypatch.setattr(rounding, "_HAS_NUMBA", False)
    plain = trained()
    for one, other in zip(compiled.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


# -- sums in pieces ----------------------------------------------------------------------------


def test_rounding_to_nine_bits_of_mantissa():
    x = normal(5000, scale=100.0)
    got = to_1_6_9(x)
    mantissa, exponent = np.frexp(x.double().numpy())
    want = np.ldexp(np.round(mantissa * 2**10), exponent - 10)
    assert np.array_equal(got.double().numpy(), want)
    assert to_1_6_9(torch.tensor([math.inf, -math.inf, 0.0])).tolist() == [math.inf, -math.inf, 0]
    assert to_1_6_9(torch.tensor([math.nan])).isnan()


def test_sums_in_pieces_are_rounded_after_every_64_products():
    layer = QuantLinear(150, 5, bias=False, recipe=Recipe(accumulate="fp16"))
    with torch.no_grad():
        layer.weight.abs_()  # so that the sums need more than ten bits
    x = normal(9, 150).abs()
    (a, a_step), (w, w_step) = int4(x), int4(layer.weight.detach())
    total = torch.zeros(9, 5)
    for k in (0, 64, 128):
        part = (a[:, k : k + 64].double() @ w[:, k : k + 64].double().t()).float()
        total = to_1_6_9(total + to_1_6_9(part))
    assert torch.equal(layer(x), total * (torch.tensor(a_step) * torch.tensor(w_step)))
    exact = QuantLinear(150, 5, bias=False)
    exact.weight = layer.weight
    assert not torch.equal(layer(x), exact(x))
    assert torch.allclose(layer(x), exact(x), rtol=0.02, atol=0.02)


def test_a_convolution_with_sums_in_pieces_is_near_the_exact_one():
    options = {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False}
    rough = QuantConv2d(10, 6, recipe=Recipe(accumulate="fp16"), **options)
    exact = QuantConv2d(10, 6, **options)
    exact.weight = rough.weight
    x = normal(2, 10, 9, 7)
    delta = normal(*exact(x).shape, seed=3, scale=1e-3)
    results = []
    for layer in (rough, exact):
        layer.weight.grad = None
        layer.grad_counts.zero_()
        z, grad_x, grad_weight = backward(layer, x, delta)
        results.append([t.clone() for t in (z, grad_x, grad_weight)])
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm() / other.norm()) < 0.01
    assert not torch.equal(results[0][1], results[1][1])


# -- compiling, types, refusals ----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch
def test_a_compiled_model_computes_the_same():
    torch.manual_seed(0)
    net = nn.Sequential(
        QuantLinear(12, 16), nn.Unflatten(1, (4, 2, 2)),
        QuantConv2d(4, 4, 1, recipe=Recipe(eight_bit_1x1=True)), nn.Tanh(), nn.Flatten(),
        QuantLinear(16, 3),
    )  # fmt: skip
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    for step in range(3):
        x = normal(9, 12, seed=step)
        losses = [module(x).square().mean() for module in (net, compiled)]
        assert torch.allclose(*losses)
        for loss in losses:
            loss.backward()
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-7)
    for one, other in zip(net.buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_layers_and_autocast(dtype):
    layer = QuantLinear(8, 4).to(dtype)
    x = normal(5, 8).to(dtype).requires_grad_()
    z = layer(x)
    assert z.dtype is dtype
    z.sum().backward()
    assert x.grad.dtype is dtype
    assert layer.weight.grad.dtype is dtype
    wide = QuantLinear(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(x.detach()).dtype is dtype
        assert wide(wide(x.detach().float()).repeat(1, 2)).shape == (5, 4)


def test_no_sample_gives_none():
    layer = QuantLinear(4, 3)
    z = layer(torch.zeros(0, 4))
    assert z.shape == (0, 3)
    z.sum().backward()
    assert layer.weight.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: QuantLinear(3, 2)(torch.ones(2, 3, dtype=torch.int64)),
            "floating type, got",
        ),
        (lambda: QuantLinear(3, 2)(torch.ones(2, 3, dtype=torch.bool)), "floating type, got"),
        (lambda: QuantLinear(3, 2, recipe="fp8"), "one of ibm4, luq4, got 'fp8'"),
        (lambda: QuantConv2d(2, 2, 2, padding="same"), "padding 'same' must be even"),
        (lambda: QuantConv2d(2, 2, 3, groups=2, recipe=Recipe(accumulate="fp16")), "groups=1"),
        (lambda: Recipe(weights="int4"), "weights must be 'sawb' or None, got 'int4'"),
        (lambda: Recipe(activations="relu"), "activations must be 'sawb', 'pact' or None"),
        (lambda: Recipe(gradients="radix4"), "gradients must be Radix4FP4"),
        (lambda: Recipe(scale="auto"), "scale must be 'adaptive', 'stateless', 'max' or a power"),
        (lambda: Recipe(scale=1000.0), "scale must be a power of two"),
        (lambda: Recipe(scale=2.0**61), r"from 2\*\*-60 to 2\*\*60"),
        (lambda: Recipe(scale=-2.0), "scale must be a power of two"),
        (lambda: Recipe(gradients=Log2FP4()), "two_phases needs gradients=Radix4FP4"),
        (lambda: Recipe(samples=2), "samples must be 1, or more with"),
        (lambda: Recipe(samples=0), "samples must be 1, or more with"),
        (lambda: Recipe(accumulate="fp8"), "accumulate must be 'fp32' or 'fp16'"),
        (lambda: Recipe(pact_alpha=0.0), "pact_alpha must be above 0"),
        (lambda: QuantLinear.from_float(nn.Conv2d(1, 1, 1)), "layer must be a Linear"),
        (lambda: QuantLinear.from_float(QuantLinear(2, 2)), "has been converted already"),
        (
            lambda: QuantConv2d.from_float(nn.Conv2d(1, 1, 1, padding_mode="reflect")),
            "padding_mode must be 'zeros', got 'reflect'",
        ),
        (lambda: QuantEmbedding.from_float(nn.Embedding(3, 2, max_norm=1.0)), "max_norm"),
    ],
)
def test_bad_input_is_refused(call, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            call()
