"""GPT: shapes and counts, banded attention, the cache, the head's loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mmxx.nn.cross_entropy import head_cross_entropy
from mmxx.nn.gpt import GPT, GPTConfig, banded_attention, causal_mask
from mmxx.nn.kv_cache import KVCache


def small(**changes):
    sizes = {"n_layer": 3, "d_model": 16, "n_head": 2, "n_ctx": 32, "vocab_size": 31, "window": 4}
    config = GPTConfig(**{**sizes, **changes})
    generator = torch.Generator().manual_seed(0)
    model = GPT(config, generator=generator)
    with torch.no_grad():  # biases and gains that matter
        for param in model.parameters():
            param.add_(0.1 * torch.randn(param.shape, generator=generator))
    return model.double().eval()


def tokens(*shape, seed=1, vocab=31):
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def logits(model, *args, **kwargs):
    found, loss = model(*args, **kwargs)
    assert loss is None
    return found


@pytest.mark.parametrize(
    ("name", "strict", "count"),
    [
        ("small", True, 125e6), ("medium", True, 350e6), ("large", True, 760e6),
        ("xl", False, 1.3e9), ("2.7b", True, 2.7e9), ("6.7b", True, 6.7e9), ("13b", False, 13e9),
        ("175b", True, 175e9),
    ],
)  # fmt: skip
def test_presets_have_the_tables_parameters(name, strict, count):
    config = GPTConfig.preset(name, strict=strict)
    with torch.device("meta"):
        model = GPT(config)
    found = model.num_params()
    assert abs(found / count - 1) < 0.05
    layers, width = config.n_layer, config.d_model
    blocks = layers * (12 * width**2 + 13 * width) + 2 * width
    assert model.num_params(embedding=False) == blocks
    assert found == blocks + (config.vocab_size + config.n_ctx) * width


def test_the_table_as_printed_has_a_wide_xl():
    with torch.device("meta"):
        assert round(GPT(GPTConfig.preset("xl")).num_params() / 1e9, 2) == 1.52
        assert round(GPT(GPTConfig.preset("xl", strict=False)).num_params() / 1e9, 3) == 1.316
    assert GPTConfig.preset("XL").d_head == 128


def test_weights_begin_as_the_paper_says():
    config = GPTConfig(8, 256, 4, n_ctx=128, vocab_size=512, attention="dense")
    state = torch.get_rng_state()
    model = GPT(config, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())
    block = model.blocks[3]
    for weight in (model.wte.weight, model.wpe.weight, block.attn.qkv.weight, block.mlp.fc.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    for weight in (block.attn.proj.weight, block.mlp.proj.weight):
        assert weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.02)
    assert not any(param.any() for name, param in model.named_parameters() if ".bias" in name)
    text = tokens(2, 128, vocab=512)
    loss = model(text, tokens(2, 128, seed=2, vocab=512))[1]
    assert loss.item() == pytest.approx(math.log(512), abs=0.05)


def test_flops_count_what_multiplies():
    config = GPTConfig(2, 16, 2, n_ctx=32, vocab_size=31, window=8)
    model = GPT(config)
    weights = sum(p.numel() for name, p in model.named_parameters() if name != "wpe.weight")
    assert model.flops_per_token() == 6 * weights + 12 * 16 * (32 + 8)


@pytest.mark.parametrize("length", [5, 8, 12, 29])
def test_a_banded_layer_is_dense_attention_under_a_mask(length):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 5, generator=generator).double() for _ in range(3))
    mask = causal_mask(length, 4, q.device)
    assert mask.sum(1).tolist() == [min(i + 1, 4) for i in range(length)]
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert (banded_attention(q, k, v, 4) - expected).abs().max() < 1e-12


def test_a_wide_band_is_dense_to_the_bit():
    banded, dense = small(attention="banded", window=9), small(attention="dense")
    text = tokens(2, 9)
    assert torch.equal(logits(banded, text), logits(dense, text))
    assert not torch.equal(logits(banded, tokens(2, 10)), logits(dense, tokens(2, 10)))


def test_gradients_of_a_banded_model():
    model = small(n_layer=2, d_model=4, n_ctx=8, vocab_size=7, window=2)
    text = tokens(1, 6, vocab=7)
    names, params = zip(*model.named_parameters(), strict=True)

    def loss(*values):
        called = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, called, (text, text))[1]

    inputs = tuple(param.detach().clone().requires_grad_() for param in params)
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


@pytest.mark.parametrize("attention", ["dense", "banded", "alternating"])
def test_the_cache_gives_what_recomputation_gives(attention):
    model = small(attention=attention)
    text = tokens(3, 30)
    whole = logits(model, text)
    for pieces in ([1] * 30, [30], [2, 1, 6, 1, 1, 12, 7], [9, *[1] * 21], [3, 3, *[1] * 24]):
        cache, parts, at = KVCache(model.config), [], 0
        for piece in pieces:
            parts.append(logits(model, text[:, at : at + piece], cache=cache))
            at += piece
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-10, pieces
        assert len(cache) == 30


@pytest.mark.parametrize("attention", ["dense", "alternating"])
def test_rows_of_a_cache_may_differ_in_length(attention):
    model = small(attention=attention)
    text = tokens(4, 32)
    cache = KVCache(model.config)
    done = torch.zeros(4, dtype=torch.long)
    for counts in ([9, 2, 5, 1], [1, 7, 3, 8], None, None, [6, 1, 2, 4], None):
        counts = torch.tensor(counts or [1] * 4)
        width = int(counts.max())
        piece = torch.zeros(4, width, dtype=torch.long)
        for row, (start, count) in enumerate(zip(done.tolist(), counts.tolist(), strict=True)):
            piece[row, :count] = text[row, start : start + count]
        found = logits(model, piece, cache=cache, lengths=counts if width > 1 else None)
        for row, (start, count) in enumerate(zip(done.tolist(), counts.tolist(), strict=True)):
            expected = logits(model, text[row : row + 1, : start + count])[0, start:]
            assert (found[row, :count] - expected).abs().max() < 1e-10
        done += counts
    assert cache.lengths.tolist() == done.tolist()


def test_chosen_rows_go_on_apart():
    model = small()
    text = tokens(2, 10)
    cache = KVCache(model.config)
    model(text, cache=cache)
    chosen = cache.select(torch.tensor([1, 1, 0]))
    more = tokens(3, 3, seed=5)
    found = logits(model, more, cache=chosen)
    expected = logits(model, torch.cat([text[[1, 1, 0]], more], 1))[:, 10:]
    assert (found - expected).abs().max() < 1e-10
    assert len(cache) == 10


def test_a_banded_layer_holds_its_window():
    model = small(attention="banded")
    cache = KVCache(model.config)
    model(tokens(1, 20), cache=cache)
    assert {keys.shape[2] for keys, _ in cache._held} == {4}


@pytest.mark.parametrize("cached", [False, True])
def test_an_override_sees_the_weights_of_its_layer(cached):
    model = small()
    text = tokens(2, 11)
    plain = logits(model, text)
    seen = {}

    def keep(layer):
        def override(weights):
            seen[layer] = weights
            return weights

        return override

    for layer, block in enumerate(model.blocks):
        block.attn.override = keep(layer)
    if cached:
        cache = KVCache(model.config)
        model(text[:, :7], cache=cache)
        found = logits(model, text[:, 7:], cache=cache)
        assert seen[0].shape == (2, 2, 4, 32 + 4)
    else:
        found = logits(model, text)
        assert seen[1].shape == (2, 2, 11, 11)
        assert not seen[1][:, :, causal_mask(11, 4, text.device).logical_not()].any()
    assert (found - plain[:, 11 - found.shape[1] :]).abs().max() < 1e-10
    for weights in seen.values():
        assert (weights.sum(-1) - 1).abs().max() < 1e-10
    model.blocks[1].attn.override = lambda weights: torch.zeros_like(weights)
    assert not torch.allclose(logits(model, text), plain)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_heads_loss_is_cross_entropy(z_loss, weighted, monkeypatch):
    monkeypatch.setattr("mmxx.nn.cross_entropy._ELEMENTS", 23 * 5)  # pieces of 5 rows
    monkeypatch.setattr("mmxx.nn.cross_entropy._ROWS", 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(17, 6, generator=generator).double().requires_grad_()
    head = torch.randn(23, 6, generator=generator).double().requires_grad_()
    targets = tokens(17, vocab=23)
    weights = torch.rand(17, generator=generator).double().round(decimals=1) if weighted else None
    found = head_cross_entropy(x, head, targets, weights, z_loss=z_loss)
    scores = x @ head.T
    each = F.cross_entropy(scores, targets, reduction="none") + z_loss * scores.logsumexp(1) ** 2
    even = torch.ones(17) if weights is None else weights
    expected = (each * even).sum() / even.sum()
    assert abs(found.item() - expected.item()) < 1e-12
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, (x, head)),
        torch.autograd.grad(3 * expected, (x, head)),
        strict=True,
    ):
        assert (ours - theirs).abs().max() < 1e-12
    none = head_cross_entropy(x, head, targets, torch.zeros(17))
    assert none.item() == 0


def test_masked_targets_do_not_count():
    model = small()
    text, targets = tokens(2, 8), tokens(2, 8, seed=2)
    mask = torch.zeros(2, 8)
    mask[:, 3] = 1
    expected = F.cross_entropy(logits(model, text)[:, 3], targets[:, 3])
    assert abs(model(text, targets, loss_mask=mask)[1] - expected) < 1e-12


def test_bfloat16_training_comes_close():
    model = small().float()
    text = tokens(4, 32)
    exact = model(text, text)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(text, text)[1]
    assert rough.dtype == torch.float32
    assert abs(rough / exact - 1) < 0.02
    rough.backward()
    assert model.wte.weight.grad.dtype == torch.float32


def test_checkpointing_holds_one_block_at_a_time():
    text = tokens(2, 8)
    held, grads = {}, {}
    for checkpointing in (False, True):
        model = small(checkpointing=checkpointing, n_layer=6).train()
        count = 0

        def pack(tensor):
            nonlocal count
            count += tensor.numel() * (tensor.shape[-1:] != (31,))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(text, text)[1]
        held[checkpointing] = count
        loss.backward()
        grads[checkpointing] = [param.grad for param in model.parameters()]
    assert held[True] < 0.2 * held[False]
    for ours, theirs in zip(grads[True], grads[False], strict=True):
        assert torch.equal(ours, theirs)


def test_dropout_is_for_training():
    model = small(dropout=0.5)
    text = tokens(2, 8)
    assert torch.equal(logits(model, text), logits(model, text))
    model.train()
    assert not torch.equal(logits(model, text), logits(model, text))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 15}, "d_model must be even, got 15"),
        ({"d_model": 0}, "d_model must be 1 or more, got 0"),
        ({"n_head": 3}, "n_head must divide d_model=16"),
        ({"d_head": 0}, "d_head must be 1 or more"),
        ({"attention": "sparse"}, "attention must be"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"init_std": 0.0}, "init_std must be above 0"),
        ({"z_loss": -1.0}, "z_loss must be 0 or more"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_heads_need_not_fill_the_width():
    assert logits(small(n_head=3, d_head=6), tokens(1, 4)).shape == (1, 4, 31)
    with pytest.raises(ValueError, match="a preset is one of small"):
        GPTConfig.preset("tiny")


def test_what_does_not_fit_is_refused():
    model = small()
    with pytest.raises(ValueError, match="n_ctx=32 or fewer in a row, got 33"):
        model(tokens(1, 33))
    with pytest.raises(ValueError, match=r"\[B, T\]"):
        model(tokens(4))
    with pytest.raises(ValueError, match="lengths are for a pass through a cache"):
        model(tokens(1, 4), lengths=torch.tensor([2]))
    with pytest.raises(ValueError, match="length must lie in 1 … n_ctx=32, got 33"):
        KVCache(model.config, 33)
    cache = KVCache(model.config, 6)
    model(tokens(2, 5), cache=cache)
    with pytest.raises(ValueError, match="room for 6 tokens; it holds 5, and 2 more"):
        model(tokens(2, 2), cache=cache)
    with pytest.raises(ValueError, match="the cache's 2 rows, got 1"):
        model(tokens(1, 1), cache=cache)
    with pytest.raises(ValueError, match="lengths must lie in 1 … 4"):
        model(tokens(2, 4), cache=KVCache(model.config), lengths=torch.tensor([0, 4]))
