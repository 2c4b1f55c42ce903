"""Products by oneDNN: what torch's own linear gives, to rounding, with all its gradients."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from mmxx.nn.cross_entropy import head_cross_entropy
from mmxx.nn.linear import _round, by_onednn, linear

pytestmark = pytest.mark.skipif(
    not by_onednn(torch.ones(64, 256), torch.ones(256, 256)), reason="torch has no oneDNN or no MKL"
)


def drawn(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < 2e-6 * other.norm()


@pytest.mark.parametrize(("rows", "biased"), [(16, True), (16, False), (77, True)])
def test_gradients_of_both_orders_are_those_of_torch(rows, biased):
    inputs = drawn((4, rows, 256), (320, 256), (320,))[: 2 + biased]
    inputs[1].data /= 16
    assert by_onednn(*inputs[:2])

    def found(layer, values):
        y = layer(*values)
        first = torch.autograd.grad(y.square().sum(), values, retain_graph=True)
        kept = torch.autograd.grad(y.cos().sum(), values, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in kept), values)
        return [y, *first, *kept, *second]

    exact = [value.detach().double().requires_grad_() for value in inputs]
    assert not by_onednn(*exact[:2])
    close(found(linear, inputs), found(F.linear, exact))


def test_gradients_of_single_rows():
    x, weight, bias = (value.detach() for value in drawn((8, 64, 256), (256, 256), (256,)))

    def loss(weight, bias, x):
        return linear(x, weight, bias).square().sum()

    found = torch.func.vmap(torch.func.grad(loss, (0, 1)), (None, None, 0))(weight, bias, x)
    y = x @ weight.T + bias
    close(found, [2 * y.mT @ x, 2 * y.sum(1)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("recorded", [True, False])
def test_forward_derivatives(recorded):
    inputs = [value.detach() for value in drawn((2, 64, 256), (256, 256), (256,))]
    to_inputs = [value.flip(0) for value in inputs]
    with torch.set_grad_enabled(recorded):
        found = torch.func.jvp(linear, tuple(inputs), tuple(to_inputs))
        close(found, torch.func.jvp(F.linear, tuple(inputs), tuple(to_inputs)))
        with forward_ad.dual_level():
            dual = [forward_ad.make_dual(*pair) for pair in zip(inputs, to_inputs, strict=True)]
            y = forward_ad.unpack_dual(linear(*dual))
            close([y.primal, y.tangent], found)


def test_many_gradients_at_once():
    x, weight = drawn((2, 64, 256), (256, 256))
    y, (rows,) = linear(x, weight), drawn((3, 2, 64, 256))
    found = torch.autograd.grad(y, (x, weight), rows, is_grads_batched=True)
    close(found[0], rows @ weight)
    close(found[1], rows.flatten(1, 2).mT @ x.flatten(0, 1))


def test_many_weights_at_once():
    x, weight = (value.detach() for value in drawn((4, 16, 256), (3, 256, 256)))
    found = torch.func.vmap(linear, (None, 0))(x, weight)
    close(found, [x @ one.T for one in weight])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_it_is_the_same():
    inputs = drawn((4, 64, 256), (256, 256), (256,))
    expected = torch.autograd.grad(linear(*inputs).square().sum(), inputs)
    found = torch.autograd.grad(torch.compile(linear)(*inputs).square().sum(), inputs)
    close(found, expected)


def test_the_heads_loss_and_its_gradients():
    x, head = drawn((300, 256), (512, 256))
    head.data *= 0.1
    assert by_onednn(x, head)
    targets = torch.arange(300)
    expected = F.cross_entropy(x.double() @ head.double().T, targets)
    found = head_cross_entropy(x, head, targets)
    close(torch.autograd.grad(found, (x, head)), torch.autograd.grad(expected, (x, head)))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_shapes_are_few_and_little_is_left_over():
    sizes = range(1, 10_000)
    assert all(n * 7 / 8 < _round(n) <= n for n in sizes)
    assert len({_round(n) for n in sizes}) < 100


def test_what_onednn_is_not_asked():
    x, weight = drawn((64, 256), (256, 256))
    assert not by_onednn(x.double(), weight.double())
    assert not by_onednn(x.bfloat16(), weight)
    assert not by_onednn(x[:8], weight)
    assert not by_onednn(x, weight[:128])
    assert not by_onednn(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
