"""The contract that every system passes, ours and a plug-in's.

``check_system(CARD, CASES)`` runs every check and names those that failed; `checks` gives them
one by one, for a parametrised test. A `Case` says how to build one public object and what to
call it with. ``python -m mmxx.lab.testing sham [NAME ...]`` proves that the marked claims fall
short once a method is replaced by its sham.
"""

from mmxx.lab.testing.cards import run_code_blocks
from mmxx.lab.testing.contract import Check, check_sham, check_system, checks
from mmxx.lab.testing.objects import Case
from mmxx.lab.testing.runs import Outcome, Straight, assert_same, outcome, run_tiny, straight

__all__ = [
    "Case",
    "Check",
    "Outcome",
    "Straight",
    "assert_same",
    "check_sham",
    "check_system",
    "checks",
    "outcome",
    "run_code_blocks",
    "run_tiny",
    "straight",
]
