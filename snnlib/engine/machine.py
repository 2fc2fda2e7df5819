"""Generated loops as machine code, which a later process finds on disk and calls without Numba.

Importing Numba takes a tenth of a second, and loading machine code through it, which fills its tables of types
first, two or three more. So the object code of a loop is kept (:mod:`snnlib.engine.entry` makes it), and loaded
by LLVM's linker alone. It is kept for one CPU: folders are shared between machines.

Where that is not to be had (elsewhere than on Linux on x86-64, where nobody tried; if a symbol is missing, or
Numba is another inside) the loop is called through Numba.
"""

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import platform
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.cache import keep, kept, load

__all__ = ["NUMBER", "Array", "Loop", "as_array"]

NUMBER: dict[torch.dtype, Any] = {
    **{torch.float32: np.float32, torch.float64: np.float64},
    **{torch.uint8: np.uint8},
}
"""Of torch's types of number NumPy's."""
Array = tuple[Tensor, Sequence[int]]
"""A contiguous tensor, and the shape in which a loop sees it: no view has to be made for that."""
_Kinds = tuple[tuple[torch.dtype, int], ...]
_Run = Callable[[Sequence[Array], Sequence[int]], None]

_NUMBER: dict[torch.dtype, Any] = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}
_SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 5)  # a call lets other Python threads run
_LOCK = threading.Lock()


class Loop:
    """A function of generated source, made ready when it is called first.

    Parameters:
        text: the source.
        name: of the function, which takes contiguous arrays, then integers, then numbers.
        dtype: of the numbers.
        numbers: the last arguments of every call.
    """

    def __init__(self, text: str, name: str, dtype: torch.dtype, numbers: Sequence[float]) -> None:
        self._text, self._name = text, name
        self._dtype, self._numbers = dtype, numbers
        self._ready: dict[_Kinds, _Run] = {}

    def __call__(self, arrays: Sequence[Array], *integers: int) -> None:
        kinds = tuple([(value.dtype, len(shape)) for value, shape in arrays])
        run = self._ready.get(kinds)
        if run is None:
            with _LOCK:
                run = self._ready.get(kinds) or self._prepare(kinds, len(integers))
                self._ready[kinds] = run
        run(arrays, integers)

    def address(self, kinds: _Kinds) -> int:
        """Where the function is, for loops that call it (:mod:`snnlib.engine.call`). It takes arrays only.

        Parameters:
            kinds: the type of number of each array, and how many dimensions it has.
        """
        with _LOCK:
            found = self._linked(kinds, 0)
        if found is None:
            from snnlib.engine.entry import located

            found = located(self._function().py_func, kinds)
        return found

    def _prepare(self, kinds: _Kinds, integers: int) -> _Run:
        address = self._linked(kinds, integers)
        return self._through_numba() if address is None else self._at(address)

    def _linked(self, kinds: _Kinds, integers: int) -> int | None:
        """The address of its object code, kept or made anew; None if there is none to be had."""
        if not _is_known_platform():
            return None
        key = self._key(kinds, integers)
        stored = kept(key, _compiler())
        if stored is None and (stored := self._compile(kinds, integers)) is not None:
            keep(key, _compiler(), stored)
        return None if stored is None else _link(stored)

    def _function(self) -> Any:
        return getattr(load(self._text, _compiler()), self._name)

    def _key(self, kinds: _Kinds, integers: int) -> str:
        return repr((self._text, self._name, kinds, integers, len(self._numbers), _target()))

    def _compile(self, kinds: _Kinds, integers: int) -> bytes | None:
        """The name of a function, a zero, and the object code with it; None if there is none to be had.

        It comes from Numba's insides, which other versions may not have. What is wrong with a loop itself
        is an error once more where it is called through Numba.
        """
        loop = self._function()
        try:
            from snnlib.engine.entry import compiled  # imports Numba: not where the object code is on disk

            name, code = compiled(loop.py_func, kinds, integers, len(self._numbers))
        except Exception:
            return None
        return name.encode() + b"\0" + code

    def _at(self, address: int) -> _Run:
        """The function of :mod:`snnlib.engine.entry` that was loaded here."""
        function = _SIGNATURE(address)
        numbers = (_NUMBER[self._dtype] * len(self._numbers))(*self._numbers)

        def run(arrays: Sequence[Array], integers: Sequence[int]) -> None:
            sizes = [size for _, shape in arrays for size in shape]
            places = (ctypes.c_void_p * len(arrays))(*[_place(value) for value, _ in arrays])
            counts = (ctypes.c_int64 * (len(sizes) + len(integers)))(*sizes, *integers)
            result, error = ctypes.c_void_p(), ctypes.c_void_p()
            if status := function(ctypes.byref(result), ctypes.byref(error), places, counts, numbers):
                raise RuntimeError(f"{self._name} ended with status {status}")

        return run

    def _through_numba(self) -> _Run:
        function = self._function()
        numbers = [NUMBER[self._dtype](number) for number in self._numbers]

        def run(arrays: Sequence[Array], integers: Sequence[int]) -> None:
            function(*[value.detach().view(shape).numpy() for value, shape in arrays], *integers, *numbers)

        return run


def as_array(value: Tensor) -> Array:
    """A tensor in its own shape."""
    return value, value.shape


def _place(value: Tensor) -> int:
    if not value.is_contiguous() or not value.is_cpu:  # a loop would write elsewhere
        raise ValueError(f"an array {list(value.shape)} has strides {value.stride()} on {value.device}")
    return value.data_ptr()


def _is_known_platform() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _link(stored: bytes) -> int | None:
    """The address of a function that :meth:`Loop._compile` made, or None if a symbol is missing."""
    import llvmlite.binding as llvm

    name, _, code = stored.partition(b"\0")
    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    builder.export_symbol(name.decode())
    try:
        library = builder.link(_linker(), f"snnlib{next(_COUNT)}")
    except RuntimeError:  # another libm, say
        return None
    _LINKED.append(library)
    return int(library[name.decode()])


_COUNT = itertools.count()
"""No name is taken twice, not that of a library which failed either."""
_LINKED: list[Any] = []
"""Machine code is where it is as long as these are."""


@functools.cache
def _linker() -> Any:
    import llvmlite.binding as llvm

    with contextlib.suppress(RuntimeError):  # since LLVM 20 it is an error to ask
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # JITLink puts a library into one place; LLVM's older loader may put its parts too far from each other
    return llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)


@functools.cache
def _compiler() -> str:
    return f"numba-{_version('numba')}"


@functools.cache
def _target() -> tuple[Any, ...]:
    """What machine code depends on, beside its source."""
    import llvmlite.binding as llvm

    switches = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
    made_by = hashlib.sha256(Path(__file__).with_name("entry.py").read_bytes()).hexdigest()
    cpu = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    return *cpu, _version("llvmlite"), llvm.llvm_version_info, made_by, switches


def _version(package: str) -> str:
    """Of a package, which is not imported for that if it says it elsewhere."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(import_module(package).__version__)
