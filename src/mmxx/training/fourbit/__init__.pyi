from .conversion import Report as Report
from .conversion import convert as convert
from .conversion import export_int4 as export_int4
from .conversion import import_int4 as import_int4
from .conversion import pact_parameters as pact_parameters
from .conversion import skip_nonfinite as skip_nonfinite
from .conversion import stats as stats
from .conversion import synchronise_scales as synchronise_scales
from .conversion import unconvert as unconvert
from .formats import Int4Sym as Int4Sym
from .formats import Log2FP4 as Log2FP4
from .formats import Radix4FP4 as Radix4FP4
from .formats import decode as decode
from .formats import encode as encode
from .formats import pack as pack
from .formats import quantize as quantize
from .formats import table as table
from .formats import unpack as unpack
from .layers import QuantConv2d as QuantConv2d
from .layers import QuantEmbedding as QuantEmbedding
from .layers import QuantLinear as QuantLinear
from .pact import PACT as PACT
from .recipes import RECIPES as RECIPES
from .recipes import Recipe as Recipe
from .sawb import sawb_alpha as sawb_alpha
from .sharding import shard as shard
from .tracing import gemm as gemm

__all__ = [
    "PACT",
    "RECIPES",
    "Int4Sym",
    "Log2FP4",
    "QuantConv2d",
    "QuantEmbedding",
    "QuantLinear",
    "Radix4FP4",
    "Recipe",
    "Report",
    "convert",
    "decode",
    "encode",
    "export_int4",
    "gemm",
    "import_int4",
    "pack",
    "pact_parameters",
    "quantize",
    "sawb_alpha",
    "shard",
    "skip_nonfinite",
    "stats",
    "synchronise_scales",
    "table",
    "unconvert",
    "unpack",
]
