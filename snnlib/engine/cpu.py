"""The fused loop for the CPU: a traced step as machine code, time inside, neurons in blocks outside.

Numba compiles the two programs of :mod:`snnlib.engine.trace` into loops over a block of neurons, which become
SIMD instructions. A block stays in the first cache while time runs over it, so each value of the sequence is
touched once. The additions and multiplications are those of the reference loop in the same order and
precision, so that outputs are equal bit for bit where the step has no exp, tanh and the like.

A recurrent layer is cut into blocks of whole samples. Forward, each neuron's input is gathered from the neurons
that spiked one step before; backward, the transposed weights are dense and serve four samples at a time.
"""

import functools
import itertools
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
from snnlib.engine.fused import Kernel
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
    return Kernel(
        traced,
        functools.partial(_forward, module.forward, numbers[0], len(traced.saved)),
        functools.partial(_backward, module.backward, numbers[1], len(traced.backward.outputs)),
    )


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="snnlib")


# the threads of a pool do not live on in a forked process
os.register_at_fork(after_in_child=_pool.cache_clear)


def _in_threads(work: Callable[[int, int], None], steps: int, neurons: int, unit: int) -> None:
    """Share the neurons between this thread and a few more: as many as torch may use and the work is worth.

    Parameters:
        work: called with the first neuron and the one after the last.
        steps: how many time steps it makes.
        neurons: how many there are.
        unit: how many of them stay together.
    """
    units = -(-neurons // unit)
    threads = max(1, min(torch.get_num_threads(), units, steps * neurons // _WORTH))
    bounds = [min(neurons, units * k // threads * unit) for k in range(threads + 1)]
    parts = list(itertools.pairwise(bounds))
    others = [_pool(threads).submit(work, *part) for part in parts[1:]]
    work(*parts[0])
    for other in others:
        other.result()


def _forward(
    loop: Callable[..., None],
    numbers: tuple[Any, ...],
    saved: int,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Tensor | None,
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    steps, shape = len(input), input.shape[1:]
    moves = int(input.stride(0) != 0 or steps <= 1)  # a constant input is one row that is read again
    x = (input if moves else input[:1]).contiguous()
    first, inner = ([], states) if weights is None else (states[:1], states[1:])
    finals = [value.clone(memory_format=torch.contiguous_format) for value in inner]
    wide = [value.expand(shape).contiguous() for value in parameters]
    output = _empty(input)
    kept = [_empty(input) for _ in range(saved)]
    if input.numel():
        timed = [_rows(x), *map(_row, finals), *map(_row, wide), _rows(output), *map(_rows, kept)]
        unit, block = _cut(weights)
        if weights is not None:
            timed += [_row(first[0].contiguous()), weights.detach().T.contiguous().numpy()]

        def work(a: int, b: int) -> None:
            room = (
                [] if weights is None else [np.empty(block, _NUMBER[input.dtype]), np.empty(unit + 1, np.int64)]
            )
            loop(*timed, *room, moves, a, b, block, *numbers)

        _in_threads(work, steps, shape.numel(), unit)
    last = [output[-1].clone() if steps else value.clone() for value in first]
    return [output, *last, *finals, *kept]


def _backward(
    loop: Callable[..., None],
    numbers: tuple[Any, ...],
    outputs: int,
    gradient: Tensor,
    finals: Sequence[Tensor],
    kept: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Tensor | None,
) -> list[Tensor]:
    """See :class:`snnlib.engine.fused.Kernel`."""
    shape = gradient.shape[1:]
    given = _empty(gradient)
    last, inner = ([], finals) if weights is None else (finals[:1], finals[1:])
    states = [value.clone(memory_format=torch.contiguous_format) for value in inner]
    wide = [value.expand(shape).contiguous() for value in parameters]
    sums = [torch.zeros(shape, dtype=gradient.dtype) for _ in range(outputs - 1 - len(states))]
    if gradient.numel():
        timed = [*map(_rows, (gradient.contiguous(), *kept, given)), *map(_row, (*states, *wide, *sums))]
        unit, block = _cut(weights)
        if weights is not None:
            timed += [_row(last[0].contiguous()), weights.detach().contiguous().numpy()]

        def work(a: int, b: int) -> None:
            room = [] if weights is None else [_room(block, gradient.dtype)]
            loop(*timed, *room, a, b, block, *numbers)

        _in_threads(work, len(gradient), shape.numel(), unit)
    return [given, *states, *sums]


def _cut(weights: Tensor | None) -> tuple[int, int]:
    """How many neurons stay in one thread, and how many are taken along in one pass over time."""
    if weights is None:
        return _UNIT, _BLOCK
    size = len(weights)
    # whole samples; four of them share one reading of the weights
    return size, size * max(4, _BLOCK // max(size, 1))


def _empty(like: Tensor) -> Tensor:
    """Memory for a sequence. NumPy asks the system for large pages, of which fewer are to be made ready."""
    size = like.numel() * like.element_size()
    if size < _LARGE or torch.are_deterministic_algorithms_enabled():
        return torch.empty(like.shape, dtype=like.dtype)
    return torch.from_numpy(np.empty(like.shape, _NUMBER[like.dtype]))


def _room(size: int, dtype: torch.dtype) -> Any:
    """Scratch for one thread, where torch's memory begins: at the start of a cache line."""
    return torch.empty(size, dtype=dtype).numpy()


def _rows(value: Tensor) -> Any:
    return value.detach().view(len(value), -1).numpy()


def _row(value: Tensor) -> Any:
    return value.detach().view(-1).numpy()
