"""What the declarations in snnlib/functional say of each neuron."""

import ast
import importlib
import inspect
import itertools
import re
import textwrap
from typing import Any, NamedTuple

import snnlib.functional as functional
from snnlib.engine.step import Step, default_parameters, state_type

__all__ = ["Declared", "Field", "declared"]

_SUFFIX = "_feed_forward_step"


class Field(NamedTuple):
    """One field of a NamedTuple."""

    name: str
    value: Any
    """A parameter's default; where a state rests."""
    text: str
    """Its docstring: what it is, and its unit."""


class Declared(NamedTuple):
    """One neuron."""

    name: str
    title: str
    step: Step
    equation: str
    source: str
    parameters: list[Field]
    state: list[Field]
    modules: list[str]

    @property
    def spikes(self) -> bool:
        return any(field.name == "method" for field in self.parameters)


def declared() -> list[Declared]:
    """Every neuron of snnlib, those with the smallest state first."""
    names = [name for name in functional.__all__ if name.endswith(_SUFFIX)]
    found = [_declared(getattr(functional, name)) for name in names]
    return sorted(found, key=lambda neuron: (len(neuron.state), neuron.name))


def _declared(step: Any) -> Declared:
    text = inspect.getdoc(step) or ""
    p, kind = default_parameters(step), state_type(step)
    rest: Any = kind.initial(p)  # type: ignore[attr-defined]
    module = importlib.import_module(step.__module__.replace(".functional.", ".module."))
    return Declared(
        name=step.__name__.removesuffix(_SUFFIX),
        title=text.partition(":")[0],
        step=step,
        equation=_indented(text, r"::\n"),
        source=" ".join(_indented(text, "Source:").split()),
        parameters=_fields(type(p), p),
        state=_fields(kind, rest),
        modules=list(module.__all__),
    )


def _indented(text: str, head: str) -> str:
    """The indented block below a line."""
    found = re.search(rf"^{head}\n((?:[ ]+.*\n?|\n)+)", text, flags=re.MULTILINE)
    return textwrap.dedent(found[1]).strip("\n") if found else ""


def _fields(kind: Any, values: Any) -> list[Field]:
    texts = _texts(kind)
    return [Field(name, getattr(values, name), texts.get(name, "")) for name in kind._fields]


def _texts(kind: type) -> dict[str, str]:
    """The string below each field of a class; Python itself forgets it."""
    (declaration,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(declaration, ast.ClassDef)
    return {
        field.target.id: " ".join(ast.literal_eval(below.value).split())
        for field, below in itertools.pairwise(declaration.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
    }
