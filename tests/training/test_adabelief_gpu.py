"""AdaBelief on an accelerator: every path ends where the CPU does."""

from __future__ import annotations

import pytest
import torch

from mmxx.training.adabelief import AdaBelief

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
    # the compiler of torch warns of its own parts
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]
SHAPES = [(64, 32), (32,), (5, 3, 2, 2), ()]


def train(device, dtype=torch.float64, steps=20, **options):
    generator = torch.Generator().manual_seed(0)
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(device, dtype))
        for shape in SHAPES
    ]
    optimizer = AdaBelief(params, 0.01, weight_decay=0.01, **options)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(device, dtype)
        optimizer.step()
    return torch.cat([param.detach().cpu().double().flatten() for param in params]), optimizer


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("options", [{}, {"fused": False}, {"foreach": True}, {"fused": True}])
def test_every_path_ends_where_the_cpu_does(options, amsgrad):
    got, _ = train("cuda", amsgrad=amsgrad, **options)
    wanted, _ = train("cpu", amsgrad=amsgrad, fused=False)
    assert torch.allclose(got, wanted, rtol=1e-10)


def test_16_bit_parameters_keep_a_float32_state():
    got, optimizer = train("cuda", torch.bfloat16, stochastic_rounding=True)
    wanted, _ = train("cpu", torch.bfloat16, stochastic_rounding=True)
    assert torch.allclose(got, wanted, rtol=2 * torch.finfo(torch.bfloat16).eps)
    assert {state["exp_avg"].dtype for state in optimizer.state.values()} == {torch.float32}


def test_grad_scaler_skips_an_overflow():
    param = torch.nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = AdaBelief([param])
    scaler = torch.amp.GradScaler("cuda", init_scale=8.0)
    scaler.scale((param * torch.tensor([1.0, 1.0, torch.inf], device="cuda")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(param.detach().cpu(), torch.ones(3))
    assert scaler.get_scale() == 4.0


def test_a_state_from_the_cpu_goes_on_there():
    _, saved = train("cpu")
    _, optimizer = train("cuda", steps=1)
    optimizer.load_state_dict(saved.state_dict())
    assert {state["exp_avg"].device.type for state in optimizer.state.values()} == {"cuda"}
    optimizer.step()
