"""Targets by hand and by a slow loop, the window, prioritised sampling."""

from __future__ import annotations

import numpy as np
import pytest

from mmxx.planning.muzero import Episodes, ReplayBuffer, make_targets
from mmxx.planning.muzero.targets import value_targets


def episode(
    reward: list[float], value: list[float], to_play: list[int], *, over: bool = True,
    last: float = 0.0, forced: list[bool] | None = None,
) -> Episodes:  # fmt: skip
    length = len(reward)
    policy = np.linspace(0.1, 0.9, length)
    return Episodes(
        observation=np.arange(length, dtype=np.float32)[:, None],
        action=np.arange(length) % 2,
        reward=np.array(reward, np.float32),
        to_play=np.array(to_play, np.int8),
        legal=np.ones((length, 2), bool),
        policy=np.stack([policy, 1 - policy], 1).astype(np.float32),
        value=np.array(value, np.float32),
        forced=np.zeros(length, bool) if forced is None else np.array(forced),
        end=np.full(length, length),
        over=np.full(length, over),
        last_value=np.full(length, last, np.float32),
    )


def random_episode(rng: np.random.Generator, players: int) -> Episodes:
    length = int(rng.integers(1, 9))
    mover = rng.integers(0, players, length).tolist()
    over = bool(rng.integers(2))
    return episode(
        rng.normal(size=length).tolist(), rng.normal(size=length).tolist(), mover, over=over,
        last=0.0 if over else float(rng.normal()), forced=(rng.random(length) < 0.2).tolist(),
    )  # fmt: skip


def slow_value(e: Episodes, t: int, n: int, discount: float) -> float:
    """The n-step return for the mover at t, from the definition."""
    if e.forced[t]:
        return float(e.value[t])
    total = 0.0
    for i in range(n):
        if t + i == len(e):
            break
        sign = 1 if e.to_play[t + i] == e.to_play[t] else -1
        total += discount**i * sign * e.reward[t + i]
    if t + n < len(e):
        sign = 1 if e.to_play[t + n] == e.to_play[t] else -1
        total += discount**n * sign * e.value[t + n]
    elif not e.over[t]:
        sign = 1 if e.to_play[t] == 0 else -1
        total += discount ** (len(e) - t) * sign * e.last_value[t]
    return total


def test_an_example_by_hand() -> None:
    # X, O, X; X wins with the last move
    game = episode([0, 0, 1], [0.5, -0.2, 0.9], [0, 1, 0])
    first = make_targets(game, 0, 3, None, 1.0, generator=0)
    assert first.value.tolist() == [[1, -1, 1, 0]]  # 0 past the end
    assert first.reward.tolist() == [[0, 0, 1]]
    assert first.inside.tolist() == [[True, True, True, False]]
    assert first.known.all()
    assert first.action.tolist() == [[0, 1, 0]]
    assert first.again[0, :2].tolist() == [False, False]
    twice = make_targets(episode([0, 0, 1], [0, 0, 0], [0, 0, 1]), 0, 3, None, 1.0, generator=0)
    assert twice.again[0, :2].tolist() == [True, False]
    assert first.policy[0, 3].tolist() == [0, 0]
    last = make_targets(game, 2, 3, 1, 1.0, generator=0)
    assert last.value.tolist() == [[1, 0, 0, 0]]
    assert last.reward.tolist() == [[1, 0, 0]]
    # n = 1: the reward, and the root value of the other with its sign turned
    np.testing.assert_allclose(make_targets(game, 0, 0, 1, 0.5).value, [[0.5 * 0.2]])


def test_a_game_that_was_cut_off_is_bootstrapped_and_unknown_beyond() -> None:
    game = episode([1, 1], [5, 5], [0, 0], over=False, last=7.0)
    found = make_targets(game, 0, 3, None, 0.9)
    np.testing.assert_allclose(found.value[0, :2], [1 + 0.9 + 0.81 * 7, 1 + 0.9 * 7], rtol=1e-6)
    assert found.known.tolist() == [[True, True, False, False]]
    assert found.inside.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("players", [1, 2])
def test_targets_are_those_of_a_slow_loop(players: int) -> None:
    rng = np.random.default_rng(players)
    games = [random_episode(rng, players) for _ in range(40)]
    joined = Episodes.join(games)
    assert joined.count == 40
    for steps in (1, 3, None):
        found = value_targets(joined, steps, 0.9)
        n = steps or 99
        expected = [slow_value(e, t, n, 0.9) for e in games for t in range(len(e))]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_actions_past_the_end_are_drawn_anew() -> None:
    game = episode([0], [0], [0])
    drawn = {make_targets(game, 0, 4, None, 1.0, generator=s).action.tobytes() for s in range(20)}
    assert len(drawn) > 5


def test_a_position_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="t must be from 0 to 0, got 1"):
        make_targets(episode([0], [0], [0]), 1, 1, None, 1.0)


# -- the window --------------------------------------------------------------------------------


def test_the_window_counts_moves_and_drops_whole_games() -> None:
    buffer = ReplayBuffer(5, td_steps=None, discount=1.0)
    for number in range(4):
        buffer.add(episode([0, number], [0, 0], [0, 1]))
    assert len(buffer) == 4
    assert buffer.episodes is not None
    assert buffer.episodes.reward.tolist() == [0, 2, 0, 3]
    assert buffer.episodes.end.tolist() == [2, 2, 4, 4]
    assert buffer.value.tolist() == [-2, 2, -3, 3]
    buffer.add(episode([0] * 9, [0] * 9, [0] * 9))
    assert len(buffer) == 9  # the last game stays, long as it is


def test_moves_are_drawn_by_priority_and_weighed_back() -> None:
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(100, td_steps=1, discount=1.0, alpha=1.0, beta=1.0)
    values = rng.normal(size=10)
    buffer.add(episode(rng.normal(size=10).tolist(), values.tolist(), [0] * 10))
    wanted = buffer.priority / buffer.priority.sum()
    (batch,) = buffer.sample(40_000, 0, rng)
    counts = np.bincount(batch.position, minlength=10)
    chi = ((counts - 40_000 * wanted) ** 2 / (40_000 * wanted)).sum()
    assert chi < 27.9  # 0.1 per cent, 9 degrees of freedom
    mean = (batch.weight * buffer.value[batch.position]).sum() / batch.weight.sum()
    assert abs(mean - buffer.value.mean()) < 0.05


def test_uniform_draws_are_uniform_over_moves() -> None:
    buffer = ReplayBuffer(100, td_steps=None, discount=1.0)
    buffer.add(Episodes.join([episode([0], [0], [0]), episode([0] * 9, [0] * 9, [0] * 9)]))
    (batch,) = buffer.sample(10_000, 0, np.random.default_rng(0))
    assert abs((batch.position == 0).mean() - 0.1) < 0.02
    assert (batch.weight == 1).all()


def test_an_empty_window_gives_nothing() -> None:
    with pytest.raises(ValueError, match="holds no moves"):
        ReplayBuffer(10, td_steps=None, discount=1.0).sample(1, 0, np.random.default_rng(0))


def test_the_window_survives_its_state() -> None:
    buffer = ReplayBuffer(10, td_steps=2, discount=0.9, alpha=1.0)
    buffer.add(episode([1, 2], [3, 4], [0, 1]))
    other = ReplayBuffer(10, td_steps=2, discount=0.9, alpha=1.0)
    other.load_state_dict(buffer.state_dict())
    one, two = (b.sample(5, 1, np.random.default_rng(0))[0] for b in (buffer, other))
    assert np.array_equal(one.targets.value, two.targets.value)
    assert np.array_equal(one.weight, two.weight)
