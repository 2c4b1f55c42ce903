"""Self-play and Reanalyze as pure tasks: everything that they draw follows from their seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmxx.planning.muzero.games import CUT, RUNNING, Game, check_legal
from mmxx.planning.muzero.gumbel import gumbel_muzero_policy
from mmxx.planning.muzero.networks import MuZeroNetwork
from mmxx.planning.muzero.search import muzero_policy
from mmxx.planning.muzero.settings import Settings, build_network
from mmxx.planning.muzero.targets import Episodes
from mmxx.planning.muzero.tree import (
    PolicyOutput,
    RecurrentFn,
    RecurrentOutput,
    RootOutput,
    tree_map,
)

Weights = dict[str, np.ndarray]


def weights_of(net: torch.nn.Module) -> Weights:
    """A network's state as arrays, to be sent to a task."""
    return {name: value.numpy(force=True).copy() for name, value in net.state_dict().items()}


def copied(weights: Weights) -> Weights:
    """The same weights in memory of their own, so that a checkpoint holds them twice, as a
    resumed run does."""
    return {name: value.copy() for name, value in weights.items()}


def network_from(game: Game, settings: Settings, weights: Weights) -> MuZeroNetwork:
    """The network of a task, ready to play."""
    net = build_network(game, settings, torch.Generator())
    net.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in weights.items()})
    return net.eval()


# -- the model of a search ---------------------------------------------------------------------


def learned_model(net: MuZeroNetwork, discount: float) -> RecurrentFn:
    """g and f as the model of a search.

    Args:
        net: A network whose head ``again``, where it has one, says who moves on.
        discount: γ, or -γ where two players alternate.
    """

    def recurrent_fn(action: Tensor, state: Tensor) -> tuple[RecurrentOutput, Tensor]:
        state, reward, value, logits = net.recurrent_inference(state, action)
        signed = torch.full_like(value, discount)
        if net.again is not None:
            size = signed.abs()
            signed = torch.where(net.again(state)[:, 0] > 0, size, -size)
        return RecurrentOutput(reward, signed, value, logits), state

    return recurrent_fn


def rules_model(
    game: Game, predict: Callable[[np.ndarray], tuple[Any, Any]], discount: float = 1.0
) -> RecurrentFn:
    """The true rules as the model of a search, for AlphaZero; the embedding is the game's state.

    Args:
        game: Its states must be arrays that can be copied.
        predict: Observations [B, ...] -> (value [B], policy logits [B, A]).
        discount: γ.

    Example:
        >>> from mmxx.planning.muzero.games import tic_tac_toe
        >>> game = tic_tac_toe()
        >>> blank = lambda seen: (np.zeros(len(seen)), np.zeros((len(seen), 9)))
        >>> state = game.init(np.random.default_rng(0), 1)
        >>> step, state = rules_model(game, blank)(np.array([4]), state)
        >>> step.discount.tolist(), game.legal(state)[0].sum()
        ([-1.0], np.int64(8))
    """

    def recurrent_fn(action: np.ndarray, state: Any) -> tuple[RecurrentOutput, Any]:
        before = game.to_play(state)
        new, reward, done = game.step(state, action)
        sign = np.where(game.to_play(new) == before, discount, -discount)
        value, logits = predict(game.observe(new))
        ended = done == 1
        legal = game.legal(new) | (done != RUNNING)[:, None]
        output = RecurrentOutput(
            reward, np.where(ended, 0.0, sign), np.where(ended, 0.0, value),
            np.where(legal, logits, -np.inf),
        )  # fmt: skip
        return output, new

    return recurrent_fn


@dataclass(frozen=True)
class Planner:
    """A network with a search, deciding for positions of a game.

    Attributes:
        game: The game.
        settings: Of the search, and whether the model is learned.
        net: The network, in evaluation mode.
        permuted: Order of the actions as g hears them, [A]: a control; None for as they are.
    """

    game: Game
    settings: Settings
    net: MuZeroNetwork
    permuted: tuple[int, ...] | None = None

    def root(self, observation: np.ndarray) -> RootOutput:
        """The network's word on observations [B, ...]."""
        state, value, logits = self.net.initial_inference(torch.from_numpy(observation))
        return RootOutput(logits, value, state)

    def predict(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(value [B], policy logits [B, A]) without search."""
        _, value, logits = self.net.initial_inference(torch.from_numpy(observation))
        return value.numpy(), logits.numpy()

    def search(
        self,
        observation: np.ndarray,
        legal: np.ndarray,
        generator: np.random.Generator | int | None,
        *,
        state: Any = None,
        num_simulations: int | None = None,
        temperature: float = 0.0,
        explore: bool = False,
    ) -> PolicyOutput:
        """Plan one move for each row.

        Args:
            observation: [B, ...].
            legal: bool [B, A].
            generator: Draws noise and actions.
            state: The game's states, which a model of true rules needs.
            num_simulations: In place of the settings'.
            temperature: Of the drawn action.
            explore: Whether there is noise at the root, as in self-play.

        Raises:
            ValueError: The network gives something that is not finite.
        """
        own = self.settings
        with torch.inference_mode():
            root = self.root(observation)
            recurrent_fn = self._model()
            if own.model == "rules":
                root = RootOutput(root.prior_logits.numpy(), root.value.numpy(), state)
            budget = num_simulations or own.num_simulations
            if own.search == "gumbel":
                return gumbel_muzero_policy(
                    root, recurrent_fn, num_simulations=budget, invalid_actions=~legal,
                    gumbel_scale=float(explore), generator=generator,
                )  # fmt: skip
            return muzero_policy(
                root, recurrent_fn, num_simulations=budget, invalid_actions=~legal,
                pb_c_init=own.pb_c_init, pb_c_base=own.pb_c_base, q_norm=own.q_norm,
                parent_visits=own.parent_visits, dirichlet_alpha=own.dirichlet_alpha,
                dirichlet_fraction=own.root_exploration_fraction if explore else 0.0,
                temperature=temperature, generator=generator,
            )  # fmt: skip

    def decide(
        self, observation: np.ndarray, legal: np.ndarray, rng: np.random.Generator, *,
        state: Any, temperature: float,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """A move of self-play for each row: actions [B], policy [B, A], value [B].

        Args:
            observation: [B, ...].
            legal: bool [B, A].
            rng: Draws noise and actions.
            state: The game's states.
            temperature: Of the drawn action; without a model it is drawn from the policy.
        """
        if self.settings.model != "none":
            found = self.search(
                observation, legal, rng, state=state, explore=True, temperature=temperature
            )
            weights = np.asarray(found.action_weights, np.float32)
            return np.asarray(found.action), weights, found.tree.node_values[:, 0]
        with torch.inference_mode():
            value, logits = self.predict(observation)
        logits = np.where(legal, logits, -np.inf)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        total = weights.cumsum(1)
        action = (total <= rng.random((len(total), 1)) * total[:, -1:]).sum(1)
        return action, weights, value

    def _model(self) -> RecurrentFn:
        discount = self.settings.discount
        if self.settings.model == "rules":
            return rules_model(self.game, self.predict, discount)
        model = learned_model(self.net, discount if self.game.num_players == 1 else -discount)
        if self.permuted is None:
            return model
        order = torch.tensor(self.permuted)
        return lambda action, state: model(order[action], state)


# -- self-play ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlayItem:
    """Games to play: a task.

    Attributes:
        game: The game.
        settings: Of the search.
        weights: The network's.
        seed: Everything that is drawn follows from it.
        games: How many.
        progress: Share of the training that is done, for the temperature.
    """

    game: Game
    settings: Settings
    weights: Weights
    seed: tuple[int, ...]
    games: int
    progress: float


def play_episodes(item: PlayItem) -> Episodes:
    """Play games in step, each to its end.

    Args:
        item: What to play, with which weights and seed.

    Raises:
        ValueError: A running game has no legal action; the network gives no finite numbers; a
            player moves twice in a row, where the model takes them to alternate.
    """
    own, game = item.settings, item.game
    alternate = game.num_players == 2 and own.model == "learned" and own.turns == "alternate"
    planner = Planner(game, own, network_from(game, own, item.weights))
    rng = np.random.default_rng(item.seed)
    state = game.init(rng, item.games)
    opening = rng.integers(0, own.random_opening + 1, item.games)
    alive = np.arange(item.games)
    moves: list[tuple[np.ndarray, ...]] = []
    over = np.ones(item.games, bool)
    last_value = np.zeros(item.games, np.float32)
    while len(alive):
        move = len(moves)
        observation, legal = game.observe(state), game.legal(state)
        check_legal(legal, f"move {move}")
        chosen, policy, value = planner.decide(
            observation, legal, rng, state=state,
            temperature=own.temperature(item.progress, move),
        )  # fmt: skip
        forced = opening[alive] > move
        drawn = (rng.random(legal.shape) * legal).argmax(1)  # uniform among the legal
        action = np.where(forced, drawn, chosen)
        to_play = game.to_play(state)
        state, reward, done = game.step(state, action)
        if move + 1 >= own.max_moves:
            done = np.where(done == RUNNING, CUT, done)
        moves.append(
            (
                alive, observation, action.astype(np.int64), reward.astype(np.float32), to_play,
                legal, policy, value.astype(np.float32), forced,
            )
        )  # fmt: skip
        cut = done == CUT
        if cut.any():
            rest = tree_map(lambda part, cut=cut: part[cut], state)
            with torch.inference_mode():
                end_value, _ = planner.predict(game.observe(rest))
            over[alive[cut]] = False
            last_value[alive[cut]] = end_value * (1 - 2.0 * game.to_play(rest))
        keep = done == RUNNING
        state = tree_map(lambda part, keep=keep: part[keep], state)
        alive = alive[keep]
        if alternate and (twice := game.to_play(state) == to_play[keep]).any():
            raise ValueError(
                f"game {int(alive[twice.argmax()])}, move {move + 1}: player "
                f"{int(to_play[keep][twice.argmax()])} moves twice in a row; use turns='learned'"
            )
    return _flatten(moves, over, last_value)


def _flatten(
    moves: list[tuple[np.ndarray, ...]], over: np.ndarray, last_value: np.ndarray
) -> Episodes:
    """Games that were played in step, one after the other."""
    parts = [np.concatenate(one) for one in zip(*moves, strict=True)]
    game = parts[0]
    order = np.argsort(game, kind="stable")
    game = game[order]
    end = np.cumsum(np.bincount(game, minlength=len(over)))[game]
    fields = [part[order] for part in parts[1:]]
    return Episodes(*fields, end=end, over=over[game], last_value=last_value[game])


# -- Reanalyze ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReanalyzeItem:
    """Positions to search again: a task.

    Attributes:
        game: The game.
        settings: Of the search.
        weights: The newest.
        seed: Everything that is drawn follows from it.
        observation: Of the positions, [R, ...].
        legal: What could be played there, bool [R, A].
        target_weights: Of the target network; None where nothing is bootstrapped.
        window: Observations of the whole window, which the target network judges, [M, ...].
    """

    game: Game
    settings: Settings
    weights: Weights
    seed: tuple[int, ...]
    observation: np.ndarray
    legal: np.ndarray
    target_weights: Weights | None = None
    window: np.ndarray | None = None


def reanalyze(item: ReanalyzeItem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Search old positions again with new weights.

    Args:
        item: Which positions, with which weights and seed.

    Returns:
        Policies [R, A], root values [R], and the target network's values of the window [M].

    Source: Appendix H, MuZero Reanalyze.
    """
    planner = Planner(
        item.game, item.settings, network_from(item.game, item.settings, item.weights)
    )
    found = planner.search(
        item.observation, item.legal, np.random.default_rng(item.seed), explore=True
    )
    values = np.zeros(0, np.float32)
    if item.target_weights is not None and item.window is not None:
        target = network_from(item.game, item.settings, item.target_weights)
        judge = Planner(item.game, item.settings, target)
        with torch.inference_mode():
            values = judge.predict(item.window)[0]
    policy = np.asarray(found.action_weights, np.float32)
    return policy, found.tree.node_values[:, 0].astype(np.float32), values
