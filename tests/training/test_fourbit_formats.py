"""The four-bit formats against brute force, their codes, and SAWB against the least error."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
import torch

from mmxx.training.fourbit import (
    PACT,
    Int4Sym,
    Log2FP4,
    Radix4FP4,
    decode,
    encode,
    pack,
    quantize,
    rounding,
    sawb_alpha,
    table,
    unpack,
)

POWERS = [Radix4FP4(), Radix4FP4(nearest_zero=True), Log2FP4(), Log2FP4(nearest_zero=True)]


def numbers(dtype=np.float32, count=1_000_000):
    """Random ones over the whole range, every tie and its neighbours, and every oddity."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=count) * 2.0 ** rng.uniform(-12, 12, count)
    levels = [0.0, *(float(r) ** k for r in (2, 4) for k in range(-3, 5)), *range(8)]
    doubled = [2 * level for level in levels]
    middles = [(a + b) / 2 for pair in (levels, doubled) for a in pair for b in pair]
    thresholds = [level / 1.6 for level in levels + doubled]
    ties = np.array([*levels, *doubled, *middles, *thresholds], dtype)
    around = [ties, np.nextafter(ties, dtype(0)), np.nextafter(ties, dtype(np.inf))]
    tiny, info = np.finfo(dtype).smallest_subnormal, np.finfo(dtype)
    odd = np.array([0, tiny, 77 * tiny, info.tiny, info.max, np.inf], dtype)
    found = np.concatenate([spread.astype(dtype), *around, odd])
    return np.concatenate([found, -found])


def nearest(x, fmt, phase="even"):
    """By distance to every number of the table; a tie goes away from 0."""
    factor = 2.0 if phase == "odd" else 1.0
    values = np.unique(table(fmt).numpy().astype(np.float64))
    values = values[values > 0] * factor
    size = np.abs(x.astype(np.float64))
    borders = (values[:-1] + values[1:]) / 2
    found = values[np.searchsorted(borders, size, side="right")]
    midpoint = 1.6 if isinstance(fmt, Radix4FP4) else 4 / 3
    zero = values[0] / (2 if fmt.nearest_zero else midpoint)
    found[size < zero] = 0
    return np.copysign(found, x)


@pytest.mark.parametrize("fmt", POWERS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_are_the_nearest_of_the_table(fmt, dtype):
    x = numbers(dtype, count=1_000_000 if dtype is np.float32 else 100_000)
    for phase in fmt.phases:
        found = quantize(torch.from_numpy(x), fmt, phase=phase).numpy()
        assert found.dtype == dtype
        assert np.array_equal(found, nearest(x, fmt, phase))
        assert np.array_equal(np.signbit(found), np.signbit(x))


def test_whole_numbers_are_the_nearest_with_ties_to_even():
    for dtype in (np.float32, np.float64):
        x = numbers(dtype, count=1_000_000 if dtype is np.float32 else 100_000)
        found = quantize(torch.from_numpy(x), Int4Sym()).numpy()
        assert np.array_equal(found, np.clip(np.round(x.astype(np.float64)), -7, 7))


@pytest.mark.parametrize("fmt", [Radix4FP4(), Log2FP4(), Int4Sym(), Log2FP4(stochastic=True)])
def test_a_nan_stays_and_infinity_is_the_outermost(fmt):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])
    found = quantize(x, fmt)
    assert found[0].isnan()
    assert found[1:].tolist() == [fmt.top, -fmt.top, 1.0]
    with pytest.raises(ValueError, match="x has a NaN, which has no code"):
        encode(x, fmt)


@pytest.mark.parametrize("exponent", [-60, -59, -13, 0, 1, 14, 60])
def test_a_scale_that_is_a_power_of_two_moves_the_table(exponent):
    scale = 2.0**exponent
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 8
    for fmt in (Radix4FP4(), Log2FP4(), Int4Sym()):
        for phase in fmt.phases:
            moved = quantize(x / scale, fmt, scale, phase)
            assert torch.equal(moved * scale, quantize(x, fmt, phase=phase))


def test_any_other_scale_is_taken_too():
    x = torch.linspace(-3, 3, 1001)
    for fmt in (Radix4FP4(), Log2FP4()):
        for phase in fmt.phases:
            want = nearest((x * 7.3).numpy(), fmt, phase) / 7.3
            assert np.allclose(quantize(x, fmt, 7.3, phase).numpy(), want, rtol=1e-6)


def test_the_two_phases_err_to_opposite_sides_wherever_they_can():
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 3 + 1
    even, odd = quantize(x, Radix4FP4()), quantize(x, Radix4FP4(), phase="odd")
    assert not (even == odd).any()
    opposite = (even - x) * (odd - x) < 0
    assert torch.equal(opposite, ((x > 1.25) & (x < 2)) | (x > 2.5))


@pytest.mark.parametrize("stochastic", [False, True])
def test_both_ways_of_rounding_give_the_same_bits(monkeypatch, stochastic):
    x = torch.from_numpy(numbers(count=50_000))
    x = torch.cat([x, torch.tensor([torch.nan, -torch.nan, torch.inf])])
    forms = [Log2FP4().powers] if stochastic else [fmt.powers for fmt in POWERS]

    def results():
        found = []
        for form in forms:
            if stochastic:
                found += rounding.powers_at_random(x[: len(x) // 2], form, 1.7, 99)
                found += rounding.powers_at_random(x, form, 1.0, 0xFFFFFFFF)
                continue
            for exponent in (-60, -7, 0, 9, 60):
                found += rounding.powers(x, form, exponent, two_phases=form.radix == 4)
        for pack_too in (True, False):
            found += rounding.grid(x[:-3], torch.tensor(1.3), -7, 7, pack=pack_too)
            found += rounding.grid(x[:-3], torch.tensor(0.7), 0, 15, pack=pack_too)
        levels, packed = rounding.grid(x[:1001], torch.tensor(1.3), -7, 7, pack=True)
        again = rounding.unpack_grid(packed, [7, 11, 13], True, torch.float32)
        assert torch.equal(again.flatten(), levels)
        return found

    compiled = results()
    monkeypatch.setattr(rounding, "_HAS_NUMBA", False)
    plain = results()
    assert len(compiled) == len(plain)
    for one, other in zip(compiled, plain, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))
        else:
            assert one == other or (one != one and other != other)


def test_counts_are_what_a_count_finds():
    x = torch.from_numpy(numbers(count=10_000))
    found = rounding.powers(x, Radix4FP4().powers, 3)
    size = x.abs().double() * 8
    assert found.lost == int(((size < 4.0**-3 / 1.6) & (size > 0)).sum())
    assert found.over == int((size >= 4.0**4 / 1.6).sum())
    assert found.peak == torch.inf
    assert rounding.powers(x[:0], Radix4FP4().powers, 3).peak == 0


def test_stochastic_rounding_keeps_the_mean():
    """Of 10^5 draws of each number, within four standard deviations of the mean."""
    draws = 100_000
    for x in (0.01, 0.07, 0.125, 0.3, 0.99, 1.0, 3.3, 7.9, 8.0):
        generator = torch.Generator().manual_seed(5)
        one = torch.full((draws,), x)
        found = quantize(one, Log2FP4(stochastic=True), generator=generator).double()
        sigma = float(found.std()) / draws**0.5
        assert abs(float(found.mean()) - float(one[0])) <= 4 * sigma + 1e-12
        neighbours = {v for v in table(Log2FP4())[:8].tolist() if v <= x} | {
            v for v in table(Log2FP4())[:8].tolist() if v >= x
        }
        assert set(found.unique().tolist()) <= neighbours


def test_noise_comes_from_the_generator_or_from_torch():
    x, fmt = torch.linspace(0, 8, 999), Log2FP4(stochastic=True)
    before = torch.get_rng_state()
    one = quantize(x, fmt, generator=torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, quantize(x, fmt, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(one, quantize(x, fmt, generator=torch.Generator().manual_seed(2)))
    torch.manual_seed(3)
    first, second = quantize(x, fmt), quantize(x, fmt)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, quantize(x, fmt))


@pytest.mark.parametrize("fmt", [*POWERS, Int4Sym()], ids=repr)
def test_codes_say_what_was_rounded(fmt):
    x = torch.from_numpy(numbers(count=20_000))
    for phase in fmt.phases:
        for scale in (1.0, 2.0**9, 0.37):
            codes = encode(x, fmt, scale, phase)
            assert codes.dtype is torch.uint8
            assert int(codes.max()) < 16
            values = quantize(x, fmt, scale, phase)
            assert torch.allclose(decode(codes, fmt, scale, phase), values, rtol=1e-6, atol=0)
            packed = pack(codes[:101])
            assert packed.shape == (51,)
            assert torch.equal(unpack(packed, (101,)), codes[:101])
    every = table(fmt)
    whole = every[~every.isnan()]
    assert torch.equal(decode(encode(whole, fmt), fmt), whole)


def test_sixteen_bit_tensors_are_rounded_as_float32():
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.linspace(-20, 20, 333).to(dtype)
        for fmt in (Radix4FP4(), Log2FP4(), Int4Sym()):
            found = quantize(x, fmt)
            assert found.dtype is dtype
            assert torch.equal(found.float(), quantize(x.float(), fmt))


def test_memory_that_is_not_contiguous():
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    for fmt in (Radix4FP4(), Log2FP4(), Int4Sym()):
        assert torch.equal(quantize(x.t(), fmt), quantize(x, fmt).t())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(torch.tensor([1]), Int4Sym()), "floating type, got torch.int64"),
        (lambda: quantize(torch.tensor([True]), Radix4FP4()), "floating type, got torch.bool"),
        (lambda: quantize(torch.ones(1), Int4Sym(), 0.0), "scale must be above 0 and finite"),
        (lambda: quantize(torch.ones(1), Int4Sym(), torch.inf), "scale must be above 0"),
        (lambda: quantize(torch.ones(1), Log2FP4(), phase="odd"), "phase of radix-2 FP4 must be"),
        (lambda: decode(torch.ones(1), Int4Sym()), "codes must be uint8 below 16"),
        (lambda: pack(torch.tensor([16], dtype=torch.uint8)), "codes must be uint8 below 16"),
        (lambda: decode(torch.zeros(1, dtype=torch.uint8), Int4Sym(), -1.0), "scale must be"),
        (lambda: unpack(torch.zeros(3, dtype=torch.uint8), (7,)), r"packed must be uint8 \[4\]"),
        (lambda: sawb_alpha(torch.ones(3), 6), "SAWB has no coefficients for 6 bits; known: 2,3,4"),
        (lambda: sawb_alpha(torch.ones(3), 3), "for 3 bits on a grid with 0"),
        (lambda: sawb_alpha(torch.tensor([1, 2])), "weights must be of a floating type"),
        (lambda: PACT(0.0), "alpha must be above 0, got 0"),
        (lambda: PACT(bits=9), "bits must be from 1 to 8, got 9"),
        (lambda: PACT()(torch.tensor([1])), "x must be of a floating type"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- clipping ----------------------------------------------------------------------------------

DISTRIBUTIONS = {
    "normal": lambda g: torch.randn(100_000, generator=g, dtype=torch.float64),
    "uniform": lambda g: torch.rand(100_000, generator=g, dtype=torch.float64) - 0.5,
    "laplace": lambda g: (
        torch.empty(100_000, dtype=torch.float64).exponential_(generator=g)
        * torch.empty(100_000, dtype=torch.float64).uniform_(-1, 1, generator=g).sign()
    ),
    "logistic": lambda g: torch.rand(100_000, generator=g, dtype=torch.float64).logit(),
    "triangle": lambda g: torch.rand(2, 100_000, generator=g, dtype=torch.float64).sum(0) - 1,
    "two normals": lambda g: (
        torch.randn(100_000, generator=g, dtype=torch.float64)
        * (1 + (torch.rand(100_000, generator=g, dtype=torch.float64) < 0.3))
    ),
}


def error(x, alpha):
    return float((quantize(x, Int4Sym(), 7 / alpha) - x).square().mean())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_sawb_clips_about_where_the_error_is_least(name):
    x = DISTRIBUTIONS[name](torch.Generator().manual_seed(0))
    best = min(error(x, a) for a in np.linspace(0.1, 1, 60) * float(x.abs().max()))
    # The coefficients were fitted to several shapes at once; the triangle is where they miss.
    assert error(x, sawb_alpha(x)) <= (1.10 if name == "triangle" else 1.05) * best


def test_sawb_of_constant_no_and_zero_weights():
    assert sawb_alpha(torch.full((9,), -0.3)) == pytest.approx(0.005 * 0.3, rel=1e-3)
    assert sawb_alpha(torch.full((9,), -0.3), 3, zero=False) > 0
    assert sawb_alpha(torch.full((9,), 0.3), 4, zero=False) == pytest.approx(0.3)
    assert sawb_alpha(torch.zeros(5)) == 1
    assert sawb_alpha(torch.zeros(0)) == 1


def test_the_gradient_of_alpha_is_the_slope_of_the_clipping():
    """Rounding is passed straight through; without it the function has this very slope."""
    x = torch.linspace(-2, 6, 97, dtype=torch.float64)
    weights = torch.linspace(0.2, 1.7, 97, dtype=torch.float64)
    layer = PACT(3.3).double()
    (layer(x) * weights).sum().backward()
    alpha, h = 3.3, 1e-6
    clipped = lambda a: float((x.clamp(0, a) * weights).sum())  # noqa: E731
    slope = (clipped(alpha + h) - clipped(alpha - h)) / (2 * h)
    assert layer.alpha.grad.item() == pytest.approx(slope, rel=1e-8)
    inner = x.clone().requires_grad_()
    (layer(inner) * weights).sum().backward()
    assert torch.equal(inner.grad, weights * ((x > 0) & (x < alpha)))


@pytest.mark.parametrize("name", "formats sawb pact recipes tracing layers conversion arms".split())
def test_the_examples_of_the_docstrings_run(name):
    failed, tried = doctest.testmod(importlib.import_module(f"mmxx.training.fourbit.{name}"))
    assert tried
    assert not failed
