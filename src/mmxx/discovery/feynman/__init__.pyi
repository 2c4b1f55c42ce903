from .additivity import additive as additive
from .additivity import generalized_additivity as generalized_additivity
from .bits import Pareto as Pareto
from .bits import mdl as mdl
from .bits import pareto as pareto
from .density import fit_density as fit_density
from .equations import feynman_equations as feynman_equations
from .equations import make as make
from .expression import Expr as Expr
from .levenberg import fit_tanh as fit_tanh
from .modularity import compositionality as compositionality
from .modularity import generalized_symmetries as generalized_symmetries
from .modularity import separability as separability
from .modularity import symmetries as symmetries
from .network import tanh_network as tanh_network
from .network import train as train
from .regressor import AIFeynmanRegressor as AIFeynmanRegressor
from .search import brute_force as brute_force
from .snap import refine as refine
from .snap import snap as snap
from .units import dimensional_reduce as dimensional_reduce
from .units import parse_unit as parse_unit

__all__ = [
    "AIFeynmanRegressor",
    "Expr",
    "Pareto",
    "additive",
    "brute_force",
    "compositionality",
    "dimensional_reduce",
    "feynman_equations",
    "fit_density",
    "fit_tanh",
    "generalized_additivity",
    "generalized_symmetries",
    "make",
    "mdl",
    "pareto",
    "parse_unit",
    "refine",
    "separability",
    "snap",
    "symmetries",
    "tanh_network",
    "train",
]
