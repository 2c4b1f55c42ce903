"""The interpreter against numpy: every operation, random programs, and known algorithms."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mmxx.discovery.automl_zero import (
    LINEAR,
    NEURAL_NET,
    OPS,
    Instruction,
    Program,
    RandomSearch,
    SearchSpace,
    Task,
    evaluate,
    linear_regression_tasks,
    nn_teacher_tasks,
    reference,
)
from mmxx.discovery.automl_zero import _interpreter as interpreter
from mmxx.discovery.automl_zero import _lowering as lowering
from mmxx.discovery.automl_zero.evaluation import make_lowered, make_machine, trace, train
from mmxx.discovery.automl_zero.ops import FIRST_OUT
from mmxx.discovery.automl_zero.program import pack

F, LANES, ADDRESSES = 3, 1000, 3
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e300])
SUMS = {
    "norm", "dot", "matvec", "matmul", "column_norms", "row_norms", "mean", "row_means",
    "row_deviations", "deviation", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "exp", "log",
}  # fmt: skip


def run_once(instruction: Instruction, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """One instruction as Setup on memories [numbers, LANES]; what is there after it, by type."""
    machine = make_machine((ADDRESSES, ADDRESSES, ADDRESSES), F, LANES)
    code, data, sizes, starts = pack([Program(setup=(instruction,))])
    low = make_lowered(1)
    lowering.lower(code[0], data[0], starts, sizes[0], machine.counts, low, False)
    none = np.zeros((1, 0, 1))
    lanes = interpreter.Block(
        none, none, np.zeros((1, 1, F * LANES)), np.zeros((1, 1, LANES)),
        np.zeros((1, LANES), np.int64),
    )  # fmt: skip
    low.ends[:] = 0, 1, 1, 0  # as Predict, so that the memory is not wiped
    machine.memory[:] = numbers.ravel()
    nothing = np.zeros((0, LANES))
    interpreter.run(low, machine, lanes, 0, 0, 1, 1, 0, np.inf, 0, 0, nothing, nothing)
    return split(machine.memory.reshape(-1, LANES))


def split(memory: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([ADDRESSES, ADDRESSES * F])
    s, v, m = np.split(memory, ends)
    shape = (ADDRESSES, F)
    return {"s": s, "v": v.reshape(*shape, -1), "m": m.reshape(*shape, F, -1)}


@pytest.mark.parametrize("number", range(1, 65), ids=[op.name for op in OPS[1:]])
def test_an_operation_is_its_numpy_line(number: int) -> None:
    op = OPS[number]
    rng = np.random.default_rng(number)
    numbers = rng.normal(size=(ADDRESSES * (1 + F + F * F), LANES))
    numbers[:, : LANES // 2] = np.where(
        rng.random((len(numbers), LANES // 2)) < 0.2,
        rng.choice(SPECIAL, (len(numbers), LANES // 2)),
        numbers[:, : LANES // 2],
    )
    numbers[0] = 0.0  # s0 is hidden in Predict
    held = {"const": (0.3,), "element": (0.4, 2.0), "cell": (0.9, 0.1, 3.0)}.get(op.data, ())
    held = held or ((-0.5, 0.25) if op.data else ())
    low = FIRST_OUT.get(op.out, 0)
    for in1, in2, out in ((1, 2, low), (2, 2, 2), (1, 2, 1), (2, 1, 1)):  # the last three alias
        instruction = Instruction(number, in1, in2, out, held, 7 if op.name[-7:] in _LAWS else None)
        got = run_once(instruction, numbers)
        with np.errstate(all="ignore"):
            for lane in range(0, LANES, 1 if op.kernel != "matmul" else 7):
                memory = reference.Memory((ADDRESSES,) * 3, F)
                for name, value in split(numbers).items():
                    memory.of[name][:] = value[..., lane]
                memory.execute(instruction, lambda stream: _key(stream))
                want = memory.of[op.out][out]
                have = got[op.out][out, ..., lane]
                if op.kernel in SUMS:
                    np.testing.assert_allclose(have, want, rtol=1e-12, atol=1e-13)
                else:
                    np.testing.assert_array_equal(have, want)
                if lane > 60 and (in1, out) != (1, low):
                    break


_LAWS = ("uniform", "aussian")


def _key(stream: int) -> int:
    return reference._hash(reference._hash(reference._hash(0, 0), stream), 0)


ALL = range(65)
SPACE = SearchSpace(5, 5, 3, ALL, ALL, ALL, sizes=(5, 6, 6))


def random_program(seed: int) -> Program:
    tasks = linear_regression_tasks(1, 1, train=2, valid=1, random_state=0)
    return RandomSearch(SPACE, fec=None).run(tasks, max_programs=1, random_state=seed).best


KINDS = [
    linear_regression_tasks(2, 3, train=6, valid=4, random_state=1),
    nn_teacher_tasks(2, 4, train=5, valid=5, random_state=2),
    [
        Task(t.X, t.y > t.y.mean(), t.X_valid, t.y_valid > 0, "accuracy", 2)
        for t in nn_teacher_tasks(2, 4, train=5, valid=5, random_state=3)
    ],
]


def test_random_programs_err_as_in_plain_numpy() -> None:
    alive = 0
    for seed in range(2000):
        program, tasks = random_program(seed), KINDS[seed % 3]
        got = trace(program, tasks, random_state=5)
        plain = [reference.trace(program, t, number=n, random_state=5) for n, t in enumerate(tasks)]
        want = np.concatenate([one.errors for one in plain], axis=1)
        np.testing.assert_allclose(got.errors, want, rtol=1e-9, atol=1e-12, err_msg=program.text())
        fitness = np.concatenate([one.fitness for one in plain])
        np.testing.assert_allclose(got.fitness, fitness, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(got.fitness, evaluate(program, tasks, random_state=5))
        alive += int((fitness > 0).any())
    assert alive > 1000


def test_dead_instructions_change_no_bit() -> None:
    for seed in range(300):
        program, tasks = random_program(seed), KINDS[seed % 3]
        np.testing.assert_array_equal(
            trace(program, tasks).errors, trace(program, tasks, prune=False).errors
        )


def test_linear_is_stochastic_gradient_descent() -> None:
    (task,) = linear_regression_tasks(1, train=200, valid=20, random_state=0)
    w, errors = np.zeros(4), []
    for x, y in zip(task.X, task.y, strict=True):
        errors.append(abs(y - w @ x))
        w += 0.01 * (y - w @ x) * x
    errors += list(abs(task.y_valid - task.X_valid @ w))
    found = trace(LINEAR, [task])
    np.testing.assert_allclose(found.errors[:, 0], errors, rtol=1e-11, atol=1e-12)
    loss = np.mean(np.square(errors[200:]))
    assert found.fitness[0] == pytest.approx(1 - 2 / np.pi * np.arctan(np.sqrt(loss)), abs=1e-12)


def test_linear_converges() -> None:
    faster = Program.from_text(LINEAR.text().replace("0.01", "0.1"))
    tasks = linear_regression_tasks(5, train=1000, random_state=0)
    assert evaluate(faster, tasks).min() > 0.9999


def network_loop(task: Task, memory: np.ndarray, *, exact: bool) -> list[float]:
    """The two-layer network's lines in numpy, from drawn weights: the errors in training."""
    f = task.features
    v2, w = memory[:f].copy(), memory[f:].reshape(f, f).copy()
    v1, s2, errors = np.zeros(f), 0.0, []
    for x, y in zip(task.X, task.y, strict=True):
        hidden = w @ x + v1
        active = np.maximum(hidden, 0)
        prediction = active @ v2 + s2
        errors.append(abs(y - prediction))
        step = 0.01 * (y - prediction)
        back = step * v2 * (hidden > 0)
        s2 += step
        v2 = v2 + step * active
        if not exact:
            back = step * v2 * (hidden > 0)
        v1 = v1 + back
        w = w + np.outer(back, x)
    return errors


def drawn(f: int, seed: int = 0) -> np.ndarray:
    """The weights that Setup of the network draws for task 0."""
    memory = reference.Memory((5, 9, 2), f)
    for place, instruction in enumerate(NEURAL_NET.setup):
        key = reference._hash(reference._hash(reference._hash(seed, 0), place), 0)
        memory.execute(instruction, lambda stream, key=key: key)
    return np.concatenate([memory.of["v"][2], memory.of["m"][0].ravel()])


def test_the_network_is_its_lines_in_numpy() -> None:
    (task,) = nn_teacher_tasks(1, train=1000, valid=5, random_state=1)
    errors = trace(NEURAL_NET, [task]).errors[:1000, 0]
    np.testing.assert_allclose(errors, network_loop(task, drawn(4), exact=False), atol=1e-9)


def test_the_network_with_the_order_put_right_is_torch() -> None:
    torch = pytest.importorskip("torch")
    lines = NEURAL_NET.learn
    exact = Program(
        NEURAL_NET.setup, NEURAL_NET.predict, (*lines[:3], lines[5], lines[3], lines[4], *lines[6:])
    )
    (task,) = nn_teacher_tasks(1, train=1000, valid=5, random_state=1)
    weights = drawn(4)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    net = net.double()
    with torch.no_grad():
        net[2].weight[0], net[0].weight[:] = map(
            torch.from_numpy, (weights[:4], weights[4:].reshape(4, 4))
        )
        net[0].bias.zero_(), net[2].bias.zero_()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    errors = []
    for x, y in zip(torch.from_numpy(task.X), torch.from_numpy(task.y), strict=True):
        off = net(x)[0] - y
        errors.append(abs(off.item()))
        optimizer.zero_grad()
        (off**2 / 2).backward()
        optimizer.step()
    np.testing.assert_allclose(trace(exact, [task]).errors[:1000, 0], errors, atol=1e-9)


def test_fitness_does_not_depend_on_what_else_is_evaluated() -> None:
    tasks = nn_teacher_tasks(21, train=30, valid=10, random_state=0)  # two blocks of lanes
    together = evaluate([LINEAR, NEURAL_NET], tasks, random_state=3)
    np.testing.assert_array_equal(together[1], evaluate(NEURAL_NET, tasks, random_state=3))
    np.testing.assert_array_equal(
        together[:, :7], evaluate([LINEAR, NEURAL_NET], tasks[:7], random_state=3)
    )
    assert (together[1] != evaluate(NEURAL_NET, tasks, random_state=4)).all()


def test_a_program_that_sees_the_label_does_not_exist() -> None:
    peeping = Program.from_text(
        "def Setup():\ndef Predict():\n s1 = s0 + s0\ndef Learn():\n s1 = s0 + s0\n"
    )
    (task,) = linear_regression_tasks(1, random_state=0)
    np.testing.assert_array_equal(
        trace(peeping, [task]).errors[:, 0], abs(np.r_[task.y, task.y_valid])
    )


def test_large_errors_and_nan_end_a_task() -> None:
    text = "def Setup():\n s2 = {}\ndef Predict():\n s1 = s2 + s3\ndef Learn():\n"
    tasks = linear_regression_tasks(2, random_state=0)
    assert (evaluate(Program.from_text(text.format("1000.0")), tasks) == 0).all()
    assert (evaluate(Program.from_text(text.format("nan")), tasks) == 0).all()
    assert (evaluate(Program.from_text(text.format("1.0")), tasks) > 0).all()


def test_rows_are_predicted_on_their_own() -> None:
    (task,) = nn_teacher_tasks(1, train=50, valid=5, random_state=1)
    trained = train(NEURAL_NET, task.X, task.y[:, None])
    said = trained.predict(task.X_valid)
    np.testing.assert_array_equal(said[::-1], trained.predict(task.X_valid[::-1]))
    errors = trace(NEURAL_NET, [task]).errors[50:, 0]
    np.testing.assert_allclose(abs(task.y_valid - said[:, 0]), errors, rtol=1e-12)


def test_the_python_module_says_the_same(tmp_path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    names = {}
    for place, seed in enumerate((3, 8, 21)):
        program = random_program(seed)
        names[f"p{place}"] = program
    names["net"] = NEURAL_NET
    for name, program in names.items():
        (tmp_path / f"{name}.py").write_text(program.to_python())
    np.savez(tmp_path / "data.npz", x=x, y=y)
    code = (
        "import importlib, sys, warnings, numpy as np\n"
        "warnings.simplefilter('ignore')\n"
        "d = np.load('data.npz')\n"
        "for name in sys.argv[1:]:\n"
        "    m = importlib.import_module(name)\n"
        "    m.fit(d['x'][:20], d['y'][:20])\n"
        "    print(*map(repr, map(float, m.predict(d['x'][20:]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    task = Task(x[:20], y[:20], x[20:], y[20:])
    for line, program in zip(done.stdout.splitlines(), names.values(), strict=True):
        said = np.array([float(number) for number in line.split()])
        errors = trace(program, [task], max_abs_error=np.inf).errors[20:, 0]
        same = np.isfinite(errors)
        np.testing.assert_allclose(abs(y[20:] - said)[same], errors[same], rtol=1e-9)
