"""Who judges play without noise: tic-tac-toe solved, an exact solver for Connect Four."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mmxx.planning.muzero import _connect, _rules
from mmxx.planning.muzero.games import InARow, tic_tac_toe

# Value of each first move on 6 × 7 for the player who makes it: Allis, A Knowledge-based Approach
# of Connect-Four (1988), and Allen in the same year: only the middle column wins.
FIRST_MOVES = (-1, -1, 0, 1, 0, -1, -1)


@dataclass(frozen=True)
class Solved:
    """Every position of a small game with its value.

    Attributes:
        states: int8 [P, cells + 2], the empty board first, every position before what follows.
        children: Position after each action, int [P, A]; -1 where it is not legal.
        value: For the player to move, [P]: -1, 0 or 1.
        over: Whether the game has ended there, [P].
        best: Which actions keep the value, bool [P, A].
    """

    states: np.ndarray
    children: np.ndarray
    value: np.ndarray
    over: np.ndarray
    best: np.ndarray

    @property
    def running(self) -> np.ndarray:
        """The positions in which somebody moves, [R]."""
        return np.flatnonzero(~self.over)


def solve(game: InARow) -> Solved:
    """All reachable positions and their values.

    Args:
        game: A board so small that its positions fit into memory.

    Example:
        >>> solved = solve(tic_tac_toe())
        >>> len(solved.states), len(solved.running), int(solved.value[0])
        (5478, 4520, 0)
    """
    layers = [game.init(np.random.default_rng(0), 1)]
    links, ends, total = [], [np.zeros(1)], 1
    while len(layers[-1]):
        state = layers[-1]
        legal = game.legal(state)
        row, action = np.nonzero(legal)
        new, reward, _ = game.step(state[row], action)
        keys = new.view(f"S{new.shape[1]}") if len(new) else new[:, 0]  # equal boards in a layer
        _, first, inverse = np.unique(keys.ravel(), return_index=True, return_inverse=True)
        child = np.full(legal.shape, -1)
        child[row, action] = total + inverse
        links.append(child)
        layers.append(new[first])
        ends.append(-reward[first].astype(np.float64))  # who is to move has lost
        total += len(first)
    states, children, value = np.concatenate(layers), np.concatenate(links), np.concatenate(ends)
    best = np.zeros(children.shape, bool)
    for p in range(len(children) - 1, -1, -1):
        legal = children[p] >= 0
        if legal.any():
            q = np.where(legal, -value[children[p]], -2.0)
            value[p] = q.max()
            best[p] = q == value[p]
    return Solved(states, children, value, states[:, -1] != 0, best)


@cache
def solved_tic_tac_toe() -> Solved:
    """Tic-tac-toe: 5,478 positions, 4,520 of them running."""
    return solve(tic_tac_toe())


@dataclass(frozen=True)
class Judgement:
    """How well a deterministic player plays a solved game, without sampling.

    Attributes:
        optimal: Share of the running positions in which its move keeps the value.
        first: Worst result when it moves first, against any play: -1, 0 or 1.
        second: Worst result when it moves second.
        lost_to_perfect: Probability to lose against a player who draws among the best moves, mean
            of both colours.
        lost_to_random: The same against one who draws among legal moves.
    """

    optimal: float
    first: float
    second: float
    lost_to_perfect: float
    lost_to_random: float


def judge(solved: Solved, action: np.ndarray) -> Judgement:
    """Judge one move for each running position.

    Args:
        solved: The game.
        action: The player's move in each of ``solved.running``, [R].

    Raises:
        ValueError: A move is not legal.
    """
    running = solved.running
    if action.shape != running.shape:
        raise ValueError(f"action must be [{len(running)}], got {list(action.shape)}")
    chosen = np.zeros(len(solved.states), np.int64)
    chosen[running] = action
    if (solved.children[running, action] < 0).any():
        row = int((solved.children[running, action] < 0).argmax())
        raise ValueError(f"action {int(action[row])} of position {int(running[row])} is not legal")
    legal = solved.children >= 0
    worst = _play_out(solved, chosen, None)
    perfect, random = (
        sum(_play_out(solved, chosen, mask / np.maximum(mask.sum(1, keepdims=True), 1))) / 2
        for mask in (solved.best & legal, legal)
    )
    return Judgement(float(solved.best[running, action].mean()), *worst, perfect, random)


def _play_out(solved: Solved, chosen: np.ndarray, rival: np.ndarray | None) -> tuple[float, float]:
    """What comes of playing ``chosen`` first and second.

    Against a rival of probabilities [P, A] the probability to lose; against none the worst value.
    """
    mover, stones = solved.states[:, -2], (solved.states[:, :-2] != 0).sum(1)
    results = []
    for colour in (1, -1):
        own = np.where(mover == colour, solved.value, -solved.value)
        out = own if rival is None else (own < 0).astype(np.float64)  # right where it is over
        for count in range(int(stones.max()) - 1, -1, -1):
            place = np.flatnonzero((stones == count) & ~solved.over)
            mine = mover[place] == colour
            ours, theirs = place[mine], place[~mine]
            out[ours] = out[solved.children[ours, chosen[ours]]]
            below, legal = out[solved.children[theirs]], solved.children[theirs] >= 0
            if rival is None:
                out[theirs] = np.where(legal, below, 2.0).min(1, initial=2.0)
            else:
                out[theirs] = (rival[theirs] * below).sum(1)
        results.append(float(out[0]))
    return results[0], results[1]


# -- Connect Four ------------------------------------------------------------------------------


def connect_four_values(states: np.ndarray, rows: int = 6, columns: int = 7) -> np.ndarray:
    """The exact value of every move: alpha-beta over bitboards with a table of positions.

    From ply 14 on all moves of a position take some hundredths of a second, at ply 12 some tenths;
    near the empty board it may take hours, but for the empty board itself, whose values are known.

    Args:
        states: Running games of `connect_four`, int8 [B, rows·columns + 2].
        rows: Of the board.
        columns: Of the board.

    Returns:
        int8 [B, columns]: 1 wins, 0 draws, -1 loses, -2 where the column is full.

    Raises:
        ValueError: The board has more than 63 bits, or the states are of another board.

    Source: The empty board by Allis (1988). Negamax with the bitboards of John Tromp's Fhourstones;
        that no move gives the other a win, and that those which threaten most come first, are ideas
        of Pascal Pons' Connect 4 solver.

    Example:
        >>> game = InARow(4, 4, 4, gravity=True)
        >>> connect_four_values(game.init(np.random.default_rng(0), 1), 4, 4).tolist()
        [[0, 0, 0, 0]]
    """
    if (rows + 1) * columns > 63:
        raise ValueError(f"a board needs (rows + 1) × columns ≤ 63, got {rows} × {columns}")
    if states.ndim != 2 or states.shape[1] != rows * columns + 2:
        raise ValueError(f"states must be [B, {rows * columns + 2}], got {list(states.shape)}")
    found = np.empty((len(states), columns), np.int8)
    fresh = np.zeros(len(states), bool)
    if (rows, columns) == (6, 7):
        fresh = ~states[:, :-2].any(1)
        found[fresh] = FIRST_MOVES
    rest = np.empty((int((~fresh).sum()), columns), np.int8)
    order = np.array(sorted(range(columns), key=lambda c: abs(2 * c - columns + 1)))
    _connect.solve_all(states[~fresh], rows, columns, order, rest)
    found[~fresh] = rest
    return found


# -- Gomoku ------------------------------------------------------------------------------------


def urgent_moves(game: InARow, state: np.ndarray) -> np.ndarray:
    """The moves of one position that win at once, or else block the other's win at once.

    Args:
        game: Any game without gravity.
        state: int8 [cells + 2].

    Returns:
        bool [A]; all False where nothing is urgent.

    Example:
        >>> game = tic_tac_toe()
        >>> board = np.array([1, 1, 0, -1, -1, 0, 0, 0, 0, 1, 0], np.int8)
        >>> np.flatnonzero(urgent_moves(game, board)).tolist()
        [2]
    """
    cells = game.rows * game.columns
    for colour in (state[-2], -state[-2]):
        found = np.zeros(cells, bool)
        for cell in np.flatnonzero(state[:cells] == 0):
            board = state.copy()
            board[cell] = colour
            found[cell] = _rules.wins_at(board, cell, game.rows, game.columns, game.length)
        if found.any():
            return found
    return np.zeros(cells, bool)
