from .averages import decompose as decompose
from .averages import total_effect as total_effect
from .decoder import DecoderParts as DecoderParts
from .effects import Effects as Effects
from .examples import TEMPLATES as TEMPLATES
from .examples import Example as Example
from .mediation import Mediation as Mediation
from .readers import PROFESSIONS as PROFESSIONS
from .readers import load_examples as load_examples
from .readers import load_professions as load_professions
from .readers import load_winobias as load_winobias
from .readers import load_winogender as load_winogender
from .selection import Selection as Selection
from .tracing import decoder_parts as decoder_parts

__all__ = [
    "PROFESSIONS",
    "TEMPLATES",
    "DecoderParts",
    "Effects",
    "Example",
    "Mediation",
    "Selection",
    "decoder_parts",
    "decompose",
    "load_examples",
    "load_professions",
    "load_winobias",
    "load_winogender",
    "total_effect",
]
