"""Generation: beside transformers, exhaustive search and the distribution itself."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mmxx.language.gpt3 import GPT, ByteBPE, GPTConfig, generate
from mmxx.language.gpt3.generation import truncate

V = 7


@pytest.fixture(scope="module")
def model():
    config = GPTConfig(2, 16, 2, n_ctx=24, vocab_size=V, window=4, init_std=0.5)
    return GPT(config, generator=torch.Generator().manual_seed(3)).double()


def logprob(model, prompt, continuation):
    text = torch.tensor([[*prompt, *continuation]])
    with torch.no_grad():
        scores = model(text[:, :-1])[0].log_softmax(-1)[0, len(prompt) - 1 :]
    return scores[range(len(continuation)), list(continuation)].sum().item()


PROMPTS = [[1, 2, 3], [4], [5, 6, 0, 1, 2, 3, 4, 5], [2, 2]]


def test_greedy_takes_the_likeliest_token_row_by_row(model):
    found = generate(model, PROMPTS, max_new_tokens=9, temperature=0)
    for prompt, text in zip(PROMPTS, found, strict=True):
        tokens = list(prompt)
        for token in text.tokens:
            assert model(torch.tensor([tokens]))[0][0, -1].argmax() == token
            tokens.append(token)
        assert len(text.tokens) == 9
        assert not text.stopped
        assert sum(text.logprobs) == pytest.approx(logprob(model, prompt, text.tokens))
    (alone,) = generate(model, PROMPTS[2:3], max_new_tokens=9, temperature=0)
    assert alone.tokens == found[2].tokens


def test_rows_that_stop_leave_the_others_alone(model):
    free = generate(model, PROMPTS, max_new_tokens=8, temperature=0)
    stop = free[0].tokens[2]
    found = generate(model, PROMPTS, max_new_tokens=8, temperature=0, stop=(stop,))
    for text, whole in zip(found, free, strict=True):
        at = whole.tokens.index(stop) if stop in whole.tokens else 8
        assert text.tokens == whole.tokens[:at]
        assert text.stopped == (at < 8)
        assert len(text.logprobs) == len(text.tokens)


def test_stop_strings_lie_across_tokens():
    tok = ByteBPE.train(["abab"], 258)
    config = GPTConfig(1, 16, 2, n_ctx=24, vocab_size=len(tok), init_std=0.3)
    net = GPT(config, generator=torch.Generator().manual_seed(0))
    prompt = tok.encode("ab")
    (free,) = generate(net, [prompt], max_new_tokens=12, temperature=0, tokenizer=tok)
    text = free.text
    stop = text[3:6]
    for beams in (1, 3):
        (whole,) = generate(
            net, [prompt], max_new_tokens=12, temperature=0, tokenizer=tok, num_beams=beams
        )
        stop = whole.text[3:6]
        (cut,) = generate(
            net, [prompt], max_new_tokens=12, temperature=0, stop=(stop,), tokenizer=tok,
            num_beams=beams,
        )  # fmt: skip
        assert stop not in cut.text
        if beams == 1:
            assert cut.text == whole.text[: whole.text.index(stop)]
            assert cut.stopped
            assert tok.decode(cut.tokens).startswith(cut.text)


def test_beams_as_wide_as_the_tree_find_its_best_leaf(model):
    for alpha, end in ((0.0, None), (0.6, None), (0.6, 3), (2.0, 3)):
        best = -math.inf
        for length in (1, 2, 3):
            for text in itertools.product(range(V), repeat=length):
                inner = end in text[:-1]
                ended = text[-1] == end
                if inner or (not ended and length < 3):
                    continue
                score = logprob(model, [1, 2], text) / ((5 + length) / 6) ** alpha
                if score > best:
                    best, expected = score, text
        (found,) = generate(
            model, [[1, 2]], max_new_tokens=3, num_beams=V**3, length_penalty=alpha,
            stop=() if end is None else (end,),
        )  # fmt: skip
        assert found.tokens == [t for t in expected if t != end]


def test_transformers_writes_the_same(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = GPTConfig(2, 16, 2, n_ctx=32, vocab_size=23, attention="dense", init_std=0.4)
    net = GPT(config, generator=torch.Generator().manual_seed(1))
    net.to_folder(tmp_path)
    peer = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    for prompt in ([3, 1, 4], [1, 5, 9, 2, 6]):
        (greedy,) = generate(net, [prompt], max_new_tokens=12, temperature=0)
        theirs = peer.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        assert theirs[0, len(prompt) :].tolist() == greedy.tokens
        for end in (None, greedy.tokens[6]):
            (ours,) = generate(
                net, [prompt], max_new_tokens=12, num_beams=4, length_penalty=0,
                stop=() if end is None else (end,),
            )  # fmt: skip
            theirs = peer.generate(
                torch.tensor([prompt]), max_new_tokens=12, do_sample=False, num_beams=4,
                length_penalty=0.0, eos_token_id=end, pad_token_id=0, early_stopping="never",
            )  # fmt: skip
            found = theirs[0, len(prompt) :].tolist()
            found = found[: found.index(end)] if end in found else found
            assert found == ours.tokens


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.6, 0.9, 1.0])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p):
    logits = torch.randn(20, 9, generator=torch.Generator().manual_seed(0)).double()
    kept = truncate(logits, None, top_p).isfinite()
    for probs, row in zip(logits.softmax(-1), kept, strict=True):
        order = probs.argsort(descending=True)
        count = next(n for n in range(1, 10) if probs[order[:n]].sum() >= top_p - 1e-12)
        assert row.sum() == count
        assert row[order[:count]].all()
    assert truncate(logits, 3, None).isfinite().sum(1).tolist() == [3] * 20


def test_samples_follow_the_distribution(model):
    prompt, draws = [1, 2, 3], 4000
    with torch.no_grad():
        logits = model(torch.tensor([prompt]))[0][:, -1]
    generator = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    for temperature, top_k, top_p in ((1.0, None, None), (0.7, 4, None), (1.3, None, 0.8)):
        found = generate(
            model, [prompt] * draws, max_new_tokens=1, temperature=temperature, top_k=top_k,
            top_p=top_p, generator=generator,
        )  # fmt: skip
        counts = torch.bincount(torch.tensor([t.tokens[0] for t in found]), minlength=V)
        probs = truncate(logits / temperature, top_k, top_p).softmax(-1)[0]
        assert not counts[probs == 0].any()
        there = probs > 0
        chi2 = ((counts - draws * probs)[there] ** 2 / (draws * probs[there])).sum().item()
        assert chi2 < 22.5  # 99.9 % of a chi-square of 6 degrees
    assert torch.equal(state, torch.get_rng_state())


def test_a_band_and_beams_past_its_window(model):
    (found,) = generate(model, [[1, 2, 3]], max_new_tokens=20, num_beams=3, length_penalty=0)
    assert sum(found.logprobs) == pytest.approx(logprob(model, [1, 2, 3], found.tokens), abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, got 0"),
        ({"temperature": -0.1}, r"temperature must be 0 \(greedy\) or more, got -0.1"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], got 1.1"),
        ({"top_k": 0}, "top_k must be 1 or more"),
        ({"num_beams": 0}, "num_beams must be 1 or more"),
        ({"length_penalty": -1.0}, "length_penalty must be 0 or more"),
        ({"stop": ("x",)}, "tokenizer is None"),
        ({"max_new_tokens": 30}, "prompt 0 has 3 tokens; with max_new_tokens=30 .* n_ctx=24"),
    ],
)
def test_what_cannot_be_generated_is_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(model, [[1, 2, 3]], **{"max_new_tokens": 2, **settings})


def test_prompts_that_cannot_be_are_refused(model):
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        generate(model, [[1], []], max_new_tokens=1)
    with pytest.raises(ValueError, match=r"prompt 0 must hold tokens in 0 … 6"):
        generate(model, [[7]], max_new_tokens=1)
    assert generate(model, [], max_new_tokens=1) == []


def test_text_is_a_prompt_behind_the_mark_of_a_beginning(model):
    tok = ByteBPE.train(["the cat sat on the mat. " * 9], vocab_size=270)
    config = GPTConfig(1, 8, 2, n_ctx=24, vocab_size=len(tok))
    small = GPT(config, generator=torch.Generator().manual_seed(0))
    settings = {"max_new_tokens": 5, "temperature": 0, "tokenizer": tok}
    (told,) = generate(small, ["the cat"], **settings)
    (given,) = generate(small, [[tok.end, *tok.encode("the cat")]], **settings)
    assert told == given
    with pytest.raises(ValueError, match="prompts hold text, and tokenizer is no ByteBPE"):
        generate(model, ["the cat"], max_new_tokens=1)
