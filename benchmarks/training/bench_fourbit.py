"""Rounding beside a copy and qtorch; a training step beside FP32; SAWB beside the least error.

All take turns in one process, on the same tensors; the fastest of each counts.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from mmxx.training.fourbit import (
    Int4Sym,
    Log2FP4,
    Radix4FP4,
    convert,
    quantize,
    rounding,
    sawb_alpha,
)
from mmxx.training.fourbit.arms import Transformer

Clock = Callable[[], float]


def fastest(calls: dict[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, float]:
    """Seconds of the fastest call of each; they take turns."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def peer() -> Callable[[Tensor], Tensor] | None:
    """qtorch's rounding to three exponent bits and no mantissa, where it is installed."""
    try:
        from qtorch.quant import float_quantize
    except ImportError:
        print("qtorch is not installed: left out (pip install qtorch)")
        return None
    print(f"qtorch {importlib.metadata.version('qtorch')}")
    return lambda x: float_quantize(x, 3, 0, rounding="nearest")


def by_logarithm(x: Tensor) -> Tensor:
    """Radix-4 rounding as it is usually written, in torch operations."""
    power = torch.floor(torch.log2(1.6 * x.abs()) / 2).clamp(-4, 3)
    return torch.where(power < -3, 0.0, torch.pow(4.0, power) * x.sign())


def compare_rounding(size: int, rounds: int, clock: Clock) -> None:
    """Print how long rounding takes, as multiples of a copy."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 1e-3
    out = torch.empty_like(x)
    scaled, form = x * 2.0**14, Radix4FP4()
    calls: dict[str, Callable[[], object]] = {
        "copy": lambda: out.copy_(x),
        "copy into new memory": x.clone,
        "radix-4 FP4": lambda: quantize(x, form, 2.0**14),
        "radix-4 FP4, both phases": lambda: rounding.powers(x, form.powers, 14, two_phases=True),
        "radix-2 FP4": lambda: quantize(x, Log2FP4(), 2.0**10),
        "radix-2 FP4, stochastic": lambda: quantize(x, Log2FP4(stochastic=True), 2.0**10),
        "INT4": lambda: quantize(x, Int4Sym(), 2000.0),
        "radix-4 by logarithms": lambda: by_logarithm(scaled),
    }
    other = peer()
    if other is not None:
        calls["qtorch float_quantize(3, 0)"] = lambda: other(scaled)
    best = fastest(calls, rounds, clock)
    print(f"\n{size} float32, {torch.get_num_threads()} thread(s)")
    print(f"{'':30}{'ms':>9}{'× copy':>9}{'qtorch / it':>13}")
    reference = best.get("qtorch float_quantize(3, 0)")
    for name, seconds in best.items():
        times = f"{reference / seconds:.1f}" if reference else "-"
        print(f"{name:30}{1e3 * seconds:9.2f}{seconds / best['copy']:9.2f}{times:>13}")


def compare_clipping(size: int) -> None:
    """Print how far from the least error of INT4 SAWB's formula clips."""
    rng = np.random.default_rng(0)
    samples = {
        "normal": rng.normal(size=size),
        "uniform": rng.uniform(-1, 1, size),
        "Laplace": rng.laplace(size=size),
        "logistic": rng.logistic(size=size),
        "two normals": rng.normal(size=size) * (1 + (rng.random(size) < 0.3)),
        "triangle": rng.triangular(-1, 0, 1, size),
    }
    print(f"\nSAWB on {size} numbers, beside where the squared error is least")
    print(f"{'':30}{'alpha':>9}{'best':>9}{'error':>9}")
    for name, drawn in samples.items():
        x = torch.from_numpy(drawn)

        def error(alpha: float, x: Tensor = x) -> float:
            return float((quantize(x, Int4Sym(), 7 / alpha) - x).square().mean())

        top = float(x.abs().max())
        near = min(np.linspace(0.1, 1, 50) * top, key=error)
        best = minimize_scalar(error, (0.97 * near, near, 1.03 * near), tol=1e-3)
        alpha = sawb_alpha(x)
        more = 100 * (error(alpha) / best.fun - 1)
        print(f"{name:30}{alpha:9.3f}{best.x:9.3f}{more:+8.1f}%")


def kept_bytes(net: nn.Module, x: Tensor, kind: type[nn.Module]) -> int:
    """Bytes that the layers of one kind keep for the backward pass, parameters apart."""
    own = {t.data_ptr() for t in (*net.parameters(), *net.buffers())}
    total, inside = 0, False

    def keep(tensor: Tensor) -> Tensor:
        nonlocal total
        if inside and tensor.data_ptr() not in own:
            total += tensor.numel() * tensor.element_size()
        return tensor

    def enter(module: nn.Module, args: object) -> None:
        nonlocal inside
        inside = True

    def leave(module: nn.Module, args: object, out: object) -> None:
        nonlocal inside
        inside = False

    layers = [module for module in net.blocks.modules() if isinstance(module, kind)]
    handles = [layer.register_forward_pre_hook(enter) for layer in layers]
    handles += [layer.register_forward_hook(leave) for layer in layers]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(x)
    for handle in handles:
        handle.remove()
    return total


def compare_steps(rounds: int, clock: Clock) -> None:
    """Print how long a training step takes, and what it keeps, beside FP32."""
    torch.manual_seed(0)
    plain = Transformer(96, 64, 64, 3, 4)
    nets = {"FP32": plain}
    for recipe in ("ibm4", "luq4"):
        nets[recipe] = copy.deepcopy(plain)
        convert(nets[recipe], recipe)
    pieces = torch.randint(96, (16, 65))
    x, y = pieces[:, :-1], pieces[:, 1:].flatten()

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    calls = {}
    for name, net in nets.items():
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
        calls[name] = lambda net=net, optimizer=optimizer: step(net, optimizer)
    best = fastest(calls, rounds, clock)
    kept = {name: kept_bytes(net, x, nn.Linear) for name, net in nets.items()}
    print("\na step of the transformer of the experiment (3 blocks, width 64, 16 × 64 characters)")
    print(f"{'':30}{'ms':>9}{'× FP32':>9}{'KiB kept by its layers':>24}{'× FP32':>9}")
    for name, seconds in best.items():
        share = kept[name] / kept["FP32"]
        print(
            f"{name:30}{1e3 * seconds:9.2f}{seconds / best['FP32']:9.2f}"
            f"{kept[name] / 1024:24.0f}{share:9.3f}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4_200_000, help="numbers to round")
    parser.add_argument("--rounds", type=int, default=15, help="turns")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--wall", action="store_true", help="wall time in place of CPU time")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.wall else time.process_time
    compare_rounding(options.size, options.rounds, clock)
    compare_steps(2 * options.rounds, clock)
    compare_clipping(50_000)


if __name__ == "__main__":
    main()
