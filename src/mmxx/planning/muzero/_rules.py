"""The compiled rules of the games."""

from __future__ import annotations

import math

from numba import njit  # pyright: ignore[reportPrivateImportUsage]

_ANGLE = 12 * 2 * math.pi / 360
_MASS, _POLE_MASS, _HALF_POLE = 1.1, 0.1, 0.5
_MASS_LENGTH = _POLE_MASS * _HALF_POLE


@njit(cache=True, nogil=True)
def _run(board, cell, rows, columns, dr, dc):
    """Stones of the colour at ``cell`` beyond it in one direction."""
    r, c = cell // columns + dr, cell % columns + dc
    colour, count = board[cell], 0
    while 0 <= r < rows and 0 <= c < columns and board[r * columns + c] == colour:
        count += 1
        r, c = r + dr, c + dc
    return count


@njit(cache=True, nogil=True)
def wins_at(board, cell, rows, columns, length):
    """Whether the stone at ``cell`` stands in a line of ``length``."""
    for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
        line = 1 + _run(board, cell, rows, columns, dr, dc)
        if line + _run(board, cell, rows, columns, -dr, -dc) >= length:
            return True
    return False


@njit(cache=True, nogil=True)
def put_stones(state, action, reward, rows, columns, length, gravity):
    """One move in each game of ``state [B, cells + 2]``, in place; rewards [B] are set to 1."""
    cells = rows * columns
    for b in range(len(state)):
        board = state[b]
        if board[cells + 1]:
            continue
        cell = action[b]
        if gravity:
            cell += (rows - 1) * columns
            while cell >= 0 and board[cell] != 0:
                cell -= columns
        if cell < 0 or cell >= cells or board[cell] != 0:
            raise ValueError("action: a stone may not go there")
        board[cell] = board[cells]
        if wins_at(board, cell, rows, columns, length):
            reward[b] = 1
            board[cells + 1] = 1
        else:
            full = True
            for i in range(cells):
                if board[i] == 0:
                    full = False
                    break
            board[cells + 1] = full
        board[cells] = -board[cells]


@njit(cache=True, nogil=True)
def push_carts(state, action, reward, limit):
    """One Euler step of each cart of ``state [B, 6]``, in place; rewards [B]."""
    for b in range(len(state)):
        if state[b, 5] != 0:
            continue
        x, speed, angle, turn = state[b, 0], state[b, 1], state[b, 2], state[b, 3]
        force = 10.0 if action[b] == 1 else -10.0
        cos, sin = math.cos(angle), math.sin(angle)
        pushed = (force + _MASS_LENGTH * (turn * turn) * sin) / _MASS
        bend = (9.8 * sin - cos * pushed) / (
            _HALF_POLE * (4.0 / 3.0 - _POLE_MASS * (cos * cos) / _MASS)
        )
        gain = pushed - _MASS_LENGTH * bend * cos / _MASS
        state[b, 0] = x + 0.02 * speed
        state[b, 1] = speed + 0.02 * gain
        state[b, 2] = angle + 0.02 * turn
        state[b, 3] = turn + 0.02 * bend
        state[b, 4] += 1
        if abs(state[b, 0]) > 2.4 or abs(state[b, 2]) > _ANGLE:
            state[b, 5] = 1
        elif state[b, 4] >= limit:
            state[b, 5] = 2
        reward[b] = 1
