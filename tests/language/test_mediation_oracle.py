"""Effects that are known: networks set by hand, and the authors' own results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mmxx.language.mediation import Effects, Mediation, decompose, load_winobias
from mmxx.language.mediation.arms import attention_change
from mmxx.language.mediation.handset import mediated_by_a_pair, mediated_by_heads

DATA = Path(os.environ.get("MMXX_DATA", "")) / "language"
needs_data = pytest.mark.skipif(
    not (os.environ.get("MMXX_DATA") and DATA.is_dir()), reason="MMXX_DATA is not set"
)


def test_heads_set_by_hand():
    a, b = 0.7, {(0, 1): 0.5, (1, 2): -1.1}
    model, example = mediated_by_heads(a, b)
    effects = Mediation(model).heads([example])
    expected = np.zeros((2, 4))
    for (layer, head), strength in b.items():
        expected[layer, head] = np.expm1(strength)
    assert np.allclose(effects.nie[0], expected, atol=1e-10)
    assert np.allclose(effects.te, np.expm1(a + sum(b.values())), atol=1e-10)
    assert np.allclose(effects.model.nde, np.expm1(a), atol=1e-10)
    assert np.allclose(effects.layer.nie[0], np.expm1([0.5, -1.1]), atol=1e-10)
    assert np.allclose(effects.y0, 1, atol=1e-10)


def test_two_heads_multiply():
    model, example = mediated_by_heads(0.2, {(0, 0): 0.4, (0, 3): 0.9})
    effects = Mediation(model).sets([example], [{(0, 0), (0, 3)}, {(0, 0)}, {(1, 1)}])
    assert np.allclose(effects.nie[0], np.expm1([1.3, 0.4, 0.0]), atol=1e-10)
    assert np.allclose(effects.nde[0], np.expm1([0.2, 1.1, 1.5]), atol=1e-10)


def test_a_pair_does_together_what_neither_does_alone():
    model, example = mediated_by_a_pair(1.3)
    mediation = Mediation(model)
    effects = mediation.heads([example])
    assert np.abs(effects.nie).max() < 1e-10
    assert np.allclose(effects.model.nie, np.expm1(1.3), atol=1e-10)
    both = mediation.sets([example], [{(0, 0), (1, 0)}])
    assert np.allclose(both.nie, np.expm1(1.3), atol=1e-10)
    assert np.allclose(effects.te, np.expm1(1.3), atol=1e-10)


def test_a_head_that_flickers_changes_most_and_mediates_nothing():
    model, example = mediated_by_heads(0.0, {(0, 1): 0.5}, flickering=((1, 3),))
    mediation = Mediation(model)
    change = attention_change(mediation, [example])
    assert change[1, 3] == pytest.approx(change[0, 1])
    assert change[1, 3] > 0.1
    assert abs(mediation.heads([example]).nie[0, 1, 3]) < 1e-10


def test_the_two_parts_of_a_known_effect_multiply():
    model, example = mediated_by_heads(0.7, {(0, 1): 0.5})
    effects = Mediation(model).heads([example])
    parts = decompose(effects.te, effects.model.nde, effects.model.nie)
    assert np.allclose(parts.rest, 0, atol=1e-10)
    assert np.allclose(parts.interaction, np.expm1(0.7) * np.expm1(0.5), atol=1e-10)


# -- the authors' results ----------------------------------------------------------------------


@needs_data
def test_the_authors_means_follow_from_their_odds():
    path = DATA / "winobias" / "distilgpt2_filtered_dev.json"
    stored = json.loads(path.read_text())
    effects = Effects.from_original(path)
    assert len(effects) == 61
    assert effects.nie.shape == (61, 6, 12)
    means = effects.mean(draws=0)
    assert means.te.value == pytest.approx(stored["mean_total_effect"], abs=1e-6)
    assert means.te.value == pytest.approx(0.118375, abs=1e-6)
    whole = effects.model.mean(draws=0)
    assert whole.nie.value == pytest.approx(stored["mean_model_indirect_effect"], abs=1e-6)
    assert whole.nde.value == pytest.approx(stored["mean_model_direct_effect"], abs=1e-6)
    totals = [result["total_effect"] for result in stored["results"]]
    assert np.allclose(effects.te, totals, atol=1e-6)


@needs_data
@pytest.mark.parametrize(("split", "count"), [("dev", 160), ("test", 130)])
def test_winobias_gives_the_papers_examples(split, count):
    examples = load_winobias(DATA / "winobias" / f"pro_stereotyped_type1.txt.{split}")
    assert len(examples) == count
    assert len(examples) + len(examples.skipped) == 198
    if split == "dev":
        stored = json.loads((DATA / "winobias" / "distilgpt2_filtered_dev.json").read_text())

        def bare(text):
            return text.replace(" ", "").replace(".", "")

        ours = {(e.base, e.alternative, *map(bare, e.candidates)) for e in examples}
        keys = ("base_string1", "base_string2", "candidate1", "candidate2")
        for row in stored["results"]:
            theirs = [row[key] for key in keys]
            assert (*theirs[:2], *map(bare, theirs[2:])) in ours
