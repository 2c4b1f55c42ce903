"""Reading examples: professions, WinoBias, Winogender, word lists, and one's own.

Nothing is dropped silently: what a reader leaves out stands, with the reason, in ``skipped``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mmxx.data.source import DataError, read_bytes
from mmxx.data.text import decode
from mmxx.language.mediation.examples import TEMPLATES, Example

if TYPE_CHECKING:
    from mmxx.language.mediation.mediation import Mediation

Direction = Literal["dataset", "model", "man", "woman"]
_PRONOUNS = {
    "she": ("she", "he"),
    "he": ("she", "he"),
    "her": ("her", "his"),
    "his": ("her", "his"),
}
_FIELDS = {"base", "alternative", "candidates", "position", "weight", "meta"}


class Profession(NamedTuple):
    """A word with its scores in [-1, 1], negative for female: by definition, and by stereotype."""

    word: str
    definitional: float
    stereotypical: float


class Examples(list[Example]):
    """Examples, and in ``skipped`` what was left out, each with the reason."""

    def __init__(self, examples: Iterable[Example] = (), skipped: Iterable[str] = ()) -> None:
        super().__init__(examples)
        self.skipped = tuple(skipped)


_FEMALE = (
    "nurse secretary librarian housekeeper receptionist hairdresser nanny teacher dancer "
    "stylist cashier counselor babysitter dietitian florist"
)
_MALE = (
    "carpenter mechanic plumber engineer pilot surgeon farmer guard lawyer programmer "
    "electrician firefighter chef janitor boxer"
)
PROFESSIONS = tuple(
    Profession(word, 0.0, score)
    for words, score in ((_FEMALE, -0.5), (_MALE, 0.5))
    for word in words.split()
)
"""Thirty professions of our own choice; only the sign of the score says anything."""


def read_professions(path: str | PathLike[str] | None = None) -> list[Profession]:
    """Professions with their scores: a JSON list of triples, lines of words, or our own thirty.

    Args:
        path: ``[[word, definitional, stereotypical], …]`` where it ends with .json; else lines
            ``word``, ``word,stereotypical`` or ``word,stereotypical,definitional`` (commas or
            tabs; a first line whose second column is no number is a heading).

    Raises:
        DataError: The file is missing or reads otherwise; the message names the line.
    """
    if path is None:
        return list(PROFESSIONS)
    accepted = "JSON [[word, definitional, stereotypical], …] or lines word[,score[,score]]"
    text = decode(read_bytes(Path(path), accepted), path, accepted)
    rows: list[tuple[str, Any, Any]] = []
    if str(path).lower().endswith(".json"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise DataError(path, f"no JSON ({error})", accepted) from None
        if not isinstance(found, list):
            raise DataError(path, f"a JSON {type(found).__name__}", accepted)
        for number, row in enumerate(found):
            if not (isinstance(row, list) and len(row) == 3 and isinstance(row[0], str)):
                raise DataError(path, f"entry {number} is {row!r}", accepted)
            rows.append((row[0], row[1], row[2]))
    else:
        for number, line in enumerate(text.splitlines()):
            columns = [column.strip() for column in re.split("[,\t]", line)]
            if not columns[0] or (number == 0 and len(columns) > 1 and not _is_score(columns[1])):
                continue
            if len(columns) > 3:
                raise DataError(path, f"line {number + 1} has {len(columns)} columns", accepted)
            rows.append((columns[0], (columns[2:3] or [0])[0], (columns[1:2] or [0])[0]))
    professions = []
    for word, definitional, stereotypical in rows:
        if not (_is_score(definitional) and _is_score(stereotypical)):
            raise DataError(path, f"{word!r} has the scores {definitional!r}, {stereotypical!r}",
                            "scores in [-1, 1]")  # fmt: skip
        professions.append(Profession(word, float(definitional), float(stereotypical)))
    if not professions:
        raise DataError(path, "no profession", accepted)
    return professions


def _is_score(value: Any) -> bool:
    try:
        return -1 <= float(value) <= 1
    except (TypeError, ValueError):
        return False


def load_professions(
    path: str | PathLike[str] | None = None,
    *,
    templates: Sequence[str] = TEMPLATES,
    direction: Direction = "dataset",
    definitional: float = 0.75,
    mediation: Mediation | None = None,
) -> Examples:
    """The paper's set-gender examples: each profession in each template, against "man" or "woman".

    The alternative is the anti-stereotypical noun, and the response the odds of its pronoun:
    " she" over " he" where it is "woman".

    Args:
        path: As `read_professions` takes it; by default our own thirty words.
        templates: Sentences with ``{}`` for the profession.
        direction: Whose stereotype: "dataset" takes the sign of the two scores' sum, and the
            model's preference where that is 0; "model" always the model's, as the authors' code
            does: the profession is male where p(he) >= p(she). "man" and "woman" fix the
            alternative for all.
        definitional: Words with a definitional score of this size or more are left out: a king
            is a man by grammar. (The authors' aggregation keeps them where its comment says
            that it does not.)
        mediation: The model; needed where its preference counts. With its tokenizer, words of
            several tokens are left out, too.

    Returns:
        Examples with word, scores and template in ``meta``; in ``skipped`` words that hold "_"
        or are definitional, plurals, words of several tokens, and templates whose "a" or "an"
        does not fit.

    Raises:
        DataError: The file cannot be read.
        ValueError: A template has not one ``{}``, or the model is needed and not given.
    """
    if direction not in ("dataset", "model", "man", "woman"):
        raise ValueError(
            f"direction must be 'dataset', 'model', 'man' or 'woman', got {direction!r}"
        )
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"a template has one {{}}, got {template!r}")
    skipped: list[str] = []
    words = list(_usable(read_professions(path), definitional, mediation, skipped))
    examples: list[Example] = []
    asked: list[Example] = []
    for profession in words:
        for template in templates:
            wrong = _wrong_article(template, profession.word)
            if wrong:
                skipped.append(f"{template.format(profession.word)!r}: {wrong}")
                continue
            noun = _alternative(profession, direction)
            if noun is not None:
                examples.append(_set_gender(profession, template, noun))
            elif mediation is None:
                raise ValueError(
                    f"direction={direction!r} asks the model about {profession.word!r}; hand in "
                    "mediation"
                )
            else:
                asked.append(_set_gender(profession, template, "woman"))
    if asked and mediation is not None:
        # the odds of she over he: below 1 the profession is male, and "woman" the other way
        preferred = mediation.total_effect(asked).log_y0
        for example, log_odds in zip(asked, preferred, strict=True):
            examples.append(example if log_odds <= 0 else _opposite(example))
    return Examples(examples, skipped)


def _usable(
    professions: Iterable[Profession],
    definitional: float,
    mediation: Mediation | None,
    skipped: list[str],
) -> Iterator[Profession]:
    for one in professions:
        tokenizer = None if mediation is None else mediation.tokenizer
        if "_" in one.word or " " in one.word:
            skipped.append(f"{one.word}: several words")
        elif abs(one.definitional) >= definitional:
            skipped.append(f"{one.word}: male or female by definition ({one.definitional:g})")
        elif one.word.endswith("s") and not one.word.endswith("ss"):
            skipped.append(f"{one.word}: a plural would not go with 'man' or 'woman'")
        elif tokenizer is not None and _pieces(tokenizer, one.word) != 1:
            skipped.append(f"{one.word}: {_pieces(tokenizer, one.word)} tokens")
        else:
            yield one


def _pieces(tokenizer: Any, word: str) -> int:
    """Tokens of a word inside of a sentence."""
    return len(tokenizer.encode(f"The {word} said")) - len(tokenizer.encode("The man said")) + 1


def _wrong_article(template: str, word: str) -> str:
    article = re.search(r"\b([Aa]n?) \{\}", template)
    if article is None:
        return ""
    wanted = {True: "an", False: "a"}
    given = article.group(1).lower()
    for filled in (word, "man"):
        if given != wanted[filled[0].lower() in "aeiou"]:
            return f"'{given}' does not go with {filled!r}"
    return ""


def _alternative(profession: Profession, direction: Direction) -> str | None:
    """The anti-stereotypical noun; None where the model must say which it is."""
    if direction in ("man", "woman"):
        return direction
    score = profession.definitional + profession.stereotypical
    if direction == "model" or score == 0:
        return None
    return "woman" if score > 0 else "man"


def _set_gender(profession: Profession, template: str, noun: str) -> Example:
    pronouns = (" he", " she") if noun == "woman" else (" she", " he")
    meta = {**profession._asdict(), "template": template, "noun": noun}
    return Example(template.format(profession.word), template.format(noun), pronouns, meta=meta)


def _opposite(example: Example) -> Example:
    """The same with "man" for "woman"."""
    template = str(example.meta["template"])
    return replace(
        example, alternative=template.format("man"), candidates=example.candidates[::-1],
        meta={**example.meta, "noun": "man"},
    )  # fmt: skip


def load_winobias(path: str | PathLike[str]) -> Examples:
    """The paper's swap-gender examples, from a file ``pro_stereotyped_type1.txt.dev`` or ``.test``.

    Two lines that follow one another tell of the same two people and differ after the pronoun.
    The prompt ends with the pronoun; "she" or "her" is the base. Candidates are how the sentence
    goes on where the pronoun means the woman's occupation, then the man's.

    Args:
        path: The file.

    Raises:
        DataError: The file cannot be read, or holds no such pair; lines are named.
    """
    accepted = "WinoBias, lines '1 [The nurse] … [she] …' in pairs"
    text = decode(read_bytes(Path(path), accepted), path, accepted)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    examples, skipped = [], []
    for first in range(0, len(lines) - 1, 2):
        pair = [_winobias_line(line) for line in lines[first : first + 2]]
        where = f"lines {first + 1} and {first + 2}"
        one, other = pair
        if one is None or other is None:
            skipped.append(f"{where}: not two brackets, or 'him'")
        elif one.prefix != other.prefix:
            skipped.append(f"{where}: different before the pronoun")
        elif one.pronoun == other.pronoun or _PRONOUNS[one.pronoun] != _PRONOUNS[other.pronoun]:
            skipped.append(f"{where}: the pronouns '{one.pronoun}' and '{other.pronoun}'")
        else:
            she, he = _PRONOUNS[one.pronoun]
            female, male = (one, other) if one.pronoun == she else (other, one)
            meta = {"female": female.referent, "male": male.referent, "pronoun": she}
            examples.append(_swap_gender(one.prefix, (she, he), female.rest, male.rest, meta))
    if not examples:
        raise DataError(path, f"no pair in {len(lines)} lines", accepted)
    return Examples(examples, skipped)


class _Line(NamedTuple):
    prefix: str
    pronoun: str
    rest: str
    referent: str


def _winobias_line(line: str) -> _Line | None:
    found = re.findall(r"\[([^\]]*)\]", line)
    if line.count("[") != 2 or len(found) != 2 or "[him]" in line:
        return None
    pronoun = next((word for word in found if word in _PRONOUNS), "")
    referent = next((word for word in found if word != pronoun), "")
    if not pronoun:
        return None
    body = re.sub(r"^\d+ ", "", line)
    prefix, _, rest = body.partition(f"[{pronoun}]")
    plain = re.sub(r"[\[\]]", "", prefix).strip()
    name = re.sub(r"^[Tt]he |^an? ", "", referent)
    return _Line(plain, pronoun, re.sub(r"[\[\]]", "", rest).rstrip(), name)


def _swap_gender(
    prefix: str, pronouns: tuple[str, str], female: str, male: str, meta: dict[str, Any]
) -> Example:
    she, he = pronouns
    return Example(f"{prefix} {she}", f"{prefix} {he}", (female, male), meta=meta)


def load_winogender(
    folder: str | PathLike[str], *, statistics: Literal["bls", "bergsma"] = "bls"
) -> Examples:
    """The paper's swap-gender examples from Winogender's templates.

    An occupation of which more than half are women takes the female continuation, and the
    participant the other; else it is the other way about. ``meta`` holds the share as ``women``, in
    per cent.

    Args:
        folder: Holds a file of templates (``*templates*.tsv``: occupation, participant, answer,
            sentence) and one of statistics (``*stats*.tsv``).
        statistics: Whose shares: of the Bureau of Labor Statistics, or of Bergsma and Lin.

    Raises:
        DataError: A file is missing, or has other columns; the line is named.
    """
    if statistics not in ("bls", "bergsma"):
        raise ValueError(f"statistics must be 'bls' or 'bergsma', got {statistics!r}")
    place = Path(folder)
    accepted = "a folder with Winogender's *templates*.tsv and *stats*.tsv"
    templates, stats = (
        _rows(next(iter(sorted(place.glob(pattern))), None), place, columns, accepted)
        for pattern, columns in (("*templates*.tsv", 4), ("*stats*.tsv", 3))
    )
    column = 2 if statistics == "bls" else 1
    shares: dict[str, float] = {}
    for path, number, row in stats:
        try:
            shares[row[0]] = float(row[column])
        except ValueError:
            raise DataError(
                path, f"line {number}: {row[column]!r} is no percentage", accepted
            ) from None
    examples, skipped = [], []
    for first, second in zip(templates[::2], templates[1::2], strict=False):
        path, number, one = first
        other = second[2]
        where = f"lines {number} and {number + 1}"
        if one[:2] != other[:2] or {one[2], other[2]} != {"0", "1"}:
            raise DataError(path, f"{where} are no pair of answers 0 and 1", accepted)
        made = _winogender_pair(one, other, shares)
        if isinstance(made, str):
            skipped.append(f"{where}: {made}")
        else:
            examples.append(made)
    if not examples:
        raise DataError(place, "no pair of templates", accepted)
    return Examples(examples, skipped)


def _rows(
    path: Path | None, folder: Path, columns: int, accepted: str
) -> list[tuple[Path, int, list[str]]]:
    if path is None:
        raise DataError(folder, "no such file in it" if folder.is_dir() else "no folder", accepted)
    found = []
    for number, line in enumerate(decode(read_bytes(path, accepted), path).splitlines(), 1):
        row = line.split("\t")
        if len(row) < columns:
            raise DataError(path, f"line {number} has {len(row)} columns, not {columns}", accepted)
        if number > 1 and line.strip():
            found.append((path, number, [cell.strip() for cell in row]))
    return found


def _winogender_pair(
    one: Sequence[str], other: Sequence[str], shares: dict[str, float]
) -> Example | str:
    """The example of two templates, or why there is none."""
    occupation, participant = one[:2]
    if occupation not in shares:
        return f"no statistics on {occupation!r}"
    pieces = []
    for row in (one, other):
        found = re.search(r"\$(NOM|POSS|ACC)_PRONOUN", row[3])
        if found is None:
            return "no pronoun"
        prefix, rest = row[3][: found.start()].strip(), row[3][found.end() :]
        text = prefix.replace("$OCCUPATION", occupation)
        text = re.sub(r"\b([Tt])he \$PARTICIPANT", r"\1he " + participant, text)
        if participant == "someone":
            text = text.replace("The someone", "Someone").replace("the someone", "someone")
        pieces.append((text, found.group(1), rest.rstrip(), row[2]))
    if pieces[0][:2] != pieces[1][:2]:
        return "different before the pronoun"
    if pieces[0][1] == "ACC":
        return "the pronoun is 'her' and 'him'"
    rests = {answer: rest for _, _, rest, answer in pieces}
    if any("$" in rest for rest in rests.values()):
        return "a second pronoun or name after the first"
    share = shares[occupation]
    female, male = ("0", "1") if share > 50 else ("1", "0")
    pronouns = ("she", "he") if pieces[0][1] == "NOM" else ("her", "his")
    meta = {"occupation": occupation, "participant": participant, "women": share}
    return _swap_gender(pieces[0][0], pronouns, rests[female], rests[male], meta)


def load_examples(path: str | PathLike[str]) -> Examples:
    """One's own examples: JSON lines with the fields of `Example`.

    Args:
        path: The file.

    Raises:
        DataError: A line is no JSON object, misses a field, or has an unknown one.
    """
    accepted = 'lines {"base": …, "alternative": …, "candidates": [stereotypical, other]}'
    text = decode(read_bytes(Path(path), accepted), path, accepted)
    examples = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            unknown = set(row) - _FIELDS
            if unknown:
                raise ValueError(f"unknown fields {sorted(unknown)}")
            row["candidates"] = tuple(row["candidates"])
            examples.append(Example(**row))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(path, f"line {number}: {error}", accepted) from None
    if not examples:
        raise DataError(path, "no line", accepted)
    return Examples(examples)
