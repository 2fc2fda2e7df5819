"""What is kept for events alone, packed one after another, by the fused loops of :mod:`snnlib.engine.cpu`.

To ask each neuron whether it spiked takes a mispredicted branch for most spikes. So spikes are bits of words,
64 neurons in each: a loop goes from bit to bit, or where there are many AVX-512 moves the numbers of 16 neurons
at a time, whether there are bits or not. The words are kept, and from them the way back has the spikes too: a
thirty-second of what is to be read.
"""

import functools
from typing import Any

from llvmlite import ir

from snnlib.engine.builder import BIT, Array, Builder, Lanes, built
from snnlib.engine.sizes import LANES, WORD
from snnlib.engine.vector import ones

__all__ = ["append", "at_place", "back", "has_bit", "moving"]

_ALL = (1 << LANES) - 1
"""The bits of a vector."""
_FEW = 10
"""Bits of a word up to which a loop over them is faster than AVX-512 (Genoa)."""


@functools.cache
def moving(kept: int, read: int) -> tuple[Any, Any]:
    """``pack`` and ``unpack`` for ``kept`` numbers of a neuron forward and ``read`` back."""

    def pack(word, rows, first, squeezed, at):
        """Move the columns of ``rows`` where ``word`` has a bit together.

        Parameters:
            word: a bit for each of ``WORD`` neurons.
            rows: ``[kept, 2 WORD]``; the neurons of the word are the columns from ``first`` on.
            squeezed: ``[kept, events + LANES]``: whole vectors are written, and read again.
            at: the column that the first is moved to.

        Returns:
            The column for the next ones.
        """
        if moves_vectors(word):
            for k in range(0, WORD, LANES):
                mask = word >> k & _ALL
                for e in range(kept):
                    _compress(rows, e, first + k, mask, squeezed, at)
                at += ones(mask)
            return at
        while word:
            k = _lowest(word)
            for e in range(kept):
                squeezed[e, at] = rows[e, first + k]
            word &= word - 1
            at += 1
        return at

    def unpack(word, squeezed, at, rows, first):
        """Undo :func:`pack`. Where ``word`` has no bit, ``rows`` gets any numbers.

        Returns:
            The column of the next neurons.
        """
        if moves_vectors(word):
            for k in range(0, WORD, LANES):
                mask = word >> k & _ALL
                for e in range(read):
                    _expand(squeezed, e, at, mask, rows, first + k)
                at += ones(mask)
            return at
        while word:
            k = _lowest(word)
            for e in range(read):
                rows[e, first + k] = squeezed[e, at]
            word &= word - 1
            at += 1
        return at

    return pack, unpack


@built
def at_place(builder: Builder, bits: Any, j: Any) -> Any:
    """The bits of the neurons ``j`` where they are in a word."""
    return builder.shl(bits, _first(j))


@built
def has_bit(builder: Builder, word: Any, j: Any) -> Any:
    """Of each of the neurons ``j`` whether it has a bit in a word."""
    bits = builder.lshr(word, _first(j))
    return _as_marks(builder, bits, j.width) if isinstance(j, Lanes) else builder.trunc(bits, BIT)


def _first(j: Any) -> Any:
    return j.first if isinstance(j, Lanes) else j


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
def moves_vectors(builder: Builder, word: Any) -> Any:
    """Whether numbers are moved by whole vectors: where there is AVX-512 and there are more than a few bits."""
    if not builder.has_wide_registers:
        return False
    return builder.icmp_signed(">", builder.ctpop(word), builder.integer(_FEW))


@built
def _lowest(builder: Builder, word: Any) -> Any:
    """The place of the lowest bit, of which there must be one."""
    return builder.cttz(word, ir.Constant(BIT, 1))


@built
def _copy_vector(builder: Builder, source: Array, a: Any, target: Array, b: Any) -> None:
    """Numbers from ``source[a]`` on to ``target[b]`` and on, counted from their first ones."""
    target.store(source.load(a), b)


@built
def _compress(builder: Builder, rows: Array, e: Any, first: Any, bits: Any, squeezed: Array, at: Any) -> None:
    """Numbers of row ``e`` from column ``first`` on that have a bit to column ``at`` and on, others behind."""
    begin, to = rows.index(e, first), squeezed.index(e, at)
    for places, own in _registers(builder, squeezed, bits):
        some = rows.load(
            builder.add(begin, builder.integer(places[0])), ir.VectorType(rows.number, len(places))
        )
        squeezed.store(_by_avx512(builder, "compress", some, own), to)
        to = builder.add(to, builder.ctpop(own))


@built
def _expand(builder: Builder, squeezed: Array, e: Any, at: Any, bits: Any, rows: Array, first: Any) -> None:
    """Undo :func:`_compress`; any number where there is no bit."""
    begin, to = squeezed.index(e, at), rows.index(e, first)
    for places, own in _registers(builder, squeezed, bits):
        some = squeezed.load(begin, ir.VectorType(squeezed.number, len(places)))
        rows.store(_by_avx512(builder, "expand", some, own), builder.add(to, builder.integer(places[0])))
        begin = builder.add(begin, builder.ctpop(own))


def _registers(builder: Builder, array: Array, bits: Any) -> list[tuple[range, Any]]:
    """The numbers of a vector that are in one register, and their bits."""
    lanes = 8 if isinstance(array.number, ir.DoubleType) else 16
    mask = builder.integer((1 << lanes) - 1)
    starts = range(0, LANES, lanes)
    return [(range(k, k + lanes), builder.and_(builder.lshr(bits, builder.integer(k)), mask)) for k in starts]


def _by_avx512(builder: Builder, name: str, numbers: Any, bits: Any) -> Any:
    """An instruction of AVX-512 that moves the numbers of a register."""
    kind = numbers.type
    size = "f64" if isinstance(kind.element, ir.DoubleType) else "f32"
    function = f"llvm.x86.avx512.mask.{name}.v{kind.count}{size}"
    nothing = ir.Constant(kind, None)
    return builder.call_named(function, kind, numbers, nothing, _as_marks(builder, bits, kind.count))


def _as_marks(builder: Builder, bits: Any, lanes: int) -> Any:
    """The lowest bits of an integer as a vector of them."""
    return builder.bitcast(builder.trunc(bits, ir.IntType(lanes)), ir.VectorType(BIT, lanes))
