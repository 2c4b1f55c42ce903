"""Tickets: what they compute, what is proved of them, what is saved, what is refused."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from torch import nn

from mmxx.sparsity._common import Masks
from mmxx.sparsity.strong_tickets import GoldenTicket, RandomNet, StrongTicket, arms, subset_sum
from mmxx.sparsity.strong_tickets.law import Law, default_count


def linear(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 5, bias=bias), nn.ReLU(), nn.Linear(5, 4, bias=bias), nn.Dropout(0.5),
        nn.Linear(4, 3, bias=bias),
    ).eval()  # fmt: skip


def convolutional():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Conv2d(4, 3, (2, 1), dilation=(1, 2)), nn.AvgPool2d(2, padding=1), nn.Flatten(),
        nn.Linear(12, 3),
    ).eval()  # fmt: skip


def one_axis():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv1d(2, 3, 3, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))


def three_axes():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


SHAPES = {linear: (6,), convolutional: (2, 8, 8), one_axis: (2, 6), three_axes: (1, 3, 3, 3)}


def product(*args, **more):
    return StrongTicket.construct(*args, **more)


def row(*args, **more):
    return StrongTicket.construct(*args, share="row", **more)


def golden(*args, **more):
    return GoldenTicket.construct(*args, **more)


EVERY = [product, row, golden]


def inputs(network, nonneg, count=40):
    x = torch.rand(count, *SHAPES[network], generator=torch.Generator().manual_seed(5))
    return x if nonneg else 2 * x - 1


# -- what they compute -------------------------------------------------------------------------


@pytest.mark.parametrize("nonneg", [True, False])
@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("network", SHAPES)
def test_a_ticket_computes_the_network_within_what_is_proved(network, make, nonneg):
    target = network()
    ticket = make(target, 0.01, nonneg_input=nonneg, seed=4)
    errors = ticket.weight_errors()
    assert len(errors) == sum(p.numel() for p in target.parameters())
    assert errors.max() <= 0.01
    x = inputs(network, nonneg)
    gap = (ticket.net.double()(x.double()) - target.double()(x.double())).abs().max().item()
    ticket.net.float(), target.float()
    certificate = ticket.certificate(0.0 if nonneg else -1.0, 1.0)
    assert 0 < gap <= certificate.bound <= certificate.lipschitz
    assert certificate.weight_error == pytest.approx(errors.max(), rel=1e-6)
    assert ticket.masks.kept == sum(count.kept for count in ticket.counts)
    assert ticket.masks.total == sum(count.choices for count in ticket.counts)


@pytest.mark.parametrize("make", [product, golden])
@pytest.mark.parametrize("network", SHAPES)
def test_the_theorems_dense_network_under_its_masks_is_the_ticket(network, make):
    ticket = make(network(), 0.02, nonneg_input=False)
    state = torch.get_rng_state()
    dense, masks = ticket.net.dense()
    assert torch.equal(state, torch.get_rng_state())
    random = [p for p in dense.parameters() if p.ndim > 1]
    assert all((p != 0).float().mean() > 0.7 for p in random)  # a conv's bias has one tap
    x = inputs(network, False)
    assert (dense(x) - ticket.net(x)).abs().max() > 0.1
    masks.apply(dense)
    assert torch.allclose(dense(x), ticket.net(x), atol=1e-5)
    kept = [mask.sum().item() for name, mask in masks.items() if name.endswith("weight")]
    assert sum(kept[1::2]) == ticket.masks.kept


def test_each_weight_is_the_sum_that_subset_sum_finds():
    """The whole way by hand, for one layer."""
    torch.manual_seed(0)
    target = nn.Sequential(nn.Linear(3, 2, bias=False))
    net = StrongTicket.construct(target, 0.01, n=9, stop=0.0, seed=8).net
    (layer,) = net.random_layers().values()
    weight = target[0].weight.detach().double().numpy()
    for i in range(3):
        units = np.flatnonzero(layer.unit_input.numpy() == i)
        products = layer.outer.double().numpy()[:, units] * layer.inner.double().numpy()[units]
        assert (layer.inner.numpy()[units] > 0).all()
        for j in range(2):
            kept = layer.mask.numpy()[j, units]
            error = abs(products[j, kept].sum() - weight[j, i])
            if len(units) == 9:  # else some weight of this input was given more
                assert error == pytest.approx(subset_sum(weight[j, i], products[j])[1], abs=1e-9)
            assert error <= 0.01


def test_rows_share_coefficients_and_others_do_not():
    target = linear(bias=False)
    (first, *_) = row(target, 0.01).net.random_layers().values()
    values = first.outer.view(5, 6, -1)
    assert (values == values[:, :1]).all()
    least = min(p.min().item() for p in target.parameters())
    most = max(p.max().item() for p in target.parameters())
    assert least < values.min() < values.max() < most
    (first, *_) = product(target, 0.01).net.random_layers().values()
    assert len(first.outer.unique()) == first.outer.numel()


def test_a_weight_that_few_coefficients_cannot_reach_gets_more():
    target = linear(bias=False)
    few, enough = product(target, 0.01, n=4), product(target, 0.01, n=24)
    assert sum(count.retried for count in few.counts) > 20
    assert sum(count.retried for count in enough.counts) == 0
    assert few.weight_errors().max() <= 0.01
    assert few.masks.total < enough.masks.total
    few = golden(target, 0.01, n=4)
    assert sum(count.retried for count in few.counts) > 20
    assert few.weight_errors().max() <= 0.01


def test_signs_of_inputs_need_units_of_their_own():
    target = linear()
    assert product(target, 0.01).masks.total < product(target, 0.01, nonneg_input=False).masks.total
    plain = product(target, 0.01).net(inputs(linear, False))
    assert (plain - target(inputs(linear, False))).abs().max() > 0.05


def test_an_earlier_end_of_the_search_leaves_larger_errors():
    target = linear()
    errors = [row(target, 0.01, stop=stop).weight_errors().mean() for stop in (0.0, 1e-3, 1e-2)]
    assert errors[0] < errors[1] < errors[2]


def test_zero_weights_and_a_network_without_weights():
    target = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(target[0].weight)
    nn.init.zeros_(target[0].bias)
    for make in EVERY:
        assert make(target, 0.01).weight_errors().max() <= 0.01
    ticket = product(nn.Sequential(nn.ReLU()), 0.01)
    assert ticket.masks.total == 0
    assert ticket.certificate().bound == 0
    assert ticket.kept_per_weight == 0


def test_the_count_is_the_authors():
    law = Law("row", 0, 0, -0.46423155069351196, 0.5407021641731262)
    assert default_count(law, 0.01) == 21


def test_a_network_in_double_precision_is_taken():
    target = linear().double()
    assert product(target, 1e-4).weight_errors().max() <= 1e-4


# -- workers, seeds, files ---------------------------------------------------------------------


@pytest.mark.parametrize("make", EVERY)
def test_any_number_of_workers_gives_the_same_bits(make, monkeypatch):
    from mmxx.sparsity.strong_tickets import construct

    target = linear()
    serial = make(target, 0.02).net.to_bytes()
    monkeypatch.setattr(construct, "_CHUNK", 1)  # a task for every row
    with ThreadPoolExecutor(3) as pool:
        assert make(target, 0.02, map=pool.map).net.to_bytes() == serial


@pytest.mark.parametrize("make", EVERY)
def test_a_ticket_is_its_seed_and_bits(make, tmp_path):
    ticket = make(convolutional(), 0.02, seed=2**64 - 1, nonneg_input=False)
    ticket.net.save(tmp_path / "ticket.safetensors")
    again = RandomNet.load(tmp_path / "ticket.safetensors")
    state = ticket.net.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert again.masks == ticket.masks
    assert arms.changed(ticket.net) == 0
    bits = sum(-(-mask.numel() // 8) for mask in ticket.masks.values())
    assert (tmp_path / "ticket.safetensors").stat().st_size < bits + 5000


def test_the_seed_decides():
    target = linear()
    one, other = product(target, 0.02, seed=1), product(target, 0.02, seed=2)
    assert not torch.equal(one.net.layers[0].outer, other.net.layers[0].outer)
    assert product(target, 0.02, seed=1).net.to_bytes() == one.net.to_bytes()


def test_shuffling_keeps_the_counts_of_each_row_and_ruins_the_network():
    target = linear()
    net = product(target, 0.01).net
    control = net.shuffled(3)
    for name, mask in net.masks.items():
        other = control.masks[name]
        assert not torch.equal(mask, other)
        assert torch.equal(mask.flatten(1).sum(1), other.flatten(1).sum(1))
    x = inputs(linear, True)
    assert (control(x) - target(x)).abs().max() > 1
    assert (net(x) - target(x)).abs().max() < 0.02


def test_masks_are_masks_of_the_network(tmp_path):
    net = product(linear(), 0.01).net
    assert list(net.masks.validate(net)) == list(net.masks)
    net.masks.save(tmp_path / "masks")
    assert Masks.load(tmp_path / "masks") == net.masks
    assert not any(parameter.requires_grad for parameter in net.parameters())


def damaged(change):
    content = product(linear(), 0.05).net.to_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about, tensors = json.loads(header["__metadata__"]["ticket"]), load(content)
    change(tensors, about)
    return save(tensors, metadata={"ticket": json.dumps(about)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "no safetensors file"),
        (save({"x": np.zeros(3)}), "no strong ticket: the format is None"),
        (damaged(lambda tensors, about: tensors.pop("2.mask")), "a damaged ticket: '2.mask'"),
        (
            damaged(lambda tensors, about: tensors.update({"0.mask": np.zeros(3, np.uint8)})),
            "the mask of layer 0 has another size",
        ),
        (
            damaged(lambda tensors, about: tensors.update({"0.counts": np.zeros((1, 2), int)})),
            r"counts of shape \(1, 2\) in layer 0",
        ),
        (damaged(lambda tensors, about: about.update(layers=[{}])), "a damaged ticket: 'kind'"),
        (
            damaged(lambda t, about: about.update(layers=[{"kind": "Module"}])),
            "a damaged ticket: 'Module'",
        ),
    ],
)
def test_a_file_that_is_no_ticket_is_refused(content, message, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        RandomNet.load(tmp_path / "file")


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (nn.Linear(2, 2), "target must be a torch.nn.Sequential, got Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), r"not supported: 1 \(Tanh\); accepted: Linear"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), r"0 \(Conv2d of 2 groups\)"),
        (nn.Sequential(nn.Conv1d(2, 2, 3, padding="same")), r"Conv1d with padding zeros, same"),
        (
            nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
            r"with padding circular, \(1, 1\)",
        ),
        (nn.Sequential(nn.Flatten(0), nn.BatchNorm1d(3)), r"Flatten of axes 0 to -1.*BatchNorm1d"),
    ],
)
def test_layers_that_are_not_supported_are_named(target, message):
    with pytest.raises(TypeError, match=message):
        StrongTicket.construct(target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 0.0}, "eps must be above 0, got 0.0"),
        ({"eps": math.nan}, "eps must be above 0, got nan"),
        ({"eps": 1e-9}, r"eps=1e-09 for weights in ±.* needs n=\d+: .* bytes; at most 44"),
        ({"n": 0}, "n must be 'auto' or 1 or more, got 0"),
        ({"n": 45}, "needs n=45: the sums of the two halves would take about 536,870,912 bytes"),
        ({"seed": -1}, r"seed must be from 0 to 2\^64 - 1, got -1"),
        ({"share": "all"}, "share must be 'none' or 'row', got 'all'"),
        ({"stop": 0.1}, "stop must lie between 0 and eps=0.01, got 0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StrongTicket.construct(linear(), **arguments)


def test_weights_that_are_not_finite_are_refused():
    target = linear()
    with torch.no_grad():
        target[2].bias[1] = math.nan
    with pytest.raises(ValueError, match=r"target has NaN or infinity in 2\.bias"):
        product(target)


def test_what_no_count_reaches_is_said(monkeypatch):
    from mmxx.sparsity.strong_tickets import subset

    monkeypatch.setattr(subset, "MOST", 12)
    with pytest.raises(
        ValueError, match=r"eps=0.0001 cannot be reached for \d+ weights with 12 un"
    ):
        product(linear(), 1e-4, n=8)


def test_a_domain_that_a_ticket_is_not_for_is_refused():
    ticket = product(linear(), 0.01)
    with pytest.raises(ValueError, match=r"low must not exceed high, got 1\.0 and 0\.0"):
        ticket.certificate(1.0, 0.0)
    with pytest.raises(ValueError, match="low=-1: the ticket was made for inputs that are not neg"):
        ticket.certificate(-1.0, 1.0)


# -- the authors' network ----------------------------------------------------------------------


@pytest.mark.skipif("MMXX_DATA" not in os.environ, reason="MMXX_DATA names no folder of real data")
def test_the_authors_network_keeps_its_accuracy():
    from mmxx.data import load as load_data

    folder = Path(os.environ["MMXX_DATA"])
    target = arms.read_model(folder / "strong_tickets" / "fc2.safetensors")
    images = load_data(folder / "mnist" / "t10k-images-idx3-ubyte.gz", kinds=("images",))
    x = torch.from_numpy(images.as_float().reshape(-1, 784))
    labels = torch.from_numpy(images.labels)
    expected = arms.outputs(target, x)
    assert int((expected.argmax(1) == labels).sum()) == 9719
    ticket = row(target, 0.01)
    assert ticket.weight_errors().max() <= 0.01
    assert sum(count.choices for count in ticket.counts) == 8_337_000
    some = slice(0, 2000)
    assert torch.equal(arms.outputs(ticket.net, x[some]).argmax(1), expected[some].argmax(1))
