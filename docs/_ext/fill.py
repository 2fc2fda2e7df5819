"""A Sphinx extension: fills in what pages leave to the build, and finds names where they are defined.

A line ``<!-- built: NAME ARGUMENTS -->`` of a page becomes what :mod:`docs._ext.pages` makes of it. Figures are
written beside Sphinx's own intermediate files, never among the pages.
"""

import importlib
import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from docs._ext import pages

__all__ = ["setup"]

_DEFAULTS = re.compile(r"= (\w+Parameters)\([^()]*\)")
_MARK = re.compile(r"^<!-- built: (.+) -->$", flags=re.MULTILINE)


def _fill(app: Sphinx, page: str, content: list[str]) -> None:
    figures = Path(app.doctreedir) / "figures"
    shown = os.path.relpath(figures, Path(app.env.doc2path(page)).parent)

    def built(mark: re.Match[str]) -> str:
        name, *arguments = mark[1].split()
        if name not in pages.__all__:
            raise ValueError(f"{page}: built must be one of {pages.__all__}, got {mark[1]!r}")
        made: str = getattr(pages, name)(figures, shown, *arguments)
        return made

    content[0] = _MARK.sub(built, content[0])


def _find(app: Sphinx, env: Any, node: Any, shown: Any) -> Any:
    """Lead ``snnlib.LIF`` to ``snnlib.module.lif.LIF``, under which it is documented."""
    package, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py" or package.partition(".")[0] != "snnlib":
        return None
    try:
        thing = getattr(importlib.import_module(package), name)
        home = f"{thing.__module__}.{thing.__qualname__}"
    except (ImportError, AttributeError):
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, shown)


def _shorten(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write ``p=LIFParameters()`` as the source does, not all of its fields."""
    return signature and _DEFAULTS.sub(r"= \1()", signature), returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("source-read", _fill)
    app.connect("missing-reference", _find)
    app.connect("autodoc-process-signature", _shorten)
    return {"parallel_read_safe": True}
