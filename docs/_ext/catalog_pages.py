"""A page per system, from its card and the README beside its code, and the reference."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from mmxx.lab.catalog import Card, Claim, systems

_LAB = {
    "catalog": "The catalog",
    "run": "A run",
    "errors": "Errors and exit codes",
    "testing": "The contract",
}


def _bars(claim: Claim) -> str:
    return ", ".join(f"{tier} {bar}" for tier, bar in claim.bars.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _system_page(card: Card) -> str:
    module = importlib.import_module(card.experiment.partition(":")[0])
    readme = Path(str(module.__file__)).with_name("README.md").read_text(encoding="utf-8")
    paper = card.paper
    rows = [
        f"| {_cell(claim.text)} | {_cell(claim.where)} | "
        f"{'' if claim.paper is None else f'{claim.paper:g}'} | {_bars(claim)} | "
        f"{_cell(claim.unit)} |"
        for claim in card.claims
    ]
    return "\n".join(
        [
            readme.rstrip(),
            "",
            "## What is judged",
            "",
            f"{paper.title}. {', '.join(paper.authors)}. {paper.venue} {paper.year}. <{paper.url}>",
            "",
            "| claim | where | paper | our bar | unit |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Measure it: `mmxx run {card.name}`, or `mmxx run {card.name} --full`.",
            "",
            "## Reference",
            "",
            "```{eval-rst}",
            *(_directive(target) for target in card.api),
            "```",
            "",
        ]
    )


def _directive(target: str) -> str:
    module, _, name = target.partition(":")
    thing = getattr(importlib.import_module(module), name)
    if not callable(thing):
        return f".. py:data:: {module}.{name}\n"
    kind = "autoclass" if isinstance(thing, type) else "autofunction"
    return f".. {kind}:: {module}.{name}\n"


def _write(path: Path, text: str) -> None:
    """Write only what changed, so that a second build has nothing to do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _generate(app: Sphinx) -> None:
    source = Path(app.srcdir)
    cards = [card for card in systems().values() if isinstance(card, Card)]
    ours = [card for card in cards if card.experiment.startswith("mmxx.")]
    for card in ours:
        _write(source / "systems" / f"{card.name}.md", _system_page(card))
    lines = [f"- [{card.title}]({card.name}.md): {card.summary}" for card in ours]
    tree = ["```{toctree}", ":hidden:", "", *(card.name for card in ours), "```"]
    _write(source / "systems" / "index.md", "\n".join(["# Systems", "", *lines, "", *tree, ""]))
    data = importlib.import_module("mmxx.data")
    _write(
        source / "api" / "data.md",
        "\n".join(
            [
                "# Data",
                "",
                "```{eval-rst}",
                *(_directive(f"mmxx.data:{name}") for name in sorted(data.__all__)),
                "```",
                "",
            ]
        ),
    )
    for name, title in _LAB.items():
        text = f"# {title}\n\n```{{eval-rst}}\n.. automodule:: mmxx.lab.{name}\n```\n"
        _write(source / "api" / f"{name}.md", text)


def _skip_routing(
    app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the methods for metadata that scikit-learn adds to every estimator."""
    return True if name.endswith("_request") or name == "get_metadata_routing" else None


def _keep_bars(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """A bar in a docstring is a magnitude, not the start of a substitution."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _generate)
    app.connect("autodoc-skip-member", _skip_routing)
    app.connect("autodoc-process-docstring", _keep_bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
