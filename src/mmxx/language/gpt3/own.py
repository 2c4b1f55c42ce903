"""A text, weights and tasks of the user's own; and the experiment's text with planted questions.

``run`` is the handle that the experiment was given.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmxx.data import Source
from mmxx.language.gpt3.arms import init_std, schedule
from mmxx.language.gpt3.bpe import ByteBPE
from mmxx.language.gpt3.contamination import Contamination
from mmxx.language.gpt3.corpus import library_docs
from mmxx.language.gpt3.evaluation import evaluate
from mmxx.language.gpt3.generation import generate
from mmxx.language.gpt3.likelihood import split
from mmxx.language.gpt3.packing import PackedDataset, read_documents
from mmxx.language.gpt3.sharding import WholeState, shard, whole_state
from mmxx.language.gpt3.tasks import TASKS, Example, Task, joined
from mmxx.language.gpt3.training import Training, validation_loss
from mmxx.nn.gpt import GPT, GPTConfig

_SAMPLE = 64  # tokens of a sample
_LARGE = 1 << 24  # characters of a text that several processes encode


@dataclass
class Inputs:
    """What the user handed in, read.

    Attributes:
        docs: Documents of the text; none where there is none.
        tasks: The tasks.
        model: The model of the weights, and its tokenizer; None where one is to be trained.
    """

    docs: list[str]
    tasks: list[Task]
    model: tuple[GPT, ByteBPE] | None

    @classmethod
    def read(cls, config: Any, rng: np.random.Generator) -> Inputs:
        """Read the files that a configuration names; tasks made by rule stand in for none.

        Raises:
            FileNotFoundError: One is not there.
            ValueError: One is not what it should be, or asks more than there is.
        """
        tasks = [Task.from_jsonl(path) for path in config.tasks]
        if config.weights is not None and not tasks:
            tasks = [make(config.questions, rng) for make in TASKS.values()]
        names = [task.name for task in tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks must have different file names, got {names}")
        fewest = min((len(task.examples) for task in tasks), default=max(config.shots) + 1)
        if max(config.shots) >= fewest:
            raise ValueError(f"shots must be below {fewest}, the fewest questions of a task, got "
                             f"{config.shots}")  # fmt: skip
        docs = [] if config.data is None else list(read_documents(config.data))
        if config.data is not None and not docs:
            raise ValueError("data: there is no text in it")
        if config.shard and not torch.distributed.is_initialized():
            raise ValueError("shard needs several processes: give --devices N, or use torchrun")
        return cls(docs, tasks, None if config.weights is None else load(config.weights))


def measure(config: Any, run: Any, given: Inputs) -> None:
    """Train on the user's text or load the user's weights; ask tasks, look for them in the text."""
    docs = given.docs
    if docs:
        run.source(_source(Path(config.data).name, "not stated", str(config.data), docs))
    model, tok = _train(config, run, docs) if given.model is None else given.model
    model.to(run.device)
    _samples(run, model, tok)
    if given.tasks:
        _ask(config, run, model, tok, given.tasks, docs)


def load(folder: Path) -> tuple[GPT, ByteBPE]:
    """A model and its tokenizer from one folder.

    Raises:
        ValueError: The tokenizer has more tokens than the model.
    """
    model, tok = GPT.from_folder(folder), ByteBPE.load(folder)
    if len(tok) > model.config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tok)} tokens, and the model "
            f"{model.config.vocab_size}"
        )
    return model, tok


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> tuple[GPT, ByteBPE]:
    """What `load` gives, once in each process."""
    return load(folder)


def _here(fn: Any, items: Any) -> list[Any]:
    return list(map(fn, items))


def _source(name: str, licence: str, origin: str, docs: list[str]) -> Source:
    digest = hashlib.sha256()
    for text in docs:
        digest.update(text.encode("utf-8", errors="surrogatepass"))
    return Source(name, licence, origin, digest.hexdigest())


# -- a text of one's own -----------------------------------------------------------------------


def _train(config: Any, run: Any, docs: list[str]) -> tuple[GPT, ByteBPE]:
    files = run.once("tokenizer", lambda: ByteBPE.train(docs, config.vocabulary).files())
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_text(content, encoding="utf-8", newline="\n")
        tok = ByteBPE.load(folder)
    for name, content in files.items():
        run.artifact(name, content, "The tokenizer, as transformers reads it")
    shape = {
        "n_ctx": config.n_ctx, "vocab_size": len(tok), "attention": "dense",
        "checkpointing": config.checkpointing,
    }  # fmt: skip
    if config.preset is not None:
        shape = GPTConfig.preset(config.preset, strict=False, **shape)
    else:
        width = config.widths[-1]
        shape = GPTConfig(
            config.layers, width, config.heads, init_std=init_std(width), **shape
        )  # fmt: skip
    model = GPT(shape, generator=run.generator("init")).to(run.device)
    with tempfile.TemporaryDirectory() as folder:
        # workers take seconds to start, and a small text is encoded in less
        spread = run.map if sum(map(len, docs)) > _LARGE else _here
        encode = partial(run.once, "tokens", spread)
        packed = PackedDataset.of(docs, tok, folder, val=0.05, seed=run.seed, map=encode)
        rows = packed.sequences(config.n_ctx, seed=run.seed)
        held = packed.sequences(config.n_ctx, part="val")
        model = _fit(config, run, model, rows, held)
        loss = validation_loss(model, held, min(held.rows_per_epoch, 256))
        counts = packed.counts
    epochs = config.steps * config.batch / rows.rows_per_epoch
    letters = sum(map(len, docs)) / sum(part["tokens"] for part in counts.values())
    run.table(
        "training",
        [
            {"parameters": model.num_params(embedding=False), "vocabulary": len(tok),
             "documents": counts["train"]["documents"], "tokens": counts["train"]["tokens"],
             "epochs": round(epochs, 2), "held-out documents": counts["val"]["documents"],
             "held-out loss, nats per token": round(loss, 4),
             "bits per character": round(loss / np.log(2) / letters, 4)}
        ],
        "The model that was trained on the text.",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model.to_folder(folder)
        for path in sorted(Path(folder).iterdir()):
            run.artifact(path.name, path.read_bytes(), "The model, as transformers reads it")
    return model, tok


def _fit(config: Any, run: Any, model: GPT, rows: Any, held: Any) -> GPT:
    """The loop: on several devices each takes its part of every batch. The model comes back whole.

    A model that is sharded casts its own weights, so that no cast is left to its training.
    """
    plan = schedule(vars(config), config.n_ctx)
    if config.shard:
        shard(model, dtype=torch.bfloat16 if config.precision == "bf16" else None)
    training = Training(
        model, rows, plan, part=run.part, micro_batch=config.micro_batch,
        precision="fp32" if config.shard else config.precision,
    )  # fmt: skip
    state: dict[str, Any] = {"whole": WholeState(model, training)}
    if not config.shard:
        training.model, training.optimizer = run.distribute(training.model, training.optimizer)
        state = {"model": model, "training": training}
    windows = min(held.rows_per_epoch, 64)
    every = max(1, plan.steps // 10)
    loop = run.loop("train", plan.steps, state=state, claims=())
    for number in loop:
        step = training.step(number)
        loss = run.mean(torch.tensor(step.loss))
        values = {"loss": loss, "lr": step.lr, "grad_norm": step.grad_norm}
        values["tokens_per_second"] = config.batch * config.n_ctx / step.seconds
        if (number + 1) % every == 0:
            values["held_out"] = validation_loss(model, held, windows)
        run.log(number, **values)
        if not run.check_finite(number, loss=loss):
            break
    if loop.diverged:
        run.note(f"Training ended early: {loop.diverged}.")
    if not config.shard:
        return model
    with torch.device("meta"):
        whole = GPT(model.config)
    whole.load_state_dict(whole_state(model), assign=True)
    return whole


def _samples(run: Any, model: GPT, tok: ByteBPE) -> None:
    device = run.device
    found = generate(
        model, [[tok.end]] * 3, max_new_tokens=min(_SAMPLE, model.config.n_ctx - 1),
        temperature=0.8, top_p=0.95, stop=(tok.end,), tokenizer=tok,
        generator=run.generator("samples") if device.type == "cpu" else None,
    )  # fmt: skip
    rows = [{"sample": i + 1, "text": _readable(text.text or "")} for i, text in enumerate(found)]
    run.table("samples", rows, "What the model writes at temperature .8 and top-p .95.")


def _readable(text: str) -> str:
    """A text without what no page can show."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "·" for letter in text)


# -- tasks -------------------------------------------------------------------------------------


def _ask(
    config: Any, run: Any, model: GPT, tok: ByteBPE, tasks: list[Task], docs: list[str]
) -> None:
    folder = (config.weights or run.folder / "artifacts").resolve()
    if run.device.type != "cpu":  # which holds one model, and no more
        where: dict[str, Any] = {}
    elif run.options.backend == "serial":
        where = {"map": run.map}
    else:
        where = {"map": run.map, "source": partial(_loaded, folder)}

    def ask() -> list[dict[str, Any]]:
        found = evaluate(
            model, tok, tasks, shots=config.shots, seed=run.seed, control=True, **where
        )
        return [vars(result) for result in found]

    results = run.once("tasks", ask)
    rows = [{k: v for k, v in result.items() if k != "prompts"} for result in results]
    run.table(
        "tasks", [{k: "" if v is None else v for k, v in row.items()} for row in rows],
        "Score by the examples before each question. Fitted: how many fitted the context. "
        "Control: the examples' answers exchanged among them.",
    )  # fmt: skip
    run.artifact("prompts.json", json.dumps(results, indent=1), "Every prompt's hash and score")
    if not docs:
        return
    index = Contamination().fit(docs)
    best = max(config.shots)
    scores = {r["task"]: [p["score"] for p in r["prompts"]] for r in results if r["shots"] == best}
    rows = [index.report(task, scores[task.name]).row() for task in tasks]
    run.table(
        "contamination", rows,
        f"Questions that share a run of words with the text, and scores after {best} examples.",
    )  # fmt: skip


# -- the experiment's text ---------------------------------------------------------------------


def documentation(most: int | None) -> tuple[list[str], Source]:
    """Documents of Python's own documentation, and where they come from."""
    docs = list(itertools.islice(library_docs(), most))
    origin = "pydoc_data.topics and docstrings of the standard library"
    return docs, _source("Python's documentation", "PSF-2.0", origin, docs)


def planted_text(config: Any, docs: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """Documents, packed, with a twentieth of a test set planted in the training part.

    Returns:
        "items", what `arms.train_text` needs of it; "task", the test set: sentences of held-out
        documents whose end is asked for; "planted", which of them; "index", of the text.
    """
    order = rng.permutation(len(docs))
    cut = max(1, len(docs) // 20)
    held, train = [docs[i] for i in order[:cut]], [docs[i] for i in order[cut:]]
    task = Task("held-out sentences", _sentences(held, 200))
    planted = np.zeros(len(task.examples), bool)
    planted[rng.permutation(len(planted))[: max(1, len(planted) // 20)]] = True
    for i in np.flatnonzero(planted):
        for place in rng.permutation(len(train))[:8]:
            train[int(place)] += "\n\n" + task.shot(task.examples[int(i)])
    tok = ByteBPE.train(train, config.vocabulary)
    requests = []
    for example in task.examples:
        before, after = split(tok, *joined(example.context, example.completion))
        after = after[: config.n_ctx // 2]
        requests.append((before[-config.n_ctx // 2 :], after))
    parts = {}
    for name, texts in (("train", train), ("val", held)):
        encoded = [np.array([tok.end, *ids], np.int64) for ids in tok.encode_batch(texts)]
        parts[name] = (np.concatenate(encoded), np.cumsum([0, *map(len, encoded)]))
    return {
        "items": {**parts, "vocab": len(tok), "requests": requests},
        "task": task, "planted": planted, "index": Contamination().fit(train),
    }  # fmt: skip


def _sentences(docs: list[str], most: int) -> list[Example]:
    """Lines of 14 words and more: the first ten, and what follows."""
    found = []
    for text in docs:
        for paragraph in text.split("\n\n"):
            words = paragraph.split()
            if len(words) >= 14:
                found.append(Example(" ".join(words[:10]), " " + " ".join(words[10:24])))
    return found[:most]
