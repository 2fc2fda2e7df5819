"""What neurons take as ``**options``, as ``help`` shows it: the names, their defaults, and what they are."""

import inspect
import re
import textwrap
from typing import Any, TypeVar, get_args

from snnlib.module.neuron import Layer
from snnlib.module.recurrent import RecurrentCell

__all__ = ["with_options"]

_Kind = TypeVar("_Kind", bound=type)


def with_options(kind: _Kind) -> _Kind:
    """Decorate a class: its signature names the options with the defaults of the class that it is made from,
    and its docstring has all parameters, in the words of :class:`.Layer` and :class:`.RecurrentCell`.
    """
    init: Any = kind.__init__  # type: ignore[misc]
    signature = inspect.signature(init)
    *given, options = signature.parameters.values()
    (names,) = get_args(options.annotation)
    usual = inspect.signature(kind.__base__).parameters  # type: ignore[arg-type]
    given += [usual[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in names.__annotations__]
    init.__signature__ = signature.replace(parameters=given)  # on the class, subclasses would inherit it
    if kind.__doc__:  # there is none with python -OO
        told = dict.fromkeys(_TEXTS[parameter.name] for parameter in given if parameter.name in _TEXTS)
        text = textwrap.indent("\n".join(["Parameters:", *told]), "    ")
        kind.__doc__ = f"{kind.__doc__.rstrip()}\n\n{text}\n    "
    return kind


def _texts(kind: type) -> dict[str, str]:
    """What a docstring says of each parameter; several may share a text."""
    section = re.search(r"^Parameters:\n((?: .*\n)+)", inspect.cleandoc(kind.__doc__ or ""), flags=re.MULTILINE)
    texts = re.split(r"\n(?=    \S)", section[1].rstrip()) if section else []
    return {name.strip(): text for text in texts for name in text.partition(":")[0].split(",")}


_TEXTS = {**_texts(Layer), **_texts(RecurrentCell)}
