"""AdaBelief as a torch.optim.Optimizer: state, schedules, scaling, hooks, refusals."""

from __future__ import annotations

import copy
import io
import math
import weakref

import pytest
import torch

from mmxx.training.adabelief import PRESETS, AdaBelief

PATHS = {
    "automatic": {},
    "single": {"fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def net(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator))
    return model.to(dtype)


def loss_of(model, step=0):
    inputs = torch.cos(torch.arange(24.0).view(6, 4) * (step + 1)).to(
        next(model.parameters()).dtype
    )
    return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()


def train(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def weights(model):
    return torch.cat([param.detach().flatten() for param in model.parameters()])


def one(value=1.0, grad=1.0, **options):
    param = torch.nn.Parameter(torch.tensor([value]))
    param.grad = torch.tensor([grad])
    return param, AdaBelief([param], **options)


# -- arguments ---------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_authors_package():
    optimizer = AdaBelief([torch.nn.Parameter(torch.ones(1))])
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    assert group == {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-16,
        "weight_decay": 0.0,
        "weight_decouple": True,
        "fixed_decay": False,
        "rectify": True,
        "degenerated_to_sgd": True,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "fused": None,
        "state_dtype": None,
        "stochastic_rounding": False,
    }


def test_presets_are_valid_and_can_be_overridden():
    for name in PRESETS:
        param, _ = one()
        optimizer = AdaBelief.preset(name, [param])
        assert PRESETS[name].items() <= optimizer.param_groups[0].items()
        optimizer.step()
    cifar = AdaBelief.preset("cifar", [one()[0]], lr=3e-3).param_groups[0]
    wanted = {"lr": 3e-3, "eps": 1e-8, "weight_decay": 5e-4}
    assert wanted.items() <= cifar.items()
    assert (cifar["weight_decouple"], cifar["rectify"]) == (False, False)
    with pytest.raises(ValueError, match="preset must be one of cifar, imagenet"):
        AdaBelief.preset("mnist", [one()[0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be finite and 0 or more, got -1.0"),
        ({"lr": math.nan}, "lr must be finite"),
        ({"lr": torch.ones(2)}, "lr must be a number or a tensor of one element, got 2"),
        ({"eps": -1e-8}, "eps must be finite and 0 or more"),
        ({"weight_decay": math.inf}, "weight_decay must be finite"),
        ({"betas": (1.0, 0.999)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\] must be in \[0, 1\), got -0.1"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"foreach": True, "fused": True}, "foreach and fused must not both be True"),
        ({"state_dtype": torch.bfloat16}, "state_dtype must be float32, float64 or None"),
    ],
)
def test_an_argument_outside_its_range_is_named(options, message):
    param, good = one()
    with pytest.raises(ValueError, match=message):
        AdaBelief([param], **options)
    with pytest.raises(ValueError, match=message):
        AdaBelief([{"params": [param], **options}])
    with pytest.raises(ValueError, match=message):
        good.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], **options})
    assert len(good.param_groups) == 1


@pytest.mark.parametrize(
    ("params", "options", "error", "message"),
    [
        ([torch.ones(1, dtype=torch.complex64)], {}, TypeError, "does not take complex"),
        (
            [torch.ones(1, dtype=torch.float16)],
            {"stochastic_rounding": True},
            ValueError,
            "stochastic_rounding=True takes no float16",
        ),
        (
            [torch.ones(1, dtype=torch.float64)],
            {"state_dtype": "float32"},
            ValueError,
            "state_dtype=float32 is too coarse",
        ),
        (
            [torch.ones(1), torch.ones(1, dtype=torch.float64)],
            {"fused": True},
            ValueError,
            "fused=True needs one dtype and one device in a group, got "
            "torch.float32 on cpu, torch.float64 on cpu",
        ),
        (
            [torch.ones(1), torch.ones(1, device="meta")],
            {"fused": True},
            ValueError,
            "fused=True needs one dtype and one device",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused(params, options, error, message):
    params = [torch.nn.Parameter(param) for param in params]
    with pytest.raises(error, match=message):
        AdaBelief(params, **options)
    _, good = one()
    with pytest.raises(error, match=message):
        good.add_param_group({"params": params, **options})
    assert len(good.param_groups) == 1


def test_a_group_that_is_no_dict_is_refused():
    with pytest.raises(TypeError, match="param_group must be a dict, got list"):
        one()[1].add_param_group([])


def test_sparse_gradients_are_refused_and_nothing_moves():
    dense, optimizer = one()
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer.add_param_group({"params": table.parameters()})
    table(torch.tensor([1, 2])).sum().backward()
    before = dense.detach().clone(), table.weight.detach().clone()
    with pytest.raises(
        RuntimeError, match="AdaBelief does not support sparse gradients; use SparseAdam"
    ):
        optimizer.step()
    assert torch.equal(dense, before[0])
    assert torch.equal(table.weight, before[1])
    assert optimizer.state[dense]["step"] == 0


@pytest.mark.parametrize("path", PATHS)
def test_dividing_by_zero_is_an_error_and_nothing_moves(path):
    param = torch.nn.Parameter(torch.ones(5))
    param.grad = torch.tensor([1.0, 0.0, 0.0, 2.0, 3.0])
    optimizer = AdaBelief([param], eps=0.0, rectify=False, **PATHS[path])
    with pytest.raises(ZeroDivisionError, match=r"eps=0 .* 2 elements of parameter 0"):
        optimizer.step()
    assert torch.equal(param, torch.ones(5))
    assert optimizer.state[param]["step"] == 0
    param.grad = torch.ones(5)
    optimizer.step()
    param.grad = torch.zeros(5)  # now the belief is above 0
    optimizer.step()
    assert param.isfinite().all()


def test_eps_0_is_fine_while_no_division_happens():
    param, optimizer = one(grad=0.0, eps=0.0)
    for _ in range(5):  # rectified: the first five steps go along the mean
        optimizer.step()
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert param.item() == 1


def test_fused_says_what_does_not_fit():
    param, optimizer = one(fused=True, state_dtype="float64")
    with pytest.raises(RuntimeError, match=r"fused=True does not fit parameter 0: .*float64"):
        optimizer.step()
    assert param.item() == 1
    holes = torch.nn.Parameter(torch.ones(4, 4)[:, ::2])
    holes.grad = torch.ones(4, 2)
    with pytest.raises(RuntimeError, match="memory is not dense"):
        AdaBelief([holes], fused=True).step()
    AdaBelief([holes]).step()  # left to itself it takes another path
    assert (holes < 1).all()


# -- stepping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_it_trains(path):
    model = net()
    before = loss_of(model).item()
    optimizer = AdaBelief(model.parameters(), lr=0.02, **PATHS[path])
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert loss_of(model).item() < 0.05 * before


def test_a_closure_runs_with_gradients_and_its_loss_comes_back():
    model = net()
    optimizer = AdaBelief(model.parameters())

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert torch.equal(loss, loss_of(net()))
    assert optimizer.step() is None


@pytest.mark.parametrize("path", PATHS)
def test_each_parameter_counts_its_own_steps(path):
    always, sometimes = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    alone = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaBelief([always, sometimes], lr=0.1, **PATHS[path])
    reference = AdaBelief([alone], lr=0.1, **PATHS[path])
    for step in range(12):
        always.grad = torch.full((3,), step + 1.0)
        sometimes.grad = torch.full((3,), step + 1.0) if step % 3 == 0 else None
        if step % 3 == 0:
            alone.grad = torch.full((3,), step + 1.0)
            reference.step()
        optimizer.step()
    assert optimizer.state[always]["step"] == 12
    assert optimizer.state[sometimes]["step"] == 4
    assert torch.equal(sometimes, alone)


def test_empty_groups_and_empty_tensors_are_fine():
    param, _ = one()
    nothing = torch.nn.Parameter(torch.ones(0, 3))
    nothing.grad = torch.ones(0, 3)
    optimizer = AdaBelief([{"params": []}, {"params": [param, nothing]}, {"params": []}])
    optimizer.step()
    assert param.item() < 1


def test_groups_have_options_of_their_own_and_can_come_late():
    first, second, third = (one()[0] for _ in range(3))
    optimizer = AdaBelief([{"params": [first]}, {"params": [second], "lr": 0.0}], lr=0.1)
    optimizer.step()
    optimizer.add_param_group({"params": third, "lr": 0.2, "maximize": True})
    optimizer.step()
    assert first.item() < 1
    assert second.item() == 1
    assert third.item() > 1
    assert [optimizer.state[p]["step"] for p in (first, second, third)] == [2, 2, 1]


@pytest.mark.parametrize("path", PATHS)
def test_coupled_decay_and_maximize_leave_the_gradient_alone(path):
    param, optimizer = one(weight_decay=0.5, weight_decouple=False, maximize=True, **PATHS[path])
    before = param.grad
    optimizer.step()
    assert param.grad is before
    assert before.item() == 1


def test_hooks_run():
    _, optimizer = one()
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.step()
    assert seen == ["before", "after"]


@pytest.mark.parametrize("path", PATHS)
def test_lr_may_be_a_tensor_and_follow_a_schedule(path):
    finals = []
    for lr in (0.05, torch.tensor(0.05)):
        model = net(torch.float64)
        optimizer = AdaBelief(model.parameters(), lr=lr, **PATHS[path])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        for step in range(10):
            train(model, optimizer, 1, step)
            schedule.step()
        assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.05 / 8)
        finals.append(weights(model))
    assert torch.allclose(*finals, rtol=1e-6)


def test_one_cycle_moves_beta1():
    model = net()
    optimizer = AdaBelief(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    seen = set()
    for step in range(9):
        train(model, optimizer, 1, step)
        schedule.step()
        seen.add(optimizer.param_groups[0]["betas"][0])
    assert len(seen) > 5
    assert weights(model).isfinite().all()


def test_torch_compile_of_a_training_step_does_the_same():
    finals = []
    for compiled in (False, True):
        torch.compiler.reset()
        model = net(torch.float64)
        optimizer = AdaBelief(model.parameters(), lr=0.01)

        def step(inputs, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

        run = torch.compile(step, backend="eager") if compiled else step
        for number in range(6):
            run(torch.cos(torch.arange(8.0, dtype=torch.float64).view(2, 4) * number))
        finals.append(weights(model))
    assert torch.equal(*finals)


def test_a_changed_parameter_is_noticed_by_autograd():
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight**2).sum()
    loss.backward(retain_graph=True)
    AdaBelief([weight], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_fused_step_runs_no_tensor_operation_and_allocates_none():
    model = net()
    optimizer = AdaBelief(model.parameters(), fused=True)
    train(model, optimizer, 1)
    with torch.profiler.profile(profile_memory=True) as profile:
        optimizer.step()
    names = [event.key for event in profile.key_averages()]
    assert not [name for name in names if name.startswith("aten::")]
    assert sum(event.self_cpu_memory_usage for event in profile.key_averages()) == 0


@pytest.mark.parametrize("path", PATHS)
def test_gradients_are_not_kept_alive(path):
    param = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = AdaBelief([param], **PATHS[path])
    for lay in (lambda grad: grad, lambda grad: grad.t()):
        for _ in range(3):
            param.grad = lay(torch.ones(4, 4) * torch.arange(4.0))
            gone = weakref.ref(param.grad)
            optimizer.step()
            param.grad = None
            assert gone() is None


# -- the fused path remembers addresses: what changes between steps must be seen ----------------


def replace_gradient(param, state):
    param.grad = param.grad.clone()


def move_parameter(param, state):
    param.data = param.data.clone()


def replace_state(param, state):
    state["exp_avg"] = state["exp_avg"].clone()


def move_state(param, state):
    state["exp_avg_var"].data = state["exp_avg_var"].data.clone()


def lay_gradient_otherwise(param, state):
    param.grad = param.grad.t().contiguous().t()


def lay_parameter_otherwise(param, state):
    param.data = param.data.t().contiguous().t()


def make_it_double(param, state):
    param.data = param.data.double()
    param.grad = param.grad.double()


@pytest.mark.parametrize(
    "change",
    [
        replace_gradient,
        move_parameter,
        replace_state,
        move_state,
        lay_gradient_otherwise,
        lay_parameter_otherwise,
        make_it_double,
    ],
)
def test_what_changes_between_steps_is_seen(change):
    finals = []
    for options in ({}, {"fused": False}):
        param = torch.nn.Parameter(torch.arange(12.0).view(3, 4) / 7)
        param.grad = torch.cos(torch.arange(12.0).view(3, 4))
        optimizer = AdaBelief([param], lr=0.1, **options)
        for _ in range(3):
            optimizer.step()
            optimizer.step()
            change(param, optimizer.state[param])
        finals.append((param.detach().float(), optimizer.state[param]))
    (got, state), (wanted, reference) = finals
    assert torch.allclose(got, wanted, rtol=1e-5)
    for name in ("exp_avg", "exp_avg_var"):
        assert torch.allclose(state[name], reference[name], rtol=1e-5)


@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_layouts_of_pictures(form):
    finals = []
    for options in ({"fused": True}, {"fused": False}):
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(4, 3, 2, 2, generator=generator).to(memory_format=form)
        param = torch.nn.Parameter(start)
        optimizer = AdaBelief([param], lr=0.1, **options)
        for _ in range(8):
            param.grad = torch.randn(4, 3, 2, 2, generator=generator)
            optimizer.step()
        finals.append(param.detach())
    assert torch.allclose(*finals, rtol=1e-5)


def test_mixed_types_in_a_group_each_take_their_path():
    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    finals = []
    for options in ({}, {"fused": False}):
        params = [torch.nn.Parameter(torch.linspace(1, 2, 50).to(kind)) for kind in kinds]
        optimizer = AdaBelief(params, lr=0.01, **options)
        for step in range(10):
            for param in params:
                param.grad = torch.cos(torch.arange(50.0) + step).to(param.dtype)
            optimizer.step()
        finals.append(params)
        assert [optimizer.state[p]["exp_avg"].dtype for p in params] == [
            torch.float32,
            torch.float64,
            torch.float32,
            torch.float32,
        ]
    for got, wanted in zip(*finals, strict=True):
        assert torch.allclose(got, wanted, rtol=2 * torch.finfo(got.dtype).eps)


def test_the_state_may_be_wider_than_the_parameter():
    param, optimizer = one(state_dtype=torch.float64)
    optimizer.step()
    assert optimizer.state[param]["exp_avg_var"].dtype is torch.float64
    assert param.dtype is torch.float32


# -- loss scaling ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("unscale_first", [False, True])
def test_grad_scaler_unscales_and_skips(path, unscale_first):
    model, plain = net(), net()
    optimizer = AdaBelief(model.parameters(), lr=0.05, **PATHS[path])
    reference = AdaBelief(plain.parameters(), lr=0.05, **PATHS[path])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    for step in range(12):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        overflow = step % 4 == 2
        if overflow:
            model[0].weight.grad[1, 2] = math.inf
        if unscale_first:
            scaler.unscale_(optimizer)
        before = model[2].weight.grad.clone()
        scaler.step(optimizer)
        assert torch.equal(model[2].weight.grad, before)
        scaler.update()
        if not overflow:
            train(plain, reference, 1, step)
        assert torch.equal(weights(model), weights(plain))
    assert optimizer.state[model[0].weight]["step"] == 9


def test_grad_scaler_serves_float16_parameters():
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    optimizer = AdaBelief([param], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(param.float().square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.state[param]["step"] == 3
    assert (param < 1).all()


def test_without_a_scaler_a_broken_gradient_shows():
    param, optimizer = one(grad=math.nan)
    optimizer.step()
    assert param.isnan().all()


# -- state -------------------------------------------------------------------------------------


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_goes_on_bit_for_bit_from_a_file(path, dtype):
    options = {"lr": 0.05, "amsgrad": True, **PATHS[path]}
    options["stochastic_rounding"] = dtype is torch.bfloat16
    model = net(dtype)
    optimizer = AdaBelief(model.parameters(), **options)
    train(model, optimizer, 7)
    saved, half_way = through_a_file(optimizer.state_dict()), copy.deepcopy(model)
    train(model, optimizer, 7, 7)
    resumed = AdaBelief(half_way.parameters(), lr=1.0)
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["lr"] == 0.05
    state = resumed.state[half_way[0].weight]
    assert (state["step"], state["exp_avg"].dtype) == (7, torch.float32)
    train(half_way, resumed, 7, 7)
    assert torch.equal(weights(half_way), weights(model))


def test_a_deep_copy_goes_its_own_way():
    model = net()
    optimizer = AdaBelief(model.parameters(), lr=0.05)
    train(model, optimizer, 3)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    train(model, optimizer, 3, 3)
    train(twin, twin_optimizer, 3, 3)
    assert torch.equal(weights(model), weights(twin))


def checkpoint_of_the_authors(step=5):
    """As adabelief-pytorch 0.2.1 writes it: options outside the groups, a buffer inside."""
    return {
        "state": {
            0: {
                "step": step,
                "exp_avg": torch.tensor([0.5, -0.25]),
                "exp_avg_var": torch.tensor([0.01, 0.04]),
            }
        },
        "param_groups": [
            {
                "lr": 0.25,
                "betas": (0.9, 0.99),
                "eps": 1e-12,
                "weight_decay": 0.0,
                "amsgrad": False,
                "buffer": [[None, None, None] for _ in range(10)],
                "params": [0],
            }
        ],
    }


def test_a_checkpoint_of_adabelief_pytorch_loads():
    param = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = AdaBelief([param], rectify=False, weight_decouple=False)
    optimizer.load_state_dict(through_a_file(checkpoint_of_the_authors()))
    group = optimizer.param_groups[0]
    assert "buffer" not in group
    assert (group["lr"], group["eps"], group["betas"]) == (0.25, 1e-12, (0.9, 0.99))
    assert (group["rectify"], group["weight_decouple"]) == (False, False)
    param.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    mean = 0.9 * torch.tensor([0.5, -0.25]) + 0.1
    belief = 0.99 * torch.tensor([0.01, 0.04]) + 0.01 * (1 - mean) ** 2
    step = 0.25 * mean / (1 - 0.9**6) / (belief / (1 - 0.99**6)).sqrt()
    assert torch.allclose(param, torch.tensor([1.0, 2.0]) - step, rtol=1e-6)
    assert optimizer.state[param]["step"] == 6


def test_loading_copies_into_the_layout_of_the_parameter():
    start = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    param = torch.nn.Parameter(start)
    param.grad = torch.ones_like(param)
    optimizer = AdaBelief([param], fused=True)
    optimizer.step()
    saved = optimizer.state_dict()
    for name in ("exp_avg", "exp_avg_var"):
        saved["state"][0][name] = saved["state"][0][name].contiguous()
    optimizer.load_state_dict(saved)
    state = optimizer.state[param]
    assert state["exp_avg"].stride() == param.stride()
    optimizer.step()
    assert torch.equal(saved["state"][0]["exp_avg"], torch.full((2, 3, 4, 4), 0.1))


def test_a_step_saved_as_a_tensor_becomes_a_number():
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = AdaBelief([param])
    optimizer.load_state_dict(checkpoint_of_the_authors(step=torch.tensor(5.0)))
    assert optimizer.state[param]["step"] == 5
    assert isinstance(optimizer.state[param]["step"], int)


def test_amsgrad_may_be_switched_on_later():
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = AdaBelief([param], amsgrad=True)
    saved = checkpoint_of_the_authors()
    saved["param_groups"][0]["amsgrad"] = True
    optimizer.load_state_dict(saved)
    param.grad = torch.zeros(2)
    optimizer.step()
    peak = optimizer.state[param]["max_exp_avg_var"]
    assert torch.equal(
        peak, torch.tensor([0.01, 0.04]).maximum(optimizer.state[param]["exp_avg_var"])
    )


def test_what_cannot_be_loaded_is_refused_and_nothing_changes():
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = AdaBelief([param], lr=0.5)
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    adam.param_groups[0]["params"][0].grad = torch.ones(2)
    adam.step()
    with pytest.raises(ValueError, match=r"state of parameter 0: .* not a state of AdaBelief"):
        optimizer.load_state_dict(adam.state_dict())
    saved = checkpoint_of_the_authors()
    saved["state"][0]["exp_avg"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"exp_avg must have the shape \(2,\), got \(3,\)"):
        optimizer.load_state_dict(saved)
    saved = checkpoint_of_the_authors()
    saved["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr must be finite"):
        optimizer.load_state_dict(saved)
    saved["param_groups"] *= 2
    saved["param_groups"][0]["lr"] = 1.0
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert not optimizer.state


def test_named_parameters_keep_their_names():
    model = net()
    optimizer = AdaBelief(model.named_parameters())
    train(model, optimizer, 1)
    assert optimizer.state_dict()["param_groups"][0]["param_names"][0] == "0.weight"
    other = AdaBelief(net().named_parameters())
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["param_names"] == optimizer.param_groups[0]["param_names"]
