"""What a function that writes LLVM's instructions is given: where to write them, arrays, and indices.

Such a function is marked :func:`built`; it runs while :mod:`snnlib.engine.llvm.compiler` compiles one that
calls it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from llvmlite import ir

from snnlib.engine.sizes import LANES

__all__ = ["BIT", "BYTE", "INTEGER", "Array", "Builder", "Lanes", "built", "lanes"]

BIT, BYTE, INTEGER = ir.IntType(1), ir.IntType(8), ir.IntType(64)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def built(function: _Function) -> _Function:
    """Mark a function that takes a :class:`Builder` and LLVM's values, and returns what a call gives."""
    function.is_built = True  # type: ignore[attr-defined]
    return function


class Builder(ir.IRBuilder):  # type: ignore[misc]
    """Where instructions are written to.

    Parameters:
        block: as for LLVM's own.
        features: what the CPU has that is compiled for, each ``+name``.
    """

    def __init__(self, block: Any, features: frozenset[str]) -> None:
        super().__init__(block)
        self.features = features

    @property
    def has_wide_registers(self) -> bool:
        """Whether the CPU that is compiled for has AVX-512."""
        return "+avx512f" in self.features

    def lanes(self, registers: int) -> int:
        """How many float32 are in so many registers, of AVX-512 or of AVX2."""
        return registers * (LANES if self.has_wide_registers else LANES // 2)

    def integer(self, value: int) -> Any:
        return ir.Constant(INTEGER, value)

    def room(self, kind: Any, value: Any = None, align: int | None = None) -> Any:
        """A place for a value, made once at the entry of the function, and filled here."""
        with self.goto_entry_block():
            place = self.alloca(kind)
            place.align = align
        if value is not None:
            self.store(value, place)
        return place

    @contextlib.contextmanager
    def counted(self, stop: Any, start: Any = None, step: Any = None, order: str = "<") -> Iterator[Any]:
        """A loop over the integers from ``start``, 0 if not given, as long as they are ``order stop``."""
        place = self.room(INTEGER, self.integer(0) if start is None else start)
        head, body, end = (self.append_basic_block() for _ in range(3))
        self.branch(head)
        self.position_at_end(head)
        index = self.load(place)
        self.cbranch(self.icmp_signed(order, index, stop), body, end)
        self.position_at_end(body)
        yield index
        if not self.block.is_terminated:  # by a return
            self.store(self.add(index, self.integer(1) if step is None else step, flags=("nsw",)), place)
            self.branch(head)
        self.position_at_end(end)

    def chosen(self, order: str, a: Any, b: Any) -> Any:
        """Of two integers the one that is ``<`` or ``>`` the other."""
        return self.select(self.icmp_signed(order, a, b), a, b)

    def spread(self, number: Any, lanes: int) -> Any:
        """A vector of one number, many times."""
        nothing = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
        one = self.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))

    def add_product(self, sum: Any, a: Any, b: Any) -> Any:
        """``sum + a b``, with one rounding where the CPU can, or two."""
        return self.fadd(sum, self.fmul(a, b, flags=("contract",)), flags=("contract",))

    def intrinsic(self, name: str, *values: Any) -> Any:
        """Call a function of numbers, or of vectors of them, that LLVM knows."""
        kind = values[0].type
        number, lanes = (kind.element, f"v{kind.count}") if isinstance(kind, ir.VectorType) else (kind, "")
        bits = "f64" if isinstance(number, ir.DoubleType) else "f32"
        return self.call_named(f"llvm.{name}.{lanes}{bits}", kind, *values)

    def call_named(self, name: str, kind: Any, *values: Any) -> Any:
        """Call a function of the C library, or of LLVM's, that takes these values and returns this type."""
        known = self.module.globals.get(name)
        kinds = [value.type for value in values]
        return self.call(known or ir.Function(self.module, ir.FunctionType(kind, kinds), name), values)


class Lanes(NamedTuple):
    """Indices side by side.

    Attributes:
        first: the first of them.
        width: how many there are.
    """

    first: Any
    width: int


class Array:
    """A contiguous array in a function that is being compiled; an index counts from its first number.

    Parameters:
        builder: where instructions are written to.
        number: the type of its numbers.
        data: where the first is.
        shape: integers.
    """

    def __init__(self, builder: Builder, number: Any, data: Any, shape: Sequence[Any]) -> None:
        self.builder, self.number, self.data, self.shape = builder, number, data, tuple(shape)
        self.vector = ir.VectorType(number, LANES)
        self.align = 1 if number == BYTE else 4
        self.size = 8 if isinstance(number, ir.DoubleType) else self.align

    def part(self, data: Any, shape: Sequence[Any]) -> "Array":
        """An array in the same memory."""
        return Array(self.builder, self.number, data, shape)

    def index(self, *places: Any) -> Any:
        """Of the number at these places; without the last ones, of the first number there."""
        at = self.builder.integer(0)
        for size, place in zip(self.shape, places, strict=False):
            at = self.builder.add(self.builder.mul(at, size), place)
        for size in self.shape[len(places) :]:
            at = self.builder.mul(at, size)
        return at

    def get(self, index: Any) -> Any:
        """The number, or the vector of them, at an index or :class:`Lanes`."""
        if isinstance(index, Lanes):
            return self.load(index.first, self.kind_at(index))
        return self.scalar(index)

    def kind_at(self, index: Any) -> Any:
        """The type of what is at an index or :class:`Lanes`."""
        return ir.VectorType(self.number, index.width) if isinstance(index, Lanes) else self.number

    def put(self, value: Any, index: Any) -> None:
        """The other way around."""
        if isinstance(index, Lanes):
            self.store(value, index.first)
        else:
            self.builder.store(value, self.place(index))

    def scalar(self, index: Any) -> Any:
        return self.builder.load(self.place(index))

    def load(self, index: Any, vector: Any = None) -> Any:
        """A vector, of ``LANES`` numbers unless of a type that is given."""
        return self.builder.load(self._place_of(index, vector or self.vector), align=self.align)

    def store(self, value: Any, index: Any, align: int | None = None) -> Any:
        """A vector; the instruction that does it."""
        return self.builder.store(value, self._place_of(index, value.type), align=align or self.align)

    def place(self, index: Any) -> Any:
        return self.builder.gep(self.data, [index], inbounds=True)

    def spread(self, index: Any) -> Any:
        """A vector of one number, many times."""
        return self.builder.spread(self.scalar(index), LANES)

    def _place_of(self, index: Any, vector: Any) -> Any:
        return self.builder.bitcast(self.place(index), vector.as_pointer())


def lanes(count: int, *registers: int) -> None:
    """``for j in lanes(count)``, where it is compiled, is ``for j in range(count)`` whose body runs for some of
    them at once, as long as there are as many: none may need what another has done.

    Parameters:
        registers: how many a vector of float32 fills, one if not given; behind it of shorter ones for what is
            left. Several, where each operation waits long for the one before; else what a step computes finds
            no room in them.
    """
