"""Finding the parts of a model: a trace of two tokens shows what calls what.

The attention modules of a model of transformers are those that call the attention function that
is registered for it, its blocks the members of the list in which these lie, and its end what is
called after the last block. Our own GPT shows all of it by name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.language.mediation.decoder import (
    DecoderParts,
    Watch,
    attending,
    call_block,
    hidden,
    watched,
)

_CAUSAL = "mediation works on causal language models only"


def decoder_parts(model: nn.Module) -> DecoderParts:
    """The parts of a causal language model of transformers, or of our own GPT.

    Raises:
        TypeError: It is no ``torch.nn.Module``, or one that ``torch.compile`` has made.
        ValueError: It is an encoder, masked or encoder-decoder model, or its parts were not
            found; the message says what was looked for.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if hasattr(model, "_orig_mod"):
        raise TypeError(
            "model was made by torch.compile, which bakes the attention in; hand in the module "
            "that was compiled (model._orig_mod)"
        )
    names = ("wte", "wpe", "blocks", "norm")
    if all(hasattr(model, name) for name in names):
        own: Any = model
        if all(hasattr(block.attn, "override") for block in own.blocks):
            return DecoderParts(
                model=model, embedding=own.wte, blocks=tuple(own.blocks),
                attention=tuple(block.attn for block in own.blocks),
                mlp=tuple(block.mlp for block in own.blocks), tail=(own.norm,),
                head=own.wte.weight, head_bias=None,
                heads=tuple(block.attn.n_head for block in own.blocks),
            )  # fmt: skip
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(model, transformers.PreTrainedModel):
        raise ValueError(
            f"model {type(model).__name__} is neither a model of transformers nor one with "
            f"{', '.join(names)} and blocks whose attn has an override; describe it by DecoderParts"
        )
    return _traced(model)


class _Trace(Watch):
    """The order in which modules are called, and what the attentions are."""

    def __init__(self) -> None:
        self.attention: list[nn.Module] = []
        self.heads: list[int] = []
        self.calls: list[nn.Module] = []

    def met(self, module: nn.Module) -> int:
        """The number of an attention module, in the order of its first call."""
        if module not in self.attention:
            self.attention.append(module)
        return self.attention.index(module)

    def weights(self, layer: int, w: Tensor) -> Tensor:
        if len(self.heads) <= layer:
            self.heads.append(w.shape[1])
        return w


def _traced(model: Any) -> DecoderParts:
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"{_CAUSAL}; {name} has an encoder and a decoder")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding is None or head is None:
        raise ValueError(
            f"{_CAUSAL}; {name} has no {'head over words' if head is None else 'word embedding'}"
        )
    weight = head.weight  # of a quantised layer a method, and on "meta" where it was offloaded
    if not isinstance(weight, Tensor) or weight.is_meta or not weight.is_floating_point():
        raise ValueError(
            f"the head of {name} must hold its weights in memory, as floating-point numbers; "
            "quantise or offload the blocks alone"
        )
    trace = _Trace()
    training = [module for module in model.modules() if module.training]
    device = next(embedding.parameters()).device
    with ExitStack() as stack:
        for module in training:
            stack.callback(setattr, module, "training", True)
        model.eval()
        for module in model.modules():
            hook = module.register_forward_hook(lambda m, _, __: trace.calls.append(m))
            stack.callback(hook.remove)
        stack.enter_context(torch.inference_mode())
        if not model._can_set_attn_implementation():
            raise ValueError(
                f"{name} computes its attention itself, where it cannot be overridden; models that "
                "call transformers' attention interface are accepted"
            )
        with attending(model, trace, trace.met):
            first = model.base_model(torch.tensor([[0, 1]], device=device), use_cache=False)[0]
            trace.calls, calls = [], trace.calls
            second = model.base_model(torch.tensor([[0, 2]], device=device), use_cache=False)[0]
    if not torch.allclose(first[:, 0], second[:, 0], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ValueError(f"{_CAUSAL}; in {name} a word changes what stands before it")
    owner, blocks = _blocks(model, trace.attention, name)
    mlp = [
        _mlp_of(block, attention, calls)
        for block, attention in zip(blocks, trace.attention, strict=True)
    ]
    ended = max(index for index, module in enumerate(calls) if module is blocks[-1])
    inner = {id(child) for child in owner.children()}
    parts = DecoderParts(
        model=model, embedding=embedding, blocks=blocks, attention=tuple(trace.attention),
        mlp=mlp, tail=[module for module in calls[ended + 1 :] if id(module) in inner],
        head=head.weight, head_bias=getattr(head, "bias", None), heads=tuple(trace.heads),
    )  # fmt: skip
    return parts if _is_additive(parts) else replace(parts, additive=False)


def _blocks(
    model: nn.Module, attention: Sequence[nn.Module], name: str
) -> tuple[nn.Module, list[nn.Module]]:
    """The list whose members hold one attention module each, in order, and whose it is."""
    for owner in model.modules():
        for child in owner.children():
            if isinstance(child, nn.ModuleList) and attention and len(child) == len(attention):
                pairs = zip(child, attention, strict=True)
                if all(any(m is one for m in block.modules()) for block, one in pairs):
                    return owner, list(child)
    raise ValueError(
        f"the blocks of {name} were not found: looked for a ModuleList of as many blocks as there "
        f"are modules that call transformers' attention interface ({len(attention)}), one in each"
    )


def _mlp_of(block: nn.Module, attention: nn.Module, calls: Sequence[nn.Module]) -> nn.Module:
    """The last module with weights that a block calls, but for attention and normalisations."""
    held = {
        id(child)
        for child in block.children()
        if not any(module is attention for module in child.modules())
        and "norm" not in type(child).__name__.lower()
        and any(True for _ in child.parameters())
    }
    found = [module for module in calls if id(module) in held]
    if not found:
        raise ValueError(
            f"the MLP of {type(block).__name__} was not found: looked for a child with weights "
            "that is neither attention nor normalisation"
        )
    return found[-1]


class _Nudge(Watch):
    """Adds to the MLPs' outputs and to the embedding what it is told to."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = []
        self.by = 0.0
        self.added: Tensor | None = None

    def residual(
        self, layer: int, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.inputs.append((x, args, kwargs))

    def embedding(self, x: Tensor) -> Tensor:
        return self._moved(x)

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        return self._moved(x)

    def _moved(self, x: Tensor) -> Tensor:
        self.added = self.by * x
        return x + self.added


def _is_additive(parts: DecoderParts) -> bool:
    """Whether embedding and MLPs go into the residual stream as they are."""
    watch = _Nudge()
    tokens = torch.tensor([[0, 1]], device=parts.device)
    with torch.inference_mode(), watched(parts, watch):
        hidden(parts, tokens, watch)
        inputs = list(watch.inputs)
        for layer, (x, args, kwargs) in enumerate(inputs[:-1]):
            watch.by = 0.0
            before = call_block(parts, layer, x, args, kwargs)
            watch.by = 0.5
            after = call_block(parts, layer, x, args, kwargs)
            if not _moved_by(before, after, watch.added):
                return False
        before = parts.embedding(tokens)
        watch.inputs = []
        hidden(parts, tokens, watch)
        return _moved_by(inputs[0][0], watch.inputs[0][0], before / 3)  # it already holds the half


def _moved_by(before: Tensor, after: Tensor, added: Tensor | None) -> bool:
    assert added is not None
    if before.shape != added.shape:
        return False
    size = float(before.abs().max())
    return torch.allclose(after - before, added, rtol=1e-2, atol=1e-3 * size, equal_nan=True)
