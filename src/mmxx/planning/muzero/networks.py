"""The three functions h, g and f, as perceptrons and as residual networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmxx.planning.muzero.support import DiscreteSupport, scale_gradient, scale_hidden


class Unrolled(NamedTuple):
    """What the heads say along K actions, for training.

    Attributes:
        policy: Logits, [K + 1, B, A].
        value: Head outputs, [K + 1, B, bins], bins being 1 without a support.
        reward: Head outputs of the K steps, [K, B, bins].
        again: Logits of whether who moved in a step moves in the next, [K, B]; empty without such
            a head.
    """

    policy: Tensor
    value: Tensor
    reward: Tensor
    again: Tensor


class MuZeroNetwork(nn.Module):
    """h, g and f in one module: observation to hidden state, step, and prediction.

    Hidden states are brought to [0, 1] after h and g.

    Args:
        h: Observation [B, ...] -> hidden state.
        g: (hidden state, action [B]) -> (next hidden state, reward head [B, bins]).
        f: Hidden state -> (policy logits [B, A], value head [B, bins]).
        support: Of the value and reward heads; None for scalars, trained by squared error.
        again: Hidden state after a step -> logit [B, 1] of whether the same player moves on; None
            where players alternate.

    Source: Equation 1 of the methods; appendix F and G.

    Example:
        >>> net = mlp_network((4,), 2)
        >>> state, value, logits = net.initial_inference(torch.zeros(3, 4))
        >>> state, reward, value, logits = net.recurrent_inference(state, torch.tensor([0, 1, 0]))
        >>> reward.shape, logits.shape
        (torch.Size([3]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        h: nn.Module,
        g: nn.Module,
        f: nn.Module,
        support: DiscreteSupport | None,
        again: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.h, self.g, self.f = h, g, f
        self.support = support
        self.again = again

    def scalar(self, head: Tensor) -> Tensor:
        """A head's output [..., bins] as numbers [...]."""
        return head.squeeze(-1) if self.support is None else self.support.decode(head)

    def initial_inference(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(hidden state, value [B], policy logits [B, A]) of observations [B, ...]."""
        state = scale_hidden(self.h(observation))
        logits, value = self.f(state)
        return state, self.scalar(value), logits

    def recurrent_inference(
        self, state: Tensor, action: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(next hidden state, reward [B], value [B], policy logits [B, A]) after actions [B]."""
        state, reward = self.g(state, action)
        state = scale_hidden(state)
        logits, value = self.f(state)
        reward, value = self.scalar(torch.stack([reward, value]))
        return state, reward, value, logits

    def forward(self, observation: Tensor, actions: Tensor) -> Unrolled:
        """Unroll actions [B, K] from observations; gradients into g are halved at each step."""
        state = scale_hidden(self.h(observation))
        states, rewards = [state], []
        for action in actions.unbind(1):
            state, reward = self.g(scale_gradient(state, 0.5), action)
            state = scale_hidden(state)
            states.append(state)
            rewards.append(reward)
        # one pass of f over all K + 1 states
        logits, value = self.f(torch.cat(states))
        steps, batch = len(states), len(observation)
        none = value.new_zeros(0, batch, value.shape[-1])
        again = none[..., 0]
        if self.again is not None and rewards:
            again = self.again(torch.cat(states[1:])).reshape(steps - 1, batch)
        return Unrolled(
            logits.reshape(steps, batch, -1), value.reshape(steps, batch, -1),
            torch.stack(rewards) if rewards else none, again,
        )  # fmt: skip


class _Dynamics(nn.Module):
    """A perceptron on the state and the one-hot action, whose columns are looked up."""

    def __init__(
        self, actions: int, state_size: int, width: int, bins: int, normalised: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(state_size) if normalised else nn.Identity()
        self.state = nn.Linear(state_size, width)
        self.action = nn.Embedding(actions, width)
        nn.init.uniform_(self.action.weight, -1 / math.sqrt(state_size), 1 / math.sqrt(state_size))
        self.out = nn.Linear(width, state_size + bins)
        self.residual = normalised

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.norm(state)
        hidden = torch.relu(self.state(normed) + self.action(action))
        out = self.out(hidden)
        new, reward = out[:, : state.shape[1]], out[:, state.shape[1] :]
        return (normed + new if self.residual else new), reward


class _Prediction(nn.Module):
    def __init__(
        self, actions: int, state_size: int, width: int, bins: int, normalised: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(state_size) if normalised else nn.Identity()
        self.hidden = nn.Linear(state_size, width)
        self.out = nn.Linear(width, actions + bins)
        self.actions = actions

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        out = self.out(torch.relu(self.hidden(self.norm(state))))
        return out[:, : self.actions], out[:, self.actions :]


def mlp_network(
    observation_shape: tuple[int, ...],
    num_actions: int,
    *,
    state_size: int = 64,
    width: int = 128,
    support: DiscreteSupport | None = None,
    normalised: bool = True,
    turns: bool = False,
    generator: torch.Generator | None = None,
) -> MuZeroNetwork:
    """A linear h, and g and f of one hidden layer each.

    Args:
        observation_shape: Of one observation; it is flattened.
        num_actions: Actions, A.
        state_size: Numbers in a hidden state.
        width: Hidden units.
        support: Of the value and reward heads; None for scalars.
        normalised: LayerNorm at the input of g and f, and g adds to its input. Without it a
            small network hardly learns from states that were scaled to [0, 1].
        turns: Whether a head says if the same player moves on.
        generator: Draws the weights; None draws from torch's default generator.

    Example:
        >>> sum(p.numel() for p in mlp_network((2, 3, 3), 9).parameters())
        28939
    """
    bins = 1 if support is None else support.bins

    def build() -> MuZeroNetwork:
        return MuZeroNetwork(
            nn.Sequential(nn.Flatten(), nn.Linear(math.prod(observation_shape), state_size)),
            _Dynamics(num_actions, state_size, width, bins, normalised),
            _Prediction(num_actions, state_size, width, bins, normalised),
            support,
            nn.Sequential(nn.LayerNorm(state_size), nn.Linear(state_size, 1)) if turns else None,
        )

    return _drawn(build, generator)


def _drawn(build: Callable[[], MuZeroNetwork], generator: torch.Generator | None) -> MuZeroNetwork:
    """Build a network whose weights come from a generator, the default one left as it was."""
    if generator is None:
        return build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        return build()


# -- residual networks -------------------------------------------------------------------------


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def _trunk(inputs: int, channels: int, blocks: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        *(_Block(channels) for _ in range(blocks)),
    ]


def action_planes(num_actions: int, height: int, width: int) -> Tensor:
    """Planes that stand for the actions, [A, P, H, W].

    A cell or a column of a board is marked on one plane; any other action is one of A planes.

    Args:
        num_actions: Actions, A.
        height: Of the hidden state.
        width: Of the hidden state.

    Example:
        >>> action_planes(2, 1, 2).tolist()
        [[[[1.0, 0.0]]], [[[0.0, 1.0]]]]
    """
    if num_actions == height * width:
        return torch.eye(num_actions).reshape(num_actions, 1, height, width)
    if num_actions == width:
        return torch.eye(width).reshape(width, 1, 1, width).repeat(1, 1, height, 1)
    return torch.eye(num_actions)[:, :, None, None].repeat(1, 1, height, width)


class _ConvDynamics(nn.Module):
    planes: Tensor

    def __init__(self, planes: Tensor, channels: int, blocks: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("planes", planes, persistent=False)
        self.trunk = nn.Sequential(*_trunk(channels + planes.shape[1], channels, blocks))
        self.reward = _head(channels, 1, planes.shape[2] * planes.shape[3], channels, bins)

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        new = self.trunk(torch.cat([state, self.planes[action].to(state.dtype)], 1))
        return new, self.reward(new)


def _head(channels: int, planes: int, cells: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, planes, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU(),
        nn.Flatten(), nn.Linear(planes * cells, width), nn.ReLU(), nn.Linear(width, outputs),
    )  # fmt: skip


class _ConvPrediction(nn.Module):
    def __init__(self, channels: int, cells: int, actions: int, bins: int) -> None:
        super().__init__()
        self.policy = nn.Sequential(
            nn.Conv2d(channels, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(2 * cells, actions),
        )  # fmt: skip
        self.value = _head(channels, 1, cells, channels, bins)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(state), self.value(state)


def resnet_network(
    observation_shape: tuple[int, ...],
    num_actions: int,
    *,
    blocks: int = 16,
    channels: int = 256,
    support: DiscreteSupport | None = None,
    turns: bool = False,
    generator: torch.Generator | None = None,
) -> MuZeroNetwork:
    """Residual h and g with the heads of AlphaZero, for boards.

    Args:
        observation_shape: (planes, height, width).
        num_actions: Actions, A; a cell or a column of the board enters g as a plane.
        blocks: Residual blocks of h and of g.
        channels: Planes of the hidden state.
        support: Of the value and reward heads; None for scalars.
        turns: Whether a head says if the same player moves on.
        generator: Draws the weights; None draws from torch's default generator.

    Raises:
        ValueError: The observation is no picture of planes.

    Source: Appendix F.

    Example:
        >>> net = resnet_network((2, 6, 7), 7, blocks=1, channels=8).eval()
        >>> net.initial_inference(torch.zeros(1, 2, 6, 7))[0].shape
        torch.Size([1, 8, 6, 7])
    """
    if len(observation_shape) != 3:
        raise ValueError(
            f"a residual network takes observations (planes, height, width), got "
            f"{observation_shape}; use 'mlp'"
        )
    planes, height, width = observation_shape
    bins = 1 if support is None else support.bins

    def build() -> MuZeroNetwork:
        return MuZeroNetwork(
            nn.Sequential(*_trunk(planes, channels, blocks)),
            _ConvDynamics(action_planes(num_actions, height, width), channels, blocks, bins),
            _ConvPrediction(channels, height * width, num_actions, bins),
            support,
            _head(channels, 1, height * width, channels, 1) if turns else None,
        )

    return _drawn(build, generator)


def atari_network(
    observation_shape: tuple[int, ...],
    num_actions: int,
    *,
    blocks: int = 16,
    channels: int = 256,
    support: DiscreteSupport | None = None,
    generator: torch.Generator | None = None,
) -> MuZeroNetwork:
    """Residual networks for pictures of 96 × 96, which h brings to 6 × 6.

    Args:
        observation_shape: (planes, 96, 96): the paper stacks 32 frames and 32 actions.
        num_actions: Actions, A; each enters g as a plane.
        blocks: Residual blocks of g.
        channels: Planes of the hidden state; half as many before the second reduction.
        support: Of the value and reward heads; None for scalars.
        generator: Draws the weights; None draws from torch's default generator.

    Raises:
        ValueError: The observation has another size.

    Source: Appendix F.

    Example:
        >>> net = atari_network((4, 96, 96), 18, blocks=1, channels=4).eval()
        >>> net.initial_inference(torch.zeros(1, 4, 96, 96))[0].shape
        torch.Size([1, 4, 6, 6])
    """
    if len(observation_shape) != 3 or tuple(observation_shape[1:]) != (96, 96):
        raise ValueError(f"observations must be (planes, 96, 96), got {observation_shape}")
    bins, half = 1 if support is None else support.bins, max(1, channels // 2)

    def build() -> MuZeroNetwork:
        h = nn.Sequential(
            *_trunk(observation_shape[0], half, 2, stride=2),
            *_trunk(half, channels, 3, stride=2),
            nn.AvgPool2d(3, 2, padding=1),
            *(_Block(channels) for _ in range(3)),
            nn.AvgPool2d(3, 2, padding=1),
        )
        planes = torch.eye(num_actions)[:, :, None, None].repeat(1, 1, 6, 6)
        g = _ConvDynamics(planes, channels, blocks, bins)
        return MuZeroNetwork(h, g, _ConvPrediction(channels, 36, num_actions, bins), support)

    return _drawn(build, generator)
