"""A run: streams, loops that resume, verdicts, what is shown, and how a run ends."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmxx_toy import experiment as toy
from mmxx_toy import tasks
from mmxx_toy.card import CARD

from mmxx.lab import checkpoint, compute, devices, folder, metrics
from mmxx.lab import run as runs
from mmxx.lab.catalog import Card, Claim, at_least
from mmxx.lab.errors import (
    BadInputError,
    CannotWriteError,
    Interrupted,
    MissingExtraError,
    MmxxError,
)
from mmxx.lab.folder import Options
from mmxx.lab.run import Run, create, execute, reopen

Experiment = Callable[[Any, Run], None]


def begin(path: Path, config: Any = toy.TINY, *, card: Card = CARD, **options: Any) -> Run:
    tier = options.pop("tier", "tiny")
    return create(path, card, config, Options(**{"backend": "serial", **options}), tier)


def go(path: Path, experiment: Experiment, config: Any = toy.TINY, **options: Any) -> Run:
    """A whole run."""
    run = begin(path, config, **options)
    execute(run, experiment)
    return run


def resume(path: Path, experiment: Experiment, *, card: Card = CARD, **options: Any) -> Run:
    run = reopen(path, card, toy.Config, **options)
    execute(run, experiment)
    return run


def ends(path: Path, error: type[BaseException], experiment: Experiment, **options: Any) -> str:
    """A run that ends with an error; the error's words."""
    with pytest.raises(error) as caught:
        go(path, experiment, **options)
    return str(caught.value)


def record(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_bytes())


def lines(path: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in json.loads((path / "claims.json").read_bytes())["claims"]}


class Killed(BaseException):
    """Stands for a kill: no handler may see it."""


@contextmanager
def killed_after(save: int) -> Iterator[list[int]]:
    """Raise right after the save of that number; collect the steps that were saved."""
    real, steps = checkpoint.save, []

    def saving(path: Path, step: int, *arguments: Any, **more: Any) -> Path:
        done = real(path, step, *arguments, **more)
        steps.append(step)
        if len(steps) == save:
            raise Killed
        return done

    checkpoint.save = saving
    try:
        yield steps
    finally:
        checkpoint.save = real


# -- streams -----------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_stream_does_not_move_when_others_are_drawn_from(order: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        run = begin(Path(place) / "run")
        drawn: dict[str, list[float]] = {}
        for name in order:
            drawn.setdefault(name, []).append(run.rng(name).normal())
            run.generator(name).seed()
        run.close()
        alone = begin(Path(place) / "alone")
        name = order[-1]
        assert drawn[name] == [alone.rng(name).normal() for _ in drawn[name]]
        alone.close()


def test_streams_are_told_apart_by_name_kind_and_seed(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        assert run.rng("a") is run.rng("a")
        assert run.generator("a") is run.generator("a")
        assert run.generator("a").device.type == "cpu"
        found.append(run.rng("a").normal())
        found.append(run.rng("b").normal())
        found.append(float(torch.randn((), generator=run.generator("a"), dtype=torch.float64)))
        found.append(float(torch.randn((), generator=run.generator("b"), dtype=torch.float64)))

    found: list[float] = []
    for number, seed in enumerate((0, 1, 0)):
        go(tmp_path / str(number), experiment, seed=seed)
    assert found[:4] == found[8:]
    assert len(set(found[:8])) == 8


def test_streams_go_on_after_a_kill_where_the_last_save_left_them(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        drawn = [run.rng("early").normal()]
        history: list[float] = []
        for _ in run.loop("walk", 6, state={"history": history}, every=2):
            x = torch.randn((), generator=run.generator("inside"))
            history.append(run.rng("early").normal() + float(x))
        drawn += [*history, run.rng("late").normal(), run.rng("early").normal()]
        drawn.append(float(torch.randn((), generator=run.generator("inside"))))
        results.append(drawn)

    results: list[list[float]] = []
    go(tmp_path / "straight", experiment)
    for save in range(1, 5):  # before the first step, twice within, and after the last
        path = tmp_path / str(save)
        with killed_after(save), pytest.raises(Killed):
            go(path, experiment)
        resume(path, experiment)
    assert len(results) == 5
    assert all(drawn == results[0] for drawn in results)


def test_torch_s_own_generator_is_seeded_saved_and_given_back(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        run.rng("data")
        total = torch.rand(2)
        for _ in run.loop("dropout", 4, state={"total": total}, every=2):
            total.mul_(2).add_(torch.nn.functional.dropout(torch.ones(50)).sum())
        results.append([*total.tolist(), float(torch.rand(()))])

    results: list[list[float]] = []
    before = torch.get_rng_state()
    go(tmp_path / "one", experiment)
    torch.rand(3)
    go(tmp_path / "two", experiment)
    with killed_after(2), pytest.raises(Killed):
        go(tmp_path / "cut", experiment)
    resume(tmp_path / "cut", experiment)
    torch.set_rng_state(before)
    go(tmp_path / "seed", experiment, seed=1)
    assert results[0] == results[1] == results[2] != results[3]
    assert torch.equal(torch.get_rng_state(), before)


# -- loops -------------------------------------------------------------------------------------


def everything(config: Any, run: Run) -> None:
    """A loop that changes one of every kind of thing that it may change."""
    generator = run.generator("init")
    net = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    opt = torch.optim.Adam(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 9)
    mean, array = torch.zeros(2), np.zeros(3)
    best: dict[str, Any] = {"loss": None, "at": -1, "weights": None}
    history: list[float] = []
    free = torch.Generator().manual_seed(3)
    rng = np.random.default_rng(4)
    state = {"net": net, "opt": opt, "schedule": schedule, "mean": mean, "array": array}
    state |= {"best": best, "history": history, "free": free, "rng": rng}
    for step in run.loop("all", 9, state=state, every=2):
        x = torch.randn(4, 3, generator=free) + float(rng.normal())
        loss = net(x).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
        mean.lerp_(net(x).detach().mean(0), 0.1)
        array += rng.normal(size=3)
        history.append(loss.item())
        if best["loss"] is None or history[-1] < best["loss"]:
            best.update(loss=history[-1], at=step, weights=net.weight.detach().clone())
    path = checkpoint.save(
        run.folder / "found",
        1,
        [checkpoint.capture(v) for v in state.values()],
        owner={},
        done=True,
    )
    run.artifact("state.json", (path / "state.json").read_bytes())
    run.artifact("tensors.bin", (path / "tensors.safetensors").read_bytes())


def test_a_loop_that_is_killed_after_any_save_ends_with_the_same_bits(tmp_path: Path) -> None:
    def left(path: Path) -> list[bytes]:
        return [(path / "artifacts" / name).read_bytes() for name in ("state.json", "tensors.bin")]

    with killed_after(0) as saved:
        go(tmp_path / "straight", everything)
    assert saved == [0, 2, 4, 6, 8, 9, 1]
    for save in range(1, len(saved)):
        path = tmp_path / str(save)
        with killed_after(save), pytest.raises(Killed):
            go(path, everything)
        assert record(path)["status"] == "running"
        resume(path, everything)
        assert left(path) == left(tmp_path / "straight")
        assert record(path)["sessions"][1]["resumed"] == {"all": saved[save - 1]}


@pytest.mark.parametrize(
    ("steps", "every", "saved"),
    [
        (10, 3, [0, 3, 6, 9, 10]),
        (4, 4, [0, 4]),
        (3, 100, [0, 3]),
        (40, None, [0, *range(4, 41, 4)]),
        (3, None, [0, 1, 2, 3]),
        (0, None, [0]),
    ],
)
def test_a_loop_saves_at_its_cadence_and_at_its_end(
    tmp_path: Path, steps: int, every: int | None, saved: list[int]
) -> None:
    def experiment(config: Any, run: Run) -> None:
        assert list(run.loop("fit", steps, state={}, every=every)) == list(range(steps))

    with killed_after(0) as found:
        go(tmp_path, experiment)
    assert found == saved


@pytest.mark.parametrize("steps", [0, 5])
def test_a_finished_loop_restores_its_last_state_and_yields_nothing(
    tmp_path: Path, steps: int
) -> None:
    def experiment(config: Any, run: Run) -> None:
        history: list[int] = []
        yielded = []
        for step in run.loop("fit", steps, state={"history": history}):
            history.append(step)
            yielded.append(step)
        assert history == list(range(steps))
        counts.append(len(yielded))
        if len(counts) == 1:
            raise RuntimeError("after the loop")

    counts: list[int] = []
    ends(tmp_path, RuntimeError, experiment)
    resume(tmp_path, experiment)
    assert counts == [steps, 0]


def test_a_loop_can_be_finished_early_and_stays_finished(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        history: list[int] = []
        loop = run.loop("fit", 100, state={"history": history}, every=50)
        for step in loop:
            if step == 3:
                loop.finish()
            history.append(step)
        assert history == [0, 1, 2, 3]
        sessions.append(len(record(run.folder)["sessions"]))
        if len(sessions) == 1:
            raise RuntimeError

    sessions: list[int] = []
    ends(tmp_path, RuntimeError, experiment)
    resume(tmp_path, experiment)
    assert record(tmp_path)["sessions"][1]["resumed"] == {"fit": 4}


def test_a_loop_can_be_left_by_break_and_another_begun(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        history: list[int] = []
        for step in run.loop("first", 10, state={"history": history}, every=2):
            history.append(step)
            if step == 4:
                break
        for _ in run.loop("second", 2, state={}):
            pass
        assert history == [0, 1, 2, 3, 4]
        sessions.append(run)
        if len(sessions) == 1:
            raise RuntimeError

    sessions: list[Run] = []
    ends(tmp_path, RuntimeError, experiment)
    resume(tmp_path, experiment)
    assert record(tmp_path)["sessions"][1]["resumed"] == {"first": 4, "second": 2}


def test_an_error_in_a_step_leaves_the_last_save_to_go_on_from(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        history: list[int] = []
        for step in run.loop("fit", 10, state={"history": history}, every=2):
            if step == 5 and not yielded:
                yielded.append(-1)
                raise RuntimeError("a bug")
            history.append(step)
            if yielded:
                yielded.append(step)
        assert history == list(range(10))

    yielded: list[int] = []
    assert ends(tmp_path, RuntimeError, experiment) == "a bug"
    resume(tmp_path, experiment)
    assert yielded == [-1, 4, 5, 6, 7, 8, 9]


def test_an_iterated_loop_is_over(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        loop = run.loop("fit", 3, state={})
        assert (loop.name, loop.steps) == ("fit", 3)
        assert list(loop) == [0, 1, 2]
        assert list(loop) == []

    go(tmp_path, experiment)


def test_loops_within_loops_are_refused(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        for _ in run.loop("outer", 2, state={}):
            for _ in run.loop("inner", 2, state={}):
                pass

    assert ends(tmp_path, RuntimeError, experiment) == "loop 'inner' began inside loop 'outer'"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "Fit"}, ValueError, "lower-case letters, digits and hyphens, got 'Fit'"),
        ({"name": "../fit"}, ValueError, "got '../fit'"),
        ({"name": ""}, ValueError, "got ''"),
        ({"name": "a" * 65}, ValueError, "lower-case letters"),
        ({"steps": -1}, ValueError, "loop 'fit': steps must be 0 or more, got -1"),
        ({"every": 0}, ValueError, "loop 'fit': every must be 1 or more, got 0"),
        ({"state": {"best": 0.0}}, TypeError, r"state\['best'\] is a float, which cannot be"),
        ({"state": {"shape": (1, 2)}}, TypeError, r"state\['shape'\] is a tuple"),
        ({"state": {"net": None}}, TypeError, "put it into a dictionary or a list"),
        ({"claims": ("finds_slope",)}, KeyError, "has no claim 'finds_slope'"),
    ],
)
def test_a_loop_that_cannot_be_kept_is_refused_before_it_begins(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    run = begin(tmp_path)
    with pytest.raises(error, match=message):
        run.loop(**{"name": "fit", "steps": 3, "state": {}, **arguments})
    run.close()


def test_a_state_that_cannot_be_written_is_named_with_its_place(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        for _ in run.loop("fit", 2, state={"table": {"rows": [object()]}}):
            pass

    assert "table.rows[0] is a object" in ends(tmp_path, TypeError, experiment)


def test_a_name_is_used_once_in_a_run(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.loop("fit", 1, state={})
    with pytest.raises(ValueError, match="the name 'fit' is used twice in one run"):
        run.once("fit", dict)
    run.close()


def test_a_run_follows_its_progress(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        run.once("squares", run.map, abs, [1, 2])
        run.map(abs, [3])
        for _ in run.loop("fit", 2, state={}):
            pass

    told: list[tuple[str, int, int]] = []
    run = begin(tmp_path)
    run.progress = lambda *at: told.append(at)
    execute(run, experiment)
    squares = [("squares", 0, 1), ("squares", 1, 2), ("squares", 2, 2), ("squares", 1, 1)]
    assert told == [*squares, ("abs", 1, 1), ("fit", 0, 2), ("fit", 1, 2), ("fit", 2, 2)]


# -- once and map ------------------------------------------------------------------------------


def test_what_is_computed_once_is_not_computed_again(tmp_path: Path) -> None:
    tree = {
        "tensor": torch.arange(3.0),
        "arrays": [np.arange(2), np.float32(0.1)],
        "pair": (1, None, "x", float("inf"), True),
    }

    def compute_it(a: int, b: int) -> Any:
        calls.append((a, b))
        return tree

    def experiment(config: Any, run: Run) -> None:
        found.append(run.once("arm", compute_it, 1, 2))
        if len(found) == 1:
            raise RuntimeError

    calls: list[Any] = []
    found: list[Any] = []
    ends(tmp_path, RuntimeError, experiment)
    resume(tmp_path, experiment)
    assert calls == [(1, 2)]
    assert found[0] is tree
    assert torch.equal(found[1]["tensor"], tree["tensor"])
    assert found[1]["arrays"][0].tolist() == [0, 1]
    assert repr(found[1]["arrays"][1]) == repr(np.float32(0.1))
    assert found[1]["pair"] == tree["pair"]
    assert record(tmp_path)["sessions"][1]["resumed"] == {"arm": 0}


def test_an_error_inside_is_raised_and_nothing_is_stored(tmp_path: Path) -> None:
    def fail() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise tasks.OwnError("not yet")
        return 5

    def experiment(config: Any, run: Run) -> None:
        found.append(run.once("arm", fail))
        run.log(0, x=1.0)

    calls: list[int] = []
    found: list[int] = []
    assert ends(tmp_path, tasks.OwnError, experiment) == "not yet"
    assert not (tmp_path / "checkpoints").exists()
    resume(tmp_path, experiment)
    assert (len(calls), found) == (2, [5])
    assert [line["loop"] for line in metrics.read(tmp_path / "metrics.jsonl")] == [None]


def test_streams_stand_where_the_function_left_them_though_it_is_not_called(
    tmp_path: Path,
) -> None:
    def experiment(config: Any, run: Run) -> None:
        drawn = [run.rng("a").normal()]
        run.once("arm", lambda: float(run.rng("a").normal() + run.rng("b").normal()))
        drawn += [run.rng("a").normal(), run.rng("b").normal()]
        results.append(drawn)
        if len(results) == 1:
            raise RuntimeError

    results: list[list[float]] = []
    ends(tmp_path, RuntimeError, experiment)
    resume(tmp_path, experiment)
    assert results[0] == results[1]


def test_a_result_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        run.once("arm", lambda: {"model": object()})

    assert "result.model is a object" in ends(tmp_path, TypeError, experiment)


@pytest.mark.parametrize("backend", ["serial", "process"])
def test_items_are_mapped_on_the_backend_that_was_asked_for(tmp_path: Path, backend: str) -> None:
    def experiment(config: Any, run: Run) -> None:
        found.extend(run.map(tasks.process_number, [0]))

    found: list[int] = []
    go(tmp_path, experiment, backend=backend)
    assert (found == [os.getpid()]) == (backend == "serial")


# -- divergence --------------------------------------------------------------------------------


def diverging(body: str, depends: tuple[str, ...] | None = None) -> Experiment:
    """Five good steps, then NaN; the body goes on, continues or breaks."""

    def experiment(config: Any, run: Run) -> None:
        weights, history = np.zeros(2), []
        state = {"weights": weights, "history": history}
        yielded = 0
        for step in run.loop("fit", 20, state=state, every=2, claims=depends):
            yielded += 1
            weights += 1.0 if step < 5 else np.nan
            run.log(step, loss=weights[0])
            if not run.check_finite(step, fine=1.0, loss=torch.tensor(weights[0])):
                if body == "break":
                    break
                if body == "continue":
                    continue
            history.append(step)
        run.artifact("end.txt", f"{weights.tolist()} {history} {yielded}")
        run.measure("finds-slope", 0.0)
        run.measure("beats-mean", 9.0)

    return experiment


@pytest.mark.parametrize("body", ["goes on", "continue", "break"])
def test_a_loop_that_diverges_ends_with_its_last_good_state(
    tmp_path: Path, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    go(tmp_path, diverging(body), toy.QUICK, tier="quick")
    end = (tmp_path / "artifacts" / "end.txt").read_text()
    assert end == "[4.0, 4.0] [0, 1, 2, 3] 6"
    for line in lines(tmp_path).values():
        assert (line["verdict"], line["measured"]) == ("not measured", None)
        assert line["note"] == "loss became nan at step 5 of fit"
    assert "mmxx: warning: loss became nan at step 5 of fit" in capsys.readouterr().err
    assert "warning: loss became nan" in (tmp_path / "log.txt").read_text()
    logged = list(metrics.read(tmp_path / "metrics.jsonl"))
    assert [line["loss"] for line in logged] == [1.0, 2.0, 3.0, 4.0, 5.0, None]


@pytest.mark.parametrize("body", ["goes on", "break"])
def test_a_diverged_loop_diverges_again_when_it_is_resumed(tmp_path: Path, body: str) -> None:
    go(tmp_path / "straight", diverging(body), toy.QUICK, tier="quick")
    for save in (1, 2, 3):
        path = tmp_path / str(save)
        with killed_after(save), pytest.raises(Killed):
            go(path, diverging(body), toy.QUICK, tier="quick")
        resume(path, diverging(body))
        assert lines(path) == lines(tmp_path / "straight")
        last = [p.read_text() for p in (path, tmp_path / "straight") for p in p.glob("*/end.txt")]
        assert last[0].rpartition(" ")[0] == last[1].rpartition(" ")[0]


def test_only_the_claims_that_depend_on_a_loop_go_with_it(tmp_path: Path) -> None:
    go(tmp_path / "one", diverging("break", ("finds-slope",)), toy.QUICK, tier="quick")
    found = {name: line["verdict"] for name, line in lines(tmp_path / "one").items()}
    assert found == {"finds-slope": "not measured", "beats-mean": "holds"}
    go(tmp_path / "none", diverging("break", ()), toy.QUICK, tier="quick")
    found = {name: line["verdict"] for name, line in lines(tmp_path / "none").items()}
    assert found == {"finds-slope": "holds", "beats-mean": "holds"}


def test_outside_of_a_loop_divergence_is_told_and_touches_no_claim(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        assert run.check_finite(1, x=1.0, y=np.float32(2))
        assert not run.check_finite(2, x=1.0, y=float("-inf"))
        run.measure("finds-slope", 0.0)

    go(tmp_path, experiment, toy.QUICK, tier="quick")
    assert "y became -inf at step 2\n" in (tmp_path / "log.txt").read_text()
    assert lines(tmp_path)["finds-slope"]["verdict"] == "holds"


# -- metrics -----------------------------------------------------------------------------------


def test_metrics_after_the_restored_step_are_dropped_and_written_again(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        run.log(7, before=1.0)
        run.once("arm", lambda: run.log(3, inside=2.0))
        for step in run.loop("fit", 6, state={}, every=2):
            run.log(step, loss=float(step))
        run.log(8, after=3.0)

    def logged(path: Path) -> list[Any]:
        found = metrics.read(path / "metrics.jsonl")
        return sorted((line["loop"] or "", line["step"]) for line in found)

    go(tmp_path / "straight", experiment)
    for save in range(1, 6):
        path = tmp_path / str(save)
        with killed_after(save), pytest.raises(Killed):
            go(path, experiment)
        stale = '{"loop": "fit", "step": 5, "t": 0.1, "loss": 5.0}\n' if save < 5 else ""
        with open(path / "metrics.jsonl", "a") as file:
            file.write(stale + '{"loop": "fi')
        resume(path, experiment)
        assert logged(path) == logged(tmp_path / "straight")
    assert len(logged(tmp_path / "straight")) == 9


# -- claims ------------------------------------------------------------------------------------


def measuring(**values: float) -> Experiment:
    def experiment(config: Any, run: Run) -> None:
        for name, value in values.items():
            run.measure(name.replace("_", "-"), value)

    return experiment


def test_a_measured_figure_is_judged_by_the_bar_of_the_tier(tmp_path: Path) -> None:
    experiment = measuring(finds_slope=0.07, full_only=2.0, beats_mean=2.0)
    run = go(tmp_path / "quick", experiment, toy.QUICK, tier="quick", seed=5)
    found = lines(tmp_path / "quick")
    assert {name: line["verdict"] for name, line in found.items()} == {
        "finds-slope": "holds",
        "beats-mean": "holds",
    }
    assert found["finds-slope"]["seeds"] == [5]
    assert [line["id"] for line in run.verdicts] == list(found)
    go(tmp_path / "full", experiment, toy.FULL, tier="full")
    found = lines(tmp_path / "full")
    assert {name: line["verdict"] for name, line in found.items()} == {
        "finds-slope": "falls short",
        "full-only": "holds",
        "beats-mean": "holds",
    }


def test_what_is_measured_is_on_the_disk_at_once_with_all_that_was_said(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        assert lines(tmp_path)["beats-mean"]["note"] == "the run did not get that far"
        run.measure(
            "beats-mean",
            np.float64(3),
            baseline=torch.tensor(1.0),
            control=np.float32(0.5),
            seeds=np.arange(2),
            note="a remark",
        )
        content = json.loads((tmp_path / "claims.json").read_bytes())
        assert content["status"] == "running"
        line = content["claims"][1]
        assert (line["measured"], line["baseline"], line["control"]) == (3.0, 1.0, 0.5)
        assert (line["seeds"], line["note"], line["verdict"]) == ([0, 1], "a remark", "holds")

    go(tmp_path, experiment, toy.QUICK, tier="quick")
    content = json.loads((tmp_path / "claims.json").read_bytes())
    shown = {key: content[key] for key in ("schema", "system", "tier", "seed", "status")}
    assert shown == {"schema": 1, "system": "toy", "tier": "quick", "seed": 0, "status": "done"}


def test_the_tiny_tier_measures_and_judges_nothing(tmp_path: Path) -> None:
    go(tmp_path, measuring(finds_slope=0.0, full_only=2.0))
    found = lines(tmp_path)
    assert (found["finds-slope"]["measured"], found["finds-slope"]["verdict"]) == (
        0.0,
        "not measured",
    )
    assert found["finds-slope"]["note"] == "no bar at this budget"
    assert found["full-only"]["measured"] == 2.0
    assert found["beats-mean"]["note"] == "the run did not get that far"


def test_a_figure_of_nan_is_not_measured(tmp_path: Path) -> None:
    go(tmp_path, measuring(finds_slope=float("nan")), toy.QUICK, tier="quick")
    line = lines(tmp_path)["finds-slope"]
    assert (line["measured"], line["verdict"]) == (None, "not measured")
    assert line["note"] == "the measured figure is nan"


def test_what_cannot_be_measured_says_why_and_stays_so(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        run.measure("finds-slope", 0.0)
        run.not_measured("finds-slope", "no slope here")
        run.measure("finds-slope", 0.0)
        run.not_measured("full-only", "not in this tier anyway")

    go(tmp_path, experiment, toy.QUICK, tier="quick")
    line = lines(tmp_path)["finds-slope"]
    assert (line["measured"], line["verdict"], line["note"]) == (
        None,
        "not measured",
        "no slope here",
    )
    assert "full-only" not in lines(tmp_path)


def test_a_claim_that_the_card_lacks_is_a_mistake(tmp_path: Path) -> None:
    run = begin(tmp_path)
    with pytest.raises(KeyError, match="has no claim 'slope'; it has: finds-slope"):
        run.measure("slope", 1.0)
    with pytest.raises(KeyError, match="has no claim 'slope'"):
        run.not_measured("slope", "x")
    run.close()


@pytest.fixture
def points(tmp_path: Path) -> Path:
    path = tmp_path / "points.txt"
    x = np.linspace(-1, 1, 30)
    np.savetxt(path, np.stack([x, 2 * x], axis=1))
    return path


def bound_to(path: Path) -> Card:
    digest = folder.sha256_of(path)
    bars = {"quick": at_least(1)}
    bound = Claim("on-file", "x", "Table 9", None, bars, data_sha256=digest)
    other = Claim("on-another", "x", "Table 9", None, bars, data_sha256="0" * 64)
    return replace(CARD, claims=(*CARD.claims, bound, other))


def test_the_user_s_data_are_measured_and_not_judged(tmp_path: Path, points: Path) -> None:
    config = replace(toy.QUICK, data=points)
    go(tmp_path / "run", measuring(finds_slope=0.0), config, tier="quick")
    line = lines(tmp_path / "run")["finds-slope"]
    assert (line["measured"], line["verdict"], line["note"]) == (0.0, "not measured", "user data")


def test_a_claim_that_is_bound_to_a_file_is_judged_with_that_file_only(
    tmp_path: Path, points: Path
) -> None:
    card = bound_to(points)
    experiment = measuring(finds_slope=0.0, on_file=2.0, on_another=2.0)
    go(tmp_path / "with", experiment, replace(toy.QUICK, data=points), card=card, tier="quick")
    found = lines(tmp_path / "with")
    assert found["on-file"]["verdict"] == "holds"
    assert found["finds-slope"]["note"] == "user data"
    assert "on-another" not in found
    go(tmp_path / "without", experiment, toy.QUICK, card=card, tier="quick")
    assert "on-file" not in lines(tmp_path / "without")


# -- what is shown -----------------------------------------------------------------------------


def test_tables_pictures_and_files_lie_where_the_report_looks(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        from matplotlib.figure import Figure

        rows = [{"arm": "=evil()", "-loss": 0.1, "n": 3}, {"arm": "tame", "-loss": -2.5, "n": None}]
        run.table("arms", rows, "All arms.")
        run.table("empty", [])
        run.figure("curve", Figure(figsize=(1, 1)), "A curve.")
        run.image("grey", np.zeros((2, 3)))
        run.image("colour", np.zeros((2, 3, 3), np.uint8), "Black.")
        run.artifact("mesh_1.ply", b"ply\n")
        run.artifact("text.txt", "∇\n", "A file.")
        run.table("arms", rows, "Said again.")
        run.note("One.")
        run.note("Two.")
        run.note("One.")
        source = SimpleNamespace(name="N", licence="CC0", origin="O", sha256="ab", extra=1)
        run.source(source)
        run.source(source)

    go(tmp_path, experiment)
    found = record(tmp_path)
    assert [tuple(e.values()) for e in found["contents"]] == [
        ("table", "empty", "tables/empty.csv", ""),
        ("figure", "curve", "figures/curve.svg", "A curve."),
        ("image", "grey", "figures/grey.png", ""),
        ("image", "colour", "figures/colour.png", "Black."),
        ("artifact", "mesh_1.ply", "artifacts/mesh_1.ply", ""),
        ("artifact", "text.txt", "artifacts/text.txt", "A file."),
        ("table", "arms", "tables/arms.csv", "Said again."),
    ]
    for entry in found["contents"]:
        assert (tmp_path / entry["file"]).is_file()
    with open(tmp_path / "tables" / "arms.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["arm", "'-loss", "n"],
            ["'=evil()", "0.1", "3"],
            ["tame", "-2.5", ""],
        ]
    assert (tmp_path / "tables" / "empty.csv").read_text().strip() == ""
    assert (tmp_path / "figures" / "curve.svg").read_text().lstrip().startswith("<")
    assert (tmp_path / "figures" / "grey.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "artifacts" / "mesh_1.ply").read_bytes() == b"ply\n"
    assert (tmp_path / "artifacts" / "text.txt").read_text(encoding="utf-8") == "∇\n"
    assert found["notes"] == ["One.", "Two."]
    assert found["data"] == [{"name": "N", "licence": "CC0", "origin": "O", "sha256": "ab"}]
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "UPPER", "a b", "x" * 65])
def test_names_never_become_paths_unchecked(tmp_path: Path, name: str) -> None:
    run = begin(tmp_path / "run")
    with pytest.raises(ValueError, match="the name of a table is lower-case"):
        run.table(name, [])
    with pytest.raises(ValueError, match="the name of a image is lower-case"):
        run.image(name, np.zeros((2, 2)))
    if name not in ("UPPER", "x" * 65):
        with pytest.raises(ValueError, match="an artifact's name is letters, digits"):
            run.artifact(name, b"")
    run.close()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", ".lock"]


def test_rows_of_a_table_have_the_columns_of_the_first(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        run.table("arms", [{"a": 1}, {"b": 2}])

    assert "fields not in fieldnames: 'b'" in ends(tmp_path, ValueError, experiment)


def test_warnings_of_an_experiment_are_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def experiment(config: Any, run: Run) -> None:
        warnings.warn("the step size is large", RuntimeWarning, stacklevel=1)
        run.say("a line")
        run.say("warning: mind the gap")

    before = warnings.showwarning
    with pytest.warns(RuntimeWarning, match="the step size is large"):
        go(tmp_path, experiment)
    assert warnings.showwarning is before
    text = (tmp_path / "log.txt").read_text()
    stamped = [line.split(" ", 2)[2] for line in text.splitlines()]
    assert stamped == [
        "RuntimeWarning: the step size is large",
        "a line",
        "warning: mind the gap",
    ]
    assert capsys.readouterr().err.splitlines() == ["mmxx: warning: mind the gap"]


# -- the device --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "has_cuda", "found"),
    [("cpu", True, "cpu"), ("auto", False, "cpu"), ("auto", True, "cuda"), ("cuda", True, "cuda")],
)
def test_the_device_is_the_one_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, has_cuda: bool, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    run = begin(tmp_path, device=asked)
    assert run.device == torch.device(found)
    run.close()


def test_a_device_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def experiment(config: Any, run: Run) -> None:
        torch.zeros(1, device=run.device)

    message = ends(tmp_path, BadInputError, experiment, device="cuda")
    assert message == "device 'cuda' was asked for, and torch finds none; use 'cpu'"


# -- how a run ends ----------------------------------------------------------------------------


def test_the_record_says_what_was_done_and_how(tmp_path: Path) -> None:
    run = create(tmp_path, CARD, toy.TINY, Options(seed=3, backend="serial"), "tiny", argv=["mmxx"])
    execute(run, lambda config, run: None)
    found = record(tmp_path)
    assert found["schema"] == 1
    assert (found["system"], found["tier"], found["seed"]) == ("toy", "tiny", 3)
    assert (found["status"], found["reason"], found["argv"]) == ("done", None, ["mmxx"])
    assert found["config"] == folder.config_json(toy.TINY)
    assert found["card"] == folder.card_json(CARD)
    assert (found["device"], found["devices"], found["backend"]) == ("cpu", 1, "serial")
    assert found["versions"]["torch"] == torch.__version__
    assert found["host"]["threads"] == compute.cores()
    assert found["seconds"] >= 0
    assert found["started"] <= found["ended"]
    (session,) = found["sessions"]
    assert (session["status"], session["resumed"]) == ("done", {})
    assert (tmp_path / "report.html").is_file()


def test_a_run_that_fails_says_so_and_keeps_the_traceback(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        run.measure("finds-slope", 0.0)
        raise tasks.OwnError("no luck")

    ends(tmp_path, tasks.OwnError, experiment)
    found = record(tmp_path)
    assert (found["status"], found["reason"]) == ("failed", "OwnError: no luck")
    assert json.loads((tmp_path / "claims.json").read_bytes())["status"] == "failed"
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log
    assert 'raise tasks.OwnError("no luck")' in log
    assert "no luck" in (tmp_path / "report.html").read_text()


def test_an_error_of_the_user_s_needs_no_traceback(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        raise BadInputError("a picture was expected")

    ends(tmp_path, BadInputError, experiment)
    assert record(tmp_path)["reason"] == "a picture was expected"
    assert not (tmp_path / "log.txt").exists()


@pytest.mark.parametrize("kind", ["loop", "once"])
def test_a_time_limit_stops_at_the_next_step_keeps_it_and_can_be_resumed(
    tmp_path: Path, kind: str
) -> None:
    def experiment(config: Any, run: Run) -> None:
        if kind == "once":
            run.once("arm", lambda: done.append(-1))
        done.extend(run.loop("fit", 3, state={}, every=100))

    done: list[int] = []
    message = ends(tmp_path, Interrupted, experiment, time_limit=1e-9)
    assert message == "the time limit of 1e-09 s was reached"
    assert Interrupted.exit_code == 75
    found = record(tmp_path)
    assert (found["status"], found["reason"]) == ("interrupted", message)
    assert done == [0] if kind == "loop" else done == [-1]
    while len(done) < 3:
        with pytest.raises(Interrupted):
            resume(tmp_path, experiment, time_limit=1e-9)
    resume(tmp_path, experiment)
    assert done == ([0, 1, 2] if kind == "loop" else [-1, 0, 1, 2])
    assert record(tmp_path)["status"] == "done"


def stopping(number: int, at: str, done: list[Any]) -> Experiment:
    """Send this process a signal, once, at some place of a run."""

    def send() -> None:
        if "sent" not in done:
            done.append("sent")
            os.kill(os.getpid(), number)
            time.sleep(0.01)  # a place where Python calls the handler

    def experiment(config: Any, run: Run) -> None:
        if at == "before":
            send()
        if at == "once":
            run.once("arm", send)
        for step in run.loop("fit", 5, state={}, every=100):
            if at == "loop" and step == 2:
                send()
            done.append(step)
            if at == "last" and step == 4:
                send()

    return experiment


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("at", "first", "then"),
    [
        ("before", [], [0, 1, 2, 3, 4]),
        ("once", [], [0, 1, 2, 3, 4]),
        ("loop", [0, 1, 2], [3, 4]),
        ("last", [0, 1, 2, 3, 4], []),
    ],
)
def test_a_signal_stops_a_run_so_that_it_can_be_resumed(
    tmp_path: Path, number: signal.Signals, at: str, first: list[int], then: list[int]
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    done: list[Any] = []
    message = ends(tmp_path, Interrupted, stopping(number, at, done))
    assert message == f"stopped by {number.name}"
    assert record(tmp_path)["status"] == "interrupted"
    assert (tmp_path / "report.html").is_file()
    done.remove("sent")
    assert done == first
    done.append("sent")
    resume(tmp_path, stopping(number, at, done))
    assert done == [*first, "sent", *then]
    now = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    assert now == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("way", ["a second signal", "the time of grace"])
def test_a_step_that_does_not_end_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(runs, "_GRACE", 0.05 if way == "the time of grace" else 600.0)

    def experiment(config: Any, run: Run) -> None:
        history: list[int] = []
        for step in run.loop("fit", 4, state={"history": history}, every=1):
            history.append(step)
            if step == 2 and not resumed:
                os.kill(os.getpid(), signal.SIGINT)
                if way == "a second signal":
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(600)
        assert history == [0, 1, 2, 3]

    resumed: list[bool] = []
    assert ends(tmp_path, Interrupted, experiment) == "stopped by SIGINT"
    resumed.append(True)
    resume(tmp_path, experiment)
    assert record(tmp_path)["sessions"][1]["resumed"] == {"fit": 2}


def test_a_run_in_a_thread_leaves_the_signals_alone(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[Any] = [signal.getsignal(signal.SIGTERM)]
    thread = threading.Thread(target=go, args=(tmp_path, experiment))
    thread.start()
    thread.join()
    assert seen == [seen[0], seen[0]]
    assert record(tmp_path)["status"] == "done"


def test_a_disk_that_fills_up_is_told_and_never_hides_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise CannotWriteError(f"cannot write {path}: No space left on device")

    def experiment(config: Any, run: Run) -> None:
        monkeypatch.setattr(checkpoint, "write_bytes", full)
        if kind == "the experiment's":
            raise tasks.OwnError("no luck")
        if kind == "a table":
            run.table("arms", [])

    kind = "nothing"
    assert "claims.json: No space left" in ends(tmp_path / "a", CannotWriteError, experiment)
    monkeypatch.undo()
    kind = "a table"
    assert "arms.csv: No space left" in ends(tmp_path / "b", CannotWriteError, experiment)
    monkeypatch.undo()
    kind = "the experiment's"
    assert ends(tmp_path / "c", tasks.OwnError, experiment) == "no luck"


def test_a_full_disk_that_a_library_meets_is_told_as_ours_is(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "cache/x.nbi")

    message = ends(tmp_path, CannotWriteError, experiment)
    assert message == "cannot write cache/x.nbi: No space left on device"
    assert record(tmp_path)["status"] == "failed"


def test_a_log_or_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        (tmp_path / name).mkdir()
        if name == "log.txt":
            run.say("hello")

    name = "log.txt"
    assert "log.txt: Is a directory" in ends(tmp_path, CannotWriteError, experiment)
    for path in tmp_path.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    name = "report.html"
    assert "report.html: " in ends(tmp_path, CannotWriteError, experiment)
    assert CannotWriteError.exit_code == 74


# -- resuming ----------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        with pytest.raises(BadInputError, match="is in use by another process"):
            reopen(tmp_path, CARD, toy.Config)

    go(tmp_path, experiment)
    run = reopen(tmp_path, CARD, toy.Config)
    run.close()


def test_a_run_of_another_system_is_refused(tmp_path: Path) -> None:
    go(tmp_path, lambda config, run: None)
    with pytest.raises(BadInputError, match="belongs to toy, not to other"):
        reopen(tmp_path, replace(CARD, name="other"), toy.Config)


def test_a_resumed_run_is_the_run_that_was_begun(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        seen.append((config, run.seed, run.tier, run.options.backend))
        time.sleep(0.01)

    seen: list[Any] = []
    go(tmp_path, experiment, toy.FULL, tier="full", seed=9)
    before = record(tmp_path)["seconds"]
    resume(tmp_path, experiment)
    assert seen == [(toy.FULL, 9, "full", "serial")] * 2
    assert record(tmp_path)["seconds"] > before
    assert len(record(tmp_path)["sessions"]) == 2


def change_record(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = record(path)
    change(content)
    (path / "run.json").write_text(json.dumps(content))


def test_another_number_of_threads_or_version_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(tmp_path, lambda config, run: None)
    resume(tmp_path, lambda config, run: None)
    assert capsys.readouterr().err == ""

    def elsewhere(content: dict[str, Any]) -> None:
        content["sessions"][-1]["threads"] = 99
        content["versions"]["numpy"] = "1.0"
        del content["versions"]["torch"]

    change_record(tmp_path, elsewhere)
    resume(tmp_path, lambda config, run: None)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        f"mmxx: warning: resumed with {compute.cores()} threads after 99: equal bits are "
        "promised for an equal number only"
    )
    assert said[1:] == [
        f"mmxx: warning: resumed with numpy {np.__version__}, begun with another version",
        f"mmxx: warning: resumed with torch {torch.__version__}, begun with another version",
    ]
    assert "warning: resumed with numpy" in (tmp_path / "log.txt").read_text()


def test_a_damaged_checkpoint_is_skipped_and_named(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        total = np.zeros(1)
        for step in run.loop("fit", 6, state={"total": total}, every=2):
            total += step
        assert total == 15

    with killed_after(3), pytest.raises(Killed):
        go(tmp_path, experiment)
    (tmp_path / "checkpoints" / "fit" / "step-000000004" / "state.json").write_text("{}")
    resume(tmp_path, experiment)
    assert record(tmp_path)["sessions"][1]["resumed"] == {"fit": 2}
    log = (tmp_path / "log.txt").read_text()
    assert "warning: fit: skipped the checkpoint step-000000004 (state.json is damaged)" in log


def test_where_every_checkpoint_is_damaged_a_loop_begins_anew(tmp_path: Path) -> None:
    with killed_after(2), pytest.raises(Killed):
        go(tmp_path, everything)
    for path in (tmp_path / "checkpoints").glob("*/*/manifest.json"):
        path.unlink()
    resume(tmp_path, everything)
    assert record(tmp_path)["sessions"][1]["resumed"] == {}
    go(tmp_path / "straight", everything)
    one, other = ((p / "artifacts/state.json") for p in (tmp_path, tmp_path / "straight"))
    assert one.read_bytes() == other.read_bytes()


def test_data_that_changed_meanwhile_are_refused(tmp_path: Path, points: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        for step in run.loop("fit", 3, state={}):
            if step == 1:
                raise RuntimeError

    config = replace(toy.QUICK, data=points)
    with pytest.raises(RuntimeError):
        go(tmp_path / "run", experiment, config)
    points.write_text("0 0\n1 1\n")
    with pytest.raises(BadInputError, match="belongs to config"):
        resume(tmp_path / "run", experiment)


def test_the_toy_uses_every_service_and_ends_alike_straight_and_resumed(tmp_path: Path) -> None:
    from mmxx.lab.testing import assert_same, outcome

    straight = tmp_path / "straight"
    go(straight, toy.run)
    for save in (1, 3, 5):
        path = tmp_path / str(save)
        with killed_after(save), pytest.raises(Killed):
            go(path, toy.run)
        resume(path, toy.run)
        assert_same(outcome(straight), outcome(path))


# -- several processes -------------------------------------------------------------------------


class Others:
    """Stands for a team in which this process is not the first."""

    rank, size = 1, 2

    def __init__(self, answers: list[Any]) -> None:
        self.answers, self.asked, self.closed, self.waited = answers, [], False, 0

    def share(self, value: Any) -> Any:
        self.asked.append(value)
        return self.answers.pop(0) if self.answers else None

    def wait(self) -> None:
        self.waited += 1

    def set_up(self, net: Any, optimizer: Any) -> tuple[Any, Any]:
        return ("wrapped", net), optimizer

    def part(self, batch: Any) -> Any:
        return batch[1::2]

    def mean(self, value: Any) -> float:
        return float(value) / 2

    def close(self) -> None:
        self.closed = True


def test_only_the_first_process_writes_and_all_get_its_results(tmp_path: Path) -> None:
    def experiment(config: Any, run: Run) -> None:
        assert not run.writes
        net, opt = run.distribute("net", "opt")  # type: ignore[arg-type]
        assert (net, opt) == (("wrapped", "net"), "opt")
        assert run.part([0, 1, 2, 3]) == [1, 3]  # type: ignore[arg-type]
        assert run.mean(np.float64(3)) == 1.5  # type: ignore[arg-type]
        assert run.once("arm", calls.append, 1) == "from the first"
        assert run.together
        assert run.each("arms", str, [3, 4]) == ["3", "4"]
        for _ in run.loop("fit", 2, state={}):
            pass
        run.log(0, x=1.0)
        run.say("hello")
        run.measure("finds-slope", 0.0)
        run.table("arms", [{"a": 1}])
        run.artifact("x.txt", "x")

    calls: list[int] = []
    first = begin(tmp_path / "first")
    others = Others(["from the first"])
    run = Run(
        tmp_path,
        CARD,
        toy.TINY,
        first.options,
        "tiny",
        dict(first._record),
        others,  # type: ignore[arg-type]
    )
    first.close()
    execute(run, experiment)
    assert calls == []
    assert others.closed
    assert others.waited == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first"]


def test_one_process_has_the_whole_batch_and_the_bare_module(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert run.distribute("net", "opt") == ("net", "opt")  # type: ignore[arg-type]
    assert run.part([1, 2]) == [1, 2]  # type: ignore[arg-type]
    assert run.mean(np.float64(3)) == 3.0  # type: ignore[arg-type]
    assert not run.together
    assert run.each("arms", str, [3, 4]) == ["3", "4"]
    run.close()


def test_several_devices_need_a_system_that_can_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInputError, match="toy does not train on several devices"):
        begin(tmp_path / "a", devices=2)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    spread = replace(CARD, scale=frozenset({"ddp"}))
    with pytest.raises(MissingExtraError, match=r"pip install 'mmxx\[cluster\]'"):
        begin(tmp_path / "b", card=spread, devices=2)
    assert not devices.wanted(1)
    assert devices.wanted(2)
    assert issubclass(MissingExtraError, MmxxError)
