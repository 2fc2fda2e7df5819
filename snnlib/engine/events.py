"""What is kept for events alone, packed one after another, by the fused loops of :mod:`snnlib.engine.cpu`.

To ask each neuron whether it spiked takes a mispredicted branch for most spikes. So the numbers of 16 neurons
are moved together, in an order that a table tells: AVX2 has an instruction that shuffles eight. Without it
each number is written over the one before if that belongs to no spike. Where spikes are is kept in bits beside:
on the way back to read the spikes themselves for it means to wait for memory twice.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from snnlib.engine.emit import LANES, WORD
from snnlib.engine.vector import Array, arrays, bare, nonzero, ones

__all__ = ["pack", "unpack"]


@bare()
def pack(marked, rows, packed, masks, place):
    """Append the columns of ``rows`` where ``marked`` is not 0 to ``packed``, and where that is to ``masks``.

    Parameters:
        marked: of one step, ``[N]``.
        rows: ``[E or more, N + LANES or more]``.
        packed: ``[E, events + LANES]``: whole vectors are written, and read again.
        masks: integers of 64 bits, which begin anew at each step.
        place: where ``packed`` and ``masks`` end; they are moved on.
    """
    size, width, length = marked.shape[0], rows.shape[1], packed.shape[1]
    at, to = place
    for start in range(0, size, WORD):
        word = 0
        for j in range(start, min(start + WORD, size), LANES):
            if j + LANES <= size:
                mask = nonzero(marked, j)
            else:
                mask = 0
                for lane in range(size - j):
                    mask |= int(marked[j + lane] != 0) << lane
            if mask:
                for e in range(packed.shape[0]):
                    _squeeze(rows, e * width + j, packed, e * length + at, mask)
                at += ones(mask)
                word |= mask << (j - start)
        masks[to] = word
        to += 1
    place[0], place[1] = at, to


@bare()
def unpack(size, packed, masks, place, rows):
    """Undo :func:`pack` for ``size`` neurons and one step, the last before ``place``, which is moved back.

    Where nothing was marked anything is written.
    """
    width, length = rows.shape[1], packed.shape[1]
    at, to = place
    for start in range((size - 1) // WORD * WORD, -1, -WORD):
        to -= 1
        word = masks[to]
        if word:
            for shift in range(WORD - LANES, -1, -LANES):
                mask = (word >> shift) & ((1 << LANES) - 1)
                if mask:
                    at -= ones(mask)
                    for e in range(packed.shape[0]):
                        _spread(packed, e * length + at, rows, e * width + start + shift, mask)
    place[0], place[1] = at, to


@intrinsic
def _squeeze(typing, rows, a, packed, b, mask):
    """Numbers from ``rows[a]`` on whose bit in ``mask`` is set, to ``packed[b]`` and on; others behind them."""

    def move(builder: Any, rows: Array, a: Any, packed: Array, b: Any, bit: Any) -> Any:
        packed.put(rows.scalar(a), b)
        return builder.add(a, ir.Constant(a.type, 1)), builder.add(b, bit)

    return _signature(rows, packed), _moving(_first_set, move, is_packed=1)


@intrinsic
def _spread(typing, packed, a, rows, b, mask):
    """Undo :func:`_squeeze`, from ``packed[a]`` to ``rows[b]`` and on; any number where no bit is set."""

    def move(builder: Any, packed: Array, a: Any, rows: Array, b: Any, bit: Any) -> Any:
        rows.put(packed.scalar(a), b)
        return builder.add(a, bit), builder.add(b, ir.Constant(b.type, 1))

    return _signature(packed, rows), _moving(_set_before, move, is_packed=0)


def _signature(source: Any, target: Any) -> Any:
    return types.void(source, types.int64, target, types.int64, types.int64)


def _first_set(bits: int, count: int) -> list[int]:
    """The places of the bits that are set, and any others behind them."""
    return sorted(range(count), key=lambda lane: not bits >> lane & 1)


def _set_before(bits: int, count: int) -> list[int]:
    """For each place, how many bits are set before it."""
    return [(bits & ((1 << lane) - 1)).bit_count() for lane in range(count)]


def _moving(order: Callable[[int, int], list[int]], move: Callable[..., Any], is_packed: int) -> Any:
    """The code of an intrinsic that moves ``LANES`` numbers.

    Parameters:
        order: from bits, and how many they are, to which number goes to each place.
        move: one number, without AVX2; where the next is from and goes to.
        is_packed: which side has no gaps, 0 for the source and 1 for the target.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, a, target, b, mask = arrays(context, builder, signature, args)
        if "+avx2" in context.codegen().magic_tuple()[2]:
            _shuffle(builder, order, source, a, target, b, mask, is_packed)
        else:
            for lane in range(LANES):
                bit = builder.and_(builder.lshr(mask, ir.Constant(mask.type, lane)), ir.Constant(mask.type, 1))
                a, b = move(builder, source, a, target, b, bit)
        return context.get_dummy_value()

    return build


def _shuffle(
    builder: Any,
    order: Callable[[int, int], list[int]],
    source: Array,
    a: Any,
    target: Array,
    b: Any,
    mask: Any,
    is_packed: int,
) -> None:
    """As many numbers at a time as fill a register of AVX2; it knows them as eight integers."""
    eight = ir.VectorType(ir.IntType(32), 8)
    bytes_ = ir.VectorType(ir.IntType(8), 8)
    double = isinstance(source.number, ir.DoubleType)
    lanes = 4 if double else 8
    part = ir.VectorType(source.number, lanes)
    table = _table(builder, [_eight(order(bits, lanes)) for bits in range(1 << lanes)])
    kind = ir.FunctionType(eight, [eight, eight])
    permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.permd")
    count = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(mask.type, [mask.type]), "llvm.ctpop.i64"
    )
    places = [a, b]
    for _ in range(LANES // lanes):
        bits = builder.and_(mask, ir.Constant(mask.type, (1 << lanes) - 1))
        row = builder.load(builder.gep(table, [ir.Constant(mask.type, 0), bits]))
        numbers = builder.bitcast(source.load(places[0], part), eight)
        moved = builder.call(permute, [numbers, builder.zext(builder.bitcast(row, bytes_), eight)])
        target.store(builder.bitcast(moved, part), places[1])
        mask = builder.lshr(mask, ir.Constant(mask.type, lanes))
        steps = [ir.Constant(mask.type, lanes), ir.Constant(mask.type, lanes)]
        steps[is_packed] = builder.call(count, [bits])
        places = [builder.add(place, step) for place, step in zip(places, steps, strict=True)]


def _eight(order: list[int]) -> list[int]:
    """An order of four numbers as one of their eight halves."""
    return order if len(order) == 8 else [2 * lane + half for lane in order for half in (0, 1)]


def _table(builder: Any, rows: list[list[int]]) -> Any:
    """Rows of eight small numbers in constant memory, each as one integer of 64 bits."""
    integer = ir.IntType(64)
    values = [int.from_bytes(bytes(row), "little") for row in rows]
    content = ir.Constant(ir.ArrayType(integer, len(values)), [ir.Constant(integer, v) for v in values])
    return cgutils.global_constant(builder.module, "order", content)
