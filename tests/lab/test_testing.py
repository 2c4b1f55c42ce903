"""The contract: every check passes on what is sound and fails on what breaks it."""

from __future__ import annotations

import importlib
import os
import random
import socket
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmxx_toy import experiment as toy
from mmxx_toy import line
from mmxx_toy.card import CARD
from mmxx_toy.variants import announce

from mmxx.lab import catalog
from mmxx.lab.catalog import Card, at_least
from mmxx.lab.run import Run
from mmxx.lab.testing import Case, cards, check_sham, check_system, checks, contract, objects, runs

TOY = Path(toy.__file__).parent


def breaks(check: Callable[[Any], None], subject: Any, message: str | None = None) -> None:
    """The check refuses the subject, in these words."""
    with pytest.raises(AssertionError, match=message):
        check(subject)


def draw() -> float:
    """A number from numpy's global generator."""
    return np.random.rand()  # noqa: NPY002 - the very thing that the contract forbids


@pytest.fixture
def generators() -> Iterator[None]:
    """Brings the global generators back after a test that moves them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@pytest.fixture
def variant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Card]:
    """A card whose experiment is the toy's but for what is given."""

    def make(**changes: Any) -> Card:
        name = f"variant_{len(sys.modules)}"
        module = types.ModuleType(name)
        for part in ("Config", "TINY", "QUICK", "FULL", "run", "sham", "__file__"):
            setattr(module, part, changes.get(part, getattr(toy, part)))
        monkeypatch.setitem(sys.modules, name, module)
        return replace(CARD, experiment=f"{name}:run")

    return make


Variant = Callable[..., Card]


def minimal(config: Any, run: Run) -> None:
    """An experiment that keeps the contract with as little as possible."""
    weights = np.zeros(3)
    for step in run.loop("fit", 4, state={"weights": weights, "rng": run.rng("walk")}, every=1):
        weights += run.rng("walk").normal(size=3)
        run.log(step, norm=float(np.linalg.norm(weights)))
    for claim in run.card.claims:
        run.measure(claim.id, float(weights[0]))
    run.table("weights", [{"weight": weight} for weight in weights])


def with_more(what: Callable[[Run], Any]) -> Callable[[Any, Run], None]:
    def run(config: Any, run: Run) -> None:
        minimal(config, run)
        what(run)

    return run


# -- the whole ---------------------------------------------------------------------------------


def points() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=8)
    return x, 3 * x - 1


def test_the_sound_toy_keeps_its_contract() -> None:
    check_system(CARD, [Case(lambda: line.fit_line, points, per_sample=False, name="fit_line")])


def test_every_breach_has_a_line_of_its_own(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes_its_input(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x[0] = 0.0
        return x

    fine = replace(CARD, title=" ", departs=())
    known = [cards.card_is_complete, cards.configuration_is_sound, cards.is_announced]
    keep = [check.__name__ for check in known] + ["inputs_are_not_changed[spoiler]"]
    found = [
        check
        for check in checks(fine, [Case(lambda: changes_its_input, points, name="spoiler")])
        if check.name in keep
    ]
    monkeypatch.setattr(contract, "checks", lambda card, cases: found)
    with pytest.raises(AssertionError) as caught:
        check_system(fine)
    lines = str(caught.value).splitlines()
    assert lines[0] == "toy breaks its contract:"
    assert lines[1] == "card_is_complete: AssertionError: Card.title is empty"
    assert lines[2].startswith("is_announced: AssertionError: the entry point 'toy' of group")
    assert lines[3] == (
        "inputs_are_not_changed[spoiler]: AssertionError: an argument was changed in place"
    )
    assert len(lines) == 4


def test_checks_have_names_that_tell_what_they_are_of() -> None:
    def build() -> Any:
        return torch.nn.Linear(1, 1)

    cases = [
        Case(build, kind="module"),
        Case(lambda: abs),
        Case(torch.optim.SGD, kind="optimizer", name="sgd"),
        Case(lambda: None, kind="estimator"),
    ]
    names = [check.name for check in checks(CARD, cases)]
    assert len(set(names)) == len(names)
    assert names[0] == "card_is_complete"
    for name in (
        "has_finite_gradients[build]",
        "inputs_are_not_changed[lambda]",
        "optimizer_resumes[sgd]",
        "passes_check_estimator[lambda]",
    ):
        assert name in names


# -- the card ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": " "}, "Card.title is empty"),
        ({"summary": "Fits a line."}, "Card.summary says nothing"),
        ({"paper": replace(CARD.paper, authors=())}, "authors is empty"),
        ({"paper": replace(CARD.paper, title="")}, "title is empty"),
        ({"paper": replace(CARD.paper, url="http://example.org")}, "no https address"),
        ({"api": ()}, "Card.api names nothing"),
        ({"departs": ()}, "Card.departs: say where it departs"),
        ({"claims": (CARD.claim("full-only"),)}, "no claim has a quick bar"),
        (
            {"claims": (replace(CARD.claim("beats-mean"), sham=False),)},
            "no claim with a quick bar has sham=True",
        ),
        (
            {
                "claims": (
                    replace(CARD.claim("beats-mean"), sham=False),
                    replace(CARD.claim("full-only"), sham=True),
                )
            },
            "no claim with a quick bar has sham=True",
        ),
    ],
)
def test_a_card_that_leaves_something_unsaid_breaks_the_contract(
    changes: dict[str, Any], message: str
) -> None:
    cards.card_is_complete(CARD)
    breaks(cards.card_is_complete, replace(CARD, **changes), message)


def test_a_system_that_is_not_announced_breaks_the_contract() -> None:
    cards.is_announced(CARD)
    breaks(cards.is_announced, replace(CARD, title="Another"), "the entry point 'toy' of group")
    breaks(cards.is_announced, replace(CARD, name="unheard_of"), "gives None")


@pytest.mark.parametrize("extras", [(), ("torch",)])
def test_an_extra_that_its_package_lacks_breaks_the_contract(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, extras: tuple[str, ...]
) -> None:
    name = f"extras_{len(extras)}"
    announce(in_tmp, name, changes='extra="torch"', extras=extras)
    monkeypatch.syspath_prepend(in_tmp)
    card = catalog.find(name)
    if extras:
        cards.is_announced(card)
    else:
        breaks(cards.is_announced, card, "its package has no extra 'torch'")


def described(alpha: float, beta: int = 0) -> float:
    """A sum. Args: alpha is the first number, beta the second."""
    return alpha + beta


def undescribed(alpha: float, beta: int = 0) -> float:
    """A sum of the number alpha and, as alphabeta, of another."""
    return alpha + beta


def silent(alpha: float) -> float:
    return alpha


class Described:
    """An object of some use to people."""

    def __init__(self, gamma: float) -> None:
        """Keep gamma for later."""
        self.gamma = gamma


class Undescribed:
    """An object of some use to people."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma


def test_an_interface_without_words_breaks_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    def card(*names: str) -> Card:
        monkeypatch.setitem(sys.modules, "variant_interface", sys.modules[__name__])
        return replace(CARD, api=tuple(f"variant_interface:{name}" for name in names))

    check = cards.interface_is_documented
    check(CARD)
    check(card("described", "Described", "TOY"))
    breaks(check, card("described", "undescribed"), "undescribed does not speak of beta$")
    breaks(check, card("Undescribed"), "does not speak of gamma")
    breaks(check, card("silent"), "variant_interface:silent has no docstring")
    with pytest.raises(AttributeError):
        check(card("missing"))


# -- the configuration -------------------------------------------------------------------------


@dataclass(frozen=True)
class Sound:
    """A configuration."""

    steps: int = 3
    """Steps."""

    rates: tuple[float, ...] = (
        0.1,
        0.2,
    )
    """Step sizes."""


@dataclass
class Changeable:
    """A configuration."""

    steps: int = 3
    """Steps."""


@dataclass(frozen=True)
class Undocumented:
    """A configuration."""

    steps: int = 3
    """Steps."""
    size: int = 3
    rate: float = 0.1
    """The step size."""


@dataclass(frozen=True)
class Lossy:
    """A configuration."""

    table: dict[int, int] = None  # type: ignore[assignment]
    """Keys that JSON turns into text."""


def test_a_configuration_that_is_not_sound_breaks_the_contract(variant: Variant) -> None:
    def card(kind: Any, **changes: Any) -> Card:
        three = dict.fromkeys(("TINY", "QUICK", "FULL"), kind())
        return variant(Config=kind, **{**three, **changes})

    check = cards.configuration_is_sound
    check(CARD)
    check(card(Sound))
    breaks(check, card(Changeable), "Config is not frozen")
    breaks(check, card(Undocumented), "Config.size has no docstring below it")
    breaks(check, card(Sound, FULL=toy.FULL), "FULL is no Config")
    breaks(check, card(Lossy, TINY=Lossy({1: 2})), "TINY changes through JSON")


# -- the README --------------------------------------------------------------------------------


@pytest.fixture
def readme(in_tmp: Path, variant: Variant) -> Callable[[str], Card]:
    """The toy with another README."""

    def make(text: str) -> Card:
        (in_tmp / "README.md").write_text(text, encoding="utf-8")
        return variant(__file__=str(in_tmp / "experiment.py"))

    return make


def test_a_readme_without_its_headings_breaks_the_contract(
    readme: Callable[[str], Card], variant: Variant, in_tmp: Path
) -> None:
    text = (TOY / "README.md").read_text()
    check = cards.readme_has_its_headings
    check(CARD)
    check(readme(text + "\n## More of it\n"))
    breaks(check, readme(text.replace("## When not\n", "")), "README headings must be")
    breaks(check, readme(text.replace("## When not\n", "### When not\n")), "headings must be")
    swapped = text.replace("## Measured", "## X").replace("## Source", "## Measured")
    breaks(check, readme(swapped.replace("## X", "## Source")), "README headings must be")
    breaks(check, variant(__file__=str(in_tmp / "none" / "experiment.py")), "there is no ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", "AssertionError"),
        ("```python\nimport warnings\nwarnings.warn('old', FutureWarning)\n```\n", "FutureWarn"),
        ("```python\nimport os\nassert os.listdir() == ['x']\n```\n", "the examples fail"),
        ("```\nx = 1\n```\n", "has no example in Python"),
    ],
)
def test_an_example_that_fails_breaks_the_contract(
    readme: Callable[[str], Card], text: str, message: str
) -> None:
    breaks(cards.readme_examples_run, readme(text), message)


def test_examples_go_on_where_the_one_before_ended(readme: Callable[[str], Card]) -> None:
    text = (
        "```python\nx = 1\n```\ntext\n```python\nimport os\nassert (x, os.listdir()) == (1, [])\n"
    )
    cards.readme_examples_run(readme(text + "```\n"))


# -- the help ----------------------------------------------------------------------------------


@pytest.fixture
def announced(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Card]:
    """A variant in a package of its own, for the checks that start a process."""

    def make(name: str, experiment: str) -> Card:
        announce(in_tmp, name, experiment)
        return catalog.find(name)

    monkeypatch.syspath_prepend(in_tmp)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(in_tmp), os.environ["PYTHONPATH"]]))
    return make


def test_a_help_that_imports_numpy_breaks_the_contract(announced: Callable[..., Card]) -> None:
    card = announced("heavy_help", "import numpy\nrun = experiment.run\n")
    breaks(cards.help_is_light, card, "--help imports numpy$")


def test_a_help_that_does_not_come_breaks_the_contract(announced: Callable[..., Card]) -> None:
    card = announced("no_help", "run = experiment.run\n")
    (
        Path(importlib.import_module("mmxx_no_help").__file__ or "").parent / "experiment.py"
    ).write_text("from mmxx_toy.experiment import *\nraise SystemExit(9)\n")
    sys.modules["mmxx_no_help.experiment"] = toy
    breaks(cards.help_is_light, card, "--help ends with 9")


def test_a_help_without_a_flag_breaks_the_contract(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = types.SimpleNamespace(returncode=0, stdout="--steps INT", stderr="")
    monkeypatch.setattr(cards.subprocess, "run", lambda *_, **__: done)
    breaks(cards.help_is_light, CARD, "--help does not show --noise")


# -- runs --------------------------------------------------------------------------------------

CHECKS_OF_RUNS = [
    runs.same_seed_gives_same_bits,
    runs.seed_matters,
    runs.sham_is_undone,
    runs.report_is_reproducible,
    runs.leaves_the_process_as_it_was,
    runs.cut_short_resumes_to_the_same_bits,
    runs.stops_at_its_time_limit,
]


@pytest.mark.parametrize("check", CHECKS_OF_RUNS, ids=lambda check: check.__name__)
def test_a_minimal_experiment_keeps_the_contract(
    variant: Variant, check: Callable[[Card], None], in_tmp: Path
) -> None:
    check(variant(run=minimal))
    assert not list(in_tmp.iterdir())


COUNTER = iter(range(1_000_000))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda run: run.measure("finds-slope", next(COUNTER)), "claims.json differ"),
        (lambda run: run.once("arm", lambda: np.array(next(COUNTER))), "checkpoints differ"),
        (lambda run: run.log(0, x=next(COUNTER)), "metrics.jsonl differ"),
        (lambda run: run.artifact("x.txt", str(next(COUNTER))), "artifacts/x.txt differs"),
        (lambda run: run.artifact(f"x{next(COUNTER)}.txt", ""), "files differ"),
        (lambda run: run.table("t", [{"a": random.random()}]), "tables/t.csv differs"),
    ],
    ids=["claims", "checkpoints", "metrics", "artifact", "names", "table"],
)
def test_other_bits_in_every_run_break_the_contract(
    variant: Variant, what: Callable[[Run], Any], message: str
) -> None:
    breaks(runs.same_seed_gives_same_bits, variant(run=with_more(what)), message)


def test_a_run_that_saves_nothing_or_is_silent_breaks_the_contract(variant: Variant) -> None:
    check = runs.same_seed_gives_same_bits
    breaks(check, variant(run=lambda config, run: None), "nothing was saved")

    def silent(config: Any, run: Run) -> None:
        run.once("arm", lambda: 1)
        run.measure("finds-slope", 0.0)
        run.not_measured("full-only", "no time")

    breaks(check, variant(run=silent), "without a word on beats-mean$")


def test_a_run_that_ignores_its_seed_breaks_the_contract(variant: Variant) -> None:
    def run(config: Any, run: Run) -> None:
        run.once("arm", lambda: np.random.default_rng(0).normal(size=3))

    breaks(runs.seed_matters, variant(run=run), "another seed leaves the same checkpoints")


def test_a_sham_that_is_not_undone_breaks_the_contract(variant: Variant) -> None:
    method = [1.0]

    def run(config: Any, run: Run) -> None:
        run.once("arm", lambda: method[0])
        run.measure("finds-slope", method[0])

    @contextmanager
    def stays() -> Iterator[None]:
        method[0] = 0.0
        yield

    @contextmanager
    def goes() -> Iterator[None]:
        before, method[0] = method[0], 0.0
        yield
        method[0] = before

    runs.sham_is_undone(variant(run=run, sham=goes))
    breaks(runs.sham_is_undone, variant(run=run, sham=stays), "claims.json differ")


def test_a_page_that_knows_its_place_breaks_the_contract(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmxx.lab.report import render

    real = render.render_run

    def placed(folder: Path) -> Path:
        page = real(folder)
        page.write_text(page.read_text() + str(folder))
        return page

    monkeypatch.setattr(render, "render_run", placed)
    with pytest.raises(AssertionError):
        runs.report_is_reproducible(variant(run=minimal))


def _connect() -> None:
    with socket.socket() as one:
        one.settimeout(0.01)
        one.connect_ex(("127.0.0.1", 9))


def _send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("127.0.0.1", 9))


def _bind() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


def _leave(name: str) -> Path:
    path = Path(name)
    path.write_text("x")
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda run: Path("here.txt").write_text("x"), r"open .*/here\.txt"),
        (lambda run: open("here.txt", "a").close(), r"open .*/here\.txt"),
        (lambda run: open("there.txt", "r+b").close(), r"open .*/there\.txt"),
        (lambda run: os.close(os.open("here.txt", os.O_CREAT | os.O_RDWR)), r"open .*/here\.txt"),
        (lambda run: Path("folder").mkdir(), r"os\.mkdir .*/folder"),
        (lambda run: os.rename("there.txt", "moved.txt"), r"os\.rename .*/moved\.txt"),
        (lambda run: Path("there.txt").unlink(), r"os\.remove .*/there\.txt"),
        (lambda run: Path("empty").rmdir(), r"os\.rmdir .*/empty"),
        (lambda run: Path(f"{run.folder}-more").mkdir(), r"os\.mkdir .*/run-more"),
        (lambda run: _leave(f"{run.folder}.txt"), r"open .*/run\.txt"),
        (lambda run: _leave(f"{run.folder}/../up.txt"), r"open .*/up\.txt"),
        (lambda run: os.symlink("there.txt", "link"), r"os\.symlink .*/link"),
        (lambda run: os.link("there.txt", "link"), r"os\.link .*/link"),
        (lambda run: os.truncate("there.txt", 0), r"os\.truncate .*/there\.txt"),
        (lambda run: _connect(), r"socket\.connect .*127\.0\.0\.1"),
        (lambda run: _send(), r"socket\.sendto .*127\.0\.0\.1"),
        (lambda run: _bind(), r"socket\.bind .*127\.0\.0\.1"),
        (lambda run: socket.getaddrinfo("127.0.0.1", 9), r"socket\.getaddrinfo .*127\.0\.0\.1"),
        (lambda run: socket.gethostbyname("127.0.0.1"), r"socket\.gethostbyname .*127\.0\.0\.1"),
        (lambda run: random.random(), "a global random generator has moved"),
        (lambda run: draw(), "a global random generator has moved"),
    ],
    ids=lambda value: "" if callable(value) else value,
)
def test_traces_outside_of_the_run_folder_break_the_contract(
    variant: Variant,
    generators: None,
    in_tmp: Path,
    what: Callable[[Run], Any],
    message: str,
) -> None:
    _leave("there.txt")
    Path("empty").mkdir()
    breaks(runs.leaves_the_process_as_it_was, variant(run=with_more(what)), message)


def test_reading_and_caching_are_no_trace(variant: Variant, in_tmp: Path) -> None:
    _leave("there.txt")

    def what(run: Run) -> None:
        assert Path("there.txt").read_text() == "x"
        with open(os.devnull, "w") as file:
            file.write("x")
        (run.folder / "own").mkdir()
        (run.folder / "own" / "x.txt").write_text("x")

    def draws_first(config: Any, run: Run) -> None:
        torch.rand(3)  # the lab itself brings torch's generator back
        minimal(config, run)
        what(run)

    runs.leaves_the_process_as_it_was(variant(run=draws_first))


def test_a_state_that_is_not_kept_breaks_the_contract(variant: Variant) -> None:
    def run(config: Any, run: Run) -> None:
        total = np.zeros(1)
        forgotten = 0.0
        for step in run.loop("fit", 4, state={"total": total}, every=1):
            forgotten += step
            total += forgotten
        run.measure("finds-slope", float(total[0]))

    check = runs.cut_short_resumes_to_the_same_bits
    breaks(check, variant(run=run), "claims.json differ|checkpoints differ")


def test_a_run_that_knows_of_its_kill_breaks_the_contract(announced: Callable[..., Card]) -> None:
    card = announced(
        "sensitive",
        "def run(config, run):\n"
        "    run.once('arm', int, run.seed)\n"
        "    run.measure('finds-slope', len(run._record['sessions']))\n",
    )
    breaks(runs.killed_resumes_to_the_same_bits, card, "claims.json differ")


def test_a_run_that_differs_in_a_process_of_its_own_breaks_the_contract(
    announced: Callable[..., Card],
) -> None:
    card = announced(
        "homely",
        "def run(config, run):\n"
        "    import sys\n"
        "    run.once('arm', int, 'pytest' in sys.modules)\n"
        "    run.once('end', int, run.seed)\n",
    )
    breaks(runs.killed_resumes_to_the_same_bits, card, "checkpoints differ")


def test_a_run_that_fails_in_a_process_of_its_own_breaks_the_contract(
    announced: Callable[..., Card],
) -> None:
    card = announced(
        "mortal",
        "def run(config, run):\n"
        "    import sys\n"
        "    if 'pytest' not in sys.modules:\n"
        "        raise RuntimeError('only once')\n"
        "    run.once('arm', int, run.seed)\n",
    )
    breaks(runs.killed_resumes_to_the_same_bits, card, "ends with 70: .*only once")


def test_a_run_that_does_not_stop_breaks_the_contract(variant: Variant) -> None:
    def stubborn(config: Any, run: Run) -> None:
        try:
            minimal(config, run)
        except Exception:
            run.note("I go on.")

    check = runs.stops_at_its_time_limit
    breaks(check, variant(run=stubborn), "a run with a loop and no time left ended with 0")

    def spent(config: Any, run: Run) -> None:
        try:
            minimal(config, run)
        except Exception as error:
            raise ValueError("no time") from error

    with pytest.raises(ValueError, match="no time"):
        check(variant(run=spent))


# -- public objects ----------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two results."""

    one: Any
    other: Any


@dataclass(frozen=True)
class Tree:
    """A result with parts, which checks itself."""

    value: Any
    visits: Any

    def __post_init__(self) -> None:
        if len(self.value) != len(self.visits):
            raise TypeError("value and visits must be of one length")


def batch() -> tuple[torch.Tensor]:
    return (torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),)


def rows() -> tuple[np.ndarray]:
    return (np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),)


def of(function: Callable[..., Any], args: Callable[[], Any] = rows, **more: Any) -> Case:
    return Case(lambda: function, args, **more)


def trees() -> tuple[Tree]:
    return (Tree(rows()[0], np.ones(5, int)),)


SOUND = [
    of(lambda x: 2 * x, name="arrays"),
    of(lambda x: torch.tanh(x), batch, name="tensors"),
    of(lambda x: {"rows": [x, (x + 1,)], "name": "x"}, name="containers"),
    of(lambda x: Pair(x, x + 1), name="named tuple"),
    of(lambda x: Tree(x, np.ones(len(x), int)), name="dataclass out"),
    of(lambda tree: tree.value * 2, trees, name="dataclass in"),
    of(lambda x, n: x * n, lambda: (*rows(), np.array(2.0)), name="0-d", per_sample=False),
]
CHECKS_OF_CALLS = [
    objects.inputs_are_not_changed,
    objects.repeats_bit_for_bit,
    objects.keeps_global_generators,
    objects.takes_float64,
    objects.takes_strided_input,
    objects.takes_no_and_one_sample,
]


@pytest.mark.parametrize("check", CHECKS_OF_CALLS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.name)
def test_a_sound_function_keeps_the_contract(check: Callable[[Case], None], case: Case) -> None:
    check(case)


def _into_first(x: Any) -> Any:
    x[0] = 0
    return x + 1


def _flat_memory(x: torch.Tensor) -> torch.Tensor:
    """Takes it for granted that rows follow one another in memory."""
    return torch.as_strided(x, x.shape, (x.shape[1], 1)) * 2


def _refuse_none(x: np.ndarray, message: str) -> np.ndarray:
    if len(x) == 0:
        raise ValueError(message)
    return x


@pytest.mark.parametrize(
    ("check", "case", "message"),
    [
        (objects.inputs_are_not_changed, of(_into_first), "changed in place"),
        (objects.inputs_are_not_changed, of(_into_first, batch), "changed in place"),
        (objects.inputs_are_not_changed, of(lambda x: x.mul_(2), batch), "changed in place"),
        (objects.repeats_bit_for_bit, of(lambda x: x + next(COUNTER)), None),
        (objects.repeats_bit_for_bit, of(lambda x: Pair(x, x + next(COUNTER))), None),
        (objects.repeats_bit_for_bit, of(lambda x: Tree(x, x + next(COUNTER))), None),
        (objects.keeps_global_generators, of(lambda x: x + random.random()), "has moved"),
        (objects.keeps_global_generators, of(lambda x: x + draw()), "has moved"),
        (objects.keeps_global_generators, of(lambda x: x + torch.rand(()), batch), "has moved"),
        (objects.takes_float64, of(lambda x: x.astype("float32")), "doubles became float32"),
        (objects.takes_float64, of(lambda x: x.float(), batch), "doubles became float32"),
        (objects.takes_float64, of(lambda x: x + x.dtype.itemsize), None),
        (objects.takes_float64, of(lambda x: Pair(x, x.astype("f4"))), "doubles became float32"),
        (objects.takes_strided_input, of(_flat_memory, batch), None),
        (objects.takes_no_and_one_sample, of(lambda x: x[:1].ravel()), "one sample gave another"),
        (objects.takes_no_and_one_sample, of(lambda x: x.sum(0)), "one sample gave another"),
        (
            objects.takes_no_and_one_sample,
            of(lambda x: x if len(x) else np.zeros((1, 3))),
            "no sample gave a result",
        ),
        (
            objects.takes_no_and_one_sample,
            of(lambda x: _refuse_none(x, " ")),
            "an error without words",
        ),
    ],
)
def test_a_function_with_a_fault_breaks_the_contract(
    generators: None, check: Callable[[Case], None], case: Case, message: str | None
) -> None:
    breaks(check, case, message)


def test_no_sample_may_be_refused_in_words_and_need_not_be_samples_at_all() -> None:
    check = objects.takes_no_and_one_sample
    check(of(lambda x: _refuse_none(x, "x must have a row")))
    check(of(lambda x: x.sum(0), per_sample=False))
    with pytest.raises(IndexError):
        check(of(lambda x: x + x[0]))


class Net(torch.nn.Module):
    """A sound module."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(3, 2, generator=generator))
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.weight) + self.shift


class Forgets(Net):
    """Leaves a weight out of what it loads."""

    def load_state_dict(self, state_dict: Any, *_: Any, **__: Any) -> Any:
        return None


class Omits(Net):
    """Leaves a weight out of what it saves."""

    def state_dict(self, *arguments: Any, **more: Any) -> Any:
        return {k: v for k, v in super().state_dict(*arguments, **more).items() if k != "weight"}


class Sticks(Net):
    """Cannot be copied."""

    def __deepcopy__(self, memo: Any) -> Sticks:
        twin = Sticks()
        with torch.no_grad():
            twin.weight.add_(1)
        return twin


class Idle(Net):
    """Has a parameter that nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = torch.nn.Parameter(torch.zeros(1))


class Frozen(Idle):
    """Says that the parameter is not to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.idle.requires_grad_(False)


class Steep(Net):
    """Has a gradient without an end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt((x @ self.weight) * 0)


class Bare:
    """Is no module: it has no state to save."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("check", objects.CHECKS["module"], ids=lambda check: check.__name__)
@pytest.mark.parametrize("net", [Net, Frozen])
def test_a_sound_module_keeps_the_contract(check: Callable[[Case], None], net: Any) -> None:
    check(Case(net, batch, "module"))


@pytest.mark.parametrize(
    ("check", "net", "message"),
    [
        (objects.survives_copy_and_state_dict, Sticks, "a deep copy differs"),
        (objects.survives_copy_and_state_dict, Forgets, "an object that loads the state differs"),
        (objects.has_finite_gradients, Idle, "idle gets no gradient"),
        (objects.has_finite_gradients, Steep, "weight gets a gradient with NaN or inf"),
    ],
)
def test_a_module_with_a_fault_breaks_the_contract(
    check: Callable[[Case], None], net: Any, message: str
) -> None:
    breaks(check, Case(net, batch, "module"), message)


@pytest.mark.parametrize(("net", "error"), [(Omits, RuntimeError), (Bare, AttributeError)])
def test_a_module_whose_state_cannot_be_loaded_breaks_the_contract(
    net: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        objects.survives_copy_and_state_dict(Case(net, batch, "module"))


# -- optimizers --------------------------------------------------------------------------------


class Momentum(torch.optim.Optimizer):
    """Gradient descent with momentum; the variants below break one promise each."""

    sign = -0.01

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, p.grad)

    @torch.no_grad()
    def move(self, p: torch.Tensor, grad: torch.Tensor) -> None:
        state = self.state[p]
        if not state:
            state["mean"] = torch.zeros_like(p)
        state["mean"].mul_(0.9).add_(grad)
        p.add_(state["mean"], alpha=self.sign)


class Ascends(Momentum):
    sign = 0.01


class Casts(Momentum):
    @torch.no_grad()
    def move(self, p: torch.Tensor, grad: torch.Tensor) -> None:
        p.data = (p + self.sign * grad).float()


class Hides(Momentum):
    """Keeps a count where no state_dict sees it."""

    count = 0

    def move(self, p: torch.Tensor, grad: torch.Tensor) -> None:
        self.count += 1
        super().move(p, grad / self.count)


class Uncopyable(Momentum):
    def __deepcopy__(self, memo: Any) -> Uncopyable:
        import copy

        return Uncopyable(copy.deepcopy(self.param_groups[0]["params"], memo))


class Clips(Momentum):
    def move(self, p: torch.Tensor, grad: torch.Tensor) -> None:
        grad.clamp_(-0.1, 0.1)
        super().move(p, grad)


class MovesAll(Momentum):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.move(p, torch.ones_like(p) if p.grad is None else p.grad)


class Flat(Momentum):
    @torch.no_grad()
    def move(self, p: torch.Tensor, grad: torch.Tensor) -> None:
        rows = torch.as_strided(grad, grad.shape, (grad.shape[1], 1))
        p.add_(rows, alpha=self.sign)


class Noisy(Momentum):
    def move(self, p: torch.Tensor, grad: torch.Tensor) -> None:
        super().move(p, grad + 1e-3 * torch.randn_like(grad))


@pytest.mark.parametrize("check", objects.CHECKS["optimizer"], ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [Momentum, torch.optim.Adam])
def test_a_sound_optimizer_keeps_the_contract(check: Callable[[Case], None], make: Any) -> None:
    check(Case(make, kind="optimizer"))


@pytest.mark.parametrize(
    ("check", "make", "message"),
    [
        (objects.optimizer_descends, Ascends, "the loss did not fall"),
        (objects.optimizer_descends, Casts, "float64 parameters became torch.float32"),
        (objects.optimizer_resumes, Hides, "a resumed optimizer goes another way"),
        (objects.optimizer_resumes, Uncopyable, "a deep copy goes another way"),
        (objects.optimizer_leaves_gradients, Clips, "the step changed the gradient"),
        (objects.optimizer_leaves_gradients, MovesAll, "a parameter without a gradient moved"),
        (objects.optimizer_takes_strided_parameters, Flat, None),
        (objects.optimizer_keeps_global_generators, Noisy, "has moved"),
    ],
)
def test_an_optimizer_with_a_fault_breaks_the_contract(
    generators: None, check: Callable[[Case], None], make: Any, message: str | None
) -> None:
    breaks(check, Case(make, kind="optimizer"), message)


# -- estimators --------------------------------------------------------------------------------


def estimator(**methods: Any) -> Any:
    """A small estimator of scikit-learn's kind with these methods."""
    from sklearn.base import BaseEstimator, RegressorMixin

    class Mean(RegressorMixin, BaseEstimator):
        """Predicts one number."""

        def __init__(self, random_state: Any = None) -> None:
            self.random_state = random_state

        def predict(self, X: Any) -> Any:
            return np.full(len(X), self.mean_)

    return type("Mean", (Mean,), methods)()


def _fit_anew(self: Any, X: Any, y: Any) -> Any:
    self.mean_ = np.random.default_rng().normal()
    return self


def _fit_global(self: Any, X: Any, y: Any) -> Any:
    draw()
    self.mean_ = 0.0
    return self


def _fit_in_place(part: str) -> Callable[..., Any]:
    def fit(self: Any, X: Any, y: Any) -> Any:
        array = X if part == "X" else y
        array[0] = 7
        self.mean_ = 0.0
        return self

    return fit


def test_a_sound_estimator_keeps_the_contract() -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression, Ridge

    objects.passes_check_estimator(Case(LinearRegression, kind="estimator"))
    objects.estimator_repeats(Case(Ridge, kind="estimator"))
    objects.estimator_repeats(Case(lambda: PCA(2), kind="estimator"))


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (_fit_anew, "two fits with one random_state differ"),
        (_fit_global, "a global random generator has moved"),
        (_fit_in_place("X"), "fit changed X"),
        (_fit_in_place("y"), "fit changed y"),
    ],
)
def test_an_estimator_with_a_fault_breaks_the_contract(
    generators: None, fit: Any, message: str
) -> None:
    case = Case(lambda: estimator(fit=fit), kind="estimator")
    breaks(objects.estimator_repeats, case, message)


def test_an_estimator_that_scikit_learn_refuses_breaks_the_contract() -> None:
    def fit(self: Any, X: Any, y: Any) -> Any:
        self.random_state = 5
        self.mean_ = 0.0
        return self

    case = Case(lambda: estimator(fit=fit), kind="estimator")
    with pytest.raises(Exception, match=r"\w"):
        objects.passes_check_estimator(case)


def test_warnings_of_a_fit_do_not_break_the_contract() -> None:
    def fit(self: Any, X: Any, y: Any) -> Any:
        warnings.warn("did not converge", RuntimeWarning, stacklevel=1)
        self.mean_ = 0.0
        return self

    case = Case(lambda: estimator(fit=fit), kind="estimator")
    objects.estimator_repeats(case)


# -- the sham ----------------------------------------------------------------------------------


def test_the_marked_claims_of_the_toy_fall_short_with_its_sham(tmp_path: Path) -> None:
    found = check_sham(CARD, tmp_path / "run")
    assert [(line["id"], line["verdict"]) for line in found] == [
        ("finds-slope", "falls short"),
        ("beats-mean", "falls short"),
    ]


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.05, "with the sham, finds-slope did not fall short"),
        (float("nan"), "with the sham, finds-slope did not fall short"),
    ],
)
def test_a_sham_that_still_holds_is_worthless(
    variant: Variant, tmp_path: Path, value: float, message: str
) -> None:
    def run(config: Any, run: Run) -> None:
        run.measure("finds-slope", value)
        run.measure("beats-mean", 0.0)

    with pytest.raises(AssertionError, match=message):
        check_sham(variant(run=run, sham=nothing), tmp_path / "run")


def test_a_system_without_a_marked_claim_has_no_sham(variant: Variant, tmp_path: Path) -> None:
    unmarked = tuple(replace(claim, sham=False) for claim in CARD.claims)
    card = replace(variant(run=minimal), claims=unmarked)
    with pytest.raises(AssertionError, match="has no claim that is marked for the sham"):
        check_sham(card, tmp_path / "run")
    only_full = replace(CARD.claim("full-only"), sham=True, bars={"full": at_least(1)})
    with pytest.raises(AssertionError, match="and has a quick bar"):
        check_sham(replace(card, claims=(only_full,)), tmp_path / "other")


def test_shams_are_proved_from_the_command_line(
    variant: Variant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = replace(variant(run=_measuring(0.5), sham=nothing), name="short")
    holding = replace(variant(run=_measuring(0.05), sham=nothing), name="holding")
    broken = catalog.Broken("snapped", "a package", "in two")
    known = {"holding": holding, "short": short, "snapped": broken}
    monkeypatch.setattr(catalog, "systems", lambda: known)
    assert contract.main(["sham", "short"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "short: finds-slope: falls short (0.5)",
        "short: beats-mean: falls short (0.5)",
    ]
    assert contract.main(["sham"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == (
        "holding: with the sham, finds-slope did not fall short"
    )
    assert contract.main([]) == 2
    assert "usage: python -m mmxx.lab.testing sham [NAME ...]" in capsys.readouterr().err


def _measuring(value: float) -> Callable[[Any, Run], None]:
    def run(config: Any, run: Run) -> None:
        run.measure("finds-slope", value)
        run.measure("beats-mean", value)

    return run
