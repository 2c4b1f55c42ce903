"""The transform and its bins, the scalings, networks, and the loss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mmxx.planning.muzero import (
    DiscreteSupport,
    ReplayBuffer,
    atari_network,
    mlp_network,
    resnet_network,
    scale_gradient,
    scale_hidden,
    tic_tac_toe,
)
from mmxx.planning.muzero.learner import Learner, work
from mmxx.planning.muzero.networks import action_planes
from mmxx.planning.muzero.self_play import PlayItem, play_episodes, weights_of
from mmxx.planning.muzero.settings import Settings, build_network, recipe
from mmxx.planning.muzero.training import (
    TrainItem,
    learning_rate,
    make_optimizer,
    muzero_loss,
    train,
)


def test_the_transform_has_its_inverse() -> None:
    support = DiscreteSupport(300)
    x = torch.cat([torch.logspace(-12, 5, 400, dtype=torch.float64), torch.zeros(1).double()])
    x = torch.cat([-x, x])
    assert (support.inverse(support.transform(x)) - x).abs().div(x.abs().clamp(min=1)).max() < 1e-9
    single = x.float()
    back = support.inverse(support.transform(single))
    assert (back - single).abs().div(single.abs().clamp(min=1e-30)).max() < 1e-5  # near 0, too
    by_paper = x.sign() * ((x.abs() + 1).sqrt() - 1) + 1e-3 * x
    torch.testing.assert_close(support.transform(x), by_paper, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eps", [1e-3, None])
def test_two_hot_means_are_exact(eps: float | None) -> None:
    support = DiscreteSupport(4, eps)
    x = torch.linspace(-3.9, 3.9, 79, dtype=torch.float64)
    weights = support.encode(x)
    assert ((weights > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(x))
    torch.testing.assert_close(support.decode(weights.log()), x)
    far = torch.tensor([1e6, -1e6, 0.5], dtype=torch.float64)
    assert support.clipped(far).tolist() == [True, True, False]
    assert support.encode(far).argmax(-1).tolist()[:2] == [8, 0]


def test_gradients_are_scaled_and_values_are_not() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = scale_gradient(x, 0.25)
    assert torch.equal(x, y)
    y.square().sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5, 1.0]


def test_scaled_states_have_gradients() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(scale_hidden, (x.requires_grad_(),))
    assert scale_hidden(torch.ones(1, 4)).tolist() == [[0, 0, 0, 0]]
    picture = scale_hidden(torch.arange(8.0).reshape(1, 2, 2, 2))
    assert (picture.min(), picture.max()) == (0, 1)


def test_the_unroll_is_that_of_the_steps() -> None:
    for net in (
        mlp_network((2, 3, 3), 9, support=DiscreteSupport(1, None)),
        resnet_network((2, 3, 3), 9, blocks=1, channels=4).eval(),
    ):
        seen = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
        actions = torch.tensor([[0, 1], [2, 3], [4, 5], [8, 8]])
        out = net(seen, actions)
        state, value, logits = net.initial_inference(seen)
        torch.testing.assert_close(out.policy[0], logits)
        for step in range(2):
            state, reward, value, logits = net.recurrent_inference(state, actions[:, step])
            torch.testing.assert_close(net.scalar(out.reward[step]), reward)
            torch.testing.assert_close(net.scalar(out.value[step + 1]), value)
            torch.testing.assert_close(out.policy[step + 1], logits)
            assert (state.flatten(1).amin(1) == 0).all()


def test_gradients_into_g_are_halved_at_each_step() -> None:
    net = mlp_network((3,), 2).double()
    seen = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def to_h(steps: int) -> torch.Tensor:
        net.zero_grad()
        net(seen, torch.zeros(1, steps).long()).reward[-1].sum().backward()
        weight = net.h[1].weight.grad  # type: ignore[index]
        assert isinstance(weight, torch.Tensor)
        return weight.clone()

    def unscaled(steps: int) -> torch.Tensor:
        net.zero_grad()
        state, reward = scale_hidden(net.h(seen)), torch.zeros(1)
        for _ in range(steps):
            state, reward = net.g(state, torch.zeros(1).long())
            state = scale_hidden(state)
        reward.sum().backward()
        weight = net.h[1].weight.grad  # type: ignore[index]
        assert isinstance(weight, torch.Tensor)
        return weight.clone()

    for steps in (1, 3):
        torch.testing.assert_close(to_h(steps), unscaled(steps) / 2**steps)


def test_a_generator_draws_the_weights_and_leaves_the_default_alone() -> None:
    before = torch.get_rng_state()
    one, two = (mlp_network((2,), 2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_actions_are_planes() -> None:
    assert action_planes(7, 6, 7).shape == (7, 1, 6, 7)
    assert (action_planes(7, 6, 7)[3, 0].sum(0) == torch.eye(7)[3] * 6).all()
    assert action_planes(9, 3, 3)[4, 0, 1, 1] == 1
    assert action_planes(4, 6, 6).shape == (4, 4, 6, 6)
    with pytest.raises(ValueError, match="planes, height, width"):
        resnet_network((4,), 2)
    with pytest.raises(ValueError, match="planes, 96, 96"):
        atari_network((3, 84, 84), 2)


def learned(settings: Settings) -> tuple[Learner, float, float]:
    learner = Learner(tic_tac_toe(), settings, 0)
    losses = []
    while not learner.finished:
        learner.absorb([work(item) for item in learner.tasks()])
        losses.append(learner.history[-1].get("loss", np.inf))
    return learner, losses[1], losses[-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "mlp", "search": "gumbel", "priority_alpha": 1.0, "reanalyze_fraction": 0.5},
        {"network": "resnet", "blocks": 1, "channels": 4, "td_steps": 2, "reanalyze_fraction": 0.8,
         "target_update": 2, "turns": "learned"},
        {"network": "mlp", "model": "none", "num_unroll_steps": 1},
        {"network": "mlp", "support_size": None, "decoupled": True},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)  # fmt: skip
def test_every_kind_of_training_runs_and_counts(changes: dict[str, object]) -> None:
    settings = recipe(
        "small", **{"num_simulations": 2, "games": 8, "total_games": 24, "steps_per_game": 0.5,
                    "batch_size": 16, **changes},
    )  # fmt: skip
    learner, _, last = learned(settings)
    assert (learner.games, learner.step, learner.generation) == (24, 12, 4)
    assert np.isfinite(last)


def test_the_paper_recipe_trains_too_and_losses_fall() -> None:
    settings = recipe(
        "paper", network="mlp", num_simulations=4, games=32, total_games=128, steps_per_game=0.5,
        batch_size=64, learning_rate=0.02,
    )  # fmt: skip
    learner, first, last = learned(settings)
    assert learner.settings.optimizer == "sgd"
    assert last < first


def test_the_loss_adds_up() -> None:
    game, settings = tic_tac_toe(), recipe("small", num_simulations=2, reward_loss_weight=3.0)
    net = build_network(game, settings, torch.Generator().manual_seed(0))
    played = play_episodes(PlayItem(game, settings, weights_of(net), (0,), 8, 0.0))
    buffer = ReplayBuffer(500, td_steps=None, discount=1.0)
    buffer.add(played)
    (batch,) = buffer.sample(6, 5, np.random.default_rng(0))
    found = muzero_loss(net, batch, settings)
    t = batch.targets
    with torch.no_grad():
        out = net(torch.from_numpy(batch.observation), torch.from_numpy(t.action))
    assert net.support is not None
    expected = 0.0
    for b in range(6):
        for k in range(6):
            scale = 1.0 if k == 0 else 0.2
            policy = torch.from_numpy(t.policy[b, k])
            expected -= scale * float((policy * out.policy[k, b].log_softmax(-1)).sum())
            value = net.support.encode(torch.tensor(t.value[b, k]))
            expected -= scale * float((value * out.value[k, b].log_softmax(-1)).sum())
            if k:
                reward = net.support.encode(torch.tensor(t.reward[b, k - 1]))
                head = out.reward[k - 1, b].log_softmax(-1)
                expected -= 3 * scale * float((reward * head).sum())
    assert abs(found.total.item() - expected / 6) < 1e-4


def halves() -> TrainItem:
    """Steps to take, in even batches."""
    settings = recipe(
        "paper", network="mlp", num_simulations=2, games=16, total_games=16, steps_per_game=0.5,
        batch_size=32, learning_rate=0.02, priority_alpha=1.0,
    )  # fmt: skip
    learner = Learner(tic_tac_toe(), settings, 0)
    learner.absorb([work(item) for item in learner.tasks()])
    (item,) = learner.tasks()
    assert isinstance(item, TrainItem)
    return item


def test_a_team_of_one_trains_as_nobody_does() -> None:
    class Alone:
        def distribute(self, net: Any, optimizer: Any) -> tuple[Any, Any]:
            return net, optimizer

        def part(self, batch: Any) -> Any:
            return batch

        def mean(self, loss: torch.Tensor) -> float:
            return loss.item()

    item = halves()
    one, other = train(item), train(item, team=Alone())
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-6)
    np.testing.assert_allclose(one.priorities, other.priorities, atol=1e-6)


TOGETHER = """
import sys
from dataclasses import replace

import torch
from mmxx_toy.card import CARD
from safetensors.numpy import save_file

from mmxx.lab.devices import Team
from mmxx.planning.muzero.training import train

sys.path.insert(0, sys.argv[2])
from test_muzero_networks import halves

torch.set_num_threads(1)
team = Team(replace(CARD, scale=frozenset({"ddp"})), 2, "cpu")
team.distribute = team.set_up
found = train(halves(), team=team)
if team.rank == 0:
    save_file({**found.weights, "priorities": found.priorities}, sys.argv[1])
team.wait()
team.close()
"""


@pytest.mark.slow
def test_two_devices_take_the_steps_of_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    (tmp_path / "train.py").write_text(TOGETHER)
    command = [sys.executable, str(tmp_path / "train.py"), str(tmp_path / "out"),
               str(Path(__file__).parent)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = train(halves()), load_file(tmp_path / "out")
    for name, value in {**alone.weights, "priorities": alone.priorities}.items():
        np.testing.assert_allclose(together[name], value, atol=1e-6)


def test_rates_fall_as_they_say() -> None:
    paper = recipe("paper", learning_rate=0.1, decay_steps=100)
    assert learning_rate(paper, 100) == pytest.approx(0.01)
    small = recipe("small", learning_rate=0.1, decay_steps=100)
    assert [learning_rate(small, step) for step in (0, 50, 100, 200)] == [0.1, 0.05, 0.0, 0.0]
    with pytest.raises(ValueError, match="decoupled"):
        make_optimizer(mlp_network((2,), 2), recipe("paper", decoupled=True))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"discount": 1.5}, "discount must be from 0 to 1, got 1.5"),
        ({"td_steps": 0}, "td_steps must be 1 or more, or None, got 0"),
        ({"dirichlet_alpha": 0.0}, "dirichlet_alpha must be above 0"),
        ({"num_simulations": 0}, "num_simulations must be 1 or more, got 0"),
        ({"temperatures": ((0.0, -1.0),)}, "temperatures must be 0 or more"),
        ({"window_size": 5}, "window_size must exceed num_unroll_steps"),
        ({"network": "cnn"}, "network must be one of mlp, resnet, atari"),
        ({"reanalyze_fraction": 2.0}, "reanalyze_fraction must be from 0 to 1"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"turns": "random"}, "turns must be one of alternate, learned"),
        ({"turns": "learned", "network": "atari"}, "turns: the network 'atari' is for one player"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        recipe("small", **changes)


def test_unknown_recipes_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"recipe must be"):
        recipe("medium")
    with pytest.raises(TypeError, match=r"unknown settings.*simulations"):
        recipe("small", simulations=3)
