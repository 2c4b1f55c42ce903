"""Time Snake's forward and backward pass beside torch-snake, the plain formula and ReLU.

20,000 samples of 64 features, gradients of the input and of ``a``. The arms take turns within
each repetition, and the fastest turn of each counts. The second table is a small network.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmxx.signals.snake import Networks, Snake, snake

SAMPLES, FEATURES, STEPS = 20_000, 64, 20


def plain(x: Tensor, a: Tensor) -> Tensor:
    """The formula as it is written down; NaN at a = 0."""
    return x + torch.sin(a * x) ** 2 / a


def peer_layer(a: Tensor) -> nn.Module | None:
    """torch-snake's layer with these ``a``; None where it is not installed."""
    try:
        peer = importlib.import_module("snake.activations")
    except ModuleNotFoundError:
        return None
    layer = peer.Snake(FEATURES, 1.0)
    layer.load_state_dict({"a": a})
    return layer


def arms(a: Tensor, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is timed, by name; all but ReLU hold their own ``a``."""
    ours = Snake(FEATURES, a)
    parameter = nn.Parameter(a.clone())
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "mmxx": ours,
        "plain formula": lambda x: plain(x, parameter),
        "ReLU": torch.relu,
    }
    peer = peer_layer(a)
    if peer is None:
        print("torch-snake is not installed (pip install torch-snake): left out")
    else:
        found["torch-snake"] = peer
    if compiled:
        fused = torch.compile(snake)
        other = nn.Parameter(a.clone())
        found["mmxx, torch.compile"] = lambda x: fused(x, other)
    return found


def both_ways(arm: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> None:
    """Forward and backward; the gradients are thrown away."""
    x.grad = None
    arm(x).backward(gradient)


def fastest(
    jobs: dict[str, Callable[[], None]], repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Seconds of the fastest of ``repeats`` turns of each job, after one that does not count."""
    for job in jobs.values():
        job()
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats):
        for name, job in jobs.items():
            start = clock()
            job()
            best[name] = min(best[name], clock() - start)
    return best


def training(activation: str) -> Callable[[], None]:
    """A few steps of a batch of eight small networks on 150 points, as the regressor makes them."""
    from mmxx.signals.snake.network import train

    networks = Networks(activation, seeds=range(8), a=9.0)
    x = torch.linspace(-1, 1, 150).reshape(1, -1, 1)
    y, present = torch.sin(19 * x[..., 0]), torch.ones(1, 150)

    def steps() -> None:
        train(networks, x, y, present, steps=STEPS, lr=1e-3)

    return steps


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=30, help="turns of each arm")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--wall", action="store_true", help="wall instead of processor time")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (a compiler)")
    flags = parser.parse_args(argv)
    torch.set_num_threads(flags.threads)
    clock = time.perf_counter if flags.wall else time.process_time

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, FEATURES, generator=generator).requires_grad_()
    gradient = torch.randn(SAMPLES, FEATURES, generator=generator)
    a = 0.5 + torch.rand(FEATURES, generator=generator)
    jobs = {
        name: lambda arm=arm: both_ways(arm, x, gradient)
        for name, arm in arms(a, flags.compile).items()
    }
    took = fastest(jobs, flags.repeats, clock)
    print(f"forward + backward, {SAMPLES} x {FEATURES}, {flags.threads} thread(s)")
    print(f"{'':22} {'ms':>8} {'times mmxx':>11} {'times ReLU':>11}")
    for name, seconds in took.items():
        ours, relu = seconds / took["mmxx"], seconds / took["ReLU"]
        print(f"{name:22} {1e3 * seconds:8.2f} {ours:11.2f} {relu:11.2f}")

    small = {name: training(name) for name in ("snake", "relu")}
    took = fastest(small, max(flags.repeats // 6, 3), clock)
    print(f"\ntraining 8 networks of 1-64-64-1 on 150 points, {STEPS} steps")
    for name, seconds in took.items():
        print(f"{name:22} {1e3 * seconds / STEPS:8.2f} ms a step")


if __name__ == "__main__":
    main()
