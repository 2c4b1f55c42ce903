"""The series that Snake continues: reading a table, months, splitting, the market recipe."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mmxx.data import read_table
from mmxx.signals.snake import market, problems
from mmxx.signals.snake.comparison import decide
from mmxx.signals.snake.selection import Choice, pick


def table(tmp_path: Path, text: str):
    path = tmp_path / "series.csv"
    path.write_text(text)
    return read_table(path)


def test_sine_is_noisy_in_training_and_clean_after_it():
    found = problems.sine(np.random.default_rng(0), points=300, periods=6, noise=0.1, repetitions=3)
    clean = np.sin(2 * np.pi * found.t)
    assert found.y.shape == (300, 3)
    assert (found.y - clean[:, None]).std(0) == pytest.approx([0.1] * 3, rel=0.15)
    assert np.array_equal(found.truth, np.sin(2 * np.pi * found.future))
    assert found.future[-1] == 12
    assert found.t[-1] < found.future[0] == pytest.approx(6, abs=0.03)


def test_split_takes_the_first_part_and_measures_in_its_variance():
    t, y = np.arange(40.0), np.arange(40.0) % 7
    found = problems.split("it", t, y, 0.5, 2)
    assert np.array_equal(found.t, t[:20])
    assert np.array_equal(found.y, np.stack([y[:20]] * 2, 1))
    assert np.array_equal(found.truth, y[20:])
    assert found.unit == y[:20].var()
    assert problems.split("flat", t, np.ones(40), 0.5, 1).unit == 1
    for part, length in ((0.3, 40), (0.999, 16), (0.75, 20)):
        with pytest.raises(ValueError, match=r"split: it has \d+ values, of which \d+ would be"):
            problems.split("it", t[:length], y[:length], part, 1)


def test_months_are_means_of_what_there_is():
    years = np.array([2000.01, 2000.05, 2000.09, 2000.10, 2000.30, 2000.99, 2001.0])
    values = np.array([1.0, 3.0, 5.0, np.nan, 7.0, 8.0, 9.0])
    t, y = problems.monthly(years, values)
    assert t * 12 - 24000 == pytest.approx([0.5, 1.5, 3.5, 11.5, 12.5])
    assert np.array_equal(y, [2, 5, 7, 8, 9])


def test_first_column_is_time_and_the_next_numbers_the_values(tmp_path):
    found = table(tmp_path, "day,place,level\n1,a,5\n2,b,7\n4,c,6\n")
    t, y, remarks = problems.read_series(found)
    assert (t.tolist(), y.tolist(), remarks) == ([1, 2, 4], [5, 7, 6], [])
    t, y, _ = problems.read_series(found, time="level", value="day")
    assert (t.tolist(), y.tolist()) == ([5, 6, 7], [1, 4, 2])


def test_a_single_column_counts_its_rows(tmp_path):
    t, y, remarks = problems.read_series(table(tmp_path, "5\nN\n7\n8\n"))
    assert (t.tolist(), y.tolist()) == ([0, 2, 3], [5, 7, 8])
    assert remarks == ["1 of 4 rows have no value or no time: left out."]


def test_stamps_are_sorted_and_merged_and_it_is_said(tmp_path):
    t, y, remarks = problems.read_series(table(tmp_path, "t,y\n3,1\n1,5\n3,2\n2,\n,4\n"))
    assert (t.tolist(), y.tolist()) == ([1, 3], [5, 1.5])
    assert len(remarks) == 3
    assert "2 of 5 rows" in remarks[0]
    assert "'t' do not increase" in remarks[1]
    assert remarks[2].startswith("1 stamps are repeated")
    with pytest.raises(ValueError, match="time: column 't' holds the same stamp in all of its 3"):
        problems.read_series(table(tmp_path, "t,y\n1,1\n1,5\n1,2\n"))


def test_dates_of_every_kind(tmp_path):
    t, _, remarks = problems.read_series(table(tmp_path, "d,y\n20200131,1\n20200201,2\n"))
    assert np.diff(t).tolist() == [1]
    assert remarks == ["Column 'd' holds dates as YYYYMMDD: time is in days."]
    t, _, remarks = problems.read_series(table(tmp_path, "d,y\n2020-01-31,1\n2020-02-01,2\n"))
    assert np.diff(t) == pytest.approx([1 / 366])
    assert remarks == ["Column 'd' holds dates: time is in years."]
    t, _, remarks = problems.read_series(table(tmp_path, "d,y\n20200131,1\n,3\n20200201,2\n"))
    assert np.diff(t).tolist() == [1]
    assert len(remarks) == 2
    plain = problems.read_series(table(tmp_path, "d,y\n20200131,1\n20201345,2\n"))
    assert plain[0].tolist() == [20200131, 20201345]
    fractions = problems.read_series(table(tmp_path, "d,y\n0.5,1\n1.5,2\n"))
    assert fractions[0].tolist() == [0.5, 1.5]


def test_a_constant_is_said(tmp_path):
    assert problems.read_series(table(tmp_path, "t,y\n1,4\n2,4\n"))[2] == [
        "Column 'y' is constant."
    ]


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("t,y\n1,2\n", {"time": "day"}, "time: no column 'day'; there are t, y"),
        ("t,y\n1,2\n", {"value": "z"}, "value: no column 'z'; there are t, y"),
        ("t,y\n1,a\n2,b\n", {}, "value: no column of numbers among t, y"),
        ("t,y\n1,a\n2,b\n", {"value": "y"}, "value: column 'y' holds text; numbers: t"),
        ("t,y\n1,inf\n2,1\n", {}, "holds infinity in 1 rows"),
        ("t,y\nmonday,1\ntuesday,2\n", {}, "'monday' is no date"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, flags, message):
    with pytest.raises(ValueError, match=message):
        problems.read_series(table(tmp_path, text), **flags)


def test_validation_decides_for_each_repetition():
    problem = problems.split("it", np.arange(40.0), np.arange(40.0) % 7, 0.5, 2)
    proposals = [
        [Choice(7.0, 0.0), Choice(7.0, 0.0, 0.2), Choice(None, 0.2)],
        [Choice(5.0, 0.0), Choice(None, 0.2)],
    ]
    truth = problem.y[-5:, :1]
    predicted = truth + np.array([[2.0, 1.0, -3.0, -0.5, 1.0]])
    choices, rows = decide(problem, proposals, predicted, seed=3)
    assert choices == [proposals[0][1], proposals[1][0]]
    assert [row["seed"] for row in rows] == [3, 4]
    assert [row["proposed periods"] for row in rows] == ["7", "5"]
    assert [row["period"] for row in rows] == [7, 5]
    assert [row["deeper a"] for row in rows] == [0.2, "the same"]
    for row, (least, largest) in zip(rows, [(1, 9), (0.25, 1)], strict=True):
        assert row["error on the tail"] == row["least"] == pytest.approx(least / problem.unit)
        assert row["largest"] == pytest.approx(largest / problem.unit)


def test_the_stronger_cycle_wins_a_tie():
    draw = np.random.default_rng(0).exponential(size=400)
    spread = draw.std() / 20
    squares = np.stack([draw + 2 * spread, draw + 0.9 * spread, draw, draw + 0.1 * spread], 1)
    assert pick(squares) == 1
    assert pick(squares[:, ::-1]) == 0
    assert pick(np.array([[2.0, 1.0, 3.0]])) == 1


def test_market_recipe_on_a_smooth_index():
    days = 6400
    values = 1 + np.linspace(0, 1, days)
    values[::100] = np.nan
    series = market.scale(values)
    assert len(series.x) == days - 64
    assert series.x[-1] == series.y[-1] == 1
    networks, optimizer = market.begin("snake", [0, 1])
    assert [snake.a.unique().tolist() for snake in networks.snakes] == [[30.0]] * 3
    assert not any(snake.a.requires_grad for snake in networks.snakes)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (2e-2, 0.9, 0)
    x, y = market.training_part(series)
    assert x.shape == (1, 6300, 1)
    assert torch.equal(x[0, :, 0], torch.tensor(series.x[:6300], dtype=torch.float32))
    before = float((networks(x) - y).detach().square().mean())
    predicted = {"Snake": market.train(("snake", [0, 1], 10, series))}
    assert predicted["Snake"].shape == (len(series.x), 2)
    assert np.square(predicted["Snake"][:6300] - series.y[:6300, None]).mean() < 0.3 * before
    errors, others = market.errors(predicted, series)
    assert errors["Snake"].shape == (2,)
    assert others["parabola"] == pytest.approx([0], abs=1e-8)
    assert others["last value"] == pytest.approx(np.square(series.y[6300:] - series.y[6299]).mean())
    with pytest.raises(ValueError, match="expected more than 6300 days, got 6300"):
        market.scale(np.ones(6300))


def test_market_file_is_the_authors():
    if not os.environ.get("MMXX_DATA"):
        pytest.skip("MMXX_DATA is not set: no market series")
    found = read_table(Path(os.environ["MMXX_DATA"]) / "series" / "market.txt")
    from mmxx.signals.snake.card import CARD

    assert found.source.sha256 == CARD.claim("market").data_sha256
    series = market.scale(found.columns[0])
    assert len(series.x) == 6397
    _, others = market.errors({}, series)
    assert others["parabola"].item() == pytest.approx(0.0095, abs=5e-5)
    assert others["last value"].item() == pytest.approx(0.0189, abs=5e-5)
