"""Programs: their forms, what is refused, and shorter ones that do the same."""

from __future__ import annotations

import numpy as np
import pytest

from mmxx.discovery.automl_zero import (
    DAMAGED_NEURAL_NET,
    LINEAR,
    NEURAL_NET,
    OPS,
    Instruction,
    Program,
    RandomSearch,
    SearchSpace,
    Task,
    linear_regression_tasks,
    nn_teacher_tasks,
)
from mmxx.discovery.automl_zero.evaluation import trace
from mmxx.discovery.automl_zero.program import pack, unpack

ALL = range(65)
SPACE = SearchSpace(5, 5, 3, ALL, ALL, ALL, sizes=(5, 6, 6))
TEACHERS = nn_teacher_tasks(2, 4, train=5, valid=5, random_state=3)
KINDS = [
    linear_regression_tasks(2, 3, train=6, valid=4, random_state=1),
    TEACHERS,
    [Task(t.X, t.y > t.y.mean(), t.X_valid, t.y_valid > 0, "accuracy", 2) for t in TEACHERS],
]


def random_program(seed: int) -> Program:
    tasks = linear_regression_tasks(1, 1, train=2, valid=1, random_state=0)
    return RandomSearch(SPACE, fec=None).run(tasks, max_programs=1, random_state=seed).best


def test_there_are_65_operations_in_the_authors_order() -> None:
    assert len(OPS) == 65
    assert [OPS[n].name for n in (0, 4, 18, 27, 31, 43, 56, 64)] == [
        "no_op", "scalar_quotient", "scalar_vector_product", "inner_product",
        "matrix_vector_product", "matrix_matrix_product", "scalar_const", "matrix_gaussian",
    ]  # fmt: skip
    assert [len(part) for part in NEURAL_NET.parts] == [3, 5, 11]
    assert [len(part) for part in DAMAGED_NEURAL_NET.parts] == [1, 5, 11]


def test_text_and_json_give_the_program_back() -> None:
    for seed in range(200):
        program = random_program(seed)
        for one in (program, program.with_streams(), program.pruned()):
            assert Program.from_text(one.text()) == one
            assert Program.from_text(one.text()).text() == one.text()
            assert Program.from_json(one.to_json()) == one
        code, data, sizes, starts = pack([program])
        assert unpack(code[0], data[0], sizes[0], starts) == program


def test_blanks_and_comments_do_not_matter() -> None:
    text = "# mine\n def  Setup( ):\n\ts2=.1 # rate\n\ndef Predict():\ndef Learn():\n"
    assert Program.from_text(text).setup == (Instruction("scalar_const", out=2, data=(0.1,)),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s0 = s1 + s2", r"line 2: 's0 = s1 \+ s2': out must be s1 .* s0 is the label"),
        ("v0 = v1 + v2", "v0 holds the features, which no instruction writes"),
        ("s2 = sqrt(s1)", "no such instruction; accepted are forms such as"),
        ("s2 = s1 + v1", "no such instruction"),
        ("s99 = s1 + s2", "out must be s1 to s59, got s99"),
        ("v1[1.5] = 0.2", r"indices must be fractions in \[0, 1\), got \(1.5,\)"),
        ("s2 = abs(s1, stream=4)", "only an operation that draws has a stream"),
        ("s2 = __import__('os')", "no such instruction"),
        ("def Setup():", "Setup is there twice"),
    ],
)
def test_text_that_is_no_program_is_refused_with_its_line(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Program.from_text(f"def Setup():\n{line}\ndef Predict():\ndef Learn():\n")


def test_text_and_json_that_lack_something_are_refused() -> None:
    with pytest.raises(ValueError, match=r"text lacks def Learn\(\):"):
        Program.from_text("def Setup():\ndef Predict():\n")
    with pytest.raises(ValueError, match="before def Setup"):
        Program.from_text("s1 = 0.5\n")
    with pytest.raises(ValueError, match="has version 1, got 2"):
        Program.from_json(LINEAR.to_json().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match="lacks or misnames something"):
        Program.from_json('{"version": 1, "setup": []}')
    with pytest.raises(ValueError, match="op: 'jump' is unknown"):
        Instruction("jump")
    with pytest.raises(ValueError, match="scalar_const holds 1 numbers, got 0"):
        Instruction("scalar_const", out=2)


def test_pruning_changes_no_bit() -> None:
    shorter = 0
    for seed in range(60):
        program, tasks = random_program(seed), KINDS[seed % 3]
        before = trace(program, tasks).errors
        for pruned in (program.pruned(), program.pruned(tasks)):
            np.testing.assert_array_equal(trace(pruned, tasks).errors, before)
            shorter += len(program) - len(pruned)
        assert len(program.pruned(tasks)) <= len(program.pruned())
    assert shorter > 500


def test_pruning_keeps_elements_that_are_set_one_by_one() -> None:
    program = Program.from_text("""
def Setup():
  v1[0.1] = 0.5
  v1[0.9] = 0.25
  v2 = v1 + v1
def Predict():
  s1 = dot(v1, v0)
def Learn():
""")
    assert len(program.pruned()) == 3


def test_normalizing_keeps_the_algorithm() -> None:
    text = """
def Setup():
  NoOp()
  s3 = 0.5
  s9 = 0.02
  s9 = s3 * s9
  v7 = gaussian(0, 0.1, n_features)
def Predict():
  s1 = dot(v7, v0)
def Learn():
  s4 = s0 - s1
  s4 = s9 * s4
  v3 = s4 * v0
  v7 = v7 + v3
"""
    program = Program.from_text(text)
    short = program.normalized()
    assert [str(i) for i in short.setup] == [
        "s2 = 0.01", "v1 = gaussian(0.0, 0.1, n_features, stream=4)",
    ]  # fmt: skip
    assert short.addresses() == (4, 3, 0)
    tasks = linear_regression_tasks(3, random_state=0)
    np.testing.assert_array_equal(trace(program, tasks).errors, trace(short, tasks).errors)
    for seed in range(100):
        program, tasks = random_program(seed), KINDS[seed % 3]
        np.testing.assert_array_equal(
            trace(program, tasks).errors, trace(program.normalized(), tasks).errors
        )
