"""What the claims are measured on: trainings side by side, and judges as pure tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmxx.planning.muzero import matches
from mmxx.planning.muzero.games import Game, InARow
from mmxx.planning.muzero.judges import (
    connect_four_values,
    judge,
    solved_tic_tac_toe,
    urgent_moves,
)
from mmxx.planning.muzero.learner import Item, Learner
from mmxx.planning.muzero.self_play import Planner, Weights, copied, network_from
from mmxx.planning.muzero.settings import Settings, recipe

Orders = tuple[tuple[int, ...], ...]
GENERATION = 300  # games of tic-tac-toe between two sets of weights
STEPS_PER_GAME = 1 / 6.4
_PART = 25  # positions of Connect Four in a task: seconds for the solver


def board(simulations: int, total: int, schedule: int = 0, **changes: Any) -> Settings:
    """Settings for tic-tac-toe.

    Args:
        simulations: Of each move in training.
        total: Games to play.
        schedule: Games after which the learning rate would be 0; by default all of them.
        changes: Other settings.
    """
    decay = max(1, int((schedule or total) * STEPS_PER_GAME))
    base: dict[str, Any] = {
        "num_simulations": simulations, "games": GENERATION, "games_per_task": GENERATION,
        "total_games": total, "decay_steps": decay, "steps_per_game": STEPS_PER_GAME,
    }  # fmt: skip
    return recipe("small", **{**base, **changes})


def control_task(moves: int, **changes: Any) -> Settings:
    """Settings for CartPole and other games for one.

    Args:
        moves: Environment steps.
        changes: Other settings.
    """
    base: dict[str, Any] = {
        "num_simulations": 25, "games": 16, "games_per_task": 16, "total_moves": moves,
        "steps_per_game": 0.0, "steps_per_move": 2416 / 78_000,
        "decay_steps": max(1, int(moves * 2416 / 78_000)), "state_size": 32, "width": 64,
        "support_size": 20, "support_eps": 1e-3, "discount": 0.99, "td_steps": 50,
        "value_loss_weight": 0.25, "learning_rate": 2e-3, "batch_size": 128,
        "random_opening": 0, "window_size": 10_000,
        "temperatures": ((0.0, 1.0), (0.5, 0.5), (0.75, 0.25)),
    }  # fmt: skip
    return recipe("small", **{**base, **changes})


def own_settings(config: Any, game: Game) -> Settings:
    """Settings for a game that the user named, from the experiment's."""
    more: dict[str, Any] = {
        "search": config.search, "num_simulations": config.simulations,
        "reanalyze_fraction": config.reanalyze, "network": config.network,
        "blocks": config.blocks, "channels": config.channels, "turns": config.turns,
    }  # fmt: skip
    if game.num_players == 1:
        return control_task(config.moves, **more)
    games = max(1, min(64, config.moves // 200))  # so that there are several generations
    more |= {"games": games, "games_per_task": games, "steps_per_game": 0.0, "steps_per_move": 0.05}
    more |= {"total_moves": config.moves, "decay_steps": max(1, config.moves // 20)}
    return board(config.simulations, 1, **more)


def generations(settings: Settings) -> int:
    """How many a training takes, or a guess where moves are counted."""
    if settings.total_moves:
        return settings.total_moves // (100 * settings.games) + 2
    return -(-settings.total_games // settings.games) + 1


def derangements(rng: np.random.Generator, actions: int, count: int) -> Orders:
    """Permutations of the actions that leave none in its place.

    Args:
        rng: Draws them.
        actions: How many actions.
        count: How many permutations.
    """
    found: list[tuple[int, ...]] = []
    while len(found) < count:
        order = rng.permutation(actions)
        if (order != range(actions)).all():
            found.append(tuple(order.tolist()))
    return tuple(found)


class Study:
    """Several trainings that advance generation by generation, their tasks in one map.

    Args:
        learners: By name.
        marks: For some of them the games, or moves where these are counted, after which their
            weights are set aside.

    Attributes:
        kept: Weights by (name, mark), as ``"name@mark"``.
    """

    def __init__(
        self, learners: Mapping[str, Learner], marks: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.learners = dict(learners)
        self.marks = dict(marks)
        self.kept: dict[str, Weights] = {}
        self._sizes: list[tuple[str, int]] = []

    @property
    def finished(self) -> bool:
        """Whether every training is."""
        return all(learner.finished for learner in self.learners.values())

    def tasks(self) -> list[Item]:
        """The tasks of everyone's next generation."""
        items: list[Item] = []
        self._sizes = []
        for name, learner in self.learners.items():
            if not learner.finished:
                own = learner.tasks()
                self._sizes.append((name, len(own)))
                items += own
        return items

    def absorb(self, results: list[Any]) -> dict[str, float]:
        """Take over the results of `tasks`; returns what to log."""
        place = 0
        logged: dict[str, float] = {}
        for name, count in self._sizes:
            learner = self.learners[name]
            trained_on = learner.moves if learner.settings.total_moves else learner.games
            learner.absorb(results[place : place + count])
            place += count
            for mark in self.marks.get(name, ()):
                if mark <= trained_on and f"{name}@{mark}" not in self.kept:
                    self.kept[f"{name}@{mark}"] = copied(learner.weights)
            row = learner.history[-1]
            logged |= {f"{name}/{key}": row[key] for key in ("loss", "return") if key in row}
        return logged

    def at(self, name: str, mark: int) -> Weights:
        """The weights set aside at a mark; the last ones of a training that ended before it."""
        return self.kept.get(f"{name}@{mark}", self.learners[name].weights)

    def state_dict(self) -> dict[str, Any]:
        """Of all learners, and the weights that were set aside."""
        learners = {name: learner.state_dict() for name, learner in self.learners.items()}
        return {"learners": learners, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
        self.kept = {name: dict(weights) for name, weights in state["kept"].items()}


# -- judges ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JudgeItem:
    """A player to judge: a task.

    Attributes:
        kind: "solved" (tic-tac-toe), "returns", or "positions".
        game: The game.
        settings: Of the search.
        weights: The network's.
        simulations: 0 is the policy without search.
        permuted: Orders of the actions as g hears them, one for each repetition; () for none.
        seed: Draws starts.
        count: Episodes.
        positions: What `judged_positions` gives, for "positions".
    """

    kind: str
    game: Game
    settings: Settings
    weights: Weights
    simulations: int
    permuted: Orders = ()
    seed: tuple[int, ...] = (0,)
    count: int = 32
    positions: tuple[np.ndarray, np.ndarray] | None = None


def work_judge(item: JudgeItem) -> dict[str, float]:
    """Judge a player; with several permutations the mean over them."""
    net = network_from(item.game, item.settings, item.weights)
    found = [
        _judge(item, Planner(item.game, item.settings, net, order))
        for order in item.permuted or (None,)
    ]
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def _judge(item: JudgeItem, planner: Planner) -> dict[str, float]:
    if item.kind == "returns":
        rng = np.random.default_rng(item.seed)
        player = matches.planner_player(planner, item.simulations)
        score = matches.returns(item.game, player, item.count, rng, item.settings.max_moves)
        return {"return": score.mean, "low": score.interval[0], "high": score.interval[1]}
    if item.kind == "positions":
        assert item.positions is not None
        share, chance = good_moves(planner, *item.positions, item.simulations)
        return {"optimal": share, "random": chance}
    solved = solved_tic_tac_toe()
    action = _moves(planner, solved.states[solved.running], item.simulations)
    return vars(judge(solved, action))


def _moves(planner: Planner, states: np.ndarray, simulations: int) -> np.ndarray:
    game = planner.game
    return matches.greedy_moves(
        planner, game.observe(states), game.legal(states), simulations, state=states
    )


def good_moves(
    planner: Planner, states: np.ndarray, good: np.ndarray, simulations: int
) -> tuple[float, float]:
    """In what share of the positions the player's move is good, and a random one would be.

    Args:
        planner: Network and search.
        states: The positions.
        good: Their good moves, bool [P, A].
        simulations: 0 is the policy without search.
    """
    action = _moves(planner, states, simulations)
    chance = good.sum(1) / planner.game.legal(states).sum(1)
    return float(good[np.arange(len(good)), action].mean()), float(chance.mean())


@dataclass(frozen=True)
class PositionsItem:
    """Positions to draw and to judge: a task.

    Attributes:
        game: The board.
        seed: Draws them.
        count: How many.
        ply: Random moves before each.
    """

    game: InARow
    seed: tuple[int, ...]
    count: int
    ply: int


def judged_positions(item: PositionsItem) -> tuple[np.ndarray, np.ndarray]:
    """Running positions after random play, and their good moves, bool [P, A].

    With gravity the moves that keep the value, by the exact solver; else those that win at once,
    or block a win. Positions in which every move is good, or none, are left out.
    """
    game = item.game
    rng = np.random.default_rng(item.seed)
    blind = matches.random_player(game)
    states, moves = [], []
    while sum(map(len, states)) < item.count:
        state = game.init(rng, 4 * item.count)
        for _ in range(item.ply):
            state, _, done = game.step(state, blind(state, rng))
            state = state[done == 0]
        state = state[: item.count]
        if game.gravity:
            value = connect_four_values(state, game.rows, game.columns)
            good = value == value.max(1, keepdims=True)
        else:
            good = np.array([urgent_moves(game, one) for one in state], bool)
            good = good.reshape(len(state), game.num_actions)
        some = good.any(1) & (good != game.legal(state)).any(1)
        states.append(state[some])
        moves.append(good[some])
    return np.concatenate(states)[: item.count], np.concatenate(moves)[: item.count]


def position_items(config: Any, game: Game, seed: int) -> list[PositionsItem]:
    """The positions that a game's moves are judged in, in parts; [] where nothing judges it."""
    if not isinstance(game, InARow) or (game.gravity and (game.rows + 1) * game.columns > 63):
        return []
    ply = config.ply if game.gravity else game.num_actions // 2  # early, nothing is urgent
    parts = range(-(-config.positions // _PART))
    counts = [min(_PART, config.positions - part * _PART) for part in parts]
    return [
        PositionsItem(game, (seed, 8, part), count, ply)
        for part, count in zip(parts, counts, strict=True)
    ]


def judge_items(
    config: Any,
    study: Study,
    seeds: range,
    orders: Orders,
    mixed: Orders,
    solved: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, JudgeItem]:
    """Every player to judge, by name.

    Args:
        config: The experiment's settings.
        study: The trainings.
        seeds: Of the repetitions.
        orders: Permutations of the actions for the control.
        mixed: The same for MuZero itself, where a sham stands in its place.
        solved: What `judged_positions` made of `position_items`.
    """
    items: dict[str, JudgeItem] = {}

    def add(name: str, learner: str, simulations: int, kind: str = "solved", **more: Any) -> None:
        own = study.learners[learner]
        items[name] = JudgeItem(kind, own.game, own.settings, own.weights, simulations, **more)

    for seed in seeds:
        for n in config.tests:
            if "short" in config.parts:
                add(f"muzero-{seed} {n}", f"muzero-{seed}", n, permuted=mixed)
            if "long" in config.parts:
                add(f"long-{seed} {n}", f"long-{seed}", n, permuted=mixed)
                add(f"alphazero-{seed} {n}", f"alphazero-{seed}", n)
        test = config.simulations
        if "short" in config.parts:
            add(f"muzero-{seed} {test}", f"muzero-{seed}", test, permuted=mixed)
            add(f"muzero-{seed} permuted", f"muzero-{seed}", test, permuted=orders)
            add(f"control-{seed} {test}", f"control-{seed}", test)
            for mark in study.marks[f"muzero-{seed}"][:-1]:
                name = f"muzero-{seed}@{mark}"
                add(name, f"muzero-{seed}", test, permuted=mixed)
                items[name] = replace(items[name], weights=study.at(f"muzero-{seed}", mark))
        if "long" in config.parts:
            add(f"long-{seed} {test}", f"long-{seed}", test, permuted=mixed)
            add(f"long-{seed} permuted", f"long-{seed}", test, permuted=orders)
            add(f"alphazero-{seed} {test}", f"alphazero-{seed}", test)
            add(f"modelfree-{seed} 0", f"modelfree-{seed}", 0)
    for name in study.learners:
        if name.startswith("few-"):
            add(f"{name} {config.simulations}", name, config.simulations)
    if "cartpole" in config.parts:
        both = {"kind": "returns", "seed": (seeds[0], 7), "count": config.episodes}
        for n in sorted({0, *(n for n in config.tests if n <= 100), config.simulations}):
            add(f"cartpole {n}", "cartpole", n, **both)
        add("cartpole permuted", "cartpole", config.simulations, **both, permuted=((1, 0),))
        for mark in study.marks["cartpole"]:
            for player in ("0", f"{config.simulations}", "permuted"):
                own = items[f"cartpole {player}"]
                weights = study.at("cartpole", mark)
                items[f"cartpole@{mark} {player}"] = replace(own, weights=weights)
    if "connect4" in config.parts:
        states, good = (np.concatenate(part) for part in zip(*solved, strict=True))
        for n in (0, config.simulations, 4 * config.simulations):
            add(f"connect4 {n}", "connect4", n, kind="positions", positions=(states, good))
    return items


def quarters(moves: int) -> tuple[int, ...]:
    """The moves after which CartPole is judged on the way."""
    return moves // 4, 2 * (moves // 4), 3 * (moves // 4)


def on_the_way(results: dict[str, Any], moves: int, simulations: int) -> str:
    """In words: CartPole's returns before the policy has absorbed the search.

    Args:
        results: Of all players.
        moves: Of the whole training.
        simulations: Of the search.
    """
    rows = []
    for mark in quarters(moves):
        policy, search, permuted = (
            f"{results[f'cartpole@{mark} {player}']['return']:.1f}"
            for player in (0, simulations, "permuted")
        )
        rows.append(f"after {mark} steps {policy}, {search}, {permuted}")
    return f"policy, search, permuted: {'; '.join(rows)}"
