"""The two networks of the experiment, for others to use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class GlorotLinear(nn.Linear):
    """A linear layer that draws its weights from a normal distribution of Glorot's variance."""

    def reset_parameters(self) -> None:
        """Draw the weights anew, and set the biases to 0."""
        nn.init.xavier_normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def fully_connected(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them: the paper's LeNet-300-100 and its like.

    Weights begin as the paper has it: normal, with Glorot and Bengio's variance; biases at 0.

    Args:
        widths: Inputs, hidden layers and outputs, two or more.

    Raises:
        ValueError: Fewer than two widths, or one below 1.

    Example:
        >>> len(fully_connected((64, 300, 100, 10)))
        5
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths must be two or more, each 1 or more, got {tuple(widths)}")
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [GlorotLinear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv_net(channels: int, width: int, classes: int) -> nn.Module:
    """Four convolutions with batch normalisation, the mean over all places, and a linear layer.

    Args:
        channels: Of the pictures.
        width: Channels of the first two convolutions; the others have twice as many.
        classes: Outputs.
    """

    def block(inner: int, outer: int) -> list[nn.Module]:
        return [nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width), *block(width, width), nn.MaxPool2d(2),
        *block(width, 2 * width), *block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )  # fmt: skip
