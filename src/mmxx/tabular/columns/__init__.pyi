from . import spectrum as spectrum
from .draws import SampleInfo as SampleInfo
from .gram import KernelMatrix as KernelMatrix
from .nystroem import DPPNystroem as DPPNystroem
from .nystroem import nystroem_error as nystroem_error
from .sampling import sample_dpp as sample_dpp
from .sampling import sample_kdpp as sample_kdpp
from .selector import ColumnSubsetSelector as ColumnSubsetSelector

__all__ = [
    "ColumnSubsetSelector",
    "DPPNystroem",
    "KernelMatrix",
    "SampleInfo",
    "nystroem_error",
    "sample_dpp",
    "sample_kdpp",
    "spectrum",
]
