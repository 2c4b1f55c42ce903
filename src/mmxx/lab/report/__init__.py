"""Reports: pages made from a run folder or a review, without computing anything again.

`render_run` and `render_review` are pure functions of what lies in the folder. The drawing
functions for experiments are in :mod:`mmxx.lab.report.figures`, which alone needs matplotlib.
"""

from __future__ import annotations

from mmxx.lab.report.render import render_review, render_run

__all__ = ["render_review", "render_run"]
