"""Learning gates: their gradient, what they find, what stays, and what is refused."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn

from mmxx.sparsity.from_scratch import ChannelGraph, Gates, gating, learn_gates
from mmxx.sparsity.from_scratch.gates import gate_penalty
from mmxx.sparsity.from_scratch.networks import conv_net, depthwise_net, residual_net


def drawn(make, *args) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args)


def pictures(count: int, channels: int, side: int):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, channels, side, side, generator=generator)
    return x, torch.randint(3, (count,), generator=generator)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: conv_net(2, (3, 4, 3), 3),
        lambda: residual_net(2, (3, 4), 3),
        lambda: depthwise_net(2, (2, 3), 3),
    ],
)
def test_the_gradient_of_the_gates_by_finite_differences(make, mode):
    # a smooth activation: at a kink the two would rightly differ
    net = drawn(make).double()
    for name, module in list(net.named_modules()):
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            parent = net.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.Tanh())
    net.train(mode == "train")
    graph = ChannelGraph(net, (2, 8, 8))
    x, y = pictures(5, 2, 8)
    x = x.double()
    start = torch.rand(graph.size, generator=torch.Generator().manual_seed(2)).double()

    def objective(values):
        with gating(net, graph, values):
            return nn.functional.cross_entropy(net(x), y) + 0.5 * gate_penalty(values, 0.2)

    values = start.clone().requires_grad_()
    objective(values).backward()
    numeric = torch.zeros_like(start)
    for i in range(graph.size):
        step = torch.zeros_like(start)
        step[i] = 1e-6
        with torch.no_grad():
            numeric[i] = (objective(start + step) - objective(start - step)) / 2e-6
    assert torch.allclose(values.grad, numeric, atol=1e-8, rtol=1e-5)
    assert values.grad.abs().max() > 1e-4


def test_gates_of_one_change_nothing_and_hooks_are_gone_afterwards():
    net = drawn(residual_net, 3, (4, 6), 5).eval()
    graph = ChannelGraph(net, (3, 8, 8))
    x, _ = pictures(3, 3, 8)
    plain = net(x)
    with gating(net, graph, torch.ones(graph.size)):
        assert torch.equal(net(x), plain)
    with gating(net, graph, torch.zeros(graph.size)):
        assert torch.equal(net(x), net(x * 2))  # nothing comes through but the bias
    with contextlib.suppress(RuntimeError), gating(net, graph, torch.zeros(graph.size)):
        raise RuntimeError
    assert torch.equal(net(x), plain)
    with pytest.raises(ValueError, match="it is not the network of this graph"):
        gating(conv_net(3, (4,), 5), graph, torch.ones(graph.size)).__enter__()


def deciding():
    """A network of six channels, of which two see what decides, and its data."""
    net = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(6))
        net[2].weight.copy_(torch.tensor([[1.0, -1.0] * 3, [-1.0, 1.0] * 3]))
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    return net, x, (x[:, 0] - x[:, 1] < 0).long()


def test_gates_find_the_channels_that_carry_the_answer():
    net, x, y = deciding()
    gates = learn_gates(net, [(x, y)], r=1 / 3, lam=1.0, epochs=300, lr=0.05)
    assert set(gates.values.topk(2).indices.tolist()) == {0, 1}
    assert gates.values[2:].max() < 0.2 < 0.8 < gates.values[:2].min()
    assert gates.search(ratio=0.6).kept["0"].tolist() == [True, True, False, False, False, False]


def test_learning_gates_trains_no_weight_and_is_what_adam_and_clipping_do():
    net = drawn(conv_net, 2, (4, 5), 3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x, y = pictures(12, 2, 6)
    data = [(x[:6], y[:6]), (x[6:], y[6:])]
    gates = learn_gates(net, data, r=0.3, lam=2.0, epochs=4, lr=0.3)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())

    graph = ChannelGraph(net, (2, 6, 6))
    g = torch.ones(graph.size, dtype=torch.float64)
    m, v = torch.zeros_like(g), torch.zeros_like(g)
    net.train()
    for step in range(8):
        values = g.float().requires_grad_()
        inputs, targets = data[step % 2]
        with gating(net, graph, values):
            loss = nn.functional.cross_entropy(net(inputs), targets)
        (loss + 2.0 * (values.abs().mean() - 0.3) ** 2).backward()
        grad = values.grad.double()
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        unbiased = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        g = (g - 0.3 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).clamp(0, 1)
    assert torch.allclose(gates.values.double(), g, atol=1e-3)
    assert len(gates.history) == 4
    assert gates.history[-1]["mean"] == pytest.approx(gates.values.mean().item())
    assert gates.history[-1]["share"] == gates.share


def test_the_best_epoch_with_few_gates_is_kept():
    net, x, y = deciding()
    options = {"r": 0.5, "lam": 0.01, "lr": 0.05}
    shown = (x[:200], y[:200])

    def learn(epochs, **more):
        return learn_gates(net, [shown], epochs=epochs, **options, **more)

    kept = learn(80, validation=[(x[200:], y[200:])])
    history = kept.history
    few = [k for k, line in enumerate(history) if line["share"] <= 0.5]
    assert 0 < len(few) < 80
    best = max(few, key=lambda k: history[k]["accuracy"])  # the first of the best
    assert best < 79
    assert torch.equal(kept.values, learn(best + 1).values)
    early = learn(few[0], validation=[(x[200:], y[200:])])  # none has few enough: the last counts
    assert torch.equal(early.values, learn(few[0]).values)


def test_gates_by_group():
    graph = ChannelGraph(conv_net(1, (2, 3), 2), (1, 4, 4))
    gates = Gates(graph, torch.tensor([0.0, 1.0, 0.5, 0.0, 0.25]))
    assert {n: g.tolist() for n, g in gates.per_group().items()} == {
        "0": [0.0, 1.0],
        "3": [0.5, 0.0, 0.25],
    }
    assert gates.share == pytest.approx(3 / 5)


def test_repeated_learning_gives_the_same_bits():
    net = drawn(residual_net, 1, (4, 4), 3)
    data = [pictures(8, 1, 8)]
    before = torch.get_rng_state()
    first, second = (learn_gates(net, data, epochs=3) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert torch.equal(before, torch.get_rng_state())
    assert first.values.dtype == torch.float32
    whole = learn_gates(net, data, epochs=1, residual=False)
    assert whole.graph.size < first.graph.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 1.5}, r"r must be in \[0, 1\], got 1.5"),
        ({"lam": -1}, "lam must be finite and 0 or more, got -1"),
        ({"epochs": 0}, "epochs must be a whole number of 1 or more, got 0"),
        ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
        ({"lr": math.nan}, "lr must be positive and finite"),
        ({"validation": []}, "validation must have a batch or more, got none"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        learn_gates(conv_net(1, (3, 3), 3), [pictures(4, 1, 4)], **options)


def test_bad_data_are_refused():
    net = conv_net(1, (3, 3), 3)
    with pytest.raises(ValueError, match="data must have a batch or more, got none"):
        learn_gates(net, [])
    with pytest.raises(ValueError, match="data must be batches that can be gone through again"):
        learn_gates(net, iter([pictures(4, 1, 4), pictures(4, 1, 4)]))
    x, y = pictures(4, 1, 4)
    with pytest.raises(ValueError, match=r"loss became nan in epoch 1; lower lr=0\.01"):
        learn_gates(net, [(x * math.nan, y)])
