"""Networks set by hand, whose every effect is known in closed form.

They are our GPT in double precision without MLPs. A large constant in the residual stream, with
its opposite, makes the normalisations linear to a part in 10^12, and large scores make attention
all or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmxx.language.mediation.examples import Example

if TYPE_CHECKING:
    from torch import Tensor

    from mmxx.nn.gpt import GPT

P, Q, SHE, HE, END, STEREOTYPE, OTHER = range(7)
_FEATURES = ("p", "q", "she", "he", "end", "carried", "out", "constant")
_LARGE = 1e6
_SHARP = 200.0  # a score: exp(-100) is nothing in double precision
_WIDTH = 2 * len(_FEATURES)


def mediated_by_heads(
    direct: float,
    strengths: Mapping[tuple[int, int], float],
    *,
    flickering: tuple[tuple[int, int], ...] = (),
    n_layer: int = 2,
    n_head: int = 4,
) -> tuple[GPT, Example]:
    r"""A network with a direct path of strength a and heads that copy with strengths b.

    After "p q she" its heads look at p, which says nothing, after "p q he" at q, which adds b to
    the log odds; and "he" adds a by itself. So $NDE = e^a - 1$, a head's $NIE = e^b - 1$, a
    set's $e^{\sum b} - 1$, and $TE = e^{a + \sum b} - 1$.

    Args:
        direct: a.
        strengths: b of each head (layer, head).
        flickering: Heads whose attention changes as much, and that copy nothing.
        n_layer, n_head: The shape.

    Returns:
        The network in double precision, and the example.
    """
    model = _blank(n_layer, n_head)
    with torch.no_grad():
        model.wte.weight[HE] += _direction("out") * direct
        for head in (*strengths, *flickering):
            _attend_by(model, head, {"she": {"p": _SHARP}, "he": {"q": _SHARP}})
            _copy(model, head, "q", "out", strengths.get(head, 0.0))
    return model, Example([P, Q, SHE], [P, Q, HE], ([STEREOTYPE], [OTHER]))


def mediated_by_a_pair(strength: float) -> tuple[GPT, Example]:
    r"""A network in which two heads do together what neither does alone.

    Head 0 of block 0 carries something to the pronoun if it is "he"; head 0 of block 1 looks at
    the pronoun if it is "he". Either alone has no effect, the two $e^b - 1$.

    Args:
        strength: b.

    Returns:
        The network in double precision, and the example.
    """
    model = _blank(2, 2)
    with torch.no_grad():
        _attend_by(model, (0, 0), {"she": {"p": _SHARP}, "he": {"q": _SHARP}})
        _copy(model, (0, 0), "q", "carried", strength)
        _attend_by(model, (1, 0), {"end": {"he": 2 * _SHARP, "p": _SHARP}})
        _copy(model, (1, 0), "carried", "out", 1.0)
    tokens = ([P, Q, SHE, END], [P, Q, HE, END])
    return model, Example(*tokens, ([STEREOTYPE], [OTHER]), position=2)


def errors() -> dict[str, Any]:
    """Measure networks whose effects are known.

    Returns:
        ``rows``, the log effects measured and known, and ``largest``, the largest error.
    """
    from mmxx.language.mediation.mediation import Mediation

    direct, strengths = 0.7, {(0, 1): 0.5, (1, 2): -1.1}
    model, example = mediated_by_heads(direct, strengths, flickering=((0, 3),))
    heads = Mediation(model).heads([example])
    pair, other = mediated_by_a_pair(1.3)
    both = Mediation(pair).sets([other], [[(0, 0)], [(1, 0)], [(0, 0), (1, 0)]])
    assert heads.model is not None
    levels = (heads.log_te, heads.model.log_nie, heads.model.log_nde, heads.log_nie, both.log_nie)
    te, nie, nde, each, pairs = (np.asarray(logs)[0] for logs in levels)
    whole = sum(strengths.values())
    known = {
        "total effect": (te, direct + whole),
        "all heads": (nie, whole),
        "direct effect": (nde, direct),
        "head 0-1": (each[0, 1], 0.5),
        "head 1-2": (each[1, 2], -1.1),
        "head 0-3, whose attention changes as much": (each[0, 3], 0.0),
        "one of a pair": (pairs[0], 0.0),
        "the other": (pairs[1], 0.0),
        "the pair": (pairs[2], 1.3),
    }
    rows = [
        {"mediator": name, "measured": float(found), "known": truth}
        for name, (found, truth) in known.items()
    ]
    largest = max(abs(row["measured"] - row["known"]) for row in rows)
    return {"rows": rows, "largest": largest}


def _blank(n_layer: int, n_head: int) -> GPT:
    """A GPT in which nothing happens: each token holds its name and the large constant."""
    from mmxx.nn.gpt import GPT, GPTConfig

    shape = GPTConfig(
        n_layer=n_layer, d_model=_WIDTH, n_head=n_head, d_head=_WIDTH, d_ff=1, n_ctx=8,
        vocab_size=7, attention="dense",
    )  # fmt: skip
    model = GPT(shape, generator=torch.Generator().manual_seed(0)).double()
    scale = _LARGE * math.sqrt(2 / _WIDTH)  # what a normalisation divides by
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(scale if "norm" in name and name.endswith("weight") else 0.0)
        for token, name in enumerate(_FEATURES[:5]):
            model.wte.weight[token] = _direction(name) + _LARGE * _direction("constant")
        model.wte.weight[OTHER] = _direction("out") / 4  # read with its opposite: twice
        model.wte.weight[STEREOTYPE] = -_direction("out") / 4
    return model


def _direction(name: str) -> Tensor:
    """A feature and its opposite, so that the mean stays 0."""
    found = torch.zeros(_WIDTH, dtype=torch.float64)
    place = _FEATURES.index(name)
    found[2 * place], found[2 * place + 1] = 1.0, -1.0
    return found


def _attend_by(
    model: GPT, head: tuple[int, int], scores: Mapping[str, Mapping[str, float]]
) -> None:
    """Let a head give a score to each key feature, for each feature of the query."""
    attention: Any = model.get_submodule(f"blocks.{head[0]}.attn")
    width = attention.d_head
    q, k, _ = attention.qkv.weight.view(3, -1, width, _WIDTH)[:, head[1]]  # views of the weights
    for index, (query, keys) in enumerate(scores.items()):
        q[index] = _direction(query) / 2
        for key, score in keys.items():
            k[index] += _direction(key) / 2 * score * math.sqrt(width)


def _copy(model: GPT, head: tuple[int, int], feature: str, into: str, strength: float) -> None:
    """Let a head write what it sees of a feature into another."""
    attention: Any = model.get_submodule(f"blocks.{head[0]}.attn")
    width = attention.d_head
    value = attention.qkv.weight.view(3, -1, width, _WIDTH)[2, head[1]]
    value[0] = _direction(feature) / 2
    attention.proj.weight.view(_WIDTH, -1, width)[:, head[1], 0] = _direction(into) * strength
