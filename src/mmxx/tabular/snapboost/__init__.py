"""SnapBoost: boosting whose rounds are trees of random depth or ridge regressions.

Parnell et al., "SnapBoost: A Heterogeneous Boosting Machine", NeurIPS 2020 (arXiv 2006.09745).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
