"""Radix selection against sorting, on every float type and on what is hard to order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmxx.kernels import select
from mmxx.kernels.select import keep_largest, keep_where_largest, kth_abs

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def sorted_magnitudes(tensors):
    return torch.cat([t.abs().flatten() for t in tensors]).double().sort().values


def by_sorting(tensors, count):
    """The definition: a stable sort drops the lower index first."""
    flat = torch.cat([t.abs().flatten() for t in tensors])
    order = flat.double().sort(stable=True).indices
    mask = torch.ones(flat.numel(), dtype=torch.bool)
    mask[order[: flat.numel() - count]] = False
    sizes = [t.numel() for t in tensors]
    return [m.view(t.shape) for m, t in zip(mask.split(sizes), tensors, strict=True)]


def random_tensors(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((7, 11), (1,), (0, 3), (40,), (2, 3, 5))
    return [torch.randn(s, generator=generator).to(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_rank_is_that_of_a_sort(dtype):
    tensors = random_tensors(dtype)
    wanted = sorted_magnitudes(tensors)
    found = [kth_abs(tensors, k) for k in range(1, wanted.numel() + 1)]
    assert found == wanted.tolist()


@pytest.mark.parametrize("dtype", TYPES)
def test_every_count_is_kept_as_a_stable_sort_keeps_it(dtype):
    tensors = [(t * 2).round() / 2 for t in random_tensors(dtype)]  # many ties
    for count in range(sum(t.numel() for t in tensors) + 1):
        masks = keep_largest(tensors, count)
        assert sum(int(m.sum()) for m in masks) == count
        for mask, wanted in zip(masks, by_sorting(tensors, count), strict=True):
            assert torch.equal(mask, wanted)


@pytest.mark.parametrize("weights_dtype", [None, torch.float64, torch.float16])
@pytest.mark.parametrize("dtype", TYPES)
def test_weights_are_kept_where_the_mask_is(dtype, weights_dtype):
    tensors = [(t * 2).round() / 2 for t in random_tensors(dtype)]  # many ties
    weights = [t.to(weights_dtype or dtype) for t in random_tensors(dtype, seed=4)]
    weights[0][0, 0] = float("inf")  # times 0 it would be NaN
    for count in range(sum(t.numel() for t in tensors) + 1):
        kept = keep_where_largest(weights, tensors, count)
        masks = keep_largest(tensors, count)
        for weight, mask, found in zip(weights, masks, kept, strict=True):
            assert found.dtype == weight.dtype
            assert torch.equal(found, weight.masked_fill(~mask, 0.0))


def test_strided_weights_are_kept_where_the_mask_is():
    weight, value = random_tensors(torch.float32)[0], random_tensors(torch.float32, seed=5)[0]
    (wanted,) = keep_where_largest(weight, value, 20)
    strided = weight.t().contiguous().t()
    assert not strided.is_contiguous()
    for one, other in ((strided, value), (weight, value.t().contiguous().t())):
        assert torch.equal(keep_where_largest(one, other, 20)[0], wanted)


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=60),
    st.data(),
)
@settings(deadline=None, max_examples=150)
def test_any_floats(values, data):
    tensor = torch.tensor(values)
    k = data.draw(st.integers(1, len(values)))
    assert kth_abs(tensor, k) == tensor.abs().kthvalue(k).values.item()
    assert torch.equal(keep_largest(tensor, k)[0], by_sorting([tensor], k)[0])


def test_denormals_infinities_and_signed_zeros_have_their_place():
    tensor = torch.tensor([float("inf"), -0.0, 1e-45, 0.0, -float("inf"), -1e-40, 3e38])
    wanted = sorted_magnitudes([tensor]).tolist()
    assert [kth_abs(tensor, k) for k in range(1, 8)] == wanted
    assert keep_largest(tensor, 6)[0].tolist() == [True, False, True, True, True, True, True]


@pytest.mark.parametrize("dtype", TYPES)
def test_the_plain_path_is_equal(dtype):
    tensors = [(t * 3).round() for t in random_tensors(dtype, seed=1)]
    total = sum(t.numel() for t in tensors)
    for count in range(total):
        plain = select._keep_plain(tensors, total - count)
        for mask, other in zip(keep_largest(tensors, count), plain, strict=True):
            assert torch.equal(mask, other)
        assert select._kth_plain(tensors, count + 1) == kth_abs(tensors, count + 1)


def test_strided_tensors_and_views_are_read_in_their_order():
    tensor = torch.randn(20, 30, generator=torch.Generator().manual_seed(2))
    strided = tensor.t()
    assert torch.equal(keep_largest(strided, 100)[0], by_sorting([strided], 100)[0])
    assert kth_abs(tensor[::2, 5:], 9) == kth_abs(tensor[::2, 5:].contiguous(), 9)


def test_parameters_are_left_as_they_are():
    weight = torch.nn.Parameter(torch.randn(5, 5, generator=torch.Generator().manual_seed(3)))
    before = weight.detach().clone()
    (mask,) = keep_largest(weight, 10)
    (kept,) = keep_where_largest(weight, weight, 10)
    assert torch.equal(weight, before)
    assert not mask.requires_grad
    assert not kept.requires_grad
    assert int(kept.count_nonzero()) == 10


@pytest.mark.parametrize("nan", [float("nan"), -float("nan")])
def test_nan_is_refused(nan):
    tensor = torch.tensor([1.0, nan, 2.0])
    for call in (lambda: kth_abs(tensor, 1), lambda: keep_largest(tensor, 1)):
        with pytest.raises(ValueError, match="NaN"):
            call()
    with pytest.raises(ValueError, match="NaN"):
        keep_largest(tensor, 3)
    with pytest.raises(ValueError, match="NaN"):
        select._kth_plain([tensor], 1)


def test_what_does_not_fit_is_refused_in_words():
    tensor = torch.ones(4)
    for k in (0, 5):
        with pytest.raises(ValueError, match="k must be 1 to 4"):
            kth_abs(tensor, k)
    for count in (-1, 5):
        with pytest.raises(ValueError, match="count must be 0 to 4"):
            keep_largest(tensor, count)
        with pytest.raises(ValueError, match="count must be 0 to 4"):
            keep_where_largest(tensor, tensor, count)
    with pytest.raises(ValueError, match=r"weights must have the shapes .* got \(3,\) on cpu for"):
        keep_where_largest(torch.ones(3), tensor, 1)
    with pytest.raises(ValueError, match=r"one dtype and device, got .*float32.*float64"):
        kth_abs([tensor, tensor.double()], 1)
    with pytest.raises(ValueError, match=r"floating-point tensors, got torch\.int64"):
        kth_abs(torch.arange(3), 1)
