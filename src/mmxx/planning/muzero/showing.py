"""What a report shows of an agent: a search, a game, tests, what the model knows, its file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmxx.planning.muzero import matches
from mmxx.planning.muzero.agent import MuZero
from mmxx.planning.muzero.arms import good_moves
from mmxx.planning.muzero.games import InARow, tic_tac_toe
from mmxx.planning.muzero.judges import solved_tic_tac_toe
from mmxx.planning.muzero.learner import Learner
from mmxx.planning.muzero.one_at_a_time import OneAtATime
from mmxx.planning.muzero.self_play import Planner

BOARD = "X in the corners 1 and 9, O in the middle: O moves"
_OPENING = (0, 4, 8)


def planner_of(learner: Learner) -> Planner:
    """The newest network of a training, with its search."""
    return Planner(learner.game, learner.settings, learner.network())


def agent_bytes(learner: Learner, name: str) -> bytes:
    """A trained agent as the file that `MuZero.load` reads.

    Args:
        learner: The training.
        name: The game's name.
    """
    agent = MuZero.__new__(MuZero)
    agent.name, agent.game, agent.settings = name, learner.game, learner.settings
    agent.learner, agent.random_state = learner, learner.seed
    return agent.to_bytes()


def main_lines(planner: Planner, breadth: int = 3, depth: int = 3) -> list[dict[str, Any]]:
    """The most visited children to a depth, with places for a drawing.

    Args:
        planner: Of tic-tac-toe.
        breadth: Children of the root; one fewer on each level below.
        depth: Levels.

    Returns:
        Nodes with x, y, label, share of the visits, and the index of the node above.
    """
    game = planner.game
    state = game.init(np.random.default_rng(0), 1)
    for action in _OPENING:
        state, _, _ = game.step(state, np.array([action]))
    tree = planner.search(game.observe(state), game.legal(state), 0, state=state).tree.to_dict(0)
    found: list[dict[str, Any]] = []
    heights = [0.0]

    def walk(
        node: dict[str, Any], level: int, above: int | None, label: str, share: float
    ) -> float:
        place = len(found)
        found.append({"x": level, "above": above, "label": label, "share": share})
        ranked = sorted(node["children"].items(), key=lambda pair: -pair[1]["N"])
        shown = [
            walk(child, level + 1, place,
                 f"{action + 1}   N {child['N']}\nP {child['P']:.2f}  Q {child['Q']:+.2f}",
                 child["N"] / max(tree["N"], 1))
            for action, child in ranked[: max(1, breadth - level)]
            if level < depth
        ]  # fmt: skip
        if not shown:
            heights[0] -= 1
            shown = [heights[0]]
        found[place]["y"] = (shown[0] + shown[-1]) / 2
        return found[place]["y"]

    walk(tree, 0, None, f"N {tree['N']}\nV {tree['V']:+.2f}", 1.0)
    return found


def draw(game: Any, state: np.ndarray, *, numbered: bool = False) -> str:
    """One position as text: X and O on the boards, what an object says of itself, the observation.

    Args:
        game: The game.
        state: One row.
        numbered: Whether a board says what number a move has.
    """
    if isinstance(game, OneAtATime):
        return game.text(state)
    if not isinstance(game, InARow):
        return np.array2string(game.observe(state)[0], precision=3)
    cells = ["O.X"[int(one) + 1] for one in state[0, :-2]]
    if numbered and not game.gravity:
        cells = [str(i + 1) if one == "." else one for i, one in enumerate(cells)]
    if numbered and game.gravity:
        cells += map(str, range(1, game.columns + 1))
    width = max(map(len, cells))
    lines = (cells[i : i + game.columns] for i in range(0, len(cells), game.columns))
    return "\n".join(" ".join(cell.rjust(width) for cell in line) for line in lines)


def replay(planner: Planner) -> str:
    """A game of the agent against itself, with the value it sees and its most visited moves.

    Args:
        planner: Network and search of a game that can be drawn.
    """
    game = planner.game
    state = game.init(np.random.default_rng(0), 1)
    lines, done = [draw(game, state)], np.zeros(1)
    while not done[0]:
        found = planner.search(game.observe(state), game.legal(state), 0, state=state)
        summary = found.tree.summary()
        best = np.argsort(-summary.visit_counts[0], kind="stable")[:3]
        seen = ", ".join(f"{a + 1}: {summary.visit_counts[0, a]} visits" for a in best)
        lines.append(f"\nvalue {summary.value[0]:+.2f}; {seen}")
        state, _, done = game.step(state, np.asarray(found.action))
        lines.append(draw(game, state))
    return "\n".join(lines) + "\n"


def training_rows(learner: Learner) -> list[dict[str, Any]]:
    """Counts and losses of every generation; "" where it has none.

    Args:
        learner: The training.
    """
    told = ("loss", "policy_loss", "value_loss", "reward_loss", "moves_per_game", "visit_entropy",
            "return")  # fmt: skip
    return [
        {"games": int(row["games"]), "moves": int(row["moves"]), "steps": int(row["step"])}
        | {k.replace("_", " "): float(f"{row[k]:.4g}") if k in row else "" for k in told}
        for row in learner.history
    ]


def test_rows(
    learner: Learner,
    tests: list[int],
    episodes: int,
    seed: int,
    judged: list[tuple[np.ndarray, np.ndarray]],
) -> list[dict[str, Any]]:
    """Returns, or results against a random player, for several budgets.

    Args:
        learner: The training.
        tests: Simulations; 0 is the policy alone.
        episodes: Of each.
        seed: Draws the starts.
        judged: Positions and their good moves, in parts; [] for none.
    """
    game, rows = learner.game, []
    for n in tests:
        player = matches.planner_player(planner_of(learner), n)
        rng = np.random.default_rng([seed, 9])
        if game.num_players == 2:
            score = matches.play_match(game, player, matches.random_player(game), episodes, rng)
        else:
            score = matches.returns(game, player, episodes, rng, learner.settings.max_moves)
        low, high = score.interval
        row = {"simulations": n, "mean": score.mean, "from": low, "to": high}
        if judged:
            states, good = (np.concatenate(part) for part in zip(*judged, strict=True))
            row["good moves"], row["of random play"] = good_moves(
                planner_of(learner), states, good, n
            )
        rows.append(row)
    return rows


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
