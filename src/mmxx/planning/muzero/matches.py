"""Playing: returns of one player, and matches of two from random openings, both colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmxx.planning.muzero.games import RUNNING, Game, check_legal
from mmxx.planning.muzero.self_play import Planner
from mmxx.planning.muzero.tree import tree_map

Player = Callable[[Any, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Score:
    """What came of some games.

    Attributes:
        results: Returns, or in a match 1, 0 or -1 for the first of the two players, [E].
    """

    results: np.ndarray

    @property
    def mean(self) -> float:
        """Mean return or result."""
        return float(self.results.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 per cent interval of the mean, by the normal approximation."""
        half = 1.96 * float(self.results.std()) / math.sqrt(len(self.results))
        return self.mean - half, self.mean + half

    @property
    def elo(self) -> float:
        """Elo over the opponent, for results from -1 to 1; ±inf where every game went one way."""
        share = (self.mean + 1) / 2
        if not 0 < share < 1:
            return math.copysign(math.inf, share - 0.5)
        return 400 * math.log10(share / (1 - share))


def random_player(game: Game) -> Player:
    """Uniformly random among the legal actions.

    Args:
        game: Says what is legal.
    """

    def play(state: Any, rng: np.random.Generator) -> np.ndarray:
        legal = game.legal(state)
        return (rng.random(legal.shape) * legal).argmax(1)

    return play


def planner_player(planner: Planner, num_simulations: int | None = None) -> Player:
    """Greedy by a search.

    Args:
        planner: Network and search.
        num_simulations: In place of the settings'; 0 is the policy without search.
    """
    game = planner.game

    def play(state: Any, rng: np.random.Generator) -> np.ndarray:
        observation, legal = game.observe(state), game.legal(state)
        return greedy_moves(planner, observation, legal, num_simulations, state=state)

    return play


def greedy_moves(
    planner: Planner,
    observation: np.ndarray,
    legal: np.ndarray,
    num_simulations: int | None = None,
    *,
    state: Any = None,
) -> np.ndarray:
    """The best actions [B], nothing being drawn.

    Args:
        planner: Network and search.
        observation: [B, ...].
        legal: bool [B, A].
        num_simulations: In place of the settings'; 0 is the policy without search.
        state: The game's states, which the true rules need.
    """
    import torch

    if num_simulations == 0:
        with torch.inference_mode():
            _, logits = planner.predict(observation)
        return np.where(legal, logits, -np.inf).argmax(1)
    found = planner.search(observation, legal, 0, state=state, num_simulations=num_simulations)
    return np.asarray(found.action)


def returns(
    game: Game, player: Player, episodes: int, rng: np.random.Generator, max_moves: int
) -> Score:
    """Undiscounted returns of a game for one.

    Args:
        game: The game.
        player: Who plays.
        episodes: How many, played in step.
        rng: Draws the starts.
        max_moves: An episode is left after so many.
    """
    return Score(_play(game, lambda colour: player, episodes, rng, max_moves, 0)[0])


def play_match(
    game: Game,
    one: Player,
    other: Player,
    games: int,
    rng: np.random.Generator,
    *,
    random_plies: int = 0,
    max_moves: int = 10_000,
) -> Score:
    """Results for ``one``, who moves first in every second game.

    Args:
        game: A game for two.
        one: The first player.
        other: The second.
        games: How many; of each two neighbours the openings are equal.
        rng: Draws openings and whatever the players draw.
        random_plies: Uniformly random moves before the players take over.
        max_moves: A game is a draw after so many.

    Raises:
        ValueError: games is below 1, or a player does what is not legal.

    Example:
        >>> from mmxx.planning.muzero.games import tic_tac_toe
        >>> game = tic_tac_toe()
        >>> player = random_player(game)
        >>> abs(play_match(game, player, player, 400, np.random.default_rng(0)).mean) < 0.2
        True
    """
    seed = int(rng.integers(2**62))
    results = []
    for first, second, sign, count in (
        (one, other, 1.0, games - games // 2),
        (other, one, -1.0, games // 2),
    ):
        if count or sign > 0:
            rewards = _play(
                game, lambda colour, pair=(first, second): pair[colour], count,
                np.random.default_rng(seed), max_moves, random_plies,
            )  # fmt: skip
            results.append(sign * (rewards[0] - rewards[1]))
    paired = np.empty(games)
    paired[::2] = results[0]
    if games > 1:
        paired[1::2] = results[1]
    return Score(paired)


def _play(
    game: Game,
    player_of: Callable[[int], Player],
    episodes: int,
    rng: np.random.Generator,
    max_moves: int,
    random_plies: int,
) -> np.ndarray:
    """Rewards of both players, [2, E]."""
    if episodes < 1:
        raise ValueError(f"episodes must be 1 or more, got {episodes}")
    opening, blind = np.random.default_rng(int(rng.integers(2**62))), random_player(game)
    state = game.init(rng, episodes)
    alive = np.arange(episodes)
    total = np.zeros((2, episodes))
    for move in range(max_moves):
        legal, mover = game.legal(state), game.to_play(state)
        check_legal(legal, f"move {move}")
        action = np.zeros(len(alive), np.int64)
        for colour in np.unique(mover):
            rows = mover == colour
            part = tree_map(lambda leaf, rows=rows: leaf[rows], state)
            player = blind if move < random_plies else player_of(int(colour))
            action[rows] = player(part, opening if move < random_plies else rng)
        wrong = ~np.take_along_axis(legal, action[:, None], 1)[:, 0]
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"game {int(alive[row])}, move {move}: player {int(mover[row])} chose action "
                f"{int(action[row])}, which is not legal; legal are "
                f"{np.flatnonzero(legal[row]).tolist()}"
            )
        state, reward, done = game.step(state, action)
        total[mover, alive] += reward
        keep = done == RUNNING
        state = tree_map(lambda leaf, keep=keep: leaf[keep], state)
        alive = alive[keep]
        if not len(alive):
            break
    return total
