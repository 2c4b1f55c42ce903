"""Three small networks of any widths: plain, residual and depthwise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


def _block(
    inner: int, outer: int, size: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(inner, outer, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
    ]


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def conv_net(channels: int, widths: Sequence[int], classes: int) -> nn.Sequential:
    """Convolutions of 3 × 3 with batch normalisation; pooling after the second and the fourth.

    Args:
        channels: Of the pictures.
        widths: Channels of each convolution.
        classes: Number of outputs.
    """
    layers: list[nn.Module] = []
    for number, width in enumerate(widths):
        layers += [*_block(channels, width), nn.ReLU()]
        if number in (1, 3):
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers, *_head(channels, classes))


class BasicBlock(nn.Module):
    """Two convolutions and a way past them (He et al. 2016).

    Args:
        inner: Channels of the input.
        outer: Channels of the output.
        stride: Of the first convolution.
    """

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(inner, outer, stride=stride), nn.ReLU(), *_block(outer, outer)
        )
        same = inner == outer and stride == 1
        self.past = nn.Identity() if same else nn.Sequential(*_block(inner, outer, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [N, outer, H / stride, W / stride] of [N, inner, H, W]."""
        return self.relu(self.body(x) + self.past(x))


def residual_net(channels: int, widths: Sequence[int], classes: int) -> nn.Sequential:
    """A convolution, and two `BasicBlock` for each further width, the first of stride 2.

    Args:
        channels: Of the pictures.
        widths: Channels of the first convolution and of each stage.
        classes: Number of outputs.
    """
    layers: list[nn.Module] = [*_block(channels, widths[0]), nn.ReLU()]
    for inner, outer in pairwise(widths):
        layers += [BasicBlock(inner, outer, 2), BasicBlock(outer, outer)]
    return nn.Sequential(*layers, *_head(widths[-1], classes))


class InvertedResidual(nn.Module):
    """Widen, convolve each channel alone, narrow (Sandler et al. 2018).

    Args:
        inner: Channels of the input.
        outer: Channels of the output.
        stride: Of the depthwise convolution.
        expansion: By how much it widens.
    """

    def __init__(self, inner: int, outer: int, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        wide = expansion * inner
        self.body = nn.Sequential(
            *_block(inner, wide, 1), nn.ReLU6(),
            *_block(wide, wide, 3, stride, wide), nn.ReLU6(),
            *_block(wide, outer, 1),
        )  # fmt: skip
        self.adds = inner == outer and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [N, outer, H / stride, W / stride] of [N, inner, H, W]."""
        return x + self.body(x) if self.adds else self.body(x)


def depthwise_net(channels: int, widths: Sequence[int], classes: int) -> nn.Sequential:
    """A convolution, and two `InvertedResidual` for each further width, the first of stride 2.

    Args:
        channels: Of the pictures.
        widths: Channels of the first convolution and of each stage.
        classes: Number of outputs.
    """
    layers: list[nn.Module] = [*_block(channels, widths[0]), nn.ReLU6()]
    for inner, outer in pairwise(widths):
        layers += [InvertedResidual(inner, outer, 2), InvertedResidual(outer, outer)]
    return nn.Sequential(*layers, *_head(widths[-1], classes))
