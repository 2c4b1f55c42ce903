"""The planted sentences, the trainings, the run, and a model of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from mmxx.lab.compute import map_items
from mmxx.lab.errors import BadInputError
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.language.mediation import Effects, Mediation, arms, experiment, own
from mmxx.language.mediation.card import CARD
from mmxx.language.mediation.corpus import Corpus

# -- sentences ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    corpus = Corpus(0.8)
    return corpus, *corpus.draw(200_000, np.random.default_rng(0))


def test_pronouns_follow_professions_as_planted(drawn):
    corpus, tokens, mask = drawn
    examples, ideal = corpus.set_gender()
    short = ~mask[:, -1]
    assert short.mean() == pytest.approx(0.35, abs=0.01)

    def log_odds(word):
        rows = tokens[short & (tokens[:, 1] == word)]
        she, he = ((rows[:, 4] == pronoun).sum() for pronoun in (4, 5))
        return np.log(she / he)

    woman = log_odds(examples[0].alternative[1])
    measured = [woman - log_odds(example.base[1]) for example in examples]
    assert np.abs(np.array(measured) - ideal).max() < 0.35  # some 2,500 sentences each
    assert np.abs(np.mean(measured - ideal)) < 0.1


def test_objects_follow_pronouns_as_planted(drawn):
    corpus, tokens, mask = drawn
    long = tokens[mask[:, -1]]
    hers, his = corpus.professions - 1, 0  # the most and the least female
    word = {who: int(corpus._word("profession", who)) for who in (hers, his)}
    thing = {who: int(corpus._word("object", who)) for who in (hers, his)}
    both = np.isin(long[:, [1, 5]], list(word.values())).all(1)
    rows = long[both]
    she, he = (rows[rows[:, 8] == pronoun] for pronoun in (4, 5))
    odds = [
        (some[:, 10] == thing[his]).mean() / (some[:, 10] == thing[hers]).mean()
        for some in (she, he)
    ]
    expected = 0.8 * (corpus.log_odds[hers] - corpus.log_odds[his])
    assert np.log(odds[1] / odds[0]) == pytest.approx(expected, abs=0.5)


def test_pairs_are_as_the_closed_form_needs_them():
    corpus = Corpus(0.5)
    examples, ideal = corpus.swap_gender(40, np.random.default_rng(0))
    for example, expected in zip(examples, ideal, strict=True):
        changed = [a != b for a, b in zip(example.base, example.alternative, strict=True)]
        assert changed == [False] * 8 + [True, False]
        hers, his = (
            candidate[0] - int(corpus._word("object", 0)) for candidate in example.candidates
        )
        people = {example.base[1], example.base[5]}
        assert people == {int(corpus._word("profession", who)) for who in (hers, his)}
        assert expected == pytest.approx(0.5 * (corpus.log_odds[hers] - corpus.log_odds[his]))
        assert corpus.log_odds[hers] > 0.3 > -0.3 > corpus.log_odds[his]


def test_every_token_is_known_to_the_model():
    for corpus in (Corpus(), Corpus(professions=5, attributes=2, verbs=1, fillers=1)):
        tokens, _ = corpus.draw(500, np.random.default_rng(0))
        assert tokens.min() >= 0
        assert tokens.max() < corpus.vocab_size
        assert len(np.unique(tokens)) == corpus.vocab_size


# -- trainings ---------------------------------------------------------------------------------


ARM = arms.Arm(
    strength=1.0, name="s = 1", seed=0, steps=40, batch=32, layers=1, width=16, pairs=6, sets=3
)


def test_a_training_learns_and_leaves_the_global_generators_alone():
    state = torch.get_rng_state()
    _, losses = arms.train(ARM)
    assert torch.equal(state, torch.get_rng_state())
    assert losses[-1] < losses[0] - 0.5


def test_what_an_arm_gives_belongs_together():
    found = arms.work(replace(ARM, steps=5))
    heads = Effects.from_bytes(found["heads"].tobytes())
    mediation = Mediation(arms.network(ARM, found["state"]))
    again = mediation.heads(arms.examples(ARM).sentences)
    assert np.allclose(heads.log_nie, again.log_nie, atol=1e-5)
    best = np.unravel_index(heads.log_nie.mean(0).argmax(), (1, 4))
    assert found["sets"]["indirect effect"][0] == pytest.approx(
        heads.log_nie.mean(0)[best], abs=1e-5
    )
    row = arms.sentence_row(ARM, found, heads)
    assert row["NIE, all heads"] == pytest.approx(float(heads.model.log_nie.mean()))


def test_rank_correlations():
    assert arms.rank_correlation(np.arange(6.0), np.exp(np.arange(6))) == pytest.approx(1)
    assert np.isnan(arms.rank_correlation(np.ones(6), np.arange(6.0)))


# -- the run -----------------------------------------------------------------------------------


def measured(folder, config):
    run = create(folder, CARD, config, Options(backend="serial"), "quick")
    execute(run, experiment.run)
    return {line["id"]: line for line in run.verdicts}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"width": 20}, "width must be a multiple of 8, got 20"),
        ({"top": 9}, "top must be 8 heads or fewer, got 9"),
        ({"strengths": (1.0,)}, r"strengths must hold 1 and 0, each once, got \(1.0,\)"),
        ({"strengths": (1.0, 0.0, 2.0)}, r"strengths must lie in \[0, 1\]"),
        ({"filter": 1.0}, r"filter must lie in \[0, 1\), got 1.0"),
        ({"data": "words.txt"}, "data and templates need a model"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment.QUICK, **change)


# -- a model of one's own ----------------------------------------------------------------------

WINOBIAS = """\
1 [The cook] saw the tailor because [he] was near.
2 The cook saw [the tailor] because [she] was far.
3 [The cook] met the tailor because [he] was late.
4 The cook met [the tailor] because [she] was ill.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of random weights and a tokenizer of words, as transformers saves them."""
    tf = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = set((WINOBIAS + " ".join(experiment_words())).replace("[", "").replace("]", "").split())
    words |= {word.strip(".") for word in words} | {".", "?"}
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(sorted(words))}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    place = tmp_path_factory.mktemp("model")
    tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(place)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = tf.GPT2Config(
            vocab_size=len(words), n_embd=16, n_layer=2, n_head=2, n_positions=32,
            initializer_range=0.3, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        tf.GPT2LMHeadModel(config).save_pretrained(place)
    return place


def experiment_words() -> list[str]:
    from mmxx.language.mediation.readers import PROFESSIONS

    return ["The man woman said he she that", *(one.word for one in PROFESSIONS)]


def test_winobias_with_a_model_of_ones_own(folder, tmp_path):
    (tmp_path / "pairs.dev").write_text(WINOBIAS)
    config = replace(
        experiment.QUICK, model=folder, data=tmp_path / "pairs.dev", filter=0.0, top=3, kind="heads"
    )
    lines = measured(tmp_path / "run", config)
    assert {line["verdict"] for line in lines.values()} == {"not measured"}
    effects = Effects.load(tmp_path / "run" / "artifacts" / "effects-heads.safetensors")
    assert effects.nie.shape == (2, 2, 2)
    greedy = (tmp_path / "run" / "tables" / "greedy.csv").read_text().splitlines()
    assert len(greedy) == 4
    assert (tmp_path / "run" / "figures" / "heads.svg").is_file()


def test_words_and_templates_with_a_model_of_ones_own(folder, tmp_path):
    (tmp_path / "words.csv").write_text("word,score\nnurse,-1\nplumber,1\nking-maker,1\n")
    (tmp_path / "t.txt").write_text("The {} said that\n")
    config = replace(
        experiment.QUICK, model=folder, data=tmp_path / "words.csv", templates=tmp_path / "t.txt",
        filter=0.0, kind="neurons",
    )  # fmt: skip
    measured(tmp_path / "run", config)
    effects = Effects.load(tmp_path / "run" / "artifacts" / "effects-neurons.safetensors")
    assert effects.nie.shape == (2, 3, 16)
    assert [entry["word"] for entry in effects.meta] == ["nurse", "plumber"]
    assert "king-maker: 3 tokens" in (tmp_path / "run" / "artifacts" / "skipped.txt").read_text()
    ranked = (tmp_path / "run" / "artifacts" / "effects-neurons.csv").read_text().splitlines()
    assert len(ranked) == 1 + 3 * 16


def test_a_folder_that_is_no_model_is_refused(tmp_path, folder):
    with pytest.raises(ValueError, match=r"has no config.json; accepted: a folder"):
        own.load(str(tmp_path))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")  # never unpickled
    with pytest.raises(ValueError, match="cannot be loaded"):
        own.load(str(tmp_path))


def test_data_of_another_kind_are_refused(tmp_path, folder):
    mediation = own.load(str(folder))
    with pytest.raises(ValueError, match="no such file or folder"):
        own.read(tmp_path / "nothing", None, "dataset", "dev", mediation)
    (tmp_path / "pairs.dev").write_text(WINOBIAS)
    (tmp_path / "t.txt").write_text("The {} said that\n")
    with pytest.raises(ValueError, match="templates are for professions and word lists"):
        own.read(tmp_path / "pairs.dev", tmp_path / "t.txt", "dataset", "dev", mediation)
    row = {"base": "The nurse said", "alternative": "The man said", "candidates": [" she", " he"]}
    (tmp_path / "e.jsonl").write_text(json.dumps(row))
    assert len(own.read(tmp_path / "e.jsonl", None, "dataset", "dev", mediation)) == 1


@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_parts_of_examples_and_layers_belong_together(folder, monkeypatch, kind):
    monkeypatch.setattr(own, "_LAYERS", 1)
    monkeypatch.setattr(own, "_EXAMPLES", 2)
    load = partial(own.load, str(folder))
    examples = own.read(None, None, "dataset", "dev", load())[:3]
    tasks = own.tasks(load, examples, kind, 2 + (kind == "neurons"))
    assert len(tasks) == (4 if kind == "heads" else 6)
    found = own.gathered([own.measure(task) for task in tasks], 2 + (kind == "neurons"))
    whole = getattr(load(), kind)(examples)
    assert (found.kind, found.labels, found.meta) == (whole.kind, whole.labels, whole.meta)
    pairs = [(found, whole)]
    if kind == "heads":
        pairs += [(found.layer, whole.layer), (found.model, whole.model)]
        assert found.layer.labels == whole.layer.labels
    for ours, theirs in pairs:
        assert np.allclose(ours.log_nie, theirs.log_nie, atol=1e-5)
        assert np.allclose(ours.log_nde, theirs.log_nde, atol=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_same_bits(folder):
    load = partial(own.load, str(folder))
    examples = own.read(None, None, "dataset", "dev", load())[:20]
    tasks = own.tasks(load, examples, "heads", 2)
    one, two = (
        [found.tobytes() for found in map_items(own.measure, tasks, backend=name, workers=2)]
        for name in ("serial", "process")
    )
    assert one == two


def test_words_of_which_none_can_be_measured_are_bad_input(folder, tmp_path):
    (tmp_path / "words.csv").write_text("word,score\nking-maker,1\n")
    config = replace(experiment.QUICK, model=folder, data=tmp_path / "words.csv")
    with pytest.raises(BadInputError, match=r"no text can be measured .* king-maker: 3 tokens"):
        measured(tmp_path / "run", config)
    assert "king-maker" in (tmp_path / "run" / "artifacts" / "skipped.txt").read_text()
