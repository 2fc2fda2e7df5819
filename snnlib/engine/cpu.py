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
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from snnlib.engine.cache import load
from snnlib.engine.emit import emit
from snnlib.engine.fused import Kernel, own, still, wide
from snnlib.engine.trace import Traced

__all__ = ["build"]

_NUMBER: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}
_BLOCK = 1024
"""Neurons that one pass over time takes along: their state and one row of each array fit the first cache."""
_UNIT = 64
"""Neurons that are not shared between threads: a few SIMD registers of them."""
_WORTH = 1 << 15
"""Time steps times neurons for which a further thread is woken."""
_LARGE = 1 << 22
"""Bytes from which NumPy's memory is on large pages."""


def build(traced: Traced, name: str, dtype: torch.dtype, recurrent: bool) -> Kernel:
    """Compile a traced step; ``name`` is for who reads the source."""
    made = emit(traced, name, dtype, recurrent)
    module = load(made.text, f"numba-{numba.__version__}")
    numbers = [tuple(map(_NUMBER[dtype], values)) for values in (made.forward_numbers, made.backward_numbers)]
    forward, backward = (_forward_recurrent, _backward_recurrent) if recurrent else (_forward, _backward)
    return Kernel(
        traced,
        functools.partial(forward, module.forward, numbers[0], len(traced.saved)),
        functools.partial(backward, module.backward, numbers[1], traced.learned),
    )


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snnlib")


# the threads of a pool do not live on in a forked process
os.register_at_fork(after_in_child=_pool.cache_clear)


def _in_threads(
    work: Callable[..., None], steps: int, neurons: int, unit: int, room: Callable[[], Sequence[Any]] = tuple
) -> list[Sequence[Any]]:
    """Share the neurons between this thread and a few more: as many as torch may use and the work is worth.

    Parameters:
        work: called with the first neuron, the one after the last, and what ``room`` made for its thread.
        steps: how many time steps it makes.
        neurons: how many there are.
        unit: how many of them stay together.
        room: makes what a thread needs for itself; here, because threads would wait for each other there.

    Returns:
        What ``room`` made, for each thread that worked.
    """
    if not steps or not neurons:
        return []
    units = -(-neurons // unit)
    threads = max(1, min(torch.get_num_threads(), units, steps * neurons // _WORTH))
    bounds = [min(neurons, units * k // threads * unit) for k in range(threads + 1)]
    rooms = [room() for _ in range(threads)]
    parts = [(a, b, *own) for (a, b), own in zip(itertools.pairwise(bounds), rooms, strict=True)]
    others = [_pool(threads).submit(work, *part) for part in parts[1:]]
    work(*parts[0])
    for other in others:
        other.result()
    return rooms


def _forward(
    loop: Callable[..., None],
    numbers: tuple[Any, ...],
    saved: int,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    _weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    x, moves = still(input)
    output, *kept = [_empty(input.shape, input.dtype) for _ in range(1 + saved)]
    finals, constants = own(states), wide(parameters, input.shape[1:])
    arrays = [_rows(x), *map(_row, (*finals, *constants)), *map(_rows, (output, *kept))]

    def work(start: int, stop: int) -> None:
        loop(*arrays, moves, start, stop, _BLOCK, *numbers)

    _in_threads(work, len(input), input.shape[1:].numel(), _UNIT)
    return [output, *finals, *kept]


def _backward(
    loop: Callable[..., None],
    numbers: tuple[Any, ...],
    learned: int,
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
    sums = [torch.zeros(shape, dtype=dtype) for _ in range(learned)]
    arrays = [*map(_rows, (gradient.contiguous(), *kept, given))]
    arrays += map(_row, (*states, *wide(parameters, shape), *sums))

    def work(start: int, stop: int) -> None:
        loop(*arrays, start, stop, _BLOCK, *numbers)

    _in_threads(work, len(gradient), shape.numel(), _UNIT)
    return [given, *states, *sums]


def _forward_recurrent(
    loop: Callable[..., None],
    numbers: tuple[Any, ...],
    saved: int,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    steps, shape, dtype = len(input), states[0].shape, input.dtype
    size = shape[-1]
    x, moves = still(input)
    output, *kept = [_empty((steps, *shape), dtype) for _ in range(1 + saved)]
    finals, constants = own(states[1:]), wide(parameters, shape)
    arrays = [_rows(x), *map(_row, (*finals, *constants)), *map(_rows, (output, *kept))]
    arrays += [_row(states[0].contiguous()), *(w.T.contiguous().numpy() for w in (weights[0], weights[-1]))]

    block, sizes = _samples(size) * size, (int(len(weights) > 1), size, input.shape[-1])

    def room() -> list[Any]:
        found = np.empty(max(size, input.shape[-1]), np.int64)
        return [*(_row(torch.empty(block, dtype=dtype)) for _ in range(2)), found]

    def work(start: int, stop: int, *room: Any) -> None:
        loop(*arrays, *room, *sizes, moves, start, stop, block, *numbers)

    _in_threads(work, steps, shape.numel(), size, room)
    return [output, output[-1].clone() if steps else states[0].clone(), *finals, *kept]


def _backward_recurrent(
    loop: Callable[..., None],
    numbers: tuple[Any, ...],
    learned: int,
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
    sums = [torch.zeros(shape, dtype=dtype) for _ in range(learned)]
    x, moves = still(input)
    arrays = [*map(_rows, (gradient.contiguous(), output, *kept, given))]
    arrays += map(_row, (*states, *wide(parameters, shape), *sums, finals[0].contiguous(), first.contiguous()))
    arrays += [weights.contiguous().numpy(), _rows(x), input_weights.contiguous().numpy()]
    block = _samples(size) * size
    flags = [int(flag) for flag in (weighted, asked[1], weighted and asked[2], asked[0])]

    def room() -> list[Tensor]:
        grown = [torch.zeros(*w.T.shape, dtype=dtype) for w in (weights, input_weights)]
        scratch = [torch.empty(block, dtype=dtype) for _ in range(2)]
        return [*grown, *scratch, torch.empty(max(size, input.shape[-1]), dtype=torch.int64)]

    def work(start: int, stop: int, *room: Tensor) -> None:
        gw, gw_in, *scratch = (value.numpy() for value in room)
        more = [gw, gw_in, _row(g_first), *scratch, *flags, size, input.shape[-1], moves]
        loop(*arrays, *more, start, stop, block, *numbers)

    rooms = _in_threads(work, len(gradient), shape.numel(), size, room)
    grown = [functools.reduce(torch.add, part).T for part in zip(*(room[:2] for room in rooms), strict=True)]
    if not grown:  # no step or no neuron
        given, grown = given.zero_(), [torch.zeros_like(weights), torch.zeros_like(input_weights)]
    return [given, g_first, *states, *sums, *grown]


def _samples(size: int) -> int:
    """Samples that one pass over time takes along: eight at least, which share each reading of the weights."""
    return max(8, _BLOCK // max(size, 1))


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for a sequence. NumPy asks the system for large pages, of which fewer are to be made ready."""
    if math.prod(shape) * dtype.itemsize < _LARGE or torch.are_deterministic_algorithms_enabled():
        return torch.empty(*shape, dtype=dtype)
    return torch.from_numpy(np.empty(shape, _NUMBER[dtype]))


def _rows(value: Tensor) -> Any:
    return value.detach().view(len(value), math.prod(value.shape[1:])).numpy()


def _row(value: Tensor) -> Any:
    return value.detach().view(value.numel()).numpy()
