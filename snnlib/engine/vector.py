"""LLVM's vectors in functions that Numba compiles, for loops that its vectoriser does not find.

``bare`` is how all functions of the loops are compiled: nothing counts references (``_nrt``), which two threads
would do in turns at every slice, and so nothing is allocated either; and nothing is called from Python.
"""

import functools
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from snnlib.engine.emit import LANES

__all__ = ["Array", "apart", "arrays", "bare", "lowest", "nonzero", "ones", "put_bits"]

bare = functools.partial(njit, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def apart(function: Any) -> Any:
    """``bare`` for a function that writes to no array which overlaps another: nobody has to look. Inlined."""
    made = bare(forceinline=True)(function)

    def customize(flags: Any) -> Any:
        flags.noalias = True
        return flags

    made._compiler._customize_flags = customize  # Numba's own flag, which njit has no name for
    return made


class Array:
    """A C-contiguous array in a function that is being built; an index counts from its first number."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        made = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, made.data
        self.shape = cgutils.unpack_tuple(builder, made.shape)
        self.number = context.get_value_type(kind.dtype)
        self.vector = ir.VectorType(self.number, LANES)

    def scalar(self, index: Any) -> Any:
        return self.builder.load(self.builder.gep(self.data, [index]))

    def put(self, value: Any, index: Any) -> None:
        self.builder.store(value, self.builder.gep(self.data, [index]))

    def load(self, index: Any, vector: Any = None) -> Any:
        """A vector, of ``LANES`` numbers unless of a type that is given."""
        return self.builder.load(self._place(index, vector or self.vector), align=4)

    def store(self, value: Any, index: Any) -> None:
        self.builder.store(value, self._place(index, value.type), align=4)

    def _place(self, index: Any, vector: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [index]), vector.as_pointer())

    def spread(self, index: Any) -> Any:
        """A vector of one number, many times."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(nothing, self.scalar(index), ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return self.builder.shuffle_vector(one, nothing, lanes)


def arrays(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """The arguments of an intrinsic, arrays made usable."""
    return [
        Array(context, builder, kind, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


@intrinsic
def nonzero(typing, z, a):
    """One bit for each of the numbers from ``z[a]`` on that fill a vector: whether it is not zero."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        z, a = arrays(context, builder, signature, args)
        bits = builder.fcmp_unordered("!=", z.load(a), ir.Constant(z.vector, None))
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(z, types.int64), build


@intrinsic
def lowest(typing, mask):
    """The place of the lowest bit that is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


@intrinsic
def ones(typing, mask):
    """How many bits are set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), build


@intrinsic
def put_bits(typing, mask, out, a):
    """Write 1 for each bit that is set, and 0 for the others, to a vector of numbers from ``out[a]`` on."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask, out, a = arrays(context, builder, signature, args)
        bits = builder.trunc(mask, ir.IntType(LANES))
        out.store(builder.uitofp(builder.bitcast(bits, ir.VectorType(ir.IntType(1), LANES)), out.vector), a)
        return context.get_dummy_value()

    return types.void(mask, out, types.int64), build
