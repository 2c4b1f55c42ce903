"""Rules, judges, and environments of others."""

from __future__ import annotations

import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from mmxx.planning.muzero import (
    CartPole,
    Catch,
    Game,
    GridWorld,
    InARow,
    OneAtATime,
    Stacked,
    connect_four,
    connect_four_values,
    from_gymnasium,
    from_open_spiel,
    gomoku,
    make_game,
    tic_tac_toe,
)
from mmxx.planning.muzero.games import CUT, ENDED, check_game
from mmxx.planning.muzero.judges import judge, solved_tic_tac_toe, urgent_moves
from mmxx.planning.muzero.showing import draw


def play(game: Game, actions: list[int]) -> tuple[Any, np.ndarray, np.ndarray]:
    state = game.init(np.random.default_rng(0), 1)
    reward, done = np.zeros(1), np.zeros(1)
    for action in actions:
        state, reward, done = game.step(state, np.array([action]))
    return state, reward, done


def test_tic_tac_toe_is_the_known_game() -> None:
    solved = solved_tic_tac_toe()
    running = solved.running
    assert (len(solved.states), len(running), solved.value[0]) == (5478, 4520, 0)
    legal = solved.children[running] >= 0
    best = solved.best[running]
    assert round(best.sum(1).mean(), 2) == 1.96
    assert (best == legal).all(1).sum() == 1329
    assert round(float((best.sum(1) / legal.sum(1)).mean()), 3) == 0.580


def test_a_perfect_player_is_judged_perfect_and_a_bad_one_is_not() -> None:
    solved = solved_tic_tac_toe()
    best = judge(solved, solved.best[solved.running].argmax(1))
    assert (best.optimal, best.first, best.second) == (1, 0, 0)
    assert (best.lost_to_perfect, best.lost_to_random) == (0, 0)
    legal = solved.children[solved.running] >= 0
    bad = judge(solved, legal.argmax(1))
    assert (bad.first, bad.second) == (-1, -1)
    assert 0.2 < bad.lost_to_random < 0.5
    assert bad.lost_to_perfect > 0.9
    with pytest.raises(ValueError, match="is not legal"):
        judge(solved, np.zeros(len(solved.running), int))
    with pytest.raises(ValueError, match=r"action must be \[4520\]"):
        judge(solved, np.zeros(3, int))


def test_rewards_are_the_movers() -> None:
    _, reward, done = play(tic_tac_toe(), [0, 3, 1, 4, 8, 5])  # the second player's row
    assert (reward[0], done[0]) == (1, ENDED)
    state, reward, done = play(tic_tac_toe(), [0, 1, 2, 4, 3, 5, 7, 6, 8])  # a draw
    assert (reward[0], done[0]) == (0, ENDED)
    assert not tic_tac_toe().legal(state).any()
    seen = tic_tac_toe().observe(play(tic_tac_toe(), [0])[0])
    assert seen[0, 0].sum() == 0  # the mover has no stone
    assert seen[0, 1, 0, 0] == 1


def test_a_win_on_the_last_move_is_no_draw() -> None:
    _, reward, done = play(tic_tac_toe(), [1, 0, 2, 3, 4, 5, 8, 7, 6])  # 2, 4, 6 at move nine
    assert (reward[0], done[0]) == (1, ENDED)


def test_an_ended_game_stays_as_it_is_and_stones_do_not_overlap() -> None:
    game = tic_tac_toe()
    state, _, _ = play(game, [0, 3, 1, 4, 2])
    after, reward, done = game.step(state, np.array([0]))
    assert np.array_equal(after, state)
    assert (reward[0], done[0]) == (0, ENDED)
    with pytest.raises(ValueError, match="may not go there"):
        play(game, [0, 0])


def test_connect_four_has_the_known_numbers_of_positions() -> None:
    """Sequences of moves: 7, 49, 343 ...; games that ended are not continued."""
    game, counts = connect_four(), []
    state = game.init(np.random.default_rng(0), 1)
    for _ in range(6):
        row, action = np.nonzero(game.legal(state))
        state, _, done = game.step(state[row], action)
        counts.append(len(state))
        state = state[done == 0]
    assert counts == [7, 49, 343, 2401, 16807, 117649]
    _, reward, done = play(game, [0, 1, 0, 1, 0, 1, 0])
    assert (reward[0], done[0]) == (1, ENDED)
    _, reward, _ = play(game, [0, 1, 1, 2, 2, 3, 2, 3, 3, 6, 3])  # a diagonal
    assert reward[0] == 1
    full, _, _ = play(game, [3] * 6)
    assert not game.legal(full)[0, 3]


def test_five_in_a_row_and_what_is_urgent() -> None:
    game = gomoku(7)
    _, reward, _ = play(game, [0, 7, 1, 8, 2, 9, 3, 10, 4])
    assert reward[0] == 1
    state, _, _ = play(game, [0, 7, 1, 8, 2, 9, 3, 14])
    assert np.flatnonzero(urgent_moves(game, state[0])).tolist() == [4]
    state, _, _ = play(game, [0, 7, 1, 8, 2, 9, 3])
    assert np.flatnonzero(urgent_moves(game, state[0])).tolist() == [4]  # a block
    assert not urgent_moves(game, play(game, [0])[0][0]).any()


def test_the_solver_is_plain_alpha_beta() -> None:
    game = InARow(4, 5, 4, gravity=True)

    @cache
    def value(key: bytes) -> int:
        state = np.frombuffer(key, np.int8)[None]
        best = -1
        for action in np.flatnonzero(game.legal(state)[0]):
            new, reward, done = game.step(state, np.array([action]))
            result = int(reward[0]) if done[0] else -value(new[0].tobytes())
            best = max(best, result)
            if best == 1:
                break
        return best

    rng = np.random.default_rng(0)
    state = game.init(rng, 400)
    for _ in range(8):
        legal = game.legal(state)
        state, _, done = game.step(state, (rng.random(legal.shape) * legal).argmax(1))
        state = state[done == 0]
    state = np.unique(state, axis=0)[:40]
    found = connect_four_values(state, 4, 5)
    assert (found.max(1) == [value(row.tobytes()) for row in state]).all()
    assert len(np.unique(found)) == 4
    assert ((found == -2) == ~game.legal(state)).all()
    empty = connect_four().init(np.random.default_rng(0), 1)
    assert connect_four_values(empty).tolist() == [[-1, -1, 0, 1, 0, -1, -1]]
    with pytest.raises(ValueError, match="columns"):
        connect_four_values(state, 8, 8)
    with pytest.raises(ValueError, match="states must be"):
        connect_four_values(state)


def test_catch_and_the_grid_keep_their_rules() -> None:
    game, rng = Catch(), np.random.default_rng(0)
    state = game.init(rng, 50)
    for _ in range(9):
        goal = np.sign(state[:, 1] - state[:, 2]) + 1
        state, reward, done = game.step(state, goal)
    assert (done == ENDED).all()
    assert (reward == 1).all()
    grid = GridWorld(3)
    state = grid.init(rng, 50)
    assert (state[:, 0] != state[:, 1]).all()
    corner = np.array([[0, 8, 0, 0]], np.int16)
    for action in (1, 1, 3, 3):
        corner, reward, done = grid.step(corner, np.array([action]))
    assert (reward[0], done[0]) == (1, ENDED)
    stuck = np.array([[0, 8, 0, 0]], np.int16)
    for _ in range(12):
        stuck, reward, done = grid.step(stuck, np.array([0]))
    assert (reward[0], done[0]) == (0, CUT)


def test_the_cart_is_gymnasiums() -> None:
    game = CartPole()
    env = gymnasium.make("CartPole-v1").unwrapped
    rng = np.random.default_rng(0)
    for seed in range(5):
        env.reset(seed=seed)
        state = np.zeros((1, 6))
        state[0, :4] = env.state  # type: ignore[attr-defined]
        done = np.zeros(1)
        while not done[0]:
            action = int(rng.integers(2))
            state, reward, done = game.step(state, np.array([action]))
            _, _, terminated, _, _ = env.step(action)
            np.testing.assert_allclose(state[0, :4], env.state, atol=1e-12)  # type: ignore[attr-defined]
            assert terminated == (done[0] == ENDED)
            assert reward[0] == 1
    balanced = np.zeros((1, 6))
    balanced[0, 4] = 499
    assert game.step(balanced, np.array([1]))[2][0] == CUT


# -- of others ---------------------------------------------------------------------------------


def test_gymnasium_environments_are_games() -> None:
    lake = from_gymnasium("FrozenLake-v1")
    assert (lake.num_actions, lake.observation_shape, lake.num_players) == (4, (16,), 1)
    state = lake.init(np.random.default_rng(0), 3)
    assert lake.observe(state).sum(1).tolist() == [1, 1, 1]
    pole = from_gymnasium("CartPole-v1")
    state = pole.init(np.random.default_rng(0), 2)
    first = pole.observe(state)
    assert first.shape == (2, 4)
    assert not np.array_equal(first[0], first[1])
    ends = np.zeros(2)
    while not ends.all():
        state, _, ends = pole.step(state[ends == 0], np.zeros((ends == 0).sum(), int))
    assert (ends == ENDED).all()
    assert np.array_equal(pole.observe(pole.init(np.random.default_rng(0), 2)), first)
    sure = from_gymnasium(gymnasium.make("FrozenLake-v1", is_slippery=False))
    state, _, _ = sure.step(sure.init(np.random.default_rng(0), 1), np.array([1]))
    assert sure.observe(state)[0].argmax() == 4  # down, and nowhere else


class Taxi(gymnasium.Env[Any, Any]):
    """An environment with a mask, a time limit and actions that start at 1."""

    action_space = gymnasium.spaces.Discrete(3, start=1)
    observation_space = gymnasium.spaces.MultiBinary(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(2, np.int8), {"action_mask": np.array([1, 0, 1], np.int8)}

    def step(self, action: int) -> Any:
        mask = {"action_mask": np.array([0, 1, 0], np.int8)}
        return np.zeros(2, np.int8), float(action), False, True, mask


class Continuous(Taxi):
    action_space: Any = gymnasium.spaces.Box(-1, 1, (1,))


class Texts(Taxi):
    observation_space: Any = gymnasium.spaces.Text(3)


class Seedless(Taxi):
    def reset(self) -> Any:  # type: ignore[override]
        return np.ones(2, np.int8), {}


def test_masks_limits_and_starts_are_those_of_the_environment() -> None:
    game = from_gymnasium(Taxi)
    state = game.init(np.random.default_rng(0), 1)
    assert game.legal(state).tolist() == [[True, False, True]]
    with pytest.raises(ValueError, match="action 1 of row 0 is not legal"):
        game.step(state, np.array([1]))
    state, reward, done = game.step(state, np.array([2]))
    assert (reward[0], done[0]) == (3, CUT)
    assert game.legal(state).tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (Continuous, "actions must be Discrete, got Box"),
        (Texts, "observations must be Box, Discrete or MultiBinary, got Text"),
        (Seedless, "cannot be reset with a seed"),
        (Taxi(), "was not made by gymnasium.make: hand in a function"),
        ("NoSuchGame-v9", "gymnasium makes no environment 'NoSuchGame-v9'"),
    ],
)
def test_environments_that_do_not_fit_are_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        from_gymnasium(make)


class Pile:
    """Nim as an object of one's own: one or two are taken from seven, the last wins."""

    def reset(self, seed: int) -> None:
        self.left, self.mover = 7, 0

    def legal_actions(self) -> list[int]:
        return [0, 1] if self.left > 1 else [0]

    def step(self, action: int) -> tuple[float, bool]:
        self.left -= action + 1
        self.mover = 1 - self.mover
        return float(self.left == 0), self.left == 0

    def observation(self) -> np.ndarray:
        return np.eye(8)[self.left]

    def to_play(self) -> int:
        return self.mover


def pile() -> OneAtATime:
    return OneAtATime(Pile, num_actions=2, num_players=2, observation_shape=(8,))


def test_objects_of_ones_own_are_games() -> None:
    game = pile()
    state = game.init(np.random.default_rng(0), 2)
    for _ in range(3):
        state, reward, done = game.step(state, np.array([1, 0]))
    assert game.legal(state).tolist() == [[True, False], [True, True]]
    assert game.to_play(state).tolist() == [1, 1]
    state, reward, done = game.step(state, np.array([0, 1]))
    assert (reward.tolist(), done.tolist()) == ([1, 0], [1, 0])
    wrong = OneAtATime(Pile, num_actions=2, num_players=2, observation_shape=(3,))
    with pytest.raises(ValueError, match=r"must have the shape \(3,\), got \(8,\)"):
        wrong.observe(wrong.init(np.random.default_rng(0), 1))


class Taking:
    """What OpenSpiel shows of a game: here one of two heaps of one, and who takes the last wins."""

    def __init__(self, **kind: str) -> None:
        usual = {"dynamics": "SEQUENTIAL", "chance_mode": "DETERMINISTIC"}
        usual |= {"information": "PERFECT_INFORMATION", "utility": "ZERO_SUM"}
        self.kind = {**usual, **kind}
        self.taken: list[int] = []

    def get_type(self) -> Any:
        parts = {name: SimpleNamespace(name=value) for name, value in self.kind.items()}
        return SimpleNamespace(provides_observation_tensor=True, **parts)

    def num_players(self) -> int:
        return 2

    def num_distinct_actions(self) -> int:
        return 2

    def observation_tensor_shape(self) -> list[int]:
        return [1, 2]

    def new_initial_state(self) -> Taking:
        return Taking()

    def current_player(self) -> int:
        return -4 if self.is_terminal() else len(self.taken)

    def legal_actions(self) -> list[int]:
        return [heap for heap in range(2) if heap not in self.taken]

    def apply_action(self, action: int) -> None:
        self.taken.append(action)

    def is_terminal(self) -> bool:
        return len(self.taken) == 2

    def rewards(self) -> list[float]:
        return [-1.0, 1.0] if self.is_terminal() else [0.0, 0.0]

    def observation_tensor(self, player: int) -> list[float]:
        return [float(heap in self.taken) for heap in range(2)]

    def __str__(self) -> str:
        return f"taken {self.taken}" if self.taken else "taking()"


def test_games_of_open_spiel_are_games(monkeypatch: pytest.MonkeyPatch) -> None:
    standing_in = SimpleNamespace(
        registered_names=lambda: ["taking"],
        load_game=lambda name: Taking(),
        SpielError=RuntimeError,
    )
    monkeypatch.setitem(sys.modules, "pyspiel", standing_in)
    game = make_game("open_spiel:taking")
    assert (game.num_actions, game.num_players, game.observation_shape) == (2, 2, (1, 2))
    state = game.init(np.random.default_rng(0), 1)
    state, reward, done = game.step(state, np.array([1]))
    assert (reward[0], done[0], game.to_play(state)[0]) == (0, 0, 1)
    assert game.legal(state).tolist() == [[True, False]]
    assert game.observe(state).tolist() == [[[0, 1]]]
    assert draw(game, state) == "taken [1]"
    state, reward, done = game.step(state, np.array([0]))
    assert (reward[0], done[0]) == (1, 1)  # the mover's
    with pytest.raises(ValueError, match="has no game 'talking'; it has taking"):
        from_open_spiel("talking")
    with pytest.raises(ValueError, match="chance_mode must be DETERMINISTIC, got SAMPLED"):
        from_open_spiel(Taking(chance_mode="SAMPLED"))
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(ValueError, match="pip install open_spiel"):
        from_open_spiel("taking")


def test_games_are_found_by_name() -> None:
    assert make_game("connect4").num_actions == 7
    assert make_game(f"{tic_tac_toe.__module__}:Catch").num_actions == 3
    assert make_game("CliffWalking-v1").num_actions == 4
    for name in ("chess", "json:nothing", "no_such_module:Game"):
        with pytest.raises(ValueError, match=name):
            make_game(name)


def test_frames_and_actions_are_stacked() -> None:
    plain, game = Catch(4, 3), Stacked(Catch(4, 3), 2)
    assert game.observation_shape == (6, 4, 3)
    state = game.init(np.random.default_rng(0), 2)
    first = plain.observe(state["state"])
    assert np.array_equal(game.observe(state)[:, 2:4], first)
    assert not game.observe(state)[:, [0, 1, 4, 5]].any()
    state, _, _ = game.step(state, np.array([0, 2]))
    seen = game.observe(state)
    assert np.array_equal(seen[:, :2], first)
    assert np.array_equal(seen[:, 2:4], plain.observe(state["state"]))
    assert seen[:, 5].min((1, 2)).tolist() == pytest.approx([1 / 3, 1])
    assert Stacked(CartPole(), 3, actions=False).observation_shape == (12,)
    with pytest.raises(ValueError, match="frames must be 1 or more"):
        Stacked(plain, 0)


def test_what_is_no_game_for_one_or_two_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks .*observe, to_play of the Game protocol$"):
        check_game(object())
    with pytest.raises(ValueError, match=r"lacks num_actions.* hand in OneAtATime"):
        check_game(Pile())
    with pytest.raises(ValueError, match="two-player zero-sum or single-player"):
        check_game(OneAtATime(Pile, num_actions=2, num_players=3, observation_shape=(8,)))
    with pytest.raises(ValueError, match="rows, columns and length must be 1 or more"):
        InARow(0, 3, 3)
