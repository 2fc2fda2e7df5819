"""The fused loop for the CPU: a traced step as machine code, time inside, neurons in blocks outside.

LLVM compiles the two programs of :mod:`snnlib.engine.trace` into loops over a block of neurons, which become
SIMD instructions. A block stays in the first cache while time runs over it, so each value of the sequence is
touched once. The additions and multiplications are those of the reference loop in the same order and
precision, so that outputs are equal bit for bit where the step has no exp, tanh and the like.

A recurrent layer is cut into blocks of whole samples, and all products with its weights are in the loop, where
their operands are still in the cache: forward, each neuron's input is gathered from the neurons that spiked one
step before; backward, the gradients of both weights grow step by step.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from snnlib.engine.arrays import outputs, own, still, wide
from snnlib.engine.emit import emit
from snnlib.engine.emit.recurrent import AHEAD, PRODUCTS
from snnlib.engine.kernel import Kernel
from snnlib.engine.llvm.machine import Array, Loop, as_array, shared
from snnlib.engine.llvm.team import together
from snnlib.engine.loops.packed import Own, Packed, unpacked
from snnlib.engine.memory import empty, on_cpu, zeros_on_cpu
from snnlib.engine.program import Traced
from snnlib.engine.sizes import LANES, LINE
from snnlib.engine.threads import DEAR, shared_by, shares_of

__all__ = ["build", "in_strips"]

_BLOCK = 2048
"""Neurons that one pass over time takes along: their state stays in the first caches, and a row of each array
is long enough to be read ahead of its use."""
_RECURRENT_BLOCK = 8192
"""The same in a recurrent layer, whose weights are read once for all of them."""
_LARGE = 1 << 23
"""Bytes of a sequence from which on what is kept for the way back goes past the caches: it would have left them
by then, and to write a line to a cache is to read it first."""
_UNIT = 64
"""Neurons that are not shared between threads: a few SIMD registers of them."""


def build(traced: Traced, name: str, dtype: torch.dtype, recurrent: bool) -> Kernel:
    """Compile a traced step; ``name`` is for who reads the source."""
    made = emit(traced, name, dtype, recurrent)
    ahead = Loop(made.text, "forward", dtype, made.forward_numbers)
    back = Loop(made.text, "backward", dtype, made.backward_numbers)
    if recurrent:
        forward = functools.partial(_forward_recurrent, ahead, traced)
        return Kernel(traced, forward, functools.partial(_backward_recurrent, back, traced))

    @functools.cache
    def past() -> Loop:
        return Loop(emit(traced, name, dtype, past=True).text, "forward", dtype, made.forward_numbers)

    forward = functools.partial(_forward, ahead, past, traced)
    return Kernel(traced, forward, functools.partial(_backward, back, traced))


def _products(way: str, dtype: torch.dtype) -> list[int]:
    """Where the functions are that a recurrent loop calls, forward or backward."""
    return [_product(name, dtype) for name in PRODUCTS[way]]


@functools.cache
def _product(name: str, dtype: torch.dtype) -> int:
    row, matrix, strips, places = (dtype, 1), (dtype, 2), (dtype, 3), (torch.int64, 1)
    kinds = {
        "multiply": (row, strips, row, places),
        "push": (row, strips, row),
        "grow": (row, row, matrix, places),
    }
    return shared("product", name, dtype).address(kinds[name])


def _unpacked(
    traced: Traced, kept: Sequence[Tensor], gradient: Tensor, worth: int, unit: int, block: int, fill: int = 0
) -> tuple[list[Array], list[Own]]:
    """What the threads of a backward pass are given beside the rest: where events were packed, each of them
    works on what one thread packed.

    Parameters:
        kept: what :meth:`snnlib.engine.loops.packed.Packed.kept` gave.
        gradient: of the output.
        worth, unit: see :func:`snnlib.engine.threads.shares_of`.
        fill: 15 if the events of each step were filled up to sixteen.

    Raises:
        RuntimeError: what was packed is not there: who followed did not know of it.
    """
    count = gradient.shape[1:].numel()
    if not traced.events:
        return [], [([], share) for share in shares_of(worth, count, unit)]
    if len(kept) < 1 + (worth > 0):
        raise RuntimeError(
            "what the adjoint kept of its spikes is missing; backend='reference' needs none of it"
        )
    shares = shared_by(len(kept) - 1, count, unit)
    scratch, parts = unpacked(traced, kept, gradient.shape[0], shares, block, gradient.dtype)
    return [scratch], [(own, (fill, *at)) for own, at in parts]


def _forward(
    loop: Loop,
    past: Callable[[], Loop],
    traced: Traced,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    _weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.kernel.Kernel`."""
    x, moves = still(input)
    output, kept = _outputs(traced, input.shape, input.dtype, states)
    finals, constants = own(states), wide(parameters, input.shape[1:])
    shares = shares_of(output.numel(), output.shape[1:].numel(), _UNIT)
    packed = Packed(traced, input.shape[0], shares, _BLOCK, input.dtype)
    arrays = [_rows(x), *map(_row, (*finals, *constants)), *_written(traced, output, kept)]
    run = past() if _goes_past(output) else loop
    together(run.calls(arrays, [(own, (moves, *at, _BLOCK)) for own, at in packed.own]))
    return [output, *finals, *kept, *packed.kept()]


def _outputs(
    traced: Traced, shape: Sequence[int], dtype: torch.dtype, states: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Memory for output and what is saved, with what lies before the first step."""
    output, kept = outputs(traced, shape, dtype, empty)
    if traced.slot is not None:
        kept[0][0] = states[traced.slot]
    return output, kept


def _goes_past(output: Tensor) -> bool:
    """Whether what is kept is larger than a cache, and each row of it so many whole lines that filling up lines
    with events is nothing beside them."""
    row = output[:1].numel()
    return output.nbytes >= _LARGE and row >= 2 * _BLOCK and row * output.itemsize % LINE == 0


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
    """See :class:`snnlib.engine.kernel.Kernel`."""
    shape, dtype = gradient.shape[1:], gradient.dtype
    given, states = empty(gradient.shape, dtype), own(finals)
    sums = [zeros_on_cpu(*shape, dtype=dtype) for _ in range(traced.learned)]
    whole = len(traced.saved) + traced.uses_output
    arrays = [*map(_rows, (gradient.contiguous(), *kept[:whole], given))]
    arrays += [*_silent(traced, shape, dtype), *map(_row, (*states, *wide(parameters, shape), *sums))]

    fill = LANES - 1 if _goes_past(gradient) else 0
    packed, parts = _unpacked(traced, kept[whole:], gradient, gradient.numel(), _UNIT, _BLOCK, fill)
    together(loop.calls([*arrays, *packed], [(own, (*at, _BLOCK)) for own, at in parts]))
    return [given, *states, *sums]


def _forward_recurrent(
    loop: Loop,
    traced: Traced,
    input: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """See :class:`snnlib.engine.kernel.Kernel`."""
    steps, shape, dtype = len(input), states[0].shape, input.dtype
    size = shape[-1]
    x, moves = still(input)
    output, kept = _outputs(traced, (steps, *shape), dtype, states[1:])
    finals, constants = own(states[1:]), wide(parameters, shape)
    arrays = [_rows(x), *map(_row, (*finals, *constants)), *_written(traced, output, kept)]
    weighted = [_row(states[0].contiguous()), *(as_array(in_strips(w.T)) for w in (weights[0], weights[-1]))]
    block = _samples(size) * size
    sizes = *_products("forward", dtype), int(len(weights) > 1), size, input.shape[-1]
    shares = shares_of(DEAR * output.numel(), shape.numel(), size)
    packed = Packed(traced, steps, shares, block, dtype)

    def room() -> list[Array]:
        found = on_cpu(max(size, input.shape[-1]) + LANES, dtype=torch.int64)
        scratch = on_cpu(block, dtype=dtype), on_cpu(AHEAD, block, dtype=dtype), found
        return [*weighted, *map(as_array, scratch)]

    parts = [([*own, *room()], (*sizes, moves, *at, block)) for own, at in packed.own]
    together(loop.calls(arrays, parts))
    last = output[-1].clone() if steps else states[0].clone()
    return [output, last, *finals, *kept, *packed.kept()]


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
    """See :class:`snnlib.engine.kernel.Kernel`."""
    weights, first, output, input_weights, input = [*recurrent, recurrent[0], gradient][:5]
    shape, dtype, size = gradient.shape[1:], gradient.dtype, gradient.shape[-1]
    weighted = len(recurrent) > 3
    given = empty(input.shape if asked[0] else (0, *input.shape[1:]), dtype)
    g_first, *states = own(finals)
    sums = [zeros_on_cpu(*shape, dtype=dtype) for _ in range(traced.learned)]
    x, moves = still(input)
    whole = len(traced.saved)
    arrays = [*map(_rows, (gradient.contiguous(), output, *kept[:whole], given))]
    arrays += [*_silent(traced, shape, dtype), *map(_row, (*states, *wide(parameters, shape), *sums))]
    fixed = [*map(_row, (finals[0].contiguous(), first.contiguous()))]
    fixed += [as_array(in_strips(weights)), _rows(x), as_array(in_strips(input_weights))]
    block = _samples(size) * size
    flags = [int(flag) for flag in (weighted, asked[1], weighted and asked[2], asked[0])]
    flags = [*_products("backward", dtype), *flags]

    def room() -> list[Array]:
        grown = [zeros_on_cpu(*w.T.shape, dtype=dtype) for w in (weights, input_weights)]
        scratch = [on_cpu(AHEAD, block, dtype=dtype), on_cpu(block, dtype=dtype)]
        found = on_cpu(max(size, input.shape[-1]) + LANES, dtype=torch.int64)
        return [as_array(value) for value in (*grown, *scratch, found)]

    packed, shares = _unpacked(traced, kept[whole:], gradient, DEAR * gradient.numel(), size, block)
    rooms = [room() for _ in shares]
    sizes = *flags, size, input.shape[-1], moves
    parts = [
        ([*own, *fixed, gw, gw_in, _row(g_first), *scratch], (*sizes, *at, block))
        for (own, at), (gw, gw_in, *scratch) in zip(shares, rooms, strict=True)
    ]
    together(loop.calls([*arrays, *packed], parts))
    sums_of_threads = zip(*([value for value, _ in grown[:2]] for grown in rooms), strict=True)
    grown = [functools.reduce(torch.add, part).T for part in sums_of_threads]
    if not grown:  # no step or no neuron
        given, grown = given.zero_(), [torch.zeros_like(weights), torch.zeros_like(input_weights)]
    return [given, g_first, *states, *sums, *grown]


def in_strips(weights: Tensor) -> Tensor:
    """``[N, M]`` as ``[strips, N, LANES]``, see :mod:`snnlib.engine.loops.strips`."""
    width = weights.shape[1]
    if width < LANES:
        weights, width = torch.nn.functional.pad(weights, (0, LANES - width)), LANES
    if width % LANES:
        whole = width - width % LANES
        weights = torch.cat([weights[:, :whole], weights[:, -LANES:]], 1)
    strips = weights.view(len(weights), weights.shape[1] // LANES, LANES)
    return strips.transpose(0, 1).contiguous()


def _samples(size: int) -> int:
    """Samples that one pass over time takes along: eight at least, which share each reading of the weights."""
    return max(8, _RECURRENT_BLOCK // max(size, 1))


def _written(traced: Traced, output: Tensor, kept: Sequence[Tensor]) -> list[Array]:
    """What each step of a forward pass writes a row of."""
    return [_rows(output), *(_rows(value[traced.rows_before :]) for value in kept)]


def _silent(traced: Traced, shape: torch.Size, dtype: torch.dtype) -> list[Array]:
    """The output before the first step, where a backward pass reads one."""
    return [_row(zeros_on_cpu(*shape, dtype=dtype)) for _ in range(traced.rows_before)]


def _rows(value: Tensor) -> Array:
    shape = value.shape
    return value, (shape[0], math.prod(shape[1:]))


def _row(value: Tensor) -> Array:
    return value, (value.numel(),)
