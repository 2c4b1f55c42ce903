"""The trainings that are compared: hidden networks, common ones, and what should fail."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.parametrize import ParametrizationList

from mmxx.sparsity.edge_popup.classifier import fit_scores, perceptron
from mmxx.sparsity.edge_popup.edge_popup import EdgePopup
from mmxx.sparsity.edge_popup.frozen import fan_in, frozen_weight


def conv_net(
    channels: int, height: int, breadth: int, *, width: int, classes: int
) -> nn.Sequential:
    """Four convolutions in two blocks and three linear layers, not yet initialised.

    The paper's Conv-4 with batch normalisation (without parameters), at another width.

    Args:
        channels: Of the pictures.
        height: Of the pictures, 4 or more.
        breadth: Of the pictures, 4 or more.
        width: Channels of the first block; the second has twice as many.
        classes: How many.
    """

    def block(inner: int, outer: int) -> list[nn.Module]:
        conv = skip_init(nn.Conv2d, inner, outer, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outer, affine=False), nn.ReLU()]

    features = 2 * width * (height // 4) * (breadth // 4)
    return nn.Sequential(
        *block(channels, width), *block(width, width), nn.MaxPool2d(2),
        *block(width, 2 * width), *block(2 * width, 2 * width), nn.MaxPool2d(2),
        nn.Flatten(), *perceptron((features, 4 * width, 4 * width, classes)),
    )  # fmt: skip


def _network(item: dict[str, Any]) -> nn.Module:
    """The architecture, for pictures as the item has them."""
    pictures = item["train"][0]
    if item["width"]:
        return conv_net(*pictures.shape[1:], width=item["width"], classes=item["classes"])
    features = math.prod(pictures.shape[1:])
    return nn.Sequential(nn.Flatten(), *perceptron((features, *item["hidden"], item["classes"])))


@torch.no_grad()
def _initialise(net: nn.Module, seed: int) -> None:
    """Kaiming's normal weights, those that the hidden network has where k is 1."""
    for name, module in net.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            std = math.sqrt(2 / fan_in(module, module.weight))
            path = f"{name}.weight"
            module.weight.copy_(frozen_weight(module.weight.shape, std=std, seed=seed, name=path))


def _misled(net: EdgePopup, gradient: str) -> None:
    """Hand the scores a gradient other than edge-popup's."""
    for weight, scores in zip(_weights(net), net.scores(), strict=True):
        if gradient == "unsigned":  # that of |s|, taken for that of s
            scores.register_hook(lambda g, s=scores: g * s.detach().sgn())
        else:  # that of the mask's place in the weight, without the weight
            scores.register_hook(lambda g, s=scores, w=weight: g / (w * s.detach().sgn()))


@torch.no_grad()
def _score(net: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    net.eval()
    right = sum(
        int((net(part).argmax(1) == truth).sum())
        for part, truth in zip(pictures.split(256), labels.split(256), strict=True)
    )
    return 100 * right / len(labels)


def train(item: dict[str, Any]) -> dict[str, Any]:
    """Train one network and look at it before and after.

    Args:
        item: arm ("dense", or "hidden"), train and test (each pictures [N, C, H, W], float32,
            and labels), classes, hidden (widths) or width (of `conv_net`; 0 for none), epochs,
            lr, batch_size, seed; for a hidden network k, init, scale, frozen (scores stay as
            they are), gradient ("", "unsigned" or "weightless"), and show (whether to give the
            network away).

    Returns:
        ``untrained`` and ``score``, per cent right on the test pictures (``score`` 0 where
        training diverged), ``curve``; of a hidden network ``shuffled``, with its masks at random,
        ``weights``, how many it has, ``changed``, how many of them have other bits than before,
        and with ``show`` its ``ticket`` and ``first``, the weights of the first layer.
    """
    (pictures, labels), (unseen, truth) = (
        (torch.from_numpy(x), torch.from_numpy(y)) for x, y in (item["train"], item["test"])
    )
    net = _network(item)
    settings: dict[str, Any] = {
        "epochs": item["epochs"],
        "lr": item["lr"],
        "batch_size": item["batch_size"],
        "generator": torch.Generator().manual_seed(item["seed"]),
    }
    if item["arm"] == "dense":
        _initialise(net, item["seed"])
        result: dict[str, Any] = {"untrained": _score(net, unseen, truth)}
        result["curve"] = fit_scores(net, net.parameters(), pictures, labels, **settings)
        return result | {"score": _finished(result["curve"], net, unseen, truth)}
    hidden = EdgePopup.convert(
        net, k=item["k"], init=item["init"], scale=item["scale"], seed=item["seed"]
    )
    if item["gradient"]:
        _misled(hidden, item["gradient"])
    before = [weight.clone() for weight in _weights(hidden)]
    result = {"untrained": _score(hidden, unseen, truth)}
    settings["lr"] = 0.0 if item["frozen"] else item["lr"]
    result["curve"] = fit_scores(hidden, hidden.scores(), pictures, labels, **settings)
    result["score"] = _finished(result["curve"], hidden, unseen, truth)
    result["weights"] = sum(weight.numel() for weight in before)
    pairs = zip(before, _weights(hidden), strict=True)
    result["changed"] = sum(
        int((one.view(torch.int32) != other.view(torch.int32)).sum()) for one, other in pairs
    )
    if math.isfinite(result["curve"][-1]):
        result["shuffled"] = _score(_shuffled(hidden, item["seed"]), unseen, truth)
        if item["show"]:
            result["ticket"] = np.frombuffer(hidden.ticket().to_bytes(), np.uint8).copy()
            first = cast(Tensor, next(hidden.finalize().parameters())).detach()
            result["first"] = first[:32].numpy()
    return result


def _finished(curve: list[float], net: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    return _score(net, pictures, labels) if math.isfinite(curve[-1]) else 0.0


def _weights(net: EdgePopup) -> list[Tensor]:
    """The frozen weights, in the order of the scores."""
    return [cast(Tensor, m.original) for m in net.modules() if isinstance(m, ParametrizationList)]


@torch.no_grad()
def _shuffled(net: EdgePopup, seed: int) -> nn.Module:
    """The same frozen weights with as many in use, but at random."""
    other = net.finalize()
    masks = net.masks().randomise(seed)
    for (name, mask), weight in zip(masks.items(), _weights(net), strict=True):
        other.get_parameter(name).copy_(weight.masked_fill(~mask, 0.0))
    return other
