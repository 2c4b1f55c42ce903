"""The loss, and training steps as a pure task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmxx.planning.muzero.games import Game
from mmxx.planning.muzero.networks import MuZeroNetwork
from mmxx.planning.muzero.replay import Batch
from mmxx.planning.muzero.self_play import Weights, network_from, weights_of
from mmxx.planning.muzero.settings import Settings
from mmxx.planning.muzero.support import DiscreteSupport
from mmxx.planning.muzero.targets import Targets


class Losses(NamedTuple):
    """The loss of a batch and its parts.

    Attributes:
        total: What is minimised.
        policy: Mean cross-entropy of the policy, over all steps of the unroll.
        value: Mean loss of the value.
        reward: Mean loss of the reward.
        root_value: What the network says of the first positions, [B].
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    reward: Tensor
    root_value: Tensor


def muzero_loss(
    net: MuZeroNetwork, batch: Batch, settings: Settings, forward: Any = None
) -> Losses:
    """Σ_k l^p + l^v + l^r, the steps after the first each at 1/K.

    Where the network says who moves on, the cross-entropy of that is added, weighted as rewards.

    Args:
        net: The network.
        batch: Observations, targets and weights.
        settings: K and the weights of the losses.
        forward: Called in the network's place: the same network, spread over processes.

    Source: Equation 1; appendix G.
    """
    targets = batch.targets
    tensor = partial(torch.as_tensor, device=next(net.parameters()).device)
    out = (forward or net)(tensor(batch.observation), tensor(targets.action))
    policy = tensor(targets.policy).transpose(0, 1)
    value, reward, known = (tensor(one).T for one in (targets.value, targets.reward, targets.known))
    steps = len(value)
    scale = torch.full((steps, 1), 1.0 / max(steps - 1, 1), dtype=value.dtype, device=value.device)
    scale[0] = 1.0
    weight = tensor(batch.weight) / len(batch.weight)
    # past an end the policy target is 0, and with it the cross-entropy
    l_policy = -(policy * out.policy.log_softmax(-1)).sum(-1)
    l_value = _head_loss(out.value, value, net.support) * known
    l_reward = _head_loss(out.reward, reward, net.support) * known[:-1]
    if len(out.again):
        again = tensor(targets.again).T.to(out.again.dtype)
        l_again = functional.binary_cross_entropy_with_logits(out.again, again, reduction="none")
        l_reward = l_reward + l_again * tensor(targets.inside).T[1:]
    total = (
        (scale * (l_policy + settings.value_loss_weight * l_value)).sum(0)
        + settings.reward_loss_weight * (scale[1:] * l_reward).sum(0)
    ) @ weight
    return Losses(
        total, l_policy.detach().mean(), l_value.detach().mean(),
        l_reward.detach().mean() if steps > 1 else total.new_zeros(()),
        net.scalar(out.value[0].detach()),
    )  # fmt: skip


def actor_critic_loss(
    net: MuZeroNetwork, batch: Batch, settings: Settings, forward: Any = None
) -> Losses:
    """Policy gradient with the value as a baseline, on h and f alone: what MuZero is without g.

    Moves of older policies count by the ratio of the probabilities, 1 at most.

    Args:
        net: The network.
        batch: Observations, targets and weights; the policy is the one that was played.
        settings: The weights of the losses.
        forward: As `muzero_loss`.
    """
    targets = batch.targets
    tensor = partial(torch.as_tensor, device=next(net.parameters()).device)
    out = (forward or net)(tensor(batch.observation), tensor(targets.action[:, :0]))
    played = tensor(targets.policy[:, 0])
    log_policy = out.policy[0].masked_fill(played == 0, -1e9).log_softmax(-1)
    action = tensor(targets.action[:, :1])
    log_chosen = log_policy.gather(1, action)[:, 0]
    value, target = net.scalar(out.value[0]).detach(), tensor(targets.value[:, 0])
    behaviour = played.gather(1, action)[:, 0].clamp(min=1e-6)
    ratio = (log_chosen.detach().exp() / behaviour).clamp(max=1)
    entropy = -(log_policy.exp() * log_policy).sum(-1)
    l_policy = -ratio * (target - value) * log_chosen - settings.entropy_weight * entropy
    l_value = _head_loss(out.value[0], target, net.support)
    weight = tensor(batch.weight) / len(batch.weight)
    total = (l_policy + settings.value_loss_weight * l_value) @ weight
    return Losses(
        total, l_policy.detach().mean(), l_value.detach().mean(), total.new_zeros(()), value
    )


def _head_loss(head: Tensor, target: Tensor, support: DiscreteSupport | None) -> Tensor:
    """Squared error of scalars, or cross-entropy of bins: [K, B, bins], [K, B] -> [K, B]."""
    if support is None:
        return (head.squeeze(-1) - target).square()
    return -(support.encode(target) * head.log_softmax(-1)).sum(-1)


def learning_rate(settings: Settings, step: int) -> float:
    """Of a step: ·0.1 for each decay_steps, or linearly to 0."""
    share = step / settings.decay_steps
    if settings.schedule == "linear":
        return settings.learning_rate * max(1 - share, 0.0)
    return settings.learning_rate * 0.1**share


def make_optimizer(net: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or Adam; weight decay by the gradient, or directly."""
    direct = settings.weight_decay if settings.decoupled else 0.0
    by_gradient = 0.0 if settings.decoupled else settings.weight_decay
    if settings.optimizer == "adam":
        kind = torch.optim.AdamW if settings.decoupled else torch.optim.Adam
        return kind(
            net.parameters(), settings.learning_rate, weight_decay=direct + by_gradient, fused=True
        )
    if settings.decoupled:
        raise ValueError("decoupled weight decay goes with the optimizer 'adam', got 'sgd'")
    return torch.optim.SGD(
        net.parameters(), settings.learning_rate, momentum=0.9, weight_decay=by_gradient
    )


@dataclass(frozen=True)
class TrainItem:
    """Steps to take: a task.

    Attributes:
        game: Gives the network's shape.
        settings: Of the loss and the optimiser.
        weights: Before.
        optimizer: Its state before, as `flat_state` gives it.
        step: Steps taken before.
        batches: One for each step.
    """

    game: Game
    settings: Settings
    weights: Weights
    optimizer: dict[str, np.ndarray]
    step: int
    batches: list[Batch]


class Trained(NamedTuple):
    """What training leaves.

    Attributes:
        weights: After.
        optimizer: Its state after.
        losses: Total, policy, value, reward of each step, [T, 4].
        priorities: |v - z| of each sample, [T, B].
    """

    weights: Weights
    optimizer: dict[str, np.ndarray]
    losses: np.ndarray
    priorities: np.ndarray


class Team(Protocol):
    """Processes that train together: each its part of every batch, gradients averaged."""

    def distribute(self, net: Any, optimizer: Any) -> tuple[Any, Any]:
        """The network and the optimiser, spread over the processes."""
        ...

    def part(self, batch: Any) -> Any:
        """This process's part of a batch along the first axis."""
        ...

    def mean(self, loss: Tensor) -> float:
        """The mean of a number over the processes."""
        ...


def train(
    item: TrainItem, *, device: torch.device | str = "cpu", team: Team | None = None
) -> Trained:
    """Take the steps.

    Args:
        item: Weights and optimiser before, and batches.
        device: Where.
        team: Other processes that take the same steps, each with a part of every batch.

    Returns:
        Weights and optimiser after, losses and priorities; where a loss is not finite, training
        stops there and the weights before that step are returned.
    """
    net = network_from(item.game, item.settings, item.weights).to(device).train()
    optimizer = make_optimizer(net, item.settings)
    forward, stepper = (net, optimizer) if team is None else team.distribute(net, optimizer)
    load_flat(optimizer, item.optimizer)  # to where the network lies now
    loss_of = actor_critic_loss if item.settings.model == "none" else muzero_loss
    losses, priorities = [], []
    for number, batch in enumerate(item.batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(item.settings, item.step + number)
        found = loss_of(net, _part(batch, team), item.settings, forward)
        row, root_value = [loss.detach() for loss in found[:4]], found.root_value
        if team is not None:
            row = [torch.tensor(team.mean(loss)) for loss in row]
            root_value = _root_value(net, batch)  # of the whole batch, in every process
        losses.append(torch.stack(row))
        priorities.append(np.abs(root_value.numpy(force=True) - batch.targets.value[:, 0]))
        if not bool(torch.isfinite(row[0])):
            break
        stepper.zero_grad()
        found.total.backward()
        stepper.step()
    return Trained(
        weights_of(net), flat_state(optimizer), torch.stack(losses).numpy(force=True),
        np.stack(priorities),
    )  # fmt: skip


@torch.no_grad()
def _root_value(net: MuZeroNetwork, batch: Batch) -> Tensor:
    device = next(net.parameters()).device
    value = net.eval().initial_inference(torch.as_tensor(batch.observation, device=device))[1]
    net.train()
    return value


def _part(batch: Batch, team: Team | None) -> Batch:
    """What of a batch this process learns from."""
    if team is None:
        return batch
    targets = Targets(*(team.part(one) for one in batch.targets))
    return Batch(
        team.part(batch.observation), targets, team.part(batch.weight), team.part(batch.position)
    )


def flat_state(optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """An optimiser's state as arrays with the keys "index.name"."""
    return {
        f"{index}.{name}": value.numpy(force=True).copy()
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def load_flat(optimizer: torch.optim.Optimizer, state: dict[str, np.ndarray]) -> None:
    """Take over what `flat_state` gave."""
    nested: dict[int, dict[str, Any]] = {}
    for key, value in state.items():
        index, _, name = key.partition(".")
        nested.setdefault(int(index), {})[name] = torch.from_numpy(np.array(value))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": nested})
