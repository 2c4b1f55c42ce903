"""The trainings of the experiment, and all that is measured of each: tasks for any process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from mmxx.language.mediation._passes import run_context
from mmxx.language.mediation.corpus import LENGTH, Corpus
from mmxx.language.mediation.effects import Effects
from mmxx.language.mediation.examples import Example, buckets
from mmxx.language.mediation.mediation import Mediation
from mmxx.nn.gpt import GPT, GPTConfig

_RATE = 6e-3  # of learning, after ten steps; it falls to 0 by a cosine


@dataclass(frozen=True)
class Arm:
    """One training with its measurements.

    Attributes:
        strength: The corpus's s.
        name: What the arm is called.
        seed: Of weights, sentences and examples.
        steps: Steps of AdamW; 0 leaves the weights random.
        batch: Sentences of a step.
        layers, width: The GPT; it has four heads a layer.
        pairs: Swap-gender examples.
        sets: Sizes 1 … k of the sets of top heads.
        shuffled: Let random heads stand for the top ones: the sham.
    """

    strength: float
    name: str
    seed: int
    steps: int
    batch: int
    layers: int
    width: int
    pairs: int
    sets: int
    shuffled: bool = False

    @property
    def corpus(self) -> Corpus:
        """Its language."""
        return Corpus(self.strength)


class Pairs(NamedTuple):
    """Examples of both interventions, with the ideal log(1 + TE) of each."""

    professions: list[Example]
    professions_ideal: np.ndarray[Any, Any]
    sentences: list[Example]
    sentences_ideal: np.ndarray[Any, Any]


def examples(arm: Arm) -> Pairs:
    """What an arm is measured on."""
    corpus = arm.corpus
    rng = np.random.default_rng([arm.seed, 2])
    return Pairs(*corpus.set_gender(), *corpus.swap_gender(arm.pairs, rng))


def network(arm: Arm, state: dict[str, Any] | None = None) -> GPT:
    """The GPT of an arm, with fresh weights or those given."""
    shape = GPTConfig(
        n_layer=arm.layers, d_model=arm.width, n_head=4, n_ctx=LENGTH,
        vocab_size=arm.corpus.vocab_size, attention="dense", init_std=0.07,
        d_ff=2 * arm.width,
    )  # fmt: skip
    model = GPT(shape, generator=torch.Generator().manual_seed(arm.seed))
    if state is not None:
        model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    return model


def train(arm: Arm) -> tuple[GPT, list[float]]:
    """Train a GPT on an arm's sentences; the losses of every tenth step come along."""
    model, corpus = network(arm), arm.corpus
    rng = np.random.default_rng([arm.seed, 1])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.01
    )
    losses: list[float] = []
    for step in range(arm.steps):
        tokens, mask = (torch.from_numpy(x) for x in corpus.draw(arm.batch, rng))
        rate = 0.5 * (1 + math.cos(math.pi * step / arm.steps)) * min(1, (step + 1) / 10)
        optimizer.param_groups[0]["lr"] = _RATE * rate
        _, loss = model(tokens[:, :-1], tokens[:, 1:], loss_mask=mask[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0 or step + 1 == arm.steps:
            losses.append(loss.item())
    return model, losses


def work(arm: Arm) -> dict[str, Any]:
    """Train and measure an arm.

    Returns:
        ``state`` (the weights), ``losses``, effects as bytes (``professions``, ``neurons``,
        ``heads``), and for each way to rank heads the mean log NIE of its 1, 2, … best.
    """
    model, losses = train(arm)
    mediation = Mediation(model, batch_size=2048)
    some = examples(arm)
    heads = mediation.heads(some.sentences)
    neurons = mediation.neurons(some.professions)
    estimate = mediation.attribution(some.sentences)
    rankings = {
        "indirect effect": _mean(heads),
        "attention change": attention_change(mediation, some.sentences),
        "attribution estimate": _mean(estimate),
    }
    own = rankings["indirect effect"]
    shape = own.shape
    order = np.random.default_rng([arm.seed, 3])
    draws = [order.permutation(math.prod(shape)).reshape(shape) for _ in range(8)]
    sets = {name: _prefixes(values, arm.sets) for name, values in rankings.items()}
    sets |= {f"random {i}": _prefixes(values, arm.sets) for i, values in enumerate(draws)}
    flat = [one for prefixes in sets.values() for one in prefixes]
    measured = mediation.sets(some.sentences, flat).log_nie
    assert measured is not None
    means = measured.mean(0).reshape(len(sets), -1)
    found = dict(zip(sets, means, strict=True))
    best = [sets["indirect effect"][size] for size in range(min(3, arm.sets))]
    held, silent, mean = (
        mediation.sets(some.sentences, best, mode=mode) for mode in ("set", "zero", "mean")
    )
    what_if = [
        {
            "heads": " ".join(f"{layer}-{head}" for layer, head in heads),
            "total effect": float(held.log_te.mean()),
            "left if held": float(_logs(held, "log_nde")[:, size].mean()),
            "odds if silenced": float(_logs(silent, "log_nie")[:, size].mean()),
            "odds if averaged": float(_logs(mean, "log_nie")[:, size].mean()),
        }
        for size, heads in enumerate(best)
    ]
    found["random"] = np.mean([found.pop(name) for name in list(found) if "random " in name], 0)
    if arm.shuffled:
        found["indirect effect"] = found["random"]
    return {
        "state": {name: value.numpy() for name, value in model.state_dict().items()},
        "losses": losses,
        "heads": _bytes(heads),
        "neurons": _bytes(neurons),
        "rho": rank_correlation(own, rankings["attribution estimate"]),
        "ideal professions": some.professions_ideal,
        "ideal sentences": some.sentences_ideal,
        "what if": what_if,
        "layerwise": layerwise(mediation, some.professions, neurons),
        "sets": {name: value.tolist() for name, value in found.items()},
    }


def attention_change(mediation: Mediation, some: list[Example]) -> np.ndarray[Any, Any]:
    """The mean absolute change of each head's attention, [L, H]: to look without intervening."""
    encoded = mediation.encode(some, "heads")
    total: list[np.ndarray[Any, Any]] = []
    for bucket in buckets(encoded):
        chunk = [encoded[index] for index in bucket]
        with torch.inference_mode():
            base, other = (
                run_context(mediation.parts, chunk, which) for which in ("base", "alternative")
            )
        change = [
            (one - two).abs().mean((2, 3)).sum(0)
            for one, two in zip(base.weights, other.weights, strict=True)
        ]
        total.append(torch.stack(change).double().numpy())
    return np.sum(total, 0) / len(encoded)


def layerwise(
    mediation: Mediation, some: list[Example], neurons: Effects, share: float = 0.05
) -> list[float]:
    """Mean log(1 + NIE) of the top neurons of each layer together, by their mean NIE."""
    means = _mean(neurons)
    count = max(round(share * means.shape[1]), 1)
    order = np.argsort(-means, axis=1, kind="stable")[:, :count]
    sets = [[(level, int(unit)) for unit in units] for level, units in enumerate(order)]
    return _logs(mediation.sets(some, sets, "neurons"), "log_nie").mean(0).tolist()


def rank_correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Spearman's, over all heads; NaN where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values.reshape(-1)) for values in (one, other)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _logs(effects: Effects, name: str) -> np.ndarray[Any, Any]:
    logs = getattr(effects, name)
    assert logs is not None
    return logs


def _mean(effects: Effects) -> np.ndarray[Any, Any]:
    return _logs(effects, "log_nie").mean(0)


def _bytes(effects: Effects) -> np.ndarray[Any, Any]:
    return np.frombuffer(effects.to_bytes(), np.uint8)


def _prefixes(values: np.ndarray[Any, Any], k: int) -> list[list[tuple[int, int]]]:
    """The 1, 2, … k heads of largest value."""
    order = np.argsort(-values.reshape(-1), kind="stable")[:k]
    pairs = [(int(index) // values.shape[1], int(index) % values.shape[1]) for index in order]
    return [pairs[: size + 1] for size in range(k)]


def sentence_row(arm: Arm, result: dict[str, Any], effects: Effects) -> dict[str, Any]:
    """What was found on an arm's pairs of sentences, in log units.

    Sets of heads are given as shares of the NIE of all heads; correlation and slope are NaN
    where the ideal effect is the same for all pairs.
    """
    assert effects.model is not None
    whole, direct = effects.model.log_nie, effects.model.log_nde
    assert whole is not None
    assert direct is not None
    ideal, total = np.asarray(result["ideal sentences"]), effects.log_te
    varies = np.ptp(ideal) > 0
    return {
        "arm": arm.name,
        "seed": arm.seed,
        "mean log(1 + TE)": float(total.mean()),
        "ideal": float(ideal.mean()),
        "NIE, all heads": float(whole.mean()),
        "NDE": float(direct.mean()),
        "correlation with the ideal": float(np.corrcoef(ideal, total)[0, 1]) if varies else np.nan,
        "slope over the ideal": float(np.polyfit(ideal, total, 1)[0]) if varies else np.nan,
        "correlation of TE with NIE + NDE": float(np.corrcoef(total, whole + direct)[0, 1]),
        **{f"top 3 by {name}": v[2] / float(whole.mean()) for name, v in result["sets"].items()},
        "rank correlation of the estimate": result["rho"],
    }


def top_share(effects: Effects) -> float:
    """What the twentieth of all mediators with the largest mean |NIE| holds of the sum."""
    size = np.sort(np.abs(np.expm1(_mean(effects))).reshape(-1))[::-1]
    return float(size[: max(len(size) // 20, 1)].sum() / size.sum()) if size.sum() else 0.0
