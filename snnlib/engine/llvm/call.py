"""Functions that the loops share, compiled once and called by their address.

Compiled into every loop, the products of a recurrent layer took a third of its compiling. So they
are functions of their own, as :mod:`snnlib.engine.llvm.entry` makes them, and a loop is told where they are.
"""

from typing import Any

from llvmlite import ir

from snnlib.engine.llvm.builder import BYTE, INTEGER, Array, Builder, built

__all__ = ["call_address"]


@built
def call_address(builder: Builder, address: Any, *arrays: Array) -> None:
    """Call the function at ``address`` with these arrays."""
    pointer = BYTE.as_pointer()
    shapes = [size for array in arrays for size in array.shape]
    places = _row(builder, pointer, [builder.bitcast(array.data, pointer) for array in arrays])
    counts = _row(builder, INTEGER, shapes)
    kind = ir.FunctionType(ir.VoidType(), [pointer] * 3)
    function = builder.inttoptr(address, kind.as_pointer())
    builder.call(function, [places, counts, ir.Constant(pointer, None)])


def _row(builder: Builder, kind: Any, values: list[Any]) -> Any:
    """Values side by side in memory."""
    room = builder.room(ir.ArrayType(kind, len(values)))
    for k, value in enumerate(values):
        builder.store(value, builder.gep(room, [builder.integer(0), builder.integer(k)], inbounds=True))
    return builder.bitcast(room, BYTE.as_pointer())
