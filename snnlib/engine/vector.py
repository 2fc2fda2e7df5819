"""LLVM's vectors in functions that Numba compiles, for loops that its vectoriser does not find.

``bare`` is how all functions of the loops are compiled: nothing counts references (``_nrt``), which two threads
would do in turns at every slice, and so nothing is allocated either; and nothing is called from Python.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from snnlib.engine.emit_loops import LANES, LINE, WORD

__all__ = [
    "Array",
    "add_product",
    "apart",
    "append_places",
    "arrays",
    "ask_to_read",
    "ask_to_write",
    "bare",
    "find",
    "has_wide_registers",
    "known",
    "least",
    "nonzero",
    "ones",
    "part",
    "put_bits",
    "row_part",
    "spread",
    "strip_of",
    "viewed",
    "with_flags",
]


bare = functools.partial(njit, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def apart(function: Any) -> Any:
    """``bare`` for a function that writes to no array which overlaps another: nobody has to look. Inlined."""
    return with_flags(bare(forceinline=True)(function), noalias=True)


def with_flags(made: Any, **flags: bool) -> Any:
    """A function of ``njit`` with flags of Numba's own, which njit has no names for."""

    def customize(given: Any) -> Any:
        for name, value in flags.items():
            setattr(given, name, value)
        return given

    made._compiler._customize_flags = customize
    return made


def has_wide_registers(context: Any) -> bool:
    """Whether the CPU that is compiled for has AVX-512."""
    return "+avx512f" in context.codegen().magic_tuple()[2].split(",")


def known(kind: Any, value: Callable[[Any], Any]) -> Any:
    """A function without arguments: what ``value`` says of the context when it is compiled."""

    @intrinsic
    def constant(typing):
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return context.get_constant(kind, value(context))

        return kind(), build

    return constant


def least(builder: Any, a: Any, b: Any) -> Any:
    """The lesser of two integers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


class Array:
    """A C-contiguous array in a function that is being built; an index counts from its first number."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        made = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, made.data
        self.shape = cgutils.unpack_tuple(builder, made.shape)
        self.number = context.get_value_type(kind.dtype)
        self.vector = ir.VectorType(self.number, LANES)
        self.align = min(4, context.get_abi_sizeof(self.number))

    def scalar(self, index: Any) -> Any:
        return self.builder.load(self.builder.gep(self.data, [index]))

    def load(self, index: Any, vector: Any = None) -> Any:
        """A vector, of ``LANES`` numbers unless of a type that is given."""
        return self.builder.load(self._place(index, vector or self.vector), align=self.align)

    def store(self, value: Any, index: Any) -> None:
        self.builder.store(value, self._place(index, value.type), align=self.align)

    def _place(self, index: Any, vector: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [index]), vector.as_pointer())

    def spread(self, index: Any) -> Any:
        """A vector of one number, many times."""
        return spread(self.builder, self.scalar(index), LANES)


def spread(builder: Any, number: Any, lanes: int) -> Any:
    """A vector of one number, many times."""
    nothing = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    one = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))


def arrays(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """The arguments of an intrinsic, arrays made usable."""
    return [
        Array(context, builder, kind, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


def strip_of(builder: Any, index: Any, vectors: int) -> list[Any]:
    """Where some vectors begin that lie side by side."""
    return [builder.add(index, ir.Constant(index.type, k * LANES)) for k in range(vectors)]


def add_product(builder: Any, sum: Any, a: Any, b: Any) -> Any:
    """``sum + a b``, with one rounding or two."""
    return builder.fadd(sum, builder.fmul(a, b, flags=("contract",)), flags=("contract",))


@intrinsic
def part(typing, array, start, stop):
    """``array[start:stop]``, whose bounds nobody looks at."""
    return types.Array(array.dtype, 1, "C")(array, types.int64, types.int64), _cut


@intrinsic
def row_part(typing, array, row, start, stop):
    """``array[row, start:stop]``, whose bounds nobody looks at."""
    return types.Array(array.dtype, 1, "C")(array, types.int64, types.int64, types.int64), _cut


def _cut(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    source = context.make_array(signature.args[0])(context, builder, args[0])
    *row, start, stop = args[1:]
    at = start
    if row:
        width = cgutils.unpack_tuple(builder, source.shape)[1]
        at = builder.add(builder.mul(row[0], width), start)
    data, shape = builder.gep(source.data, [at]), [builder.sub(stop, start)]
    return viewed(context, builder, signature.return_type, data, shape)


def viewed(context: Any, builder: Any, kind: Any, data: Any, shape: Sequence[Any]) -> Any:
    """A contiguous array in memory that somebody else keeps."""
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [size]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    made = context.make_array(kind)(context, builder)
    populate_array(made, data, shape, strides, size, None)
    return made._getvalue()


def _asking(to_write: int) -> Any:
    @intrinsic
    def ask(typing, array, row, start):
        """Bring a word of ``array[row]``, from ``start`` on, into the second cache. It need not exist."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array, row, start = arrays(context, builder, signature, args)
            byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
            function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            at = builder.add(builder.mul(row, array.shape[1]), start)
            flags = [ir.Constant(flag, value) for value in (to_write, 2, 1)]  # the second cache, and data
            numbers = LINE // context.get_abi_sizeof(array.number)
            for k in range(0, WORD, numbers):
                place = builder.gep(array.data, [builder.add(at, ir.Constant(at.type, k))])
                builder.call(function, [builder.bitcast(place, byte), *flags])
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), build

    return ask


ask_to_read, ask_to_write = _asking(0), _asking(1)


@intrinsic
def nonzero(typing, z, a):
    """One bit for each of the numbers from ``z[a]`` on that fill a vector: whether it is not zero."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, a = arrays(context, builder, signature, args)
        bits = builder.fcmp_unordered("!=", z.load(a), ir.Constant(z.vector, None))
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(z, types.int64), build


@intrinsic
def ones(typing, mask):
    """How many bits are set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), build


@intrinsic
def append_places(typing, mask, first, places, count):
    """Write ``first`` plus the place of each bit that is set to ``places[count]`` and on, others behind them.

    Without a branch: which bits are set nobody can predict.

    Returns:
        How many there are then.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask, first, places, count = arrays(context, builder, signature, args)
        eight, small = ir.VectorType(first.type, 8), ir.VectorType(ir.IntType(8), 8)
        table = byte_table(builder, [first_set(bits, 8) for bits in range(256)])
        for _ in range(LANES // 8):
            bits = builder.and_(mask, ir.Constant(mask.type, 255))
            row = builder.load(builder.gep(table, [ir.Constant(mask.type, 0), bits]))
            found = builder.zext(builder.bitcast(row, small), eight)
            places.store(builder.add(found, spread(builder, first, 8)), count)
            count = builder.add(count, builder.ctpop(bits))
            first = builder.add(first, ir.Constant(first.type, 8))
            mask = builder.lshr(mask, ir.Constant(mask.type, 8))
        return count

    return types.int64(mask, first, places, count), build


def first_set(bits: int, count: int) -> list[int]:
    """The places of the bits that are set, and any others behind them."""
    return sorted(range(count), key=lambda place: not bits >> place & 1)


def byte_table(builder: Any, rows: list[list[int]]) -> Any:
    """Rows of eight small numbers in constant memory, each as one integer of 64 bits."""
    integer = ir.IntType(64)
    values = [int.from_bytes(bytes(row), "little") for row in rows]
    content = ir.Constant(ir.ArrayType(integer, len(values)), [ir.Constant(integer, v) for v in values])
    return cgutils.global_constant(builder.module, "order", content)


@intrinsic
def put_bits(typing, mask, out, a):
    """Write 1 for each bit that is set, and 0 for the others, to a vector of numbers from ``out[a]`` on."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask, out, a = arrays(context, builder, signature, args)
        bits = builder.trunc(mask, ir.IntType(LANES))
        out.store(builder.uitofp(builder.bitcast(bits, ir.VectorType(ir.IntType(1), LANES)), out.vector), a)
        return context.get_dummy_value()

    return types.void(mask, out, types.int64), build


@bare()
def find(z, a, first, size, places, count):
    """Which of the numbers from ``z[a]`` on, ``size`` of them, are not zero, in order.

    Parameters:
        z: of any shape; ``a`` counts from its first number.
        first: the place of ``z[a]``.
        places: where their places are written to, behind ``count`` others; with room for a vector more.

    Returns:
        How many places there are then.
    """
    for m in range(0, size - LANES + 1, LANES):
        count = append_places(nonzero(z, a + m), first + m, places, count)
    for m in range(size - size % LANES, size):
        places[count] = first + m
        count += _differs(z, a + m)
    return count


@intrinsic
def _differs(typing, z, a):
    """Whether the number ``z[a]`` is not zero, 1 or 0."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, a = arrays(context, builder, signature, args)
        bit = builder.fcmp_unordered("!=", z.scalar(a), ir.Constant(z.number, 0.0))
        return builder.zext(bit, ir.IntType(64))

    return types.int64(z, types.int64), build
