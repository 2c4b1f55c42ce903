"""A game in the terminal against a trained agent: ``python -m mmxx.planning.muzero.play FOLDER``.

FOLDER is a run's folder, or an agent's file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mmxx.planning.muzero.agent import MuZero
from mmxx.planning.muzero.games import InARow
from mmxx.planning.muzero.showing import draw


def main(
    argv: Sequence[str] | None = None,
    ask: Callable[[str], str] = input,
    say: Callable[[str], None] = print,
) -> int:
    """Play one game.

    Args:
        argv: The command line's arguments.
        ask: Asks for a line.
        say: Shows a line.

    Returns:
        0, or 2 where there is nothing to play against.
    """
    parser = argparse.ArgumentParser(prog="mmxx.planning.muzero.play", description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder, or an agent's file")
    parser.add_argument("--simulations", type=int, default=100, help="the agent's, for each move")
    parser.add_argument("--second", action="store_true", help="let the agent begin")
    options = parser.parse_args(argv)
    path = options.folder
    if path.is_dir():
        path = path / "artifacts" / "agent.safetensors"
    try:
        if options.simulations < 1:
            raise ValueError(f"--simulations must be 1 or more, got {options.simulations}")
        if not path.is_file():
            raise ValueError(f"{path} is not there")
        agent = MuZero.load(path)
        if agent.game.num_players != 2:
            raise ValueError(f"{agent.name} is a game for one; it takes one for two")
    except ValueError as error:
        print(f"play: {error}", file=sys.stderr)
        return 2
    game = agent.game
    state = game.init(np.random.default_rng(), 1)
    person = int(options.second)
    who = f"You are {'XO'[person]}" if isinstance(game, InARow) else f"You are player {person + 1}"
    say(f"{who}. Moves are numbers from 1 to {game.num_actions}; q leaves.")
    while True:
        say("\n" + draw(game, state, numbered=True))
        legal = game.legal(state)
        mover = int(game.to_play(state)[0])
        if mover == person:
            action = _asked(legal[0], ask, say)
            if action is None:
                return 0
        else:
            found = agent.plan(game.observe(state), options.simulations, legal=legal, state=state)
            action = int(found.action[0])
            value = found.tree.summary().value[0]
            say(f"It plays {action + 1}, and sees {value:+.2f} for itself.")
        state, reward, done = game.step(state, np.array([action]))
        if done[0]:
            say("\n" + draw(game, state, numbered=True))
            won = "You win." if mover == person else "It wins."
            lost = "It wins." if mover == person else "You win."
            say(won if reward[0] > 0 else lost if reward[0] < 0 else "A draw.")
            return 0


def _asked(legal: np.ndarray, ask: Callable[[str], str], say: Callable[[str], None]) -> int | None:
    while True:
        try:
            answer = ask("> ").strip()
        except EOFError:
            return None
        if answer == "q":
            return None
        if answer.isdecimal() and 1 <= int(answer) <= len(legal) and legal[int(answer) - 1]:
            return int(answer) - 1
        say("Legal are " + ", ".join(str(a + 1) for a in np.flatnonzero(legal)))


if __name__ == "__main__":
    sys.exit(main())
