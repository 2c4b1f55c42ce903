"""Games and small control tasks, thousands at a time, and the protocol for one's own.

A state is an array (or a tree of arrays) with one row for each game; a step makes a new one.
Rewards are those of the player who moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmxx.planning.muzero import _rules

RUNNING, ENDED, CUT = 0, 1, 2  # what a step says of the game; CUT is a time limit, not an end


@runtime_checkable
class Game(Protocol):
    """What MuZero needs of a game: a batch of states that are stepped together.

    Attributes:
        num_actions: Actions, A.
        num_players: 1, or 2 for a zero-sum game.
        observation_shape: Of one observation.
    """

    @property
    def num_actions(self) -> int: ...

    @property
    def num_players(self) -> int: ...

    @property
    def observation_shape(self) -> tuple[int, ...]: ...

    def init(self, rng: np.random.Generator, batch: int) -> Any:
        """``batch`` new games."""
        ...

    def legal(self, state: Any) -> np.ndarray:
        """What may be played, bool [B, A]."""
        ...

    def step(self, state: Any, action: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """The next state, the mover's reward [B], and RUNNING, ENDED or CUT [B]."""
        ...

    def observe(self, state: Any) -> np.ndarray:
        """What the player to move sees, [B, ...]."""
        ...

    def to_play(self, state: Any) -> np.ndarray:
        """Who moves, 0 or 1, [B]."""
        ...


@dataclass(frozen=True)
class InARow:
    """``length`` in a row on a board: tic-tac-toe, Gomoku, and with gravity Connect Four.

    Args:
        rows: Of the board.
        columns: Of the board.
        length: Stones in a line that win: 1 for the mover, 0 for a full board.
        gravity: Whether an action is a column, in which the stone falls; else it is a cell.

    Attributes:
        num_players: 2.

    A state is int8 [B, rows·columns + 2]: stones as 1 (first player) and -1, whose turn it is in
    the same way, and whether the game has ended. An observation has two planes: own and others'.

    Example:
        >>> game = tic_tac_toe()
        >>> state = game.init(np.random.default_rng(0), 2)
        >>> state, reward, done = game.step(state, np.array([4, 0]))
        >>> game.legal(state)[:, [0, 4]].tolist()
        [[True, False], [False, True]]
    """

    rows: int
    columns: int
    length: int
    gravity: bool = False
    num_players: int = 2

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.length) < 1:
            raise ValueError(
                f"rows, columns and length must be 1 or more, got {self.rows}, {self.columns} and "
                f"{self.length}"
            )

    @property
    def num_actions(self) -> int:
        """Cells, or columns with gravity."""
        return self.columns if self.gravity else self.rows * self.columns

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Two planes."""
        return (2, self.rows, self.columns)

    def init(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """Empty boards; nothing is drawn."""
        state = np.zeros((batch, self.rows * self.columns + 2), np.int8)
        state[:, -2] = 1
        return state

    def legal(self, state: np.ndarray) -> np.ndarray:
        """Empty cells, or columns that are not full; nothing once the game has ended."""
        top = state[:, : self.columns if self.gravity else self.rows * self.columns]
        return (top == 0) & (state[:, -1:] == 0)

    def step(
        self, state: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put a stone; in a game that has ended nothing changes, and the reward is 0."""
        new = state.copy()
        reward = np.zeros(len(state), np.float32)
        _rules.put_stones(
            new, np.ascontiguousarray(action, np.int64), reward, self.rows, self.columns,
            self.length, self.gravity,
        )  # fmt: skip
        return new, reward, new[:, -1].copy()

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Planes of the mover's and the other's stones, float32."""
        board = state[:, :-2] * state[:, -2:-1]
        planes = np.stack([board == 1, board == -1], 1).astype(np.float32)
        return planes.reshape(-1, 2, self.rows, self.columns)

    def to_play(self, state: np.ndarray) -> np.ndarray:
        """0 for the first player."""
        return (state[:, -2] < 0).astype(np.int8)


def tic_tac_toe() -> InARow:
    """Three in a row on 3 × 3."""
    return InARow(3, 3, 3)


def connect_four(rows: int = 6, columns: int = 7) -> InARow:
    """Four in a row with gravity.

    Args:
        rows: Of the board.
        columns: Of the board.
    """
    return InARow(rows, columns, 4, gravity=True)


def gomoku(size: int = 9) -> InARow:
    """Five in a row.

    Args:
        size: Of the square board.
    """
    return InARow(size, size, 5)


@dataclass(frozen=True)
class Catch:
    """A ball falls from the top; a paddle at the bottom moves to catch it: 1, else -1 at the end.

    Args:
        rows: Of the field.
        columns: Of the field.

    Attributes:
        num_players: 1.
        num_actions: 3: left, stay, right.
    """

    rows: int = 10
    columns: int = 5
    num_players: int = 1
    num_actions: int = 3

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Planes of the ball and the paddle."""
        return (2, self.rows, self.columns)

    def init(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """The ball above a random column, the paddle in the middle; int16 [B, 4]."""
        state = np.zeros((batch, 4), np.int16)  # ball's row and column, paddle, ended
        state[:, 1] = rng.integers(0, self.columns, batch)
        state[:, 2] = self.columns // 2
        return state

    def legal(self, state: np.ndarray) -> np.ndarray:
        """Everything."""
        return np.ones((len(state), 3), bool)

    def step(
        self, state: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move the paddle and let the ball fall."""
        new = state.copy()
        alive = state[:, 3] == 0
        new[alive, 0] += 1
        new[alive, 2] = np.clip(state[:, 2] + action - 1, 0, self.columns - 1)[alive]
        ends = alive & (new[:, 0] == self.rows - 1)
        new[ends, 3] = 1
        reward = np.where(ends, np.where(new[:, 1] == new[:, 2], 1.0, -1.0), 0.0)
        return new, reward.astype(np.float32), new[:, 3].astype(np.int8)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Planes of the ball and the paddle, float32."""
        planes = np.zeros((len(state), *self.observation_shape), np.float32)
        every = np.arange(len(state))
        planes[every, 0, state[:, 0], state[:, 1]] = 1
        planes[every, 1, -1, state[:, 2]] = 1
        return planes

    def to_play(self, state: np.ndarray) -> np.ndarray:
        """0."""
        return np.zeros(len(state), np.int8)


@dataclass(frozen=True)
class GridWorld:
    """Walk to a goal on a square grid: reward 1 there, after at most 4·size steps.

    Args:
        size: Of the grid.

    Attributes:
        num_players: 1.
        num_actions: 4: up, down, left, right.
    """

    size: int = 5
    num_players: int = 1
    num_actions: int = 4

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Planes of the walker and the goal."""
        return (2, self.size, self.size)

    def init(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """Walker and goal on two random cells; int16 [B, 4]."""
        cells = self.size**2
        walker = rng.integers(0, cells, batch)
        goal = (walker + 1 + rng.integers(0, cells - 1, batch)) % cells
        return np.stack([walker, goal, 0 * walker, 0 * walker], 1).astype(np.int16)

    def legal(self, state: np.ndarray) -> np.ndarray:
        """Everything; a wall stops."""
        return np.ones((len(state), 4), bool)

    def step(
        self, state: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step; the limit on steps cuts off."""
        new = state.copy()
        row, column = np.divmod(state[:, 0], self.size)
        row = np.clip(row + np.array([-1, 1, 0, 0])[action], 0, self.size - 1)
        column = np.clip(column + np.array([0, 0, -1, 1])[action], 0, self.size - 1)
        alive = state[:, 3] == 0
        new[alive, 0] = (row * self.size + column)[alive]
        new[alive, 2] += 1
        there = alive & (new[:, 0] == new[:, 1])
        new[there, 3] = ENDED
        new[alive & ~there & (new[:, 2] >= 4 * self.size), 3] = CUT
        return new, there.astype(np.float32), new[:, 3].astype(np.int8)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Planes of the walker and the goal, float32."""
        planes = np.zeros((len(state), 2, self.size**2), np.float32)
        every = np.arange(len(state))
        planes[every, 0, state[:, 0]] = 1
        planes[every, 1, state[:, 1]] = 1
        return planes.reshape(-1, *self.observation_shape)

    def to_play(self, state: np.ndarray) -> np.ndarray:
        """0."""
        return np.zeros(len(state), np.int8)


@dataclass(frozen=True)
class CartPole:
    """The pole on a cart of Barto, Sutton and Anderson, as gymnasium's CartPole-v1.

    Args:
        limit: Steps after which an episode is cut off.

    Attributes:
        num_players: 1.
        num_actions: 2: push left, push right.
        observation_shape: Position, velocity, angle, angular velocity.

    A state is float64 [B, 6]: these four, steps, and whether the episode is over.
    """

    limit: int = 500
    num_players: int = 1
    num_actions: int = 2
    observation_shape: tuple[int, ...] = (4,)

    def init(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """Nearly upright and at rest."""
        state = np.zeros((batch, 6))
        state[:, :4] = rng.uniform(-0.05, 0.05, (batch, 4))
        return state

    def legal(self, state: np.ndarray) -> np.ndarray:
        """Both."""
        return np.ones((len(state), 2), bool)

    def step(
        self, state: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A fiftieth of a second; the reward is 1 for each."""
        new = state.copy()
        reward = np.zeros(len(state), np.float32)
        _rules.push_carts(new, np.ascontiguousarray(action, np.int64), reward, self.limit)
        return new, reward, new[:, 5].astype(np.int8)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """The four numbers, float32."""
        return state[:, :4].astype(np.float32)

    def to_play(self, state: np.ndarray) -> np.ndarray:
        """0."""
        return np.zeros(len(state), np.int8)


GAMES: dict[str, Callable[[], Game]] = {
    "tictactoe": tic_tac_toe,
    "connect4": connect_four,
    "gomoku": gomoku,
    "catch": Catch,
    "gridworld": GridWorld,
    "cartpole": CartPole,
}


def check_game(game: Any) -> Game:
    """The game, where MuZero can play it.

    Args:
        game: Anything that keeps to the protocol.

    Raises:
        ValueError: It lacks a part of the protocol, or has more than two players.
    """
    parts = ("num_actions", "num_players", "observation_shape", "init", "legal", "step",
             "observe", "to_play")  # fmt: skip
    missing = [part for part in parts if not hasattr(game, part)]
    if missing:
        alone = all(hasattr(game, part) for part in ("reset", "legal_actions", "step"))
        hint = "; hand in OneAtATime(its class, num_actions=…)" if alone else ""
        raise ValueError(f"game {game!r} lacks {', '.join(missing)} of the Game protocol{hint}")
    if game.num_players not in (1, 2):
        raise ValueError(
            f"num_players must be 1 or 2 (two-player zero-sum or single-player), got "
            f"{game.num_players}"
        )
    if game.num_actions < 1:
        raise ValueError(f"num_actions must be 1 or more, got {game.num_actions}")
    return game


def check_legal(legal: np.ndarray, where: str) -> None:
    """Raise ValueError where a running game offers no action, naming its row."""
    stuck = ~legal.any(1)
    if stuck.any():
        raise ValueError(f"{where}, row {int(stuck.argmax())}: a running game has no legal action")
