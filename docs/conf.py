"""How Sphinx builds these pages: ``sphinx-build -W --keep-going -b html docs build/docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import snnlib  # the one beside these pages, installed or not

project = "snnlib"
version = release = snnlib.__version__

extensions = ["docs._ext.fill", "docs._ext.reference", "myst_nb"]
html_theme = "furo"
html_title = f"snnlib {release}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = html_show_copyright = html_copy_source = False
highlight_language = "none"  # commands and equations; what is Python says so

nitpicky = True
nitpick_ignore_regex = [
    # their pages are elsewhere, and a build asks no network
    ("py:.*", r"(collections|matplotlib|nir|numpy|pathlib|pytorch_lightning|torch)\..*|PathLike"),
    ("py:class", r"snnlib\.(functional\.synapse\.\w+|module\.states\._State)"),  # for type checkers
]

myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # torch's text on every forward
