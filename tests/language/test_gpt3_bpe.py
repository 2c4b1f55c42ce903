"""Byte-level BPE: no text is lost, merges are the best pairs, and transformers agrees."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from mmxx.language.gpt3 import ByteBPE

TEXT = (
    "The cat sat on the mat, and the cats' mats weren't that flat. 1234 + 567 = 1801!\n"
    "Ein Mädchen aß Brötchen; 猫が好き。 naïve café — déjà vu…\n\n\tthe end  the end\n"
) * 3


@pytest.fixture(scope="module")
def tok():
    return ByteBPE.train([TEXT], 330)


def test_every_byte_and_every_text_comes_back(tok):
    for text in (
        "", " ", "\n\n  x", "ünïcödé 🦆 \x00\x7f", "".join(map(chr, range(300))),
        "<|endoftext|> is plain", "a\r\nb",
    ):  # fmt: skip
        assert tok.decode(tok.encode(text)) == text
    alphabet = [t for t in range(len(tok)) if t != tok.end]
    assert sorted(alphabet) == list(range(329))


def test_special_tokens_are_letters_unless_asked_for(tok):
    assert tok.end == len(tok) - 1 == 329
    text = "one<|endoftext|>two"
    assert tok.end not in tok.encode(text)
    assert tok.encode(text, special=True).count(tok.end) == 1
    assert tok.end not in tok.encode_batch([text])[0]


def test_starts_are_places_in_the_text(tok):
    text = "The cat: é 🦆 mats"
    tokens, starts = tok.encode_with_starts(text)
    assert tokens == tok.encode(text)
    assert starts == sorted(starts)
    whole = [i for i, s in enumerate(starts) if starts.count(s) == 1]
    for i in whole[:-1]:
        if starts[i + 1] - starts[i] == len(tok.decode([tokens[i]])):
            assert text[starts[i] : starts[i + 1]] == tok.decode([tokens[i]])
    assert starts[0] == 0


def test_merges_are_the_pairs_seen_most_often():
    """Against a trainer of the plainest kind, on words of ASCII letters."""
    text = "low low low low low lower lower newest newest newest newest newest newest widest widest"
    found = ByteBPE.train([text], 257 + 12)
    merges = [tuple(m.split(" ")) for m in found.files()["merges.txt"].split("\n")[1:-1]]
    words = Counter(("Ġ" + word if i else word) for i, word in enumerate(text.split(" ")))
    parts = {word: list(word) for word in words}
    vocab = {letter: i for i, letter in enumerate(sorted(set("".join(words))))}
    for merge in merges:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(parts[word], parts[word][1:], strict=False):
                pairs[pair] += count
        assert pairs[merge] == max(pairs.values())
        for word, split in parts.items():
            joined, i = [], 0
            while i < len(split):
                if tuple(split[i : i + 2]) == merge:
                    joined.append("".join(merge))
                    i += 2
                else:
                    joined.append(split[i])
                    i += 1
            parts[word] = joined
        vocab["".join(merge)] = len(vocab)
    assert len(merges) == 12
    for word, split in parts.items():
        assert [t.replace("Ġ", " ") for t in split] == [
            found.decode([t]) for t in found.encode(word.replace("Ġ", " "))
        ]


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_transformers_makes_the_same_tokens(tok, tmp_path, count):
    transformers = pytest.importorskip("transformers")
    tok.save(tmp_path)
    peer = transformers.GPT2TokenizerFast(
        vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt")
    )
    assert peer.backend_tokenizer.get_vocab_size() == len(tok)
    rng = random.Random(0)
    blocks = [(0x20, 0x7F), (0x20, 0x7F), (0x0, 0x250), (0x3040, 0x30FF), (0x1F300, 0x1F600)]
    texts = []
    for _ in range(count):
        low, high = rng.choice(blocks)
        texts.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(12))))
    texts += [piece + " " for piece in TEXT.split(" ")]
    theirs = [found.ids for found in peer.backend_tokenizer.encode_batch(texts)]
    ours = tok.encode_batch(texts)
    assert sum(map(len, ours)) > 3 * count
    assert ours == theirs
    assert ByteBPE.load(tmp_path).encode_batch(texts[:100]) == ours[:100]
    peer.save_pretrained(tmp_path / "single")
    assert not (tmp_path / "single" / "vocab.json").exists()
    again = ByteBPE.load(tmp_path / "single")
    assert again.encode_batch(texts[:100]) == ours[:100]
    assert again.end == tok.end
    (tmp_path / "single" / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(ValueError, match=r"tokenizer\.json is not the tokenizer of a GPT-2"):
        ByteBPE.load(tmp_path / "single")


def test_files_that_are_wrong_are_named(tok, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no vocab\.json"):
        ByteBPE.load(tmp_path)
    tok.save(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nonly\n")
    with pytest.raises(ValueError, match=r"merges\.txt, line 3: expected two tokens, got 'only'"):
        ByteBPE.load(tmp_path)
    (tmp_path / "merges.txt").write_text("q zz\n")
    with pytest.raises(ValueError, match="vocab has no 'zz'"):
        ByteBPE.load(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocab, "extra": 999}))
    with pytest.raises(ValueError, match="from 0 without a gap"):
        ByteBPE.load(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(ValueError, match="lacks 255 of the 256 bytes"):
        ByteBPE.load(tmp_path)
    (tmp_path / "vocab.json").write_text("[1]")
    with pytest.raises(ValueError, match="must map tokens to integers"):
        ByteBPE.load(tmp_path)
    with pytest.raises(ValueError, match="vocab_size must be 257 or more"):
        ByteBPE.train(["x"], 256)
