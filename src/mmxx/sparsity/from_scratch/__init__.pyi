from .cost import Cost as Cost
from .cost import cost as cost
from .cost import latency as latency
from .cost import macs as macs
from .cost import scratch_budget as scratch_budget
from .gates import Gates as Gates
from .gates import gating as gating
from .gates import learn_gates as learn_gates
from .graph import ChannelGraph as ChannelGraph
from .graph import Group as Group
from .slim import prune_channels as prune_channels
from .slim import reset as reset
from .structure import Structure as Structure
from .structure import random_widths as random_widths
from .structure import search as search
from .structure import spread as spread
from .structure import uniform as uniform

__all__ = [
    "ChannelGraph",
    "Cost",
    "Gates",
    "Group",
    "Structure",
    "cost",
    "gating",
    "latency",
    "learn_gates",
    "macs",
    "prune_channels",
    "random_widths",
    "reset",
    "scratch_budget",
    "search",
    "spread",
    "uniform",
]
