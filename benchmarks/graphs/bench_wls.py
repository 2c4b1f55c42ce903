"""Time WLS vectors, refinement and layers beside GraKeL and PyTorch Geometric, on one thread.

CPU seconds, the least of several turns. Real sets of graphs are taken where MMXX_DATA names them,
else graphs of the same size are drawn. The calibration loop says how fast this core is: x = x a + b
on 16 doubles.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit

from mmxx.data import Graphs, as_graphs, read_tu
from mmxx.graphs.wls import WLSConv, WLSTransformer, WLSubtreeKernel
from mmxx.graphs.wls.aggregation import aggregate
from mmxx.graphs.wls.kernel import gaussian


def seconds(work: Callable[[], Any], turns: int) -> float:
    """The least CPU time of several turns, after one that does not count where there are more."""
    if turns > 1:
        work()
    found = []
    for _ in range(turns):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


@njit(cache=True)
def calibrate(rounds: int) -> float:
    """The loop that other machines' figures are scaled by."""
    x = np.linspace(0.0, 1.0, 16)
    for _ in range(rounds):
        for place in range(16):
            x[place] = x[place] * 0.999999 + 1e-6
    return x.sum()


def public(name: str, count: int, nodes: int, degree: float, width: int) -> tuple[str, Graphs]:
    """A public set of graphs, or drawn ones of its size."""
    place = Path(os.environ.get("MMXX_DATA", "")) / "graphs" / "tu" / f"{name}.zip"
    if "MMXX_DATA" in os.environ and place.is_file():
        return name, read_tu(place)
    rng = np.random.default_rng(0)
    graphs = []
    for _ in range(count):
        ends = rng.integers(nodes, size=(2, round(nodes * degree / 2)))
        graphs.append((np.hstack([ends, ends[::-1]]), rng.normal(size=(nodes, width))))
    return f"drawn as {name}", as_graphs(graphs)


def vectors(turns: int) -> None:
    """Features of all rounds by projection, and a kernel matrix."""
    name, data = public("Synthie", 400, 92, 4.4, 15)
    print(f"\nvectors of {name}: {len(data)} graphs, {data.n_nodes:,} nodes, 5 rounds")
    part = data.subset(range(40))
    share = part.n_nodes / data.n_nodes
    sketch = WLSTransformer(random_state=0).fit(data)
    ours = seconds(partial(sketch.transform, data), turns)
    print(f"  sketch, D = 200              {ours:8.2f} s")
    few = seconds(partial(sketch.transform, part), turns)
    for dim in (64, 200):
        packed = WLSTransformer(dim=dim, projection="gaussian", random_state=0).fit(part)
        slow = seconds(partial(packed.transform, part), 1)
        ratio = f", {slow / few:.1f} × the sketch" if dim == 200 else ""
        print(f"  packed Gaussian, D = {dim:<4}    {slow / share:8.2f} s, of 40 graphs{ratio}")
    X = np.random.default_rng(0).normal(size=(4000, 200))
    took = seconds(partial(gaussian, X, X, 0.01), turns)
    print(f"  kernel matrix of 4,000       {took:8.2f} s")


def refinement(turns: int) -> None:
    """The subtree kernel beside GraKeL's."""
    name, data = public("PROTEINS_full", 1113, 39, 3.7, 1)
    labels = data.node_labels
    if labels is None:
        labels = np.zeros(data.n_nodes, dtype=np.int64)
    print(f"\nWL subtree kernel of {name}: {len(data)} graphs, {data.n_nodes:,} nodes, 5 rounds")
    kernel = WLSubtreeKernel(5)
    K = kernel.fit_transform(data)
    ours = seconds(partial(kernel.fit_transform, data), turns)
    print(f"  mmxx                         {ours:8.3f} s")
    try:
        grakel: Any = importlib.import_module("grakel")
    except ModuleNotFoundError:
        print("  GraKeL (pip install grakel: left out)")
        return
    source, target = data.edge_index
    theirs = []
    for first, last in pairwise(data.offsets.tolist()):
        edges = slice(int(data.indptr[first]), int(data.indptr[last]))
        pairs = zip(source[edges].tolist(), target[edges].tolist(), strict=True)
        named = {node: int(labels[node]) for node in range(first, last)}
        theirs.append(grakel.Graph(dict.fromkeys(pairs, 1), node_labels=named))
    results: list[Any] = []

    def run() -> None:
        weisfeiler = grakel.WeisfeilerLehman(n_iter=5, base_graph_kernel=grakel.VertexHistogram)
        results.append(weisfeiler.fit_transform(theirs))

    other = seconds(run, 1)
    same = "equal to the integer" if np.array_equal(results[0], K) else "DIFFERENT"
    print(f"  GraKeL                       {other:8.3f} s, {other / ours:.0f} × ours, {same}")


def layers(turns: int) -> None:
    """A layer, forward and back, beside PyTorch Geometric's GINConv with the same transform."""
    name, data = public("ENZYMES", 600, 33, 3.8, 18)
    part = data.subset(range(100))
    index = torch.from_numpy(part.edge_index)
    x = torch.randn(part.n_nodes, 50, generator=torch.Generator().manual_seed(0))
    print(f"\na layer of 50 columns on 100 graphs of {name}, forward and back")
    layer = WLSConv(50, 50)
    ours = seconds(lambda: layer(x, index).sum().backward(), turns)
    print(f"  WLSConv                      {1e3 * ours:8.2f} ms")
    try:
        pyg: Any = importlib.import_module("torch_geometric.nn")
    except ModuleNotFoundError:
        print("  PyTorch Geometric (pip install torch-geometric: left out)")
        return
    theirs = pyg.GINConv(WLSConv(50, 50).transform)
    other = seconds(lambda: theirs(x, index).sum().backward(), turns)
    print(f"  GINConv, the same MLP        {1e3 * other:8.2f} ms, {other / ours:.2f} × ours")
    reference = pyg.WLConvContinuous()(x, index).numpy()
    off = np.abs(aggregate("wwl", x.double().numpy(), part) - reference).max()
    print(f"  WLConvContinuous and our WWL differ by {off:.1e} at most")


def main(argv: list[str] | None = None) -> None:
    """Print all parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5, help="turns of each job")
    turns = parser.parse_args(argv).turns
    torch.set_num_threads(1)
    print(f"calibration loop, 10^8 rounds: {10 * seconds(lambda: calibrate(10**7), 2):.2f} s")
    vectors(turns)
    refinement(turns)
    layers(turns)


if __name__ == "__main__":
    main()
