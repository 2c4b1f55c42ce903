"""GPT-2's byte-level byte-pair encoding, trained on one's own text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

END_OF_TEXT = "<|endoftext|>"


class ByteBPE:
    """Text to tokens and back, without loss: every string has tokens, every byte a token.

    Made by `train` or `load`.

    Args:
        vocab: Tokens, in GPT-2's printable letters for bytes, and their numbers.
        merges: Pairs that become one token, the first ones first.
        special: Tokens that text never becomes, unless it is asked for.

    Raises:
        ValueError: Bytes without a token, or merges of unknown tokens.

    Source: Radford et al. (2019), section 2.2.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: Iterable[tuple[str, str]],
        special: Sequence[str] = (END_OF_TEXT,),
    ) -> None:
        missing = [letter for letter in ByteLevel.alphabet() if letter not in vocab]
        if missing:
            raise ValueError(f"vocab lacks {len(missing)} of the 256 bytes, such as {missing[0]!r}")
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise ValueError(f"vocab must number its {len(vocab)} tokens from 0 without a gap")
        self._merges = [(left, right) for left, right in merges]
        for pair in self._merges:
            unknown = [part for part in (*pair, "".join(pair)) if part not in vocab]
            if unknown:
                raise ValueError(f"merges join {pair}, and vocab has no {unknown[0]!r}")
        self.special = tuple(special)
        plain = {token: i for token, i in vocab.items() if token not in self.special}
        if sorted(plain.values()) != list(range(len(plain))):
            raise ValueError(f"special tokens {self.special} must have the last numbers of vocab")
        self._tokenizer = Tokenizer(BPE(plain, self._merges))
        self._tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore
        self._tokenizer.decoder = ByteLevelDecoder()  # pyright: ignore
        named = sorted(self.special, key=lambda token: vocab.get(token, len(vocab)))
        self._tokenizer.add_special_tokens([AddedToken(token, special=True) for token in named])

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int = 4096,
        special: Sequence[str] = (END_OF_TEXT,),
    ) -> ByteBPE:
        """Learn the merges of some texts.

        Args:
            texts: The texts.
            vocab_size: Tokens at most: 256 bytes, the special ones, and merges. Little text
                gives fewer.
            special: As above; they get the last numbers.

        Raises:
            ValueError: A vocabulary too small for bytes and special tokens.
        """
        if vocab_size < 256 + len(special):
            raise ValueError(
                f"vocab_size must be {256 + len(special)} or more (256 bytes and {len(special)} "
                f"special tokens), got {vocab_size}"
            )
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore
        trainer = BpeTrainer(
            vocab_size=vocab_size - len(special),
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        vocab = {**model["vocab"], **{t: len(model["vocab"]) + i for i, t in enumerate(special)}}
        return cls(vocab, [tuple(pair) for pair in model["merges"]], special)

    @classmethod
    def load(cls, folder: str | Path, special: Sequence[str] = (END_OF_TEXT,)) -> ByteBPE:
        """Read ``vocab.json`` and ``merges.txt``, as GPT-2 and its relatives ship them.

        Where they are not there, ``tokenizer.json`` is read, as transformers writes it.

        Args:
            folder: Holds them.
            special: As above.

        Raises:
            FileNotFoundError: They are missing.
            ValueError: One cannot be read; it is named, with the line.
        """
        folder = Path(folder)
        single = folder / "tokenizer.json"
        if not (folder / "vocab.json").is_file() and single.is_file():
            return cls(*_from_single(single), special)
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder} has no {name}; a tokenizer's folder has vocab.json and merges.txt, "
                    "or tokenizer.json"
                )
        vocab = _read_json(folder / "vocab.json")
        if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
            raise ValueError(f"{folder / 'vocab.json'} must map tokens to integers")
        merges = []
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip() or (number == 1 and line.startswith("#version")):
                continue
            left, space, right = line.rstrip("\r").partition(" ")
            if not space or not left or not right or " " in right:
                raise ValueError(
                    f"{folder / 'merges.txt'}, line {number}: expected two tokens, got {line!r}"
                )
            merges.append((left, right))
        return cls(vocab, merges, special)

    def save(self, folder: str | Path) -> None:
        """Write ``vocab.json`` and ``merges.txt``, which transformers reads too.

        Args:
            folder: Made if need be.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (folder / name).write_text(content, encoding="utf-8", newline="\n")

    def files(self) -> dict[str, str]:
        """The contents of ``vocab.json`` and ``merges.txt``."""
        vocab = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        merges = "".join(f"{left} {right}\n" for left, right in self._merges)
        return {
            "vocab.json": json.dumps(dict(vocab), ensure_ascii=False),
            "merges.txt": f"#version: 0.2\n{merges}",
        }

    def __len__(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.get_vocab_size()

    @property
    def end(self) -> int:
        """The number of the first special token, the end of a text."""
        number = self._tokenizer.token_to_id(self.special[0]) if self.special else None
        if number is None:
            raise ValueError("the tokenizer has no special token")
        return number

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of a text.

        Args:
            text: The text.
            special: Whether special tokens that are spelled out in it become tokens; by default
                they are letters like any others.
        """
        self._tokenizer.encode_special_tokens = not special
        return self._tokenizer.encode(text).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of many texts at once; special tokens are letters.

        Args:
            texts: The texts.
        """
        self._tokenizer.encode_special_tokens = True
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts))]

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a text, and the character that each one begins at.

        Args:
            text: The text.
        """
        self._tokenizer.encode_special_tokens = True
        found = self._tokenizer.encode(text)
        return found.ids, [start for start, _ in found.offsets]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens; what is no UTF-8 becomes the replacement character.

        Args:
            tokens: Their numbers.
        """
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _from_single(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a ``tokenizer.json``."""
    found = _read_json(path)
    try:
        split, model = found["pre_tokenizer"], found["model"]
        kind = (model["type"], split["type"], split["add_prefix_space"])
        vocab = {**model["vocab"], **{t["content"]: t["id"] for t in found["added_tokens"]}}
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        merges = [(left, right) for left, right in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the tokenizer of a GPT-2: {error!r}") from None
    if kind != ("BPE", "ByteLevel", False):
        raise ValueError(f"{path} is not the tokenizer of a GPT-2: it is {kind}")
    return vocab, merges
