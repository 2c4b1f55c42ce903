"""All that a training run hangs on, checked, and the two recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch

from mmxx.planning.muzero.games import Game
from mmxx.planning.muzero.networks import (
    MuZeroNetwork,
    atari_network,
    mlp_network,
    resnet_network,
)
from mmxx.planning.muzero.support import DiscreteSupport


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of MuZero; the defaults are the paper's for board games, at 50 simulations.

    Attributes:
        network: "mlp", "resnet" or "atari".
        state_size: Numbers in the hidden state of "mlp".
        width: Hidden units of "mlp".
        blocks: Residual blocks of h and g of the others.
        channels: Planes of their hidden state.
        normalised: LayerNorm and residual g in "mlp".
        support_size: Outermost bin of value and reward; None for scalars and squared error.
        support_eps: ε of the transform of the bins; None for none.
        model: "learned"; "rules" for AlphaZero: the true rules in the tree; "none" for no search:
            an actor-critic with the same h and f.
        turns: Who moves in the learned model of a game for two: the players "alternate", or a head
            that was "learned" says whether the same one moves on.
        search: "muzero" or "gumbel".
        num_simulations: Of each move in self-play.
        discount: γ.
        dirichlet_alpha: Of the noise at the root.
        root_exploration_fraction: Share of the noise.
        q_norm: As in `muzero_policy`.
        parent_visits: As in `muzero_policy`.
        pb_c_init: c1 of pUCT.
        pb_c_base: c2 of pUCT.
        temperatures: (share of the training, temperature) from that share on.
        temperature_moves: Moves after which the temperature is 0; None for never.
        random_opening: Up to so many uniformly random moves begin a game.
        max_moves: A game is cut off after so many.
        td_steps: n of the value target; None for the whole game.
        num_unroll_steps: K.
        value_loss_weight: Of the value loss.
        reward_loss_weight: Of the reward loss, beside its 1/K.
        batch_size: Positions of a step.
        window_size: Positions that are kept.
        priority_alpha: α of prioritised replay; 0 for uniform.
        priority_beta: β of its weights.
        reanalyze_fraction: Share of a generation's samples whose policy is searched again.
        target_update: Steps between two copies of the network that Reanalyze bootstraps from.
        optimizer: "sgd" with momentum 0.9, or "adam".
        learning_rate: At the first step.
        schedule: "exponential": ·0.1 over decay_steps; "linear": to 0 over decay_steps.
        decay_steps: Of the schedule.
        weight_decay: c of c‖θ‖².
        decoupled: Whether weight_decay shrinks the weights directly, not by the gradient.
        games: Games of a generation.
        games_per_task: Games that are played in step, as one task.
        steps_per_game: Training steps for each game played.
        steps_per_move: Training steps for each move played, beside steps_per_game.
        total_games: Of the whole training, which temperatures and generations go by.
        total_moves: Of the whole training, in the place of total_games; 0 for games.
        entropy_weight: Of the policy's entropy, without a search.

    Raises:
        ValueError: A value is out of range.
    """

    network: Literal["mlp", "resnet", "atari"] = "mlp"
    state_size: int = 64
    width: int = 128
    blocks: int = 16
    channels: int = 256
    normalised: bool = False
    support_size: int | None = None
    support_eps: float | None = 1e-3
    model: Literal["learned", "rules", "none"] = "learned"
    turns: Literal["alternate", "learned"] = "alternate"
    search: Literal["muzero", "gumbel"] = "muzero"
    num_simulations: int = 50
    discount: float = 1.0
    dirichlet_alpha: float = 0.25
    root_exploration_fraction: float = 0.25
    q_norm: Any = "tree"
    parent_visits: Literal["sum+1", "sum", "pseudocode"] = "pseudocode"
    pb_c_init: float = 1.25
    pb_c_base: float = 19652
    temperatures: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    temperature_moves: int | None = 30
    random_opening: int = 0
    max_moves: int = 27_000
    td_steps: int | None = None
    num_unroll_steps: int = 5
    value_loss_weight: float = 1.0
    reward_loss_weight: float = 1.0
    batch_size: int = 2048
    window_size: int = 1_000_000
    priority_alpha: float = 0.0
    priority_beta: float = 1.0
    reanalyze_fraction: float = 0.0
    target_update: int = 100
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    schedule: Literal["exponential", "linear"] = "exponential"
    decay_steps: int = 400_000
    weight_decay: float = 1e-4
    decoupled: bool = False
    games: int = 256
    games_per_task: int = 256
    steps_per_game: float = 1 / 6.4
    steps_per_move: float = 0.0
    total_games: int = 8000
    total_moves: int = 0
    entropy_weight: float = 0.01

    def __post_init__(self) -> None:
        choices = {
            "network": ("mlp", "resnet", "atari"), "model": ("learned", "rules", "none"),
            "search": ("muzero", "gumbel"), "optimizer": ("sgd", "adam"),
            "schedule": ("exponential", "linear"),
            "parent_visits": ("sum+1", "sum", "pseudocode"), "turns": ("alternate", "learned"),
        }  # fmt: skip
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name} must be one of {', '.join(accepted)}, got {getattr(self, name)!r}"
                )
        least = {
            "state_size": 1, "width": 1, "blocks": 0, "channels": 1, "num_simulations": 1,
            "max_moves": 1, "num_unroll_steps": 0, "batch_size": 1, "target_update": 1,
            "decay_steps": 1, "games": 1, "games_per_task": 1, "total_games": 1,
            "random_opening": 0, "priority_alpha": 0, "priority_beta": 0, "weight_decay": 0,
            "value_loss_weight": 0, "reward_loss_weight": 0, "steps_per_game": 0,
            "steps_per_move": 0, "total_moves": 0, "entropy_weight": 0,
        }  # fmt: skip
        for name, low in least.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be {low} or more, got {getattr(self, name)}")
        if self.td_steps is not None and self.td_steps < 1:
            raise ValueError(f"td_steps must be 1 or more, or None, got {self.td_steps}")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount must be from 0 to 1, got {self.discount}")
        for name in ("dirichlet_alpha", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("root_exploration_fraction", "reanalyze_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if any(temperature < 0 for _, temperature in self.temperatures):
            raise ValueError(f"temperatures must be 0 or more, got {self.temperatures}")
        if self.turns == "learned" and self.network == "atari":
            raise ValueError("turns: the network 'atari' is for one player; use 'resnet' or 'mlp'")
        if self.window_size <= self.num_unroll_steps:
            raise ValueError(
                f"window_size must exceed num_unroll_steps, {self.num_unroll_steps}, got "
                f"{self.window_size}"
            )

    @property
    def support(self) -> DiscreteSupport | None:
        """Of value and reward."""
        if self.support_size is None:
            return None
        return DiscreteSupport(self.support_size, self.support_eps)

    def temperature(self, progress: float, move: int) -> float:
        """The temperature of a move.

        Args:
            progress: Share of the training that is done.
            move: Moves played so far in the game.
        """
        if self.temperature_moves is not None and move >= self.temperature_moves:
            return 0.0
        return [t for share, t in self.temperatures if share <= progress][-1]


def recipe(name: str, **changes: Any) -> Settings:
    """A recipe with some settings changed.

    Args:
        name: "paper": SGD, squared error, states scaled to [0, 1]. "small": what makes a small
            network learn in seconds: LayerNorm, a reward loss at full weight, random openings,
            cross-entropy heads with Adam.
        changes: Fields of `Settings`.

    Raises:
        ValueError: There is no such recipe, or a value is out of range.
        TypeError: There is no such setting.

    Example:
        >>> recipe("small", num_simulations=25).optimizer
        'adam'
    """
    if name not in ("paper", "small"):
        raise ValueError(f"recipe must be 'paper' or 'small', got {name!r}")
    known = {field.name for field in fields(Settings)}
    if unknown := sorted(set(changes) - known):
        raise TypeError(f"unknown settings {unknown}; known are {sorted(known)}")
    if name == "paper":
        return Settings(**changes)
    unroll = changes.get("num_unroll_steps", 5)
    small = Settings(
        normalised=True, support_size=1, support_eps=None, reward_loss_weight=float(max(unroll, 1)),
        random_opening=5, optimizer="adam", learning_rate=1e-2, schedule="linear",
        decay_steps=1250, batch_size=256, window_size=30_000, parent_visits="sum+1",
        temperature_moves=None, num_unroll_steps=unroll,
    )  # fmt: skip
    return replace(small, **changes)


def build_network(
    game: Game, settings: Settings, generator: torch.Generator | None = None
) -> MuZeroNetwork:
    """The network that the settings name, for a game.

    Args:
        game: Gives the shape of observations and the number of actions.
        settings: Which network, and how large.
        generator: Draws the weights.

    Raises:
        ValueError: The network does not take such observations.
    """
    shape, actions = tuple(game.observation_shape), game.num_actions
    common: Any = {"support": settings.support, "generator": generator}
    if settings.network == "atari":
        return atari_network(
            shape, actions, blocks=settings.blocks, channels=settings.channels, **common
        )
    common["turns"] = settings.turns == "learned"
    if settings.network == "resnet":
        return resnet_network(
            shape, actions, blocks=settings.blocks, channels=settings.channels, **common
        )
    return mlp_network(
        shape, actions, state_size=settings.state_size, width=settings.width,
        normalised=settings.normalised, **common,
    )  # fmt: skip
