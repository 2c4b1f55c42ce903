"""The strong tickets' experiment: its parts, data of one's own, its refusals."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.sparsity.strong_tickets import arms, experiment
from mmxx.sparsity.strong_tickets.card import CARD


def test_a_share_is_interpolated_between_counts():
    assert arms.enough(np.array([0.5, 1.0]), 0.25) == 0.5
    assert arms.enough(np.array([0.0, 0.0, 0.9, 1.0]), 0.9) == 3
    assert arms.enough(np.array([0.0, 0.5]), 0.9) == float("inf")


def test_the_line_is_that_of_least_squares():
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    eps = 2.0 ** -np.arange(1, 9)
    counts = 1.3 * np.arange(1, 9) + rng.normal(size=8)
    theirs = linregress(np.arange(1, 9), counts)
    slope, offset, r2 = arms.log_law(eps, counts)
    assert (slope, offset) == pytest.approx((theirs.slope, theirs.intercept))
    assert r2 == pytest.approx(theirs.rvalue**2)


def test_the_networks_learn_and_global_generators_stay():
    item = experiment._network_items(replace(experiment.TINY, epochs=15, hidden=16), _Quiet())
    state = torch.get_rng_state()
    for one in (item[0], item[-1]):
        result = arms.approximate(one)
        assert torch.equal(state, torch.get_rng_state())
        assert result["product"]["ticket"]["target_right"] > 300
        assert (
            abs(result["product"]["ticket"]["right"] - result["product"]["ticket"]["target_right"])
            < 2
        )
        assert result["product"]["control"]["right"] < 150
        assert result["product"]["changed"] == 0


class _Quiet:
    seed = 0

    def source(self, source):
        pass


def test_a_ticket_that_is_saved_otherwise_is_seen():
    from mmxx.sparsity.strong_tickets import StrongTicket

    net = StrongTicket.construct(arms.mlp(4, 3, 2), 0.05).net
    assert arms.changed(net) == 0
    with torch.no_grad():
        net.layers[1].outer[0, 0] += 1e-6
    assert arms.changed(net) == 1


# -- networks of one's own ---------------------------------------------------------------------


def weights(*shapes, bias=True):
    generator = torch.Generator().manual_seed(0)
    found = {}
    for place, (outs, ins) in enumerate(shapes):
        found[f"fc{place + 9}.weight"] = torch.rand(outs, ins, generator=generator) - 0.5
        if bias:
            found[f"fc{place + 9}.bias"] = torch.rand(outs, generator=generator) - 0.5
    return found


def test_a_network_is_read_in_the_order_of_its_names(tmp_path):
    tensors = weights((5, 12), (4, 5), (3, 4))  # fc9, fc10, fc11
    save_file(tensors, tmp_path / "net.safetensors")
    net = arms.read_model(tmp_path / "net.safetensors")
    x = torch.rand(6, 1, 3, 4)
    y = x.flatten(1)
    for place in (9, 10, 11):
        y = torch.relu(y) if place > 9 else y
        y = y @ tensors[f"fc{place}.weight"].T + tensors[f"fc{place}.bias"]
    assert torch.allclose(net(x), y, atol=1e-6)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (weights((5, 12), (4, 6)), r"fc10.weight takes 6 inputs, the layer before it gives 5"),
        ({"conv.weight": torch.zeros(2, 1, 3, 3)}, "holds conv; accepted: safetensors of linear"),
        ({"a.weight": torch.zeros(2, 3), "b.bias": torch.zeros(2)}, "holds b.bias; accepted"),
        ({"x": torch.zeros(2)}, "holds x; accepted"),
    ],
)
def test_other_networks_are_refused(tensors, message, tmp_path):
    save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=message):
        arms.read_model(tmp_path / "net.safetensors")


def test_a_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / "net").write_bytes(b"nothing")
    for name in ("net", "missing"):
        with pytest.raises(ValueError, match=f"model: .*{name} cannot be read"):
            arms.read_model(tmp_path / name)


def idx(path, pixels, labels):
    """Pictures and labels as MNIST has them."""
    head = struct.pack(">I", 0x800 | pixels.ndim)
    sizes = struct.pack(f">{pixels.ndim}I", *pixels.shape)
    (path / "x-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + sizes + pixels.tobytes()))
    if labels is not None:
        head = struct.pack(">II", 0x801, len(labels))
        content = gzip.compress(head + labels.astype(np.uint8).tobytes())
        (path / "x-labels-idx1-ubyte.gz").write_bytes(content)
    return path / "x-images-idx3-ubyte.gz"


def measured(tmp_path, config):
    run = create(tmp_path / "run", CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}, run.folder


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    pixels = rng.integers(0, 60, (60, 4, 3))
    pixels[np.arange(60), labels, :] += 150  # the brightest row is the class
    return pixels.astype(np.uint8), labels


def test_a_network_and_pictures_of_ones_own(tmp_path, pictures):
    data = idx(tmp_path, *pictures)
    save_file(weights((5, 12), (3, 5)), tmp_path / "net.safetensors")
    config = replace(experiment.TINY, model=tmp_path / "net.safetensors", data=data)
    lines, folder = measured(tmp_path, config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    assert not [name for name in lines if name.startswith("mnist")]  # bound to that file
    rows = (folder / "tables" / "tickets.csv").read_text().splitlines()
    assert len(rows) == 4
    assert len((folder / "tables" / "stops.csv").read_text().splitlines()) == 5
    assert all(row.startswith("own,") for row in rows[1:])


def test_without_a_network_one_is_trained_on_the_pictures(tmp_path, pictures):
    data = idx(tmp_path, *pictures)
    _, folder = measured(tmp_path, replace(experiment.TINY, epochs=150, hidden=16, data=data))
    head, first, *_ = (folder / "tables" / "tickets.csv").read_text().splitlines()
    row = dict(zip(head.split(","), first.split(","), strict=True))
    assert int(row["target right"]) >= 11  # of 12
    assert abs(int(row["ticket right"]) - int(row["target right"])) <= 1


def test_pictures_without_labels_do_for_a_network(tmp_path, pictures):
    data = idx(tmp_path, pictures[0], None)
    with pytest.raises(ValueError, match="data: without a model, 10 pictures with labels or more"):
        measured(tmp_path, replace(experiment.TINY, data=data))
    save_file(weights((5, 12), (3, 5)), tmp_path / "net.safetensors")
    config = replace(experiment.TINY, model=tmp_path / "net.safetensors", data=data)
    run = create(tmp_path / "other", CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    assert json.loads((run.folder / "run.json").read_text())["status"] == "done"


def test_a_network_for_other_pictures_is_refused(tmp_path, pictures):
    data = idx(tmp_path, *pictures)
    save_file(weights((5, 13), (3, 5)), tmp_path / "net.safetensors")
    config = replace(experiment.TINY, model=tmp_path / "net.safetensors", data=data)
    with pytest.raises(ValueError, match=r"takes 13 values, a picture has 12 \(1 × 4 × 3\)"):
        measured(tmp_path, config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 0}, "hidden must be above 0, got 0"),
        ({"eps": -0.1}, "eps must be above 0, got -0.1"),
        ({"tickets": ()}, "tickets must name one or more, got none"),
        ({"tolerances": (0.1, 0.2)}, "tolerances must be three or more"),
        ({"numbers": 29}, "numbers must be 28 at most, for memory, got 29"),
        ({"stops": (0.1, 2.0)}, r"stops must be 1 at most, in eps, got \(0.1, 2.0\)"),
        ({"model": "net"}, "model=net needs data"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)


def test_numbers_that_do_not_suffice_are_said(tmp_path):
    config = replace(experiment.TINY, tolerances=(0.4, 0.1, 0.001))
    lines, _ = measured(tmp_path, config)
    assert lines["log-law"]["note"].startswith("8 numbers do not suffice")


def test_the_sham_ruins_the_ticket(tmp_path):
    with experiment.sham():
        lines, _ = measured(tmp_path, replace(experiment.TINY, epochs=15, hidden=16))
    assert lines["same-accuracy"]["measured"] > 100
    assert lines["weights-within-eps"]["measured"] > 0.1
