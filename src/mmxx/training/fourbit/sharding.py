"""Sharded training (FSDP) whose ranks send each other converted weights as packed INT4."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmxx.training.fourbit import rounding
from mmxx.training.fourbit.conversion import layers_of
from mmxx.training.fourbit.sawb import clipped_at

_aten = torch.ops.aten
_KEEPS = {  # by these FSDP and DTensor make a rank's rows of a parameter
    _aten.detach.default, _aten.clone.default, _aten._to_copy.default, _aten.copy_.default,
    _aten.new_zeros.default, _aten.empty_like.default, _aten.view.default,
    _aten.as_strided.default, _aten.slice.Tensor, _aten.split.Tensor,
}  # fmt: skip


class _Shard(Tensor):
    """A rank's rows of a weight. FSDP asks it what to send, and what to make of what came.

    A wrapper of a plain tensor, since operators between FSDP and the parameter would lose a mere
    subclass.
    """

    _rows: Tensor

    @staticmethod
    def __new__(cls, rows: Tensor) -> _Shard:
        made = Tensor._make_wrapper_subclass(
            cls, rows.size(), strides=rows.stride(), storage_offset=rows.storage_offset(),
            dtype=rows.dtype, layout=rows.layout, device=rows.device,
            requires_grad=rows.requires_grad,
        )  # fmt: skip
        made._rows = rows
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = tree_map_only(cls, lambda shard: shard._rows, (args, kwargs or {}))
        out = func(*plain[0], **plain[1])
        return tree_map_only(Tensor, cls, out) if func in _KEEPS else out

    def fsdp_pre_all_gather(
        self, mesh: Any, outer_size: Any, outer_stride: Any, module: Any, mp_policy: Any
    ) -> tuple[tuple[Tensor], Any]:
        """The codes of the rows, for a clipping value that all ranks agree on."""
        import torch.distributed as dist

        rows = self._rows
        wide = rows.double()
        sums = torch.stack([wide.abs().sum(), wide.square().sum()])
        peak = wide.abs().max()
        dist.all_reduce(sums, group=mesh.get_group())
        dist.all_reduce(peak, dist.ReduceOp.MAX, group=mesh.get_group())
        mean, square = (sums / math.prod(outer_size)).tolist()
        alpha = clipped_at(mean, math.sqrt(square), float(peak))
        step = rows.new_tensor(alpha / 7)
        _, packed = rounding.grid(rows, 1 / step, -7, 7, pack=True)
        return (packed,), (step, rows.numel(), outer_size)

    def fsdp_post_all_gather(
        self, gathered: Any, metadata: Any, param_dtype: torch.dtype, *, out: Tensor | None = None
    ) -> Any:
        """The rounded weight, of the codes of all ranks."""
        (packed,) = gathered
        step, each, shape = metadata
        parts = packed.view(-1, (each + 1) // 2)
        levels = [rounding.unpack_grid(part, [each], True, step.dtype) for part in parts]
        weight = (torch.cat(levels) * step).view(shape).to(param_dtype)
        if out is None:
            return weight, (weight,)
        out.data.copy_(weight)  # the same weight as before: its version stays for autograd
        return None


def shard(model: nn.Module, mesh: Any = None) -> tuple[str, ...]:
    """Shard a converted model by FSDP, its INT4 weights gathered as two codes a byte.

    torch's ``fully_shard`` on each converted layer and on the model. Each rank keeps its rows in
    full precision, for the optimizer; what travels before the forward and the backward pass is an
    eighth of float32. Clipping values are those of the whole weight, so that all ranks multiply
    what one process would. Make the optimizer afterwards, and call `synchronise_scales` after the
    backward pass.

    Args:
        model: A model of `convert`, changed in place: the parameters become sharded.
        mesh: A device mesh; by default one of all ranks.

    Returns:
        The names of the weights that travel packed. Left out are those of layers without "sawb"
        weights or with 8-bit floats, and those whose first side the ranks do not divide.

    Raises:
        ValueError: No layer of the model is converted.

    Example:
        ``torchrun --nproc-per-node 2 train.py`` with, in train.py after
        ``dist.init_process_group("gloo")``::

            convert(model)
            shard(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = list(layers_of(model))
    if not layers:
        raise ValueError("the model has no layer with four-bit weights; convert it first")
    if mesh is None:
        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
    packed = []
    for name, layer in layers:
        rounded = layer.recipe.weights == "sawb" and not layer.has_eight_bits
        if rounded and layer.weight.shape[0] % mesh.size() == 0:
            rows = _Shard(layer.weight.detach())
            layer.weight = nn.Parameter(rows, requires_grad=layer.weight.requires_grad)
            layer.recipe = replace(layer.recipe, weights=None)  # what arrives is rounded
            packed.append(f"{name}.weight" if name else "weight")
        if layer is not model:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return tuple(packed)
