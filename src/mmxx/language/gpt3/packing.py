"""Texts packed into rows: end-of-text marks between them, shuffled by document, never padded."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from mmxx.language.gpt3.training import Sequences

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
SUFFIXES = (".txt", ".jsonl", ".jsonl.gz")
_BLOCK = 1024  # rows in which a mixture's proportions are exact
_SHARD = 1 << 22  # characters of a task of `map`, or a text of more


class Encoder(Protocol):
    """What turns texts into tokens: a `ByteBPE`, or one's own."""

    @property
    def end(self) -> int: ...
    def __len__(self) -> int: ...
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...


def text_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files of text among some files and folders, in order.

    Args:
        paths: Files, or folders in which all .txt, .jsonl and .jsonl.gz are meant.

    Raises:
        FileNotFoundError: One does not exist, or a folder holds no text.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _is_text(p))
            if not inside:
                raise FileNotFoundError(f"{path} holds no file named {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return found


def read_documents(
    paths: str | Path | Iterable[str | Path], *, errors: Literal["strict", "replace"] = "strict"
) -> Iterator[str]:
    """The documents of some files: a .txt is one, a line of JSON with "text" is one.

    Args:
        paths: As in `text_files`.
        errors: "strict", or "replace" for the replacement character where there is no UTF-8.

    Yields:
        Texts that are not empty.

    Raises:
        ValueError: Bytes that are no UTF-8, with file and place; a damaged .gz; a line that is no
            such JSON, with file and number.
    """
    for path in text_files(paths):
        text = read_text(path, errors, '; errors="replace" reads it nevertheless')
        if not path.name.endswith((".jsonl", ".jsonl.gz")):
            if text.strip():
                yield text
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                document = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{path}, line {number}: JSON with a field "text" was expected ({error!r})'
                ) from None
            if not isinstance(document, str):
                raise ValueError(f'{path}, line {number}: "text" must be a string')
            if document.strip():
                yield document


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def read_text(path: Path, errors: str = "strict", advice: str = "") -> str:
    """A file's text, unpacked where its name ends in .gz.

    Raises:
        ValueError: It is no gzip, or damaged; or bytes that are no UTF-8, with their place, and
            ``advice``.
    """
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged, or no gzip file: {error}") from None
    try:
        return content.decode("utf-8-sig", errors=errors).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8{advice}") from None


class PackedDataset:
    """Tokens of documents in a file that is mapped into memory, not read.

    Args:
        folder: What `build` wrote.

    Attributes:
        vocab_size: Tokens of the tokenizer.
        end: The end-of-text mark.
        sha256: Of the tokens.
        counts: Documents and tokens, of the training and the validation part.

    Raises:
        FileNotFoundError: The folder was not written by `build`.
        ValueError: Its files do not fit one another.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "packed.json").is_file():
            raise FileNotFoundError(f"{folder} has no packed.json: PackedDataset.build writes it")
        about = json.loads((folder / "packed.json").read_text(encoding="utf-8"))
        self.vocab_size, self.end, self.sha256 = (
            about["vocab_size"], about["end"], about["sha256"]
        )  # fmt: skip
        self._tokens = np.memmap(folder / "tokens.bin", dtype=about["dtype"], mode="r")
        self._bounds = np.load(folder / "documents.npy", allow_pickle=False)
        self._split = about["train"]
        if self._bounds[-1] != len(self._tokens):
            raise ValueError(
                f"{folder}: tokens.bin holds {len(self._tokens)} tokens, and documents.npy ends "
                f"at {self._bounds[-1]}"
            )
        starts = {"train": (0, self._split), "val": (self._split, len(self._bounds) - 1)}
        self.counts = {
            part: {"documents": end - start, "tokens": int(self._bounds[end] - self._bounds[start])}
            for part, (start, end) in starts.items()
        }

    @classmethod
    def build(
        cls,
        paths: str | Path | Iterable[str | Path],
        tok: Encoder,
        folder: str | Path,
        *,
        val: float = 0.01,
        errors: Literal["strict", "replace"] = "strict",
        seed: int = 0,
        map: Map = map,
    ) -> PackedDataset:
        """Tokenise files into a folder.

        Args:
            paths: Files and folders of text, as `read_documents`.
            tok: What encodes them.
            folder: Where to write.
            val: Part of the documents, drawn at random, that is held out; with so few that it
                comes to none, as large a part of all tokens, from the end of the longest.
            errors: As in `read_documents`.
            seed: Of that draw.
            map: What spreads the work: ``map(fn, items)``.

        Raises:
            ValueError: No text, or as `read_documents`.
        """
        documents = read_documents(paths, errors=errors)
        return cls.of(documents, tok, folder, val=val, seed=seed, map=map)

    @classmethod
    def of(
        cls,
        documents: Iterable[str],
        tok: Encoder,
        folder: str | Path,
        *,
        val: float = 0.01,
        seed: int = 0,
        map: Map = map,
    ) -> PackedDataset:
        """The same of documents at hand; arguments as in `build`."""
        if not 0 <= val < 1:
            raise ValueError(f"val must lie in [0, 1), got {val}")
        dtype = np.uint16 if len(tok) <= 1 << 16 else np.uint32
        encoded: list[np.ndarray] = []
        for tokens, ends in map(_encode, ((tok, dtype, texts) for texts in _shards(documents))):
            encoded += np.split(tokens, ends[:-1])
        if not encoded:
            raise ValueError("there is no text to pack")
        held = round(val * len(encoded))
        if held == 0 and val > 0:
            most = max(range(len(encoded)), key=lambda i: len(encoded[i]))
            text = encoded[most]
            cut = max(len(text) // 2, len(text) - round(val * sum(len(ids) for ids in encoded)))
            encoded[most] = text[:cut]
            encoded.append(np.concatenate([text[:1], text[cut:]]))
            held = 1
        elif held:
            order = np.random.default_rng(seed).permutation(len(encoded))
            encoded = [encoded[i] for i in (*sorted(order[held:]), *sorted(order[:held]))]
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tokens = np.concatenate(encoded)
        tokens.tofile(folder / "tokens.bin")
        bounds = np.cumsum([0, *(len(ids) for ids in encoded)])
        np.save(folder / "documents.npy", bounds)
        about = {
            "dtype": np.dtype(dtype).name, "vocab_size": len(tok), "end": tok.end,
            "train": len(encoded) - held, "sha256": hashlib.sha256(tokens.data).hexdigest(),
        }  # fmt: skip
        (folder / "packed.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return cls(folder)

    def sequences(
        self, n_ctx: int, *, part: Literal["train", "val"] = "train", seed: int = 0
    ) -> PackedSequences:
        """The part's rows of ``n_ctx`` tokens and the next one.

        Args:
            n_ctx: Tokens of a row.
            part: Training text, in a new order each epoch, or validation text, in one order.
            seed: Of the orders.

        Raises:
            ValueError: The text is shorter than a row.
        """
        first, last = (0, self._split) if part == "train" else (self._split, len(self._bounds) - 1)
        if self.counts[part]["tokens"] <= n_ctx:
            raise ValueError(
                f"the {part} text has {self.counts[part]['tokens']} tokens, and a row needs "
                f"n_ctx + 1 = {n_ctx + 1}"
            )
        bounds = self._bounds[first : last + 1]
        return PackedSequences(self._tokens, bounds, n_ctx, None if part == "val" else seed)


class PackedSequences:
    """Rows of packed text; row i is a function of the seed and i alone.

    Each epoch is a new order of the documents, without repetition; documents follow one another
    with nothing but the end-of-text mark between them, and rows are cut wherever they end.

    Args:
        tokens: All tokens, each document with its mark in front.
        bounds: Where documents begin and the last one ends, ascending.
        n_ctx: Tokens of a row.
        seed: Of the orders; None for the order of the file.

    Attributes:
        rows_per_epoch: Rows that an epoch holds.
    """

    def __init__(
        self, tokens: np.ndarray, bounds: np.ndarray, n_ctx: int, seed: int | None = 0
    ) -> None:
        self.n_ctx, self._tokens, self._bounds, self._seed = n_ctx, tokens, bounds, seed
        self._lengths = np.diff(bounds)
        self.rows_per_epoch = (int(self._lengths.sum()) - 1) // n_ctx
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None

    def rows(self, start: int, count: int) -> Tensor:
        """Rows start … start + count - 1, int64 [count, n_ctx + 1]."""
        return self.at(range(start, start + count))

    def at(self, numbers: Iterable[int]) -> Tensor:
        """The rows of these numbers, int64 [n, n_ctx + 1]."""
        found = [self._row(*divmod(number, self.rows_per_epoch)) for number in numbers]
        return torch.from_numpy(np.stack(found).astype(np.int64))

    def _row(self, epoch: int, place: int) -> np.ndarray:
        order, ends = self._order(epoch)
        at, needed = place * self.n_ctx, self.n_ctx + 1
        document = int(np.searchsorted(ends, at, side="right"))
        pieces = []
        while needed:
            skipped = at - (ends[document - 1] if document else 0)
            begin = self._bounds[order[document]] + skipped
            piece = self._tokens[begin : min(begin + needed, self._bounds[order[document] + 1])]
            pieces.append(piece)
            needed -= len(piece)
            at += len(piece)
            document += 1
        return np.concatenate(pieces)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The documents of an epoch, and where each of them ends."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.arange(len(self._lengths))
            if self._seed is not None:
                order = np.random.default_rng([self._seed, epoch]).permutation(order)
            self._epoch = (epoch, order, np.cumsum(self._lengths[order]))
        return self._epoch[1], self._epoch[2]


class Mixture:
    """Several sources in fixed proportions; row i is a function of the seed and i alone.

    Args:
        sources: Rows and weight of each source, by name. Weights need not sum to 1; a source is
            begun anew when it is through.
        seed: Of the order.

    Raises:
        ValueError: No source, weights that are not positive, or rows of different lengths.

    Source: Brown et al. (2020), table 2.2.
    """

    def __init__(self, sources: Mapping[str, tuple[Sequences, float]], *, seed: int = 0) -> None:
        if not sources:
            raise ValueError("sources must name one source or more")
        for name, (_, weight) in sources.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {name!r} must be above 0, got {weight}")
        lengths = {name: source.n_ctx for name, (source, _) in sources.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"all sources must have rows of one length, got n_ctx {lengths}")
        self.n_ctx = next(iter(lengths.values()))
        self.sources = {name: source for name, (source, _) in sources.items()}
        weights = np.array([weight for _, weight in sources.values()], float)
        self.weights, self._seed = weights / weights.sum(), seed
        self._taken = [np.zeros(len(sources), np.int64)]  # rows of each before each block

    def rows(self, start: int, count: int) -> Tensor:
        """Rows start … start + count - 1, int64 [count, n_ctx + 1]."""
        which, places = self._picks(start, count)
        found = torch.empty(count, self.n_ctx + 1, dtype=torch.int64)
        for i, source in enumerate(self.sources.values()):
            mine = np.flatnonzero(which == i)
            runs = np.split(mine, np.flatnonzero(np.diff(places[mine]) != 1) + 1)
            for run in runs:  # a source gives rows that follow one another at once
                if len(run):
                    found[run] = source.rows(int(places[run[0]]), len(run))
        return found

    def epochs(self, rows: int) -> dict[str, float]:
        """How often each source was read after so many rows; NaN for one without end.

        Args:
            rows: Rows read.
        """
        block = self._block(rows // _BLOCK)
        taken = block + np.bincount(
            self._order(rows // _BLOCK)[: rows % _BLOCK], minlength=len(block)
        )
        return {
            name: float(n) / getattr(source, "rows_per_epoch", float("nan"))
            for (name, source), n in zip(self.sources.items(), taken, strict=True)
        }

    def _picks(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of each row, and the row's number there."""
        which, places = [], []
        for block in range(start // _BLOCK, (start + count - 1) // _BLOCK + 1):
            order = self._order(block)
            within = np.zeros(_BLOCK, np.int64)
            for i in range(len(self.weights)):
                within[order == i] = self._block(block)[i] + np.arange((order == i).sum())
            which.append(order)
            places.append(within)
        first = start % _BLOCK
        part = slice(first, first + count)
        return np.concatenate(which)[part], np.concatenate(places)[part]

    def _order(self, block: int) -> np.ndarray:
        counts = self._block(block + 1) - self._block(block)
        order = np.repeat(np.arange(len(counts)), counts)
        return np.random.default_rng([self._seed, block]).permutation(order)

    def _block(self, block: int) -> np.ndarray:
        """Rows of each source before a block: its share, rounded so that they add up."""
        while len(self._taken) <= block:
            due = self.weights * _BLOCK * len(self._taken) - self._taken[-1]
            counts = np.maximum(np.floor(due), 0).astype(np.int64)
            for i in np.argsort(counts - due)[: _BLOCK - counts.sum()]:
                counts[i] += 1
            self._taken.append(self._taken[-1] + counts)
        return self._taken[block]


def _shards(documents: Iterable[str]) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for document in documents:
        shard.append(document)
        size += len(document)
        if size >= _SHARD:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _encode(task: tuple[Encoder, Any, list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of some texts, each behind its mark, and where each ends."""
    tok, dtype, texts = task
    encoded = [np.array([tok.end, *ids], dtype) for ids in tok.encode_batch(texts)]
    return np.concatenate(encoded), np.cumsum([len(ids) for ids in encoded])
