"""The parts of pages that are computed from snnlib when they are built, as Markdown."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import snnlib
from docs._ext.declared import Declared, Field, declared
from docs._ext.drawn import draw_response, draw_surrogates
from snnlib.engine import source

__all__ = ["MADE", "Figures"]


class Figures(NamedTuple):
    """Where a page's figures are."""

    folder: Path
    link: str
    """The folder as the page sees it."""


def _neurons(figures: Figures) -> str:
    """A section for every neuron: equation, states, parameters, source, and its response to a current."""
    found = declared()
    spiking = [n for n in found if n.spikes]
    common = [f for f in spiking[0].parameters if all(f in n.parameters for n in spiking)]
    table = _table("parameter", "default", common)
    head = f"Every neuron that spikes has these; its section names the others.\n\n{table}"
    return "\n\n".join([head, *(_section(figures, n, common) for n in found)])


def _neuron(figures: Figures, name: str) -> str:
    """The figure of one neuron's response."""
    (chosen,) = (n for n in declared() if n.name == name)
    return _figure(figures, chosen)


def _surrogates(figures: Figures) -> str:
    """The figure of all surrogates."""
    draw_surrogates(figures.folder / "surrogates.svg")
    picture = f"![the derivatives that stand in for that of a spike]({figures.link}/surrogates.svg)"
    return f"{picture}\n\nIn brackets the `alpha` of each; the formulas: {{py:func}}`snnlib.spike`."


def _source(figures: Figures, step: str) -> str:
    """The loop that a step is compiled into."""
    return f"```python\n{source(getattr(snnlib, step)).strip()}\n```"


def _docstrings(figures: Figures, package: str) -> str:
    """The docstrings of every module of a package."""
    return "\n\n".join(
        f"## {module.__name__}\n\n```{{eval-rst}}\n.. automodule:: {module.__name__}\n```"
        for module in _modules(package)
    )


def _names(figures: Figures, package: str) -> str:
    """A table of the names that snnlib takes from a package."""
    rows = [
        f"| {{py:obj}}`{name} <{module.__name__}.{name}>` | {_first_line(getattr(module, name))} |"
        for module in _modules(package)
        for name in module.__all__
        if name in snnlib.__all__
    ]
    return "\n".join(["| name | what it is |", "|---|---|", *rows])


MADE: dict[str, Callable[..., str]] = {
    "docstrings": _docstrings,
    "names": _names,
    "neuron": _neuron,
    "neurons": _neurons,
    "source": _source,
    "surrogates": _surrogates,
}
"""What a page may ask for, by the name after ``built:``."""


def _section(figures: Figures, n: Declared, common: list[Field]) -> str:
    own = [field for field in n.parameters if field not in common]
    modules = ", ".join(f"{{py:class}}`~{getattr(snnlib, name).__module__}.{name}`" for name in n.modules)
    parts = [
        f"### {n.title}",
        f"{{py:func}}`~{n.step.__module__}.{n.step.__name__}`, {modules}",
        f"```text\n{n.equation}\n```",
        _table("state", "at rest", n.state),
        _table("parameter", "default", own),
        _figure(figures, n),
        f"Source: {n.source}",
    ]
    return "\n\n".join(parts)


def _figure(figures: Figures, n: Declared) -> str:
    draw_response(n, figures.folder / f"{n.name}.svg")
    return f"![response of {n.name} to a current that goes on and off]({figures.link}/{n.name}.svg)"


def _table(what: str, value: str, fields: list[Field]) -> str:
    rows = [f"| `{f.name}` | {_number(f.value)} | {_markdown(f.text)} |" for f in fields]
    return "\n".join([f"| {what} | {value} | what it is |", "|---|---|---|", *rows])


def _number(value: Any) -> str:
    return f"`{value!r}`" if isinstance(value, str | bool | None) else f"{float(value):.4g}"


def _markdown(text: str) -> str:
    """Roles of reStructuredText as those of MyST, which does not know whose docstring it reads."""
    return re.sub(r":(\w+):`(?=(\w)?)", lambda role: f"{{py:{role[1]}}}`{'.' if role[2] else ''}", text)


def _first_line(thing: Any) -> str:
    """What a class or function is; of other things the docstring is their type's, which says nothing."""
    described = inspect.isclass(thing) or inspect.isfunction(thing)
    line = (inspect.getdoc(thing) or "").partition("\n")[0] if described else ""
    return _markdown(line).removesuffix(".").removesuffix("::")


def _modules(package: str) -> Iterator[Any]:
    """The modules of a package that define something; not second paths to what is in another."""
    found = importlib.import_module(package)
    for info in pkgutil.iter_modules(found.__path__, f"{package}."):
        module = importlib.import_module(info.name)
        names = getattr(module, "__all__", [])
        homes = {getattr(getattr(module, name), "__module__", info.name) for name in names}
        if names and not all(home.startswith(f"{package}.") and home != info.name for home in homes):
            yield module
