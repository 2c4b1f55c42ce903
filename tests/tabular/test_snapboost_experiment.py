"""A table of one's own: what becomes of its columns, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mmxx.data import read_table
from mmxx.tabular.snapboost.problems import own


def written(folder, head, *rows):
    (folder / "own.csv").write_text("\n".join([head, *rows]) + "\n")
    return read_table(folder / "own.csv")


def test_dates_become_years_and_texts_categories_unless_there_are_too_many(tmp_path):
    rows = [
        f"{2000 + k // 12}-{1 + k % 12:02},who {k},{('Bern', 'Uri', '')[k % 3]},{k or ''},{k % 7}"
        for k in range(300)
    ]
    table = written(tmp_path, "when,who,city,size,y", *rows)
    problem, names, notes = own(table, "y", "auto")
    assert names == ["when", "city", "size"]
    assert problem.categorical == (1,)
    assert problem.task == "classification"
    np.testing.assert_allclose(problem.X[12:14, 0], [2001, 2001 + 31 / 365])
    assert np.isnan(problem.X[2, 1])
    assert np.isnan(problem.X[0, 2])
    assert notes == [
        "Column 'when' holds dates: they were taken as years.",
        "Column 'who' was left out: it has 300 texts, and 255 are the most that a category may "
        "have.",
    ]


@pytest.mark.parametrize(
    ("row", "target", "task", "message"),
    [
        ("{k},{k}", "z", "auto", "target must be one of x, y, got 'z'"),
        ("{k},1", "y", "auto", "target 'y' has one value only"),
        ("{k},a{k}", "y", "regression", "holds text, so task must be 'classification'"),
        ("{k},a{k}", "y", "auto", "has the class 'a0' fewer than 5 times"),
        ("who {k},{k}", "y", "auto", "a column to learn from besides the target 'y'"),
    ],
)
def test_tables_without_anything_to_learn_are_refused(tmp_path, row, target, task, message):
    table = written(tmp_path, "x,y", *(row.format(k=k) for k in range(300)))
    with pytest.raises(ValueError, match=message):
        own(table, target, task)


def test_few_rows_are_refused(tmp_path):
    table = written(tmp_path, "x,y", "1,2", "2,3", "3,5")
    with pytest.raises(ValueError, match="must have 20 values or more, got 3"):
        own(table, "y", "auto")
