"""Environments that step one at a time, as games: gymnasium's, OpenSpiel's, and one's own objects.

Their states cannot be copied, so that they serve self-play but not a search by the true rules.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mmxx.planning.muzero.games import CUT, ENDED, GAMES, RUNNING, Game, check_game

_SPIEL = "open_spiel:"


class OneAtATime:
    """Objects that step alone, as a `Game`. A state holds the places [B] of its objects.

    Args:
        make: Builds one object, with these methods: ``reset(seed)``, ``legal_actions()`` (a list
            of int), ``step(action) -> (reward, done)``, ``observation()``, ``to_play()``. ``done``
            is a bool, or RUNNING, ENDED or CUT; the reward is that of the one who moved. What
            ``str`` says of it is shown to a person who plays against the agent.
        num_actions: Actions, A.
        num_players: 1 or 2.
        observation_shape: Of one observation.

    Raises:
        ValueError: Of a step: the action is not legal.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        num_actions: int,
        num_players: int,
        observation_shape: tuple[int, ...],
    ) -> None:
        self.make = make
        self.num_actions = num_actions
        self.num_players = num_players
        self.observation_shape = tuple(observation_shape)
        self._objects: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:  # a worker makes its own objects
        return {**self.__dict__, "_objects": []}

    def init(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """New episodes; those before may not be stepped any more."""
        while len(self._objects) < batch:
            self._objects.append(self.make())
        for place in range(batch):
            self._objects[place].reset(int(rng.integers(2**31)))
        return np.arange(batch)

    def legal(self, state: np.ndarray) -> np.ndarray:
        """What each object allows, bool [B, A]."""
        mask = np.zeros((len(state), self.num_actions), bool)
        for row, place in zip(mask, state, strict=True):
            row[list(self._objects[place].legal_actions())] = True
        return mask

    def step(
        self, state: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step each object."""
        reward = np.zeros(len(state), np.float32)
        done = np.zeros(len(state), np.int8)
        for b, place in enumerate(state):
            if int(action[b]) not in self._objects[place].legal_actions():
                raise ValueError(f"action {int(action[b])} of row {b} is not legal")
            reward[b], done[b] = self._objects[place].step(int(action[b]))
        return state, reward, done

    def observe(self, state: np.ndarray) -> np.ndarray:
        """What each object shows, float32 [B, ...]."""
        rows = [np.asarray(self._objects[place].observation(), np.float32) for place in state]
        shape = (len(state), *self.observation_shape)
        found = np.array(rows, np.float32) if rows else np.zeros(shape, np.float32)
        if found.shape != shape:
            raise ValueError(
                f"observation must have the shape {self.observation_shape}, got {found.shape[1:]}"
            )
        return found

    def to_play(self, state: np.ndarray) -> np.ndarray:
        """Who moves, int8 [B]."""
        return np.array([self._objects[place].to_play() for place in state], np.int8)

    def text(self, state: np.ndarray) -> str:
        """The first of the objects as a person may read it: what ``str`` says, or what it shows."""
        shown = self._objects[state[0]]
        if type(shown).__str__ is object.__str__:
            return np.array2string(self.observe(state[:1])[0], precision=3)
        return str(shown)


class _Environment:
    """One gymnasium environment as an object of `OneAtATime`."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.env = make()
        self._shown: Any = None
        self._mask: Any = None

    def reset(self, seed: int) -> None:
        try:
            self._shown, info = self.env.reset(seed=seed)
        except TypeError as error:
            raise ValueError(f"environment {self.env} cannot be reset with a seed") from error
        self._mask = info.get("action_mask")

    def legal_actions(self) -> Any:
        if self._mask is None:
            return range(int(self.env.action_space.n))
        return np.flatnonzero(self._mask).tolist()

    def step(self, action: int) -> tuple[float, int]:
        start = int(self.env.action_space.start)
        self._shown, reward, terminated, truncated, info = self.env.step(action + start)
        self._mask = info.get("action_mask")
        return float(reward), ENDED if terminated else CUT if truncated else RUNNING

    def observation(self) -> np.ndarray:
        space = self.env.observation_space
        if hasattr(space, "start"):  # Discrete: one of n
            one = np.zeros(int(space.n), np.float32)
            one[int(self._shown) - int(space.start)] = 1
            return one
        return np.asarray(self._shown, np.float32)

    def to_play(self) -> int:
        return 0


class _Maker:
    """Builds environments of one kind; unlike a closure it can be sent to another process."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self) -> _Environment:
        if callable(self.source):
            return _Environment(self.source)
        import gymnasium

        return _Environment(lambda: gymnasium.make(self.source))


def from_gymnasium(environment: Any) -> OneAtATime:
    """A gymnasium environment as a game.

    Discrete actions (where ``info["action_mask"]`` says so, only some), observations of the
    spaces Box, Discrete (one of n) and MultiBinary. A truncated episode is cut off, not ended.

    Args:
        environment: An id such as "CartPole-v1", an environment of ``gymnasium.make`` (more like it
            are made), or a function that makes an environment.

    Raises:
        ValueError: The id is unknown; how the environment was made is not known; the actions are
            not Discrete; the observations are of another space; there is no seed in ``reset``.

    Example:
        >>> from_gymnasium("FrozenLake-v1").num_actions
        4
    """
    import gymnasium

    if isinstance(environment, str):
        try:
            gymnasium.spec(environment)
        except gymnasium.error.Error as error:
            raise ValueError(f"gymnasium makes no environment {environment!r}: {error}") from error
    elif hasattr(environment, "unwrapped") and not isinstance(environment, type):
        if environment.spec is None:
            raise ValueError(
                f"{environment} was not made by gymnasium.make: hand in a function that makes one"
            )
        environment = environment.spec
    maker = _Maker(environment)
    first = maker()
    actions, shown = first.env.action_space, first.env.observation_space
    if type(actions).__name__ != "Discrete":
        raise ValueError(f"actions must be Discrete, got {actions}")
    kind = type(shown).__name__
    if kind not in ("Box", "Discrete", "MultiBinary"):
        raise ValueError(f"observations must be Box, Discrete or MultiBinary, got {shown}")
    shape = (int(shown.n),) if kind == "Discrete" else tuple(shown.shape)
    first.reset(0)
    first.env.close()
    return OneAtATime(maker, num_actions=int(actions.n), num_players=1, observation_shape=shape)


# -- OpenSpiel ---------------------------------------------------------------------------------


class _Spiel:
    """One game of OpenSpiel as an object of `OneAtATime`."""

    def __init__(self, game: Any) -> None:
        self.game = game

    def reset(self, seed: int) -> None:  # nothing is drawn in these games
        self.state = self.game.new_initial_state()

    def legal_actions(self) -> Any:
        return self.state.legal_actions()

    def step(self, action: int) -> tuple[float, bool]:
        mover = self.state.current_player()
        self.state.apply_action(action)
        return float(self.state.rewards()[mover]), self.state.is_terminal()

    def observation(self) -> np.ndarray:
        # at the end nobody moves; nothing is learned from what is shown then
        shown = self.state.observation_tensor(max(self.state.current_player(), 0))
        return np.reshape(shown, self.game.observation_tensor_shape())

    def to_play(self) -> int:
        return max(self.state.current_player(), 0)

    def __str__(self) -> str:
        return str(self.state)


class _SpielMaker:
    """Builds games of one kind, by a name that can be sent to another process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> _Spiel:
        return _Spiel(_load_spiel(self.name))


def _load_spiel(name: str) -> Any:
    try:
        pyspiel: Any = importlib.import_module("pyspiel")
    except ImportError as error:
        raise ValueError(
            "OpenSpiel is not there. Install it with: pip install open_spiel"
        ) from error
    short, known = name.partition("(")[0], pyspiel.registered_names()
    if short not in known:
        near = ", ".join(difflib.get_close_matches(short, known) or known)
        raise ValueError(f"OpenSpiel has no game {short!r}; it has {near}")
    try:
        return pyspiel.load_game(name)
    except pyspiel.SpielError as error:
        raise ValueError(f"OpenSpiel does not make {name!r}: {error}") from error


def from_open_spiel(game: Any) -> OneAtATime:
    """A game of OpenSpiel: of perfect information, without chance, for one player or two.

    Args:
        game: What ``pyspiel.load_game`` gives, or a name for it, such as "breakthrough" or
            "breakthrough(rows=6,columns=6)".

    Raises:
        ValueError: OpenSpiel is not installed; it has no such game; or the game is one of chance,
            of imperfect information, of moves at the same time, not zero-sum, for more than two,
            or without tensors to observe.
    """
    loaded = _load_spiel(game) if isinstance(game, str) else game
    kind = loaded.get_type()
    wanted = {"dynamics": "SEQUENTIAL", "chance_mode": "DETERMINISTIC",
              "information": "PERFECT_INFORMATION"}  # fmt: skip
    if loaded.num_players() == 2:
        wanted["utility"] = "ZERO_SUM"
    for part, name in wanted.items():
        if (found := getattr(kind, part).name) != name:
            raise ValueError(f"{loaded}: {part} must be {name}, got {found}")
    if not kind.provides_observation_tensor:
        raise ValueError(f"{loaded}: it has no observation_tensor")
    found = OneAtATime(
        _SpielMaker(str(loaded)), num_actions=loaded.num_distinct_actions(),
        num_players=loaded.num_players(),
        observation_shape=tuple(loaded.observation_tensor_shape()),
    )  # fmt: skip
    check_game(found)
    return found


def make_game(name: str) -> Game:
    """A game by name.

    Args:
        name: One of ours ("tictactoe", "connect4", "gomoku", "catch", "gridworld", "cartpole"), a
            gymnasium id, one of OpenSpiel as "open_spiel:breakthrough", or "package.module:Game",
            which imports that module and calls the name.

    Raises:
        ValueError: Nothing has that name, or what has it is no game.

    Example:
        >>> make_game("tictactoe").num_actions
        9
    """
    if name in GAMES:
        return GAMES[name]()
    if ":" in name and not name.startswith(_SPIEL):
        module, _, attribute = name.partition(":")
        try:
            made = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"game {name!r} cannot be imported: {error}") from error
        return check_game(made() if callable(made) else made)
    if name.startswith(_SPIEL):
        return from_open_spiel(name.removeprefix(_SPIEL))
    import gymnasium

    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise ValueError(
            f"no game is called {name!r}: ours are {', '.join(GAMES)}; gymnasium says: {error}; "
            "your own is package.module:Game"
        ) from error
    return from_gymnasium(name)
