"""The search at the size of ResNet-50, slimming beside Torch-Pruning, latency, the gates' price.

Everything is random: only times and costs are looked at. The fastest of several rounds counts.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.sparsity.from_scratch import (
    ChannelGraph,
    cost,
    learn_gates,
    macs,
    prune_channels,
    search,
    uniform,
)
from mmxx.sparsity.from_scratch.arms import fit
from mmxx.sparsity.from_scratch.networks import conv_net, depthwise_net, residual_net


class Bottleneck(nn.Module):
    """Narrow, convolve, widen by 4, and a way past (ResNet-50's block)."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        outer = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, outer, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip
        self.past = (
            nn.Identity()
            if inner == outer and stride == 1
            else nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.past(x))


def resnet50() -> nn.Module:
    """ResNet-50 for 1,000 classes."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    inner = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(blocks):
            layers.append(Bottleneck(inner, width, stride if number == 0 else 1))
            inner = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 1000))


def fastest(work: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """The least wall and CPU time, in seconds, of several rounds."""
    wall, cpu = [], []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return min(wall), min(cpu)


def row(label: str, seconds: tuple[float, float]) -> None:
    print(f"{label:54}{1e3 * seconds[0]:11.1f}{1e3 * seconds[1]:11.1f}")


def search_and_slim(rounds: int) -> None:
    """ResNet-50: tracing, search, slimming; and what it would cost to count by running."""
    net, shape = resnet50().eval(), (3, 224, 224)
    graph = ChannelGraph(net, shape)
    scores = torch.rand(graph.size, generator=torch.Generator().manual_seed(0))
    target = graph.macs() / 2
    structure = search(graph, scores, target)
    print(f"\nResNet-50: {graph.macs() / 1e9:.2f} GMAC, {graph.size:,} channels in "
          f"{len(graph.groups)} groups; half taken away")  # fmt: skip
    print(f"{'':54}{'wall ms':>11}{'CPU ms':>11}")
    row("follow the channels", fastest(lambda: ChannelGraph(net, shape), rounds))
    ours = fastest(lambda: search(graph, scores, target), rounds)
    row("search (bar: 500 ms)", ours)
    one = fastest(lambda: macs(prune_channels(net, structure), shape), 1)
    row("one step of a search that builds and runs the network", one)
    slim = fastest(lambda: prune_channels(net, structure), rounds)
    row("slim", slim)
    print(f"a search of {graph.size.bit_length()} such steps would take "
          f"{graph.size.bit_length() * one[1] / ours[1]:.0f} × ours")  # fmt: skip
    peer = torch_pruning()
    if peer is None:
        return
    example = torch.zeros(1, *shape)

    def build() -> Any:
        return peer.DependencyGraph().build_dependency(net, example)

    row("Torch-Pruning: follow the channels", fastest(build, max(1, rounds // 2)))
    times = []
    for _ in range(max(1, rounds // 2)):
        other = copy.deepcopy(net)
        dependencies = peer.DependencyGraph().build_dependency(other, example)
        modules = dict(other.named_modules())
        start, used = time.perf_counter(), time.process_time()
        for name, mask in structure.kept.items():
            gone = (~mask).nonzero().flatten().tolist()
            if gone:
                how = peer.prune_conv_out_channels
                dependencies.get_pruning_group(modules[name], how, gone).prune()
        times.append((time.perf_counter() - start, time.process_time() - used))
    row("Torch-Pruning: slim to the same structure", min(times))
    same = macs(other, shape) == structure.macs
    print(f"slimming: {min(times)[1] / slim[1]:.1f} × ours; it has the same multiply-adds: {same}")


def torch_pruning() -> Any:
    """The peer, or None, which is said."""
    try:
        peer = importlib.import_module("torch_pruning")
    except ImportError:
        print("torch-pruning is not installed: left out (pip install --no-deps torch-pruning)")
        return None
    print(f"torch-pruning {importlib.metadata.version('torch-pruning')}")
    return peer


def latencies(rounds: int) -> None:
    """Half the multiply-adds: how much of the time is left."""
    kinds = {
        "plain": (conv_net, (64, 64, 128, 128, 256, 256), (3, 32, 32)),
        "residual": (residual_net, (64, 96, 128), (3, 32, 32)),
        "depthwise": (depthwise_net, (32, 64, 128), (3, 64, 64)),
    }
    print(f"\n{'CPU time of one input':24}{'MMAC':>9}{'ms':>9}{'half':>9}{'ratio':>9}"
          f"{'multiple of 8':>16}")  # fmt: skip
    for name, (make, widths, shape) in kinds.items():
        net = make(shape[0], widths, 10).eval()
        graph = ChannelGraph(net, shape)
        halves = [prune_channels(net, uniform(graph, graph.macs() / 2, multiple=m)) for m in (1, 8)]
        best, inputs = [float("inf")] * 3, torch.zeros(1, *shape)
        for _ in range(rounds):
            for number, model in enumerate((net, *halves)):
                with torch.no_grad():
                    seconds = fastest(partial(model, inputs), 5)[1]
                best[number] = min(best[number], seconds)
        full, half, eights = best
        print(f"{name:24}{cost(net, shape).macs / 1e6:9.1f}{1e3 * full:9.2f}{1e3 * half:9.2f}"
              f"{half / full:9.2f}{eights / full:16.2f}")  # fmt: skip
    print("bar: 0.75 on a network of 50 MMAC or more")


def price() -> None:
    """Learning gates beside one training of the full network, both as the experiment has them."""
    from mmxx.data import digits

    train, _ = digits()
    pair = train.images.transpose(0, 3, 1, 2).copy(), train.labels
    item = {"train": pair, "seed": 0, "batch": 64}
    widths = (16, 16, 32, 32, 64, 64)
    full, wide = conv_net(1, widths, 10), conv_net(1, [w * 3 // 2 for w in widths], 10)
    pictures, labels = (torch.from_numpy(part) for part in pair)
    batches = list(zip(pictures.split(64), labels.split(64), strict=True))
    once = fastest(lambda: fit(full, item, 1), 3)
    gates = fastest(lambda: learn_gates(wide, batches, epochs=1), 3)
    print(f"\ndigits, one epoch: training {1e3 * once[1]:.0f} ms, gates on 1.5 × the width "
          f"{1e3 * gates[1]:.0f} ms of CPU time")  # fmt: skip
    for epochs in (15, 30, 160):
        count = 10 if epochs == 160 else 5
        share = count * gates[1] / (epochs * once[1])
        print(f"{count} epochs of gates are {share:.0%} of {epochs} epochs of training")


def main(argv: Sequence[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    search_and_slim(options.rounds)
    latencies(options.rounds)
    price()


if __name__ == "__main__":
    main()
