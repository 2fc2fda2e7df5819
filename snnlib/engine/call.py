"""Functions that the loops share, compiled once and called by their address.

Compiled into every loop, the products of a recurrent layer took a third of its compiling. So they
are functions of their own, as :mod:`snnlib.engine.entry` makes them, and a loop is told where they are.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from snnlib.engine.vector import arrays

__all__ = ["call_with_four", "call_with_three"]


@intrinsic
def call_with_three(typing, address, a, b, c):
    """Call a function of three arrays."""
    return types.void(address, a, b, c), _build


@intrinsic
def call_with_four(typing, address, a, b, c, d):
    """Call a function of four arrays."""
    return types.void(address, a, b, c, d), _build


def _build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """``f(void *result, void **error, void **arrays, int64_t *shapes, T *numbers)``, without numbers."""
    address, *given = arrays(context, builder, signature, args)
    pointer, integer = ir.IntType(8).as_pointer(), ir.IntType(64)
    shapes = [size for array in given for size in array.shape]
    places = cgutils.alloca_once(builder, ir.ArrayType(pointer, len(given)))
    counts = cgutils.alloca_once(builder, ir.ArrayType(integer, len(shapes)))
    for k, array in enumerate(given):
        builder.store(builder.bitcast(array.data, pointer), cgutils.gep_inbounds(builder, places, 0, k))
    for k, size in enumerate(shapes):
        builder.store(size, cgutils.gep_inbounds(builder, counts, 0, k))
    result, error = (cgutils.alloca_once(builder, pointer) for _ in range(2))
    kind = ir.FunctionType(ir.IntType(32), [pointer] * 5)
    function = builder.inttoptr(address, kind.as_pointer())
    rooms = [builder.bitcast(room, pointer) for room in (result, error, places, counts)]
    builder.call(function, [*rooms, ir.Constant(pointer, None)])
    return context.get_dummy_value()
