"""A model that no device could train alone: parameters, gradients and moments over all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmxx.language.gpt3.training import Training
from mmxx.nn.gpt import GPT


def shard(model: GPT, mesh: Any = None, *, dtype: torch.dtype | None = None) -> None:
    """Shard a model over ranks by FSDP2: each block, and the rest as a whole.

    Args:
        model: Changed in place; make `Training` afterwards.
        mesh: A device mesh; by default one of all ranks.
        dtype: Precision of the forward pass, such as torch.bfloat16; gradients are added up in
            single precision.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if mesh is None:
        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=None if dtype is None else torch.float32
    )
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def whole_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights of a model, of a sharded one put together; every rank must ask.

    Args:
        model: A model, perhaps sharded by `shard`.

    Returns:
        What ``load_state_dict`` of a model that is not sharded takes.
    """
    state: dict[str, Any] = model.state_dict()
    return {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in state.items()
    }


class WholeState:
    """Weights and moments of a sharded training as one process would hold them: for checkpoints.

    Every rank must ask, and only the first is answered; every rank must load, the same. What two
    ranks saved, any number can go on from.

    Args:
        model: A model of `shard`.
        training: Its training.
    """

    def __init__(self, model: GPT, training: Training) -> None:
        self._model, self._training = model, training

    def state_dict(self) -> dict[str, Any]:
        """Whole tensors on the CPU; on ranks other than the first there are none."""
        from torch.distributed.checkpoint import state_dict as distributed

        options = distributed.StateDictOptions(full_state_dict=True, cpu_offload=True)
        optimizer = self._training.optimizer
        self._gather_no_more()
        # asked for moments that are not there yet, torch would take a step to have some
        moments = (
            distributed.get_optimizer_state_dict(self._model, optimizer, options=options)
            if optimizer.state
            else None
        )
        model = distributed.get_model_state_dict(self._model, options=options)
        return {"model": model, "optimizer": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave to the first rank."""
        from torch.distributed.checkpoint import state_dict as distributed

        options = distributed.StateDictOptions(full_state_dict=True)
        optimizer = self._training.optimizer
        self._gather_no_more()
        distributed.set_model_state_dict(self._model, state["model"], options=options)
        if state["optimizer"] is None:
            optimizer.state.clear()
        else:
            distributed.set_optimizer_state_dict(
                self._model, optimizer, state["optimizer"], options=options
            )

    def _gather_no_more(self) -> None:
        """A pass without gradients leaves whole weights where the optimizer's parts should be."""
        model: Any = self._model
        model.reshard()
