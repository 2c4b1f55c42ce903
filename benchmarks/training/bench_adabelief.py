"""One step of AdaBelief beside adabelief-pytorch, pytorch_optimizer and torch's AdamW.

They take turns on the same random tensors; the fastest step of each counts, and the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import resource
import time
from collections.abc import Callable, Sequence

import torch

from mmxx.training.adabelief import AdaBelief

SIZES = {"large": (160, 160_000), "many": (2000, 512)}
PEERS = {"adabelief-pytorch": "adabelief_pytorch", "pytorch-optimizer": "pytorch_optimizer"}
WARM, TIMED = 6, 4  # steps: the first few are rectified otherwise and make the state
BYTES = 28  # read gradient, parameter, mean, belief; write the last three


def optimizers(
    *, quiet: bool
) -> dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]]:
    """What is compared; a peer that is not installed is named and left out."""
    found: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
        "ours, fused": lambda params: AdaBelief(params, fused=True),
        "ours, foreach": lambda params: AdaBelief(params, foreach=True),
        "ours, single": lambda params: AdaBelief(params, fused=False),
        "AdamW fused": lambda params: torch.optim.AdamW(params, fused=True),
        "AdamW foreach": lambda params: torch.optim.AdamW(params, foreach=True),
    }
    for package, module in PEERS.items():
        try:
            peer = importlib.import_module(module)
        except ImportError:
            if not quiet:
                print(f"{package} is not installed: left out (pip install {package})")
            continue
        version = importlib.metadata.version(package)
        if module == "adabelief_pytorch":
            found[f"{package} {version}"] = lambda params, peer=peer: _silent(
                lambda: peer.AdaBelief(params, print_change_log=False)
            )
        else:
            found[f"{package} {version}"] = lambda params, peer=peer: peer.AdaBelief(
                params, rectify=True, eps=1e-16, foreach=False
            )
            found[f"{package} {version}, foreach"] = lambda params, peer=peer: peer.AdaBelief(
                params, rectify=True, eps=1e-16, foreach=True
            )
    return found


def _silent(make: Callable[[], torch.optim.Optimizer]) -> torch.optim.Optimizer:
    with contextlib.redirect_stdout(io.StringIO()):
        return make()


def tensors(count: int, size: int) -> list[torch.nn.Parameter]:
    """Parameters with gradients, the same for everyone."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(size, generator=generator)) for _ in range(count)]
    for param in params:
        param.grad = torch.randn(size, generator=generator)
    return params


def compare(name: str, rounds: int) -> None:
    """Time one size and print its table. One optimizer at a time is in memory."""
    count, size = SIZES[name]
    times: dict[str, list[float]] = {}
    extra = 0
    for _ in range(rounds):
        for label, make in optimizers(quiet=bool(times)).items():
            optimizer = make(tensors(count, size))
            for _ in range(WARM):
                optimizer.step()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(TIMED):
                start = time.perf_counter()
                optimizer.step()
                times.setdefault(label, []).append(time.perf_counter() - start)
            if label == "ours, fused":
                extra = max(extra, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            del optimizer
    best = {label: min(seconds) for label, seconds in times.items()}
    reference = next((label for label in best if label.startswith("adabelief-pytorch")), None)
    print(f"\n{count} tensors of {size} float32, one step, {torch.get_num_threads()} thread(s)")
    print(f"{'':34}{'ms':>9}{'GB/s':>7}{'× adabelief-pytorch':>21}{'of AdamW fused':>16}")
    for label, seconds in best.items():
        rate = count * size * BYTES / seconds / 1e9
        faster = f"{best[reference] / seconds:.2f}" if reference else "-"
        share = seconds / best["AdamW fused"]
        print(f"{label:34}{1e3 * seconds:9.2f}{rate:7.1f}{faster:>21}{share:16.2f}")
    print(f"peak memory that a fused step adds: {extra} KiB")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help=f"turns of {TIMED} steps each")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and the kernel")
    parser.add_argument("--size", choices=SIZES, action="append", help="which tensors (both)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    for name in options.size or SIZES:
        compare(name, options.rounds)


if __name__ == "__main__":
    main()
