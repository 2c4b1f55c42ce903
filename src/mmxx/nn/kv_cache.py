"""Keys and values of the tokens that a model has seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

Attended = tuple[Tensor, Tensor, Tensor | None]


class _Shape(Protocol):
    @property
    def n_layer(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...
    def window_of(self, layer: int) -> int | None: ...


class KVCache:
    """Keys and values of the tokens seen so far, so that a new token costs no recomputation.

    Rows may have different lengths: padding lies to the right and is overwritten. A banded layer
    holds its window only. For inference: no gradient flows through what is held.

    Args:
        config: The shape of the model.
        length: Tokens that there is room for; ``n_ctx`` by default.

    Attributes:
        lengths: Tokens that each row holds, [B]; None before the first pass.

    Raises:
        ValueError: ``length`` is not between 1 and ``n_ctx``.
    """

    def __init__(self, config: _Shape, length: int | None = None) -> None:
        length = config.n_ctx if length is None else length
        if not 1 <= length <= config.n_ctx:
            raise ValueError(f"length must lie in 1 … n_ctx={config.n_ctx}, got {length}")
        self.length = length
        self.lengths: Tensor | None = None
        self._slots = [
            min(length, config.window_of(layer) or length) for layer in range(config.n_layer)
        ]
        self._held: list[tuple[Tensor, Tensor] | None] = [None] * config.n_layer
        self._longest = 0
        self._equal = True  # whether all rows hold the same number of tokens

    def __len__(self) -> int:
        """Tokens held by the longest row."""
        return self._longest

    def select(self, rows: Tensor) -> KVCache:
        """A cache of these rows, each as often as it is named.

        Args:
            rows: Row numbers, shape [B'].
        """
        chosen = object.__new__(KVCache)
        chosen.__dict__.update(self.__dict__)
        chosen.lengths = None if self.lengths is None else self.lengths[rows]
        chosen._held = [
            None if held is None else (held[0][rows], held[1][rows]) for held in self._held
        ]
        return chosen

    def advance(self, tokens: Tensor, lengths: Tensor | None = None) -> CacheStep:
        """Begin a pass of new tokens, shape [B, T], of which ``lengths`` [B] count.

        Raises:
            ValueError: Another number of rows, lengths that are not 1 … T, or no room.
        """
        batch, width = tokens.shape
        before = tokens.new_zeros(batch) if self.lengths is None else self.lengths
        if len(before) != batch:
            raise ValueError(f"tokens must have the cache's {len(before)} rows, got {batch}")
        if lengths is not None and not bool(((lengths >= 1) & (lengths <= width)).all()):
            raise ValueError(f"lengths must lie in 1 … {width}, got {lengths.tolist()}")
        after = before + (width if lengths is None else lengths)
        longest = self._longest + width if lengths is None else int(after.max())
        if longest > self.length:
            raise ValueError(
                f"the cache has room for {self.length} tokens; it holds {self._longest}, and "
                f"{longest - self._longest} more were given"
            )
        start = self._longest if self._equal else None
        self._equal = self._equal and (lengths is None or bool((after == longest).all()))
        self.lengths, self._longest = after, longest
        return CacheStep(self, start, before, after, longest, width)


@dataclass
class CacheStep:
    """What the layers share in one pass through a cache.

    Attributes:
        cache: The cache.
        start: Tokens held before the pass by every row; None where rows differ.
        before: Tokens held before, [B].
        after: Tokens held after, [B].
        longest: Tokens held after by the longest row.
        width: New tokens of a row, T, padding among them.
    """

    cache: KVCache
    start: int | None
    before: Tensor
    after: Tensor
    longest: int
    width: int
    _masks: dict[int, Tensor | None] = field(default_factory=dict)

    @property
    def positions(self) -> Tensor:
        """The positions of the new tokens, [B, T], or [1, T] where rows are alike."""
        new = torch.arange(self.width, device=self.before.device)
        return new[None] + (self.before[:, None] if self.start is None else self.start)

    def attend(self, layer: int, k: Tensor, v: Tensor, window: int | None) -> Attended | None:
        """Add a layer's keys and values, [B, H, T, d], to the cache.

        Returns:
            Keys and values [B, H, S, d] to attend to, and a mask, [B or 1, 1, T, S], or None
            where everything is seen. Instead of all that, None where nothing was held before:
            then the new tokens attend to one another alone.
        """
        slots = self.cache._slots[layer]
        held = self.cache._held[layer]
        if held is None:
            shape = (k.shape[0], k.shape[1], slots, k.shape[3])
            held = self.cache._held[layer] = (k.new_zeros(shape), v.new_zeros(shape))
        new = (k.detach(), v.detach())
        if self.start == 0:
            if self.width <= slots:
                for buffer, x in zip(held, new, strict=True):
                    buffer[:, :, : self.width] = x
            else:
                self._scatter(held, new, slots)
            return None
        if self.width == 1:
            self._put(held, new, slots)
            seen = min(self.longest, slots)
            if slots not in self._masks:
                filled = torch.arange(seen, device=k.device) < self.after[:, None]
                self._masks[slots] = None if self.start is not None else filled[:, None, None]
            return held[0][:, :, :seen], held[1][:, :, :seen], self._masks[slots]
        keys, values = (torch.cat([old, x], 2) for old, x in zip(held, (k, v), strict=True))
        if slots not in self._masks:
            self._masks[slots] = self._mask(slots, window)
        self._scatter(held, new, slots)
        return keys, values, self._masks[slots]

    def _put(self, held: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], slots: int) -> None:
        """One new token in each row."""
        for buffer, x in zip(held, new, strict=True):
            if self.start is not None:
                buffer[:, :, self.start % slots] = x[:, :, 0]
            else:
                rows = torch.arange(len(x), device=x.device)
                buffer[rows, :, self.before % slots] = x[:, :, 0]

    def _scatter(self, held: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], slots: int) -> None:
        """Any number of new tokens: each slot keeps what it holds or takes its newest token."""
        slot = torch.arange(slots, device=self.before.device)
        source = _positions_in(slot, self.after, slots) - self.before[:, None]
        taken = source >= 0
        for buffer, x in zip(held, new, strict=True):
            index = source.clamp(min=0)[:, None, :, None].expand_as(buffer)
            torch.where(taken[:, None, :, None], x.gather(2, index), buffer, out=buffer)

    def _mask(self, slots: int, window: int | None) -> Tensor:
        """Which of the slots before the pass, and of the new tokens, each new token sees."""
        slot = torch.arange(slots, device=self.before.device)
        old = _positions_in(slot, self.before, slots)
        query = self.before[:, None] + torch.arange(self.width, device=self.before.device)
        key = torch.cat([old, query], 1)[:, None, None]  # [B, 1, 1, slots + T]
        query = query[:, None, :, None]
        seen = (key >= 0) & (key <= query)
        return seen if window is None else seen & (key > query - window)


def _positions_in(slot: Tensor, lengths: Tensor, slots: int) -> Tensor:
    """The position that each slot holds after that many tokens, negative for none, [B, slots].

    Position p lies in slot p modulo ``slots``.
    """
    return slot + (lengths[:, None] - 1 - slot).div(slots, rounding_mode="floor") * slots
