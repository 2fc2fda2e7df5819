"""A generated loop behind three pointers, so that its object code can be called without Numba.

Imported where something is compiled, by :mod:`snnlib.engine.machine`, and nowhere else: it imports Numba.
"""

import ast
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import torch
from numba import njit, types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from snnlib.engine.vector import viewed, with_flags

__all__ = ["Kind", "compiled", "located"]

Kind = tuple[torch.dtype, int]
"""Of an array: its type of number, and how many dimensions it has."""

_NUMBERS = {
    **{torch.float32: types.float32, torch.float64: types.float64},
    **{torch.int64: types.int64, torch.uint8: types.uint8},
}


def compiled(
    loop: Callable[..., None], kinds: Sequence[Kind], integers: int, numbers: int
) -> tuple[str, bytes]:
    """The name of a function, and the object code that it is in, see :func:`_entry`."""
    made = _entry(loop, kinds, integers, numbers, in_place=False)
    return made.fndesc.llvm_func_name, _emitted(made.library)


def _emitted(library: Any) -> bytes:
    """Object code that may lie anywhere as a whole.

    Numba's own may lie anywhere in parts, so that a loop first loads the address of each constant that finds no
    register: a tenth of the instructions of LIFEx.
    """
    library._finalize_final_module = lambda: None  # else Numba would make machine code of its own
    triple, cpu, features = library.codegen.magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features, 3, "pic", "small")
    with global_compiler_lock:
        library.finalize()
        return bytes(machine.emit_object(library._final_module))


def located(loop: Callable[..., None], kinds: Sequence[Kind]) -> int:
    """The address of a function of arrays alone, which Numba keeps where it is."""
    made = _entry(loop, kinds, 0, 0, in_place=True)
    _KEPT.append(made)
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


_KEPT: list[Any] = []
"""Machine code is where it is as long as these are."""


def _entry(
    loop: Callable[..., None], kinds: Sequence[Kind], integers: int, numbers: int, in_place: bool
) -> Any:
    """A loop behind three pointers, compiled by Numba.

    The function is ``int f(void *result, void **error, void **arrays, int64_t *integers, T *numbers)``, as
    Numba calls functions of its own. ``integers`` holds the shapes of the arrays, then the loop's own
    integers, ``T`` is the type of the first array. ``result`` and ``error`` are pointers that it may write
    to; it returns 0.

    Parameters:
        loop: takes contiguous arrays, then integers, then numbers.
        kinds: of the arrays.
        integers: how many there are.
        numbers: how many there are.
        in_place: whether Numba makes machine code of it, which stays where Numba puts it.
    """
    views = {dtype: f"view{k}" for k, dtype in enumerate(_NUMBERS)}
    values, at = [], 0
    for k, (dtype, dimensions) in enumerate(kinds):
        shape = "".join(f"integers[{at + d}], " for d in range(dimensions))
        values.append(f"{views[dtype]}(arrays[{k}], ({shape}))")
        at += dimensions
    values += [f"integers[{at + k}]" for k in range(integers)]
    values += [f"numbers[{k}]" for k in range(numbers)]
    options = {"error_model": "numpy", "nogil": True, "_nrt": False}
    space = loop.__globals__ | {name: _viewing(_NUMBERS[dtype]) for dtype, name in views.items()}
    exec(_with_own_arguments(loop, values), space)
    # wrappers that Python could call would need symbols of Numba's
    entry = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(space["entry"])
    pointer = types.CPointer
    arguments = pointer(types.voidptr), pointer(types.int64), pointer(_NUMBERS[kinds[0][0]])
    with_flags(entry, no_compile=not in_place)
    return entry._compiler.compile(arguments, types.void)


def _with_own_arguments(loop: Callable[..., None], values: Sequence[str]) -> Any:
    """The code of ``loop`` as ``entry(arrays, integers, numbers)``, its arguments computed from these.

    To call it from there would compile it twice.
    """
    names = inspect.signature(loop).parameters
    begin = "".join(f"    {name} = {value}\n" for name, value in zip(names, values, strict=True))
    made = ast.parse(f"def entry(arrays, integers, numbers):\n{begin}")
    (function,) = ast.parse(inspect.getsource(loop)).body
    made.body[0].body += function.body
    return compile(made, "<entry>", "exec")


def _viewing(number: Any) -> Any:
    @intrinsic
    def view(typing, pointer, shape):
        """A contiguous array of this shape in memory that somebody else keeps."""
        kind = types.Array(number, len(shape), "C")

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = builder.bitcast(args[0], context.get_data_type(number).as_pointer())
            return viewed(context, builder, kind, data, cgutils.unpack_tuple(builder, args[1]))

        return kind(pointer, shape), build

    return view
