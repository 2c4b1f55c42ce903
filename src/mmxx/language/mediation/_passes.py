"""Passes of the model that are kept: what each context computes where nothing is overridden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmxx.language.mediation.decoder import DecoderParts, Watch, finish, hidden, watched
from mmxx.language.mediation.examples import Encoded

_HEAD_NUMBERS = 2**24  # of logits that are held at a time


@dataclass
class Context:
    """One of the two prompts of E examples of one shape, run without an override.

    The packed sequence is what rows are computed on: the prompt from its first changed token
    on, then each candidate without its last token. S tokens, of which P - start are prompt.

    Attributes:
        start, prompt: Tokens before the packed sequence, and of the prompt.
        residual: For each block, and after the last, the packed residual stream, [E, S, d].
        keys, values: For each block those of the first ``start`` tokens, [E, heads, start, d_head].
        masks: For each block what is added to the scores, [S, start + S].
        weights: For each block the attention within the prompt, [E, H, P - start, P].
        neurons: Embedding and MLP outputs at the examples' places, L + 1 times [E, places, d].
        arguments: For each block its further arguments for the packed sequence.
        first, second: The candidates, [E, tokens].
        log_y: The response, [E].
    """

    start: int
    prompt: int
    residual: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    masks: list[Tensor]
    weights: list[Tensor]
    neurons: list[Tensor]
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    first: Tensor
    second: Tensor
    log_y: Tensor

    def only(self, example: int) -> Context:
        """The same for one of the examples."""
        one = slice(example, example + 1)
        lists = {
            name: [x[one] for x in getattr(self, name)]
            for name in ("residual", "keys", "values", "weights", "neurons")
        }
        rows = {name: getattr(self, name)[one] for name in ("first", "second", "log_y")}
        return replace(self, **lists, **rows)

    @property
    def suffix(self) -> int:
        """Packed tokens that belong to the prompt."""
        return self.prompt - self.start


class Capture(Watch):
    """Keeps everything of one pass."""

    def __init__(self) -> None:
        self.stream: list[Tensor] = []
        self.arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.kv: list[tuple[Tensor, Tensor]] = []
        self.masks: list[Tensor | None] = []
        self.attention: list[Tensor] = []
        self.neurons: list[Tensor] = []

    def embedding(self, x: Tensor) -> Tensor:
        self.neurons.append(x)
        return x

    def residual(
        self, layer: int, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.stream.append(x)
        self.arguments.append((args, kwargs))

    def keys(
        self, layer: int, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        self.kv.append((k, v))
        self.masks.append(mask)
        return k, v, mask

    def weights(self, layer: int, w: Tensor) -> Tensor:
        self.attention.append(w)
        return w

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        self.neurons.append(x)
        return x


def passes(
    examples: Sequence[Encoded], which: Literal["base", "alternative"], device: torch.device
) -> list[tuple[Tensor, int | None]]:
    """The token rows that a context needs, and whose candidate (0 or 1) each pass holds.

    A candidate of one token needs no pass of its own: the prompt ends before it.
    """
    prompts = [getattr(example, which) for example in examples]
    found: list[tuple[Tensor, int | None]] = []
    for way, name in enumerate(("first", "second")):
        if len(getattr(examples[0], name)) > 1:
            rows = [p + getattr(e, name)[:-1] for p, e in zip(prompts, examples, strict=True)]
            found.append((torch.tensor(rows, device=device), way))
    return found or [(torch.tensor(prompts, device=device), None)]


def run_context(
    parts: DecoderParts, examples: Sequence[Encoded], which: Literal["base", "alternative"]
) -> Context:
    """Run one context of some examples of one shape.

    Raises:
        ValueError: The model gives numbers that are not finite; the message names the layer.
    """
    start, prompt = examples[0].start, len(getattr(examples[0], which))
    captured: dict[int, Capture] = {}
    for tokens, way in passes(examples, which, parts.device):
        capture = Capture()
        with watched(parts, capture):
            hidden(parts, tokens, capture)
        captured[0 if way is None else way] = capture
    main = captured[min(captured)]
    longest = max(captured.values(), key=lambda one: one.stream[0].shape[1])
    sizes = [len(examples[0].first) - 1, len(examples[0].second) - 1]
    own = torch.arange(start, prompt, device=parts.device)
    pieces = [own, *(prompt + torch.arange(size, device=parts.device) for size in sizes)]

    def packed(layer: int) -> Tensor:
        found = [main.stream[layer][:, start:prompt]]
        found += [captured[way].stream[layer][:, prompt:] for way in (0, 1) if sizes[way]]
        return torch.cat(found, 1)

    residual = [packed(layer) for layer in range(len(parts.blocks) + 1)]
    first, second = (
        torch.tensor([getattr(e, name) for e in examples], device=parts.device)
        for name in ("first", "second")
    )
    log_y = response(parts, residual[-1][:, prompt - start - 1 :], first, second)
    if not torch.isfinite(log_y).all():
        _name_layer(residual)
    places = examples[0].places
    where = [] if places is None else list(places[which != "base"])
    return Context(
        start=start,
        prompt=prompt,
        residual=residual,
        keys=[k[:, :, :start] for k, _ in main.kv],
        values=[v[:, :, :start] for _, v in main.kv],
        masks=[
            _packed_mask(longest.masks[layer], residual[layer], start, prompt, sizes)
            for layer in range(len(parts.blocks))
        ],
        weights=[w[:, :, start:prompt, :prompt] for w in main.attention],
        neurons=[x[:, where] for x in main.neurons],
        arguments=[
            _packed_arguments(*longest.arguments[layer], longest.stream[0].shape, torch.cat(pieces))
            for layer in range(len(parts.blocks))
        ],
        first=first,
        second=second,
        log_y=log_y,
    )


def response(parts: DecoderParts, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """log odds, log p(second) - log p(first), each the mean of its tokens' log-probabilities.

    Args:
        parts: The model.
        x: The last block's output at the prompt's last token, then at each candidate's tokens
            but the last, [..., E, n, d].
        first, second: The candidates, [E, tokens].

    Returns:
        Shape [..., E], in the precision of the model, at least single.
    """
    h = finish(parts, x)
    weight, bias = parts.head, parts.head_bias
    exact = h.dtype if h.dtype in (torch.float32, torch.float64) else torch.float32
    h = h.to(weight.device)
    if first.shape[1] == second.shape[1] == 1:  # the softmax's denominator cancels
        one, other = second[:, 0], first[:, 0]
        found = (h[..., 0, :].to(exact) * (weight[one].to(exact) - weight[other].to(exact))).sum(-1)
        return found if bias is None else found + (bias[one] - bias[other]).to(exact)
    n0, n1 = first.shape[1], second.shape[1]
    heads = torch.arange(n0 + n1 - 1, device=h.device)
    at = torch.cat([heads[:n0], heads[:1], heads[n0:]])  # both first tokens come from one place
    targets = torch.cat([first, second], 1).expand(*h.shape[:-2], n0 + n1)
    rows, targets = h.flatten(0, -3), targets.flatten(0, -2)
    found = []
    step = max(_HEAD_NUMBERS // (len(weight) * rows.shape[1]), 1)
    for begin in range(0, len(rows), step):
        logits = torch.nn.functional.linear(rows[begin : begin + step], weight, bias).to(exact)
        norm = logits.logsumexp(-1)[:, at]
        chosen = logits[:, at].gather(-1, targets[begin : begin + step, :, None])[..., 0]
        each = chosen - norm
        found.append(each[:, n0:].mean(1) - each[:, :n0].mean(1))
    return torch.cat(found).view(h.shape[:-2])


def _packed_mask(
    mask: Tensor | None, like: Tensor, start: int, prompt: int, sizes: Sequence[int]
) -> Tensor:
    """Who sees whom in the packed sequence: candidates see the prompt and themselves."""
    total = prompt + max(sizes)
    if mask is None:
        blocked = torch.full((total, total), -torch.inf, device=like.device, dtype=like.dtype)
        whole = blocked.triu(1)
    else:
        whole = mask.reshape(-1, *mask.shape[-2:])[0]  # without padding it is that of every row
    size = prompt - start + sum(sizes)
    found = torch.full((size, start + size), -torch.inf, device=like.device, dtype=like.dtype)
    found[: prompt - start, :prompt] = whole[start:prompt, :prompt]
    row = prompt - start
    for count in sizes:
        rows, column = slice(row, row + count), start + row
        found[rows, :prompt] = whole[prompt : prompt + count, :prompt]
        found[rows, column : column + count] = whole[
            prompt : prompt + count, prompt : prompt + count
        ]
        row += count
    return found


def _packed_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], shape: torch.Size, places: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A block's arguments where only some places are computed: what runs along time is picked."""

    def pick(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(pick(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        if value.ndim >= 4:  # a mask: attention brings its own
            return None
        if value.ndim >= 2 and value.shape[1] == shape[1]:
            return value[:1].index_select(1, places.to(value.device))
        return value

    return tuple(pick(arg) for arg in args), {name: pick(kwarg) for name, kwarg in kwargs.items()}


def _name_layer(residual: Sequence[Tensor]) -> None:
    for layer, x in enumerate(residual):
        if not torch.isfinite(x).all():
            where = "before block 0" if layer == 0 else f"after block {layer - 1}"
            raise ValueError(f"the model gives NaN or infinity from {where} on")
    raise ValueError("the model's head gives NaN or infinity")
