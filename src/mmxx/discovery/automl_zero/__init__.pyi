from .estimators import AutoMLZeroClassifier as AutoMLZeroClassifier
from .estimators import AutoMLZeroRegressor as AutoMLZeroRegressor
from .evaluation import evaluate as evaluate
from .islands import evolve_islands as evolve_islands
from .library import DAMAGED_NEURAL_NET as DAMAGED_NEURAL_NET
from .library import LINEAR as LINEAR
from .library import NEURAL_NET as NEURAL_NET
from .ops import OPS as OPS
from .program import Instruction as Instruction
from .program import Program as Program
from .search import RandomSearch as RandomSearch
from .search import RegularizedEvolution as RegularizedEvolution
from .space import FEC as FEC
from .space import Hurdle as Hurdle
from .space import SearchSpace as SearchSpace
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
    "AutoMLZeroClassifier",
    "AutoMLZeroRegressor",
    "Hurdle",
    "Instruction",
    "Program",
    "RandomSearch",
    "RegularizedEvolution",
    "SearchSpace",
    "Task",
    "affine_tasks",
    "evaluate",
    "evolve_islands",
    "linear_regression_tasks",
    "nn_teacher_tasks",
    "projected_binary_tasks",
]
