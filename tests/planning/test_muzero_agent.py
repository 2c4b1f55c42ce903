"""Learning, resuming, saving, matches, and a game in the terminal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmxx.planning.muzero import (
    Catch,
    GridWorld,
    InARow,
    MuZero,
    OneAtATime,
    PlayItem,
    ReanalyzeItem,
    play_episodes,
    play_match,
    reanalyze,
    tic_tac_toe,
)
from mmxx.planning.muzero import play as terminal
from mmxx.planning.muzero.learner import Learner, work
from mmxx.planning.muzero.matches import planner_player, random_player
from mmxx.planning.muzero.self_play import learned_model
from mmxx.planning.muzero.settings import recipe

SMALL: Any = {"num_simulations": 4, "games": 16, "games_per_task": 8, "batch_size": 32,
              "steps_per_game": 0.25, "state_size": 16, "width": 32}  # fmt: skip


def learner(**changes: Any) -> Learner:
    settings = recipe("small", **{**SMALL, "total_games": 48, "priority_alpha": 1.0, **changes})
    return Learner(tic_tac_toe(), settings, 0)


def same(one: Learner, other: Learner) -> bool:
    return all(np.array_equal(one.weights[n], other.weights[n]) for n in one.weights)


@pytest.fixture(scope="module")
def agent() -> MuZero:
    return MuZero("tictactoe", random_state=0, total_games=300, **{**SMALL, "games": 50}).fit()


def test_tasks_may_be_done_in_any_order_and_a_learner_can_be_resumed() -> None:
    straight, threads = learner(), learner()
    with ThreadPoolExecutor(2) as pool:
        while not straight.finished:
            straight.absorb([work(item) for item in straight.tasks()])
            results = [pool.submit(work, item) for item in reversed(threads.tasks())]
            threads.absorb([one.result() for one in reversed(results)])
    assert same(straight, threads)
    resumed = learner()
    for _ in range(2):
        resumed.absorb([work(item) for item in resumed.tasks()])
    state = resumed.state_dict()
    resumed = learner()
    resumed.load_state_dict(state)
    while not resumed.finished:
        resumed.absorb([work(item) for item in resumed.tasks()])
    assert same(straight, resumed)
    assert resumed.history == straight.history
    assert not same(straight, learner())


def test_self_play_is_what_its_seed_says_and_openings_are_forced() -> None:
    one = learner(random_opening=2)
    item = next(item for item in one.tasks() if isinstance(item, PlayItem))
    first, again = play_episodes(item), play_episodes(item)
    assert all(np.array_equal(vars(first)[n], vars(again)[n]) for n in vars(first))
    other = play_episodes(replace(item, seed=(9,)))
    assert len(other) != len(first) or not np.array_equal(other.action, first.action)
    assert first.count == 8
    length = np.diff([*first.starts(), len(first)])
    forced = np.add.reduceat(first.forced, first.starts())
    assert ((length >= 5) & (forced <= 2)).all()
    assert first.over.all()
    np.testing.assert_allclose(first.policy.sum(1), 1, rtol=1e-5)
    assert (first.policy[~first.legal] == 0).all()


def test_reanalyze_with_the_same_weights_and_stream_repeats_the_policy() -> None:
    one = learner(random_opening=0)
    item = next(item for item in one.tasks() if isinstance(item, PlayItem))
    item = replace(item, settings=replace(item.settings, temperatures=((0.0, 0.0),)))
    played = play_episodes(item)
    start = played.starts()
    rng = np.random.default_rng(item.seed)
    rng.integers(0, 1, item.games)  # what self-play draws before the first search
    again = ReanalyzeItem(
        item.game,
        item.settings,
        item.weights,
        rng,
        played.observation[start],
        played.legal[start],  # type: ignore[arg-type]
    )
    policy, value, _ = reanalyze(again)
    assert np.array_equal(policy, played.policy[start])
    assert np.array_equal(value, played.value[start])


def test_it_learns_and_counts_what_it_learns_from(agent: MuZero) -> None:
    history = agent.learner.history
    assert agent.learner.games == 300
    assert history[-1]["loss"] < history[1]["loss"]
    board = agent.game.init(np.random.default_rng(0), 3)
    seen = agent.game.observe(board)
    assert agent.predict(seen).shape == (3,)
    found = agent.plan(seen, 10)
    assert found.tree.node_visits.shape == (3, 11)
    score = agent.evaluate(20)
    assert score.results.shape == (20,)
    low, high = score.interval
    assert low <= score.mean <= high
    with pytest.raises(ValueError, match=r"observation must be \[B, 2, 3, 3\], got \[1, 9\]"):
        agent.predict(np.zeros((1, 9)))


def test_games_for_one_and_budgets() -> None:
    catch = MuZero(Catch(), random_state=0, total_games=1000, **SMALL, discount=0.99)
    catch.fit(total_steps=4)
    assert 4 <= catch.learner.step < 12
    assert catch.evaluate(4).results.shape == (4,)
    grid = MuZero(GridWorld(3), random_state=0, total_games=1000, max_moves=5, **SMALL)
    grid.fit(time_budget=0.2)
    assert grid.learner.games < 1000
    assert grid.learner.buffer.episodes is not None
    assert not grid.learner.buffer.episodes.over.all()  # some are cut off after five moves
    with pytest.raises(ValueError, match="total_steps must be above 0, got 0"):
        grid.fit(0)
    with pytest.raises(ValueError, match="episodes must be 1 or more"):
        grid.evaluate(0)


def test_values_beyond_the_bins_are_told_once() -> None:
    class Rich(Catch):
        def step(self, state: Any, action: Any) -> Any:
            new, reward, done = super().step(state, action)
            return new, 50 * reward, done

    rich = MuZero(Rich(), random_state=0, total_games=48, **SMALL)
    with pytest.warns(RuntimeWarning, match=r"support_size=1 is too small: .*; 50 would") as told:
        rich.fit()
    assert len(told) == 1


class Connect6(InARow):
    """Two stones a turn, but for the first player's first."""

    def step(self, state: Any, action: Any) -> Any:
        new, reward, done = super().step(state, action)
        even = (new[:, :-2] != 0).sum(1) % 2 == 0
        new[even, -2] = state[even, -2]
        return new, reward, done


def test_who_moves_on_is_learned() -> None:
    game = Connect6(3, 3, 3)
    with pytest.raises(ValueError, match=r"move 2: player 1 moves twice .* turns='learned'"):
        MuZero(game, random_state=0, total_games=48, **SMALL).fit()
    settings: Any = {**SMALL, "steps_per_game": 5.0, "num_unroll_steps": 3, "turns": "learned"}
    planner = MuZero(game, random_state=0, total_games=64, **settings).fit().planner()
    rng, model = np.random.default_rng(0), learned_model(planner.net, -1.0)
    state = game.init(rng, 200)
    with torch.inference_mode():
        hidden = planner.root(game.observe(state)).embedding
        for _ in range(4):
            legal, before = game.legal(state), game.to_play(state)
            action = (rng.random(legal.shape) * legal).argmax(1)
            state, _, _ = game.step(state, action)
            output, hidden = model(torch.from_numpy(action), hidden)
            again = output.discount.numpy()
            assert set(np.abs(again)) == {1}
            assert ((again > 0) == (game.to_play(state) == before)).mean() > 0.95


def test_a_stuck_game_is_named() -> None:
    class Stuck(Catch):
        def legal(self, state: Any) -> np.ndarray:
            return np.arange(len(state))[:, None] != np.full((len(state), 3), 2)

    with pytest.raises(ValueError, match="move 0, row 2: a running game has no legal action"):
        MuZero(Stuck(), random_state=0, total_games=48, **SMALL).fit()


# -- files -------------------------------------------------------------------------------------


def test_an_agent_survives_its_file(agent: MuZero, tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    agent.save(path)
    other = MuZero.load(path)
    seen = agent.game.observe(agent.game.init(np.random.default_rng(0), 2))
    assert np.array_equal(agent.plan(seen, 20).action_weights, other.plan(seen, 20).action_weights)
    assert other.settings == agent.settings
    with pytest.raises(ValueError, match=r"num_actions is 9, the game's is 7"):
        MuZero.load(path, "connect4")
    with pytest.raises(ValueError, match=r"observation_shape is \(2, 3, 3\)"):
        MuZero.load(path, OneAtATime(object, num_actions=9, num_players=2, observation_shape=(9,)))
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="is no agent of MuZero"):
        MuZero.load(path)
    nameless = MuZero(Catch(), random_state=0, **SMALL)
    nameless.save(path)
    with pytest.raises(ValueError, match="without a name; hand it in"):
        MuZero.load(path)
    assert MuZero.load(path, Catch()).game == Catch()


def test_a_file_of_another_network_is_refused(agent: MuZero, tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    wide = MuZero("tictactoe", random_state=0, **{**SMALL, "width": 64})
    weights, wide.learner.weights = wide.learner.weights, agent.learner.weights
    wide.save(path)
    with pytest.raises(ValueError, match=r"is \(.*\), not \("):
        MuZero.load(path)
    del weights["f.norm.weight"]
    wide.learner.weights = weights
    wide.save(path)
    with pytest.raises(ValueError, match=r"f\.norm\.weight is missing"):
        MuZero.load(path)


# -- matches -----------------------------------------------------------------------------------


def test_matches_are_fair() -> None:
    game = tic_tac_toe()
    blind = random_player(game)
    score = play_match(game, blind, blind, 400, np.random.default_rng(0), random_plies=2)
    low, high = score.interval
    assert low < 0 < high
    assert abs(score.elo) < 50
    first = play_match(game, blind, blind, 1, np.random.default_rng(0))
    assert first.results.shape == (1,)

    def occupied(state: Any, rng: np.random.Generator) -> np.ndarray:
        return np.zeros(len(state), int)

    with pytest.raises(ValueError, match=r"player 1 chose action 0, which is not legal; legal are"):
        play_match(game, occupied, occupied, 2, np.random.default_rng(0))


def test_the_true_rules_beat_chance(agent: MuZero) -> None:
    game = tic_tac_toe()
    planner = replace(agent.planner(), settings=replace(agent.settings, model="rules"))
    score = play_match(
        game, planner_player(planner, 50), random_player(game), 40, np.random.default_rng(0)
    )
    assert score.mean > 0.4  # its network was trained for a moment
    assert score.elo > 100


def test_a_person_can_play_in_the_terminal(agent: MuZero, tmp_path: Path) -> None:
    place = tmp_path / "run" / "artifacts"
    place.mkdir(parents=True)
    agent.save(place / "agent.safetensors")
    for begins in ([], ["--second"]):
        answers = iter(["0", "x", *[str(n) for n in range(1, 10)] * 9])
        said: list[str] = []
        code = terminal.main(
            [str(tmp_path / "run"), "--simulations", "8", *begins],
            lambda _, lines=answers: next(lines), said.append,
        )  # fmt: skip
        assert code == 0
        assert said[-1] in ("You win.", "It wins.", "A draw.")
        assert any(line.startswith("Legal are ") for line in said)
        assert said[1] == "\n1 2 3\n4 5 6\n7 8 9"
    assert terminal.main([str(tmp_path / "run")], lambda _: "q", said.append) == 0
    assert terminal.main([str(tmp_path)], lambda _: "q", said.append) == 2
    MuZero("catch", random_state=0, **SMALL).save(place / "agent.safetensors")
    assert terminal.main([str(tmp_path / "run")], lambda _: "q", said.append) == 2
