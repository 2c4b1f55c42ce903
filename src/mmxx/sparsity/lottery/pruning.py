"""Which weights go: magnitudes, other scores, per layer or over all layers together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmxx.kernels.select import keep_largest
from mmxx.sparsity._common import Masks, prunable

Scope = Literal["layer", "global"]
Criterion = Callable[[nn.Module, Masks], Mapping[str, Tensor]]


def prune(
    scores: Mapping[str, Tensor],
    masks: Masks,
    *,
    rate: float | Mapping[str, float] = 0.2,
    scope: Scope = "layer",
    min_per_unit: int = 0,
    replicas: int | None = None,
) -> Masks:
    """Drop a share of what is still kept: those with the smallest magnitude of the score.

    The number dropped is exact: of n weights left, a layer loses ``round(rate * n)``, all layers
    together ``ceil(rate * n)``. Among equal scores those of lower index go first.

    Args:
        scores: A tensor for each mask, of its shape: the trained weights, or any other score.
        masks: What is kept so far; what is returned lies within.
        rate: Share to drop, above 0 and below 1; per layer it may be a mapping from name.
        scope: "layer": each layer loses its share; "global": all of them together.
        min_per_unit: Weights that each output unit (first axis) keeps, where it has so many.
        replicas: Number of networks that are stacked along the first axis, each of which is
            pruned alone; None for one network that is not stacked.

    Returns:
        The new masks.

    Raises:
        ValueError: An argument is out of range, scores are for other parameters, or hold NaN.

    Warns:
        UserWarning: A layer has no weight left.

    Source: Frankle and Carbin (2019), section 1; the global way is section 4 there.

    Example:
        >>> weights = {"w": torch.tensor([[0.5, -0.1], [0.3, 2.0]])}
        >>> prune(weights, Masks({"w": torch.ones(2, 2, dtype=torch.bool)}), rate=0.5)["w"]
        tensor([[ True, False],
                [False,  True]])
    """
    rates = _rates(rate, masks, scope)
    if min_per_unit < 0:
        raise ValueError(f"min_per_unit must be 0 or more, got {min_per_unit}")
    _check_scores(scores, masks)
    new = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for names in [[name] for name in masks] if scope == "layer" else [list(masks)]:
        for replica in [None] if replicas is None else range(replicas):
            picked, kept, into = (
                [mapping[name] if replica is None else mapping[name][replica] for name in names]
                for mapping in (scores, masks, new)
            )
            left = sum(int(mask.count_nonzero()) for mask in kept)
            share = rates[names[0]] * left
            number = round(share) if scope == "layer" else math.ceil(share)
            try:
                _drop(picked, kept, into, number, min_per_unit)
            except ValueError as error:
                wrong = [name for name in names if bool(scores[name].isnan().any())]
                raise ValueError(
                    f"the score of {', '.join(wrong)} holds NaN: did the training diverge?"
                    if wrong
                    else str(error)
                ) from error
    _warn_of_empty(new, masks)
    return Masks(new)


def _drop(
    scores: Sequence[Tensor],
    kept: Sequence[Tensor],
    into: Sequence[Tensor],
    number: int,
    min_per_unit: int,
) -> None:
    """Write into the third what is left of the second after ``number`` are dropped."""
    free = list(kept)
    if min_per_unit:
        safe = [_strongest(s, k, min_per_unit) for s, k in zip(scores, kept, strict=True)]
        free = [k & ~s for k, s in zip(kept, safe, strict=True)]
        for place, mask in zip(into, safe, strict=True):
            place.copy_(mask)
    # Only what is kept takes part: the others count as 0, and go first.
    full = [bool(mask.all()) for mask in free]
    alike = [
        score.detach() if whole else torch.where(mask, score.detach(), 0.0)
        for score, mask, whole in zip(scores, free, full, strict=True)
    ]
    count = sum(int(mask.count_nonzero()) for mask in free)
    chosen = keep_largest(alike, max(count - number, 0))
    if any(bool((new & ~mask).any()) for new, mask in zip(chosen, free, strict=True)):
        # some that are kept are 0 as well, and must not be taken for those that are not
        left = [score[mask] for score, mask in zip(scores, free, strict=True)]
        chosen = [torch.zeros_like(mask) for mask in free]
        for new, mask, some in zip(
            chosen, free, keep_largest(left, max(count - number, 0)), strict=True
        ):
            new[mask] = some
    for place, new in zip(into, chosen, strict=True):
        place |= new


def _strongest(scores: Tensor, kept: Tensor, count: int) -> Tensor:
    """The kept entries of the ``count`` largest magnitudes of each row."""
    rows = scores.detach().abs().flatten(1).masked_fill(~kept.flatten(1), -1.0)
    safe = torch.zeros_like(rows, dtype=torch.bool)
    safe.scatter_(1, rows.topk(min(count, rows.shape[1]), dim=1).indices, True)
    return safe.view(scores.shape) & kept


def _rates(rate: float | Mapping[str, float], masks: Masks, scope: str) -> dict[str, float]:
    if scope not in ("layer", "global"):
        raise ValueError(f"scope must be 'layer' or 'global', got {scope!r}")
    if isinstance(rate, Mapping):
        if scope == "global":
            raise ValueError("rate must be one number where the scope is 'global'")
        if missing := [name for name in masks if name not in rate]:
            raise ValueError(f"rate names no share for {', '.join(missing)}")
        rates = {name: float(rate[name]) for name in masks}
    else:
        rates = dict.fromkeys(masks, float(rate))
    for value in rates.values():
        check_rate("rate", value)
    return rates


def check_rate(name: str, value: float) -> None:
    """Raise ValueError unless a share lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be above 0 and below 1, got {value}")


def _check_scores(scores: Mapping[str, Tensor], masks: Masks) -> None:
    missing = [name for name in masks if name not in scores]
    if missing:
        raise ValueError(f"there is no score of {', '.join(missing)}")
    for name, mask in masks.items():
        if scores[name].shape != mask.shape:
            raise ValueError(
                f"the score of {name} has shape {tuple(scores[name].shape)}, its mask "
                f"{tuple(mask.shape)}"
            )


def _warn_of_empty(new: Mapping[str, Tensor], before: Masks) -> None:
    for name, mask in new.items():
        if not bool(mask.any()) and bool(before[name].any()):
            warnings.warn(
                f"{name} has no weight left: its layer lets nothing through. Prune less, or keep "
                "some with min_per_unit",
                stacklevel=3,
            )


def snip(loss: Callable[[nn.Module], Tensor]) -> Criterion:
    r"""The criterion of SNIP: how much the loss feels each weight, $|w \, \partial L/\partial w|$.

    Args:
        loss: Gives the loss of a network on some batch.

    Returns:
        A function of the network and its masks, for `one_shot` or a `LotteryTicket`.

    Source: Lee, Ajanthan and Torr (2019), "SNIP: single-shot network pruning", equation 5.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> masks = one_shot(net, 0.5, criterion=snip(lambda n: n(torch.ones(1, 2)).sum()))
        >>> masks.kept
        1
    """

    def criterion(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
        wanted = masks.validate(model)
        with torch.enable_grad():
            slopes = torch.autograd.grad(loss(model), list(wanted.values()))
        pairs = zip(wanted.items(), slopes, strict=True)
        return {name: (weight.detach() * slope).abs() for (name, weight), slope in pairs}

    return criterion


def magnitude(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The criterion of the paper: the weights themselves, of which the magnitude counts."""
    return {name: weight.detach() for name, weight in masks.validate(model).items()}


def one_shot(
    model: nn.Module,
    density: float,
    *,
    criterion: Criterion = magnitude,
    scope: Scope = "global",
    names: Sequence[str] | None = None,
) -> Masks:
    """Masks of a network as it is, in one step: pruning at initialisation, or after training.

    Args:
        model: The network; it is not changed.
        density: Share of the weights to keep, above 0 and below 1.
        criterion: What scores the weights: `magnitude`, `snip`, or a function of the model and
            the masks that returns a tensor for each mask.
        scope: "global": over all layers together; "layer": in each of them.
        names: The parameters to prune; by default all weights of linear and convolutional layers.

    Returns:
        The masks.

    Raises:
        ValueError: The density is out of range, or a score holds NaN.
    """
    check_rate("density", density)
    masks = Masks.ones_like(model, names)
    return prune(criterion(model, masks), masks, rate=1 - density, scope=scope)


def output_layer(model: nn.Module, names: Sequence[str]) -> str:
    """The last of the named parameters, in the order of the model: the classifier's."""
    order = [name for name in prunable(model) if name in names] or list(names)
    return order[-1]
