"""Selecting, training in a mask and training side by side, beside torch.nn.utils.prune.

What is compared takes turns in one process; the least CPU time of each counts, and the ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from mmxx.sparsity.lottery import Masks, Replicas, fully_connected, hold, prune


def least(ways: Mapping[str, Callable[[], Callable[[], Any]]], rounds: int) -> dict[str, float]:
    """The least CPU seconds of what each way sets up anew in every round."""
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + 1):
        for name, set_up in ways.items():
            call = set_up()
            start = time.process_time()
            call()
            if turn:  # the first one compiles and warms
                best[name] = min(best[name], time.process_time() - start)
    return best


def show(title: str, seconds: Mapping[str, float], base: str) -> None:
    """A line for each, with its ratio to the base."""
    print(f"\n{title}\n{'':44}{'ms':>10}   × {base}")
    for name, value in seconds.items():
        print(f"  {name:42}{1e3 * value:10.2f}{value / seconds[base]:9.3f}")


def layers(width: int, count: int) -> nn.Sequential:
    """Square linear layers in a row, the same each time."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(count)))


def pruned_by_torch(net: nn.Sequential, amount: float) -> nn.Sequential:
    """Pruned over all layers together, in place."""
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in net],
        pruning_method=torch_prune.L1Unstructured,
        amount=amount,
    )
    return net


def selection(width: int, count: int, rounds: int) -> None:
    """Drop a fifth of all weights, over all layers together."""
    net = layers(width, count)
    weights = {name: p.detach() for name, p in net.named_parameters() if name.endswith("weight")}
    full = Masks.ones_like(net)
    thin = prune(weights, full, scope="global")

    def peer() -> Callable[[], Any]:
        fresh = layers(width, count)
        return lambda: pruned_by_torch(fresh, 0.2)

    ways: dict[str, Callable[[], Callable[[], Any]]] = {
        "ours": lambda: lambda: prune(weights, full, scope="global"),
        "ours, from the second level on": lambda: lambda: prune(weights, thin, scope="global"),
        "torch.nn.utils.prune.global_unstructured": peer,
    }
    title = f"dropping 20 % of {width * width * count / 1e6:.1f} M weights, over all layers"
    show(title, least(ways, rounds), "ours")


def masked_step(width: int, count: int, batch: int, rounds: int) -> None:
    """Forward, backward and SGD with momentum, dense, held within a mask, and with torch's."""
    inputs = torch.randn(batch, width, generator=torch.Generator().manual_seed(0))
    steps = 3

    def steps_of(net: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

        def call() -> None:
            for _ in range(steps):
                optimizer.zero_grad()
                net(inputs).square().mean().backward()
                optimizer.step()

        return call

    with ExitStack() as stack:
        held = layers(width, count)
        weights = {n: p.detach() for n, p in held.named_parameters() if n.endswith("weight")}
        masks = prune(weights, Masks.ones_like(held), rate=0.8, scope="global")
        stack.enter_context(hold(held, masks))
        nets = {
            "dense": layers(width, count),
            "ours, held within a mask": held,
            "torch.nn.utils.prune": pruned_by_torch(layers(width, count), 0.8),
        }
        calls = {name: steps_of(net) for name, net in nets.items()}
        ways = {name: (lambda call=call: call) for name, call in calls.items()}
        seconds = {name: value / steps for name, value in least(ways, rounds).items()}
    show(f"one step, batch {batch} through {count} layers of {width}²", seconds, "dense")


def side_by_side(networks: int, rounds: int) -> None:
    """Steps of LeNet-300-100 on 64 inputs, one network after the other and all at once."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(networks, 60, 64, generator=generator)
    y = torch.randint(10, (networks, 60), generator=generator)
    steps = 20

    def make() -> nn.Module:
        return fully_connected((64, 300, 100, 10))

    def train(net: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
        optimizer = torch.optim.Adam(net.parameters(), lr=1.2e-3, fused=True)

        def call() -> None:
            for _ in range(steps):
                logits = net(inputs).flatten(0, -2)
                loss = nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum") / 60
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return call

    def one_by_one() -> Callable[[], None]:
        calls = [train(make(), X[i], y[i]) for i in range(networks)]
        return lambda: [call() for call in calls] and None

    ways = {
        "one after the other": one_by_one,
        "side by side (Replicas)": lambda: train(Replicas(make, range(networks)), X, y),
    }
    seconds = {name: value / steps for name, value in least(ways, rounds).items()}
    show(f"a step of {networks} networks 64-300-100-10", seconds, "side by side (Replicas)")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--width", type=int, default=1000, help="of the square layers")
    parser.add_argument("--networks", type=int, default=9, help="networks side by side")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), CPU time, least of the turns")
    selection(options.width, 8, max(1, options.rounds // 2))
    masked_step(options.width, 8, 16, options.rounds)
    side_by_side(options.networks, options.rounds)


if __name__ == "__main__":
    main()
