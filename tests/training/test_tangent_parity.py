"""Kernels of neural-tangents, recorded with their weights and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.training.tangent import infinite, ntk

PARITY = json.loads((Path(__file__).parents[1] / "parity" / "tangent.json").read_bytes())


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("method", ["auto", "jacobian", "ntvp"])
def test_a_network_has_the_kernel_of_neural_tangents(method):
    record = PARITY["finite"]
    parts: list[nn.Module] = []
    for weight, bias in zip(record["weights"], record["biases"], strict=True):
        layer = nn.Linear(len(weight[0]), len(weight)).double()
        layer.load_state_dict({"weight": tensor(weight), "bias": tensor(bias)})
        parts += [nn.Tanh(), layer]
    net, x = nn.Sequential(*parts[1:]), tensor(record["x"])
    assert np.allclose(ntk(net, x, method=method), record["kernel"], rtol=1e-12, atol=1e-12)
    assert np.allclose(ntk(net, x, method=method, trace=True), record["trace"], rtol=1e-12)


class Convolution(nn.Module):
    """A convolution and a head, whose weights the record has with channels last."""

    def __init__(self, kernel: torch.Tensor, head: torch.Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, bias=False).double()
        self.head = nn.Linear(27, 2, bias=False).double()
        self.conv.load_state_dict({"weight": kernel.permute(3, 2, 0, 1).contiguous()})
        self.head.load_state_dict({"weight": head.T.contiguous()})

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).permute(0, 2, 3, 1).flatten(1))


def test_a_convolution_has_the_kernel_of_neural_tangents():
    record = PARITY["convolution"]
    net = Convolution(tensor(record["kernel_weight"]), tensor(record["head"]))
    x = tensor(record["x"]).permute(0, 3, 1, 2)
    assert np.allclose(ntk(net, x), record["kernel"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("act", ["relu", "erf"])
def test_infinite_width_has_the_kernels_of_neural_tangents(act):
    record = PARITY["infinite"]
    options = {name: record[name] for name in ("weight_std", "bias_std")}
    x = tensor(record["x"])
    other = x[: record["others"]] + record["shift"]
    for name, make in (("ntk", infinite.ntk), ("nngp", infinite.nngp)):
        found = make(record["depth"], act, **options)(x, other)
        assert np.allclose(found, record[act][name], rtol=1e-12)


@pytest.mark.parametrize("act", ["relu", "erf"])
def test_infinitely_many_channels_have_the_kernels_of_neural_tangents(act):
    record = PARITY["infinite_convolution"]
    x, other = tensor(record["x"]), tensor(record["other"])
    for kind, pool in (("pool", True), ("flat", False)):
        options = {name: record[name] for name in ("weight_std", "bias_std")} | {"pool": pool}
        for name, make in (("ntk", infinite.conv_ntk), ("nngp", infinite.conv_nngp)):
            found = make(record["depth"], act, **options)(x, other)
            assert np.allclose(found, record[act][kind][name], rtol=1e-12)
