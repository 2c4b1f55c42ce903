"""Lottery tickets: small networks inside a network that train as well as the whole."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
