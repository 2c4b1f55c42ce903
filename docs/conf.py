"""Sphinx settings. Built offline, warnings as errors; formulas become MathML, without a script."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from mmxx import __version__

project = "mmxx"
author = "the mmxx authors"
copyright = "the mmxx authors"  # the name that Sphinx wants
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "mathml",
    "catalog_pages",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a system's page is its README, one level down

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are told once, with their class

html_theme = "furo"
html_title = "mmxx"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
