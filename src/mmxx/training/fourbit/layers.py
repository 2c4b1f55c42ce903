"""Layers whose products have four-bit operands. Their parameters stay as they were."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mmxx.training.fourbit.products import (
    EightBitProduct,
    Geometry,
    QuantizedLookup,
    QuantizedProduct,
)
from mmxx.training.fourbit.recipes import Recipe, recipe_of
from mmxx.training.fourbit.tracing import Traced, mode

_BUFFERS = ("grad_exponent", "grad_counts", "running_alpha")


class Quantized:
    """What the layers share: a recipe, and state that travels with the model.

    Attributes:
        recipe: The `Recipe`.
        label: The layer's name in warnings.
        grad_exponent: The gradient's scale is two to this power (int32).
        grad_counts: Gradients seen, numbers in them, how many of these became 0 and how many
            lay beyond the range (int64 [4]).
        running_alpha: Where the input is clipped in evaluation with "sawb" (0: not known yet).
        pact_alpha: Where it is clipped with "pact", a parameter [1]; else None.
        traced: What `gemm` saw.
    """

    base: ClassVar[type[nn.Module]]
    recipe: Recipe
    label: str
    traced: Traced
    grad_exponent: Tensor
    grad_counts: Tensor
    running_alpha: Tensor
    pact_alpha: nn.Parameter | None

    @classmethod
    def from_float(cls, layer: Any, recipe: str | Recipe = "ibm4", *, label: str = "") -> Self:
        """Turn a layer into this kind, in place: its parameters and hooks stay the very same.

        Args:
            layer: Of the very type that this kind stands for.
            recipe: A `Recipe`, or the name of one.
            label: What warnings call the layer.

        Returns:
            The layer.

        Raises:
            ValueError: It is of another type, has been converted, or cannot be.
        """
        if isinstance(layer, Quantized):
            raise ValueError(
                f"layer {label or type(layer).__name__!r} has been converted already; "
                "use unconvert first"
            )
        if type(layer) is not cls.base:
            raise ValueError(
                f"layer must be a {cls.base.__name__}, and no subclass, got {type(layer).__name__}"
            )
        chosen = recipe_of(recipe)
        reason = cls.refuses(layer, chosen)
        if reason:
            raise ValueError(f"layer {label or type(layer).__name__!r}: {reason}")
        turned: Any = layer
        turned.__class__ = cls
        turned._set_up(chosen, label)
        return turned

    @staticmethod
    def refuses(layer: Any, recipe: Recipe) -> str:
        """Why a layer of the right type cannot be converted, or ""."""
        weight = layer.weight
        if not weight.is_floating_point():
            return f"weight must be of a floating type, got {weight.dtype}"
        return ""

    @property
    def has_eight_bits(self) -> bool:
        """Whether the layer's operands are 8-bit floats."""
        return False

    def _set_up(self: Any, recipe: Recipe, label: str) -> None:
        device = self.weight.device
        self.recipe = recipe
        self.label = label or type(self).__name__
        self.traced = Traced()
        scale = recipe.scale
        exponent = 0 if isinstance(scale, str) else int(torch.tensor(scale).log2())
        exponent = torch.tensor(exponent, dtype=torch.int32, device=device)
        self.register_buffer("grad_exponent", exponent)
        self.register_buffer("grad_counts", torch.zeros(4, dtype=torch.int64, device=device))
        self.register_buffer(
            "running_alpha", torch.zeros((), dtype=self.weight.dtype, device=device)
        )
        alpha = None
        clips = recipe.activations == "pact" and self.base is not nn.Embedding
        if clips and not self.has_eight_bits:
            alpha = nn.Parameter(
                torch.tensor([recipe.pact_alpha], dtype=self.weight.dtype, device=device)
            )
        self.register_parameter("pact_alpha", alpha)

    def to_float(self: Any) -> nn.Module:
        """Turn the layer back, in place; a learned clipping value is lost."""
        for name in _BUFFERS:
            delattr(self, name)
        del self.pact_alpha, self.recipe, self.label, self.traced
        self.__class__ = self.base
        return self

    def _check_floating(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise ValueError(
                f"layer {self.label!r}: its input must be of a floating type, got {x.dtype}"
            )

    def _product(self: Any, x: Tensor, geometry: Geometry | None) -> Tensor:
        self._check_floating(x)
        return QuantizedProduct.apply(
            x,
            self.weight,
            self.bias,
            self.pact_alpha,
            self.running_alpha,
            self.grad_exponent,
            self.grad_counts,
            self.recipe,
            geometry,
            self.training,
            self.label,
            self.traced if mode().trace else None,
        )

    def extra_repr(self: Any) -> str:
        """The layer's own arguments and its recipe."""
        return f"{self.base.extra_repr(self)}, recipe={self.recipe}"


class QuantLinear(Quantized, nn.Linear):
    """`torch.nn.Linear` whose three products have four-bit operands.

    Args:
        in_features: Size of the input, [..., in_features].
        out_features: Size of the output, [..., out_features].
        bias: Whether a bias is added, in full precision.
        recipe: A `Recipe`, or the name of one.
        label: What warnings call the layer.
        device: As of `torch.nn.Linear`, and so is dtype.
        dtype: See there.

    Example:
        >>> layer = QuantLinear(8, 4)
        >>> layer(torch.ones(2, 8)).shape
        torch.Size([2, 4])
    """

    base = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        recipe: str | Recipe = "ibm4",
        label: str = "",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)
        self._set_up(recipe_of(recipe), label)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output, [..., out_features] of the input's type."""
        if mode().exact:
            return nn.Linear.forward(self, input)
        return self._product(input, None)


class QuantConv2d(Quantized, nn.Conv2d):
    """`torch.nn.Conv2d` whose three products have four-bit operands.

    Args:
        in_channels: As of `torch.nn.Conv2d`, and so are the following.
        out_channels: See there.
        kernel_size: See there.
        stride: See there.
        padding: See there.
        dilation: See there.
        groups: See there.
        bias: See there; it is added in full precision.
        recipe: A `Recipe`, or the name of one.
        label: What warnings call the layer.
        device: As of `torch.nn.Conv2d`, and so is dtype.
        dtype: See there.

    Example:
        >>> layer = QuantConv2d(3, 8, 3, padding=1)
        >>> layer(torch.ones(2, 3, 5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """

    base = nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        recipe: str | Recipe = "ibm4",
        label: str = "",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Conv2d.__init__(
            self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            device=device, dtype=dtype,
        )  # fmt: skip
        chosen = recipe_of(recipe)
        reason = self.refuses(self, chosen)
        if reason:
            raise ValueError(reason)
        self._set_up(chosen, label)

    @staticmethod
    def refuses(layer: Any, recipe: Recipe) -> str:
        """Why a convolution cannot be converted, or ""."""
        if layer.padding_mode != "zeros":
            return f"padding_mode must be 'zeros', got {layer.padding_mode!r}"
        if layer.padding == "same" and any(
            d * (k - 1) % 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
        ):
            return "padding 'same' must be even: the kernel's sides must be odd numbers"
        if recipe.accumulate == "fp16" and layer.groups != 1:
            return f"accumulate='fp16' takes groups=1, got {layer.groups}"
        return Quantized.refuses(layer, recipe)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output, [N, out_channels, H, W] of the input's type."""
        if mode().exact:
            return nn.Conv2d.forward(self, input)
        padding = self.padding
        if isinstance(padding, str):
            padding = tuple(
                d * (k - 1) // 2 if padding == "same" else 0
                for d, k in zip(self.dilation, self.kernel_size, strict=True)
            )
        geometry = Geometry(self.stride, padding, self.dilation, self.groups)
        product = self._eight_bit_product if self.has_eight_bits else self._product
        if input.dim() == 3:  # a sample alone, as torch takes it
            return product(input[None], geometry)[0]
        return product(input, geometry)

    @property
    def has_eight_bits(self) -> bool:
        """Whether the layer's operands are 8-bit floats: the recipe asks for it, of one pixel."""
        return self.recipe.eight_bit_1x1 and math.prod(self.kernel_size) == 1

    def _eight_bit_product(self, x: Tensor, geometry: Geometry) -> Tensor:
        self._check_floating(x)
        return EightBitProduct.apply(
            x,
            self.weight,
            self.bias,
            self.grad_exponent,
            self.grad_counts,
            self.recipe.accumulate,
            geometry,
            self.label,
            self.traced if mode().trace else None,
        )


class QuantEmbedding(Quantized, nn.Embedding):
    """`torch.nn.Embedding` with INT4 weights and a rounded gradient.

    Args:
        num_embeddings: Rows of the table.
        embedding_dim: Their width.
        padding_idx: As of `torch.nn.Embedding`.
        recipe: A `Recipe`, or the name of one; ``activations`` has no effect.
        label: What warnings call the layer.
        device: As of `torch.nn.Embedding`, and so is dtype.
        dtype: See there.

    Example:
        >>> QuantEmbedding(10, 4)(torch.tensor([1, 3])).shape
        torch.Size([2, 4])
    """

    base = nn.Embedding

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        recipe: str | Recipe = "ibm4",
        label: str = "",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Embedding.__init__(
            self, num_embeddings, embedding_dim, padding_idx, device=device, dtype=dtype
        )
        self._set_up(recipe_of(recipe), label)

    @staticmethod
    def refuses(layer: Any, recipe: Recipe) -> str:
        """Why an embedding cannot be converted, or ""."""
        if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
            return "max_norm, scale_grad_by_freq and sparse must not be set"
        return Quantized.refuses(layer, recipe)

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the indices, [..., embedding_dim]."""
        if mode().exact:
            return nn.Embedding.forward(self, input)
        return QuantizedLookup.apply(
            input,
            self.weight,
            self.padding_idx,
            self.grad_exponent,
            self.grad_counts,
            self.recipe,
            self.label,
            self.traced if mode().trace else None,
        )


KINDS: dict[type[nn.Module], type[Quantized]] = {
    kind.base: kind for kind in (QuantLinear, QuantConv2d, QuantEmbedding)
}
"""Which layer takes the place of which."""
