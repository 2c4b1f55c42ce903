"""What the contract builds of the tangent kernel."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.lab.testing import Case
from mmxx.training.tangent import (
    NTKClassifier,
    NTKLinear,
    NTKRegressor,
    Scaled,
    hessian_norm,
    infinite,
    jacobian,
    linearize,
    ntk,
    ntk_mlp,
    taylor,
    training_outputs,
    two_layer_hessian_norm,
)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _normal(*shape: int) -> tuple[Tensor, ...]:
    return (torch.randn(*shape, generator=_generator()),)


def _net() -> nn.Sequential:
    head = NTKLinear(6, 2, bias=True, generator=_generator())
    return nn.Sequential(*ntk_mlp((4, 5, 6), nn.SiLU, generator=_generator()), nn.Tanh(), head)


def _of_net(function: Any, **options: Any) -> Any:
    """A function of a model and samples, as one of samples; the model follows their dtype."""

    def call(x: Tensor) -> Any:
        return function(_net().to(x.dtype), x, **options)

    return call


def _training() -> tuple[Tensor, ...]:
    generator = _generator()
    half = torch.randn(5, 8, generator=generator)
    return half @ half.T, *(torch.randn(5, 2, generator=generator) for _ in range(2))


def _two_layers() -> tuple[Tensor, ...]:
    shapes = ((7, 4), (7,), (5, 4))
    generator = _generator()
    return tuple(torch.randn(*shape, generator=generator) for shape in shapes)


def _function(make: Any, args: Any, name: str) -> Case:
    return Case(make, args, "function", name, per_sample=False)


_samples = partial(_normal, 5, 4)
CASES: list[Case] = [
    *(
        _function(partial(_of_net, ntk, method=method), _samples, f"ntk-{method}")
        for method in ("structured", "jacobian", "ntvp")
    ),
    _function(partial(_of_net, ntk, trace=True, batch=2), _samples, "ntk-trace"),
    Case(partial(_of_net, ntk, diagonal=True), _samples, "function", "ntk-diagonal"),
    Case(partial(_of_net, jacobian), _samples, "function", "jacobian"),
    _function(partial(_of_net, hessian_norm), _samples, "hessian_norm"),
    _function(lambda: partial(two_layer_hessian_norm, act=torch.tanh), _two_layers,
              "two_layer_hessian_norm"),
    _function(lambda: partial(training_outputs, steps=[0, 3], lr=0.1), _training,
              "training_outputs"),
    _function(lambda: infinite.ntk(2, "relu"), _samples, "infinite.ntk"),
    _function(lambda: infinite.nngp(2, "erf"), _samples, "infinite.nngp"),
    _function(lambda: infinite.conv_ntk(1, "relu"), partial(_normal, 3, 2, 3, 2),
              "infinite.conv_ntk"),
    _function(lambda: infinite.conv_nngp(1, "erf", pool=False), partial(_normal, 3, 2, 3, 2),
              "infinite.conv_nngp"),
    Case(lambda: NTKLinear(4, 3, bias=True, generator=_generator()), _samples, "module",
         "NTKLinear"),
    Case(lambda: Scaled(torch.tanh, 1.5), _samples, "function", "Scaled"),
    Case(_net, _samples, "module", "ntk_mlp"),
    Case(lambda: linearize(_net()), _samples, "module", "linearize"),
    Case(lambda: taylor(_net(), 2), _samples, "module", "taylor"),
    Case(lambda: NTKRegressor(depth=1), tuple, "estimator", "NTKRegressor"),
    Case(lambda: NTKClassifier(depth=1), tuple, "estimator", "NTKClassifier"),
]  # fmt: skip
