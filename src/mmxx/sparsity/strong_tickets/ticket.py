"""Strong lottery tickets by construction: masks over random weights, in place of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mmxx.sparsity._common import Masks
from mmxx.sparsity.strong_tickets import certificate
from mmxx.sparsity.strong_tickets.construct import Found, Map, find, octaves_for
from mmxx.sparsity.strong_tickets.law import Law
from mmxx.sparsity.strong_tickets.network import PLAIN, Form, RandomLayer, RandomNet

_STOP = 1000  # a search ends at eps divided by this; ending at eps itself costs accuracy


@dataclass(frozen=True)
class LayerCount:
    """What a layer of a ticket is made of.

    Attributes:
        name: In the ticket's network.
        weights: Weights and biases of the trained layer.
        choices: Random coefficients that the masks choose from.
        kept: Those that the masks keep.
        drawn: Hidden units drawn, with those that never fire and are pruned.
        retried: Trained weights that needed more coefficients than the others.
    """

    name: str
    weights: int
    choices: int
    kept: int
    drawn: int
    retried: int


class Ticket:
    """A random network, the masks that make it compute a trained network, and what is proved.

    Made by `StrongTicket.construct` or `GoldenTicket.construct`.

    Attributes:
        target: The trained network.
        net: The masked random network.
        counts: What each of its layers is made of.
    """

    def __init__(self, target: nn.Sequential, net: RandomNet, counts: Sequence[LayerCount]) -> None:
        """Put together what `construct` found: target, net and counts are kept as they are."""
        self.target, self.net, self.counts = target, net, tuple(counts)

    @property
    def masks(self) -> Masks:
        """Which random weights are kept."""
        return self.net.masks

    @property
    def kept_per_weight(self) -> float:
        """How many random weights are kept for each weight of the target."""
        weights = sum(count.weights for count in self.counts)
        return sum(count.kept for count in self.counts) / max(weights, 1)

    def weight_errors(self) -> np.ndarray:
        """Absolute error of every weight and bias, float64 [total]."""
        return certificate.weight_errors(self.target, self.net)

    def certificate(self, low: float = 0.0, high: float = 1.0) -> certificate.Certificate:
        """What is proved of the outputs for all inputs with values in [low, high]."""
        return certificate.certify(self.target, self.net, low, high)


class StrongTicket(Ticket):
    """A ticket by subset sum (Pensia et al., 2020): each weight is the sum of a few random ones.

    Example:
        >>> target = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> ticket = StrongTicket.construct(target, eps=0.01)
        >>> bool(ticket.weight_errors().max() <= 0.01)
        True
    """

    @classmethod
    def construct(
        cls,
        target: nn.Sequential,
        eps: float = 0.01,
        *,
        n: int | Literal["auto"] = "auto",
        seed: int = 0,
        share: Literal["none", "row"] = "none",
        nonneg_input: bool = True,
        stop: float | None = None,
        map: Map = map,
    ) -> StrongTicket:
        r"""Find, for every weight of a trained network, a subset of random products near it.

        Args:
            target: Linear layers, convolutions of one group, ReLU, Flatten, max and average
                pooling, Dropout, Identity, in a `torch.nn.Sequential`; float32 or float64.
            eps: No weight is off by more.
            n: Coefficients that each weight chooses from, 44 at most; "auto" takes
                $3\,\mathrm{round}(\log_2(s/\epsilon))$, s being the width of their distribution.
                A weight that no subset comes near gets 4 more at a time.
            seed: Of the random weights, which follow from it alone.
            share: "none": coefficients are products $v_{j,i,d} u_{i,d}$ of two random layers with a
                ReLU between, as in the theorem. "row": the weights of an output share their
                coefficients, uniform between the least and the largest weight of the network, as
                in the authors' experiment; much faster.
            nonneg_input: Whether the network's inputs are never negative, as pixels are. If they
                can be, each weight is found twice, for units that fire for either sign.
            stop: End the search for a weight at this error; by default a thousandth of ``eps``. At
                ``eps`` itself errors add up: a network may then lose its accuracy.
            map: Maps a function over chunks of rows, such as a process pool's; the result does
                not depend on it.

        Raises:
            TypeError: ``target`` is no Sequential, or has a layer that is not supported.
            ValueError: An argument is out of range, a weight is not finite, or ``eps`` cannot be
                reached with 44 coefficients.

        Source: Pensia et al. (2020), theorem 1 and experiment 1.
        """
        _check(eps, n, seed)
        if share not in ("none", "row"):
            raise ValueError(f"share must be 'none' or 'row', got {share!r}")
        stop = eps / _STOP if stop is None else stop
        if not 0 <= stop <= eps:
            raise ValueError(f"stop must lie between 0 and eps={eps}, got {stop}")
        law = "row" if share == "row" else "product"
        net, counts = _build(target, law, eps, stop, n, seed, nonneg_input, map)
        return cls(target, net, counts)


class GoldenTicket(Ticket):
    """A ticket by golden-ratio decomposition (Orseau et al., 2020): greedy, without a search.

    Example:
        >>> target = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> bool(GoldenTicket.construct(target, eps=0.01).weight_errors().max() <= 0.01)
        True
    """

    @classmethod
    def construct(
        cls,
        target: nn.Sequential,
        eps: float = 0.01,
        *,
        n: int | Literal["auto"] = "auto",
        seed: int = 0,
        nonneg_input: bool = True,
        map: Map = map,
    ) -> GoldenTicket:
        """Decompose every weight of a trained network into random products, one of each bin.

        Args:
            target: As for `StrongTicket`.
            eps: No weight is off by more.
            n: Products that each weight chooses from; "auto" takes so many that all bins are hit
                in about half of the cases. A weight that is left too far off gets half as many
                again.
            seed: Of the random weights.
            nonneg_input: Whether the network's inputs are never negative.
            map: As for `StrongTicket`.

        Raises:
            TypeError: As for `StrongTicket`.
            ValueError: As for `StrongTicket`.

        Source: Orseau, Hutter and Rivasplata (2020), hyperbolic sampling.
        """
        _check(eps, n, seed)
        net, counts = _build(target, "golden", eps, 0.0, n, seed, nonneg_input, map)
        return cls(target, net, counts)


def _check(eps: float, n: int | str, seed: int) -> None:
    if not 0 < eps < math.inf:
        raise ValueError(f"eps must be above 0, got {eps}")
    if n != "auto" and not (isinstance(n, int) and n >= 1):
        raise ValueError(f"n must be 'auto' or 1 or more, got {n!r}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2^64 - 1, got {seed}")


def _build(
    target: nn.Sequential,
    name: Any,
    eps: float,
    stop: float,
    n: int | str,
    seed: int,
    nonneg_input: bool,
    map: Map,
) -> tuple[RandomNet, list[LayerCount]]:
    forms = _forms(target, nonneg_input)
    least, most = _range(target)
    layers: list[nn.Module] = []
    counts: list[LayerCount] = []
    for place, (module, form) in enumerate(zip(target, forms, strict=True)):
        if form is None:
            layers.append(_plain(module))
            continue
        weight = module.get_parameter("weight").detach().double().numpy()
        bias = module.bias.detach().double().numpy() if module.bias is not None else None  # type: ignore[union-attr]
        law, bias_law = _laws(name, seed, place, least, most, weight, bias, eps)
        options: Any = {"eps": eps, "stop": stop, "n": None if n == "auto" else n, "map": map}
        signs = (1, -1) if form.signed and name != "row" else (1,)
        shaped = weight.reshape(*form.channels[::-1], form.taps)
        found = [find(shaped, law, sign, **options) for sign in signs]
        of_bias = None
        if bias is not None and bias_law is not None:
            of_bias = find(bias[:, None, None], bias_law, 1, **options)
        layer = RandomLayer(
            form, law, bias_law, [f.counts for f in found], int(of_bias.counts[0]) if of_bias else 0
        )
        layer.set_masks(
            [f.unpacked() for f in found], of_bias.unpacked()[:, 0, 0] if of_bias else None
        )
        layers.append(layer)
        counts.append(_count(f"layers.{place}", layer, weight, bias, [*found, of_bias]))
    return RandomNet(layers).train(target.training), counts


def _count(
    name: str,
    layer: RandomLayer,
    weight: np.ndarray,
    bias: np.ndarray | None,
    found: Sequence[Found | None],
) -> LayerCount:
    masks = [layer.get_buffer("mask")]
    if layer.bias_law is not None:
        masks.append(layer.get_buffer("bias_mask"))
    return LayerCount(
        name,
        weight.size + (0 if bias is None else bias.size),
        sum(mask.numel() for mask in masks),
        sum(int(mask.sum()) for mask in masks),
        layer.drawn,
        sum(f.retried for f in found if f is not None),
    )


def _laws(
    name: Any,
    seed: int,
    place: int,
    least: float,
    most: float,
    weight: np.ndarray,
    bias: np.ndarray | None,
    eps: float,
) -> tuple[Law, Law | None]:
    """The laws of a layer's random weights and of its biases'."""
    if name == "row":
        law = Law(name, seed, place, least, most)
        return law, None if bias is None else law.for_bias()

    def made(values: np.ndarray, of_bias: bool) -> Law:
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        if name == "golden":
            # rounded up, so that no weight exceeds the scale in single precision
            scale = float(np.nextafter(np.float32(largest), np.float32(np.inf)))
            return Law(name, seed, place, 0.0, scale, of_bias, octaves_for(eps, scale))
        return Law(name, seed, place, -2 * largest, 2 * largest, of_bias)

    return made(weight, False), None if bias is None else made(bias, True)


def _range(target: nn.Sequential) -> tuple[float, float]:
    """The least and the largest weight of all, and 0: what the authors draw between."""
    values = [p.detach().double().flatten() for p in target.parameters()]
    whole = torch.cat([torch.zeros(1, dtype=torch.float64), *values])
    least, most = float(whole.min()), float(whole.max())
    return (least, most) if least < most else (-1.0, 1.0)


def _plain(module: nn.Module) -> nn.Module:
    """A layer without weights, made again."""
    if isinstance(module, nn.Dropout):
        return nn.Identity()
    kind = type(module).__name__
    return getattr(nn, kind)(**{name: getattr(module, name) for name in PLAIN[kind]})


def _forms(target: nn.Sequential, nonneg: bool) -> list[Form | None]:
    """What every layer computes; None for those without weights."""
    if not isinstance(target, nn.Sequential):
        raise TypeError(f"target must be a torch.nn.Sequential, got {type(target).__name__}")
    wrong = [
        f"{name} ({type(module).__name__}{reason})"
        for name, module in target.named_children()
        if (reason := _refusal(module)) is not None
    ]
    if wrong:
        raise TypeError(
            f"target has layers that are not supported: {', '.join(wrong)}; accepted: Linear, "
            f"Conv1d, Conv2d, Conv3d with one group and zero padding by number, "
            f"Dropout, {', '.join(PLAIN)}"
        )
    for name, parameter in target.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"target has NaN or infinity in {name}")
    forms: list[Form | None] = []
    for module in target:
        if isinstance(module, nn.Linear):
            channels = module.in_features, module.out_features
            forms.append(Form(channels, signed=not nonneg))
            nonneg = False
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            forms.append(
                Form(
                    (module.in_channels, module.out_channels),
                    tuple(module.kernel_size),
                    tuple(module.stride),
                    tuple(int(p) for p in module.padding),
                    tuple(module.dilation),
                    signed=not nonneg,
                )
            )
            nonneg = False
        else:
            forms.append(None)
            nonneg = nonneg or isinstance(module, nn.ReLU)
    return forms


def _refusal(module: nn.Module) -> str | None:
    """Why a layer is not supported, in words; None if it is."""
    if isinstance(module, nn.Linear):
        return None
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if module.groups != 1:
            return f" of {module.groups} groups"
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            return f" with padding {module.padding_mode}, {module.padding}"
        return None
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        return f" of axes {module.start_dim} to {module.end_dim}"
    known = isinstance(module, nn.Dropout) or type(module).__name__ in PLAIN
    return None if known else ""
