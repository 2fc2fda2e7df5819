"""Loops as machine code, which a later process finds on disk.

:mod:`snnlib.engine.llvm.entry` makes object code of a function, and LLVM's linker loads it. It is kept for one
CPU: folders are shared between machines.
"""

import contextlib
import ctypes
import functools
import hashlib
import inspect
import itertools
import math
import platform
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.cache import keep, kept
from snnlib.engine.threads import lock

__all__ = [
    "NUMBER",
    "SIGNATURE",
    "Array",
    "Call",
    "Loop",
    "as_array",
    "shared",
    "team",
    "unavailable",
    "without_source",
]

NUMBER: dict[torch.dtype, Any] = {
    **{torch.float32: np.float32, torch.float64: np.float64},
    **{torch.uint8: np.uint8},
}
"""Of torch's types of number NumPy's."""
Array = tuple[Tensor, Sequence[int]]
"""A contiguous tensor, and the shape in which a loop sees it: no view has to be made for that."""
_Kinds = tuple[tuple[torch.dtype, int], ...]

_NUMBER = {torch.float32: "f", torch.float64: "d"}
"""The same, of the module array."""
SIGNATURE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)
"""Of every loop; a call lets other Python threads run."""
_LOCK = lock()


class Call(NamedTuple):
    """A call of a loop that is ready."""

    function: Any
    """A ``SIGNATURE``."""
    pointers: tuple[int, ...]
    """Its arguments: where places of arrays are, integers, numbers."""
    alive: Any
    """What owns the memory."""

    def __call__(self) -> None:
        self.function(*self.pointers)


class Loop:
    """A function in the language of :mod:`snnlib.engine.llvm.compiler`, made ready when it is called first.

    Parameters:
        source: of a module that defines or imports the function.
        name: of the function, which takes contiguous arrays, then integers, then numbers.
        dtype: of the numbers.
        numbers: the last arguments of every call.
    """

    def __init__(self, source: str, name: str, dtype: torch.dtype, numbers: Sequence[float]) -> None:
        self._source, self._name = source, name
        self._numbers = array(_NUMBER[dtype], numbers)
        self._ready: dict[tuple[torch.dtype, ...], Any] = {}

    def __call__(self, arrays: Sequence[Array], *integers: int) -> None:
        for call in self.calls(arrays, [((), integers)]):
            call()

    def calls(
        self, arrays: Sequence[Array], parts: Sequence[tuple[Sequence[Array], Sequence[int]]]
    ) -> list[Call]:
        """Calls that are ready, for :func:`snnlib.engine.llvm.team.together`.

        Parameters:
            arrays: that each of them gets.
            parts: of each the arrays behind those, which are of the same kinds in all, and the integers.
        """
        if not parts:
            return []
        own, integers = parts[0]
        types = tuple([value.dtype for value, _ in (*arrays, *own)])  # its source says how many dimensions
        function = self._ready.get(types)
        if function is None:
            kinds = tuple([(value.dtype, len(shape)) for value, shape in (*arrays, *own)])
            function = self._ready[types] = SIGNATURE(self.address(kinds, len(integers)))
        places, sizes = _places_and_sizes(arrays)
        numbers, _ = self._numbers.buffer_info()
        made = []
        for own, integers in parts:
            more_places, more_sizes = _places_and_sizes(own)
            at, counts = array("q", places + more_places), array("q", [*sizes, *more_sizes, *integers])
            pointers = at.buffer_info()[0], counts.buffer_info()[0], numbers
            made.append(Call(function, pointers, (arrays, own, at, counts, self._numbers)))
        return made

    def address(self, kinds: _Kinds, integers: int = 0) -> int:
        """Where the function is, for loops that call it (:mod:`snnlib.engine.llvm.call`) too.

        Parameters:
            kinds: the type of number of each array, and how many dimensions it has.
            integers: how many there are.
        """
        key = self._key(kinds, integers)
        return _address(self._name, key, functools.partial(self._compile, kinds, integers))

    def _key(self, kinds: _Kinds, integers: int) -> str:
        return _key(self._source, self._name, kinds, integers, len(self._numbers))

    def _compile(self, kinds: _Kinds, integers: int) -> bytes:
        """The object code."""
        from snnlib.engine.llvm.compiler import defined  # not where the object code is on disk
        from snnlib.engine.llvm.entry import compiled

        counts = integers, len(self._numbers)
        return compiled(defined(self._source)[self._name], self._name, kinds, *counts, _target(), _model())


@functools.cache
def shared(module: str, name: str, dtype: torch.dtype) -> Loop:
    """A function of a module of the engine, which takes no numbers."""
    return Loop(f"from snnlib.engine.loops.{module} import {name}\n", name, dtype, ())


@functools.cache
def team() -> int:
    """Where the function is that :func:`snnlib.engine.llvm.entry.compiled_team` makes."""
    name = "team"

    def compile() -> bytes:
        from snnlib.engine.llvm.entry import compiled_team

        return compiled_team(name, _target(), _model())

    return _address(name, _key(name), compile)


def as_array(value: Tensor) -> Array:
    """A tensor in its own shape."""
    return value, value.shape


@functools.cache
def unavailable() -> str:
    """Why no loop can be made on this machine; empty where it can."""
    if reason := without_source():
        return reason
    try:
        Loop("def probe(a):\n    a[0] = 1\n", "probe", torch.float32, ()).address(((torch.float32, 1),))
    except Exception as error:  # a system or a CPU that nobody tried
        return f"{type(error).__name__}: {error}"
    return ""


@functools.cache
def without_source() -> str:
    """Why nothing can be compiled of the engine's own functions; empty where it can."""
    try:
        inspect.getsource(sys.modules[__name__])
    except OSError:
        return "loops are made of snnlib's .py files, and only .pyc files are here: install it with both"
    return ""


def _places_and_sizes(arrays: Sequence[Array]) -> tuple[list[int], list[int]]:
    for value, shape in arrays:  # a loop would write elsewhere
        if not value.is_contiguous() or not value.is_cpu or value.numel() < math.prod(shape):
            raise ValueError(
                f"an array {list(value.shape)} has strides {value.stride()} on {value.device}, "
                f"where a loop takes it for {list(shape)}"
            )
    return [value.data_ptr() for value, _ in arrays], [size for _, shape in arrays for size in shape]


def _key(*made_of: Any) -> str:
    """What names code, with LLVM, the engine and the CPU."""
    return repr((*made_of, _made_by(), *_target(), _model()))


def _address(name: str, key: str, compile: Callable[[], bytes]) -> int:
    """Where a function is whose object code is on disk under this key, or made now."""
    with _LOCK:
        if key in _ADDRESSES:  # with other numbers
            return _ADDRESSES[key]
        code = kept(key, _compiler()) if _made_by() else None
        found = None if code is None else _link(name, code)
        if found is None:  # or made where the C library is another, say
            _initialize()
            code = compile()
            if _made_by():
                keep(key, _compiler(), code)
            found = _link(name, code)
        if found is None:
            raise RuntimeError(f"LLVM cannot load its code of {name}; backend='reference' needs none")
        _ADDRESSES[key] = found
        return found


def _link(name: str, code: bytes) -> int | None:
    """The address of a function in object code, or None if it cannot be loaded: a symbol is missing, say."""
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    builder.export_symbol(name)
    try:
        library = builder.link(_linker(), f"snnlib{next(_COUNT)}")
    except RuntimeError:
        return None
    _LINKED.append(library)
    return int(library[name])


_COUNT = itertools.count()
"""No name is taken twice, not that of a library which failed either."""
_LINKED: list[Any] = []
"""Machine code is where it is as long as these are."""
_ADDRESSES: dict[str, int] = {}
"""Of functions that were linked, by what they were made of."""


@functools.cache
def _linker() -> Any:
    import llvmlite.binding as llvm

    _initialize()
    # JITLink puts a library into one place; LLVM's older loader may put its parts too far from each other
    return llvm.create_lljit_compiler(use_jit_link=_is_known_platform(), suppress_errors=True)


@functools.cache
def _initialize() -> None:
    import llvmlite.binding as llvm

    with contextlib.suppress(RuntimeError):  # since LLVM 20 it is an error to ask
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _is_known_platform() -> bool:
    """Whether what follows was tried."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _model() -> str:
    """How far the parts of a function's code may lie from each other: where it lies as a whole, a loop need not
    load the address of each constant that finds no register first, a tenth of the instructions of LIFEx."""
    return "small" if _is_known_platform() else "jitdefault"


@functools.cache
def _compiler() -> str:
    """The folder of the cache."""
    import llvmlite

    return f"llvmlite-{llvmlite.__version__}"


@functools.cache
def _target() -> tuple[str, str, str]:
    """Triple, name and features of this CPU."""
    import llvmlite.binding as llvm

    return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@functools.cache
def _made_by() -> str:
    """Names what makes machine code: LLVM, and all files of the engine, of which nobody has to keep a list.
    Empty where there are none, in a zip file say: then nothing tells one version's code from another's."""
    import llvmlite.binding as llvm

    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    if not files:
        return ""
    content = b"".join(file.read_bytes() for file in files)
    return f"{llvm.llvm_version_info} {hashlib.sha256(content).hexdigest()}"
