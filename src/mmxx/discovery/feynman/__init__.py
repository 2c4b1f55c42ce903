"""AI Feynman 2.0: formulas from tables by brute force, units, modules and description length."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
