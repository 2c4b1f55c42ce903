"""Searches with the true rules against solved games."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from mmxx.planning.muzero import (
    RecurrentOutput,
    RootOutput,
    gumbel_muzero_policy,
    muzero_policy,
    rules_model,
    tic_tac_toe,
)
from mmxx.planning.muzero.judges import judge, solved_tic_tac_toe


def blank(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A uniform prior, and value 0."""
    return np.zeros(len(seen), np.float32), np.zeros((len(seen), 9), np.float32)


def positions(every: int = 1) -> tuple[Any, np.ndarray, RootOutput, np.ndarray]:
    solved, game = solved_tic_tac_toe(), tic_tac_toe()
    state = solved.states[solved.running[::every]]
    value, logits = blank(state)
    return solved, state, RootOutput(logits, value, state), ~game.legal(state)


@pytest.mark.parametrize(
    ("simulations", "every", "share", "off"), [(25, 1, 0.92, 0.26), (100, 3, 0.97, 0.17)]
)
def test_the_true_rules_alone_play_well(
    simulations: int, every: int, share: float, off: float
) -> None:
    solved, _, root, invalid = positions(every)
    found = muzero_policy(
        root, rules_model(tic_tac_toe(), blank), num_simulations=simulations,
        invalid_actions=invalid, dirichlet_fraction=0.0, temperature=0.0,
    )  # fmt: skip
    place = solved.running[::every]
    assert solved.best[place, found.action].mean() >= share
    value = found.tree.node_values[:, 0]
    assert np.abs(value - solved.value[place]).mean() < off


@pytest.mark.slow
def test_the_true_rules_alone_play_nearly_perfectly_with_400_simulations() -> None:
    solved, _, root, invalid = positions()
    for norm in ("tree", (-1.0, 1.0)):
        found = muzero_policy(
            root, rules_model(tic_tac_toe(), blank), num_simulations=400, q_norm=norm,
            invalid_actions=invalid, dirichlet_fraction=0.0, temperature=0.0,
        )  # fmt: skip
        assert judge(solved, found.action).optimal >= 0.99


def test_gumbels_search_finds_wins_in_one() -> None:
    _, state, root, invalid = positions()
    found = gumbel_muzero_policy(
        root, rules_model(tic_tac_toe(), blank), num_simulations=16, invalid_actions=invalid,
        gumbel_scale=0.0,
    )  # fmt: skip
    game = tic_tac_toe()
    wins = np.zeros((len(state), 9), bool)
    for action in range(9):
        rows = ~invalid[:, action]
        wins[rows, action] = game.step(state[rows], np.full(rows.sum(), action))[1] > 0
    some = wins.any(1)
    assert some.sum() > 1000
    assert wins[some, found.action[some]].all()


@cache
def nim(heap: int) -> int:
    """1 where who moves wins: one, two or three are taken, and the last one wins."""
    return max((-nim(heap - take) if heap > take else 1) for take in (1, 2, 3) if take <= heap)


def test_nim_is_played_as_brute_force_says() -> None:
    def take(action: Any, heap: Any) -> tuple[RecurrentOutput, Any]:
        left = heap - action - 1
        over = left <= 0
        logits = np.where(np.arange(3) < np.maximum(left, 1)[:, None], 0.0, -np.inf)
        reward = np.where(heap > 0, np.where(left == 0, 1.0, 0.0), 0.0)
        return RecurrentOutput(reward, np.where(over, 0.0, -1.0), 0.0 * left, logits), left

    heaps = np.array([n for n in range(1, 12) if n % 4])
    invalid = np.arange(3) >= heaps[:, None]
    root = RootOutput(np.zeros((len(heaps), 3)), np.zeros(len(heaps)), heaps)
    options: Any = {"num_simulations": 400, "invalid_actions": invalid}
    found = muzero_policy(root, take, dirichlet_fraction=0.0, temperature=0.0, **options)
    assert np.array_equal(found.action + 1, heaps % 4)
    value = found.tree.node_values[:, 0]
    assert np.array_equal(np.sign(value), [nim(int(n)) for n in heaps])


def test_a_player_may_move_twice() -> None:
    """Player 0 moves twice and then player 1 once; who moves decides the sign, not the depth."""

    def step(action: Any, depth: Any) -> tuple[RecurrentOutput, Any]:
        # the second move pays the mover, the third costs player 0 what player 1 gains
        reward = np.where(depth == 1, 1.0 * action, np.where(depth == 2, 2.0 * action, 0.0))
        discount = np.where(depth == 0, 1.0, np.where(depth == 1, -1.0, 0.0))
        return RecurrentOutput(reward, discount, 0.0 * depth, np.zeros((len(depth), 2))), depth + 1

    root = RootOutput(np.zeros((1, 2)), np.zeros(1), np.zeros(1, int))
    tree = muzero_policy(root, step, num_simulations=800, dirichlet_fraction=0.0).tree
    line = tree.principal_variation()[:3]
    assert line[1:] == [1, 1]  # each takes what is best for the one who moves
    assert abs(tree.node_values[0, 0] - (1 - 2)) < 0.1
