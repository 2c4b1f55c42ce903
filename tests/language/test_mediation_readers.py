"""Reading examples, making tokens of them, and what is refused."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmxx.data.source import DataError
from mmxx.language.mediation import (
    TEMPLATES,
    Example,
    Mediation,
    decoder_parts,
    load_examples,
    load_professions,
    load_winobias,
    load_winogender,
)
from mmxx.language.mediation.readers import read_professions
from mmxx.nn.gpt import GPT, GPTConfig

WORDS = "The nurse plumber king man woman said that because he she flight attendant of".split()


class Words:
    """A tokenizer of whole words, except that "attendant" becomes two pieces."""

    def encode(self, text: str) -> list[int]:
        found = []
        for word in text.split():
            if word == "attendant":
                found += [len(WORDS), len(WORDS) + 1]
            else:
                found.append(WORDS.index(word))
        return found

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [([*WORDS, "attend", "ant"])[index] for index in ids]


@pytest.fixture(scope="module")
def model() -> GPT:
    shape = GPTConfig(n_layer=2, d_model=8, n_head=2, vocab_size=20, n_ctx=12, init_std=0.3)
    return GPT(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mediation(model) -> Mediation:
    return Mediation(model, Words())


# -- professions -------------------------------------------------------------------------------


def test_there_are_the_papers_templates_and_thirty_words():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 17
    examples = load_professions()
    assert len(examples) == 30 * 17
    assert not examples.skipped
    assert examples[0].base == "The nurse said that"
    assert examples[0].alternative == "The man said that"
    assert examples[0].candidates == (" she", " he")


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_scores_decide_the_direction_and_what_is_left_out(tmp_path, mediation):
    path = write(tmp_path / "p.json", [["nurse", 0, -0.9], ["plumber", 0.1, 0.8], ["king", 1, 0],
                                       ["flight_attendant", 0, -1], ["attendant", 0, -0.5],
                                       ["nurses", 0, -1]])  # fmt: skip
    examples = load_professions(path, templates=["The {} said that"], mediation=mediation)
    assert [(e.meta["word"], e.alternative, e.candidates) for e in examples] == [
        ("nurse", "The man said that", (" she", " he")),
        ("plumber", "The woman said that", (" he", " she")),
    ]
    assert [line.partition(":")[0] for line in examples.skipped] == [
        "king", "flight_attendant", "attendant", "nurses",
    ]  # fmt: skip
    assert "2 tokens" in examples.skipped[2]
    fixed = load_professions(path, templates=["The {} said that"], direction="woman")
    assert {e.alternative for e in fixed} == {"The woman said that"}


def test_the_model_decides_where_the_scores_do_not(tmp_path, mediation):
    path = write(tmp_path / "p.json", [["nurse", 0.0, 0.0], ["plumber", 0.0, -1.0]])
    with pytest.raises(
        ValueError, match="'dataset' asks the model about 'nurse'; hand in mediation"
    ):
        load_professions(path, templates=["The {} said that"])
    examples = load_professions(
        path, templates=["The {} said that"], direction="model", mediation=mediation
    )
    asked = [Example(e.base, e.base, (" he", " she")) for e in examples]
    prefers_she = mediation.total_effect(asked).log_y0 > 0
    assert [e.alternative == "The man said that" for e in examples] == prefers_she.tolist()


def test_articles_must_fit(tmp_path):
    path = write(tmp_path / "p.json", [["engineer", 0.0, 1.0], ["nurse", 0.0, -1.0]])
    examples = load_professions(path, templates=["Once a {} said that"], direction="woman")
    assert [e.meta["word"] for e in examples] == ["nurse"]
    assert "'a' does not go with 'engineer'" in examples.skipped[0]


def test_a_word_list_may_have_scores(tmp_path):
    (tmp_path / "w.txt").write_text("word,score\nnurse,-0.5\nplumber\t1\n\nking,0.2,0.9\n")
    found = read_professions(tmp_path / "w.txt")
    assert [tuple(one) for one in found] == [
        ("nurse", 0.0, -0.5), ("plumber", 0.0, 1.0), ("king", 0.9, 0.2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", "__import__('os')", "no JSON"),
        ("p.json", '{"nurse": 1}', "a JSON dict"),
        ("p.json", '[["nurse", 0]]', r"entry 0 is \['nurse', 0\]"),
        ("p.json", '[["nurse", 0, 2]]', "'nurse' has the scores 0, 2"),
        ("p.json", "[]", "no profession"),
        ("p.txt", "nurse,1,0,0\n", "line 1 has 4 columns"),
        ("p.txt", "nurse,1\nplumber,much\n", "'plumber' has the scores"),
    ],
)
def test_files_of_other_professions_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_professions(tmp_path / name)


def test_templates_must_have_a_place():
    with pytest.raises(ValueError, match=r"a template has one \{\}, got 'The said'"):
        load_professions(templates=["The said"])
    with pytest.raises(ValueError, match="direction must be"):
        load_professions(direction="boy")


# -- WinoBias, Winogender, one's own -----------------------------------------------------------

WINOBIAS = """\
1 [The cook] saw the tailor because [he] was near.
2 The cook saw [the tailor] because [she] was far.
3 [The cook] met the tailor because of [his] plan.
4 The cook met [the tailor] because of [her] plans.
5 [The cook] paid the tailor and thanked [him].
6 The cook paid [the tailor] and thanked [her].
7 [The cook] left the tailor because [he] was late.
8 The cook left [the tailor] because [her] dog was ill.
9 [The cook] left the tailor since [he] was late.
10 The cook left [the tailor] because [she] was ill.
"""


def test_winobias_pairs(tmp_path):
    (tmp_path / "w.dev").write_text(WINOBIAS)
    one, other = load_winobias(tmp_path / "w.dev")
    assert one.base == "The cook saw the tailor because she"
    assert one.alternative == "The cook saw the tailor because he"
    assert one.candidates == (" was far.", " was near.")
    assert one.meta == {"female": "tailor", "male": "cook", "pronoun": "she"}
    assert (other.base, other.alternative) == (
        "The cook met the tailor because of her", "The cook met the tailor because of his",
    )  # fmt: skip
    assert len(load_winobias(tmp_path / "w.dev").skipped) == 3


def test_another_file_is_no_winobias(tmp_path):
    (tmp_path / "w").write_text("a\nb\n")
    with pytest.raises(DataError, match="no pair in 2 lines"):
        load_winobias(tmp_path / "w")


TEMPLATE = "occupation(0)\tother-participant(1)\tanswer\tsentence\n"
PAIR = (
    "{0}\t{1}\t0\tThe $OCCUPATION saw the $PARTICIPANT because ${2}_PRONOUN could help.\n"
    "{0}\t{1}\t1\tThe $OCCUPATION saw the $PARTICIPANT because ${2}_PRONOUN was ill.\n"
)
STATS = "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\n"


def winogender(folder, templates, stats):
    (folder / "templates.tsv").write_text(TEMPLATE + templates)
    (folder / "occupations-stats.tsv").write_text(STATS + stats)
    return folder


def test_winogender_pairs(tmp_path):
    rows = PAIR.format("nurse", "someone", "NOM") + PAIR.format("plumber", "guest", "POSS")
    rows += PAIR.format("plumber", "guest", "ACC") + PAIR.format("baker", "guest", "NOM")
    folder = winogender(tmp_path, rows, "nurse\t40\t90\t2015\nplumber\t60\t2\t2015\n")
    nurse, plumber = load_winogender(folder)
    assert nurse.base == "The nurse saw someone because she"
    assert nurse.candidates == (" could help.", " was ill.")
    assert plumber.base == "The plumber saw the guest because her"
    assert plumber.alternative == "The plumber saw the guest because his"
    assert plumber.candidates == (" was ill.", " could help.")
    assert plumber.meta["women"] == 2
    assert len(load_winogender(folder).skipped) == 2
    by_bergsma = load_winogender(folder, statistics="bergsma")
    assert by_bergsma[0].candidates == (" was ill.", " could help.")


@pytest.mark.parametrize(
    ("templates", "stats", "message"),
    [
        ("nurse\tguest\n", "nurse\t1\t2\t3\n", "line 2 has 2 columns, not 4"),
        (PAIR.format("nurse", "guest", "NOM"), "nurse\t1\tmany\t3\n", "'many' is no percentage"),
        (PAIR.format("nurse", "guest", "NOM").replace("\t1\t", "\t0\t"), "nurse\t1\t2\t3\n",
         "no pair of answers 0 and 1"),
        ("", "nurse\t1\t2\t3\n", "no pair of templates"),
    ],
)  # fmt: skip
def test_other_columns_are_named(templates, stats, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_winogender(winogender(tmp_path, templates, stats))
    with pytest.raises(DataError, match="no folder"):
        load_winogender(tmp_path / "nowhere")


def test_ones_own_examples(tmp_path):
    row = {"base": "The nurse said", "alternative": "The man said", "candidates": [" she", " he"]}
    (tmp_path / "e.jsonl").write_text(json.dumps({**row, "meta": {"n": 1}}) + "\n\n")
    (example,) = load_examples(tmp_path / "e.jsonl")
    assert example == Example(row["base"], row["alternative"], (" she", " he"), meta={"n": 1})
    for change, message in (
        ({"colour": 1}, r"line 1: unknown fields \['colour'\]"),
        ({"candidates": ["a"]}, "line 1: candidates must be two, got 1"),
        ({"weight": -1}, "line 1: weight must be positive, got -1"),
    ):
        (tmp_path / "e.jsonl").write_text(json.dumps(row | change))
        with pytest.raises(DataError, match=message):
            load_examples(tmp_path / "e.jsonl")


# -- tokens ------------------------------------------------------------------------------------


def test_strings_are_read_in_place(mediation):
    strings = Example("The nurse said that", "The man said that", (" she", " he"))
    ids = Example([0, 1, 6, 7], [0, 4, 6, 7], ([10], [9]), position=1)
    one, other = (mediation.neurons([example]) for example in (strings, ids))
    assert np.array_equal(one.log_nie, other.log_nie)


def test_prompts_of_different_length_are_refused_or_aligned(model):
    example = Example("The flight attendant said that", "The man said that", (" she", " he"))
    with pytest.raises(
        ValueError, match=r"'attend', 'ant', 'said', 'that'\] are 6, \['The', 'man'"
    ):
        Mediation(model, Words()).total_effect([example])
    aligned = Mediation(model, Words(), align="last")
    slow = Mediation(model, Words(), align="last", exact=False)
    one, other = aligned.neurons([example]), slow.neurons([example])
    assert np.allclose(one.log_nie, other.log_nie, atol=1e-5)
    assert np.allclose(one.log_nde, other.log_nde, atol=1e-5)
    with pytest.raises(ValueError, match="no counterpart in prompts of another length"):
        aligned.heads([example])


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example("The nurse of that", "The man said that", (" he", " she")), "differ in several"),
        (Example([0, 1], [0, 2], ([3], [30])), r"token ids must lie in \[0, 20\), got \(30,\)"),
        (Example([0, 1], [0, 2], ([3], [])), r"candidate \[\] has no token"),
        (Example([], [], ([3], [4])), "must not be empty"),
        (Example([0, 1], [0, 2], ([3], [4]), position=5), "position 5 is not found in 2 tokens"),
        (Example([0] * 12, [1] * 12, ([3, 3], [4]), position=1), "12 tokens or fewer"),
    ],
)
def test_examples_that_cannot_be_measured_are_named(mediation, example, message):
    with pytest.raises(ValueError, match=message):
        mediation.neurons([example])


def test_all_bad_examples_are_counted(mediation):
    good = Example([0, 1], [0, 2], ([3], [4]))
    bad = Example([0, 1], [0, 25], ([3], [4]))
    with pytest.raises(
        ValueError, match=r"2 of 3 examples cannot be measured: example 0 \(\[0, 1\]\)"
    ):
        mediation.heads([bad, good, bad])
    with pytest.raises(ValueError, match="one or more, got none"):
        mediation.heads([])


def test_a_candidate_must_go_on_from_the_prompt(model):
    class Melting(Words):
        def encode(self, text):
            return [5, 6] if text.endswith("thatx") else super().encode(text)

    example = Example("The nurse said that", "The man said that", ("x", " he"))
    with pytest.raises(ValueError, match="melts into the prompt"):
        Mediation(model, Melting()).total_effect([example])


def test_equal_candidates_and_strings_without_a_tokenizer_are_refused(model):
    with pytest.raises(ValueError, match="candidates must differ"):
        Example("a", "b", (" he", " he"))
    with pytest.raises(ValueError, match="tokenizer is None"):
        Mediation(model).heads([Example("a", "b", (" he", " she"))])


# -- models ------------------------------------------------------------------------------------


def test_models_that_are_none_are_refused():
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got str"):
        decoder_parts("gpt2")
    compiled = torch.nn.Linear(2, 2)
    compiled.__dict__["_orig_mod"] = SimpleNamespace()
    with pytest.raises(TypeError, match=r"made by torch.compile"):
        decoder_parts(compiled)
    with pytest.raises(ValueError, match="describe it by DecoderParts"):
        decoder_parts(torch.nn.Linear(2, 2))


class EightBit(torch.nn.Module):
    """A linear layer that keeps its weights in 8 bits and multiplies them out."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.scale = float(layer.weight.detach().abs().max()) / 127
        rounded = (layer.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = torch.nn.Parameter(rounded, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


def test_blocks_may_be_quantised_but_not_the_head():
    tf = pytest.importorskip("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llama = tf.LlamaForCausalLM(
            tf.LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16,
                           num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                           bos_token_id=1, eos_token_id=1, pad_token_id=1)
        )  # fmt: skip
    plain = copy.deepcopy(llama)
    for block, other in zip(llama.model.layers, plain.model.layers, strict=True):
        for part, twin in ((block.self_attn, other.self_attn), (block.mlp, other.mlp)):
            for name, layer in list(part.named_children()):
                if isinstance(layer, torch.nn.Linear):
                    eight = EightBit(layer)
                    setattr(part, name, eight)
                    getattr(twin, name).weight.data = eight.weight.float() * eight.scale
    example = Example([5, 7, 9, 1], [5, 7, 9, 2], ([10], [11]))
    for kind in ("heads", "neurons"):
        found, expected = (getattr(Mediation(m), kind)([example]) for m in (llama, plain))
        assert np.allclose(found.log_nie, expected.log_nie, rtol=0, atol=1e-6)
        assert np.abs(found.log_nie).max() > 1e-4
    for weight in (llama.lm_head.weight.to("meta"), llama.lm_head.weight.to(torch.int8)):
        llama.lm_head.weight = torch.nn.Parameter(weight, requires_grad=False)
        with pytest.raises(ValueError, match="head of LlamaForCausalLM must hold its weights"):
            Mediation(llama)


def test_blocks_may_lie_on_a_disk(tmp_path):
    tf = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tf.GPT2LMHeadModel(
            tf.GPT2Config(vocab_size=20, n_positions=8, n_embd=16, n_layer=2, n_head=2,
                          bos_token_id=1, eos_token_id=1)
        )  # fmt: skip
    model.save_pretrained(tmp_path / "model")
    places = {"transformer.wte": "cpu", "lm_head": "cpu", "transformer.wpe": "cpu",
              "transformer.h": "disk", "transformer.ln_f": "cpu"}  # fmt: skip
    spread = tf.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "disk"
    )
    example = Example([5, 7, 9, 1], [5, 7, 9, 2], ([10], [11]))
    found, expected = (Mediation(m).heads([example]) for m in (spread, model.eval()))
    assert np.array_equal(found.log_nie, expected.log_nie)


def test_models_of_other_kinds_are_refused():
    tf = pytest.importorskip("transformers")
    small = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        bert = tf.BertForMaskedLM(tf.BertConfig(**small, intermediate_size=16))
        t5 = tf.T5ForConditionalGeneration(
            tf.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
                        decoder_start_token_id=1)
        )  # fmt: skip
        gemma = tf.Gemma2ForCausalLM(
            tf.Gemma2Config(**small, intermediate_size=16, num_key_value_heads=1, head_dim=8)
        )
        bloom = tf.BloomForCausalLM(
            tf.BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=2, bos_token_id=1,
                           eos_token_id=1, pad_token_id=1)
        )  # fmt: skip
        bare = tf.GPT2Model(tf.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2,
                                          bos_token_id=1, eos_token_id=1))  # fmt: skip
    for other, message in (
        (bert, "causal language models only; in BertForMaskedLM a word changes what stands before"),
        (t5, "causal language models only; T5ForConditionalGeneration has an encoder"),
        (gemma, "'softcap' to its attention"),
        (bloom, "computes its attention itself"),
        (bare, "GPT2Model has no head over words"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder_parts(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"align": "first"}, "align must be 'equal' or 'last', got 'first'"),
    ],
)
def test_settings_out_of_range_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        Mediation(model, **arguments)


def test_mediators_that_are_not_there_are_refused(model):
    mediation, examples = Mediation(model), [Example([0, 1], [0, 2], ([3], [4]))]
    with pytest.raises(ValueError, match=r"layers must lie in \[0, 2\), got \[2\]"):
        mediation.heads(examples, layers=[2])
    with pytest.raises(ValueError, match=r"heads of sets must lie in \[0, 2\), got \[5\]"):
        mediation.sets(examples, [{(0, 5)}])
    with pytest.raises(ValueError, match=r"heads must lie in \[0, 2\), got \[\]"):
        mediation.heads(examples, heads=[])
    with pytest.raises(ValueError, match="mode must be one of set, add, zero, mean, got 'max'"):
        mediation.neurons(examples, mode="max")


def test_another_precision_is_computed_with_a_copy(model):
    examples = [Example([0, 1, 3], [0, 2, 3], ([3], [4]))]
    double = Mediation(model, dtype=torch.float64).heads(examples)
    single = Mediation(model).heads(examples)
    assert next(model.parameters()).dtype == torch.float32
    assert np.allclose(double.log_nie, single.log_nie, atol=1e-5)
    assert not np.array_equal(double.log_nie, single.log_nie)


def test_a_block_that_cannot_run_by_itself_is_noticed(model):
    mediation = Mediation(copy.deepcopy(model))
    turned = torch.arange(8.0)
    mediation.parts.blocks[1].register_forward_hook(
        lambda m, args, out: out + args[0].shape[1] * turned
    )
    with pytest.raises(ValueError, match=r"cannot be run in parts .*exact=False"):
        mediation.heads([Example([0, 1, 3], [0, 1, 4], ([3], [4]))])
