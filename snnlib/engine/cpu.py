"""The fused loop for the CPU: a traced step as machine code, time inside, neurons in blocks outside.

Numba compiles the two programs of :mod:`snnlib.engine.trace` into loops over a block of neurons, which become
SIMD instructions. A block stays in the first cache while time runs over it, so each value of the sequence is
touched once. The additions and multiplications are those of the reference loop in the same order and
precision, so that outputs are equal bit for bit where the step has no exp, tanh and the like.

A recurrent layer is cut into blocks of whole samples, and all products with its weights are in the loop, where
their operands are still in the cache: forward, each neuron's input is gathered from the neurons that spiked one
step before; backward, the gradients of both weights grow step by step.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnlib.engine.emit import LANES, PRODUCTS, WORD, emit, products
from snnlib.engine.fused import Kernel, own, still, wide
from snnlib.engine.machine import Loop
from snnlib.engine.program import Traced
from snnlib.engine.threads import together

__all__ = ["build"]

_NUMBER: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}
_BLOCK = 4096
"""Neurons that one pass over time takes along: their state stays in the first caches, and a row of each array
is long enough to be read ahead of its use."""
_RECURRENT_BLOCK = 1024
"""The same where all products with the weights are in the loop, which need the first cache too."""
_UNIT = 64
"""Neurons that are not shared between threads: a few SIMD registers of them."""
_WORTH = 1 << 15
"""Time steps times neurons for which a further thread is woken."""
_LARGE = 1 << 22
"""Bytes from which NumPy's memory is on large pages."""


def build(traced: Traced, name: str, dtype: torch.dtype, recurrent: bool) -> Kernel:
    """Compile a traced step; ``name`` is for who reads the source."""
    made = emit(traced, name, dtype, recurrent)
    loops = [
        Loop(made.text, "forward", dtype, made.forward_numbers),
        Loop(made.text, "backward", dtype, made.backward_numbers),
    ]
    forward, backward = (_forward_recurrent, _backward_recurrent) if recurrent else (_forward, _backward)
    return Kernel(
        traced,
        functools.partial(forward, loops[0], traced),
        functools.partial(backward, loops[1], traced),
    )


def _products(way: str, dtype: torch.dtype) -> list[int]:
    """Where the functions are that a recurrent loop calls, forward or backward."""
    return [_product(name, dtype) for name in PRODUCTS[way]]


@functools.cache
def _product(name: str, dtype: torch.dtype) -> int:
    row, matrix, places = (dtype, 1), (dtype, 2), (torch.int64, 1)
    kinds = {
        "multiply": (row, matrix, row, places),
        "push": (row, matrix, row),
        "grow": (row, row, matrix, places),
    }
    return Loop(products(), name, dtype, ()).address(kinds[name])


def _in_threads(
    work: Callable[..., None], worth: int, count: int, unit: int, room: Callable[..., Sequence[Tensor]]
) -> list[Sequence[Tensor]]:
    """Share neurons, or blocks of them, between this thread and a few more: as many as torch may use and the
    work is worth.

    Parameters:
        work: called with the first neuron, the one after the last, and what ``room`` made for its thread.
        worth: time steps times neurons.
        count: how many there are.
        unit: how many of them stay together.
        room: makes what a thread needs for itself, from the first neuron and the one after the last; here,
            because threads would wait for each other there.

    Returns:
        What ``room`` made, for each thread that worked.
    """
    if not worth:
        return []
    units = -(-count // unit)
    threads = max(1, min(torch.get_num_threads(), units, worth // _WORTH))
    bounds = [min(count, units * k // threads * unit) for k in range(threads + 1)]
    rooms = [room(a, b) for a, b in itertools.pairwise(bounds)]
    parts = [(a, b, *own) for (a, b), own in zip(itertools.pairwise(bounds), rooms, strict=True)]
    together([functools.partial(work, *part) for part in parts])
    return rooms


def _forward(
    loop: Loop,
    traced: Traced,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    _weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    x, moves = still(input)
    output, *kept = [_empty(input.shape, input.dtype) for _ in range(1 + len(traced.saved))]
    finals, constants = own(states), wide(parameters, input.shape[1:])
    arrays = [_rows(x), *map(_row, (*finals, *constants)), *map(_rows, (output, *kept))]
    steps, neurons = len(input), input.shape[1:].numel()

    def work(start: int, stop: int, *room: Tensor) -> None:
        loop([*arrays, *room], moves, start, stop, _BLOCK)

    def room(start: int, stop: int) -> list[Tensor]:
        return _events(traced, steps, start, stop, _BLOCK, input.dtype)

    rooms = _in_threads(work, steps * neurons, neurons, _UNIT, room)
    return [output, *finals, *kept, *_joined(traced, rooms, input.dtype)]


def _backward(
    loop: Loop,
    traced: Traced,
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    _recurrent: Sequence[Tensor],
    _asked: Sequence[bool],
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    shape, dtype = gradient.shape[1:], gradient.dtype
    given, states = _empty(gradient.shape, dtype), own(finals)
    sums = [torch.zeros(shape, dtype=dtype) for _ in range(traced.learned)]
    kept, packed = _apart(traced, kept)
    arrays = [*map(_rows, (gradient.contiguous(), *kept, given))]
    arrays += map(_row, (*states, *wide(parameters, shape), *sums))

    def work(start: int, stop: int, *room: Tensor) -> None:
        loop([*arrays, *room], start, stop, _BLOCK)

    def room(_start: int, _stop: int) -> list[Tensor]:
        return _from_packed(packed, _BLOCK)

    count, unit = (len(packed[-1]), 1) if packed else (shape.numel(), _UNIT)
    _in_threads(work, gradient.numel(), count, unit, room)
    return [given, *states, *sums]


def _forward_recurrent(
    loop: Loop,
    traced: Traced,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    steps, shape, dtype = len(input), states[0].shape, input.dtype
    size = shape[-1]
    x, moves = still(input)
    output, *kept = [_empty((steps, *shape), dtype) for _ in range(1 + len(traced.saved))]
    finals, constants = own(states[1:]), wide(parameters, shape)
    arrays = [_rows(x), *map(_row, (*finals, *constants)), *map(_rows, (output, *kept))]
    weighted = [_row(states[0].contiguous()), *(w.T.contiguous() for w in (weights[0], weights[-1]))]
    block = _samples(size) * size
    sizes = *_products("forward", dtype), int(len(weights) > 1), size, input.shape[-1]

    def room(start: int, stop: int) -> list[Tensor]:
        found = torch.empty(max(size, input.shape[-1]), dtype=torch.int64)
        scratch = [*(torch.empty(block, dtype=dtype) for _ in range(2)), found]
        return [*_events(traced, steps, start, stop, block, dtype), *weighted, *scratch]

    def work(start: int, stop: int, *room: Tensor) -> None:
        loop([*arrays, *room], *sizes, moves, start, stop, block)

    rooms = _in_threads(work, output.numel(), shape.numel(), size, room)
    last = output[-1].clone() if steps else states[0].clone()
    return [output, last, *finals, *kept, *_joined(traced, rooms, dtype)]


def _backward_recurrent(
    loop: Loop,
    traced: Traced,
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    recurrent: Sequence[Tensor],
    asked: Sequence[bool],
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    weights, first, output, input_weights, input = [*recurrent, recurrent[0], gradient][:5]
    shape, dtype, size = gradient.shape[1:], gradient.dtype, gradient.shape[-1]
    weighted = len(recurrent) > 3
    given = _empty(input.shape if asked[0] else (0, *input.shape[1:]), dtype)
    g_first, *states = own(finals)
    sums = [torch.zeros(shape, dtype=dtype) for _ in range(traced.learned)]
    x, moves = still(input)
    kept, packed = _apart(traced, kept)
    arrays = [*map(_rows, (gradient.contiguous(), output, *kept, given))]
    arrays += map(_row, (*states, *wide(parameters, shape), *sums))
    fixed = [*map(_row, (finals[0].contiguous(), first.contiguous()))]
    fixed += [weights.contiguous(), _rows(x), input_weights.contiguous()]
    block = _samples(size) * size
    flags = [int(flag) for flag in (weighted, asked[1], weighted and asked[2], asked[0])]
    flags = [*_products("backward", dtype), *flags]

    def room(_start: int, _stop: int) -> list[Tensor]:
        grown = [torch.zeros(*w.T.shape, dtype=dtype) for w in (weights, input_weights)]
        scratch = [torch.empty(block, dtype=dtype) for _ in range(2)]
        own = [*grown, *scratch, torch.empty(max(size, input.shape[-1]), dtype=torch.int64)]
        return [*own, *_from_packed(packed, block)]

    def work(start: int, stop: int, *room: Tensor) -> None:
        gw, gw_in, *scratch = room[:5]
        more = [*room[5:], *fixed, gw, gw_in, _row(g_first), *scratch]
        loop([*arrays, *more], *flags, size, input.shape[-1], moves, start, stop, block)

    count, unit = (len(packed[-1]), 1) if packed else (shape.numel(), size)
    rooms = _in_threads(work, gradient.numel(), count, unit, room)
    grown = [functools.reduce(torch.add, part).T for part in zip(*(room[:2] for room in rooms), strict=True)]
    if not grown:  # no step or no neuron
        given, grown = given.zero_(), [torch.zeros_like(weights), torch.zeros_like(input_weights)]
    return [given, g_first, *states, *sums, *grown]


# -- what is kept for events alone ----------------------------------------------------------------------


def _events(traced: Traced, steps: int, start: int, stop: int, block: int, dtype: torch.dtype) -> list[Tensor]:
    """What the forward loop packs events into: room for one step and for as many as there may be, their bits,
    where each block of neurons ends, and a place to count.

    Room for every neuron at every step is only asked for: memory that is not written to is not taken.
    """
    count = len(traced.events)
    if not count:
        return []
    starts = torch.arange(start, stop, block)
    ends = (starts + block).clamp(max=stop)
    blocks = torch.stack([starts, ends, *[torch.zeros_like(starts)] * 2], dim=1)
    packed = _unwritten((count, steps * (stop - start) + LANES), dtype)
    words = sum(-(-(b - a) // WORD) for a, b, *_ in blocks.tolist())
    masks = torch.empty(steps * words, dtype=torch.int64)
    row = torch.empty(count + bool(traced.marked), block + LANES, dtype=dtype)
    return [row, packed, masks, blocks, torch.zeros(2, dtype=torch.int64)]


def _joined(traced: Traced, rooms: Sequence[Sequence[Tensor]], dtype: torch.dtype) -> list[Tensor]:
    """What the threads packed, ``[E, events + LANES]``, where, and blocks: first neuron, end, both ends."""
    if not traced.events:
        return []
    total = sum(int(place[0]) for _, _, _, _, place, *_ in rooms)
    values, at, words = _empty((len(traced.events), total + LANES), dtype), 0, 0
    nothing = torch.empty(0, dtype=torch.int64)
    tables, parts = [nothing.view(0, 4)], [nothing]
    copies = []
    for _, packed, masks, blocks, place, *_ in rooms:
        end = at + int(place[0])
        copies.append(functools.partial(np.copyto, values[:, at:end].numpy(), packed[:, : end - at].numpy()))
        tables.append(blocks + torch.tensor([0, 0, at, words]))
        parts.append(masks)
        at, words = end, words + len(masks)
    together(copies)
    return [values, torch.cat(parts), torch.cat(tables)]


def _apart(traced: Traced, kept: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """What was kept for all steps, and what was packed."""
    return (kept[:-3], kept[-3:]) if traced.events else (kept, [])


def _from_packed(packed: Sequence[Tensor], block: int) -> list[Tensor]:
    """What the backward loop reads events from, as in :func:`_events`."""
    if not packed:
        return []
    values, masks, blocks = packed
    return [values.new_empty(len(values), block + LANES), values, masks, blocks, blocks.new_zeros(2)]


def _samples(size: int) -> int:
    """Samples that one pass over time takes along: eight at least, which share each reading of the weights."""
    return max(8, _RECURRENT_BLOCK // max(size, 1))


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for a sequence. NumPy asks the system for large pages, of which fewer are to be made ready."""
    if math.prod(shape) * dtype.itemsize < _LARGE or torch.are_deterministic_algorithms_enabled():
        return torch.empty(*shape, dtype=dtype)
    return _unwritten(shape, dtype)


def _unwritten(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.empty(shape, _NUMBER[dtype]))


def _rows(value: Tensor) -> Tensor:
    return value.view(len(value), math.prod(value.shape[1:]))


def _row(value: Tensor) -> Tensor:
    return value.view(value.numel())
