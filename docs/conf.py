"""How Sphinx builds these pages: ``sphinx-build -W --keep-going -b html docs build/docs``."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import snnlib  # noqa: E402 (the one beside these pages, installed or not)

project = "snnlib"
author = "snnlib's authors"
version = release = snnlib.__version__

extensions = ["docs._ext.fill", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"snnlib {release}"
html_show_sphinx = html_show_copyright = html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["style.css"]
highlight_language = "none"  # commands and equations; what is Python says so
nitpicky = True
# torch, NumPy and Python have their pages elsewhere, and a build asks no network for them
nitpick_ignore_regex = [("py:.*", r"(?!snnlib\b).*")]

myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_default_options = {"members": True, "member-order": "bysource"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes", "Source"]
