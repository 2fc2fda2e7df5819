"""What is kept for events alone, packed one after another, by the fused loops of :mod:`snnlib.engine.cpu`.

To ask each neuron whether it spiked takes a mispredicted branch for most spikes. So spikes are bits of words,
64 neurons in each: a loop goes from bit to bit, or :mod:`snnlib.engine.loops.registers` moves many numbers at a
time. The words are kept, and from them the way back has the spikes too: a thirty-second of what is to be read.
"""

import functools
from typing import Any

from llvmlite import ir

from snnlib.engine.llvm.builder import BIT, Array, Builder, Lanes, built
from snnlib.engine.llvm.vector import ones, store_past
from snnlib.engine.loops.registers import as_marks, expand, moves_vectors, part
from snnlib.engine.sizes import LANES, LINE, WORD

__all__ = [
    "append",
    "as_numbers",
    "at_place",
    "back",
    "behind",
    "has_bit",
    "moving",
    "on_stack",
]

_ALL = (1 << LANES) - 1
"""The bits of a vector."""


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
                    expand(squeezed, e, at, mask, rows, first + k)
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
def as_numbers(builder: Builder, room: Array, first: Any, like: Array, *shape: Any) -> Array:
    """The memory of an array of integers from one on, as numbers like those of another array."""
    return like.part(builder.bitcast(room.place(first), like.number.as_pointer()), shape)


@built
def on_stack(builder: Builder, like: Array, rows: ir.Constant, columns: ir.Constant) -> Array:
    """Room for numbers as those of another array, as long as the loop runs."""
    room = builder.room(ir.ArrayType(like.number, rows.constant * columns.constant), align=LINE)
    return like.part(builder.bitcast(room, like.number.as_pointer()), [rows, columns])


@built
def at_place(builder: Builder, bits: Any, j: Any) -> Any:
    """The bits of the neurons ``j`` where they are in a word."""
    return builder.shl(bits, _first(j))


@built
def has_bit(builder: Builder, word: Any, j: Any) -> Any:
    """Of each of the neurons ``j`` whether it has a bit in a word."""
    bits = builder.lshr(word, _first(j))
    return as_marks(builder, bits, j.width) if isinstance(j, Lanes) else builder.trunc(bits, BIT)


def _first(j: Any) -> Any:
    return j.first if isinstance(j, Lanes) else j


def append(squeezed, found, packed, at, past):
    """Append the first ``found`` columns to ``packed``, behind those of ``at`` events, one row after another.

    Parameters:
        packed: ``[rows events + LANES]``: whole vectors are written.
        past: whether they go past the caches, aligned, each row filled up to whole vectors.

    Returns:
        How many events there are then.
    """
    first, whole = squeezed.shape[0] * at, found + (-found & LANES - 1) if past else found
    for e in range(squeezed.shape[0]):
        for k in range(0, found, LANES):
            if past:
                _copy_past(squeezed, e * squeezed.shape[1] + k, packed, first + k)
            else:
                _copy_vector(squeezed, e * squeezed.shape[1] + k, packed, first + k)
        first += whole
    return at + whole


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
def behind(builder: Builder, at: Any, word: Any, j: Any) -> Any:
    """The column behind those of the neurons ``j``, the first of which is at column ``at``."""
    bits = part(builder, word, _first(j), j.width if isinstance(j, Lanes) else 1)
    return builder.add(at, builder.ctpop(bits))


@built
def _lowest(builder: Builder, word: Any) -> Any:
    """The place of the lowest bit, of which there must be one."""
    return builder.cttz(word, ir.Constant(BIT, 1))


@built
def _copy_vector(builder: Builder, source: Array, a: Any, target: Array, b: Any) -> None:
    """Numbers from ``source[a]`` on to ``target[b]`` and on, counted from their first ones."""
    target.store(source.load(a), b)


@built
def _copy_past(builder: Builder, source: Array, a: Any, target: Array, b: Any) -> None:
    """The same past the caches."""
    store_past(builder, target, b, source.load(a))
