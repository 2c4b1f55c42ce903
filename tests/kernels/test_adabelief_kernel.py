"""The one-pass AdaBelief kernel: 16-bit conversions, threads, memory, refusals."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from mmxx.kernels import adabelief as kernel

BITS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def step(param, grad, mean, belief, *, dtype, rates=(1e-3, 1.0), peak=None, **options):
    """One step on lists of tensors."""
    columns = [param, grad, mean, belief, peak or belief]
    addresses = np.array([[t.data_ptr() for t in column] for column in columns], np.int64)
    sizes = np.array([t.numel() for t in param], np.int64)
    options = {"betas": (0.9, 0.999), "eps": 1e-16, **options}
    which = np.zeros(len(param), np.int64)
    kernel.adabelief_step(addresses, sizes, which, [rates], dtype=dtype, **options)


def every_half(dtype):
    return torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize("name", BITS)
def test_all_65536_values_are_read_exactly(name):
    grad = every_half(BITS[name])
    param = torch.zeros_like(grad)
    mean, belief = torch.zeros(2**16), torch.zeros(2**16)
    step([param], [grad], [mean], [belief], dtype=name, betas=(0.0, 0.9))
    wanted = grad.float()
    finite = wanted.isfinite()
    assert torch.equal(mean[finite], wanted[finite])
    assert torch.equal(mean.isinf(), wanted.isinf())
    assert torch.equal(mean.isnan(), wanted.isnan())


@pytest.mark.parametrize("name", BITS)
def test_all_65536_values_are_written_back_as_they_were(name):
    param = every_half(BITS[name]).clone()
    kept = param.clone()
    mean, belief = torch.zeros(2**16), torch.ones(2**16)
    step([param], [torch.zeros_like(param)], [mean], [belief], dtype=name, rates=(0.0, 0.0))
    numbers = ~kept.isnan()
    assert torch.equal(param[numbers].view(torch.int16), kept[numbers].view(torch.int16))
    assert param[~numbers].isnan().all()


@pytest.mark.parametrize("name", BITS)
def test_rounding_is_to_the_nearest_even(name):
    """Random bit patterns over the whole range of float32, and the middles between values."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 300_000, dtype=np.uint32)
    halves = every_half(BITS[name]).float()
    finite = halves[halves.isfinite()].sort().values
    middles = (finite[1:].double() + finite[:-1].double()).div(2).float()
    values = torch.cat([torch.from_numpy(bits.view(np.float32).copy()), middles])
    param = torch.zeros(len(values), dtype=BITS[name])
    mean, belief = values.clone(), torch.ones(len(values))
    step(  # parameter = 0 + mean
        [param],
        [torch.zeros_like(param)],
        [mean],
        [belief],
        dtype=name,
        betas=(1.0, 0.9),
        rates=(-1.0, 0.0),
    )
    wanted = (values + 0.0).to(BITS[name])
    numbers = ~values.isnan()
    assert torch.equal(param[numbers].view(torch.int16), wanted[numbers].view(torch.int16))
    assert param[~numbers].isnan().all()


@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16", "float16"])
def test_the_bits_do_not_depend_on_the_threads(name, monkeypatch):
    monkeypatch.setattr(kernel, "MIN_PER_THREAD", 100)
    dtype = getattr(torch, name)
    state = getattr(torch, kernel.STATE[name])
    results = []
    for threads in (1, 2, 3, 7):
        generator = torch.Generator().manual_seed(0)
        sizes = (3000, 0, 1, 5000, 2048)
        params, grads = (
            [torch.randn(n, generator=generator).to(dtype) for n in sizes] for _ in range(2)
        )
        means, beliefs, peaks = ([torch.zeros(n, dtype=state) for n in sizes] for _ in range(3))
        keys = np.arange(5, dtype=np.uint32) if name == "bfloat16" else None
        for _ in range(3):
            step(
                params,
                grads,
                means,
                beliefs,
                dtype=name,
                peak=peaks,
                amsgrad=True,
                keys=keys,
                threads=threads,
            )
        results.append([*params, *means, *beliefs, *peaks])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_step_needs_less_than_a_megabyte():
    param, grad = torch.ones(1_000_000), torch.ones(1_000_000)
    mean, belief = torch.zeros(1_000_000), torch.zeros(1_000_000)
    step([param], [grad], [mean], [belief], dtype="float32")
    tracemalloc.start()
    try:
        step([param], [grad], [mean], [belief], dtype="float32")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_gradient_that_is_not_a_number_reaches_parameter_and_state():
    param, grad = torch.ones(3), torch.tensor([1.0, float("nan"), float("inf")])
    mean, belief, peak = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    step([param], [grad], [mean], [belief], dtype="float32", peak=[peak], amsgrad=True)
    assert param.isfinite().tolist() == [True, False, False]
    assert peak.isfinite().tolist() == [True, False, False]


def test_refusals_name_what_is_accepted():
    nothing = np.zeros((5, 0), np.int64)
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="dtype must be one of float32, float64"):
        kernel.adabelief_step(nothing, none, none, [], dtype="int8", betas=(0.9, 0.9), eps=1)
    with pytest.raises(ValueError, match="keys are for bfloat16 parameters, got dtype 'float32'"):
        kernel.adabelief_step(
            nothing, none, none, [], dtype="float32", betas=(0.9, 0.9), eps=1, keys=none
        )
