"""Sphinx settings: Markdown pages, the API reference from docstrings, warnings are errors (make docs)."""

from __future__ import annotations

import uringblob

project = "uringblob"
author = "the uringblob authors"
project_copyright = "the uringblob authors"
version = release = uringblob.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"uringblob {release}"
html_copy_source = False
# Prompts and output of a console block are not copied.
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
# cffi's objects have no documentation of their own to link to.
suppress_warnings = ["ref.python"]
