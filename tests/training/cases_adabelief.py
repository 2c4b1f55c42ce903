"""What the contract builds of AdaBelief: each way of updating, and the presets."""

from __future__ import annotations

from functools import partial

from mmxx.lab.testing import Case
from mmxx.training.adabelief import AdaBelief

CASES = [
    Case(partial(AdaBelief, lr=0.05), kind="optimizer", name="AdaBelief"),
    Case(partial(AdaBelief, lr=0.05, fused=False), kind="optimizer", name="AdaBelief-single"),
    Case(partial(AdaBelief, lr=0.05, foreach=True), kind="optimizer", name="AdaBelief-foreach"),
    Case(
        partial(AdaBelief, lr=0.05, amsgrad=True, weight_decay=0.1, weight_decouple=False),
        kind="optimizer",
        name="AdaBelief-amsgrad",
    ),
    Case(partial(AdaBelief.preset, "cifar"), kind="optimizer", name="AdaBelief.preset"),
]
