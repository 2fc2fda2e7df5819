"""What a step reads beside its arguments.

A step is traced once, as arithmetic with the numbers that it has at that time. A number of its closure, of a
global or of the object whose method it is may be another one later, so it belongs to the key under which a
trace is kept. Tensors do not: a step that reads one from outside is not fused
(:mod:`snnlib.engine.program.lines`).
"""

import functools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

__all__ = ["outside"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEEP = 3
"""Functions of the step's own module that are looked into, one within the other."""


def outside(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names and values of the numbers, truth values and words that a function reads.

    It is looked for by name, in the function, in those inside it and in those of the same module that it calls:
    variables of the closure, globals, and attributes of either and of the object that it is a method of. What
    other modules read is not seen, nor what is in lists and dictionaries.
    """
    if getattr(function, "__module__", "").startswith("snnlib.functional."):
        return ()  # they read nothing else, and a small layer would notice the time
    return tuple(_found(getattr(function, "exact_of", function), _DEEP))


def _found(function: Any, deep: int) -> Iterator[str]:
    owner = getattr(function, "__self__", None)
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):  # an object that can be called
        owner, function = function, _attribute(type(function), "__call__")
        if not isinstance(function, FunctionType):
            return
    names, seen = _names(function.__code__), {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            seen[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    seen |= {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, value in seen.items():
        if _is_plain(value):
            yield f"{name}={value!r}"
        elif isinstance(value, FunctionType):
            if deep and value.__module__ == function.__module__ and value is not function:
                yield from _found(value, deep - 1)
        else:
            yield from _attributes(value, names, deep)
    if owner is not None:
        yield from _attributes(owner, names, deep)


def _attributes(owner: Any, names: tuple[str, ...], deep: int) -> Iterator[str]:
    """Of an object those attributes that are read by these names, without running any code of its."""
    for name in names:
        value = _attribute(owner, name)
        if _is_plain(value):
            yield f"{type(owner).__name__}.{name}={value!r}"
        elif isinstance(value, FunctionType) and deep and type(owner).__module__ == value.__module__:
            yield from _found(value.__get__(owner), deep - 1)


def _attribute(owner: Any, name: str) -> Any:
    kinds = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
    for space in (getattr(owner, "__dict__", {}), *map(vars, kinds)):
        if name in space:
            return space[name]
    return _NOTHING


_NOTHING = object()


@functools.lru_cache(maxsize=256)
def _names(code: CodeType) -> tuple[str, ...]:
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _names(const)]
    return tuple(dict.fromkeys([*code.co_names, *inner]))


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (type(value) is tuple and all(map(_is_plain, value)))
