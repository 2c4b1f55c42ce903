"""A ticket: the hidden network as a seed and one bit for each weight."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from mmxx.sparsity._common import Masks
from mmxx.sparsity.edge_popup.frozen import INITS, frozen_weight

_FORMAT = "mmxx-ticket-1"
_BITS, _REST = "bits/", "rest/"
_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


@dataclass(frozen=True)
class Ticket:
    """A hidden network without its weights: what draws them, and which are used.

    Attributes:
        seed: Of the weights.
        init: Their kind.
        rule: ``"drop"`` or ``"flip"``: what becomes of those that are not used.
        stds: The standard deviation of each.
        masks: Which are used, on the CPU.
        rest: What else the network has, in full: statistics of normalisations, other parameters.
    """

    seed: int
    init: str
    rule: str
    stds: Mapping[str, float]
    masks: Masks
    rest: Mapping[str, Tensor]

    def apply(self, model: nn.Module) -> nn.Module:
        """The network in a copy of the model that it was found in.

        Args:
            model: Of the same architecture; what weights it has does not matter.

        Returns:
            A plain model as `EdgePopup.finalize` gives it.

        Raises:
            ValueError: The model has other parameters, or shapes.
        """
        net = bare(copy.deepcopy(model), self.masks)
        parameters = self.masks.validate(net)
        state = net.state_dict()
        others = {name: tensor for name, tensor in state.items() if name not in self.masks}
        wrong = sorted(others.keys() ^ self.rest.keys())
        wrong += [n for n, t in others.items() if n in self.rest and self.rest[n].shape != t.shape]
        if wrong:
            raise ValueError(f"the ticket is for another network: it differs in {', '.join(wrong)}")
        with torch.no_grad():
            for name, tensor in self.rest.items():
                state[name].copy_(tensor)
            for name, parameter in parameters.items():
                weight = frozen_weight(
                    parameter.shape, std=self.stds[name], init=self.init, seed=self.seed, name=name
                )
                mask = self.masks[name]
                other = -weight if self.rule == "flip" else torch.zeros(())
                parameter.copy_(torch.where(mask, weight, other))
        return net

    def to_bytes(self) -> bytes:
        """The content of a safetensors file: one bit a weight, and the rest in full."""
        bits = {
            n: torch.from_numpy(np.packbits(m.numpy().reshape(-1))) for n, m in self.masks.items()
        }
        tensors = {_BITS + name: packed for name, packed in bits.items()}
        tensors |= {_REST + name: tensor.contiguous() for name, tensor in self.rest.items()}
        about = {
            "format": _FORMAT,
            "seed": self.seed,
            "init": self.init,
            "rule": self.rule,
            "weights": {n: [self.stds[n], list(mask.shape)] for n, mask in self.masks.items()},
        }
        # one entry only: safetensors writes several in an order that changes
        return save(tensors, {"ticket": json.dumps(about)})

    @classmethod
    def from_bytes(cls, content: bytes, where: str = "content") -> Ticket:
        """Read what `to_bytes` gave.

        Args:
            content: Of the file.
            where: What to call it in errors.

        Raises:
            ValueError: It holds no ticket, or is damaged.
        """
        try:
            tensors = load(content)
            size = int.from_bytes(content[:8], "little")
            head = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{where} is no safetensors file: {error}") from error
        if "ticket" not in head:
            raise ValueError(f"{where} holds no ticket")
        try:
            return cls._read(json.loads(head["ticket"]), tensors)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where} is damaged: {error}") from error

    @classmethod
    def _read(cls, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Ticket:
        if about["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, got {about['format']!r}")
        masks, stds = {}, {}
        for name, (std, shape) in about["weights"].items():
            size, packed = math.prod(shape), tensors[_BITS + name]
            if not math.isfinite(std) or min(shape, default=0) < 0:
                raise ValueError(f"{name!r} has standard deviation {std} and shape {shape}")
            if packed.dtype != torch.uint8 or packed.shape != ((size + 7) // 8,):
                raise ValueError(f"{name!r} has not the bits of shape {shape}")
            bits = np.unpackbits(packed.numpy(), count=size).astype(np.bool_)
            masks[name], stds[name] = torch.from_numpy(bits).view(*shape), float(std)
        if about["init"] not in INITS or about["rule"] not in ("drop", "flip"):
            raise ValueError(f"init is {about['init']!r} and rule {about['rule']!r}")
        rest = {n.removeprefix(_REST): t for n, t in tensors.items() if n.startswith(_REST)}
        return cls(int(about["seed"]), about["init"], about["rule"], stds, Masks(masks), rest)

    def save(self, path: str | Path) -> None:
        """Write it to a file.

        Args:
            path: Of the safetensors file.
        """
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read it from a file.

        Args:
            path: What `save` wrote.

        Raises:
            ValueError: It holds no ticket, or is damaged.
        """
        return cls.from_bytes(Path(path).read_bytes(), str(path))


def load_ticket(path: str | Path, model: nn.Module) -> nn.Module:
    """The network of a ticket: plain layers with the weights that are used, and 0 elsewhere.

    Args:
        path: What `EdgePopup.save_ticket` wrote.
        model: Of the architecture that was converted; it stays as it is.

    Raises:
        ValueError: The file holds no ticket, is damaged, or is for another network.

    Example:
        >>> import tempfile
        >>> from mmxx.sparsity.edge_popup import EdgePopup
        >>> net = nn.Linear(6, 3)
        >>> hidden, place = EdgePopup.convert(net, seed=3), tempfile.mkdtemp()
        >>> hidden.save_ticket(f"{place}/my.ticket")
        >>> again = load_ticket(f"{place}/my.ticket", net)
        >>> torch.equal(again(torch.ones(1, 6)), hidden(torch.ones(1, 6)))
        True
    """
    return Ticket.load(path).apply(model)


def bare(model: nn.Module, weights: Iterable[str]) -> nn.Module:
    """The model, in place, without biases of these layers and without learned norms."""
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.register_parameter("weight", None)
            if hasattr(module, "bias"):
                module.register_parameter("bias", None)
            flag = "affine" if hasattr(module, "affine") else "elementwise_affine"
            setattr(module, flag, False)
    for name in weights:
        try:
            model.get_submodule(name.rpartition(".")[0]).register_parameter("bias", None)
        except AttributeError as error:
            raise ValueError(f"the ticket is for another network: {error}") from error
    return model
