"""Episodes as flat arrays, and what the network is trained towards."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class Episodes:
    """E games of M moves in all, one after the other.

    Attributes:
        observation: What the mover saw, [M, ...].
        action: What was played, int64 [M].
        reward: What the mover got for it, float32 [M].
        to_play: Who moved, int8 [M].
        legal: What could be played, bool [M, A].
        policy: The search's policy, float32 [M, A].
        value: The search's root value for the mover, float32 [M].
        forced: Whether the move was drawn without the search, bool [M].
        end: One past the last move of the game, int64 [M].
        over: Whether that game ended; else it was cut off, bool [M].
        last_value: Where it was cut off: the value of the position after the last move, for
            player 0, float32 [M].
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    to_play: np.ndarray
    legal: np.ndarray
    policy: np.ndarray
    value: np.ndarray
    forced: np.ndarray
    end: np.ndarray
    over: np.ndarray
    last_value: np.ndarray

    def __len__(self) -> int:
        return len(self.action)

    @property
    def count(self) -> int:
        """Games, E."""
        return len(np.unique(self.end))

    def starts(self) -> np.ndarray:
        """The first move of each game, int64 [E]."""
        return np.concatenate([[0], np.unique(self.end)[:-1]]) if len(self) else np.zeros(0, int)

    def take(self, low: int, high: int) -> Episodes:
        """The games between two moves at which games begin."""
        parts = {f.name: getattr(self, f.name)[low:high] for f in fields(self)}
        return Episodes(**{**parts, "end": parts["end"] - low})

    @staticmethod
    def join(parts: list[Episodes]) -> Episodes:
        """Several batches of games as one."""
        if len(parts) == 1:
            return parts[0]
        shift = np.cumsum([0, *(len(part) for part in parts[:-1])])
        ends = [part.end + by for part, by in zip(parts, shift, strict=True)]
        names = [f.name for f in fields(Episodes) if f.name != "end"]
        joined = {n: np.concatenate([getattr(part, n) for part in parts]) for n in names}
        return Episodes(**joined, end=np.concatenate(ends))


class Targets(NamedTuple):
    """What the network shall say from B positions along K actions.

    Attributes:
        action: The actions played; past the end any, int64 [B, K].
        reward: The reward INTO each state from the first on, float32 [B, K].
        value: float32 [B, K + 1].
        policy: float32 [B, K + 1, A].
        known: Where the value counts, and the reward of the step from there: up to a cut, or past
            an end, bool [B, K + 1].
        inside: Where the policy counts: before the end, bool [B, K + 1].
        again: Whether who moves in each step moves in the next, too, bool [B, K].
    """

    action: np.ndarray
    reward: np.ndarray
    value: np.ndarray
    policy: np.ndarray
    known: np.ndarray
    inside: np.ndarray
    again: np.ndarray


@njit(cache=True, nogil=True)
def _n_step(reward, value, to_play, forced, end, over, last_value, steps, discount, out):
    for t in range(len(reward)):
        if forced[t]:  # what followed was not the player's own choice
            out[t] = value[t]
            continue
        total, weight = 0.0, 1.0
        stop = end[t] if steps < 0 else min(end[t], t + steps)
        for i in range(t, stop):
            total += weight * (1.0 - 2.0 * to_play[i]) * reward[i]
            weight *= discount
        if stop < end[t]:
            total += weight * (1.0 - 2.0 * to_play[stop]) * value[stop]
        elif not over[t]:
            total += weight * last_value[t]
        out[t] = (1.0 - 2.0 * to_play[t]) * total


def value_targets(
    episodes: Episodes, td_steps: int | None, discount: float, values: np.ndarray | None = None
) -> np.ndarray:
    """z_t = Σ_{i<n} γ^i u_{t+1+i} + γ^n ν_{t+n} for the mover at t, float32 [M].

    Rewards and bootstrap of the other player count negative; nothing is bootstrapped past an end;
    a game that was cut off is bootstrapped there. A forced move takes its own root value.

    Args:
        episodes: The games.
        td_steps: n; None for the whole game.
        discount: γ.
        values: What to bootstrap from, in place of the search's own, float32 [M].

    Source: Appendix B, with the sign that the pseudocode lacks.
    """
    out = np.empty(len(episodes), np.float32)
    values = episodes.value if values is None else values
    _n_step(
        episodes.reward, values, episodes.to_play, episodes.forced, episodes.end,
        episodes.over, episodes.last_value, -1 if td_steps is None else td_steps, float(discount),
        out,
    )  # fmt: skip
    return out


def gather_targets(
    episodes: Episodes,
    value: np.ndarray,
    positions: np.ndarray,
    num_unroll_steps: int,
    rng: np.random.Generator,
) -> Targets:
    """Targets of many positions at once.

    Args:
        episodes: The games.
        value: Value target of each move, [M].
        positions: Where to start, int64 [B].
        num_unroll_steps: K.
        rng: Draws the actions past the end.
    """
    place = positions[:, None] + np.arange(num_unroll_steps + 1)
    end = episodes.end[positions][:, None]
    inside = place < end
    known = inside | episodes.over[positions][:, None]
    place = np.minimum(place, end - 1)
    before = inside[:, :-1]
    action = np.where(
        before,
        episodes.action[place[:, :-1]],
        rng.integers(0, episodes.policy.shape[1], before.shape),
    )
    reward = np.where(before, episodes.reward[place[:, :-1]], 0)
    policy = np.where(inside[..., None], episodes.policy[place], 0)
    mover = episodes.to_play[place]
    return Targets(
        action, reward.astype(np.float32), np.where(inside, value[place], 0).astype(np.float32),
        policy, known, inside, mover[:, 1:] == mover[:, :-1],
    )  # fmt: skip


def make_targets(
    episode: Episodes,
    t: int,
    num_unroll_steps: int,
    td_steps: int | None,
    discount: float,
    *,
    generator: np.random.Generator | int | None = None,
) -> Targets:
    """Targets from one position of one game.

    Args:
        episode: The game.
        t: The position.
        num_unroll_steps: K.
        td_steps: n of the value target; None for the whole game.
        discount: γ.
        generator: Draws the actions past the end.

    Raises:
        ValueError: There is no such position.

    Source: Appendix G: past the end value and reward are 0, and there is no policy loss.
    """
    if not 0 <= t < len(episode):
        raise ValueError(f"t must be from 0 to {len(episode) - 1}, got {t}")
    value = value_targets(episode, td_steps, discount)
    rng = np.random.default_rng(generator)
    return gather_targets(episode, value, np.array([t]), num_unroll_steps, rng)
