"""The GPT of GPT-2 and GPT-3: a pre-norm decoder with tied head and a key-value cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmxx.nn import gpt_weights
from mmxx.nn.cross_entropy import head_cross_entropy
from mmxx.nn.gpt_config import GPTConfig
from mmxx.nn.kv_cache import CacheStep, KVCache
from mmxx.nn.linear import Linear, linear


class _Embedding(nn.Embedding):
    """An embedding that GPT draws."""

    def reset_parameters(self) -> None:
        pass


class CausalSelfAttention(nn.Module):
    """Attention to a token itself and to those before it.

    Attributes:
        override: Where this is set, it receives the weights after the softmax,
            [B, n_head, T, S], and returns those to use.

    Args:
        config: The shape of the model.
        layer: The number of the block, from 0: whether it is banded.
    """

    override: Callable[[Tensor], Tensor] | None = None

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        inner = config.n_head * config.head_width
        self.qkv = Linear(config.d_model, 3 * inner, bias=config.bias)
        self.proj = Linear(inner, config.d_model, bias=config.bias)
        self.n_head, self.d_head = config.n_head, config.head_width
        self.window = config.window_of(layer)
        self.layer = layer
        self.dropout = config.dropout

    def forward(self, x: Tensor, step: CacheStep | None = None) -> Tensor:
        """Args:
            x: Inputs, shape [B, T, d_model].
            step: The pass through a cache, if there is one.

        Returns:
            Shape [B, T, d_model].
        """
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.n_head, self.d_head).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        mask = None
        cached = None if step is None else step.attend(self.layer, k, v, self.window)
        if cached is not None:
            k, v, mask = cached
        dropped = self.dropout if self.training else 0.0
        if self.override is not None:
            if cached is None:
                mask = causal_mask(length, self.window, x.device)
            y = self._eager(q, k, v, mask, dropped)
        elif cached is not None:
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropped)
        elif self.window is None or self.window >= length:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropped)
        else:
            y = banded_attention(q, k, v, self.window, dropped)
        y = self.proj(y.transpose(1, 2).reshape(batch, length, self.n_head * self.d_head))
        return functional.dropout(y, self.dropout, self.training)

    def _eager(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropped: float
    ) -> Tensor:
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.d_head)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        weights = scores.softmax(-1)
        if self.override is not None:
            weights = self.override(weights)
        return functional.dropout(weights, dropped) @ v


def causal_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """Who sees whom, [T, T]: query i sees the keys i - window + 1 … i, or all up to i."""
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return mask if window is None else mask.triu(1 - window)


def banded_attention(q: Tensor, k: Tensor, v: Tensor, window: int, dropout: float = 0.0) -> Tensor:
    """Causal attention to the last ``window`` keys, at the cost of a band.

    The sequence is cut into blocks of ``window``; a block attends to itself and to the one
    before it, and nothing of shape [T, T] is built.

    Args:
        q: Queries, shape [B, H, T, d_head].
        k: Keys, the same shape.
        v: Values, the same shape.
        window: Keys that a query sees, itself among them.
        dropout: Part of the weights that is dropped.

    Returns:
        Shape [B, H, T, d_head].
    """
    batch, heads, length, width = q.shape
    head = functional.scaled_dot_product_attention(
        q[:, :, :window], k[:, :, :window], v[:, :, :window], is_causal=True, dropout_p=dropout
    )
    blocks = -(-length // window)
    short = blocks * window - length
    q, k, v = (functional.pad(x, (0, 0, 0, short)) if short else x for x in (q, k, v))
    shape = (batch, heads, blocks, window, width)
    q, k, v = (x.reshape(shape).transpose(1, 2) for x in (q, k, v))  # [B, blocks, H, window, d]
    k, v = (torch.cat([x[:, :-1], x[:, 1:]], 3).flatten(0, 1) for x in (k, v))
    row = torch.arange(window, device=q.device)[:, None]
    column = torch.arange(2 * window, device=q.device)
    band = (column > row) & (column <= row + window)
    tail = functional.scaled_dot_product_attention(
        q[:, 1:].flatten(0, 1), k, v, attn_mask=band, dropout_p=dropout
    )
    tail = tail.view(batch, blocks - 1, heads, window, width).transpose(1, 2).flatten(2, 3)
    return torch.cat([head, tail[:, :, : length - window]], 2)


class MLP(nn.Module):
    """Two linear layers with the tanh form of GELU between them.

    Args:
        config: The shape of the model.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = config.d_ff or 4 * config.d_model
        self.fc = Linear(config.d_model, hidden, bias=config.bias)
        self.proj = Linear(hidden, config.d_model, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Shape [B, T, d_model] in and out."""
        y = self.proj(functional.gelu(self.fc(x), approximate="tanh"))
        return functional.dropout(y, self.dropout, self.training)


class Block(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x)).

    Args:
        config: The shape of the model.
        layer: The number of the block, from 0.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, config.eps, bias=config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.norm2 = nn.LayerNorm(config.d_model, config.eps, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, step: CacheStep | None = None) -> Tensor:
        """Shape [B, T, d_model] in and out; ``step`` is the pass through a cache."""
        x = x + self.attn(self.norm1(x), step)
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A language model: learned positions, pre-norm blocks, and a head tied to the embedding.

    Args:
        config: Its shape.
        generator: Draws the weights; torch's default generator where it is None.

    Attributes:
        config: Its shape.
        wte: Embedding of tokens, and the head.
        wpe: Embedding of positions.
        blocks: The blocks.
        norm: The last normalisation.

    Source: Radford et al. (2019), section 2.3; Brown et al. (2020), section 2.1.

    Example:
        >>> model = GPT(GPTConfig(n_layer=2, d_model=16, n_head=2, vocab_size=10, n_ctx=8))
        >>> logits, loss = model(torch.tensor([[1, 2, 3]]))
        >>> tuple(logits.shape), loss
        ((1, 3, 10), None)
    """

    def __init__(self, config: GPTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.wte = _Embedding(config.vocab_size, config.d_model)
        self.wpe = _Embedding(config.n_ctx, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.LayerNorm(config.d_model, config.eps, bias=config.bias)
        self._draw(generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator | None) -> None:
        """Section 2.1's modified initialisation, as in GPT-2: biases 0, the rest normal."""
        std = self.config.init_std
        residual = std / math.sqrt(2 * self.config.n_layer)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                spread = residual if name.endswith(".proj") else std
                module.weight.normal_(0.0, spread, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()

    @classmethod
    def from_folder(cls, path: str | Path, **changes: Any) -> GPT:
        """A GPT-2 from a folder as transformers writes it, in single precision.

        Args:
            path: Holds ``config.json`` and ``model.safetensors``, or an index of several files.
            changes: Fields of the configuration, such as ``dropout``, that are to differ.

        Raises:
            FileNotFoundError: No such files; pickled weights are not read.
            ValueError: Another model, a damaged file, or tensors that do not fit.
        """
        folder = Path(path)
        config = GPTConfig(**{**gpt_weights.read_config(folder), **changes})
        with torch.device("meta"):
            model = cls(config)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        state = gpt_weights.read_weights(folder, shapes)
        state = {name: tensor.float() for name, tensor in state.items()}
        model.load_state_dict(state, assign=True)
        return model

    def to_folder(self, path: str | Path) -> None:
        """Write the weights as transformers reads a GPT-2.

        Args:
            path: The folder, made if need be.

        Raises:
            ValueError: GPT-2's layout cannot say what this model is.
        """
        config = self.config
        if any((config.window_of(i) or config.n_ctx) < config.n_ctx for i in range(config.n_layer)):
            raise ValueError(
                f"GPT-2's layout has dense layers only, and attention is {config.attention!r}"
            )
        if config.n_head * config.head_width != config.d_model or not config.bias:
            raise ValueError(
                "GPT-2's layout needs n_head * d_head = d_model and biases, got "
                f"n_head={config.n_head}, d_head={config.head_width}, d_model={config.d_model}, "
                f"bias={config.bias}"
            )
        gpt_weights.write(Path(path), asdict(config), self.state_dict())

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        loss_mask: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Logits of the next token at every place, or the loss.

        Args:
            tokens: Integers, shape [B, T].
            targets: The next tokens, shape [B, T]. With them the loss is returned in place of
                the logits, which are then never held as a whole.
            cache: What was seen before; ``tokens`` go on from there and are added to it.
            loss_mask: Which targets count, shape [B, T]; by default all.
            lengths: With a cache: how many of the tokens of each row count, shape [B]; what is
                to the right of them is padding.

        Returns:
            Logits, shape [B, T, vocab_size], and None; or None and the mean loss in nats.

        Raises:
            ValueError: More tokens than ``n_ctx``, or than the cache has room for.
        """
        x = self.hidden(tokens, cache=cache, lengths=lengths)
        if targets is None:
            return self.head(x), None
        loss = head_cross_entropy(
            x.flatten(0, 1),
            self.wte.weight,
            targets.flatten(),
            None if loss_mask is None else loss_mask.flatten(),
            z_loss=self.config.z_loss,
        )
        return None, loss

    def hidden(
        self, tokens: Tensor, *, cache: KVCache | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """What the head sees, shape [B, T, d_model]; arguments as in `forward`."""
        if tokens.ndim != 2:
            raise ValueError(f"tokens must be [B, T], got shape {tuple(tokens.shape)}")
        if lengths is not None and cache is None:
            raise ValueError("lengths are for a pass through a cache; cache is None")
        length = tokens.shape[1]
        if cache is None:
            if length > self.config.n_ctx:
                raise ValueError(
                    f"tokens must be n_ctx={self.config.n_ctx} or fewer in a row, got {length}"
                )
            step, places = None, self.wpe.weight[:length]
        else:
            step = cache.advance(tokens, lengths)
            places = self.wpe(step.positions.clamp(max=self.config.n_ctx - 1))
        x = functional.dropout(self.wte(tokens) + places, self.config.dropout, self.training)
        for block in self.blocks:
            if self.config.checkpointing and self.training and step is None:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x, step)
        return self.norm(x)

    def head(self, x: Tensor) -> Tensor:
        """Logits of what the last normalisation gives, shape [..., vocab_size]."""
        return linear(x, self.wte.weight)

    def num_params(self, *, embedding: bool = True) -> int:
        """How many parameters.

        Args:
            embedding: Whether the embeddings of tokens and positions count. Without them it is
                the N of scaling laws.
        """
        total = sum(param.numel() for param in self.parameters())
        return total if embedding else total - self.wte.weight.numel() - self.wpe.weight.numel()

    def flops_per_token(self) -> int:
        """Floating-point operations of training on one token of a sequence of ``n_ctx``.

        6 for each parameter that multiplies (the head is one, positions are not), and 12 for
        each number of a head and key in reach (Kaplan et al. 2020, section 2.1).
        """
        config = self.config
        inner = config.n_head * config.head_width
        reach = sum(
            min(config.window_of(layer) or config.n_ctx, config.n_ctx)
            for layer in range(config.n_layer)
        )
        head = config.vocab_size * config.d_model
        return 6 * (self.num_params(embedding=False) + head) + 12 * inner * reach
