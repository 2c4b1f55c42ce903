from .barrier import Barrier as Barrier
from .barrier import linear_barrier as linear_barrier
from .classifier import LotteryTicketClassifier as LotteryTicketClassifier
from .holding import hold as hold
from .networks import conv_net as conv_net
from .networks import fully_connected as fully_connected
from .pruning import Masks as Masks
from .pruning import magnitude as magnitude
from .pruning import one_shot as one_shot
from .pruning import prune as prune
from .pruning import snip as snip
from .replicas import Replicas as Replicas
from .sparse import SparseLinear as SparseLinear
from .sparse import compact as compact
from .sparse import to_sparse as to_sparse
from .supervised import Supervised as Supervised
from .tickets import LotteryTicket as LotteryTicket
from .tickets import Ticket as Ticket
from .tickets import advance as advance
from .training import Training as Training

__all__ = [
    "Barrier",
    "LotteryTicket",
    "LotteryTicketClassifier",
    "Masks",
    "Replicas",
    "SparseLinear",
    "Supervised",
    "Ticket",
    "Training",
    "advance",
    "compact",
    "conv_net",
    "fully_connected",
    "hold",
    "linear_barrier",
    "magnitude",
    "one_shot",
    "prune",
    "snip",
    "to_sparse",
]
