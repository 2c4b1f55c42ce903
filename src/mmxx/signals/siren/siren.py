"""SIREN: a multilayer perceptron with sines, and the initialisation that makes it trainable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmxx.nn.linear import Linear
from mmxx.signals.siren._sine import sine_and_cosine_layer, sine_layer


def check_omega(name: str, omega: float) -> None:
    """Raises ValueError where a frequency is not positive and finite."""
    if not (math.isfinite(omega) and omega > 0):
        raise ValueError(f"{name} must be positive and finite, got {omega}")


def check_count(name: str, count: int, least: int = 1) -> None:
    """Raises ValueError where a count is below ``least``."""
    if isinstance(count, bool) or count != int(count) or count < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {count!r}")


class SineLayer(nn.Module):
    """A linear layer and a sine, $\\sin(\\omega_0 (W x + b))$ (section 3.2, eq. 4).

    The frequency multiplies the bias too, as in the authors' code; the paper's text writes
    $\\sin(\\omega_0 W x + b)$. It is folded into the weights when they are used, not when they
    are stored: so the optimiser sees W, and moves the phases $\\omega_0$ times as far.

    Args:
        in_features: Number of inputs.
        out_features: Number of outputs.
        omega_0: The frequency $\\omega_0$, in radian.
        is_first: Draw the weights of a first layer, $U(-1/n, 1/n)$ for n inputs, rather than
            $U(-\\sqrt{6/n}/\\omega_0, \\sqrt{6/n}/\\omega_0)$. Biases are $U(\\pm 1/\\sqrt n)$.
        generator: Where the draw comes from; torch's default generator if None.

    Raises:
        ValueError: If a size is below 1 or ``omega_0`` is not positive.

    Example:
        >>> layer = SineLayer(2, 8, is_first=True)
        >>> layer(torch.zeros(5, 2)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        omega_0: float = 30.0,
        is_first: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_count("in_features", in_features)
        check_count("out_features", out_features)
        check_omega("omega_0", omega_0)
        self.omega_0 = float(omega_0)
        self.is_first = is_first
        self.linear = Linear(in_features, out_features, device="cpu")
        bound = 1 / in_features if is_first else math.sqrt(6 / in_features) / self.omega_0
        init_linear_(self.linear, bound, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """The sines, [..., out_features], of inputs [..., in_features]."""
        return sine_layer(inputs, self.linear.weight, self.linear.bias, self.omega_0)

    def with_cosine(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The sines and the cosines of the same phases, each [N, out_features], of [N, in]."""
        return sine_and_cosine_layer(inputs, self.linear.weight, self.linear.bias, self.omega_0)

    def phases(self, inputs: Tensor) -> Tensor:
        """What the sine is taken of, [..., out_features]."""
        return self.omega_0 * self.linear(inputs)

    def extra_repr(self) -> str:
        """The frequency, for `repr`."""
        return f"omega_0={self.omega_0:g}"


def init_linear_(linear: nn.Linear, bound: float, generator: torch.Generator | None) -> None:
    """Draw weights from $U(\\pm$ ``bound``$)$ and biases from $U(\\pm 1/\\sqrt n)$, in place."""
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        width = 1 / math.sqrt(linear.in_features)
        linear.bias.uniform_(-width, width, generator=generator)


class Siren(nn.Module):
    """A sinusoidal representation network: coordinates in, the signal's value out.

    $\\Phi(x) = W_n (\\phi_{n-1} \\circ \\dots \\circ \\phi_0)(x) + b_n$ with
    $\\phi_i(x) = \\sin(\\omega_0 (W_i x + b_i))$ (section 3.1). Initialised as in section 3.2,
    so that phases are close to N(0, 1) and activations arcsine-distributed at any depth. The
    names and the state dictionary are those of the authors' notebook.

    Args:
        in_features: Number of coordinates d, which should lie in [-1, 1].
        out_features: Number of values c at each point.
        hidden_features: Width of the hidden layers.
        hidden_layers: Number of sine layers after the first one.
        omega_0: Frequency of the layers after the first.
        first_omega_0: Frequency of the first layer: the higher, the finer the detail, and the
            noise between the samples. 30 suits pictures of up to 512 pixels a side, 3,000
            seconds of sound.
        outermost_linear: End in a linear layer; if False in another sine.
        generator: Where the weights are drawn from; torch's default generator if None.

    Raises:
        ValueError: If a size is too small or a frequency is not positive.

    Example:
        >>> net = Siren(in_features=2, out_features=3, hidden_features=64)
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
        omega_0: float = 30.0,
        first_omega_0: float = 30.0,
        outermost_linear: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_count("hidden_features", hidden_features)
        check_count("hidden_layers", hidden_layers, 0)
        check_count("out_features", out_features)
        check_omega("omega_0", omega_0)
        check_omega("first_omega_0", first_omega_0)
        width = hidden_features
        layers: list[nn.Module] = [
            SineLayer(in_features, width, omega_0=first_omega_0, is_first=True, generator=generator)
        ]
        layers += [
            SineLayer(width, width, omega_0=omega_0, generator=generator)
            for _ in range(hidden_layers)
        ]
        if outermost_linear:
            last = Linear(width, out_features, device="cpu")
            init_linear_(last, math.sqrt(6 / width) / omega_0, generator)
            layers.append(last)
        else:
            layers.append(SineLayer(width, out_features, omega_0=omega_0, generator=generator))
        self.in_features = in_features
        self.out_features = out_features
        self.net = nn.Sequential(*layers)

    def forward(self, coords: Tensor) -> Tensor:
        """The values [..., out_features] at coordinates [..., in_features].

        Under `torch.autocast` the products between hidden layers are of low precision; the first
        and the last layer, which hold the detail and the values, and the sines are not.
        """
        device = coords.device.type
        if not torch.is_autocast_enabled(device):
            return self.net(coords)
        with torch.autocast(device, enabled=False):
            coords = self.net[0](coords)
        coords = self.net[1:-1](coords)
        with torch.autocast(device, enabled=False):
            return self.net[-1](coords)

    def activations(self, coords: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The phases and the sines of every sine layer, each [..., features]."""
        found: list[tuple[Tensor, Tensor]] = []
        for layer in self.net:
            if isinstance(layer, SineLayer):
                phases = layer.phases(coords)
                coords = torch.sin(phases)
                found.append((phases, coords))
        return found


def batched_siren(
    weights: Sequence[Tensor], biases: Sequence[Tensor], coords: Tensor, omegas: Sequence[float]
) -> Tensor:
    """Many SIRENs of one shape at once, by batched matrix products.

    Args:
        weights: Those of each layer for B networks, [B, out, in].
        biases: Those of each layer, [B, out].
        coords: [B, N, in], or [N, in] for the same points in each.
        omegas: The frequency of each layer but the last, which is linear.

    Returns:
        [B, N, out].

    Raises:
        ValueError: If the numbers of layers do not fit.

    Example:
        >>> weights, biases = [torch.ones(4, 8, 2), torch.ones(4, 1, 8)], [torch.zeros(4, 8)]
        >>> biases.append(torch.zeros(4, 1))
        >>> batched_siren(weights, biases, torch.zeros(10, 2), [30.0]).shape
        torch.Size([4, 10, 1])
    """
    if not len(weights) == len(biases) == len(omegas) + 1:
        raise ValueError(
            "batched_siren: weights and biases must be one longer than omegas, got "
            f"{len(weights)}, {len(biases)} and {len(omegas)}"
        )
    if coords.ndim == 2:
        coords = coords.expand(len(weights[0]), -1, -1)
    for weight, bias, omega in zip(weights[:-1], biases[:-1], omegas, strict=True):
        phases = torch.baddbmm(omega * bias[:, None], coords, (omega * weight).transpose(1, 2))
        coords = torch.sin(phases)
    return torch.baddbmm(biases[-1][:, None], coords, weights[-1].transpose(1, 2))


class BatchedSiren(nn.Module):
    """B independent SIRENs of one shape, for a data set of signals, evaluated together.

    Args:
        networks: The SIRENs, of equal shape and frequencies, with a linear last layer. Their
            weights are copied.

    Raises:
        ValueError: If there is none, they differ in shape or frequency, or end in a sine.

    Example:
        >>> fields = BatchedSiren([Siren(2, 1, hidden_features=16) for _ in range(5)])
        >>> fields(torch.zeros(10, 2)).shape
        torch.Size([5, 10, 1])
    """

    def __init__(self, networks: Sequence[Siren]) -> None:
        super().__init__()
        if not networks:
            raise ValueError("networks must hold at least one Siren, got none")
        self.omegas = omegas_of(networks[0])
        shapes = [p.shape for p in networks[0].parameters()]
        for network in networks:
            if (
                omegas_of(network) != self.omegas
                or [p.shape for p in network.parameters()] != shapes
            ):
                raise ValueError("networks must be of equal shapes and frequencies")
        parameters = [list(network.parameters()) for network in networks]
        stacked = [torch.stack(list(group)).detach() for group in zip(*parameters, strict=True)]
        self.weights = nn.ParameterList(stacked[::2])
        self.biases = nn.ParameterList(stacked[1::2])

    def forward(self, coords: Tensor) -> Tensor:
        """The values [B, N, c] at coordinates [N, d] or [B, N, d]."""
        return batched_siren(list(self.weights), list(self.biases), coords, self.omegas)


def omegas_of(network: Siren) -> list[float]:
    """The frequency of each sine layer.

    Raises:
        ValueError: If the network does not end in a linear layer.
    """
    layers = list(network.net)
    if isinstance(layers[-1], SineLayer):
        raise ValueError("the network must end in a linear layer (outermost_linear=True)")
    return [layer.omega_0 for layer in layers if isinstance(layer, SineLayer)]
