"""What is kept for events alone, packed one after another, by the fused loops of :mod:`snnlib.engine.cpu`.

To ask each neuron whether it spiked takes a mispredicted branch for most spikes. So spikes are bits of words,
64 neurons in each: a loop goes from bit to bit, or AVX-512 moves the numbers of 16 neurons at a time, whether
there are bits or not. The words are kept, and from them the way back has the spikes too: a thirty-second of
what is to be read.
"""

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from snnlib.engine.emit_loops import LANES, WORD
from snnlib.engine.vector import Array, arrays, bare, has_wide_registers, known, nonzero, ones, put_bits

__all__ = ["append", "back", "bits_of", "packing"]

_ALL = (1 << LANES) - 1
"""The bits of a vector."""


@functools.cache
def packing(kept: int, read: int, marks: bool) -> tuple[Any, Any]:
    """``pack`` and ``unpack``, for the compiler to know what they move; once for all loops that move as much.

    Parameters:
        kept: numbers of a neuron that are packed.
        read: numbers of a neuron that are unpacked.
        marks: whether to unpack as well where they are, as 1 and 0 in a row more.
    """

    @bare(forceinline=True)
    def pack(word, rows, first, squeezed, at):
        """Move the columns of ``rows`` where ``word`` has a bit together.

        Parameters:
            word: see :func:`bits_of`.
            rows: ``[kept or more, 2 WORD]``; the neurons of the word are the columns from ``first`` on.
            squeezed: ``[kept, events + LANES]``: whole vectors are written, and read again.
            at: the column that the first is moved to.

        Returns:
            The column for the next ones.
        """
        if moves_vectors():
            for k in range(0, WORD, LANES):
                mask = word >> k & _ALL
                for e in range(kept):
                    _squeeze(rows, 2 * e * WORD + first + k, squeezed, e * squeezed.shape[1] + at, mask)
                at += ones(mask)
        else:
            while word:
                k = _lowest(word)
                for e in range(kept):
                    _move(rows, 2 * e * WORD + first + k, squeezed, e * squeezed.shape[1] + at)
                word &= word - 1
                at += 1
        return at

    @bare(forceinline=True)
    def unpack(word, squeezed, at, rows, first):
        """Undo :func:`pack`. Where ``word`` has no bit, ``rows`` gets any numbers.

        Returns:
            The column of the next neurons.
        """
        if marks:
            for k in range(0, WORD, LANES):
                put_bits(word >> k & _ALL, rows, 2 * read * WORD + first + k)
        if moves_vectors():
            for k in range(0, WORD, LANES):
                mask = word >> k & _ALL
                for e in range(read):
                    _spread(squeezed, e * squeezed.shape[1] + at, rows, 2 * e * WORD + first + k, mask)
                at += ones(mask)
        else:
            while word:
                k = _lowest(word)
                for e in range(read):
                    _move(squeezed, e * squeezed.shape[1] + at, rows, 2 * e * WORD + first + k)
                word &= word - 1
                at += 1
        return at

    return pack, unpack


@bare(forceinline=True)
def bits_of(marked):
    """A bit for each of the neurons of a word, or of the last ones, which are fewer: whether it is not 0."""
    word = 0
    if marked.shape[0] == WORD:
        for k in range(0, WORD, LANES):
            word |= nonzero(marked, k) << k
    else:
        for k in range(marked.shape[0]):
            word |= int(marked[k] != 0) << k
    return word


@bare(forceinline=True)
def append(squeezed, found, packed, at):
    """Append the first ``found`` columns to ``packed``, behind those of ``at`` events, one row after another.

    Parameters:
        packed: ``[rows events + LANES]``: whole vectors are written.

    Returns:
        How many events there are then.
    """
    first = squeezed.shape[0] * at
    for e in range(squeezed.shape[0]):
        for k in range(0, found, LANES):
            _copy_vector(squeezed, e * squeezed.shape[1] + k, packed, first + k)
        first += found
    return at + found


@bare(forceinline=True)
def back(size, masks, to):
    """From the end of the words of a step of ``size`` neurons to their beginning: memory is read ahead from low
    to high addresses.

    Returns:
        The beginning, and how many events there are in the step.
    """
    first, found = to - (size + WORD - 1) // WORD, 0
    for k in range(first, to):
        found += ones(masks[k])
    return first, found


moves_vectors = known(types.boolean, has_wide_registers)
"""Whether numbers are moved by whole vectors, which takes AVX-512."""


@intrinsic
def _lowest(typing, word):
    """The place of the lowest bit, of which there must be one."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


def _copying(lanes: int) -> Any:
    @intrinsic
    def copy(typing, source, a, target, b):
        """Numbers from ``source[a]`` on to ``target[b]`` and on, counted from their first ones."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source, a, target, b = arrays(context, builder, signature, args)
            target.store(source.load(a, ir.VectorType(source.number, lanes)), b)
            return context.get_dummy_value()

        return _signature(source, target), build

    return copy


@intrinsic
def _squeeze(typing, rows, a, packed, b, mask):
    """Numbers from ``rows[a]`` on whose bit in ``mask`` is set, to ``packed[b]`` and on; others behind them."""
    return _signature(rows, packed, mask), _moving("compress", is_packed=1)


@intrinsic
def _spread(typing, packed, a, rows, b, mask):
    """Undo :func:`_squeeze`, from ``packed[a]`` to ``rows[b]`` and on; any number where no bit is set."""
    return _signature(packed, rows, mask), _moving("expand", is_packed=0)


def _signature(source: Any, target: Any, *more: Any) -> Any:
    return types.void(source, types.int64, target, types.int64, *more)


_move, _copy_vector = _copying(1), _copying(LANES)


def _moving(name: str, is_packed: int) -> Any:
    """The code of an intrinsic that moves ``LANES`` numbers, as many at a time as fill a register.

    Without AVX-512, where nothing but a test calls it, the numbers are moved one by one.

    Parameters:
        name: of AVX-512's instruction.
        is_packed: which side has no gaps, 0 for the source and 1 for the target.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, a, target, b, mask = arrays(context, builder, signature, args)
        there = has_wide_registers(context)
        lanes, moved = _moved(builder, source, name) if there else (1, None)
        width = ir.Constant(mask.type, lanes)
        for _ in range(LANES // lanes):
            bits = builder.and_(mask, ir.Constant(mask.type, (1 << lanes) - 1))
            numbers = source.load(a, ir.VectorType(source.number, lanes))
            target.store(moved(numbers, bits) if moved else numbers, b)
            steps = [width, width]
            steps[is_packed] = builder.ctpop(bits)
            a, b, mask = builder.add(a, steps[0]), builder.add(b, steps[1]), builder.lshr(mask, width)
        return context.get_dummy_value()

    return build


def _moved(builder: Any, source: Array, name: str) -> tuple[int, Any]:
    """How many numbers a register has, and AVX-512's instruction for these and an integer with their bits."""
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
