"""What a network costs: multiply-adds, parameters, seconds; and how long a small one may train."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.sparsity.from_scratch.flow import TRANSPOSED, WEIGHTED, meta_input, skeleton


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        macs: Multiply-adds of convolutions and linear layers for one input, without biases.
        parameters: The number of parameters.
        per_layer: The multiply-adds of each layer.
    """

    macs: int
    parameters: int
    per_layer: dict[str, int]


def cost(model: nn.Module, input_shape: Sequence[int]) -> Cost:
    """Count the multiply-adds of one input's way through a network, and its parameters.

    Nothing is computed: the network runs on shapes. Layers count as often as they are called.

    Args:
        model: Any network whose way does not depend on values; it is left as it is.
        input_shape: Shape of one input without the batch, such as (3, 224, 224).

    Raises:
        ValueError: The network does not run on such an input, or on shapes alone.

    Example:
        >>> cost(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), (3, 32, 32))
        Cost(macs=221184, parameters=224, per_layer={'0': 221184})
    """
    net, per_layer = skeleton(model), {}

    def count(name: str) -> Any:
        def hook(module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
            each = module.weight[0].numel()
            places = args[0].numel() if isinstance(module, TRANSPOSED) else output.numel()
            per_layer[name] = per_layer.get(name, 0) + places * each

        return hook

    for name, module in net.named_modules():
        if isinstance(module, WEIGHTED):
            module.register_forward_hook(count(name))
    try:
        with torch.no_grad():
            net(meta_input(net, input_shape))
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"input_shape: the model does not run on inputs of {tuple(input_shape)}: {error}"
        ) from error
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(sum(per_layer.values()), parameters, per_layer)


def macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """The multiply-adds of one input's way through a network; see `cost`.

    Args:
        model: Any network whose way does not depend on values.
        input_shape: Shape of one input without the batch.

    Raises:
        ValueError: As `cost` does.
    """
    return cost(model, input_shape).macs


@torch.no_grad()
def latency(
    model: nn.Module, input_shape: Sequence[int], *, batch: int = 1, repeats: int = 20
) -> float:
    """Seconds for one batch in evaluation mode: the fastest of several.

    Args:
        model: The network; its mode is given back.
        input_shape: Shape of one input without the batch.
        batch: Inputs at a time.
        repeats: How many batches are timed, after one that is not.

    Raises:
        ValueError: A number is below 1.
    """
    for name, value in (("batch", batch), ("repeats", repeats)):
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    like = next(model.parameters(), torch.empty(0))
    shape = meta_input(model, input_shape).shape[1:]
    inputs = torch.zeros(batch, *shape, dtype=like.dtype, device=like.device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        model(inputs)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            model(inputs)
            if like.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return min(seconds)


def scratch_budget(epochs: int, ratio: float) -> int:
    r"""Epochs of a pruned network that cost as much as the full one's: $e / (1 - \mathrm{ratio})$.

    Args:
        epochs: Of the full network.
        ratio: The share of multiply-adds that is gone.

    Raises:
        ValueError: An argument is out of range.

    Source: "Scratch-B" of Liu et al. 2019, which the paper trains by.

    Example:
        >>> scratch_budget(160, 0.5)
        320
    """
    if isinstance(epochs, bool) or epochs != int(epochs) or epochs < 1:
        raise ValueError(f"epochs must be a whole number of 1 or more, got {epochs!r}")
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must be in [0, 1), got {ratio}")
    return math.floor(epochs / (1 - ratio) + 1e-9)
