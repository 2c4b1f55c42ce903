"""`Mediation`: how much of what a changed word does goes through which head or neuron."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.language.mediation._naive import run_plain, run_row
from mmxx.language.mediation._passes import Context, run_context
from mmxx.language.mediation._plan import MODES, Kind, Mode, Part, Values, make_plan
from mmxx.language.mediation._suffix import run_rows
from mmxx.language.mediation.attribution import estimate
from mmxx.language.mediation.decoder import DecoderParts
from mmxx.language.mediation.effects import Effects, numbered
from mmxx.language.mediation.examples import Encoded, Example, buckets, encode
from mmxx.language.mediation.selection import Selection, select
from mmxx.language.mediation.tracing import decoder_parts

Set = Iterable[tuple[int, int]]
_WAYS: tuple[Literal["base", "alternative"], ...] = ("base", "alternative")


class Mediation:
    r"""Total, direct and indirect effects of a change of a text on a causal language model.

    The response is the odds $y(u) = p(a \mid u) / p(s \mid u)$ of the anti-stereotypical
    candidate over the stereotypical one; for several tokens p is the geometric mean of their
    probabilities. With x the changed text and z a mediator,

    $$TE = y_x / y_0 - 1, \quad NDE = y_{x, z_0} / y_0 - 1, \quad NIE = y_{0, z_x} / y_0 - 1.$$

    Mediators are the attention weights of a head within the prompt, or one coordinate of the
    word embedding or of an MLP's output at one token. The model is never changed.

    Args:
        model: A causal language model of transformers, our own GPT, or `DecoderParts`.
        tokenizer: As transformers has them; None where examples hold token ids.
        batch_size: Rows that are computed at once, a row being an example with a mediator.
        dtype: Compute with a copy of the model in this precision.
        device: Compute with a copy of the model there.
        exact: False takes the plain loop, one whole pass for each mediator and candidate.
        align: "equal" refuses prompts of different length; "last" aligns them at their ends,
            which neurons and total effects allow.

    Raises:
        TypeError, ValueError: The model is none that can be intervened on, see `decoder_parts`.

    Source: Vig et al. (2020), the definitions of the three effects.

    Example:
        >>> from mmxx.nn.gpt import GPT, GPTConfig
        >>> shape = GPTConfig(n_layer=2, d_model=8, n_head=2, vocab_size=9, n_ctx=8)
        >>> model = GPT(shape, generator=torch.Generator().manual_seed(0))
        >>> effects = Mediation(model).heads([Example([1, 2, 3], [1, 2, 4], ([5], [6]))])
        >>> effects.nie.shape, effects.layer.nie.shape
        ((1, 2, 2), (1, 2))
    """

    def __init__(
        self,
        model: nn.Module | DecoderParts,
        tokenizer: Any = None,
        *,
        batch_size: int = 256,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        exact: bool = True,
        align: Literal["equal", "last"] = "equal",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        if align not in ("equal", "last"):
            raise ValueError(f"align must be 'equal' or 'last', got {align!r}")
        if isinstance(model, DecoderParts):
            if dtype is not None or device is not None:
                raise ValueError("dtype and device are for models; DecoderParts are used as given")
            self.parts = model
        else:
            if dtype is not None or device is not None:
                decoder_parts(model)  # refuse before anything is copied
                model = copy.deepcopy(model).to(device=device, dtype=dtype)
            self.parts = decoder_parts(model)
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.exact = exact
        self.align = align
        self._checked = False

    # -- what is measured ------------------------------------------------------------------

    def total_effect(self, examples: Sequence[Example]) -> Effects:
        """Effects of the changed text, without a mediator.

        Args:
            examples: One or more.

        Raises:
            ValueError: An example cannot be measured; the message names it.
        """
        return self._measure(examples, "total", None, (), "set", 1.0)

    def heads(
        self,
        examples: Sequence[Example],
        layers: Iterable[int] | None = None,
        heads: Iterable[int] | None = None,
        *,
        mode: Mode = "set",
        alpha: float = 1.0,
    ) -> Effects:
        """Effects through each head, through all heads of a layer, and through all of them.

        Args:
            examples: One or more.
            layers, heads: Which; by default all.
            mode: "set" gives a head the attention it has in the other text; "add" moves it by
                ``alpha`` of the way; "zero" silences it; "mean" gives the mean over examples.
            alpha: Factor of "add".

        Returns:
            Effects with nie and nde [N, layers, heads]; ``.layer`` and ``.model`` hold those of
            the chosen heads of a layer, and of all chosen, together.
        """
        chosen = _chosen("layers", layers, len(self.parts.blocks))
        units = _chosen("heads", heads, min(self.parts.heads))
        single: list[list[Part]] = [[("heads", layer, unit)] for layer in chosen for unit in units]
        whole: list[list[Part]] = [[("heads", layer, unit) for unit in units] for layer in chosen]
        sets: list[list[Part]] = [*single, *whole, [part for layer in whole for part in layer]]
        labels = (tuple(map(str, chosen)), tuple(map(str, units)))
        return _nested(self._measure(examples, "heads", sets, labels, mode, alpha), labels)

    def neurons(
        self,
        examples: Sequence[Example],
        layers: Iterable[int] | None = None,
        neurons: Iterable[int] | None = None,
        *,
        mode: Mode = "set",
        alpha: float = 1.0,
    ) -> Effects:
        """Effects through single neurons at the examples' places.

        Args:
            examples: One or more; each must change one token, or say its position.
            layers: Which; 0 is the word embedding and l + 1 the MLP of block l. Default: all.
            neurons: Which coordinates; by default all.
            mode: As for `heads`; the mean is over the examples' own values.
            alpha: Factor of "add".

        Returns:
            Effects with nie and nde [N, layers, neurons].
        """
        chosen = _chosen("layers", layers, len(self.parts.blocks) + 1)
        units = _chosen("neurons", neurons, self.parts.width)
        sets: list[list[Part]] = [[("neurons", level, unit)] for level in chosen for unit in units]
        labels = (tuple(map(str, chosen)), tuple(map(str, units)))
        flat = self._measure(examples, "neurons", sets, labels, mode, alpha)
        return _shaped(flat, (len(chosen), len(units)), labels)

    def sets(
        self,
        examples: Sequence[Example],
        sets: Sequence[Set],
        kind: Literal["heads", "neurons"] = "heads",
        *,
        mode: Mode = "set",
        alpha: float = 1.0,
    ) -> Effects:
        """Effects through sets of mediators, each overridden at once.

        The direct effect of a set is what is left of the total where the set is held at what it
        does in the unchanged text: the "what if" of a model in which these were repaired.

        Args:
            examples: One or more.
            sets: Each holds pairs (layer, head) or (layer, neuron), as numbered by `heads` and
                `neurons`.
            kind: Which of the two.
            mode, alpha: As for `heads`.

        Returns:
            Effects with nie and nde [N, sets].
        """
        if kind not in ("heads", "neurons"):
            raise ValueError(f"kind must be 'heads' or 'neurons', got {kind!r}")
        top = len(self.parts.blocks) + (kind == "neurons")
        most = min(self.parts.heads) if kind == "heads" else self.parts.width
        found: list[list[Part]] = []
        for one in sets:
            pairs = sorted(set(one))
            if pairs:
                _chosen("layers of sets", (layer for layer, _ in pairs), top)
                _chosen(f"{kind} of sets", (unit for _, unit in pairs), most)
            found.append([(kind, layer, unit) for layer, unit in pairs])
        labels = (tuple("+".join(f"{a}-{b}" for _, a, b in one) or "none" for one in found),)
        flat = self._measure(examples, kind, found, labels, mode, alpha)
        return _shaped(flat, (len(found),), labels, "sets")

    def activation_patch(self, examples: Sequence[Example]) -> Effects:
        """Effects of taking the residual stream before a block, at one token, from the other text.

        Returns:
            Effects of kind "residual", nie and nde [N, L, T] for the longest prompt's T tokens;
            NaN beyond the end of a shorter prompt, and 0 before the first changed token.
        """
        encoded = self.encode(examples)
        longest = max(len(one.base) for one in encoded)
        layers = len(self.parts.blocks)
        labels = (numbered(layers), numbered(longest))
        sets: list[list[Part]] = [
            [("residual", layer, token)] for layer in range(layers) for token in range(longest)
        ]
        flat = self._measure(examples, "residual", sets, labels, "set", 1.0)
        found = _shaped(flat, (layers, longest), labels)
        assert found.log_nie is not None
        assert found.log_nde is not None
        for index, one in enumerate(encoded):
            for logs in (found.log_nie, found.log_nde):
                logs[index, :, len(one.base) :] = np.nan
        return found

    def attribution(
        self, examples: Sequence[Example], kind: Literal["heads", "neurons"] = "heads"
    ) -> Effects:
        """Estimates of all indirect effects from one backward pass; see `attribution.estimate`."""
        return estimate(self, examples, kind)

    def select(
        self,
        examples: Sequence[Example],
        kind: Literal["heads", "neurons"] = "heads",
        k: int = 10,
        method: Literal["greedy", "top-k"] = "greedy",
        **more: Any,
    ) -> Selection:
        """The few mediators that together mediate most; see `selection.select`."""
        return select(self, examples, kind, k, method, **more)

    # -- how -------------------------------------------------------------------------------

    def encode(self, examples: Sequence[Example], kind: str = "total") -> list[Encoded]:
        """Tokens of all examples, as effects of a kind need them.

        Raises:
            ValueError: There is none, or some cannot be measured: how many, which, and why.
        """
        if not len(examples):
            raise ValueError("examples must be one or more, got none")
        found, wrong = [], []
        for index, example in enumerate(examples):
            try:
                one = encode(
                    example, self.tokenizer, len(self.parts.head), align_last=self.align == "last"
                )
                if kind == "neurons" and one.places is None:
                    raise ValueError(
                        "base and alternative differ in several tokens; neurons need one "
                        "(leave out multi-token words, or give a position)"
                    )
                if kind in ("heads", "residual") and len(one.base) != len(one.alternative):
                    raise ValueError("attention has no counterpart in prompts of another length")
                found.append(one)
            except ValueError as error:
                wrong.append(f"example {index} ({example.base!r}): {error}")
        if wrong:
            raise ValueError(
                f"{len(wrong)} of {len(examples)} examples cannot be measured: "
                + "; ".join(wrong[:5])
                + ("; …" if len(wrong) > 5 else "")
            )
        return found

    @torch.inference_mode()
    def _measure(
        self,
        examples: Sequence[Example],
        kind: Kind | Literal["total"],
        sets: Sequence[Sequence[Part]] | None,
        labels: tuple[tuple[str, ...], ...],
        mode: Mode,
        alpha: float,
    ) -> Effects:
        """log y of every example, and of every set of mediators in both contexts, [N, sets]."""
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if sets is not None and not sets:
            raise ValueError("sets must be one or more, got none")
        encoded = self.encode(examples, kind)
        n, m = len(encoded), len(sets or ())
        logs = np.empty((n, 2))
        effects = np.empty((2, n, m))
        mean = self._means(encoded) if mode == "mean" else None
        for part in self._chunks(encoded, m):
            some = [encoded[index] for index in part]
            contexts = [run_context(self.parts, some, which) for which in _WAYS]
            if self.exact and not self._checked:
                self._check(some[0], contexts[0])
            for way, which in enumerate(_WAYS):
                plain = contexts[way].log_y
                if not self.exact:
                    plain = run_plain(self.parts, some[0], contexts[way], which)
                logs[part, way] = _floats(plain)
            for way in (0, 1) if m else ():
                values = Values(
                    contexts[way], contexts[1 - way], mode, alpha, mean and mean(some[0])
                )
                found = self._rows(some, values, sets or (), way)
                # the indirect effect runs in the base context, the direct in the other;
                # both divide by the response without intervention
                effects[way, part] = _floats(found).T - logs[part, :1]
        return Effects(
            kind, logs[:, 0], logs[:, 1], *(effects if m else (None, None)),
            weights=np.array([float(example.weight) for example in examples]), labels=labels,
            meta=tuple(dict(example.meta) for example in examples),
        )  # fmt: skip

    def _chunks(self, encoded: Sequence[Encoded], rows: int) -> Iterator[list[int]]:
        size = max(self.batch_size // max(rows, 1), 1) if self.exact else 1
        for bucket in buckets(encoded):
            for begin in range(0, len(bucket), size):
                yield bucket[begin : begin + size]

    def _rows(
        self, some: Sequence[Encoded], values: Values, sets: Sequence[Sequence[Part]], way: int
    ) -> Tensor:
        """log y of every set, [sets, examples]."""
        layers = len(self.parts.blocks)
        found = torch.empty(len(sets), len(some), dtype=torch.float64)
        neurons = any(kind == "neurons" for one in sets for kind, _, _ in one)
        if not self.exact or (neurons and not self.parts.additive):
            for index, one in enumerate(sets):
                plan = make_plan([one], layers)
                for place, example in enumerate(some):
                    alone = values.only(place)
                    found[index, place] = run_row(self.parts, plan, alone, example, _WAYS[way])
            return found
        places = some[0].places
        where = () if places is None else places[way]
        step = max(self.batch_size // len(some), 1)
        order = sorted(range(len(sets)), key=lambda i: min((p[1] for p in sets[i]), default=layers))
        for begin in range(0, len(order), step):
            chunk = order[begin : begin + step]
            plan = make_plan([sets[index] for index in chunk], layers)
            found[chunk] = run_rows(self.parts, plan, values, where).double().cpu()
        return found

    def _check(self, example: Encoded, context: Context) -> None:
        """Whether blocks run alone, and our head, give what the model itself gives."""
        theirs = float(run_plain(self.parts, example, context, "base"))
        plan = make_plan([[]], len(self.parts.blocks))
        alone = run_rows(self.parts, plan, Values(context, context), (), whole=True)
        near = {torch.float64: 1e-8, torch.float32: 1e-4}.get(context.residual[0].dtype, 5e-2)
        for found, what in (
            (float(context.log_y[0]), "its end is more than norm and head"),
            (float(alone[0, 0]), "its blocks do not run by themselves"),
        ):
            if not abs(found - theirs) <= near * max(abs(theirs), 1):
                raise ValueError(
                    f"{type(self.parts.model).__name__} cannot be run in parts ({what}: log odds "
                    f"{found:.6g}, not {theirs:.6g}); Mediation(exact=False) runs it as a whole"
                )
        self._checked = True

    def _means(self, encoded: Sequence[Encoded]) -> Callable[[Encoded], dict[Kind, list[Tensor]]]:
        """Mean attention over the examples of one shape, and mean neurons over all examples."""
        attention: dict[Any, list[Tensor]] = {}
        neurons: list[list[Tensor]] = []
        for bucket in buckets(encoded):
            sums: list[list[Tensor]] = []
            for begin in range(0, len(bucket), self.batch_size):
                some = [encoded[index] for index in bucket[begin : begin + self.batch_size]]
                context = run_context(self.parts, some, "base")
                sums.append([w.sum(0) for w in context.weights])
                neurons.append([x.sum((0, 1))[None] for x in context.neurons])
            shape = encoded[bucket[0]].shape
            attention[shape] = [_sum(layer) / len(bucket) for layer in zip(*sums, strict=True)]
        count = sum(len(one.places[0]) for one in encoded if one.places is not None)
        mean = [_sum(level) / max(count, 1) for level in zip(*neurons, strict=True)]
        return lambda one: {"heads": attention[one.shape], "neurons": mean}


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(0)


def _floats(x: Tensor) -> np.ndarray[Any, Any]:
    return x.double().cpu().numpy()


def _chosen(name: str, wanted: Iterable[int] | None, most: int) -> list[int]:
    """Indices in the order given; all where none are."""
    if wanted is None:
        return list(range(most))
    found = [int(index) for index in wanted]
    if not found or any(not 0 <= index < most for index in found):
        raise ValueError(f"{name} must lie in [0, {most}), got {found}")
    return found


def _shaped(
    flat: Effects, shape: tuple[int, ...], labels: tuple[tuple[str, ...], ...], kind: str = ""
) -> Effects:
    """Effects with their last axis [sets] in another shape."""
    assert flat.log_nie is not None
    assert flat.log_nde is not None
    size = (len(flat), *shape)
    return replace(
        flat, kind=kind or flat.kind, labels=labels,
        log_nie=flat.log_nie.reshape(size), log_nde=flat.log_nde.reshape(size),
    )  # fmt: skip


def _nested(flat: Effects, labels: tuple[tuple[str, ...], ...]) -> Effects:
    """Effects of heads, then layers, then all, as one with levels."""
    assert flat.log_nie is not None
    assert flat.log_nde is not None
    layers, heads = map(len, labels)
    n = layers * heads

    def part(begin: int, end: int) -> Effects:
        assert flat.log_nie is not None
        assert flat.log_nde is not None
        nie, nde = flat.log_nie[:, begin:end], flat.log_nde[:, begin:end]
        return replace(flat, log_nie=nie, log_nde=nde)

    model = _shaped(part(n + layers, n + layers + 1), (), (), "model")
    layer = _shaped(part(n, n + layers), (layers,), labels[:1], "layers")
    return replace(_shaped(part(0, n), (layers, heads), labels), layer=layer, model=model)
