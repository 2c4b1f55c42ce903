"""Schedules in tokens, the step, resuming, and what stops a training."""

from __future__ import annotations

import math

import pytest
import torch

from mmxx.language.gpt3 import (
    GPT,
    Documents,
    GPTConfig,
    Schedule,
    Training,
    mfu,
    peak_flops,
    train,
    validation_loss,
)
from mmxx.language.gpt3.documents import VOCABULARY
from mmxx.language.gpt3.training import decay_groups


class Text:
    """Rows that count on and on."""

    n_ctx = 6

    def rows(self, start, count):
        first = torch.arange(start, start + count)[:, None]
        return (first * 3 + torch.arange(self.n_ctx + 1) * (1 + first % 4)) % 13


def model(dtype=torch.float64):
    config = GPTConfig(2, 8, 2, n_ctx=6, vocab_size=13, window=3, init_std=0.2)
    return GPT(config, generator=torch.Generator().manual_seed(0)).to(dtype)


def distance(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


SETTINGS = {"tokens": 6 * 40, "batch_tokens": 6 * 8, "lr": 0.01, "warmup_tokens": 60}


def test_the_learning_rate_in_closed_form():
    plan = Schedule(
        tokens=3000, batch_tokens=10, n_ctx=10, lr=6e-4, warmup_tokens=375, decay_tokens=2600
    )
    for tokens in (0, 10, 100, 370, 375, 400, 1000, 1487.5, 2600, 2990):
        if tokens < 375:
            expected = tokens / 375
        elif tokens >= 2600:
            expected = 0.1
        else:
            expected = 0.1 + 0.9 * math.cos(math.pi / 2 * (tokens - 375) / 2225) ** 2
        assert plan.lr_at(tokens) == pytest.approx(6e-4 * expected, rel=1e-12)


def test_batches_grow_in_a_line_and_end_exactly():
    plan = Schedule(
        tokens=10_000, batch_tokens=800, n_ctx=10, lr=1.0, ramp=(80, 4000), rows_multiple=4
    )
    starts, sizes = zip(*(plan.batch(step) for step in range(plan.steps)), strict=True)
    assert sum(sizes) == 1000
    assert all(size % 4 == 0 for size in sizes)
    for start, size in zip(starts, sizes[:-1], strict=False):
        line = min(800, 80 + 720 * start * 10 / 4000)
        assert line - 40 < size * 10 <= line
    assert starts == tuple(sum(sizes[:i]) for i in range(len(sizes)))


def test_a_ramp_does_not_move_the_learning_rate():
    settings = {"tokens": 4000, "batch_tokens": 400, "n_ctx": 10, "lr": 1.0, "warmup_tokens": 500}
    plain, ramped = Schedule(**settings), Schedule(**settings, ramp=(100, 2000))
    assert ramped.steps > plain.steps
    assert [plain.lr_at(t) for t in range(0, 4000, 10)] == [
        ramped.lr_at(t) for t in range(0, 4000, 10)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_tokens": 50}, r"batch_tokens must be a multiple of n_ctx=6 times 1 .*got 50"),
        ({"rows_multiple": 3}, r"times 3 \(ranks times rows of a micro-batch\), got 48"),
        ({"tokens": 241}, "tokens must be a multiple of 6"),
        ({"tokens": 42}, "at least one batch of 48, got 42"),
        ({"warmup_tokens": 300}, r"warmup_tokens must lie in 0 … tokens=240, got 300"),
        ({"decay_tokens": 250}, r"decay_tokens must lie in .* tokens=240, got 250"),
        ({"ramp": (60, 100)}, r"ramp\[0\] must be batch_tokens=48 or less, got 60"),
        ({"ramp": (12, 0)}, r"ramp\[1\] must be 1 or more"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"min_lr": 1.5}, r"min_lr must lie in \[0, 1\]"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**{**SETTINGS, "n_ctx": 6, **changes})


def test_accumulating_gives_what_one_batch_gives():
    whole, parts, uneven = model(), model(), model()
    for net, size in ((whole, 8), (parts, 1), (uneven, 3)):
        list(train(net, Text(), micro_batch=size, rows_multiple=1, eps=1e-6, **SETTINGS))
    assert distance(whole, parts) < 1e-10
    assert distance(whole, uneven) < 1e-10
    assert distance(whole, model()) > 1e-3


def test_a_step_is_adamw_with_a_clipped_gradient():
    net, reference = model(), model()
    plan = Schedule(**{**SETTINGS, "n_ctx": 6})
    training = Training(net, Text(), plan, clip=0.5)
    optimizer = torch.optim.AdamW(decay_groups(reference, 0.1), lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    for number in range(3):
        step = training.step(number)
        rows = Text().rows(*plan.batch(number))
        for group in optimizer.param_groups:
            group["lr"] = plan.lr_at(48 * (number + 1))
        optimizer.zero_grad()
        loss = reference(rows[:, :-1], rows[:, 1:])[1]
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimizer.step()
        assert step.loss == pytest.approx(loss.item(), abs=1e-12)
        assert step.grad_norm == pytest.approx(norm.item())
        assert step.tokens == 48 * (number + 1)
    assert distance(net, reference) < 1e-10


def test_only_matrices_and_embeddings_decay():
    net = model()
    first, second = decay_groups(net, 0.1)
    names = {id(param): name for name, param in net.named_parameters()}
    assert {names[id(p)] for p in second["params"]} == {
        name for name in names.values() if name.endswith("bias") or "norm" in name
    }
    assert (first["weight_decay"], second["weight_decay"]) == (0.1, 0.0)
    assert len(first["params"]) + len(second["params"]) == len(names)


def test_training_goes_on_where_it_was_left():
    straight, resumed = model(), model()
    losses = [step.loss for step in train(straight, Text(), **SETTINGS)]
    state = {}
    steps = train(resumed, Text(), state=state, **SETTINGS)
    first = [next(steps).loss, next(steps).loss]
    steps.close()
    again = model()
    again.load_state_dict(resumed.state_dict())
    rest = [step.loss for step in train(again, Text(), state=state, **SETTINGS)]
    assert first + rest == losses
    assert distance(straight, again) == 0


def test_a_loss_that_is_not_finite_leaves_the_weights():
    net = model()
    steps = train(net, Text(), **SETTINGS)
    next(steps)
    with torch.no_grad():
        net.norm.bias[0] = math.nan
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(FloatingPointError, match="the loss became nan at step 1"):
        next(steps)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) or name == "norm.bias"


def test_a_small_model_learns():
    net = model(torch.float32)
    settings = {**SETTINGS, "tokens": 6 * 8 * 60, "lr": 0.03}
    before = validation_loss(net, Text(), 12, batch=5)
    last = [step.loss for step in train(net, Text(), precision="bf16", **settings)][-1]
    assert net.training
    assert validation_loss(net, Text(), 12) < 0.6 * before
    assert last < 0.6 * before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp16"}, "precision 'fp16' needs a GPU, and the model is on cpu"),
        ({"precision": "fp8"}, "precision must be 'fp32', 'bf16' or 'fp16'"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"micro_batch": 0}, "micro_batch must be 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Training(model(), Text(), Schedule(**SETTINGS, n_ctx=6), **settings)
    with pytest.raises(ValueError, match="rows have 6 tokens, and the schedule 12"):
        Training(model(), Text(), Schedule(**SETTINGS, n_ctx=12))


def test_use_of_the_machine():
    net = GPT(GPTConfig(1, 8, 1, vocab_size=VOCABULARY, n_ctx=Documents().n_ctx))
    assert mfu(net, 100.0, 1e6) == pytest.approx(100 * net.flops_per_token() / 1e6)
    assert peak_flops("cpu") > 1e8
