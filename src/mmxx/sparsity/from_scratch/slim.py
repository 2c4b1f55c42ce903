"""Making the smaller network: layers, statistics and weights without what was removed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.sparsity.from_scratch.flow import NORMS, TRANSPOSED, refuse_shared_weights
from mmxx.sparsity.from_scratch.graph import stays
from mmxx.sparsity.from_scratch.structure import Structure


def prune_channels(
    model: nn.Module,
    structure: Structure,
    *,
    weights: bool = True,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A smaller network, of the same class, that has only the channels of a structure.

    With its weights it computes what the model computes with the other channels set to 0 (where
    activations map 0 to 0), so that it can be tuned further; the paper trains it from new ones.

    Args:
        model: The network of the structure, or another of the same shapes; it is left as it is.
        structure: Which channels stay.
        weights: Whether the weights and statistics that stay are those of the model; if not, each
            module draws them anew by its ``reset_parameters``.
        generator: Where new weights come from; torch's default generator if None.

    Returns:
        The smaller network, an ordinary module: it can be saved, traced, compiled and trained.

    Raises:
        ValueError: The structure is for another network; or ``weights=False`` and a module has
            parameters of its own but no ``reset_parameters``.

    Example:
        >>> from mmxx.sparsity.from_scratch import ChannelGraph, uniform
        >>> net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
        >>> prune_channels(net, uniform(ChannelGraph(net, (4,)), target_macs=20))[0]
        Linear(in_features=4, out_features=3, bias=True)
    """
    graph = structure.graph
    graph.check(model)
    refuse_shared_weights(model)
    if not weights:
        _check_resettable(model)
    flat = graph.flat(structure.kept)
    memo: dict[int, Any] = {}  # what stays of a tensor is what is copied for it
    sizes: dict[str, dict[str, int]] = {}
    for name, module in model.named_modules():
        outs, ins = graph.along(name, "out"), graph.along(name, "in")
        if outs is not None:
            cuts, sizes[name] = _plan(
                module, _index(flat, outs), None if ins is None else _index(flat, ins)
            )
            for key, places in cuts.items():
                tensor = getattr(module, key, None)
                if tensor is not None:
                    memo[id(tensor)] = _select(tensor, places)
    small = copy.deepcopy(model, memo)
    for name, changed in sizes.items():
        for attribute, size in changed.items():
            setattr(small.get_submodule(name), attribute, size)
    if not weights:
        reset(small, generator)
    return small


def reset(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew, in place, each module by its own ``reset_parameters``.

    Args:
        model: The network.
        generator: Where the draw comes from; torch's default generator if None.

    Raises:
        ValueError: A module has parameters of its own but no ``reset_parameters``.
    """
    _check_resettable(model)
    if generator is None:
        _reset_all(model)
        return
    with torch.random.fork_rng(devices=[]):  # reset_parameters knows the default generator only
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        _reset_all(model)


def _reset_all(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]


def _check_resettable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        own = [key for key, _ in module.named_parameters(recurse=False)]
        if own and not hasattr(module, "reset_parameters"):
            raise ValueError(
                f"model: {name or 'the model'} ({type(module).__name__}) has {', '.join(own)} but "
                "no reset_parameters, so that new weights cannot be drawn; use weights=True"
            )


# -- one layer ---------------------------------------------------------------------------------


def _index(flat: np.ndarray, places: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(stays(flat, places)))


_Cuts = dict[str, tuple[tuple[int, Tensor], ...]]


def _plan(module: Any, outs: Tensor, ins: Tensor | None) -> tuple[_Cuts, dict[str, int]]:
    """Which places stay along which axes of a layer's tensors, and its new sizes.

    ``ins`` is None where the inputs are the outputs.
    """
    if isinstance(module, (*NORMS, nn.PReLU)):
        size = "num_parameters" if isinstance(module, nn.PReLU) else "num_features"
        keys = ("weight", "bias", "running_mean", "running_var")
        return dict.fromkeys(keys, ((0, outs),)), {size: len(outs)}
    bias = ((0, outs),)
    if isinstance(module, nn.Linear):
        assert ins is not None
        sizes = {"out_features": len(outs), "in_features": len(ins)}
        return {"bias": bias, "weight": ((0, outs), (1, ins))}, sizes
    transposed = isinstance(module, TRANSPOSED)
    if ins is None:  # depthwise: each group of outputs has its one input
        each = module.out_channels // module.groups
        rows = outs[::each] // each if transposed else outs
        sizes = {"groups": len(outs) // each, "in_channels": len(outs) // each}
        return {"bias": bias, "weight": ((0, rows),)}, {**sizes, "out_channels": len(outs)}
    if module.groups > 1:  # pinned, whole
        return {}, {}
    weight = ((0, ins), (1, outs)) if transposed else ((0, outs), (1, ins))
    sizes = {"out_channels": len(outs), "in_channels": len(ins)}
    return {"bias": bias, "weight": weight}, sizes


def _select(tensor: Tensor, places: tuple[tuple[int, Tensor], ...]) -> Tensor:
    """Some places of a parameter or buffer, as a new one."""
    chosen = tensor.detach()
    for axis, index in places:
        chosen = chosen.index_select(axis, index.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(chosen, requires_grad=tensor.requires_grad)
    return chosen
