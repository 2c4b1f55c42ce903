"""The optimizers that are compared, and two short trainings to compare them on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.training.adabelief.adabelief import AdaBelief
from mmxx.training.adabelief.presets import PRESETS

CONTROL = "Adam, eps tuned"
TEXT, PATCHES = PRESETS["lstm-2"], PRESETS["cifar"]
_STREAMS = 100


def adam_eps(eps: float, beta2: float = 0.999) -> float:
    r"""What AdaBelief's ``eps`` amounts to in Adam: $\sqrt{\epsilon / (1 - \beta_2)}$.

    Inside the recurrence $\epsilon$ accumulates to $\epsilon / (1 - \beta_2)$ under the root.

    Example:
        >>> round(adam_eps(1e-8), 5)
        0.00316
    """
    return math.sqrt(eps / (1 - beta2))


def optimizer(
    name: str, params: Any, lr: float, *, eps: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """One of the compared optimizers.

    Args:
        name: "AdaBelief", "Adam", "Adam, eps tuned" (the control) or "SGD" (momentum 0.9).
        params: Parameters or groups.
        lr: Learning rate.
        eps: AdaBelief's; the control takes what it amounts to.
        weight_decay: Coupled, as the paper's recipes have it.
    """
    common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    match name:
        case "AdaBelief":
            return AdaBelief(params, **common, eps=eps, weight_decouple=False, rectify=False)
        case "Adam":
            return torch.optim.Adam(params, **common, fused=True)
        case "Adam, eps tuned":
            return torch.optim.Adam(params, **common, eps=adam_eps(eps), fused=True)
        case "SGD":
            return torch.optim.SGD(params, **common, momentum=0.9)
    raise ValueError(f"name must be an optimizer that is compared, got {name!r}")


def grid(
    method: str,
    rates: Sequence[float],
    sgd_rates: Sequence[float],
    eps: float,
    others: Sequence[float],
    common: dict[str, Any],
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """One training for each optimizer, learning rate, eps and seed.

    Args:
        method: The optimizer that stands as AdaBelief.
        rates: Learning rates of the adaptive optimizers.
        sgd_rates: Those of SGD.
        eps: AdaBelief's.
        others: Further values of it.
        common: What all trainings share.
        seeds: One training each.
    """
    arms = [(arm, arm, lr, eps) for arm in ("AdaBelief", "Adam", CONTROL) for lr in rates]
    arms += [("SGD", "SGD", lr, eps) for lr in sgd_rates]
    arms += [(f"AdaBelief, eps {e:g}", "AdaBelief", lr, e) for e in others for lr in rates]
    return [
        {**common, "arm": arm, "optimizer": method if name == "AdaBelief" else name, "lr": lr}
        | {"eps": e, "seed": seed}
        for arm, name, lr, e in arms
        for seed in seeds
    ]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Layers draw their weights from torch's default generator, which is then given back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# -- text --------------------------------------------------------------------------------------


class CharLSTM(nn.Module):
    """Two LSTM layers that guess the next character.

    Args:
        symbols: Size of the alphabet.
        embedding: Width of a character.
        hidden: Width of each layer.
    """

    def __init__(self, symbols: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def loss(self, characters: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, of the next characters of int64 [N, length]."""
        logits = self.head(self.lstm(self.embedding(characters[:, :-1]))[0])
        return nn.functional.cross_entropy(logits.flatten(0, 1), characters[:, 1:].flatten())


def encode(text: str) -> np.ndarray:
    """A text as uint8; beyond the 255 most frequent characters all are one.

    Example:
        >>> encode("abca").tolist()
        [0, 1, 2, 0]
    """
    found, where, counts = np.unique(list(text), return_inverse=True, return_counts=True)
    ranks = np.empty(len(found), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(found))
    return np.minimum(ranks[where], 255).astype(np.uint8)


def train_text(item: dict[str, Any]) -> dict[str, Any]:
    """Train a `CharLSTM` with one optimizer; the last tenth of the text is for the test.

    Args:
        item: optimizer, lr, eps, seed, text (of `encode`), steps, batch, length, embedding,
            hidden and decay (whether lr falls to a tenth at 50 % and at 75 % of the steps).

    Returns:
        ``score``, bits per test character (infinite where training diverged), and ``curve``,
        the training loss of each step in bits.
    """
    text = torch.from_numpy(item["text"].astype(np.int64))
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    with _seeded(item["seed"]):
        net = CharLSTM(int(text.max()) + 1, item["embedding"], item["hidden"])
    opt = optimizer(
        item["optimizer"], net.parameters(), item["lr"], eps=item["eps"],
        weight_decay=TEXT["weight_decay"],
    )  # fmt: skip
    steps = item["steps"]
    drops = [steps // 2, steps * 3 // 4] if item["decay"] else []
    schedule = torch.optim.lr_scheduler.MultiStepLR(opt, drops, gamma=0.1)
    generator = torch.Generator().manual_seed(item["seed"])
    span = torch.arange(item["length"] + 1)
    curve: list[float] = []
    for _ in range(steps):
        starts = torch.randint(len(train) - len(span), (item["batch"], 1), generator=generator)
        loss = net.loss(train[starts + span])
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.25)
        opt.step()
        schedule.step()
        curve.append(loss.item() / math.log(2))
        if not math.isfinite(curve[-1]):
            return {"score": math.inf, "curve": curve}
    streams = max(1, min(_STREAMS, len(test) // (2 * len(span))))
    with torch.no_grad():
        left = test[: len(test) // streams * streams].view(streams, -1)
        bits = net.loss(left).item() / math.log(2)
    return {"score": bits if math.isfinite(bits) else math.inf, "curve": curve}


# -- pictures ----------------------------------------------------------------------------------


def conv_net(channels: int, width: int, classes: int) -> nn.Module:
    """Four convolutions with batch normalisation, and the mean over all places."""

    def block(inner: int, outer: int) -> list[nn.Module]:
        return [nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width), *block(width, width), nn.MaxPool2d(2),
        *block(width, 2 * width), *block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )  # fmt: skip


def train_patches(item: dict[str, Any]) -> dict[str, Any]:
    """Train a `conv_net` with one optimizer on batches of 64; lr falls to a tenth at 75 %.

    Args:
        item: optimizer, lr, eps, seed, train and test (each pictures [N, H, W, C] and labels),
            classes, epochs and width.

    Returns:
        ``score``, per cent right on the test pictures (0 where training diverged), and
        ``curve``, the mean training loss of each epoch.
    """
    (pictures, labels), (unseen, truth) = (
        (torch.from_numpy(x).movedim(-1, 1).contiguous(), torch.from_numpy(y))
        for x, y in (item["train"], item["test"])
    )
    with _seeded(item["seed"]):
        net = conv_net(pictures.shape[1], item["width"], item["classes"])
    opt = optimizer(
        item["optimizer"], net.parameters(), item["lr"], eps=item["eps"],
        weight_decay=PATCHES["weight_decay"],
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        opt, [max(1, item["epochs"] * 3 // 4)], gamma=0.1
    )
    generator = torch.Generator().manual_seed(item["seed"])
    curve: list[float] = []
    for _ in range(item["epochs"]):
        total = 0.0
        for chosen in torch.randperm(len(pictures), generator=generator).split(64):
            loss = nn.functional.cross_entropy(net(pictures[chosen]), labels[chosen])
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item() * len(chosen)
        schedule.step()
        curve.append(total / len(pictures))
        if not math.isfinite(curve[-1]):
            return {"score": 0.0, "curve": curve}
    net.eval()
    with torch.no_grad():
        guesses = torch.cat([net(part).argmax(1) for part in unseen.split(256)])
    return {"score": 100 * float((guesses == truth).double().mean()), "curve": curve}
