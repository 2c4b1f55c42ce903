from .classifier import EdgePopupClassifier as EdgePopupClassifier
from .edge_popup import EdgePopup as EdgePopup
from .edge_popup import annealed as annealed
from .frozen import frozen_weight as frozen_weight
from .ticket import Ticket as Ticket
from .ticket import load_ticket as load_ticket

__all__ = [
    "EdgePopup",
    "EdgePopupClassifier",
    "Ticket",
    "annealed",
    "frozen_weight",
    "load_ticket",
]
