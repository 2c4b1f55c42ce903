"""The experiment: backends, environments of one's own, the sham, settings."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmxx.lab.errors import BadInputError
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.lab.testing import assert_same, outcome
from mmxx.planning.muzero import MuZero, arms, experiment
from mmxx.planning.muzero.card import CARD
from mmxx.planning.muzero.experiment import TINY, Config
from mmxx.planning.muzero.games import InARow, gomoku
from mmxx.planning.muzero.judges import connect_four_values, urgent_moves

SHORT = replace(TINY, parts=("short",))


def measure(folder: Path, config: Config, *, tier: str = "tiny", backend: str = "serial") -> Any:
    run = create(folder, CARD, config, Options(seed=0, backend=backend), tier)
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("backend", ["process", pytest.param("ray", marks=pytest.mark.slow)])
def test_backends_give_the_same_bits(tmp_path: Path, backend: str) -> None:
    if backend == "ray":
        pytest.importorskip("ray")
    measure(tmp_path / "serial", SHORT)
    measure(tmp_path / "other", SHORT, backend=backend)
    assert_same(outcome(tmp_path / "serial"), outcome(tmp_path / "other"))


def test_parts_that_were_left_out_say_so(tmp_path: Path) -> None:
    found = measure(tmp_path / "run", replace(TINY, parts=("cartpole",)))
    assert "'short' was not asked for" in found["optimal-play"]["note"]
    assert "'long' was not asked for" in found["beats-model-free"]["note"]
    assert found["cartpole"]["measured"] > 0
    assert {row["player"] for row in rows(tmp_path / "run", "cartpole")} == {
        f"cartpole{mark} {player}"
        for mark in ("", "@37", "@74", "@111")
        for player in ("0", "2", "permuted")
    }


@pytest.mark.parametrize("env", ["catch", "connect4", "FrozenLake-v1"])
def test_another_environment_is_learned_and_can_be_loaded(tmp_path: Path, env: str) -> None:
    config = replace(TINY, env=env, moves=60, search="gumbel", reanalyze=0.5)
    found = measure(tmp_path / "run", config)
    against = "result against a random player" if env == "connect4" else "mean return"
    for line in found.values():
        assert line["note"].startswith(f"{env} was learned instead of tic-tac-toe: {against} ")
    assert [row["simulations"] for row in rows(tmp_path / "run", "tests")] == ["0", "2"]
    agent = MuZero.load(tmp_path / "run" / "artifacts" / "agent.safetensors")
    assert agent.settings.search == "gumbel"
    assert ("good moves" in rows(tmp_path / "run", "tests")[0]) == (env == "connect4")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("chess", "env: no game is called 'chess'"),
        ("nosuch-v9", "env: no game is called 'nosuch-v9'"),
        ("nosuch_module:Game", "env: game 'nosuch_module:Game' cannot be imported"),
        ("math:Nothing", "env: "),
    ],
)
def test_an_unknown_environment_is_bad_input_before_anything_is_learned(
    tmp_path: Path, env: str, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        measure(tmp_path / "run", replace(TINY, env=env))
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.slow
def test_muzero_holds_where_its_controls_do_not(tmp_path: Path) -> None:
    config = Config(games=5400)
    found = measure(tmp_path / "ours", config, tier="quick")
    assert found["search-adds"]["verdict"] == found["model-matters"]["verdict"] == "holds"
    with experiment.sham():
        shammed = measure(tmp_path / "sham", config, tier="quick")
    assert all(c["verdict"] == "falls short" for c in shammed.values() if c["sham"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"games": 0}, "games must be 1 or more, got 0"),
        ({"tests": ()}, "tests must be numbers from 0"),
        ({"tests": (-1,)}, "tests must be numbers from 0"),
        ({"few": (0,)}, "few must be numbers from 1"),
        ({"parts": ()}, "parts must name one or more"),
        ({"parts": ("long", "long")}, "parts must name one or more, each once"),
        ({"reanalyze": 2.0, "env": "catch"}, "reanalyze must be from 0 to 1"),
        ({"network": "resnet"}, "network goes with another env than tictactoe, got 'resnet'"),
        ({"control_games": 9000}, "control_games must not exceed games, 8000, got 9000"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Config(**changes)


def test_positions_to_judge_run_on_and_have_a_move_to_find() -> None:
    game = InARow(4, 4, 4, gravity=True)
    item = arms.PositionsItem(game, (0, 8, 0), 5, 7)
    states, good = arms.judged_positions(item)
    assert states.shape == (5, 18)
    assert (np.abs(states[:, :16]).sum(1) == 7).all()
    values = connect_four_values(states, 4, 4)
    assert (good == (values == values.max(1, keepdims=True))).all()
    assert (good.sum(1) < game.legal(states).sum(1)).all()
    again = arms.judged_positions(item)
    assert all(np.array_equal(*pair) for pair in zip(again, (states, good), strict=True))
    five = arms.PositionsItem(gomoku(6), (0, 8, 0), 3, 24)
    states, good = arms.judged_positions(five)
    assert all((good[b] == urgent_moves(five.game, states[b])).all() for b in range(3))
    assert good.any(1).all()
