"""What a language model must show to be intervened on, and a pass in which it is watched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_one_at_a_time = threading.RLock()
_NAME = "mmxx_mediation"  # of our attention function in transformers' registry
_BENT = ("softcap", "s_aux", "sinks", "position_bias", "alibi", "head_mask")


@dataclass(frozen=True)
class DecoderParts:
    """The parts of a causal language model that mediation reads and writes.

    For an architecture that `decoder_parts` does not find, fill one in and hand it to
    `Mediation` in place of the model.

    Attributes:
        model: The whole model; it takes tokens [B, T].
        embedding: Its output is that of the words, before positions are added, [B, T, d].
        blocks: The L blocks, each called with the residual stream [B, T, d] as its first argument.
        attention: For each block the module that attends.
        mlp: For each block the module whose output [B, T, d] is the MLP's, before it is added.
        tail: What follows the last block: usually one normalisation.
        head: The weights of the head, [V, d].
        head_bias: Its biases, [V], or None.
        heads: Attention heads of each block.
        additive: Whether a change of the MLP's output changes the block's output by just that.
    """

    model: nn.Module
    embedding: nn.Module
    blocks: Sequence[nn.Module]
    attention: Sequence[nn.Module]
    mlp: Sequence[nn.Module]
    tail: Sequence[nn.Module]
    head: Tensor
    head_bias: Tensor | None
    heads: tuple[int, ...]
    additive: bool = True

    @property
    def own(self) -> bool:
        """Whether the blocks are those of our own GPT."""
        return hasattr(self.attention[0], "override")

    @property
    def width(self) -> int:
        """Width of the residual stream at the head."""
        return self.head.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tokens go."""
        return next(self.embedding.parameters()).device


class Watch:
    """What happens at each place of a pass. Each method may return something else instead.

    Attributes:
        batch: Rows of the pass; set when a block is called.
    """

    batch: int = 1

    def embedding(self, x: Tensor) -> Tensor:
        """The words' embeddings, [B, T, d]."""
        return x

    def residual(
        self, layer: int, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """What a block is called with; ``x`` is the residual stream before it, [B, T, d].

        After the last block it is called once more, with what that gives.
        """

    def keys(
        self, layer: int, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values, [B, heads of keys, T, d_head], and what is added to the scores."""
        return k, v, mask

    def weights(self, layer: int, w: Tensor) -> Tensor:
        """Attention after the softmax, [B, H, queries, keys]."""
        return w

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """The MLP's output, [B, T, d]."""
        return x


class _Step:
    """Stands where our GPT expects a pass through a cache: it hands keys to the watch."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def attend(
        self, layer: int, k: Tensor, v: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        queries = k.shape[2]
        visible = torch.ones(queries, queries, dtype=torch.bool, device=k.device).tril()
        if window is not None:
            visible = visible.triu(1 - window)
        blocked = torch.zeros(queries, queries, dtype=k.dtype, device=k.device)
        blocked.masked_fill_(~visible, -torch.inf)
        k, v, mask = self.watch.keys(layer, k, v, blocked)
        assert mask is not None
        return k, v, mask > -torch.inf


@contextmanager
def watched(parts: DecoderParts, watch: Watch) -> Iterator[None]:
    """Let ``watch`` see and change what the model does; afterwards it is as it was.

    Hooks are the module's, not the thread's: other threads wait.
    """
    training = [module for module in parts.model.modules() if module.training]
    with ExitStack() as stack:
        stack.enter_context(_one_at_a_time)
        for module in training:
            stack.callback(setattr, module, "training", True)
        parts.model.eval()
        for layer, mlp in enumerate(parts.mlp):
            stack.callback(mlp.register_forward_hook(_mlp_hook(watch, layer)).remove)
        hook = parts.embedding.register_forward_hook(_embedding_hook(watch))
        stack.callback(hook.remove)
        for layer, block in enumerate(parts.blocks):
            hook = block.register_forward_pre_hook(_block_hook(watch, layer), with_kwargs=True)
            stack.callback(hook.remove)
        hook = parts.blocks[-1].register_forward_hook(_end_hook(watch, len(parts.blocks)))
        stack.callback(hook.remove)
        if parts.own:
            for layer, attention in enumerate(parts.attention):
                stack.callback(setattr, attention, "override", attention.override)
                setattr(attention, "override", _weights_hook(watch, layer))  # noqa: B010
        else:
            layers = {id(module): layer for layer, module in enumerate(parts.attention)}
            stack.enter_context(attending(parts.model, watch, lambda m: layers[id(m)]))
        yield


def hidden(parts: DecoderParts, tokens: Tensor, watch: Watch) -> Tensor:
    """The model's pass inside of `watched`: what the head sees, [B, T, d]."""
    if not parts.own:
        base = getattr(parts.model, "base_model", parts.model)
        out = base(tokens, use_cache=False)
        return out[0] if isinstance(out, tuple) else out.last_hidden_state
    wpe: Any = parts.model.wpe
    if tokens.shape[1] > wpe.num_embeddings:
        raise ValueError(
            f"examples must have {wpe.num_embeddings} tokens or fewer with the candidates, "
            f"got {tokens.shape[1]}"
        )
    x = parts.embedding(tokens) + wpe.weight[: tokens.shape[1]]
    step = _Step(watch)
    for block in parts.blocks:
        x = block(x, step)
    return finish(parts, x)


def finish(parts: DecoderParts, x: Tensor) -> Tensor:
    """From the last block's output to what the head sees."""
    for module in parts.tail:
        x = module(x)
    return x


def call_block(
    parts: DecoderParts, layer: int, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """One block alone, inside of `watched`, with arguments as `Watch.residual` saw them."""
    out = parts.blocks[layer](x, *args, **kwargs)
    return out[0] if isinstance(out, tuple) else out


def own_arguments(watch: Watch) -> tuple[Any, ...]:
    """What a block of our own GPT takes beside the residual stream."""
    return (_Step(watch),)


def _embedding_hook(watch: Watch) -> Callable[..., Tensor]:
    def hook(_: nn.Module, __: tuple[Any, ...], out: Tensor) -> Tensor:
        return watch.embedding(out)

    return hook


def _mlp_hook(watch: Watch, layer: int) -> Callable[..., Any]:
    def hook(_: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
        if isinstance(out, tuple):  # a mixture of experts hands out its routing, too
            return (hook(_, __, out[0]), *out[1:])
        if out.ndim == 3:
            return watch.mlp(layer, out)
        # some fold batch and time into one axis
        return watch.mlp(layer, out.view(watch.batch, -1, out.shape[-1])).reshape(out.shape)

    return hook


def _weights_hook(watch: Watch, layer: int) -> Callable[[Tensor], Tensor]:
    return lambda weights: watch.weights(layer, weights)


def _block_hook(watch: Watch, layer: int) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args:
            x, args = args[0], args[1:]
        else:
            kwargs = dict(kwargs)
            x = kwargs.pop("hidden_states")
        watch.batch = x.shape[0]
        watch.residual(layer, x, args, kwargs)

    return hook


def _end_hook(watch: Watch, layers: int) -> Callable[..., None]:
    def hook(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
        watch.residual(layers, out[0] if isinstance(out, tuple) else out, (), {})

    return hook


# -- attention of transformers -----------------------------------------------------------------

_active: list[tuple[Watch, Callable[[nn.Module], int]]] = []  # the innermost watch is the last


@contextmanager
def attending(model: Any, watch: Watch, number: Callable[[nn.Module], int]) -> Iterator[None]:
    """Let our attention function stand in for the model's own; ``number`` tells the layer."""
    from transformers.masking_utils import AttentionMaskInterface, eager_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    _active.append((watch, number))
    try:
        yield
    finally:
        _active.pop()
        model.set_attn_implementation(before)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, Tensor]:
    """Plain attention that shows its weights: [B, H, T, d_head] to [B, T, H, d_head]."""
    bent = [name for name in _BENT if more.get(name) is not None]
    if bent:
        raise ValueError(
            f"{type(module).__name__} hands {bent[0]!r} to its attention, which mediation cannot "
            "reproduce; plain softmax attention is accepted"
        )
    watch, number = _active[-1]
    layer = number(module)
    key, value, mask = watch.keys(layer, key, value, attention_mask)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if mask is not None:
        scores = scores + mask
    least = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else None
    weights = watch.weights(layer, scores.softmax(-1, dtype=least).to(query.dtype))
    return (weights @ value).transpose(1, 2).contiguous(), weights
