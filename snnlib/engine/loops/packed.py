"""Memory for what the CPU's loops keep for events alone, which :mod:`snnlib.engine.loops.events` packs.

Each thread packs what its neurons keep, and unpacks it again. How much it will be nobody knows before: there is
room for every neuron at every step, which is only asked for, and given back when the loop has ended. Memory
that was never written to is not taken.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.llvm.machine import Array
from snnlib.engine.loops.sizes import LONG, WORD
from snnlib.engine.memory import in_lines, on_cpu
from snnlib.engine.program import Traced

__all__ = ["Packed", "unpacked"]

_TENSORS = 3
"""What each thread keeps: the numbers, the bits that say where they belong, and blocks of neurons."""


class Packed:
    """What the threads of one forward pass pack events into.

    Parameters:
        traced: the step.
        steps: of time.
        block: neurons that one pass over time takes along.
        dtype: of the numbers.
    """

    def __init__(self, traced: Traced, steps: int, block: int, dtype: torch.dtype) -> None:
        self._count = len(traced.events)
        self._steps, self._block, self._dtype = steps, block, dtype
        self._rooms: list[tuple[np.ndarray, int, Tensor, np.ndarray]] = []

    def room(self, start: int, stop: int) -> list[Array]:
        """For the neurons ``start:stop``: room for a word of them, for the events of a step and for all,
        their bits, and where each block of neurons is and ends to be packed."""
        if not self._count:
            return []
        memory, begin = in_lines(self._count * self._steps * (stop - start) + LONG, self._dtype)
        sizes = [min(a + self._block, stop) - a for a in range(start, stop, self._block)]
        blocks = np.empty((len(sizes), 5), np.int64)
        masks = on_cpu(self._steps * sum(-(-size // WORD) for size in sizes), dtype=torch.int64)
        self._rooms.append((memory, begin, masks, blocks))
        row = on_cpu(self._count, 2 * WORD, dtype=self._dtype)
        squeezed = on_cpu(self._count, self._block + LONG, dtype=self._dtype)
        tensors = row, squeezed, torch.from_numpy(memory)[begin:], masks, torch.from_numpy(blocks)
        return [(value, value.shape) for value in tensors]

    def kept(self) -> list[Tensor]:
        """What was packed, in tensors that are as large; what :meth:`room` gave is to be forgotten before."""
        tensors = []
        for memory, begin, masks, blocks in self._rooms:
            memory.resize(begin + self._count * int(blocks[-1, 2]) + LONG, refcheck=False)
            tensors += [torch.from_numpy(memory)[begin:], masks, torch.from_numpy(blocks)]
        return tensors


def unpacked(traced: Traced, kept: Sequence[Tensor], block: int) -> list[tuple[int, int, list[Array]]]:
    """For each thread of the forward pass the blocks of its table, first and end, and what it unpacks them
    from, see :meth:`Packed.room`.

    Parameters:
        kept: what :meth:`Packed.kept` gave.
        block: neurons that one pass over time takes along.
    """
    parts: list[tuple[int, int, list[Array]]] = []
    count = len(traced.between.outputs)
    for at in range(0, len(kept), _TENSORS):
        numbers, masks, blocks = kept[at : at + _TENSORS]
        room = [numbers.new_empty(count, 2 * WORD), numbers.new_empty(count, block + LONG)]
        tensors = *room, numbers, masks, blocks
        parts.append((0, len(blocks), [(value, value.shape) for value in tensors]))
    return parts
