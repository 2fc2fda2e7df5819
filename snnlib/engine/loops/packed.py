"""Memory for what the CPU's loops keep for events alone, which :mod:`snnlib.engine.loops.events` packs.

Each thread packs what its neurons keep, and unpacks it again. How much it will be nobody knows before: there is
room for every neuron at every step, which is only asked for, and given back when the loop has ended. Memory
that was never written to is not taken.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.llvm.machine import Array, as_array
from snnlib.engine.loops.sizes import LANES, LONG, WORD
from snnlib.engine.memory import in_lines, on_cpu
from snnlib.engine.program import Traced

__all__ = ["Own", "Packed", "unpacked"]

_Shares = Sequence[tuple[int, int]]
"""The neurons of each thread: the first and the one after the last."""
Own = tuple[list[Array], tuple[int, ...]]
"""What one thread is given beside what all are: arrays and integers."""


class Packed:
    """What the threads of one forward pass pack events into.

    Parameters:
        traced: the step.
        steps: of time.
        shares: of the threads.
        block: neurons that one pass over time takes along.
        dtype: of the numbers.

    Attributes:
        arrays: of all threads: room for the events of a step, and the bits of all.
        own: of each thread: room for its events; its number and where its bits begin, where there are any; and
            its share.
    """

    def __init__(self, traced: Traced, steps: int, shares: _Shares, block: int, dtype: torch.dtype) -> None:
        self._count = len(traced.events)
        self.arrays: list[Array] = []
        self.own: list[Own] = [([], share) for share in shares]
        if self._count:
            self._make(steps, shares, block, dtype)

    def _make(self, steps: int, shares: _Shares, block: int, dtype: torch.dtype) -> None:
        self._ends = _ends(steps, shares, block)
        self._masks = np.empty(self._ends[-1] + 1 if shares else 0, np.int64)
        self._bits = torch.from_numpy(self._masks)
        # the events of a step may be filled up to whole vectors
        wide = [-(-(stop - start) // LANES) * LANES for start, stop in shares]
        self._rooms = [in_lines(self._count * steps * size + LONG, dtype) for size in wide]
        self.arrays = [as_array(_squeezed(len(shares), self._count, block, dtype)), as_array(self._bits)]
        begins = 0, *(end + 1 for end in self._ends)
        places = enumerate(zip(begins, shares, self._rooms, strict=False))
        self.own = [([as_array(room)], (k, begin, *share)) for k, (begin, share, (_, room)) in places]

    def kept(self) -> list[Tensor]:
        """What was packed, in tensors that are as large; what is in :attr:`own` is to be forgotten before."""
        self.own = []
        if not self._count:
            return []
        tensors = [self._bits]
        for (memory, room), end in zip(self._rooms, self._ends, strict=True):
            begin = room.storage_offset()
            memory.resize(begin + self._count * self._masks.item(end) + LONG, refcheck=False)
            tensors.append(torch.from_numpy(memory[begin:]))
        return tensors


def unpacked(
    traced: Traced, kept: Sequence[Tensor], steps: int, shares: _Shares, block: int, dtype: torch.dtype
) -> tuple[list[Array], list[Own]]:
    """What the threads of the way back unpack from, for each its number, where its bits end, and its share.

    Parameters:
        kept: what :meth:`Packed.kept` gave.
        steps, shares, block, dtype: as they were for :class:`Packed`.
    """
    masks, *packed = kept
    squeezed = _squeezed(len(shares), len(traced.between.outputs), block, dtype)
    places = enumerate(zip(_ends(steps, shares, block), shares, packed, strict=True))
    own: list[Own] = [([as_array(room)], (k, end, *share)) for k, (end, share, room) in places]
    return [as_array(squeezed), as_array(masks)], own


def _ends(steps: int, shares: _Shares, block: int) -> list[int]:
    """Where the words of each thread end; there it has how many events it packed."""
    ends, last = [], -1
    for start, stop in shares:
        whole, rest = divmod(stop - start, block)
        last += 1 + steps * (whole * -(-block // WORD) + -(-rest // WORD))
        ends.append(last)
    return ends


def _squeezed(threads: int, count: int, block: int, dtype: torch.dtype) -> Tensor:
    """Room for the events of one step."""
    return on_cpu(threads, count, block + LONG, dtype=dtype)
