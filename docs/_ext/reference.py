"""A Sphinx extension: reads the docstrings as snnlib writes them, and finds names where they are defined."""

import importlib
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

__all__ = ["setup"]

_SECTIONS: Any = Config(napoleon_use_ivar=True, napoleon_custom_sections=["Shapes", "Source"])
_DEFAULTS = re.compile(r"(\w+Parameters = )\([^()]*\)")
_FUNCTIONS = re.compile(r"<function (\w+)>")


def _sections(app: Sphinx, what: Any, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Parameters, Returns, Raises. What stands below a field is a sentence, where a colon begins no type."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line for line in lines if not line.startswith("Alias for field number")]
    else:
        lines[:] = GoogleDocstring(lines, _SECTIONS, app, what, name, thing, options).lines()


def _shorten(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write the default of ``p: LIFParameters`` without all of its fields, and a function by its name."""
    if signature:
        signature = _FUNCTIONS.sub(r"\1", _DEFAULTS.sub(r"\1...", signature))
    return signature, returns


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


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _sections)
    app.connect("autodoc-process-signature", _shorten)
    app.connect("missing-reference", _find)
    return {"parallel_read_safe": True}
