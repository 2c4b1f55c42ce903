"""All checks of a system in one list, and the sham."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmxx.lab import catalog, claims
from mmxx.lab.catalog import Card
from mmxx.lab.folder import Options
from mmxx.lab.run import create, execute
from mmxx.lab.testing import cards, runs
from mmxx.lab.testing.cards import experiment_of, module_of
from mmxx.lab.testing.objects import CHECKS, Case


@dataclass(frozen=True)
class Check:
    """A named check; call it, and it raises AssertionError or returns."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()


def check_system(card: Card, cases: Sequence[Case] = ()) -> None:
    """Run every check of a system.

    One of them starts a process: a script, rather than a test, calls this below
    ``if __name__ == "__main__":``.

    Raises:
        AssertionError: Some failed; the message has a line for each.
    """
    failed: list[str] = []
    for check in checks(card, cases):
        try:
            check()
        except Exception as error:
            failed.append(f"{check.name}: {type(error).__name__}: {error}")
    if failed:
        raise AssertionError(f"{card.name} breaks its contract:\n" + "\n".join(failed))


def checks(card: Card, cases: Sequence[Case] = ()) -> list[Check]:
    """The checks of a system, those that need no long work first."""
    of_card = (
        cards.card_is_complete,
        cards.is_announced,
        cards.interface_is_documented,
        cards.configuration_is_sound,
        cards.readme_has_its_headings,
        cards.readme_examples_run,
        cards.help_is_light,
        runs.same_seed_gives_same_bits,
        runs.seed_matters,
        runs.sham_is_undone,
        runs.report_is_reproducible,
        runs.leaves_the_process_as_it_was,
        runs.cut_short_resumes_to_the_same_bits,
        runs.killed_resumes_to_the_same_bits,
        runs.stops_at_its_time_limit,
    )
    found = [Check(check.__name__, partial(check, card)) for check in of_card]
    for number, case in enumerate(cases):
        label = case.name or getattr(case.make, "__name__", "").strip("_<>") or str(number)
        found += [
            Check(f"{check.__name__}[{label}]", partial(check, case)) for check in CHECKS[case.kind]
        ]
    return found


def check_sham(card: Card, folder: Path) -> list[dict[str, Any]]:
    """Run the quick tier with the sham in the method's place; return the marked claims.

    Tasks run in this process, since a worker would import the method itself.

    Raises:
        AssertionError: A marked claim with a quick bar does not fall short.
    """
    module = module_of(card)
    run = create(folder, card, module.QUICK, Options(backend="serial"), "quick")
    with module.sham():
        execute(run, experiment_of(card))
    marked = [line for line in run.verdicts if line["sham"]]
    assert marked, f"{card.name} has no claim that is marked for the sham and has a quick bar"
    wrong = [line["id"] for line in marked if line["verdict"] != claims.FALLS_SHORT]
    assert not wrong, f"{card.name}: with the sham, {', '.join(wrong)} did not fall short"
    return marked


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m mmxx.lab.testing sham [NAME ...]``: exit 1 where a sham still holds."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] != ["sham"]:
        print("usage: python -m mmxx.lab.testing sham [NAME ...]", file=sys.stderr)
        return 2
    names = arguments[1:] or [n for n, c in catalog.systems().items() if isinstance(c, Card)]
    code = 0
    for name in names:
        with runs.temporary_folder() as folder:
            try:
                for line in check_sham(catalog.find(name), folder):
                    print(f"{name}: {line['id']}: {line['verdict']} ({line['measured']:.4g})")
            except AssertionError as error:
                print(error)
                code = 1
    return code
