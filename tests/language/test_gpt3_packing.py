"""Packing: nothing lost, nothing repeated within an epoch, the same rows for the same numbers."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from mmxx.language.gpt3 import ByteBPE, Mixture, PackedDataset, packing, read_documents


class Letters:
    """A tokenizer of letters."""

    end = 0

    def __init__(self, size=30):
        self.size = size

    def __len__(self):
        return self.size

    def encode_batch(self, texts):
        return [[ord(letter) - 96 for letter in text] for text in texts]


DOCS = [
    letter * n
    for letter, n in zip("abcdefghijkl", (5, 9, 2, 30, 1, 7, 7, 3, 11, 4, 8, 6), strict=True)
]


@pytest.fixture
def packed(tmp_path):
    return PackedDataset.of(DOCS, Letters(), tmp_path / "packed", val=0.25)


def test_documents_follow_one_another_with_a_mark_between(packed):
    assert packed.counts["train"]["documents"] == 9
    assert packed.counts["val"]["documents"] == 3
    assert packed.counts["train"]["tokens"] + packed.counts["val"]["tokens"] == 93 + 12
    rows = packed.sequences(10, part="val", seed=5)
    text = torch.cat([rows.rows(0, rows.rows_per_epoch)[:, :-1].flatten()])
    assert text[0] == 0
    held = rows.rows(0, 1)[0].tolist()
    assert held == packed.sequences(10, part="val").rows(0, 1)[0].tolist()


def test_an_epoch_holds_each_document_once_and_whole(packed):
    rows = packed.sequences(7, seed=1)
    orders = []
    for epoch in range(2):
        first = epoch * rows.rows_per_epoch
        found = rows.rows(first, rows.rows_per_epoch)
        text = [*found[:, :-1].flatten().tolist(), int(found[-1, -1])]
        assert (found[1:, 0] == found[:-1, -1]).all()  # rows go on where the last one ended
        pieces = "".join(chr(t + 96) if t else " " for t in text).split()
        assert [p for p in pieces[:-1] if p not in DOCS] == []
        assert len(set(pieces)) == len(pieces)
        orders.append(pieces)
    assert orders[0] != orders[1]


def test_a_row_is_a_function_of_its_number(packed):
    rows, again = packed.sequences(7, seed=1), packed.sequences(7, seed=1)
    far = again.rows(25, 3)
    assert torch.equal(torch.cat([rows.rows(n, 1) for n in (25, 26, 27)]), far)
    assert not torch.equal(packed.sequences(7, seed=2).rows(25, 3), far)
    assert torch.equal(rows.at([27, 25]), far[[2, 0]])


def test_shards_are_packed_as_the_whole_is(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_SHARD", 12)
    calls = []

    def backwards(fn, items):
        calls.extend(list(items))
        return [fn(item) for item in reversed(calls)][::-1]

    shards = PackedDataset.of(DOCS, Letters(), tmp_path / "shards", val=0.25, map=backwards)
    assert [len("".join(texts)) for _, _, texts in calls] == [14, 32, 15, 14, 12, 6]
    assert shards.sha256 == packed.sha256
    for name in ("tokens.bin", "documents.npy", "packed.json"):
        same = [(tmp_path / folder / name).read_bytes() for folder in ("packed", "shards")]
        assert same[0] == same[1]


def test_large_vocabularies_take_four_bytes(tmp_path):
    class Large(Letters):
        def encode_batch(self, texts):
            return [[70_000] * len(text) for text in texts]

    packed = PackedDataset.of(["abc"] * 4, Large(70_001), tmp_path, val=0)
    assert packed.sequences(3).rows(0, 1).max() == 70_000
    assert (tmp_path / "tokens.bin").stat().st_size == 4 * 16


def test_of_few_documents_the_end_of_the_longest_is_held_out(tmp_path):
    texts = ["ab" * 20, "abcd" * 50, "c" * 30]
    packed = PackedDataset.of(texts, Letters(), tmp_path / "packed", val=0.1)
    assert packed.counts["train"]["documents"] == 3
    total = sum(len(text) + 1 for text in texts)
    held = round(0.1 * total)
    assert packed.counts["val"] == {"documents": 1, "tokens": held + 1}  # and a mark of its own
    assert packed.counts["train"]["tokens"] == total - held


def test_files_of_all_kinds(tmp_path):
    (tmp_path / "b.txt").write_bytes("\ufeffEin Text\r\nzwei".encode())
    (tmp_path / "deep").mkdir()
    lines = "".join(json.dumps({"text": t}) + "\n" for t in ("one", " ", "two"))
    (tmp_path / "deep" / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "deep" / "z.jsonl.gz", "wt") as file:
        file.write(lines)
    (tmp_path / "ignored.md").write_text("no")
    assert list(read_documents(tmp_path)) == ["Ein Text\nzwei", "one", "two", "one", "two"]
    tok = ByteBPE.train(read_documents(tmp_path), 270)
    packed = PackedDataset.build([tmp_path / "b.txt"], tok, tmp_path / "out", val=0.3)
    assert packed.counts["train"]["documents"] == packed.counts["val"]["documents"] == 1
    whole = packed.sequences(packed.counts["train"]["tokens"] - 1).rows(0, 1)[0].tolist()
    assert whole[0] == tok.end
    assert "Ein Text\nzwei".startswith(tok.decode(whole[1:]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine \xff", r"a\.txt: byte 5 is no UTF-8; errors=\"replace\""),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a\.jsonl, line 2: JSON with a field"),
        ("a.jsonl", b'{"body": "x"}', r"a\.jsonl, line 1: JSON with a field"),
        ("a.jsonl", b'{"text": 3}', r'line 1: "text" must be a string'),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_documents(tmp_path))


def test_what_cannot_be_packed_is_refused(tmp_path, packed):
    (tmp_path / "bad.txt").write_bytes(b"fine \xff")
    assert list(read_documents(tmp_path / "bad.txt", errors="replace")) == ["fine �"]
    with pytest.raises(FileNotFoundError, match="no such file"):
        list(read_documents(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no file named \.txt"):
        list(read_documents(tmp_path / "empty"))
    with pytest.raises(ValueError, match="there is no text to pack"):
        PackedDataset.of([], Letters(), tmp_path / "out")
    with pytest.raises(ValueError, match=r"val must lie in \[0, 1\), got 1"):
        PackedDataset.of(DOCS, Letters(), tmp_path / "out", val=1)
    with pytest.raises(ValueError, match=r"the val text has \d+ tokens, and a row needs .* 65"):
        packed.sequences(64, part="val")
    with pytest.raises(FileNotFoundError, match=r"PackedDataset\.build writes it"):
        PackedDataset(tmp_path)
    with open(tmp_path / "packed" / "tokens.bin", "ab") as file:
        file.write(b"1234")
    with pytest.raises(ValueError, match=r"tokens\.bin holds 107 tokens"):
        PackedDataset(tmp_path / "packed")


class Numbers:
    """Rows that tell their own number."""

    n_ctx = 2

    def __init__(self, base, per_epoch=None):
        self.base = base
        if per_epoch:
            self.rows_per_epoch = per_epoch

    def rows(self, start, count):
        return (self.base + torch.arange(start, start + count))[:, None].expand(-1, 3)


def test_a_mixture_keeps_its_proportions_and_skips_no_row():
    mixture = Mixture(
        {"a": (Numbers(0, 300), 6), "b": (Numbers(10**6), 3), "c": (Numbers(2 * 10**6, 100), 1)}
    )
    rows = torch.cat([mixture.rows(start, 37) for start in range(0, 37 * 83, 37)])[:, 0]
    source, place = rows // 10**6, rows % 10**6
    for number, part in ((0, 0.6), (1, 0.3), (2, 0.1)):
        mine = place[source == number]
        assert torch.equal(mine, torch.arange(len(mine)))
        assert len(source[:1024][source[:1024] == number]) == pytest.approx(1024 * part, abs=1)
    again = Mixture(
        {"a": (Numbers(0, 300), 6), "b": (Numbers(10**6), 3), "c": (Numbers(2 * 10**6, 100), 1)}
    )
    assert torch.equal(again.rows(2000, 5)[:, 0], rows[2000:2005])
    epochs = mixture.epochs(2000)
    assert epochs["a"] == (source[:2000] == 0).sum() / 300
    assert np.isnan(epochs["b"])


def test_mixtures_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="one source or more"):
        Mixture({})
    with pytest.raises(ValueError, match="the weight of 'a' must be above 0, got 0"):
        Mixture({"a": (Numbers(0), 0)})
    other = Numbers(0)
    other.n_ctx = 5
    with pytest.raises(ValueError, match=r"rows of one length, got n_ctx {'a': 2, 'b': 5}"):
        Mixture({"a": (Numbers(0), 1), "b": (other, 1)})
