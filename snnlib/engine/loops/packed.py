"""Memory for what the CPU's loops keep for events alone, which :mod:`snnlib.engine.loops.events` packs.

Each thread packs what its neurons keep, and unpacks it again. How much it will be nobody knows before: there is
room for every neuron at every step, which is only asked for, and given back when the loop has ended. Memory
that was never written to is not taken.

The room of a thread is one array of integers, of eight bytes each: words of bits, one that says how many events
there are, and in lines of the cache behind them the numbers of these. While they are packed, there is room for
those of one step behind all.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.llvm.machine import Array, as_array
from snnlib.engine.program import Traced
from snnlib.engine.sizes import LANES, LINE, LONG, WORD

__all__ = ["Own", "Packed", "unpacked"]

_LINE = LINE // 8
"""Integers in a line of the cache."""
_Shares = Sequence[tuple[int, int]]
"""The neurons of each thread: the first and the one after the last."""
Own = tuple[list[Array], tuple[int, ...]]
"""What one thread is given beside what all are: arrays and integers."""


class _Plan(NamedTuple):
    """Where in the room of a thread its parts are."""

    end: int
    """Of the words, where the number of events is."""
    begin: int
    """Of the numbers."""
    behind: int
    """All of these, where a step has room."""
    size: int
    """Of the whole, from any address on."""


class Packed:
    """What the threads of one forward pass pack events into.

    Parameters:
        traced: the step.
        steps: of time.
        shares: of the threads.
        block: neurons that one pass over time takes along.
        dtype: of the numbers.

    Attributes:
        own: of each thread: its room, where in it words begin, where the numbers of all events, and where there
            is room for those of a step, if there are events; and its share.
    """

    def __init__(self, traced: Traced, steps: int, shares: _Shares, block: int, dtype: torch.dtype) -> None:
        self._count, self._size = len(traced.events), dtype.itemsize
        self.own: list[Own] = [([], share) for share in shares]
        if self._count:
            self._make(steps, shares, block)

    def _make(self, steps: int, shares: _Shares, block: int) -> None:
        self._rooms: list[tuple[Any, int, _Plan]] = []
        self._kept = [torch.from_numpy(np.empty(0, np.float32))]
        for k, (start, stop) in enumerate(shares):
            plan = _plan(self._count, steps, stop - start, block, self._size)
            memory = np.empty(plan.size, np.int64)
            room = torch.from_numpy(memory)
            first = -room.data_ptr() % LINE // 8  # where a line of the cache begins
            self._rooms.append((memory, first, plan))
            self.own[k] = [as_array(room)], (first, first + plan.begin, first + plan.behind, start, stop)

    def kept(self) -> list[Tensor]:
        """What was packed, in tensors that are as large; what is in :attr:`own` is to be forgotten before.

        The first has no number. It alone has a gradient, by which what goes back a second time finds its way to
        what refuses it.
        """
        self.own = []
        if not self._count:
            return []
        tensors = self._kept
        for memory, first, plan in self._rooms:
            packed = _of(self._count, memory.item(first + plan.end), self._size)
            memory.resize(first + plan.begin + packed, refcheck=False)
            tensors.append(torch.from_numpy(memory[first:]))
        return tensors


def unpacked(
    traced: Traced, kept: Sequence[Tensor], steps: int, shares: _Shares, block: int, dtype: torch.dtype
) -> tuple[Array, list[Own]]:
    """What the threads of the way back unpack from: room for the events of a step, for all; and for each its
    room, where its words end, where its numbers begin, where there is room for a step, and its share.

    Parameters:
        kept: what :meth:`Packed.kept` gave.
        steps, shares, block, dtype: as they were for :class:`Packed`.

    Raises:
        RuntimeError: somebody who kept them has changed them.
    """
    count, size = len(traced.events), dtype.itemsize
    spare = _of_step(len(traced.between.outputs), block, size)
    scratch = torch.from_numpy(np.empty(spare * len(shares) + _LINE, np.int64))  # in a third of torch's time
    first = -scratch.data_ptr() % LINE // 8
    own: list[Own] = []
    for k, (room, (start, stop)) in enumerate(zip(kept[1:], shares, strict=True)):
        end, begin, *_ = _plan(count, steps, stop - start, block, size)
        _check(room, end, begin, count, size)
        own.append(([as_array(room)], (end, begin, first + k * spare, start, stop)))
    return as_array(scratch), own


def _check(room: Tensor, end: int, begin: int, count: int, size: int) -> None:
    """Refuse a room of which a loop would read more than there is."""
    whole = room.dtype == torch.int64 and room.is_cpu and room.is_contiguous() and room.numel() > end
    # by its address: what more a view would need is out of the caches behind a long sequence
    events = ctypes.c_int64.from_address(room.data_ptr() + 8 * end).value if whole else 0
    if not whole or room.numel() != begin + _of(count, events, size):
        raise RuntimeError(
            "what the adjoint kept of its spikes is bits, and was changed: saved_tensors_hooks that pack "
            "tensors to another type must leave those of torch.int64"
        )


@functools.lru_cache(maxsize=256)
def _plan(count: int, steps: int, neurons: int, block: int, size: int) -> _Plan:
    """For so many neurons, with ``count`` numbers of each event."""
    whole, rest = divmod(neurons, block)
    end = steps * (whole * -(-block // WORD) + -(-rest // WORD))
    begin = _in_lines(end + 1, 8)
    # the events of a step may be filled up to whole vectors
    behind = begin + _of(count, -(-neurons // LANES) * LANES * steps, size)
    return _Plan(end, begin, behind, behind + _of_step(count, block, size) + _LINE)


def _of(count: int, events: int, size: int) -> int:
    """Integers as large as the numbers of so many events, so many of each, of so many bytes."""
    return _in_lines(count * events + LONG, size)


@functools.lru_cache(maxsize=256)
def _of_step(count: int, block: int, size: int) -> int:
    """Integers as large as the events of one step, of so many numbers each of so many bytes."""
    return _in_lines(count * (block + LONG), size)


def _in_lines(count: int, size: int) -> int:
    """Integers that fill whole lines, as large as so many numbers of so many bytes."""
    return -(-count * size // LINE) * _LINE
