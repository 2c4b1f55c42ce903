"""Time mediation through all heads, and through neurons, beside a pass for each and nnsight.

A GPT-2 of random weights, 12 blocks of 12 heads and width 768 by default; a prompt of 14 tokens
whose last is the pronoun, continuations of 5 and 4. The plain loop is a whole pass for each head
and candidate, and so is nnsight's: both are timed on a few heads and scaled. The log odds are
compared on those. For neurons the plain loop is the authors': batches of 800 rows through all
blocks and positions, and the whole head of 50,257 words, on one template of four tokens.
"""

from __future__ import annotations

import argparse
import importlib
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from mmxx.language.mediation import Example, Mediation

ROWS = 800  # of the authors' batches of neurons


def build(layers: int, heads: int, width: int, vocab: int) -> Any:
    """A GPT-2 of random weights."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=layers, n_head=heads, n_embd=width, vocab_size=vocab, n_positions=64,
        initializer_range=0.06, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def pairs(vocab: int) -> tuple[Example, Example]:
    """A sentence cut after the pronoun, and a profession in a template."""
    rng = np.random.default_rng(0)
    front = rng.integers(vocab, size=13).tolist()
    first, second = (rng.integers(vocab, size=size).tolist() for size in (5, 4))
    template = rng.integers(vocab, size=4).tolist()
    changed = [template[0], (template[1] + 1) % vocab, *template[2:]]
    return (
        Example([*front, 1], [*front, 2], (first, second)),
        Example(template, changed, ([3], [4])),
    )


def with_nnsight(model: Any, example: Example, chosen: list[tuple[int, int]]) -> np.ndarray | None:
    """log odds with one head's output from the other text, a trace for each head and candidate.

    nnsight patches a module's output, so it is the head's part of what goes into the projection;
    as the prompt's values differ, its odds are not ours. It is here for its time. None where
    nnsight is not installed.
    """
    try:
        nnsight: Any = importlib.import_module("nnsight")
    except ModuleNotFoundError:
        return None
    traced = nnsight.NNsight(model)
    width = model.config.n_embd // model.config.n_head
    base, other = (torch.tensor([list(prompt)]) for prompt in (example.base, example.alternative))
    size = base.shape[1]
    found = []
    with torch.inference_mode():
        for layer, head in chosen:
            part = slice(head * width, (head + 1) * width)
            with traced.trace(other):
                donor = traced.transformer.h[layer].attn.c_proj.input[:, :, part].save()
            scores = []
            for candidate in example.candidates:
                tokens = torch.cat(
                    [base, torch.tensor([list(candidate)[:-1]], dtype=torch.long)], 1
                )
                with traced.trace(tokens):
                    traced.transformer.h[layer].attn.c_proj.input[:, :size, part] = donor
                    logits = traced.output.logits.save()
                scores.append(_mean_log(logits[0, size - 1 :], candidate))
            found.append(float(scores[1] - scores[0]))
    return np.array(found)


def _mean_log(logits: Tensor, candidate: Any) -> Tensor:
    targets = torch.tensor(list(candidate))[:, None]
    return logits.log_softmax(-1).gather(-1, targets).mean()


def authors_neurons(model: Any, example: Example, count: int) -> None:
    """Rows of the authors' neuron loop: whole sequences, every position, the whole head."""
    block = model.transformer.h[0].mlp
    rows = torch.arange(ROWS)

    def hook(_: Any, __: Any, out: Tensor) -> Tensor:
        out = out.clone()
        out[rows, 1, rows % out.shape[-1]] = 0.5
        return out

    tokens = torch.tensor([list(example.base)]).expand(ROWS, -1)
    handle = block.register_forward_hook(hook)
    with torch.inference_mode():
        for _ in range(count):
            model(tokens, use_cache=False).logits[:, -1].softmax(-1)
    handle.remove()


def timed(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, Any]:
    """Seconds of a call, and what it gave."""
    start = clock()
    found = work()
    return clock() - start, found


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--sample", type=int, default=6, help="heads of the plain loop and nnsight")
    parser.add_argument("--every", type=int, default=8, help="time one neuron of so many")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--wall", action="store_true", help="wall instead of processor time")
    flags = parser.parse_args(argv)
    torch.set_num_threads(flags.threads)
    clock = time.perf_counter if flags.wall else time.process_time
    model = build(flags.layers, flags.heads, flags.width, flags.vocab)
    sentence, template = pairs(flags.vocab)
    every = [(layer, head) for layer in range(flags.layers) for head in range(flags.heads)]
    chosen = sorted(random.Random(0).sample(every, min(flags.sample, len(every))))
    scale = len(every) / len(chosen)

    fast = Mediation(model)
    fast.total_effect([sentence])  # the first call checks the model
    ours, effects = timed(lambda: fast.sets([sentence], [[pair] for pair in every]), clock)
    slow = Mediation(model, exact=False)
    sampled = [[pair] for pair in chosen]
    fixed, _ = timed(lambda: slow.total_effect([sentence]), clock)
    plain, loop = timed(lambda: slow.sets([sentence], sampled), clock)
    plain = (plain - fixed) * scale + fixed
    index = [every.index(pair) for pair in chosen]
    gap = np.abs(effects.log_nie[0, index] - loop.log_nie[0]).max()
    peer, patched = timed(lambda: with_nnsight(model, sentence, chosen), clock)
    shape = f"{flags.layers} x {flags.heads} heads, width {flags.width}, {flags.threads} thread(s)"
    print(f"all {len(every)} heads of one sentence, NIE and NDE; {shape}")
    print(f"{'':34} {'seconds':>9} {'times mmxx':>11}")
    print(f"{'mmxx':34} {ours:9.2f} {1:11.1f}")
    print(f"{f'a pass each, from {len(chosen)} heads':34} {plain:9.2f} {plain / ours:11.1f}")
    if patched is None:
        print("nnsight is not installed (pip install nnsight): left out")
    else:  # NIE alone was traced: twice that is NIE and NDE
        seconds = 2 * peer * scale
        print(f"{f'nnsight, from {len(chosen)} heads':34} {seconds:9.2f} {seconds / ours:11.1f}")
    print(f"largest difference of a log effect from the pass each: {gap:.1e}")

    neurons = range(0, flags.width, flags.every)
    levels = flags.layers + 1
    ours, _ = timed(lambda: fast.neurons([template], neurons=neurons), clock)
    one, _ = timed(lambda: authors_neurons(model, template, 1), clock)
    count = 2 * levels * len(neurons) / ROWS
    print(f"\n{levels * len(neurons)} neurons of one profession, NIE and NDE")
    print(f"{'mmxx':34} {ours:9.2f} {1:11.1f}")
    print(f"{'batches of 800, from one':34} {one * count:9.2f} {one * count / ours:11.1f}")
    suffix = 3  # tokens from the changed one on
    flops = 2 * 2 * len(neurons) * suffix * 12 * flags.width**2 * sum(range(levels))
    print(f"mmxx: {flops / ours / 1e9:.0f} GFLOP/s in the blocks")


if __name__ == "__main__":
    main()
