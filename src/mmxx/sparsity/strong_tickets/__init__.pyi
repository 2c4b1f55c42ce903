from .certificate import Certificate as Certificate
from .golden import golden_decomposition as golden_decomposition
from .network import RandomNet as RandomNet
from .subset import brute_force as brute_force
from .subset import covering_counts as covering_counts
from .subset import subset_sum as subset_sum
from .ticket import GoldenTicket as GoldenTicket
from .ticket import StrongTicket as StrongTicket

__all__ = [
    "Certificate",
    "GoldenTicket",
    "RandomNet",
    "StrongTicket",
    "brute_force",
    "covering_counts",
    "golden_decomposition",
    "subset_sum",
]
