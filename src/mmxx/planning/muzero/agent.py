"""MuZero as one object: fit, plan, evaluate, save."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from safetensors.numpy import save as to_bytes

from mmxx.planning.muzero import matches
from mmxx.planning.muzero.games import Game, check_game
from mmxx.planning.muzero.learner import Learner, work
from mmxx.planning.muzero.one_at_a_time import from_gymnasium, make_game
from mmxx.planning.muzero.self_play import Planner
from mmxx.planning.muzero.settings import Settings, recipe
from mmxx.planning.muzero.tree import PolicyOutput

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
_KEY = "mmxx.planning.muzero"


class MuZero:
    """An agent that learns a model of its game, and plans in it.

    Args:
        game: A game by name ("tictactoe", "connect4", "gomoku", "catch", "gridworld", "cartpole", a
            gymnasium id, "open_spiel:NAME", "package.module:Game"), an object with the `Game`
            protocol, a gymnasium environment, or a function that makes one.
        recipe: "paper", or "small" for what learns in seconds; see `recipe`.
        random_state: Seed; everything follows from it. None draws one.
        map: Runs the tasks of a generation: any function like the built-in one.
        settings: Fields of `Settings` that differ from the recipe: search="gumbel",
            num_simulations=50, discount=0.997, td_steps=10, reanalyze_fraction=0.8 ...

    Raises:
        ValueError: There is no such game, or a setting is out of range.
        TypeError: There is no such setting.

    Attributes:
        game: The game.
        settings: All settings.
        learner: Weights, optimiser, window and counts.

    Source: Schrittwieser et al. (2020).

    Example:
        >>> agent = MuZero("tictactoe", random_state=0, num_simulations=8, total_games=16, games=8)
        >>> board = agent.game.observe(agent.game.init(np.random.default_rng(0), 1))
        >>> agent.fit().plan(board).action_weights.shape
        (1, 9)
    """

    def __init__(
        self,
        game: Any = "tictactoe",
        *,
        recipe: str = "small",
        random_state: int | None = None,
        map: Map = map,
        **settings: Any,
    ) -> None:
        self.name = game if isinstance(game, str) else ""
        self.game = _as_game(game)
        self.settings = _recipe(recipe, settings)
        self.map = map
        if random_state is None:
            random_state = int(np.random.default_rng().integers(2**31))
        self.random_state = random_state
        self.learner = Learner(self.game, self.settings, random_state)
        self._generator = np.random.default_rng([random_state, 4])

    def fit(self, total_steps: int | None = None, *, time_budget: float | None = None) -> MuZero:
        """Play and train until the settings' ``total_games`` are played, or a budget is spent.

        Args:
            total_steps: Training steps after which to stop; calling again goes on.
            time_budget: Seconds after which to stop.

        Raises:
            ValueError: A budget is not above 0; the game or the network gives what it must not.
        """
        for name, value in (("total_steps", total_steps), ("time_budget", time_budget)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        stop = math.inf if time_budget is None else time.monotonic() + time_budget
        most = math.inf if total_steps is None else total_steps
        while not self.learner.finished and self.learner.step < most and time.monotonic() < stop:
            self.learner.absorb(list(self.map(work, self.learner.tasks())))
        return self

    def planner(self) -> Planner:
        """The present network with its search."""
        return Planner(self.game, self.settings, self.learner.network())

    def plan(
        self,
        observation: Any,
        num_simulations: int | None = None,
        *,
        legal: Any = None,
        state: Any = None,
        temperature: float = 0.0,
    ) -> PolicyOutput:
        """Search from observations.

        Args:
            observation: [B, ...].
            num_simulations: In place of the settings'.
            legal: What may be played, bool [B, A]; by default everything.
            state: The game's states, which the true rules need as a model.
            temperature: Of the drawn action; 0 takes the most visited.

        Raises:
            ValueError: The observations have another shape than the game's.
        """
        seen = np.ascontiguousarray(observation, np.float32)
        shape = tuple(self.game.observation_shape)
        if seen.shape[1:] != shape:
            raise ValueError(
                f"observation must be [B, {', '.join(map(str, shape))}], got {list(seen.shape)}"
            )
        mask = np.ones((len(seen), self.game.num_actions), bool) if legal is None else legal
        found = self.planner().search(
            seen, np.asarray(mask, bool), self._generator, state=state,
            num_simulations=num_simulations, temperature=temperature,
        )  # fmt: skip
        return PolicyOutput(np.asarray(found.action), np.asarray(found.action_weights), found.tree)

    def predict(
        self, observation: Any, deterministic: bool = True, *, legal: Any = None
    ) -> np.ndarray:
        """Actions [B] for observations [B, ...].

        Args:
            observation: [B, ...].
            deterministic: Whether the most visited action is taken; else one is drawn by visits.
            legal: What may be played, bool [B, A]; by default everything.
        """
        return self.plan(observation, legal=legal, temperature=0.0 if deterministic else 1.0).action

    def evaluate(
        self,
        episodes: int = 32,
        opponent: matches.Player | None = None,
        *,
        num_simulations: int | None = None,
    ) -> matches.Score:
        """Play greedily: returns of one player, or results against an opponent, colours in turn.

        Args:
            episodes: How many.
            opponent: ``(state, generator) -> actions [B]``; by default uniformly random.
            num_simulations: In place of the settings'.

        Raises:
            ValueError: episodes is below 1, or the opponent plays what is not legal.
        """
        player = matches.planner_player(self.planner(), num_simulations)
        rng = np.random.default_rng([self.random_state, 5])
        if self.game.num_players == 1:
            return matches.returns(self.game, player, episodes, rng, self.settings.max_moves)
        rival = opponent or matches.random_player(self.game)
        return matches.play_match(self.game, player, rival, episodes, rng)

    # -- files ---------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The network, the settings and the game's name as a safetensors file."""
        about = {
            "game": self.name, "num_actions": self.game.num_actions,
            "observation_shape": list(self.game.observation_shape),
            "settings": asdict(self.settings), "random_state": self.random_state,
        }  # fmt: skip
        return to_bytes(self.learner.weights, metadata={_KEY: json.dumps(about)})

    def save(self, path: str | Path) -> None:
        """Write the agent to a file; the window and the optimiser stay behind.

        Args:
            path: The file.
        """
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path, game: Any = None) -> MuZero:
        """An agent from a file, ready to play.

        Args:
            path: The file.
            game: The game, where it was not one by name.

        Raises:
            ValueError: The file is no agent, or one of another game or network; the field is named.
        """
        try:
            with safetensors.safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {})[_KEY])
            weights = safetensors.numpy.load_file(path)
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path} is no agent of MuZero: {error!r}") from error
        if game is None and not about["game"]:
            raise ValueError(f"game: {path} was trained on a game without a name; hand it in")
        agent = cls(about["game"] if game is None else game, random_state=about["random_state"])
        saved = {
            "num_actions": (about["num_actions"], agent.game.num_actions),
            "observation_shape": (
                tuple(about["observation_shape"]), tuple(agent.game.observation_shape)
            ),
        }  # fmt: skip
        for field, (there, here) in saved.items():
            if there != here:
                raise ValueError(f"{path}: {field} is {there}, the game's is {here}")
        settings = _tuples(about["settings"])
        try:
            agent.settings = Settings(**settings)
        except TypeError as error:
            raise ValueError(f"{path}: settings: {error}") from error
        agent.learner = Learner(agent.game, agent.settings, agent.random_state)
        expected = {name: value.shape for name, value in agent.learner.weights.items()}
        for name in sorted(expected.keys() | weights.keys()):
            there = weights[name].shape if name in weights else "missing"
            if there != expected.get(name, "unknown"):
                raise ValueError(f"{path}: {name} is {there}, not {expected.get(name, 'unknown')}")
        agent.learner.weights = weights
        return agent


def _recipe(name: str, settings: dict[str, Any]) -> Settings:
    return recipe(name, **settings)


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples they were."""
    return {
        key: tuple(tuple(v) if isinstance(v, list) else v for v in value)
        if isinstance(value, list) else value
        for key, value in settings.items()
    }  # fmt: skip


def _as_game(game: Any) -> Game:
    if isinstance(game, str):
        return make_game(game)
    if hasattr(game, "unwrapped") or (callable(game) and not hasattr(game, "step")):
        return from_gymnasium(game)
    return check_game(game)
