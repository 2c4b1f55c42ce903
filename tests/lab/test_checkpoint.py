"""Checkpoints: every bit comes back, and no accident takes an older one along."""

from __future__ import annotations

import builtins
import copy
import math
import os
import shutil
import struct
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmxx.lab import checkpoint
from mmxx.lab.checkpoint import UnsupportedError, capture, latest, restore, save
from mmxx.lab.errors import BadInputError, CannotWriteError

OWNER = {"system": "toy", "config": "c0", "seed": "0", "loop": "fit"}
FILES = ("tensors.safetensors", "state.json", "manifest.json")


def there_and_back(tree: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), 3, tree, owner=OWNER, done=False)
        found = latest(Path(folder), owner=OWNER)
        assert found is not None
        assert (found.step, found.done, found.skipped) == (3, False, ())
        return found.tree


def bits(value: Any) -> Any:
    """A tree in which equal means equal in type and in every bit."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().resolve_conj().resolve_neg().flatten()
        flat = torch.empty(plain.shape, dtype=plain.dtype).copy_(plain)
        return ("tensor", str(value.dtype), tuple(value.shape), bytes(flat.untyped_storage()))
    if isinstance(value, (np.ndarray, np.generic)):
        native = value.astype(value.dtype.newbyteorder("="))
        return (type(value).__name__, native.dtype.str, value.shape, native.tobytes())
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else ("float", struct.pack("d", value))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [bits(v) for v in value])
    if isinstance(value, dict):
        return ("dict", [(bits(k), bits(v)) for k, v in value.items()])
    return (type(value).__name__, value)


# -- trees -------------------------------------------------------------------------------------

DTYPES = "bool u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8 c8 >f8 >i4".split()
TORCH = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
         torch.float8_e5m2, torch.complex64, torch.int8, torch.int16, torch.int32, torch.int64,
         torch.uint8, torch.bool]  # fmt: skip
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def arrays(draw: Callable[..., Any]) -> np.ndarray:
    """Any bits (so every NaN), in memory that runs forwards, backwards or with gaps."""
    dtype, shape = np.dtype(draw(st.sampled_from(DTYPES))), draw(SHAPES)
    size = math.prod(shape) * dtype.itemsize
    content = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype.kind == "b":
        content = bytearray(byte % 2 for byte in content)
    array = np.frombuffer(bytes(content), dtype).reshape(shape).copy()
    way = draw(st.sampled_from(["plain", "transposed", "backwards", "gaps", "repeated"]))
    if way == "transposed":
        return array.T
    if array.ndim and way == "backwards":
        return array[::-1]
    if array.ndim and way == "gaps":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return np.broadcast_to(array, (2, *shape)) if way == "repeated" else array


@st.composite
def tensors(draw: Callable[..., Any]) -> torch.Tensor:
    dtype, shape = draw(st.sampled_from(TORCH)), draw(SHAPES)
    size = math.prod(shape) * dtype.itemsize
    content = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:
        content = bytes(byte % 2 for byte in content)
    tensor = torch.zeros(shape, dtype=dtype)
    if size:
        tensor = torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)
    way = draw(st.sampled_from(["plain", "transposed", "expanded"]))
    if way == "expanded":
        return tensor.expand(2, *shape)
    return tensor.permute(tuple(reversed(range(tensor.ndim)))) if way == "transposed" else tensor


def scalars() -> Any:
    return arrays().filter(lambda array: array.size > 0).map(lambda array: array.flat[0])


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = (
    st.text(max_size=3)
    | st.sampled_from(["~", "v", "a.b", "a[0]"])
    | st.integers()
    | st.floats(allow_nan=False)
    | st.tuples(st.integers(), st.text(max_size=2))
)
TREES = st.recursive(
    PLAIN | arrays() | tensors() | scalars(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(TREES)
@settings(max_examples=120, deadline=None)
def test_a_tree_comes_back_bit_for_bit(tree: Any) -> None:
    assert bits(there_and_back(tree)) == bits(tree)


@given(TREES)
@settings(max_examples=30, deadline=None)
def test_equal_trees_are_equal_bytes(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one = save(Path(folder) / "one", 1, tree, owner=OWNER, done=True)
        other = save(Path(folder) / "other", 1, copy.deepcopy(tree), owner=OWNER, done=True)
        assert sorted(path.name for path in one.iterdir()) == sorted(FILES)
        for name in FILES:
            assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("value", [0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan, 1e308])
def test_a_float_keeps_every_bit(value: float) -> None:
    found = there_and_back({"x": value})["x"]
    assert type(found) is float
    assert bits(found) == bits(value)


def test_places_of_one_spelling_do_not_share_their_content() -> None:
    tree = {
        "a": {"b": np.arange(2)},
        "a.b": np.arange(3),
        "list": [np.arange(4)],
        "list[0]": np.arange(5),
        1: torch.arange(6),
        "1": torch.arange(7),
    }
    assert bits(there_and_back(tree)) == bits(tree)


def test_numpy_numbers_are_keys_of_their_own() -> None:
    tree = {np.int64(1): "one", np.int64(2): "two", np.float32(0.5): "half"}
    found = there_and_back(tree)
    assert bits(found) == bits(tree)


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path: Path) -> None:
    shared = torch.arange(10_000.0)
    path = save(tmp_path, 1, {"a": shared, "b": shared}, owner=OWNER, done=False)
    assert (path / "tensors.safetensors").stat().st_size < 1.1 * shared.numel() * 4
    found = latest(tmp_path, owner=OWNER)
    assert found is not None
    assert found.tree["a"] is found.tree["b"]
    assert torch.equal(found.tree["a"], shared)


def test_views_of_one_memory_are_told_apart() -> None:
    base = torch.arange(6.0)
    array = np.arange(6.0)
    whole = torch.tensor([1 + 2j])
    tree = {
        "whole": base,
        "part": base[:3],
        "square": base.view(2, 3),
        "gaps": base[::2],
        "as integers": base.view(torch.int32),
        "transposed": base.view(2, 3).t().t()[:, :2],
        "array": array,
        "backwards": array[::-1],
        "number": whole,
        "conjugate": whole.conj(),
        "imaginary": whole.conj().imag,
    }
    assert bits(there_and_back(tree)) == bits(tree)


def test_numpy_and_torch_stay_what_they_are_side_by_side() -> None:
    array = np.arange(3, dtype=np.uint16)
    tree = {"array": array, "tensor": torch.ones(2), "scalar": np.float16(1.5), "0-d": np.array(2)}
    found = there_and_back(tree)
    assert bits(found) == bits(tree)
    found["array"][0] = 9  # writeable, and its own
    assert array[0] == 0


def test_mappings_and_parameters_come_back_as_dictionaries_and_tensors() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    tree = OrderedDict(b=defaultdict(int, {3: 1}), a=parameter, c=np.str_("text"))
    found = there_and_back(tree)
    assert list(found) == ["b", "a", "c"]
    assert type(found) is dict
    assert found["b"] == {3: 1}
    assert type(found["a"]) is torch.Tensor
    assert found["c"] == "text"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "a object"),
        ({1, 2}, "a set"),
        (b"bytes", "a bytes"),
        (1 + 2j, "a complex"),
        (lambda: 0, "a function"),
        (np.array(["text"]), "a ndarray of <U4"),
        (np.array([object()]), "a ndarray of object"),
        (np.datetime64("2020-01-01"), "a datetime64 of"),
        (np.zeros(2, np.complex128), "a ndarray of complex128"),
        (np.complex128(1), "a complex128 of complex128"),
        (torch.zeros(2, dtype=torch.complex128), "a Tensor of torch.complex128"),
        (torch.eye(3).to_sparse(), "a Tensor of torch.float32"),
        (torch.zeros(2, device="meta"), "a Tensor of torch.float32"),
        (np.random.default_rng(0), "a Generator"),
    ],
)
def test_what_cannot_be_written_without_pickle_is_named_with_its_place(
    tmp_path: Path, value: Any, kind: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        save(tmp_path / "c", 1, {"deep": [0, (value,)]}, owner=OWNER, done=False)
    assert str(caught.value).startswith(f"state.deep[1][0] is {kind}")
    assert not (tmp_path / "c").exists()


# -- which one is the latest -------------------------------------------------------------------


def number(folder: Path) -> tuple[int, Any] | None:
    found = latest(folder, owner=OWNER)
    return None if found is None else (found.step, found.tree)


def test_there_is_none_in_a_new_folder(tmp_path: Path) -> None:
    assert latest(tmp_path / "none", owner=OWNER) is None
    assert latest(tmp_path, owner=OWNER) is None


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 1_000_000_000):
        path = save(tmp_path, step, step, owner=OWNER, done=step > 10)
        assert number(tmp_path) == (step, step)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-000000010", "step-1000000000"]
    assert path == tmp_path / "step-1000000000"
    found = latest(tmp_path, owner=OWNER)
    assert found is not None
    assert found.done


def test_a_step_that_is_saved_again_replaces_the_old_one(tmp_path: Path) -> None:
    save(tmp_path, 5, "old", owner=OWNER, done=False)
    save(tmp_path, 5, "new", owner=OWNER, done=False)
    assert number(tmp_path) == (5, "new")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    left = tmp_path / ".tmp-123-step-000000009"
    left.mkdir()
    (left / "state.json").write_text("half")
    save(tmp_path, 5, 5, owner=OWNER, done=False)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000005"]


@pytest.mark.parametrize(
    ("key", "value"), [("system", "other"), ("config", "c1"), ("seed", "1"), ("loop", "b")]
)
def test_a_stranger_s_checkpoint_is_refused(tmp_path: Path, key: str, value: str) -> None:
    save(tmp_path, 1, 0, owner=OWNER, done=False)
    with pytest.raises(BadInputError, match=f"belongs to {key} '{OWNER[key]}', not to '{value}'"):
        latest(tmp_path, owner={**OWNER, key: value})


def test_an_owner_with_more_to_its_name_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1, 0, owner={**OWNER, "rank": "1"}, done=False)
    with pytest.raises(BadInputError, match="belongs to another run"):
        latest(tmp_path, owner=OWNER)


# -- damage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_saves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saves") / "fit"
    save(folder, 5, {"w": np.arange(3.0), "loss": 0.5}, owner=OWNER, done=False)
    save(folder, 9, {"w": np.arange(3.0) + 1, "loss": 0.25}, owner=OWNER, done=True)
    return folder


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(shutil.copytree(folder, Path(place) / "fit"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "longer", "a folder"])
def test_a_damaged_checkpoint_is_skipped_by_name(two_saves: Path, name: str, harm: str) -> None:
    with copied(two_saves) as folder:
        path = folder / "step-000000009" / name
        content = path.read_bytes()
        path.unlink()
        if harm == "a folder":
            path.mkdir()
        elif harm != "missing":
            changed = {"empty": b"", "cut": content[:-1], "longer": content + b"x"}[harm]
            path.write_bytes(changed)
        found = latest(folder, owner=OWNER)
        assert found is not None
        assert (found.step, found.done) == (5, False)
        assert bits(found.tree) == bits({"w": np.arange(3.0), "loss": 0.5})
        assert len(found.skipped) == 1
        assert found.skipped[0].startswith("step-000000009 (")


@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_no_flipped_bit_goes_unnoticed(two_saves: Path, name: str, place: float, flip: int) -> None:
    with copied(two_saves) as folder:
        path = folder / "step-000000009" / name
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 1 << flip
        path.write_bytes(content)
        found = latest(folder, owner=OWNER)
        assert found is not None
        if name == "manifest.json" and found.step == 9:  # white space became other white space
            assert bits(found.tree) == bits({"w": np.arange(3.0) + 1, "loss": 0.25})
            assert found.done
        else:
            assert found.step == 5
            assert len(found.skipped) == 1


def test_where_all_are_damaged_the_loop_begins_anew_and_says_what_was_skipped(
    two_saves: Path,
) -> None:
    with copied(two_saves) as folder:
        for path in folder.glob("*/state.json"):
            path.write_text("{}")
        found = latest(folder, owner=OWNER)
        assert found is not None
        assert (found.step, found.tree, found.done) == (0, None, False)
        assert [text[:14] for text in found.skipped] == ["step-000000009", "step-000000005"]


@pytest.mark.parametrize("manifest", [b"[]", b"7", b"null", b'{"sha256": 1}', b"[" * 10_000])
def test_a_manifest_of_another_shape_is_damage(two_saves: Path, manifest: bytes) -> None:
    with copied(two_saves) as folder:
        (folder / "step-000000009" / "manifest.json").write_bytes(manifest)
        found = latest(folder, owner=OWNER)
        assert found is not None
        assert found.step == 5


class Killed(BaseException):
    """Stands for a kill: no handler may see it."""


def interrupt(
    monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException
) -> Callable[[], bool]:
    """Let the call of that number to the file system raise; tell whether it was reached."""
    count = [0]

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                raise error
            return real(*arguments, **more)

        return call

    for owner, name in ((os, "fsync"), (os, "replace"), (os, "open"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, guard(getattr(owner, name)))
    monkeypatch.setattr(checkpoint, "open", guard(builtins.open), raising=False)
    return lambda: count[0] >= number


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "a step saved again"])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = 0
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        save(folder, 1, "oldest", owner=OWNER, done=False)
        save(folder, 2, "old", owner=OWNER, done=False)
        with monkeypatch.context() as patched:
            reached = interrupt(patched, moment, Killed())
            try:
                save(folder, 2 if again else 3, "new", owner=OWNER, done=False)
            except Killed:
                moments += 1
        if not reached():
            break
        found = latest(folder, owner=OWNER)
        assert found is not None
        assert found.tree in ("oldest", "old", "new") if again else found.tree in ("old", "new")
        assert found.skipped == ()
        save(folder, 4, "next", owner=OWNER, done=False)
        assert number(folder) == (4, "next")
        assert not list(folder.glob(".tmp-*"))
    assert moments > 8


def test_a_disk_that_fills_up_at_any_moment_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        save(folder, 1, "old", owner=OWNER, done=False)
        with monkeypatch.context() as patched:
            reached = interrupt(patched, moment, OSError(28, "No space left on device"))
            message = "nothing was refused"
            try:
                save(folder, 2, "new", owner=OWNER, done=False)
            except CannotWriteError as error:
                failures, message = failures + 1, str(error)
        if not reached():
            break
        assert message.endswith("step-000000002: No space left on device")
        assert number(folder) in ((1, "old"), (2, "new"))
        assert not list(folder.glob(".tmp-*"))
    assert failures > 8


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="Not a directory"):
        save(tmp_path / "file" / "fit", 1, 0, owner=OWNER, done=False)


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    checkpoint.write_bytes(path, b"old")
    failures = 0
    for moment in range(1, 20):
        with monkeypatch.context() as patched:
            reached = interrupt(patched, moment, OSError(30, "Read-only file system"))
            message = "nothing was refused"
            try:
                checkpoint.write_bytes(path, b"new")
            except CannotWriteError as error:
                failures, message = failures + 1, str(error)
        if not reached():
            break
        assert message == f"cannot write {path}: Read-only file system"
        assert path.read_bytes() in (b"old", b"new")
        assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
        checkpoint.write_bytes(path, b"old")
    assert failures > 3


def test_digests_are_of_the_last_tensors_of_every_loop(tmp_path: Path) -> None:
    assert checkpoint.digests(tmp_path / "none") == {}
    for loop, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save(tmp_path / loop, 1, np.array(0.0), owner=OWNER, done=False)
        save(tmp_path / loop, 2, np.array(value), owner=OWNER, done=True)
    (tmp_path / "empty").mkdir()
    found = checkpoint.digests(tmp_path)
    assert list(found) == ["a", "b", "c"]
    assert found["a"] == found["b"] != found["c"]


# -- live objects ------------------------------------------------------------------------------


def saved(value: Any) -> Any:
    """What a checkpoint gives back of a live object."""
    return there_and_back(capture(value))


@given(st.lists(arrays() | tensors(), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_tensors_and_arrays_are_restored_in_place(parts: list[Any]) -> None:
    live = {"parts": [copy.deepcopy(part) for part in parts]}
    for index, part in enumerate(live["parts"]):  # memory that repeats cannot be written to
        live["parts"][index] = part.clone() if torch.is_tensor(part) else part.copy()
    held = list(live["parts"])
    tree = saved(live)
    for part in held:
        part[...] = 0
    restore(live, tree)
    for part, original, kept in zip(live["parts"], parts, held, strict=True):
        # where numpy bytes run the other way round, the native twin takes the place
        assert part is kept or part.dtype != kept.dtype
        assert bits(part) == bits(original)


def test_a_module_an_optimizer_and_schedulers_go_on_where_they_were() -> None:
    def build() -> dict[str, Any]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        opt = torch.optim.AdamW(net.parameters(), lr=0.1)
        lr = torch.optim.lr_scheduler
        cosine = lr.CosineAnnealingLR(opt, 20)
        return {"net": net, "opt": opt, "schedule": cosine, "plain": lr.StepLR(opt, 3)}

    def steps(live: dict[str, Any], count: int) -> None:
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            x = torch.randn(5, 3, generator=generator)
            live["opt"].zero_grad()
            live["net"](x).pow(2).sum().backward()
            live["opt"].step()
            live["schedule"].step()
            live["plain"].step()

    one = build()
    steps(one, 4)
    tree = saved(one)
    other = build()
    weight = other["net"][0].weight
    restore(other, tree)
    assert other["net"][0].weight is weight
    for live in (one, other):
        steps(live, 3)
    assert bits(capture(one)) == bits(capture(other))


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_a_numpy_generator_goes_on_where_it_was(kind: Any) -> None:
    one = np.random.Generator(kind(5))
    one.integers(10, size=3, dtype=np.int32)  # leaves half a word behind
    tree = saved(one)
    expected = one.integers(10, size=9, dtype=np.int32), one.normal(size=3)
    other = np.random.Generator(kind(6))
    restore(other, tree)
    assert bits((other.integers(10, size=9, dtype=np.int32), other.normal(size=3))) == bits(
        expected
    )


def test_a_torch_generator_goes_on_where_it_was() -> None:
    one = torch.Generator().manual_seed(5)
    torch.randn(3, generator=one)
    tree = saved(one)
    expected = torch.randn(4, generator=one)
    other = torch.Generator()
    restore(other, tree)
    assert torch.equal(torch.randn(4, generator=other), expected)


def test_a_parameter_that_takes_part_in_a_graph_is_restored_in_place() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    tree = saved(weight)
    with torch.no_grad():
        weight.zero_()
    restore(weight, tree)
    assert weight.requires_grad
    assert weight.tolist() == [1.0, 1.0]


def test_a_dictionary_loses_what_came_later_and_gets_back_what_went() -> None:
    inner = np.zeros(2)
    live: dict[str, Any] = {"inner": inner, "best": None, "deep": {"rng": np.random.default_rng(0)}}
    tree = saved(live)
    expected = copy.deepcopy(live["deep"]["rng"]).normal()
    inner += 1
    live["deep"]["rng"].normal()
    live["later"] = 1
    del live["best"]
    deep = live["deep"]
    restore(live, tree)
    assert set(live) == {"inner", "best", "deep"}
    assert live["inner"] is inner
    assert inner.tolist() == [0.0, 0.0]
    assert live["deep"] is deep
    assert deep["rng"].normal() == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.zeros(3, np.int64), np.array([0.5, 1.5, 2.5])),
        (np.zeros((2, 2)), np.ones(2)),
        (np.zeros(1), np.ones((2, 2))),
        (torch.zeros(2), torch.ones(2, dtype=torch.float64)),
        (torch.zeros(2), np.ones(2, np.float32)),
        (np.ones(2), None),
        ([], {"a": 1}),
        ({}, [1, 2]),
        (None, {"a": [np.ones(2)]}),
    ],
)
def test_a_part_that_became_something_else_is_replaced_not_squeezed_into_the_old_one(
    before: Any, after: Any
) -> None:
    table, row = {"best": before}, [0, before]
    restore(table, saved({"best": after}))
    restore(row, saved([0, after]))
    assert bits(table) == bits({"best": after})
    assert bits(row) == bits([0, after])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [1, 2]),
        ([1, 2, 3], []),
        ([np.zeros(2), 1.0], [np.ones(2), 2.0]),
        ([1.0, np.zeros(2)], [2.0, np.ones(2), "more"]),
        ([[1], {"a": 1}, 5], [[1, 2], {"b": 2}]),
    ],
)
def test_a_list_of_live_and_plain_values_is_restored_in_place(
    before: list[Any], after: list[Any]
) -> None:
    live = copy.deepcopy(before)
    arrays_before = [v for v in live if isinstance(v, np.ndarray)]
    restore(live, saved(after))
    assert bits(live) == bits(after)
    assert all(any(v is kept for v in live) for kept in arrays_before)


@pytest.mark.parametrize("value", [3, 2.5, "text", None, (1, 2), {1}])
def test_what_cannot_change_in_place_is_refused(value: Any) -> None:
    assert not checkpoint.is_live(value)
    with pytest.raises(UnsupportedError, match=r"state\['x'\] is a \w+, which cannot be restored"):
        restore(value, 0, "state['x']")


def test_a_tensor_is_known_without_torch_being_imported() -> None:
    class Tensor:
        """A namesake."""

    assert checkpoint.is_tensor(torch.zeros(1))
    assert checkpoint.is_tensor(torch.nn.Parameter(torch.zeros(1)))
    assert not checkpoint.is_tensor(Tensor())
    assert not checkpoint.is_tensor(np.zeros(1))
