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
    small = copy.deepcopy(model)
    for name, module in small.named_modules():
        outs, ins = graph.along(name, "out"), graph.along(name, "in")
        if outs is not None:
            _cut(module, _index(flat, outs), None if ins is None else _index(flat, ins))
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


def _cut(module: Any, outs: Tensor, ins: Tensor | None) -> None:
    """Keep some outputs and inputs of a layer; ``ins`` is None where they are the outputs."""
    if isinstance(module, (*NORMS, nn.PReLU)):
        for key in ("weight", "bias", "running_mean", "running_var"):
            _select(module, key, outs, 0)
        setattr(
            module, "num_parameters" if isinstance(module, nn.PReLU) else "num_features", len(outs)
        )
        return
    _select(module, "bias", outs, 0)
    if isinstance(module, nn.Linear):
        assert ins is not None
        _select(module, "weight", outs, 0)
        _select(module, "weight", ins, 1)
        module.out_features, module.in_features = len(outs), len(ins)
        return
    transposed = isinstance(module, TRANSPOSED)
    if ins is None:  # depthwise: each group of outputs has its one input
        each = module.out_channels // module.groups
        module.groups = module.in_channels = len(outs) // each
        module.out_channels = len(outs)
        _select(module, "weight", outs[::each] // each if transposed else outs, 0)
        return
    if module.groups > 1:  # pinned, whole
        return
    _select(module, "weight", outs, 1 if transposed else 0)
    _select(module, "weight", ins, 0 if transposed else 1)
    module.out_channels, module.in_channels = len(outs), len(ins)


def _select(module: nn.Module, key: str, index: Tensor, axis: int) -> None:
    """Keep some places of a parameter or buffer, where the module has it."""
    tensor = getattr(module, key, None)
    if tensor is None:
        return
    chosen = tensor.detach().index_select(axis, index.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        chosen = nn.Parameter(chosen, requires_grad=tensor.requires_grad)
    setattr(module, key, chosen)
