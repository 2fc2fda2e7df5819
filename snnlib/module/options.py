"""What ``help`` shows of a neuron's class: the names and defaults of its ``**options``, and the parameters,
shapes and errors of the class that it is made from.
"""

import functools
import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any, get_args

__all__ = ["answer_names", "describe"]

_OTHER_STYLES = re.compile(r"^(?:(?:Args|Arguments):|-{3,}$|:(?:param|raises)\b)", flags=re.MULTILINE)
"""Sections as Google, NumPy and Sphinx write them, beside which these would be strange."""


def describe(kind: type, bases: Sequence[type]) -> None:
    """Complete the signature and the docstring of a class.

    The signature of its ``__init__`` names the options that ``**options: Unpack[...]`` stands for. A docstring
    without a section ``Parameters`` gets one where the bases say what each parameter is; one without ``Shapes``
    or ``Raises`` gets those of the nearest base that has them, unless the class has a ``forward`` of its own.
    A docstring whose sections are in another style stays as it is.

    Parameters:
        kind: the class, as it is made.
        bases: the classes that it inherits from and that are neurons, the nearest first.
    """
    _name_options(vars(kind).get("__init__"), bases)
    text = inspect.cleandoc(kind.__doc__ or "")
    if not text or _OTHER_STYLES.search(text):  # with python -OO there is none
        return
    own, inherited = _sections(kind), [_sections(base) for base in bases]
    begin = min((text.index(f"\n{name}:\n") for name in own), default=len(text))
    parts = [text[:begin].strip(), *([] if "Parameters" in own else _parameters(kind, inherited))]
    parts += [text[begin:].strip()] if own else []
    for name in ("Shapes", "Raises") if "forward" not in vars(kind) else ():
        if name not in own:
            parts += [f"{name}:\n{found[name]}" for found in inherited if name in found][:1]
    kind.__doc__ = "\n\n".join(parts) + "\n"


def answer_names(kind: type) -> None:
    """Let a class that is given a parameter by name say that these come together, as ``p``.

    A class whose ``__init__`` has no ``p`` with a default, or takes any name, stays as it is.
    """
    init: Any = vars(kind).get("__init__")
    found = _signature(init) if inspect.isfunction(init) else None
    named = found.parameters if found else {}
    usual: Any = named["p"].default if "p" in named else None
    any_name = any(a.kind is a.VAR_KEYWORD and not get_args(a.annotation) for a in named.values())
    if not hasattr(usual, "_fields") or any_name:
        return
    before = "" if list(named).index("p") == 1 else "..., "

    @functools.wraps(init)
    def answering(self: Any, *arguments: Any, **options: Any) -> None:
        for name in options:
            if name in usual._fields and name not in named:
                way = f"use {kind.__name__}({before}{type(usual).__name__}({name}=...))"
                raise TypeError(
                    f"{kind.__name__} has no argument {name}, which is one of its parameters p: {way}"
                )
        init(self, *arguments, **options)

    kind.__init__ = answering  # type: ignore[misc]


def _name_options(init: Any, bases: Sequence[type]) -> None:
    """Write the options with the defaults that they have in a base; those without names stay ``**options``."""
    found = _signature(init) if inspect.isfunction(init) else None
    given = list(found.parameters.values()) if found else []
    if found is None or not given or given[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return
    options = [
        name for kind in get_args(given.pop().annotation) for name in getattr(kind, "__annotations__", ())
    ]
    known: dict[str, inspect.Parameter] = {}
    for base in reversed(bases):
        known |= getattr(_signature(base), "parameters", {})
    if options and known.keys() >= set(options):
        names = [name for name in options if name not in found.parameters]
        given += [known[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in names]
        init.__signature__ = found.replace(parameters=given)  # on the class, subclasses would inherit it


def _signature(thing: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(thing)
    except (NameError, TypeError, ValueError):  # annotations may have names that only a type checker knows
        return None


def _parameters(kind: type, inherited: list[dict[str, str]]) -> list[str]:
    """The section of a class whose parameters all are known; several of them may share a text."""
    texts: dict[str, str] = {}
    for found in reversed(inherited):
        for text in re.split(r"\n(?=    \S)", found.get("Parameters", "")):
            texts |= {name.strip(): text for name in text.partition(":")[0].split(",")}
    names = list(getattr(_signature(kind), "parameters", ()))
    if not names or not texts.keys() >= set(names):
        return []
    return ["\n".join(["Parameters:", *dict.fromkeys(texts[name] for name in names)])]


def _sections(kind: type) -> dict[str, str]:
    """The sections of a docstring by their names, each as it is indented."""
    text = inspect.cleandoc(kind.__doc__ or "") + "\n"
    found = re.findall(r"(?<=\n)(\w+):\n((?:(?: .*)?\n)+)", text)
    return {name: textwrap.indent(textwrap.dedent(block).strip("\n"), "    ") for name, block in found}
