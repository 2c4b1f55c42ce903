"""The contract that every system passes, ours and a plug-in's.

``check_system(CARD, CASES)`` runs every check and names those that failed; `checks` gives them
one by one, for a parametrised test. A `Case` says how to build one public object and what to
call it with. ``python -m mmxx.lab.testing sham [NAME ...]`` proves that the marked claims fall
short once a method is replaced by its sham.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmxx.lab import catalog, checkpoint, claims, metrics
from mmxx.lab.catalog import Card
from mmxx.lab.errors import MmxxError
from mmxx.lab.folder import Options, config_from_json, config_json, write_json
from mmxx.lab.run import Run, create, execute, reopen

Kind = Literal["module", "optimizer", "estimator", "function"]
_HEAVY = ("torch", "numpy", "ray", "rdkit", "sklearn", "matplotlib", "lightning_fabric")
_HEADINGS = (
    "In five lines",
    "When to use it",
    "When not",
    "What differs from the paper",
    "Measured",
    "Source",
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_WAIT = 120.0  # seconds before a child process of a check is given up


@dataclass(frozen=True)
class Case:
    """One public object and what to call it with.

    Attributes:
        make: Builds the module, estimator or optimizer, or returns the function. That of an
            optimizer takes the list of parameters.
        args: Builds valid arguments: tensors or arrays whose first axis counts samples.
        kind: Which checks apply: "module", "optimizer", "estimator" (scikit-learn's own) or
            "function".
        name: Shown in the name of the test.
        per_sample: Whether the first axis of the arguments and the result are the same
            samples, so that no sample and one sample are valid input.
    """

    make: Callable[..., Any]
    args: Callable[[], tuple[Any, ...]] = tuple
    kind: Kind = "function"
    name: str = ""
    per_sample: bool = True


@dataclass(frozen=True)
class Check:
    """A named check; call it, and it raises AssertionError or returns."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()


def check_system(card: Card, cases: Sequence[Case] = ()) -> None:
    """Run every check of a system.

    Raises:
        AssertionError: Some failed; the message has a line for each.
    """
    failed: list[str] = []
    for check in checks(card, cases):
        try:
            check()
        except Exception as error:
            failed.append(f"{check.name}: {type(error).__name__}: {error}")
    if failed:
        raise AssertionError(f"{card.name} breaks its contract:\n" + "\n".join(failed))


def checks(card: Card, cases: Sequence[Case] = ()) -> list[Check]:
    """The checks of a system, those that need no long work first."""
    of_card = (
        card_is_complete,
        is_announced,
        interface_is_documented,
        configuration_is_sound,
        readme_has_its_headings,
        readme_examples_run,
        help_is_light,
        same_seed_gives_same_bits,
        seed_matters,
        sham_is_undone,
        report_is_reproducible,
        leaves_the_process_as_it_was,
        cut_short_resumes_to_the_same_bits,
        killed_resumes_to_the_same_bits,
        stops_at_its_time_limit,
    )
    found = [Check(check.__name__, partial(check, card)) for check in of_card]
    for number, case in enumerate(cases):
        label = case.name or getattr(case.make, "__name__", "").strip("_<>") or str(number)
        found += [
            Check(f"{check.__name__}[{label}]", partial(check, case))
            for check in _CASE_CHECKS[case.kind]
        ]
    return found


def _module(card: Card) -> Any:
    return importlib.import_module(card.experiment.partition(":")[0])


def _experiment(card: Card) -> Callable[[Any, Run], None]:
    module, _, name = card.experiment.partition(":")
    return getattr(importlib.import_module(module), name)


# -- the card ----------------------------------------------------------------------------------


def card_is_complete(card: Card) -> None:
    """Every field speaks, and some claim is judged in the quick tier and marked for the sham."""
    assert card.title.strip(), "Card.title is empty"
    assert len(card.summary.split()) > 3, "Card.summary says nothing"
    assert card.paper.authors, "Card.paper.authors is empty"
    assert card.paper.title.strip(), "Card.paper.title is empty"
    assert card.paper.url.startswith("https://"), "Card.paper.url is no https address"
    assert card.api, "Card.api names nothing"
    assert card.departs, "Card.departs: say where it departs from the paper, or that it does not"
    assert any("quick" in claim.bars for claim in card.claims), "no claim has a quick bar"
    marked = [claim for claim in card.claims if claim.sham]
    assert any("quick" in claim.bars for claim in marked), "no claim with a quick bar has sham=True"
    for claim in card.claims:
        assert claim.where.strip(), f"claim {claim.id} does not cite where the paper says so"


def is_announced(card: Card) -> None:
    """The entry point of that name gives this very card, and its extra exists."""
    found = catalog.systems().get(card.name)
    assert found == card, f"the entry point {card.name!r} of group {catalog.GROUP} gives {found!r}"
    if card.extra is not None:
        points = [p for p in catalog.entry_points(group=catalog.GROUP) if p.name == card.name]
        owner = points[0].dist
        extras = owner.metadata.get_all("Provides-Extra") if owner is not None else None
        assert card.extra in (extras or []), f"its package has no extra {card.extra!r}"


def interface_is_documented(card: Card) -> None:
    """Every public name imports, has a docstring, and the docstring names every parameter."""
    for target in card.api:
        module, _, name = target.partition(":")
        thing = getattr(importlib.import_module(module), name)
        text = inspect.getdoc(thing) or ""
        if inspect.isclass(thing):
            text += inspect.getdoc(thing.__init__) or ""
        assert len(text.split()) > 3, f"{target} has no docstring"
        if not callable(thing):
            continue
        missing = [
            parameter
            for parameter in inspect.signature(thing).parameters
            if not re.search(rf"\b{re.escape(parameter)}\b", text)
        ]
        assert not missing, f"the docstring of {target} does not speak of {', '.join(missing)}"


def configuration_is_sound(card: Card) -> None:
    """TINY, QUICK and FULL are frozen, documented, and survive JSON."""
    module = _module(card)
    for name in ("TINY", "QUICK", "FULL"):
        config = getattr(module, name)
        assert type(config) is module.Config, f"{name} is no Config"
        written = json.loads(json.dumps(config_json(config)))
        assert config_from_json(module.Config, written) == config, f"{name} changes through JSON"
    field = fields(module.Config)[0].name
    try:
        setattr(module.QUICK, field, None)
    except AttributeError:
        pass
    else:
        raise AssertionError("Config is not frozen")
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(module.Config))).body
    assert isinstance(body, ast.ClassDef)
    documented = {
        ast.unparse(line.target)
        for line, below in itertools.pairwise(body.body)
        if isinstance(line, ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
    for field in fields(module.Config):
        known = field.name in documented
        assert known, f"Config.{field.name} has no docstring below it, which is its help"


def _readme(card: Card) -> Path:
    return Path(str(_module(card).__file__)).with_name("README.md")


def readme_has_its_headings(card: Card) -> None:
    """The README beside the code has the headings that readers look for, in order."""
    if not _readme(card).is_file():
        raise AssertionError(f"there is no {_readme(card)}")
    found = re.findall(r"^##? (.+)$", _readme(card).read_text(encoding="utf-8"), re.MULTILINE)
    wanted = [heading for heading in found if heading in _HEADINGS]
    assert wanted == list(_HEADINGS), f"README headings must be {_HEADINGS}, got {found}"


def readme_examples_run(card: Card) -> None:
    """The code blocks of the README run, one after the other, with warnings as errors."""
    run_code_blocks(_readme(card))


def run_code_blocks(path: Path) -> None:
    """Run the ``python`` blocks of a Markdown file in one process, in an empty folder."""
    blocks = _BLOCK.findall(path.read_text(encoding="utf-8"))
    assert blocks, f"{path} has no example in Python"
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
            cwd=place,
            env={**os.environ, "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            timeout=_WAIT,
        )
    assert done.returncode == 0, f"{path}: the examples fail:\n{done.stderr[-2000:]}"


def help_is_light(card: Card) -> None:
    """``mmxx run NAME --help`` names the flags and imports nothing heavy."""
    command = [sys.executable, "-X", "importtime", "-m", "mmxx", "run", card.name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT)
    assert done.returncode == 0, f"--help ends with {done.returncode}: {done.stderr[-500:]}"
    for field in fields(_module(card).Config):
        flag = "--" + field.name.replace("_", "-")
        assert flag in done.stdout, f"--help does not show {flag}"
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    heavy = sorted(imported & set(_HEAVY))
    assert not heavy, f"--help imports {', '.join(heavy)}"


# -- runs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a run left that must be equal in every repetition."""

    claims: list[dict[str, Any]]
    digests: dict[str, str]
    metrics: list[dict[str, Any]]
    files: dict[str, bytes]


def outcome(folder: Path) -> Outcome:
    """Read what a finished run left."""
    lines = [
        {key: value for key, value in line.items() if key != "t"}
        for line in metrics.read(folder / "metrics.jsonl")
    ]
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("tables", "figures", "artifacts")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }
    found = json.loads((folder / "claims.json").read_bytes())["claims"]
    return Outcome(found, checkpoint.digests(folder / "checkpoints"), lines, files)


def assert_same(one: Outcome, other: Outcome) -> None:
    """Raise AssertionError, naming the first part in which two outcomes differ."""
    assert one.claims == other.claims, _differ("claims.json", one.claims, other.claims)
    assert one.digests == other.digests, _differ("checkpoints", one.digests, other.digests)
    assert one.metrics == other.metrics, _differ("metrics.jsonl", one.metrics, other.metrics)
    assert one.files.keys() == other.files.keys(), _differ(
        "files", sorted(one.files), sorted(other.files)
    )
    for name, content in one.files.items():
        assert content == other.files[name], f"{name} differs"


def _differ(what: str, one: object, other: object) -> str:
    return f"{what} differ:\n{one!r:.1500}\n{other!r:.1500}"


def run_tiny(card: Card, folder: Path, *, seed: int = 0, backend: str = "serial") -> Outcome:
    """Run the smallest configuration in this process."""
    options = Options(seed=seed, backend=backend)
    execute(create(folder, card, _module(card).TINY, options, "tiny"), _experiment(card))
    return outcome(folder)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "run"


def same_seed_gives_same_bits(card: Card) -> None:
    """Two runs with one seed leave the same claims, checkpoints, metrics and files."""
    with _folder() as one, _folder() as other:
        first = run_tiny(card, one)
        assert (one / "report.html").is_file(), "there is no report"
        assert first.digests, "nothing was saved: an experiment needs a run.loop or run.once"
        unsaid = [c["id"] for c in first.claims if c["note"] == claims.NOT_REACHED]
        assert not unsaid, f"the run ended without a word on {', '.join(unsaid)}"
        assert_same(first, run_tiny(card, other))


def seed_matters(card: Card) -> None:
    """Another seed gives other checkpoints."""
    with _folder() as one, _folder() as other:
        first, second = run_tiny(card, one), run_tiny(card, other, seed=1)
        assert first.digests != second.digests, "another seed leaves the same checkpoints"


def sham_is_undone(card: Card) -> None:
    """The sham runs, and leaving it leaves no trace."""
    with _folder() as one, _folder() as shammed, _folder() as other:
        first = run_tiny(card, one)
        with _module(card).sham():
            run_tiny(card, shammed)
        assert_same(first, run_tiny(card, other))


def report_is_reproducible(card: Card) -> None:
    """A copy of the run folder gives the same page, byte by byte."""
    from mmxx.lab.report.render import render_run

    with _folder() as one, tempfile.TemporaryDirectory() as place:
        run_tiny(card, one)
        copied = Path(place) / "copy"
        shutil.copytree(one, copied)
        (copied / "report.html").unlink()
        assert render_run(copied).read_bytes() == (one / "report.html").read_bytes()


def leaves_the_process_as_it_was(card: Card) -> None:
    """Writes only in the run folder, opens no socket, leaves the global generators alone."""
    with _folder() as folder:
        before = _global_states()
        with _watched(folder) as seen:
            run_tiny(card, folder)
        assert not seen, f"the run touched: {', '.join(sorted(seen))}"
        assert _same_states(before, _global_states()), "a global random generator has moved"


def cut_short_resumes_to_the_same_bits(card: Card) -> None:
    """Cut off after its first, middle and last save, a run resumes and ends the same."""
    with _folder() as folder:
        with _cut_after(None) as saves:
            straight = run_tiny(card, folder)
        total = saves[0]
    for number in sorted({1, (total + 1) // 2, total}):
        with _folder() as folder:
            try:
                with _cut_after(number):
                    run_tiny(card, folder)
            except _Cut:
                pass
            execute(reopen(folder, card, _module(card).Config), _experiment(card))
            assert_same(straight, outcome(folder))


def killed_resumes_to_the_same_bits(card: Card) -> None:
    """Killed (signal 9) once something is saved, a run resumes and ends the same."""
    with _folder() as folder, _folder() as straight:
        config = folder.with_name("tiny.json")
        write_json(config, config_json(_module(card).TINY))
        command = [sys.executable, "-m", "mmxx", "run", card.name, "--backend", "serial"]
        command += ["--config", str(config), "--out"]
        expected = run_tiny(card, straight)
        environment = {**os.environ, **_threads()}
        child = subprocess.Popen(
            [*command, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        deadline = time.monotonic() + _WAIT
        while child.poll() is None and time.monotonic() < deadline:
            if any((folder / "checkpoints").glob("*/step-*")):
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        child.wait()
        resumed = subprocess.run(
            [sys.executable, "-m", "mmxx", "resume", str(folder)],
            capture_output=True, text=True, env=environment, timeout=_WAIT,
        )  # fmt: skip
        assert resumed.returncode == 0, f"resume ends with {resumed.returncode}: {resumed.stderr}"
        assert_same(expected, outcome(folder))


def stops_at_its_time_limit(card: Card) -> None:
    """A time limit ends a run as interrupted, and it can be resumed."""
    with _folder() as folder:
        options = Options(backend="serial", time_limit=1e-9)
        run = create(folder, card, _module(card).TINY, options, "tiny")
        code = 0
        try:
            execute(run, _experiment(card))
        except MmxxError as error:
            code = error.exit_code
        record = json.loads((folder / "run.json").read_bytes())
        if any((folder / "checkpoints").glob("*/step-*[1-9]*")):  # else there is no loop to stop
            assert code == 75, f"a run with a loop and no time left ended with {code}"
            assert record["status"] == "interrupted", f"its status is {record['status']!r}"
            execute(reopen(folder, card, _module(card).Config), _experiment(card))


def _threads() -> dict[str, str]:
    torch = sys.modules.get("torch")
    return {"OMP_NUM_THREADS": str(torch.get_num_threads())} if torch is not None else {}


class _Cut(BaseException):
    """Stands for a kill inside one process: no handler of the lab catches it."""


@contextmanager
def _cut_after(number: int | None) -> Iterator[list[int]]:
    """Raise right after the save of that number; count the saves."""
    real, count = checkpoint.save, [0]

    def save(*args: Any, **more: Any) -> Path:
        path = real(*args, **more)
        count[0] += 1
        if count[0] == number:
            raise _Cut
        return path

    checkpoint.save = save
    try:
        yield count
    finally:
        checkpoint.save = real


def _global_states() -> tuple[Any, ...]:
    torch = sys.modules.get("torch")
    state = np.random.get_state()  # noqa: NPY002 - the global state is what is watched
    return (
        random.getstate(),
        tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in state),
        None if torch is None else torch.get_rng_state().numpy().tobytes(),
    )


def _same_states(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    # torch may have been imported in between; its generator then counts from there on
    pairs = zip(one, other, strict=True)
    return all(a == b for a, b in pairs if a is not None)


_watching: list[Callable[[str, tuple[Any, ...]], None]] = []
_hooked: list[object] = []
# of each event: the place of the address
_TALKS = {
    "socket.connect": 1,
    "socket.bind": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
# of each event: the place of the path that changes, and of the folder it is relative to
_WRITES = {
    "os.mkdir": (0, 2),
    "os.rename": (1, 3),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.symlink": (1, 2),
    "os.link": (1, 3),
    "os.truncate": (0, None),
}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    for watcher in _watching:
        watcher(event, arguments)


@contextmanager
def _watched(folder: Path) -> Iterator[set[str]]:
    """Collect every write outside of a folder and every use of a socket."""
    if _audit not in _hooked:
        sys.addaudithook(_audit)  # cannot be taken off again
        _hooked.append(_audit)
    allowed = [str(folder.resolve()), str(folder.absolute()), os.path.dirname(os.devnull)]
    allowed += [os.environ[n] for n in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR") if n in os.environ]
    seen: set[str] = set()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _TALKS:
            seen.add(f"{event} {arguments[_TALKS[event]]!r}")
            return
        if event == "open":
            path, mode, flags = arguments
            if not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or "w" in (mode or "")):
                return
            base = -1
        elif event in _WRITES:
            what, relative = _WRITES[event]
            path, base = arguments[what], -1 if relative is None else arguments[relative]
        else:
            return
        if not isinstance(path, (str, bytes, Path)):
            return
        above = os.readlink(f"/proc/self/fd/{base}") if base != -1 else os.getcwd()
        where = os.path.normpath(os.path.join(above, os.fsdecode(path)))
        inside = any(where == root or where.startswith(root + os.sep) for root in allowed)
        if "__pycache__" not in where and not inside:
            seen.add(f"{event} {where}")

    _watching.append(watch)
    try:
        yield seen
    finally:
        _watching.remove(watch)


# -- public objects ----------------------------------------------------------------------------


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) or checkpoint.is_tensor(value)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a change to every array and tensor of a tree."""
    if _is_array(value):
        return change(value)
    if isinstance(value, (list, tuple)):
        parts = [_each(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: _each(v, change) for key, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        twin = copy.copy(value)  # its own checks need not hold for what stands in for arrays
        for field in fields(value):
            object.__setattr__(twin, field.name, _each(getattr(value, field.name), change))
        return twin
    return value


def _bits(value: Any) -> Any:
    """A tree with arrays replaced by what must be equal in a repetition."""

    def of(array: Any) -> Any:
        array = array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
        return ("array", array.dtype.str, array.shape, array.tobytes())

    return _each(value, of)


def _floats(value: Any, dtype: str) -> Any:
    def change(array: Any) -> Any:
        if isinstance(array, np.ndarray):
            return array.astype(dtype) if array.dtype.kind == "f" else array
        return (
            array.to(getattr(sys.modules["torch"], dtype)) if array.is_floating_point() else array
        )

    return _each(value, change)


def _strided(value: Any) -> Any:
    """The same numbers in memory that is not contiguous."""

    def change(array: Any) -> Any:
        if array.ndim == 0:
            return array
        if isinstance(array, np.ndarray):
            wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
            wide[..., ::2] = array
            return wide[..., ::2]
        wide = array.new_zeros((*array.shape[:-1], 2 * array.shape[-1]))
        wide[..., ::2] = array
        return wide[..., ::2]

    return _each(value, change)


def _call(case: Case, args: tuple[Any, ...], dtype: str | None = None) -> Any:
    thing = case.make()
    if case.kind == "module":
        thing = thing.double() if dtype == "float64" else thing
    return thing(*args)


def inputs_are_not_changed(case: Case) -> None:
    """The arguments have the same bits after the call."""
    args = case.args()
    before = copy.deepcopy(_bits(args))
    _call(case, args)
    assert _bits(args) == before, "an argument was changed in place"


def repeats_bit_for_bit(case: Case) -> None:
    """The same object and arguments, made and called twice, give the same bits."""
    assert _bits(_call(case, case.args())) == _bits(_call(case, case.args()))


def keeps_global_generators(case: Case) -> None:
    """The call leaves the generators of random, numpy and torch where they were."""
    thing, args = case.make(), case.args()
    before = _global_states()
    thing(*args)
    assert _same_states(before, _global_states()), "a global random generator has moved"


def takes_float64(case: Case) -> None:
    """Doubles in, doubles out, and close to the result in single precision."""
    single = _numbers(_call(case, _floats(case.args(), "float32")))
    double = _numbers(_call(case, _floats(case.args(), "float64"), "float64"))
    for one, other in zip(single, double, strict=True):
        assert other.dtype in (np.float64, np.complex128), f"doubles became {other.dtype}"
        scale = max(1.0, float(np.abs(other).max(initial=0.0)))
        assert np.allclose(one, other, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)


def _numbers(value: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []

    def keep(array: Any) -> Any:
        array = array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
        if array.dtype.kind in "fc":
            found.append(array)
        return array

    _each(value, keep)
    return found


def takes_strided_input(case: Case) -> None:
    """Memory that is not contiguous gives the same result."""
    plain, strided = _call(case, case.args()), _call(case, _strided(case.args()))
    for one, other in zip(_numbers(plain), _numbers(strided), strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


def takes_no_and_one_sample(case: Case) -> None:
    """One sample gives one result; none gives none, or an error that says so."""
    if not case.per_sample:
        return
    one = _call(case, _each(case.args(), lambda array: array[:1]))
    assert all(len(array) == 1 for array in _numbers(one)), "one sample gave another number"
    try:
        none = _call(case, _each(case.args(), lambda array: array[:0]))
    except ValueError as error:
        assert str(error).strip(), "no sample raises an error without words"
    else:
        assert all(len(array) == 0 for array in _numbers(none)), "no sample gave a result"


def survives_copy_and_state_dict(case: Case) -> None:
    """A deep copy, and a new object that loads the state, give the same bits."""
    thing, args = case.make(), case.args()
    expected = _bits(thing(*args))
    assert _bits(copy.deepcopy(thing)(*args)) == expected, "a deep copy differs"
    torch = sys.modules["torch"]
    state = {name: value.clone() for name, value in thing.state_dict().items()}
    other = case.make()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(state)
    assert _bits(other(*args)) == expected, "an object that loads the state differs"


def has_finite_gradients(case: Case) -> None:
    """Every parameter gets a finite gradient."""
    thing = case.make()
    torch = sys.modules["torch"]
    outputs: list[Any] = []
    _each(thing(*case.args()), outputs.append)
    losses = [out.double().pow(2).sum() for out in outputs if out.is_floating_point()]
    torch.stack(losses).sum().backward()
    for name, parameter in thing.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{name} gets a gradient with NaN or inf"


def _quadratic(dtype: Any = None) -> tuple[Any, Callable[[], Any]]:
    import torch

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 5, generator=generator).to(dtype or torch.float32)
    weights = torch.nn.Parameter(start)
    return weights, lambda: (weights**2).sum()


def _descend(weights: Any, loss: Callable[[], Any], optimizer: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def optimizer_descends(case: Case) -> None:
    """A quadratic bowl gets lower, in single and double precision."""
    import torch

    for dtype in (torch.float32, torch.float64):
        weights, loss = _quadratic(dtype)
        before = loss().item()
        _descend(weights, loss, case.make([weights]), 60)
        assert loss().item() < before, f"the loss did not fall in {dtype}"
        assert weights.dtype == dtype, f"{dtype} parameters became {weights.dtype}"


def optimizer_resumes(case: Case) -> None:
    """With its state loaded, or copied, an optimizer goes on bit for bit."""
    weights, loss = _quadratic()
    optimizer = case.make([weights])
    _descend(weights, loss, optimizer, 5)
    middle, state = weights.detach().clone(), copy.deepcopy(optimizer.state_dict())
    _descend(weights, loss, optimizer, 5)
    other, other_loss = _quadratic()
    other.data.copy_(middle)
    resumed = case.make([other])
    resumed.load_state_dict(state)
    _descend(other, other_loss, resumed, 5)
    assert _bits(weights) == _bits(other), "a resumed optimizer goes another way"
    copied_weights, copied = copy.deepcopy((weights, optimizer))
    _descend(weights, loss, optimizer, 3)
    _descend(copied_weights, lambda: (copied_weights**2).sum(), copied, 3)
    assert _bits(weights) == _bits(copied_weights), "a deep copy goes another way"


def optimizer_leaves_gradients(case: Case) -> None:
    """A step does not change the gradient, and skips a parameter that has none."""
    weights, loss = _quadratic()
    idle, _ = _quadratic()
    optimizer = case.make([weights, idle])
    loss().backward()
    before, still = _bits(weights.grad), _bits(idle)
    optimizer.step()
    assert _bits(weights.grad) == before, "the step changed the gradient"
    assert _bits(idle) == still, "a parameter without a gradient moved"


def optimizer_takes_strided_parameters(case: Case) -> None:
    """Parameters and gradients that are not contiguous move as contiguous ones do."""
    import torch

    weights, _ = _quadratic()
    strided = torch.nn.Parameter(weights.detach().t().contiguous().t())
    for parameter in (weights, strided):
        optimizer = case.make([parameter])
        _descend(parameter, lambda p=parameter: (p**2).sum(), optimizer, 5)
    assert torch.allclose(weights, strided, rtol=1e-5, atol=1e-7)


def optimizer_keeps_global_generators(case: Case) -> None:
    """Steps leave the global generators alone."""
    weights, loss = _quadratic()
    optimizer = case.make([weights])
    before = _global_states()
    _descend(weights, loss, optimizer, 2)
    assert _same_states(before, _global_states()), "a global random generator has moved"


def passes_check_estimator(case: Case) -> None:
    """Every check of scikit-learn's own contract, without an exception."""
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(case.make())


def estimator_repeats(case: Case) -> None:
    """Fitted twice with one random_state it predicts the same bits; nothing global moves."""
    from sklearn.base import clone

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    first: Any = case.make()
    if "random_state" in first.get_params():
        first.set_params(random_state=0)
    second: Any = clone(first)
    kept, before = (X.copy(), y.copy()), _global_states()
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few steps need not converge
        for model in (first, second):
            model.fit(X, y)
            method = "predict" if hasattr(model, "predict") else "transform"
            results.append(_bits(np.asarray(getattr(model, method)(X))))
    assert results[0] == results[1], "two fits with one random_state differ"
    assert _same_states(before, _global_states()), "a global random generator has moved"
    assert np.array_equal(kept[0], X), "fit changed X"
    assert np.array_equal(kept[1], y), "fit changed y"


_CALLED = (
    inputs_are_not_changed,
    repeats_bit_for_bit,
    keeps_global_generators,
    takes_float64,
    takes_strided_input,
    takes_no_and_one_sample,
)
_CASE_CHECKS: dict[Kind, tuple[Callable[[Case], None], ...]] = {
    "function": _CALLED,
    "module": (*_CALLED, survives_copy_and_state_dict, has_finite_gradients),
    "optimizer": (
        optimizer_descends,
        optimizer_resumes,
        optimizer_leaves_gradients,
        optimizer_takes_strided_parameters,
        optimizer_keeps_global_generators,
    ),
    "estimator": (passes_check_estimator, estimator_repeats),
}


# -- the sham ----------------------------------------------------------------------------------


def check_sham(card: Card, folder: Path) -> list[dict[str, Any]]:
    """Run the quick tier with the sham in the method's place; return the marked claims.

    Tasks run in this process, since a worker would import the method itself.

    Raises:
        AssertionError: A marked claim with a quick bar does not fall short.
    """
    module = _module(card)
    run = create(folder, card, module.QUICK, Options(backend="serial"), "quick")
    with module.sham():
        execute(run, _experiment(card))
    marked = [line for line in run.verdicts if line["sham"]]
    assert marked, f"{card.name} has no claim that is marked for the sham and has a quick bar"
    wrong = [line["id"] for line in marked if line["verdict"] != claims.FALLS_SHORT]
    assert not wrong, f"{card.name}: with the sham, {', '.join(wrong)} did not fall short"
    return marked


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m mmxx.lab.testing sham [NAME ...]``: exit 1 where a sham still holds."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] != ["sham"]:
        print("usage: python -m mmxx.lab.testing sham [NAME ...]", file=sys.stderr)
        return 2
    names = arguments[1:] or [n for n, c in catalog.systems().items() if isinstance(c, Card)]
    code = 0
    for name in names:
        with _folder() as folder:
            try:
                for line in check_sham(catalog.find(name), folder):
                    print(f"{name}: {line['id']}: {line['verdict']} ({line['measured']:.4g})")
            except AssertionError as error:
                print(error)
                code = 1
    return code


if __name__ == "__main__":
    raise SystemExit(main())
