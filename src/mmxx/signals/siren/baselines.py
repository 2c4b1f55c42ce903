"""The networks that the paper compares SIREN with (section 4.1, supplement section 3)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmxx.nn.linear import Linear
from mmxx.signals.siren.siren import check_count

Activation = Literal["relu", "tanh", "softplus", "elu", "selu", "rbf"]
_FUNCTIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
    "elu": nn.functional.elu,
    "selu": nn.functional.selu,
    "rbf": torch.relu,
}
# Standard deviation of the weights, times the square root of the number of inputs: He's for
# rectifiers, LeCun's for SELU, the value that keeps the variance of an ELU, and torch's own after
# an encoding: there it represents a photograph 5 dB closer than He's, which is the authors'.
_GAINS = {
    "relu": math.sqrt(2.0),
    "softplus": math.sqrt(2.0),
    "elu": math.sqrt(1.5505188080679277),
    "selu": 1.0,
    "rbf": math.sqrt(2.0),
    "encoded": math.sqrt(1 / 3),
}
_CENTRES = 1024


def nyquist_octaves(side: int) -> int:
    """Octaves that sin and cos of $2^i \\pi x$ can have on ``side`` samples of [-1, 1].

    The sampling rate is side / 2 for a unit of length; as in the authors' code a quarter of the
    side is taken as the highest frequency.

    Args:
        side: Samples along the longest axis.

    Example:
        >>> nyquist_octaves(64), nyquist_octaves(512)
        (4, 7)
    """
    check_count("side", side)
    return max(1, int(math.log2(max(side / 4, 1))))


class PositionalEncoding(nn.Module):
    """The coordinates, and sine and cosine of $2^i \\pi x$ for i below ``octaves`` (NeRF, eq. 4).

    Args:
        in_features: Number of coordinates d.
        octaves: Number of frequencies.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> PositionalEncoding(2, 4)(torch.zeros(5, 2)).shape
        torch.Size([5, 18])
    """

    frequencies: Tensor

    def __init__(self, in_features: int, octaves: int) -> None:
        super().__init__()
        check_count("in_features", in_features)
        check_count("octaves", octaves)
        self.out_features = in_features * (1 + 2 * octaves)
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(octaves))

    def forward(self, coords: Tensor) -> Tensor:
        """[..., d (1 + 2 octaves)] of coordinates [..., d]."""
        phases = (coords[..., None] * self.frequencies).flatten(-2)
        return torch.cat([coords, torch.sin(phases), torch.cos(phases)], dim=-1)


class GaussianFeatures(nn.Module):
    """Radial basis functions $\\exp(-(\\beta_k |x - c_k|)^2)$, centres and widths learned.

    Args:
        in_features: Number of coordinates d.
        out_features: Number of centres, drawn uniformly from [-1, 1].
        generator: Where the centres are drawn from; torch's default generator if None.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> GaussianFeatures(2, 64)(torch.zeros(5, 2)).shape
        torch.Size([5, 64])
    """

    def __init__(
        self, in_features: int, out_features: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_count("in_features", in_features)
        check_count("out_features", out_features)
        self.out_features = out_features
        centres = torch.empty(out_features, in_features)
        self.centres = nn.Parameter(centres.uniform_(-1, 1, generator=generator))
        self.betas = nn.Parameter(torch.full((out_features,), 10.0))

    def forward(self, coords: Tensor) -> Tensor:
        """[..., out_features] of coordinates [..., d]."""
        distances = (coords[..., None, :] - self.centres).square().sum(-1)
        return torch.exp(-self.betas.square() * distances)


class CoordinateMLP(nn.Module):
    """A multilayer perceptron of coordinates, of the depth and width of a `Siren`.

    Args:
        in_features: Number of coordinates d, which should lie in [-1, 1].
        out_features: Number of values c at each point.
        hidden_features: Width of the hidden layers.
        hidden_layers: Number of hidden layers after the first.
        activation: "relu", "tanh", "softplus", "elu", "selu", or "rbf": ReLU over 1,024 Gaussian
            features.
        octaves: Encode the coordinates with so many frequencies first, as NeRF does; 0 for none.
        generator: Where the weights are drawn from; torch's default generator if None.

    Raises:
        ValueError: If a size is too small or the activation unknown.

    Example:
        >>> net = CoordinateMLP(2, 3, hidden_features=64, activation="relu", octaves=4)
        >>> net(torch.zeros(10, 2)).shape
        torch.Size([10, 3])
    """

    def __init__(
        self,
        in_features: int = 2,
        out_features: int = 1,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        activation: Activation = "relu",
        octaves: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_count("in_features", in_features)
        check_count("out_features", out_features)
        check_count("hidden_features", hidden_features)
        check_count("hidden_layers", hidden_layers, 0)
        check_count("octaves", octaves, 0)
        if activation not in get_args(Activation):
            raise ValueError(
                f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.features: nn.Module = nn.Identity()
        width = in_features
        if octaves:
            self.features = PositionalEncoding(width, octaves)
            width = self.features.out_features
        elif activation == "rbf":
            self.features = GaussianFeatures(width, _CENTRES, generator=generator)
            width = _CENTRES
        sizes = [width, *[hidden_features] * (hidden_layers + 1), out_features]
        self.net = nn.Sequential(
            *(
                _linear(a, b, "encoded" if octaves else activation, generator)
                for a, b in pairwise(sizes)
            )
        )

    def forward(self, coords: Tensor) -> Tensor:
        """The values [..., out_features] at coordinates [..., in_features]."""
        return self.net[-1](self._hidden(coords)[-1])

    def activations(self, coords: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What goes into and comes out of every activation, each [..., features]."""
        before_and_after = self._hidden(coords)
        return list(zip(before_and_after[1::2], before_and_after[2::2], strict=True))

    def _hidden(self, coords: Tensor) -> list[Tensor]:
        found = [self.features(coords)]
        for layer in list(self.net)[:-1]:
            before = layer(found[-1])
            found += [before, _FUNCTIONS[self.activation](before)]
        return found


def _linear(
    in_features: int, out_features: int, activation: str, generator: torch.Generator | None
) -> nn.Linear:
    linear = Linear(in_features, out_features, device="cpu")
    width = 1 / math.sqrt(in_features)
    with torch.no_grad():
        linear.bias.uniform_(-width, width, generator=generator)
        if activation == "tanh":  # Glorot's
            deviation = math.sqrt(2 / (in_features + out_features))
        else:
            deviation = _GAINS[activation] / math.sqrt(in_features)
        linear.weight.normal_(0, deviation, generator=generator)
    return linear
