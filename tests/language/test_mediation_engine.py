"""The fast way beside one whole pass for each mediator, on models of four families and our own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmxx.language.mediation import Example, Mediation
from mmxx.language.mediation._naive import run_plain, run_row
from mmxx.language.mediation._passes import run_context
from mmxx.language.mediation._plan import Values, make_plan
from mmxx.nn.gpt import GPT, GPTConfig

VOCAB = 37
FAMILIES = ("gpt2", "llama", "gpt_neox", "opt", "opt-post-norm", "mistral", "own")
LOGS = ("log_y0", "log_yx", "log_nie", "log_nde")


def build(family: str) -> torch.nn.Module:
    """A tiny model with random weights that are large enough to matter."""
    if family == "own":
        shape = GPTConfig(
            n_layer=3, d_model=16, n_head=2, vocab_size=VOCAB, n_ctx=16, attention="alternating",
            window=3, init_std=0.3,
        )  # fmt: skip
        return GPT(shape, generator=torch.Generator().manual_seed(0))
    tf = pytest.importorskip("transformers")
    common = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2,
              "num_attention_heads": 4, "intermediate_size": 24, "initializer_range": 0.3,
              "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None}  # fmt: skip
    opt = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "ffn_dim": 24,
           "num_attention_heads": 4, "init_std": 0.3, "max_position_embeddings": 16,
           "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        match family:
            case "gpt2":
                model = tf.GPT2LMHeadModel(
                    tf.GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=4, n_positions=16,
                                  initializer_range=0.3, bos_token_id=1, eos_token_id=1)
                )  # fmt: skip
            case "llama":
                model = tf.LlamaForCausalLM(tf.LlamaConfig(num_key_value_heads=2, **common))
            case "gpt_neox":
                model = tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**common))
            case "opt":
                model = tf.OPTForCausalLM(tf.OPTConfig(word_embed_proj_dim=16, **opt))
            case "opt-post-norm":
                model = tf.OPTForCausalLM(
                    tf.OPTConfig(word_embed_proj_dim=8, do_layer_norm_before=False, **opt)
                )
            case _:
                model = tf.MistralForCausalLM(
                    tf.MistralConfig(num_key_value_heads=2, sliding_window=3, **common)
                )
    return model


MODELS: dict[str, torch.nn.Module] = {}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    """One double-precision model of each family, built once."""
    if request.param not in MODELS:
        MODELS[request.param] = build(request.param).double()
    return MODELS[request.param]


def example(rng: np.random.Generator, size: int, changed: int, *candidates: int) -> Example:
    base = rng.integers(3, VOCAB, size).tolist()
    other = list(base)
    other[changed] = 3 + (base[changed] - 3 + 5) % (VOCAB - 3)
    first, second = (rng.integers(3, VOCAB, count).tolist() for count in candidates)
    return Example(base, other, (first, second if second != first else [*second, 3]))


def some_examples() -> list[Example]:
    """Shapes that differ: where the change is, and how long the candidates are."""
    rng = np.random.default_rng(0)
    return [
        example(rng, 6, 2, 1, 1), example(rng, 6, 2, 1, 1), example(rng, 5, 4, 3, 2),
        example(rng, 5, 1, 1, 3), example(rng, 5, 0, 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["set", "add", "zero", "mean"])
def test_heads_equal_the_plain_loop(model, mode):
    examples = some_examples()
    fast = Mediation(model, batch_size=11).heads(examples, mode=mode, alpha=0.5)
    slow = Mediation(model, exact=False).heads(examples, mode=mode, alpha=0.5)
    for name in LOGS:
        assert np.allclose(getattr(fast, name), getattr(slow, name), rtol=1e-10, atol=1e-10)
    for level in ("layer", "model"):
        one, other = getattr(fast, level), getattr(slow, level)
        assert np.allclose(one.log_nie, other.log_nie, rtol=1e-10, atol=1e-10)
        assert np.allclose(one.log_nde, other.log_nde, rtol=1e-10, atol=1e-10)
    assert np.abs(fast.log_nie).max() > 0.01


@pytest.mark.parametrize("mode", ["set", "add", "zero", "mean"])
def test_neurons_equal_the_plain_loop(model, mode):
    examples, some = some_examples(), {"neurons": [0, 7], "mode": mode, "alpha": 0.5}
    fast = Mediation(model, batch_size=5).neurons(examples, **some)
    slow = Mediation(model, exact=False).neurons(examples, **some)
    for name in LOGS:
        assert np.allclose(getattr(fast, name), getattr(slow, name), rtol=1e-10, atol=1e-10)
    assert np.abs(fast.log_nie).max() > 0.01


@pytest.mark.parametrize(
    ("kind", "sets"),
    [
        ("heads", [{(0, 1), (1, 0)}, {(1, 1)}, set()]),
        ("neurons", [{(0, 3), (1, 2), (1, 5), (2, 2)}, {(1, 0), (2, 7)}]),
    ],
)
def test_sets_equal_the_plain_loop(model, kind, sets):
    examples = some_examples()
    fast = Mediation(model).sets(examples, sets, kind)
    slow = Mediation(model, exact=False).sets(examples, sets, kind)
    assert np.allclose(fast.log_nie, slow.log_nie, rtol=1e-10, atol=1e-10)
    assert np.allclose(fast.log_nde, slow.log_nde, rtol=1e-10, atol=1e-10)


def test_several_places_equal_the_plain_loop():
    base = [4, 5, 6, 7]
    example = Example(base, [4, 9, 10, 7], ([3], [8]), position=slice(1, 3))
    model = build("own").double()
    fast, slow = (
        Mediation(model, exact=exact).neurons([example], neurons=range(4))
        for exact in (True, False)
    )
    assert np.allclose(fast.log_nie, slow.log_nie, atol=1e-10)
    assert np.allclose(fast.log_nde, slow.log_nde, atol=1e-10)


def test_single_precision_is_near_the_plain_loop():
    model = build("gpt2")
    examples = some_examples()
    fast = Mediation(model).heads(examples)
    slow = Mediation(model, exact=False).heads(examples)
    assert np.allclose(np.exp(fast.log_nie), np.exp(slow.log_nie), rtol=1e-5)
    assert np.allclose(fast.yx, slow.yx, rtol=1e-5)


# -- what must hold whatever the model ---------------------------------------------------------


def test_own_values_change_no_bit(model):
    mediation = Mediation(model)
    one = mediation.encode(some_examples()[2:3])[0]
    with torch.inference_mode():
        context = run_context(mediation.parts, [one], "base")
        plain = run_plain(mediation.parts, one, context, "base")
        own = Values(context, context)
        parts = [("heads", 0, 1), ("heads", 1, 0), ("neurons", 1, 3), ("neurons", 0, 2)]
        plan = make_plan([parts], len(mediation.parts.blocks))
        assert float(run_row(mediation.parts, plan, own, one, "base")) == float(plain)


def test_the_whole_embedding_mediates_everything(model):
    mediation = Mediation(model)
    every = {(0, unit) for unit in range(mediation.parts.width)}
    effects = mediation.sets(some_examples(), [every], "neurons")
    assert np.allclose(effects.log_nie[:, 0], effects.log_te, atol=1e-10)
    assert np.allclose(effects.log_nde, 0, atol=1e-10)


def test_no_change_has_no_effect(model):
    examples = [Example(e.base, e.base, e.candidates) for e in some_examples()]
    effects = Mediation(model).heads(examples)
    assert np.abs(effects.log_te).max() < 1e-12
    assert np.abs(effects.log_nie).max() < 1e-12
    assert np.abs(effects.log_nde).max() < 1e-12


def test_swapped_texts_invert_the_odds(model):
    examples = some_examples()
    swapped = [Example(e.alternative, e.base, e.candidates) for e in examples]
    one, other = (Mediation(model).heads(some) for some in (examples, swapped))
    assert np.allclose(one.log_te, -other.log_te, atol=1e-10)
    # what is held in one is changed in the other, seen from the other end
    assert np.allclose(one.log_nde - one.log_te[:, None, None], other.log_nie, atol=1e-10)


def test_batches_do_not_matter():
    model, examples = build("gpt2").double(), some_examples()
    sizes = [Mediation(model, batch_size=size).heads(examples).log_nie for size in (1, 7, 4096)]
    assert np.allclose(sizes[0], sizes[1], atol=1e-12)
    assert np.allclose(sizes[0], sizes[2], atol=1e-12)


def test_the_model_is_left_as_it_was():
    tf = pytest.importorskip("transformers")
    for model in (build("gpt2"), build("own")):
        model.train()
        list(model.modules())[3].eval()
        before = [module.training for module in model.modules()]
        state = {name: value.clone() for name, value in model.state_dict().items()}
        gradients = [p.requires_grad for p in model.parameters()]
        mediation = Mediation(model)
        examples = some_examples()
        mediation.heads(examples)
        mediation.attribution(examples)
        with torch.no_grad():
            next(iter(model.parameters())).fill_(float("nan"))
        with pytest.raises(ValueError, match="NaN"):
            mediation.heads(examples)
        model.load_state_dict(state)
        assert [module.training for module in model.modules()] == before
        assert [p.requires_grad for p in model.parameters()] == gradients
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        if isinstance(model, tf.PreTrainedModel):
            assert model.config._attn_implementation != "mmxx_mediation"
        else:
            assert all(block.attn.override is None for block in model.blocks)


def test_patching_the_last_token_before_block_0_is_the_change_itself(model):
    examples = some_examples()[2:3]  # the changed token is the prompt's last
    effects = Mediation(model).activation_patch(examples)
    assert effects.nie.shape == (1, len(Mediation(model).parts.blocks), 5)
    assert np.allclose(effects.log_nie[0, 0, 4], effects.log_te[0], atol=1e-10)
    assert np.abs(effects.log_nie[0, :, :4]).max() < 1e-12


def test_patching_is_empty_beyond_the_prompt():
    effects = Mediation(build("gpt2")).activation_patch(some_examples())
    assert np.isnan(effects.log_nie[2, :, 5]).all()
    assert np.isfinite(effects.log_nie[:2]).all()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "own"])
@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_the_estimate_is_the_slope(family, kind):
    mediation, examples, eps = Mediation(build(family).double()), some_examples(), 1e-5
    estimate = mediation.attribution(examples, kind)
    up, down = (
        getattr(mediation, kind)(examples, mode="add", alpha=sign * eps) for sign in (1, -1)
    )
    slope = (up.log_nie - down.log_nie) / (2 * eps)
    assert np.allclose(estimate.log_nie, slope, atol=1e-6)
    assert np.abs(slope).max() > 0.1
    if kind == "heads":
        whole = (up.model.log_nie - down.model.log_nie) / (2 * eps)
        assert np.allclose(estimate.model.log_nie, whole, atol=1e-6)


# -- beside nnsight ----------------------------------------------------------------------------


def test_patches_of_nnsight_have_the_same_effects():
    nnsight = pytest.importorskip("nnsight")
    model = build("gpt2").double().eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    example = some_examples()[0]
    base, other = (torch.tensor([list(prompt)]) for prompt in (example.base, example.alternative))
    size, width, place, unit = base.shape[1], 4, 2, 5  # a head's width, the changed token
    traced = nnsight.NNsight(model)
    with traced.trace(other):
        neuron = traced.transformer.h[0].mlp.output[:, place, unit].save()
    with traced.trace(base):
        values = traced.transformer.h[1].attn.c_attn.output.save()
    with torch.no_grad():
        attention = model(other, output_attentions=True).attentions[1][:, 1]  # block 1, head 1
    # the other text's attention on this text's values is what the head gives to its projection
    part = slice(width, 2 * width)
    head = attention @ values[:, :size, 2 * 16 :][:, :, part]

    def log_odds(patch):
        with traced.trace(base):
            if patch == "neuron":
                traced.transformer.h[0].mlp.output[:, place, unit] = neuron
            elif patch == "head":
                traced.transformer.h[1].attn.c_proj.input[:, :, part] = head
            logits = traced.output.logits[0, -1].save()
        first, second = (candidate[0] for candidate in example.candidates)
        return float(logits[second] - logits[first])

    mediation = Mediation(model)
    nie = mediation.heads([example], layers=[1], heads=[1]).log_nie[0, 0, 0]
    assert nie == pytest.approx(log_odds("head") - log_odds(None), abs=1e-5)
    nie = mediation.neurons([example], layers=[1], neurons=[unit]).log_nie[0, 0, 0]
    assert nie == pytest.approx(log_odds("neuron") - log_odds(None), abs=1e-5)
    assert abs(nie) > 1e-3
