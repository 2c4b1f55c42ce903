"""The landmark machine-learning systems of 2020, maintained, fast, and measured.

Each system lives in a room: ``from mmxx.signals.siren import Siren``. ``mmxx list`` names
them all; ``mmxx review`` measures each paper's claim on this machine.
"""

__version__ = "0.1.0"
