from . import infinite as infinite
from .dynamics import PLStar as PLStar
from .dynamics import kernel_drift as kernel_drift
from .dynamics import pl_star as pl_star
from .dynamics import training_outputs as training_outputs
from .estimators import NTKClassifier as NTKClassifier
from .estimators import NTKRegressor as NTKRegressor
from .expansion import Taylor as Taylor
from .expansion import linearize as linearize
from .expansion import taylor as taylor
from .hessian import SpectralNorm as SpectralNorm
from .hessian import hessian_norm as hessian_norm
from .hessian import hessian_product as hessian_product
from .hessian import two_layer_hessian_norm as two_layer_hessian_norm
from .kernel import jacobian as jacobian
from .kernel import ntk as ntk
from .network import NTKLinear as NTKLinear
from .network import Scaled as Scaled
from .network import ntk_mlp as ntk_mlp

__all__ = [
    "NTKClassifier",
    "NTKLinear",
    "NTKRegressor",
    "PLStar",
    "Scaled",
    "SpectralNorm",
    "Taylor",
    "hessian_norm",
    "hessian_product",
    "infinite",
    "jacobian",
    "kernel_drift",
    "linearize",
    "ntk",
    "ntk_mlp",
    "pl_star",
    "taylor",
    "training_outputs",
    "two_layer_hessian_norm",
]
