"""The window of moves that training draws from, uniformly or by priority."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from mmxx.planning.muzero.targets import Episodes, Targets, gather_targets, value_targets


class Batch(NamedTuple):
    """What one training step sees.

    Attributes:
        observation: [B, ...].
        targets: From these positions.
        weight: Importance of each sample, float32 [B], 1 at most.
        position: Where in the window they lie, int64 [B].
    """

    observation: np.ndarray
    targets: Targets
    weight: np.ndarray
    position: np.ndarray


class ReplayBuffer:
    """The last moves of self-play, whole games, counted in moves.

    Games differ in length: drawing games and then a move would slight the moves of long ones.

    Args:
        window_size: Moves at most; the oldest games leave, but the last one stays.
        td_steps: n of the value target; None for the whole game.
        discount: γ.
        alpha: Moves are drawn ∝ priority^alpha; 0 for uniformly.
        beta: Weights are (1 / (N·P))^beta, divided by the largest of the batch.

    Attributes:
        episodes: The games, None while empty.
        value: Value target of each move.
        priority: |ν - z| of each move, as first given by self-play.

    Source: Appendix G; Schaul et al., Prioritized Experience Replay (2016).

    Example:
        >>> len(ReplayBuffer(1000, td_steps=None, discount=1.0))
        0
    """

    def __init__(
        self,
        window_size: int,
        *,
        td_steps: int | None,
        discount: float,
        alpha: float = 0.0,
        beta: float = 1.0,
    ) -> None:
        self.window_size = window_size
        self.td_steps = td_steps
        self.discount = discount
        self.alpha = alpha
        self.beta = beta
        self.episodes: Episodes | None = None
        self.value = np.zeros(0, np.float32)
        self.priority = np.zeros(0)

    def __len__(self) -> int:
        return 0 if self.episodes is None else len(self.episodes)

    def add(self, episodes: Episodes) -> int:
        """Append games; returns how many moves left at the other end."""
        value = value_targets(episodes, self.td_steps, self.discount)
        priority = np.abs(episodes.value - value).astype(np.float64) + 1e-6
        held = [] if self.episodes is None else [self.episodes]
        joined = Episodes.join([*held, episodes])
        excess = len(joined) - self.window_size
        drop = 0
        if excess > 0:
            starts = joined.starts()
            drop = int(starts[min(np.searchsorted(starts, excess), len(starts) - 1)])
        self.episodes = joined.take(drop, len(joined))
        self.value = np.concatenate([self.value, value])[drop:]
        self.priority = np.concatenate([self.priority, priority])[drop:]
        return drop

    def sample(
        self, batch_size: int, num_unroll_steps: int, rng: np.random.Generator, count: int = 1
    ) -> list[Batch]:
        """Draw batches, with replacement.

        Args:
            batch_size: Positions of each.
            num_unroll_steps: K.
            rng: Draws positions and the actions past the end.
            count: Batches.

        Raises:
            ValueError: The window is empty.
        """
        if self.episodes is None or not len(self):
            raise ValueError("the window holds no moves: add episodes first")
        total = batch_size * count
        if self.alpha:
            scaled = self.priority**self.alpha
            edges = scaled.cumsum()
            draws = rng.random(total) * edges[-1]
            position = np.minimum(np.searchsorted(edges, draws, "right"), len(self) - 1)
            weight = (len(self) * scaled[position] / edges[-1]) ** -self.beta
        else:
            position = rng.integers(0, len(self), total)
            weight = np.ones(total)
        targets = gather_targets(self.episodes, self.value, position, num_unroll_steps, rng)
        observation = self.episodes.observation[position]
        batches = []
        for i in range(count):
            part = slice(i * batch_size, (i + 1) * batch_size)
            batches.append(
                Batch(
                    observation[part], Targets(*(one[part] for one in targets)),
                    (weight[part] / weight[part].max()).astype(np.float32), position[part],
                )
            )  # fmt: skip
        return batches

    def refresh(
        self, position: np.ndarray, policy: np.ndarray, value: np.ndarray, bootstrap: np.ndarray
    ) -> None:
        """Put Reanalyze's results in the place of the old ones.

        Args:
            position: Which moves, int64 [R].
            policy: Their new policies, [R, A].
            value: Their new root values, [R].
            bootstrap: What the target network says of all moves, [M].
        """
        assert self.episodes is not None
        policies, values = self.episodes.policy.copy(), self.episodes.value.copy()
        policies[position], values[position] = policy, value
        self.episodes = replace(self.episodes, policy=policies, value=values)
        self.value = value_targets(self.episodes, self.td_steps, self.discount, bootstrap)

    def state_dict(self) -> dict[str, Any]:
        """All arrays."""
        held = self.episodes
        games = {} if held is None else {f.name: getattr(held, f.name) for f in fields(held)}
        return {"episodes": games, "value": self.value, "priority": self.priority}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the arrays of `state_dict`."""
        games = state["episodes"]
        self.episodes = Episodes(**{k: np.asarray(v) for k, v in games.items()}) if games else None
        self.value = np.asarray(state["value"])
        self.priority = np.asarray(state["priority"])
