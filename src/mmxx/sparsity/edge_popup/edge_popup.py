"""EdgePopup: look for a network inside a random one, by scores in the place of weights."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from mmxx.sparsity._common import Masks, prunable
from mmxx.sparsity.edge_popup.frozen import INITS, fan_in, first_scores, frozen_weight
from mmxx.sparsity.edge_popup.hidden import RULES, Border, Hidden
from mmxx.sparsity.edge_popup.ticket import Ticket, bare

_SCOPES = ("layer", "global")
_LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)  # fmt: skip


class EdgePopup(nn.Module):
    r"""A network of frozen random weights, of which it learns which to use.

    Each weight has a score. Forward, a layer uses the fraction k of its weights whose scores
    have the largest magnitude; backward, every score gets the gradient of its edge's use times
    its weight, and edges whose scores grow pop up. Made by `convert`.

    Args:
        model: With the parametrizations that `convert` registers.
        borders: What decides over its layers, in their order.
        seed: The weights come from.
        init: Their kind.
        stds: Standard deviation of each.

    Attributes:
        model: The converted model; its layers hold ``parametrizations.weight.original``, the
            frozen weights, and ``parametrizations.weight[0].scores``.
        seed: As given.
        init: As given.

    Source: Ramanujan, Wortsman, Kembhavi, Farhadi and Rastegari (2020), section 3.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> hidden = EdgePopup.convert(net, k=0.5, seed=1)
        >>> optimizer = torch.optim.SGD(hidden.scores(), lr=0.1, momentum=0.9)
        >>> hidden(torch.ones(4, 8)).square().sum().backward()
        >>> optimizer.step()
        >>> hidden.masks()
        Masks(2 tensors, 160 of 320 weights kept)
        >>> type(hidden.finalize()[0])
        <class 'torch.nn.modules.linear.Linear'>
    """

    def __init__(
        self,
        model: nn.Module,
        borders: list[Border],
        *,
        seed: int,
        init: str,
        stds: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.model = model
        self.seed = seed
        self.init = init
        self._borders = borders
        self._stds = dict(stds)

    @classmethod
    def convert(
        cls,
        model: nn.Module,
        *,
        k: float | Mapping[str, float] = 0.5,
        init: str = "kaiming_normal",
        scale: bool = True,
        scope: str = "layer",
        rule: str = "drop",
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> EdgePopup:
        r"""A hidden network in a copy of a model; the model itself stays as it is.

        All linear and (transposed) convolutional layers take random weights that never change,
        and lose their biases; normalisations lose their learned scales and shifts. Other
        parameters, of embeddings for instance, stay trainable, with a warning.

        Args:
            model: Any module.
            k: Fraction of the weights that is used, in (0, 1]; or one for each weight by name.
            init: ``"kaiming_normal"``, or ``"signed_constant"``: $\pm\sqrt{2 / n}$ of n inputs.
            scale: Multiply the weights by $\sqrt{1/k}$, so that the part that is used has the
                variance that a whole layer would have.
            scope: ``"layer"`` keeps k of every layer, ``"global"`` k of all weights together.
            rule: What becomes of the other weights: ``"drop"`` zeroes them (the paper's),
                ``"flip"`` turns their sign. With ``"stochastic"`` a weight is drawn with the
                probability $\sigma(s)$ at every use, and used where it is above a half in
                evaluation; k then only scales (Zhou et al. 2019).
            seed: Of weights and scores: the same seed gives the same bits on every machine.
            generator: Draws the masks of ``"stochastic"``; by default torch's own.

        Raises:
            ValueError: An argument is out of range; the model has no such layer; a weight is
                shared by two layers, parametrized already or not yet initialised.

        Warns:
            UserWarning: Other parameters stay trainable.
        """
        _check_choices(init=(init, INITS), scope=(scope, _SCOPES), rule=(rule, RULES))
        if not isinstance(seed, Integral):
            raise ValueError(f"seed must be an integer, got {seed!r}")
        layers = _layers(model)
        shares = _shares(k, list(layers), scope)
        net = bare(copy.deepcopy(model), layers)
        borders: list[Border] = []
        stds: dict[str, float] = {}
        for name in layers:
            module = net.get_submodule(name.rpartition(".")[0])
            weight = cast(Tensor, module.weight)
            fan = fan_in(module, weight)
            stds[name] = math.sqrt(2 / fan) * (math.sqrt(1 / shares[name]) if scale else 1.0)
            if scope == "layer" or not borders:
                borders.append(Border(rule, shares[name]))
            with torch.no_grad():
                weight.copy_(
                    frozen_weight(weight.shape, std=stds[name], init=init, seed=seed, name=name)
                )
            weight.requires_grad_(False)
            scores = first_scores(weight.shape, bound=1 / math.sqrt(fan), seed=seed, name=name)
            layer = Hidden(name, scores.to(weight), borders[-1], generator)
            parametrize.register_parametrization(module, "weight", layer, unsafe=True)
            owner = cast(Any, module).parametrizations.weight
            borders[-1].add(layer, owner)
        _warn_of_others(net)
        return cls(net, borders, seed=int(seed), init=init, stds=stds)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives, through the edges that are up."""
        unfrozen = [layer.name for layer in self._hidden() if layer.weight.requires_grad]
        if unfrozen:
            warnings.warn(
                f"the weight of {', '.join(unfrozen)} is frozen: requires_grad has no effect on "
                "it, and an optimizer that has it changes nothing; train scores()",
                stacklevel=2,
            )
        if self.training:  # also for changes through .data, which torch does not count
            for border in self._borders:
                border.forget()
        return self.model(*args, **kwargs)

    def _hidden(self) -> list[Hidden]:
        return [layer for border in self._borders for layer in border.layers]

    def scores(self) -> list[nn.Parameter]:
        """The scores of all layers: what an optimizer shall train."""
        return [layer.scores for layer in self._hidden()]

    @property
    def k(self) -> float | dict[str, float]:
        """The fraction that is used: one number, or by weight where they differ.

        It can be set, to one number or by weight: that is how to lower it during training
        (`annealed`). The weights keep the scale that they were given in the beginning.
        """
        values = {border.k for border in self._borders}
        if len(values) == 1:
            return values.pop()
        return {layer.name: layer.border.k for layer in self._hidden()}

    @k.setter
    def k(self, value: float | Mapping[str, float]) -> None:
        hidden = self._hidden()
        scope = "layer" if len(self._borders) == len(hidden) else "global"
        shares = _shares(value, [layer.name for layer in hidden], scope)
        for layer in hidden:
            layer.border.k = shares[layer.name]

    def masks(self) -> Masks:
        """Which weights are used now, by their names in the model."""
        pairs = [
            (layer.name, mask)
            for border in self._borders
            for layer, mask in zip(border.layers, border.masks(), strict=True)
        ]
        return Masks(dict(pairs))

    def finalize(self) -> nn.Module:
        """A plain model with the weights that are used, and 0 (or -w) elsewhere.

        It has ordinary layers, costs what such a model costs, and shares nothing with this one.
        """
        was_training = [(module, module.training) for module in self.modules()]
        self.eval()  # a stochastic mask is drawn in training
        net = copy.deepcopy(self.model)
        for module, training in was_training:
            module.training = training
        for layer in self._hidden():
            module = net.get_submodule(layer.name.rpartition(".")[0])
            with torch.no_grad():
                weight = cast(Tensor, module.weight).detach().clone()
            # torch's remove_parametrizations would take the property from the class, which a
            # deep copy shares with its original
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.register_parameter("weight", nn.Parameter(weight))
        return net.train(self.training)

    def ticket(self) -> Ticket:
        """All that is needed to have this network again: a seed, and a bit for each weight.

        Raises:
            ValueError: The frozen weights are no longer those of the seed.
        """
        for layer in self._hidden():
            if not torch.equal(layer.weight.cpu(), self._drawn(layer).to(layer.weight.dtype)):
                raise ValueError(
                    f"the weight of {layer.name} is not that of seed {self.seed} any more: a "
                    "ticket could not give it back. Was it changed, or loaded from another seed?"
                )
        masks = self.masks()
        final = self.finalize().state_dict()
        return Ticket(
            seed=self.seed,
            init=self.init,
            rule="flip" if self._borders[0].rule == "flip" else "drop",
            stds=self._stds,
            masks=Masks({name: mask.cpu() for name, mask in masks.items()}),
            rest={n: t.detach().cpu().clone() for n, t in final.items() if n not in masks},
        )

    def _drawn(self, layer: Hidden) -> Tensor:
        return frozen_weight(
            layer.weight.shape,
            std=self._stds[layer.name],
            init=self.init,
            seed=self.seed,
            name=layer.name,
        )

    def save_ticket(self, path: str | Path) -> None:
        """Write the ticket to a file, for `load_ticket`.

        Args:
            path: Of a safetensors file.

        Raises:
            ValueError: The frozen weights are no longer those of the seed.
        """
        self.ticket().save(path)

    def extra_repr(self) -> str:
        """The settings."""
        return f"k={self.k}, init={self.init!r}, seed={self.seed}, rule={self._borders[0].rule!r}"


def annealed(step: int, steps: int, *, end: float, start: float = 1.0, power: float = 3.0) -> float:
    r"""A fraction that falls from start to end, fast at first: $e + (s - e)(1 - t)^p$.

    Args:
        step: From 0 to ``steps``; t is ``step / steps``, and 1 from there on.
        steps: When ``end`` is reached.
        end: The last fraction, in (0, 1].
        start: The first, in (0, 1].
        power: p; 1 is linear.

    Raises:
        ValueError: A fraction is not in (0, 1], or ``steps`` or ``power`` is not above 0.

    Example:
        >>> [round(annealed(step, 4, end=0.2), 3) for step in range(6)]
        [1.0, 0.538, 0.3, 0.213, 0.2, 0.2]
    """
    for name, share in (("end", end), ("start", start)):
        _check_share(name, share)
    if steps <= 0 or power <= 0:
        raise ValueError(f"steps and power must be above 0, got {steps} and {power}")
    left = 1 - min(max(step, 0) / steps, 1.0)
    return end + (start - end) * left**power


# -- what is accepted --------------------------------------------------------------------------


def _check_choices(**choices: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, accepted) in choices.items():
        if value not in accepted:
            raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")


def _check_share(name: str, share: Any) -> None:
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) <= 1:
        raise ValueError(f"{name} must be in (0, 1], the fraction that is kept, got {share!r}")


def _shares(k: Any, names: list[str], scope: str) -> dict[str, float]:
    """The fraction of each weight."""
    if not isinstance(k, Mapping):
        _check_share("k", k)
        return dict.fromkeys(names, float(k))
    if scope == "global":
        raise ValueError("k must be one number with scope='global', got one for each weight")
    if set(k) != set(names):
        raise ValueError(
            f"k must name every weight ({', '.join(names)}), and no other; got {', '.join(k)}"
        )
    for name, share in k.items():
        _check_share(f"k[{name!r}]", share)
    return {name: float(k[name]) for name in names}


def _layers(model: nn.Module) -> list[str]:
    """The names of the weights that can hide, or an error that says why some cannot."""
    names = list(prunable(model))
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, _LAYERS)]
    parametrized = [name for name, m in found if parametrize.is_parametrized(m, "weight")]
    lazy = [name for name, m in found if is_lazy(m.weight)]
    shared = [n for n, m in found if f"{n}.weight".lstrip(".") not in (*names, *parametrized)]
    for what, which in (
        ("is parametrized already: remove that first", parametrized),
        ("is not initialised yet: call the model once first", lazy),
        ("is shared with another layer, and cannot have scores of its own", shared),
    ):
        if which:
            raise ValueError(f"model: the weight of {', '.join(map(repr, which))} {what}")
    if not names:
        raise ValueError("model has no linear or convolutional layer, so no weight to choose from")
    return names


def _warn_of_others(net: nn.Module) -> None:
    scores = {id(m.scores) for m in net.modules() if isinstance(m, Hidden)}
    others = [n for n, p in net.named_parameters() if p.requires_grad and id(p) not in scores]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        warnings.warn(
            f"not hidden: {', '.join(others[:3])}{more}; they stay trainable, and a ticket holds "
            "them in full",
            stacklevel=3,
        )
