"""The shapes of GPTs, and those of the paper's table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

# Table 2.1: layers, width, heads, width of a head, tokens of a batch, learning rate.
PRESETS: dict[str, tuple[int, int, int, int, int, float]] = {
    "small": (12, 768, 12, 64, 500_000, 6.0e-4),
    "medium": (24, 1024, 16, 64, 500_000, 3.0e-4),
    "large": (24, 1536, 16, 96, 500_000, 2.5e-4),
    "xl": (24, 2048, 24, 128, 1_000_000, 2.0e-4),
    "2.7b": (32, 2560, 32, 80, 1_000_000, 1.6e-4),
    "6.7b": (32, 4096, 32, 128, 2_000_000, 1.2e-4),
    "13b": (40, 5140, 40, 128, 2_000_000, 1.0e-4),
    "175b": (96, 12288, 96, 128, 3_200_000, 0.6e-4),
}
_REPAIRED = {"xl": {"n_head": 16}, "13b": {"d_model": 5120}}


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT.

    Attributes:
        n_layer: Blocks.
        d_model: Width of the residual stream; even.
        n_head: Attention heads of a block.
        d_head: Width of a head; d_model / n_head by default, and any other width is allowed.
        d_ff: Hidden units of the MLP; 4 d_model by default.
        n_ctx: Tokens that the model sees.
        vocab_size: Tokens that there are.
        attention: "dense"; "banded", where a query sees the last ``window`` keys; or
            "alternating", where every second layer, from the second on, is banded (section 2.1).
        window: Keys that a query of a banded layer sees, itself among them.
        dropout: Part of the activations that is dropped in training.
        bias: Whether linear and normalisation layers have biases.
        eps: What a layer normalisation adds to the variance.
        init_std: Standard deviation of the weights at the start; the two projections of a block
            that write into the residual stream have this divided by √(2 n_layer). A small net
            learns in context with .02·√(768 / d_model), and not with .02.
        z_loss: Weight of the mean of log²Z in the loss.
        checkpointing: Whether training keeps only the inputs of the blocks and computes the
            rest again in the backward pass.

    Raises:
        ValueError: A size is not possible.
    """

    n_layer: int
    d_model: int
    n_head: int
    d_head: int | None = None
    d_ff: int | None = None
    n_ctx: int = 2048
    vocab_size: int = 50257
    attention: Literal["alternating", "dense", "banded"] = "alternating"
    window: int = 256
    dropout: float = 0.0
    bias: bool = True
    eps: float = 1e-5
    init_std: float = 0.02
    z_loss: float = 0.0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("n_layer", "d_model", "n_head", "n_ctx", "vocab_size", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("d_head", "d_ff"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, or None, got {getattr(self, name)}")
        if self.d_model % 2:
            raise ValueError(f"d_model must be even, got {self.d_model}")
        if self.d_head is None and self.d_model % self.n_head:
            raise ValueError(
                f"n_head must divide d_model={self.d_model} where d_head is not given, "
                f"got {self.n_head}"
            )
        if self.attention not in ("alternating", "dense", "banded"):
            raise ValueError(
                f"attention must be 'alternating', 'dense' or 'banded', got {self.attention!r}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        for name in ("eps", "init_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.z_loss < math.inf:
            raise ValueError(f"z_loss must be 0 or more, got {self.z_loss}")

    @classmethod
    def preset(cls, name: str, *, strict: bool = True, **changes: Any) -> GPTConfig:
        """One of the eight models of table 2.1, ``"small"`` to ``"175b"``.

        Args:
            name: small, medium, large, xl, 2.7b, 6.7b, 13b or 175b.
            strict: As the table says. Two of its rows do not fit their parameter counts; with
                False, xl has 16 heads, not 24, and 13b a width of 5120, not 5140.
            changes: Any field.
        """
        if name.lower() not in PRESETS:
            raise ValueError(f"a preset is one of {', '.join(PRESETS)}, got {name!r}")
        sizes = dict(
            zip(("n_layer", "d_model", "n_head", "d_head"), PRESETS[name.lower()], strict=False)
        )
        repaired = {} if strict else _REPAIRED.get(name.lower(), {})
        return cls(**{**sizes, **repaired, **changes})

    @property
    def head_width(self) -> int:
        """Width of an attention head."""
        return self.d_head or self.d_model // self.n_head

    def window_of(self, layer: int) -> int | None:
        """Keys that a query of that layer sees at most, or None where it sees all."""
        if self.attention == "dense" or (self.attention == "alternating" and layer % 2 == 0):
            return None
        return self.window
