"""Training as a driver's state and pure tasks: self-play, Reanalyze and steps, side by side."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from mmxx.planning.muzero.games import Game
from mmxx.planning.muzero.replay import ReplayBuffer
from mmxx.planning.muzero.self_play import (
    PlayItem,
    ReanalyzeItem,
    Weights,
    copied,
    network_from,
    play_episodes,
    reanalyze,
    weights_of,
)
from mmxx.planning.muzero.settings import Settings, build_network
from mmxx.planning.muzero.targets import Episodes, value_targets
from mmxx.planning.muzero.training import Trained, TrainItem, train

Item = PlayItem | TrainItem | ReanalyzeItem


def work(item: Item) -> Any:
    """Do a task of any kind."""
    if isinstance(item, PlayItem):
        return play_episodes(item)
    if isinstance(item, TrainItem):
        return train(item)
    return reanalyze(item)


class Learner:
    """One training, generation by generation.

    While a generation is trained on, the next is played with the weights from before that
    training: a lag of one, the same wherever the tasks run::

        while not learner.finished:
            learner.absorb([work(item) for item in learner.tasks()])

    Args:
        game: What to learn.
        settings: How.
        seed: Everything follows from it.

    Attributes:
        weights: The newest.
        games: Played so far.
        moves: Played so far.
        step: Training steps so far.
        history: A row for each generation: counts and losses.
    """

    def __init__(self, game: Game, settings: Settings, seed: int) -> None:
        self.game = game
        self.settings = settings
        self.seed = seed
        net = build_network(game, settings, torch.Generator().manual_seed(seed))
        self.weights: Weights = weights_of(net)
        self.target_weights = copied(self.weights)
        self.optimizer: dict[str, np.ndarray] = {}
        self.buffer = ReplayBuffer(
            settings.window_size, td_steps=settings.td_steps, discount=settings.discount,
            alpha=settings.priority_alpha, beta=settings.priority_beta,
        )  # fmt: skip
        self.generation = 0
        self.games = self.moves = self.step = 0
        self.diverged = False
        self._warned = False
        self.history: list[dict[str, float]] = []
        self._trained_games = self._trained_moves = 0

    @property
    def progress(self) -> float:
        """Share of the games, or moves, that are played."""
        if self.settings.total_moves:
            return min(self.moves / self.settings.total_moves, 1.0)
        return self.games / self.settings.total_games

    @property
    def finished(self) -> bool:
        """Whether everything was played and trained on."""
        return self.diverged or (self.progress >= 1 and self._trained_games == self.games)

    def tasks(self) -> list[Item]:
        """The tasks of this generation, the longest first."""
        items: list[Item] = []
        rng = np.random.default_rng([self.seed, 1, self.generation])
        steps = self._due()
        if steps:
            batches = self.buffer.sample(
                self.settings.batch_size, self.settings.num_unroll_steps, rng, steps
            )
            self._sampled = np.concatenate([batch.position for batch in batches])
            items.append(
                TrainItem(
                    self.game, self.settings, self.weights, self.optimizer, self.step, batches
                )
            )
        left, part = (self.settings.games if self.progress < 1 else 0), 0
        if not self.settings.total_moves:
            left = min(left, self.settings.total_games - self.games)
        while left > 0:
            games = min(left, self.settings.games_per_task)
            seed = (self.seed, 2, self.generation, part)
            items.append(
                PlayItem(self.game, self.settings, self.weights, seed, games, self.progress)
            )
            left, part = left - games, part + 1
        if steps and self.settings.reanalyze_fraction:
            items.append(self._reanalyze(rng))
        return items

    def _due(self) -> int:
        """Training steps that the games call for that were not trained on yet."""
        own = self.settings

        def total(games: int, moves: int) -> int:
            return int(own.steps_per_game * games + own.steps_per_move * moves + 1e-9)

        return total(self.games, self.moves) - total(self._trained_games, self._trained_moves)

    def _reanalyze(self, rng: np.random.Generator) -> ReanalyzeItem:
        """Search again what the next batches are likely to hold."""
        held = self.buffer.episodes
        assert held is not None
        positions = np.unique(self._sampled)
        count = max(1, int(self.settings.reanalyze_fraction * len(positions)))
        self._again = np.sort(rng.choice(positions, count, replace=False))
        bootstraps = self.settings.td_steps is not None
        return ReanalyzeItem(
            self.game, self.settings, self.weights, (self.seed, 3, self.generation),
            held.observation[self._again], held.legal[self._again],
            self.target_weights if bootstraps else None, held.observation if bootstraps else None,
        )  # fmt: skip

    def absorb(self, results: list[Any]) -> None:
        """Take over the results of `tasks`, in their order."""
        episodes = [one for one in results if isinstance(one, Episodes)]
        trained = [one for one in results if isinstance(one, Trained)]
        row: dict[str, float] = {}
        if trained:
            row |= self._take_training(trained[0])
        self._trained_games, self._trained_moves = self.games, self.moves
        for policy, value, bootstrap in (r for r in results if type(r) is tuple):
            values = bootstrap if len(bootstrap) else self.buffer.episodes.value  # type: ignore[union-attr]
            self.buffer.refresh(self._again, policy, value, values)
        if episodes:
            joined = Episodes.join(episodes)
            self._check_support(joined)
            self.buffer.add(joined)
            self.games += joined.count
            self.moves += len(joined)
            weights = joined.policy
            entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(1).mean()
            row |= {
                "moves_per_game": len(joined) / joined.count, "visit_entropy": float(entropy),
                "return": float(np.add.reduceat(joined.reward, joined.starts()).mean()),
            }  # fmt: skip
        self.generation += 1
        self.history.append({"games": self.games, "moves": self.moves, "step": self.step, **row})

    def _take_training(self, trained: Trained) -> dict[str, float]:
        self.weights, self.optimizer = trained.weights, trained.optimizer
        before, self.step = self.step, self.step + len(trained.losses)
        self.diverged = not np.isfinite(trained.losses[:, 0]).all()
        if before // self.settings.target_update != self.step // self.settings.target_update:
            self.target_weights = copied(self.weights)
        if self.settings.priority_alpha:
            sampled = self._sampled[: trained.priorities.size]
            self.buffer.priority[sampled] = trained.priorities.ravel() + 1e-6
        names = ("loss", "policy_loss", "value_loss", "reward_loss")
        return dict(zip(names, trained.losses.mean(0).tolist(), strict=True))

    def _check_support(self, episodes: Episodes) -> None:
        """Warn, once, where what the heads shall learn lies beyond their bins."""
        support = self.settings.support
        if support is None or self._warned:
            return
        target = value_targets(episodes, self.settings.td_steps, self.settings.discount)
        wanted = torch.from_numpy(np.concatenate([episodes.reward, target])).double()
        # a root value may exceed what a game can bring by a little
        clipped = support.clipped(wanted / 1.2).double().mean().item()
        if clipped > 1e-3:
            self._warned = True
            size = int(np.ceil(support.transform(wanted).abs().max().item()))
            warnings.warn(
                f"support_size={support.size} is too small: {clipped:.1%} of rewards and value "
                f"targets are clipped; {size} would hold them",
                RuntimeWarning,
                stacklevel=3,
            )

    def network(self) -> Any:
        """The network with the newest weights, in evaluation mode."""
        return network_from(self.game, self.settings, self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        return {
            "weights": self.weights, "target": self.target_weights, "optimizer": self.optimizer,
            "buffer": self.buffer.state_dict(), "history": self.history,
            "counts": [self.generation, self.games, self.moves, self.step, self._trained_games,
                       self._trained_moves, int(self.diverged)],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.weights, self.target_weights = dict(state["weights"]), dict(state["target"])
        self.optimizer = dict(state["optimizer"])
        self.buffer.load_state_dict(state["buffer"])
        self.history = list(state["history"])
        (self.generation, self.games, self.moves, self.step, self._trained_games,
         self._trained_moves, diverged) = state["counts"]  # fmt: skip
        self.diverged = bool(diverged)
