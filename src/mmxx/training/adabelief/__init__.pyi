from .adabelief import AdaBelief as AdaBelief
from .presets import PRESETS as PRESETS

__all__ = ["PRESETS", "AdaBelief"]
