"""Both orders in which a layer's part of the kernel is summed, against all sums written out."""

from __future__ import annotations

import pytest
import torch

from mmxx.training.tangent import products
from mmxx.training.tangent.layers import Dense, Outer, Tokens

OUTPUTS = 3


def factor(kind: str, samples: int, places: int, seed: int) -> Dense | Outer | Tokens:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    deltas = normal(samples, OUTPUTS, places, 4)
    if kind == "dense":
        return Dense(("p",), deltas.flatten(2))
    if kind == "tokens":
        rows = torch.randint(-1, 3, (samples, places), generator=generator)
        return Tokens(("table",), rows, 3, deltas)
    scales = {"outer": (0.7, 1.3), "weight": (0.7, 0.0), "bias": (0.0, 1.3)}[kind]
    return Outer(("weight", "bias"), normal(samples, places, 5), deltas, *scales)


def gradients(one: Dense | Outer | Tokens) -> torch.Tensor:
    """By all parameters, [N, C, p]."""
    match one:
        case Dense(_, jacobian):
            return jacobian
        case Tokens(_, tokens, rows, deltas):
            inputs = (tokens[..., None] == torch.arange(rows)).to(deltas)
            return torch.einsum("ncto,nti->ncoi", deltas, inputs).flatten(2)
        case Outer(_, inputs, deltas, weight, bias):
            of_weight = weight * torch.einsum("ncto,nti->ncoi", deltas, inputs).flatten(2)
            return torch.cat([of_weight, bias * deltas.sum(2)], 2)


@pytest.mark.parametrize("first", ["written out", "pairs of places"])
@pytest.mark.parametrize("kind", ["dense", "tokens", "outer", "weight", "bias"])
@pytest.mark.parametrize("places", [(1, 1), (6, 6), (6, 2)])
def test_both_orders_are_the_product_of_the_gradients(monkeypatch, first, kind, places):
    def choose(one, other, **_):
        return first == "written out" and isinstance(one, Outer)

    monkeypatch.setattr(products, "_written_first", choose)
    monkeypatch.setattr(products, "_CHUNK", 200)  # several bands and pieces
    if kind == "dense":
        places = (1, 1)  # it has none, only so many parameters
    one, other = factor(kind, 7, places[0], 1), factor(kind, 5, places[1], 2)
    mine, theirs = gradients(one), gradients(other)
    for left, right, expected in (
        (one, other, torch.einsum("ncp,mdp->ncmd", mine, theirs)),
        (one, one, torch.einsum("ncp,mdp->ncmd", mine, mine)),
    ):
        full, trace = torch.zeros_like(expected), expected.new_zeros(expected.shape[::2])
        products.add_full(full, left, right)
        products.add_trace(trace, left, right)
        if right is left:
            products.mirror(full)
            products.mirror(trace)
        assert torch.allclose(full, expected, rtol=1e-12, atol=1e-12)
        assert torch.allclose(trace, torch.einsum("ncmc->nm", expected), rtol=1e-12, atol=1e-12)
    own = mine.new_zeros(7, OUTPUTS, OUTPUTS)
    products.add_diagonal(own, one)
    assert torch.allclose(own, mine @ mine.mT, rtol=1e-12, atol=1e-12)


def test_the_order_follows_from_the_sizes():
    """Few weights and many places: written out. Many weights and few places: not."""

    def outer(samples: int, places: int, inputs: int, outputs: int) -> Outer:
        deltas = torch.empty(samples, 10, places, outputs, device="meta")
        return Outer(("w",), torch.empty(samples, places, inputs, device="meta"), deltas, 1.0, 0.0)

    first, last = outer(16, 256, 27, 32), outer(16, 16, 2304, 256)
    assert products._written_first(first, first)
    assert not products._written_first(last, last)
    assert not products._written_first(last, last, trace=True)
    single = outer(16, 1, 27, 32)
    assert not products._written_first(single, single)
