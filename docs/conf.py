# SPDX-License-Identifier: BSD-3-Clause
"""Sphinx: the pages of this folder, and the reference from the docstrings."""

import os

import xmem

# The stubs have no docstrings.
os.environ["SPHINX_AUTODOC_IGNORE_NATIVE_MODULE_TYPE_STUBS"] = "1"

project = "xmem"
author = "the xmem developers"
copyright = author
version = release = xmem.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples/*/*"]
source_suffix = {".md": "markdown"}
root_doc = "index"

html_theme = "furo"
html_title = f"xmem {release}"

# A name in single backticks is an object, where there is one of that name.
default_role = "py:obj"
autodoc_default_options = {"members": True, "inherited-members": "object"}
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True
myst_heading_anchors = 4
# Pages link to files of the source tree, which are not pages here.
suppress_warnings = ["myst.xref_missing"]
