"""Programs: three lists of instructions, and their forms as text, JSON and Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmxx.discovery.automl_zero.ops import (
    COMPONENTS,
    DATA,
    FIRST_OUT,
    MOST_ADDRESSES,
    OPS,
    RANDOM,
    Op,
    number_of,
)

VERSION = 1
MOST_INSTRUCTIONS = 250
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf|nan"
_STREAM = re.compile(r",stream=(\d{1,5})\)$")
_HEAD = re.compile(r"def(Setup|Predict|Learn)\(\):")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        op: Its operation, by number or name.
        in1: Address of the first input.
        in2: Address of the second.
        out: Address of the output.
        data: The numbers it holds: a constant; an index and a constant; two indices and a constant;
            low and high; mean and deviation. Indices are fractions in [0, 1) of the length.
        stream: Which stream an operation that draws takes its numbers from; None for that of its
            place in the program.

    Raises:
        ValueError: The operation is unknown, an address cannot be read or written, or the numbers
            are too few or too many.

    Example:
        >>> print(Instruction("inner_product", in1=0, in2=1, out=1))
        s1 = dot(v0, v1)
    """

    op: int | str
    in1: int = 0
    in2: int = 0
    out: int = 0
    data: tuple[float, ...] = ()
    stream: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "op", number_of(self.op))
        op = self.kind
        wanted = DATA[op.data]
        if len(self.data) != wanted:
            raise ValueError(f"data: {op.name} holds {wanted} numbers, got {len(self.data)}")
        if op.data in ("element", "cell") and not all(0 <= x < 1 for x in self.data[:-1]):
            raise ValueError(f"data: indices must be fractions in [0, 1), got {self.data[:-1]}")
        for name, type_ in (("in1", op.in1), ("in2", op.in2), ("out", op.out)):
            low = FIRST_OUT[type_] if type_ and name == "out" else 0
            value = getattr(self, name)
            if type_ and not low <= value < MOST_ADDRESSES:
                raise ValueError(
                    f"{name} must be {type_}{low} to {type_}{MOST_ADDRESSES - 1}, got "
                    f"{type_}{value}" + (_WHY.get((type_, value), "") if name == "out" else "")
                )

    @property
    def kind(self) -> Op:
        """The operation."""
        return OPS[int(self.op)]

    def __str__(self) -> str:
        x, y, z = (*(repr(float(number)) for number in self.data), "", "", "")[:3]
        text = self.kind.form.format(o=self.out, a=self.in1, b=self.in2, x=x, y=y, z=z)
        return text if self.stream is None else f"{text[:-1]}, stream={self.stream})"


_WHY = {
    ("s", 0): "; s0 is the label, which no instruction writes",
    ("v", 0): "; v0 holds the features, which no instruction writes",
}


def _pattern(op: Op) -> re.Pattern[str]:
    text = re.escape(op.form.replace(" ", ""))
    for letter in "oab":
        text = text.replace(rf"\{{{letter}\}}", rf"(?P<{letter}>\d{{1,4}})")
    for letter in "xyz":
        text = text.replace(rf"\{{{letter}\}}", rf"(?P<{letter}>{_NUMBER})")
    return re.compile(text)


_PATTERNS = [_pattern(op) for op in OPS]


def _read(line: str) -> Instruction:
    """The instruction of a line without blanks."""
    stream = None
    if found := _STREAM.search(line):
        stream, line = int(found[1]), line[: found.start()] + ")"
    for number, pattern in enumerate(_PATTERNS):
        match = pattern.fullmatch(line)
        if match is None:
            continue
        if stream is not None and number not in RANDOM:
            raise ValueError("only an operation that draws has a stream")
        part = match.groupdict()
        in1, in2, out = (int(part.get(name) or 0) for name in "abo")
        data = tuple(float(part[name]) for name in "xyz" if name in part)
        return Instruction(number, in1, in2, out, data, stream)
    raise ValueError(
        "no such instruction; accepted are forms such as s2 = s0 - s1, v1 = s2 * v0, "
        "s1 = dot(v0, v1), s3 = 0.01, v1[0.25] = 0.5, v2 = gaussian(0, 0.1, n_features)"
    )


@dataclass(frozen=True)
class Program:
    """A learning algorithm: Setup runs once, Predict and Learn for every example.

    Attributes:
        setup: Instructions of Setup.
        predict: Instructions of Predict: features in ``v0``, prediction in ``s1``.
        learn: Instructions of Learn: features in ``v0``, label in ``s0``.

    Raises:
        ValueError: A component has more than 250 instructions.

    Example:
        >>> program = Program.from_text('''
        ... def Setup():
        ...   s2 = 0.1
        ... def Predict():
        ...   s1 = dot(v1, v0)
        ... def Learn():
        ...   s3 = s0 - s1
        ...   s3 = s2 * s3
        ...   v2 = s3 * v0
        ...   v1 = v1 + v2
        ... ''')
        >>> Program.from_text(program.text()) == program
        True

    Source: Real et al. (2020), section 3.1.
    """

    setup: tuple[Instruction, ...] = ()
    predict: tuple[Instruction, ...] = ()
    learn: tuple[Instruction, ...] = ()

    def __post_init__(self) -> None:
        for name in COMPONENTS:
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) > MOST_INSTRUCTIONS:
                raise ValueError(
                    f"{name} must have {MOST_INSTRUCTIONS} instructions at most, got "
                    f"{len(getattr(self, name))}"
                )

    @property
    def parts(self) -> tuple[tuple[Instruction, ...], ...]:
        """The three components, in order."""
        return self.setup, self.predict, self.learn

    def __len__(self) -> int:
        """The number of instructions."""
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Instruction]:
        """All instructions, Setup first."""
        for part in self.parts:
            yield from part

    def addresses(self) -> tuple[int, int, int]:
        """How many scalars, vectors and matrices the program needs at least."""
        most = {"s": 1, "v": 0, "m": -1}  # s0, s1 and v0 are always there
        for instruction in self:
            op = instruction.kind
            for type_, address in (
                (op.in1, instruction.in1), (op.in2, instruction.in2), (op.out, instruction.out),
            ):  # fmt: skip
                if type_:
                    most[type_] = max(most[type_], address)
        return most["s"] + 1, most["v"] + 1, most["m"] + 1

    # -- text, JSON, Python --------------------------------------------------------------------

    def text(self) -> str:
        """The program in the form that the authors print, which `from_text` reads."""
        lines: list[str] = []
        for name, part in zip(COMPONENTS, self.parts, strict=True):
            lines += [f"def {name.capitalize()}():", *(f"  {instruction}" for instruction in part)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Program:
        """Read what `text` writes; blanks, empty lines and comments after # do not matter.

        Args:
            text: The three components, each under ``def Setup():`` and so on.

        Raises:
            ValueError: A line is none of the accepted forms; the message has its number.
        """
        parts: dict[str, list[Instruction]] = {}
        current: list[Instruction] | None = None
        for number, line in enumerate(text.splitlines(), 1):
            bare = re.sub(r"\s+", "", line.partition("#")[0])
            if not bare:
                continue
            try:
                if head := _HEAD.fullmatch(bare):
                    name = head[1].lower()
                    if name in parts:
                        raise ValueError(f"{head[1]} is there twice")
                    current = parts.setdefault(name, [])
                elif current is None:
                    raise ValueError("an instruction stands before def Setup():")
                else:
                    current.append(_read(bare))
            except ValueError as error:
                raise ValueError(f"text, line {number}: {line.strip()!r}: {error}") from None
        if missing := [name for name in COMPONENTS if name not in parts]:
            raise ValueError(f"text lacks def {missing[0].capitalize()}():")
        return cls(**{name: tuple(parts[name]) for name in COMPONENTS})

    def to_json(self) -> str:
        """The program as JSON, which `from_json` reads."""
        tree: dict[str, Any] = {"version": VERSION}
        for name, part in zip(COMPONENTS, self.parts, strict=True):
            tree[name] = [
                {
                    "op": i.kind.name, "in1": i.in1, "in2": i.in2, "out": i.out,
                    "data": list(i.data), "stream": i.stream,
                }
                for i in part
            ]  # fmt: skip
        return json.dumps(tree, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Read what `to_json` writes.

        Args:
            text: The JSON.

        Raises:
            ValueError: It is no JSON of a program, or one of another version.
        """
        tree = json.loads(text)
        version = tree.get("version") if isinstance(tree, dict) else None
        if version != VERSION:
            raise ValueError(f"JSON of a program has version {VERSION}, got {version!r}")
        try:
            return cls(
                **{
                    name: tuple(
                        Instruction(**{**entry, "data": tuple(entry["data"])})
                        for entry in tree[name]
                    )
                    for name in COMPONENTS
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"JSON of a program lacks or misnames something: {error}") from None

    def to_python(self) -> str:
        """A Python module that runs the program with numpy alone.

        Returns:
            The source; it defines ``fit(X, y, epochs=1, classify=False, seed=0, task=0)`` and
            ``predict(X)``.
        """
        from mmxx.discovery.automl_zero._export import source

        return source(self)

    # -- shorter forms -------------------------------------------------------------------------

    def with_streams(self) -> Program:
        """The same program with the streams of its draws written out, so that they stay."""
        from mmxx.discovery.automl_zero._lowering import STREAMS

        return Program(
            *(
                tuple(
                    replace(i, stream=number * STREAMS + place)
                    if i.op in RANDOM and i.stream is None
                    else i
                    for place, i in enumerate(part)
                )
                for number, part in enumerate(self.parts)
            )
        )

    def pruned(self, tasks: Sequence[Any] = ()) -> Program:
        """Without the instructions that cannot, or on some tasks do not, matter.

        Args:
            tasks: Where given, an instruction goes, too, when all errors on all of these tasks stay
                bit for bit the same without it.

        Returns:
            A program with the same predictions, bit for bit.
        """
        from mmxx.discovery.automl_zero.tidy import prune

        return prune(self, tasks)

    def normalized(self) -> Program:
        """For people: addresses renamed in order of use, no-ops dropped, constants folded."""
        from mmxx.discovery.automl_zero.tidy import normalize

        return normalize(self)


# -- packed form -------------------------------------------------------------------------------


def pack(
    programs: Sequence[Program], capacity: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Programs as arrays.

    Args:
        programs: n of them.
        capacity: Room for each component; by default what the longest need.

    Returns:
        Code int16 [n, L, 5] (operation, inputs, output, stream or -1), data float64 [n, L, 3],
        sizes int64 [n, 3], and where the components begin, int64 [3].
    """
    sizes = np.array([[len(part) for part in p.parts] for p in programs], np.int64)
    room = sizes.max(0) if capacity is None else np.asarray(capacity, np.int64)
    starts = np.concatenate([[0], np.cumsum(room)])
    code = np.zeros((len(programs), starts[-1], 5), np.int16)
    code[:, :, 4] = -1
    data = np.zeros((len(programs), starts[-1], 3))
    for n, program in enumerate(programs):
        for start, part in zip(starts, program.parts, strict=False):
            for i, instruction in enumerate(part, start):
                stream = -1 if instruction.stream is None else instruction.stream
                code[n, i] = (
                    instruction.op, instruction.in1, instruction.in2, instruction.out, stream,
                )  # fmt: skip
                data[n, i, : len(instruction.data)] = instruction.data
    return code, data, sizes, starts[:3].astype(np.int64)


def unpack(code: np.ndarray, data: np.ndarray, sizes: Iterable[int], starts: Any) -> Program:
    """One program from its arrays, [L, 5], [L, 3] and [3]."""
    parts = []
    for start, size in zip(starts, sizes, strict=True):
        part = []
        for i in range(start, start + size):
            op, in1, in2, out, stream = (int(x) for x in code[i])
            held = tuple(float(x) for x in data[i, : DATA[OPS[op].data]])
            part.append(Instruction(op, in1, in2, out, held, None if stream < 0 else stream))
        parts.append(tuple(part))
    return Program(*parts)


def checked_addresses(
    programs: Sequence[Program], memory: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Memory that the programs need, or the one given where that suffices.

    Raises:
        ValueError: The given one does not.
    """
    needs = tuple(max(counts) for counts in zip(*(p.addresses() for p in programs), strict=True))
    if memory is None:
        return needs[0], needs[1], needs[2]
    for name, need, given in zip(("scalars", "vectors", "matrices"), needs, memory, strict=True):
        if need > given:
            raise ValueError(f"{name} must be {need} or more for this program, got {given}")
    return memory
