"""What is kept for events alone, packed one after another, by the fused loops of :mod:`snnlib.engine.cpu`.

To ask each neuron whether it spiked takes a mispredicted branch for most spikes. So spikes are bits of words,
64 neurons in each: a loop goes from bit to bit, or AVX-512 moves the numbers of 16 neurons at a time, whether
there are bits or not. The words are kept, and from them the way back has the spikes too: a thirty-second of
what is to be read.
"""

import functools
from typing import Any

from llvmlite import ir

from snnlib.engine.emit_loops import LANES, WORD
from snnlib.engine.vector import BIT, Array, Builder, built, nonzero, ones, put_bits

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


@built
def moves_vectors(builder: Builder) -> bool:
    """Whether numbers are moved by whole vectors, which takes AVX-512."""
    return builder.has_wide_registers


@built
def _lowest(builder: Builder, word: Any) -> Any:
    """The place of the lowest bit, of which there must be one."""
    return builder.cttz(word, ir.Constant(BIT, 1))


def _copying(lanes: int) -> Any:
    @built
    def copy(builder: Builder, source: Array, a: Any, target: Array, b: Any) -> None:
        """Numbers from ``source[a]`` on to ``target[b]`` and on, counted from their first ones."""
        target.store(source.load(a, ir.VectorType(source.number, lanes)), b)

    return copy


_move, _copy_vector = _copying(1), _copying(LANES)


def _moving(name: str, is_packed: int) -> Any:
    """A function that moves ``LANES`` numbers, as many at a time as fill a register.

    Without AVX-512, where nothing but a test calls it, the numbers are moved one by one.

    Parameters:
        name: of AVX-512's instruction.
        is_packed: which side has no gaps, 0 for the source and 1 for the target.
    """

    @built
    def move(builder: Builder, source: Array, a: Any, target: Array, b: Any, mask: Any) -> None:
        lanes, moved = _moved(builder, source, name) if builder.has_wide_registers else (1, None)
        width = builder.integer(lanes)
        for _ in range(LANES // lanes):
            bits = builder.and_(mask, builder.integer((1 << lanes) - 1))
            numbers = source.load(a, ir.VectorType(source.number, lanes))
            target.store(moved(numbers, bits) if moved else numbers, b)
            steps = [width, width]
            steps[is_packed] = builder.ctpop(bits)
            a, b, mask = builder.add(a, steps[0]), builder.add(b, steps[1]), builder.lshr(mask, width)

    return move


def _moved(builder: Builder, source: Array, name: str) -> tuple[int, Any]:
    """How many numbers a register has, and AVX-512's instruction for these and an integer with their bits."""
    lanes, kind = (8, "f64") if isinstance(source.number, ir.DoubleType) else (16, "f32")
    vector, marks = ir.VectorType(source.number, lanes), ir.VectorType(BIT, lanes)

    def moved(numbers: Any, bits: Any) -> Any:
        marked = builder.bitcast(builder.trunc(bits, ir.IntType(lanes)), marks)
        nothing = ir.Constant(vector, None)
        return builder.call_named(
            f"llvm.x86.avx512.mask.{name}.v{lanes}{kind}", vector, numbers, nothing, marked
        )

    return lanes, moved


_squeeze = _moving("compress", is_packed=1)
"""Numbers from ``source[a]`` on whose bit in ``mask`` is set, to ``target[b]`` and on; others behind them."""
_spread = _moving("expand", is_packed=0)
"""Undo :data:`_squeeze`, from ``source[a]`` to ``target[b]`` and on; any number where no bit is set."""
