"""Snake: an activation with a cycle in it, for networks that have to go on beyond their data.

Ziyin, Hartwig and Ueda, "Neural Networks Fail to Learn Periodic Functions and How to Fix It",
NeurIPS 2020 (arXiv 2006.08195).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
