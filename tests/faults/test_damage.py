"""Damaged files: found, named, and gone around; never a traceback, never in silence."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mmxx.lab import checkpoint
from mmxx.lab.catalog import Card
from mmxx.lab.testing import Outcome, assert_same, outcome, run_tiny

PLACES = 20  # bytes flipped, and lengths cut to, in each file
PARTS = ("tensors.safetensors", "state.json", "manifest.json")

Mmxx = Callable[..., CompletedProcess[str]]
Line = Callable[[CompletedProcess[str]], str]
Straight = Callable[[Card], Any]
AtItsEnd = Callable[[Card], Path]
Loads = Callable[[Path, str], checkpoint.Checkpoint | None]


def _damages(content: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """A bit flipped at random places, and the file cut to random lengths."""
    rng = random.Random(seed)
    for place in rng.sample(range(len(content)), min(PLACES, len(content))):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        yield f"byte {place} flipped", bytes(flipped)
    for length in rng.sample(range(len(content)), min(PLACES, len(content))):
        yield f"cut to {length} bytes", content[:length]


def _unsorted(found: Outcome) -> Outcome:
    """Without the order of lines in metrics.jsonl: a loop that is done again adds its own late."""
    lines = sorted(found.metrics, key=lambda line: (str(line["loop"]), line["step"]))
    return dataclasses.replace(found, metrics=lines)


def _spoil(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def test_every_damage_is_found(card: Card, at_its_end: AtItsEnd) -> None:
    """In a loop that has an older checkpoint, if there is one; all are written alike."""
    rng = random.Random(zlib.crc32(card.name.encode()))
    loops = [sorted(loop.glob("step-*")) for loop in at_its_end(card).glob("checkpoints/*")]
    steps = max(loops, key=len)
    loop = steps[-1].parent
    sound = json.loads((steps[-1] / "manifest.json").read_bytes())
    older = int(steps[-2].name[5:]) if len(steps) > 1 else 0
    for part in PARTS:
        path = steps[-1] / part
        content = path.read_bytes()
        for what, damaged in _damages(content, rng.randrange(1000)):
            path.write_bytes(damaged)
            found = checkpoint.latest(loop, owner=sound["owner"])
            assert found is not None, f"{path}: {what}: in silence"
            assert [name.split()[0] for name in found.skipped] == [steps[-1].name], what
            assert found.step == older, f"{path}: {what}: not the one before"
            assert (found.tree is not None) == (len(steps) > 1)
        path.write_bytes(content)
    found = checkpoint.latest(loop, owner=sound["owner"])
    assert found is not None
    assert (found.step, found.skipped) == (sound["step"], ())


def test_a_damaged_run_ends_the_same(
    card: Card, straight: Straight, at_its_end: AtItsEnd, mmxx: Mmxx
) -> None:
    """A part of a checkpoint is spoilt: the run goes back behind it, says so, and ends the same."""
    folder = at_its_end(card)
    rng = random.Random(zlib.crc32(card.name.encode()))
    loop = rng.choice(sorted((folder / "checkpoints").iterdir()))
    _spoil(max(loop.glob("step-*")) / rng.choice(PARTS), rng)
    done = mmxx("resume", folder)
    assert done.returncode == 0, done.stderr
    assert f"mmxx: warning: {loop.name}: skipped the checkpoint step-" in done.stderr
    assert f"{loop.name}: skipped the checkpoint" in (folder / "log.txt").read_text()
    assert_same(_unsorted(straight(card).outcome), _unsorted(outcome(folder)))


@pytest.mark.parametrize("missing", [*PARTS, ""])
def test_missing_parts_are_gone_around(
    toy: Card, straight: Straight, at_its_end: AtItsEnd, mmxx: Mmxx, missing: str
) -> None:
    folder = at_its_end(toy)
    newest = max((folder / "checkpoints" / "fit").glob("step-*"))
    if missing:
        (newest / missing).unlink()
    else:
        shutil.rmtree(newest)
        newest.write_text("a file in the place of a folder")
    done = mmxx("resume", folder)
    assert done.returncode == 0, done.stderr
    assert "warning: fit: skipped the checkpoint step-000000020" in done.stderr
    assert_same(straight(toy).outcome, outcome(folder))


def test_with_no_sound_checkpoint_it_begins_again(
    patient_card: Card, straight: Straight, at_its_end: AtItsEnd, mmxx: Mmxx
) -> None:
    """All the checkpoints there are, of every loop, are spoilt: a clean start, with warnings."""
    folder = at_its_end(patient_card)
    rng = random.Random(1)
    spoilt = sorted((folder / "checkpoints").glob("*/step-*"))
    for path in spoilt:
        _spoil(path / rng.choice(PARTS), rng)
    done = mmxx("resume", folder)
    assert done.returncode == 0, done.stderr
    for path in spoilt:
        assert f"{path.parent.name}: skipped the checkpoint {path.name}" in done.stderr
    assert_same(straight(patient_card).outcome, outcome(folder))


def test_after_a_clean_start_saves_are_kept(
    toy: Card, straight: Straight, at_its_end: AtItsEnd, mmxx: Mmxx, loads: Loads
) -> None:
    """Spoilt checkpoints of later steps must not push out what is saved from now on."""
    folder = at_its_end(toy)
    rng = random.Random(2)
    for path in (folder / "checkpoints" / "fit").glob("step-*"):
        _spoil(path / "state.json", rng)
    assert mmxx("resume", folder, "--time-limit", "1e-9").returncode == 75
    found = loads(folder, "fit")
    assert found is not None
    assert (found.step, found.skipped) == (1, ())
    assert mmxx("resume", folder).returncode == 0
    assert_same(straight(toy).outcome, outcome(folder))


@pytest.mark.parametrize("differs", ["system", "config", "seed", "loop"])
def test_a_foreign_checkpoint_is_refused(
    toy: Card,
    straight: Straight,
    at_its_end: AtItsEnd,
    mmxx: Mmxx,
    one_line: Line,
    tmp_path: Path,
    differs: str,
) -> None:
    folder = at_its_end(toy)
    newest = max((folder / "checkpoints" / "fit").glob("step-*"))
    kept = newest.rename(tmp_path / "kept")
    owner = json.loads((kept / "manifest.json").read_bytes())["owner"]
    checkpoint.save(newest.parent, 20, {}, owner={**owner, differs: "siren"}, done=False)
    done = mmxx("resume", folder)
    assert done.returncode == 2
    assert f"{newest} belongs to {differs} 'siren', not to {owner[differs]!r}" in one_line(done)
    shutil.rmtree(newest)
    kept.rename(newest)
    assert mmxx("resume", folder).returncode == 0
    assert_same(straight(toy).outcome, outcome(folder))


def test_a_copied_checkpoint_is_refused(
    tmp_path: Path, toy: Card, at_its_end: AtItsEnd, mmxx: Mmxx, one_line: Line
) -> None:
    """The checkpoints of another seed's run, put into the place of a run's own."""
    folder, other = at_its_end(toy), tmp_path / "other"
    run_tiny(toy, other, seed=1)
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(other / "checkpoints", folder / "checkpoints")
    done = mmxx("resume", folder)
    assert done.returncode == 2
    assert "belongs to seed '1', not to '0'" in one_line(done)


def test_torn_metrics_are_read(
    toy: Card, straight: Straight, at_its_end: AtItsEnd, mmxx: Mmxx
) -> None:
    """The last line is torn, or lines are no metrics at all: report and resume go on."""
    folder = at_its_end(toy)
    path = folder / "metrics.jsonl"
    content = path.read_bytes()
    for torn in (
        content[:-9],
        content[:-1],
        content + b'{"loop": "fit", "st',
        content + b'{"loop": "fit", "step": "9"}\n{"loop": [], "step": 1}\n[]\n7\n\xff\xfe\x00\n',
        content + b"[" * 100_000 + b"\n",
        b"",
    ):
        path.write_bytes(torn)
        done = mmxx("report", folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert "</html>" in (folder / "report.html").read_text()
    path.write_bytes(content + b'{"loop": "fit", "step": "9"}\n{"loop": [], "step": 1}\n{"st')
    done = mmxx("resume", folder)
    assert done.returncode == 0, done.stderr
    assert_same(straight(toy).outcome, outcome(folder))


def test_a_damaged_record_is_no_traceback(
    tmp_path: Path, toy: Card, mmxx: Mmxx, one_line: Line
) -> None:
    """Whatever ``run.json`` holds, resume refuses it in words or does what it says."""
    folder, saved = tmp_path / "run", tmp_path / "saved"
    assert mmxx("run", "toy", "--time-limit", "1e-9", "--out", saved).returncode == 75
    content = (saved / "run.json").read_bytes()
    record = json.loads(content)
    damages = dict(_damages(content, 5))
    for key in record:
        without = {k: v for k, v in record.items() if k != key}
        damages[f"without {key}"] = json.dumps(without).encode()
        for wrong in (None, [7], "?"):
            damages[f"{key} is {wrong!r}"] = json.dumps(record | {key: wrong}).encode()
    damages["too deep"] = b"[" * 100_000
    codes = set()
    for what, damaged in damages.items():
        shutil.copytree(saved, folder)
        (folder / "run.json").write_bytes(damaged)
        done = mmxx("resume", folder, "--time-limit", "1e-9")
        assert done.returncode in (2, 75), f"{what}: {done}"
        assert one_line(done), what
        codes.add(done.returncode)
        shutil.rmtree(folder)
    assert codes == {2, 75}


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"claims": [{}]}', b"[" * 100_000])
def test_damaged_claims_of_a_finished_run_are_refused(
    tmp_path: Path,
    toy: Card,
    mmxx: Mmxx,
    one_line: Line,
    content: bytes | None,
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    mmxx("run", "toy", "--time-limit", "1e-9", "--out", folder)
    record = json.loads((folder / "run.json").read_bytes())
    (folder / "run.json").write_text(json.dumps(record | {"status": "done"}))
    (folder / "claims.json").unlink()
    if content is not None:
        (folder / "claims.json").write_bytes(content)
    done = mmxx("resume", folder)
    assert done.returncode == 2
    assert f"mmxx: {folder / 'claims.json'} cannot be read: " in one_line(done)
    done = mmxx("report", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "claims.json" in (folder / "report.html").read_text()
