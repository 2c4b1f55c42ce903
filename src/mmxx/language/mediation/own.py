"""A model and texts of the user's own: loading, reading, and tasks for any process."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mmxx.data.source import DataError, read_bytes
from mmxx.data.text import decode
from mmxx.language.mediation.averages import Mean
from mmxx.language.mediation.effects import Effects, across, joined
from mmxx.language.mediation.examples import TEMPLATES, Example
from mmxx.language.mediation.mediation import Mediation
from mmxx.language.mediation.readers import (
    Direction,
    Examples,
    load_examples,
    load_professions,
    load_winobias,
    load_winogender,
)
from mmxx.language.mediation.selection import every

# of a task: fixed, so that results do not depend on the number of workers
_EXAMPLES, _LAYERS = 8, 4


@lru_cache(maxsize=1)
def load(folder: str) -> Mediation:
    """A causal language model and its tokenizer from a folder; nothing is downloaded or unpickled.

    Raises:
        ValueError: The folder holds none, or one that cannot be intervened on.
    """
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(
            f"model: {folder} has no config.json; accepted: a folder that save_pretrained wrote, "
            "with model.safetensors and a tokenizer"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises what it likes on a folder that does not fit
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"model: {folder} cannot be loaded ({reason})") from error
    return Mediation(model, tokenizer)


def read(
    data: Path | None,
    templates: Path | None,
    direction: Direction,
    split: Literal["dev", "test"],
    mediation: Mediation,
) -> Examples:
    """Examples from whatever file it is; thirty professions where there is none.

    Raises:
        DataError, ValueError: The file cannot be read, or templates are given for sentences.
    """
    kind = "professions" if data is None else _kind(data)
    if templates is not None and kind != "professions":
        raise ValueError(f"templates are for professions and word lists; data={data} is {kind}")
    if kind == "WinoBias":
        assert data is not None
        return load_winobias(data / f"pro_stereotyped_type1.txt.{split}" if data.is_dir() else data)
    if kind == "Winogender":
        assert data is not None
        return load_winogender(data)
    if kind == "examples":
        assert data is not None
        return load_examples(data)
    sentences: Sequence[str] = TEMPLATES
    if templates is not None:
        text = decode(read_bytes(templates, "sentences with {}, one a line"), templates)
        sentences = [line.strip() for line in text.splitlines() if line.strip()]
    return load_professions(data, templates=sentences, direction=direction, mediation=mediation)


def _kind(data: Path) -> str:
    accepted = "professions.json, a word list, WinoBias, a folder of Winogender, or .jsonl"
    if not data.exists():
        raise DataError(data, "no such file or folder", accepted)
    if data.is_dir():
        return "Winogender" if any(data.glob("*templates*.tsv")) else "WinoBias"
    if data.suffix.lower() == ".jsonl":
        return "examples"
    if data.suffix.lower() == ".json":
        return "professions"
    first = decode(read_bytes(data, accepted), data, accepted).lstrip().partition("\n")[0]
    return "WinoBias" if re.match(r"\d+ .*\[", first) else "professions"


class Task(NamedTuple):
    """Some examples, and layers whose heads or neurons to measure; what loads the model."""

    load: Callable[[], Mediation]
    examples: Sequence[Example]
    kind: Literal["heads", "neurons"]
    layers: range


def tasks(
    load: Callable[[], Mediation],
    examples: Sequence[Example],
    kind: Literal["heads", "neurons"],
    layers: int,
) -> list[Task]:
    """Tasks of a few examples and layers each; `gathered` takes their results in this order."""
    return [
        Task(load, examples[begin : begin + _EXAMPLES], kind, part)
        for begin in range(0, len(examples), _EXAMPLES)
        for part in _parts(layers)
    ]


def _parts(layers: int) -> list[range]:
    return [range(i, min(i + _LAYERS, layers)) for i in range(0, layers, _LAYERS)]


def measure(task: Task) -> np.ndarray[Any, Any]:
    """The effects of a task, as bytes; with the first layers comes what all heads do together."""
    mediation = task.load()
    found = getattr(mediation, task.kind)(task.examples, layers=task.layers)
    if task.kind == "heads" and task.layers.start == 0:
        together = mediation.sets(task.examples, [every(mediation, "heads")])
        assert together.log_nie is not None
        assert together.log_nde is not None
        model = replace(found.model, log_nie=together.log_nie[:, 0], log_nde=together.log_nde[:, 0])
        found = replace(found, model=model)
    return np.frombuffer(found.to_bytes(), np.uint8)


def gathered(results: Sequence[np.ndarray[Any, Any]], layers: int) -> Effects:
    """The effects of all examples through all layers, from what the tasks gave."""
    found = [Effects.from_bytes(result.tobytes()) for result in results]
    each = len(_parts(layers))
    return joined([across(found[i : i + each]) for i in range(0, len(found), each)])


def total(mediation: Mediation, examples: Sequence[Example]) -> np.ndarray[Any, Any]:
    """Total effects of all examples, as bytes."""
    return np.frombuffer(mediation.total_effect(examples).to_bytes(), np.uint8)


def by_rank(
    mediation: Mediation, examples: Sequence[Example], effects: Effects, k: int
) -> list[float]:
    """The mean log(1 + NIE) of the 1, 2, … k heads of largest mean NIE together."""
    assert effects.log_nie is not None
    means = effects.log_nie.mean(0)
    order = np.argsort(-means.reshape(-1), kind="stable")[:k]
    pairs = [(int(index) // means.shape[1], int(index) % means.shape[1]) for index in order]
    sets = [pairs[: size + 1] for size in range(len(pairs))]
    found = mediation.sets(examples, sets).log_nie
    assert found is not None
    return found.mean(0).tolist()


def averages(effects: Effects) -> list[dict[str, Any]]:
    """The total, and what all heads together do, by each of the averages."""
    rows = []
    kinds: tuple[Mean, ...] = ("ratio", "log", "median")
    for kind in kinds:
        summary = (effects.model or effects).mean(kind)
        row: dict[str, Any] = {"mean": kind}
        for name, part in (("TE", summary.te), ("NIE", summary.nie), ("NDE", summary.nde)):
            if part is not None and part.value.ndim == 0:
                row[name] = float(part.value)
                row[f"{name} low"], row[f"{name} high"] = float(part.low), float(part.high)
        rows.append(row)
    return rows


def as_csv(effects: Effects) -> str:
    """The mean of each mediator, one a line, the largest first."""
    text = io.StringIO()
    rows = effects.ranking(tests=False)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
