"""The tangent kernel beside torch.func's vmap(jacrev), and neural-tangents as recorded.

All compute the whole kernel [N, N, 10, 10] of a network 784-512-512-10 or of convolutional ones.
The fastest of several runs counts, in CPU time, which a shared machine disturbs less.
neural-tangents 0.6.5 cannot be imported beside a present jax: its figures were recorded on
another machine together with vmap(jacrev), which runs here as the calibration.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from mmxx.training.tangent import ntk

# Milliseconds on one core of the other machine: N: (vmap(jacrev), neural-tangents at its best,
# which there was NTK_VECTOR_PRODUCTS); vmap(jacrev) was not run at 128.
RECORDED = {32: (6904.0, 1970.0), 128: (None, 25364.0)}
# Recorded later on a third machine, where vmap(jacrev) took 1,962 ms: STRUCTURED_DERIVATIVES under
# jax.jit with vmap_axes=0, one thread, CPU time without compiling.
COMPILED = {32: 10.0, 128: 129.0}
COMPILED_RECIPE = 1962.0
CLASSES = 10


def dense() -> nn.Module:
    """784-512-512-10 with ReLU."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES)
    )


def convolutional(channels: tuple[int, int, int]) -> nn.Module:
    """Three convolutions on pictures of 16 × 16, and a head."""
    torch.manual_seed(0)
    one, two, three = channels
    return nn.Sequential(
        nn.Conv2d(3, one, 3, padding=1), nn.ReLU(), nn.Conv2d(one, two, 3, stride=2, padding=1),
        nn.ReLU(), nn.Conv2d(two, three, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(three * 16, CLASSES),
    )  # fmt: skip


def recipe(net: nn.Module, x: Tensor) -> Tensor:
    """The kernel by vmap(jacrev) and a product per parameter, as torch's tutorial has it."""
    values = {name: value.detach() for name, value in net.named_parameters()}

    def of_sample(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(net, params, (sample[None],))[0]

    parts = vmap(jacrev(of_sample), (None, 0))(values, x)
    flat = [part.flatten(2) for part in parts.values()]
    return sum(torch.einsum("Naf,Mbf->NMab", part, part) for part in flat)  # type: ignore[return-value]


def best(call: Callable[[], object], rounds: int) -> float:
    """Milliseconds of CPU time of the fastest run."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def peak() -> float:
    """MiB of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(name: str, net: nn.Module, x: Tensor, rounds: int, recipe_rounds: int) -> float | None:
    """Print what one size costs; milliseconds of the recipe, if it ran."""
    n, size = len(x), sum(value.numel() for value in net.parameters())
    print(f"\n{name}: N = {n}, {CLASSES} outputs, {size:,} parameters, float32")
    before = peak()
    kernel = ntk(net, x)
    extra = peak() - before
    ours = best(lambda: ntk(net, x), rounds)
    print(f"  ours, structured     {ours:10.1f} ms")
    if not recipe_rounds:  # whose memory would hide ours
        jacobian = n * CLASSES * size * 4 / 2**20
        print(f"  peak memory grows by {extra:10.0f} MiB  (the Jacobian has {jacobian:,.0f} MiB)")
    trace = best(lambda: ntk(net, x, trace=True), rounds)
    print(f"  ours, trace=True     {trace:10.1f} ms")
    if not recipe_rounds:
        return None
    other = recipe(net, x)
    error = float((kernel - other).norm() / other.norm())
    theirs = best(lambda: recipe(net, x), recipe_rounds)
    print(f"  vmap(jacrev)         {theirs:10.1f} ms   {theirs / ours:.1f} × ours")
    print(f"  relative difference  {error:10.1e}")
    return theirs


def recorded(n: int, ours: float, factor: float, calibration: float | None) -> None:
    """Print the figures of neural-tangents, brought to this machine's speed."""
    there = RECORDED[n][1]
    compiled = COMPILED[n] * ((calibration or COMPILED_RECIPE) / COMPILED_RECIPE)
    print(
        f"  neural-tangents 0.6.5, N = {n}, structured and compiled, recorded, other machine: "
        f"{COMPILED[n]:,.0f} ms; at this machine's speed {compiled:,.0f} ms, "
        f"{compiled / ours:.2f} × ours"
    )
    scaled = there * factor
    print(
        f"  neural-tangents 0.6.5, N = {n}, vector products, recorded, other machine: "
        f"{there:,.0f} ms; at this machine's speed {scaled:,.0f} ms, {scaled / ours:.0f} × ours"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="runs of ours")
    parser.add_argument("--recipe-rounds", type=int, default=2, help="runs of vmap(jacrev)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    net = dense()
    samples = {n: torch.randn(n, 784, generator=generator) for n in RECORDED}
    compare("dense", net, samples[128], options.rounds, 0)
    calibration = compare("dense", net, samples[32], options.rounds, options.recipe_rounds)
    there = RECORDED[32][0]
    factor = calibration / there if calibration and there else 1.0
    print(f"\n  calibration: vmap(jacrev) takes {factor:.2f} of its time on the other machine")
    for n, x in samples.items():
        recorded(n, best(lambda x=x: ntk(net, x), options.rounds), factor, calibration)
    pictures = torch.randn(16, 3, 16, 16, generator=generator)
    for channels in ((32, 32, 64), (64, 128, 256)):
        net = convolutional(channels)
        name = f"convolutional {channels}"
        compare(name, net, pictures, options.rounds, options.recipe_rounds)


if __name__ == "__main__":
    main()
