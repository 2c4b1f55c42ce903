from .classifier import WLSClassifier as WLSClassifier
from .files import load_model as load_model
from .files import save_model as save_model
from .kernel import WLSKernel as WLSKernel
from .kernel import similarity as similarity
from .network import WLSConv as WLSConv
from .network import WLSNet as WLSNet
from .refinement import WLSubtreeKernel as WLSubtreeKernel
from .refinement import wl_equivalent as wl_equivalent
from .refinement import wl_labels as wl_labels
from .transformer import AggregationTransformer as AggregationTransformer
from .transformer import WLSTransformer as WLSTransformer

__all__ = [
    "AggregationTransformer",
    "WLSClassifier",
    "WLSConv",
    "WLSKernel",
    "WLSNet",
    "WLSTransformer",
    "WLSubtreeKernel",
    "load_model",
    "save_model",
    "similarity",
    "wl_equivalent",
    "wl_labels",
]
