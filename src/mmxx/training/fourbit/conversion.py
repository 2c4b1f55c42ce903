"""Converting a model and back, its statistics, its scales on several ranks, its export."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.training.fourbit import operators
from mmxx.training.fourbit.formats import unpack
from mmxx.training.fourbit.layers import KINDS, Quantized
from mmxx.training.fourbit.recipes import Recipe, recipe_of


@dataclass(frozen=True)
class Report:
    """What `convert` did.

    Attributes:
        converted: Names of the layers that now have four-bit operands.
        left: Names of those that could have, with the reason why they do not.
    """

    converted: tuple[str, ...]
    left: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"converted {len(self.converted)} layers: {', '.join(self.converted) or 'none'}"]
        lines += [f"left {name}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def convert(
    model: nn.Module,
    recipe: str | Recipe = "ibm4",
    skip: Sequence[str] = ("first", "last"),
) -> Report:
    """Give the linear, 2-D convolution and embedding layers of a model four-bit operands.

    The layers are changed in place: parameters, their names and hooks stay, so that an
    optimizer made before goes on, and a checkpoint of the model loads with ``strict=False``.
    "pact" adds a parameter to each layer, so make the optimizer afterwards.

    Args:
        model: Any model. Subclasses of the three layers are left, and so is what stands inside
            `torch.nn.MultiheadAttention`, which does not call its layers.
        recipe: A `Recipe`, or "ibm4" or "luq4".
        skip: Layers to leave: "first" and "last" of those that could be converted, in the order
            of the model's own definition; "1x1" for convolutions with a kernel of one pixel
            (a recipe with ``eight_bit_1x1`` gives them 8 bits instead); names, or patterns such
            as "head.*".

    Returns:
        What was converted, what not, and why not.

    Raises:
        ValueError: The model has been converted, or an entry of ``skip`` fits no layer.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> convert(net).converted
        ('2',)
    """
    chosen = recipe_of(recipe)
    if isinstance(skip, str):
        raise ValueError(f"skip must be a sequence of names, got the text {skip!r}")
    for name, _ in layers_of(model):
        raise ValueError(f"the model has been converted already (layer {name!r}); unconvert first")
    found = dict(_candidates(model))
    left = _skipped(found, skip)
    converted = []
    for name, layer in found.items():
        if name in left:
            continue
        reason = _outside(layer) or KINDS[type(layer)].refuses(layer, chosen)
        if reason:
            left[name] = reason
        else:
            KINDS[type(layer)].from_float(layer, chosen, label=name)
            converted.append(name)
    order = list(found)
    return Report(tuple(converted), {n: left[n] for n in sorted(left, key=order.index)})


def _candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers of the three types and their subclasses, with their names."""
    inside = [n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") or not outer for outer in inside):
            continue
        if isinstance(module, tuple(KINDS)):
            yield name, module


def _outside(layer: nn.Module) -> str:
    return "" if type(layer) in KINDS else f"it is a {type(layer).__name__}"


def _skipped(found: Mapping[str, nn.Module], skip: Sequence[str]) -> dict[str, str]:
    names = list(found)
    left: dict[str, str] = {}
    for entry in skip:
        if entry == "first":
            chosen = names[:1]
        elif entry == "last":
            chosen = names[-1:]
        elif entry == "1x1":
            chosen = [
                name
                for name, layer in found.items()
                if isinstance(layer, nn.Conv2d) and math.prod(layer.kernel_size) == 1
            ]
        else:
            chosen = fnmatch.filter(names, entry)
            if not chosen:
                raise ValueError(
                    f"skip: no layer is called {entry!r}; there are {', '.join(names) or 'none'}"
                )
        left |= dict.fromkeys(chosen, f"skip has {entry!r}")
    return left


def layers_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The converted layers of a model, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            yield name, module


def unconvert(model: nn.Module) -> nn.Module:
    """Turn every converted layer back, in place; parameters keep what they learned.

    Args:
        model: A model of `convert`.

    Returns:
        The model.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> report = convert(net, skip=())
        >>> type(unconvert(net)).__name__
        'Linear'
    """
    for _, layer in list(layers_of(model)):
        layer.to_float()
    return model


def stats(model: nn.Module) -> list[dict[str, Any]]:
    """How the gradients of each converted layer fit their format.

    Args:
        model: A model of `convert`.

    Returns:
        For each layer ``layer`` (its name), ``exponent`` of its scale, ``passes`` (gradients
        seen), ``underflow`` and ``overflow`` (parts of all their numbers that became 0 or lay
        beyond the range), and of the last gradient that `gemm` traced, else NaN: ``cosine``
        (between the gradient and what the weight's product took), ``bias`` (how much longer
        that is) and ``input_bias``.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> report = convert(net, skip=())
        >>> net(torch.ones(1, 4)).sum().backward()
        >>> stats(net)[0]["exponent"], stats(net)[0]["underflow"]
        (6, 0.0)
    """
    rows = []
    for name, layer in layers_of(model):
        passes, numbers, lost, over = layer.grad_counts.tolist()
        rows.append(
            {
                "layer": name,
                "exponent": int(layer.grad_exponent),
                "passes": passes,
                "underflow": lost / max(numbers, 1),
                "overflow": over / max(numbers, 1),
                "cosine": layer.traced.cosine,
                "bias": layer.traced.bias,
                "input_bias": layer.traced.input_bias,
            }
        )
    return rows


def pact_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The learned clipping values, which the paper decays on their own.

    Args:
        model: A model of `convert` with "pact" activations.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> report = convert(net, Recipe(activations="pact"), skip=())
        >>> [alpha.item() for alpha in pact_parameters(net)]
        [6.0]
    """
    return [layer.pact_alpha for _, layer in layers_of(model) if layer.pact_alpha is not None]


def synchronise_scales(model: nn.Module, group: Any = None) -> None:
    """Let all ranks have the scale that fits the largest gradient of any.

    To be called by every rank after the backward pass, each step or every few; one reduction
    for the whole model. Without torch.distributed at work it does nothing.

    Args:
        model: A model of `convert`, or its DistributedDataParallel.
        group: The process group, by default the world.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> report = convert(net, skip=())
        >>> synchronise_scales(net)
    """
    import torch.distributed as dist

    layers = [layer for _, layer in layers_of(model)]
    if not layers or not dist.is_available() or not dist.is_initialized():
        return
    exponents = torch.stack([layer.grad_exponent for layer in layers])
    dist.all_reduce(exponents, dist.ReduceOp.MIN, group=group)
    for layer, exponent in zip(layers, exponents, strict=True):
        layer.grad_exponent.copy_(exponent)


def skip_nonfinite(optimizer: torch.optim.Optimizer) -> Any:
    """Let an optimizer skip each step whose gradients have a NaN or an infinity.

    Args:
        optimizer: Any optimizer. Before such a step all its gradients are set to None.

    Returns:
        A handle; its ``remove()`` takes the guard away.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0)
        >>> guard = skip_nonfinite(optimizer)
        >>> weight.grad = torch.tensor([1.0, float("nan")])
        >>> optimizer.step()
        >>> weight.tolist()
        [1.0, 1.0]
    """

    def look(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in params if p.grad is not None]
        if grads and not bool(torch.nn.utils.get_total_norm(grads, math.inf).isfinite()):
            for param in params:
                param.grad = None

    return optimizer.register_step_pre_hook(look)


def export_int4(model: nn.Module) -> dict[str, Tensor]:
    """The state of a converted model with its INT4 weights packed, an eighth of float32.

    A converted weight ``w`` becomes ``w.int4`` (two codes a byte), ``w.step`` (the size of a
    level) and ``w.shape``; everything else is as in ``state_dict``. The result may be saved
    with safetensors, and `import_int4` reads it.

    Args:
        model: A model of `convert`.

    Raises:
        ValueError: It has no converted layer with "sawb" weights.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> report = convert(net, skip=())
        >>> export_int4(net)["weight.int4"].shape
        torch.Size([4])
    """
    state = dict(model.state_dict())
    names = [
        f"{name}.weight" if name else "weight"
        for name, layer in layers_of(model)
        if layer.recipe.weights == "sawb" and not layer.has_eight_bits
    ]
    if not names:
        raise ValueError("the model has no layer with four-bit weights; convert it first")
    for name in names:
        weight = state.pop(name)
        _, packed, step = operators.symmetric(weight, None, False, True)
        state[f"{name}.int4"], state[f"{name}.step"] = packed, step
        state[f"{name}.shape"] = torch.tensor(weight.shape)
    return state


def import_int4(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `export_int4` made as a ``state_dict`` with the weights that were multiplied.

    Loaded into the unconverted model, a forward pass multiplies the same weights as the
    converted model did. (Rounding them once more would choose another clipping value.)

    Args:
        state: Of `export_int4`.

    Raises:
        ValueError: A packed weight has not the size that its shape says.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> report = convert(net, skip=())
        >>> import_int4(export_int4(net))["weight"].shape
        torch.Size([2, 4])
    """
    found = {}
    for name, value in state.items():
        stem, _, part = name.rpartition(".")
        if part == "int4":
            shape = tuple(state[f"{stem}.shape"].tolist())
            codes = unpack(value, shape).to(torch.int8)
            levels = torch.where(codes > 7, codes - 16, codes)
            step = state[f"{stem}.step"]
            found[stem] = levels.to(step.dtype) * step
        elif f"{stem}.int4" not in state:
            found[name] = value
    return found
