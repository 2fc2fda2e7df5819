"""The parts of pages that are computed from snnlib when they are built, as Markdown."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs._ext.declared import Declared, Field, declared
from docs._ext.drawn import draw_response, draw_surrogates
import snnlib
from snnlib.engine import source

__all__ = ["api", "engine_source", "names", "neuron", "neurons", "surrogates"]


def neurons(figures: Path, shown: str) -> str:
    """A section for every neuron: equation, states, parameters, source, and its response to a current."""
    found = declared()
    spiking = [n for n in found if any(f.name == "v_th" for f in n.parameters)]
    common = [f for f in spiking[0].parameters if all(f in n.parameters for n in spiking)]
    table = _table("parameter", "default", common)
    head = f"Every neuron that spikes has these; its section names the others.\n\n{table}"
    return "\n\n".join([head, *(_section(n, common, figures, shown) for n in found)])


def neuron(figures: Path, shown: str, name: str) -> str:
    """The figure of one neuron's response."""
    (chosen,) = (n for n in declared() if n.name == name)
    return _figure(chosen, figures, shown)


def surrogates(figures: Path, shown: str) -> str:
    """The figure of all surrogates."""
    draw_surrogates(figures / "surrogates.svg")
    return f"![the derivatives that stand in for that of a spike]({shown}/surrogates.svg)"


def engine_source(figures: Path, shown: str, step: str) -> str:
    """The loop that a step is compiled into."""
    return f"```python\n{source(getattr(snnlib, step)).strip()}\n```"


def api(figures: Path, shown: str, package: str) -> str:
    """The docstrings of every module of a package."""
    return "\n\n".join(
        f"## {module.__name__}\n\n```{{eval-rst}}\n.. automodule:: {module.__name__}\n```"
        for module in _modules(package)
    )


def names(figures: Path, shown: str, package: str) -> str:
    """A table of the names that snnlib takes from a package."""
    rows = [
        f"| {{py:obj}}`{name} <{module.__name__}.{name}>` | {_first_line(getattr(module, name))} |"
        for module in _modules(package)
        for name in module.__all__
        if name in snnlib.__all__
    ]
    return "\n".join(["| name | what it is |", "|---|---|", *rows])


def _section(n: Declared, common: list[Field], figures: Path, shown: str) -> str:
    own = [field for field in n.parameters if field not in common]
    modules = ", ".join(f"{{py:class}}`~{_home(name)}`" for name in n.modules)
    parts = [
        f"### {n.title}",
        f"{{py:func}}`~{n.step.__module__}.{n.step.__name__}`; {modules}",
        f"```text\n{n.equation}\n```",
        _table("state", "at rest", n.state),
        _table("parameter", "default", own),
        _figure(n, figures, shown),
        f"Source: {n.source}",
    ]
    return "\n\n".join(parts)


def _figure(n: Declared, figures: Path, shown: str) -> str:
    draw_response(n, figures / f"{n.name}.svg")
    return f"![response of {n.name} to a current that goes on and off]({shown}/{n.name}.svg)"


def _table(what: str, value: str, fields: list[Field]) -> str:
    rows = [f"| `{f.name}` | {_number(f.value)} | {_markdown(f.text)} |" for f in fields]
    return "\n".join([f"| {what} | {value} | what it is |", "|---|---|---|", *rows])


def _number(value: Any) -> str:
    return f"`{value!r}`" if isinstance(value, str | bool | None) else f"{float(value):.4g}"


def _markdown(text: str) -> str:
    """Roles of reStructuredText as those of MyST."""
    return re.sub(r":(\w+):`", r"{py:\1}`", text)


def _home(name: str) -> str:
    """The full name of a public class."""
    return f"{getattr(snnlib, name).__module__}.{name}"


def _first_line(thing: Any) -> str:
    """What a class or function is; of an instance the docstring is its type's, which says nothing."""
    described = inspect.isclass(thing) or inspect.isfunction(thing)
    line = (inspect.getdoc(thing) or "").partition("\n")[0] if described else ""
    return _markdown(line).removesuffix(".").removesuffix("::")


def _modules(package: str) -> Iterator[Any]:
    found = importlib.import_module(package)
    for info in pkgutil.iter_modules(found.__path__, f"{package}."):
        module = importlib.import_module(info.name)
        if hasattr(module, "__all__"):
            yield module
