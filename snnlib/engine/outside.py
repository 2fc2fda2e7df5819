"""What a step reads beside its arguments.

A step is traced once, as arithmetic with the numbers that it has at that time. A number of its closure, of a
global or of the object whose method it is may be another one later, and a function that it calls another
function, so these belong to the key under which a trace is kept. Tensors do not: a step that reads one from
outside is not fused (:mod:`snnlib.engine.program.lines`).
"""

import dis
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from numbers import Number
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, MethodType
from typing import Any, NamedTuple

import numpy as np
import torch

from snnlib.engine.step import UntraceableError

__all__ = ["Search", "outside"]

_DEEP = 4
"""Functions and objects that are looked into, one within the other."""
_MANY = 64
"""Items of a container that are looked at at every call; what reads a larger one is not fused."""
_LIBRARIES = {"torch", "snnlib", "numpy", *sys.stdlib_module_names}
"""What functions of these read does not change, or not what a step computes: loggers, say."""
_PLAIN = Number, str, bytes, Enum, np.generic, range, torch.dtype
"""What its ``repr`` says all about."""
_READERS = "__getitem__", "__getattr__"
"""By which objects are read; a class may have its own."""
_OF_FIELDS = type(NamedTuple("_Pair", [("field", int)]).field)  # type: ignore[attr-defined]


def outside(function: Callable[..., Any]) -> tuple[Any, ...]:
    """Names and values of the numbers and words that a function reads, and the functions that it calls.

    It is looked for by name, in the function and in those that it calls: variables of the closure, globals, and
    attributes of either and of the object that it is a method of. In a list, a dictionary, an array and the
    like all is looked at: it is done at every call. So is what ``__getitem__`` and ``__getattr__`` of one's own
    read. What is read by getattr is not seen, nor what lies deeper than four functions or objects, nor what
    only torch, Python and its library, or a file knows.

    Raises:
        UntraceableError: something has more than 64 items.
    """
    if (getattr(function, "__module__", None) or "").startswith("snnlib.functional."):
        return ()  # they read nothing else, and a small layer would notice the time
    return tuple(Search().start(getattr(function, "exact_of", function)))


class Search:
    """A walk through what a function reads, that looks at each thing once."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, Any]] = set()

    def start(self, function: Any) -> Iterator[Any]:
        """See :func:`outside`."""
        return self.function(function, _DEEP)

    def function(self, function: Any, deep: int) -> Iterator[Any]:
        """What a function, a method or another object that can be called reads."""
        if isinstance(function, functools.partial):
            names = _names(getattr(function.func, "__code__", None))
            for name, value in (*enumerate(function.args), *function.keywords.items()):
                yield from self.value(str(name), value, names, deep)
            yield from self.function(function.func, deep)
            return
        owner = getattr(function, "__self__", None)
        function = getattr(function, "__func__", function)
        if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
            yield from self.gradient(owner, deep)  # the owner of apply
            return
        if not isinstance(function, FunctionType):  # an object that can be called
            owner, function = function, _attribute(type(function), "__call__")
        if not isinstance(function, FunctionType) or (id(owner), function.__code__) in self._seen or not deep:
            return
        self._seen.add((id(owner), function.__code__))
        names = _names(function.__code__)
        defaults = (*enumerate(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
        for name, value in defaults:
            yield from self.value(str(name), value, names, deep)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield from self.value(name, cell.cell_contents, names, deep)
            except ValueError:  # not filled yet
                continue
        for name in _globals(function.__code__):
            space = function.__globals__ if name in function.__globals__ else sys.modules
            if name in space:
                yield from self.value(name, space[name], names, deep)
        if owner is not None:
            yield from self.attributes(owner, names, deep)

    def gradient(self, kind: type, deep: int) -> Iterator[Any]:
        """What a torch.autograd.Function reads."""
        for name in ("forward", "backward", "setup_context"):
            yield from self.value(name, _attribute(kind, name), (), deep)

    def value(
        self, name: str, value: Any, names: tuple[str, ...], deep: int, owner: Any = None
    ) -> Iterator[Any]:
        """What is found under a name: itself if it is plain, else what is read of it."""
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, MemberDescriptorType | _OF_FIELDS) and owner is not None:
            value = value.__get__(owner)
        if _is_plain(value):
            yield name, type(value), repr(value)
        elif isinstance(value, BuiltinFunctionType):
            yield name, value.__qualname__
            yield from self.function(value, deep - 1)
        elif isinstance(value, FunctionType | MethodType):
            if _is_ours(value):
                yield name, value.__code__
                bound = value.__get__(owner) if owner is not None and isinstance(value, FunctionType) else value
                yield from self.function(bound, deep - 1)
        elif isinstance(value, type) and issubclass(value, torch.autograd.Function):
            yield from self.attributes(value, names, deep - 1)
            yield from self.gradient(value, deep - 1)
        elif isinstance(value, np.ndarray):
            _check_size(name, value.size)
            yield name, value.dtype.str, repr(value.tolist())
        elif deep and value is not None and not isinstance(value, torch.Tensor):
            for key, item in _items(name, value):
                yield from self.value(f"{name}[{key!r}]", item, names, deep - 1)
            yield from self.attributes(value, names, deep - 1)
            yield from self.readers(value, deep - 1)
            if isinstance(value, torch.nn.Module):
                yield from self.function(value.forward, deep - 1)
            elif isinstance(value, functools.partial) or (callable(value) and _is_ours(type(value))):
                yield from self.function(value, deep - 1)

    def readers(self, owner: Any, deep: int) -> Iterator[Any]:
        """What an object reads when it is asked for an item or an attribute, if that is written in Python."""
        for name in _READERS:
            reader = _attribute(type(owner), name)
            if isinstance(reader, FunctionType) and not (reader.__module__ or "").startswith("torch."):
                yield name, reader.__code__
                yield from self.function(reader.__get__(owner), deep)

    def attributes(self, owner: Any, names: tuple[str, ...], deep: int) -> Iterator[Any]:
        """Of an object those attributes that are read by these names, without running any code of its."""
        if (id(owner), names) in self._seen:
            return
        self._seen.add((id(owner), names))
        for name in names:
            value = _attribute(owner, name)
            if value is not _NOTHING:
                yield from self.value(name, value, names, deep, None if isinstance(owner, type) else owner)


def _attribute(owner: Any, name: str) -> Any:
    kinds = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
    own = getattr(owner, "__dict__", {})
    for space in (own, own.get("_modules", {}), own.get("_buffers", {}), *map(vars, kinds)):
        if name in space:
            return space[name]
    return _NOTHING


_NOTHING = object()


def _check_size(name: str, size: int) -> None:
    if size > _MANY:
        raise UntraceableError(
            f"it reads {name}, which has {size} items, and more than {_MANY} are not looked at at every call; "
            "pass what it needs of them in the parameters"
        )


def _items(name: str, value: Any) -> list[tuple[Any, Any]]:
    """What a container of Python's or torch's holds, without running any code of a class that is made of it."""
    if isinstance(value, torch.nn.Sequential | torch.nn.ModuleList | torch.nn.ModuleDict):
        value = value._modules
    if not isinstance(value, dict) and _is_pythons(type(value)) and isinstance(value, Mapping):
        _check_size(name, len(value))
        value = dict(value.items())
    if isinstance(value, dict):
        _check_size(name, dict.__len__(value))
        return [(key if _is_plain(key) else type(key), item) for key, item in dict.items(value)]
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
    kind = next((kind for kind in kinds if isinstance(value, kind)), None)
    if kind is None:
        return []
    _check_size(name, kind.__len__(value))
    return list(enumerate(kind.__iter__(value)))


@functools.lru_cache(maxsize=256)
def _names(code: CodeType | None) -> tuple[str, ...]:
    """The names that a function reads of its globals and of objects, also in those within it."""
    if code is None:
        return ()
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _names(const)]
    return tuple(dict.fromkeys([*code.co_names, *inner]))


@functools.lru_cache(maxsize=256)
def _globals(code: CodeType) -> tuple[str, ...]:
    """Of these the globals, and the modules that it imports."""
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _globals(const)]
    own = [line.argval for line in dis.get_instructions(code) if line.opname in _OF_GLOBALS]
    return tuple(dict.fromkeys([*own, *inner]))


_OF_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"}


def _is_ours(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] not in _LIBRARIES


def _is_pythons(kind: type) -> bool:
    """Whether it is of the standard library, whose code may be run."""
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) <= _MANY and all(map(_is_plain, value))
    return isinstance(value, _PLAIN) or value is None
