"""What is kept for events alone, packed one after another, by the fused loops of :mod:`snnlib.engine.cpu`.

To ask each neuron whether it spiked takes a mispredicted branch for most spikes. So the numbers of 16 neurons
are moved together: AVX-512 has an instruction for that, and AVX2 one that shuffles eight, in an order that a
table tells. Without them each number is written over the one before if that belongs to no spike. Where spikes
are is kept in bits beside, from which the way back has the spikes too: a thirty-second of what is to be read.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from snnlib.engine.emit_loops import LANES, WORD
from snnlib.engine.vector import Array, arrays, bare, byte_table, first_set, nonzero, ones, put_bits

__all__ = ["back", "packing"]

_ALL = (1 << LANES) - 1
"""The bits of a vector."""


def packing(count: int, marks: bool) -> tuple[Any, Any]:
    """``pack`` and ``unpack``, for the compiler to know what they move.

    Parameters:
        count: numbers of a neuron.
        marks: whether to unpack as well where they are, as 1 and 0 in a row more.
    """

    @bare(forceinline=True)
    def pack(marked, rows, packed, at, word, k):
        """Append the columns of ``rows`` where ``marked`` is not 0 to ``packed``, and their bits to ``word``.

        Parameters:
            marked: of a vector of neurons, or of one.
            rows: ``[count or more, LANES]``.
            packed: ``[count events + LANES]``: one row after another for as many neurons as a vector has;
                whole vectors are written, and read again.
            at: the numbers are appended at ``packed[count at]``.
            word: the bits of the k neurons before.

        Returns:
            Where the next ones go, and the word.
        """
        mask = nonzero(marked, 0) if marked.shape[0] == LANES else int(marked[0] != 0)
        found = ones(mask)
        for e in range(count):
            _squeeze(rows, e * LANES, packed, count * at + e * found, mask)
        return at + found, word | mask << k

    @bare(forceinline=True)
    def unpack(size, packed, at, bits, rows):
        """Undo :func:`pack` for a vector of neurons or for one, as ``size`` says, whose bits come first.

        Where nothing was marked, ``rows`` gets any numbers.

        Returns:
            Where those of the next neurons are.
        """
        mask = bits & (_ALL if size == LANES else 1)
        if marks:
            put_bits(mask, rows, count * LANES)
        found = ones(mask)
        for e in range(count):
            _spread(packed, count * at + e * found, rows, e * LANES, mask)
        return at + found

    return pack, unpack


@bare(forceinline=True)
def back(size, masks, place):
    """Move ``place`` from the end of a step of ``size`` neurons to its beginning: memory is read ahead from low
    to high addresses."""
    end = place[1]
    place[1] -= (size + WORD - 1) // WORD
    for k in range(place[1], end):
        place[0] -= ones(masks[k])


@intrinsic
def _squeeze(typing, rows, a, packed, b, mask):
    """Numbers from ``rows[a]`` on whose bit in ``mask`` is set, to ``packed[b]`` and on; others behind them."""

    def move(builder: Any, rows: Array, a: Any, packed: Array, b: Any, bit: Any) -> Any:
        packed.put(rows.scalar(a), b)
        return builder.add(a, ir.Constant(a.type, 1)), builder.add(b, bit)

    return _signature(rows, packed), _moving("compress", first_set, move, is_packed=1)


@intrinsic
def _spread(typing, packed, a, rows, b, mask):
    """Undo :func:`_squeeze`, from ``packed[a]`` to ``rows[b]`` and on; any number where no bit is set."""

    def move(builder: Any, packed: Array, a: Any, rows: Array, b: Any, bit: Any) -> Any:
        rows.put(packed.scalar(a), b)
        return builder.add(a, bit), builder.add(b, ir.Constant(b.type, 1))

    return _signature(packed, rows), _moving("expand", _set_before, move, is_packed=0)


def _signature(source: Any, target: Any) -> Any:
    return types.void(source, types.int64, target, types.int64, types.int64)


def _set_before(bits: int, count: int) -> list[int]:
    """For each place, how many bits are set before it."""
    return [(bits & ((1 << lane) - 1)).bit_count() for lane in range(count)]


def _moving(name: str, order: Callable[[int, int], list[int]], move: Callable[..., Any], is_packed: int) -> Any:
    """The code of an intrinsic that moves ``LANES`` numbers.

    Parameters:
        name: of AVX-512's instruction.
        order: from bits, and how many they are, to which number goes to each place.
        move: one number, without AVX2; where the next is from and goes to.
        is_packed: which side has no gaps, 0 for the source and 1 for the target.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, a, target, b, mask = arrays(context, builder, signature, args)
        features = context.codegen().magic_tuple()[2].split(",")
        if "+avx512f" in features:
            _by_registers(builder, *_squeezed(builder, source, name), source, a, target, b, mask, is_packed)
        elif "+avx2" in features:
            _by_registers(builder, *_shuffled(builder, source, order), source, a, target, b, mask, is_packed)
        else:
            for lane in range(LANES):
                bit = builder.and_(builder.lshr(mask, ir.Constant(mask.type, lane)), ir.Constant(mask.type, 1))
                a, b = move(builder, source, a, target, b, bit)
        return context.get_dummy_value()

    return build


def _by_registers(
    builder: Any,
    lanes: int,
    moved: Any,
    source: Array,
    a: Any,
    target: Array,
    b: Any,
    mask: Any,
    is_packed: int,
) -> None:
    """As many numbers at a time as fill a register: ``moved`` takes them, and their bits in an integer."""
    width = ir.Constant(mask.type, lanes)
    for _ in range(LANES // lanes):
        bits = builder.and_(mask, ir.Constant(mask.type, (1 << lanes) - 1))
        target.store(moved(source.load(a, ir.VectorType(source.number, lanes)), bits), b)
        steps = [width, width]
        steps[is_packed] = builder.ctpop(bits)
        a, b, mask = builder.add(a, steps[0]), builder.add(b, steps[1]), builder.lshr(mask, width)


def _squeezed(builder: Any, source: Array, name: str) -> tuple[int, Callable[[Any, Any], Any]]:
    """AVX-512's own instruction."""
    lanes, kind = (8, "f64") if isinstance(source.number, ir.DoubleType) else (16, "f32")
    vector, marks = ir.VectorType(source.number, lanes), ir.VectorType(ir.IntType(1), lanes)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector, vector, marks]),
        f"llvm.x86.avx512.mask.{name}.v{lanes}{kind}",
    )

    def moved(numbers: Any, bits: Any) -> Any:
        marked = builder.bitcast(builder.trunc(bits, ir.IntType(lanes)), marks)
        return builder.call(function, [numbers, ir.Constant(vector, None), marked])

    return lanes, moved


def _shuffled(
    builder: Any, source: Array, order: Callable[[int, int], list[int]]
) -> tuple[int, Callable[[Any, Any], Any]]:
    """AVX2's shuffle, which knows them as eight integers, by a table."""
    eight, small = ir.VectorType(ir.IntType(32), 8), ir.VectorType(ir.IntType(8), 8)
    lanes = 4 if isinstance(source.number, ir.DoubleType) else 8
    table = byte_table(builder, [_eight(order(bits, lanes)) for bits in range(1 << lanes)])
    kind = ir.FunctionType(eight, [eight, eight])
    permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.permd")

    def moved(numbers: Any, bits: Any) -> Any:
        row = builder.load(builder.gep(table, [ir.Constant(bits.type, 0), bits]))
        places = builder.zext(builder.bitcast(row, small), eight)
        return builder.bitcast(builder.call(permute, [builder.bitcast(numbers, eight), places]), numbers.type)

    return lanes, moved


def _eight(order: list[int]) -> list[int]:
    """An order of four numbers as one of their eight halves."""
    return order if len(order) == 8 else [2 * lane + half for lane in order for half in (0, 1)]
