"""Attribution patching: a first-order estimate of every indirect effect from one backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmxx.language.mediation._passes import passes, response, run_context
from mmxx.language.mediation.decoder import DecoderParts, Watch, hidden, watched
from mmxx.language.mediation.effects import Effects, numbered
from mmxx.language.mediation.examples import Encoded, Example, buckets

if TYPE_CHECKING:
    from mmxx.language.mediation.mediation import Mediation


class _Leaves(Watch):
    """Adds a zero to every mediator, so that there is something to differentiate by."""

    def __init__(self) -> None:
        self.heads: list[Tensor] = []
        self.neurons: list[Tensor] = []
        self.end: Tensor | None = None

    def _leaf(self, x: Tensor, into: list[Tensor]) -> Tensor:
        leaf = torch.zeros_like(x, requires_grad=True)
        into.append(leaf)
        return x + leaf

    def embedding(self, x: Tensor) -> Tensor:
        return self._leaf(x, self.neurons)

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        return self._leaf(x, self.neurons)

    def weights(self, layer: int, w: Tensor) -> Tensor:
        return self._leaf(w, self.heads)

    def residual(
        self, layer: int, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.end = x  # of the last call: what follows the last block


def estimate(
    mediation: Mediation, examples: Sequence[Example], kind: Literal["heads", "neurons"] = "heads"
) -> Effects:
    r"""The slope of log y along each mediator's change, $\partial \log y / \partial z \cdot
    (z_x - z_0)$, as an estimate of log(1 + NIE).

    One forward and one backward pass for all mediators, where measuring takes a pass for each: a
    screen for large models. It is exact to first order only, and misses what saturates.

    Args:
        mediation: The model.
        examples: One or more.
        kind: "heads" or "neurons".

    Returns:
        Effects with log_nie [N, L, H] or [N, L + 1, d]; no direct effects. Layers and the model
        are sums, since to first order effects add.

    Raises:
        ValueError: As `Mediation.heads` and `Mediation.neurons`.
    """
    if kind not in ("heads", "neurons"):
        raise ValueError(f"kind must be 'heads' or 'neurons', got {kind!r}")
    parts = mediation.parts
    encoded = mediation.encode(examples, kind)
    logs = np.empty((len(encoded), 2))
    found: list[np.ndarray[Any, Any]] = [np.empty(0)] * len(encoded)
    for bucket in buckets(encoded):
        for begin in range(0, len(bucket), mediation.batch_size):
            chunk = bucket[begin : begin + mediation.batch_size]
            some = [encoded[index] for index in chunk]
            slopes, y = _slopes(parts, some, kind)
            logs[chunk] = y
            for place, index in enumerate(chunk):
                found[index] = slopes[place]
    nie = np.stack(found)
    labels = tuple(numbered(size) for size in nie.shape[1:])
    common: dict[str, Any] = {
        "log_y0": logs[:, 0],
        "log_yx": logs[:, 1],
        "weights": np.array([float(example.weight) for example in examples]),
        "meta": tuple(dict(example.meta) for example in examples),
    }
    layer = Effects("layers", log_nie=nie.sum(2), labels=labels[:1], **common)
    model = Effects("model", log_nie=nie.sum((1, 2)), **common)
    return Effects(kind, log_nie=nie, labels=labels, layer=layer, model=model, **common)


def _slopes(
    parts: DecoderParts, some: Sequence[Encoded], kind: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Slopes [E, layers, units], and log y in both contexts, [E, 2]."""
    with torch.no_grad():
        base, other = (run_context(parts, some, which) for which in ("base", "alternative"))
    start, prompt = base.start, base.prompt
    ends: dict[int, Tensor] = {}
    leaves: list[_Leaves] = []
    with torch.enable_grad():
        for tokens, way in passes(some, "base", parts.device):
            watch = _Leaves()
            with watched(parts, watch):
                hidden(parts, tokens, watch)
            assert watch.end is not None
            ends[0 if way is None else way] = watch.end
            leaves.append(watch)
        ordered = [ends[min(ends)][:, prompt - 1 : prompt]]
        ordered += [ends[way][:, prompt:] for way in sorted(ends) if ends[way].shape[1] > prompt]
        log_y = response(parts, torch.cat(ordered, 1), base.first, base.second)
        held = [getattr(watch, kind) for watch in leaves]
        flat = [leaf for one in held for leaf in one]
        gradients = torch.autograd.grad(log_y.sum(), flat, allow_unused=True)
    count = len(held[0])
    slopes = []
    for layer in range(count):
        slope = torch.zeros(())
        for gradient in gradients[layer::count]:
            if gradient is None:
                continue
            if kind == "heads":
                change = other.weights[layer] - base.weights[layer]
                slope = slope + (gradient[:, :, start:prompt, :prompt] * change).sum((2, 3)).cpu()
            else:
                places = some[0].places
                assert places is not None
                change = other.neurons[layer] - base.neurons[layer]
                slope = slope + (gradient[:, list(places[0])] * change).sum(1).cpu()
        units = base.weights[layer].shape[1] if kind == "heads" else base.neurons[layer].shape[2]
        slopes.append(slope.expand(len(some), units).double())
    y = torch.stack([base.log_y, other.log_y], 1).double().cpu()
    return torch.stack(slopes, 1).numpy(), y.numpy()
