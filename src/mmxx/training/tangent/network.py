"""Networks whose width can go to infinity: weights from N(0, 1), scaled where they act."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class NTKLinear(nn.Linear):
    r"""A linear layer that is scaled where it acts, $y = s_w W x + s_b b$ with W, b from N(0, 1).

    With $s_w = 1/\sqrt{\text{in\_features}}$ the gradient of a wide network, and so its tangent
    kernel, has a limit, which the usual initialisation gives only together with a learning rate
    that falls with the width.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether there is a b.
        scale: $s_w$; by default $1/\sqrt{\text{in\_features}}$.
        bias_scale: $s_b$.
        generator: Draws the weights; torch's default one if None.

    Raises:
        ValueError: A width below 1, or a scale that is not above 0.

    Source: Jacot, Gabriel and Hongler (2018).

    Example:
        >>> layer = NTKLinear(3, 1000, generator=torch.Generator().manual_seed(0))
        >>> bool(abs(layer.weight.std() - 1) < 0.05), round(layer.scale, 3)
        (True, 0.577)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        scale: float | None = None,
        bias_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        for name, width in (("in_features", in_features), ("out_features", out_features)):
            if width < 1:
                raise ValueError(f"{name} must be 1 or more, got {width}")
        scale = 1 / math.sqrt(in_features) if scale is None else scale
        for name, value in (("scale", scale), ("bias_scale", bias_scale)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        nn.Module.__init__(self)  # that of nn.Linear would draw weights of its own
        self.in_features, self.out_features = in_features, out_features
        self.scale, self.bias_scale = scale, bias_scale
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew from N(0, 1)."""
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, generator=generator)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        # Scaling the result costs less than scaling the weights.
        result = nn.functional.linear(input, self.weight) * self.scale
        return result if self.bias is None else result + self.bias_scale * self.bias


class Scaled(nn.Module):
    r"""An activation times a factor, so that a signal keeps its size from layer to layer.

    Args:
        act: The activation, element by element.
        factor: What it is multiplied by: $\sqrt 2$ keeps the size for ReLU.

    Example:
        >>> Scaled(nn.ReLU(), 2.0)(torch.tensor([-1.0, 3.0]))
        tensor([0., 6.])
    """

    def __init__(self, act: Callable[[Tensor], Tensor], factor: float) -> None:
        super().__init__()
        self.act = act
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return self.factor * self.act(input)


def ntk_mlp(
    widths: Sequence[int],
    act: Callable[[], nn.Module],
    *,
    head: nn.Module | None = None,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    r"""A fully connected network in the parametrisation of the paper, without biases.

    The first layer is not scaled: with inputs of length 1 its outputs are N(0, 1).

    Args:
        widths: Of input, hidden layers and output: ``(64, 1024, 1024, 1)``. A small one in the
            middle is a bottleneck.
        act: Makes the activation of the hidden layers.
        head: What the output goes through; nothing by default, and then the paper's theorem
            says that the network becomes linear in its parameters as the widths grow.
        generator: Draws the weights.

    Raises:
        ValueError: Fewer than two widths.

    Source: the networks that the paper compares.

    Example:
        >>> net = ntk_mlp((3, 8, 1), nn.SiLU, generator=torch.Generator().manual_seed(0))
        >>> net(torch.ones(5, 3)).shape
        torch.Size([5, 1])
    """
    if len(widths) < 2:
        raise ValueError(f"widths must name input and output at least, got {tuple(widths)}")
    parts: list[nn.Module] = []
    for index, (inner, outer) in enumerate(itertools.pairwise(widths)):
        if index:
            parts.append(act())
        scale = None if index else 1.0
        parts.append(NTKLinear(inner, outer, scale=scale, generator=generator))
    return nn.Sequential(*parts, *([] if head is None else [head]))
