"""What the claims are measured on: trainings side by side, and judges as pure tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mmxx.planning.muzero import matches
from mmxx.planning.muzero.games import Game, InARow, tic_tac_toe
from mmxx.planning.muzero.judges import connect_four_values, judge, solved_tic_tac_toe
from mmxx.planning.muzero.learner import Item, Learner
from mmxx.planning.muzero.self_play import Planner, Weights, copied, network_from
from mmxx.planning.muzero.settings import Settings, recipe

Orders = tuple[tuple[int, ...], ...]
GENERATION = 300  # games of tic-tac-toe between two sets of weights
STEPS_PER_GAME = 1 / 6.4
_PART = 25  # positions of Connect Four in a task: some seconds to minutes for the solver


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


class Study:
    """Several trainings that advance generation by generation, their tasks in one map.

    Args:
        learners: By name.
        marks: For some of them the games after which their weights are set aside.

    Attributes:
        kept: Weights by (name, games), as ``"name@games"``.
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
            trained_on = learner.games
            learner.absorb(results[place : place + count])
            place += count
            if trained_on in self.marks.get(name, ()):
                self.kept[f"{name}@{trained_on}"] = copied(learner.weights)
            row = learner.history[-1]
            logged |= {f"{name}/{key}": row[key] for key in ("loss", "return") if key in row}
        return logged

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
        kind: "solved" (tic-tac-toe), "returns", or "connect4".
        game: The game.
        settings: Of the search.
        weights: The network's.
        simulations: 0 is the policy without search.
        permuted: Orders of the actions as g hears them, one for each repetition; () for none.
        seed: Draws starts.
        count: Episodes.
        solved: Positions of "connect4" and the values of their moves, from `solve_positions`.
    """

    kind: str
    game: Game
    settings: Settings
    weights: Weights
    simulations: int
    permuted: Orders = ()
    seed: tuple[int, ...] = (0,)
    count: int = 32
    solved: tuple[np.ndarray, np.ndarray] | None = None


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
    if item.kind == "connect4":
        assert item.solved is not None
        states, values = item.solved
        action = _moves(planner, states, item.simulations)
        chosen = np.take_along_axis(values, action[:, None], 1)[:, 0]
        legal = values > -2
        best = values == values.max(1, keepdims=True)
        chance = (best.sum(1) / legal.sum(1)).mean()
        return {"optimal": float((chosen == values.max(1)).mean()), "random": float(chance)}
    solved = solved_tic_tac_toe()
    action = _moves(planner, solved.states[solved.running], item.simulations)
    return vars(judge(solved, action))


def _moves(planner: Planner, states: np.ndarray, simulations: int) -> np.ndarray:
    game = planner.game
    return matches.greedy_moves(
        planner, game.observe(states), game.legal(states), simulations, state=states
    )


@dataclass(frozen=True)
class PositionsItem:
    """Positions of Connect Four to draw and to solve: a task.

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


def solve_positions(item: PositionsItem) -> tuple[np.ndarray, np.ndarray]:
    """Running positions after random play in which not every move is best, and their values."""
    game = item.game
    rng = np.random.default_rng(item.seed)
    blind = matches.random_player(game)
    states, values = [], []
    while sum(map(len, states)) < item.count:
        state = game.init(rng, 4 * item.count)
        for _ in range(item.ply):
            state, _, done = game.step(state, blind(state, rng))
            state = state[done == 0]
        state = state[: item.count]
        value = connect_four_values(state, game.rows, game.columns)
        open_ = (value.max(1) > np.where(value > -2, value, 2).min(1)).nonzero()[0]
        states.append(state[open_])
        values.append(value[open_])
    return np.concatenate(states)[: item.count], np.concatenate(values)[: item.count]


def position_items(config: Any, study: Study, seed: int) -> list[PositionsItem]:
    """The positions that the solver judges Connect Four on, in parts; [] where it is not asked."""
    if "connect4" not in config.parts:
        return []
    game = study.learners["connect4"].game
    assert isinstance(game, InARow)
    parts = range(-(-config.positions // _PART))
    counts = [min(_PART, config.positions - part * _PART) for part in parts]
    return [
        PositionsItem(game, (seed, 8, part), count, config.ply)
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
        solved: What became of `position_items`.
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
                items[name] = replace(items[name], weights=study.kept[name])
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
        for n in dict.fromkeys((*[n for n in config.tests if n <= 100], config.simulations)):
            add(f"cartpole {n}", "cartpole", n, **both)
        add("cartpole permuted", "cartpole", config.simulations, **both, permuted=((1, 0),))
    if "connect4" in config.parts:
        states, values = (np.concatenate(part) for part in zip(*solved, strict=True))
        for n in (0, config.simulations, 4 * config.simulations):
            add(f"connect4 {n}", "connect4", n, kind="connect4", solved=(states, values))
    return items


# -- what the model knows ----------------------------------------------------------------------


def model_errors(planner: Planner, depth: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Mean errors of reward and value along random play of tic-tac-toe, by depth of the unroll.

    Args:
        planner: Network and settings.
        depth: Steps.
        rng: Draws positions and moves.

    Returns:
        For each depth the mean |r - true reward|, and |v - minimax value| of the positions that
        are not over, and of those that are (where the true value is 0).
    """
    solved, game = solved_tic_tac_toe(), tic_tac_toe()
    place = rng.choice(solved.running, 1000)
    net = planner.net
    rows = []
    told = true = np.zeros(len(place))
    with torch.inference_mode():
        hidden, value, _ = net.initial_inference(
            torch.from_numpy(game.observe(solved.states[place]))
        )
        for step in range(depth + 1):
            over = solved.over[place]
            off = np.abs(value.numpy() - np.where(over, 0, solved.value[place]))
            row = {"depth": float(step), "value": _mean(off[~over])}
            row["value after the end"] = _mean(off[over])
            row["reward"] = float(np.abs(told - true).mean())
            rows.append(row)
            legal = solved.children[place] >= 0
            weights = rng.random(legal.shape) * np.where(legal.any(1, keepdims=True), legal, 1)
            action = weights.argmax(1)
            after = np.where(over, place, solved.children[place, action])
            # the mover wins where the one to move afterwards has lost
            true = np.where(~over & solved.over[after], -solved.value[after], 0)
            hidden, reward, value, _ = net.recurrent_inference(hidden, torch.from_numpy(action))
            told, place = reward.numpy(), after
    return rows


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def tree_facts(planner: Planner, rng: np.random.Generator, count: int = 64) -> dict[str, float]:
    """Depth of the trees of some positions of tic-tac-toe, and what they spend on what cannot be.

    Args:
        planner: Network and settings.
        rng: Draws the positions.
        count: Positions.
    """
    solved, game = solved_tic_tac_toe(), planner.game
    place = rng.choice(solved.running, count)
    state = solved.states[place]
    tree = planner.search(game.observe(state), game.legal(state), 0, state=state).tree
    impossible = total = 0
    for b in range(count):
        at = {0: int(place[b])}
        for node in range(1, tree.node_visits.shape[1]):
            above = at[int(tree.parents[b, node])]
            below = (
                -1 if above < 0 else int(solved.children[above, tree.action_from_parent[b, node]])
            )
            at[node] = below
            total += 1
            impossible += below < 0
    return {
        "mean depth": float(tree.depths().max(1).mean()),
        "nodes past the rules": impossible / total,
    }
