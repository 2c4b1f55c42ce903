"""The recipes that are compared, and two short trainings to compare them on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.training.fourbit.conversion import convert, layers_of, stats, unconvert
from mmxx.training.fourbit.formats import Int4Sym, Log2FP4
from mmxx.training.fourbit.recipes import RECIPES, Recipe
from mmxx.training.fourbit.tracing import gemm

LOSS_SCALE = 2.0**10
"""The one loss scale of the arms without GradScale."""
_FP4 = RECIPES["ibm4"]
ARMS: dict[str, Recipe | None] = {
    "FP32": None,
    "4-bit": _FP4,
    "one phase": replace(_FP4, two_phases=False),
    "one loss scale": replace(_FP4, scale=LOSS_SCALE),
    "INT4 gradients": replace(_FP4, gradients=Int4Sym(), scale="max", two_phases=False),
    "INT4 forward only": replace(_FP4, gradients=None),
    "radix 2": replace(_FP4, gradients=Log2FP4(), two_phases=False),
    "radix 2, one loss scale": replace(
        _FP4, gradients=Log2FP4(), two_phases=False, scale=LOSS_SCALE
    ),
    "LUQ": RECIPES["luq4"],
}
"""What is compared: all but one thing as in "4-bit"; None is the unconverted model."""
_POINTS = 100  # of a curve of scales


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Layers draw weights, and LUQ its noise, from torch's default generator, then given back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _fit(
    net: nn.Module, item: dict[str, Any], batch: Callable[[], tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """Train with Adam and a cosine, and write down the loss and the scales."""
    recipe = item["recipe"]
    if recipe is not None:
        convert(net, recipe)
    optimizer = torch.optim.Adam(net.parameters(), lr=item["lr"], fused=True)
    steps = item["steps"]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve: list[float] = []
    scales: list[list[int]] = []
    for step in range(steps):
        x, y = batch()
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        curve.append(loss.item() / math.log(2))
        if not math.isfinite(curve[-1]):
            break
        if step % max(1, steps // _POINTS) == 0:
            scales.append([int(layer.grad_exponent) for _, layer in layers_of(net)])
    used = stats(net)
    return {
        "curve": curve,
        "scales": scales,
        "layers": [row["layer"] for row in used],
        "underflow": [row["underflow"] for row in used],
        "overflow": [row["overflow"] for row in used],
    }


def _quality(
    net: nn.Module, recipes: dict[str, Recipe], x: Tensor, y: Tensor
) -> dict[str, list[dict[str, Any]]]:
    """For each recipe and layer, how near a fixed batch's gradients are to those of FP32.

    The scale is let settle: a layer's first gradient sets it.
    """
    before = [layer.recipe for _, layer in layers_of(net)]
    if not before or not recipes:
        return {}
    with gemm(exact=True):
        true = _gradients(net, x, y)
    found = {}
    for name, recipe in recipes.items():
        unconvert(net)
        convert(net, recipe)
        with gemm(trace=True):
            ours = _gradients(net, x, y)
        rows = []
        for row, (label, layer) in zip(stats(net), layers_of(net), strict=True):
            want, got = true[label].flatten(), ours[label].flatten()
            length = float(want.norm() * got.norm())
            rows.append(
                {
                    "layer": label,
                    "cosine": float(want.dot(got)) / length if length else 0.0,
                    "underflow": row["underflow"],
                    "bias": row["bias"],
                    "input_bias": row["input_bias"],
                    "histogram": layer.traced.histogram,
                }
            )
        found[name] = rows
    return found


def _gradients(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    found = {}
    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.weight.grad is not None:
            found[name] = layer.weight.grad.double()
    return found


# -- text --------------------------------------------------------------------------------------


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A causal transformer that guesses the next character.

    Args:
        symbols: Size of the alphabet.
        length: Characters that it sees at most.
        width: Of a character, and of the blocks.
        blocks: How many.
        heads: Attention heads of each.
        position_std: Standard deviation of the embedding of places at the start; 1 is torch's.
    """

    def __init__(
        self,
        symbols: int,
        length: int,
        width: int,
        blocks: int,
        heads: int,
        *,
        position_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.places = nn.Parameter(torch.randn(length, width) * position_std)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols)

    def forward(self, characters: Tensor) -> Tensor:
        """Scores of the next characters, [N * length, symbols] for int64 [N, length]."""
        x = self.symbols(characters) + self.places[: characters.shape[1]]
        return self.head(self.norm(self.blocks(x))).flatten(0, 1)


def encode_text(text: str) -> np.ndarray:
    """A text as uint8; beyond the 255 most frequent characters all are one.

    Example:
        >>> encode_text("abca").tolist()
        [0, 1, 2, 0]
    """
    found, where, counts = np.unique(list(text), return_inverse=True, return_counts=True)
    ranks = np.empty(len(found), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(found))
    return np.minimum(ranks[where], 255).astype(np.uint8)


def train_text(item: dict[str, Any]) -> dict[str, Any]:
    """Train a `Transformer` under one recipe; the last tenth of the text is for the test.

    Args:
        item: recipe (None: unconverted), seed, text (of `encode_text`), steps, batch, length,
            width, blocks, heads, position_std, lr, tests (test pieces), and probe, recipes whose
            gradients are compared at the end.

    Returns:
        ``score``, bits per test character (infinite where training diverged); ``curve``, the
        loss of each step in bits; ``scales``, exponents of all layers; ``layers``; ``underflow``
        and ``overflow`` of each layer; ``quality``.
    """
    text = torch.from_numpy(item["text"].astype(np.int64))
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    length = item["length"]
    with _seeded(item["seed"]):
        net = Transformer(
            int(text.max()) + 1, length, item["width"], item["blocks"], item["heads"],
            position_std=item["position_std"],
        )  # fmt: skip
        generator = torch.Generator().manual_seed(item["seed"])
        span = torch.arange(length + 1)

        def batch() -> tuple[Tensor, Tensor]:
            starts = torch.randint(len(train) - length, (item["batch"], 1), generator=generator)
            pieces = train[starts + span]
            return pieces[:, :-1], pieces[:, 1:].flatten()

        def score() -> float:
            count = min(item["tests"], (len(test) - 1) // length)
            starts = torch.linspace(0, len(test) - length - 1, count).long()
            pieces = test[starts[:, None] + span].split(64)
            net.eval()
            with torch.no_grad():
                total = sum(
                    float(nn.functional.cross_entropy(net(p[:, :-1]), p[:, 1:].flatten())) * len(p)
                    for p in pieces
                )
            return total / count / math.log(2)

        return _scored(net, item, batch, score)


def _scored(
    net: nn.Module,
    item: dict[str, Any],
    batch: Callable[[], tuple[Tensor, Tensor]],
    score: Callable[[], float],
) -> dict[str, Any]:
    result: dict[str, Any] = {"quality": {}, **_fit(net, item, batch)}
    bits = score() if math.isfinite(result["curve"][-1]) else math.inf
    if math.isfinite(bits):
        net.train()
        result["quality"] = _quality(net, item["probe"], *batch())
    return {**result, "score": bits if math.isfinite(bits) else math.inf}


# -- pictures ----------------------------------------------------------------------------------


def conv_net(channels: int, width: int, classes: int) -> nn.Module:
    """Five convolutions with batch normalisation, and the mean over all places."""

    def block(inner: int, outer: int, stride: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(outer), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width), *block(width, width, 2), *block(width, 2 * width),
        *block(2 * width, 2 * width, 2), *block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )  # fmt: skip


def train_pictures(item: dict[str, Any]) -> dict[str, Any]:
    """Train a `conv_net` under one recipe; its inputs are not negative, so PACT clips them.

    Args:
        item: recipe (None: unconverted), seed, train and test (each pictures [N, H, W, C] and
            labels), classes, steps, batch, channels (of the first convolution), lr, and probe.

    Returns:
        As of `train_text`; ``score`` is the cross-entropy of the test pictures in bits.
    """
    (pictures, labels), (unseen, truth) = (
        (torch.from_numpy(x).movedim(-1, 1).contiguous(), torch.from_numpy(y))
        for x, y in (item["train"], item["test"])
    )
    recipe, probe = item["recipe"], item["probe"]
    if recipe is not None and recipe.activations is not None:
        recipe = replace(recipe, activations="pact")
        probe = {name: replace(r, activations="pact") for name, r in probe.items()}
    with _seeded(item["seed"]):
        net = conv_net(pictures.shape[1], item["channels"], item["classes"])
        generator = torch.Generator().manual_seed(item["seed"])

        def batch() -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(pictures), (item["batch"],), generator=generator)
            return pictures[chosen], labels[chosen]

        def score() -> float:
            net.eval()
            with torch.no_grad():
                scores = torch.cat([net(part) for part in unseen.split(256)])
            return float(nn.functional.cross_entropy(scores, truth)) / math.log(2)

        return _scored(net, {**item, "recipe": recipe, "probe": probe}, batch, score)
