"""The tangent kernel of networks: computed fast, and when it is constant."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
