"""Causal mediation analysis: through which heads and neurons a word changes what is predicted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
