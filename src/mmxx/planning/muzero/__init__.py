"""MuZero: planning by tree search in a model that is learned for it, without the rules."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
