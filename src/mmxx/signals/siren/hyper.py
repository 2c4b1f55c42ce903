"""A prior over SIRENs: an encoder of observations, and a network that gives networks.

Section 4.4 and the supplement's section 9: a set of observed pixels (or a picture of them) is
encoded to a latent vector, from which a small ReLU network for each weight tensor makes a SIREN.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmxx.nn.linear import Linear
from mmxx.signals.siren.siren import Siren, batched_siren, check_count, omegas_of


def _relu_network(sizes: list[int], generator: torch.Generator | None) -> nn.Sequential:
    """Linear layers with ReLU between, drawn as He et al. propose; biases are zero."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = Linear(inputs, outputs, device="cpu")
        with torch.no_grad():
            linear.weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
            linear.bias.zero_()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class SetEncoder(nn.Module):
    """Encodes a set of observations: a network of each, then the mean (Garnelo et al., 2018).

    Args:
        in_features: Numbers in an observation: its coordinates and its values.
        latent_features: Length of the latent vector.
        hidden_features: Width of the hidden layers.
        hidden_layers: Their number.
        generator: Where the weights are drawn from; torch's default generator if None.

    Example:
        >>> encoder = SetEncoder(5, 32, hidden_features=16)
        >>> encoder(torch.zeros(4, 10, 5), torch.ones(4, 10, dtype=torch.bool)).shape
        torch.Size([4, 32])
    """

    def __init__(
        self,
        in_features: int,
        latent_features: int = 256,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, count in (("in_features", in_features), ("latent_features", latent_features)):
            check_count(name, count)
        sizes = [in_features, *[hidden_features] * hidden_layers, latent_features]
        self.net = _relu_network(sizes, generator)

    def forward(self, observations: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latent vectors [B, latent] of observations [B, M, in].

        ``mask`` [B, M] is True where there is an observation; a set without any is encoded as
        zeros.
        """
        encoded = self.net(observations)
        if mask is None:
            return encoded.mean(1)
        known = mask[..., None].to(encoded)
        return (encoded * known).sum(1) / known.sum(1).clamp_min(1)


class ConvEncoder(nn.Module):
    """Encodes pictures of which some pixels are known, by strided convolutions.

    Args:
        channels: Channels of a picture; whether a pixel is known is a further one inside.
        latent_features: Length of the latent vector.
        hidden_features: Channels of the convolutions.
        generator: Where the weights are drawn from; torch's default generator if None.

    Example:
        >>> encoder = ConvEncoder(3, 32, hidden_features=16)
        >>> encoder(torch.zeros(4, 3, 16, 16), torch.ones(4, 16, 16, dtype=torch.bool)).shape
        torch.Size([4, 32])
    """

    def __init__(
        self,
        channels: int,
        latent_features: int = 256,
        *,
        hidden_features: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_count("channels", channels)
        sizes = [channels + 1, hidden_features, hidden_features, hidden_features]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            stride = 1 if index == 0 else 2
            conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, device="meta")
            conv = conv.to_empty(device="cpu")
            with torch.no_grad():
                conv.weight.normal_(0, math.sqrt(2 / (9 * inputs)), generator=generator)
                assert conv.bias is not None
                conv.bias.zero_()
            layers += [conv, nn.ReLU()]
        self.net = nn.Sequential(*layers)
        self.head = _relu_network([hidden_features, latent_features], generator)

    def forward(self, pictures: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latent vectors [B, latent] of pictures [B, C, H, W] and a mask of known pixels [B, H, W].

        Unknown pixels are set to zero before anything is computed.
        """
        known = torch.ones_like(pictures[:, :1]) if mask is None else mask[:, None].to(pictures)
        features = self.net(torch.cat([pictures * known, known], dim=1))
        return self.head(features.mean((2, 3)))


class HyperNetwork(nn.Module):
    """Makes the weights of a SIREN from a latent vector, by a ReLU network for each tensor.

    The last layers begin small, with the weights of an initialised SIREN as biases: so every
    latent vector gives a network whose activations are as they should be, and nearly the same.

    Args:
        siren: The network whose shape, frequencies and first weights are taken; it is not kept.
        latent_features: Length of the latent vector.
        hidden_features: Width of the hidden layers.
        hidden_layers: Their number.
        generator: Where the weights are drawn from; torch's default generator if None.

    Raises:
        ValueError: If ``siren`` does not end in a linear layer.

    Example:
        >>> hyper = HyperNetwork(Siren(2, 1, hidden_features=16), 8, hidden_features=32)
        >>> hyper(torch.zeros(4, 8), torch.zeros(10, 2)).shape
        torch.Size([4, 10, 1])
    """

    def __init__(
        self,
        siren: Siren,
        latent_features: int = 256,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_count("latent_features", latent_features)
        self.omegas = omegas_of(siren)
        self.shapes = [p.shape for p in siren.parameters()]
        self.makers = nn.ModuleList()
        for parameter in siren.parameters():
            sizes = [latent_features, *[hidden_features] * hidden_layers, parameter.numel()]
            maker = _relu_network(sizes, generator)
            last = maker[-1]
            assert isinstance(last, nn.Linear)
            with torch.no_grad():
                last.weight.mul_(1e-2 * parameter.square().mean().sqrt())
                last.bias.copy_(parameter.flatten())
            self.makers.append(maker)

    def weights(self, latent: Tensor) -> list[Tensor]:
        """The tensors of B SIRENs for latent vectors [B, latent]: [B, out, in] and [B, out]."""
        return [
            maker(latent).reshape(len(latent), *shape)
            for maker, shape in zip(self.makers, self.shapes, strict=True)
        ]

    def forward(self, latent: Tensor, coords: Tensor) -> Tensor:
        """The values [B, N, c] for latent vectors [B, latent] at coords [N, d] or [B, N, d]."""
        made = self.weights(latent)
        return batched_siren(made[::2], made[1::2], coords, self.omegas)


def hyper_loss(
    values: Tensor,
    targets: Tensor,
    latent: Tensor,
    weights: list[Tensor],
    *,
    latent_weight: float = 1e-1,
    weight_weight: float = 1e2,
) -> Tensor:
    """Mean squared error, and the squares of the latent vectors and of the weights made.

    Args:
        values: What the SIRENs give, [B, N, c].
        targets: What they should, [B, N, c].
        latent: Latent vectors [B, latent].
        weights: The tensors of `HyperNetwork.weights`.
        latent_weight: Weight of the mean square of the latent vectors.
        weight_weight: Weight of the mean square of the weights of the SIRENs.

    Returns:
        A scalar.

    Example:
        >>> zeros = torch.zeros(2, 5, 1)
        >>> hyper_loss(zeros, zeros, torch.ones(2, 3), [zeros]).item()
        0.10000000149011612
    """
    total = torch.stack([w.square().sum() for w in weights]).sum()
    count = sum(w.numel() for w in weights)
    return (
        (values - targets).square().mean()
        + latent_weight * latent.square().mean()
        + weight_weight * total / count
    )
