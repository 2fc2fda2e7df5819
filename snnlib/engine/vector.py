"""Functions of LLVM's vectors that several loops call."""

from typing import Any

from llvmlite import ir

from snnlib.engine.arithmetic import truth
from snnlib.engine.builder import BYTE, INTEGER, Array, Builder, built
from snnlib.engine.sizes import LANES, LINE, WORD

__all__ = ["ask_to_read", "ask_to_write", "bits_of", "nonzero", "ones", "strip_of"]


def strip_of(builder: Builder, index: Any, vectors: int) -> list[Any]:
    """Where some vectors begin that lie side by side."""
    return [builder.add(index, builder.integer(k * LANES)) for k in range(vectors)]


def _asking(to_write: int) -> Any:
    @built
    def ask(builder: Builder, array: Array, row: Any, start: Any) -> None:
        """Bring a word of ``array[row]``, from ``start`` on, into the second cache. It need not exist."""
        byte, flag = BYTE.as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        at = builder.add(builder.mul(row, array.shape[1]), start)
        flags = [ir.Constant(flag, value) for value in (to_write, 2, 1)]  # the second cache, and data
        size = 1 if array.number == BYTE else 8 if isinstance(array.number, ir.DoubleType) else 4
        for k in range(0, WORD, LINE // size):
            place = builder.gep(array.data, [builder.add(at, builder.integer(k))])
            builder.call(function, [builder.bitcast(place, byte), *flags])

    return ask


ask_to_read, ask_to_write = _asking(0), _asking(1)


@built
def nonzero(builder: Builder, z: Array, a: Any) -> Any:
    """One bit for each of the numbers from ``z[a]`` on that fill a vector: whether it is not zero."""
    return bits_of(builder, z.load(a))


@built
def bits_of(builder: Builder, value: Any) -> Any:
    """A bit for each number of a vector, or for one: whether it is not zero."""
    bits = truth(builder, value)
    if isinstance(bits.type, ir.VectorType):
        bits = builder.bitcast(bits, ir.IntType(bits.type.count))
    return builder.zext(bits, INTEGER)


@built
def ones(builder: Builder, mask: Any) -> Any:
    """How many bits are set."""
    return builder.ctpop(mask)
