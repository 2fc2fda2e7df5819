"""Functions of LLVM's vectors that several loops call."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from snnlib.engine.llvm.arithmetic import like, truth
from snnlib.engine.llvm.builder import BYTE, INTEGER, Array, Builder, Lanes, built
from snnlib.engine.sizes import LANES, LINE, WORD

__all__ = [
    "ask_to_read",
    "ask_to_write",
    "bits_of",
    "fence",
    "nonzero",
    "of_byte",
    "ones",
    "put_past",
    "strip_of",
]


def strip_of(builder: Builder, index: Any, vectors: int) -> list[Any]:
    """Where some vectors begin that lie side by side."""
    return [builder.add(index, builder.integer(k * LANES)) for k in range(vectors)]


def _asking(to_write: int) -> Any:
    @built
    def ask(builder: Builder, array: Array, *places: Any) -> None:
        """Bring a word of an array, from these places on, into the second cache. It need not exist."""
        byte, flag = BYTE.as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        at = array.index(*places)
        flags = [ir.Constant(flag, value) for value in (to_write, 2, 1)]  # the second cache, and data
        for k in range(0, WORD, LINE // array.size):
            place = builder.gep(array.data, [builder.add(at, builder.integer(k))])
            builder.call(function, [builder.bitcast(place, byte), *flags])

    return ask


ask_to_read, ask_to_write = _asking(0), _asking(1)


@built
def put_past(builder: Builder, array: Array, index: Any, value: Any) -> None:
    """``array[index] = value``, of lanes past the caches: for what nobody reads soon. They must be aligned."""
    value = like(builder, value, array.kind_at(index))
    if isinstance(index, Lanes):
        store_past(builder, array, index.first, value)
    else:
        array.put(value, index)


@built
def fence(builder: Builder) -> None:
    """Wait until all that was written is there for other threads, what went past the caches too."""
    builder.fence("seq_cst")


def store_past(builder: Builder, array: Array, index: Any, value: Any) -> None:
    """A vector to the numbers from ``index`` on, past the caches."""
    stored = array.store(value, index, min(value.type.count * array.size, LINE))
    stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


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


def of_byte(builder: Builder, name: str, rows: Sequence[Sequence[int]], byte: Any) -> Any:
    """Eight small numbers, of the row for a byte in a table of 256.

    Parameters:
        name: of the table, which is in the memory of the code.
    """
    table = builder.module.globals.get(name)
    if table is None:
        values = [ir.Constant(INTEGER, int.from_bytes(bytes(row), "little")) for row in rows]
        kind = ir.ArrayType(INTEGER, len(values))
        table = ir.GlobalVariable(builder.module, kind, name)
        table.initializer = ir.Constant(kind, values)
        table.global_constant, table.linkage = True, "internal"
    row = builder.load(builder.gep(table, [builder.integer(0), byte]))
    return builder.bitcast(row, ir.VectorType(BYTE, 8))
