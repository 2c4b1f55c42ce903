"""Averages, rankings and files of effects; selection of few mediators."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmxx.data.source import DataError
from mmxx.language.mediation import Effects, Mediation, decompose, total_effect
from mmxx.language.mediation.effects import joined
from mmxx.language.mediation.handset import mediated_by_a_pair, mediated_by_heads
from mmxx.language.mediation.selection import greedy_step


@pytest.fixture
def effects() -> Effects:
    """Twenty examples and 2 × 3 mediators, of which the first stands out."""
    rng = np.random.default_rng(0)
    nie = rng.normal(0, 0.1, (20, 2, 3)) + np.array([[1.0, 0.1, 0], [0, 0, -0.2]])
    labels = (("0", "1"), ("0", "1", "2"))
    y0 = rng.normal(size=20)
    meta = tuple({"share": float(x)} for x in rng.normal(size=20))
    whole = nie.sum((1, 2))
    layer = Effects("layers", y0, y0 + whole, nie.sum(2), nie.sum(2), labels=labels[:1], meta=meta)
    model = Effects("model", y0, y0 + whole, whole, -whole, meta=meta)
    return Effects(
        "heads", y0, y0 + whole, nie, -nie, np.ones(20), labels, meta, layer=layer, model=model
    )


def test_averages_are_what_they_are_called(effects):
    ratio, log, median = (
        effects.mean(kind, draws=0).nie.value for kind in ("ratio", "log", "median")
    )
    assert np.allclose(ratio, np.expm1(effects.log_nie).mean(0))
    assert np.allclose(log, np.expm1(effects.log_nie.mean(0)))
    assert np.allclose(median, np.median(np.expm1(effects.log_nie), 0))


def test_weights_count_as_repetitions(effects):
    weights = np.ones(20)
    weights[3] = 3
    heavy = Effects("total", effects.log_y0, effects.log_yx, weights=weights)
    thrice = effects.take([*range(20), 3, 3])
    assert heavy.mean(draws=0).te.value == pytest.approx(thrice.mean(draws=0).te.value)


def test_intervals_cover_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), 0
    for index in range(200):
        logs = rng.normal(0.3, 1, 40)
        found = Effects("total", np.zeros(40), logs).mean("log", 0.9, draws=200, random_state=index)
        covered += found.te.low <= np.expm1(0.3) <= found.te.high
    assert 164 <= covered <= 194  # of 200 at 90 per cent, a percentile interval being a bit narrow


def test_a_mean_repeats_and_moves_no_global_generator(effects):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = effects.mean(), effects.mean()
    assert np.array_equal(one.nie.low, other.nie.low)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_the_ranking_names_the_one_that_stands_out(effects):
    rows = effects.ranking()
    assert rows[0]["mediator"] == "0 0"
    assert rows[0]["low"] < rows[0]["NIE"] < rows[0]["high"]
    assert rows[0]["p against the next"] < 1e-4
    assert np.isnan(rows[-1]["p against the next"])
    assert [row["NIE"] for row in rows] == sorted((row["NIE"] for row in rows), reverse=True)
    assert len(effects.ranking(2)) == 2


def test_layers_have_their_rows(effects):
    rows = effects.per_layer("log")
    assert [row["layer"] for row in rows] == ["0", "1"]
    assert rows[0]["NIE of the layer"] == pytest.approx(
        float(effects.layer.mean("log", draws=0).nie.value[0])
    )
    with pytest.raises(ValueError, match="'model' are not arranged by layers"):
        effects.model.per_layer()


def test_the_filter_is_the_papers(effects):
    ratio = np.exp(effects.log_te)
    kept = effects.kept(0.25)
    assert np.array_equal(kept, ratio > np.quantile(ratio[ratio > 1], 0.25))
    assert effects.take(kept).model.nie.shape == (kept.sum(),)
    fallen = Effects("total", np.zeros(3), -np.ones(3))
    assert not fallen.kept().any()


def test_the_correlation_with_a_number_of_the_examples(effects):
    expected = np.corrcoef([m["share"] for m in effects.meta], effects.log_te)[0, 1]
    assert effects.correlation("share") == pytest.approx(expected)
    with pytest.raises(ValueError, match="0 examples carry a varying 'nothing'"):
        effects.correlation("nothing")


def test_a_frame_has_a_row_for_each_example_and_mediator(effects):
    frame = effects.to_frame()
    assert set(frame) == {"example", "layer", "head", "te", "nie", "nde"}
    assert {len(column) for column in frame.values()} == {120}
    row = 3 * 6 + 4  # example 3, layer 1, head 1
    assert (frame["example"][row], frame["layer"][row], frame["head"][row]) == (3, "1", "1")
    assert frame["nie"][row] == effects.nie[3, 1, 1]


def test_a_file_gives_the_same_effects(effects, tmp_path):
    effects.save(tmp_path / "e.safetensors")
    again = Effects.load(tmp_path / "e.safetensors")
    assert again.to_bytes() == effects.to_bytes()
    assert np.array_equal(again.layer.log_nie, effects.layer.log_nie)
    assert again.meta == effects.meta


@pytest.mark.parametrize("content", [b"nothing", b"\x02\0\0\0\0\0\0\0{}"])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "e").write_bytes(content)
    with pytest.raises(DataError, match=r"accepted: a file that Effects.save wrote"):
        Effects.load(tmp_path / "e")
    with pytest.raises(DataError, match="accepted: a result of the authors'"):
        Effects.from_original(tmp_path / "e")


def test_parts_join_to_the_whole(effects):
    whole = joined([effects.take(range(7)), effects.take(range(7, 20))])
    assert whole.to_bytes() == effects.to_bytes()
    with pytest.raises(ValueError, match="of different mediators"):
        joined([effects, effects.layer])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.mean("mode"), "kind must be 'ratio', 'log' or 'median', got 'mode'"),
        (lambda e: e.mean(ci=1.0), "ci must lie between 0 and 1, got 1.0"),
        (lambda e: e.take([]).mean(), "no example have no mean"),
        (lambda e: e.kept(1.0), r"quantile must lie in \[0, 1\), got 1.0"),
        (lambda e: total_effect([1.0, 0.0], [1.0, 1.0]), "y0 must be positive odds"),
        (lambda e: Effects("total", e.log_y0, e.log_yx).nie, "'total' hold no nie"),
    ],
)
def test_what_cannot_be_averaged_is_refused(effects, call, message):
    with pytest.raises(ValueError, match=message):
        call(effects)


def test_tiny_probabilities_are_no_zero_division():
    effects = Effects("total", np.array([-900.0]), np.array([-899.0]))
    assert effects.te == pytest.approx(np.expm1(1))


def test_parts_of_a_product_leave_nothing():
    product, interaction, rest = decompose(5.0, 1.0, 2.0)
    assert (product, interaction, rest) == (5.0, 2.0, 0.0)


# -- selection ---------------------------------------------------------------------------------


def test_the_strongest_heads_are_taken_in_order():
    model, example = mediated_by_heads(0.1, {(0, 1): 0.5, (1, 2): 0.9, (1, 0): 0.2})
    for method in ("greedy", "top-k"):
        found = Mediation(model).select([example], k=3, method=method)
        assert found.order == ((1, 2), (0, 1), (1, 0))
        assert np.allclose(found.effect, np.expm1([0.9, 1.4, 1.6]), atol=1e-9)
        assert found.share[-1] == pytest.approx(1)


def test_threads_wait_for_one_another():
    model, example = mediated_by_heads(0.1, {(0, 1): 0.5, (1, 2): 0.9})
    mediation = Mediation(model)
    sets = [[(layer, head)] for layer in range(2) for head in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: mediation.sets([example], [one]).log_nie, sets * 3))
    expected = mediation.sets([example], sets).log_nie[0]
    assert np.allclose(np.concatenate(found)[:, 0], np.tile(expected, 3), atol=1e-12)


def test_greedy_steps_resume_and_spread():
    model, example = mediated_by_heads(0.1, {(0, 1): 0.5, (1, 2): 0.9})
    mediation = Mediation(model)
    pairs = [(layer, head) for layer in range(2) for head in range(4)]
    with ThreadPoolExecutor(2) as pool:
        best, effect = greedy_step(mediation, [example], [(1, 2)], pairs, map=pool.map)
    assert best == (0, 1)
    whole = mediation.select([example], k=2)
    assert effect == whole.effect[1]


def test_a_pair_is_missed_by_rank_and_by_greed_and_found_by_its_set():
    model, example = mediated_by_a_pair(1.3)
    found = Mediation(model).select([example], k=1, method="top-k")
    assert abs(found.effect[0]) < 1e-9
    assert found.whole == pytest.approx(np.expm1(1.3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must lie between 1 and 8, got 0"),
        ({"k": 9}, "k must lie between 1 and 8, got 9"),
        ({"method": "best"}, "method must be 'greedy' or 'top-k', got 'best'"),
        ({"kind": "layers"}, "kind must be 'heads' or 'neurons', got 'layers'"),
    ],
)
def test_other_selections_are_refused(arguments, message):
    model, example = mediated_by_heads(0.1, {(0, 1): 0.5})
    with pytest.raises(ValueError, match=message):
        Mediation(model).select([example], **{"k": 1, **arguments})
