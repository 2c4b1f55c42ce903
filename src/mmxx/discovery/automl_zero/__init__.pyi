from .evaluation import evaluate as evaluate
from .library import DAMAGED_NEURAL_NET as DAMAGED_NEURAL_NET
from .library import LINEAR as LINEAR
from .library import NEURAL_NET as NEURAL_NET
from .ops import OPS as OPS
from .program import Instruction as Instruction
from .program import Program as Program
from .search import FEC as FEC
from .search import Hurdle as Hurdle
from .search import RandomSearch as RandomSearch
from .search import RegularizedEvolution as RegularizedEvolution
from .search import SearchSpace as SearchSpace
from .tasks import Task as Task
from .tasks import affine_tasks as affine_tasks
from .tasks import linear_regression_tasks as linear_regression_tasks
from .tasks import nn_teacher_tasks as nn_teacher_tasks
from .tasks import projected_binary_tasks as projected_binary_tasks

__all__ = [
    "DAMAGED_NEURAL_NET",
    "FEC",
    "LINEAR",
    "NEURAL_NET",
    "OPS",
    "Hurdle",
    "Instruction",
    "Program",
    "RandomSearch",
    "RegularizedEvolution",
    "SearchSpace",
    "Task",
    "affine_tasks",
    "evaluate",
    "linear_regression_tasks",
    "nn_teacher_tasks",
    "projected_binary_tasks",
]
