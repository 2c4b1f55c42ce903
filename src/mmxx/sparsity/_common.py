"""What the systems of this room share: masks over weights, scores that choose weights, teams."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numba import njit  # pyright: ignore[reportPrivateImportUsage]
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PRUNABLE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_FORMAT = "mmxx-masks-1"


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of all linear and convolutional layers by name; shared ones once.

    Biases, normalisations and embeddings are not prunable.
    """
    wanted = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, _PRUNABLE) and isinstance(module.weight, nn.Parameter)
    }
    return {name: p for name, p in model.named_parameters() if id(p) in wanted}


class Team(Protocol):
    """Processes that train one network together, each on its part of every batch."""

    def distribute(
        self, net: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The network to call, whose gradients are averaged, and the optimizer to step."""
        ...

    def part(self, batch: Tensor) -> Tensor:
        """This process's equal part of a batch, along the first axis."""
        ...

    def mean(self, loss: Tensor) -> float:
        """The mean of a number over the processes."""
        ...


class Alone:
    """The `Team` of one process."""

    def distribute(
        self, net: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Both as they are."""
        return net, optimizer

    def part(self, batch: Tensor) -> Tensor:
        """All of it."""
        return batch

    def mean(self, loss: Tensor) -> float:
        """The number."""
        return loss.item()


class Masks(Mapping[str, Tensor]):
    """Which weights of a network are kept: a mapping from parameter name to a bool tensor.

    Two masks combine by ``&`` and ``|``, and compare by ``==``.

    Args:
        masks: Bool tensors by name, each of its parameter's shape.

    Raises:
        TypeError: A tensor is not bool.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> masks = Masks({"weight": net.weight.abs() > 0.2})
        >>> masks.apply(net)
        >>> bool((net.weight[~masks["weight"]] == 0).all())
        True
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise TypeError(f"the mask of {name!r} must be a bool tensor, got {kind}")
        self._masks = dict(masks)

    @classmethod
    def ones_like(cls, model: nn.Module, names: Iterable[str] | None = None) -> Masks:
        """Masks that keep everything, of the named parameters or of all that are prunable."""
        found = dict(model.named_parameters()) if names is not None else prunable(model)
        wanted = list(found) if names is None else list(names)
        unknown = [name for name in wanted if name not in found]
        if unknown:
            raise ValueError(f"the model has no parameter {', '.join(unknown)}")
        return cls({name: torch.ones_like(found[name], dtype=torch.bool) for name in wanted})

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"Masks({len(self)} tensors, {self.kept} of {self.total} weights kept)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.keys() == other.keys() and all(
            torch.equal(m, other[n]) for n, m in self.items()
        )

    __hash__ = None  # type: ignore[assignment]  # tensors can be written to

    def __and__(self, other: Masks) -> Masks:
        return Masks({name: mask & other[name] for name, mask in self._same(other)})

    def __or__(self, other: Masks) -> Masks:
        return Masks({name: mask | other[name] for name, mask in self._same(other)})

    def _same(self, other: Masks) -> Iterable[tuple[str, Tensor]]:
        if self.keys() != other.keys():
            raise ValueError(f"masks of other parameters: {sorted(self.keys() ^ other.keys())}")
        return self.items()

    @property
    def total(self) -> int:
        """The number of weights that are masked over."""
        return sum(mask.numel() for mask in self.values())

    @property
    def kept(self) -> int:
        """The number of weights that are kept."""
        return sum(int(mask.sum()) for mask in self.values())

    @property
    def density(self) -> float:
        """The share of weights that is kept; 1.0 where there are none."""
        return self.kept / self.total if self.total else 1.0

    def per_layer(self) -> dict[str, float]:
        """The density of each parameter."""
        return {n: int(m.sum()) / m.numel() if m.numel() else 1.0 for n, m in self.items()}

    def validate(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The model's parameters that the masks are for, by name.

        Raises:
            ValueError: Parameters are missing in the model or have another shape; all are named.
        """
        found = dict(model.named_parameters(remove_duplicate=False))
        wrong = [f"{name} is missing" for name in self if name not in found]
        wrong += [
            f"{name} has shape {tuple(found[name].shape)}, its mask {tuple(mask.shape)}"
            for name, mask in self.items()
            if name in found and found[name].shape != mask.shape
        ]
        if wrong:
            raise ValueError("the masks are for another network: " + "; ".join(wrong))
        return {name: found[name] for name in self}

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set the weights that are not kept to 0, in place; the others keep their bits.

        Raises:
            ValueError: The masks are for another network.
        """
        for name, parameter in self.validate(model).items():
            parameter.masked_fill_(~self[name].to(parameter.device), 0.0)

    def randomise(self, seed: int, mode: str = "layerwise") -> Masks:
        """Masks of the same density whose places are drawn at random.

        Args:
            seed: Of a generator of its own.
            mode: ``"layerwise"`` keeps the density of each layer, ``"global"`` of all together.

        Raises:
            ValueError: The mode is unknown.
        """
        if mode not in ("layerwise", "global"):
            raise ValueError(f"mode must be 'layerwise' or 'global', got {mode!r}")
        generator = torch.Generator().manual_seed(seed)

        def shuffled(flat: Tensor) -> Tensor:
            order = torch.randperm(flat.numel(), generator=generator)
            return flat[order.to(flat.device)]

        flat = {name: mask.flatten() for name, mask in self.items()}
        if mode == "layerwise":
            flat = {name: shuffled(mask) for name, mask in flat.items()}
        elif flat:
            parts = shuffled(torch.cat(list(flat.values()))).split(
                [m.numel() for m in flat.values()]
            )
            flat = dict(zip(flat, parts, strict=True))
        return Masks({name: flat[name].view(mask.shape) for name, mask in self.items()})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file of one bit a weight."""
        Path(path).write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of the file that `save` writes."""
        packed = {n: np.packbits(m.cpu().numpy().reshape(-1)) for n, m in self.items()}
        shapes = {name: list(mask.shape) for name, mask in self.items()}
        # one entry: safetensors writes several in another order each time
        about = json.dumps({"format": _FORMAT, "shapes": shapes})
        return save(packed, metadata={"masks": about})

    @classmethod
    def load(cls, path: str | Path) -> Masks:
        """Read what `save` wrote.

        Raises:
            ValueError: The file holds no masks, or is damaged.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get("masks", "{}"))
                packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
        if about.get("format") != _FORMAT:
            raise ValueError(f"{path} holds no masks: its format is {about.get('format')!r}")
        shapes: dict[str, list[int]] = about["shapes"]
        masks = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            if name not in packed or packed[name].shape != ((size + 7) // 8,):
                raise ValueError(f"{path} is damaged: {name!r} has not the bits of shape {shape}")
            bits = np.unpackbits(packed[name], count=size).astype(np.bool_)
            masks[name] = torch.from_numpy(bits).view(shape)
        return cls(masks)


@njit(cache=True, nogil=True, error_model="numpy")
def _pull_back(grad, weight, scores, out):
    zero = scores.dtype.type(0)
    for i in range(out.size):
        product, score = grad[i] * weight[i], scores[i]
        out[i] = product if score > zero else (-product if score < zero else zero * product)


def score_gradient(grad: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
    r"""The gradient of the scores, $g \cdot w \cdot \mathrm{sign}(s)$.

    On the CPU in one pass over memory.

    Args:
        grad: Of the loss by the weight that the layer used.
        weight: The frozen weight, of the same shape.
        scores: Of the same shape.

    Example:
        >>> score_gradient(torch.ones(3), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, -1, 0]))
        tensor([ 1., -2.,  0.])
    """
    parts = [t.detach() for t in (grad, weight, scores)]
    if any(
        t.device.type != "cpu" or t.dtype not in (torch.float32, torch.float64) for t in parts
    ) or not all(t.is_contiguous() and t.dtype == scores.dtype for t in parts):
        return _score_gradient_plain(*parts)
    out = torch.empty_like(parts[2])
    _pull_back(*(t.numpy().reshape(-1) for t in (*parts, out)))
    return out


def _score_gradient_plain(grad: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
    """As `score_gradient`, on any device."""
    return (grad * weight * scores.sgn()).to(scores.dtype)


class Through(torch.autograd.Function):
    """Hands on a weight that was made of scores, and the gradient to the scores.

    ``apply(scores, weight, made, factor)``: ``made`` is what the layer shall use and ``factor``
    its slope in the mask: 1 where weights are kept or zeroed, 2 where they change their sign.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, made: Tensor, factor: float) -> Tensor:
        """The weight that the layer uses."""
        ctx.save_for_backward(scores, weight)
        ctx.factor = factor
        return made.view_as(made)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, None, None, None]:
        """The gradient of the scores; the weight gets none."""
        scores, weight = ctx.saved_tensors
        found = score_gradient(grads[0], weight, scores)
        return found if ctx.factor == 1 else found * ctx.factor, None, None, None
