"""Choosing columns and landmarks: volume sampling, the Nyström method, and which sizes to avoid."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
