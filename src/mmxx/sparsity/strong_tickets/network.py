"""The random network with its masks: it runs, and is saved as a seed and one bit a weight."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor, nn
from torch.nn.utils import skip_init

from mmxx.sparsity._common import Masks
from mmxx.sparsity.strong_tickets.law import Law

_FORMAT = "mmxx-strong-ticket-1"
_CONVOLVE = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}
_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PLAIN: dict[str, tuple[str, ...]] = {
    "ReLU": (),
    "Identity": (),
    "Flatten": (),
    "MaxPool1d": ("kernel_size", "stride", "padding"),
    "MaxPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool1d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
}
"""Layers without weights that a target may have, and the arguments that make them again."""


@dataclass(frozen=True)
class Form:
    """What a target layer computes: a linear map, or a convolution over some axes.

    Attributes:
        channels: (in, out).
        kernel: Taps along each axis; () for a linear layer.
        stride: Along each axis.
        padding: Zeros at both ends of each axis.
        dilation: Along each axis.
        signed: Whether its inputs can be negative.
    """

    channels: tuple[int, int]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    signed: bool = False

    @property
    def taps(self) -> int:
        """Weights between an input and an output."""
        return int(np.prod(self.kernel, dtype=int))


def _parameter(values: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(values)), requires_grad=False)


class RandomLayer(nn.Module):
    """Two random layers with masks in the place of one trained layer.

    Unit h repeats input ``unit_input[h]`` times ``inner[h]``, cut off below 0 (for the law "row"
    as it is); the outputs are the units times ``outer * mask``. The units of the bias see the
    constant 1.

    Args:
        form: What the layer computes.
        law: Its random weights.
        bias_law: Those of the bias, or None.
        counts: For positive and, where the form is signed, for negative inputs, how many units
            each input has, int64 [in].
        bias_count: How many units the constant has.
    """

    inner: nn.Parameter
    outer: nn.Parameter

    def __init__(
        self,
        form: Form,
        law: Law,
        bias_law: Law | None,
        counts: Sequence[np.ndarray],
        bias_count: int,
    ) -> None:
        super().__init__()
        self.form, self.law, self.bias_law = form, law, bias_law
        self.counts, self.bias_count = [np.asarray(c) for c in counts], bias_count
        inputs, numbers = _units(law, self.counts)
        self.drawn = _drawn(inputs, numbers)
        number = form.channels[1]
        self.register_buffer("unit_input", torch.from_numpy(inputs), persistent=False)
        self.inner = _parameter(law.inner(inputs, numbers))
        places = inputs[:, None] * form.taps + np.arange(form.taps)
        outer = law.outer(np.arange(number)[:, None, None], places, numbers[:, None])
        self.outer = _parameter(outer.reshape(number, len(inputs), *form.kernel))
        self.register_buffer("mask", torch.zeros(self.outer.shape, dtype=torch.bool))
        if bias_law is None:
            return
        inputs, numbers = _units(bias_law, [np.array([bias_count])])
        self.drawn += _drawn(inputs, numbers)
        self.bias_inner = _parameter(bias_law.inner(inputs, numbers))
        rows = np.arange(number)[:, None]
        self.bias_outer = _parameter(bias_law.outer(rows, np.zeros((1, 1), int), numbers))
        self.register_buffer("bias_mask", torch.zeros(number, bias_count, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for [N, in] or ``[N, in, *space]``: [N, out, ...]."""
        form = self.form
        units = x.index_select(1, self.get_buffer("unit_input"))
        if self.law.name != "row":
            space = (1,) * len(form.kernel)
            units = torch.relu(units * self.inner.view(-1, *space))
        kept, bias = self.outer * self.get_buffer("mask"), self._bias()
        if not form.kernel:
            return nn.functional.linear(units, kept, bias)
        convolve = _CONVOLVE[len(form.kernel)]
        return convolve(units, kept, bias, form.stride, form.padding, form.dilation)

    def _bias(self) -> Tensor | None:
        if self.bias_law is None:
            return None
        kept = self.bias_outer * self.get_buffer("bias_mask")
        return kept @ torch.relu(self.bias_inner)

    @torch.no_grad()
    def effective(self) -> tuple[list[Tensor], Tensor | None]:
        """The target layer that it amounts to, in double precision.

        Returns:
            The weights for positive and, where the form is signed, for negative inputs, each of
            the target's shape; and the bias.
        """
        form, number = self.form, self.form.channels[1]
        units = self.get_buffer("unit_input")
        products = self.outer.double() * self.get_buffer("mask")
        products *= self.inner.double().view(1, -1, *[1] * len(form.kernel))
        weights, start = [], 0
        for count in self.counts:
            part = slice(start, start + int(count.sum()))
            start = part.stop
            total = torch.zeros(number, form.channels[0], *form.kernel, dtype=torch.float64)
            weights.append(total.index_add_(1, units[part], products[:, part]))
        bias = None
        if self.bias_law is not None:
            kept = self.bias_outer.double() * self.get_buffer("bias_mask")
            bias = kept @ self.bias_inner.double()
        return weights, bias

    def set_masks(self, masks: Sequence[np.ndarray], bias: np.ndarray | None) -> None:
        """Take masks over [out, in, taps, units] for each sign of the input, and [out, units]."""
        number = self.form.channels[1]
        parts = []
        for mask, count in zip(masks, self.counts, strict=True):
            keep = np.arange(mask.shape[3]) < count[:, None]  # input by input, as the units are
            parts.append(np.moveaxis(mask, 2, 3)[:, keep])
        whole = np.concatenate(parts, axis=1).reshape(number, -1, *self.form.kernel)
        self.get_buffer("mask").copy_(torch.from_numpy(whole))
        if bias is not None:
            self.get_buffer("bias_mask").copy_(torch.from_numpy(bias))

    def shuffle(self, generator: torch.Generator) -> None:
        """Permute the mask within each row: as many weights are kept, at random places."""
        for name in ("mask", "bias_mask") if self.bias_law is not None else ("mask",):
            mask = self.get_buffer(name)
            flat = mask.view(len(mask), -1)
            order = torch.rand(flat.shape, generator=generator).argsort(1)
            mask.copy_(flat.gather(1, order).view(mask.shape))


def _units(law: Law, counts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Input and number of every unit: those for positive inputs first, then input by input."""
    inputs, numbers = [], []
    for count, sign in zip(counts, (1, -1), strict=False):
        most = int(count.max(initial=0))
        table = law.positions(len(count), most, sign)
        keep = np.arange(most) < count[:, None]
        inputs.append(np.repeat(np.arange(len(count)), count))
        numbers.append(table[keep])
    return np.concatenate(inputs), np.concatenate(numbers)


def _drawn(inputs: np.ndarray, numbers: np.ndarray) -> int:
    """How many units were drawn to get these, with those that never fire."""
    last = np.zeros(int(inputs.max(initial=0)) + 1, int)
    np.maximum.at(last, inputs, numbers + 1)
    return int(last.sum())


class RandomNet(nn.Module):
    """A random network with masks that computes what a trained network computes.

    Made by `StrongTicket.construct`, `GoldenTicket.construct` or `load`. Its weights follow from
    a seed and are frozen; all that was found are the masks.

    Args:
        layers: `RandomLayer` and layers without weights, in order.

    Example:
        >>> from mmxx.sparsity.strong_tickets import StrongTicket
        >>> target = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> net = StrongTicket.construct(target, eps=0.01).net
        >>> x = torch.rand(5, 4)
        >>> bool((net(x) - target(x)).abs().max() < 0.2)
        True
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for [N, in] or ``[N, in, *space]``."""
        return self.layers(x)

    def random_layers(self) -> dict[str, RandomLayer]:
        """The masked random layers by name."""
        return {
            f"layers.{name}": layer
            for name, layer in self.layers.named_children()
            if isinstance(layer, RandomLayer)
        }

    @property
    def masks(self) -> Masks:
        """Which weights of the second random layers are kept."""
        found = {}
        for name, layer in self.random_layers().items():
            found[f"{name}.outer"] = layer.get_buffer("mask")
            if layer.bias_law is not None:
                found[f"{name}.bias_outer"] = layer.get_buffer("bias_mask")
        return Masks(found)

    def shuffled(self, seed: int) -> RandomNet:
        """The control: the same network, its masks permuted within each row.

        Args:
            seed: Of the permutations.
        """
        net = RandomNet.from_bytes(self.to_bytes())
        generator = torch.Generator().manual_seed(seed)
        for layer in net.random_layers().values():
            layer.shuffle(generator)
        return net

    def dense(self) -> tuple[nn.Sequential, Masks]:
        """The network of the theorem: full random layers, twice as deep, and masks over them.

        Every pair of layers is an ordinary linear or convolutional one; masked by
        ``masks.apply(net)`` it computes what this network computes. The units of a bias have
        their weights from the constant 1 in the first layer's bias.

        Returns:
            The unmasked network, and the masks.

        Raises:
            ValueError: The law is "row", whose first layer is not random.
        """
        layers: list[nn.Module] = []
        masks: dict[str, Tensor] = {}
        for layer in self.layers:
            if isinstance(layer, RandomLayer):
                pair, kept = _dense_pair(layer)
                for module, parts in zip((pair[0], pair[2]), kept, strict=True):
                    place = len(layers) + (module is pair[2]) * 2
                    masks |= {f"{place}.{name}": mask for name, mask in parts.items()}
                layers += pair
            else:
                layers.append(layer)
        return nn.Sequential(*layers), Masks(masks)

    # -- files -----------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The network as a safetensors file: its form and seed, and one bit a weight."""
        tensors: dict[str, np.ndarray] = {}
        described: list[dict[str, Any]] = []
        for place, layer in enumerate(self.layers):
            if not isinstance(layer, RandomLayer):
                kind = type(layer).__name__
                described.append({"kind": kind} | {a: getattr(layer, a) for a in PLAIN[kind]})
                continue
            described.append(
                {
                    "kind": "random",
                    "form": asdict(layer.form),
                    "law": asdict(layer.law),
                    "bias_law": asdict(layer.bias_law) if layer.bias_law else None,
                    "bias_count": layer.bias_count,
                }
            )
            tensors[f"{place}.counts"] = np.stack(layer.counts).astype(np.int32)
            tensors[f"{place}.mask"] = _packed(layer.get_buffer("mask"))
            if layer.bias_law is not None:
                tensors[f"{place}.bias_mask"] = _packed(layer.get_buffer("bias_mask"))
        # one entry: safetensors writes several in any order, and equal tickets must be equal bytes
        about = json.dumps({"format": _FORMAT, "layers": described})
        return save(tensors, metadata={"ticket": about})

    def save(self, path: str | Path) -> None:
        """Write what `to_bytes` gives to a file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> RandomNet:
        """Read what `save` wrote; the random weights are made anew from the seed.

        Raises:
            ValueError: The file holds no ticket, or is damaged.
        """
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_bytes(cls, content: bytes) -> RandomNet:
        """As `load`, from the bytes of a file.

        Raises:
            ValueError: They hold no ticket, or are damaged.
        """
        try:
            tensors = load(content)
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
            about = json.loads(header.get("ticket", "{}"))
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"no safetensors file: {error}") from error
        if about.get("format") != _FORMAT:
            raise ValueError(f"no strong ticket: the format is {about.get('format')!r}")
        try:
            layers = [_rebuilt(part, place, tensors) for place, part in enumerate(about["layers"])]
        except (KeyError, TypeError, IndexError, RuntimeError, AttributeError) as error:
            raise ValueError(f"a damaged ticket: {error}") from error
        return cls(layers)


def _packed(mask: Tensor) -> np.ndarray:
    return np.packbits(mask.cpu().numpy().reshape(-1))


def _rebuilt(part: dict[str, Any], place: int, tensors: dict[str, np.ndarray]) -> nn.Module:
    """A layer from its description and the saved bits."""
    kind = part["kind"]
    if kind != "random":
        return getattr(nn, kind)(**{name: part[name] for name in PLAIN[kind]})
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in part["form"].items()
    }
    form, law = Form(**fields), Law(**part["law"])
    bias_law = Law(**part["bias_law"]) if part["bias_law"] else None
    counts = tensors[f"{place}.counts"].astype(np.int64)
    if counts.shape != (2 if form.signed and law.name != "row" else 1, form.channels[0]):
        raise ValueError(f"a damaged ticket: counts of shape {counts.shape} in layer {place}")
    layer = RandomLayer(form, law, bias_law, list(counts), part["bias_count"])
    for name in ("mask", "bias_mask") if bias_law else ("mask",):
        mask, bits = layer.get_buffer(name), tensors[f"{place}.{name}"]
        if bits.dtype != np.uint8 or bits.size != -(-mask.numel() // 8):
            raise ValueError(f"a damaged ticket: the {name} of layer {place} has another size")
        unpacked = np.unpackbits(bits, count=mask.numel()).astype(bool)
        mask.copy_(torch.from_numpy(unpacked).view(mask.shape))
    return layer


@torch.no_grad()
def _dense_pair(layer: RandomLayer) -> tuple[list[Any], list[dict[str, Tensor]]]:
    """The two full random layers of one target layer, ReLU between, and their masks."""
    form, law = layer.form, layer.law
    if law.name == "row":
        raise ValueError('dense() needs the law "product" or "golden"; "row" repeats the inputs')
    inputs, axes = layer.get_buffer("unit_input"), len(form.kernel)
    (channels, number), extra = form.channels, layer.bias_count if layer.bias_law else 0
    units = len(inputs) + extra
    first: Any
    second: Any
    if axes:
        conv = _CONV[axes]
        first = skip_init(conv, channels, units, 1, padding=form.padding, bias=extra > 0)
        second = skip_init(
            conv, units, number, form.kernel, form.stride, dilation=form.dilation, bias=False
        )
    else:
        first = skip_init(nn.Linear, channels, units, bias=extra > 0)
        second = skip_init(nn.Linear, units, number, bias=False)
    off = torch.from_numpy(law.off(np.arange(units)[:, None], np.arange(channels + 1)))
    weight, kept = off[:, :channels], torch.zeros(units, channels, dtype=torch.bool)
    here = torch.arange(len(inputs))
    weight[here, inputs], kept[here, inputs] = layer.inner, True
    first.weight.copy_(weight.reshape(first.weight.shape))
    first_masks = {"weight": kept.view(first.weight.shape)}
    outer = torch.zeros(second.weight.shape)
    mask = torch.zeros(second.weight.shape, dtype=torch.bool)
    outer[:, : len(inputs)], mask[:, : len(inputs)] = layer.outer, layer.get_buffer("mask")
    if extra:
        first.bias.copy_(off[:, channels])
        first.bias[len(inputs) :] = layer.bias_inner
        first_masks["bias"] = torch.arange(units) >= len(inputs)
        tap = (slice(None), slice(len(inputs), None), *[0] * axes)
        outer[tap], mask[tap] = layer.bias_outer, layer.get_buffer("bias_mask")
    second.weight.copy_(outer)
    return [first, nn.ReLU(), second], [first_masks, {"weight": mask}]
