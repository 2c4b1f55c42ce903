"""Networks side by side: the same as one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmxx.sparsity.lottery import (
    LotteryTicket,
    Replicas,
    Supervised,
    conv_net,
    fully_connected,
)
from mmxx.sparsity.lottery.drawing import redrawn


def chain():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.ReLU(),
        nn.Linear(5, 3),
    )  # fmt: skip


def convolution():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 3)
    )


@pytest.mark.parametrize(("make", "shape"), [(chain, (2, 4)), (convolution, (1, 3, 4))])
def test_outputs_and_gradients_are_those_of_each_alone(make, shape):
    nets = Replicas(make, seeds=range(4)).double()
    x = torch.randn(4, 7, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = nets(x)
    outputs.square().sum().backward()
    for index in range(4):
        with torch.random.fork_rng():
            torch.manual_seed(index)
            fresh = make().double()
        alone = nets.alone(index)
        for (name, one), other in zip(alone.named_parameters(), fresh.parameters(), strict=True):
            assert torch.allclose(one, other), name
        result = alone(x[index])
        assert torch.allclose(result, outputs[index], rtol=1e-12, atol=1e-12)
        result.square().sum().backward()
        stacked = dict(nets.net.named_parameters())
        for name, one in alone.named_parameters():
            assert torch.allclose(one.grad, stacked[name].grad[index], rtol=1e-10, atol=1e-12)


def test_redrawn_each_network_is_drawn_as_it_would_be_alone():
    nets = Replicas(chain, seeds=range(3))
    before = copy.deepcopy(nets.state_dict())
    state = torch.get_rng_state()
    other = redrawn(nets, 5)
    assert torch.equal(state, torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), nets.state_dict().values(), strict=True)
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = [chain() for _ in range(3)]
    bound = 1 / 8**0.5
    assert other.net[1].weight.abs().max().item() <= bound  # the fan of one network, not of three
    for index, net in enumerate(expected):
        assert torch.equal(other.alone(index)[1].weight, net[1].weight)


def test_data_of_its_own_for_each_network():
    generator = torch.Generator().manual_seed(0)
    X, y = (
        torch.randn(2, 40, 8, generator=generator),
        torch.randint(3, (2, 40), generator=generator),
    )
    nets = Replicas(chain, seeds=range(2))
    train = Supervised(X, y, X, y)
    each = [Supervised(X[i], y[i], X[i], y[i]).accuracy(nets.alone(i)) for i in range(2)]
    assert torch.equal(train.accuracy(nets), torch.cat(each))
    with pytest.raises(
        ValueError, match=r"y is \[2, N\], data for 2 networks, but the model is one"
    ):
        train.accuracy(nets.alone(0))
    with pytest.raises(ValueError, match="but the model has 3"):
        train.accuracy(Replicas(chain, seeds=range(3)))


def test_early_stopping_would_end_at_the_least_test_loss():
    generator = torch.Generator().manual_seed(1)
    X, X_test = torch.randn(60, 8, generator=generator), torch.randn(90, 8, generator=generator)
    y, y_test = (torch.randint(3, (n,), generator=generator) for n in (60, 90))
    nets = Replicas(chain, seeds=range(3))
    losses = []  # after 1, 2, ... epochs: a longer training goes on as the shorter one
    for epochs in range(1, 7):
        train = Supervised(X, y, X_test, y_test, epochs=epochs, batch_size=20, lr=0.03)
        done = LotteryTicket(nets, train, levels=0, random_state=0).run()
        logits = (done.trained.alone(i)(X_test) for i in range(3))
        losses.append([nn.functional.cross_entropy(some, y_test).item() for some in logits])
    stop = 1 + torch.tensor(losses).argmin(0)
    assert (stop < 6).any(), "noise is not learnt by heart: the test proves little"
    assert done.tickets[0].metrics["stop"].tolist() == stop.tolist()


def test_what_cannot_stand_side_by_side_is_refused():
    with pytest.raises(ValueError, match="seeds must hold one seed or more"):
        Replicas(chain, seeds=[])
    with pytest.raises(ValueError, match=r"without running statistics, got 1\.running_mean"):
        Replicas(lambda: conv_net(1, 2, 3), seeds=[0])
    widths = iter([3, 4])
    with pytest.raises(ValueError, match="the same parameters each time"):
        Replicas(lambda: nn.Linear(2, next(widths)), seeds=[0, 1])
    nets = Replicas(chain, seeds=[0, 1])
    with pytest.raises(ValueError, match=r"x must be \[2, N, ...\], a batch for each network"):
        nets(torch.zeros(3, 5, 8))
    with pytest.raises(ValueError, match="index must be 0 to 1, got 2"):
        nets.alone(2)

    def tied():
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        net[1].weight = net[0].weight
        return net

    with pytest.raises(ValueError, match="without shared parameters"):
        Replicas(tied, seeds=[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"lr": -1.0}, "lr must be above 0, got -1.0"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, r"X and y must be \[N, ...\] and \[N\]"),
        ({"y": torch.zeros(4)}, "y must hold classes, int64 from 0 on, got torch.float32"),
        ({"X_test": torch.zeros(2, 8)}, "X_test and y_test must be given together"),
        ({"X": torch.zeros(0, 8), "y": torch.zeros(0).long()}, "must hold a sample or more"),
    ],
)
def test_wrong_data_are_named(change, message):
    arguments = {"X": torch.zeros(4, 8), "y": torch.zeros(4, dtype=torch.int64), **change}
    with pytest.raises(ValueError, match=message):
        Supervised(**arguments)


def test_without_a_test_set_there_is_no_accuracy():
    train = Supervised(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="X_test and y_test must be given for an accuracy"):
        train.accuracy(chain())


def test_networks_need_widths():
    assert [m.out_features for m in fully_connected((4, 3, 2)) if isinstance(m, nn.Linear)] == [
        3,
        2,
    ]
    with pytest.raises(ValueError, match="widths must be two or more"):
        fully_connected((4,))
