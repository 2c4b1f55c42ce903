"""The last frames and actions as one observation, for games that one frame does not tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmxx.planning.muzero.games import Game


class Stacked:
    """A game whose observation is its last frames, newest last, with the actions that led there.

    A picture's frames are stacked as planes, and each action is a plane of a/A, 0 before the first;
    numbers are put one after the other.

    Args:
        game: The game.
        frames: How many are kept; before the start they are 0.
        actions: Whether the actions are part of the observation.

    Raises:
        ValueError: frames is not 1 or more.

    Source: Appendix E: 32 frames and 32 actions for Atari.

    Example:
        >>> from mmxx.planning.muzero import CartPole
        >>> Stacked(CartPole(), 3).observation_shape
        (15,)
    """

    def __init__(self, game: Game, frames: int, actions: bool = True) -> None:
        if frames < 1:
            raise ValueError(f"frames must be 1 or more, got {frames}")
        self.game, self.frames, self.actions = game, frames, actions
        self.num_actions, self.num_players = game.num_actions, game.num_players
        first, *rest = game.observation_shape
        self.observation_shape = (frames * (first + int(actions)), *rest)

    def init(self, rng: np.random.Generator, batch: int) -> Any:
        """New games with a history of nothing."""
        state = self.game.init(rng, batch)
        seen = np.zeros((batch, self.frames, *self.game.observation_shape), np.float32)
        seen[:, -1] = self.game.observe(state)
        return {"state": state, "seen": seen, "acted": np.zeros((batch, self.frames), np.float32)}

    def legal(self, state: Any) -> np.ndarray:
        """What the game allows."""
        return self.game.legal(state["state"])

    def step(self, state: Any, action: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """Step the game and add to the history."""
        inner, reward, done = self.game.step(state["state"], action)
        seen = np.concatenate([state["seen"][:, 1:], self.game.observe(inner)[:, None]], 1)
        share = (np.asarray(action, np.float32) + 1)[:, None] / self.num_actions
        acted = np.concatenate([state["acted"][:, 1:], share], 1, dtype=np.float32)
        return {"state": inner, "seen": seen, "acted": acted}, reward, done

    def observe(self, state: Any) -> np.ndarray:
        """Frames and actions, float32 [B, ...]."""
        seen, acted = state["seen"], state["acted"]
        batch, _, _, *rest = seen.shape
        planes = [seen.reshape(batch, -1, *rest)]
        if self.actions:
            shape = (batch, self.frames, *rest)
            planes.append(np.broadcast_to(acted.reshape(batch, -1, *[1] * len(rest)), shape))
        return np.concatenate(planes, 1)

    def to_play(self, state: Any) -> np.ndarray:
        """Who moves."""
        return self.game.to_play(state["state"])
