"""Simulations a second of the search beside mctx's, of self-play, and a training step.

The trivial model answers from prepared arrays, so that the tree alone is timed; mctx gets a table
look-up under jit. muzero-general is dead: its rates are recorded on another machine. One thread,
CPU seconds, the best of several turns.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import numpy as np
import torch

from mmxx.planning.muzero import (
    PlayItem,
    RecurrentOutput,
    ReplayBuffer,
    RootOutput,
    gumbel_muzero_policy,
    muzero_policy,
    play_episodes,
    tic_tac_toe,
)
from mmxx.planning.muzero.arms import board
from mmxx.planning.muzero.self_play import learned_model, weights_of
from mmxx.planning.muzero.settings import build_network
from mmxx.planning.muzero.training import TrainItem, train

# muzero-general, master of 2022, torch 2, one core of another machine: simulations a second of its
# MCTS over a trivial network, and over its own fully connected one, at B = 1, A = 9
RECORDED = {"trivial network": 5_100, "its own network": 2_500}
SHAPES = ((9, 1, 50), (9, 16, 50), (9, 128, 50), (9, 1024, 50), (9, 128, 200), (82, 16, 50),
          (82, 128, 50))  # fmt: skip


def best(work: Callable[[], Any], turns: int, least: float = 0.05) -> float:
    """CPU seconds of one call, the best of several turns of at least so many seconds."""
    work()
    found = float("inf")
    for _ in range(turns):
        calls, start = 0, time.process_time()
        while time.process_time() - start < least:
            work()
            calls += 1
        found = min(found, (time.process_time() - start) / calls)
    return found


def tables(actions: int, batch: int) -> tuple[np.ndarray, ...]:
    """Values and logits of 64 answers."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, batch)).astype(np.float32)
    return values, rng.normal(size=(64, batch, actions)).astype(np.float32)


def ours(policy: Any, actions: int, batch: int, simulations: int) -> Callable[[], Any]:
    """A search over prepared answers."""
    values, logits = tables(actions, batch)
    zeros, discount = np.zeros(batch, np.float32), np.full(batch, 0.997, np.float32)
    outputs = [RecurrentOutput(zeros, discount, values[i], logits[i]) for i in range(64)]
    calls = [0]

    def model(action: Any, state: Any) -> Any:
        calls[0] += 1
        return outputs[calls[0] % 64], state

    root = RootOutput(logits[0], zeros, np.zeros((batch, 1), np.float32))
    rng = np.random.default_rng(0)  # drawn on, as from a key that is made once
    return partial(policy, root, model, num_simulations=simulations, generator=rng)


def peer(name: str, actions: int, batch: int, simulations: int) -> Callable[[], Any] | None:
    """The same search by mctx, compiled."""
    try:
        mctx: Any = importlib.import_module("mctx")
        jax: Any = importlib.import_module("jax")
    except ImportError:
        return None
    values, logits = (jax.numpy.asarray(part) for part in tables(actions, batch))

    def model(params: Any, key: Any, action: Any, place: Any) -> Any:
        zeros = jax.numpy.zeros(batch)
        place = (place * 7 + action + 1) % 64
        rows = jax.numpy.arange(batch)
        output = mctx.RecurrentFnOutput(
            reward=zeros, discount=zeros + 0.997, prior_logits=logits[place, rows],
            value=values[place, rows],
        )  # fmt: skip
        return output, place

    root = mctx.RootFnOutput(
        prior_logits=logits[0], value=values[0], embedding=jax.numpy.zeros(batch, "int32")
    )
    search = jax.jit(
        lambda key: getattr(mctx, name)((), key, root, model, num_simulations=simulations).action
    )
    key = jax.random.PRNGKey(0)
    return lambda: search(key).block_until_ready()


def with_network(batch: int, simulations: int, turns: int) -> tuple[float, float]:
    """Seconds of a search through a perceptron, and of the same calls of the network alone."""
    game, settings = tic_tac_toe(), board(simulations, 300)
    net = build_network(game, settings, torch.Generator().manual_seed(0)).eval()
    seen = torch.zeros(batch, 2, 3, 3)
    with torch.inference_mode():
        state, value, logits = net.initial_inference(seen)
        root, model = RootOutput(logits, value, state), learned_model(net, -1.0)
        whole = best(
            lambda: muzero_policy(root, model, num_simulations=simulations, generator=0), turns
        )
        action = torch.zeros(batch, dtype=torch.long)
        alone = best(lambda: [model(action, state) for _ in range(simulations)], turns)
    return whole, alone


def learning(turns: int) -> tuple[float, float, int, float]:
    """Seconds and moves of 256 games of self-play, and seconds of a training step."""
    game, settings = tic_tac_toe(), board(25, 300)
    weights = weights_of(build_network(game, settings, torch.Generator().manual_seed(0)))
    item = PlayItem(game, settings, weights, (0,), 256, 0.0)
    play = best(lambda: play_episodes(item), turns)
    games = play_episodes(item)
    buffer = ReplayBuffer(10_000, td_steps=None, discount=1.0)
    buffer.add(games)
    rng = np.random.default_rng(0)
    gather = best(lambda: buffer.sample(256, 5, rng), turns)
    batches = buffer.sample(256, 5, rng, 20)
    step = best(lambda: train(TrainItem(game, settings, weights, {}, 0, batches)), turns) / 20
    return play, step, len(games), gather


def main(argv: Sequence[str] | None = None) -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="the fastest counts")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    missing = False
    print("Simulations a second over a trivial model, one thread, CPU seconds")
    print(f"{'A':>4}{'B':>6}{'S':>5}{'muzero':>13}{'× mctx':>9}{'gumbel':>13}{'× mctx':>9}")
    alone = {}
    for actions, batch, simulations in SHAPES:
        line = f"{actions:4}{batch:6}{simulations:5}"
        for policy in (muzero_policy, gumbel_muzero_policy):
            work = batch * simulations
            rate = work / best(ours(policy, actions, batch, simulations), options.turns)
            alone[policy.__name__, actions, batch, simulations] = rate
            other = peer(policy.__name__, actions, batch, simulations)
            missing |= other is None
            ratio = "" if other is None else f"{rate / (work / best(other, options.turns)):.1f}"
            line += f"{rate:13,.0f}{ratio:>9}"
        print(line)
    if missing:
        print("mctx and jax are not installed: pip install -r benchmarks/peers.txt")
    one, many = (alone["muzero_policy", 9, batch, 50] for batch in (1, 128))
    for name, rate in RECORDED.items():
        print(
            f"muzero-general, {name}, recorded on another machine: {rate:,}; ours is "
            f"{one / rate:.0f} × at B = 1, {many / rate:.0f} × at B = 128"
        )
    print(f"of the tree alone: {1e6 / one:.1f} µs a simulation at B = 1, {1e6 / many:.2f} at 128")
    whole, net = with_network(128, 50, options.turns)
    print(f"B = 128 through the perceptron: {128 * 50 / whole:,.0f} simulations/s, of which "
          f"{1 - net / whole:.0%} is not the network")  # fmt: skip
    play, step, moves, gather = learning(options.turns)
    print(f"self-play, 256 games of tic-tac-toe, 25 simulations: {play:.3f} s, {moves} moves, "
          f"{25 * moves / play:,.0f} simulations/s")  # fmt: skip
    print(f"a training step, batch 256, K = 5: {1e3 * step:.1f} ms, of which drawing the batch "
          f"{1e6 * gather:.0f} µs")  # fmt: skip
    calibration = best(lambda: np.sort(np.random.default_rng(0).random(1_000_000)), options.turns)
    print(f"calibration: a million doubles drawn and sorted in {1e3 * calibration:.1f} ms")


if __name__ == "__main__":
    main()
