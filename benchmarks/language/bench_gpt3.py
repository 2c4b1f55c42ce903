"""Training, generation and cleaning beside transformers, tokenizers and datasketch.

All take turns in one process on the same sizes; the fastest turn counts, and the ratios. nanoGPT,
which is no package, stands with figures that were recorded on another machine; ``--peer PATH`` runs
a checkout of it here.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mmxx.language.gpt3 import (
    GPT,
    ByteBPE,
    Contamination,
    GPTConfig,
    generate,
    loglikelihoods,
    mfu,
    minhash,
    peak_flops,
)
from mmxx.language.gpt3.training import decay_groups
from mmxx.nn.linear import product

WIDTH, LAYERS, HEADS, VOCAB, CONTEXT = 256, 4, 4, 4096, 256
BATCH, LENGTH, NEW = 8, 128, 200
# ms a training step and s for 200 tokens after 16, one core of another machine
RECORDED = {
    "nanoGPT": (404.0, 1.77),
    "transformers": (360.0, 0.65),
    "nanoGPT, compiled, fused AdamW": (229.0, math.nan),
}


def best(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The fastest of several turns of each, in seconds; one turn before counts for nothing."""
    times = dict.fromkeys(calls, math.inf)
    for turn in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                times[name] = min(times[name], time.perf_counter() - began)
    return times


def table(title: str, times: dict[str, float], per: float, unit: str, rival: str | None) -> None:
    """Print figures, and how much faster than a rival each is."""
    print(f"\n{title}")
    for name, seconds in times.items():
        faster = f"{times[rival] / seconds:8.2f} x {rival}" if rival in times and rival else ""
        print(f"  {name:38}{per / seconds:12,.1f} {unit}{faster}")


def ours(seed: int = 0) -> GPT:
    """Our model of the benchmark's size."""
    config = GPTConfig(
        LAYERS, WIDTH, HEADS, n_ctx=CONTEXT, vocab_size=VOCAB, attention="dense"
    )  # fmt: skip
    return GPT(config, generator=torch.Generator().manual_seed(seed))


def theirs() -> Any:
    """transformers' model of the same size, or None."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        print("transformers is not installed: left out (pip install transformers)")
        return None
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def nano(path: Path | None) -> Any:
    """A user's checkout of nanoGPT, or None."""
    if path is None:
        return None
    sys.path.insert(0, str(path))
    module = importlib.import_module("model")
    config = module.GPTConfig(
        block_size=CONTEXT, vocab_size=VOCAB, n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH,
        dropout=0.0, bias=True,
    )  # fmt: skip
    return module.GPT(config)


def stepper(model: Any, loss: Callable[[torch.Tensor], torch.Tensor], **adam: Any) -> Any:
    """A training step: forward, backward, clip, AdamW."""
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=1e-4, betas=(0.9, 0.95), **adam)
    tokens = torch.randint(VOCAB, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad()
        loss(tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def training(rounds: int, peer: Path | None, compiled: bool) -> None:
    """A step of training."""
    model, other, small = ours(), theirs(), nano(peer)
    calls = {"ours": stepper(model, lambda rows: model(rows[:, :-1], rows[:, 1:])[1], fused=True)}
    if compiled:
        fast = ours()
        net = torch.compile(fast)
        calls["ours, compiled"] = stepper(
            fast, lambda rows: net(rows[:, :-1], rows[:, 1:])[1], fused=True
        )
    rival = None
    if other is not None:
        rival = f"transformers {importlib.metadata.version('transformers')}"
        calls[rival] = stepper(other, lambda r: other(r[:, :-1], labels=r[:, :-1]).loss)
        calls["  the same, fused AdamW"] = stepper(
            other, lambda r: other(r[:, :-1], labels=r[:, :-1]).loss, fused=True
        )
    if small is not None:
        calls["nanoGPT, --peer"] = stepper(small, lambda r: small(r[:, :-1], r[:, 1:])[1])
    times = best(calls, rounds)
    size = f"{WIDTH} wide, {LAYERS} layers, vocabulary {VOCAB}, {BATCH} x {LENGTH} tokens"
    table(f"Training, {size}", times, BATCH * LENGTH, "tokens/s", rival)
    peak = peak_flops()
    floor = 6 * (model.num_params() - model.wpe.weight.numel()) * BATCH * LENGTH / peak
    print(f"  products alone would take {floor / times['ours']:.0%} of our step; GEMM "
          f"{peak / 1e9:.0f} GFLOP/s")  # fmt: skip
    for name, (milliseconds, _) in RECORDED.items():
        rate = 1e3 * BATCH * LENGTH / milliseconds
        print(f"  {name:38}{rate:12,.1f} tokens/s recorded, other machine (GEMM 194 GFLOP/s)")


def generation(rounds: int, peer: Path | None) -> None:
    """200 tokens after 16, and ragged prompts side by side."""
    model, other, small = ours().eval(), theirs(), nano(peer)
    prompt = list(range(16))
    ragged = [list(range(4 + 2 * i)) for i in range(16)]
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: generate(model, [prompt], max_new_tokens=NEW, temperature=0)
    }
    rival = None
    if other is not None:
        other.eval()
        rival = "transformers"
        calls[rival] = lambda: other.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    if small is not None:
        small.eval()
        calls["nanoGPT, --peer"] = lambda: small.generate(torch.tensor([prompt]), NEW, top_k=1)
    table(f"Greedy, {NEW} tokens after 16", best(calls, rounds), NEW, "tokens/s", rival)
    one = best(calls, 1)["ours"]
    many = best(
        {"ours": lambda: generate(model, ragged, max_new_tokens=NEW, temperature=0)}, rounds
    )["ours"]
    print(
        f"  16 ragged prompts at once: {16 * NEW / many:,.1f} tokens/s, {16 * one / many:.1f} x one"
    )
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    weights = [layer.weight.detach() for layer in (*layers, model.wte)]
    rows = [torch.randn(16, weight.shape[1]) for weight in weights]

    def products() -> None:
        for row, weight in zip(rows, weights, strict=True):
            product(row, weight)

    floor = NEW * best({"products": products}, 10 * rounds)["products"]
    print(f"  with nothing but the matrix products it would be {16 * one / floor:.1f} x one")
    for name, (_, seconds) in RECORDED.items():
        if math.isfinite(seconds):
            print(f"  {name:38}{NEW / seconds:12,.1f} tokens/s recorded, other machine")


def scoring(rounds: int) -> None:
    """Choices of one context: shared keys and values, or each from the beginning."""
    model = ours().eval()
    rng = random.Random(0)
    shots = [rng.randrange(VOCAB) for _ in range(150)]
    items = [
        ([*shots, *(rng.randrange(VOCAB) for _ in range(20))], [rng.randrange(VOCAB), 1, 2])
        for _ in range(32)
    ]
    pairs = [(context, [choice, *rest]) for context, (_, *rest) in items for choice in range(4)]

    def alone() -> None:
        for chunk in (pairs[i : i + 8] for i in range(0, len(pairs), 8)):
            rows = torch.tensor([[*context, *answer] for context, answer in chunk])
            with torch.no_grad():
                model(rows[:, :-1])[0].log_softmax(-1)

    calls = {"ours, shared": lambda: loglikelihoods(model, pairs), "each whole": alone}
    table("Scoring 4 choices of 32 questions, 170 tokens", best(calls, rounds), len(pairs),
          "choices/s", "each whole")  # fmt: skip


def cleaning(rounds: int) -> None:
    """MinHash, the index of runs of words, and the encoding of text."""
    from mmxx.language.gpt3.corpus import library_docs

    docs = list(library_docs())
    size = sum(map(len, docs)) / 1e6
    calls: dict[str, Callable[[], Any]] = {
        "MinHash, 10 hashes of 5 words": lambda: minhash(docs),
        "index of 13 words": lambda: Contamination().fit(docs)._index(13),
    }
    try:
        sketch = importlib.import_module("datasketch")
    except ImportError:
        print("datasketch is not installed: left out (pip install datasketch)")
    else:
        part = docs[:40]

        def peer() -> None:
            for text in part:
                words = text.lower().split()
                signature = sketch.MinHash(num_perm=10)
                signature.update_batch(
                    [" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))]
                )

        seconds = best({"datasketch": peer}, 1)["datasketch"]
        rate = sum(map(len, part)) / 1e6 / seconds
        print(f"\n  {'datasketch MinHash, a part':38}{rate:12,.1f} MB/s")
    tok = ByteBPE.train(docs[:100], 4096)
    calls["byte BPE, tokenizers"] = lambda: tok._tokenizer.encode_batch_fast(docs)
    calls["byte BPE, ours on it"] = lambda: tok.encode_batch(docs)
    table(f"{size:.1f} MB of text", best(calls, rounds), size, "MB/s", None)


def gpu() -> None:
    """The paper's small model in bfloat16 on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return
    config = GPTConfig.preset("small", n_ctx=1024, vocab_size=50304, attention="dense")
    model = GPT(config).cuda()
    net: Any = torch.compile(model)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=1e-4, fused=True)
    for batch in (8, 32):
        tokens = torch.randint(50304, (batch, 1025), device="cuda")
        for turn in range(15):
            if turn == 5:
                torch.cuda.synchronize()
                began = time.perf_counter()
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                loss = net(tokens[:, :-1], tokens[:, 1:])[1]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        torch.cuda.synchronize()
        rate = 10 * batch * 1024 / (time.perf_counter() - began)
        peak = peak_flops("cuda", torch.bfloat16)
        print(f"\n{torch.cuda.get_device_name()}, small, bf16, compiled, {batch} x 1024 tokens: "
              f"{rate:,.0f} tokens/s, MFU {mfu(model, rate, peak):.2f}")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--compiled", action="store_true", help="compile our model too: a minute")
    parser.add_argument("--peer", type=Path, help="a checkout of nanoGPT")
    parser.add_argument(
        "--part", choices=("training", "generation", "scoring", "cleaning"), action="append",
        help="which tables (all)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    few = max(1, options.rounds // 2)
    parts: dict[str, Callable[[], None]] = {
        "training": lambda: training(options.rounds, options.peer, options.compiled),
        "generation": lambda: generation(few, options.peer),
        "scoring": lambda: scoring(few),
        "cleaning": lambda: cleaning(few),
    }
    gpu()
    for name in options.part or parts:
        parts[name]()


if __name__ == "__main__":
    main()
