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
# Recorded later on a third machine: STRUCTURED_DERIVATIVES under jax.jit with vmap_axes=0, one
# thread, CPU time without compiling, and what vmap(jacrev) took there.
COMPILED = {32: 5.0, 128: 63.4}
COMPILED_RECIPE = 1707.0
CHANNELS = {(32, 32, 64): (27.9, 56.2), (64, 128, 256): (229.6, 637.2)}
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


def compare(
    name: str, net: nn.Module, x: Tensor, rounds: int, recipe_rounds: int
) -> tuple[float, float]:
    """Print what one size costs; milliseconds of ours and of the recipe, if it ran."""
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
        return ours, 0.0
    other = recipe(net, x)
    error = float((kernel - other).norm() / other.norm())
    theirs = best(lambda: recipe(net, x), recipe_rounds)
    print(f"  vmap(jacrev)         {theirs:10.1f} ms   {theirs / ours:.1f} × ours")
    print(f"  relative difference  {error:10.1e}")
    return ours, theirs


def recorded(way: str, there: float, speed: float, ours: float) -> None:
    """Print a figure of neural-tangents, brought to this machine's speed."""
    here = there * speed
    print(
        f"  neural-tangents 0.6.5, {way}, recorded, other machine: {there:,.1f} ms; at this "
        f"machine's speed {here:,.1f} ms, {here / ours:.2f} × ours"
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
    ours = dict.fromkeys(RECORDED, 0.0)
    ours[128], _ = compare("dense", net, samples[128], options.rounds, 0)
    ours[32], calibration = compare(
        "dense", net, samples[32], options.rounds, max(1, options.recipe_rounds)
    )
    there = RECORDED[32][0]
    assert there is not None
    print(
        f"\n  calibration: vmap(jacrev) takes {calibration / there:.2f} of the other machine's time"
    )
    for n, milliseconds in ours.items():
        compiled = f"N = {n}, structured and compiled"
        recorded(compiled, COMPILED[n], calibration / COMPILED_RECIPE, milliseconds)
        vectors = f"N = {n}, vector products, not compiled"
        recorded(vectors, RECORDED[n][1], calibration / there, milliseconds)
    pictures = torch.randn(16, 3, 16, 16, generator=generator)
    for channels, (compiled, beside) in CHANNELS.items():
        net = convolutional(channels)
        name = f"convolutional {channels}"
        here = compare(name, net, pictures, options.rounds, max(1, options.recipe_rounds))
        recorded("structured and compiled", compiled, here[1] / beside, here[0])


if __name__ == "__main__":
    main()
